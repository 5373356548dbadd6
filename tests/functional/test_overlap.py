# SPDX-License-Identifier: Apache-2.0
"""Clouds get an image while it still comes, and none of it becomes an image before it was looked at."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.functional import faulty
from tests.functional.conftest import ZONES, soon
from tests.person import JSON, Person
from tests.sandbox import ciming, sandbox

Another = Callable[..., tuple[ciming.Ciming, Person]]
SLOW = 8.0      # seconds: an upload is committed every two


class Sender:
    """Sends an image's bytes slowly, in a thread of its own."""

    def __init__(self, member: Person, data: bytes, parts: Iterator[bytes] | None = None, **wanted: Any):
        made = member.create(**{"clouds": list(ZONES), "size": len(data), **wanted})
        self.image_id, self.job_id = made["image"]["id"], made["job"]["id"]
        self.answers: list[int] = []
        self._body = Sized(len(data), parts or faulty.slowly(data, SLOW))
        self._member = member
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            self.answers.append(self._member.put(self.image_id, self._body).status_code)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


class Sized:
    """An iterator that requests sends with its length."""

    def __init__(self, size: int, parts: Iterator[bytes]) -> None:
        self._size = size
        self._parts = parts

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return self._parts


def with_pause(data: bytes, pause: float) -> Iterator[bytes]:
    """Half of the data over some time, nothing for a while, and the rest."""
    half = len(data) // 2
    yield from faulty.slowly(data[:half], SLOW / 2)
    time.sleep(pause)
    yield data[half:]


def follows(member: Person, job_id: str) -> JSON:
    """The Job, once Targets follow bytes that still come."""
    found: list[JSON] = []

    def following() -> bool:
        found.append(member.job(job_id))
        return any(target["bytes_done"] for target in found[-1]["targets"])

    soon(following, 30)
    return found[-1]


def statuses(member: Person, image_id: str, zones: Sequence[str] = ZONES) -> list[str]:
    """What each zone says of this Image."""
    return [
        each.status
        for zone in zones
        for each in member.zone(zone).image.images()
        if (each.properties or {}).get("ciming_image") == image_id     # None: one of somebody else's
    ]


def test_clouds_get_it_while_it_comes(service: ciming.Ciming, member: Person, data: bytes) -> None:
    with Sender(member, data, disk_format="raw") as sender:
        job = follows(member, sender.job_id)
        assert job["status"] == "uploading"
        assert {target["step"] for target in job["targets"]} <= {"check", "upload"}
        assert set(statuses(member, sender.image_id)) <= {"queued", "saving"}
    job = member.wait(sender.job_id)
    assert job["status"] == "success", job
    sha512 = hashlib.sha512(data).hexdigest()
    for target in job["targets"]:
        image = member.zone(target["cloud"]).image.get_image(target["image_ref"])
        assert (image.status, image.hash_value) == ("active", sha512)
        assert target["attempts"] == 1


def test_one_slot_and_three_targets(
    cloud: sandbox.Sandbox, another: Another, data: bytes
) -> None:
    """Publishers that wait starve neither the stage flow they wait for, nor each other."""
    options = {("engine", name): "1" for name in ("max_jobs", "max_stages", "max_transfers")}
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-c"):
        _service, member = another(options)
        with Sender(member, data, clouds="all") as sender:
            follows(member, sender.job_id)
        job = member.wait(sender.job_id)
    assert [target["status"] for target in job["targets"]] == ["success"] * 3, job


def test_an_upload_that_stalls_is_left_alone_until_it_is_whole(another: Another, data: bytes) -> None:
    _service, member = another({("engine", "max_stall"): "3"})
    with Sender(member, data, with_pause(data, 9)) as sender:
        follows(member, sender.job_id)
        soon(lambda: {t["status"] for t in member.job(sender.job_id)["targets"]} == {"waiting"}, 20)
        job = member.job(sender.job_id)
        assert {target["step"] for target in job["targets"]} == {"receive"}
        assert job["status"] == "uploading"
    job = member.wait(sender.job_id)
    assert job["status"] == "success", job
    assert {target["image_ref"] for target in job["targets"]} == {sender.image_id}


@pytest.mark.parametrize("bad", ["trailer", "checksum"])
def test_what_is_refused_at_the_very_end_becomes_no_image(
    service: ciming.Ciming, member: Person, data: bytes, bad: str
) -> None:
    wanted: dict[str, Any] = {}
    if bad == "trailer":
        data = data[:-512] + b"koly" + bytes(508)
    else:
        wanted = {"checksum": "sha256:" + "0" * 64}
    seen: set[str] = set()
    with Sender(member, data, **wanted) as sender:
        follows(member, sender.job_id)
        while (job := member.job(sender.job_id))["status"] not in ("error", "success"):
            seen.update(statuses(member, sender.image_id))
            time.sleep(0.1)
    assert job["status"] == "error"
    assert {target["error"]["code"] for target in job["targets"]} <= {
        "image.format_unsupported", "image.checksum_mismatch",
    }
    assert "saving" in seen and "active" not in seen
    assert statuses(member, sender.image_id) == []


def test_other_bytes_in_place_of_those_that_were_followed(
    service: ciming.Ciming, member: Person, data: bytes
) -> None:
    """A PUT that breaks is begun again from its start, here with another file."""
    def broken() -> Iterator[bytes]:
        yield from faulty.slowly(data[: len(data) // 2], SLOW / 2)
        raise OSError("the line breaks")

    other = os.urandom(len(data))
    with Sender(member, data, broken()) as sender:
        follows(member, sender.job_id)
    soon(lambda: member.put(sender.image_id, other).status_code == 204, 30)
    job = member.wait(sender.job_id)
    assert job["status"] == "success", job
    for target in job["targets"]:
        image = member.zone(target["cloud"]).image.get_image(target["image_ref"])
        assert image.hash_value == hashlib.sha512(other).hexdigest()


def test_the_service_is_killed_while_clouds_get_what_still_comes(
    another: Another, data: bytes
) -> None:
    service, member = another({})
    with Sender(member, data) as sender:
        follows(member, sender.job_id)
        service.kill()
    service.start()
    soon(lambda: member.put(sender.image_id, data).status_code == 204, 30)
    job = member.wait(sender.job_id)
    assert job["status"] == "success", job
    assert {target["image_ref"] for target in job["targets"]} == {sender.image_id}
    assert statuses(member, sender.image_id) == ["active", "active"]
