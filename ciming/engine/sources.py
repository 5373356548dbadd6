# SPDX-License-Identifier: Apache-2.0
"""Where a stage flow's bytes come from."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from ciming import exceptions, growing, staging
from ciming.db import uploads, work
from ciming.providers import base

TELL_SECONDS = 0.5      # between two notes of how much has come
PAUSES = (0.02, 0.5)    # seconds between two looks at an upload that comes: from, to


class Replaced(Exception):
    """Other bytes came in place of those that were taken: begin again."""


class Stalls(exceptions.Interrupted):
    """No more bytes come for now."""


def lost() -> exceptions.CimingError:
    """The error of one whose bytes had come."""
    return exceptions.CimingError(
        "The staging area lost the image's bytes. Create the image again.", code="staging.damaged"
    )


class Source(Protocol):
    """Brings a Job's bytes, in order."""

    path: Path
    """Where they are in the staging area."""

    def blocks(self, staged: growing.GrowingFile, alive: Callable[[], None]) -> Iterator[bytes]:
        """All bytes, as they become available."""

    def find(self, path: str) -> str:
        """Where bytes are that were at a path: a run that died may have kept them."""

    def keep(self, path: str) -> str:
        """They are fine: where they are from now on."""


class Upload:
    """An upload, as it comes: its row says how many bytes are on disk, and its file has them.

    Where the same upload goes on in another request, the file gets another name, some time after the row
    has another generation; where another one began, there is another file.

    :param patience: seconds without a byte after which it is left alone until it is whole
    """

    def __init__(self, area: staging.StagingArea, claim: work.Claim, patience: float) -> None:
        self._area = area
        self._claim = claim
        self._patience = patience
        self.path = Path()      # of the file, as far as it is known

    def blocks(self, staged: growing.GrowingFile, alive: Callable[[], None]) -> Iterator[bytes]:
        """All bytes, in order, as they become available.

        :raises Replaced: take them again, from the start
        :raises Stalls: they do not come now
        """
        state, opened = self._open(alive)
        with opened as file:
            staged.begin(_another(file))
            position, pause, last = 0, PAUSES[0], time.monotonic()
            while True:
                while position < state.offset:
                    block = file.read(min(staging.BLOCK, state.offset - position))
                    if not block:
                        return      # the file is too short, and whoever counts will say so
                    position += len(block)
                    yield block
                    last, pause = time.monotonic(), PAUSES[0]
                if state.complete:
                    return
                if time.monotonic() - last > self._patience:
                    raise Stalls("The upload stalls: it is followed no more until it is whole.")
                alive()
                time.sleep(pause)
                pause = min(pause * 1.5, PAUSES[1])
                state = self._state(position, file)

    def find(self, path: str) -> str:
        return path

    def keep(self, path: str) -> str:
        return path

    def _open(self, alive: Callable[[], None]) -> tuple[uploads.Progress, BinaryIO]:
        """How far the upload is, and its file, when that is there.

        :raises CimingError: the upload is whole, and there is none
        :raises Stalls: it does not come now
        """
        until = time.monotonic() + self._patience
        while True:
            state = self._state(0, None)
            if self._find(state):
                with contextlib.suppress(FileNotFoundError):    # it gets another name
                    return state, self.path.open("rb", buffering=0)
            elif state.complete:
                raise lost()
            if time.monotonic() > until:
                raise Stalls("Nothing of the upload is there yet.")
            alive()
            time.sleep(PAUSES[0])

    def _find(self, state: uploads.Progress) -> bool:
        """Is the file there that has the bytes which the row says are on disk? `path` is where."""
        size = 0 if state.complete else state.offset    # of a whole one, whoever counts will say so
        found = self._area.uploaded(self._claim.job_id, state.generation, size)
        self.path = found or self.path
        return found is not None

    def _state(self, position: int, file: BinaryIO | None) -> uploads.Progress:
        """How far the upload is, if it is still that of our file.

        :raises CimingError: it was given up
        """
        with work.interrupting():
            state = uploads.progress(self._claim.job_id)
        if state.error:
            raise exceptions.CimingError(state.error["message"], code=state.error["code"])
        if file is not None and (state.offset < position or not self._is(file, state)):
            raise Replaced
        return state

    def _is(self, file: BinaryIO, state: uploads.Progress) -> bool:
        try:
            return self._find(state) and os.path.samestat(self.path.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:       # it gets another name
            return False


class Origin(NamedTuple):
    """An image in a Cloud, and how many bytes it has."""

    provider: base.Provider
    image_ref: str
    size: int


class Remote:
    """A Cloud that has the image: its bytes are brought to where they shall be, or were.

    What an earlier attempt brought is not brought again.

    :param origin: asked at each attempt
    :param path: where they are to be
    :param tell: how many bytes are on the disk by now
    :param told: asked at each attempt, what the last one told; None: what earlier attempts brought counts as
        it is, since who has the whole compares it
    """

    def __init__(
        self,
        area: staging.StagingArea,
        claim: work.Claim,
        origin: Callable[[], Origin],
        path: Path,
        tell: Callable[[int], None] | None = None,
        told: Callable[[], int] | None = None,
    ) -> None:
        self._area = area
        self._claim = claim
        self._origin = origin
        self._kept = path
        self._tell = tell
        self._tells = told
        self._told: int | None = None
        self.path = Path()

    def blocks(self, staged: growing.GrowingFile, alive: Callable[[], None]) -> Iterator[bytes]:
        """All bytes, first those that are here.

        :raises TransientProviderError: not all of them came
        """
        claim, self._told = self._claim, self._tells() if self._tells else None
        with self._area.restored(claim.job_id, claim.generation, self._told) as file:
            self.path = self._area.restored_path(claim.job_id, claim.generation)
            staged.begin(_another(file))
            while block := file.read(staging.BLOCK):
                yield block
            alive()
            there, told = file.tell(), self._told or 0
            with contextlib.closing(staging.Syncer(file, told if told <= there else 0)) as disk:
                try:
                    yield from self._fetched(file, disk, alive)
                except exceptions.TransientProviderError:
                    if self.path.exists():
                        self._note(disk, file.tell())
                    raise

    def _fetched(self, file: BinaryIO, disk: staging.Syncer, alive: Callable[[], None]) -> Iterator[bytes]:
        """The bytes that are not here, as they come."""
        if file.tell() < (self._told or 0):     # what was told is gone
            self._note(disk, file.tell())
        origin, noted = self._origin(), time.monotonic()
        for block in origin.provider.download(origin.image_ref, file.tell()):
            alive()
            staging.write_sparse(file, block)
            if file.tell() > origin.size:
                staging.unlink(self.path)
                raise _other_size(origin, "more than")
            disk.follow(file.tell())
            yield block
            if time.monotonic() - noted > TELL_SECONDS:
                self._note(disk, disk.synced if disk.synced > (self._told or 0) else file.tell())
                noted = time.monotonic()
            alive()     # who waits for the next one is in nobody's way
        disk.sync(file.tell())      # what is whole is counted on
        self._note(disk, file.tell())
        if file.tell() < origin.size:
            raise _other_size(origin, "fewer than")

    def _note(self, disk: staging.Syncer, there: int) -> None:
        """That so much is on the disk: whoever goes on counts on it, after a power cut too."""
        if self._tell:
            self._told = disk.sync(there)
            self._tell(self._told)

    def find(self, path: str) -> str:
        return path if Path(path).exists() else str(self._kept)

    def keep(self, path: str) -> str:
        if path != str(self._kept):
            with Path(path).open("rb") as file:     # who notes that it is here counts on it after a power cut
                os.fsync(file.fileno())
            staging.rename(Path(path), self._kept)
        return str(self._kept)


def _other_size(origin: Origin, how_many: str) -> exceptions.TransientProviderError:
    return exceptions.TransientProviderError(
        f"Image {origin.image_ref} gave {how_many} the {origin.size} bytes that it is said to have.",
        code="cloud.bad_answer",
    )


def _another(file: BinaryIO) -> BinaryIO:
    """The same file for others, who may outlive us."""
    return os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
