# SPDX-License-Identifier: Apache-2.0
"""What the stage flow's tasks may touch: the source, and the staged file that grows."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg

from ciming import exceptions, growing, staging
from ciming.db import models, uploads, work
from ciming.engine import locating, slots, sources, tools
from ciming.engine import watch as watch_
from ciming.providers import base


class StageTools(tools.Tools):
    """For the stage flow."""

    source: sources.Source

    def __init__(
        self,
        job: models.Job,
        watch: watch_.Watch,
        staged: growing.GrowingFile,
        claim: work.Claim,
        slot: slots.Slot,
        room: uploads.Room,
    ) -> None:
        super().__init__(job, watch, staged)
        self.max_virtual_size: int = cfg.CONF.staging.max_virtual_size
        self._claim = claim
        self._slot = slot
        self._there = 0
        self._room = room
        self._let_in = bool(self._found)
        self._fault = job.error
        self._provider: base.Provider | None = None

    @property
    def receiving(self) -> str:
        """The step in which bytes come."""
        return "download" if self._found else "inspect"

    @property
    def declared_format(self) -> str | None:
        """What its user, or the Cloud that has it, says that the file is."""
        if self._found.get("converted"):
            return str(self._found["disk_format"])
        declared: str | None = (self.job.spec or {}).get("disk_format") or self._found.get("disk_format")
        return declared

    @property
    def _found(self) -> Mapping[str, Any]:
        """The source, where that is an image in a Cloud and located."""
        return self.job.source

    def locate(self) -> None:
        """Find the source, and note it.

        :raises CimingError: it can not be read, or there is no room for it
        """
        found = locating.find(self.job, self.provider_of)
        if not found.get("converted"):      # else it is a Link, which tells that already
            assert self._provider is not None       # of the last that was asked, which has it
            found |= tools.whose(locating.place_of(found), self._provider)
        work.found(self._claim, found, self._room)
        self.job = work.load(self._claim)

    def origin(self) -> sources.Origin:
        """The source that was located, as the Job's user."""
        found = self._found
        provider = self.provider_of(locating.place_of(found))
        return sources.Origin(provider, found["image_ref"], found["size"])

    def provider_of(self, place: models.Target | locating.Place) -> base.Provider:
        """A Cloud that may have the source, as the Job's user."""
        self._provider = tools.provider_of(self.job, place)
        return self._provider

    def _called(self) -> Iterable[base.Provider]:
        if self._provider is not None:
            yield self._provider

    def blocks(self) -> Iterator[bytes]:
        """All bytes of the source, in order, as they become available. To be closed: it holds a slot."""
        self._there = 0
        try:
            for block in self.source.blocks(self.staged, self._waiting):
                self._slot.take(self.alive)
                self.alive()
                yield block
        finally:
            self._slot.free()

    def _waiting(self) -> None:
        """Who waits for bytes leaves the processor to those that have some."""
        self._slot.free()
        self.alive()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """One of few that look at whole files at a time."""
        self._slot.take(self.alive)
        try:
            yield
        finally:
            self._slot.free()

    def looked_at(self, count: int, disk_format: str | None) -> None:
        """So many more bytes are fine, and may be sent on to Clouds where the format is known."""
        self._there += count
        size = self.job.upload.size if self.job.upload else None
        known, slow = None, self._found.get("converted")    # nobody follows until its disk was compared
        if disk_format and size is not None and not slow:
            known = staging.StagedFile("", disk_format, size, 0, {})
        self.staged.advance(self._there, known)

    def received(self, disk_format: str, virtual_size: int, digests: dict[str, str]) -> staging.StagedFile:
        """What came, from first byte to last."""
        path = str(self.source.path)
        return staging.StagedFile(path, disk_format, self._there, virtual_size, digests)

    def check_promises(self, staged: staging.StagedFile) -> None:
        """Are these the bytes that were received, and that the caller has the checksum of?

        :raises CimingError: the staging area lost some of them
        :raises ImageRejected: they are others
        """
        file = work.load(self._claim).file
        size, sha512 = file["size"], file["digests"].get("sha512")
        theirs = self._found.get("digests", {})
        others = [name for name, digest in theirs.items() if self._digest(staged, name) != digest]
        if others or sha512 not in (None, staged.digests["sha512"]):      # they were looked at before
            staging.unlink(Path(staged.path))      # or a retry would find them again
            raise exceptions.ProviderError(
                "The Cloud that has the image gave other bytes than it "
                f"{f'says by its {others[0]}' if others else 'got'}.",
                code="cloud.bad_answer",
            )
        if staged.size != size:
            raise exceptions.CimingError(
                f"{size} bytes were received, but the staging area holds {staged.size}.",
                code="staging.damaged",
            )
        if self._found.get("converted"):        # what was promised is about the file that came first
            return
        algorithm, _, promised = (self.job.spec or {}).get("checksum", "").partition(":")
        found = staged.digest(algorithm, self.alive) if promised else ""
        if found != promised.lower():
            raise exceptions.ImageRejected(
                f"The data has {algorithm} {found}, but {promised.lower()} was given at create. Check the "
                "file, and create the image again.",
                code="image.checksum_mismatch",
            )

    def _digest(self, staged: staging.StagedFile, algorithm: str) -> str:
        try:
            return staged.digest(algorithm, self.alive)
        except ValueError:
            raise exceptions.ProviderError(
                f"The Cloud that has the image hashes by {algorithm}, which CIMinG can not compute.",
                code="image.hash_unknown",
            ) from None

    def check_disk(self, staged: staging.StagedFile) -> None:
        """Is it the Image's disk, where it is another file than that which came first?

        :raises ProviderError: it is not
        """
        if not self._found.get("converted"):
            return
        image = self.job.image
        same = staged.guest_digest(self.alive) == image.digests["guest"]
        if not same or staged.virtual_size < (image.virtual_size or 0):
            staging.unlink(Path(staged.path))      # or a retry would find it again
            raise exceptions.ProviderError(
                f"Image {self._found['image_ref']} in {self._found['cloud']} is not what Image {image.id} "
                "was: it is another disk.",
                code="source.changed",
            )

    def find(self, received: staging.StagedFile) -> staging.StagedFile:
        """What was received, where it is now."""
        path = self.source.find(received.path)
        if not Path(path).exists():
            raise sources.lost()
        return dataclasses.replace(received, path=path)

    def finish(self, staged: staging.StagedFile) -> None:
        """The stage flow has passed it."""
        staged = dataclasses.replace(staged, path=self.source.keep(staged.path))
        digests = {name: staged.digests[name] for name in ("sha256", "sha512")}
        work.staged(
            self._claim, disk_format=staged.disk_format, virtual_size=staged.virtual_size, digests=digests
        )
        if self._found.get("converted"):
            disk = self.job.image.digests["guest"]
            staged = dataclasses.replace(staged, guest=disk, converted_for=self._found["cloud"])
        self.staged.finish(staged)

    @property
    def lost(self) -> bool:
        """Has it failed because what had come is not there any more?"""
        return bool(self._fault and self._fault["code"] == "staging.damaged")

    def tell_lost(self) -> None:
        """What had come, and was fine, is not there any more."""
        self._tell(sources.lost(), final=True)

    def _write(self, **values: Any) -> None:
        work.update_stage(self._claim, step=values.get("step"), error=values.get("error"))
