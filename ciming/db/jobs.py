# SPDX-License-Identifier: Apache-2.0
"""What users do to Jobs: cancel and retry them, give their uploads up.

An engine, a sender and other users write the same rows at the same time, and nobody asks for their leave:
what is written here is conditional on the state that it needs.
"""

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions, points
from ciming.db import api, clouds, images, models, pending, uploads
from ciming.db import session as db


@points.mutation
def cancel(job_id: str) -> None:
    """Want a Job to end: an engine then undoes what is not finished. To say it again changes nothing.

    Where its data is still to come, no more is taken, also of one who is sending at this moment.

    :raises Conflict: it has ended
    :raises NotFound: it has, and was deleted meanwhile
    """
    with db.writer() as session:
        _stop(session, job_id)


@points.mutation
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
    api.refresh(session, session.get_one(job, job_id))
    return closed


def check_retry(job_id: str) -> None:
    """:raises Conflict: the Job can not be retried"""
    job = api.get_job(job_id, None)
    if job.finished_at is None or job.spec is None:
        raise _no_retry(job)


@points.mutation
def retry(job_id: str, *, user_id: str, request_id: str, trust_id: str, pending_id: str) -> None:
    """Have the Targets that failed tried again, with the bytes that were kept.

    The Job is as new, but for the Targets that succeeded: `started_at` and `finished_at` are of its last run.

    :param trust_id: from whoever retries it, under which it works from now on
    :param pending_id: of the row that announced this trust
    :raises Conflict: it can not be retried, another retry was faster, another Job works on its Image, or a
        Cloud is gone
    :raises NotFound: it was deleted meanwhile
    """
    job = models.Job
    with db.writer() as session:
        pending.settle(session, pending_id)
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
        pending.condemn(session, row)
        row.wanted, row.error, row.started_at = "run", None, None
        row.user_id, row.request_id, row.trust_id = user_id, request_id, trust_id
        if row.stage != "staged":       # for a passing reason: else the spec were gone
            row.stage = "uploading" if row.upload and not row.upload.complete else "staging"
        for target in row.targets:
            if target.status != "success":
                _reset(target)
        api.refresh(session, row)


def _reset(target: models.Target) -> None:
    target.status, target.step = "waiting", None
    target.attempts, target.bytes_done = 0, 0
    target.checkpoint, target.image_ref, target.error = None, None, None


def _no_retry(job: models.Job) -> exceptions.Conflict:
    """Why a Job can not be retried."""
    code = str((job.error or {}).get("code"))
    if job.finished_at is None:
        why, name = "Only one that has ended in error or partial can be retried", "job.not_ended"
    elif job.status == "success":
        why, name = "There is nothing to retry", "job.nothing_failed"
    elif job.wanted == "cancel":
        why, name = "What was cancelled is not kept: create the image again", "job.was_cancelled"
    elif code.startswith(uploads.OF_NO_USE):
        why, name = f"There is no data that it could use ({code}): create the image again", "job.no_data"
    else:
        why, name = "Its data is kept no more: create the image again", "job.not_kept"
    return exceptions.Conflict(f"Job {job.id} is in status {job.status}. {why}.", code=name)
