# SPDX-License-Identifier: Apache-2.0
"""A zone that is brought in line, against a parallel script of openstacksdk and against doing it by hand.

The script copies as many images at a time as CIMinG does, and asks the target for the hash of each. By hand
is `openstack image save` and `image create`, one image after the other: of a few, and extrapolated to all.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from concurrent import futures

from tests.benchmarks import main_job, report
from tests.person import Person
from tests.sandbox import ciming, processes, sandbox

HERE, THERE = "zone-a", "zone-b"
PREFIX = "zone-sync-"
OCTETS = {"Content-Type": "application/octet-stream"}
SAMPLE = 4      # images that are copied by hand
SCRIPT = '''
import concurrent.futures, io, sys
import openstack

prefix, parallel = sys.argv[1], int(sys.argv[2])
here, there = (openstack.connect(region_name=zone).image for zone in sys.argv[3:5])

def copy(image):
    data = here.download_image(image).content
    made = there.create_image(
        image.name, data=io.BytesIO(data), disk_format=image.disk_format, visibility=image.visibility,
        container_format=image.container_format, min_disk=image.min_disk, tags=image.tags,
    )
    assert there.get_image(made.id).hash_value == image.hash_value

missing = {image.name for image in there.images()}
wanted = [image for image in here.images() if image.name.startswith(prefix) and image.name not in missing]
with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
    list(pool.map(copy, wanted))
'''


class Race:
    """The contenders, once each in a round; another one begins each time."""

    def __init__(self, person: Person, folder: pathlib.Path, images: int, parallel: int) -> None:
        self.person = person
        self.folder = folder
        self.images = images
        self.parallel = parallel
        self.report: dict[str, object] = {}

    def fill(self, megabytes: int) -> None:
        """Have the images in the first zone."""
        glance = self.person.zone(HERE).image

        def put(number: int) -> None:
            wanted: dict[str, object] = {"name": f"{PREFIX}{number}", "disk_format": "raw"}
            wanted |= {"container_format": "bare", "visibility": "private"}
            wanted |= {"tags": ["golden"], "os_distro": "debian"}
            made = glance.post("/images", json=wanted).json()["id"]
            data = os.urandom(megabytes << 20)
            glance.put(f"/images/{made}/file", data=data, headers=OCTETS).raise_for_status()

        with futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(self.images)))

    def round(self, number: int) -> tuple[dict[str, float], dict[str, float]]:
        """Seconds that each of them took, and processor seconds of all that ran."""
        ways = [self.ours, self.script, self.by_hand]
        seconds, processor = {}, {}
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            main_job.settle()
            before = main_job.processor_seconds(self.folder)
            seconds[way.__name__] = way()
            processor[way.__name__] = main_job.processor_seconds(self.folder) - before
            self._clear()
        return seconds, processor

    def ours(self) -> float:
        """CIMinG; then once more, when there is nothing to do."""
        sync = ("multicloud", "zone", "sync", "--from", HERE, "--to", THERE, "--name", f"{PREFIX}*")
        began = time.monotonic()
        [row] = json.loads(self.person.openstack(*sync, "--wait", "-f", "json").stdout)
        seconds = time.monotonic() - began
        assert (row["Status"], row["Created"]) == ("success", self.images), row
        self.again = main_job.timed(lambda: self.person.openstack(*sync, "--wait", "-f", "json"))
        known = self.person.get("/v1/images", params={"limit": 1000}).json()["images"]
        for image in known:
            self.person.call("DELETE", f"/v1/images/{image['id']}", params={"keep_remote": "true"})
        return seconds

    def script(self) -> float:
        """What somebody would write who knows openstacksdk."""
        environment = {
            **processes.environment(),
            "OS_CLIENT_CONFIG_FILE": str(self.person.cloud.clouds_file),
            "OS_CLOUD": self.person.name,
        }
        command = [sys.executable, "-c", SCRIPT, PREFIX, str(self.parallel), HERE, THERE]
        seconds = main_job.timed(lambda: subprocess.run(command, env=environment, check=True))
        assert len(self._there()) == self.images
        return seconds

    def by_hand(self) -> float:
        """One by one: extrapolated."""
        file, region = self.folder / "by-hand", "--os-region-name"

        def copy() -> None:
            for number in range(SAMPLE):
                name = f"{PREFIX}{number}"
                self.person.openstack(region, HERE, "image", "save", "--file", str(file), name)
                create = ("image", "create", name, "--file", str(file), "--disk-format", "raw")
                self.person.openstack(region, THERE, *create, "--container-format", "bare")

        return main_job.timed(copy) / SAMPLE * self.images

    def _there(self) -> list[str]:
        images = self.person.zone(THERE).image.images()
        return [image.id for image in images if image.name.startswith(PREFIX)]

    def _clear(self) -> None:
        glance = self.person.zone(THERE).image
        for image_id in self._there():
            glance.delete_image(image_id)


def run(folder: pathlib.Path, rounds: int, images: int, megabytes: int, parallel: int) -> None:
    """Measure, and print what was found."""
    with sandbox.Sandbox(folder / "sandbox", second=False, barbican=False) as cloud:
        options = {("zone_sync", "parallel"): str(parallel), ("staging", "keep_free"): "0"}
        options |= {
            ("engine", name): str(parallel)
            for name in ("max_transfers_per_cloud", "max_transfers_per_project")
        }
        with ciming.Ciming(cloud, folder / "ciming", options):
            race = Race(Person(cloud, "member"), folder, images, parallel)
            race.fill(megabytes)
            report.say(f"{images} images of {megabytes} MiB, {parallel} at a time, {report.machine()}")
            found = [race.round(number) for number in range(rounds)]
            report.zone_sync(found, SAMPLE)
            report.say(f"a second sync, with nothing to do: {race.again:.1f} s; {report.machine()}")


def main() -> None:
    """Do what the command line says, in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.zone_sync", description=__doc__)
    for option, default in (("runs", 1), ("images", 300), ("size-mb", 1), ("parallel", 8)):
        parser.add_argument(f"--{option}", type=int, default=default, help="(default: %(default)s)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), given.runs, given.images, given.size_mb, given.parallel)


if __name__ == "__main__":
    main()
