# SPDX-License-Identifier: Apache-2.0
"""Leases on uploads, on real databases."""

import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest

from ciming import exceptions
from ciming.db import api, models, session, uploads, work
from tests.unit import rows

pytestmark = pytest.mark.usefixtures("database")


def later() -> int:
    return models.now() + 60_000


def endless(_held: int, _coming: int) -> int:
    return 1 << 40


def begin(
    job: models.Job, size: int | None = None, owner: str = "api-1", room: uploads.Room = endless
) -> uploads.Lease:
    return uploads.begin(job.image_id, owner, size, later(), room, marker=rows.AREA)


def commit(lease: uploads.Lease, offset: int, room: uploads.Room = endless, ahead: int = 0) -> int:
    return uploads.commit(lease, offset, offset + ahead, later(), room)


def refused(call: Callable[[], Any], code: str, match: str = "") -> None:
    with pytest.raises(exceptions.CimingError, match=match) as caught:
        call()
    assert caught.value.code == code


def test_from_begin_to_complete() -> None:
    job = rows.make_job(stage="uploading", size=None)
    lease = begin(job, 10)
    assert lease == uploads.Lease(job.id, 1, 10, 1 << 40)
    commit(lease, 4)
    row = api.get_job(job.id, None)
    assert row.upload is not None
    assert (row.upload.offset, row.upload.owner, row.status) == (4, "api-1", "uploading")
    uploads.complete(lease, 10)
    row = api.get_job(job.id, None)
    assert row.upload is not None
    assert (row.stage, row.status, row.image.size, row.image.status) == ("staging", "queued", 10, "pending")
    assert (row.upload.complete, row.upload.reserved, row.upload.offset) == (True, 10, 10)
    assert row.progress == {"bytes_done": 10, "bytes_total": 30}       # for two Targets
    refused(lambda: begin(job), "image.has_data")


def test_the_last_byte_undoes_no_failure() -> None:
    """An engine that follows may have refused what came; what then comes is of no use."""
    job = rows.make_job(stage="uploading")
    lease = begin(job)
    work.end_stage(rows.take(job.id))
    uploads.complete(lease, rows.SIZE)
    row = api.get_job(job.id, None)
    assert row.stage == "failed" and row.upload is not None and row.upload.complete


@pytest.mark.parametrize("size", [None, rows.SIZE], ids=["unknown", "announced"])
def test_who_sends_an_image_that_was_refused_is_told_why(size: int | None) -> None:
    """By a code at which clients do not try again, when nothing is left to be retried."""
    job = rows.make_job(stage="uploading", size=size)
    lease = begin(job)
    held, error = rows.take(job.id), {"code": "image.unsafe", "message": "It has a backing file."}
    work.update_stage(held, step="inspect", error=error)
    work.end_stage(held)
    assert commit(lease, 100)
    work.finish(held, purge=True)
    image = api.get_image(job.image_id, None)
    for ask in (
        lambda: commit(lease, 200),
        lambda: uploads.complete(lease, rows.SIZE),
        lambda: begin(job),
        lambda: uploads.state(image),
    ):
        refused(ask, "image.has_data", f"Job {job.id} has ended: It has a backing file.")


def test_of_many_who_begin_one_gets_the_lease() -> None:
    job = rows.make_job(stage="uploading")
    gate = threading.Barrier(20)

    def attempt(number: int) -> uploads.Lease | str:
        gate.wait()
        try:
            return begin(job, owner=f"api-{number}")
        except exceptions.Conflict as error:
            return error.code

    with futures.ThreadPoolExecutor(20) as pool:
        results = list(pool.map(attempt, range(20)))
    assert results.count("upload.in_progress") == 19
    assert uploads.Lease(job.id, 1, rows.SIZE, 1 << 40) in results


@pytest.mark.parametrize("ended", ["expired", "abandoned"])
def test_a_lease_that_ended_writes_nothing(ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LEASE_MS", 20)
    job = rows.make_job(stage="uploading")
    late = begin(job)
    commit(late, 100)
    if ended == "expired":
        time.sleep(0.03)
    else:
        uploads.release(late, 0)
    successor = begin(job, owner="api-2")
    assert successor.generation == 2
    before = rows.everything()
    refused(lambda: commit(late, 200), "upload.lost")
    refused(lambda: uploads.complete(late, rows.SIZE), "upload.lost")
    uploads.release(late, 0)
    assert rows.everything() == before
    uploads.complete(successor, rows.SIZE)


def test_a_commit_keeps_the_lease() -> None:
    lease = begin(rows.make_job(stage="uploading"))

    def leased_until() -> int:
        row = api.get_job(lease.job_id, None).upload
        assert row is not None
        return row.leased_until

    first = leased_until()
    assert models.now() < first <= models.now() + uploads.LEASE_MS
    time.sleep(0.002)
    commit(lease, 1)
    assert leased_until() > first


def test_an_abandoned_upload_starts_over() -> None:
    job = rows.make_job(stage="uploading")
    lease = begin(job)
    commit(lease, 100)
    uploads.release(lease, 0)
    row = api.get_job(job.id, None).upload
    assert row is not None
    assert (row.offset, row.owner, row.complete) == (0, None, False)


def test_a_complete_upload_is_not_abandoned() -> None:
    job = rows.make_job(stage="uploading")
    lease = begin(job)
    uploads.complete(lease, rows.SIZE)
    before = rows.everything()
    uploads.release(lease, 0)
    refused(lambda: uploads.complete(lease, rows.SIZE), "upload.lost")
    assert rows.everything() == before


@pytest.mark.parametrize(
    ("announced", "sent", "known"), [(7, 7, 7), (7, None, 7), (None, 7, 7), (None, None, None)]
)
def test_size(announced: int | None, sent: int | None, known: int | None) -> None:
    assert begin(rows.make_job(stage="uploading", size=announced), sent).size == known


def test_a_size_that_contradicts_leaves_the_lease_free() -> None:
    job = rows.make_job(stage="uploading", size=7)
    refused(lambda: begin(job, 8), "upload.size_mismatch")
    assert begin(job, 7).generation == 1


class Area:
    """A staging area of so many bytes; notes what it was told is held, and what is to come."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.told: list[tuple[int, int]] = []

    def room(self, held: int, coming: int) -> int:
        self.told.append((held, coming))
        return max(0, self.size - held)


def test_what_others_hold_or_will_bring_is_no_room() -> None:
    area = Area(1200)
    rows.make_job(size=1000)
    known, unknown = (rows.make_job(stage="uploading", size=size) for size in (100, None))
    lease = begin(known, room=area.room)
    assert (area.told[-1], lease.room) == ((1000, 0), 200)
    lease = begin(unknown, room=area.room)
    assert (area.told[-1], lease.room) == ((1100, 100), 100)
    assert commit(lease, 60, area.room) == 100
    assert commit(lease, 20, area.room, ahead=40) == 100    # what the disk does not have yet takes room, too
    assert area.told[-1] == (1160, 100)
    refused(lambda: begin(rows.make_job(stage="uploading", size=None), 50, room=area.room), "staging.full")


@pytest.mark.parametrize(("seconds", "told"), [(500, (1000, 900)), (700, (100, 0))])
def test_who_died_keeps_the_room_of_what_has_come_only(seconds: int, told: tuple[int, int]) -> None:
    """As one whose process was killed; one that is slow keeps all of it."""
    job, other = (rows.make_job(stage="uploading", size=None) for _ in range(2))
    commit(begin(job, 1000), 100)
    with session.writer() as writing:
        upload = writing.get_one(models.Job, job.id).upload
        assert upload is not None
        upload.leased_until = models.now() - seconds * 1000
    area = Area(2000)
    begin(other, 10, room=area.room)
    assert area.told == [told]


def test_what_is_in_another_staging_area_takes_no_room_here() -> None:
    area = Area(1000)
    rows.make_job(size=900, marker="another area")
    rows.make_job(size=300)
    assert begin(rows.make_job(stage="uploading", size=None), room=area.room).room == 700
    assert area.told == [(300, 0)]


def test_who_brings_nothing_holds_nothing() -> None:
    area = Area(1000)
    rows.make_job(stage="uploading", size=100)
    for lease in (begin(rows.make_job(stage="uploading", size=size), 300) for size in (300, None)):
        commit(lease, 50)
        uploads.release(lease, 0)
    begin(rows.make_job(stage="uploading", size=None), room=area.room)
    assert area.told == [(0, 0)]


def test_a_refusal_leaves_the_lease_free() -> None:
    job = rows.make_job(stage="uploading", size=None)
    before = rows.everything()
    refused(lambda: begin(job, 50, room=lambda _held, _coming: 49), "staging.full")
    assert rows.everything() == before
    assert begin(job, 49, room=lambda _held, _coming: 49).room == 49


def test_many_at_once_do_not_block_each_other() -> None:
    """Whoever waits for room holds nothing that another waits for, who has it."""
    gate = threading.Barrier(8)

    def bring(_number: int) -> None:
        gate.wait()
        for size in (None, 30, None):
            job = rows.make_job(stage="uploading", size=size)
            lease = begin(job)
            for offset in (10, 20):
                commit(lease, offset)
            uploads.complete(lease, 30)

    with futures.ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(bring, range(8)))) == 8


def test_two_that_have_room_for_one() -> None:
    """Room is reserved in the transaction that takes the lease."""
    area, gate = Area(100), threading.Barrier(2)
    jobs = [rows.make_job(stage="uploading", size=None) for _ in range(2)]

    def attempt(job: models.Job) -> str:
        gate.wait()
        try:
            return str(begin(job, 60, room=area.room).generation)
        except exceptions.StagingFull as error:
            return error.code

    with futures.ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, jobs)) == ["1", "staging.full"]


# Going on


def resume(
    job: models.Job, offset: int, size: int | None = None, room: uploads.Room = endless
) -> uploads.Lease:
    return uploads.begin(
        job.image_id, "api-2", size, later(), room, marker=rows.AREA, offset=offset
    )


@pytest.mark.parametrize("offset", [None, 0])
def test_bytes_that_no_engine_would_find_are_not_taken(offset: int | None) -> None:
    """Two hosts with a folder each: the Job was made on one, and its bytes come to the other."""
    job = rows.make_job(stage="uploading")

    def elsewhere() -> None:
        uploads.begin(job.image_id, "api-2", None, later(), endless, marker="area-2", offset=offset)

    refused(elsewhere, "upload.elsewhere")
    assert begin(job).generation == 1


def stopped_at(offset: int) -> models.Job:
    """A Job whose upload was let go of at an offset."""
    job = rows.make_job(stage="uploading")
    uploads.release(begin(job), offset)
    return job


def test_going_on_from_where_it_stopped() -> None:
    job = stopped_at(100)
    assert uploads.state(job.image).offset == 100
    lease = resume(job, 100)
    assert (lease.start, lease.generation, lease.size) == (100, 2, rows.SIZE)
    assert lease.room == 100 + (1 << 40)
    uploads.complete(lease, rows.SIZE)
    state = uploads.state(api.get_image(job.image_id, None))
    assert (state.offset, state.size, state.expires_at) == (rows.SIZE, rows.SIZE, None)


@pytest.mark.parametrize("offset", [0, 99, 101, rows.SIZE])
def test_a_wrong_offset_changes_nothing(offset: int) -> None:
    job = stopped_at(100)
    before = rows.everything()
    refused(lambda: resume(job, offset), "upload.wrong_offset")
    assert rows.everything() == before


def test_a_second_writer_is_locked_out() -> None:
    job = rows.make_job(stage="uploading")
    lease = begin(job)
    commit(lease, 100)
    with pytest.raises(exceptions.Locked):
        resume(job, 100)
    uploads.release(lease, 100)
    assert resume(job, 100).generation == 2


def test_a_whole_upload_starts_over_what_came_in_parts() -> None:
    job = stopped_at(100)
    assert begin(job).start == 0
    assert uploads.state(job.image).offset == 0


def test_parts_need_to_know_the_size() -> None:
    job = rows.make_job(stage="uploading", size=None)
    refused(lambda: resume(job, 0), "upload.size_unknown")
    uploads.release(resume(job, 0, 300), 10)
    refused(lambda: resume(job, 10, 301), "upload.size_mismatch")
    assert resume(job, 10).size == 300


def test_what_is_here_needs_no_more_room() -> None:
    job = stopped_at(100)
    refused(lambda: resume(job, 100, room=lambda _held, _coming: rows.SIZE - 101), "staging.full")
    assert resume(job, 100, room=lambda _held, _coming: rows.SIZE - 100).room == rows.SIZE
