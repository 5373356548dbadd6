# SPDX-License-Identifier: Apache-2.0
"""Trusts on their way, on real databases."""

import pytest

from ciming import exceptions
from ciming.db import models, pending, session
from tests.unit import rows
from tests.unit.db.test_work import at_once

pytestmark = pytest.mark.usefixtures("database")

END = "2026-01-01T00:00:00.123456Z"


def announced() -> str:
    return pending.announce("alice", "studio", END)


def settle(pending_id: str) -> None:
    with session.writer() as writing:
        pending.settle(writing, pending_id)


def known() -> list[str]:
    return [each.id for each in pending.overdue(models.now() + 1)]


def test_announced_and_settled() -> None:
    first, second = announced(), announced()
    [row, _] = pending.overdue(models.now() + 1)
    assert (row.id, row.trustor_user_id, row.project_id, row.expires_at) == (first, "alice", "studio", END)
    assert row.trust_id is None
    settle(first)
    assert known() == [second]
    pending.forget(second)
    pending.forget(second)
    assert known() == []


def test_what_is_new_is_left_in_peace() -> None:
    announced()
    assert pending.overdue(models.now() - 60_000) == []


def test_what_housekeeping_has_found_comes_into_no_job() -> None:
    """Whoever slept in between finds that its trust is not to be had any more."""
    pending_id = announced()
    assert pending.found(pending_id, "trust-1")
    before = rows.everything()
    with pytest.raises(exceptions.Unavailable):
        settle(pending_id)
    assert rows.everything() == before
    [row] = pending.overdue(0)      # at once
    assert row.trust_id == "trust-1"


@pytest.mark.parametrize("_round", range(4))
def test_a_trust_is_in_a_job_or_deleted(_round: int) -> None:
    pending_id = announced()
    calls = (lambda: settle(pending_id), lambda: pending.found(pending_id, "trust-1"))
    user, house = at_once(2, lambda number: calls[number]())
    assert (user is None) == (house is False)
    assert house is False or isinstance(user, exceptions.Unavailable)
