# SPDX-License-Identifier: Apache-2.0
"""Who calls an engine gets its answer; the functional tests do so through a broker."""

from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from ciming import exceptions, rpc

PLACE = {"cloud": "other", "region": None}


@pytest.fixture(autouse=True)
def _in_process(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(rpc, "_url", "fake://")
    monkeypatch.setattr(rpc, "CALL_SECONDS", 10.0)
    rpc.transport.cache_clear()
    yield
    rpc.transport.cache_clear()


def test_a_call_is_answered() -> None:
    asked: list[tuple[Any, ...]] = []

    def check(*what: Any) -> rpc.Verdicts:
        asked.append(what)
        return [{"check": "login", "passed": None, "message": "é"}]

    listener = rpc.Listener(lambda _job_id: None, check)
    listener.start()
    try:
        assert rpc.check_cloud("studio", "trust-1", PLACE) == [
            {"check": "login", "passed": None, "message": "é"}
        ]
        assert asked == [("studio", "trust-1", PLACE)]
    finally:
        listener.stop()


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "CALL_SECONDS", 0.2)
    with pytest.raises(exceptions.Unavailable, match="No engine answers"):
        rpc.check_cloud("studio", "trust-1", PLACE)


def test_what_went_wrong_there_is_not_told() -> None:
    def check(*_what: Any) -> rpc.Verdicts:
        raise RuntimeError("swordfish")

    listener = rpc.Listener(lambda _job_id: None, check)
    listener.start()
    try:
        with pytest.raises(exceptions.Unavailable) as caught:
            rpc.check_cloud("studio", "trust-1", PLACE)
    finally:
        listener.stop()
    assert "swordfish" not in str(caught.value)
