# SPDX-License-Identifier: Apache-2.0
"""Much work at once is bounded, and a bulk of large images does not hold up a small one."""

import os
import pathlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.functional import faulty
from tests.functional.conftest import soon
from tests.person import JSON, Person
from tests.sandbox import ciming, sandbox

Another = Callable[..., tuple[ciming.Ciming, Person]]
SLOW = 6 << 20      # bytes a second
ROWS = 3 if "CIMING_TEST_ALL" in os.environ else 1
LARGE = ("engine", "large_image"), str(16 << 20)


@pytest.fixture
def slow_zone(cloud: sandbox.Sandbox) -> Iterator[str]:
    """zone-b's Glance once more, at the end of a slow line."""
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-slow"):
        proxy.throttle = SLOW
        yield "zone-slow"


def jobs(member: Person, ids: list[str]) -> list[JSON]:
    return [member.job(each) for each in ids]


def begin(member: Person, zone: str, data: bytes) -> str:
    made = member.create(clouds=[zone], size=len(data))
    assert member.put(made["image"]["id"], data).status_code == 204
    return str(made["job"]["id"])


@pytest.mark.parametrize("limit", ["max_transfers", "max_jobs", "max_stages"][:ROWS])
def test_a_small_image_overtakes_a_bulk_of_large_ones(
    slow_zone: str, another: Another, data: bytes, qcow2: pathlib.Path, limit: str
) -> None:
    _service, member = another(dict([LARGE, (("engine", limit), "4")]))
    large = [begin(member, slow_zone, data) for _ in range(6)]
    small = begin(member, "zone-a", qcow2.read_bytes())
    assert member.wait(small)["status"] == "success"
    assert any(job["status"] != "success" for job in jobs(member, large))
    for each in large:
        assert member.wait(each, seconds=120)["status"] == "success"


def test_a_refused_image_holds_nothing(another: Another, qcow2: pathlib.Path) -> None:
    """It is refused at its first block, while others still come."""
    _service, member = another({("engine", "max_stages"): "1"})
    bad = b"QFI\xfb" + bytes(4 << 20)
    for _ in range(2):
        job = member.wait(begin(member, "zone-a", bad))
        assert (job["status"], job["error"]["code"]) == ("error", "image.format_unsupported")
    assert member.wait(begin(member, "zone-a", qcow2.read_bytes()))["status"] == "success"


@pytest.mark.parametrize(
    "limit", ["max_transfers_per_cloud", "max_transfers", "max_transfers_per_project"][:ROWS]
)
def test_transfers_are_limited(
    slow_zone: str, another: Another, data: bytes, limit: str
) -> None:
    _service, member = another({("engine", limit): "1"})
    ids = [begin(member, slow_zone, data) for _ in range(3)]
    most = 0

    def ended() -> bool:
        nonlocal most
        found = jobs(member, ids)
        targets = [target for job in found for target in job["targets"] if target["status"] == "running"]
        most = max(most, sum(0 < target["bytes_done"] < target["bytes_total"] for target in targets))
        return all(job["status"] == "success" for job in found)

    soon(ended, 120)
    assert most == 1


def test_memory_does_not_grow_with_what_runs(
    slow_zone: str, another: Another, data: bytes
) -> None:
    """One Job or eight of them: what is held of each is a block or two."""
    service, member = another({})
    assert member.wait(begin(member, slow_zone, data))["status"] == "success"
    before = resident(service)
    ids = [begin(member, slow_zone, data) for _ in range(8)]
    most = before
    end = time.monotonic() + 120
    while not all(job["status"] == "success" for job in jobs(member, ids)):
        assert time.monotonic() < end
        most = max(most, resident(service))
    assert most - before < 8 * len(data) / 2, "whole images are in memory"


def resident(service: ciming.Ciming) -> int:
    """Bytes of memory that the service's processes have."""
    found = 0
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if {int(stat.parent.name), int(fields[1])} & {*service.pids}:
            found += int(fields[21]) * 4096
    return found
