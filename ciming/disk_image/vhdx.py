# SPDX-License-Identifier: Apache-2.0
"""VHDX: qemu looks where blocks begin, but not whether they are all there. Numbers are little-endian.

https://learn.microsoft.com/openspecs/windows_protocols/ms-vhdx
"""

import struct
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from oslo_utils.imageutils import format_inspector

from ciming.disk_image import rejections
from ciming.disk_image.reader import Reader, Territory

MIB = 1024 * 1024
HEADS = (64 * 1024, 128 * 1024)
REGION_TABLE = 192 * 1024
TABLE_SIZE = 64 * 1024
MAX_ENTRIES = 2047
BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
SECTOR_SIZE = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
PRESENT, PARTIAL, STATE = 6, 7, 7


def look(inspector: format_inspector.FileInspector) -> int:
    """:returns: the virtual size in bytes

    :raises ImageRejected: not a VHDX that may be opened
    """
    if not inspector.has_region("vds"):
        raise rejections.broken("the metadata of this VHDX is not where it should be")
    if PARENT_LOCATOR in inspector.region("metadata").data:
        raise rejections.unsafe("this VHDX is a difference to a parent, which is no part of it")
    inspector.safety_check()
    return inspector.virtual_size


def check(image: Reader, virtual_size: int) -> None:
    """Every block that the guest may read is in the file.

    :raises ImageRejected: something is missing, or blocks overlap
    """
    layout = _layout(image)
    for offset, length, _start in _blocks(image, layout, virtual_size):
        if not layout.used.take(offset, length):
            raise rejections.broken("blocks of this VHDX overlap, or lie beyond the end of the file")


def extents(image: Reader, virtual_size: int) -> Iterator[tuple[int, int, int]]:
    """Where the data of an image that has passed is: start on the disk, length, offset in the file; in bytes.

    To qemu-img, all of a VHDX is data.
    """
    for offset, length, start in _blocks(image, _layout(image), virtual_size):
        yield start, length, offset


class _Layout(NamedTuple):
    """Where the block table is, and the bytes of a block; an entry of another kind follows `ratio` blocks.

    `used` is what is not blocks.
    """

    table: int
    block: int
    ratio: int
    used: Territory


def _layout(image: Reader) -> _Layout:
    """:raises ImageRejected: this is none"""
    regions = dict(_entries(image, REGION_TABLE, b"regi", 8, 16))
    if BAT not in regions or METADATA not in regions:
        raise rejections.broken("this VHDX has no block table or no metadata")
    (metadata,) = struct.unpack_from("<Q", regions[METADATA])
    items = {
        name: metadata + struct.unpack_from("<I", entry)[0]
        for name, entry in _entries(image, metadata, b"metadata", 10, 32)
    }
    if FILE_PARAMETERS not in items or SECTOR_SIZE not in items:
        raise rejections.broken("the metadata of this VHDX is not complete")
    block, flags = struct.unpack("<II", image.at(items[FILE_PARAMETERS], 8, "file parameters"))
    (sector,) = struct.unpack("<I", image.at(items[SECTOR_SIZE], 4, "sector size"))
    if flags & 2:
        raise rejections.unsafe("this VHDX is a difference to a parent, which is no part of it")
    if not MIB <= block <= 256 * MIB or block & (block - 1) or sector not in (512, 4096):
        raise rejections.broken(f"this VHDX has blocks of {block} and sectors of {sector} bytes")
    (table,) = struct.unpack_from("<Q", regions[BAT])
    used = Territory(image.size, MIB)
    places = [(0, MIB), _log(image), *(struct.unpack_from("<QI", region) for region in regions.values())]
    for offset, length in places:
        if not length or offset % MIB or length % MIB or not used.take(offset, length):
            raise rejections.broken("the regions of this VHDX overlap, or lie beyond the end of the file")
    return _Layout(table, block, (sector << 23) // block, used)


def _entries(
    image: Reader, offset: int, magic: bytes, count_at: int, first: int
) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a region or metadata table: a GUID, and what is said of it."""
    table = image.at(offset, TABLE_SIZE, "table of contents")
    (count,) = struct.unpack_from("<H", table, count_at)
    if not table.startswith(magic) or count > MAX_ENTRIES:
        raise rejections.broken("a table of contents of this VHDX is damaged")
    for start in range(first, first + count * 32, 32):
        yield table[start : start + 16], table[start + 16 : start + 32]


def _log(image: Reader) -> tuple[int, int]:
    """Offset and length of the log, of which only the header knows. The newer one of two counts."""
    heads = [image.at(place, 80, "header") for place in HEADS]
    newest = max(heads, key=lambda head: struct.unpack_from("<Q", head, 8))
    length, offset = struct.unpack_from("<IQ", newest, 68)
    return offset, length


def _blocks(image: Reader, layout: _Layout, virtual_size: int) -> Iterator[tuple[int, int, int]]:
    """Each block with data: offset in the file, length, and start on the disk.

    :raises ImageRejected: there is a parent
    """
    table, block, ratio, _used = layout
    blocks = -(-virtual_size // block)
    index = -1
    for piece in image.numbers(table, blocks + (blocks - 1) // ratio, 8, "little", "block table"):
        for entry in piece:
            index += 1
            if not entry & STATE or index % (ratio + 1) == ratio:
                continue
            if entry & STATE == PARTIAL:
                raise rejections.unsafe("this VHDX leaves parts of blocks to a parent")
            if entry & STATE == PRESENT:
                start = (index - index // (ratio + 1)) * block
                # Of the last block, some tools write no more than belongs to the disk.
                yield entry // MIB * MIB, min(block, virtual_size - start), start
