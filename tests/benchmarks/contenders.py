# SPDX-License-Identifier: Apache-2.0
"""Three ways to bring one image into two zones."""

import json
import pathlib
import subprocess

from tests.person import Person
from tests.sandbox import processes, services

NAME = "benchmark"


def ours(person: Person, file: pathlib.Path) -> str:
    """The main job; returns its Job's id."""
    clouds = [word for zone in services.ZONES for word in ("--cloud", zone)]
    made = json.loads(
        person.openstack(
            *("multicloud", "image", "create", NAME, "--file", str(file)),
            *(*clouds, "--wait", "-f", "json"),
        ).stdout
    )
    assert len(made["links"]) == len(services.ZONES), made
    return str(made["job_id"])


def asked(person: Person, file: pathlib.Path) -> None:
    """The main job by the API."""
    made = person.create(name=NAME, clouds=list(services.ZONES))
    _finished(_curl(person.token(), f"{person.url}/v1/images/{made['image']['id']}/file", file))
    assert person.wait(made["job"]["id"])["status"] == "success"


def one_by_one(person: Person, file: pathlib.Path) -> None:
    """What people do without CIMinG."""
    for zone in services.ZONES:
        person.openstack(
            *("--os-region-name", zone, "image", "create", NAME, "--file", str(file)),
            *("--disk-format", "qcow2", "--container-format", "bare"),
        )


class Floor:
    """Nothing but the bytes, to both Glances at once: records and token are there beforehand."""

    def __init__(self, person: Person) -> None:
        self.token = person.token()
        self.urls = [self._record(person, zone) for zone in services.ZONES]

    @staticmethod
    def _record(person: Person, zone: str) -> str:
        wanted = {"name": NAME, "disk_format": "qcow2", "container_format": "bare"}
        made = person.zone(zone).image.post("/images", json=wanted).json()
        return f"{person.cloud.url(services.ZONES[zone])}/v2/images/{made['id']}/file"

    def send(self, file: pathlib.Path) -> None:
        """Send the file, and wait until both have it."""
        for curl in [_curl(self.token, url, file) for url in self.urls]:
            _finished(curl)


def _curl(token: str, url: str, file: pathlib.Path) -> subprocess.Popen[str]:
    headers = (f"X-Auth-Token: {token}", "Content-Type: application/octet-stream")
    given = [word for header in headers for word in ("--header", header)]
    return subprocess.Popen(
        ["curl", "--silent", "--show-error", "--fail", *given, "--upload-file", str(file), url],
        env=processes.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finished(curl: subprocess.Popen[str]) -> None:
    _, complaint = curl.communicate()
    assert curl.returncode == 0, complaint


def clean(person: Person) -> None:
    """Delete this person's images in every zone, so that the disk does not fill."""
    for zone in services.ZONES:
        glance = person.zone(zone).image
        for image in list(glance.images(name=NAME)):
            glance.delete_image(image.id)
