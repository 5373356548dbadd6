# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every point: after the next start all ends as if nothing had happened."""

import importlib
import os
import pathlib
import pkgutil
import time
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

import ciming
from ciming import cmd, flows, points
from ciming.engine import atom_points
from tests.functional import crash, faulty
from tests.person import JSON, Person
from tests.sandbox import ciming as sandbox_ciming
from tests.sandbox import processes, sandbox
from tests.shapes import Shape

assert cmd  # imported first, as the processes do
ALL = "CIMING_TEST_ALL" in os.environ
STALL_SECONDS = 7.0     # after eight, the service gives its client up
UNREACHED = {
    "db.work.give_up": "only after an error that nobody thought of",
    "staging._copy": "only where a writer sleeps on its lease",
    "db.uploads.commit": "only in uploads that take long",
}


class Refusing(faulty.Proxy):
    """A Glance that takes no bytes."""

    def next_fault(self, method: str, path: str) -> faulty.Fault:
        return "403" if method == "PUT" else ""


@pytest.fixture(scope="module")
def refusing(cloud: sandbox.Sandbox) -> Iterator[faulty.Proxy]:
    with Refusing(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-refusing"):
        yield proxy


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> crash.Points:
    return crash.Points(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def survivor(
    cloud: sandbox.Sandbox,
    refusing: faulty.Proxy,
    where: crash.Points,
    shape: Shape,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[crash.Survivor]:
    if shape is not sandbox_ciming.Ciming and not ALL:
        pytest.skip("one shape is enough, unless all is tested")
    folder = tmp_path_factory.mktemp("crash")
    port = processes.free_block(str(folder))
    with shape(cloud, folder, crash.OPTIONS, port=port, environment=where.environment) as running:
        yield crash.Survivor(running, Person(cloud, "member", running.url), where)


# What is run, and killed: each returns the id of an Image whose Job ends, or has ended.


def created(user: crash.Survivor, name: str, data: bytes) -> str:
    """The main job."""
    image_id = user.create(name, size=len(data), disk_format="qcow2")
    assert user.send(image_id, data) in ("", "image.has_data")
    return image_id


def failing(user: crash.Survivor, name: str, data: bytes) -> str:
    """One Cloud refuses the bytes: what was begun there is withdrawn."""
    image_id = user.create(name, clouds=["zone-a", "zone-refusing"])
    assert user.send(image_id, data) in ("", "image.has_data")
    return image_id


def refused(user: crash.Survivor, name: str, data: bytes) -> str:
    """Too much for the staging area; then bytes of another length than announced; then bytes of no image."""
    body = {"name": name, "clouds": ["zone-a"], "size": crash.QUOTA + 1}
    assert user.ask(lambda: user.member.call("POST", "/v1/images", json=body), 507).status_code == 507
    image_id = user.create(name, disk_format="qcow2", size=1000)
    assert user.send(image_id, data) == "upload.size_mismatch"
    assert user.send(image_id, b"x" * 1000) in ("", "image.has_data")
    return image_id


def stalled(user: crash.Survivor, name: str, data: bytes) -> str:
    """An upload in two requests; the second one stalls for so long that no engine follows any more."""
    image_id = user.create(name, size=len(data))
    user.resume(image_id, data[: len(data) // 2], lambda rest: iter([rest]))

    def slowly(rest: bytes) -> Iterator[bytes]:
        yield rest[: len(rest) // 2]
        end = time.monotonic() + STALL_SECONDS
        while time.monotonic() < end and not user.points.saw("after db.work.stop_following"):
            time.sleep(0.1)
        yield rest[len(rest) // 2 :]

    user.resume(image_id, data, slowly)
    return image_id


def terminated(user: crash.Survivor, name: str, data: bytes) -> str:
    """The user gives the upload up."""
    image_id = user.create(name, size=len(data))
    user.resume(image_id, data[: len(data) // 2], lambda rest: iter([rest]))
    user.give_up(image_id)
    return image_id


def expired(user: crash.Survivor, name: str, data: bytes) -> str:
    """Nobody goes on with the upload."""
    image_id = user.create(name, size=len(data))
    user.resume(image_id, data[: len(data) // 2], lambda rest: iter([rest]))
    user.execute(
        "UPDATE uploads SET expires_at = 0 WHERE job_id = (SELECT id FROM jobs WHERE image_id = :image)",
        image=image_id,
    )
    return image_id


Scenario = Callable[[crash.Survivor, str, bytes], str]
SCENARIOS: dict[str, tuple[Scenario, str]] = {
    "created": (created, "success"),
    "failing": (failing, "partial"),
    "refused": (refused, "error"),
    "stalled": (stalled, "success"),
    "terminated": (terminated, "cancelled"),
    "expired": (expired, "error"),
}
"""With the end of the Job."""
SHORT = {
    "created": (
        "before db.work.claim",
        "noted stage Inspect execute",
        "after providers.openstack.OpenStack._post",
        "after publish Upload execute",
        "after trusts.delete",
    ),
    "failing": ("after providers.openstack.OpenStack.delete", "before db.work.end_target"),
    "refused": ("after staging._unlink",),
    "stalled": ("after staging._rename",),
    "terminated": ("before db.work.finish",),
    "expired": ("after staging.StagingArea.remove",),
}
"""Some of each kind, where not all are tested."""


class Undisturbed(NamedTuple):
    """What a scenario comes to when nobody kills anything, and how often it reaches each point."""

    picture: JSON
    reached: dict[str, int]


def run(user: crash.Survivor, name: str, data: bytes) -> str:
    image_id = SCENARIOS[name][0](user, f"{name}-{uuid.uuid4()}", data)
    user.settled(image_id)
    return image_id


@pytest.fixture(scope="module")
def undisturbed(
    survivor: crash.Survivor, where: crash.Points, qcow2: pathlib.Path
) -> dict[str, Undisturbed]:
    found = {}
    for name, (_, end) in SCENARIOS.items():
        where.disarm()
        image_id = run(survivor, name, qcow2.read_bytes())
        assert survivor.job(image_id)["status"] == end
        picture = survivor.picture(image_id)
        assert not any(picture[what] for what in (*crash.FLOWS, "uploads", "staging"))
        assert not crash.done_twice(where.trace)
        found[name] = Undisturbed(picture, crash.counts(where.trace))
    assert not survivor.member.trusts()
    return found


def test_every_point_is_reached(undisturbed: dict[str, Undisturbed]) -> None:
    """By some scenario: one that is new needs another scenario, or the reason why it is not reached."""
    for module in pkgutil.walk_packages(ciming.__path__, "ciming."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)
    names = set(points.MUTATIONS)
    for module in pkgutil.iter_modules(flows.__path__, "ciming.flows."):
        factory = getattr(importlib.import_module(module.name), "flow", None)
        names |= set(atom_points.names(factory())) if factory else set()
    reached = {point.partition(" ")[2] for found in undisturbed.values() for point in found.reached}
    reached -= {"publish Check revert"}     # Check has nothing to revert, but that is noted
    assert reached == names - UNREACHED.keys()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_a_point(
    survivor: crash.Survivor,
    where: crash.Points,
    undisturbed: dict[str, Undisturbed],
    qcow2: pathlib.Path,
    name: str,
) -> None:
    """The end is that of an undisturbed run: in the Clouds, the database, staging and Keystone."""
    expected = undisturbed[name]
    wrong = {}
    for point in expected.reached if ALL else SHORT[name]:
        where.arm(point)
        began = time.monotonic()
        try:
            image_id = run(survivor, name, qcow2.read_bytes())
            survivor.until(lambda: where.killed)
            survivor.settled(image_id)
            found = crash.difference(expected.picture, survivor.picture(image_id))
            found += "\n".join(crash.done_twice(where.trace))
            survivor.until(lambda: not survivor.member.trusts())
        except AssertionError as error:
            found = str(error)
            survivor.member.take_trusts_back()
        print(f"{name}: killed {point}: {time.monotonic() - began:.1f} s {found}", flush=True)
        if found:
            wrong[point] = found
    assert not wrong
