# SPDX-License-Identifier: Apache-2.0
"""The form in which Compute Engine takes a disk: `disk.raw` in a tar archive of the old GNU format, gzipped.

The archive is never in one place. It is a row of pieces, each made from the disk and nothing else: whoever is
to make one can begin with any, and two who make the same one get the same bytes. Holes are in the archive's
map, so they cost nothing. One deflate stream runs through all pieces (a flush at the end of each lets the
next one begin anew): what is put together of them is one plain gzip file.

https://cloud.google.com/compute/docs/import/import-existing-image#create_image_file
https://www.gnu.org/software/tar/manual/html_node/Standard.html (`oldgnu_header`, `sparse_header`)
https://www.rfc-editor.org/rfc/rfc1952
"""

import hashlib
import os
import struct
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from isal import isal_zlib

from ciming import disk_image, exceptions

Alive = Callable[[], None]
GIB = 1 << 30
LARGEST = 64 << 40      # bytes of a disk: https://cloud.google.com/compute/docs/disks#disk-types
NAME = b"disk.raw"
SECTOR = 512
RECORD = 20 * SECTOR    # what tar fills up to
BLOCKS = 15             # of the disk in a piece
PIECE = BLOCKS * disk_image.BLOCK
LEVEL = 2               # isal's: a bit smaller than its fastest, at nearly its speed
ASKED = 256             # blocks that are read between two questions whether to go on
IN_HEADER, IN_EXTENSION = 4, 21     # places for runs
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"   # no name, no time: the same for the same disk
LAST_BLOCK = b"\x03\0"  # of deflate, and empty

Run = tuple[int, int]
"""Where data begins in the disk, and how many bytes it has."""


class Piece(NamedTuple):
    """A part of the archive: bytes of the tar's own, or blocks of the disk by their indices."""

    number: int
    head: bytes
    blocks: Sequence[int]


def disk_size(virtual_size: int) -> int:
    """Bytes of the disk there: whole GiB."""
    return max(1, -(-virtual_size // GIB)) * GIB


class Pieces:
    """All of an archive but its end: the map, and then where there is data in the disk.

    Each is made when it is asked for: of a block there is only its index in memory, 8 bytes.
    """

    def __init__(self, blocks: "array[int]", size: int) -> None:
        self.blocks = blocks
        self._header = _header(runs(blocks, size), size)
        self._heads = -(-len(self._header) // PIECE)

    def __len__(self) -> int:
        return self._heads + -(-len(self.blocks) // BLOCKS)

    def __getitem__(self, number: int) -> Piece:
        if number < self._heads:
            return Piece(number, self._header[number * PIECE :][:PIECE], ())
        at = (number - self._heads) * BLOCKS
        return Piece(number, b"", self.blocks[at : at + BLOCKS])

    def __iter__(self) -> Iterator[Piece]:
        return map(self.__getitem__, range(len(self)))


def pieces(path: Path, virtual_size: int, alive: Alive = lambda: None) -> Pieces:
    """Where there is data in a disk, as pieces of its archive.

    :param alive: asked now and then while the disk is read, see Transfer
    """
    found = array("Q")
    for index, _ in disk_image.blocks(path):
        found.append(index)
        if not len(found) % ASKED:
            alive()
    return Pieces(found, disk_size(virtual_size))


def runs(indices: Iterable[int], size: int) -> list[Run]:
    """Blocks that follow one another, as one; the end of the disk is one, too."""
    found: list[Run] = []
    for index in indices:
        offset = index * disk_image.BLOCK
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + disk_image.BLOCK)
        else:
            found.append((offset, disk_image.BLOCK))
    if not found or sum(found[-1]) < size:
        found.append((size, 0))
    return found


def _number(value: int, width: int = 12) -> bytes:
    """Octal, or where that is too short, as GNU has it: base 256."""
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def _header(found: Sequence[Run], size: int) -> bytes:
    length = sum(count for _, count in found)
    sparse = b"".join(_number(offset) + _number(count) for offset, count in found)
    entries = [sparse[at : at + 24] for at in range(0, len(sparse), 24)]
    first, rest = entries[:IN_HEADER], entries[IN_HEADER:]
    header = bytearray(SECTOR)
    struct.pack_into(
        "100s8s8s8s12s12s8sc100s8s32s32s",
        header,
        0,
        *(NAME, b"0000644\0", b"0000000\0", b"0000000\0", _number(length), _number(0)),
        *(b" " * 8, b"S", b"", b"ustar  \0", b"root", b"root"),
    )
    header[386 : 386 + 24 * len(first)] = b"".join(first)
    header[482] = bool(rest)
    header[483:495] = _number(size)
    header[148:156] = b"%06o\0 " % sum(header)
    extensions = [rest[at : at + IN_EXTENSION] for at in range(0, len(rest), IN_EXTENSION)]
    more = (
        b"".join(each).ljust(IN_EXTENSION * 24, b"\0") + bytes([number < len(extensions)]) + bytes(7)
        for number, each in enumerate(extensions, 1)
    )
    return bytes(header) + b"".join(more)


def content(file: int, piece: Piece) -> tuple[bytes | bytearray, list[tuple[int, bytes]]]:
    """What a piece has in it, and the records of its blocks."""
    if not piece.blocks:
        return piece.head, []
    data, records = bytearray(len(piece.blocks) * disk_image.BLOCK), []
    for place, index in enumerate(piece.blocks):
        block = memoryview(data)[place * disk_image.BLOCK :][: disk_image.BLOCK]
        os.preadv(file, [block], index * disk_image.BLOCK)
        records.append((index, hashlib.sha256(block).digest()))
    return data, records


def name(piece: Piece, records: Sequence[tuple[int, bytes]]) -> str:
    """What a piece can be known by: its number, and what is in it."""
    found = hashlib.sha256(piece.head)
    for index, digest in records:
        found.update(b"%d " % index + digest)
    return f"{piece.number:08d}-{found.hexdigest()[:32]}"


def pack(piece: Piece, data: bytes | bytearray) -> bytes:
    """A piece's bytes in the archive."""
    packer = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, -15)
    parts = [GZIP_HEADER] if piece.number == 0 else []
    return b"".join([*parts, packer.compress(data), packer.flush(isal_zlib.Z_FULL_FLUSH)])


def crc32(data: bytes | bytearray) -> int:
    return int(isal_zlib.crc32(data))


class Sum:
    """The sum over all pieces, as gzip and Google have one: told in order, without their bytes."""

    def __init__(self) -> None:
        self.plain = self.packed = 0        # CRC-32, CRC-32C
        self.length = self.size = 0         # bytes before and after packing

    def add_plain(self, crc: int, length: int) -> None:
        self.plain = int(isal_zlib.crc32_combine(self.plain, crc, length))
        self.length += length

    def add_packed(self, crc: int, size: int) -> None:
        self.packed = crc32c_of_both(self.packed, crc, size)
        self.size += size


def end(found: Sum) -> bytes:
    """The last bytes of an archive, after all pieces."""
    zeros = bytes(2 * SECTOR + -(found.length + 2 * SECTOR) % RECORD)
    found.add_plain(crc32(zeros), len(zeros))
    packer = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, -15)
    packed = packer.compress(zeros) + packer.flush(isal_zlib.Z_FULL_FLUSH) + LAST_BLOCK
    return packed + struct.pack("<II", found.plain, found.length & 0xFFFFFFFF)


POLYNOMIAL = 0x82F63B78     # Castagnoli's, reversed: https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4


def crc32c_of_both(first: int, second: int, size: int) -> int:
    """CRC-32C of two pieces together, by those of each; the second one has so many bytes.

    As zlib does it: the first is multiplied by x^(8 * size) modulo the polynomial.
    """
    power, square = 1 << 31, 1 << 23        # x^0, x^8
    while size:
        if size & 1:
            power = _product(square, power)
        square = _product(square, square)
        size >>= 1
    return _product(power, first) ^ second


def _product(one: int, other: int) -> int:
    """Of two polynomials, reversed as CRCs are, modulo the one above."""
    found, bit = 0, 1 << 31
    while bit:
        if one & bit:
            found ^= other
        other = other >> 1 ^ (POLYNOMIAL if other & 1 else 0)
        bit >>= 1
    return found


# The way back


class Unpacker:
    """Takes an archive's bytes in order, and gives the disk's; of zeros, too.

    Of an archive that somebody else made, too: what tar has beside `disk.raw` is refused.

    :param name: of the archive, for messages
    """

    LARGEST_MAP = 16 << 20      # bytes
    LONGEST_END = 16 << 20      # bytes of zeros: tools fill up to records of their own sizes

    def __init__(self, name: str) -> None:
        self.name = name
        self.size: int | None = None        # of the disk, as soon as it is known
        self._gzip = zlib.decompressobj(31)
        self._tar = bytearray()
        self._runs: deque[Run] | None = None
        self._place = self._behind = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """:raises ProviderError: this is no such archive"""
        while data and not self._gzip.eof:
            try:
                plain = self._gzip.decompress(data, PIECE)
            except zlib.error:
                raise self._wrong("it is not gzipped, or damaged") from None
            data = self._gzip.unconsumed_tail or self._gzip.unused_data
            yield from self._read(plain)
        if data.strip(b"\0"):       # zeros are what tools fill up with
            raise self._wrong("something follows its gzip stream")

    def _read(self, plain: bytes) -> Iterator[bytes]:
        if self._runs is None:
            self._tar += plain
            self._runs = self._parsed()
            if self._runs is None:
                return
            plain, self._tar = bytes(self._tar[self._header_size :]), bytearray()
        view = memoryview(plain)
        while view and self._runs:
            offset, count = self._runs[0]
            if self._place < offset:
                yield from self._hole(offset)
            piece = view[: offset + count - self._place]
            if piece:
                yield bytes(piece)
                self._place += len(piece)
                view = view[len(piece) :]
            if self._place == offset + count:
                self._runs.popleft()
        self._behind += len(view)
        if bytes(view).strip(b"\0"):
            raise self._wrong("there is more in it than disk.raw")
        if self._behind > self.LONGEST_END:
            raise self._wrong("its end is too long")

    def _hole(self, until: int) -> Iterator[bytes]:
        while self._place < until:
            count = min(until - self._place, disk_image.BLOCK)
            self._place += count
            yield bytes(count)

    def end(self) -> Iterator[bytes]:
        """What is left when there are no more bytes.

        :raises ProviderError: the archive ended early
        """
        whole = self._runs is not None and self._gzip.eof
        if not whole or any(count for _, count in self._runs or ()):
            raise self._wrong("it ends early")
        yield from self._hole(self.size or 0)

    def _parsed(self) -> deque[Run] | None:
        """The map; None: not all of it is here."""
        if len(self._tar) < SECTOR:
            return None
        header = self._tar[:SECTOR]
        said = bytes(header[:100]).rstrip(b"\0").removeprefix(b"./")
        checksum = sum(header) - sum(header[148:156]) + 8 * 0x20
        kind = bytes(header[156:157])
        if _value(header[148:156]) != checksum or said != NAME or kind not in (b"0", b"\0", b"S"):
            raise self._wrong("its first member is not a file disk.raw")
        length = _value(header[124:136])
        size, entries, at, more = length, b"", SECTOR, 0
        if kind == b"S":
            size, entries, more = _value(header[483:495]), bytes(header[386:482]), header[482]
        if not 0 < size <= LARGEST:
            raise self._wrong(f"a disk of {size} bytes can not be")
        parts = [entries]
        while more:
            if at > self.LARGEST_MAP:
                raise self._wrong("its map is too large")
            if len(self._tar) < at + SECTOR:
                return None
            parts.append(bytes(self._tar[at : at + IN_EXTENSION * 24]))
            more = self._tar[at + 504]
            at += SECTOR
        self.size, self._header_size = size, at
        if kind != b"S":
            return deque([(0, size)])
        entries = b"".join(parts)
        pairs = (entries[at : at + 24] for at in range(0, len(entries), 24))
        found = deque((_value(pair[:12]), _value(pair[12:])) for pair in pairs if pair[:1] != b"\0")
        ends = [0, *(sum(run) for run in found)]
        in_order = all(before <= offset for before, (offset, _) in zip(ends, found, strict=False))
        if not in_order or ends[-1] > size or length != sum(count for _, count in found):
            raise self._wrong("its map contradicts itself")
        return found

    def _wrong(self, why: str) -> exceptions.ProviderError:
        return exceptions.ProviderError(
            f"{self.name} is no archive of a disk as Compute Engine has it: {why}.", code="image.broken"
        )


def _value(field: bytes | bytearray) -> int:
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = bytes(field).strip(b" \0")
    return int(text, 8) if text and not text.strip(b"01234567") else 0
