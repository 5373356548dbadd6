# SPDX-License-Identifier: Apache-2.0
"""Trusts on their way, on real databases."""

from collections.abc import Callable
from typing import Any

import pytest

from ciming import exceptions
from ciming.db import models, pending, session
from tests.unit import rows
from tests.unit.db.test_work import at_once

pytestmark = pytest.mark.usefixtures("database")

LIKENESS = pending.Likeness("alice", "studio", 1_700_000_000_000)


def settle(pending_id: str) -> None:
    with session.writer() as writing:
        pending.settle(writing, pending_id)


def lost() -> set[pending.Likeness]:
    found = pending.lost(models.now() + 1)
    assert len(set(found)) == len(found)
    return set(found)


def test_announced_and_settled() -> None:
    other = LIKENESS._replace(trustor_user_id="bob")
    ids = [pending.announce(likeness) for likeness in (LIKENESS, LIKENESS, other)]
    assert lost() == {LIKENESS, other}
    settle(ids[0])
    assert lost() == {LIKENESS, other}
    settle(ids[1])
    assert lost() == {other}
    pending.forget(ids[2])
    pending.forget(ids[2])
    assert lost() == set()
    with pytest.raises(exceptions.Unavailable):
        settle(ids[2])


def test_what_is_new_is_left_in_peace() -> None:
    pending.announce(LIKENESS)
    assert pending.lost(models.now() - 60_000) == []
    pending.forget_like(LIKENESS, before=models.now() - 60_000)
    assert lost() == {LIKENESS}
    pending.forget_like(LIKENESS)
    assert lost() == set()


def test_what_is_doomed_comes_into_no_job() -> None:
    """All that look so: there is no telling which is which."""
    ids = [pending.announce(LIKENESS) for _ in range(2)]
    other = pending.announce(LIKENESS._replace(project_id="elsewhere"))
    assert (pending.doom(LIKENESS), pending.doom(LIKENESS)) == (2, 2)
    before = rows.everything()
    for pending_id in ids:
        with pytest.raises(exceptions.Unavailable):
            settle(pending_id)
    assert rows.everything() == before
    settle(other)
    pending.forget_like(LIKENESS)
    assert pending.doom(LIKENESS) == 0


def test_trusts_that_are_in_no_job() -> None:
    rows.make_job()
    assert pending.nameless(["trust-0", "trust-1", "trust-2"]) == ["trust-0", "trust-2"]
    assert pending.nameless([]) == []


@pytest.mark.parametrize("_round", range(4))
def test_either_a_job_names_it_or_it_is_doomed(_round: int) -> None:
    pending_id = pending.announce(LIKENESS)
    calls: tuple[Callable[[], Any], ...] = (lambda: settle(pending_id), lambda: pending.doom(LIKENESS))
    user, house = at_once(2, lambda number: calls[number]())
    assert (user is None) == (house == 0)
    assert house == 0 or isinstance(user, exceptions.Unavailable)
