# SPDX-License-Identifier: Apache-2.0
"""Where 1,000 Images are in five Clouds, against one paged list of each Cloud by its own SDK, all at once.

Starts real services of its own, and stops and removes them at the end.
"""

import argparse
import contextlib
import json
import pathlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from ciming.db import models
from tests.benchmarks import phases, report
from tests.contract import on_gcp
from tests.functional import faulty, test_aws, test_gcp
from tests.functional.test_clouds import REGION, credential, register, secret
from tests.person import JSON, Person
from tests.sandbox import aws, ciming, gcp, sandbox

ZONES = {"zone-1": "glance-a", "zone-2": "glance-b"}
CLOUDS = (*ZONES, "other", "amazon", "google")
Refs = dict[str, list[str]]


class World:
    """Five Clouds, all of which have the same images."""

    def __init__(self, folder: pathlib.Path, images: int, stack: contextlib.ExitStack) -> None:
        self.cloud = stack.enter_context(sandbox.Sandbox(folder / "sandbox", second=True))
        self.proxies = [
            stack.enter_context(faulty.Proxy(self.cloud.url(glance))) for glance in ZONES.values()
        ]
        for zone, proxy in zip(ZONES, self.proxies, strict=True):
            stack.enter_context(proxy.as_zone(self.cloud, zone))
        options = {**phases.options(), ("engine", "look_timeout"): "25"}
        self.service = stack.enter_context(ciming.Ciming(self.cloud, folder / "ciming", options))
        self.amazon = stack.enter_context(aws.start(folder / "aws"))
        self.google = stack.enter_context(gcp.start(folder / "gcp", port=self.cloud.port("google")))
        self.google.make_bucket(test_gcp.BUCKET)
        self.member = Person(self.cloud, "member", self.service.url)
        self.other = Person(self.cloud, "other").zone(REGION).image
        ref = secret(self.member, json.dumps(credential(self.cloud)))
        register(self.member, "other", credential_ref=ref)
        # They go with the service.
        test_aws.registered(self.member, self.amazon, "amazon", "eu-west-1").__enter__()
        test_gcp.registered(self.member, self.google, "google").__enter__()
        makers = {"amazon": self._amis, "google": self._google_images}
        with futures.ThreadPoolExecutor() as pool:
            made = pool.map(lambda name: makers.get(name, self._glance)(name, images), CLOUDS)
            self._write(dict(zip(CLOUDS, made, strict=True)))

    def glance(self, name: str) -> Any:
        """By openstacksdk, logged in."""
        return self.other if name == "other" else self.member.zone(name).image

    def _glance(self, name: str, images: int) -> list[str]:
        glance, made = self.glance(name), []
        for number in range(images):
            wanted = {"name": f"image {number}", "disk_format": "raw", "os_distro": "debian", "tags": ["t"]}
            answer = glance.post("/images", json={**wanted, "container_format": "bare"})
            made.append(answer.json()["id"])
            octets = {"Content-Type": "application/octet-stream"}
            glance.put(f"/images/{made[-1]}/file", data=b"x" * 512, headers=octets).raise_for_status()
        return made

    def _amis(self, name: str, images: int) -> list[str]:
        ebs, ec2 = (self.amazon.client(service, region="eu-west-1") for service in ("ebs", "ec2"))
        snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=0)
        ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})
        disk = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}
        common = {"RootDeviceName": "/dev/sda1", "VirtualizationType": "hvm", "BlockDeviceMappings": [disk]}
        return [
            ec2.register_image(Name=f"image {number}", **common)["ImageId"] for number in range(images)
        ]

    def _google_images(self, name: str, images: int) -> list[str]:
        clients = self.google.images_client(), self.google.operations_client()
        project, storage = self.google.accounts["owner"]["project_id"], self.google.storage_client()
        for number in range(images):
            on_gcp.make_empty(storage, *clients, project, test_gcp.BUCKET, f"image-{number}", {})
        return [f"projects/{project}/global/images/image-{number}" for number in range(images)]

    def _write(self, refs: Refs) -> None:
        """Images as an upload leaves them."""
        ids = {each["name"]: each for each in self.member.get("/v1/clouds").json()["clouds"]}
        engine = sa.create_engine(self.service.database_url)
        with orm.Session(engine) as session, session.begin():
            for number, row in enumerate(zip(*refs.values(), strict=True)):
                image = models.Image(
                    project_id=self.member.project_id,
                    user_id="benchmark",
                    name=f"image {number}",
                    status="active",
                    created_at=models.now() + number,
                )
                for name, image_ref in zip(refs, row, strict=True):
                    link = models.Link(cloud_key=ids[name]["id"], cloud=name, image_ref=image_ref)
                    link.provider, link.region = ids[name]["provider"], ids[name]["region"]
                    link.proof, link.verified_at = "asserted", models.now()
                    image.links.append(link)
                session.add(image)
        engine.dispose()

    def requests(self) -> int:
        """That came to the image services of zones, AWS and Google so far; Keystone's are not counted."""
        standins = [self.amazon.counters()["calls"], self.google.counters()["calls"]]
        seen = sum(len(proxy.seen) for proxy in self.proxies)
        return seen + sum(sum(calls.values()) for calls in standins)


def ours(world: World, images: int) -> int:
    """The cells that are available, by one call of the API."""
    query = {"limit": images, "cloud": f"in:{','.join(CLOUDS)}"}
    answer: JSON = world.member.get("/v1/availability", params=query).json()
    cells = [cell for each in answer["availability"] for cell in each["clouds"]]
    return sum(cell["status"] == "available" for cell in cells)


def bare(world: World, _images: int) -> int:
    """The images in all lists, by each Cloud's own SDK."""
    pages = world.amazon.client("ec2", region="eu-west-1").get_paginator("describe_images")
    project = world.google.accounts["owner"]["project_id"]
    lists: list[Callable[[], int]] = [
        *(lambda name=name: len(list(world.glance(name).images(limit=1000))) for name in (*ZONES, "other")),
        lambda: sum(len(page["Images"]) for page in pages.paginate(Owners=["self"])),
        lambda: len(list(world.google.images_client().list(project=project))),
    ]
    with futures.ThreadPoolExecutor() as pool:
        return sum(pool.map(lambda each: each(), lists))


WAYS: Mapping[str, Callable[[World, int], int]] = {"ours": ours, "bare": bare}


def run(folder: pathlib.Path, rounds: int, images: int) -> None:
    """Measure, and print what was found."""
    with contextlib.ExitStack() as stack:
        world = World(folder, images, stack)
        report.say(f"{images} Images in five Clouds, {report.machine()}")
        found: dict[str, list[tuple[float, int]]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in [*WAYS][:: 1 if number % 2 == 0 else -1]:
                before, since = world.requests(), time.monotonic()
                assert WAYS[way](world, images) == 5 * images, way
                seconds = time.monotonic() - since
                found[way].append((seconds, world.requests() - before))
        report.availability(found)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.availability", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1000, help="in each Cloud (default: %(default)s)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), arguments.runs, arguments.images)


if __name__ == "__main__":
    main()
