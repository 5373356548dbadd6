# SPDX-License-Identifier: Apache-2.0
"""What holds after every functional test: nothing is left over anywhere."""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ciming.db import status
from tests.person import Person
from tests.sandbox import ciming, processes, sandbox
from tests.shapes import Shape

ZONES = ("zone-a", "zone-b")


@pytest.fixture(autouse=True)
def _nothing_left_over(request: pytest.FixtureRequest) -> Iterator[None]:
    """No trust of an ended Job, no bytes but kept ones, no image that no Link knows."""
    if "service" not in request.fixturenames:
        yield
        return
    service, member = map(request.getfixturevalue, ("service", "member"))
    yield
    assert_nothing_left(service, member)


def assert_nothing_left(service: ciming.Ciming, member: Person) -> None:
    jobs = member.get("/v1/jobs", params={"limit": 1000}).json()["jobs"]
    waiting = [job for job in jobs if job["status"] == "uploading"]
    assert not [job for job in jobs if job["status"] not in (*status.JOB_ENDS, "uploading")]
    assert len(member.trusts()) == len(waiting)
    keeps = {job["id"] for job in jobs if job["status"] in ("partial", "error", "uploading")}
    there = {path.name for path in service.staging_dir.iterdir() if path.is_dir()}
    assert there <= keeps
    images = member.get("/v1/images", params={"limit": 1000}).json()["images"]
    ids = {image["id"] for image in images}
    for zone in ZONES:
        links = [link for image in images for link in image["links"]]
        known = {link["image_ref"] for link in links}
        all_there: Iterator[Any] = member.zone(zone).image.images()
        ours = {image.id for image in all_there if image.properties.get("ciming_image") in ids}
        assert ours <= known, f"{ours - known} in {zone} is in no Link"


@pytest.fixture(scope="session")
def data() -> bytes:
    """A raw disk of random bytes."""
    return os.urandom(24 << 20)


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


def soon(check: object, seconds: float = 10) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.1)
