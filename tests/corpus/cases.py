# SPDX-License-Identifier: Apache-2.0
"""What a case is, and the workshop in which the files are made."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.corpus import disks

Patch = tuple[int, bytes]  # where (from the end when negative), and what is written there


ZEROS = bytes(32 * 1024)


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
        """Zeros become holes: there are many files here, and most of most is zeros."""
        path = self.new(name)
        with path.open("wb") as file:
            for start in range(0, len(content), len(ZEROS)):
                piece = content[start : start + len(ZEROS)]
                if not ZEROS.startswith(piece):
                    file.seek(start)
                    file.write(piece)
            file.truncate(len(content))
        return path

    def derive(self, name: str, base: Path, *patches: Patch, length: int | None = None) -> Path:
        """A copy of `base` with other bytes in some places, cut (or grown by zeros) to `length`."""
        image = bytearray(base.read_bytes())
        size = len(image)
        for place, content in patches:
            start = place if place >= 0 else size + place
            image[start : start + len(content)] = content.rjust(len(content) + start - len(image), b"\0")
        if length is not None:
            image = image[:length].ljust(length, b"\0")
        return self.write(name, bytes(image))


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
