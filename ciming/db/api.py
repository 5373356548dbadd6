# SPDX-License-Identifier: Apache-2.0
"""Images and Jobs as callers see them: create, find; lists.py lists them.

`project_id` scopes every look-up; None (an administrator) sees all. What is out of scope is NotFound.
"""

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions, points
from ciming.db import clouds, models, status
from ciming.db import session as db

Row = TypeVar("Row", models.Image, models.Job)


@points.mutation
def create(
    image: models.Image,
    job: models.Job,
    upload: models.Upload | None,
    *checks: Callable[[orm.Session], object],
) -> None:
    """Write a new Image, and the Job (with its Targets and Upload) that will bring it to its Clouds.

    :param upload: None: no bytes are to come
    :param checks: raise, in the same transaction, if that can not be
    """
    with db.writer() as session:
        clouds.hold(session, job)
        image.status, job.status = "pending", "queued"
        job.image_id = image.id
        for row in filter(None, (image, job, upload)):      # in the order of their foreign keys
            session.add(row)
            session.flush()
        for check in checks:
            check(session)
        refresh(session, job)


def refresh(session: orm.Session, job: models.Job) -> None:
    """Derive the statuses of a Job and its Image again, after anything they depend on changed."""
    session.flush()
    job.status = status.job_status(
        wanted=job.wanted,
        stage=job.stage,
        started=job.started_at is not None,
        waits=job.waiting_since is not None,
        finished=job.finished_at is not None,
        targets=status.sync_outcomes(job.report, job.error, job.wanted)
        if job.kind == "zone-sync"
        else [target.status for target in job.targets],
    )
    session.flush()
    if job.kind != "zone-sync":
        refresh_image(session, job.image_id)


def refresh_image(session: orm.Session, image_id: str) -> None:
    """Derive the status of an Image again."""
    session.flush()
    job, target = models.Job, models.Target
    brought = (
        sa.select(target.cloud_key, target.status)
        .join(job, job.id == target.job_id)
        .where(job.image_id == image_id, job.kind.in_(status.BRINGING))
        .order_by(job.created_at)
    )
    last = {row.cloud_key: row.status for row in session.execute(brought)}
    session.get_one(models.Image, image_id).status = status.image_status(
        # While it is only called otherwise, it can be used as before.
        jobs=session.scalars(
            sa.select(job.status).where(job.image_id == image_id, job.kind != "update")
        ).all(),
        missing=[cloud_key for cloud_key, end in last.items() if end != "success"],
        linked=session.scalars(
            sa.select(models.Link.cloud_key).where(models.Link.image_id == image_id)
        ).all(),
    )


def get_image(image_id: str, project_id: str | None, *, deleted: bool = False) -> models.Image:
    """:raises NotFound: there is none, or it is another project's, or was deleted"""
    return _get(models.Image, "image", image_id, project_id, deleted=deleted)


def get_job(job_id: str, project_id: str | None) -> models.Job:
    return _get(models.Job, "job", job_id, project_id)


def _get(
    model: type[Row], noun: str, row_id: str, project_id: str | None, *, deleted: bool = False
) -> Row:
    with db.reader() as session:
        row = session.get(model, row_id)
    gone = isinstance(row, models.Image) and row.deleted_at is not None and not deleted
    if row is None or gone or project_id not in (None, row.project_id):
        raise exceptions.NotFound(f"No {noun} {row_id}.", code=f"{noun}.not_found")
    return row
