# SPDX-License-Identifier: Apache-2.0
"""ciming-manage db purge beside a service that works."""

import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.functional.conftest import assert_nothing_left, soon
from tests.person import Person
from tests.sandbox import ciming, processes


def purge(service: ciming.Ciming, *arguments: str) -> dict[str, int]:
    """What went."""
    program = pathlib.Path(sys.executable).parent / "ciming-manage"
    config = service.config_files[-1]       # the engine's
    run = subprocess.run(
        [str(program), "--config-file", str(config), "db", "purge", "--age-in-days", "0", *arguments],
        env=processes.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, ""), run
    return {table: int(count) for count, table in re.findall(r"(\d+) (\w+)", run.stdout)}


def test_beside_a_service(
    another: Callable[..., tuple[ciming.Ciming, Person]], qcow2: pathlib.Path
) -> None:
    service, member = another({})
    well = member.bring(qcow2, clouds=["zone-a", "zone-b"])
    badly = member.bring(qcow2, disk_format="vmdk")
    waits, later = member.create()["job"], member.create()["job"]
    assert (well["status"], badly["status"]) == ("success", "error")
    assert purge(service, "--max-rows", "1") == {"jobs": 1, "targets": 2, "logbooks": 0, "images": 0}
    assert purge(service) == {"jobs": 1, "targets": 1, "logbooks": 0, "images": 1}
    assert purge(service) == {"jobs": 0, "targets": 0, "logbooks": 0, "images": 0}
    for job in (well, badly):
        assert member.get(f"/v1/jobs/{job['id']}").status_code == 404
    image = member.image(well["image_id"])
    assert (image["status"], len(image["links"])) == ("active", 2)
    assert member.get(f"/v1/images/{badly['image_id']}").status_code == 404
    assert member.put(later["image_id"], qcow2.read_bytes()).status_code == 204
    assert member.wait(later["id"])["status"] == "success"
    assert member.job(waits["id"])["status"] == "uploading"
    assert member.call("POST", f"/v1/jobs/{waits['id']}/cancel").status_code == 202
    assert member.wait(waits["id"])["status"] == "cancelled"


def test_what_can_be_retried_stays(
    another: Callable[..., tuple[ciming.Ciming, Person]], qcow2: pathlib.Path
) -> None:
    """Until its retention is over, whatever its age."""
    service, member = another({("staging", "retention"): "3600"})
    made = member.create(visibility="public")       # which is not for members
    assert member.put(made["image"]["id"], qcow2.read_bytes()).status_code == 204
    assert member.wait(made["job"]["id"])["status"] == "error"
    assert purge(service)["jobs"] == 0
    folder = service.staging_dir / made["job"]["id"]
    assert folder.exists()
    service.stop()
    service.options["staging", "retention"] = "0"
    service.start()
    soon(lambda: not folder.exists(), 60)
    soon(lambda: purge(service) == {"jobs": 1, "targets": 1, "logbooks": 0, "images": 1})
    assert member.get(f"/v1/jobs/{made['job']['id']}").status_code == 404


def test_again_and_again_while_jobs_run(
    another: Callable[..., tuple[ciming.Ciming, Person]], qcow2: pathlib.Path
) -> None:
    """Two at once take each Job as soon as it has ended, and nothing that one in flight needs."""
    service, member = another({("staging", "retention"): "0"})
    since = datetime.now(UTC) - timedelta(seconds=2)
    over = threading.Event()

    def keep_purging() -> list[dict[str, int]]:
        gone = []
        while not over.is_set():
            gone.append(purge(service))
        return [*gone, purge(service)]

    def begin(**wanted: Any) -> str:
        image = member.create(clouds=["zone-a", "zone-b"], **wanted)["image"]
        assert member.put(image["id"], qcow2.read_bytes()).status_code == 204
        return str(image["id"])

    with futures.ThreadPoolExecutor() as pool:
        purging = [pool.submit(keep_purging) for _ in range(2)]
        try:
            well = [begin() for _ in range(6)]
            badly = [begin(disk_format="vmdk") for _ in range(2)]
            soon(lambda: not any(member.get(f"/v1/images/{each}").ok for each in badly), 120)
            soon(lambda: {member.image(each)["status"] for each in well} == {"active"}, 120)
        finally:
            over.set()
        gone = [counts for each in purging for counts in each.result()]
    assert sum(counts["jobs"] for counts in gone) == len(well + badly)
    assert sum(counts["images"] for counts in gone) == len(badly)
    assert not member.get("/v1/jobs").json()["jobs"]
    assert [len(member.image(each)["links"]) for each in well] == [2] * len(well)
    assert_nothing_left(service, member, since)
