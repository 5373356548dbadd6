# SPDX-License-Identifier: Apache-2.0
"""Bytes on their way into a stage flow: an upload that comes, and a Cloud that has them."""

import errno
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest

from ciming import exceptions, growing, staging
from ciming.db import jobs, models, uploads, work
from ciming.engine import sources
from tests.unit import rows

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.sqlite]

BLOCK = staging.BLOCK
DATA = os.urandom(rows.SIZE)


def room(_held: int, _coming: int) -> int:
    return 1 << 40


@pytest.fixture
def area(tmp_path: pathlib.Path) -> staging.StagingArea:
    return staging.StagingArea(str(tmp_path / "staging"), quota=0, keep_free=0)


@pytest.fixture
def staged() -> Iterator[growing.GrowingFile]:
    made = growing.GrowingFile()
    yield made
    made.close()


class Sender:
    """Sends the bytes of a Job, as far as it is told to."""

    def __init__(self, area: staging.StagingArea, data: bytes = DATA) -> None:
        self.job = rows.make_job(stage="uploading")
        self._area = area
        self._data = data
        self._lease: uploads.Lease | None = None
        self._at = 0

    def begin(self, offset: int | None = None, data: bytes = DATA) -> None:
        self._at, self._data = offset or 0, data
        self._lease = uploads.begin(
            self.job.image_id,
            "api",
            rows.SIZE,
            models.now() + 60_000,
            room,
            marker=rows.AREA,
            offset=offset,
        )

    def send(self, until: int) -> None:
        assert self._lease is not None
        with self._area.incoming(self.job.id, self._lease.generation, self._at) as file:
            staging.write_all(file, self._data[self._at : until])
        self._at = until
        uploads.commit(self._lease, until, until, models.now() + 60_000, room)

    def knock_again(self) -> None:
        """Another request has the lease; the file is not taken over yet."""
        assert self._lease is not None
        uploads.release(self._lease, self._at)
        self.begin(self._at, self._data)

    def go_on(self, until: int) -> None:
        """In another request."""
        self.knock_again()
        self.send(until)

    def end(self) -> None:
        assert self._lease is not None
        uploads.complete(self._lease, self._at)


def steps(*calls: Callable[[], object]) -> Callable[[], None]:
    """An alive() that makes the next call each time it is asked."""
    left = iter(calls)

    def alive() -> None:
        next(left)()

    return alive


def of(sender: Sender, area: staging.StagingArea, patience: float = 60) -> sources.Upload:
    return sources.Upload(area, rows.take(sender.job.id), patience)


def test_an_upload_as_it_comes(area: staging.StagingArea, staged: growing.GrowingFile) -> None:
    sender = Sender(area)
    sender.begin()
    sender.send(BLOCK)
    source = of(sender, area)
    alive = steps(
        lambda: None,
        lambda: sender.go_on(BLOCK + 5),
        lambda: None,
        lambda: sender.go_on(rows.SIZE),
        sender.end,
    )
    assert b"".join(source.blocks(staged, alive)) == DATA
    assert source.path == area.upload_path(sender.job.id, 3)
    assert source.path.read_bytes() == DATA
    assert staged.epoch == 0


def test_a_writer_that_has_not_taken_the_file_over(
    area: staging.StagingArea, staged: growing.GrowingFile
) -> None:
    """Neither before an engine begins nor later, and also where it copies the bytes."""
    sender = Sender(area)
    sender.begin()
    sender.send(BLOCK)
    sender.knock_again()
    area.upload_path(sender.job.id, 2).write_bytes(DATA[:5])     # a copy that is not complete
    source = of(sender, area)

    def copied() -> None:
        area.upload_path(sender.job.id, 1).rename(area.upload_path(sender.job.id, 2))

    alive = steps(
        sender.knock_again,
        copied,
        lambda: sender.send(rows.SIZE),
        sender.end,
    )
    assert b"".join(source.blocks(staged, alive)) == DATA
    assert source.path == area.upload_path(sender.job.id, 3)
    assert staged.epoch == 0


def test_a_file_that_is_not_there_yet(area: staging.StagingArea, staged: growing.GrowingFile) -> None:
    sender = Sender(area)
    sender.begin()
    source = of(sender, area)
    alive = steps(lambda: None, lambda: sender.send(rows.SIZE), sender.end)
    assert b"".join(source.blocks(staged, alive)) == DATA
    with pytest.raises(sources.Stalls):
        other = Sender(area)
        other.begin()
        list(of(other, area, patience=0.05).blocks(staged, lambda: None))


def test_only_what_was_committed(area: staging.StagingArea, staged: growing.GrowingFile) -> None:
    """Followers trust the row, not the length of the file."""
    sender = Sender(area)
    sender.begin()
    sender.send(BLOCK)
    source = of(sender, area)
    with area.upload_path(sender.job.id, 1).open("ab") as file:
        file.write(b"not committed")

    def stop() -> None:
        raise exceptions.Interrupted("seen enough")

    got = []
    with pytest.raises(exceptions.Interrupted):
        for block in source.blocks(staged, stop):
            got.append(block)
    assert b"".join(got) == DATA[:BLOCK]


def test_other_bytes_are_noticed(area: staging.StagingArea, staged: growing.GrowingFile) -> None:
    sender = Sender(area)
    sender.begin()
    sender.send(2 * BLOCK)
    source = of(sender, area)
    other = os.urandom(rows.SIZE)

    def again() -> None:
        assert sender._lease is not None
        uploads.release(sender._lease, 0)
        sender.begin(data=other)
        sender.send(rows.SIZE)
        sender.end()

    with pytest.raises(sources.Replaced):
        list(source.blocks(staged, again))
    assert b"".join(source.blocks(staged, lambda: None)) == other
    assert staged.epoch == 1        # who followed hears of it


def test_bytes_that_do_not_come(area: staging.StagingArea, staged: growing.GrowingFile) -> None:
    sender = Sender(area)
    sender.begin()
    sender.send(BLOCK)
    with pytest.raises(sources.Stalls):
        list(of(sender, area, patience=0.05).blocks(staged, lambda: None))


def test_an_upload_that_was_given_up(area: staging.StagingArea, staged: growing.GrowingFile) -> None:
    sender = Sender(area)
    sender.begin()
    sender.send(BLOCK)
    source = of(sender, area)
    assert sender._lease is not None
    uploads.release(sender._lease, BLOCK)

    def give_up() -> None:
        jobs.terminate(sender.job.image_id)

    with pytest.raises(exceptions.CimingError) as caught:
        list(source.blocks(staged, give_up))
    assert caught.value.code == "upload.terminated"


def test_a_file_that_is_gone(area: staging.StagingArea, staged: growing.GrowingFile) -> None:
    job = rows.make_job()
    source = sources.Upload(area, rows.take(job.id), 60)
    with pytest.raises(exceptions.CimingError) as caught:
        list(source.blocks(staged, lambda: None))
    assert caught.value.code == "staging.damaged"


class Cloud:
    """Lets an image out, and breaks off after so many bytes."""

    def __init__(self, breaks: int) -> None:
        self.breaks = breaks
        self.asked: list[int] = []

    def download(self, image_ref: str, offset: int) -> Iterator[bytes]:
        assert image_ref == "ref"
        self.asked.append(offset)
        for start in range(offset, len(DATA), BLOCK // 2):
            if start - offset >= self.breaks:
                raise exceptions.TransientProviderError("broken")
            yield DATA[start : start + BLOCK // 2]


def test_what_a_cloud_has_is_brought_back(area: staging.StagingArea, staged: growing.GrowingFile) -> None:
    """No byte of it twice: neither after the line broke, nor by another engine. (The wire is mocked.)"""
    job = rows.make_job()
    cloud = Cloud(breaks=BLOCK)
    path = area.upload_path(job.id, 1)
    told: list[int] = []

    def source(claim: work.Claim) -> sources.Remote:
        origin = sources.Origin(cloud, "ref", len(DATA))  # type: ignore[arg-type]
        return sources.Remote(area, claim, lambda: origin, path, told.append, lambda: told[-1] if told else 0)

    first = source(rows.take(job.id))
    for _ in range(2):
        with pytest.raises(exceptions.TransientProviderError):
            list(first.blocks(staged, lambda: None))
    successor = source(rows.take(job.id, "engine-2"))
    assert b"".join(successor.blocks(staged, lambda: None)) == DATA
    assert cloud.asked == [0, BLOCK, 2 * BLOCK]
    assert successor.keep(str(successor.path)) == str(path)
    assert path.read_bytes() == DATA
    assert list(area.folder(job.id).iterdir()) == [path]
    assert told == [BLOCK, 2 * BLOCK, len(DATA)]
    another = source(rows.take(job.id, "engine-3"))      # its predecessor died before it could say so
    assert another.keep(another.find(str(successor.path))) == str(path)
    assert path.read_bytes() == DATA


def test_what_a_dead_engine_brought_is_taken_over(
    area: staging.StagingArea, staged: growing.GrowingFile
) -> None:
    """Its file gets another name: that which is told. (The wire is mocked.)"""
    job, cloud = rows.make_job(), Cloud(breaks=len(DATA))
    with area.restored(job.id, rows.take(job.id).generation) as file:
        file.write(DATA[:BLOCK])
    origin = sources.Origin(cloud, "ref", len(DATA))  # type: ignore[arg-type]
    path = area.upload_path(job.id, 1)
    source = sources.Remote(area, rows.take(job.id, "engine-2"), lambda: origin, path)
    assert b"".join(source.blocks(staged, lambda: None)) == DATA
    assert cloud.asked == [BLOCK]
    assert [source.path] == list(area.folder(job.id).iterdir())
    assert source.find(str(source.path)) == str(source.path)
    assert source.keep(str(source.path)) == str(path) and path.read_bytes() == DATA


def test_what_was_told_and_is_gone_is_told_to_be(
    area: staging.StagingArea, staged: growing.GrowingFile
) -> None:
    """Before anything comes: else it would count as if it were on the disk. (The wire is mocked.)"""
    job, told = rows.make_job(), [2 * BLOCK]
    origin = sources.Origin(Cloud(breaks=len(DATA)), "ref", len(DATA))  # type: ignore[arg-type]
    path = area.upload_path(job.id, 1)
    source = sources.Remote(area, rows.take(job.id), lambda: origin, path, told.append, lambda: told[-1])
    assert b"".join(source.blocks(staged, lambda: None)) == DATA
    assert told == [2 * BLOCK, 0, len(DATA)]


def test_what_is_left_of_what_was_told_is_told_when_the_disk_has_it(
    area: staging.StagingArea, staged: growing.GrowingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever left it, an engine that died, may have had no time for that. (The wire is mocked.)"""
    job = rows.make_job()
    left = area.restored_path(job.id, 0)
    left.parent.mkdir()
    left.write_bytes(DATA[:BLOCK])
    happened: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: happened.append(("synced", os.fstat(fd).st_size)))
    origin = sources.Origin(Cloud(breaks=len(DATA)), "ref", len(DATA))  # type: ignore[arg-type]
    source = sources.Remote(
        *(area, rows.take(job.id), lambda: origin, area.upload_path(job.id, 1)),
        *(lambda synced: happened.append(("told", synced)), lambda: 2 * BLOCK),
    )
    assert b"".join(source.blocks(staged, lambda: None)) == DATA
    assert happened == [(what, size) for size in (BLOCK, len(DATA)) for what in ("synced", "told")]


def test_what_may_not_be_on_the_disk_is_brought_again(
    area: staging.StagingArea, staged: growing.GrowingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a file may have its length, and zeros where bytes were. (The wire is mocked.)"""
    job = rows.make_job()
    cloud = Cloud(breaks=len(DATA))
    told: list[int] = []
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))

    def blocks(claim: work.Claim) -> Iterator[bytes]:
        origin = sources.Origin(cloud, "ref", len(DATA))  # type: ignore[arg-type]
        path = area.upload_path(job.id, 1)
        last = lambda: told[-1] if told else 0  # noqa: E731
        source = sources.Remote(area, claim, lambda: origin, path, told.append, last)
        return source.blocks(staged, lambda: None)

    monkeypatch.setattr(sources, "TELL_SECONDS", 0.0)
    coming = blocks(rows.take(job.id))
    assert next(coming) + next(coming) == DATA[:BLOCK]
    assert told == synced == [BLOCK // 2]
    [file] = area.folder(job.id).iterdir()
    with file.open("r+b") as damaged:
        damaged.seek(BLOCK // 2)
        damaged.write(bytes(BLOCK // 2))
    assert b"".join(blocks(rows.take(job.id, "engine-2"))) == DATA
    assert cloud.asked == [0, BLOCK // 2]


def test_the_disk_fills_up_while_it_comes(
    area: staging.StagingArea, staged: growing.GrowingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once there is room again, it goes on where it was. (The wire is mocked, and the full disk.)"""
    job = rows.make_job()
    cloud = Cloud(breaks=len(DATA))
    origin = sources.Origin(cloud, "ref", len(DATA))  # type: ignore[arg-type]
    source = sources.Remote(area, rows.take(job.id), lambda: origin, area.upload_path(job.id, 1))
    write = staging.write_all

    def full(file: BinaryIO, block: bytes) -> None:
        if file.tell() >= BLOCK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, block)

    monkeypatch.setattr(staging, "write_all", full)
    with pytest.raises(exceptions.StagingFull):
        list(source.blocks(staged, lambda: None))
    monkeypatch.setattr(staging, "write_all", write)
    assert b"".join(source.blocks(staged, lambda: None)) == DATA
    assert cloud.asked == [0, BLOCK]


@pytest.mark.parametrize(("size", "what"), [(len(DATA) + 1, "fewer"), (len(DATA) - 1, "more")])
def test_a_cloud_that_gives_another_size_is_asked_again(
    area: staging.StagingArea, staged: growing.GrowingFile, size: int, what: str
) -> None:
    """(The wire is mocked: a real Glance does not do that.)"""
    job = rows.make_job()
    origin = sources.Origin(Cloud(breaks=len(DATA)), "ref", size)  # type: ignore[arg-type]
    source = sources.Remote(area, rows.take(job.id), lambda: origin, area.upload_path(job.id, 1))
    with pytest.raises(exceptions.TransientProviderError, match=what):
        list(source.blocks(staged, lambda: None))
    kept = list(area.folder(job.id).iterdir())
    assert len(kept) == (what == "fewer")       # what is too much is of no use
