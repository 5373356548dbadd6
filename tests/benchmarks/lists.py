# SPDX-License-Identifier: Apache-2.0
"""A list of 1,000 images in pages of 50, against Glance's own under the same kind of server.

Starts real services of its own, and stops and removes them at the end.
"""

import argparse
import http.client
import json
import pathlib
import signal
import sys
import tempfile
import time
import urllib.parse
import uuid
from concurrent import futures
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from ciming.db import models
from tests.benchmarks import phases, report
from tests.person import Person
from tests.sandbox import ciming, sandbox, services

PAGE = 50
CLIENTS = (1, 4)


class Contender:
    """A list, by the URLs of its pages."""

    def __init__(self, name: str, person: Person, base: str, first: str) -> None:
        self.name = name
        self.host = urllib.parse.urlparse(base).netloc
        self.headers = {"X-Auth-Token": person.token()}
        self.pages: list[str] = []
        self.ids: set[str] = set()
        self._walk(first)

    def _walk(self, path: str | None) -> None:
        connection = http.client.HTTPConnection(self.host)
        while path:
            self.pages.append(path)
            page = json.loads(self.get(connection, path))
            self.ids |= {image["id"] for image in page["images"]}
            path = _next(page)
        connection.close()

    def get(self, connection: http.client.HTTPConnection, path: str) -> bytes:
        """One page."""
        connection.request("GET", path, headers=self.headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body

    def measure(self, clients: int, requests: int) -> report.Rate:
        """So many clients, each with a connection of its own, share the requests."""
        began = time.monotonic()
        with futures.ThreadPoolExecutor(clients) as pool:
            each = requests // clients
            waits = [pool.submit(self._client, number, each) for number in range(clients)]
            took = sorted(seconds for wait in waits for seconds in wait.result())
        per_second = len(took) / (time.monotonic() - began)
        return report.Rate(per_second, took[len(took) // 2], took[-len(took) // 100])

    def _client(self, number: int, requests: int) -> list[float]:
        connection = http.client.HTTPConnection(self.host)
        took = []
        for turn in range(requests):
            began = time.monotonic()
            self.get(connection, self.pages[(number + turn) % len(self.pages)])
            took.append(time.monotonic() - began)
        connection.close()
        return took


def _next(page: dict[str, Any]) -> str | None:
    """Where the next page is, in our words and in Glance's."""
    ours = [link["href"] for link in page.get("links", []) if link["rel"] == "next"]
    href = urllib.parse.urlparse(ours[0] if ours else page.get("next", ""))
    return f"{href.path}?{href.query}" if href.path else None


def fill_ours(service: ciming.Ciming, person: Person, images: int) -> None:
    """Images that are in two zones, written as the service writes them."""
    engine = sa.create_engine(service.database_url)
    digests = {"sha256": "ab" * 32, "sha512": "cd" * 64, "guest": None}
    with orm.Session(engine) as session, session.begin():
        for number in range(images):
            image = models.Image(
                project_id=person.project_id,
                user_id="benchmark",
                name=f"image {number}",
                status="active",
                disk_format="qcow2",
                size=1 << 28,
                virtual_size=1 << 30,
                digests=digests,
                tags=["benchmark"],
                created_at=models.now() + number,
            )
            for zone in services.ZONES:
                image.links.append(
                    models.Link(
                        cloud_key=zone,
                        cloud=zone,
                        provider="openstack",
                        region=zone,
                        image_ref=str(uuid.uuid4()),
                        proof="bytes",
                        verified_at=models.now(),
                    )
                )
            session.add(image)
    engine.dispose()


def fill_glance(person: Person, images: int) -> None:
    """Records of as many images; they have no data, which a list does not look at."""
    glance = person.zone("zone-a").image
    for number in range(images):       # one by one: its SQLite takes no more
        wanted = {"name": f"image {number}", "disk_format": "qcow2", "tags": ["benchmark"]}
        made = glance.post("/images", json={**wanted, "container_format": "bare", "os_distro": "debian"})
        assert made.status_code == 201, made.text


def run(folder: pathlib.Path, rounds: int, images: int, requests: int) -> None:
    """Measure, and print what was found."""
    with (
        sandbox.Sandbox(folder / "sandbox", second=False, barbican=False) as cloud,
        ciming.Ciming(cloud, folder / "ciming", phases.options()) as service,
    ):
        person = Person(cloud, "member")
        fill_ours(service, person, images)
        fill_glance(person, images)
        glance = cloud.url(services.ZONES["zone-a"])
        contenders = (
            Contender("ours", person, service.url, f"/v1/images?limit={PAGE}"),
            Contender("Glance", person, glance, f"/v2/images?limit={PAGE}"),
        )
        assert all(len(contender.ids) == images for contender in contenders)
        report.say(f"{images} images, pages of {PAGE}, {requests} requests each, {report.machine()}")
        for clients in CLIENTS:
            found: list[tuple[report.Rate, report.Rate]] = []
            for number in range(rounds):
                order = contenders[:: 1 if number % 2 == 0 else -1]
                rates = {each.name: each.measure(clients, requests) for each in order}
                found.append((rates["ours"], rates["Glance"]))
            report.rates(clients, found)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.lists", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1000, help="in the project (default: %(default)s)")
    parser.add_argument(
        "--requests", type=int, default=400, help="of each, in a round (default: %(default)s)"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), arguments.runs, arguments.images, arguments.requests)


if __name__ == "__main__":
    main()
