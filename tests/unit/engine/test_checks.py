# SPDX-License-Identifier: Apache-2.0
"""Whether a Cloud can be used, as an engine answers it; what a Cloud says is tested on real ones."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from ciming import custody, exceptions, rpc, sealing
from ciming.engine import checks, slots, tools
from ciming.providers import base

BUNDLE = sealing.Bundle(token="swordfish")
PLACE = {"cloud_key": "id-1", "cloud": "other", "provider": "openstack", "region": "RegionOne"}
pytestmark = pytest.mark.usefixtures("conf")


class Cloud:
    """Answers, until it hangs, so many times, or breaks."""

    def __init__(self, error: Exception | None = None, hangs: int = 0) -> None:
        self.error = error
        self.hangs = hangs
        self.hung_up = threading.Semaphore(0)     # each time counts, also before anybody waits
        self.over = threading.Event()

    def probe(self) -> Iterator[base.Verdict]:
        yield base.Verdict("login", True, "In.")
        if self.error:
            raise self.error
        for _ in range(self.hangs):
            self.hung_up.acquire(timeout=60)
        yield base.Verdict("create", False, "No.")
        self.over.set()

    def hang_up(self) -> None:
        self.hung_up.release()


def verdicts(monkeypatch: pytest.MonkeyPatch, cloud: Any, patience: float = 30) -> rpc.Verdicts:
    def provider_of(job: Any, place: Any, patience: float) -> Any:
        assert patience == cfg.CONF.engine.look_timeout
        assert (job.project_id, custody.of(job.id), place._asdict()) == ("studio", BUNDLE, PLACE)
        if isinstance(cloud, Exception):
            raise cloud
        return cloud

    monkeypatch.setattr(tools, "provider_of", provider_of)
    return checks.check("studio", BUNDLE, PLACE, patience)


def told(found: rpc.Verdicts) -> list[tuple[Any, Any]]:
    return [(each["check"], each["passed"]) for each in found]


def test_all_that_was_seen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verdicts(monkeypatch, Cloud())
    assert told(found) == [("credential", True), ("login", True), ("create", False)]
    assert found[2] == {"check": "create", "passed": False, "message": "No."}


def test_without_a_credential_there_is_nothing_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verdicts(monkeypatch, exceptions.ProviderError("It is gone."))
    assert found == [{"check": "credential", "passed": False, "message": "It is gone."}]


def test_one_that_hangs_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "REMOVAL_SECONDS", 0.1)
    before = dict(custody._HELD)
    cloud = Cloud(hangs=4)
    found = verdicts(monkeypatch, cloud, patience=0.2)
    assert told(found) == [("credential", True), ("login", True), ("answer", False)]
    assert "other did not answer" in found[2]["message"]
    assert cloud.over.wait(10)      # it was hung up on until it came to its end
    until = time.monotonic() + 10
    while before != custody._HELD and time.monotonic() < until:
        time.sleep(0.01)
    assert before == custody._HELD


def test_too_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that nobody waits for any more count until they are over; those that can not begin do not."""
    monkeypatch.setattr(checks, "SLOTS", slots.Slots(slots.Limits(2, per_project=1)))
    monkeypatch.setattr(checks, "REMOVAL_SECONDS", 60.0)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        assert told(verdicts(monkeypatch, Cloud())) == [("check", False)]
    cloud = Cloud(hangs=2)
    assert told(verdicts(monkeypatch, cloud, patience=0.2))[-1] == ("answer", False)
    [found] = verdicts(monkeypatch, Cloud())
    assert not found["passed"] and "too many Clouds" in found["message"]
    cloud.hung_up.release()
    assert cloud.over.wait(10)
    until = time.monotonic() + 10
    while told(verdicts(monkeypatch, Cloud())) == [("check", False)] and time.monotonic() < until:
        time.sleep(0.01)
    assert len(verdicts(monkeypatch, Cloud())) == 3


def _no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_what_nobody_expected_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verdicts(monkeypatch, Cloud(error=RuntimeError("swordfish")))
    assert told(found) == [("credential", True), ("login", True), ("check", False)]
    assert "swordfish" not in str(found)
