# SPDX-License-Identifier: Apache-2.0
"""What looks raw to format_inspector, but is something else to some other tool.

A raw image is whatever bytes a disk may hold, so nothing but the exact marks of other formats, of archives
and of web pages is refused here: boot sectors, partition tables and file systems of any kind are all fine.
"""

import re

from ciming.disk_image import rejections

TRAILER = 512  # as much of the end of the file as `refuse_trailer` and `has_vhd_footer` need
VHD_COOKIE = b"conectix"

# (offset, magic, name): supported formats of which too little is there to be read as such.
STUMPS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, VHD_COOKIE, "vhd"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0x8001, b"CD001", "iso"),
)

STRANGERS = (
    (0, b"QED\x00", "QED"),
    (0, b"LUKS\xba\xbe", "a disk encrypted with LUKS"),
    (0, b"SKUL\xba\xbe", "a disk encrypted with LUKS"),
    (0, b"COWD", "a VMware COW disk"),
    (0, b"\xbe\xba\xfe\xca\x00\x00\x00\x00", "a VMware SE sparse disk"),
    (0, b"WithoutFreeSpace", "a Parallels disk"),
    (0, b"WithouFreSpacExt", "a Parallels disk"),
    (0, b"Bochs Virtual HD Image", "a Bochs disk"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "a compressed loop image (cloop)"),
    (0, b"cxsparse", "the second half of a VHD"),
)

# What people take for an image that they have not unpacked, and what a mirror sends instead of one.
NO_DISKS = (
    (re.compile(rb"\x1f\x8b\x08"), "packed by gzip"),
    (re.compile(rb"BZh[1-9]1AY&SY"), "packed by bzip2"),
    (re.compile(rb"\xfd7zXZ\0"), "packed by xz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "packed by zstd"),
    (re.compile(rb"PK\x03\x04"), "a zip archive"),
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), "a 7z archive"),
    (re.compile(rb"(?s).{257}ustar.{248}(?!\x55\xaa)"), "a tar archive (or an OVA)"),
    (re.compile(rb"\s*(?:<!doctype html|<html)\b", re.I), "a web page"),
)

# What qemu and VMware take for a descriptor: a text that names the files where the disk really is.
DESCRIPTOR = re.compile(rb"\s*# *disk descriptorfile|(?:#[^\n]*+\n| *+\r?\n)*+version=[0-9]+\r?\n", re.I)


def refuse_strangers(head: bytes) -> None:
    """:param head: the first MiB, or all there is

    :raises ImageRejected: this begins as something that is no disk to us
    """
    for offset, magic, name in STRANGERS:
        if head.startswith(magic, offset):
            raise rejections.unsupported(f"this is {name}")


def refuse_packed(head: bytes) -> None:
    """:raises ImageRejected: there may be a disk in this, but it is none"""
    for pattern, name in NO_DISKS:
        if pattern.match(head):
            raise rejections.unsupported(f"this is {name}", "Unpack it, or download it again")


def refuse_stumps(head: bytes) -> None:
    """:raises ImageRejected: this begins as another format, and is too damaged to be one"""
    for offset, magic, name in STUMPS:
        if head.startswith(magic, offset):
            raise rejections.broken(f"it begins as {name}, but cannot be read as {name}")


def refuse_descriptor(head: bytes) -> None:
    """:raises ImageRejected: this is a VMDK without a disk in it"""
    if DESCRIPTOR.match(head):
        raise rejections.unsafe("it is a VMDK descriptor, a text that points at other files")


def refuse_trailer(tail: bytes) -> None:
    """:param tail: the last 512 bytes

    :raises ImageRejected: this ends as something that is no raw disk
    """
    if tail.startswith(b"koly"):
        raise rejections.unsupported("this is an Apple disk image (dmg)")
    if tail.startswith(VHD_COOKIE, 1):
        raise rejections.unsupported("this is a VHD with the 511-byte footer of old Virtual PCs")


def has_vhd_footer(tail: bytes) -> bool:
    """Whether a file that ends so is a VHD to the tools that look at the end first."""
    return len(tail) == TRAILER and tail.startswith(VHD_COOKIE)
