# SPDX-License-Identifier: Apache-2.0
"""How many Jobs there are, and how long they wait, on real databases."""

import pytest
import sqlalchemy as sa

from ciming.db import figures, jobs, models, session, status, work
from tests.unit import rows

pytestmark = pytest.mark.usefixtures("database")


def since(job_id: str, seconds: float) -> None:
    """The row was last written so long ago."""
    at = models.now() - int(seconds * 1000)
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).where(models.Job.id == job_id).values(updated_at=at))


def test_nothing() -> None:
    assert figures.read() == figures.Figures(dict.fromkeys(status.JOB_STATUSES, 0), 0)


def test_jobs_by_status() -> None:
    for stage in ("uploading", "uploading", "staging"):
        rows.make_job(stage=stage)
    running, ended = rows.take(rows.make_job().id), rows.take(rows.make_job().id)
    work.end_stage(ended)
    for target in work.load(ended).targets:
        work.end_target(ended, target.id)
    work.finish(ended, purge=True)
    jobs = figures.read().jobs
    assert {name: count for name, count in jobs.items() if count} == {
        "uploading": 2,
        "queued": 1,
        "running": 1,
        "error": 1,
    }
    work.release(running)
    assert figures.read().jobs["running"] == 1


def test_who_waits_for_their_user_does_not_wait_for_an_engine() -> None:
    job = rows.make_job()
    work.wait(rows.take(job.id))
    since(job.id, 5000)
    assert figures.read().queue_age == 0
    jobs.cancel(job.id)
    since(job.id, 5000)
    assert figures.read().queue_age >= 5000


def test_queue_age_is_of_the_oldest_that_no_engine_has() -> None:
    waits, younger, has_engine, has_no_bytes = (
        rows.make_job(stage=stage) for stage in ("staging", "staging", "staging", "uploading")
    )
    claim = rows.take(has_engine.id)
    for job, seconds in ((waits, 50), (younger, 10), (has_engine, 500), (has_no_bytes, 5000)):
        since(job.id, seconds)
    assert 50 <= figures.read().queue_age < 100
    work.release(claim)     # a stop of the engine: waits from now on
    assert 50 <= figures.read().queue_age < 100
    rows.take(waits.id)
    assert 10 <= figures.read().queue_age < 50
