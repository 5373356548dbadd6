# SPDX-License-Identifier: Apache-2.0
"""How often zones are read that do not answer, and what a plan has of them."""

import itertools
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ciming import config, exceptions, zone_plans
from ciming.db import api, models, work, zone_work
from ciming.engine import comparing, watch, zone_sync
from ciming.providers import base
from tests.unit import rows
from tests.unit.db.test_zone_work import an_image, entry, plan, sync
from tests.unit.engine.test_comparing import ELSEWHERE, ONE, OTHER, like

ATTEMPTS = 3
AWAY = exceptions.TransientProviderError("zone-x does not answer.", code="cloud.unreachable")


class Zone:
    """Lists its images, or does not answer."""

    def __init__(self, name: str, zones: "Zones") -> None:
        self._name, self._zones = name, zones

    def survey(self, owner: str | None = None) -> Iterator[base.Surveyed]:
        self._zones.asked[self._name] += 1
        if self._name in self._zones.away:
            raise AWAY
        return (each for each in self._has if owner in (None, each.owner))

    @property
    def _has(self) -> list[base.Surveyed]:
        return self._zones.images.setdefault(self._name, [])

    def show(self, image_ref: str) -> base.Metadata | None:
        found = [each for each in self._has if each.image_ref == image_ref]
        visibility = self._zones.meanwhile.get(image_ref, "shared")
        if not found or visibility is None:
            return None
        return base.Metadata(image_ref, found[0].name, "active", "ready", visibility=visibility)

    def members(self, image_ref: str) -> list[str]:
        if image_ref in self._zones.meanwhile:
            code = "forbidden" if self._zones.meanwhile[image_ref] else "not_found"
            raise exceptions.ProviderError("It has no members.", code=f"cloud.{code}")
        return self._zones.shared_with

    def describe(self, image: str) -> base.Description | None:
        found = self.show(image)
        return base.Description(image, found.name, None, None) if found else None

    def delete(self, image_ref: str, alive: base.Alive = lambda: None) -> None:
        self._has[:] = [each for each in self._has if each.image_ref != image_ref]


class Zones:
    def __init__(self, *away: str, **images: list[base.Surveyed]) -> None:
        self.asked: Counter[str] = Counter()
        self.away = away
        self.meanwhile: dict[str, str | None] = {}      # visibility of images after they were listed
        self.shared_with = ["lab"]
        self.images = {"zone-a": [ONE]} | {name.replace("_", "-"): each for name, each in images.items()}

    def provider(self, zone: str) -> Any:
        return Zone(zone, self)


def kit(zones: Zones, *targets: str, everything: bool = False, **more: Any) -> Any:
    made: Any = zone_sync.ZoneTools.__new__(zone_sync.ZoneTools)
    request = {"from": "zone-a", "to": list(targets), "filters": {}, "members": False, "map_project": {}}
    made._zones, made._spec = zones, {"request": request | more, "everything": everything}
    made.job, made.alive, made._pause = models.Job(project_id="studio"), lambda: None, lambda *_: None
    made._fault, made._let_in, made.written = None, True, []
    made._write = lambda **values: made.written.append(values)
    return made


@pytest.fixture(autouse=True)
def _few_attempts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    config.register()
    config.CONF([], project="ciming", default_config_files=[], default_config_dirs=[])
    config.CONF.set_override("max_attempts", ATTEMPTS, group="engine")
    monkeypatch.setattr(zone_work, "linked", lambda *_: [])
    monkeypatch.setattr(zone_work, "used_by_others", lambda *_: [])
    yield
    config.CONF.clear_override("max_attempts", group="engine")


def planned(made: Any) -> dict[str, Any]:
    found: dict[str, Any] = made.attempt("plan", lambda: made._planned(made._tell))
    return found


def test_one_that_is_away_is_read_so_often_and_holds_up_no_other() -> None:
    zones = Zones("zone-c")
    made = kit(zones, "zone-b", "zone-c")
    entries = planned(made)["entries"]
    assert {entry["zone"]: entry["symbol"] for entry in entries} == {"zone-b": "+", "zone-c": "!"}
    assert [entry["zone"] for entry in entries if zone_plans.is_unread(entry)] == ["zone-c"]
    assert zones.asked == {"zone-a": 1, "zone-b": 1, "zone-c": ATTEMPTS}
    assert made.written[-1] == {"error": None}      # it is told in the plan


@pytest.mark.parametrize(("away", "asked"), [("zone-a", ATTEMPTS), ("zone-b", 1)])
def test_without_source_or_targets_there_is_no_plan(away: str, asked: int) -> None:
    zones = Zones(away)
    with pytest.raises(exceptions.ProviderError, match="does not answer"):
        planned(kit(zones, "zone-b"))
    assert zones.asked == {"zone-a": asked, "zone-b": 4 - asked}


def test_a_plan_is_the_same_in_whatever_words_a_zone_was_away() -> None:
    plans = [planned(kit(Zones("zone-c"), "zone-b", "zone-c")) for _ in range(2)]
    plans[1]["entries"][0]["why"] = "In other words."
    assert zone_plans.digest(plans[0]) == zone_plans.digest(plans[1])
    plans[1]["entries"][1]["why"] = "In other words."
    assert zone_plans.digest(plans[0]) != zone_plans.digest(plans[1])


def test_what_others_have_here_is_not_only_there() -> None:
    """One owner's images go to another, who has some of their own, and gets more from a third."""
    theirs = like(image_ref="id-3", name="x", owner="lab", digest=OTHER)
    of_a_third = like(image_ref="id-4", name="y", owner="hall")
    zones = Zones(
        zone_a=[ONE, theirs, of_a_third],
        zone_b=[theirs, like(of_a_third, owner="lab"), like(ELSEWHERE, name="z", owner="lab")],
    )
    mapped = {"studio": "lab", "hall": "lab"}
    made = kit(zones, "zone-b", everything=True, filters={"owner": ["studio"]}, map_project=mapped)
    assert [(each["symbol"], each["image"], each["there"]) for each in planned(made)["entries"]] == [
        ("+", "id-1", None),
        ("-", None, "id-2"),
    ]


def test_who_has_nothing_here_loses_nothing_there() -> None:
    """An owner that was mistyped, whose images would go to another one, who has some here."""
    theirs = like(image_ref="id-3", name="x", owner="lab", digest=OTHER)
    zones = Zones(zone_a=[theirs], zone_b=[theirs, like(ELSEWHERE, name="z", owner="lab")])
    mapped = {"studoi": "lab"}
    made = kit(zones, "zone-b", everything=True, filters={"owner": ["studoi"]}, map_project=mapped)
    [left] = planned(made)["entries"]
    assert (left["symbol"], left["there"]) == ("-", "id-2") and "left alone" in left["why"]


@pytest.mark.parametrize(
    ("seen", "shared_with", "pruned"),
    [
        ({"visibility": "community"}, [], False),
        ({"visibility": "public"}, [], False),
        ({"visibility": "shared"}, ["hall", "studio"], False),
        ({"visibility": "private", "owner": ""}, [], False),        # all see those of nobody
        ({"visibility": "private"}, [], True),
        ({"visibility": "private", "owner": "hall"}, [], True),
        ({"visibility": "shared"}, ["hall"], True),
    ],
)
def test_only_who_sees_all_that_others_have_here_prunes_theirs(
    seen: dict[str, Any], shared_with: list[str], pruned: bool
) -> None:
    """A Glance that takes the caller for no operator says nothing of what it leaves out."""
    public = like(image_ref="id-3", name="x", owner="lab", visibility="public", digest=OTHER)
    mine = like(image_ref="id-4", name="y", owner="studio", digest="x:4")
    theirs = like(image_ref="id-5", name="z", owner="lab", digest="x:5")
    here = like(image_ref="id-6", name="v", digest="x:6", **{"owner": "lab", **seen})
    zones = Zones(zone_a=[ONE, public, here], zone_b=[ONE, public, here, mine, theirs])
    zones.shared_with = shared_with
    entries = planned(kit(zones, "zone-b", everything=True))["entries"]
    why = {each["there"]: each["why"] for each in entries if each["symbol"] == "-"}
    assert why["id-4"] is None and why.keys() == {"id-4", "id-5"}
    assert (why["id-5"] is None) is pruned and (pruned or "may not see all" in why["id-5"])


def test_a_share_that_ends_while_it_is_looked_at_tells_nothing() -> None:
    shared = [like(image_ref=f"id-{n}", owner="lab", visibility="shared", digest=f"x:{n}") for n in (3, 4)]
    zones = Zones(zone_a=shared, zone_b=[like(image_ref="id-5", name="z", owner="lab", digest="x:5")])
    zones.meanwhile = {each.image_ref: None for each in shared}
    left = planned(kit(zones, "zone-b", everything=True))["entries"][-1]
    assert (left["symbol"], left["there"]) == ("-", "id-5") and "may not see all" in left["why"]


def test_what_is_gone_or_not_shared_any_more_when_it_is_asked_for_its_members() -> None:
    zones = Zones(zone_a=[like(image_ref=ref, name=ref, visibility="shared") for ref in ("1", "2", "3")])
    zones.meanwhile = {"2": None, "3": "private"}
    entries = planned(kit(zones, "zone-b", members=True))["entries"]
    carried = {each["image"]: (each["carry"]["visibility"], each["carry"]["members"]) for each in entries}
    assert carried == {"1": ("shared", ["lab"]), "3": ("private", [])}
    zones.meanwhile = {"1": "shared"}       # or who asks may not know them
    with pytest.raises(exceptions.ProviderError, match="no members"):
        planned(kit(zones, "zone-b", members=True))


def test_one_that_is_hidden_while_the_zone_is_read() -> None:
    zones = Zones(zone_a=[ONE, like(hidden=True)])
    [found] = planned(kit(zones, "zone-b"))["entries"]
    assert (found["symbol"], found["carry"]["hidden"]) == ("+", True)


@pytest.fixture
def _most_two() -> Iterator[None]:
    config.CONF.set_override("max_images", 2, group="zone_sync")
    yield
    config.CONF.clear_override("max_images", group="zone_sync")


MANY = [like(image_ref=f"id-{number}", name=f"{number}") for number in range(3)]


@pytest.mark.usefixtures("_most_two")
def test_a_zone_that_has_more_than_may_be_looked_at() -> None:
    for zones in (Zones(zone_a=MANY), Zones(zone_b=MANY)):
        with pytest.raises(exceptions.ProviderError, match="more than 2 images") as caught:
            planned(kit(zones, "zone-b"))
        assert caught.value.code == "zone_sync.too_many"
    entries = planned(kit(Zones(zone_a=MANY[:2], zone_b=MANY), "zone-b", "zone-c"))["entries"]
    assert [(each["zone"], each["symbol"]) for each in entries] == [
        ("zone-b", "!"), ("zone-c", "+"), ("zone-c", "+")
    ]
    assert "zone-b has more than 2 images" in entries[0]["why"]


def test_a_large_zone_takes_some_memory_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """And that is all: what is listed is not held as the zone sent it."""
    count = 5000

    def survey(zone: Zone, _owner: str | None = None) -> Iterator[base.Surveyed]:
        for number in range(count):
            yield like(
                image_ref=f"{zone._name}-{number}",
                name=f"image {number}",
                digest=f"sha512:{number:0128x}",
                properties={f"hw_property_{each}": f"{each} of {number}" for each in range(20)},
            )

    monkeypatch.setattr(Zone, "survey", survey)
    tracemalloc.start()
    try:
        found = planned(kit(Zones(), "zone-b"))
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(found["entries"]), most // count < 16 << 10] == [count, True], most


def test_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this run: what was there before it counts for nothing; what takes longest is what is left."""
    made = kit(Zones(), "zone-b")
    made._moved, made._began = None, 90
    monkeypatch.setattr(time, "monotonic", lambda: 100)
    amount = {"bytes_done": 100, "bytes_total": 1100, "images_done": 1, "images_total": 11}
    assert made._rate(amount) == {"bytes_per_second": 0, "seconds_left": None}
    for done, left in (({"bytes_done": 600}, 10), ({"bytes_done": 600, "images_done": 3}, 40)):
        found = made._rate(amount | done)
        assert (found["bytes_per_second"], found["seconds_left"]) == (50, left)


def pruning(zones: Zones, *entries: zone_plans.Entry) -> Any:
    """Tools for a sync that has brought all there was, and is to prune what is as it was planned."""
    images = itertools.chain.from_iterable(zones.images.values())
    states = {each.image_ref: comparing._state(each, comparing.ALL) for each in images}
    entries = tuple({**each, "state": states.get(each["there"])} for each in entries)
    least: dict[str, Any] = {"filters": {}, "members": False, "map_project": {}, "max_delete": 10}
    held = rows.take(sync(prune=True, **least).id)
    zone_work.plan(held, plan(*entries, prune=True), models.now())
    job = api.get_job(held.job_id, None)
    made: Any = zone_sync.ZoneTools(job, watch.Watch(held, threading.Event()), held)
    made._zones, made._pause = zones, lambda *_: None
    return made


@pytest.mark.usefixtures("database")
def test_what_was_pruned_before_a_crash_counts() -> None:
    """Nobody could note it any more; its Link goes, too."""
    image = api.get_image(an_image(), None)
    zones = Zones(zone_b=[like(ELSEWHERE, name="x", digest=OTHER), like(image_ref="id-3")])
    made = pruning(zones, *(entry("-", ref) for ref in ("ref in zone-b", "id-2", "id-3")))
    made.attempt("prune", made.prune)
    assert [each.image_ref for each in zones.images["zone-b"]] == ["id-3"]     # which is here by now
    report = api.get_job(made.job.id, None).report or {}
    assert (report["pruned"], report["not_pruned"][:8]) == (2, "1 images")
    assert [link.cloud_key for link in api.get_image(image.id, None).links] == ["zone-a"]


@pytest.mark.usefixtures("database")
def test_what_was_changed_since_the_plan_is_not_pruned() -> None:
    """Somebody uses it: it was published, as it may be."""
    extra = [like(image_ref=ref, name=ref, digest=f"x:{ref}") for ref in ("id-2", "id-3")]
    zones = Zones(zone_b=extra)
    made = pruning(zones, entry("-", "id-2"), entry("-", "id-3"))
    zones.images["zone-b"] = [extra[0], like(extra[1], visibility="public")]
    made.attempt("prune", made.prune)
    assert [each.image_ref for each in zones.images["zone-b"]] == ["id-3"]
    report = api.get_job(made.job.id, None).report or {}
    assert (report["pruned"], report["not_pruned"][:8]) == (1, "1 images")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("crashed", [False, True])
@pytest.mark.parametrize("targets", [("zone-c",), ("zone-b", "zone-c")])
def test_a_target_that_is_away_when_it_is_to_be_pruned_is_an_error(
    targets: tuple[str, ...], crashed: bool
) -> None:
    zones = Zones("zone-c", zone_b=[like(ELSEWHERE, name="x", digest=OTHER)])
    made = pruning(zones, *(entry("-", f"id-{number}", zone) for number, zone in enumerate(targets, 2)))
    with pytest.raises(exceptions.Conflict, match=r"Nothing was pruned: .*zone-c"):
        made.prune() if crashed else made.attempt("prune", made.prune)
    if crashed:     # before anybody could say so; who goes on has nothing left to prune
        made.attempt("prune", made.prune)
    made.settle_children()
    assert work.finish(made._claim, purge=True) == "error" and len(zones.images["zone-b"]) == 1
    job = api.get_job(made.job.id, None)
    assert (job.error or {})["code"] == "zone_sync.not_pruned"
    assert ((job.report or {})["pruned"], (job.report or {})["failed"]) == (0, 0)
