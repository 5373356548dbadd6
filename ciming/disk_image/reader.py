# SPDX-License-Identifier: Apache-2.0
"""Reads parts of an image file; whatever a table claims to lie outside of it is a broken image."""

import os
import sys
from array import array
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

from ciming.disk_image import rejections

PIECE = 1024 * 1024
WIDTH_CODES = {4: "I", 8: "Q"}


class Territory:
    """Which parts of a file are taken: a bit for each `unit` bytes, so that nothing is used twice."""

    def __init__(self, size: int, unit: int) -> None:
        """:param size: of the file in bytes"""
        self._size = size
        self._unit = unit
        self._bits = bytearray(size // unit // 8 + 1)

    def take(self, offset: int, length: int) -> bool:
        """:returns: whether these bytes are in the file, and were nobody's before"""
        if offset + length > self._size:
            return False
        first, end = offset // self._unit, -(-(offset + length) // self._unit)
        place = slice(first // 8, -(-end // 8))
        wanted = ((1 << (end - first)) - 1) << first % 8
        taken = int.from_bytes(self._bits[place], "little")
        self._bits[place] = (taken | wanted).to_bytes(place.stop - place.start, "little")
        return not taken & wanted


class Reader:
    """A file and its size in bytes.

    :param alive: asked at each read; what that raises ends it
    """

    def __init__(self, file: BinaryIO, alive: Callable[[], None] = lambda: None) -> None:
        self._file = file
        self._alive = alive
        self.size = os.fstat(file.fileno()).st_size

    def at(self, offset: int, length: int, what: str) -> bytes:
        """Exactly `length` bytes.

        :param what: the thing that is read, for the message
        :raises ImageRejected: the file has no such bytes
        """
        if offset + length > self.size:
            raise rejections.broken(f"the {what} lies beyond the end of the file")
        self._alive()
        return os.pread(self._file.fileno(), length, offset)

    def numbers(
        self, offset: int, count: int, width: int, order: Literal["big", "little"], what: str
    ) -> Iterator["array[int]"]:
        """A table of unsigned integers of `width` bytes, in pieces of bounded memory.

        :raises ImageRejected: the table is not wholly in the file
        """
        if offset + count * width > self.size:
            raise rejections.broken(f"the {what} lies beyond the end of the file")
        end = offset + count * width
        for start in range(offset, end, PIECE):
            piece = array(WIDTH_CODES[width], self.at(start, min(PIECE, end - start), what))
            if order != sys.byteorder:
                piece.byteswap()
            yield piece
