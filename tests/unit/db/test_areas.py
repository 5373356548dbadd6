# SPDX-License-Identifier: Apache-2.0
"""Jobs whose staging area is gone are given to another one."""

import pytest

from ciming import exceptions
from ciming.db import api, areas, models, session, uploads, work
from tests.unit import rows

pytestmark = pytest.mark.usefixtures("database")
NEW = "area-2"


def endless(_held: int, _coming: int) -> int:
    return 10**9


def lease(
    job: models.Job, marker: str, offset: int | None, room: uploads.Room = endless
) -> uploads.Lease:
    later = models.now() + 10**6
    return uploads.begin(str(job.image_id), "api", rows.SIZE, later, room, marker=marker, offset=offset)


def test_who_is_named() -> None:
    rows.make_job()
    ended = rows.take(rows.make_job().id)
    work.finish(ended, purge=False)
    gone = rows.take(rows.make_job(marker=NEW).id)
    work.finish(gone, purge=True)
    assert areas.named() == [(rows.AREA, 1, 1)]
    assert areas.take_over(rows.AREA, NEW) == 1
    assert areas.named() == [(NEW, 1, 1)]
    assert areas.take_over(rows.AREA, NEW) == 0


def test_who_had_it_has_lost_it() -> None:
    held = rows.take(rows.make_job().id)
    areas.take_over(rows.AREA, NEW)
    with pytest.raises(exceptions.ClaimLost):
        work.check(held)
    job = api.get_job(held.job_id, None)
    assert (job.owner, job.lock_marker, job.marker) == (None, None, NEW)
    assert [each.job_id for each in work.candidates(NEW, "locks-2")] == [held.job_id]


def test_what_was_restored_is_not_to_come_any_more() -> None:
    """Or it would take room twice from all others."""
    held = rows.take(rows.make_job(size=100).id)
    work.reserve(held, 30, 0)
    areas.take_over(rows.AREA, NEW)
    comes: list[int] = []

    def room(_held: int, coming: int) -> int:
        comes.append(coming)
        return 0

    def ask() -> None:
        with pytest.raises(exceptions.StagingFull):
            lease(rows.make_job(stage="uploading", size=None, marker=NEW), NEW, 0, room)

    ask()
    held = rows.take(held.job_id)
    work.staged(held, disk_format="raw", virtual_size=100, digests={"sha512": "1"})
    work.reserve(held, 0, 0)
    ask()
    assert comes == [130, 0]


def test_what_had_not_come_whole_begins_again() -> None:
    job = rows.make_job(stage="uploading")
    former = lease(job, rows.AREA, 0)
    with session.writer() as writing:
        writing.get_one(models.Upload, job.id).offset = 7
    areas.take_over(rows.AREA, NEW)
    with pytest.raises(exceptions.CimingError):
        uploads.commit(former, 8, 8, models.now(), lambda held, coming: 10**9)
    with pytest.raises(exceptions.Conflict):
        lease(job, NEW, 7)
    assert lease(job, NEW, 0).start == 0
