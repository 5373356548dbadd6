# SPDX-License-Identifier: Apache-2.0
"""VMDK: one file with a sparse header and an embedded descriptor, and nothing that points out of it.

format_inspector looks at the type and the extents of the descriptor; here is what it leaves open: a
parent, two types, text after the descriptor's end, and whether every grain is in the file.
"""

import re
import struct
from dataclasses import dataclass
from typing import Self

from oslo_utils.imageutils import format_inspector

from ciming.disk_image import rejections
from ciming.disk_image.reader import Reader

SECTOR = 512
COMPRESSED = 1 << 16
AT_END = 0xFFFFFFFFFFFFFFFF
MAX_DESCRIPTOR = 64 * 1024
MIN_GRAIN = 8  # sectors, of the specification
MAX_GRAIN = 0x200000  # sectors, of qemu
EXTENT = re.compile(r"^\s*(?:rw|rdonly|noaccess)\s+\d+\s+(\w+)", re.M)
PARENT = re.compile(r"parentcid\s*=\s*(?!f{8}\b)")


@dataclass(frozen=True)
class Header:
    """Sizes and offsets in sectors of 512 bytes."""

    flags: int
    capacity: int
    grain: int
    entries: int  # of one grain table
    directory: int

    @classmethod
    def parse(cls, data: bytes) -> Self:
        magic, _version, flags, capacity, grain, _text, _text_size, entries, _spare, directory = (
            struct.unpack_from("<4sIIQQQQIQQ", data)
        )
        if magic != b"KDMV":
            raise rejections.broken("the VMDK header or its footer is missing")
        return cls(flags, capacity, grain, entries, directory)


def look(inspector: format_inspector.FileInspector) -> int:
    """:returns: the virtual size in bytes

    :raises ImageRejected: not a VMDK that may be opened
    """
    if not inspector.has_region("header"):
        raise rejections.unsafe("it is a VMDK descriptor, a text that points at other files")
    _refuse_unsafe(bytes(inspector.region("descriptor").data))
    try:
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        if "descriptor" in error.failures:
            raise rejections.unsafe(
                f"this VMDK is not self-contained ({error.failures['descriptor']})",
                "Export it as monolithicSparse or streamOptimized",
            ) from None
        raise rejections.broken("the footer of this VMDK is missing or damaged") from None
    return Header.parse(bytes(inspector.region("header").data)).capacity * SECTOR


def _refuse_unsafe(descriptor: bytes) -> None:
    text, end, _rest = descriptor.partition(b"\0")
    # Without an end, qemu goes on reading where the inspector stopped.
    if not end or len(descriptor) > MAX_DESCRIPTOR:
        raise rejections.unsafe("the descriptor of this VMDK has no end")
    words = text.decode("ascii", "replace").lower()
    if "parentfilenamehint" in words or PARENT.search(words):
        raise rejections.unsafe("this VMDK has a parent, which is no part of it")
    if words.count("createtype") > 1:
        raise rejections.unsafe("this VMDK names more than one type")
    kinds = EXTENT.findall(words)
    if len(kinds) > 1 or set(kinds) - {"sparse"}:
        raise rejections.unsafe("this VMDK has extents in other files")


def check(image: Reader, virtual_size: int) -> None:
    """Every grain that the guest may read is in the file.

    :raises ImageRejected: something is missing, or tables overlap
    """
    header = _effective_header(image)
    if not MIN_GRAIN <= header.grain <= MAX_GRAIN or header.grain & (header.grain - 1):
        raise rejections.broken(f"this VMDK has grains of {header.grain} sectors")
    if not 1 <= header.entries <= SECTOR:
        raise rejections.broken(f"the grain tables of this VMDK have {header.entries} entries")
    directory_entries = -(-virtual_size // (header.entries * header.grain * SECTOR))
    tables: set[int] = set()
    grains = last = 0
    for piece in image.numbers(header.directory * SECTOR, directory_entries, 4, "little", "grain directory"):
        for table in filter(None, piece):
            if table in tables:
                raise rejections.broken("the grain tables of this VMDK overlap")
            tables.add(table)
            found, highest = _check_table(image, table * SECTOR, header.entries)
            grains += found
            last = max(last, highest)
    if last:
        _check_end(image, header, grains, last)


def _effective_header(image: Reader) -> Header:
    """Of a VMDK that was written as a stream, the header is the one at the end."""
    header = Header.parse(image.at(0, SECTOR, "header"))
    if header.directory != AT_END:
        return header
    footer = Header.parse(image.at(max(0, image.size - 2 * SECTOR), SECTOR, "footer"))
    if (footer.capacity, footer.grain, footer.entries, footer.flags) != (
        header.capacity,
        header.grain,
        header.entries,
        header.flags,
    ):
        raise rejections.broken("header and footer of this VMDK say different things")
    return footer


def _check_table(image: Reader, offset: int, entries: int) -> tuple[int, int]:
    """:returns: the number of grains in the file, and the sector of the last of them"""
    (table,) = image.numbers(offset, entries, 4, "little", "grain table")
    grains = [sector for sector in table if sector > 1]  # 0: a hole, 1: zeros
    if len(set(grains)) != len(grains):
        raise rejections.broken("grains of this VMDK overlap")
    return len(grains), max(grains, default=0)


def _check_end(image: Reader, header: Header, grains: int, last: int) -> None:
    """:param grains: how many there are, and `last`: the sector of the last of them"""
    if header.flags & COMPRESSED:
        marker = image.at(last * SECTOR, 12, "last grain")
        sectors = -(-(12 + int.from_bytes(marker[8:12], "little")) // SECTOR)
    else:
        sectors = header.grain
    if (last + sectors) * SECTOR > image.size:
        raise rejections.broken("grains of this VMDK lie beyond the end of the file")
    if not header.flags & COMPRESSED and grains * header.grain * SECTOR > image.size:
        raise rejections.broken("grains of this VMDK overlap")
