# SPDX-License-Identifier: Apache-2.0
"""Liveness by file locks, with real processes that are killed."""

import contextlib
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ciming.db import work
from ciming.engine import claims
from tests.unit import rows

ENGINE = """
import sys
from ciming.engine import claims
engine = claims.Liveness(sys.argv[1])
engine.start()
print(engine.name, flush=True)
for owner in sys.stdin:
    print(engine.is_dead(owner.strip()), flush=True)
"""


class Other:
    """Another engine, in a process of its own."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENGINE, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def thinks_dead(self, owner: str) -> bool:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{owner}\n")
        self.process.stdin.flush()
        return {"True": True, "False": False}[self._read()]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def url(tmp_path: pathlib.Path) -> str:
    return f"file://{tmp_path}/locks"


@pytest.fixture
def engine(url: str) -> Iterator[claims.Liveness]:
    made = claims.Liveness(url)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def other(url: str) -> Iterator[Other]:
    made = Other(url)
    yield made
    with contextlib.suppress(ProcessLookupError):
        made.kill()


def test_dead_at_once_after_kill(engine: claims.Liveness, other: Other) -> None:
    assert not engine.is_dead(other.name)
    other.kill()
    assert engine.is_dead(other.name)


def test_to_ask_makes_nobody_alive(engine: claims.Liveness, url: str) -> None:
    others = [Other(url) for _ in range(2)]
    others[0].kill()
    for _ in range(2):
        assert engine.is_dead(others[0].name)
        assert others[1].thinks_dead(others[0].name)
    others[1].kill()


def test_own_name_is_never_dead_and_to_ask_does_not_free_it(
    engine: claims.Liveness, other: Other
) -> None:
    for _ in range(3):
        assert not engine.is_dead(engine.name)
        assert not other.thinks_dead(engine.name)


def test_to_judge_others_does_not_free_ours(engine: claims.Liveness, url: str) -> None:
    others = [Other(url) for _ in range(2)]
    others[0].kill()
    assert [engine.is_dead(each.name) for each in others] == [True, False]
    assert not others[1].thinks_dead(engine.name)
    others[1].kill()


def test_a_stopped_engine_is_dead(url: str, other: Other) -> None:
    stopped = claims.Liveness(url)
    stopped.start()
    assert not other.thinks_dead(stopped.name)
    stopped.stop()
    assert other.thinks_dead(stopped.name)


def test_marker_says_whose_locks_can_be_judged(url: str, tmp_path: pathlib.Path) -> None:
    assert claims.Liveness(url).marker == claims.Liveness(url).marker
    assert claims.Liveness(url).name != claims.Liveness(url).name
    assert claims.Liveness(f"file://{tmp_path}/elsewhere").marker != claims.Liveness(url).marker
    assert (tmp_path / "locks").stat().st_mode & 0o077 == 0


# Which Jobs are taken


@pytest.mark.usefixtures("database")
def test_jobs_of_the_dead_are_taken_and_no_others(engine: claims.Liveness, other: Other) -> None:
    free, theirs, ours, left_over = (rows.make_job(created_at=number).id for number in range(4))
    elsewhere = rows.make_job(created_at=9).id
    rows.take(theirs, other.name, engine.marker)
    for job_id in (ours, left_over):
        rows.take(job_id, engine.name, engine.marker)
    rows.take(elsewhere, "an engine of another host", "other locks")
    taken = list(claims.take(engine, rows.AREA, {ours}))
    assert [claim.job_id for claim in taken] == [free, left_over]
    assert {claim.owner for claim in taken} == {engine.name}
    running = {ours, free, left_over}
    assert list(claims.take(engine, rows.AREA, running)) == []
    other.kill()
    assert list(claims.take(engine, rows.AREA, running)) == [work.Claim(theirs, engine.name, 2)]


@pytest.mark.usefixtures("database")
def test_a_dead_engine_is_judged_once(
    engine: claims.Liveness, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [rows.make_job().id for _ in range(3)]
    for job_id in jobs:
        rows.take(job_id, other.name, engine.marker)
    other.kill()
    asked: list[str] = []
    judge = engine.is_dead

    def is_dead(owner: str) -> bool:
        asked.append(owner)
        return judge(owner)

    monkeypatch.setattr(engine, "is_dead", is_dead)
    assert {claim.job_id for claim in claims.take(engine, rows.AREA, ())} == set(jobs)
    assert asked == [other.name]
