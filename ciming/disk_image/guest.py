# SPDX-License-Identifier: Apache-2.0
"""The guest digest: what identifies the disk that a guest sees, whatever the format of its file.

It is the SHA-256 of one record for each block of 512 KiB that is not all zero, in the order of the disk.
A record has 40 bytes: the block's index, counted from 0, as an unsigned big-endian integer of 8 bytes, and
the 32 bytes of the block's SHA-256. The last block is padded with zeros. So neither holes nor the format
nor zeros at the end of the disk have a part in it; the virtual size is compared apart.
"""

import array
import errno
import functools
import hashlib
import itertools
import json
import os
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

from ciming import exceptions
from ciming.disk_image import nbd, qemu_img, reader, rejections, vhdx
from ciming.disk_image.inspector import FILE_IS_DISK, Inspection
from ciming.disk_image.structure import DRIVERS, SECTOR

BLOCK = 512 * 1024
IN_PIECE = 4
PIECE = IN_PIECE * BLOCK  # hashed by one thread at a time
WORKERS = min(4, os.cpu_count() or 1)
ZEROS = bytes(BLOCK)
INDEX = struct.Struct(">Q")

Alive = Callable[[], None]


def guest_digest(path: Path, inspection: Inspection, alive: Alive = lambda: None) -> str:
    """The guest digest of an image that has passed `check_structure`, in hex.

    Holes are not read, and no more than a few pieces are in memory.

    :param inspection: what the image is
    :param alive: asked now and then; what that raises ends it
    :raises ImageRejected: it needs more than the limits for a disk of its size allow
    :raises CimingError: it could not be read to its end (`conversion.failed`)
    :raises Unavailable: qemu-img could not be run
    """
    if inspection.disk_format in FILE_IS_DISK:
        return _of_file(path, alive)
    extents = _extents(path, inspection, alive)
    if extents is None:
        return _of_image(path, inspection, alive)
    return _of_extents(path, extents, alive)


def blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """The blocks of a file that is the disk, which are not all zero, each with its index, in order.

    Holes are not read; the last block is padded with zeros.
    """
    with path.open("rb", buffering=0) as file:
        for offset in _pieces(file.fileno()):
            piece = memoryview(os.pread(file.fileno(), PIECE, offset))
            for position in range(0, len(piece), BLOCK):
                index, block = (offset + position) // BLOCK, piece[position : position + BLOCK]
                if not ZEROS.startswith(block):
                    yield index, bytes(block).ljust(BLOCK, b"\0")


def sample(path: Path, count: int) -> list[int]:
    """Indices of at most so many blocks of a file that is the disk, at random, of where it has no holes."""
    with path.open("rb", buffering=0) as file:
        pieces = array.array("q", _pieces(file.fileno()))
        size = os.fstat(file.fileno()).st_size
    there = range(len(pieces) * IN_PIECE)
    chosen = random.sample(there, min(count, len(there)))
    found = (pieces[at // IN_PIECE] // BLOCK + at % IN_PIECE for at in chosen)
    return [index for index in found if index * BLOCK < size]


def records(path: Path, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """What these blocks of a file that is the disk have to do with its digest, see digest_of()."""
    with path.open("rb", buffering=0) as file:
        for index in indices:
            block = os.pread(file.fileno(), BLOCK, index * BLOCK).ljust(BLOCK, b"\0")
            if block != ZEROS:
                yield index, hashlib.sha256(block).digest()


def digest_of(records: Iterable[tuple[int, bytes]]) -> str:
    """The guest digest, in hex, of a disk that was read elsewhere.

    :param records: of each block that is not all zero, in order: its index, and its SHA-256
    """
    found = hashlib.sha256()
    for index, digest in records:
        found.update(INDEX.pack(index) + digest)
    return found.hexdigest()


class _Sum:
    """Takes the pieces of a disk in order, and hashes some of them at a time."""

    def __init__(self) -> None:
        self._records = hashlib.sha256()
        self._pool = futures.ThreadPoolExecutor(WORKERS, "guest")
        self._running: deque[futures.Future[bytes]] = deque()

    def __enter__(self) -> "_Sum":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, offset: int, piece: Callable[[], bytes | bytearray]) -> None:
        """:param piece: gives the bytes that the disk has at this offset, a multiple of PIECE"""
        if len(self._running) > WORKERS:
            self._records.update(self._running.popleft().result())
        self._running.append(self._pool.submit(_records, offset // BLOCK, piece))

    def hexdigest(self) -> str:
        while self._running:
            self._records.update(self._running.popleft().result())
        return self._records.hexdigest()


def _records(index: int, piece: Callable[[], bytes | bytearray]) -> bytes:
    """:param index: of the first block"""
    data = memoryview(piece())
    records = bytearray()
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        if not ZEROS.startswith(block):
            digest = hashlib.sha256(block)
            digest.update(ZEROS[len(block) :])
            records += INDEX.pack(index + start // BLOCK) + digest.digest()
    return bytes(records)


def _of_file(path: Path, alive: Alive) -> str:
    """Of a file that is the disk."""
    with path.open("rb", buffering=0) as file, _Sum() as found:
        for offset in _pieces(file.fileno()):
            alive()
            found.add(offset, functools.partial(os.pread, file.fileno(), PIECE, offset))
        return found.hexdigest()


def _pieces(fd: int) -> Iterator[int]:
    """Where the pieces begin in which there is data."""
    position = 0
    while True:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # none any more
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        for position in range(start // PIECE * PIECE, end, PIECE):
            yield position
        position += PIECE


class _Extent(NamedTuple):
    """So many bytes of the disk, and where they are in the file."""

    start: int
    length: int
    offset: int


def _extents(path: Path, inspection: Inspection, alive: Alive) -> list[_Extent] | None:
    """Where all data of the disk is; None: some is compressed, or it is in too many places to be told."""
    driver = DRIVERS[inspection.disk_format]
    if driver == "vhdx":
        with path.open("rb") as file:
            found = vhdx.extents(reader.Reader(file, alive), inspection.virtual_size)
            return [_Extent(*each) for each in found]
    try:
        said = qemu_img.run("map", "--output=json", image=path, driver=driver, alive=alive)
        if said.status:
            return None
        data = [each for each in json.loads(said.output) if not each["zero"]]
        return [_Extent(each["start"], each["length"], each["offset"]) for each in data]
    except (exceptions.ImageRejected, ValueError, KeyError):
        return None


def _of_extents(path: Path, extents: list[_Extent], alive: Alive) -> str:
    """Of a file in which the data lies as it is on the disk: qemu-img need not bring it here."""
    with path.open("rb", buffering=0) as file, _Sum() as found:
        for piece, parts in itertools.groupby(_cut(extents), key=lambda part: part.start // PIECE):
            alive()
            found.add(piece * PIECE, functools.partial(_gather, file.fileno(), list(parts)))
        return found.hexdigest()


def _cut(extents: list[_Extent]) -> Iterator[_Extent]:
    """The same in parts that are each within one piece."""
    for start, length, offset in extents:
        for begin in (start, *range(start // PIECE * PIECE + PIECE, start + length, PIECE)):
            end = min(start + length, begin // PIECE * PIECE + PIECE)
            yield _Extent(begin, end - begin, offset + begin - start)


def _gather(fd: int, parts: list[_Extent]) -> bytearray:
    """A piece; what is not in the file is zeros, and so is what would be behind its end."""
    piece = bytearray(PIECE)
    room = memoryview(piece)
    for start, length, offset in parts:
        os.preadv(fd, [room[start % PIECE : start % PIECE + length]], offset)
    return piece


def _of_image(path: Path, inspection: Inspection, alive: Alive) -> str:
    """Of a file that qemu-img has to read: it sends us the data in order, and no holes."""
    sectors = -(-inspection.virtual_size // SECTOR)
    ours, theirs = socket.socketpair()
    with ours, theirs, _Sum() as found, futures.ThreadPoolExecutor(1, "receive") as pool:
        pieces = _Pieces(found)
        receiving = pool.submit(nbd.receive, ours, sectors * SECTOR, pieces.room)
        try:
            result = qemu_img.run(
                *("convert", "-n", "--target-is-zero", "-S", str(BLOCK), "-m", "8", "--target-image-opts"),
                image=path,
                driver=DRIVERS[inspection.disk_format],
                target=f"driver=nbd,server.type=fd,server.str={theirs.fileno()}",
                disk=inspection.virtual_size,
                keep=[theirs.fileno()],
                alive=alive,
            )
        finally:
            theirs.close()  # of which the child had the other copy: what is received has an end now
        if result.status:
            raise rejections.not_converted(result.complaint())
        try:
            receiving.result()
        except nbd.Garbled as error:
            raise rejections.not_converted(str(error)) from None
        pieces.flush()
        return found.hexdigest()


class _Pieces:
    """Room for what comes in order, and from there into the sum."""

    def __init__(self, found: _Sum) -> None:
        self._found = found
        self._start = 0
        self._piece: bytearray | None = None

    def room(self, offset: int) -> memoryview:
        """From there to the end of the piece that it is in."""
        start = offset // PIECE * PIECE
        if self._piece is None or start > self._start:
            self.flush()
            self._start, self._piece = start, bytearray(PIECE)
        if start < self._start:
            raise nbd.Garbled("it came out of order")
        return memoryview(self._piece)[offset - start :]

    def flush(self) -> None:
        if self._piece is not None:
            piece, self._piece = self._piece, None
            self._found.add(self._start, lambda: piece)
