# SPDX-License-Identifier: Apache-2.0
"""An image that one zone has comes into another: against the floor, Glance's own way, and by hand.

Starts real services of its own, and stops and removes them at the end. Takes about ten times the image's
size of disk, below $TMPDIR.
"""

import json
import pathlib
import subprocess
import time
from typing import Any

from tests.benchmarks import contenders, main_job, report
from tests.person import Person
from tests.sandbox import processes, sandbox, services

HERE, THERE = services.ZONES
NAME = contenders.NAME
OCTETS = "Content-Type: application/octet-stream"


class Race:
    """The contenders, once each in a round; another one begins each time."""

    def __init__(self, person: Person, folder: pathlib.Path, source: str) -> None:
        self.person = person
        self.folder = folder
        self.source = source
        self.target = person.zone(THERE).image

    def round(self, number: int) -> dict[str, float]:
        """Seconds that each of them took."""
        ways = [self.ours, self.asked, self.floor, self.glance_download, self.by_hand]
        found = {}
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            main_job.settle()
            found[way.__name__] = way()
            for image in list(self.target.images(name=NAME)):
                self.target.delete_image(image.id)
        return found

    def ours(self) -> float:
        """CIMinG; its Image is forgotten afterwards."""
        wanted = ("--from", f"{HERE}:{self.source}", "--cloud", THERE, "--wait", "-f", "json")
        began = time.monotonic()
        made = json.loads(self.person.openstack("multicloud", "image", "create", NAME, *wanted).stdout)
        seconds = time.monotonic() - began
        assert {link["cloud"] for link in made["links"]} == {HERE, THERE}, made
        self._forget(made["id"])
        return seconds

    def asked(self) -> float:
        """CIMinG by its API, asked as often as Glance is; its Image is forgotten afterwards."""
        began = time.monotonic()
        source = {"cloud": HERE, "image": self.source}
        made = self.person.create(name=NAME, clouds=[THERE], source=source)
        job = self.person.wait(made["job"]["id"])
        seconds = time.monotonic() - began
        assert job["status"] == "success", job
        self._forget(made["image"]["id"])
        return seconds

    def _forget(self, image_id: str) -> None:
        forget = {"keep_remote": "true"}
        assert self.person.call("DELETE", f"/v1/images/{image_id}", params=forget).status_code == 204

    def floor(self) -> float:
        """Nothing but the bytes: the record and the token are there beforehand."""
        token, urls = f"X-Auth-Token: {self.person.token()}", {}
        for zone, image_id in ((HERE, self.source), (THERE, self._record())):
            urls[zone] = f"{self.person.cloud.url(services.ZONES[zone])}/v2/images/{image_id}/file"
        curl = ("curl", "--silent", "--show-error", "--fail", "--header", token)

        def send() -> None:
            reading = _start([*curl, urls[HERE]], stdout=subprocess.PIPE)
            assert reading.stdout is not None
            upload = [*curl, "--header", OCTETS, "--upload-file", "-", urls[THERE]]
            writing = _start(upload, stdin=reading.stdout)
            reading.stdout.close()
            assert (writing.wait(), reading.wait()) == (0, 0)

        return main_job.timed(send)

    def glance_download(self) -> float:
        """What Glance itself has for it: the import method glance-download."""
        began = time.monotonic()
        image_id = self._record()
        method = {"name": "glance-download", "glance_region": HERE, "glance_image_id": self.source}
        answer = self.target.post(f"/images/{image_id}/import", json={"method": method})
        assert answer.status_code == 202, answer.text
        while (status := self.target.get_image(image_id).status) != "active":
            assert status in ("queued", "importing", "saving"), status
            time.sleep(0.1)
        return time.monotonic() - began

    def by_hand(self) -> float:
        """Down to one's own machine, and up again."""
        file = self.folder / "by-hand"
        region = "--os-region-name"

        def move() -> None:
            self.person.openstack(region, HERE, "image", "save", "--file", str(file), self.source)
            create = ("image", "create", NAME, "--file", str(file), "--disk-format", "qcow2")
            self.person.openstack(region, THERE, *create, "--container-format", "bare")

        seconds = main_job.timed(move)
        file.unlink()
        return seconds

    def _record(self) -> str:
        wanted = {"name": NAME, "disk_format": "qcow2", "container_format": "bare"}
        return str(self.target.post("/images", json=wanted).json()["id"])


def _start(command: list[str], **pipes: Any) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, **pipes}
    return subprocess.Popen(command, env=processes.environment(), **quiet)


def put(person: Person, file: pathlib.Path) -> str:
    """Have the file in the first zone, under a name of its own; its id there."""
    glance = person.zone(HERE).image
    wanted = {"name": "source", "disk_format": "qcow2", "container_format": "bare"}
    image_id = glance.post("/images", json=wanted).json()["id"]
    headers = dict([OCTETS.split(": ")])
    with file.open("rb") as data:
        glance.put(f"/images/{image_id}/file", data=data, headers=headers).raise_for_status()
    return str(image_id)


def run(folder: pathlib.Path, rounds: int, megabytes: int) -> None:
    """Measure, and print what was found."""
    with sandbox.Sandbox(folder / "sandbox", second=False, barbican=False) as cloud:
        bench = main_job.Bench(folder, cloud)
        file = bench.disk(megabytes)
        report.say(f"{file.stat().st_size / 1e6:.0f} MB from zone to zone, {report.machine()}")
        with bench.service():
            race = Race(bench.person, folder, put(bench.person, file))
            report.between([race.round(number) for number in range(rounds)])
        report.say(report.machine())


if __name__ == "__main__":
    main_job.command_line("python -m tests.benchmarks.between", __doc__, run)
