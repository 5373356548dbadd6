# SPDX-License-Identifier: Apache-2.0
import functools
import hashlib
import io
import os
import pathlib
import shutil
import threading
import uuid
from concurrent import futures
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciming import exceptions, staging


def area(path: pathlib.Path, quota: int = 0, keep_free: int = 0) -> staging.StagingArea:
    return staging.StagingArea(str(path / "staging"), quota=quota, keep_free=keep_free)


# The folder


def test_only_the_owner_may_read(tmp_path: pathlib.Path) -> None:
    made = area(tmp_path)
    assert made.path.stat().st_mode & 0o077 == 0
    with made.incoming("job", 1):
        assert made.folder("job").stat().st_mode & 0o077 == 0


def test_marker_stays(tmp_path: pathlib.Path) -> None:
    first = area(tmp_path)
    assert uuid.UUID(first.marker)
    assert area(tmp_path).marker == first.marker
    assert area(tmp_path / "elsewhere").marker != first.marker


def test_all_who_come_first_find_one_marker(tmp_path: pathlib.Path) -> None:
    gate = threading.Barrier(16)

    def look(_number: int) -> str:
        gate.wait()
        return staging.marker_of(tmp_path)

    with futures.ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(look, range(16)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".marker"]


def test_room(tmp_path: pathlib.Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    slack = 64 << 20                    # others write to this disk too
    assert abs(area(tmp_path).room(held=5, coming=0) - free) < slack
    kept = area(tmp_path, keep_free=1 << 20)
    assert abs(kept.room(held=0, coming=1 << 20) - (free - (2 << 20))) < slack
    assert area(tmp_path, quota=100).room(held=30, coming=10) == 70
    assert area(tmp_path, quota=100).room(held=130, coming=0) == 0
    assert area(tmp_path, quota=100, keep_free=free * 2).room(held=0, coming=0) == 0


# Files on their way in


def test_incoming(tmp_path: pathlib.Path) -> None:
    made = area(tmp_path)
    with made.incoming("job", 3) as file:
        file.write(b"bytes")
    assert made.upload_path("job", 3).read_bytes() == b"bytes"
    made.remove("job")
    assert not made.folder("job").exists()
    made.remove("job")


def test_discard(tmp_path: pathlib.Path) -> None:
    made = area(tmp_path)
    with made.incoming("job", 1) as file:
        file.write(b"bytes")
    made.discard("job", 2)
    assert made.upload_path("job", 1).exists()
    made.discard("job", 1)
    made.discard("job", 1)
    assert not made.folder("job").exists()


def test_incoming_on_a_full_disk(tmp_path: pathlib.Path) -> None:
    made = area(tmp_path)
    with pytest.raises(exceptions.StagingFull) as caught, made.incoming("job", 1) as file:
        file.write(b"bytes")
        with pathlib.Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"more")
    assert caught.value.__suppress_context__


class Grudging(io.RawIOBase):
    """Takes at most 1000 bytes at a time, as a disk that fills up takes a part."""

    def __init__(self) -> None:
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        part = bytes(data)[:1000]
        self.taken += part
        return len(part)


def test_write_all() -> None:
    data = os.urandom(4567)
    file = Grudging()
    staging.write_all(cast(BinaryIO, file), data)
    assert file.taken == data


def test_without_threads_the_disk_has_it_all_the_same(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is to end finishes what it has begun, and can start no threads."""

    def submit(*_: object) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    monkeypatch.setattr(futures.ThreadPoolExecutor, "submit", submit)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        disk = staging.Syncer(file, 0)
        staging.write_all(file, bytes(staging.SYNC_BYTES))
        disk.follow(staging.SYNC_BYTES)
        assert synced == [staging.SYNC_BYTES] == [disk.synced]
        staging.write_all(file, b"more")
        assert disk.sync(staging.SYNC_BYTES + 4) == disk.synced == synced[-1]


def test_zeros_take_no_room(tmp_path: pathlib.Path) -> None:
    nothing, some = bytes(staging.BLOCK), os.urandom(staging.BLOCK)
    blocks = [nothing, some, nothing, some[:-1] + b"\0", nothing, nothing[:-17]]
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        for number, block in enumerate(blocks, start=1):
            staging.write_sparse(file, block)
            end = sum(map(len, blocks[:number]))
            assert file.tell() == os.fstat(file.fileno()).st_size == end
    assert (tmp_path / "file").read_bytes() == b"".join(blocks)
    assert (tmp_path / "file").stat().st_blocks * 512 < 3 * staging.BLOCK


def test_a_late_writer_spoils_nothing(tmp_path: pathlib.Path) -> None:
    made = area(tmp_path)
    with made.incoming("job", 1) as late, made.incoming("job", 2) as successor:
        late.write(b"old")
        successor.write(b"new")
    assert [path.name for path in made.folder("job").iterdir()] == ["upload.2"]
    assert made.upload_path("job", 2).read_bytes() == b"new"


def test_a_late_beginner_spoils_nothing(tmp_path: pathlib.Path) -> None:
    """It has the lease of generation 1, slept, and begins when generation 2 is half done."""
    made = area(tmp_path)
    with made.incoming("job", 2) as successor:
        successor.write(b"ne")
        with made.incoming("job", 1) as late:
            late.write(b"old")
        successor.write(b"w")
    assert made.upload_path("job", 2).read_bytes() == b"new"


def test_what_a_dead_writer_left_is_removed(tmp_path: pathlib.Path) -> None:
    made = area(tmp_path)
    with made.incoming("job", 1) as file:
        file.write(b"half")
    with made.incoming("job", 2) as file:
        file.write(b"whole")
    assert [path.name for path in made.folder("job").iterdir()] == ["upload.2"]


def test_going_on_keeps_the_file_and_drops_what_was_not_committed(tmp_path: pathlib.Path) -> None:
    made = area(tmp_path)
    with made.incoming("job", 1) as file:
        file.write(b"first, uncommitted")
        inode = os.fstat(file.fileno()).st_ino
    with made.incoming("job", 4, 6) as file:
        assert os.fstat(file.fileno()).st_ino == inode
        file.write(b"then")
    assert [path.name for path in made.folder("job").iterdir()] == ["upload.4"]
    assert made.upload_path("job", 4).read_bytes() == b"first,then"


def test_what_is_there_is_found_after_many_parts(tmp_path: pathlib.Path) -> None:
    """Each part is a generation: nobody looks for all of them."""
    made, last = area(tmp_path), 10**12
    assert made.uploaded("job", last, 0) is None
    with made.incoming("job", last - 1) as file:
        file.write(b"first,")
    assert made.uploaded("job", last, 6) == made.upload_path("job", last - 1)
    with made.incoming("job", last, 6) as file:
        file.write(b"then")
    assert made.uploaded("job", last - 1, 0) is None
    assert made.uploaded("job", last, 10) == made.upload_path("job", last)


def test_a_sleeping_writer_spoils_nothing(tmp_path: pathlib.Path) -> None:
    """Its lease ended while it slept: the successor goes on with a copy of what was committed."""
    made = area(tmp_path)
    with made.incoming("job", 1) as late:
        late.write(b"first,")
        with made.incoming("job", 2, 6) as successor:
            late.write(b"too late")
            successor.write(b"then")
            late.write(b"and later")
    assert [path.name for path in made.folder("job").iterdir()] == ["upload.2"]
    assert made.upload_path("job", 2).read_bytes() == b"first,then"


def test_a_copy_that_was_not_finished_is_no_start(tmp_path: pathlib.Path) -> None:
    made = area(tmp_path)
    with made.incoming("job", 1) as file:
        file.write(b"first,")
    made.upload_path("job", 2).write_bytes(b"fir")      # its maker was killed
    with made.incoming("job", 3, 6) as file:
        file.write(b"then")
    assert [path.name for path in made.folder("job").iterdir()] == ["upload.3"]
    assert made.upload_path("job", 3).read_bytes() == b"first,then"


def test_who_wakes_after_a_takeover_has_lost(tmp_path: pathlib.Path) -> None:
    made = area(tmp_path)
    with made.incoming("job", 1) as file:
        file.write(b"first,")
    with made.incoming("job", 3, 6) as successor:
        with pytest.raises(exceptions.Conflict), made.incoming("job", 2, 6):
            pass
        successor.write(b"then")
    assert made.upload_path("job", 3).read_bytes() == b"first,then"


def test_what_is_brought_goes_on_where_it_was(tmp_path: pathlib.Path) -> None:
    """In the same file, also of the same generation, while others read it still."""
    made = area(tmp_path)
    with made.restored("job", 1) as file:
        reader = os.dup(file.fileno())
        file.write(b"first,")
    inode = os.fstat(reader).st_ino
    with made.restored("job", 1) as file:
        assert (file.read(), os.fstat(file.fileno()).st_ino) == (b"first,", inode)
    os.close(reader)
    with made.restored("job", 3) as file:
        assert (file.read(), os.fstat(file.fileno()).st_ino) == (b"first,", inode)
        file.write(b"then")
    assert [path.name for path in made.folder("job").iterdir()] == ["restored.3"]
    assert (made.folder("job") / "restored.3").read_bytes() == b"first,then"


def test_who_brings_and_slept_spoils_nothing(tmp_path: pathlib.Path) -> None:
    """A late block of zeros would cut the file: it is a copy by then."""
    made, some, none = area(tmp_path), os.urandom(staging.BLOCK), bytes(staging.BLOCK)
    with made.restored("job", 1) as late:
        staging.write_sparse(late, some)
        with made.restored("job", 2) as successor:
            assert successor.read() == some
            for block in (none, some):
                staging.write_sparse(successor, block)
            staging.write_sparse(late, none)
            staging.write_sparse(successor, some)
        with made.restored("job", 1) as again:      # it has not heard of the other one yet
            staging.write_sparse(again, some)
    assert (made.folder("job") / "restored.2").read_bytes() == some + none + some + some


def test_no_room_says_how_much() -> None:
    assert "7 bytes are needed and 5 are left" in staging.no_room(7, 5).detail
    assert staging.no_room().status == 507


# Bytes and digests


@pytest.mark.parametrize("what", ["digest", "guest_digest"])
def test_who_reads_a_whole_file_can_be_stopped(tmp_path: pathlib.Path, what: str) -> None:
    data = os.urandom(3 * staging.BLOCK)
    (tmp_path / "file").write_bytes(data)
    made = staging.StagedFile(str(tmp_path / "file"), "raw", len(data), len(data), {})
    read = functools.partial(made.digest, "md5") if what == "digest" else made.guest_digest
    asked: list[None] = []
    assert read(lambda: asked.append(None)) == read(lambda: None)
    assert asked

    def stop() -> None:
        raise exceptions.Cancelled("The Job was cancelled.")

    with pytest.raises(exceptions.Cancelled):
        read(stop)



@pytest.mark.parametrize("size", [0, 1, staging.BLOCK - 1, staging.BLOCK, 2 * staging.BLOCK + 1])
def test_blocks(tmp_path: pathlib.Path, size: int) -> None:
    data = os.urandom(size)
    file = tmp_path / "file"
    file.write_bytes(data)
    blocks = list(staging.read_blocks(file))
    assert b"".join(blocks) == data
    assert all(len(block) == staging.BLOCK for block in blocks[:-1])


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_hasher(blocks: list[bytes]) -> None:
    hasher = staging.Hasher("sha512", "sha256", "md5")
    for block in blocks:
        hasher.update(block)
    whole = b"".join(blocks)
    assert hasher.digests() == {
        name: hashlib.new(name, whole).hexdigest() for name in ("sha512", "sha256", "md5")
    }


def test_staged_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    staged = staging.StagedFile(str(file), "raw", 5, 512, {"sha256": "known"})
    assert staging.StagedFile.from_dict(staged.to_dict()) == staged
    assert staged.digest("sha256") == "known"
    assert staged.digest("sha1") == hashlib.sha1(b"bytes").hexdigest()
    with pytest.raises(ValueError, match="whirlpool9"):
        staged.digest("whirlpool9")
