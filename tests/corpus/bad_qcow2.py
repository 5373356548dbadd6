# SPDX-License-Identifier: Apache-2.0
"""qcow2 images that point out of themselves, or whose tables do not hold together."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.corpus.cases import Bad, Patch, Workshop

BROKEN, UNSAFE = "image.broken", "image.unsafe"
UNSUPPORTED, LARGE = "image.format_unsupported", "image.too_large"
CLUSTER = 4096
OFFSET = 0x00FFFFFFFFFFFE00
COPIED = 1 << 63
COMPRESSED = 1 << 62
FAR = 1 << 40  # beyond the end of any file here


@dataclass(frozen=True)
class Layout:
    """Where things are in an image with two L2 tables."""

    l1: int
    refcounts: int
    tables: tuple[int, ...]
    clusters: tuple[int, ...]  # that the first table names

    @classmethod
    def read(cls, image: bytes) -> Self:
        (entries,) = struct.unpack_from(">I", image, 36)
        l1, refcounts = struct.unpack_from(">QQ", image, 40)
        tables = [e & OFFSET for e in struct.unpack_from(f">{entries}Q", image, l1) if e]
        clusters = struct.unpack_from(f">{CLUSTER // 8}Q", image, tables[0])
        return cls(l1, refcounts, tuple(tables), tuple(e & OFFSET for e in clusters if e & OFFSET))


def u64(number: int) -> bytes:
    return struct.pack(">Q", number)


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def cases(shop: Workshop) -> Iterator[Bad]:
    base = shop.convert("two-tables", "qcow2", "-o", f"cluster_size={CLUSTER}")
    size = base.stat().st_size
    layout = Layout.read(base.read_bytes())
    for family in (_outward(), _header(), _limits(), _tables(layout, size)):
        for name, code, reason, *patches in family:
            path = shop.derive(f"qcow2-{name}", base, *patches)
            yield Bad(path.name, path, "qcow2", code, reason)
    yield from _made_by_qemu(shop)
    yield from _compressed(shop)
    yield _version_2(shop)


Made = Iterator[tuple[str, str, str, *tuple[Patch, ...]]]


def _name_in_header(name: bytes) -> list[Patch]:
    return [(8, u64(1024) + u32(len(name))), (1024, name)]


def _outward() -> Made:
    for kind, name in {
        "absolute": b"/etc/passwd",
        "relative": b"../../ciming.conf",
        "json": b'json:{"driver":"file","filename":"/etc/shadow"}',
        "nbd": b"nbd://127.0.0.1:10809/x",
        "http": b"http://127.0.0.1/latest/meta-data",
        "itself": b"qcow2-backing-itself",
        "nothing": b"",
    }.items():
        yield f"backing-{kind}", UNSAFE, f"backing file {name!r}", *_name_in_header(name)
    for kind, name in {
        "absolute": b"/etc/passwd",
        "json": b'json:{"driver":"file","filename":"/etc/shadow"}',
    }.items():
        extension = u32(0x44415441) + u32(len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0")
        reason = f"external data file {name!r}"
        yield f"data-file-{kind}", UNSAFE, reason, (72, u64(4)), (112, extension + bytes(8))
    yield "data-file-unnamed", UNSAFE, "external data file, unnamed", (72, u64(4))


def _header() -> Made:
    for bit in (5, 6, 17, 40, 63):
        yield f"feature-{bit}", UNSAFE, f"unknown incompatible feature {bit}", (72, u64(1 << bit))
    yield "dirty", BROKEN, "not closed properly", (72, u64(1))
    yield "corrupt", BROKEN, "marked as corrupt", (72, u64(2))
    yield "compression-unknown", BROKEN, "compression type 200", (72, u64(8)), (104, b"\xc8")
    for version in (0, 1, 4, 0xFFFFFFFF):
        yield f"version-{version}", UNSUPPORTED, f"version {version}", (4, u32(version))
    for method in (1, 2, 77):
        yield f"crypt-{method}", UNSUPPORTED, f"encryption method {method}", (32, u32(method))
    for bits in (0, 8, 22, 63, 0xFFFFFFFF):
        yield f"cluster-bits-{bits}", BROKEN, f"clusters of 2^{bits} bytes", (20, u32(bits))
    for length in (0, 8, 103, 0xFFFFFFFF):
        yield f"header-length-{length}", BROKEN, f"header of {length} bytes", (100, u32(length))
    yield "refcount-order", BROKEN, "refcounts of 2^40 bits", (96, u32(40))
    yield "extension", BROKEN, "header extension longer than the file", (112, u32(7) + u32(1 << 31))


def _limits() -> Made:
    yield "size-0", "image.empty", "a disk of no bytes", (24, u64(0))
    for power in (47, 62, 63):
        yield f"size-2^{power}", LARGE, f"claims 2^{power} bytes", (24, u64(1 << power))
    yield "size-max", LARGE, "claims 2^64-1 bytes", (24, u64(2**64 - 1))
    yield "size-more-than-l1", BROKEN, "L1 table too short for 1 TiB", (24, u64(1 << 40))
    yield "l1-none", BROKEN, "L1 table without entries", (36, u32(0))
    yield "l1-endless", BROKEN, "L1 table of 2^32-1 entries", (36, u32(0xFFFFFFFF))
    yield "l1-long", BROKEN, "L1 table longer than the file", (36, u32(1 << 22))
    yield "snapshots", "image.too_complex", "2^16 internal snapshots", (60, u32(1 << 16))
    yield "snapshot-table", BROKEN, "snapshot table beyond the end", (60, u32(2) + u64(FAR))


def _tables(layout: Layout, size: int) -> Made:
    first, second = layout.tables[:2]
    one, other = layout.clusters[:2]
    end = size // CLUSTER * CLUSTER
    yield "l1-beyond", BROKEN, "L1 table beyond the end", (40, u64(FAR))
    yield "l1-wraps", BROKEN, "L1 table at 2^64-4096", (40, u64(2**64 - CLUSTER))
    yield "l1-unaligned", BROKEN, "L1 table not on a cluster", (40, u64(layout.l1 + 8))
    yield "l1-on-header", BROKEN, "L1 table is the header", (40, u64(0))
    for name, target in {
        "beyond": FAR,
        "at-end": end,
        "circular": layout.l1,
        "itself": first,
        "refcounts": layout.refcounts,
        "data": other,
        "unaligned": first + 512,
    }.items():
        place = layout.l1 + (8 if name == "itself" else 0)
        yield f"l2-{name}", BROKEN, f"L2 table: {name}", (place, u64(target | COPIED))
    for name, target in {
        "beyond": FAR,
        "header": 0x1000,
        "shared": other,
        "l2": second,
        "unaligned": one + 512,
    }.items():
        yield f"cluster-{name}", BROKEN, f"data cluster: {name}", (first, u64(target | COPIED))
    entry = COMPRESSED | (size - 512) | (7 << (70 - 12))
    yield "cluster-compressed-beyond", BROKEN, "compressed data beyond the end", (first, u64(entry))
    yield "refcounts-beyond", BROKEN, "refcount table beyond the end", (48, u64(FAR))
    yield "refcounts-none", BROKEN, "no refcount table", (56, u32(0))
    yield "refcounts-huge", BROKEN, "refcount table of 2^32-1 clusters", (56, u32(0xFFFFFFFF))
    yield (
        "refcount-block-beyond",
        BROKEN,
        "refcount block beyond the end",
        (
            layout.refcounts,
            u64(FAR),
        ),
    )
    yield "refcounts-zero", BROKEN, "everything counted as free", (layout.refcounts, u64(0))


def _made_by_qemu(shop: Workshop) -> Iterator[Bad]:
    secret = shop.create("secret", "raw", "1M")
    backing = shop.create("qcow2-made-backing", "qcow2", "1M", "-F", "raw", "-b", "/etc/passwd")
    yield Bad(backing.name, backing, "qcow2", UNSAFE, "backing file /etc/passwd, by qemu-img")
    data = shop.create("qcow2-made-data", "qcow2", "1M", "-o", f"data_file={secret}")
    yield Bad(data.name, data, "qcow2", UNSAFE, "external data file, by qemu-img")
    raw = f"data_file={secret},data_file_raw=on"
    data = shop.create("qcow2-made-data-raw", "qcow2", "1M", "-o", raw)
    yield Bad(data.name, data, "qcow2", UNSAFE, "external raw data file, by qemu-img")


def _version_2(shop: Workshop) -> Bad:
    base = shop.convert("version-2", "qcow2", "-o", f"compat=0.10,cluster_size={CLUSTER}")
    layout = Layout.read(base.read_bytes())
    entry = layout.clusters[0] | COPIED | 1
    path = shop.derive("qcow2-version-2-zeros", base, (layout.tables[0], u64(entry)))
    return Bad(path.name, path, "qcow2", BROKEN, "zeros for who knows version 3, data for others")


def _compressed(shop: Workshop) -> Iterator[Bad]:
    """A bomb: every cluster of the disk is the same few compressed bytes."""
    base = shop.convert("compressed", "qcow2", "-c", "-o", f"cluster_size={CLUSTER}")
    image = base.read_bytes()
    (l1,) = struct.unpack_from(">Q", image, 40)
    table = struct.unpack_from(">Q", image, l1)[0] & OFFSET
    entries = struct.unpack_from(f">{CLUSTER // 8}Q", image, table)
    one = next(entry for entry in entries if entry & COMPRESSED)
    bomb = shop.derive("qcow2-bomb", base, (table, u64(one) * (CLUSTER // 8)))
    yield Bad(bomb.name, bomb, "qcow2", BROKEN, "all clusters are one compressed cluster")
    maze = _maze(shop)
    yield Bad(maze.name, maze, "qcow2", BROKEN, "16384 L2 tables that are one and the same")


def _maze(shop: Workshop) -> Path:
    """A small file that would take a reader through gigabytes of tables."""
    base = shop.create("maze", "qcow2", "8T")
    image = base.read_bytes()
    (entries,) = struct.unpack_from(">I", image, 36)
    (l1,) = struct.unpack_from(">Q", image, 40)
    return shop.derive("qcow2-maze", base, (l1, u64(l1 | COPIED) * entries), length=1 << 20)
