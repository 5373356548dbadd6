# SPDX-License-Identifier: Apache-2.0
"""Looks at several Clouds at the same time; what a Cloud says is tested on real ones."""

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from oslo_config import cfg

from ciming import custody, exceptions, rpc, sealing
from ciming.engine import looks, slots, tools
from ciming.providers import base

BUNDLE = sealing.Bundle(token="swordfish", clouds={"id-2": {"password": "marlin"}})


def metadata(ref: str, **more: Any) -> base.Metadata:
    said = {"image_ref": ref, "name": ref, "status": "active", "state": "ready", "owner": "us"}
    return base.Metadata(**{**said, **more})


class Cloud:
    """Has some images; may hang, or break, after the first."""

    ordered = False

    def __init__(self, *images: base.Metadata, error: Exception | None = None, hangs: bool = False) -> None:
        self.images = images
        self.error = error
        self.hangs = hangs
        self.hung_up = threading.Event()

    def look(self, refs: Mapping[str, str]) -> Iterator[base.Metadata]:
        return (each for each in self.list({}) if each.image_ref in refs)

    def list(self, filters: Mapping[str, str]) -> Iterator[base.Metadata]:
        for each in self.images:
            if base.fits(each, filters):
                yield each
            if self.hangs:
                self.hung_up.wait(60)
                raise exceptions.TransientProviderError("It was hung up on.")
            if self.error:
                raise self.error

    def ours(self) -> Mapping[str, str]:
        return {"owner": "us"}

    def hang_up(self) -> None:
        self.hung_up.set()


@pytest.fixture
def clouds(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Those there are, by name."""
    there: dict[str, Any] = {}

    def provider_of(job: Any, place: Any, patience: float) -> Any:
        assert patience == 0.5
        assert (job.project_id, custody.of(job.id), job.spec) == ("studio", BUNDLE, {"given": ["id-2"]})
        if isinstance(there[place.cloud], Exception):
            raise there[place.cloud]
        return there[place.cloud]

    monkeypatch.setattr(tools, "provider_of", provider_of)
    conf.set_override("look_timeout", 0.5, group="engine")
    yield there
    conf.clear_override("look_timeout", group="engine")


def place(name: str) -> dict[str, Any]:
    return {"cloud_key": name, "cloud": name, "provider": "openstack", "region": None}


def look(*names: str, **images: str) -> list[dict[str, Any]]:
    wanted = [{"place": place(name), "images": images or {"one": "one"}} for name in names]
    return looks.look("studio", BUNDLE, wanted)


def test_one_that_hangs_delays_nobody(clouds: dict[str, Any]) -> None:
    clouds.update(good=Cloud(metadata("one")), hanging=Cloud(metadata("one"), metadata("two"), hangs=True))
    since = time.monotonic()
    good, hanging = look("good", "hanging", one="one", two="two")
    assert 0.5 <= time.monotonic() - since < 1.5
    assert (set(good["found"]), good["error"]) == ({"one"}, None)
    assert (set(hanging["found"]), hanging["status"]) == ({"one"}, "unreachable")    # what it said by then
    assert "hanging did not answer within 0.5 s" in hanging["error"]["message"]
    assert clouds["hanging"].hung_up.is_set()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (exceptions.ProviderError("No.", code="cloud.forbidden", cloud_request_id="req-1"), "forbidden"),
        (exceptions.ProviderError("No.", code="credential.not_readable"), "forbidden"),
        (exceptions.CredentialRefused("No."), "forbidden"),
        (exceptions.TransientProviderError("No.", code="credential.unavailable"), "unreachable"),
        (exceptions.ProviderError("No.", code="cloud.no_endpoint"), "unreachable"),
        (RuntimeError("swordfish"), "unreachable"),
    ],
)
def test_errors(clouds: dict[str, Any], error: Exception, status: str) -> None:
    clouds.update(refusing=error, breaking=Cloud(metadata("one"), error=error))
    for seen in look("refusing", "breaking", one="one", two="two"):
        assert seen["status"] == status and "swordfish" not in str(seen)
        assert seen["error"]["cloud_request_id"] == getattr(error, "cloud_request_id", None)


def test_what_is_gone_may_have_a_successor(clouds: dict[str, Any]) -> None:
    theirs = metadata("theirs", name="one", owner="others")
    clouds["zone"] = Cloud(theirs, metadata("three", name="one"), metadata("four"))
    for names in ({"one": "one"}, {str(each): str(each) for each in range(9)} | {"one": "one"}):
        (seen,) = look("zone", **names)
        assert [each["image_ref"] for each in seen["namesakes"]["one"]] == ["three"]
        assert (seen["found"], seen["error"]) == ({}, None)


def test_it_is_hung_up_on_again_and_again(
    clouds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two calls there is nothing to be ended."""
    monkeypatch.setattr(looks, "HANG_UP_SECONDS", 0.1)
    over = threading.Event()

    class Stubborn(Cloud):
        def look(self, refs: Mapping[str, str]) -> Iterator[base.Metadata]:
            for _ in range(3):
                self.hung_up.wait(60)
                self.hung_up.clear()
            over.set()
            yield from ()

    clouds["zone"] = Stubborn()
    assert look("zone")[0]["status"] == "unreachable"
    assert over.wait(10)


def test_nothing_is_kept(clouds: dict[str, Any]) -> None:
    before = dict(custody._HELD)
    clouds["zone"] = Cloud(metadata("one"))
    look("zone")
    assert before == custody._HELD


def test_pages_of_what_has_no_order(clouds: dict[str, Any]) -> None:
    clouds["zone"] = Cloud(*map(metadata, "dbeac"))
    found, marker = [], None
    for more in (True, True, False):
        (seen,) = looks.browse("studio", BUNDLE, place("zone"), {}, marker, 2)
        found += seen["found"]
        assert seen["more"] == more
        marker = found[-1]
    assert found == list("abcde")


def test_equals(clouds: dict[str, Any]) -> None:
    clouds["zone"] = Cloud(metadata("one", digests={"sha512": "aa"}), metadata("two", digests={"md5": "bb"}))
    for digests, refs in ((["aa"], {"one"}), (["aa", "bb"], {"one", "two"}), (["cc"], set())):
        (seen,) = looks.match("studio", BUNDLE, [place("zone")], digests)
        assert set(seen["found"]) == refs


def test_a_cloud_that_says_what_it_was_not_asked(clouds: dict[str, Any]) -> None:
    class Talkative(Cloud):
        def look(self, refs: Mapping[str, str]) -> Iterator[base.Metadata]:
            return iter(self.images)

    clouds["zone"] = Talkative(*map(metadata, ("one", "two", "three")))
    assert [{*each["found"]} for each in look("zone")] == [{"one"}]


def test_only_so_many_are_told(clouds: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And that there are more."""
    monkeypatch.setattr(looks, "MATCHES", 2)
    monkeypatch.setattr(looks, "NAMESAKES", 2)
    same = [metadata(ref, name="gone", digests={"md5": "aa"}) for ref in ("one", "two", "three", "four")]
    clouds.update(three=Cloud(*same[:3]), four=Cloud(*same))
    three, four = looks.match("studio", BUNDLE, [place("three"), place("four")], ["aa"])
    assert [*three["found"]] == ["one", "two", "three"] == [*four["found"]]
    assert three["error"] is None
    assert (four["status"], four["error"]["code"]) == ("unreachable", "cloud.too_many_matches")
    [seen] = look("four", ref="gone")
    assert [each["image_ref"] for each in seen["namesakes"]["ref"]] == ["one", "two"]


def test_too_many_at_once(clouds: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SLOTS", slots.Slots(slots.Limits(1)))
    clouds.update(hanging=Cloud(metadata("one"), hangs=True), zone=Cloud(metadata("one")))
    hanging, zone = look("hanging", "zone", one="one", two="two")
    assert [each["status"] for each in (hanging, zone)] == ["unreachable"] * 2
    assert "too many" in zone["error"]["message"]


def test_one_project_leaves_room_for_others(clouds: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose own Clouds wait for each other, as long as there is time."""
    made = slots.Slots(slots.Limits(4, per_project=2))
    monkeypatch.setattr(looks, "SLOTS", made)
    clouds.update({f"fast-{number}": Cloud(metadata("one")) for number in range(9)})
    assert {each["status"] for each in look(*clouds)} == {None}
    clouds.update({f"hanging-{number}": Cloud(metadata("one"), hangs=True) for number in range(2)})
    found = look("hanging-0", "hanging-1", "fast-0", one="one", two="two")
    assert ["too many" in each["error"]["message"] for each in found] == [False, False, True]
    slot = made.slot(project="others")

    def never() -> None:
        raise AssertionError

    slot.take(never)


def test_no_slot_is_lost(clouds: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there can be no more threads, or a Cloud can not be looked at."""
    monkeypatch.setattr(looks, "SLOTS", slots.Slots(slots.Limits(1)))
    clouds.update(zone=Cloud(metadata("one")), broken=RuntimeError("swordfish"))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        assert "too much" in look("zone")[0]["error"]["message"]
    assert [each["status"] for each in look("broken", "zone")] == ["unreachable", None]


def _no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_only_so_much_is_told(clouds: dict[str, Any]) -> None:
    properties = {f"os_{number}": "x" * 1000 for number in range(100)}
    clouds["zone"] = Cloud(metadata("one", properties=properties, tags=("t",) * 1000))
    told = look("zone")[0]["found"]["one"]
    assert (len(told["properties"]), len(told["tags"])) == (rpc.MOST_PROPERTIES, rpc.MOST_TAGS)
    assert {len(value) for value in told["properties"].values()} == {rpc.LONGEST}
