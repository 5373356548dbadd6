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
    "small-clusters": ["-o", "cluster_size=512"],
    "large-clusters": ["-o", "cluster_size=2M"],
    "lazy-refcounts": ["-o", "lazy_refcounts=on"],
    "refcounts-1": ["-o", "refcount_bits=1"],
    "refcounts-64": ["-o", "refcount_bits=64"],
    "compressed-small-clusters": ["-c", "-o", "cluster_size=4096"],
}
VMDK = {
    "sparse": ["-o", "subformat=monolithicSparse"],
    "stream": ["-o", "subformat=streamOptimized"],
    "scsi": ["-o", "adapter_type=lsilogic"],
    "hardware-version": ["-o", "hwversion=7"],
    "zeroed-grain": ["-o", "zeroed_grain=on"],
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
    "log": ["-o", "log_size=2M"],
}
VDI = {"dynamic": [], "static": ["-o", "static=on"]}
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
    """Without the -c of convert, that create does not know."""
    return [argument for argument in arguments if argument != "-c"]


def _raw(shop: Workshop) -> Iterator[Good]:
    yield Good("raw-mbr", shop.disk, "raw")
    gpt = shop.new("raw-gpt")
    disks.with_gpt(gpt)
    yield Good("raw-gpt", gpt, "raw")
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
        "vhd-inside": bytes(4096) + b"conectix" + bytes(4096),
    }.items():
        yield Good(f"raw-{name}", shop.write(f"raw-{name}", content), "raw")


def _iso(shop: Workshop) -> Iterator[Good]:
    for name, bootable in (("iso-plain", False), ("iso-bootable", True)):
        path = shop.new(name)
        disks.iso(path, bootable=bootable)
        yield Good(name, path, "iso")
    padded = shop.derive("iso-padded", path, length=path.stat().st_size + 150 * 2048)
    yield Good(padded.name, padded, "iso")


def _special(shop: Workshop) -> Iterator[Good]:
    snapshot = shop.convert("qcow2-snapshot", "qcow2")
    qemu_img("snapshot", "-c", "before", snapshot)
    yield Good(snapshot.name, snapshot, "qcow2")
    bitmap = shop.convert("qcow2-bitmap", "qcow2")
    qemu_img("bitmap", "--add", "-f", "qcow2", bitmap, "backup")
    yield Good(bitmap.name, bitmap, "qcow2")
    huge = shop.create("qcow2-huge", "qcow2", "8T")
    yield Good(huge.name, huge, "qcow2")
    grown = shop.convert("qcow2-grown", "qcow2")
    qemu_img("resize", "-q", "-f", "qcow2", grown, "1000007K")
    yield Good(grown.name, grown, "qcow2")
    yield Good("vmdk-stream-footer", stream_with_footer(shop), "vmdk")


def stream_with_footer(shop: Workshop) -> Path:
    """A streamOptimized VMDK as VMware writes it: the header says that the true one is at the end."""
    stream = shop.convert("vmdk-stream", "vmdk", "-o", "subformat=streamOptimized").read_bytes()
    header = stream[:SECTOR]
    first = header[:GRAIN_DIRECTORY] + AT_END + header[GRAIN_DIRECTORY + 8 :]
    marker = struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0")
    return shop.write("vmdk-stream-footer", first + stream[SECTOR:] + marker + header + bytes(SECTOR))
