# SPDX-License-Identifier: Apache-2.0
"""What users do to Jobs while engines and senders write them, on real databases."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from ciming import exceptions
from ciming.db import api, jobs, models, pending, session, uploads, work
from tests.unit import rows
from tests.unit.db.test_uploads import begin, commit, refused, resume, stopped_at
from tests.unit.db.test_work import DIGESTS, at_once

pytestmark = pytest.mark.usefixtures("database")

REFUSED = {"code": "image.rejected", "message": "…", "cloud_request_id": None}
ROUNDS = range(4)


def row(job: models.Job) -> models.Job:
    return api.get_job(job.id, None)


LIKENESS = pending.Likeness("bob", "studio", 1_700_000_000_000)


def announced() -> int:
    """How many trusts are said to be on their way."""
    with session.reader() as reading:
        rows = sa.select(sa.func.count()).where(models.PendingTrust.trust_id.is_(None))
        return int(reading.scalar(rows) or 0)


def retry(job: models.Job, trust_id: str = "trust-2", user_id: str = "bob") -> None:
    pending_id = pending.announce(LIKENESS)
    rows.go_on(jobs.retry, job.id, pending_id, user_id, trust_id)


def ended(status: str, *, purge: bool | None = None, **values: Any) -> models.Job:
    """A Job that has ended so, its trust deleted, and what is not to be retried forgotten."""
    job = rows.make_job(**values)
    held = rows.take(job.id)
    first, second = job.targets
    work.staged(held, disk_format="raw", virtual_size=9, digests=DIGESTS)
    if status in ("success", "partial"):
        work.add_link(held, first.id, "ref-1", "bytes")
    if status == "success":
        work.add_link(held, second.id, "ref-2", "bytes")
    for target in job.targets:
        if status in ("partial", "error") and row(job).targets[job.targets.index(target)].status != "success":
            work.update_target(held, target.id, status="retrying", step="upload", bytes_done=7)
            work.update_target(held, target.id, error=REFUSED, checkpoint={"image": "x"}, image_ref="x")
            work.end_target(held, target.id)
    if status == "cancelled":
        jobs.cancel(job.id)
        for target in job.targets:
            work.update_target(held, target.id, status="cancelled")
    work.trust_deleted(job.id, "trust-1")
    assert work.finish(held, purge=status in ("success", "cancelled") if purge is None else purge) == status
    return row(job)


# Cancel


def test_a_job_that_waits_for_its_data() -> None:
    job = stopped_at(100)
    jobs.cancel(job.id)
    found = row(job)
    assert (found.wanted, found.stage, found.error) == ("cancel", "failed", uploads.TERMINATED)
    assert found.status == "queued"         # for an engine that cleans up
    assert [each.job_id for each in work.candidates(rows.AREA, rows.LOCKS)] == [job.id]
    for call in (
        lambda: resume(job, 100),
        lambda: begin(job),
        lambda: uploads.state(found.image),
        lambda: jobs.terminate(job.image_id),
    ):
        refused(call, "upload.terminated")


def test_a_sender_is_told_and_writes_nothing() -> None:
    job = rows.make_job(stage="uploading")
    lease = begin(job)
    commit(lease, 100)
    jobs.cancel(job.id)
    before = rows.everything()
    refused(lambda: commit(lease, 200), "upload.terminated")
    refused(lambda: uploads.complete(lease, rows.SIZE), "upload.terminated")
    assert not uploads.release(lease, 200)
    assert uploads.lost(lease).code == "upload.terminated"
    assert rows.everything() == before


@pytest.mark.parametrize("stage", ["staging", "staged"])
@pytest.mark.parametrize("claimed", [True, False])
def test_an_engine_does_the_rest(stage: str, claimed: bool) -> None:
    """What it holds stays as it is."""
    job = rows.make_job(stage=stage)
    if claimed:
        rows.take(job.id)
    before = row(job)
    jobs.cancel(job.id)
    found = row(job)
    assert (found.wanted, found.stage, found.error) == ("cancel", stage, None)
    for name in ("status", "owner", "generation", "spec", "trust_id"):
        assert getattr(found, name) == getattr(before, name)
    assert [target.status for target in found.targets] == ["waiting", "waiting"]


def test_to_cancel_again_changes_nothing() -> None:
    for job in (rows.make_job(), rows.make_job(stage="uploading")):
        jobs.cancel(job.id)
        before = row(job)
        jobs.cancel(job.id)
        assert (row(job).stage, row(job).error) == (before.stage, before.error)


@pytest.mark.parametrize("status", ["success", "partial", "error", "cancelled"])
def test_what_has_ended_is_not_cancelled(status: str) -> None:
    job = ended(status)
    before = rows.everything()
    with pytest.raises(exceptions.Conflict, match=f"has ended: {status}") as caught:
        jobs.cancel(job.id)
    assert caught.value.code == "job.has_ended"
    assert rows.everything() == before


def test_giving_an_upload_up() -> None:
    job = stopped_at(100)
    assert jobs.terminate(job.image_id) == job.id
    found = row(job)
    assert (found.wanted, found.stage, found.error) == ("cancel", "failed", uploads.TERMINATED)


def test_giving_up_what_is_under_way_or_whole() -> None:
    job = rows.make_job(stage="uploading")
    lease = begin(job)
    before = rows.everything()
    refused(lambda: jobs.terminate(job.image_id), "upload.locked")
    assert rows.everything() == before
    uploads.complete(lease, rows.SIZE)
    refused(lambda: jobs.terminate(job.image_id), "image.has_data")


def test_a_sleeper_is_given_up_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LEASE_MS", 0)
    job = rows.make_job(stage="uploading")
    lease = begin(job)
    time.sleep(0.002)
    jobs.terminate(job.image_id)
    refused(lambda: commit(lease, 1), "upload.terminated")
    refused(lambda: uploads.complete(lease, rows.SIZE), "upload.terminated")


# Cancel, at the same moment as others


def both(*calls: Callable[[], Any]) -> list[str | None]:
    """What calls ended with that were made at once: the code of an error, or None."""
    results = at_once(len(calls), lambda number: calls[number]())
    for each in results:
        if isinstance(each, BaseException) and not isinstance(each, exceptions.CimingError):
            raise each
    return [each.code if isinstance(each, exceptions.CimingError) else None for each in results]


@pytest.mark.parametrize("_round", ROUNDS)
def test_cancel_and_the_last_byte(_round: int) -> None:
    """Either the data is not taken, or the Job has it and is cancelled with it."""
    job = rows.make_job(stage="uploading")
    lease = begin(job)
    _none, sender = both(lambda: jobs.cancel(job.id), lambda: uploads.complete(lease, rows.SIZE))
    found = row(job)
    assert _none is None and found.wanted == "cancel"
    if sender is None:
        assert (found.stage, found.error) == ("staging", None)
    else:
        assert (sender, found.stage, found.error) == ("upload.terminated", "failed", uploads.TERMINATED)
    assert found.status == "queued"


@pytest.mark.parametrize("_round", ROUNDS)
def test_cancel_and_one_who_begins_to_send(_round: int) -> None:
    """However it went: no more data is taken."""
    job = stopped_at(100)
    lease: list[uploads.Lease] = []
    _none, sender = both(lambda: jobs.cancel(job.id), lambda: lease.append(resume(job, 100)))
    assert (_none, row(job).stage) == (None, "failed")
    if sender is None:
        refused(lambda: commit(lease[0], 200), "upload.terminated")
    else:
        assert sender in ("upload.terminated", "upload.locked")     # it lost the row under its hands


@pytest.mark.parametrize("_round", ROUNDS)
def test_cancel_and_the_end(_round: int) -> None:
    """An engine may be just done: then there is nothing to cancel, and nothing is."""
    job = rows.make_job()
    held = rows.take(job.id)
    work.staged(held, disk_format="raw", virtual_size=9, digests=DIGESTS)
    for target in job.targets:
        work.add_link(held, target.id, "ref", "bytes")
    user, _none = both(lambda: jobs.cancel(job.id), lambda: work.finish(held, purge=True))
    assert _none is None
    found = row(job)
    assert (found.status, found.wanted) == ("success", "run" if user == "job.has_ended" else "cancel")


@pytest.mark.parametrize("_round", ROUNDS)
def test_cancel_and_an_engines_writes(_round: int) -> None:
    """Neither undoes what the other wrote, and none of them waits for ever."""
    job = rows.make_job()
    held = rows.take(job.id)
    results = both(
        lambda: jobs.cancel(job.id),
        lambda: work.staged(held, disk_format="raw", virtual_size=9, digests=DIGESTS),
        lambda: work.update_target(held, job.targets[0].id, status="running", step="check"),
        lambda: work.progress(held, job.targets[0].id, 7),
    )
    assert results == [None] * 4
    found = row(job)
    assert (found.wanted, found.stage, found.owner) == ("cancel", "staged", held.owner)
    assert (found.targets[0].status, found.targets[0].bytes_done) == ("running", 7)


@pytest.mark.parametrize("_round", ROUNDS)
def test_cancel_and_a_claim(_round: int) -> None:
    job = rows.make_job()
    [candidate] = work.candidates(rows.AREA, rows.LOCKS)
    both(lambda: jobs.cancel(job.id), lambda: work.claim(candidate, rows.ENGINE, rows.LOCKS))
    found = row(job)
    assert (found.wanted, found.owner, found.status) == ("cancel", rows.ENGINE, "running")


@pytest.mark.parametrize("_round", ROUNDS)
def test_cancel_and_expiry(_round: int) -> None:
    job = rows.make_job(stage="uploading")
    with session.writer() as writing:
        writing.execute(sa.update(models.Upload).values(expires_at=models.now() - 1))
    assert both(lambda: jobs.cancel(job.id), lambda: work.expire_uploads(rows.AREA)) == [None, None]
    found = row(job)
    assert found.error in (uploads.EXPIRED, uploads.TERMINATED)
    assert (found.wanted, found.stage) == ("cancel", "failed")


# Retry


@pytest.mark.parametrize("status", ["partial", "error"])
def test_what_failed_is_as_new_and_what_succeeded_stays(status: str) -> None:
    job = ended(status)
    jobs.check_retry(row(job))
    retry(job)
    found = row(job)
    assert (found.status, found.stage, found.wanted, found.owner) == ("queued", "staged", "run", None)
    assert (found.started_at, found.finished_at, found.error) == (None, None, None)
    assert (found.trust_id, found.user_id, found.request_id) == ("trust-2", "bob", "req-2")
    assert (found.spec, found.generation, found.image.status) == (job.spec, job.generation, "pending")
    for now, before in zip(found.targets, job.targets, strict=True):
        if before.status == "success":
            assert (now.image_ref, now.bytes_done, now.attempts) == ("ref-1", rows.SIZE, before.attempts)
        else:
            assert (now.status, now.step, now.attempts, now.bytes_done) == ("waiting", None, 0, 0)
            assert (now.error, now.checkpoint, now.image_ref) == (None, None, None)
            assert (now.id, now.bytes_total) == (before.id, rows.SIZE)
    assert [each.job_id for each in work.candidates(rows.AREA, rows.LOCKS)] == [job.id]


def test_and_ends_as_any_other() -> None:
    job = ended("partial")
    first = job.finished_at
    retry(job)
    held = rows.take(job.id)
    assert held.generation == job.generation + 1
    work.add_link(held, job.targets[1].id, "ref-2", "bytes")
    assert work.finish(held, purge=True) == "success"
    found = row(job)
    assert found.image.status == "active"
    assert first and found.started_at and found.finished_at and found.started_at >= first
    assert {link.image_ref for link in found.image.links} == {"ref-1", "ref-2"}


@pytest.mark.parametrize(
    ("whole", "stage", "status"), [(True, "staging", "queued"), (False, "uploading", "uploading")]
)
def test_a_stage_that_failed_for_a_passing_reason_is_done_again(
    whole: bool, stage: str, status: str
) -> None:
    job = rows.make_job(stage="staging" if whole else "uploading")
    held = rows.take(job.id)
    work.update_stage(held, step="inspect", error={"code": "service.unavailable", "message": "…"})
    work.end_stage(held)
    for target in job.targets:
        work.end_target(held, target.id)
    assert work.finish(held, purge=False) == "error"
    retry(job)
    found = row(job)
    assert (found.stage, found.status, found.error) == (stage, status, None)
    assert {target.error for target in found.targets} == {None}


def test_the_engine_that_had_it_writes_nothing_more() -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    work.give_up(held)
    work.finish(held, purge=False)
    seen = work.Candidate(job.id, None, held.generation)
    retry(job)
    before = rows.everything()
    writes: tuple[Callable[[work.Claim], object], ...] = (work.release, work.check)
    for write in writes:
        with pytest.raises(exceptions.ClaimLost):
            write(held)
    assert rows.everything() == before
    assert work.claim(seen, held.owner, rows.LOCKS) is not None


def no_retry(job: models.Job, code: str, *words: str) -> None:
    before = rows.everything()
    calls: tuple[Callable[[], None], ...] = (lambda: jobs.check_retry(row(job)), lambda: retry(job))
    for call in calls:
        with pytest.raises(exceptions.Conflict) as caught:
            call()
        assert caught.value.code == code
        for word in (f"status {row(job).status}", *words):
            assert word in caught.value.detail
    after = rows.everything()
    assert len(after.pop("pending_trusts")) == 1        # of a trust that is to be taken back
    before.pop("pending_trusts")
    assert after == before


def test_what_runs_is_not_retried() -> None:
    job = rows.make_job(stage="uploading")
    no_retry(job, "job.not_ended")


def test_what_an_engine_has_is_not_retried() -> None:
    job = rows.make_job()
    rows.take(job.id)
    no_retry(job, "job.not_ended")


def test_what_is_done_is_not_retried() -> None:
    no_retry(ended("success"), "job.nothing_failed")


def test_what_was_cancelled_is_not_retried() -> None:
    no_retry(ended("cancelled"), "job.was_cancelled")


def test_what_is_kept_no_more_is_not_retried() -> None:
    no_retry(ended("partial", purge=True), "job.not_kept")


@pytest.mark.parametrize("error", [REFUSED, uploads.EXPIRED])
def test_bad_data_is_not_retried(error: dict[str, Any]) -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    work.update_stage(held, step="inspect", error=error)
    work.end_stage(held)
    work.finish(held, purge=True)
    no_retry(job, "job.no_data", error["code"])


def test_an_old_trust_that_is_still_there_is_not_forgotten() -> None:
    job = rows.make_job()
    held = rows.take(job.id)
    work.give_up(held)
    work.finish(held, purge=False)      # Keystone was away
    assert work.ended_with_trust() == [(job.id, "trust-1")]
    retry(job)
    assert work.ended_with_trust() == []
    [(row_id, trust_id)] = pending.condemned()
    assert trust_id == "trust-1"
    pending.forget(row_id)
    assert pending.condemned() == []


# Retry, at the same moment as others


@pytest.mark.parametrize("_round", ROUNDS)
def test_of_many_who_retry_one_wins(_round: int) -> None:
    job = ended("error")
    results = at_once(6, lambda number: retry(job, trust_id=f"trust-{number + 2}"))
    assert results.count(None) == 1
    assert {each.code for each in results if each is not None} == {"job.not_ended"}
    won = results.index(None)
    assert row(job).trust_id == f"trust-{won + 2}"
    assert announced() == 5     # those of the others are still to be taken back


@pytest.mark.parametrize("_round", ROUNDS)
def test_retry_and_purge(_round: int) -> None:
    """Whoever comes first: no bytes are removed of a Job that runs."""
    job = ended("error")
    later = models.now() + 1
    assert work.past_retention(rows.AREA, later) == [job.id]
    calls: list[Callable[[], Any]] = [lambda: retry(job), lambda: work.forget_spec(job.id, later)]
    user, house = at_once(2, lambda number: calls[number]())
    if user is None:
        assert (house, row(job).status) == (False, "queued")
        assert row(job).spec and row(job).upload
    else:
        assert (house, user.code) == (True, "job.not_kept")
        assert work.past_retention(rows.AREA, later) == [job.id]        # its bytes are still there
        work.purge(job.id)
        assert work.past_retention(rows.AREA, later) == []


@pytest.mark.parametrize("_round", ROUNDS)
def test_retry_and_cancel(_round: int) -> None:
    job = ended("error")
    assert both(lambda: retry(job), lambda: jobs.cancel(job.id)) in ([None, None], [None, "job.has_ended"])


@pytest.mark.parametrize("_round", ROUNDS)
def test_retry_and_the_deletion_of_an_old_trust(_round: int) -> None:
    """Housekeeping deletes the old one, and never what is said of the new one."""
    job = rows.make_job()
    held = rows.take(job.id)
    work.give_up(held)
    work.finish(held, purge=False)
    assert both(lambda: retry(job), lambda: work.trust_deleted(job.id, "trust-1")) == [None, None]
    assert row(job).trust_id == "trust-2"
