# SPDX-License-Identifier: Apache-2.0
"""VHD ("vpc" to qemu, which has no check for it): a footer at the end; a dynamic disk has a copy at the
start, and a table of blocks. All numbers are big-endian."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from oslo_utils.imageutils import format_inspector

from ciming import exceptions
from ciming.disk_image import rejections
from ciming.disk_image.reader import PIECE, Reader, Territory

SECTOR = 512
VERSION = 0x10000
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
MIN_BLOCK = 64 * 1024  # Virtual PC wrote 512 KiB, everyone else 2 MiB
UNUSED = 0xFFFFFFFF
PARENT = (slice(40, 56), slice(64, 768))  # in the dynamic disk header: its UUID, its name, its places


@dataclass(frozen=True)
class Footer:
    """Sizes and offsets in bytes."""

    header_offset: int
    size: int  # of the disk, not the one it was made with: that is another field
    kind: int

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """:raises ImageRejected: not a footer"""
        if not data.startswith(b"conectix") or not _sum_is_right(data[:SECTOR], 64):
            raise rejections.broken("the footer of this VHD is missing or damaged")
        version, header_offset = struct.unpack_from(">IQ", data, 12)
        if version != VERSION:
            raise rejections.broken(f"this VHD has version {version:#x}")
        size, _geometry, kind = struct.unpack_from(">QII", data, 48)
        return cls(header_offset, size, kind)


def _sum_is_right(data: bytes, place: int) -> bool:
    """Whether the checksum at `place` is the complement of the sum of all other bytes."""
    (stored,) = struct.unpack_from(">I", data, place)
    total = sum(data) - sum(data[place : place + 4])
    return bool(stored == ~total & 0xFFFFFFFF)


def look(inspector: format_inspector.FileInspector) -> int:
    """Look at a VHD that begins with the copy of its footer.

    :returns: the virtual size in bytes
    :raises ImageRejected: not a dynamic VHD
    """
    footer = Footer.parse(bytes(inspector.region("header").data))
    if footer.kind == DIFFERENCING:
        raise rejections.unsafe("this VHD is a difference to a parent, which is no part of it")
    if footer.kind != DYNAMIC:
        raise rejections.broken(f"this VHD begins with a footer of type {footer.kind}")
    return footer.size


def look_at_end(tail: bytes) -> int:
    """Look at a VHD that has its footer only at the end.

    :returns: the virtual size in bytes
    :raises ImageRejected: not a fixed VHD
    """
    footer = Footer.parse(tail)
    if footer.kind != FIXED:
        raise rejections.broken("the beginning of this VHD is missing")
    return footer.size


def wraps(tail: bytes, file_size: int) -> bool:
    """Whether a footer makes a fixed VHD of what comes before it, whatever that looks like."""
    try:
        footer = Footer.parse(tail)
    except exceptions.ImageRejected:
        return False
    return footer.kind == FIXED and footer.size <= file_size - SECTOR


def check(image: Reader, virtual_size: int) -> None:
    """Every block that the guest may read is in the file.

    :raises ImageRejected: something is missing, or blocks overlap
    """
    footer = Footer.parse(image.at(max(0, image.size - SECTOR), SECTOR, "footer"))
    if footer.kind == FIXED:
        if footer.size > image.size - SECTOR:
            raise rejections.broken("the data of this VHD is shorter than its footer says")
        return
    if footer != Footer.parse(image.at(0, SECTOR, "footer copy")):
        raise rejections.broken("the two footers of this VHD say different things")
    header = image.at(footer.header_offset, 1024, "dynamic disk header")
    if not header.startswith(b"cxsparse") or not _sum_is_right(header, 36):
        raise rejections.broken("the dynamic disk header of this VHD is missing or damaged")
    if any(any(header[part]) for part in PARENT):
        raise rejections.unsafe("this VHD names a parent, which is no part of it")
    table, version, entries, block = struct.unpack_from(">QIII", header, 16)
    if version != VERSION:
        raise rejections.broken(f"the dynamic disk header of this VHD has version {version:#x}")
    if block < MIN_BLOCK or block & (block - 1):
        raise rejections.broken(f"this VHD has blocks of {block} bytes")
    if entries * block < virtual_size:
        raise rejections.broken("the block table of this VHD is too short for its disk")
    used = Territory(image.size, SECTOR)
    places = (0, SECTOR), (image.size - SECTOR, SECTOR), (footer.header_offset, len(header))
    if not all(used.take(*place) for place in (*places, (table, entries * 4))):
        raise rejections.broken("the tables of this VHD overlap, or lie beyond the end of the file")
    _check_blocks(image, used, table, -(-virtual_size // block), block)


def _check_blocks(image: Reader, used: Territory, table: int, entries: int, block: int) -> None:
    bitmap = -(-block // SECTOR // 8 // SECTOR) * SECTOR
    for piece in image.numbers(table, entries, 4, "big", "block table"):
        for start in piece:
            if start == UNUSED:
                continue
            if not used.take(start * SECTOR, bitmap + block):
                raise rejections.broken("blocks of this VHD overlap, or lie beyond the end of the file")
            _check_bitmap(image, start * SECTOR, bitmap, block)


def _check_bitmap(image: Reader, place: int, bitmap: int, block: int) -> None:
    """Whoever asks the bitmap of a block reads zeros where it has no bit; qemu does not ask."""
    bits = image.at(place, bitmap, "bitmap")
    for start in range(0, block, PIECE):
        size = min(PIECE, block - start)
        its = bits[start // SECTOR // 8 : (start + size) // SECTOR // 8]
        if its.strip(b"\xff"):
            piece = image.at(place + bitmap + start, size, "block")
            if piece.strip(b"\0") and any(_unused(its, piece)):
                raise rejections.broken("this VHD has data in sectors that it calls unused")


def _unused(bits: bytes, piece: bytes) -> Iterator[bytes]:
    """What is in the sectors that have no bit, without zeros; the first sector has the highest bit."""
    for number, byte in enumerate(bits):
        for bit in range(8):
            if not byte & 0x80 >> bit:
                start = (number * 8 + bit) * SECTOR
                yield piece[start : start + SECTOR].strip(b"\0")
