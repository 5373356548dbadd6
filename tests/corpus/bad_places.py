# SPDX-License-Identifier: Apache-2.0
"""Magics that are wrong, footers and descriptors out of place, parts that lie on each other, and second
formats in the room that a first one leaves."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tests.corpus import disks, good
from tests.corpus.bad_extremes import crc32c_sealed
from tests.corpus.bad_vhd import summed
from tests.corpus.bad_vmdk import EMBEDDED, embedded
from tests.corpus.cases import Bad, Patch, Workshop

BROKEN, UNSAFE, MISMATCH = "image.broken", "image.unsafe", "image.format_mismatch"
UNSUPPORTED = "image.format_unsupported"
KIB = 1024
REGIONS = 192 * KIB
Made = Iterator[tuple[str, str, str, *tuple[Patch, ...]]]

# Of these the magic alone is not enough to be them.
HIDDEN = {
    ("vdi", "vmdk"): BROKEN,
    ("vdi", "vhdx"): BROKEN,
    ("iso", "vmdk"): BROKEN,
}
MAGICS = {
    "qcow2": (0, b"QFI\xfb"),
    "vmdk": (0, b"KDMV"),
    "vhd": (0, b"conectix"),
    "vhdx": (0, b"vhdxfile"),
    "vdi": (0x40, b"\x7f\x10\xda\xbe"),
    "iso": (16 * disks.BLOCK + 1, b"CD001"),
}


def cases(shop: Workshop) -> Iterator[Bad]:
    bases = _bases(shop)
    yield from _magics(shop, bases)
    yield from _second_formats(shop, bases)
    yield from _moved(shop, bases)
    for disk_format, family in (
        ("vhd", _vhd(bases["vhd"].read_bytes())),
        ("vhdx", _vhdx(bases["vhdx"].read_bytes())),
        ("vdi", _vdi(bases["vdi"].read_bytes())),
        ("vmdk", _vmdk()),
        ("iso", _iso(bases["iso"].read_bytes())),
    ):
        for name, code, reason, *patches in family:
            path = shop.derive(f"{disk_format}-place-{name}", bases[disk_format], *patches)
            yield Bad(path.name, path, disk_format, code, reason)


def _bases(shop: Workshop) -> dict[str, Path]:
    iso = shop.new("place-iso")
    disks.iso(iso)
    return {
        "qcow2": shop.convert("place-qcow2", "qcow2"),
        "vmdk": shop.convert("place-vmdk", "vmdk"),
        "vhd": shop.convert("place-vhd", "vpc"),
        "vhdx": shop.convert("place-vhdx", "vhdx", "-o", "block_size=2M"),
        "vdi": shop.convert("place-vdi", "vdi"),
        "iso": iso,
    }


def _magics(shop: Workshop, bases: dict[str, Path]) -> Iterator[Bad]:
    for disk_format, (place, magic) in MAGICS.items():
        for name, patches in {
            "zeros": [(place, bytes(len(magic)))],
            "swapped": [(place, magic.swapcase()[::-1])],
            "last-byte": [(place, magic[:-1] + b"?")],
            "first-byte": [(place, b"?" + magic[1:])],
            "byte-later": [(place, b"\0" + magic)],
        }.items():
            path = shop.derive(f"{disk_format}-magic-{name}", bases[disk_format], *patches)
            # A VHD has its magic at its end, too: half of it is still there.
            code = BROKEN if disk_format == "vhd" else MISMATCH
            yield Bad(path.name, path, disk_format, code, f"the magic of {disk_format} is wrong: {name}")


def _second_formats(shop: Workshop, bases: dict[str, Path]) -> Iterator[Bad]:
    """Each format with the marks of each other for which it has room."""
    iso = bases["iso"].read_bytes()
    fixed = shop.convert("place-fixed", "vpc", "-o", "subformat=fixed").read_bytes()[-512:]
    heads: dict[str, tuple[int, bytes]] = {
        **MAGICS,
        "iso": (16 * disks.BLOCK, iso[16 * disks.BLOCK : 18 * disks.BLOCK]),
        "mbr": (510, disks.BOOT_SIGNATURE),
        "luks": (0, b"LUKS\xba\xbe\0\1"),
        "qed": (0, b"QED\0"),
    }
    for host in ("qcow2", "vmdk", "vhdx", "vdi", "iso"):
        for guest, patch in heads.items():
            if guest == host or (host, guest) == ("iso", "mbr"):
                continue
            if host not in ("vdi", "iso") and guest not in ("vdi", "iso", "mbr"):
                continue  # the magic of one is where that of the other is
            path = shop.derive(f"{host}-hides-{guest}", bases[host], patch)
            yield Bad(path.name, path, host, HIDDEN.get((host, guest), UNSAFE), f"{host} and {guest} at once")
        content = bases[host].read_bytes()
        for name, size in (("whole", len(content)), ("part", len(content) // 1024 * 512)):
            footer = summed(fixed, 64, (48, struct.pack(">Q", size)))
            path = shop.write(f"{host}-hides-vhd-{name}", content + footer)
            yield Bad(path.name, path, host, UNSAFE, f"{host}, and a VHD of {size} bytes")
    for name, magic in {"parallels": b"WithoutFreeSpace", "cow": b"COWD", "luks-2": b"SKUL\xba\xbe"}.items():
        path = shop.derive(f"iso-hides-{name}", bases["iso"], (0, magic))
        yield Bad(path.name, path, "iso", UNSUPPORTED, f"an ISO that begins as {name}")
    for name, tail in {"dmg": b"koly\0\0\0\4".ljust(512, b"\0"), "vhd-511": b"conectix".ljust(511)}.items():
        path = shop.write(f"iso-hides-{name}", iso + tail)
        yield Bad(path.name, path, "iso", UNSUPPORTED, f"an ISO that ends as {name}")
    path = shop.derive("iso-hides-descriptor", bases["iso"], (0, EMBEDDED.encode()))
    yield Bad(path.name, path, "iso", UNSAFE, "an ISO that begins with a VMDK descriptor")


def _moved(shop: Workshop, bases: dict[str, Path]) -> Iterator[Bad]:
    """The whole image a little later, or with something after its end."""
    for disk_format, base in bases.items():
        content = base.read_bytes()
        for name, before in (("byte", b"\0"), ("sector", bytes(512)), ("text", b"#!/bin/sh\n")):
            path = shop.write(f"{disk_format}-after-a-{name}", before + content)
            yield Bad(path.name, path, disk_format, _moved_code(disk_format), f"begins with a {name}")
    vhd = bases["vhd"].read_bytes()
    fixed = shop.convert("place-fixed", "vpc", "-o", "subformat=fixed").read_bytes()
    stream = good.stream_with_footer(shop).read_bytes()
    for name, disk_format, content, code in (
        ("vhd-longer", "vhd", vhd + bytes(512), BROKEN),
        ("vhd-byte-longer", "vhd", vhd + b"\0", BROKEN),
        ("vhd-footer-before-end", "vhd", vhd[:-1024] + vhd[-512:] + bytes(512), BROKEN),
        ("vhd-only-footers", "vhd", vhd[:512] * 2, BROKEN),
        ("vhd-one-footer", "vhd", vhd[:512], BROKEN),
        ("vhd-fixed-longer", "vhd", fixed + bytes(512), MISMATCH),
        ("vhd-fixed-footer-only", "vhd", fixed[-512:], BROKEN),
        ("vhd-fixed-footer-first", "vhd", fixed[-512:] + fixed[:-512], BROKEN),
        ("vhd-fixed-footer-twice", "vhd", fixed[-512:] + fixed, BROKEN),
        ("vmdk-footer-before-end", "vmdk", stream + bytes(512), BROKEN),
        ("vmdk-footer-byte-before", "vmdk", stream + b"\0", BROKEN),
        ("vmdk-footer-first", "vmdk", stream[:512] + stream[-1536:] + stream[512:-1536], UNSAFE),
        ("vmdk-footer-missing", "vmdk", stream[:-1536], BROKEN),
        ("vmdk-footer-only", "vmdk", stream[:512] + stream[-1536:], BROKEN),
    ):
        path = shop.write(f"{name}-moved", content)
        yield Bad(path.name, path, disk_format, code, name)


def _moved_code(disk_format: str) -> str:
    """What is not at its place is a raw disk, unless the other end tells what it was."""
    return BROKEN if disk_format == "vhd" else MISMATCH


def _vhd(image: bytes) -> Made:
    header = image[512:1536]
    (table,) = struct.unpack_from(">Q", header, 16)
    blocks = struct.unpack_from(">2I", image, table)
    end, block = len(image) - 512, blocks[0] * 512
    entries = struct.pack(">2I", *blocks)
    for name, place in (("footer", 0), ("header", 512), ("end", end), ("block", block)):
        patches = [(512, summed(header, 36, (16, struct.pack(">Q", place))))]
        patches += [(place, entries)] if name == "block" else []
        yield f"table-on-{name}", BROKEN, f"the block table is on the {name}", *patches
    sectors = {"footer": 0, "header": 1, "table": table // 512, "end": end // 512, "half": blocks[1] - 1}
    for name, sector in sectors.items():
        yield f"block-on-{name}", BROKEN, f"a block is on the {name}", (table, struct.pack(">I", sector))
    for name, place in (("table", table), ("end", end - 512), ("block", block)):
        footer = summed(image[:512], 64, (16, struct.pack(">Q", place)))
        patches = [(place, header), (0, footer), (-512, footer)]
        yield f"header-on-{name}", BROKEN, f"the header is on the {name}", *patches


def _vhdx(image: bytes) -> Made:
    regions, bat = image[REGIONS : REGIONS + 64 * KIB], struct.unpack_from("<2Q", image, 2 * disks.MIB)
    first = bat[0] // disks.MIB
    for name, entries in {
        "header": (0, bat[1]),
        "log": (1, bat[1]),
        "table": (2, bat[1]),
        "metadata": (3, bat[1]),
        "half": (first, (first + 1) * disks.MIB | 6),
    }.items():
        one, other = entries
        content = struct.pack("<QQ", one * disks.MIB | 6, other)
        yield f"block-on-{name}", BROKEN, f"a block is on the {name}", (2 * disks.MIB, content)
    for name, place, length in (
        ("header", 0, 1),
        ("log", 1, 1),
        ("metadata", 3, 1),
        ("block", first, 1),
        ("much", 2, 64),
    ):
        where = struct.pack("<QI", place * disks.MIB, length * disks.MIB)
        table = crc32c_sealed(regions, (16 + 16, where))
        copies = [(at, table) for at in (REGIONS, REGIONS + 64 * KIB)]
        copies += [(place * disks.MIB, struct.pack("<2Q", *bat))] if name == "block" else []
        yield f"table-on-{name}", BROKEN, f"the block table is on the {name}", *copies
    for name, entry in {"table-twice": regions[16:48], "metadata-twice": regions[48:80]}.items():
        table = crc32c_sealed(regions, (8, struct.pack("<I", 3)), (80, entry))
        copies = [(at, table) for at in (REGIONS, REGIONS + 64 * KIB)]
        yield name, BROKEN, f"the region is named twice: {name}", *copies
    item = image[(3 << 20) + 32 : (3 << 20) + 64]
    twice = (3 << 20) + 10, struct.pack("<H", 6)
    yield "item-twice", BROKEN, "an item is named twice", twice, ((3 << 20) + 32 + 5 * 32, item)
    yield "second-regions-only", BROKEN, "only a copy of the region table is left", (REGIONS, bytes(64 * KIB))
    yield "no-heads", BROKEN, "both headers are gone", (64 * KIB, bytes(4 * KIB)), (128 * KIB, bytes(4 * KIB))


def _vdi(image: bytes) -> Made:
    table, data = struct.unpack_from("<II", image, 0x154)
    yield "table-on-header", BROKEN, "the block table is on the header", (0x154, struct.pack("<I", 0))
    yield "table-on-data", BROKEN, "the block table is among the blocks", (0x154, struct.pack("<I", data))
    yield "data-on-table", BROKEN, "the blocks begin at the table", (0x158, struct.pack("<I", table))
    yield "data-on-header", BROKEN, "the blocks begin at the header", (0x158, struct.pack("<I", 0))
    (blocks,) = struct.unpack_from("<I", image, 0x180)
    yield "blocks-all-one", BROKEN, "all blocks are one", (table, bytes(4 * blocks))


def _vmdk() -> Made:
    for sector in (0, 2, 3, 20, 100):
        patch = 28, struct.pack("<Q", sector)
        yield f"descriptor-at-{sector}", BROKEN, f"the descriptor is at sector {sector}", patch
    later = bytes(512) + EMBEDDED.encode()
    yield "descriptor-later", UNSAFE, "the descriptor is a sector later than it says", (512, later)
    yield "descriptor-none", UNSAFE, "there is no descriptor", embedded("")
    yield "descriptor-twice", UNSAFE, "a second descriptor goes on in the first", embedded(EMBEDDED * 2)


def _iso(image: bytes) -> Made:
    first, sector = 16 * disks.BLOCK, disks.BLOCK
    primary, end = image[first : first + sector], image[first + sector : first + 2 * sector]
    yield "end-first", BROKEN, "the end of the descriptors comes first", (first, end + primary)
    yield "no-end", BROKEN, "32 descriptors, and none is primary", (first, (b"\2" + primary[1:]) * 32)
    yield "later", MISMATCH, "the descriptors begin a sector later", (first, bytes(sector) + primary + end)
    earlier = first - sector, primary + end + bytes(sector)
    yield "earlier", BROKEN, "the last descriptor is where the first should be", earlier
