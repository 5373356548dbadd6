# SPDX-License-Identifier: Apache-2.0
"""What is read of a disk: a tar archive, in GNU's old format, in gzip, with nothing in it but ``disk.raw``.

- https://cloud.google.com/compute/docs/import/import-existing-image#requirements_for_the_image_file: the
  name, the format, gzip, and a size of whole GiB; holes may be left out (``tar -S``)
- The header: https://www.gnu.org/software/tar/manual/html_node/Standard.html; holes in the old format:
  https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html
"""

import pathlib
import zlib
from collections.abc import Callable
from typing import IO

import isal.igzip
import isal.isal_zlib

GIB = 1 << 30
BLOCK = 512
STEP = 1 << 20
HOLE = 4 << 10
ZEROS = bytes(STEP)
MAGIC = b"ustar  \0"
NAME = "disk.raw"
Extent = tuple[int, int]


class BadArchiveError(Exception):
    """The archive is no image; the message is what the operation says."""

    def __init__(self, message: str = "The tar archive is not a valid image.") -> None:
        super().__init__(message)


def unpack(archive: pathlib.Path, disk: pathlib.Path, progress: Callable[[float], None]) -> int:
    """Write the disk as a sparse file, and return its bytes; `progress` hears how much was read, 0 to 1."""
    whole = archive.stat().st_size
    with archive.open("rb") as packed, isal.igzip.open(packed, "rb") as tar, disk.open("wb") as target:
        try:
            size, extents = _header(tar)
            for offset, length in extents:
                _copy(tar, target, offset, length, lambda: progress(packed.tell() / whole))
            stored = sum(length for _, length in extents)
            rest = _exactly(tar, -stored % BLOCK + 2 * BLOCK)
            while rest:
                if rest != ZEROS[: len(rest)]:
                    raise BadArchiveError
                rest = tar.read(STEP)
        except (OSError, EOFError, zlib.error, isal.isal_zlib.error):
            raise BadArchiveError from None
        target.truncate(size)
    return size


def _header(tar: IO[bytes]) -> tuple[int, list[Extent]]:
    """Return the size of the disk, and where its data are."""
    head = _exactly(tar, BLOCK)
    if head[257:265] != MAGIC:
        raise BadArchiveError
    if _number(head[148:156]) != sum(head[:148]) + 8 * 32 + sum(head[156:]):
        raise BadArchiveError
    kind = head[156:157]
    if kind not in (b"0", b"\0", b"S"):
        raise BadArchiveError
    name = head[:100].rstrip(b"\0").decode("utf-8", "replace")
    if name != NAME:
        raise BadArchiveError(
            f"The file inside the tar archive was named ''{name}''. It should be named ''{NAME}''."
        )
    stored = _number(head[124:136])
    size, extents = (_number(head[483:495]), _extents(tar, head)) if kind == b"S" else (stored, [(0, stored)])
    end = 0
    for offset, length in extents:
        if offset < end or offset + length > size:
            raise BadArchiveError
        end = offset + length
    if sum(length for _, length in extents) != stored or not size or size % GIB:
        raise BadArchiveError
    return size, extents


def _extents(tar: IO[bytes], head: bytes) -> list[Extent]:
    entries, more = head[386:482], head[482]
    while more:
        block = _exactly(tar, BLOCK)
        entries += block[:504]
        more = block[504]
    pairs = (entries[place : place + 24] for place in range(0, len(entries), 24))
    return [(_number(pair[:12]), _number(pair[12:])) for pair in pairs if pair.strip(b"\0")]


def _number(field: bytes) -> int:
    """Return a number, in octal digits or, with the highest bit set, in binary."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise BadArchiveError from None


def _copy(tar: IO[bytes], target: IO[bytes], offset: int, length: int, step: Callable[[], None]) -> None:
    target.seek(offset)
    while length:
        data = _exactly(tar, min(STEP, length))
        length -= len(data)
        if data == ZEROS[: len(data)]:
            target.seek(len(data), 1)
        else:
            for place in range(0, len(data), HOLE):
                part = data[place : place + HOLE]
                if part == ZEROS[: len(part)]:
                    target.seek(len(part), 1)
                else:
                    target.write(part)
        step()


def _exactly(tar: IO[bytes], length: int) -> bytes:
    data = tar.read(length)
    while len(data) < length:
        more = tar.read(length - len(data))
        if not more:
            raise BadArchiveError
        data += more
    return data
