# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every point, and at any moment: after the next start all ends as if nothing had happened."""

import importlib
import os
import pathlib
import pkgutil
import random
import time
import uuid
from collections.abc import Iterator
from concurrent import futures
from typing import NamedTuple

import pytest

import ciming
from ciming import cmd, flows, points
from ciming.engine import atom_points
from tests.functional import amazon, crash, google, scenarios
from tests.person import JSON, Person
from tests.sandbox import processes, sandbox
from tests.shapes import Shape

assert cmd  # imported first, as the processes do
ALL = "CIMING_TEST_ALL" in os.environ
SEED = int(os.environ.get("CIMING_TEST_SEED") or random.randrange(1 << 32))
KILLS = 100 if ALL else 4
USERS = 3
MIX = ("created", "failing", "refused", "terminated", "restored", "moved")     # of what waits for nothing
UNREACHED = {
    "db.work.give_up": "only after an error that nobody thought of",
    "db.pending.doom": "only after a kill while a trust is made",
    "db.zone_work.cancel_children": "only after an error that nobody thought of",
    "staging._copy": "only where a writer sleeps on its lease",
}
SHORT = {
    "created": (
        "before db.work.claim",
        "noted stage Receive execute",
        "after providers.openstack.provider.OpenStack._post",
        "after trusts.delete",
    ),
    "failing": ("after providers.openstack.provider.OpenStack.delete",),
    "cancelled": ("after db.jobs.cancel",),
    "restored": ("after staging.write_sparse",),
    "converted": ("after db.work.proven",),
    "brought_on": ("noted fetch Inspect execute",),
    "moved": ("noted withdraw Delete execute",),
    "lined_up": ("after db.zone_work.add_children", "after trusts.delete"),
    "resumed": ("after db.jobs.resume",),
    "spread": ("after providers.aws.snapshots._seal", "after providers.aws.images._make"),
    "read_back": ("after db.work.fetched",),
    "imported": ("after providers.aws.imports._import",),
    "packed": ("before providers.gcp.objects._compose", "after providers.gcp.images._insert"),
    "renamed": ("before db.work.updated",),
}
"""Some of each kind, where not all are tested."""


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> crash.Points:
    return crash.Points(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def survivor(
    cloud: sandbox.Sandbox, where: crash.Points, shape: Shape, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[crash.Survivor]:
    folder = tmp_path_factory.mktemp("crash")
    port = processes.free_block(str(folder))
    with (
        scenarios.Zones(cloud) as zones,
        amazon.Amazon(folder / "aws") as aws,
        google.Google(folder / "gcp", cloud.port("google")) as gcp,
        shape(cloud, folder, crash.OPTIONS, port=port, environment=where.environment) as running,
    ):
        member = Person(cloud, "member", running.url)
        aws.register(member)
        gcp.register(member)
        received = zones.slow.received.total
        yield crash.Survivor(running, member, where, zones.refuse_once, received, aws, gcp)


class Undisturbed(NamedTuple):
    """What a scenario comes to when nobody kills anything, and how often it reaches each point."""

    picture: JSON
    reached: dict[str, int]


def run(user: crash.Survivor, name: str, data: bytes) -> str:
    return scenarios.SCENARIOS[name].act(user, f"{name}-{uuid.uuid4()}", data)


@pytest.fixture(scope="module")
def undisturbed(
    survivor: crash.Survivor, where: crash.Points, qcow2: pathlib.Path
) -> dict[str, Undisturbed]:
    found = {}
    for name, scenario in scenarios.SCENARIOS.items():
        where.disarm()
        image_id = run(survivor, name, qcow2.read_bytes())
        assert survivor.ended(image_id)["status"] == scenario.end
        survivor.settled(image_id)
        picture = survivor.picture(image_id)
        assert not any(picture[what] for what in (*crash.FLOWS, "uploads", "staging"))
        assert not crash.done_twice(where.trace)
        found[name] = Undisturbed(picture, crash.counts(where.trace))
    assert not survivor.member.trusts()
    return found


def test_every_point_is_reached(undisturbed: dict[str, Undisturbed]) -> None:
    """By some scenario: one that is new needs another scenario, or the reason why it is not reached."""
    for module in pkgutil.walk_packages(ciming.__path__, "ciming."):
        if ".migrations" not in module.name and module.name != "ciming.api.wsgi":     # that starts
            importlib.import_module(module.name)
    names = set(points.MUTATIONS)
    for module in pkgutil.iter_modules(flows.__path__, "ciming.flows."):
        factory = getattr(importlib.import_module(module.name), "flow", None)
        names |= set(atom_points.names(factory())) if factory else set()
    reached = {point.partition(" ")[2] for found in undisturbed.values() for point in found.reached}
    nothing_to_revert = {
        *("publish Check revert", "publish Register revert"),
        *("stage Receive revert", "stage Inspect revert"),
        *(f"zone-sync {atom} revert" for atom in ("HoldZones", "Plan", "Bring", "Prune")),
    }
    assert reached - nothing_to_revert == names - UNREACHED.keys()      # that is noted all the same


def to_be_killed(undisturbed: dict[str, Undisturbed], name: str) -> list[str]:
    """Some points of a scenario; where all are tested, those too that no scenario before it reaches."""
    some = list(SHORT.get(name, ()))
    if not ALL:
        return some
    earlier = list(scenarios.SCENARIOS)[: list(scenarios.SCENARIOS).index(name)]
    before = {point for each in earlier for point in undisturbed[each].reached}
    return [point for point in undisturbed[name].reached if point not in before or point in some]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", scenarios.SCENARIOS if ALL else SHORT)
def test_killed_at_a_point(
    survivor: crash.Survivor,
    where: crash.Points,
    undisturbed: dict[str, Undisturbed],
    qcow2: pathlib.Path,
    name: str,
) -> None:
    """The end is that of an undisturbed run: in the Clouds, the database, staging and Keystone."""
    faults = {}
    for point in to_be_killed(undisturbed, name):
        where.arm(point)
        began = time.monotonic()
        try:
            image_id = run(survivor, name, qcow2.read_bytes())
            survivor.settled(image_id)
            survivor.until(lambda: where.killed)
            survivor.settled(image_id)
            found = crash.difference(undisturbed[name].picture, survivor.picture(image_id))
            found += "\n".join(crash.done_twice(where.trace))
            survivor.until(lambda: not survivor.member.trusts())
        except AssertionError as error:
            found = str(error)
            survivor.member.take_trusts_back()
        print(f"{name}: killed {point}: {time.monotonic() - began:.1f} s {found}", flush=True)
        if found:
            faults[point] = found
    assert not faults


@pytest.mark.timeout(3600)
def test_killed_at_any_moment(
    survivor: crash.Survivor,
    where: crash.Points,
    undisturbed: dict[str, Undisturbed],
    qcow2: pathlib.Path,
) -> None:
    """Again and again, while several people are at work. CIMING_TEST_SEED repeats what the seed decides."""
    print(f"CIMING_TEST_SEED={SEED}", flush=True)
    dice = random.Random(SEED)  # no secret
    data = qcow2.read_bytes()
    where.disarm()
    over = False

    def work(seed: int) -> list[tuple[str, str]]:
        mine = random.Random(seed)
        done = []
        while not over:
            name = mine.choice(MIX)
            done.append((name, run(survivor, name, data)))
        return done

    with futures.ThreadPoolExecutor(USERS) as pool:
        users = [pool.submit(work, dice.randrange(1 << 32)) for _ in range(USERS)]
        try:
            for _ in range(KILLS):
                survivor.start_again()
                time.sleep(dice.uniform(0.05, 8))
                survivor.kill(dice)
        finally:
            over = True
        done = [each for user in users for each in user.result()]
    for _, image_id in done:
        survivor.settled(image_id)
    print(f"{KILLS} kills, {len(done)} Jobs", flush=True)
    faults = {
        f"{name} {image_id}": crash.difference(undisturbed[name].picture, survivor.picture(image_id))
        for name, image_id in done
    }
    assert not {image: fault for image, fault in faults.items() if fault}
    assert not crash.done_twice(where.trace)
    survivor.until(lambda: not survivor.member.trusts())
