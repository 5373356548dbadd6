# SPDX-License-Identifier: Apache-2.0
"""What holds after every functional test: nothing is left over anywhere."""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ciming import cmd
from ciming.db import status
from tests.person import Person
from tests.sandbox import ciming, processes, sandbox, servers
from tests.shapes import Shape

assert cmd  # imported first, as the processes do: it settles how they are concurrent

ZONES = ("zone-a", "zone-b")


@pytest.fixture(autouse=True)
def _nothing_left_over(request: pytest.FixtureRequest) -> Iterator[None]:
    """No trust of an ended Job, no bytes but kept ones, no image that no Link knows."""
    if "service" not in request.fixturenames:
        yield
        return
    service, member = map(request.getfixturevalue, ("service", "member"))
    since = datetime.now(UTC) - timedelta(seconds=2)
    yield
    assert_nothing_left(service, member, since)


def assert_nothing_left(service: ciming.Ciming, member: Person, since: datetime) -> None:
    """Of all Jobs there ever were, and of the images that were made in the zones since then."""
    left = {"status": "nin:success,cancelled", "limit": 1000}
    jobs = member.get("/v1/jobs", params=left).json()["jobs"]
    waiting = [job for job in jobs if job["status"] == "uploading"]
    assert not [job for job in jobs if job["status"] not in (*status.JOB_ENDS, "uploading")]
    soon(lambda: len(member.trusts()) == len(waiting))  # those of before a resume go by housekeeping
    keeps = {job["id"] for job in jobs if job["status"] in ("partial", "error", "uploading")}
    there = {path.name for path in service.staging_dir.iterdir() if path.is_dir()}
    assert there <= keeps
    for zone in ZONES:
        made: Iterator[Any] = member.zone(zone).image.images(created_at=f"gte:{since:%Y-%m-%dT%H:%M:%SZ}")
        for image in made:
            ours = member.get(f"/v1/images/{(image.properties or {}).get('ciming_image')}")
            if ours.status_code == 200:
                known = {link["image_ref"] for link in ours.json()["links"]}
                assert image.id in known, f"{image.id} in {zone} is in no Link"


@pytest.fixture(scope="session")
def data() -> bytes:
    """A raw disk of random bytes."""
    return os.urandom(24 << 20)


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RabbitMQ]:
    """Another service's engine would hear the knocks for ours."""
    with servers.RabbitMQ(tmp_path_factory.mktemp("own-rabbitmq")) as running:
        yield running


@pytest.fixture
def broker(own_broker: servers.RabbitMQ) -> Iterator[servers.RabbitMQ]:
    """A broker, which a test may stop."""
    yield own_broker
    own_broker.start()


@pytest.fixture
def another(
    cloud: sandbox.Sandbox, shape: Shape, tmp_path: pathlib.Path
) -> Iterator[Callable[..., tuple[ciming.Ciming, Person]]]:
    """Starts another service, beside the shared one, with options of its own; and its member."""
    with contextlib.ExitStack() as stack:

        def start(options: ciming.Options, **kwargs: Any) -> tuple[ciming.Ciming, Person]:
            port = processes.free_block(str(tmp_path))
            options = {("staging", "keep_free"): "0", **options}
            made = shape(cloud, tmp_path, options, port=port, **kwargs)
            return stack.enter_context(made), Person(cloud, "member", made.url)

        yield start


def soon(check: object, seconds: float = 60) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.1)
