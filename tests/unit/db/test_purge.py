# SPDX-License-Identifier: Apache-2.0
"""Rows that go and rows that stay, on real databases."""

import os
import threading
import uuid
from collections import Counter
from concurrent import futures
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_config import cfg
from taskflow.persistence import models as tf_models

from ciming import exceptions, staging
from ciming.db import api, jobs, models, pending, purge, session, work
from ciming.engine import persistence, service
from tests.unit import rows

pytestmark = pytest.mark.usefixtures("database")

DAY = 24 * 3600 * 1000
NOTHING = dict.fromkeys(purge.TABLES, 0)


def update(model: type[models.Base], row_id: str, **values: Any) -> None:
    with session.writer() as writing:
        writing.execute(sa.update(model).where(model.id == row_id).values(**values))  # type: ignore[attr-defined]


def ended(days: float, *, status: str = "error", kept: bool = False, **values: Any) -> models.Job:
    """A Job that ended so long ago, and its Image: linked, or in no Cloud."""
    job = rows.make_job(**values)
    claim = rows.take(job.id)
    if status == "success":
        for target in job.targets:
            work.add_link(claim, target.id, "ref", "bytes")
    else:
        work.end_stage(claim)
        for target in job.targets:
            work.end_target(claim, target.id)
    work.finish(claim, purge=not kept)
    work.trust_deleted(job.id, "trust-1")
    then = models.now() - int(days * DAY)
    update(models.Job, job.id, finished_at=then, updated_at=then)
    update(models.Image, job.image_id, updated_at=then)
    return api.get_job(job.id, None)


def there(model: type[models.Base], row_id: str) -> bool:
    with session.reader() as reading:
        return reading.get(model, row_id) is not None


def before(days: float) -> int:
    return models.now() - int(days * DAY)


def test_nothing_there() -> None:
    assert purge.purge(models.now()) == NOTHING


def test_what_is_old_goes_with_all_that_belongs_to_it() -> None:
    old, young = ended(31), ended(29)
    for job in (old, young):
        claim = work.Claim(job.id, "nobody", 0)
        book = tf_models.LogBook("job", uuid=job.id)
        flow = tf_models.FlowDetail("stage", uuid=models.new_id())
        flow.add(tf_models.TaskDetail("task", uuid=models.new_id()))
        book.add(flow)
        update(models.Job, job.id, owner=claim.owner, generation=claim.generation)
        persistence.FencedBackend(claim).get_connection().save_logbook(book)
        then = job.updated_at
        update(models.Job, job.id, owner=None, updated_at=then)
    assert purge.purge(before(30)) == {"jobs": 1, "targets": 2, "logbooks": 1, "images": 1}
    assert not there(models.Job, old.id) and not there(models.Image, old.image_id)
    left = rows.everything()
    assert [len(left[table]) for table in ("jobs", "images", "targets")] == [1, 1, 2]
    assert [len(left[table]) for table in ("logbooks", "flowdetails", "atomdetails")] == [1, 1, 1]
    assert old.id not in repr(left)
    assert purge.purge(before(30)) == NOTHING


def test_what_is_of_use_stays() -> None:
    kept, linked = ended(99, kept=True), ended(99, status="success")
    with_trust, with_bytes, parent = ended(99), ended(99), ended(99)
    update(models.Job, with_trust.id, trust_id="trust-2")
    with session.writer() as writing:
        writing.add(models.Upload(job_id=with_bytes.id, expires_at=0))
    running, uploading = rows.make_job(), rows.make_job(stage="uploading")
    rows.take(running.id)
    child = rows.make_job(parent_id=parent.id)
    for job in (running, uploading, child):
        update(models.Image, job.image_id, updated_at=1)
    assert purge.purge(models.now()) == {**NOTHING, "jobs": 1, "targets": 2}
    assert not there(models.Job, linked.id)
    image = api.get_image(linked.image_id, None)
    assert (image.status, len(image.links)) == ("active", 2)
    for job in (kept, with_trust, with_bytes, parent, running, uploading, child):
        assert there(models.Job, job.id) and there(models.Image, job.image_id)


def test_what_a_user_wants_of_a_job_that_goes_meanwhile() -> None:
    """They had seen it, and Keystone took its time."""
    job = ended(99)
    assert purge.purge(before(30))["jobs"] == 1
    pending_id = pending.announce(pending.Likeness("alice", "studio", 1_700_000_000_000))
    with pytest.raises(exceptions.NotFound):
        rows.go_on(jobs.retry, job.id, pending_id, "alice")
    with pytest.raises(exceptions.NotFound):
        jobs.cancel(job.id)
    assert len(rows.everything()["pending_trusts"]) == 1        # by which the trust is deleted


def test_children_go_before_their_parent() -> None:
    parent = ended(99)
    child = ended(50, parent_id=parent.id)
    grandchild = ended(40, parent_id=child.id)
    assert purge.purge(before(45))["jobs"] == 0
    assert purge.purge(before(30))["jobs"] == 3
    assert not any(there(models.Job, job.id) for job in (parent, child, grandchild))


@pytest.mark.parametrize(("most", "counts"), [(1, [1, 1, 1, 0]), (2, [2, 1, 0]), (3, [3, 0]), (None, [3, 0])])
def test_at_most(most: int | None, counts: list[int]) -> None:
    """The oldest first."""
    oldest = [ended(days) for days in (90, 80, 70)]
    for count in counts:
        gone = purge.purge(before(30), most)
        assert gone["jobs"] == gone["images"] == count
        oldest = oldest[count:]
        assert all(there(models.Job, job.id) for job in oldest)


def test_in_several_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "AT_A_TIME", 2)
    for _ in range(5):
        ended(31)
    assert purge.purge(before(30)) == {**NOTHING, "jobs": 5, "targets": 10, "images": 5}


def test_two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is counted by one of them."""
    monkeypatch.setattr(purge, "AT_A_TIME", 3)
    for _ in range(10):
        ended(31)
    with futures.ThreadPoolExecutor() as pool:
        gone = [each.result() for each in [pool.submit(purge.purge, before(30)) for _ in range(2)]]
    assert gone[0]["jobs"] + gone[1]["jobs"] == 10
    assert gone[0]["targets"] + gone[1]["targets"] == 20
    assert not rows.everything()["jobs"] and not rows.everything()["images"]


def test_what_another_purge_takes_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds all of a batch gone looks for the next."""
    if session.engine().dialect.name == "sqlite":
        return      # where nobody else writes between the two
    monkeypatch.setattr(purge, "AT_A_TIME", 2)
    for _ in range(5):
        ended(31)
    delete = purge._delete
    others: list[futures.Future[Counter[str]]] = []

    def late(*arguments: Any) -> None:
        if not others:
            others.append(pool.submit(purge.purge, before(30), 2))
            others[0].result()
        delete(*arguments)

    with futures.ThreadPoolExecutor() as pool:
        monkeypatch.setattr(purge, "_delete", late)
        gone = purge.purge(before(30))
    assert (others[0].result()["jobs"], gone["jobs"]) == (2, 3)
    assert not rows.everything()["jobs"]


class Busy(staging.StagingArea):
    """Whoever removes bytes here sees that somebody else purges all meanwhile."""

    def remove(self, job_id: str) -> None:
        super().remove(job_id)
        for each in work.past_retention(self.marker, models.now()):
            work.forget_spec(each, models.now())
            work.purge(each)
        purge.purge(models.now())


def test_housekeeping_of_two_at_once(conf: cfg.ConfigOpts) -> None:
    """The rows are gone when the first looks at them again: that is as well."""
    conf.set_override("retention", 0, group="staging")
    area = Busy(conf.staging.path, quota=0, keep_free=0)
    for _ in range(2):
        ended(1, kept=True, marker=area.marker)
    assert service.keep_house(area, threading.Event())
    assert not rows.everything()["jobs"]


def test_what_no_job_needs_goes(conf: cfg.ConfigOpts) -> None:
    """Once it is old; what a Job needs, who may still be retried, stays as old as it may be."""
    area = staging.StagingArea(conf.staging.path, quota=0, keep_free=0)
    running, kept = rows.make_job(marker=area.marker), ended(0, kept=True, marker=area.marker)
    over, stranger, fresh = ended(0), str(uuid.uuid4()), str(uuid.uuid4())
    for job_id in (running.id, kept.id, over.id, stranger, fresh):
        with area.incoming(job_id, 1) as file:
            file.write(b"late")
        if job_id != fresh:
            for path in (area.upload_path(job_id, 1), area.folder(job_id)):
                os.utime(path, (1, 1))
    (area.path / "lost+found").mkdir()
    os.utime(area.path / "lost+found", (1, 1))
    nobodys = staging.StagingArea(f"{conf.staging.path}-of-another", quota=0, keep_free=0)
    with nobodys.incoming(stranger, 1) as file:
        file.write(b"late")
    for path in (nobodys.upload_path(stranger, 1), nobodys.folder(stranger)):
        os.utime(path, (1, 1))
    assert service.keep_house(nobodys, threading.Event())
    assert nobodys.folder(stranger).exists()    # no Job here knows the area
    stays = {".marker", "lost+found", running.id, kept.id, fresh}
    assert service.keep_house(area, threading.Event())
    assert {path.name for path in area.path.iterdir()} == stays


def test_beside_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose Jobs go on as ever."""
    monkeypatch.setattr(purge, "AT_A_TIME", 3)
    for _ in range(20):
        ended(31)
    running = rows.make_job()
    claim = rows.take(running.id)
    over = threading.Event()

    def work_on() -> int:
        writes = 0
        while not over.is_set():
            work.progress(claim, running.targets[0].id, writes)
            writes += 1
        return writes

    with futures.ThreadPoolExecutor() as pool:
        engine = pool.submit(work_on)
        try:
            assert purge.purge(before(30))["jobs"] == 20
        finally:
            over.set()
        writes = engine.result()
    assert writes > 0
    assert api.get_job(running.id, None).targets[0].bytes_done == writes - 1
    work.finish(claim, purge=True)


def test_a_job_that_comes_at_that_moment() -> None:
    """Its Image stays; the others go."""
    lucky, other = ended(31), ended(31)
    with session.writer() as writing:       # the Jobs are gone, and the Images are next
        writing.execute(sa.delete(models.Target))
        writing.execute(sa.delete(models.Job))
    with futures.ThreadPoolExecutor() as pool:
        with session.writer() as writing:
            values = {"kind": "sync", "status": "queued", "stage": "staged", "marker": rows.AREA}
            whose = {"project_id": "studio", "user_id": "alice", "image_id": lucky.image_id}
            writing.add(models.Job(**values, **whose))
            writing.flush()
            purging = pool.submit(purge.purge, before(30))
            futures.wait([purging], 1)      # it comes to the Image, and waits or not, as the database has it
        assert purging.result() == {**NOTHING, "images": 1}
    assert there(models.Image, lucky.image_id) and not there(models.Image, other.image_id)
