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
from ciming.disk_image.reader import Reader, Territory

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
KNOWN = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2
OFFSET = 0x00FFFFFFFFFFFE00
COMPRESSED = 1 << 62
ZERO = 1
SECTOR = 512
DATA_FILE_NAME = 0x44415441  # a header extension, and the end of them:
END = 0
MAX_EXTENSIONS = 64  # all tools together write five
DEFLATE_RATIO, ZSTD_RATIO = 1032, 32768  # no stream of theirs unfolds into more than that
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
    length: int  # of the header

    @classmethod
    def parse(cls, data: bytes) -> Self:
        version, _backing, _length, cluster_bits, size, crypt_method, l1_size, l1_offset = struct.unpack_from(
            ">IQIIQIIQ", data, 4
        )
        (snapshots,) = struct.unpack_from(">I", data, 60)
        features, length = 0, 72
        if version >= 3:
            (features,) = struct.unpack_from(">Q", data, 72)
            (length,) = struct.unpack_from(">I", data, 100)
        return cls(version, cluster_bits, size, crypt_method, l1_size, l1_offset, snapshots, features, length)

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits

    @property
    def extended(self) -> bool:
        return bool(self.features & EXTENDED_L2)

    @property
    def offset_bits(self) -> int:
        """Of an L2 entry of a compressed cluster; what comes above them is its length."""
        return 70 - self.cluster_bits

    @property
    def step(self) -> int:
        """Words in an L2 entry."""
        return 2 if self.extended else 1

    @property
    def table_entries(self) -> int:
        """Guest clusters that one L2 table maps."""
        return self.cluster // 8 // self.step


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
    if DATA_FILE_NAME in _extensions(image, header):
        raise rejections.unsafe("this qcow2 names a data file, which is no part of it")
    room = image.size
    for index, table in _l2_tables(image, header):
        if not any(table):
            continue
        room -= _space(header, table)
        if room < 0:
            raise rejections.broken("clusters of this qcow2 overlap")
        _check_clusters(image, header, virtual_size, index * header.table_entries, table)


def _extensions(image: Reader, header: Header) -> Iterator[int]:
    """The kinds of header extensions that there are."""
    place = header.length
    for _ in range(MAX_EXTENSIONS):
        if place + 8 > header.cluster:
            return
        kind, length = struct.unpack(">II", image.at(place, 8, "header extension"))
        if kind == END:
            return
        yield kind
        place += 8 + -(-length // 8) * 8
    raise rejections.broken("it has too many header extensions")


def _l2_tables(image: Reader, header: Header) -> Iterator[tuple[int, "array[int]"]]:
    """All L2 tables with their place in the L1 table, one at a time."""
    index = -1
    used = Territory(image.size, header.cluster)
    for piece in image.numbers(header.l1_offset, header.l1_size, 8, "big", "L1 table"):
        for entry in piece:
            index += 1
            offset = entry & OFFSET
            if not offset:
                continue
            # Without this, one table could be read as often as the L1 table has room for.
            if offset % header.cluster or not used.take(offset, header.cluster):
                raise rejections.broken("its L2 tables overlap, or lie beyond the end of the file")
            yield index, _l2_table(image, header, offset)


def _l2_table(image: Reader, header: Header, offset: int) -> "array[int]":
    table: array[int] = array("Q")
    for piece in image.numbers(offset, header.cluster // 8, 8, "big", "L2 table"):
        table += piece
    return table


def _space(header: Header, table: "array[int]") -> int:
    """How many bytes of the file the clusters of one table need at least.

    :raises ImageRejected: one of them is marked as its version does not know, or is there twice. With the
        right reference count that is in order for qemu, and lets a small file unfold into a disk of any size.
    """
    mask = (1 << header.offset_bits) - 1
    entries = table[:: header.step]
    # Whoever knows version 2 only reads what the cluster has, and qemu refuses to.
    if header.version < 3 and any(entry & ZERO and not entry & COMPRESSED for entry in entries):
        raise rejections.broken("this qcow2 marks clusters as zeros, which its version does not have")
    plain = [entry & OFFSET for entry in entries if entry & OFFSET and not entry & COMPRESSED]
    compressed = [entry & mask for entry in entries if entry & COMPRESSED]
    if len(set(plain)) < len(plain) or len(set(compressed)) < len(compressed):
        raise rejections.broken("clusters of this qcow2 overlap")
    ratio = ZSTD_RATIO if header.features & COMPRESSION else DEFLATE_RATIO
    return len(plain) * header.cluster + len(compressed) * header.cluster // ratio


def _check_clusters(
    image: Reader, header: Header, virtual_size: int, first: int, table: "array[int]"
) -> None:
    """:param first: the guest cluster that the table begins with"""
    compressed_mask = (1 << header.offset_bits) - 1
    # Nothing that begins before this can reach beyond the end: most entries need no second look.
    safe = max(0, image.size - 2 * header.cluster)
    suspects = [
        position
        for position, entry in enumerate(table[:: header.step])
        if entry & (compressed_mask if entry & COMPRESSED else OFFSET) > safe
    ]
    for position in suspects:
        entry = table[position * header.step]
        guest_left = virtual_size - (first + position) * header.cluster
        if entry & COMPRESSED:
            offset = entry & compressed_mask
            sectors = ((entry & (COMPRESSED - 1)) >> header.offset_bits) + 1
            end = (offset // SECTOR + sectors) * SECTOR
        elif header.extended:
            end = (entry & OFFSET) + _written(table[position * header.step + 1], header.cluster)
        else:
            end = 0 if entry & ZERO else (entry & OFFSET) + min(header.cluster, guest_left)
        if guest_left > 0 and end > image.size:
            raise rejections.broken("clusters of this qcow2 lie beyond the end of the file")


def _written(subclusters: int, cluster: int) -> int:
    """How much of a cluster with extended L2 entries holds data, counted from its beginning."""
    return (subclusters & 0xFFFFFFFF).bit_length() * cluster // 32
