# SPDX-License-Identifier: Apache-2.0
"""A small but real disk image: a partition table, and a file system with files in it."""

import os
import pathlib
import shutil
import subprocess
import tempfile

MIB = 1 << 20


def make(
    file: pathlib.Path, disk_format: str = "qcow2", *, size: int = 64 * MIB, data: int = 16 * MIB
) -> pathlib.Path:
    """Write a disk image in a format of qemu-img's and return its path.

    The disk has `size` bytes and one ext4 partition that holds a file of `data` random bytes.
    Nothing is mounted: this needs no privilege.
    """
    start, end = MIB, size - MIB  # a GPT takes less than 1 MiB on either side
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        raw = pathlib.Path(folder) / "raw"
        content = pathlib.Path(folder) / "content"
        content.mkdir()
        (content / "README").write_text("One image, every cloud, one verified identity.\n")
        with (content / "payload").open("wb") as payload:
            for at in range(0, data, MIB):
                payload.write(os.urandom(min(MIB, data - at)))
        raw.touch()
        os.truncate(raw, size)
        table = f"label: gpt\nstart={start // 512}, size={(end - start) // 512}, type=linux\n"
        _run("sfdisk", "--quiet", str(raw), given=table)
        options = ("-q", "-t", "ext4", "-L", "demo", "-d", str(content), "-E", f"offset={start}")
        _run("mke2fs", *options, str(raw), f"{(end - start) // 1024}k")
        _run("qemu-img", "convert", "-f", "raw", "-O", disk_format, str(raw), str(file))
    return file


def _run(program: str, *arguments: str, given: str = "") -> None:
    # An ordinary user's PATH on Debian lacks the folders of sfdisk and mke2fs.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    command = [shutil.which(program, path=path) or program, *arguments]
    subprocess.run(command, input=given, text=True, check=True, stdout=subprocess.DEVNULL)
