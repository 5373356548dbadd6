# SPDX-License-Identifier: Apache-2.0
"""What a case is, and the workshop in which the files are made."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.corpus import disks

Patch = tuple[int, bytes]  # where (from the end when negative), and what is written there


@dataclass(frozen=True)
class Good:
    name: str
    path: Path
    disk_format: str


@dataclass(frozen=True)
class Bad:
    """`declared` is the disk_format that the user would name, `code` that of the refusal."""

    name: str
    path: Path
    declared: str | None
    code: str
    reason: str


class Workshop:
    """Makes image files in a folder, out of one small disk with a partition table and a file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.disk = self.new("disk.raw")
        disks.with_mbr(self.disk)

    def new(self, name: str) -> Path:
        return self.folder / name

    def convert(self, name: str, driver: str, *arguments: str) -> Path:
        """The disk in another format; made once."""
        path = self.new(name)
        if not path.exists():
            qemu_img("convert", "-f", "raw", "-O", driver, *arguments, self.disk, path)
        return path

    def create(self, name: str, driver: str, size: str, *arguments: str) -> Path:
        """An empty disk."""
        path = self.new(name)
        qemu_img("create", "-q", "-f", driver, *arguments, path, size)
        return path

    def write(self, name: str, content: bytes) -> Path:
        path = self.new(name)
        path.write_bytes(content)
        return path

    def derive(self, name: str, base: Path, *patches: Patch, length: int | None = None) -> Path:
        """A copy of `base` with other bytes in some places, cut (or grown by zeros) to `length`."""
        path = self.new(name)
        shutil.copyfile(base, path)
        size = path.stat().st_size
        with path.open("r+b") as file:
            for place, content in patches:
                file.seek(place if place >= 0 else size + place)
                file.write(content)
            if length is not None:
                file.truncate(length)
        return path


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
