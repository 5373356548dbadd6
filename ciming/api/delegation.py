# SPDX-License-Identifier: Apache-2.0
"""A trust from the caller, for a Job."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from oslo_db import exception as oslo_db_exception
from oslo_log import log
from sqlalchemy import exc, orm

from ciming import context, exceptions, trusts
from ciming.db import pending

LOG = log.getLogger(__name__)


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
    expires_at = trusts.expiry()
    pending_id = pending.announce(str(caller.user_id), str(caller.project_id), expires_at)
    try:
        trust_id = trusts.create(caller, expires_at)
    except exceptions.TrustRefused:
        _forget(pending_id)
        raise
    try:
        yield Given(trust_id, pending_id)
    except BaseException:
        if trusts.take_back(caller, trust_id):
            _forget(pending_id)
        raise


def _forget(pending_id: str) -> None:
    """What went wrong before matters more than that the database is away, too."""
    try:
        pending.forget(pending_id)
    except (exc.SQLAlchemyError, oslo_db_exception.DBError) as error:
        LOG.warning("A row in pending_trusts is left to housekeeping: %s", error)
