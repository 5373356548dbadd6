# SPDX-License-Identifier: Apache-2.0
"""Trusts on their way: a row is written before Keystone is asked, and goes when a Job names the trust.

Whatever dies in between leaves the row, and housekeeping looks for a trust of these people, project and end
that no Job names. Keystone shows ends in whole seconds, so a few trusts may look the same.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions
from ciming.db import models
from ciming.db import session as db


class Likeness(NamedTuple):
    """What there is to be seen of a trust; `expires_at` in ms, whole seconds."""

    trustor_user_id: str
    project_id: str
    expires_at: int


def announce(likeness: Likeness) -> str:
    """Say that Keystone is about to be asked for such a trust; the id of the row."""
    row = models.PendingTrust(id=models.new_id(), **likeness._asdict())
    with db.writer() as session:
        session.add(row)
    return row.id


def settle(session: orm.Session, pending_id: str) -> None:
    """In the transaction that writes the Job which names the trust: it is on its way no more.

    :raises Unavailable: it took so long that housekeeping has taken the trust for a left-over
    """
    pending = models.PendingTrust
    mine = sa.delete(pending).where(pending.id == pending_id, pending.doomed.is_(False))
    if not db.changed_one(session.execute(mine)):
        raise exceptions.Unavailable("Keystone took too long to make a trust. Try again.")


def condemn(session: orm.Session, job: models.Job) -> None:
    """The trust that a Job still has is to be deleted: it gets another one."""
    if job.trust_id:
        row = models.PendingTrust(
            trustor_user_id=job.user_id, project_id=job.project_id, trust_id=job.trust_id, doomed=True
        )
        session.add(row)


def condemned() -> Sequence[tuple[str, str]]:
    """(id of the row, of the trust) of trusts that are to be deleted."""
    pending = models.PendingTrust
    with db.reader() as session:
        rows = session.execute(sa.select(pending.id, pending.trust_id).where(pending.trust_id.is_not(None)))
        return [(row.id, str(row.trust_id)) for row in rows]


def lost(before: int) -> Sequence[Likeness]:
    """What trusts look like that were announced before a time, and of which nobody knows what became."""
    pending = models.PendingTrust
    columns = (pending.trustor_user_id, pending.project_id, pending.expires_at)
    query = sa.select(*columns).where(pending.trust_id.is_(None), pending.created_at < before).distinct()
    with db.reader() as session:
        return [Likeness(*row) for row in session.execute(query)]


def doom(likeness: Likeness) -> int:
    """No Job may come to name a trust that looks so from now on; how many there were to be."""
    with db.writer() as session:
        doomed = session.execute(sa.update(models.PendingTrust).where(*_like(likeness)).values(doomed=True))
        assert isinstance(doomed, sa.CursorResult)
        return doomed.rowcount


def nameless(trust_ids: Collection[str]) -> Sequence[str]:
    """Those of some trusts that are in no Job."""
    job = models.Job
    with db.reader() as session:
        named = set(session.scalars(sa.select(job.trust_id).where(job.trust_id.in_(trust_ids))))
    return [trust_id for trust_id in trust_ids if trust_id not in named]


def forget(pending_id: str) -> None:
    """There is no such trust, or no more."""
    _delete(models.PendingTrust.id == pending_id)


def forget_like(likeness: Likeness, before: int | None = None) -> None:
    """There is none that looks so, and that was announced before a time, or no more."""
    created_at = models.PendingTrust.created_at
    _delete(*_like(likeness), *([] if before is None else [created_at < before]))


def _like(likeness: Likeness) -> list[sa.ColumnElement[bool]]:
    columns = likeness._asdict()
    return [getattr(models.PendingTrust, name) == value for name, value in columns.items()]


def _delete(*conditions: sa.ColumnElement[bool]) -> None:
    with db.writer() as session:
        session.execute(sa.delete(models.PendingTrust).where(*conditions))
