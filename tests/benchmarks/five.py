# SPDX-License-Identifier: Apache-2.0
"""One image into five Clouds of three kinds, against the slowest alone; stand-ins play AWS and Google.

Starts real services of its own, and stops and removes them at the end.
"""

import argparse
import contextlib
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from tests.benchmarks import main_job, report
from tests.contract import on_aws
from tests.functional import test_clouds
from tests.person import Person
from tests.sandbox import aws, ciming, disk, gcp, sandbox, services

MIB, GIB = 1 << 20, 1 << 30
BUCKET = "five"
MACHINE = {"architecture": "x86_64"}


def register(person: Person, cloud: sandbox.Sandbox, amazon: aws.StandIn, google: gcp.StandIn) -> list[str]:
    """Three Clouds beside the zones; the names of all."""
    google.make_bucket(BUCKET)
    owner = google.accounts["owner"]
    wanted: Mapping[str, tuple[Any, Any]] = {
        "openstack": (test_clouds.config(cloud), test_clouds.credential(cloud)),
        "aws": ({"region": "us-east-1", "endpoint_url": amazon.url}, on_aws.keys(amazon, "owner")),
        "gcp": ({"project_id": owner["project_id"], "bucket": BUCKET, "endpoint_url": google.url}, owner),
    }
    for provider, (config, credential) in wanted.items():
        ref = test_clouds.secret(person, json.dumps(credential))
        body = {"name": f"my-{provider}", "provider": provider, "config": config, "credential_ref": ref}
        made = person.call("POST", "/v1/clouds", json=body)
        assert made.status_code == 201, made.text
    return [*services.ZONES, *(f"my-{provider}" for provider in wanted)]


def create(person: Person, file: pathlib.Path, *clouds: str) -> float:
    """Seconds until it is in these; afterwards it is in none."""
    main_job.settle()
    found: list[Any] = []
    seconds = main_job.timed(
        lambda: found.append(person.bring(file, name="five", clouds=list(clouds), properties=MACHINE))
    )
    assert found[0]["status"] == "success", found
    image_id = found[0]["image_id"]
    deleting = person.call("DELETE", f"/v1/images/{image_id}").json()["job"]["id"]
    assert person.wait(deleting, seconds=300)["status"] == "success"
    return seconds


def run(folder: pathlib.Path, rounds: int, megabytes: int) -> None:
    """Measure, and print what was found."""
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(sandbox.Sandbox(folder / "openstack", second=True))
        amazon = stack.enter_context(aws.start(folder / "aws"))
        google = stack.enter_context(gcp.start(folder / "gcp", port=cloud.port("google")))
        running = stack.enter_context(ciming.Ciming(cloud, folder / "ciming"))
        person = Person(cloud, "member", running.url)
        clouds = register(person, cloud, amazon, google)
        warm = disk.make(folder / "warm.qcow2", size=GIB, data=8 * MIB)
        create(person, warm, *clouds)
        file = disk.make(folder / "disk.qcow2", size=10 * GIB, data=megabytes * MIB)
        report.say(f"qcow2 of {file.stat().st_size / MIB:.0f} MiB, {report.machine()}")
        found: dict[str, list[float]] = {}
        for number in range(rounds):
            ways = {name: [name] for name in clouds} | {"all of them": clouds}
            names = list(ways)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                found.setdefault(name, []).append(create(person, file, *ways[name]))
        report.into_all({name: found[name] for name in ways})
    report.say(report.machine())


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.five", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--size-mb", type=int, default=400, help="MiB of data (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), arguments.runs, arguments.size_mb)


if __name__ == "__main__":
    main()
