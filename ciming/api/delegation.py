# SPDX-License-Identifier: Apache-2.0
"""What a Job may act with: a trust from the caller, or what an engine holds in its memory for it."""

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from oslo_config import cfg
from oslo_db import exception as oslo_db_exception
from oslo_log import log
from sqlalchemy import exc, orm

from ciming import context, exceptions, rpc, sealing, trusts
from ciming.api import staging_area
from ciming.db import models, pending, work

LOG = log.getLogger(__name__)
ATTEMPTS = 5
LATER = 3600        # seconds that a trust may live longer, so that it ends at a moment of its own
Credentials = Mapping[str, Mapping[str, Any]]
"""By the ids of their Clouds."""


@dataclass(frozen=True)
class Trust:
    """One that no Job has yet; `pending_id` is that of the row which announced it."""

    id: str
    pending_id: str


@dataclass(frozen=True)
class Given:
    """What a Job is to be written with.

    :param holder: the engine that holds what may not be written, and runs the Job
    :param clouds: ids of those whose credential it holds
    """

    job_id: str
    trust: Trust | None
    holder: rpc.Holder | None
    clouds: list[str] = field(default_factory=list)

    def settle(self, session: orm.Session) -> None:
        """In the transaction that writes the Job: its trust is on its way no more."""
        if self.trust:
            pending.settle(session, self.trust.pending_id)

    def into(self, job: models.Job) -> None:
        """Have the Job work with this from now on."""
        job.trust_id = self.trust.id if self.trust else None
        job.owner = self.holder.owner if self.holder else None
        job.lock_marker = self.holder.lock_marker if self.holder else None
        job.spec = {name: said for name, said in (job.spec or {}).items() if name != "given"} | (
            {"given": self.clouds} if self.clouds else {}
        )

    def knock(self) -> None:
        """Tell who is to run the Job."""
        rpc.knock(self.job_id, self.holder)


@contextlib.contextmanager
def delegated(
    caller: context.RequestContext,
    credentials: Credentials,
    job_id: str | None = None,
    roles: Sequence[str] = (),
) -> Iterator[Given]:
    """A trust from the caller, and an engine that holds what they gave.

    Keystone refuses trusts for some tokens, as those of application credentials: such a token is itself
    held, and the Job goes on for as long as it is good. The trust is deleted again if the rows that would
    name it can not be written. Whenever this process dies, or Keystone's answer is lost, a row says what to
    look for; an engine forgets what it holds for a Job that never comes.

    :param job_id: of a Job that is there already
    :param roles: to be delegated, instead of the usual ones
    :raises Unavailable: Keystone can not be asked, or no engine answers
    """
    job_id = job_id or models.new_id()
    trust, token = _trust_or_token(caller, roles)
    try:
        holder = None
        if token or credentials:
            bundle = sealing.Bundle(token, credentials)
            holder = rpc.hand_over(job_id, bundle, staging_area.get().marker)
        yield Given(job_id, trust, holder, sorted(credentials))
    except work.AWAY:       # what names it may be written; an engine finds out
        raise
    except BaseException:
        if trust and trusts.take_back(caller, trust.id):
            _forget(trust.pending_id)
        raise


def _trust_or_token(
    caller: context.RequestContext, roles: Sequence[str]
) -> tuple[Trust | None, str | None]:
    try:
        return _make(caller, roles), None
    except exceptions.TrustRefused as error:
        LOG.info("The Job will work with the caller's own token: %s", error)
        return None, str(caller.auth_token)


def _make(caller: context.RequestContext, roles: Sequence[str]) -> Trust:
    expires_at = datetime.now(UTC) + timedelta(seconds=cfg.CONF.trust.expiry)
    for _attempt in range(ATTEMPTS):
        pending_id = pending.announce(
            pending.Likeness(
                str(caller.user_id), str(caller.project_id), int(expires_at.timestamp()) * 1000
            )
        )
        try:
            return Trust(trusts.create(caller, expires_at, roles), pending_id)
        except trusts.Taken:
            _forget(pending_id)
            expires_at += timedelta(seconds=random.randint(1, LATER))  # noqa: S311  # no secret
        except exceptions.TrustRefused:
            _forget(pending_id)
            raise
    raise exceptions.Unavailable("You have made too many trusts at this moment. Try again later.")


def _forget(pending_id: str) -> None:
    """What went wrong before matters more than that the database is away, too."""
    try:
        pending.forget(pending_id)
    except (exc.SQLAlchemyError, oslo_db_exception.DBError) as error:
        LOG.warning("A row in pending_trusts is left to housekeeping: %s", error)
