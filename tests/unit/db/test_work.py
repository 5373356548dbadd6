# SPDX-License-Identifier: Apache-2.0
"""Claims and fences, on real databases."""

import inspect
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest
import sqlalchemy as sa

from ciming import exceptions
from ciming.db import api, jobs, models, session, uploads, work
from tests.unit import rows

pytestmark = pytest.mark.usefixtures("database")

DIGESTS = {"sha256": "2", "sha512": "5"}
Write = Callable[[work.Claim, models.Job], Any]
SOURCE = {"cloud_key": "zone-x", "size": 7, "tags": [], "digests": {}}
WRITES: dict[str, Write] = {
    "release": lambda held, _job: work.release(held),
    "wait": lambda held, _job: work.wait(held),
    "stop_following": lambda held, _job: work.stop_following(held),
    "staged": lambda held, _job: work.staged(
        held, disk_format="raw", virtual_size=512, digests=DIGESTS
    ),
    "found": lambda held, _job: work.found(held, SOURCE, lambda _held, _coming: 1 << 40),
    "fetched": lambda held, _job: work.fetched(held, 7),
    "reserve": lambda held, _job: work.reserve(held, 3, 4, lambda _held, _coming: 1 << 40),
    "proven": lambda held, _job: work.proven(held, "x"),
    "update_stage": lambda held, _job: work.update_stage(held, step="inspect", error={"code": "x"}),
    "end_stage": lambda held, _job: work.end_stage(held),
    "update_target": lambda held, job: work.update_target(held, job.targets[0].id, bytes_done=7),
    "progress": lambda held, job: work.progress(held, job.targets[0].id, 7),
    "check": lambda held, _job: work.check(held),
    "give_up": lambda held, _job: work.give_up(held),
    "end_target": lambda held, job: work.end_target(held, job.targets[0].id),
    "add_link": lambda held, job: work.add_link(held, job.targets[0].id, "ref", "bytes"),
    "updated": lambda held, job: work.updated(held, job.targets[0].id, "ref", {}, None),
    "leave": lambda held, job: work.leave(held, job.targets[0].id, "ref"),
    "remove_link": lambda held, job: work.remove_link(held, job.targets[0].id),
    "finish": lambda held, _job: work.finish(held, purge=True),
}


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """What `count` threads got that called at the same moment; an exception is a result too."""
    gate = threading.Barrier(count)

    def run(number: int) -> Any:
        gate.wait()
        try:
            return call(number)
        except (Exception, exceptions.Interrupted) as error:
            return error

    with futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


# Claims


def test_of_many_claimers_one_wins() -> None:
    job = rows.make_job()
    [candidate] = work.candidates(rows.AREA, rows.LOCKS)
    won = at_once(20, lambda number: work.claim(candidate, f"engine-{number}", rows.LOCKS))
    [claim] = [each for each in won if each is not None]
    assert isinstance(claim, work.Claim), claim
    row = api.get_job(job.id, None)
    assert (row.owner, row.generation) == (claim.owner, claim.generation) == (claim.owner, 1)
    assert row.status == "running"


def test_of_many_who_take_it_from_a_dead_engine_one_wins() -> None:
    job = rows.make_job()
    dead = rows.take(job.id)
    [candidate] = work.candidates(rows.AREA, rows.LOCKS)
    known = work.Candidate(job.id, dead.owner, dead.generation, kind="create", project_id="studio")
    assert candidate == known
    won = at_once(20, lambda number: work.claim(candidate, f"heir-{number}", rows.LOCKS))
    assert len([each for each in won if each is not None]) == 1


def test_what_was_seen_before_another_claim_is_no_candidate() -> None:
    """Even if the owner is the same again: an engine that takes up its own left-over Job."""
    job = rows.make_job()
    rows.take(job.id)
    [seen] = work.candidates(rows.AREA, rows.LOCKS)
    rows.take(job.id)
    assert work.claim(seen, "late", rows.LOCKS) is None
    assert api.get_job(job.id, None).owner == rows.ENGINE


def test_candidates() -> None:
    """Oldest first; not those that wait for bytes, are done, or are for others to judge."""
    free, ours, theirs, done = (rows.make_job(created_at=number) for number in range(4))
    rows.make_job(stage="uploading")
    rows.make_job(marker="another area")
    held = rows.take(ours.id)
    rows.take(theirs.id, "engine-9", "other locks")
    work.finish(rows.take(done.id), purge=False)
    assert [each.job_id for each in work.candidates(rows.AREA, rows.LOCKS)] == [free.id, ours.id]
    work.release(held)
    free_again = work.Candidate(ours.id, None, 1, kind="create", project_id="studio")
    assert free_again in work.candidates(rows.AREA, "third locks")
    large = work.candidates(rows.AREA, "third locks", rows.SIZE)
    assert [each.takes_long for each in large] == [True, True]


def test_parts_of_a_sync_let_others_go_first() -> None:
    """However long they wait; and they leave room for small ones, as large ones do."""
    sync = rows.make_job(stage="staged", finished_at=models.now())
    part = rows.make_job(parent_id=sync.id, created_at=1)
    later = rows.make_job(created_at=2)
    found = work.candidates(rows.AREA, rows.LOCKS)
    assert [each.job_id for each in found] == [later.id, part.id]
    assert [each.takes_long for each in found] == [False, True]


def test_an_upload_is_followed_until_it_stalls() -> None:
    """Also by the next engine, if that which followed it stops."""
    job = rows.make_job(stage="uploading")
    lease = uploads.begin(
        job.image_id, "api", None, models.now() + 60_000, lambda *_: 1 << 40, marker=rows.AREA
    )
    uploads.commit(lease, 7, 7, models.now() + 60_000, lambda *_: 1 << 40)

    def comes(me: str = "engine-9") -> bool:
        return [each.job_id for each in work.candidates(rows.AREA, rows.LOCKS, me=me)] == [job.id]

    for owner in ("engine-1", "engine-2"):
        assert comes()
        held = rows.take(job.id, owner)
        work.update_stage(held, step="inspect", error=None)
        assert comes()      # should its owner be dead
        work.release(held)
    held = rows.take(job.id)
    work.stop_following(held)
    assert comes()
    assert not comes(me=held.owner)     # who keeps it, for what it holds in its memory
    work.release(held)
    assert not comes()
    uploads.complete(lease, rows.SIZE)
    assert comes()


@pytest.mark.parametrize(
    ("kind", "size", "long"),
    [
        ("create", rows.SIZE - 1, False),
        ("create", rows.SIZE, True),
        ("create", None, True),
        ("sync", None, True),
        ("delete", None, False),
    ],
)
def test_what_takes_long(kind: str, size: int | None, long: bool) -> None:
    """What is to come out of a Cloud may be of any size."""
    assert work.is_large(kind, size, rows.SIZE) == long
    assert not work.is_large(kind, size or 0, None)


def test_an_ended_job_is_not_claimed() -> None:
    job = rows.make_job()
    [candidate] = work.candidates(rows.AREA, rows.LOCKS)
    work.finish(rows.take(job.id), purge=False)
    row = api.get_job(job.id, None)
    for known in (candidate, work.Candidate(job.id, None, row.generation)):
        assert work.claim(known, "late", rows.LOCKS) is None
    assert api.get_job(job.id, None).generation == row.generation


def test_started_once() -> None:
    job = rows.make_job()
    rows.take(job.id)
    started = api.get_job(job.id, None).started_at
    time.sleep(0.002)
    assert rows.take(job.id, "engine-2").generation == 2
    assert api.get_job(job.id, None).started_at == started


# Fences


def test_every_write_is_tried_here() -> None:
    functions = inspect.getmembers(work, inspect.isfunction)
    taking = {name for name, each in functions if "held" in inspect.signature(each).parameters}
    assert taking == WRITES.keys() | {"fence", "fenced", "load"}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize("how", ["another engine", "same engine again", "handed back", "ended"])
def test_who_lost_the_job_writes_nothing(write: Write, how: str) -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    if how == "another engine":
        rows.take(job.id, "engine-2")
    elif how == "same engine again":
        rows.take(job.id, held.owner)
    elif how == "handed back":
        work.release(held)
    else:
        work.finish(held, purge=False)
    before = rows.everything()
    with pytest.raises(exceptions.ClaimLost):
        write(held, job)
    assert rows.everything() == before


def test_who_slept_until_the_job_was_deleted() -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    with session.writer() as writing:
        writing.execute(sa.delete(models.Upload).where(models.Upload.job_id == job.id))
        writing.execute(sa.delete(models.Target).where(models.Target.job_id == job.id))
        writing.execute(sa.delete(models.Job).where(models.Job.id == job.id))
    with pytest.raises(exceptions.ClaimLost):
        work.load(held)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_who_holds_the_job_writes(write: Write) -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    before = rows.everything()
    time.sleep(0.002)               # updated_at counts milliseconds
    write(held, job)
    assert rows.everything() != before


def test_a_write_that_raises_leaves_nothing() -> None:
    held = rows.take(rows.make_job().id)
    before = rows.everything()
    with pytest.raises(RuntimeError), work.fenced(held) as (_session, row):
        row.stage = "failed"
        raise RuntimeError
    assert rows.everything() == before


@pytest.mark.parametrize("write", [*WRITES.values(), lambda held, _job: work.load(held)])
def test_an_unusable_database_means_unknown(write: Write, database: rows.Database) -> None:
    """Neither "lost" nor "go on"."""
    job = rows.make_job()
    held = rows.take(job.id)
    database.take_away()
    with pytest.raises(exceptions.Interrupted) as caught:
        write(held, job)
    assert not isinstance(caught.value, exceptions.ClaimLost)


def test_a_row_that_the_database_does_not_take_is_our_own_fault() -> None:
    """To try again would help nobody."""
    job = rows.make_job()
    held = rows.take(job.id)
    before = rows.everything()
    with pytest.raises(Exception, match=r"(?i)not.null|cannot be null"):
        work.update_target(held, job.targets[0].id, status=None)
    assert rows.everything() == before


# What the writes say


def test_a_job_from_start_to_end() -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    work.update_stage(held, step="inspect", error=None)
    work.staged(held, disk_format="qcow2", virtual_size=9, digests=DIGESTS)
    image = api.get_image(job.image_id, None)
    assert (image.status, image.disk_format, image.virtual_size) == ("pending", "qcow2", 9)
    assert image.digests == {**DIGESTS, "guest": None}
    first, second = job.targets
    work.add_link(held, first.id, "ref-1", "bytes")
    assert api.get_job(job.id, None).status == "running"
    work.add_link(held, second.id, "ref-2", "bytes")
    work.add_link(held, second.id, "ref-2", "bytes")        # executed again after a crash
    assert work.finish(held, purge=True) == "success"
    row, image = api.get_job(job.id, None), api.get_image(job.image_id, None)
    assert (row.status, row.owner, row.spec, row.upload) == ("success", None, None, None)
    assert row.progress == {"bytes_done": 3 * rows.SIZE, "bytes_total": 3 * rows.SIZE}
    assert image.status == "active"
    assert [(link.cloud, link.image_ref) for link in image.links] == [
        ("zone-a", "ref-1"),
        ("zone-b", "ref-2"),
    ]


@pytest.mark.parametrize(("ref", "proof"), [("ref-1", "bytes"), ("another", "guest")])
def test_a_source_keeps_its_own_proof(ref: str, proof: str) -> None:
    """What was converted for another zone is one disk with it, and another file."""
    job = rows.make_job()
    held = rows.take(job.id)
    first, second = job.targets
    work.add_link(held, first.id, ref, "bytes")
    place = {name: getattr(first, name) for name in ("cloud_key", "cloud", "provider", "region")}
    source = {**place, "image_ref": "ref-1", "told": {"name": "demo"}}
    work.add_link(held, second.id, "ref-2", "guest", {}, source)
    found = [(link.image_ref, link.proof) for link in api.get_image(job.image_id, None).links]
    assert found == [("ref-1", proof), ("ref-2", "guest")]


def test_of_what_is_several_images_the_last_one_is_left() -> None:
    """Whoever is deleted at the same moment; another project's does not count."""
    made = [rows.make_job(zones=["zone-a"]) for _ in range(4)]
    held = [rows.take(job.id) for job in made]
    for job, claim in zip(made, held, strict=True):
        work.add_link(claim, job.targets[0].id, "ref", "bytes")
    with session.writer() as writing:
        writing.get_one(models.Image, made[3].image_id).project_id = "elsewhere"
    others = at_once(3, lambda number: work.leave(held[number], made[number].targets[0].id, "ref"))
    assert sum(other is None for other in others) == 1, others
    linked = [bool(api.get_image(job.image_id, None).links) for job in made[:3]]
    assert linked == [other is None for other in others]
    assert api.get_image(made[3].image_id, None).links


def test_partial() -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    work.staged(held, disk_format="raw", virtual_size=9, digests=DIGESTS)
    first, second = job.targets
    work.add_link(held, first.id, "ref-1", "bytes")
    work.update_target(held, second.id, error={"code": "cloud.forbidden"})
    work.end_target(held, second.id)
    assert work.finish(held, purge=False) == "partial"
    row = api.get_job(job.id, None)
    assert row.targets[1].error == {"code": "cloud.forbidden"}
    assert row.spec and row.upload
    assert api.get_image(job.image_id, None).status == "partial"


@pytest.mark.parametrize("error", [None, {"code": "image.rejected", "message": "…"}])
def test_the_stage_fails(error: dict[str, Any] | None) -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    work.update_stage(held, step="inspect", error=error)
    work.end_stage(held)
    assert api.get_job(job.id, None).error == (error or work.INTERNAL)
    for target in job.targets:
        work.end_target(held, target.id)
    assert work.finish(held, purge=True) == "error"
    row = api.get_job(job.id, None)
    assert {target.status for target in row.targets} == {"error"}
    assert all(target.error == row.error for target in row.targets)


def test_an_upload_that_was_given_up_keeps_its_error() -> None:
    """Whoever gives it up does not ask the engine that follows it."""
    job = rows.make_job(stage="uploading")
    held = rows.take(job.id)
    jobs.cancel(job.id)
    for error in (None, {"code": "image.broken", "message": "…"}):
        work.update_stage(held, step="inspect", error=error)
        row = api.get_job(job.id, None)
        assert row.error is not None and row.error["code"] == "upload.terminated"


def test_the_step_of_a_target_that_waits_for_its_user_stays() -> None:
    """It says how far the Target had come; what waits for bytes has that of the stage flow."""
    job = rows.make_job()
    held = rows.take(job.id)
    first, _ = job.targets
    refused = {"code": "cloud.auth_failed", "message": "…"}
    work.update_target(held, first.id, status="waiting", step="upload", error=refused)
    work.update_stage(held, step="inspect", error=None)
    row = api.get_job(job.id, None)
    assert [target.step for target in row.targets] == ["upload", "inspect"]


@pytest.mark.parametrize("stage", ["staging", "staged"])
def test_give_up_ends_what_has_not_ended(stage: str) -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    first, second = job.targets
    if stage == "staged":
        work.staged(held, disk_format="raw", virtual_size=9, digests=DIGESTS)
        work.add_link(held, first.id, "ref-1", "bytes")
        work.update_target(held, second.id, error={"code": "cloud.error"})
    work.give_up(held)
    row = api.get_job(job.id, None)
    if stage == "staged":
        assert [target.status for target in row.targets] == ["success", "error"]
        assert row.targets[1].error == {"code": "cloud.error"}
        assert (row.error, work.finish(held, purge=False)) == (None, "partial")
    else:
        assert (row.stage, row.error) == ("failed", work.INTERNAL)
        assert work.finish(held, purge=False) == "error"


def test_attempts() -> None:
    job = rows.make_job()
    held, target_id = rows.take(job.id), job.targets[0].id
    for status, attempts in (("running", 1), ("retrying", 2), ("running", 2), ("retrying", 3)):
        work.update_target(held, target_id, status=status)
        assert api.get_job(job.id, None).targets[0].attempts == attempts


# Housekeeping


def test_purge_forgets_what_ended_long_ago() -> None:
    jobs = [rows.make_job() for _ in range(3)]
    for job in jobs[:2]:
        work.finish(rows.take(job.id), purge=False)
    elsewhere = rows.make_job(marker="another area")
    work.finish(rows.take(elsewhere.id), purge=False)
    assert not work.past_retention(rows.AREA, models.now() - 60_000)
    assert set(work.past_retention(rows.AREA, models.now() + 1)) == {job.id for job in jobs[:2]}
    for job in jobs[:2]:
        assert work.forget_spec(job.id, models.now() + 1)
        assert job.id in work.past_retention(rows.AREA, models.now() + 1)     # until its bytes are gone
        work.purge(job.id)
    assert not work.forget_spec(jobs[2].id, models.now() + 1)
    assert not work.past_retention(rows.AREA, models.now() + 1)
    for job in jobs[:2]:
        row = api.get_job(job.id, None)
        assert (row.spec, row.upload, row.status) == (None, None, "error")
    assert api.get_job(jobs[2].id, None).spec
    assert api.get_job(elsewhere.id, None).spec


def test_an_upload_that_never_came_expires() -> None:
    job = rows.make_job(stage="uploading")
    assert not work.expire_uploads(rows.AREA)
    with session.writer() as writing:
        writing.execute(sa.update(models.Upload).values(expires_at=models.now() - 1))
    assert not work.expire_uploads("another area")
    assert work.expire_uploads(rows.AREA) == [job.id]
    assert not work.expire_uploads(rows.AREA)
    row = api.get_job(job.id, None)
    assert row.error is not None
    assert (row.stage, row.status, row.error["code"]) == ("failed", "queued", "upload.expired")
    assert [each.job_id for each in work.candidates(rows.AREA, rows.LOCKS)] == [job.id]


def test_trusts_that_outlived_their_job() -> None:
    running, ended = rows.make_job(), rows.make_job()
    work.finish(rows.take(ended.id), purge=True)
    assert work.ended_with_trust() == [(ended.id, "trust-1")]
    work.trust_deleted(ended.id, "another trust")
    assert work.ended_with_trust() == [(ended.id, "trust-1")]
    work.trust_deleted(ended.id, "trust-1")
    assert work.ended_with_trust() == []
    assert api.get_job(running.id, None).trust_id == "trust-1"


def test_threads_that_read_then_write_never_find_it_locked() -> None:
    """A plain BEGIN fails here at once: a reader that turns writer is refused, whatever the timeout."""
    jobs = [rows.make_job() for _ in range(6)]
    claims = [rows.take(job.id) for job in jobs]

    def hammer(number: int) -> int:
        for _ in range(8):
            with session.writer() as writing:
                target = writing.get_one(models.Target, jobs[number].targets[0].id)
                target.bytes_done += 1
            work.update_target(claims[number], target.id, step="upload")
            work.load(claims[number])
        return number

    assert at_once(6, hammer) == list(range(6))     # no error among them
    done = [api.get_job(job.id, None).targets[0].bytes_done for job in jobs]
    assert done == [8] * 6


# Room


@pytest.mark.parametrize("came", [0, 3])
def test_a_download_that_failed_for_good_keeps_room_for_what_is_there(came: int) -> None:
    """Others may have the rest; a retry reserves it again, and where it can not, nothing changes."""

    def room(held: int, _coming: int) -> int:
        return 10 - held

    job = rows.make_job(size=None)
    with session.writer() as writing:
        row = writing.get_one(models.Upload, job.id)
        row.reserved = row.offset = 0
    for source, at_all in ((SOURCE, True), ({**SOURCE, "size": 11}, False)):
        held = rows.take(job.id)
        if at_all:
            work.found(held, source, room)
            work.fetched(held, came)
        else:
            with pytest.raises(exceptions.StagingFull):
                work.found(held, source, room)
        work.end_stage(held)
        work.finish(held, purge=False)
        upload = api.get_job(job.id, None).upload
        assert upload is not None and (upload.reserved, upload.offset) == (came, came)
        with session.writer() as writing:       # as a retry does
            writing.get_one(models.Job, job.id).finished_at = None


def test_what_came_whole_keeps_its_room_whatever_fails() -> None:
    """Also what it was converted to."""
    job = rows.make_job(size=7)
    held = rows.take(job.id)
    work.reserve(held, 2, 3, lambda _held, _coming: 100)
    work.end_stage(held)
    work.finish(held, purge=False)
    upload = api.get_job(job.id, None).upload
    assert upload is not None and upload.reserved == 12
