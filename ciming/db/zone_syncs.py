# SPDX-License-Identifier: Apache-2.0
"""Syncs of zones as callers see them: begin one, which holds its pairs of zones until it ends.

A scope is a project, or "" for those that are about the images of all projects: only syncs of one scope
exclude each other, so that nobody is held up by, or hears of, what another project does.
"""

from collections.abc import Callable, Collection, Iterator

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions, points
from ciming.db import api, models
from ciming.db import session as db


@points.mutation
def begin(job: models.Job, *checks: Callable[[orm.Session], object], wait: bool) -> None:
    """Write the Job of a sync.

    :param checks: raise, in the same transaction, if that can not be
    :param wait: for another one to end that holds some of its zones
    :raises Conflict: there is one, and it is not to be waited for
    """
    with db.writer() as session:
        job.status = "queued"
        session.add(job)
        session.flush()
        holder = lock(session, job)
        if holder is not None and not wait:
            raise exceptions.Conflict(
                f"Job {holder} brings some of these zones in line now: wait until it has ended, or cancel "
                "it; or have this one wait for it (when_busy).",
                code="zone_sync.busy",
            )
        for check in checks:
            check(session)
        api.refresh(session, job)


def at_most(count: int, project_id: str) -> Callable[[orm.Session], None]:
    """A check of begin(): a project has no more syncs that have not ended, the new one included.

    It counts after lock(), and so alone.

    :raises OverLimit: it has more
    """
    job = models.Job
    query = sa.select(sa.func.count()).where(
        job.kind == "zone-sync", job.project_id == project_id, job.finished_at.is_(None)
    )

    def check(session: orm.Session) -> None:
        if (session.scalar(query) or 0) > count:
            raise exceptions.OverLimit(
                f"Your project may have {count} syncs of zones that have not ended, and has so many: wait "
                "until one has ended, or cancel it. One sync can bring several zones in line."
            )

    return check


def lock(session: orm.Session, job: models.Job) -> str | None:
    """Hold all pairs of zones of a sync; or none, and the id of a Job that holds one of them.

    Who asks is alone with that until the end of the transaction.
    """
    mutex, row = models.Mutex, models.ZoneLock
    session.execute(sa.update(mutex).where(mutex.name == "zones").values(taken=mutex.taken + 1))
    scope, pairs = scope_of(job), set(_pairs(job))
    held = session.scalars(sa.select(row).where(row.scope == scope)).all()
    for each in held:
        if (each.first, each.second) in pairs and each.job_id != job.id:
            return each.job_id
    if not any(each.job_id == job.id for each in held):
        session.add_all(models.ZoneLock(scope=scope, first=a, second=b, job_id=job.id) for a, b in pairs)
        session.flush()
    return None


def scope_of(job: models.Job) -> str:
    return "" if (job.spec or {})["everything"] else job.project_id


def _pairs(job: models.Job) -> Iterator[tuple[str, str]]:
    """In no direction: a sync there and one back are in each other's way, too."""
    request = (job.spec or {})["request"]
    for zone in request["to"]:
        first, second = sorted((request["from"], zone))
        yield first, second


def close(session: orm.Session, job_id: str) -> None:
    """A sync has ended: let its zones go, and forget what it had to do."""
    for model in (models.ZoneLock, models.ZoneEntry):
        session.execute(sa.delete(model).where(model.job_id == job_id))


def open_children(session: orm.Session, job_id: str) -> Collection[str]:
    """Ids of its parts that have not ended."""
    job = models.Job
    return session.scalars(sa.select(job.id).where(job.parent_id == job_id, job.finished_at.is_(None))).all()
