# SPDX-License-Identifier: Apache-2.0
"""What goes on in an engine, whatever happens, on a real database file."""

import threading

import pytest
from oslo_config import cfg

from ciming import exceptions, staging, trusts
from ciming.db import api, work
from ciming.engine import service
from tests.unit import rows


def test_housekeeping_outlives_a_database_that_goes_away(
    conf: cfg.ConfigOpts, database: rows.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = staging.StagingArea(conf.staging.path, quota=0, keep_free=0)
    claim = rows.take(rows.make_job().id)
    work.finish(claim, purge=True)

    def delete(_trust_id: str) -> bool:
        database.take_away()
        return True

    monkeypatch.setattr(trusts, "delete", delete)
    assert not service.keep_house(area, threading.Event())


def test_housekeeping_outlives_whatever_happens(
    conf: cfg.ConfigOpts, database: rows.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf.set_override("housekeeping_interval", 0.1, group="engine")
    engine, times = service.Engine(), iter(range(3))

    def keep_house(_area: object, stopping: threading.Event) -> None:
        if next(times) == 2:
            stopping.set()
        raise exceptions.Interrupted

    monkeypatch.setattr(service, "keep_house", keep_house)
    engine._house_loop()
    assert next(times, None) is None


def test_an_engine_that_stops_claims_nothing(conf: cfg.ConfigOpts, database: rows.Database) -> None:
    """Also in the midst of a look at the queue."""
    engine = service.Engine()
    term = engine._term
    term.liveness.start()
    jobs = [rows.make_job(marker=engine._area.marker).id for _ in range(3)]
    started: list[str] = []

    def start(claim: work.Claim) -> None:
        started.append(claim.job_id)
        term.end()

    term.runner.start = start  # type: ignore[method-assign]
    try:
        for _ in range(2):
            engine._look()
    finally:
        term.close()
    assert started == [job_id for job_id in jobs if api.get_job(job_id, None).generation]
    assert len(started) == 1
