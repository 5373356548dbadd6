# SPDX-License-Identifier: Apache-2.0
import itertools
import threading
import time
from typing import Any

import pytest
from openstack import exceptions

from cimingclient.sdk import _proxy, _waiting
from cimingclient.sdk import job as _job
from tests.unit.cimingclient import stub as _stub

BUSY = _stub.Refusal(503, "Back in a moment", "service.unavailable")


@pytest.mark.parametrize("status", ["success", "partial", "error", "cancelled", "waiting-credentials"])
def test_waiting_stops_where_nothing_moves_any_more(
    stub: _stub.Stub, client: _proxy.Proxy, status: str
) -> None:
    states = ["uploading", "queued", "running", status]
    stub.jobs["j"] = [_stub.job(state, identity="j") for state in states]
    seen: list[str] = []
    job = client.wait_for_job("j", progress=lambda job: seen.append(job.status))
    assert job.status == status
    assert seen == states


def test_a_service_that_restarts_is_waited_for(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.jobs["j"] = [_stub.job("success", identity="j")]
    stub.refuse("GET /v1/jobs/j", BUSY, _stub.Refusal(500, "?"), _stub.Refusal(429, "Slowly"))
    assert client.wait_for_job("j").status == "success"


def test_not_for_ever(stub: _stub.Stub, client: _proxy.Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_waiting, "PATIENCE", 0.0)
    stub.refuse("GET /v1/jobs/j", *[BUSY] * 9)
    with pytest.raises(exceptions.HttpException, match="Back in a moment"):
        client.wait_for_job("j")


def test_patience_begins_with_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that question took."""
    monkeypatch.setattr(_waiting, "PATIENCE", 0.2)
    done = _job.Job.existing(**_stub.job("success"))
    asked = 0

    def fetch() -> _job.Job:
        nonlocal asked
        asked += 1
        if asked % 2:
            return _job.Job.existing(**_stub.job("running")) if asked < 4 else done
        time.sleep(0.3)
        raise exceptions.HttpException("Away", http_status=503)

    assert _waiting.wait(fetch, None, 2.0, None).status == "success"
    assert asked == 5


def test_an_answer_that_does_not_come_is_asked_for_again(
    stub: _stub.Stub, client: _proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_waiting, "ANSWER", 0.3)
    stub.jobs["j"] = [_stub.job("success", identity="j")]
    answer, late = _stub.Stub._read, threading.Event()

    def slow(self: _stub.Stub, *args: Any) -> Any:
        if stub.calls.count("GET /v1/jobs/j") == 1:
            late.wait(20)
        return answer(self, *args)

    monkeypatch.setattr(_stub.Stub, "_read", slow)
    began = time.monotonic()
    assert client.wait_for_job("j").status == "success"
    assert time.monotonic() - began < 10
    late.set()


def test_what_will_not_change_is_not_waited_for(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    with pytest.raises(exceptions.NotFoundException):
        client.wait_for_job("gone")
    assert stub.calls.count("GET /v1/jobs/gone") == 1


def test_what_ends_soon_is_seen_soon_and_what_takes_long_is_asked_for_seldom() -> None:
    waited, asked = 0.0, []
    while waited < 3600:
        asked.append(waited)
        waited += _waiting._pause(waited, 2.0, _waiting._SHORTEST)
    gaps = [later - before for before, later in itertools.pairwise(asked)]
    early = [gap for gap, at in zip(gaps, asked, strict=False) if at < 2]
    assert max(early) < 0.09        # and the question itself
    assert max(gaps) == pytest.approx(2.0)
    assert len(asked) < 2000        # one in two seconds or so


@pytest.mark.parametrize(
    ("done", "total", "shortest"), [(25, 100, 0.2), (100, 100, 0.05), (25, None, 0.05), (0, 0, 0.05)]
)
def test_as_long_as_bytes_move_it_is_asked_less_often(
    stub: _stub.Stub,
    client: _proxy.Proxy,
    monkeypatch: pytest.MonkeyPatch,
    done: int,
    total: int | None,
    shortest: float,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    amount = {"bytes_done": done, "bytes_total": total}
    stub.jobs["j"] = [
        _stub.job("running", identity="j", progress=amount),
        _stub.job("success", identity="j"),
    ]
    client.wait_for_job("j")
    assert pauses == [pytest.approx(shortest)]


def test_a_timeout_gives_up_watching(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.jobs["j"] = [_stub.job("running", identity="j")]
    with pytest.raises(exceptions.ResourceTimeout):
        client.wait_for_job("j", timeout=0.15)
