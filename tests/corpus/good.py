# SPDX-License-Identifier: Apache-2.0
"""Images that must be accepted: each format, with each set of options that is in use."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tests.corpus import disks
from tests.corpus.cases import Good, Workshop, qemu_img

SECTOR = 512
GRAIN_DIRECTORY = 56  # where a VMDK header says where the grain directory is
AT_END = b"\xff" * 8

QCOW2 = {
    "v2": ["-o", "compat=0.10"],
    "v3": [],
    "compressed": ["-c"],
    "zstd": ["-c", "-o", "compression_type=zstd"],
    "metadata": ["-o", "preallocation=metadata"],
    "falloc": ["-o", "preallocation=falloc"],
    "full": ["-o", "preallocation=full"],
    "extended-l2": ["-o", "extended_l2=on"],
    "lazy-refcounts": ["-o", "lazy_refcounts=on"],
    "v2-compressed": ["-c", "-o", "compat=0.10"],
    "v2-small-clusters": ["-o", "compat=0.10,cluster_size=512"],
    "extended-l2-compressed": ["-c", "-o", "extended_l2=on"],
    "extended-l2-large-clusters": ["-o", "extended_l2=on,cluster_size=2M"],
    "extended-l2-metadata": ["-o", "extended_l2=on,preallocation=metadata"],
    "extended-l2-zstd": ["-c", "-o", "extended_l2=on,compression_type=zstd"],
    "metadata-small-clusters": ["-o", "preallocation=metadata,cluster_size=4096"],
    "compressed-small-clusters": ["-c", "-o", "cluster_size=4096"],
    "compressed-tiny-clusters": ["-c", "-o", "cluster_size=512"],
    "compressed-large-clusters": ["-c", "-o", "cluster_size=2M"],
    "compressed-refcounts-64": ["-c", "-o", "refcount_bits=64"],
    "zstd-large-clusters": ["-c", "-o", "compression_type=zstd,cluster_size=2M"],
    "out-of-order": ["-W", "-m", "16"],
    "compressed-out-of-order": ["-c", "-W", "-m", "16"],
    "no-holes": ["-S", "0"],
    **{f"clusters-{1 << bits}": ["-o", f"cluster_size={1 << bits}"] for bits in range(9, 22)},
    **{f"refcounts-{1 << order}": ["-o", f"refcount_bits={1 << order}"] for order in range(7)},
}
VMDK = {
    "sparse": ["-o", "subformat=monolithicSparse"],
    "stream": ["-o", "subformat=streamOptimized"],
    "stream-compressed": ["-c", "-o", "subformat=streamOptimized"],
    "stream-scsi": ["-o", "subformat=streamOptimized,adapter_type=lsilogic"],
    "stream-6": ["-o", "subformat=streamOptimized,compat6=on"],
    "scsi": ["-o", "adapter_type=lsilogic"],
    "buslogic": ["-o", "adapter_type=buslogic"],
    "old-esx": ["-o", "adapter_type=legacyESX"],
    "hardware-version": ["-o", "hwversion=7"],
    "hardware-version-new": ["-o", "hwversion=21,adapter_type=lsilogic"],
    "tools-version": ["-o", "toolsversion=2147483647"],
    "compatible-6": ["-o", "compat6=on"],
    "zeroed-grain": ["-o", "zeroed_grain=on"],
    "no-holes": ["-S", "0"],
}
VHD = {
    "dynamic": [],
    "fixed": ["-o", "subformat=fixed"],
    "dynamic-exact": ["-o", "force_size=on"],
    "fixed-exact": ["-o", "subformat=fixed,force_size=on"],
}
VHDX = {
    "dynamic": [],
    "fixed": ["-o", "subformat=fixed"],
    "small-blocks": ["-o", "block_size=1M"],
    "no-zero-state": ["-o", "block_state_zero=off"],
    "fixed-no-zero-state": ["-o", "subformat=fixed,block_state_zero=off"],
    "blocks-2": ["-o", "block_size=2M"],
    "blocks-32": ["-o", "block_size=32M"],
    "fixed-blocks-8": ["-o", "subformat=fixed,block_size=8M"],
    "log": ["-o", "log_size=2M"],
    "log-large": ["-o", "log_size=8M"],
    "no-holes": ["-S", "0"],
}
VDI = {"dynamic": [], "static": ["-o", "static=on"], "no-holes": ["-S", "0"]}
FORMATS = (
    ("qcow2", "qcow2", QCOW2),
    ("vmdk", "vmdk", VMDK),
    ("vhd", "vpc", VHD),
    ("vhdx", "vhdx", VHDX),
    ("vdi", "vdi", VDI),
)


def good(folder: Path) -> list[Good]:
    """Fill `folder` with images that are all right."""
    shop = Workshop(folder)
    cases = [*_raw(shop), *_iso(shop), *_special(shop)]
    for disk_format, driver, variants in FORMATS:
        for name, arguments in variants.items():
            path = shop.convert(f"{disk_format}-{name}", driver, *arguments)
            cases.append(Good(path.name, path, disk_format))
            empty = shop.create(f"{disk_format}-{name}-empty", driver, "1000K", *_options(arguments))
            cases.append(Good(empty.name, empty, disk_format))
    return cases


def _options(arguments: list[str]) -> list[str]:
    """Only what create knows, too."""
    return arguments[arguments.index("-o") :] if "-o" in arguments else []


def _raw(shop: Workshop) -> Iterator[Good]:
    yield Good("raw-mbr", shop.disk, "raw")
    gpt = shop.new("raw-gpt")
    disks.with_gpt(gpt)
    yield Good("raw-gpt", gpt, "raw")
    fat = b"\xeb\x3c\x90MSDOS5.0\0\2\1\1\0\2\0\2\0\x10\xf8".ljust(510, b"\0") + disks.BOOT_SIGNATURE
    for name, content in {
        "zeros": bytes(3 * disks.MIB),
        "file-system": disks.file_system(),
        "one-byte": b"\0",
        "odd": disks.noise(100_001),
        "block-and-a-byte": disks.noise(disks.MIB + 1),
        "text": b"plain text, which is no descriptor\n" * 40,
        # format_inspector trips over text that goes on as something else
        "text-and-more": b"#!/bin/sh\n" + b"exit 0 # payload follows\n" * 40 + disks.noise(4096),
        # boot sectors whose partition entries are boot code: NTFS, and what syslinux writes
        "ntfs": (b"\xeb\x52\x90NTFS    " + disks.noise(499))[:510] + b"\x55\xaa" + bytes(8192),
        "swap": bytes(4086) + b"SWAPSPACE2" + bytes(8192),
        "volume": bytes(512) + b"LABELONE" + bytes(8192),
        "fat": fat + bytes(8192),
        # boot code that happens to hold the mark of an archive
        "tar-inside": (bytes(257) + b"ustar").ljust(510, b"\0") + disks.BOOT_SIGNATURE + bytes(8192),
        "vhd-inside": bytes(4096) + b"conectix" + bytes(4096),
    }.items():
        yield Good(f"raw-{name}", shop.write(f"raw-{name}", content), "raw")
    yield Good("raw-sparse", shop.derive("raw-sparse", shop.disk, length=20 * disks.MIB), "raw")
    full = shop.create("raw-full", "raw", "1M", "-o", "preallocation=full")
    yield Good(full.name, full, "raw")


def _iso(shop: Workshop) -> Iterator[Good]:
    for name, bootable in (("iso-plain", False), ("iso-bootable", True)):
        path = shop.new(name)
        disks.iso(path, bootable=bootable)
        yield Good(name, path, "iso")
    gpt = shop.derive("iso-gpt", path, (450, b"\xee"), (512, b"EFI PART"))
    yield Good(gpt.name, gpt, "iso")
    apple = shop.derive("iso-apple", path, (0, b"ER\2\0"), (2048, b"PM\0\0\0\0\0\2"))
    yield Good(apple.name, apple, "iso")
    padded = shop.derive("iso-padded", path, length=path.stat().st_size + 150 * 2048)
    yield Good(padded.name, padded, "iso")


def _special(shop: Workshop) -> Iterator[Good]:
    snapshot = shop.convert("qcow2-snapshot", "qcow2")
    qemu_img("snapshot", "-c", "before", snapshot)
    yield Good(snapshot.name, snapshot, "qcow2")
    for name in ("later", "last"):  # of disks with other sizes
        qemu_img("resize", "-q", "-f", "qcow2", snapshot, "+1M")
        qemu_img("snapshot", "-c", name, snapshot)
    compressed = shop.convert("qcow2-snapshot-compressed", "qcow2", "-c")
    qemu_img("snapshot", "-c", "before", compressed)
    yield Good(compressed.name, compressed, "qcow2")
    bitmap = shop.convert("qcow2-bitmap", "qcow2")
    for action in (("--add", "-g", "64K"), ("--disable",)):
        qemu_img("bitmap", *action, "-f", "qcow2", bitmap, "backup")
    qemu_img("bitmap", "--add", "-f", "qcow2", bitmap, "incremental")
    yield Good(bitmap.name, bitmap, "qcow2")
    huge = shop.create("qcow2-huge", "qcow2", "8T")
    yield Good(huge.name, huge, "qcow2")
    grown = shop.convert("qcow2-grown", "qcow2")
    qemu_img("resize", "-q", "-f", "qcow2", grown, "1000007K")
    yield Good(grown.name, grown, "qcow2")
    shrunk = shop.convert("qcow2-shrunk", "qcow2")
    qemu_img("resize", "-q", "--shrink", "-f", "qcow2", shrunk, "2M")
    yield Good(shrunk.name, shrunk, "qcow2")
    amended = shop.convert("qcow2-amended", "qcow2", "-o", "compat=0.10")
    qemu_img("amend", "-f", "qcow2", "-o", "compat=1.1,lazy_refcounts=on", amended)
    yield Good(amended.name, amended, "qcow2")
    yield from _layers(shop)
    padded = shop.derive("qcow2-padded", grown, length=grown.stat().st_size + 300_000)
    yield Good(padded.name, padded, "qcow2")
    # a kind of header extension that nobody here knows, as the specification allows
    extension = 0x70, struct.pack(">II8sQ", 0x12345678, 3, b"abc", 0)
    extended = shop.derive("qcow2-extension", amended, extension)
    yield Good(extended.name, extended, "qcow2")
    yield Good("vmdk-stream-footer", stream_with_footer(shop), "vmdk")
    yield Good("vhd-partly-used", vhd_with_bitmaps(shop), "vhd")


def _layers(shop: Workshop) -> Iterator[Good]:
    """What had a backing file, and was made whole in each of the three ways."""
    base = shop.convert("layer-base", "qcow2")
    for name in ("rebased", "committed", "flattened"):
        top = shop.create(f"qcow2-{name}", "qcow2", "4M", "-F", "qcow2", "-b", str(base))
        if name == "rebased":
            qemu_img("rebase", "-f", "qcow2", "-b", "", top)
        elif name == "flattened":
            whole = shop.new("qcow2-flat")
            qemu_img("convert", "-O", "qcow2", top, whole)
            top = whole
        else:
            qemu_img("commit", "-q", "-f", "qcow2", top)
            top = base
        yield Good(f"qcow2-{name}-layers", top, "qcow2")


def vhd_with_bitmaps(shop: Workshop) -> Path:
    """A dynamic VHD as VirtualBox writes it: a bit only for each sector that was written."""
    image = bytearray(shop.convert("vhd-dynamic", "vpc").read_bytes())
    (table,) = struct.unpack_from(">Q", image, SECTOR + 16)
    (entries,) = struct.unpack_from(">I", image, SECTOR + 28)
    for block in struct.unpack_from(f">{entries}I", image, table):
        if block != 0xFFFFFFFF:
            place = (block + 1) * SECTOR
            sectors = [image[place + i * SECTOR : place + (i + 1) * SECTOR] for i in range(4096)]
            bits = int("".join("1" if any(sector) else "0" for sector in sectors), 2)
            image[block * SECTOR : place] = bits.to_bytes(SECTOR, "big")
    return shop.write("vhd-partly-used", bytes(image))


def stream_with_footer(shop: Workshop) -> Path:
    """A streamOptimized VMDK as VMware writes it: the header says that the true one is at the end."""
    stream = shop.convert("vmdk-stream", "vmdk", "-o", "subformat=streamOptimized").read_bytes()
    header = stream[:SECTOR]
    first = header[:GRAIN_DIRECTORY] + AT_END + header[GRAIN_DIRECTORY + 8 :]
    marker = struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0")
    return shop.write("vmdk-stream-footer", first + stream[SECTOR:] + marker + header + bytes(SECTOR))
