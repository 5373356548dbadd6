# SPDX-License-Identifier: Apache-2.0
"""Who calls an engine gets its answer; the functional tests do so through a broker."""

import contextlib
import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import oslo_messaging as messaging
import pytest
from oslo_config import cfg

from ciming import exceptions, places, rpc, sealing

PLACE = {"cloud": "other", "region": None}
BUNDLE = sealing.Bundle("swordfish", {"id-1": {"password": "marlin"}})
RABBITMQ_TAKES = 16 << 20       # as it comes, since 4.0
HERE, ELSEWHERE = "area-1", "area-2"


class Engine:
    """Notes what it is asked."""

    def __init__(self, name: str = "engine-1", error: Exception | None = None) -> None:
        self.name = name
        self.error = error
        self.heard: list[tuple[Any, ...]] = []

    def knocked(self) -> None:
        self.heard.append(("knocked",))

    def check(self, *what: Any) -> rpc.Verdicts:
        self.heard.append(what)
        if self.error:
            raise self.error
        return [{"check": "login", "passed": None, "message": "é"}]

    def look(self, *what: Any) -> list[rpc.Seen]:
        self.heard.append(what)
        return [{"found": {"é": None}}]

    def plan_zones(self, *what: Any) -> dict[str, Any]:
        self.heard.append(what)
        return {"plan": {"entries": ["é"]}}

    def take(self, *what: Any) -> tuple[str, str]:
        self.heard.append(what)
        if self.error:
            raise self.error
        return self.name, "locks-1"


@pytest.fixture(autouse=True)
def _in_process(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(rpc, "_url", "fake://")
    monkeypatch.setattr(rpc, "CALL_SECONDS", 10.0)
    rpc.transport()     # or the option is not known
    conf.set_override("control_exchange", str(uuid.uuid4()))    # the knocks of other tests are in theirs
    for way in (rpc.transport, rpc.direct):
        way.cache_clear()
    yield
    conf.clear_override("control_exchange")
    for way in (rpc.transport, rpc.direct):
        way.cache_clear()


@contextlib.contextmanager
def listening(engine: Engine, marker: str = HERE) -> Iterator[None]:
    listener = rpc.Listener(engine, marker)
    listener.start()
    try:
        yield
    finally:
        listener.stop()


def test_a_call_is_answered() -> None:
    engine = Engine()
    with listening(engine):
        verdicts = rpc.check_cloud("studio", BUNDLE, PLACE, HERE)
    assert verdicts == [{"check": "login", "passed": None, "message": "é"}]
    assert engine.heard == [("studio", BUNDLE, PLACE)]


def test_what_is_handed_over_is_held_by_the_one_that_answers() -> None:
    """Of two engines near the same staging area one has it, and is the one that is told to begin."""
    engines = [Engine("engine-1"), Engine("engine-2")]
    with listening(engines[0]), listening(engines[1]):
        holder = rpc.hand_over("job-1", BUNDLE, HERE)
        has_it = next(each for each in engines if each.name == holder.owner)
        rpc.knock("job-1", holder)
        deadline = time.monotonic() + 10
        while has_it.heard[1:] != [("knocked",)] and time.monotonic() < deadline:
            time.sleep(0.01)
    assert holder.lock_marker == "locks-1" and has_it.heard == [("job-1", BUNDLE), ("knocked",)]
    assert [each.heard for each in engines if each is not has_it] == [[]]


def test_what_travels_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    call = rpc._call

    def noting(client: Any, method: str, **arguments: Any) -> Any:
        sent.append(f"{method} {arguments}")
        return call(client, method, **arguments)

    monkeypatch.setattr(rpc, "_call", noting)
    with listening(Engine()):
        rpc.hand_over("job-1", BUNDLE, HERE)
        rpc.check_cloud("studio", BUNDLE, PLACE, HERE)
    assert [each.partition(" ")[0] for each in sent] == ["offer", "take", "offer", "check_cloud"]
    assert "swordfish" not in str(sent) and "marlin" not in str(sent)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine with another staging area can not run a Job whose bytes come here."""
    monkeypatch.setattr(rpc, "OFFER_SECONDS", 0.2)
    engine = Engine()
    with listening(engine, ELSEWHERE):
        with pytest.raises(exceptions.Unavailable, match="No engine answers"):
            rpc.check_cloud("studio", BUNDLE, PLACE, HERE)
        with pytest.raises(exceptions.Unavailable, match="No engine answers"):
            rpc.hand_over("job-1", BUNDLE, HERE)
    assert engine.heard == []


def test_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls is told so, although oslo.messaging goes on to look for it."""
    monkeypatch.setattr(rpc, "_url", "rabbit://guest:guest@127.0.0.1:1/")
    monkeypatch.setattr(rpc, "OFFER_SECONDS", 0.3)
    monkeypatch.setattr(rpc, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(rpc, "CALLS", threading.BoundedSemaphore(2))
    for message in ("No engine answers", "No engine answers", "Too many wait"):
        with pytest.raises(exceptions.Unavailable, match=message):
            rpc.hand_over("job-1", BUNDLE, HERE)


def long_plan(images: int, zones: int) -> dict[str, Any]:
    """Of images that are in no target."""
    draw = random.Random(7)

    def of(image: int) -> Iterator[dict[str, Any]]:
        carry = {"tags": ["é"], "properties": {"os_distro": "debian"}, "visibility": "private"}
        said = {"image": str(uuid.UUID(int=draw.getrandbits(128))), "name": f"image-{image}", "why": None}
        said |= {"owner": f"{draw.getrandbits(128):032x}", "digest": f"sha512:{draw.getrandbits(512):0128x}"}
        for zone in range(zones):
            yield {"symbol": "+", "zone": f"zone-{zone}", "there": None, **said, "carry": carry}

    return {"plan": {"entries": [entry for image in range(images) for entry in of(image)]}}


def test_a_long_plan_is_one_message_that_a_broker_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it is said that it is none: a message that is too long is no answer at all."""
    plan, sent = long_plan(10_000, 20), []
    direct = rpc._Direct.plan_zones

    def noting(self: rpc._Direct, *arguments: Any, **named: Any) -> str:
        sent.append(direct(self, *arguments, **named))
        return sent[-1]

    monkeypatch.setattr(rpc._Direct, "plan_zones", noting)
    engine = Engine()
    monkeypatch.setattr(engine, "plan_zones", lambda *_: plan)
    with listening(engine):
        assert rpc.plan_zones("studio", BUNDLE, {}, HERE) == plan
        assert len(json.dumps(plan)) > 4 * RABBITMQ_TAKES and len(sent[0]) <= rpc.LARGEST < RABBITMQ_TAKES
        monkeypatch.setattr(rpc, "LARGEST", len(sent[0]) - 1)
        assert rpc.plan_zones("studio", BUNDLE, {}, HERE) == {"error": rpc.TOO_LONG}


def test_many_images_that_were_seen_are_one_message_that_a_broker_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or who asks is told to ask for fewer; so where what is to be looked at is too much."""
    said = {"properties": {f"property {n}": "é" * 255 for n in range(rpc.MOST_PROPERTIES)}, "tags": ["x"]}
    seen = [{"found": {f"id-{n}": {"name": f"image {n}", **said} for n in range(1000)}, "error": None}]
    what = {"wanted": [{"images": {f"id-{n}": "x" for n in range(9)}}]}
    sent: list[str] = []
    direct = rpc._Direct.look

    def noting(self: rpc._Direct, *arguments: Any, **named: Any) -> str:
        sent.append(direct(self, *arguments, **named))
        return sent[-1]

    monkeypatch.setattr(rpc._Direct, "look", noting)
    engine = Engine()
    monkeypatch.setattr(engine, "look", lambda *asked: seen if asked[-1] == what else None)
    with listening(engine):
        assert rpc.look("look", "studio", BUNDLE, what, HERE) == seen
        assert len(json.dumps(seen)) > RABBITMQ_TAKES and len(sent[0]) <= rpc.LARGEST
        for most in (len(sent[0]) - 1, 10):
            monkeypatch.setattr(rpc, "LARGEST", most)
            with pytest.raises(exceptions.InvalidRequest, match="smaller page") as caught:
                rpc.look("look", "studio", BUNDLE, what, HERE)
            assert (caught.value.code, caught.value.field) == ("request.too_much", "limit")
    assert len(sent) == 2       # the last was not even asked


def test_plans_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "PLANS", places.Places(1, 1))
    monkeypatch.setattr(places, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(rpc, "OFFER_SECONDS", 0.2)
    for message in ("No engine answers", "No engine answers"):      # whatever becomes of one, it is over then
        with pytest.raises(exceptions.Unavailable, match=message):
            rpc.plan_zones("studio", BUNDLE, {}, HERE)
    with rpc.PLANS.one("studio", ""), pytest.raises(exceptions.Unavailable, match="Too many plans"):
        rpc.plan_zones("studio", BUNDLE, {}, HERE)


def test_looks_leave_room_for_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "LOOKS", places.Places(1, 1))
    monkeypatch.setattr(places, "WAIT_SECONDS", 0.1)
    with listening(Engine()):
        for _ in range(2):
            rpc.look("match", "studio", BUNDLE, {}, HERE)
            rpc.check_cloud("studio", BUNDLE, PLACE, HERE)
        with rpc.LOOKS.one("studio", ""):
            with pytest.raises(exceptions.Unavailable, match="Too many look"):
                rpc.look("match", "studio", BUNDLE, {}, HERE)
            with pytest.raises(exceptions.Unavailable, match="Too many look"):
                rpc.check_cloud("studio", BUNDLE, PLACE, HERE)
            assert rpc.hand_over("job-1", BUNDLE, HERE).owner == "engine-1"


def test_one_project_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it asks for: looks at Clouds that hang, and plans, take long."""
    monkeypatch.setattr(places, "WAIT_SECONDS", 0.1)

    def taken(by: str) -> int:
        with contextlib.ExitStack() as stack:
            for count in range(100):
                try:
                    stack.enter_context(each.one(by, "Too many."))
                except exceptions.Unavailable:
                    return count
        return 100

    for each in (rpc.LOOKS, rpc.PLANS):
        with contextlib.ExitStack() as all_of_one:
            with contextlib.suppress(exceptions.Unavailable):
                while True:
                    all_of_one.enter_context(each.one("studio", "Too many."))
            assert taken("lab") > 0
    with listening(Engine()):
        assert rpc.look("match", "studio", BUNDLE, {}, HERE)       # all gave their places back


def test_what_went_wrong_there_is_not_told() -> None:
    with listening(Engine(error=RuntimeError("swordfish"))):
        with pytest.raises(exceptions.Unavailable) as caught:
            rpc.check_cloud("studio", BUNDLE, PLACE, HERE)
        assert "swordfish" not in str(caught.value)
        with pytest.raises(exceptions.Unavailable) as caught:
            rpc.hand_over("job-1", BUNDLE, HERE)
    assert "swordfish" not in str(caught.value)


def test_calls_use_queues_that_are_in_no_file(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the broker's other queues are like."""
    monkeypatch.setattr(rpc, "_url", "rabbit://guest:guest@127.0.0.1:1/")
    url = rpc.direct()._driver._url
    conf.set_override("rabbit_quorum_queue", True, group="oslo_messaging_rabbit")
    options = messaging._drivers.common.ConfigOptsProxy(conf, url, "oslo_messaging_rabbit")
    found = options.oslo_messaging_rabbit
    assert not found.rabbit_quorum_queue and not found.amqp_durable_queues and found.amqp_auto_delete
