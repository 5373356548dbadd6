# SPDX-License-Identifier: Apache-2.0
"""What the runner does when something happens that nobody thought of, on a real database file."""

import contextlib
import pathlib
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
from oslo_config import cfg

from ciming import exceptions, growing, staging
from ciming.db import api, jobs, models, work
from ciming.engine import runner, slots, sources, stage_tools, target_tools, tools, watch
from tests.unit import rows


@pytest.fixture
def made(database: object, tmp_path: pathlib.Path) -> runner.Runner:
    area = staging.StagingArea(str(tmp_path / "staging"), quota=0, keep_free=0)
    stopping = threading.Event()
    stopping.set()      # so that it does not wait before it gives up
    return runner.Runner(area, stopping)


def test_what_was_begun_is_withdrawn_before_a_job_is_given_up(
    made: runner.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zone-a has ended, zone-b was begun, zone-c was not: only zone-b can have left something."""
    withdrawn: list[str] = []
    monkeypatch.setattr(target_tools.TargetTools, "withdraw", lambda kit: withdrawn.append(kit.key))

    def broken(*_: Any) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(made, "_stage_and_publish", broken)
    job = rows.make_job(zones=("zone-a", "zone-b", "zone-c"))
    claim = rows.take(job.id)
    work.staged(claim, disk_format="raw", virtual_size=512, digests={"sha256": "", "sha512": ""})
    ended, begun, _ = job.targets
    work.add_link(claim, ended.id, "ref", "bytes")
    work.update_target(claim, begun.id, step="upload", status="running")
    made._run(claim)
    assert withdrawn == [begun.id]
    row = api.get_job(job.id, None)
    assert [target.status for target in row.targets] == ["success", "error", "error"]
    assert row.owner is None


@pytest.mark.parametrize("stage", ["staging", "staged"])
def test_what_waits_for_its_user_and_is_cancelled_ends_as_cancelled(
    made: runner.Runner, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Also where it is told so while it waits for the bytes: its old error is not why it ends."""
    monkeypatch.setattr(made, "_stopping", threading.Event())
    waits = {"code": "credential.needed", "message": "", "cloud_request_id": None}
    job = rows.make_job(stage=stage, zones=("zone-a",))
    claim = rows.take(job.id)
    work.update_target(claim, job.targets[0].id, step="check", status="waiting", error=waits)
    work.wait(claim)
    jobs.cancel(job.id)
    made._stage_and_publish(rows.take(job.id))
    [target] = api.get_job(job.id, None).targets
    assert (target.status, target.error) == ("cancelled", None)


def test_lost_bytes_come_back_from_a_cloud_that_has_the_image(made: runner.Runner) -> None:
    """Or its disk: which one it is, is found as for a sync."""
    job = rows.make_job()
    claim = rows.take(job.id)
    kit = types.SimpleNamespace(origin=None)
    first, _second = (target.id for target in job.targets)

    def source() -> tuple[str, type]:
        name, found = made._source(claim, work.load(claim), kit)  # type: ignore[arg-type]
        return name, type(found)

    assert source() == (runner.STAGE, sources.Upload)
    work.staged(claim, disk_format="raw", virtual_size=512, digests={"sha256": "aa", "sha512": "bb"})
    assert source() == (runner.STAGE, sources.Upload)
    work.add_link(claim, first, "ref", "guest")
    assert source() == (runner.FETCH, sources.Remote)


@pytest.mark.parametrize("begun", [False, True])
def test_bytes_that_are_lost_are_brought_again_also_by_the_next_engine(
    made: runner.Runner, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """The one before was stopped before that began; or in the midst of it, and the Job's error is another."""
    claim = rows.take(rows.make_job().id)
    error = sources.lost() if not begun else exceptions.TransientProviderError("the Cloud is away")
    work.update_stage(claim, step="inspect", error=tools.fault(error))
    flows: Any = types.SimpleNamespace(claim=claim, begun=lambda name: begun and name == runner.RESTORE)
    names: list[str] = []

    def run_stage(_flows: Any, name: str, _kit: Any) -> bool:
        names.append(name)
        return name == runner.RESTORE

    monkeypatch.setattr(made, "_run_stage", run_stage)
    row = work.load(claim)
    row.kind = "sync"
    slot, watching = slots.Slots(slots.Limits(1)).slot(), watch.Watch(claim, threading.Event())
    with contextlib.closing(growing.GrowingFile()) as staged:
        kit = stage_tools.StageTools(row, watching, staged, claim, slot, made._area.room)
        made._stage(flows, row, kit)
    assert names == [runner.FETCH, runner.RESTORE]


def test_a_job_waits_for_its_user_only_when_all_else_has_ended() -> None:
    waits, lost = exceptions.Waits("one Cloud's credential"), exceptions.ClaimLost("another engine's")
    for reasons, first in (([waits, None, lost], lost), ([lost, waits], lost), ([None, waits], waits)):
        with pytest.raises(exceptions.Interrupted) as caught:
            runner._raise_first(reasons)
        assert caught.value is first
    runner._raise_first([None, None])


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_job_goes_on_later_where_there_can_be_no_more_threads(
    made: runner.Runner, no_thread: Callable[[str, int], None], nth: int
) -> None:
    """For one of two Targets, or to bring the bytes that both wait for."""
    made._stopping.clear()
    job = rows.make_job()
    claim = rows.take(job.id)
    no_thread("flow", nth)
    running = threading.Thread(target=made._run, args=(claim,), daemon=True)
    running.start()
    running.join(10)
    assert not running.is_alive()
    row = api.get_job(job.id, None)
    assert (row.owner, row.finished_at, row.error) == (None, None, None)
    assert {target.error is None for target in row.targets} == {True}


def taken(made: runner.Runner, count: int, **of: Any) -> int:
    """How many of so many more Jobs are taken; all run on for ever."""
    for _ in range(count):
        job_id = models.new_id()
        if made.may_take(work.Candidate(job_id, None, 0, **of)):
            made.running[job_id] = work.Claim(job_id, rows.ENGINE, 1, **of)
    return sum(all(getattr(claim, name) == of[name] for name in of) for claim in made.running.values())


@pytest.mark.parametrize(
    ("places", "theirs", "long", "others", "others_long"),
    [(32, 24, 18, 8, 6), (4, 3, 2, 1, 1), (1, 1, 1, 0, 0)],
)
def test_one_project_leaves_places_to_others(
    conf: cfg.ConfigOpts, database: object, places: int, theirs: int, long: int, others: int, others_long: int
) -> None:
    """Its large images, and parts of syncs, leave some to its own small ones, too."""
    conf.set_override("max_jobs", places, group="engine")
    area: Any = None
    made = runner.Runner(area, threading.Event())
    assert taken(made, 9, kind=runner.ZONES, project_id="studio") == 9      # these wait for the others
    assert taken(made, places, kind="create", project_id="studio", takes_long=True) == long
    assert taken(made, places, kind="create", project_id="studio", takes_long=False) == theirs - long
    assert taken(made, places, kind="create", project_id="garage", takes_long=True) == others_long
    assert taken(made, places, kind="link", project_id="garage") == others - others_long
    assert taken(made, places, kind="link", project_id="attic") == 0
