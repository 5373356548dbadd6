# SPDX-License-Identifier: Apache-2.0
"""The staging areas that Jobs name by their markers, and what becomes of those whose area is gone."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from ciming.db import models
from ciming.db import session as db


class Area(NamedTuple):
    """One of them: Jobs that have not ended, and those that could be retried yet."""

    marker: str
    open: int
    kept: int


_UNFINISHED = models.Job.finished_at.is_(None)
_NEED_IT = sa.or_(_UNFINISHED, models.Job.spec.is_not(None))


def named() -> Sequence[Area]:
    """All that unfinished or kept Jobs name."""
    job = models.Job
    query = (
        sa.select(
            job.marker,
            sa.func.sum(sa.case((_UNFINISHED, 1), else_=0)),
            sa.func.sum(sa.case((_UNFINISHED, 0), else_=1)),
        )
        .where(_NEED_IT)
        .group_by(job.marker)
        .order_by(job.marker)
    )
    with db.reader() as session:
        return [Area(*row) for row in session.execute(query)]


def needed(job_id: str, marker: str) -> bool:
    """Has this Job not ended, or can it be retried? One that nobody knows may be another database's.

    :param marker: of the area that has its folder; it is ours where there are Jobs of it
    """
    job = models.Job
    with db.reader() as session:
        if session.scalar(sa.select(job.id).where(job.marker == marker).limit(1)) is None:
            return True
        return session.scalar(sa.select(job.id).where(job.id == job_id, _NEED_IT)) is not None


def take_over(former: str, marker: str) -> int:
    """Give all Jobs of an area that is gone to another one, without their bytes; how many had not ended.

    Whoever has claimed one of them has lost it. An upload that is not whole begins again.
    """
    job, upload = models.Job, models.Upload
    theirs = job.marker == former, _NEED_IT
    ids = sa.select(job.id).where(*theirs)
    nobody = {"owner": None, "leased_until": 0}
    with db.writer() as session:
        count = session.scalar(sa.select(sa.func.count()).where(*theirs, _UNFINISHED))
        begun = sa.update(upload).where(upload.job_id.in_(ids))
        session.execute(begun.values(offset=0, converted=0))    # what is restored is to come
        session.execute(
            begun.where(upload.complete.is_(False)).values(
                reserved=0, generation=upload.generation + 1, **nobody
            )
        )
        over = sa.select(job.id).where(*theirs, sa.not_(_UNFINISHED))
        session.execute(sa.update(upload).where(upload.job_id.in_(over)).values(reserved=0))
        mine = {"owner": None, "lock_marker": None, "generation": job.generation + 1}
        session.execute(sa.update(job).where(*theirs).values(marker=marker, **mine))
    return int(count or 0)
