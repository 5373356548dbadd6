# SPDX-License-Identifier: Apache-2.0
"""A trust from the caller, for a Job."""

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from oslo_config import cfg
from oslo_db import exception as oslo_db_exception
from oslo_log import log
from sqlalchemy import exc, orm

from ciming import context, exceptions, trusts
from ciming.db import pending

LOG = log.getLogger(__name__)
ATTEMPTS = 5
LATER = 3600        # seconds that a trust may live longer, so that it ends at a moment of its own


@dataclass(frozen=True)
class Given:
    """A trust that no Job has yet; `pending_id` is that of the row which announced it."""

    trust_id: str
    pending_id: str

    @property
    def settle(self) -> Callable[[orm.Session], None]:
        """To be called in the transaction that writes the Job."""
        return functools.partial(pending.settle, pending_id=self.pending_id)


@contextlib.contextmanager
def trust(caller: context.RequestContext) -> Iterator[Given]:
    """A trust from the caller, deleted again if the rows that would name it can not be written.

    Whenever this process dies, or Keystone's answer is lost, a row says what to look for.

    :raises TrustRefused: Keystone does not let this token delegate
    :raises Unavailable: Keystone can not be asked
    """
    given = _make(caller)
    try:
        yield given
    except BaseException:
        if trusts.take_back(caller, given.trust_id):
            _forget(given.pending_id)
        raise


@contextlib.contextmanager
def for_now(caller: context.RequestContext) -> Iterator[str]:
    """The id of a trust from the caller that no Job will have: it is deleted at the end.

    :raises TrustRefused: Keystone does not let this token delegate
    :raises Unavailable: Keystone can not be asked
    """
    given = _make(caller)
    try:
        yield given.trust_id
    finally:
        if trusts.take_back(caller, given.trust_id):
            _forget(given.pending_id)


def _make(caller: context.RequestContext) -> Given:
    expires_at = datetime.now(UTC) + timedelta(seconds=cfg.CONF.trust.expiry)
    for _attempt in range(ATTEMPTS):
        pending_id = pending.announce(
            pending.Likeness(
                str(caller.user_id), str(caller.project_id), int(expires_at.timestamp()) * 1000
            )
        )
        try:
            return Given(trusts.create(caller, expires_at), pending_id)
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
