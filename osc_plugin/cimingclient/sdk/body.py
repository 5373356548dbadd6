# SPDX-License-Identifier: Apache-2.0
"""The body of an upload, read in blocks: memory stays the same whatever the size."""

import io
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from cimingclient.sdk import exceptions

BLOCK = 1 << 20

#: Called with the bytes sent, and the bytes there are or None when nobody knows.
Progress = Callable[[int, int | None], None]


class Body:
    """An iterable that starts over each time, as a request is sent again after a refused token.

    `len` is the number of bytes, or None for a pipe; requests reads it and announces the length,
    or sends chunks. Not `__len__`: an empty body would be false, and dropped.

    :param skip: bytes at the beginning that the service has already.
    :param total: bytes there were when they were announced; None: as many as there are.
    :raises SourceError: a pipe ended before the byte where to go on
    """

    def __init__(
        self,
        source: BinaryIO,
        progress: Progress | None = None,
        skip: int = 0,
        total: int | None = None,
    ) -> None:
        self._source = source
        self._progress = progress
        self._skip = skip
        self._started = False
        self._start, self._total = extent(source)
        if total is not None:
            self._total = total
        self.len = None if self._total is None else max(0, self._total - skip)
        # What a slow pipe has is sent as it comes: the service hangs up where nothing does for a while.
        whole = self.replayable or not hasattr(source, "read1")
        self._read: Callable[[int], bytes] = source.read if whole else source.read1  # type: ignore[attr-defined]
        if not self.replayable:     # before there is a connection, which would wait for it
            self._read_past()

    @property
    def replayable(self) -> bool:
        """Whether the bytes can be read a second time."""
        return self.len is not None

    def __iter__(self) -> Iterator[bytes]:
        if self._started and not self.replayable:
            raise exceptions.SourceError("The input cannot be read a second time.")
        self._started = True
        try:
            if self.replayable:
                self._source.seek(self._start + self._skip)
            yield from self._blocks()
        except OSError as exc:
            # Of the file or the callback. The HTTP library would take it for the connection's.
            raise _unreadable(exc) from exc

    def _read_past(self) -> None:
        left = self._skip
        while left:
            try:
                block = self._source.read(min(BLOCK, left))
            except OSError as exc:
                raise _unreadable(exc) from exc
            if not block:
                raise exceptions.SourceError(f"The input ended before byte {self._skip}, where to go on.")
            left -= len(block)

    def _blocks(self) -> Iterator[bytes]:
        sent = 0
        while block := self._read(self._next(sent)):
            yield block
            sent += len(block)
            if self._progress:
                self._progress(self._skip + sent, self._total)
        if self.len is not None and sent < self.len:
            raise exceptions.SourceError(
                f"The input ended after {self._skip + sent} of {self._total} bytes: it became shorter "
                "meanwhile."
            )

    def _next(self, sent: int) -> int:
        # A file that grows meanwhile is sent as long as it was announced.
        return BLOCK if self.len is None else min(BLOCK, self.len - sent)


def _unreadable(error: OSError) -> exceptions.SourceError:
    return exceptions.SourceError(f"Cannot read the input: {error}")


def extent(source: BinaryIO) -> tuple[int, int | None]:
    """Where the bytes begin and how many there are; None for what has no way back."""
    try:
        start = source.tell()
        end = source.seek(0, os.SEEK_END)
        source.seek(start)
    except (AttributeError, io.UnsupportedOperation, OSError):
        return 0, None
    return start, end - start
