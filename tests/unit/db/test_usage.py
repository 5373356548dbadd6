# SPDX-License-Identifier: Apache-2.0
"""What counts against a project's limits."""

import pytest

from ciming.db import jobs, models, pending, session, uploads, usage, work
from tests.unit import rows
from tests.unit.db.test_clouds import into, register
from tests.unit.db.test_jobs import LIKENESS

pytestmark = pytest.mark.usefixtures("database")


def begin(job: models.Job) -> uploads.Lease:
    until = models.now() + 60_000
    return uploads.begin(job.image_id, "api", None, until, lambda *_: 1 << 40, marker=rows.AREA, offset=0)


def test_an_upload_counts_as_a_whole_once_it_has_begun() -> None:
    """Or many that bring a byte each would all find the room that there is for one of them."""
    waiting = rows.make_job(stage="uploading")
    assert usage.staged("studio") == 0
    lease = begin(waiting)
    assert usage.staged("studio") == rows.SIZE
    uploads.release(lease, 1)
    assert usage.staged("studio") == rows.SIZE
    given_up = rows.make_job(stage="uploading")
    uploads.release(begin(given_up), 0)
    assert usage.staged("studio") == rows.SIZE
    rows.make_job()
    assert usage.staged("studio") == 2 * rows.SIZE
    assert usage.staged("garage") == 0


def test_what_is_deleted_does_not_count() -> None:
    """Its row is kept until it is purged."""
    kept, gone = rows.make_job(), rows.make_job()
    assert usage.images("studio") == 2
    with session.writer() as writing:
        writing.get_one(models.Image, gone.image_id).deleted_at = models.now()
    assert usage.images("studio") == 1
    assert kept.image_id != gone.image_id


def test_a_job_that_reads_in_a_cloud_begins_there() -> None:
    """Where it comes from is known when a create is made, and of a sync when its source is found."""
    shared, since = register("shared", visibility="public"), models.now()
    made = [rows.make_job(begun=[[since, [shared.id]]]), rows.make_job()]
    with session.writer() as writing:
        writing.get_one(models.Job, made[1].id).kind = "sync"
    assert len(usage.busiest("studio", [shared.id], 1, since)) == 1
    assert usage.busiest("studio", [shared.id], 2, since) == []
    source = {"cloud_key": shared.id, "size": 5, "tags": [], "digests": {}}
    for _ in range(2):      # by the next engine once more
        work.found(rows.take(made[1].id), source, lambda _held, _coming: 10)
    assert len(usage.busiest("studio", [shared.id], 2, since)) == 1
    assert usage.busiest("studio", [shared.id], 3, since) == []
    assert usage.busiest("garage", [shared.id], 1, since) == []


def test_a_job_that_is_retried_begins_again() -> None:
    shared, done = (register(name, visibility="public") for name in ("shared", "done"))
    job, since = into(shared), models.now()
    with session.writer() as writing:
        row = writing.get_one(models.Job, job.id)
        row.created_at = since - 1
        row.targets.append(models.Target(cloud_key=done.id, cloud="done", provider="openstack"))
    held = rows.take(job.id)
    [target] = [each for each in work.load(held).targets if each.cloud == "done"]
    work.add_link(held, target.id, "ref", "bytes")
    assert usage.busiest("studio", [shared.id], 1, since) == []
    for count in (1, 2):
        held = rows.take(job.id)
        work.give_up(held)
        work.finish(held, purge=False)
        rows.go_on(jobs.retry, job.id, pending.announce(LIKENESS), "bob", f"trust-{count}")
        times = [usage.busiest("studio", [shared.id], nth, since) for nth in (1, count, count + 1)]
        (_, last), (_, first) = times[0][0], times[1][0]
        assert since <= first <= last and times[2] == []
    assert usage.busiest("studio", [shared.id], 1, last + 1) == []
    assert usage.busiest("garage", [shared.id], 1, 0) == usage.busiest("studio", [done.id], 1, since) == []
