# SPDX-License-Identifier: Apache-2.0
"""How much a project has, and how often it was somewhere lately."""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from ciming.db import models
from ciming.db import session as db


def images(project_id: str) -> int:
    """Images that it has."""
    image = models.Image
    return _count(
        sa.select(sa.func.count()).where(image.project_id == project_id, image.deleted_at.is_(None))
    )


def jobs(project_id: str) -> int:
    """Jobs that have not ended; what is a part of one counts with it."""
    job = models.Job
    mine = (job.project_id == project_id, job.finished_at.is_(None), job.parent_id.is_(None))
    return _count(sa.select(sa.func.count()).where(*mine))


def staged(project_id: str) -> int:
    """Bytes that its Jobs have, or were promised, in all staging areas; all of an upload that has begun."""
    upload, job = models.Upload, models.Job
    begun = sa.and_(upload.offset > 0, upload.size > upload.reserved)
    held = sa.select(sa.func.sum(sa.case((begun, upload.size), else_=upload.reserved)))
    held = held.join(job, job.id == upload.job_id)
    return _count(held.where(job.project_id == project_id))


def _count(query: sa.Select[Any]) -> int:
    with db.reader() as session:
        return int(session.scalar(query) or 0)


def busiest(
    project_id: str, cloud_keys: Collection[str], nth: int, since: int
) -> Sequence[tuple[str, int]]:
    """Which of some Clouds are public ones where a project had at least `nth` Jobs begin since a time.

    So does one that reads there, and a retry, where it has something to do.

    :param since: in ms since the epoch
    :return: the Cloud's name, and when the nth latest began
    """
    cloud, target, job = models.Cloud, models.Target, models.Job
    public = sa.select(cloud.id, cloud.name).where(cloud.id.in_(cloud_keys), cloud.visibility == "public")
    found = []
    with db.reader() as session:
        for cloud_id, name in session.execute(public.order_by(cloud.name)).all():
            there = sa.exists().where(target.job_id == job.id, target.cloud_key == cloud_id)
            more = sa.and_(job.begun.is_not(None), job.updated_at >= since)
            lately = sa.select(job.created_at, there, job.begun).where(job.project_id == project_id)
            lately = lately.where(sa.or_(sa.and_(there, job.created_at >= since), more))
            begins = [
                begin
                for made, is_there, begun in session.execute(lately)
                for begin in ((made, (cloud_id,) if is_there else ()), *(begun or ()))
            ]
            latest = sorted((at for at, keys in begins if at >= since and cloud_id in keys), reverse=True)
            if len(latest) >= nth:
                found.append((name, latest[nth - 1]))
    return found
