# SPDX-License-Identifier: Apache-2.0
"""Images that are not what they are declared as, and things that no cloud takes."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.corpus import disks
from tests.corpus.bad_vhd import vhd_footer
from tests.corpus.cases import Bad, Workshop

MISMATCH, UNSUPPORTED = "image.format_mismatch", "image.format_unsupported"
BROKEN, UNSAFE = "image.broken", "image.unsafe"
DESCRIPTOR = b"""# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 8192 FLAT "/etc/passwd" 0

ddb.adapterType = "ide"
"""


def cases(shop: Workshop) -> Iterator[Bad]:
    yield from _mismatches(shop)
    yield from _unsupported(shop)
    yield from _two_at_once(shop)
    yield from _packed(shop)
    for name, content in {
        "descriptor": DESCRIPTOR,
        "descriptor-padded": DESCRIPTOR.ljust(disks.MIB, b"\0"),
        "descriptor-binary": DESCRIPTOR + b"\xff" * disks.MIB,
        "descriptor-windows": b"version=1\r\n" + DESCRIPTOR.replace(b"\n", b"\r\n"),
        "descriptor-blank": b"\n" * (disks.MIB - 20) + b"version=1\n" + DESCRIPTOR,
        "descriptor-comments": b"# \n  \n#\n" * 60 + b"version=3\n" + DESCRIPTOR,
    }.items():
        path = shop.write(f"raw-{name}", content)
        yield Bad(path.name, path, "raw", UNSAFE, "a text that makes tools read /etc/passwd")


def _mismatches(shop: Workshop) -> Iterator[Bad]:
    qcow2 = shop.convert("whole-qcow2", "qcow2")
    vhd = shop.convert("fixed", "vpc", "-o", "subformat=fixed")
    iso = shop.new("some-iso")
    disks.iso(iso)
    hybrid = shop.new("some-bootable-iso")
    disks.iso(hybrid, bootable=True)
    for path, truth, lies in (
        (shop.disk, "raw", ("qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso")),
        (qcow2, "qcow2", ("raw", "vmdk", "vhd", "iso")),
        (shop.convert("whole-vmdk", "vmdk"), "vmdk", ("raw", "qcow2")),
        (shop.convert("whole-vhd", "vpc"), "vhd", ("raw", "qcow2", "vhdx")),
        (shop.convert("whole-vhdx", "vhdx"), "vhdx", ("raw", "qcow2", "vhd")),
        (shop.convert("whole-vdi", "vdi"), "vdi", ("raw", "qcow2")),
        (iso, "iso", ("raw", "qcow2")),
        (hybrid, "bootable-iso", ("raw",)),
        (vhd, "fixed-vhd", ("raw", "iso", "qcow2")),
        (shop.derive("half-fixed-vhd", vhd, length=disks.DISK // 2), "half-a-vhd", ("vhd",)),
    ):
        for lie in lies:
            name = f"{truth}-declared-{lie}"
            yield Bad(name, path, lie, MISMATCH, f"declared {lie}, but it is {truth}")


def _unsupported(shop: Workshop) -> Iterator[Bad]:
    images = {
        "qed": shop.create("qed", "qed", "1M"),
        "qcow-1": shop.convert("qcow-1", "qcow"),
        "parallels": shop.convert("parallels", "parallels"),
    }
    magics = {
        "luks": b"LUKS\xba\xbe\0\1" + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0"),
        "luks-2": b"LUKS\xba\xbe\0\2",
        "parallels-old": b"WithoutFreeSpace",
        "bochs": b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog".ljust(16, b"\0"),
        "cloop": b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n",
        "vmware-cow": b"COWD\1\0\0\0",
        "vmware-se-sparse": b"\xbe\xba\xfe\xca\0\0\0\0",
    }
    for name, magic in magics.items():
        images[name] = shop.write(name, magic + bytes(8192))
    images["dmg"] = shop.write("dmg", bytes(8192) + b"koly\0\0\0\4".ljust(512, b"\0"))
    images["vhd-511"] = shop.write("vhd-511", bytes(8192) + b"conectix".ljust(511, b"\0"))
    for name, path in images.items():
        code = MISMATCH if name == "qcow-1" else UNSUPPORTED
        yield Bad(f"{name}-as-raw", path, "raw", code, f"{name} posing as raw")
        yield Bad(name, path, None, UNSUPPORTED, f"nobody takes {name}")
    yield Bad("declared-ploop", shop.disk, "ploop", UNSUPPORTED, "a format that is not handled")


def _packed(shop: Workshop) -> Iterator[Bad]:
    """What nobody has unpacked, and what a mirror sends instead of an image."""
    disk = shop.disk.read_bytes()[: disks.MIB]
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("disk.raw", disk)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        archive.add(shop.disk, "disk.raw")
    for name, content in {
        "gzip": gzip.compress(disk),
        "bzip2": bz2.compress(disk),
        "xz": lzma.compress(disk),
        "zstd": b"\x28\xb5\x2f\xfd" + disks.noise(4096),
        "7z": b"7z\xbc\xaf\x27\x1c" + disks.noise(4096),
        "zip": zipped.getvalue(),
        "tar": tarred.getvalue(),
        "page": b"\n<!DOCTYPE HTML PUBLIC>\n<html><head><title>404 Not Found</title></head></html>\n",
        "page-plain": b"<html>\n<body>Moved</body></html>\n",
    }.items():
        path = shop.write(f"packed-{name}", content)
        yield Bad(f"{path.name}-as-raw", path, "raw", UNSUPPORTED, f"{name} posing as raw")
        yield Bad(path.name, path, None, UNSUPPORTED, f"{name}, which is no disk")


def _two_at_once(shop: Workshop) -> Iterator[Bad]:
    """Which of the two it is depends on who looks."""
    qcow2 = shop.convert("whole-qcow2", "qcow2")
    vdi = shop.convert("whole-vdi", "vdi")
    iso = shop.new("some-iso").read_bytes()
    footer = shop.convert("fixed", "vpc", "-o", "subformat=fixed").read_bytes()[-512:]
    for path, declared in (
        (shop.derive("qcow2-and-iso", qcow2, (32768, iso[32768:36864])), "qcow2"),
        (shop.derive("qcow2-and-boot-sector", qcow2, (510, b"\x55\xaa")), "qcow2"),
        (shop.derive("vdi-and-qcow2", vdi, (0, qcow2.read_bytes()[:64])), "vdi"),
        (_wrapped(shop, "iso-and-vhd", iso, footer), "iso"),
        (_wrapped(shop, "qcow2-and-vhd", qcow2.read_bytes(), footer), "qcow2"),
    ):
        yield Bad(path.name, path, declared, UNSAFE, "two formats in one file")
    for name, stump in {
        "qcow2": b"QFI\xfb" + bytes(96),
        "vmdk": b"KDMV" + bytes(40),
        "vhd": b"conectix" + bytes(90),
        "vhdx": b"vhdxfile" + bytes(900),
        "vdi": bytes(64) + b"\x7f\x10\xda\xbe" + bytes(64),
        "iso": bytes(32769) + b"CD001\x01",
    }.items():
        path = shop.write(f"stump-{name}", stump)
        yield Bad(path.name, path, None, BROKEN, f"the first bytes of {name}, and nothing else")


def _wrapped(shop: Workshop, name: str, content: bytes, footer: bytes) -> Path:
    """Some file, and a footer that makes a fixed VHD of it."""
    return shop.write(name, content + vhd_footer(footer, (48, struct.pack(">Q", len(content)))))
