# SPDX-License-Identifier: Apache-2.0
"""Liveness on every kind of coordination service, with real processes and servers that are killed."""

import contextlib
import logging
import os
import pathlib
import re
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import cast

import pytest
from oslo_config import cfg
from tooz import ToozError

from ciming import exceptions
from ciming.db import work
from ciming.engine import claims
from tests import liveness
from tests.sandbox import processes, servers
from tests.unit import rows
from tests.unit.engine.others import TTL, Other, within

EVERY = pytest.mark.parametrize("coordination", liveness.KINDS, indirect=True)
SOME = EVERY if "CIMING_TEST_ALL" in os.environ else pytest.mark.parametrize(
    "coordination", ["file", "postgresql", "redis"], indirect=True
)
SERVERS = pytest.mark.parametrize("coordination", [*liveness.KINDS][1:], indirect=True)


@pytest.fixture
def coordination(
    request: pytest.FixtureRequest, conf: cfg.ConfigOpts, tmp_path: pathlib.Path
) -> Iterator[liveness.Service]:
    """A folder, unless the test asks for another kind; and a short time to live."""
    conf.set_override("coordination_ttl", TTL, group="engine")
    kind = getattr(request, "param", "file")
    made = liveness.KINDS[kind](tmp_path / "locks" if kind == "file" else request.getfixturevalue(kind))
    yield made
    if made.server is not None:
        made.server.start()
    conf.clear_override("coordination_ttl", group="engine")


@pytest.fixture
def url(coordination: liveness.Service) -> str:
    return coordination.url


@pytest.fixture
def lost() -> threading.Event:
    """Set when the engine is told that its lock is lost."""
    return threading.Event()


@pytest.fixture
def engine(url: str, lost: threading.Event) -> Iterator[claims.Liveness]:
    made = claims.Liveness(url, lost.set)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def other(url: str, tmp_path: pathlib.Path) -> Iterator[Other]:
    made = Other(url, tmp_path / "other-host")
    yield made
    with contextlib.suppress(ProcessLookupError):
        made.kill()


@EVERY
def test_the_killed_are_dead_and_the_living_are_not(
    engine: claims.Liveness, other: Other, coordination: liveness.Service, tmp_path: pathlib.Path
) -> None:
    """However long they live, and whoever asks."""
    third = Other(coordination.url, tmp_path)
    assert engine.marker == other.marker == third.marker
    assert not within(lambda: engine.is_dead(other.name) or other.thinks_dead(engine.name), TTL * 1.5)
    other.kill()
    assert within(lambda: engine.is_dead(other.name), 1 if coordination.at_once else TTL * 2)
    for _ in range(2):      # to ask makes nobody alive
        assert engine.is_dead(other.name)
        assert third.thinks_dead(other.name)
    for _ in range(2):      # to judge others, or oneself, frees nothing
        assert not engine.is_dead(engine.name)
        assert not third.thinks_dead(engine.name)
    third.kill()


@SOME
def test_a_stopped_engine_is_dead(coordination: liveness.Service, other: Other) -> None:
    stopped = claims.Liveness(coordination.url)
    stopped.start()
    assert not other.thinks_dead(stopped.name)
    stopped.stop()
    # A database frees the lock when it has seen that the connection is gone.
    assert within(lambda: other.thinks_dead(stopped.name), TTL / 3)


@EVERY
def test_a_lock_that_is_taken_away_is_noticed(
    engine: claims.Liveness, other: Other, coordination: liveness.Service, lost: threading.Event
) -> None:
    coordination.free(engine.name)
    assert within(lambda: other.thinks_dead(engine.name), TTL / 3)
    assert lost.wait(TTL)
    assert engine.lost.is_set()
    assert not within(other.knows_it_lost, TTL / 3)


@SOME
def test_an_engine_that_sleeps_past_its_time_knows_it_when_it_wakes(
    engine: claims.Liveness, other: Other, coordination: liveness.Service
) -> None:
    """But with file:// a process holds its lock for as long as it is there."""
    other.signal(signal.SIGSTOP)
    try:
        slept_too_long = within(lambda: engine.is_dead(other.name), TTL * 2)
    finally:
        other.signal(signal.SIGCONT)
    assert slept_too_long == (coordination.server is not None)
    assert within(other.knows_it_lost, TTL) == slept_too_long


@SERVERS
def test_a_service_that_is_away(
    coordination: liveness.Service,
    engine: claims.Liveness,
    lost: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody is dead for that, no Job is taken, and it is said once. Later it is the same service still."""
    assert coordination.server is not None and engine.sure
    caplog.set_level(logging.INFO)
    coordination.server.kill()
    assert not engine.is_dead("somebody")
    kept = not isinstance(coordination.server, servers.Database)
    assert within(lambda: not engine.sure, TTL * 2)
    assert lost.is_set() != kept        # a session ends with its server: that is known at once
    with pytest.raises(ToozError, match="coordination_url can not be used"):
        claims.Liveness(coordination.url).start()
    coordination.server.start()
    if kept:
        assert within(lambda: engine.sure or lost.is_set(), TTL * 2)
    assert lost.is_set() == coordination.forgets
    assert len([text for text in caplog.messages if "can not be asked" in text]) == 1
    anew = claims.Liveness(coordination.url, former=[engine.name])
    anew.start()
    assert anew.marker == engine.marker
    assert anew.is_dead(engine.name)
    anew.stop()


def test_marker_says_whose_locks_can_be_judged(tmp_path: pathlib.Path, conf: cfg.ConfigOpts) -> None:
    def started(folder: str) -> tuple[str, str]:
        made = claims.Liveness(f"file://{tmp_path}/{folder}")
        made.start()
        made.stop()
        return made.name, made.marker

    (first, here), (second, also_here), (_, there) = map(started, ("locks", "locks", "elsewhere"))
    assert first != second
    assert here == also_here != there
    assert (tmp_path / "locks").stat().st_mode & 0o077 == 0
    assert not list((tmp_path / "locks").glob("*-*"))       # no lock is left over


@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_another_service_has_another_marker(
    request: pytest.FixtureRequest, conf: cfg.ConfigOpts, tmp_path: pathlib.Path, kind: str
) -> None:
    """Also where both are reached by the same URL, each from its own host."""
    server = cast(servers.Server, request.getfixturevalue(kind))
    with type(server)(tmp_path / "second") as second:
        found = []
        for each in (server, second, server):
            made = claims.Liveness(liveness.KINDS[kind](each).url)
            made.start()
            found.append(made.marker)
            made.stop()
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("moon://{auth}127.0.0.1", "must begin with"),
        ("sqlite:////tmp/x", "must begin with"),
        ("{auth}127.0.0.1", "no URL"),
        ("redis://:to/pp-secret@127.0.0.1", "no URL"),
        ("postgresql://ciming:to/pp-secret@127.0.0.1/x", "no URL"),
        ("file://locks", "whole path"),
        ("postgresql://{auth}127.0.0.1:{port}/x", "refused"),
        ("mysql://{auth}127.0.0.1:{port}/x", "refused"),
        ("etcd3+http://127.0.0.1:{port}", "can not be used"),
        ("redis://{auth}127.0.0.1:{port}", "refused"),
    ],
)
def test_a_url_of_no_use_is_said_without_its_password(conf: cfg.ConfigOpts, url: str, said: str) -> None:
    port = processes.free_block(str(uuid.uuid4()))
    with pytest.raises((exceptions.NotReady, ToozError)) as caught:
        claims.Liveness(url.format(auth="ciming:topp-secret@", port=port)).start()
    assert said in str(caught.value) and "coordination_url" in str(caught.value)
    assert "pp-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [
        ("postgresql://127.0.0.1/x", "psycopg2", "ciming[postgresql]"),
        ("mysql://127.0.0.1/x", "pymysql", "ciming[mysql]"),
        ("etcd3+http://127.0.0.1", "etcd3gw", "ciming[etcd]"),
        ("redis://127.0.0.1", "redis", "ciming[redis]"),
    ],
)
def test_a_driver_that_is_missing_is_named(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch, url: str, driver: str, extra: str
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == driver or name.startswith("tooz.drivers"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(exceptions.NotReady, match=re.escape(extra)):
        claims.Liveness(url).start()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "redis"])
def test_a_wrong_password_is_not_repeated(
    request: pytest.FixtureRequest, conf: cfg.ConfigOpts, kind: str
) -> None:
    right = liveness.KINDS[kind](request.getfixturevalue(kind)).url
    password = right.partition("@")[0].rpartition(":")[2]
    with pytest.raises(ToozError, match="coordination_url can not be used") as caught:
        claims.Liveness(right.replace(password, "topp-secret")).start()
    assert "topp-secret" not in str(caught.value)


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
    assert list(claims.take(engine, rows.AREA, running)) == [
        work.Claim(theirs, engine.name, 2, kind="create", project_id="studio")
    ]


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
