# SPDX-License-Identifier: Apache-2.0
"""VMDK: one file with a sparse header and an embedded descriptor, and nothing that points out of it.

format_inspector looks at the type and the extents of the descriptor; here is what it leaves open: a
parent, two types, text after the descriptor's end, and whether every grain is in the file.
"""

import itertools
import re
import struct
from dataclasses import dataclass, replace
from typing import Self

from oslo_utils.imageutils import format_inspector

from ciming.disk_image import rejections
from ciming.disk_image.reader import Reader, Territory

SECTOR = 512
HAS_ZEROED, COMPRESSED, MARKED = 1 << 2, 1 << 16, 1 << 17  # flags
DEFLATE = 1
TABLE_ENTRIES = 512  # of the specification
AT_END = 0xFFFFFFFFFFFFFFFF
MARKER = struct.Struct("<QI")  # before a compressed grain: its first sector on the disk, and its length
MAX_DESCRIPTOR = 64 * 1024
MIN_GRAIN = 8  # sectors, of the specification
MAX_GRAIN = 4096  # sectors; to read a little of a compressed grain, all of it is unpacked
# A line begins with blanks, and not with other lines: those would be looked through once for each of them.
EXTENT = re.compile(r"^[^\S\n]*(?:rw|rdonly|noaccess)\s+\d+\s+(\w+)", re.M)
OUTSIDE = re.compile(r"^[^\S\n]*(?:rw|rdonly|noaccess)\b.*[\\:]", re.M)  # Windows paths, URLs
PARENT = re.compile(r"parentcid\s*=\s*(?!f{8}\b)")


@dataclass(frozen=True)
class Header:
    """Sizes and offsets in sectors of 512 bytes."""

    flags: int
    capacity: int
    grain: int
    text_size: int  # of the descriptor, which comes right after the header
    entries: int  # of one grain table
    directory: int
    algorithm: int

    @classmethod
    def parse(cls, data: bytes) -> Self:
        magic, _version, flags, capacity, grain, _text, text_size, entries, _spare, directory = (
            struct.unpack_from("<4sIIQQQQIQQ", data)
        )
        (algorithm,) = struct.unpack_from("<H", data, 77)
        if magic != b"KDMV":
            raise rejections.broken("the VMDK header or its footer is missing")
        return cls(flags, capacity, grain, text_size, entries, directory, algorithm)

    @property
    def compressed(self) -> bool:
        return self.algorithm == DEFLATE


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
    words = text.decode("ascii", "replace").lower().replace("\r", "\n")
    if "parentfilenamehint" in words or PARENT.search(words):
        raise rejections.unsafe("this VMDK has a parent, which is no part of it")
    if words.count("createtype") > 1:
        raise rejections.unsafe("this VMDK names more than one type")
    kinds = EXTENT.findall(words)
    if len(kinds) > 1 or set(kinds) - {"sparse"} or OUTSIDE.search(words):
        raise rejections.unsafe("this VMDK has extents in other files")


def check(image: Reader, virtual_size: int) -> None:
    """Every grain that the guest may read is in the file.

    :raises ImageRejected: something is missing, or tables overlap
    """
    header = _effective_header(image)
    if not MIN_GRAIN <= header.grain <= MAX_GRAIN or header.grain & (header.grain - 1):
        raise rejections.broken(f"this VMDK has grains of {header.grain} sectors")
    if header.entries != TABLE_ENTRIES:
        raise rejections.broken(f"the grain tables of this VMDK have {header.entries} entries")
    # Some tools ask the flag, some the algorithm.
    if header.algorithm not in (0, DEFLATE) or header.compressed != bool(header.flags & COMPRESSED):
        raise rejections.broken("it is not clear whether the grains of this VMDK are compressed")
    directory_entries = -(-virtual_size // (header.entries * header.grain * SECTOR))
    if header.compressed and not header.flags & MARKED:
        raise rejections.broken("the grains of this VMDK are compressed, and nothing says how long they are")
    used = Territory(image.size, SECTOR)
    place = header.directory * SECTOR
    if not used.take(0, SECTOR * (1 + header.text_size)) or not used.take(place, directory_entries * 4):
        raise rejections.broken("the grain directory of this VMDK is not where it should be")
    directory = itertools.chain.from_iterable(
        image.numbers(place, directory_entries, 4, "little", "grain directory")
    )
    for index, table in enumerate(directory):
        if not table:
            continue
        if not used.take(table * SECTOR, header.entries * 4):
            raise rejections.broken("tables of this VMDK overlap, or lie beyond the end of the file")
        _check_grains(image, used, header, table * SECTOR, index * header.entries)


def _effective_header(image: Reader) -> Header:
    """Of a VMDK that was written as a stream, the header is the one at the end."""
    header = Header.parse(image.at(0, SECTOR, "header"))
    if header.directory != AT_END:
        return header
    footer = Header.parse(image.at(max(0, image.size - 2 * SECTOR), SECTOR, "footer"))
    if replace(footer, directory=AT_END) != header:
        raise rejections.broken("header and footer of this VMDK say different things")
    return footer


def _check_grains(image: Reader, used: Territory, header: Header, table: int, first: int) -> None:
    """Every grain of one table is in the file, once, and is the one that it says it is.

    :param table: where it is, in bytes
    :param first: the grain of the disk that it begins with
    """
    (sectors,) = image.numbers(table, header.entries, 4, "little", "grain table")
    for grain, sector in enumerate(sectors, first):
        if not sector or (sector == 1 and header.flags & HAS_ZEROED):  # a hole, or zeros
            continue
        length = header.grain * SECTOR
        if header.compressed:
            place, packed = MARKER.unpack(image.at(sector * SECTOR, MARKER.size, "grain"))
            if place != grain * header.grain:    # some go by the table, some by the stream
                raise rejections.broken("a grain of this VMDK says that it belongs elsewhere on the disk")
            length = -(-(MARKER.size + packed) // SECTOR) * SECTOR
        if not used.take(sector * SECTOR, length):
            raise rejections.broken("grains of this VMDK overlap, or lie beyond the end of the file")
