# SPDX-License-Identifier: Apache-2.0
"""Rows that nobody needs any more: Jobs that ended long ago, and Images that are nowhere.

Engines may run meanwhile: they write no row of a Job that has ended and whose spec, bytes and trust are gone.
What is deleted at a time is little, so that nobody waits long for it.
"""

from collections import Counter
from collections.abc import Callable

import sqlalchemy as sa
from oslo_db import api as oslo_db_api
from oslo_db import exception as oslo_db_exception
from sqlalchemy import orm
from taskflow.persistence.backends.sqlalchemy import tables as taskflow_tables

from ciming.db import models
from ciming.db import session as db

AT_A_TIME = 100
TABLES = ("jobs", "targets", "logbooks", "images")
Batch = Callable[[orm.Session, int, int], Counter[str] | None]
"""Deletes some rows, and counts those that it did itself, not another purge; None: there are none left."""
_TASKFLOW = taskflow_tables.fetch(sa.MetaData())


def purge(before: int, most: int | None = None) -> Counter[str]:
    """Delete rows older than that, and tell how many went of each of TABLES.

    Jobs stay of which something is kept, and so do Images with a Link or a Job.

    :param before: a time in ms since the epoch
    :param most: Jobs, and Images, that may go, each with all that belongs to it; None: all
    """
    gone = Counter(dict.fromkeys(TABLES, 0))
    for noun, batch in (("jobs", _jobs), ("images", _images)):
        while True:
            left = AT_A_TIME if most is None else min(AT_A_TIME, most - gone[noun])
            found = _again(batch, before, left) if left > 0 else None
            if found is None:
                break
            gone.update(found)
    return gone


@oslo_db_api.wrap_db_retry(  # type: ignore[untyped-decorator]  # oslo.db is untyped
    max_retries=5,
    retry_on_deadlock=True,
    # A Job came to an Image at that very moment: it is not looked at again.
    exception_checker=lambda error: isinstance(error, oslo_db_exception.DBReferenceError),
)
def _again(batch: Batch, before: int, most: int) -> Counter[str] | None:
    with db.writer() as session:
        return batch(session, before, most)


def _jobs(session: orm.Session, before: int, most: int) -> Counter[str] | None:
    """Jobs that have ended and of which nothing is kept, the oldest first, but none before its children."""
    job, child = models.Job, orm.aliased(models.Job)
    query = (
        sa.select(job.id)
        .where(
            job.finished_at < before,
            job.spec.is_(None),
            job.trust_id.is_(None),
            ~sa.exists().where(models.Upload.job_id == job.id),
            ~sa.exists().where(child.parent_id == job.id),
            ~sa.exists().where(models.ZoneEntry.child_id == job.id),    # its sync still counts it
        )
        .order_by(job.finished_at)
        .limit(most)
    )
    ids = session.scalars(query).all()
    if not ids:
        return None
    books, flows, atoms = _TASKFLOW.logbooks.c, _TASKFLOW.flowdetails.c, _TASKFLOW.atomdetails.c
    of_books = sa.select(flows.uuid).where(flows.parent_uuid.in_(ids))
    found: Counter[str] = Counter()
    for table, which in (
        (models.Target.__table__, models.Target.job_id.in_(ids)),
        (_TASKFLOW.atomdetails, atoms.parent_uuid.in_(of_books)),
        (_TASKFLOW.flowdetails, flows.parent_uuid.in_(ids)),
        (_TASKFLOW.logbooks, books.uuid.in_(ids)),
        (models.Job.__table__, job.id.in_(ids)),
    ):
        _delete(session, found, table, which)
    return found


def _images(session: orm.Session, before: int, most: int) -> Counter[str] | None:
    """Images that are in no Cloud and that no Job works on."""
    image = models.Image
    query = (
        sa.select(image.id)
        .where(
            image.updated_at < before,
            # Of which there is nothing but the record.
            sa.or_(image.status == "error", image.deleted_at.is_not(None)),
            ~sa.exists().where(models.Link.image_id == image.id),
            ~sa.exists().where(models.Job.image_id == image.id),
        )
        .limit(most)
    )
    ids = session.scalars(query).all()
    if not ids:
        return None
    found: Counter[str] = Counter()
    _delete(session, found, image.__table__, image.id.in_(ids))
    return found


def _delete(
    session: orm.Session, found: Counter[str], table: sa.FromClause, which: sa.ColumnElement[bool]
) -> None:
    assert isinstance(table, sa.Table)
    done = session.execute(sa.delete(table).where(which), execution_options={"synchronize_session": False})
    if table.name in TABLES:
        found[table.name] += done.rowcount      # type: ignore[attr-defined]  # a DELETE has one
