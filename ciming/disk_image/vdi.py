# SPDX-License-Identifier: Apache-2.0
"""VDI: one header, one table of blocks, then the blocks. Numbers are little-endian.

`qemu-img check` compares the table with the header, but neither with the size of the file.
"""

import struct

from oslo_utils.imageutils import format_inspector

from ciming.disk_image import rejections
from ciming.disk_image.reader import Reader

DYNAMIC, STATIC = 1, 2
BLOCK = 1024 * 1024  # the only size that VirtualBox writes and qemu reads
UNALLOCATED = 0xFFFFFFFE  # and one more for zeros
UUID_LINK_AND_PARENT = slice(0x1A8, 0x1C8)


def look(inspector: format_inspector.FileInspector) -> int:
    """:returns: the virtual size in bytes

    :raises ImageRejected: not a VDI that may be opened
    """
    inspector.safety_check()
    header = bytes(inspector.region("header").data)
    (kind,) = struct.unpack_from("<I", header, 0x4C)
    if kind not in (DYNAMIC, STATIC) or any(header[UUID_LINK_AND_PARENT]):
        raise rejections.unsafe("this VDI is a difference to a parent, which is no part of it")
    return inspector.virtual_size


def check(image: Reader, virtual_size: int) -> None:
    """Every block that the guest may read is in the file.

    :raises ImageRejected: something is missing, or blocks overlap
    """
    header = image.at(0, 512, "header")
    table, data = struct.unpack_from("<II", header, 0x154)
    block, extra, blocks, allocated = struct.unpack_from("<IIII", header, 0x178)
    if block != BLOCK or extra:
        raise rejections.unsupported(f"this VDI has blocks of {block} bytes with {extra} more")
    if blocks * block < virtual_size:
        raise rejections.broken("the block table of this VDI is too short for its disk")
    if table < len(header) or data < table + blocks * 4:
        raise rejections.broken("the tables of this VDI overlap")
    if data + allocated * block > image.size:
        raise rejections.broken("blocks of this VDI lie beyond the end of the file")
    seen: set[int] = set()
    for piece in image.numbers(table, blocks, 4, "little", "block table"):
        for index in piece:
            if index >= UNALLOCATED:
                continue
            if index >= allocated or index in seen:
                raise rejections.broken("the block table of this VDI is damaged")
            seen.add(index)
