# SPDX-License-Identifier: Apache-2.0
"""A staged file that may still grow, for those who send it on meanwhile.

One stage flow brings its bytes in and looks at them; any number of publish flows follow in threads of
their own. The last block is held back until all of it was looked at, so that nothing can become an image
before.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ciming import exceptions, staging

LOOK_SECONDS = 0.5      # between two questions whether to go on waiting
Alive = Callable[[], None]


class Stalled(Exception):
    """What was sent on so far is of no use: the bytes come too slowly, or others came in their place."""


class GrowingFile:
    """Looks like a StagedFile; its digests are known when it is whole."""

    def __init__(self) -> None:
        self.epoch = 0      # another one: what was read before is void
        self._changed = threading.Condition()
        self._file: BinaryIO | None = None
        self._earlier: list[BinaryIO] = []      # somebody may be reading them
        self._there = 0     # bytes that were looked at
        self._known: staging.StagedFile | None = None   # what its beginning tells,
        self._settled = False                           # or that of what was here before
        self._whole: staging.StagedFile | None = None
        self._failure: BaseException | None = None
        self._guest: str | None = None
        self.wanted = threading.Event()     # somebody asks for the bytes

    # Who brings the bytes in

    def begin(self, file: BinaryIO) -> None:
        """The bytes are in this file, and come from its start."""
        with self._changed:
            if self._file:
                self._earlier.append(self._file)
                self.epoch += 1
            self._file, self._there, self._settled = file, 0, False

    def advance(self, there: int, known: staging.StagedFile | None) -> None:
        """So many bytes are fine; `known` is what they tell of the file, if they do."""
        with self._changed:
            self._there = max(self._there, there)
            if known and not self._settled:
                self._known, self._settled = known, True
            self._changed.notify_all()

    def finish(self, whole: staging.StagedFile) -> None:
        """All bytes are fine."""
        with self._changed:
            if self._known and self._known.disk_format != whole.disk_format:
                self.epoch += 1
            if self._file is None:
                self._file = Path(whole.path).open("rb", buffering=0)  # noqa: SIM115  # see close()
            self._whole, self._there = whole, whole.size
            self._changed.notify_all()

    def fail(self, reason: BaseException) -> None:
        """Nobody goes on; does nothing when all is fine already."""
        with self._changed:
            if self._whole is None:
                self._failure = self._failure or reason
            self._changed.notify_all()

    def close(self) -> None:
        for file in (*self._earlier, self._file):
            if file:
                file.close()

    # Who sends them on

    @property
    def whole(self) -> bool:
        return self._whole is not None

    @property
    def failure(self) -> BaseException | None:
        """What ended the stage flow, if anything did."""
        return self._failure

    @property
    def _what(self) -> staging.StagedFile:
        found = self._whole or self._known
        assert found is not None, "await_known() comes first"
        return found

    @property
    def path(self) -> str:
        return self._what.path

    @property
    def disk_format(self) -> str:
        return self._what.disk_format

    @property
    def converted_for(self) -> str | None:
        return self._what.converted_for

    @property
    def size(self) -> int:
        return self._what.size

    @property
    def virtual_size(self) -> int:
        return self._what.virtual_size

    def digest(self, algorithm: str, alive: Alive = lambda: None) -> str:
        """The hex digest of the whole file.

        :param alive: asked while it is read
        :raises ValueError: hashlib does not know the algorithm
        """
        assert self._whole is not None, "await_whole() comes first"
        return self._whole.digest(algorithm, alive)

    def guest_digest(self, alive: Alive = lambda: None) -> str:
        """The digest of the disk in it; it is made up once."""
        assert self._whole is not None, "await_whole() comes first"
        self._guest = self._guest or self._whole.guest_digest(alive)
        return self._guest

    @property
    def guest(self) -> str | None:
        """The same, if somebody has asked for it."""
        return self._guest

    def check(self) -> None:
        """:raises BaseException: what ended the stage flow"""
        if self._failure is not None:
            raise self._failure

    def await_known(self, alive: Alive) -> None:
        """Wait until format and size are known."""
        self._await(lambda: self._settled or self.whole, alive)

    def await_whole(self, alive: Alive) -> None:
        """Wait until all of it is fine."""
        self._await(lambda: self.whole, alive)

    def read(self, position: int, epoch: int) -> bytes:
        """The next block, empty where it may not be sent on yet.

        :raises Stalled: the epoch is over
        :raises ProviderError: the staging area lost bytes
        """
        with self._changed:
            if epoch != self.epoch:
                raise Stalled("other bytes came")
            if not self._may_read(position) or self._file is None:
                return b""
            fd, size = self._file.fileno(), self.size
        block = os.pread(fd, min(staging.BLOCK, size - position), position)
        if not block:
            raise exceptions.ProviderError(
                f"The staged file has {position} bytes instead of {size}.", code="staging.damaged"
            )
        return block

    def await_next(self, position: int, epoch: int, alive: Alive, patience: float) -> None:
        """Wait until the block at a position may be sent on.

        :param patience: seconds
        :raises Stalled: it takes longer
        """
        until = time.monotonic() + patience
        self._await(lambda: self._may_read(position) or epoch != self.epoch, alive, until)

    def _may_read(self, position: int) -> bool:
        return self.whole or position + staging.BLOCK <= min(self._there, self.size - 1)

    def _await(self, condition: Callable[[], bool], alive: Alive, until: float = float("inf")) -> None:
        self.wanted.set()
        with self._changed:
            while not condition():
                self.check()
                if time.monotonic() > until:
                    raise Stalled("no bytes came")
                with _unlocked(self._changed):
                    alive()
                if not condition():
                    self._changed.wait(LOOK_SECONDS)
            self.check()


@contextlib.contextmanager
def _unlocked(condition: threading.Condition) -> Iterator[None]:
    condition.release()
    try:
        yield
    finally:
        condition.acquire()
