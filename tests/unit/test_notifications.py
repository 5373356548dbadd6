# SPDX-License-Identifier: Apache-2.0
"""Notifications without a broker; with one they are tested in tests/functional."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from oslo_config import cfg
from oslo_messaging.notify import _impl_test

from ciming import metrics, notifications
from tests.unit import rows

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.sqlite]
EVENTS = 5


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "notifications"]


def lost() -> float:
    [counter] = metrics.LOST.collect()
    return counter.samples[0].value


@pytest.fixture
def deaf(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A broker that takes a connection and says nothing."""
    notifications._sender.cache_clear()
    monkeypatch.setattr(notifications, "WAITING", EVENTS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"rabbit://ciming:swordfish@127.0.0.1:{taken.getsockname()[1]}/"
        options = {"driver": ["messagingv2"], "transport_url": url, "retry": 1}
        for name, value in options.items():
            conf.set_override(name, value, group=notifications.GROUP)
        yield taken
    notifications.stop()        # that it hangs up lets go of the thread
    for name in options:
        conf.clear_override(name, group=notifications.GROUP)
    notifications._sender.cache_clear()


def test_nobody_is_told_by_default(conf: cfg.ConfigOpts) -> None:
    notifications.check()
    notifications.job("start", rows.make_job(), "running")
    notifications.stop()
    assert not threads()


def test_nobody_waits_for_a_broker(deaf: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """So many wait to be sent, the others are lost: that is counted, and said."""
    job = rows.make_job()
    at_first = lost()
    began = time.monotonic()
    for _ in range(EVENTS + 3):
        notifications.job("start", job, "running")
    assert time.monotonic() - began < 1
    now = lost() - at_first
    assert now in (2, 3)        # one may be on its way
    said = [record.getMessage() for record in caplog.records if "is lost" in record.getMessage()]
    assert said == ["The notification job.start is lost: 5 others wait to be sent"] * int(now)


def test_payload_of_a_job_that_failed(conf: cfg.ConfigOpts) -> None:
    """Codes, and not the texts: what a cloud says is for the Job's owner."""
    notifications._sender.cache_clear()
    options = {"driver": ["test"], "transport_url": "fake://"}      # oslo.messaging's own, which keeps them
    for name, value in options.items():
        conf.set_override(name, value, group=notifications.GROUP)
    try:
        notifications.check()
        job = rows.make_job(request_id="req-1")
        job.error = {"code": "image.rejected", "message": "swordfish"}
        job.targets[0].error = {"code": "cloud.forbidden", "message": "swordfish"}
        notifications.job("error", job, "error")
        notifications.stop()
        [(_context, event, priority, _retry)] = _impl_test.NOTIFICATIONS
    finally:
        _impl_test.reset()
        for name in options:
            conf.clear_override(name, group=notifications.GROUP)
        notifications._sender.cache_clear()
    payload = event["payload"]
    assert (event["event_type"], priority, payload["status"]) == ("job.error", "ERROR", "error")
    assert payload["error_code"] == "image.rejected"
    codes = {target["cloud"]: target["error_code"] for target in payload["targets"]}
    assert codes == {"zone-a": "cloud.forbidden", "zone-b": None}
    assert payload["created_at"].endswith("Z") and payload["started_at"] is None
    assert "swordfish" not in str(event) and "trust" not in str(event)
