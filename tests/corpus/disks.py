# SPDX-License-Identifier: Apache-2.0
"""Raw disks and ISO images, byte by byte: what other tools would need to be installed for."""

import random
import shutil
import struct
import subprocess
import tempfile
import uuid
import zlib
from pathlib import Path

MIB = 1024 * 1024
SECTOR = 512
DISK = 4 * MIB
START, LENGTH = 1 * MIB, 2 * MIB  # of the partition; what comes after it is data too
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
BOOT_SIGNATURE = b"\x55\xaa"
BLOCK = 2048  # of an ISO


def noise(length: int) -> bytes:
    """Always the same bytes, and not compressible."""
    return random.Random(length).randbytes(length)


def file_system() -> bytes:
    """An ext4 file system with a file in it; without mkfs, bytes that no tool knows."""
    mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin")
    if not mkfs:
        return noise(LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder, "content")
        content.mkdir()
        content.joinpath("noise").write_bytes(noise(300 * 1024))
        image = Path(folder, "image")
        image.write_bytes(bytes(LENGTH))
        subprocess.run(
            [mkfs, "-q", "-F", "-O", "^has_journal", "-d", content, image],
            check=True,
            capture_output=True,
        )
        return image.read_bytes()


def _partition(kind: int, start: int, sectors: int) -> bytes:
    return struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", kind, b"\xff\xff\xff", start, sectors)


def _boot_sector(partition: bytes) -> bytes:
    return b"\xfa\xf4" + bytes(444) + partition + bytes(48) + BOOT_SIGNATURE


def with_mbr(path: Path) -> None:
    disk = bytearray(DISK)
    disk[:SECTOR] = _boot_sector(_partition(0x83, START // SECTOR, LENGTH // SECTOR))
    disk[START : START + LENGTH] = file_system()
    disk[-128 * 1024 :] = noise(128 * 1024)
    path.write_bytes(disk)


def with_gpt(path: Path) -> None:
    last = DISK // SECTOR - 1
    entry = LINUX + uuid.UUID(int=1).bytes_le + struct.pack("<QQQ", 2048, 6143, 0)
    table = (entry + "disk".encode("utf-16-le")).ljust(128 * 128, b"\0")
    disk = bytearray(DISK)
    disk[:SECTOR] = _boot_sector(_partition(0xEE, 1, last))
    disk[SECTOR : 2 * SECTOR] = _gpt_header(table, here=1, there=last, table_at=2)
    disk[2 * SECTOR : 34 * SECTOR] = table
    disk[START : START + LENGTH] = file_system()
    disk[-33 * SECTOR : -SECTOR] = table
    disk[-SECTOR:] = _gpt_header(table, here=last, there=1, table_at=last - 32)
    path.write_bytes(disk)


def _gpt_header(table: bytes, *, here: int, there: int, table_at: int) -> bytes:
    def header(checksum: int) -> bytes:
        begin = struct.pack("<8sIIIIQQ", b"EFI PART", 0x10000, 92, checksum, 0, here, there)
        usable = struct.pack("<QQ", 34, DISK // SECTOR - 34) + uuid.UUID(int=2).bytes_le
        return begin + usable + struct.pack("<QIII", table_at, 128, 128, zlib.crc32(table))

    return header(zlib.crc32(header(0))).ljust(SECTOR, b"\0")


def iso(path: Path, *, bootable: bool = False) -> None:
    """A volume with one file in its root folder; bootable: with a boot sector in front."""
    content = noise(60 * BLOCK)
    root, first = 20, 21
    blocks = first + len(content) // BLOCK
    here = _iso_entry(b"\0", root, BLOCK, folder=True)
    folder = here + _iso_entry(b"\1", root, BLOCK, folder=True)
    folder += _iso_entry(b"NOISE.;1", first, len(content))
    sectors = [_volume_descriptor(blocks, here), b"\xffCD001\x01"]
    sectors += [struct.pack(f"{order}BBIH2x", 1, 0, root, 1) for order in "<>"]
    sectors += [folder]
    system_area = _boot_sector(_partition(0x17, 0, blocks * 4)) if bootable else b""
    path.write_bytes(
        system_area.ljust(16 * BLOCK, b"\0")
        + b"".join(sector.ljust(BLOCK, b"\0") for sector in sectors)
        + content
    )


def _both(number: int, code: str = "I") -> bytes:
    return struct.pack(f"<{code}", number) + struct.pack(f">{code}", number)


def _iso_entry(name: bytes, block: int, size: int, *, folder: bool = False) -> bytes:
    body = b"\0" + _both(block) + _both(size) + bytes([100, 1, 1, 0, 0, 0, 0, 2 * folder, 0, 0])
    body += _both(1, "H") + bytes([len(name)]) + name
    body += bytes(1 - len(body) % 2)  # entries have an even length
    return bytes([len(body) + 1]) + body


def _volume_descriptor(blocks: int, root: bytes) -> bytes:
    descriptor = b"\x01CD001\x01\0" + b"LINUX".ljust(32) + b"CIMING".ljust(32) + bytes(8)
    descriptor += _both(blocks) + bytes(32) + _both(1, "H") + _both(1, "H") + _both(BLOCK, "H")
    descriptor += _both(10) + struct.pack("<II", 18, 0) + struct.pack(">II", 19, 0) + root
    return descriptor.ljust(881, b" ") + b"\x01"
