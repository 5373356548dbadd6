# SPDX-License-Identifier: Apache-2.0
"""Images and Jobs as callers see them: create, find, list.

`project_id` scopes every look-up; None (an administrator) sees all. What is out of scope is NotFound.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions
from ciming.db import models, status
from ciming.db import session as db

Row = TypeVar("Row", models.Image, models.Job)


def create(
    image: models.Image,
    job: models.Job,
    upload: models.Upload,
    check: Callable[[orm.Session], object],
) -> None:
    """Write a new Image, and the Job (with its Targets and Upload) that will bring it to its Clouds.

    :param check: raises, in the same transaction, if the Upload has no room
    """
    with db.writer() as session:
        image.status, job.status = "uploading", "uploading"
        job.image_id = image.id
        for row in (image, job, upload):        # in the order of their foreign keys
            session.add(row)
            session.flush()
        check(session)
        refresh(session, job)


def refresh(session: orm.Session, job: models.Job) -> None:
    """Derive the statuses of a Job and its Image again, after anything they depend on changed."""
    session.flush()
    job.status = status.job_status(
        wanted=job.wanted,
        stage=job.stage,
        started=job.started_at is not None,
        finished=job.finished_at is not None,
        targets=[target.status for target in job.targets],
    )
    session.flush()
    image = session.get_one(models.Image, job.image_id)
    of_image = sa.select(models.Job.id).where(models.Job.image_id == image.id)
    image.status = status.image_status(
        jobs=session.scalars(sa.select(models.Job.status).where(models.Job.image_id == image.id)).all(),
        wanted=session.scalars(
            sa.select(models.Target.cloud_key).where(models.Target.job_id.in_(of_image))
        ).all(),
        linked=session.scalars(
            sa.select(models.Link.cloud_key).where(models.Link.image_id == image.id)
        ).all(),
    )


def get_image(image_id: str, project_id: str | None) -> models.Image:
    return _get(models.Image, "image", image_id, project_id)


def get_job(job_id: str, project_id: str | None) -> models.Job:
    return _get(models.Job, "job", job_id, project_id)


def _get(model: type[Row], noun: str, row_id: str, project_id: str | None) -> Row:
    with db.reader() as session:
        row = session.get(model, row_id)
    if row is None or project_id not in (None, row.project_id):
        raise exceptions.NotFound(f"No {noun} {row_id}.", code=f"{noun}.not_found")
    return row


def list_images(
    project_id: str | None, filters: Mapping[str, Any], marker: str | None, limit: int
) -> Sequence[models.Image]:
    """Newest first. `filters` are column values that must be equal."""
    return _list(models.Image, project_id, filters, marker, limit)


def list_jobs(
    project_id: str | None, filters: Mapping[str, Any], marker: str | None, limit: int
) -> Sequence[models.Job]:
    """Newest first. `filters` are column values that must be equal."""
    return _list(models.Job, project_id, filters, marker, limit)


def _list(
    model: type[Row],
    project_id: str | None,
    filters: Mapping[str, Any],
    marker: str | None,
    limit: int,
) -> Sequence[Row]:
    query = sa.select(model).order_by(model.created_at.desc(), model.id.desc()).limit(limit)
    if project_id is not None:
        query = query.where(model.project_id == project_id)
    for name, value in filters.items():
        query = query.where(getattr(model, name) == value)
    with db.reader() as session:
        if marker is not None:
            last = session.get(model, marker)
            if last is None or project_id not in (None, last.project_id):
                raise exceptions.InvalidRequest(f"The marker {marker} was not found.", field="marker")
            query = query.where(
                sa.tuple_(model.created_at, model.id) < sa.tuple_(last.created_at, last.id)
            )
        return session.scalars(query).all()
