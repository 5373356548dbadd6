# SPDX-License-Identifier: Apache-2.0
"""VMDK images that point at other files, or whose grains are not all there."""

import struct
from collections.abc import Iterator

from tests.corpus import good
from tests.corpus.cases import Bad, Patch, Workshop

BROKEN, UNSAFE = "image.broken", "image.unsafe"
SECTOR = 512
DESCRIPTOR_SIZE = 20 * SECTOR
SUBFORMATS = ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat")
EMBEDDED = (
    "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
    'createType="monolithicSparse"\nRW 8192 SPARSE "disk.vmdk"\nddb.adapterType = "ide"\n'
)


def cases(shop: Workshop) -> Iterator[Bad]:
    base = shop.convert("vmdk-base", "vmdk")
    for family in (_descriptors(), _header(), _grains(base.read_bytes())):
        for name, code, reason, *patches in family:
            path = shop.derive(f"vmdk-{name}", base, *patches)
            yield Bad(path.name, path, "vmdk", code, reason)
    yield from _subformats(shop)
    yield from _stream(shop)


Made = Iterator[tuple[str, str, str, *tuple[Patch, ...]]]


def embedded(text: str) -> Patch:
    return SECTOR, text.encode().ljust(DESCRIPTOR_SIZE, b"\0")


def _descriptors() -> Made:
    extent = 'RW 8192 SPARSE "disk.vmdk"\n'
    kind = 'createType="monolithicSparse"\n'
    for name, old, new, reason in (
        ("extent-outside", extent, 'RW 8192 FLAT "/etc/passwd" 0\n', "an extent in /etc/passwd"),
        ("extent-sparse", extent, 'RW 8192 SPARSE "/etc/passwd"\n', "an extent in /etc/passwd"),
        ("extent-beside", extent, 'RW 8192 FLAT "other.img" 0\n', "an extent in the same folder"),
        ("extents", extent, extent * 2, "two extents"),
        ("extent-none", extent, "", "no extent at all"),
        ("flat", kind, 'createType="monolithicFlat"\n', "data in other files"),
        ("vmfs", kind, 'createType="vmfs"\n', "data in other files"),
        ("type-none", kind, "", "no type"),
        ("types", kind, kind.upper() + 'createType="monolithicFlat"\n', "two types"),
        ("parent", kind, kind + 'parentFileNameHint="/etc/passwd"\n', "a parent /etc/passwd"),
        ("parent-comment", kind, kind + '#parentFileNameHint="x"\n', "a parent, to some readers"),
        ("parent-cid", "parentCID=ffffffff", "parentCID=12345678", "a parent, by its CID"),
        ("line", kind, kind + "load every file\n", "a line that makes no sense"),
        ("binary", "version=1", "version=\xff\xfe", "a descriptor that is no text"),
    ):
        yield f"descriptor-{name}", UNSAFE, reason, embedded(EMBEDDED.replace(old, new))
    hidden = (EMBEDDED.ljust(SECTOR - 1, "#") + "\n").encode() + b'parentFileNameHint="x"\n'
    size = struct.pack("<Q", 1)
    yield "descriptor-endless", UNSAFE, "text goes on after its end", (36, size), (SECTOR, hidden)
    yield "descriptor-large", UNSAFE, "a descriptor of 1 MiB", (36, struct.pack("<Q", 2048))
    blank = (EMBEDDED + extent + "\n" * 60_000 + ".").encode().ljust(127 * SECTOR, b"\0")
    yield "descriptor-blank", UNSAFE, "two extents, and 60,000 blank lines", (36, struct.pack("<Q", 127)), (
        SECTOR, blank)  # fmt: skip
    yield "descriptor-moved", BROKEN, "descriptor elsewhere", (28, struct.pack("<Q", 9))


def _header() -> Made:
    for sectors in (2**63, 2**64 - 1):
        yield (
            f"capacity-{sectors}",
            "image.too_large",
            f"claims {sectors} sectors",
            (12, struct.pack("<Q", sectors)),
        )
    yield "capacity-0", "image.empty", "a disk of no sectors", (12, bytes(8))
    yield "capacity-more", BROKEN, "grain directory too short", (12, struct.pack("<Q", 1 << 36))
    for grain in (0, 1, 7, 129, 2**40):
        yield f"grain-{grain}", BROKEN, f"grains of {grain} sectors", (20, struct.pack("<Q", grain))
    for entries in (0, 513, 2**32 - 1):
        patch = (44, struct.pack("<I", entries))
        yield f"entries-{entries}", BROKEN, f"grain tables of {entries} entries", patch
    for version in (0, 4, 2**32 - 1):
        yield f"version-{version}", BROKEN, f"version {version}", (4, struct.pack("<I", version))


def _grains(image: bytes) -> Made:
    (directory,) = struct.unpack_from("<Q", image, 56)
    (table,) = struct.unpack_from("<I", image, directory * SECTOR)
    place = table * SECTOR
    grains = struct.unpack_from("<512I", image, place)
    (first, one), (other, _), *_more = [(i, grain) for i, grain in enumerate(grains) if grain]
    far = struct.pack("<I", 0x7FFFFFFF)
    yield "directory-beyond", BROKEN, "directory beyond the end", (56, struct.pack("<Q", 1 << 40))
    yield "directory-wraps", BROKEN, "directory at 2^63", (56, struct.pack("<Q", 1 << 63))
    yield "table-beyond", BROKEN, "grain table beyond the end", (directory * SECTOR, far)
    yield "grain-beyond", BROKEN, "grain beyond the end", (place + 4 * first, far)
    yield "grain-shared", BROKEN, "two grains are one", (place + 4 * other, struct.pack("<I", one))
    yield "grain-zeroed", BROKEN, "a grain in the descriptor, as no flag says that it is zeros", (
        place + 4 * first, struct.pack("<I", 1))  # fmt: skip
    tables = struct.pack("<II", table, table)
    yield "table-shared", BROKEN, "two grain tables are one", (
        12, struct.pack("<Q", 2 * 65536)), (directory * SECTOR, tables)  # fmt: skip


def _subformats(shop: Workshop) -> Iterator[Bad]:
    for subformat in SUBFORMATS:
        path = shop.convert(f"vmdk-made-{subformat}.vmdk", "vmdk", "-o", f"subformat={subformat}")
        yield Bad(path.name, path, "vmdk", UNSAFE, f"{subformat}: the data is in other files")
    part = shop.new("vmdk-made-twoGbMaxExtentSparse-s001.vmdk")
    yield Bad(part.name, part, "vmdk", UNSAFE, "a part of a disk, without a descriptor")


def _stream(shop: Workshop) -> Iterator[Bad]:
    base = good.stream_with_footer(shop)
    for name, patch, reason in (
        ("capacity", (-1024 + 12, struct.pack("<Q", 1 << 20)), "the footer claims more"),
        ("flags", (-1024 + 8, bytes(4)), "the footer denies the compression"),
        ("magic", (-1024, b"VMDK"), "the footer has another magic"),
        ("again", (-1024 + 56, good.AT_END), "the footer points at another footer"),
        ("marker", (-1536, bytes(512)), "no footer marker"),
        ("end", (-512, b"\1"), "no end of stream"),
    ):
        path = shop.derive(f"vmdk-footer-{name}", base, patch)
        yield Bad(path.name, path, "vmdk", BROKEN, reason)
    stream = base.read_bytes()
    (directory,) = struct.unpack_from("<Q", stream[-1024:], good.GRAIN_DIRECTORY)
    (table,) = struct.unpack_from("<I", stream, directory * SECTOR)
    entries = struct.unpack_from("<512I", stream, table * SECTOR)
    (one, first), (other, second), *_more = [(i, grain) for i, grain in enumerate(entries) if grain]
    swapped = [(table * SECTOR + 4 * i, struct.pack("<I", to)) for i, to in ((one, second), (other, first))]
    elsewhere = (first * SECTOR, struct.pack("<Q", 1 << 40))
    for name, patches in (("swapped", swapped), ("elsewhere", [elsewhere])):
        path = shop.derive(f"vmdk-grain-{name}", base, *patches)
        yield Bad(path.name, path, "vmdk", BROKEN, "another disk for who goes by the stream")
    unmarked = struct.pack("<I", 0x10001)
    path = shop.derive("vmdk-unmarked", base, (8, unmarked), (-1024 + 8, unmarked))
    yield Bad(path.name, path, "vmdk", BROKEN, "nothing says how long its compressed grains are")
