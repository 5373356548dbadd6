# SPDX-License-Identifier: Apache-2.0
"""Flows under the fenced backend, on a real database file: resumed, and taken away."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from taskflow import flow as flow_base
from taskflow import states, task
from taskflow.patterns import linear_flow

from ciming import exceptions
from ciming.db import models, session, work
from ciming.engine import persistence, runner
from tests.unit import rows

pytestmark = pytest.mark.usefixtures("database")


class Tools:
    """What the tasks may touch: they note what they do, and do what the test wants."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.on: dict[str, Callable[[], None]] = {}

    def do(self, name: str) -> str:
        self.done.append(name)
        self.on.get(name, lambda: None)()
        return f"of {name}"


class First(task.Task):  # type: ignore[misc]  # TaskFlow is untyped
    default_provides = "first"

    def execute(self, tools: Tools) -> str:
        return tools.do("first")

    def revert(self, tools: Tools, **_kwargs: Any) -> None:
        tools.do("revert first")


class Second(task.Task):  # type: ignore[misc]
    default_provides = "second"

    def execute(self, tools: Tools, first: str) -> str:
        assert first == "of first"
        return tools.do("second")

    def revert(self, tools: Tools, **_kwargs: Any) -> None:
        tools.do("revert second")


class Third(task.Task):  # type: ignore[misc]
    def execute(self, tools: Tools, second: str) -> None:
        tools.do("third")


def flow() -> flow_base.Flow:
    return linear_flow.Flow("three").add(First(), Second(), Third())


@pytest.fixture
def job() -> models.Job:
    return rows.make_job()


@pytest.fixture
def tools() -> Tools:
    return Tools()


def flows(claim: work.Claim) -> runner.Flows:
    return runner.Flows(claim, ["three", "others"])


def flow_states() -> dict[str, str]:
    with session.engine().connect() as connection:
        return dict(map(tuple, connection.execute(sa.text("SELECT name, state FROM flowdetails"))))


def test_a_flow_runs_once(job: models.Job, tools: Tools) -> None:
    claim = rows.take(job.id)
    assert flows(claim).run("three", flow, tools=tools) == states.SUCCESS
    assert tools.done == ["first", "second", "third"]
    assert flow_states() == {"three": states.SUCCESS, "others": None}
    again = Tools()
    assert flows(rows.take(job.id, "engine-2")).run("three", flow, tools=again) == states.SUCCESS
    assert again.done == []


def test_a_flow_that_failed_was_reverted_once(job: models.Job, tools: Tools) -> None:
    def fail() -> None:
        raise exceptions.ProviderError("No.")

    tools.on["third"] = fail
    claim = rows.take(job.id)
    assert flows(claim).run("three", flow, tools=tools) == states.REVERTED
    assert tools.done == ["first", "second", "third", "revert second", "revert first"]
    again = Tools()
    assert flows(claim).run("three", flow, tools=again) == states.REVERTED
    assert again.done == []


def steal(job: models.Job, then: dict[str, Any]) -> Callable[[], None]:
    """Another engine takes the Job; remember how the rows are then."""

    def take() -> None:
        rows.take(job.id, "thief")
        then.update(rows.everything())

    return take


def test_only_what_the_next_engine_needs_is_written(job: models.Job, tools: Tools) -> None:
    """That there are such atoms, what each came to, and the end."""
    made, writes = flows(rows.take(job.id)), []
    engine = session.engine()

    def count(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("writes"):
            writes.append(connection)

    sa.event.listen(engine, "begin", count)
    try:
        assert made.run("three", flow, tools=tools) == states.SUCCESS
    finally:
        sa.event.remove(engine, "begin", count)
    assert len(writes) == 1 + 3 + 1


@pytest.mark.parametrize("where", ["first", "second", "third"])
def test_a_flow_whose_job_was_taken_writes_nothing(job: models.Job, tools: Tools, where: str) -> None:
    then: dict[str, Any] = {}
    tools.on[where] = steal(job, then)
    with pytest.raises(exceptions.ClaimLost):
        flows(rows.take(job.id)).run("three", flow, tools=tools)
    assert tools.done[-1] == where              # no further task, no revert
    assert rows.everything() == then
    assert flow_states()["three"] not in runner.ENDS


def test_a_task_that_fails_after_the_job_was_taken_reverts_nothing(
    job: models.Job, tools: Tools
) -> None:
    then: dict[str, Any] = {}

    def steal_and_fail() -> None:
        steal(job, then)()
        raise exceptions.ProviderError("No.")

    tools.on["second"] = steal_and_fail
    with pytest.raises(exceptions.ClaimLost):
        flows(rows.take(job.id)).run("three", flow, tools=tools)
    assert tools.done == ["first", "second"]
    assert rows.everything() == then


def test_a_revert_whose_job_was_taken_stops(job: models.Job, tools: Tools) -> None:
    then: dict[str, Any] = {}

    def fail() -> None:
        raise exceptions.ProviderError("No.")

    tools.on.update({"third": fail, "revert second": steal(job, then)})
    with pytest.raises(exceptions.ClaimLost):
        flows(rows.take(job.id)).run("three", flow, tools=tools)
    assert tools.done[-1] == "revert second"
    assert rows.everything() == then


def test_the_successor_goes_on_where_it_was(job: models.Job, tools: Tools) -> None:
    """Finished tasks are not executed again, the one that ran is."""
    tools.on["second"] = steal(job, {})
    with pytest.raises(exceptions.ClaimLost):
        flows(rows.take(job.id)).run("three", flow, tools=tools)
    successor = Tools()
    assert flows(rows.take(job.id, "engine-3")).run("three", flow, tools=successor) == states.SUCCESS
    assert successor.done == ["second", "third"]


def test_an_interrupted_flow_goes_on(job: models.Job, tools: Tools) -> None:
    def stop() -> None:
        raise exceptions.Interrupted("The engine stops.")

    tools.on["second"] = stop
    claim = rows.take(job.id)
    with pytest.raises(exceptions.Interrupted):
        flows(claim).run("three", flow, tools=tools)
    work.release(claim)
    tools.on.clear()
    later = flows(rows.take(job.id))
    assert later.begun("three") and not later.begun("others")
    assert later.run("three", flow, tools=tools) == states.SUCCESS
    assert tools.done == ["first", "second", "second", "third"]


def test_an_unusable_database_interrupts(
    job: models.Job, tools: Tools, database: rows.Database
) -> None:
    tools.on["second"] = database.take_away
    with pytest.raises(exceptions.Interrupted) as caught:
        flows(rows.take(job.id)).run("three", flow, tools=tools)
    assert not isinstance(caught.value, exceptions.ClaimLost)
    assert tools.done == ["first", "second"]


def test_a_revert_that_fails_is_no_revert(job: models.Job, tools: Tools) -> None:
    def fail() -> None:
        raise exceptions.ProviderError("No.")

    tools.on.update({"third": fail, "revert second": fail})
    claim = rows.take(job.id)
    assert flows(claim).run("three", flow, tools=tools) == states.FAILURE
    assert flows(claim).run("three", flow, tools=tools) == states.FAILURE
    assert tools.done[-1] == "revert second"


def test_what_is_injected_is_not_persisted(job: models.Job, tools: Tools) -> None:
    claim = rows.take(job.id)
    assert flows(claim).run("three", flow, tools=tools, secret="swordfish") == states.SUCCESS
    assert "swordfish" not in str(rows.everything())


def test_who_lost_the_job_makes_no_book(job: models.Job) -> None:
    lost = rows.take(job.id)
    rows.take(job.id, "engine-2")
    before = rows.everything()
    with pytest.raises(exceptions.ClaimLost):
        flows(lost)
    assert rows.everything() == before


def test_forget(job: models.Job, tools: Tools) -> None:
    other = rows.make_job()
    ours, _ = held = [rows.take(row.id) for row in (job, other)]
    for claim in held:
        flows(claim).run("three", flow, tools=tools)
    persistence.forget(ours)
    persistence.forget(ours)            # absent is fine
    left = rows.everything()
    counts = {table: len(left[table]) for table in ("logbooks", "flowdetails", "atomdetails")}
    assert counts == {"logbooks": 1, "flowdetails": 2, "atomdetails": 3}
    assert other.id in str(left["logbooks"])


def test_forget_is_not_for_who_lost_the_job(job: models.Job, tools: Tools) -> None:
    lost = rows.take(job.id)
    flows(lost).run("three", flow, tools=tools)
    rows.take(job.id, "engine-2")
    before = rows.everything()
    with pytest.raises(exceptions.ClaimLost):
        persistence.forget(lost)
    assert rows.everything() == before
