# SPDX-License-Identifier: Apache-2.0
"""Header fields at their extremes: each field of each format that says how the rest is to be read."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tests.corpus import disks
from tests.corpus.bad_vhd import summed
from tests.corpus.cases import Bad, Patch, Workshop

CODES = {
    "B": "image.broken",
    "C": "image.too_complex",
    "E": "image.empty",
    "L": "image.too_large",
    "M": "image.format_mismatch",
    "S": "image.unsafe",
    "U": "image.format_unsupported",
}
# What becomes of 0, 1, the highest bit alone, and all bits. "-": it is there already, or does no harm.
Field = tuple[str, int, int, str]
QCOW2: tuple[Field, ...] = (
    ("magic", 0, 4, "MMMM"),
    ("version", 4, 4, "UUUU"),
    ("backing-offset", 8, 8, "-SSS"),
    ("cluster-bits", 20, 4, "BBBB"),
    ("size", 24, 8, "EBLL"),
    ("encryption", 32, 4, "-UUU"),
    ("l1-entries", 36, 4, "B-BB"),
    ("l1-offset", 40, 8, "BBBB"),
    ("refcount-offset", 48, 8, "BBBB"),
    ("refcount-clusters", 56, 4, "B-BB"),
    ("snapshots", 60, 4, "-BCC"),
    ("snapshot-offset", 64, 8, "-BBB"),
    ("features", 72, 8, "-BSS"),
    ("refcount-order", 96, 4, "BBBB"),
    ("header-length", 100, 4, "BBBB"),
    ("compression", 104, 1, "-BBB"),
)
VMDK: tuple[Field, ...] = (
    ("magic", 0, 4, "MMMM"),
    ("version", 4, 4, "B-BB"),
    ("flags", 8, 4, "---B"),
    ("capacity", 12, 8, "E-LL"),
    ("grain", 20, 8, "BBBB"),
    ("descriptor", 28, 8, "B-BB"),
    ("descriptor-size", 36, 8, "S-SS"),
    ("table-entries", 44, 4, "BBBB"),
    ("directory", 56, 8, "BBBB"),
    ("compression", 77, 2, "-BBB"),
)
VDI: tuple[Field, ...] = (
    ("magic", 0x40, 4, "MMMM"),
    ("version", 0x44, 4, "BBBB"),
    ("kind", 0x4C, 4, "S-SS"),
    ("table", 0x154, 4, "BBBB"),
    ("data", 0x158, 4, "BBBB"),
    ("sector", 0x168, 4, "BBBB"),
    ("size", 0x170, 8, "E-LL"),
    ("block", 0x178, 4, "UUUU"),
    ("extra", 0x17C, 4, "-UUU"),
    ("blocks", 0x180, 4, "BBBB"),
    ("allocated", 0x184, 4, "BBBB"),
    ("link", 0x1A8, 8, "-SSS"),
    ("parent", 0x1B8, 8, "-SSS"),
)
VHD_FOOTER: tuple[Field, ...] = (
    ("version", 12, 4, "BBBB"),
    ("header", 16, 8, "BBBB"),
    ("size", 48, 8, "EBLL"),
    ("kind", 60, 4, "BBBB"),
)
VHD_HEADER: tuple[Field, ...] = (
    ("cookie", 0, 8, "BBBB"),
    ("table", 16, 8, "BBBB"),
    ("version", 24, 4, "BBBB"),
    ("entries", 28, 4, "BBBB"),
    ("block", 32, 4, "BBBB"),
    ("parent", 40, 8, "-SSS"),
    ("parent-name", 64, 2, "-SSS"),
    ("parent-place", 576, 4, "-SSS"),
)
VHDX_HEAD: tuple[Field, ...] = (
    ("signature", 0, 4, "BBBB"),
    ("log-version", 64, 2, "-BBB"),
    ("version", 66, 2, "B-BB"),
    ("log-length", 68, 4, "BBBB"),
    ("log-offset", 72, 8, "BBBB"),
)
VHDX_REGIONS: tuple[Field, ...] = (
    ("signature", 0, 4, "BBBB"),
    ("count", 8, 4, "BBBB"),
    ("table-offset", 16 + 16, 8, "BBBB"),
    ("table-length", 16 + 24, 4, "BBBB"),
    ("metadata-offset", 48 + 16, 8, "BBBB"),
    ("metadata-length", 48 + 24, 4, "BBBB"),
)
VHDX_METADATA: tuple[Field, ...] = (
    ("signature", 0, 8, "BBBB"),
    ("count", 10, 2, "BBBB"),
    ("block-size", 0x10000, 4, "BBBB"),
    ("parameters", 0x10004, 4, "---S"),
    ("size", 0x10008, 8, "EBLL"),
    ("sector", 0x10020, 4, "BBBB"),
)
ISO: tuple[Field, ...] = (
    ("kind", 0, 1, "B-BB"),
    ("identifier", 1, 5, "MMMM"),
    ("blocks", 80, 4, "B-BB"),
    ("block", 128, 2, "BBBB"),
)


@dataclass(frozen=True)
class Structure:
    """A part of a file with a header's fields, and how a change of them is made to look right."""

    disk_format: str
    name: str
    order: Literal["big", "little"]
    fields: tuple[Field, ...]
    patches: Callable[[bytes, int, bytes], list[Patch]]


def _at(start: int) -> Callable[[bytes, int, bytes], list[Patch]]:
    """Nothing vouches for what is there."""
    return lambda _image, place, value: [(start + place, value)]


def _vhd_footer(image: bytes, place: int, value: bytes) -> list[Patch]:
    footer = summed(image[:512], 64, (place, value))
    return [(0, footer), (-512, footer)]


def _vhd_header(image: bytes, place: int, value: bytes) -> list[Patch]:
    return [(512, summed(image[512:1536], 36, (place, value)))]


def _vhdx(length: int, *starts: int) -> Callable[[bytes, int, bytes], list[Patch]]:
    """The same change in each copy of a structure."""
    return lambda image, place, value: [
        (start, crc32c_sealed(image[start : start + length], (place, value))) for start in starts
    ]


def crc32c_sealed(block: bytes, *patches: Patch) -> bytes:
    """A header or region table of a VHDX with other fields, and the right checksum."""
    changed = bytearray(block)
    for place, content in patches:
        changed[place : place + len(content)] = content
    changed[4:8] = bytes(4)
    changed[4:8] = struct.pack("<I", _crc32c(changed))
    return bytes(changed)


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = _crc_table()


def _crc32c(data: bytes | bytearray) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ CRC_TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


KIB = 1024
STRUCTURES = (
    Structure("qcow2", "header", "big", QCOW2, _at(0)),
    Structure("vmdk", "header", "little", VMDK, _at(0)),
    Structure("vdi", "header", "little", VDI, _at(0)),
    Structure("vhd", "footer", "big", VHD_FOOTER, _vhd_footer),
    Structure("vhd", "header", "big", VHD_HEADER, _vhd_header),
    Structure("vhdx", "head", "little", VHDX_HEAD, _vhdx(4 * KIB, 64 * KIB, 128 * KIB)),
    Structure("vhdx", "regions", "little", VHDX_REGIONS, _vhdx(64 * KIB, 192 * KIB, 256 * KIB)),
    Structure("vhdx", "metadata", "little", VHDX_METADATA, _at(3 * disks.MIB)),
    Structure("iso", "descriptor", "little", ISO, _at(16 * disks.BLOCK)),
)


def cases(shop: Workshop) -> Iterator[Bad]:
    iso = shop.new("extreme-iso")
    disks.iso(iso)
    bases = {
        "qcow2": shop.convert("extreme-qcow2", "qcow2"),
        "vmdk": shop.convert("extreme-vmdk", "vmdk"),
        "vdi": shop.convert("extreme-vdi", "vdi"),
        "vhd": shop.convert("extreme-vhd", "vpc"),
        "vhdx": shop.convert("extreme-vhdx", "vhdx", "-o", "block_size=1M"),
        "iso": iso,
    }
    for part in STRUCTURES:
        base = bases[part.disk_format]
        image = base.read_bytes()
        for field, place, width, codes in part.fields:
            values = (0, 1, 1 << 8 * width - 1, (1 << 8 * width) - 1)
            for code, value in zip(codes, values, strict=True):
                if code == "-":
                    continue
                patches = part.patches(image, place, value.to_bytes(width, part.order))
                path = shop.derive(f"{base.name}-{part.name}-{field}-{value:x}", base, *patches)
                reason = f"{field} of the {part.name} is {value:#x}"
                yield Bad(path.name, path, part.disk_format, CODES[code], reason)
