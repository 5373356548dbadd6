# SPDX-License-Identifier: Apache-2.0
"""Trusts on their way: a row is written before Keystone is asked, and goes when a Job names the trust.

Whatever dies in between leaves the row, and housekeeping finds the trust by what was asked for: two trusts of
the same people, project and end can not be.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from oslo_log import log
from sqlalchemy import orm

from ciming import exceptions
from ciming.db import models
from ciming.db import session as db

LOG = log.getLogger(__name__)


def announce(trustor_user_id: str, project_id: str, expires_at: str) -> str:
    """Say that Keystone is about to be asked for such a trust; the id of the row."""
    row = models.PendingTrust(
        id=models.new_id(), trustor_user_id=trustor_user_id, project_id=project_id, expires_at=expires_at
    )
    with db.writer() as session:
        session.add(row)
    return row.id


def settle(session: orm.Session, pending_id: str) -> None:
    """In the transaction that writes the Job which names the trust: it is on its way no more.

    :raises Unavailable: it took so long that housekeeping has taken the trust for a left-over
    """
    pending = models.PendingTrust
    mine = sa.delete(pending).where(pending.id == pending_id, pending.trust_id.is_(None))
    if not db.changed_one(session.execute(mine)):
        raise exceptions.Unavailable("Keystone took too long to make a trust. Try again.")


def condemn(session: orm.Session, job: models.Job) -> None:
    """The trust that a Job still has is to be deleted: it gets another one."""
    if job.trust_id:
        session.add(
            models.PendingTrust(
                trustor_user_id=job.user_id, project_id=job.project_id, trust_id=job.trust_id
            )
        )


def found(pending_id: str, trust_id: str) -> bool:
    """Keystone has the trust: no Job may come to name it from now on. False: one does."""
    pending = models.PendingTrust
    with db.writer() as session:
        mine = sa.update(pending).where(pending.id == pending_id)
        return db.changed_one(session.execute(mine.values(trust_id=trust_id)))


def forget(pending_id: str) -> None:
    """There is no such trust, or no more."""
    with db.writer() as session:
        session.execute(sa.delete(models.PendingTrust).where(models.PendingTrust.id == pending_id))


def overdue(before: int) -> Sequence[models.PendingTrust]:
    """Those that were announced before a time, and those that are to be deleted."""
    pending = models.PendingTrust
    late = sa.or_(pending.created_at < before, pending.trust_id.is_not(None))
    with db.reader() as session:
        return session.scalars(sa.select(pending).where(late).order_by(pending.created_at)).all()
