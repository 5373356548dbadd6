# SPDX-License-Identifier: Apache-2.0
"""A Job's image in other formats, for Clouds that do not take the one it came in.

Each format is made once, in a thread of its own, when the first Target asks for it. Where that one's cloud
wants hashes, its file is hashed as it is sent on: Targets follow it as they follow an upload. After a crash
it is found again, or made again.
"""

import dataclasses
import os
import threading
from concurrent import futures
from pathlib import Path

from oslo_log import log

from ciming import disk_image, exceptions, growing, staging
from ciming.db import work
from ciming.engine import slots, watch

LOG = log.getLogger(__name__)
STAT_BLOCK = 512    # bytes


class Conversions:
    """Of one claimed Job. To be closed, when nobody follows any more.

    :param source: the image as it came
    """

    def __init__(
        self,
        area: staging.StagingArea,
        claim: work.Claim,
        watching: watch.Watch,
        source: growing.GrowingFile,
        limit: slots.Slots,
    ) -> None:
        self._area = area
        self._claim = claim
        self._watch = watching
        self._source = source
        self._limit = limit
        self._lock = threading.Lock()
        self._files: dict[str, growing.GrowingFile] = {}
        self._there: dict[str, int] = {}    # by format: bytes on disk,
        self._coming: dict[str, int] = {}   # and bytes that will be, of what is being converted
        self._earlier: list[growing.GrowingFile] = []   # that failed
        self._over = threading.Event()
        self._pool = futures.ThreadPoolExecutor(len(disk_image.FORMATS_OUT), "convert")

    def of(self, disk_format: str, *, hashed: bool = True) -> growing.GrowingFile:
        """The image in this format, on its way; what has failed is begun anew.

        As soon as it is known its file is whole.

        :param hashed: it is wanted with its digests, if it is not being made already
        :raises Unavailable: there can be no more threads now
        """
        with self._lock:
            found = self._files.get(disk_format)
            if found is None or found.failure:
                self._earlier += [found] if found else []
                found = self._files[disk_format] = growing.GrowingFile()
                try:
                    self._pool.submit(self._bring, disk_format, found, hashed)
                except RuntimeError as error:
                    found.fail(error)       # its turn may come all the same
                    raise exceptions.Unavailable("The engine can begin no conversion now.") from error
            return found

    def close(self) -> None:
        """End what still runs."""
        self._over.set()
        self._pool.shutdown()
        for file in (*self._earlier, *self._files.values()):
            file.close()

    def _alive(self) -> None:
        """:raises BaseException: nobody wants it any more"""
        if self._over.is_set():
            raise exceptions.Interrupted("All Targets have ended.")
        self._watch.ask()
        if self._watch.cancelled:
            raise exceptions.Cancelled("The Job was cancelled.")

    def _bring(self, disk_format: str, file: growing.GrowingFile, hashed: bool) -> None:
        if file.failure:
            return
        slot = self._limit.slot()
        try:
            self._source.await_whole(self._alive)
            slot.take(self._alive)
            path = self._find(disk_format) or self._make(disk_format)
            found = disk_image.inspect_file(path, disk_format)
            size, guest = path.stat().st_size, work.load(self._claim).image.digests.get("guest")
            known = staging.StagedFile(str(path), disk_format, size, found.virtual_size, {}, guest)
            if hashed:
                self._hash(path, known, file)
            else:
                file.finish(known)
        except BaseException as reason:
            if not isinstance(reason, exceptions.CimingError | exceptions.Interrupted):
                LOG.exception("Unexpected error in a conversion to %s", disk_format)
            file.fail(reason)
        finally:
            slot.free()

    def _find(self, disk_format: str) -> Path | None:
        """What was converted before a crash."""
        folder = self._area.folder(self._claim.job_id)
        files = sorted(folder.glob(f"converted-{disk_format}.*"), key=lambda path: int(path.suffix[1:]))
        if not files:
            return None
        self._settle(disk_format, files[-1])
        return files[-1]

    def _make(self, disk_format: str) -> Path:
        """:raises StagingFull: there is no room for it"""
        source = Path(self._source.path)
        found = disk_image.Inspection(self._source.disk_format, self._source.virtual_size)
        self._reserve(disk_format, disk_image.room_needed(source, found, self._alive))
        try:
            made = self._convert(source, found, disk_format)
        except Exception:       # else somebody goes on with it
            self._settle(disk_format, None)
            raise
        self._settle(disk_format, made)
        return made

    def _convert(self, source: Path, found: disk_image.Inspection, disk_format: str) -> Path:
        folder, generation = self._area.folder(self._claim.job_id), self._claim.generation
        for left in folder.glob(f"converting-{disk_format}.*"):     # by an engine that died
            staging.unlink(left)
        path = folder / f"converting-{disk_format}.{generation}"
        LOG.info("Converting %s to %s", found.disk_format, disk_format)
        made = disk_image.convert(source, found, path, disk_format, self._alive)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        self._alive()
        work.proven(self._claim, made.guest)
        whole = folder / f"converted-{disk_format}.{generation}"
        staging.rename(path, whole)
        return whole

    def _reserve(self, disk_format: str, count: int) -> None:
        with self._lock:
            coming = {**self._coming, disk_format: count}
            work.reserve(self._claim, sum(self._there.values()), sum(coming.values()), self._area.room)
            self._coming = coming

    def _settle(self, disk_format: str, path: Path | None) -> None:
        """It is there, or will not be: others may have what of its room it does not take."""
        with self._lock:
            self._coming.pop(disk_format, None)
            if path:
                self._there[disk_format] = path.stat().st_blocks * STAT_BLOCK
            work.reserve(self._claim, sum(self._there.values()), sum(self._coming.values()))

    def _hash(self, path: Path, known: staging.StagedFile, file: growing.GrowingFile) -> None:
        """Have it sent on as far as it is hashed, and its end when all of it is."""
        file.begin(path.open("rb", buffering=0))
        hasher, there = staging.Hasher("sha512"), 0
        for block in staging.read_blocks(path):
            self._alive()
            hasher.update(block)
            there += len(block)
            file.advance(there, known)
        file.finish(dataclasses.replace(known, digests=hasher.digests()))
