# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every point, and at any moment: after the next start all ends as if nothing had happened."""

import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from ciming import points
from tests.functional import crash, faulty
from tests.person import JSON, Person
from tests.sandbox import ciming, processes, sandbox
from tests.shapes import Shape

ALL = "CIMING_TEST_ALL" in os.environ
STALL_SECONDS = 7.0       # after eight, the service gives its client up


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
    if shape is not ciming.Ciming and not ALL:
        pytest.skip("the points are those of one shape, unless all is tested")
    folder = tmp_path_factory.mktemp("crash")
    port = processes.free_block(str(folder))
    made = shape(cloud, folder, crash.OPTIONS, port=port, environment=where.environment)
    with made as running:
        yield crash.Survivor(running, Person(cloud, "member", running.url), where)


# What is run and killed: each returns the id of an Image whose Job has an end, or will have one.


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
    """Bytes of another length than announced, then such that are no image."""
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


SCENARIOS = (created, failing, refused, stalled, terminated, expired)
ENDS = {created: "success", failing: "partial", stalled: "success", terminated: "cancelled"}
Scenario = Callable[[crash.Survivor, str, bytes], str]


class Undisturbed(NamedTuple):
    """What a scenario comes to when nobody kills anything."""

    picture: JSON
    reached: list[str]


def run(user: crash.Survivor, scenario: Scenario, data: bytes) -> str:
    image_id = scenario(user, f"{scenario.__name__}-{uuid.uuid4()}", data)
    user.settled(image_id)
    return image_id


@pytest.fixture(scope="module")
def undisturbed(
    survivor: crash.Survivor, where: crash.Points, qcow2: pathlib.Path
) -> dict[Scenario, Undisturbed]:
    found = {}
    for scenario in SCENARIOS:
        where.disarm()
        image_id = run(survivor, scenario, qcow2.read_bytes())
        assert survivor.job(image_id)["status"] == ENDS.get(scenario, "error")
        picture = survivor.picture(image_id)
        assert not any(picture[name] for name in (*crash.FLOWS, "uploads", "staging"))
        assert not crash.done_twice(where.trace)
        found[scenario] = Undisturbed(picture, list(crash.counts(where.trace)))
    assert not survivor.member.trusts()
    return found


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_killed_at_each_point(
    survivor: crash.Survivor,
    where: crash.Points,
    undisturbed: dict[Scenario, Undisturbed],
    qcow2: pathlib.Path,
    scenario: Scenario,
) -> None:
    """The end is that of an undisturbed run: in the Clouds, the database, staging and Keystone."""
    failures = []
    for point in undisturbed[scenario].reached:
        where.arm(point)
        began = time.monotonic()
        difference = "?"
        try:
            image_id = run(survivor, scenario, qcow2.read_bytes())
            survivor.until(lambda: where.killed)
            survivor.settled(image_id)
            difference = crash.difference(undisturbed[scenario].picture, survivor.picture(image_id))
            difference += "".join(crash.done_twice(where.trace))
            survivor.until(lambda: not survivor.member.trusts())
        except AssertionError as error:
            difference += str(error)[:1000]
        print(f"{scenario.__name__}: {point}: {time.monotonic() - began:.1f} s {difference}", flush=True)
        if difference:
            failures.append((point, difference))
            survivor.member.take_trusts_back()
    assert not failures
