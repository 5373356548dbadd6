# SPDX-License-Identifier: Apache-2.0
"""VHD ("vpc" to qemu, which has no check for it): a footer at the end; a dynamic disk has a copy at the
start, and a table of blocks. All numbers are big-endian."""

import itertools
import struct
from dataclasses import dataclass
from typing import Self

from oslo_utils.imageutils import format_inspector

from ciming.disk_image import rejections
from ciming.disk_image.reader import Reader

SECTOR = 512
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
MIN_BLOCK = 64 * 1024  # Virtual PC wrote 512 KiB, everyone else 2 MiB
UNUSED = 0xFFFFFFFF


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
        (header_offset,) = struct.unpack_from(">Q", data, 16)
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
    """Whether a footer makes a fixed VHD of all that comes before it, whatever that looks like."""
    (size,) = struct.unpack_from(">Q", tail, 48)
    return bool(size == file_size - SECTOR)


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
    table, _version, entries, block = struct.unpack_from(">QIII", header, 16)
    if block < MIN_BLOCK or block & (block - 1):
        raise rejections.broken(f"this VHD has blocks of {block} bytes")
    if entries * block < virtual_size:
        raise rejections.broken("the block table of this VHD is too short for its disk")
    _check_blocks(image, table, -(-virtual_size // block), block)


def _check_blocks(image: Reader, table: int, entries: int, block: int) -> None:
    bitmap = -(-block // SECTOR // 8 // SECTOR) * SECTOR
    length = (bitmap + block) // SECTOR
    starts: list[int] = []
    for piece in image.numbers(table, entries, 4, "big", "block table"):
        starts += (start for start in piece if start != UNUSED)
        if len(starts) * length * SECTOR > image.size:
            raise rejections.broken("blocks of this VHD overlap")
    starts.sort()
    if any(after - start < length for start, after in itertools.pairwise(starts)):
        raise rejections.broken("blocks of this VHD overlap")
    if starts and (starts[-1] + length) * SECTOR > image.size - SECTOR:
        raise rejections.broken("blocks of this VHD lie beyond the end of the file")
