# SPDX-License-Identifier: Apache-2.0
"""VHD, VHDX, VDI and ISO images that have a parent, or whose tables do not hold together."""

import struct
import uuid
from collections.abc import Iterator

from tests.corpus import disks
from tests.corpus.cases import Bad, Patch, Workshop

BROKEN, UNSAFE, LARGE = "image.broken", "image.unsafe", "image.too_large"
FAR = 0x7FFFFFFF
PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
Made = Iterator[tuple[str, str, str, *tuple[Patch, ...]]]


def cases(shop: Workshop) -> Iterator[Bad]:
    vhd = shop.convert("vhd-base", "vpc")
    fixed = shop.convert("vhd-fixed-base", "vpc", "-o", "subformat=fixed")
    vhdx = shop.convert("vhdx-base", "vhdx", "-o", "block_size=1M")
    vdi = shop.convert("vdi-base", "vdi")
    iso = shop.new("iso-base")
    disks.iso(iso)
    for base, disk_format, family in (
        (vhd, "vhd", _vhd(vhd.read_bytes())),
        (fixed, "vhd", _fixed_vhd(fixed.read_bytes()[-512:])),
        (vhdx, "vhdx", _vhdx()),
        (vdi, "vdi", _vdi(vdi.read_bytes())),
        (iso, "iso", _iso()),
    ):
        for name, code, reason, *patches in family:
            path = shop.derive(f"{disk_format}-{name}", base, *patches)
            yield Bad(path.name, path, disk_format, code, reason)


def summed(block: bytes, place: int, *patches: Patch) -> bytes:
    """A VHD footer or header with other fields, and the right checksum."""
    changed = bytearray(block)
    for offset, content in patches:
        changed[offset : offset + len(content)] = content
    changed[place : place + 4] = bytes(4)
    changed[place : place + 4] = struct.pack(">I", ~sum(changed) & 0xFFFFFFFF)
    return bytes(changed)


def vhd_footer(footer: bytes, *patches: Patch) -> bytes:
    return summed(footer, 64, *patches)


def _both_footers(footer: bytes, *patches: Patch) -> tuple[Patch, Patch]:
    changed = vhd_footer(footer, *patches)
    return (0, changed), (-512, changed)


def _vhd(image: bytes) -> Made:
    footer, header = image[:512], image[512:1536]
    (table,) = struct.unpack_from(">Q", header, 16)
    blocks = struct.unpack_from(">2I", image, table)
    for name, code, reason, field, content in (
        ("differencing", UNSAFE, "a difference to a parent", 60, struct.pack(">I", 4)),
        ("type-0", BROKEN, "no type", 60, bytes(4)),
        ("fixed-with-copy", BROKEN, "fixed, but begins with a footer", 60, struct.pack(">I", 2)),
        ("size-2^62", LARGE, "claims 2^62 bytes", 48, struct.pack(">Q", 1 << 62)),
        ("size-max", LARGE, "claims 2^64-1 bytes", 48, b"\xff" * 8),
        ("size-0", "image.empty", "a disk of no bytes", 48, bytes(8)),
        ("size-more", BROKEN, "block table too short", 48, struct.pack(">Q", 1 << 40)),
        ("header-beyond", BROKEN, "header beyond the end", 16, struct.pack(">Q", 1 << 40)),
        ("header-circular", BROKEN, "the header is the footer", 16, bytes(8)),
    ):
        yield name, code, reason, *_both_footers(footer, (field, content))
    yield "checksum", BROKEN, "wrong checksum in front", (100, b"damaged")
    yield "checksum-at-end", BROKEN, "wrong checksum at the end", (-412, b"damaged")
    yield "no-footer", BROKEN, "zeros for a footer", (-512, bytes(512))
    other = vhd_footer(footer, (48, struct.pack(">Q", disks.DISK // 2)))
    yield "footers-differ", BROKEN, "two sizes", (-512, other)
    for name, field, content in (
        ("table-beyond", 16, struct.pack(">Q", 1 << 40)),
        ("block-0", 32, bytes(4)),
        ("block-odd", 32, struct.pack(">I", 3 * disks.MIB)),
        ("block-tiny", 32, struct.pack(">I", 512)),
        ("entries-0", 28, bytes(4)),
        ("cookie", 0, b"cxparsed"),
    ):
        yield f"header-{name}", BROKEN, name, (512, summed(header, 36, (field, content)))
    yield "bat-beyond", BROKEN, "block beyond the end", (table, struct.pack(">I", FAR))
    yield "bat-shared", BROKEN, "two blocks are one", (table, struct.pack(">I", blocks[1]))
    yield "bat-overlap", BROKEN, "two blocks overlap", (table, struct.pack(">I", blocks[1] + 8))
    # Whoever asks the bitmap sees zeros there, whoever does not sees the partition table.
    yield "bitmap-none", BROKEN, "a block whose sectors are all unused", (blocks[0] * 512, bytes(512))
    yield "bitmap-first", BROKEN, "its first sector is unused", (blocks[0] * 512, b"\x7f")


def _fixed_vhd(footer: bytes) -> Made:
    for name, code, reason, field, content in (
        ("longer", BROKEN, "claims a sector more", 48, struct.pack(">Q", 64 * disks.MIB)),
        ("size-2^62", LARGE, "claims 2^62 bytes", 48, struct.pack(">Q", 1 << 62)),
        ("size-0", "image.empty", "a disk of no bytes", 48, bytes(8)),
        ("dynamic", BROKEN, "a dynamic disk without its beginning", 60, struct.pack(">I", 3)),
        ("differencing", BROKEN, "a difference without its beginning", 60, struct.pack(">I", 4)),
    ):
        yield f"fixed-{name}", code, reason, (-512, vhd_footer(footer, (field, content)))
    yield "fixed-checksum", BROKEN, "wrong checksum", (-412, b"damaged")


def _vhdx() -> Made:
    """qemu-img puts the regions at 192 KiB, the block table at 2 MiB, the metadata at 3 MiB."""
    regions, bat, metadata = 192 * 1024, 2 * disks.MIB, 3 * disks.MIB
    parameters, size, sector = (metadata + offset for offset in (0x10000, 0x10008, 0x10020))
    bat_entry, metadata_entry = regions + 16, regions + 48
    yield "parent-flag", UNSAFE, "marked as having a parent", (parameters + 4, b"\2")
    yield "parent-locator", UNSAFE, "names its parent", (metadata + 32 + 2 * 32, PARENT_LOCATOR)
    yield "block-partial", UNSAFE, "half a block is the parent's", (bat, b"\7")
    yield "size-2^62", LARGE, "claims 2^62 bytes", (size, struct.pack("<Q", 1 << 62))
    yield "size-0", "image.empty", "a disk of no bytes", (size, bytes(8))
    yield "size-more", BROKEN, "block table too short", (size, struct.pack("<Q", 1 << 44))
    for block in (0, 3 * disks.MIB, 512, 1 << 30):
        yield f"block-{block}", BROKEN, f"blocks of {block}", (parameters, struct.pack("<I", block))
    for length in (0, 513):
        yield f"sector-{length}", BROKEN, "odd sectors", (sector, struct.pack("<I", length))
    yield "bat-beyond", BROKEN, "block beyond the end", (bat, struct.pack("<Q", 1 << 45 | 6))
    yield "bat-shared", BROKEN, "all blocks are one", (bat, struct.pack("<Q", 8 << 20 | 6) * 4)
    yield "regions-magic", BROKEN, "no region table", (regions, b"REGI")
    yield "regions-count", BROKEN, "5000 regions", (regions + 8, struct.pack("<I", 5000))
    yield "regions-none", BROKEN, "no regions", (regions + 8, bytes(4))
    yield "bat-none", BROKEN, "no block table", (bat_entry, bytes(16))
    yield "bat-region", BROKEN, "block table beyond", (bat_entry + 16, struct.pack("<Q", 1 << 45))
    far = struct.pack("<Q", 1 << 45)
    yield "metadata-beyond", BROKEN, "metadata beyond the end", (metadata_entry + 16, far)
    yield "metadata-early", BROKEN, "metadata in the header", (metadata_entry + 16, bytes(8))
    yield "metadata-magic", BROKEN, "no metadata", (metadata, b"METADATA")
    yield "metadata-count", BROKEN, "2048 items", (metadata + 10, struct.pack("<H", 2048))
    yield "metadata-length", BROKEN, "a size of 3 bytes", (metadata + 32 + 32 + 20, b"\3")
    yield "metadata-no-size", BROKEN, "no size", (metadata + 32 + 32, bytes(16))
    log = uuid.UUID(int=3).bytes_le
    heads = [(at + 48, log) for at in (64 * 1024, 128 * 1024)]
    yield "log", BROKEN, "a log and headers that do not match", *heads


def _vdi(image: bytes) -> Made:
    table, _data = struct.unpack_from("<II", image, 0x154)
    yield "differencing", UNSAFE, "a difference to a parent", (0x4C, struct.pack("<I", 4))
    yield "undo", UNSAFE, "an undo file", (0x4C, struct.pack("<I", 3))
    yield "parent", UNSAFE, "has a parent's UUID", (0x1B8, uuid.UUID(int=7).bytes)
    yield "link", UNSAFE, "is linked to another image", (0x1A8, uuid.UUID(int=7).bytes)
    yield "size-2^62", LARGE, "claims 2^62 bytes", (0x170, struct.pack("<Q", 1 << 62))
    yield "size-0", "image.empty", "a disk of no bytes", (0x170, bytes(8))
    yield "size-more", BROKEN, "block table too short", (0x170, struct.pack("<Q", 1 << 40))
    for block in (0, 4096, 1 << 31):
        reason = f"blocks of {block} bytes"
        yield f"block-{block}", "image.format_unsupported", reason, (0x178, struct.pack("<I", block))
    yield "extra", "image.format_unsupported", "more per block", (0x17C, struct.pack("<I", 512))
    yield "blocks", BROKEN, "a table of 2^31 blocks", (0x180, struct.pack("<I", 1 << 31))
    yield "allocated", BROKEN, "2^31 blocks in the file", (0x184, struct.pack("<I", 1 << 31))
    yield "allocated-0", BROKEN, "blocks that are not counted", (0x184, bytes(4))
    yield "table-beyond", BROKEN, "table beyond the end", (0x154, struct.pack("<I", 1 << 31))
    yield "data-beyond", BROKEN, "blocks begin beyond the end", (0x158, struct.pack("<I", 1 << 31))
    yield "block-beyond", BROKEN, "block beyond the end", (table, struct.pack("<I", FAR))
    yield "block-shared", BROKEN, "two blocks are one", (table, bytes(8))
    yield "version", BROKEN, "version 9", (0x44, struct.pack("<I", 9 << 16))


def _iso() -> Made:
    descriptor = 16 * 2048
    for name, patch in {
        "longer": (80, struct.pack("<I", 1 << 20)),
        "endless": (80, b"\xff" * 4),
        "no-blocks": (80, bytes(4)),
        "block-0": (128, bytes(2)),
        "block-odd": (128, struct.pack("<H", 2049)),
        "not-primary": (0, b"\2"),
        "no-descriptors": (0, b"\xff"),
    }.items():
        yield name, BROKEN, name, (descriptor + patch[0], patch[1])
