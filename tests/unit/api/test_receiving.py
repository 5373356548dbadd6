# SPDX-License-Identifier: Apache-2.0
"""A body on its way to the disk, which may be slower than the line, full, or told of only once."""

import errno
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import flask
import pytest
from oslo_config import cfg
from oslo_db import exception as db_exceptions

from ciming import exceptions, rpc, staging
from ciming.api import receiving, staging_area
from ciming.db import api, models, uploads
from tests.unit import rows
from tests.unit.children import wait_for

SIZE = 24


class Disk:
    """Has nothing before it may. (Mocked: no disk is slow, or full, as a test needs it.)"""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.error: OSError | None = None
        self.synced: list[int] = []

    def fdatasync(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        assert self.may.wait(60)
        assert os.fstat(fd).st_nlink == 1       # it is open still, and nobody has removed it
        if self.error:
            raise self.error
        self.synced.append(size)


class Line:
    """Brings four bytes at a time, does `then` when it has brought them all, and ends."""

    def __init__(self, size: int, then: Callable[[], object] = lambda: None) -> None:
        self.size, self.then, self.brought = size, then, 0

    def body(self, _timeout: float) -> Iterator[bytes]:
        while self.brought < self.size:
            self.brought += 4
            yield b"abcd"
        self.then()


@pytest.fixture
def area(
    conf: cfg.ConfigOpts, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> staging.StagingArea:
    made = staging.StagingArea(str(tmp_path / "staging"), quota=0, keep_free=0)
    monkeypatch.setattr(staging_area, "get", lambda: made)
    return made


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()
    monkeypatch.setattr(os, "fdatasync", made.fdatasync)
    monkeypatch.setattr(staging, "SYNC_BYTES", 4)
    monkeypatch.setattr(receiving, "COMMIT_SECONDS", 600)
    yield made
    made.may.set()


@pytest.fixture
def lease(database: str, area: staging.StagingArea, monkeypatch: pytest.MonkeyPatch) -> uploads.Lease:
    monkeypatch.setattr(rpc, "knock", lambda _job_id: None)     # there is no broker
    job = rows.make_job(stage="uploading", size=None)
    until = models.now() + 60_000
    return uploads.begin(job.image_id, "api-1", SIZE, until, staging_area.room, marker=rows.AREA, offset=0)


Send = Callable[..., "futures.Future[object]"]


@pytest.fixture
def send(lease: uploads.Lease, monkeypatch: pytest.MonkeyPatch) -> Iterator[Send]:
    """Has a part come in over a line, in a thread of its own."""
    app = flask.Flask(__name__)

    def received(line: Line, announced: int) -> int:
        monkeypatch.setattr(receiving, "body", line.body)
        with app.test_request_context(environ_overrides={"CONTENT_LENGTH": str(announced)}):
            return receiving.part(lease, None)

    with futures.ThreadPoolExecutor(1) as pool:
        yield lambda line, announced=SIZE: pool.submit(received, line, announced)


def row(lease: uploads.Lease) -> models.Upload:
    upload = api.get_job(lease.job_id, None).upload
    assert upload is not None
    return upload


def test_the_line_does_not_wait_for_the_disk(send: Send, disk: Disk, lease: uploads.Lease) -> None:
    line = Line(SIZE)
    sent = send(line)
    wait_for(lambda: line.brought == SIZE)
    assert not sent.done() and (row(lease).offset, row(lease).complete) == (0, False)
    disk.may.set()
    assert sent.result(60) == SIZE
    assert disk.synced[-1] == SIZE and row(lease).complete


def test_it_goes_ahead_only_so_far_and_keeps_its_lease(
    send: Send, disk: Disk, lease: uploads.Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "AHEAD_BYTES", 8)
    monkeypatch.setattr(receiving, "COMMIT_SECONDS", 0.05)
    line = Line(SIZE)
    sent = send(line)
    for _ in range(3):
        before = row(lease).leased_until
        wait_for(lambda before=before: row(lease).leased_until > before)  # type: ignore[misc]
    assert line.brought <= 12 and row(lease).offset == 0
    disk.may.set()
    assert sent.result(60) == SIZE


def test_what_comes_slowly_is_told_as_it_comes(
    send: Send, disk: Disk, lease: uploads.Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with one write."""
    monkeypatch.setattr(receiving, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(staging, "SYNC_BYTES", 100)
    commit = uploads.commit
    told: list[int] = []

    def committed(lease: uploads.Lease, offset: int, written: int, until: int, room: uploads.Room) -> int:
        told.append(offset)
        return commit(lease, offset, written, until, room)

    monkeypatch.setattr(uploads, "commit", committed)
    disk.may.set()
    assert send(Line(12), 12).result(60) == 12
    assert told == [4, 8, 12]


def test_a_disk_that_turns_out_to_be_full(send: Send, disk: Disk, lease: uploads.Lease) -> None:
    disk.error = OSError(errno.ENOSPC, "No space left on device")
    disk.may.set()
    with pytest.raises(exceptions.StagingFull):
        send(Line(SIZE)).result(60)
    assert (row(lease).offset, row(lease).owner) == (0, None)


def test_what_came_of_a_part_that_is_cut_short_is_waited_for(
    send: Send, disk: Disk, lease: uploads.Lease
) -> None:
    line = Line(12)
    sent = send(line)
    wait_for(lambda: line.brought == 12)
    disk.may.set()
    with pytest.raises(receiving.Incomplete):
        sent.result(60)
    assert disk.synced[-1] == 12 and (row(lease).offset, row(lease).owner) == (12, None)


def test_the_file_stays_open_until_the_disk_has_ended(send: Send, disk: Disk, lease: uploads.Lease) -> None:
    """Else its number may be another file's by then."""
    late = threading.Timer(0.2, disk.may.set)

    def gone() -> None:
        late.start()
        raise exceptions.Gone("It was given up.")

    with pytest.raises(exceptions.Gone):
        send(Line(8, gone)).result(60)
    assert disk.synced


@pytest.mark.parametrize(
    ("error", "stays"),
    [(exceptions.Gone("It was given up."), False), (db_exceptions.DBConnectionError(), True)],
    ids=lambda value: type(value).__name__,
)
def test_bytes_stay_where_the_row_may_call_them_whole(
    area: staging.StagingArea, monkeypatch: pytest.MonkeyPatch, error: Exception, stays: bool
) -> None:
    """The answer to a commit may be lost, and the commit be done."""
    lease = uploads.Lease("job-1", 1, 4, 1 << 30)

    def complete(*_: object) -> None:
        raise error

    monkeypatch.setattr(receiving, "body", Line(4).body)
    monkeypatch.setattr(uploads, "complete", complete)
    with pytest.raises(type(error)):
        receiving.whole(lease)
    assert area.upload_path("job-1", 1).exists() is stays
