# SPDX-License-Identifier: Apache-2.0
"""What users do to Jobs: cancel, retry and resume them, give their uploads up.

An engine, a sender and other users write the same rows at the same time, and nobody asks for their leave:
what is written here is conditional on the state that it needs.
"""

import contextlib
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions, points
from ciming.db import api, clouds, images, models, pending, status, uploads, zone_syncs
from ciming.db import session as db

Settle = Callable[[orm.Session], object]
Give = Callable[[models.Job], object]


@points.mutation
@db.again
def cancel(job_id: str) -> None:
    """Want a Job to end: an engine then undoes what is not finished. To say it again changes nothing.

    Where its data is still to come, no more is taken, also of one who is sending at this moment.

    :raises Conflict: it has ended
    :raises NotFound: it has, and was deleted meanwhile
    """
    with db.writer() as session:
        _stop(session, job_id)


@points.mutation
@db.again
def terminate(image_id: str) -> str:
    """Give an upload up for good, and so cancel its Job; the Job's id.

    :raises Locked: somebody is sending
    :raises Conflict: it is whole
    :raises Gone: it has ended before
    """
    upload = models.Upload
    with db.writer() as session:
        job, row = uploads.find(session, image_id)
        uploads.check_open(image_id, job, row)
        assert job is not None
        if not _stop(session, job.id, sa.or_(upload.owner.is_(None), upload.leased_until <= models.now())):
            raise uploads.held(image_id, resuming=True)
        return job.id


def _stop(session: orm.Session, job_id: str, *conditions: sa.ColumnElement[bool]) -> bool:
    """Cancel a Job; was there an upload to be closed?

    :param conditions: under which the upload may be closed
    """
    upload, job = models.Upload, models.Job
    close = sa.update(upload).where(upload.job_id == job_id, upload.complete.is_(False), *conditions)
    # The upload first, as those who send have it. Whoever sends is fenced by `complete`.
    closed = db.changed_one(session.execute(close.values(complete=True, owner=None, leased_until=0)))
    ends = {"stage": "failed", "error": uploads.TERMINATED} if closed else {}
    want = sa.update(job).where(job.id == job_id, job.finished_at.is_(None))
    wanted = db.changed_one(session.execute(want.values(wanted="cancel", **ends)))
    session.expire_all()        # what was read before is old
    if not wanted:
        raise exceptions.Conflict(
            f"Job {job_id} has ended: {api.get_job(job_id, None).status}. There is nothing to cancel.",
            code="job.has_ended",
        )
    row = session.get_one(job, job_id)
    api.refresh(session, row)
    if row.kind == "zone-sync":
        for child_id in zone_syncs.open_children(session, job_id):
            with contextlib.suppress(exceptions.Conflict):      # it has just ended
                _stop(session, child_id)
    return closed


def check_retry(job: models.Job) -> None:
    """:raises Conflict: the Job can not be retried"""
    _check_whole(job)
    if job.finished_at is None or job.spec is None:
        raise _no_retry(job)


def check_resume(job: models.Job) -> None:
    """:raises Conflict: the Job does not wait for credentials"""
    _check_whole(job)
    if job.waiting_since is None or job.finished_at is not None or job.wanted != "run":
        raise exceptions.Conflict(
            f"Job {job.id} is in status {job.status}. Only one that waits for credentials can be resumed.",
            code="job.not_waiting",
        )


def _check_whole(job: models.Job) -> None:
    """:raises Conflict: it is a part of another Job, that goes on with it"""
    if job.parent_id:
        raise exceptions.Conflict(
            f"Job {job.id} is a part of Job {job.parent_id}: resume that one, or sync the zones again.",
            code="job.is_part",
        )


def places(job: models.Job) -> list[str]:
    """Ids of the Clouds in which a Job has still to work, or from which its bytes are to come."""
    found = [target.cloud_key for target in job.targets if target.status != "success"]
    if job.stage != "staged":
        spec = job.spec or {}
        found += [spec[name]["cloud_key"] for name in ("source", "found") if name in spec]
    return list(dict.fromkeys(found))


@points.mutation
@db.again
def retry(job_id: str, user_id: str, request_id: str, settle: Settle, give: Give) -> None:
    """Have the Targets that failed tried again, with the bytes that were kept.

    The Job is as new, but for the Targets that succeeded: `started_at` and `finished_at` are of its last run.

    :param settle: what is to be done in the same transaction
    :param give: writes into the Job what it works with from now on
    :raises Conflict: it can not be retried, another retry was faster, another Job works on its Image, or a
        Cloud is gone
    :raises NotFound: it was deleted meanwhile
    """
    job = models.Job
    with db.writer() as session:
        settle(session)
        open_again = sa.update(job).where(
            job.id == job_id, job.finished_at.is_not(None), job.spec.is_not(None)
        )
        won = db.changed_one(session.execute(open_again.values(finished_at=None, owner=None)))
        if not won:
            raise _no_retry(api.get_job(job_id, None))
        row = session.get_one(job, job_id)
        images.alone_with(session, row.image_id, job_id)
        images.check_links(session, row)
        clouds.hold(session, row)
        row.wanted, row.started_at = "run", None
        row.begun = [*(row.begun or []), [models.now(), places(row)]]
        _hand_to(session, row, user_id, request_id, give)
        if row.stage != "staged":       # for a passing reason: else the spec were gone
            row.stage = "uploading" if row.upload and not row.upload.complete else "staging"
        for target in row.targets:
            if target.status != "success":
                _reset(target)
        api.refresh(session, row)


@points.mutation
@db.again
def resume(job_id: str, user_id: str, request_id: str, settle: Settle, give: Give) -> None:
    """Have a Job go on that waits for credentials, from where it was.

    :param settle: as for `retry`, and so is `give`
    :raises Conflict: it does not wait any more, or a Cloud is gone
    :raises NotFound: it was deleted meanwhile
    """
    job = models.Job
    with db.writer() as session:
        settle(session)
        waiting = (job.id == job_id, job.waiting_since.is_not(None), job.owner.is_(None))
        go_on = sa.update(job).where(*waiting, job.finished_at.is_(None), job.wanted == "run")
        if not db.changed_one(session.execute(go_on.values(waiting_since=None))):
            found = api.get_job(job_id, None)
            check_resume(found)
            raise exceptions.Conflict(
                f"Job {job_id} comes to its end at this moment.", code="job.not_waiting"
            )
        row = session.get_one(job, job_id)
        clouds.hold(session, row)
        _hand_to(session, row, user_id, request_id, give)
        for part in [row, *_waiting_parts(session, job_id)]:
            if part is not row:
                _hand_to(session, part, user_id, request_id, give)
            for target in part.targets:
                if target.status not in status.TARGET_ENDS:
                    target.error = None
            api.refresh(session, part)


def _waiting_parts(session: orm.Session, job_id: str) -> Sequence[models.Job]:
    job = models.Job
    query = sa.select(job).where(job.parent_id == job_id, job.finished_at.is_(None))
    return session.scalars(query.where(job.waiting_since.is_not(None))).all()


def _hand_to(session: orm.Session, row: models.Job, user_id: str, request_id: str, give: Give) -> None:
    """The Job is somebody else's from now on."""
    if not row.parent_id:
        pending.condemn(session, row)
    row.user_id, row.request_id, row.error, row.waiting_since = user_id, request_id, None, None
    give(row)


def _reset(target: models.Target) -> None:
    target.status, target.step = "waiting", None
    target.attempts, target.bytes_done = 0, 0
    target.checkpoint, target.image_ref, target.error, target.remarks = None, None, None, None


def _no_retry(job: models.Job) -> exceptions.Conflict:
    """Why a Job can not be retried."""
    code = str((job.error or {}).get("code"))
    if job.finished_at is None:
        why, name = "Only one that has ended in error or partial can be retried", "job.not_ended"
    elif job.kind == "zone-sync":
        why, name = "Sync the zones again: what is in line is left as it is", "job.not_kept"
    elif job.status == "success":
        why, name = "There is nothing to retry", "job.nothing_failed"
    elif job.wanted == "cancel":
        why, name = "What was cancelled is not kept: create the image again", "job.was_cancelled"
    elif code.startswith(uploads.OF_NO_USE):
        why, name = f"There is no data that it could use ({code}): create the image again", "job.no_data"
    else:
        why, name = "Its data is kept no more: create the image again", "job.not_kept"
    return exceptions.Conflict(f"Job {job.id} is in status {job.status}. {why}.", code=name)
