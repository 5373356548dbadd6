# SPDX-License-Identifier: Apache-2.0
"""How many Jobs there are, and how long they wait: for who watches the service."""

from typing import NamedTuple

import sqlalchemy as sa

from ciming.db import models, status
from ciming.db import session as db


class Figures(NamedTuple):
    """Of all projects, at one moment."""

    jobs: dict[str, int]
    """By status, each of them."""
    queue_age: float
    """Seconds for which the oldest of the Jobs that no engine has waits for one; 0 without any."""


def read() -> Figures:
    job = models.Job
    for_user = sa.and_(job.waiting_since.is_not(None), job.wanted != "cancel")
    waits = (job.finished_at.is_(None), job.owner.is_(None), job.stage != "uploading", sa.not_(for_user))
    jobs = dict.fromkeys(status.JOB_STATUSES, 0)
    with db.reader() as session:
        for name, count in session.execute(sa.select(job.status, sa.func.count()).group_by(job.status)):
            jobs[name] = count
        since = session.scalar(sa.select(sa.func.min(job.updated_at)).where(*waits))
    age = 0.0 if since is None else max(0, models.now() - int(since)) / 1000
    return Figures(jobs, age)
