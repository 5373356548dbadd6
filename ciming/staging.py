# SPDX-License-Identifier: Apache-2.0
"""The staging area: a folder per Job for image bytes on their way.

What a writer produces carries its generation in its name, so that one who comes late spoils nothing.
"""

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from ciming import disk_image, exceptions, points

BLOCK = 1024 * 1024
ZEROS = bytes(BLOCK)
Alive = Callable[[], None]
"""Raises where nobody is to go on."""
SYNC_BYTES = 16 * 1024 * 1024   # how much is written before the disk is asked to have it
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class StagedFile:
    """Bytes in the staging area that were inspected and hashed. Digests are hex."""

    path: str
    disk_format: str
    size: int
    virtual_size: int
    digests: dict[str, str]
    guest: str | None = None    # its guest digest, where somebody knows it
    converted_for: str | None = None    # the Cloud that gave it, where it is another file of the Image's disk

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values)

    def digest(self, algorithm: str, alive: Alive = lambda: None) -> str:
        """The hex digest of the file; read again only for an algorithm nobody thought of.

        :param alive: asked while the file is read; what that raises ends it
        :raises ValueError: hashlib does not know the algorithm
        """
        if algorithm in self.digests:
            return self.digests[algorithm]
        made = hashlib.new(algorithm)
        for block in read_blocks(self.path):
            alive()
            made.update(block)
        return made.hexdigest()

    def guest_digest(self, alive: Alive = lambda: None) -> str:
        """The digest of the disk in it; the file is read where nobody knows it.

        :param alive: as digest() has it
        :raises CimingError: see disk_image.guest_digest()
        """
        what = disk_image.Inspection(self.disk_format, self.virtual_size)
        return self.guest or disk_image.guest_digest(Path(self.path), what, alive)


class Staged(Protocol):
    """What a Provider may know of a staged file. Where that still grows, only format and size are known."""

    @property
    def path(self) -> str: ...
    @property
    def disk_format(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def virtual_size(self) -> int: ...
    def digest(self, algorithm: str, alive: Alive = lambda: None) -> str:
        """:raises ValueError: hashlib does not know the algorithm"""
    def guest_digest(self, alive: Alive = lambda: None) -> str:
        """Of the disk in it, in hex."""


class StagingArea:
    """One folder, on this host or shared, with a marker that says which one it is."""

    def __init__(self, path: str, *, quota: int, keep_free: int) -> None:
        self.path = Path(path)
        self.quota = quota
        self.keep_free = keep_free
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.marker = marker_of(self.path)

    def folder(self, job_id: str) -> Path:
        return self.path / job_id

    def room(self, held: int, coming: int) -> int:
        """Bytes that may still come.

        :param held: bytes that all other Jobs hold or were promised
        :param coming: those of them that are not on disk yet
        """
        free = shutil.disk_usage(self.path).free - self.keep_free - coming
        return max(0, min(free, self.quota - held) if self.quota else free)

    @contextlib.contextmanager
    def incoming(self, job_id: str, generation: int, offset: int = 0) -> Iterator[BinaryIO]:
        """The file of an upload, to be written from `offset` on; the bytes before it came earlier.

        :raises StagingFull: the disk has no room left
        :raises Conflict: a later generation has taken the file over
        """
        path = self.upload_path(job_id, generation)
        try:
            _make_folder(path.parent)
            with _taken_over(self._earlier(job_id, generation), path, offset) as file:
                for earlier in self._earlier(job_id, generation):      # of writers that died
                    unlink(earlier)
                yield file
        except OSError as error:
            if error.errno in NO_ROOM:
                raise no_room() from None
            raise

    def uploaded(self, job_id: str, generation: int, size: int) -> Path | None:
        """The file that holds so many bytes of an upload: a writer's, or what it has not yet taken over."""
        for path in self._earlier(job_id, generation + 1):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size >= size:
                    return path
        return None

    def _earlier(self, job_id: str, generation: int, stem: str = "upload") -> list[Path]:
        """What writers before this generation left, the newest first."""
        try:    # generations are many: each part is one
            names = [path.name for path in self.folder(job_id).iterdir()]
        except FileNotFoundError:
            return []
        numbers = (int(name.removeprefix(f"{stem}.")) for name in names if name.startswith(f"{stem}."))
        folder = self.folder(job_id)
        return [folder / f"{stem}.{each}" for each in sorted(numbers, reverse=True) if each < generation]

    @contextlib.contextmanager
    def restored(self, job_id: str, generation: int, synced: int | None = None) -> Iterator[BinaryIO]:
        """The file into which a Job's bytes are brought once more; it holds what earlier attempts brought.

        :param synced: bytes of other generations that are certainly on the disk, and taken over; None: all
        :raises StagingFull: the disk has no room left
        :raises Conflict: a later generation has taken the file over
        """
        path = self.restored_path(job_id, generation)
        try:
            _make_folder(path.parent)
            earlier = self._earlier(job_id, generation, "restored")
            there = earlier[0].stat().st_size if earlier else 0
            there = there if synced is None else min(there, synced)
            with _again(path) if path.exists() else _taken_over(earlier, path, there) as file:
                for each in earlier:
                    unlink(each)
                file.seek(0)
                yield file
        except OSError as error:
            if error.errno in NO_ROOM:
                raise no_room() from None
            raise

    @points.mutation
    def discard(self, job_id: str, generation: int) -> None:
        """Remove an upload's file of this generation; absent is fine."""
        unlink(self.upload_path(job_id, generation))
        with contextlib.suppress(OSError):      # not empty: another upload's; or not there
            self.folder(job_id).rmdir()

    def upload_path(self, job_id: str, generation: int) -> Path:
        return self.folder(job_id) / f"upload.{generation}"

    def restored_path(self, job_id: str, generation: int) -> Path:
        return self.folder(job_id) / f"restored.{generation}"

    def untouched(self, since: float) -> list[str]:
        """Names of folders that nobody has written to: ids of Jobs, and what else may be there.

        :param since: seconds since the epoch
        """
        return [folder.name for folder in self.path.iterdir() if _newest(folder) < since]

    @points.mutation
    def remove(self, job_id: str) -> None:
        """Remove all bytes of a Job; absent is fine."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder(job_id))


def _newest(folder: Path) -> float:
    """When something was last written there; never yet, where that can not be seen."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:     # it goes away at this moment, or is none
        return math.inf


@contextlib.contextmanager
def _again(path: Path) -> Iterator[BinaryIO]:
    """One's own file, from the start; whom it was given to may hold the lock still, and keep others out."""
    with path.open("r+b", buffering=0) as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


@contextlib.contextmanager
def _taken_over(earlier: list[Path], path: Path, offset: int) -> Iterator[BinaryIO]:
    """A file at `path` with the first `offset` bytes of the newest of `earlier` that has them.

    Its writer holds a lock on it. Where that is free, nobody alive writes there, and the file changes its
    name; where it is not (its writer sleeps, on a lease that is over), the bytes are copied, so that what
    the late writer still does goes into a file of its own.
    """
    if not offset:
        with _make(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        return
    for candidate in earlier:
        with contextlib.suppress(FileNotFoundError), candidate.open("r+b", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < offset:
                continue        # a copy that its maker did not finish
            mine: BinaryIO = file
            with contextlib.ExitStack() as stack:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    rename(candidate, path)
                except OSError:     # held; or locks are not to be had here
                    mine = stack.enter_context(_make(path))
                    fcntl.flock(mine, fcntl.LOCK_EX)
                    _copy(file, mine, offset)
                    os.fdatasync(mine.fileno())     # as those were that it is a copy of
                mine.truncate(offset)
                mine.seek(offset)
                yield mine
            return
    raise exceptions.Conflict("Another upload has taken over.", code="upload.lost")


def open_area(options: Any) -> StagingArea:
    """The staging area that the `[staging]` options name."""
    return StagingArea(options.path, quota=options.quota, keep_free=options.keep_free)


def no_room(needed: int | None = None, room: int = 0) -> exceptions.StagingFull:
    """The error to raise when there is no room."""
    what = f"{needed} bytes are needed and {room} are left" if needed else "No space is left"
    return exceptions.StagingFull(
        f"{what} in the staging area. Nothing was kept: try again later, or ask the operator."
    )


def marker_of(folder: Path) -> str:
    """The UUID that a folder was given by whoever came first."""
    path = folder / ".marker"
    if not path.exists():
        fresh = folder / f".marker.{uuid.uuid4()}"
        fresh.write_text(str(uuid.uuid4()))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_text()


@points.mutation
def _make_folder(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)


@points.mutation
def _make(path: Path) -> BinaryIO:
    return path.open("x+b", buffering=0)


@points.mutation
def rename(path: Path, other: Path) -> None:
    path.rename(other)


@points.mutation
def unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


@points.mutation
def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy the first bytes of a file, inside the kernel and where it can by reference."""
    done = 0
    while done < size:
        copied = os.copy_file_range(source.fileno(), target.fileno(), size - done, done, done)
        if not copied:
            raise OSError(errno.EIO, "the staged file became shorter")
        done += copied


@points.mutation
def write_all(file: BinaryIO, block: bytes) -> None:
    """Write a whole block to an unbuffered file: on a disk that fills up, write() takes only a part."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


@points.mutation
def write_sparse(file: BinaryIO, block: bytes) -> None:
    """The same at the file's end; zeros take no room."""
    if ZEROS.startswith(block):
        file.truncate(file.seek(len(block), os.SEEK_CUR))
    else:
        write_all(file, block)


class Syncer:
    """Has the disk close behind who writes to a file: line and disk work side by side.

    What the disk has to say of it (that it is full) is raised by the call that comes next.

    :param synced: bytes of the file that are certainly on the disk
    """

    def __init__(self, file: BinaryIO, synced: int) -> None:
        self.synced = synced
        self._file = file
        self._pool = futures.ThreadPoolExecutor(1, "sync")
        self._running: futures.Future[int] | None = None

    def follow(self, written: int) -> None:
        """Begin with what was written, unless it is at it still or too little came since."""
        self._reap()
        if written - self.synced >= SYNC_BYTES:
            self._begin(written)

    def wait(self, written: int, seconds: float | None) -> None:
        """Wait for what it is at, or for all of it; not longer than that."""
        self._begin(written)
        if self._running:
            futures.wait([self._running], seconds)
        self._reap()

    def sync(self, written: int) -> int:
        """Wait until it has all of it, and return how much that is."""
        while self.synced < written:
            self.wait(written, None)
        return written

    def _begin(self, written: int) -> None:
        try:
            self._running = self._running or self._pool.submit(self._sync, written)
        except RuntimeError:    # no more threads: there are too many, or this process is to end
            self.synced = self._sync(written)

    def _reap(self) -> None:
        if self._running and self._running.done():
            done, self._running = self._running, None
            self.synced = done.result()

    def close(self) -> None:
        """Wait until nothing uses the file any more."""
        self._pool.shutdown()

    def _sync(self, written: int) -> int:
        os.fdatasync(self._file.fileno())
        return written


def read_blocks(path: str | Path) -> Iterator[bytes]:
    """The bytes of a file, 1 MiB at a time."""
    with Path(path).open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            yield block


class Hasher:
    """Several digests of one stream, side by side: hashlib lets go of the interpreter lock."""

    def __init__(self, *algorithms: str) -> None:
        self._hashes = {algorithm: hashlib.new(algorithm) for algorithm in algorithms}
        self._pool = futures.ThreadPoolExecutor(max(1, len(algorithms) - 1), "hash")

    def update(self, block: bytes) -> None:
        first, *others = self._hashes.values()
        running = [self._pool.submit(other.update, block) for other in others]
        first.update(block)
        futures.wait(running)

    def digests(self) -> dict[str, str]:
        """Hex digests by algorithm; the end of the stream."""
        self._pool.shutdown()
        return {algorithm: hash_.hexdigest() for algorithm, hash_ in self._hashes.items()}
