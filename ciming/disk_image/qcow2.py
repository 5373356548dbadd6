# SPDX-License-Identifier: Apache-2.0
"""qcow2: what format_inspector and `qemu-img check` leave open.

`qemu-img check` tolerates a last cluster that is cut short, and follows tables that overlap for as long
as it takes. https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.rst
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from oslo_utils.imageutils import format_inspector

from ciming.disk_image import rejections
from ciming.disk_image.reader import Reader

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
KNOWN = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2
OFFSET = 0x00FFFFFFFFFFFE00
COMPRESSED = 1 << 62
ZERO = 1
SECTOR = 512
MAX_L1_ENTRIES = 32 * 1024 * 1024 // 8  # of qemu
MAX_SNAPSHOTS = 64  # each makes qemu-img walk a whole tree of tables


@dataclass(frozen=True)
class Header:
    version: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_size: int
    l1_offset: int
    snapshots: int
    features: int  # incompatible ones

    @classmethod
    def parse(cls, data: bytes) -> Self:
        version, _backing, _length, cluster_bits, size, crypt_method, l1_size, l1_offset = struct.unpack_from(
            ">IQIIQIIQ", data, 4
        )
        (snapshots,) = struct.unpack_from(">I", data, 60)
        features = struct.unpack_from(">Q", data, 72)[0] if version >= 3 else 0
        return cls(version, cluster_bits, size, crypt_method, l1_size, l1_offset, snapshots, features)

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits

    @property
    def extended(self) -> bool:
        return bool(self.features & EXTENDED_L2)

    @property
    def table_entries(self) -> int:
        """Guest clusters that one L2 table maps."""
        return self.cluster // (16 if self.extended else 8)


def look(inspector: format_inspector.FileInspector) -> int:
    """:returns: the virtual size in bytes

    :raises ImageRejected: not a qcow2 that may be opened
    """
    header = Header.parse(bytes(inspector.region("header").data))
    if header.version not in (2, 3):
        raise rejections.unsupported(f"this is qcow version {header.version}; 2 and 3 are taken")
    if header.crypt_method:
        raise rejections.unsupported("this qcow2 is encrypted")
    _refuse_unsafe(inspector, header)
    if header.features & CORRUPT:
        raise rejections.broken("this qcow2 is marked as corrupt")
    if header.features & DIRTY:
        raise rejections.broken("this qcow2 was not closed properly, 'qemu-img check -r all' may repair it")
    return header.size


def _refuse_unsafe(inspector: format_inspector.FileInspector, header: Header) -> None:
    """The safety checks of format_inspector, without what it does not know about features."""
    try:
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        failures = set(error.failures)
    else:
        failures = set()
    if "backing_file" in failures:
        raise rejections.unsafe("this qcow2 has a backing file, which is no part of it")
    if header.features & DATA_FILE:
        raise rejections.unsafe("this qcow2 keeps its data in another file")
    if header.features & ~KNOWN:
        raise rejections.unsafe(f"this qcow2 uses unknown features ({header.features & ~KNOWN:#x})")
    # Version 2 has no features, and extended L2 entries are newer than the list of format_inspector.
    failures -= {"data_file", "unknown_features"}
    if failures:
        raise rejections.unsafe(f"this qcow2 fails the checks {', '.join(sorted(failures))}")


def check(image: Reader, virtual_size: int) -> None:
    """Every table and every byte that the guest may read is in the file.

    :raises ImageRejected: something is missing, or tables overlap
    """
    header = Header.parse(image.at(0, 104, "header"))
    if not 9 <= header.cluster_bits <= 21:
        raise rejections.broken(f"it has clusters of 2^{header.cluster_bits} bytes")
    if header.l1_size > MAX_L1_ENTRIES:
        raise rejections.broken("its L1 table is larger than any disk needs")
    if header.snapshots > MAX_SNAPSHOTS:
        raise rejections.too_complex(f"it has {header.snapshots} internal snapshots")
    for index, table in _l2_tables(image, header):
        _check_clusters(image, header, virtual_size, index * header.table_entries, table)


def _l2_tables(image: Reader, header: Header) -> Iterator[tuple[int, "array[int]"]]:
    """All L2 tables with their place in the L1 table, one at a time."""
    index = -1
    left = image.size // header.cluster
    for piece in image.numbers(header.l1_offset, header.l1_size, 8, "big", "L1 table"):
        for entry in piece:
            index += 1
            offset = entry & OFFSET
            if not offset:
                continue
            left -= 1
            # More tables than fit into the file: without this, reading them would have no bound.
            if left < 0 or offset % header.cluster:
                raise rejections.broken("its L2 tables overlap")
            yield index, _l2_table(image, header, offset)


def _l2_table(image: Reader, header: Header, offset: int) -> "array[int]":
    table: array[int] = array("Q")
    for piece in image.numbers(offset, header.cluster // 8, 8, "big", "L2 table"):
        table += piece
    return table


def _check_clusters(
    image: Reader, header: Header, virtual_size: int, first: int, table: "array[int]"
) -> None:
    """:param first: the guest cluster that the table begins with"""
    compressed_bits = 70 - header.cluster_bits
    compressed_mask = (1 << compressed_bits) - 1
    # Nothing that begins before this can reach beyond the end: most entries need no second look.
    safe = max(0, image.size - 2 * header.cluster)
    step = 2 if header.extended else 1
    suspects = [
        position
        for position, entry in enumerate(table[::step])
        if entry & (compressed_mask if entry & COMPRESSED else OFFSET) > safe
    ]
    for position in suspects:
        entry = table[position * step]
        guest_left = virtual_size - (first + position) * header.cluster
        if entry & COMPRESSED:
            offset = entry & compressed_mask
            sectors = ((entry & (COMPRESSED - 1)) >> compressed_bits) + 1
            end = (offset // SECTOR + sectors) * SECTOR
        elif header.extended:
            end = (entry & OFFSET) + _written(table[position * step + 1], header.cluster)
        else:
            end = 0 if entry & ZERO else (entry & OFFSET) + min(header.cluster, guest_left)
        if guest_left > 0 and end > image.size:
            raise rejections.broken("clusters of this qcow2 lie beyond the end of the file")


def _written(subclusters: int, cluster: int) -> int:
    """How much of a cluster with extended L2 entries holds data, counted from its beginning."""
    return (subclusters & 0xFFFFFFFF).bit_length() * cluster // 32
