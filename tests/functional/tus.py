# SPDX-License-Identifier: Apache-2.0
"""Resumable uploads, as a client without any library makes them."""

import hashlib
import socket
import urllib.parse
from collections.abc import Iterable

import requests

from tests.functional.conftest import soon
from tests.person import JSON, Person
from tests.sandbox import ciming

PART = {"Content-Type": "application/offset+octet-stream"}
TUS = {"Tus-Resumable": "1.0.0"}


def file_of(image_id: str) -> str:
    return f"/v1/images/{image_id}/file"


def head(member: Person, image_id: str, **headers: str) -> requests.Response:
    return member.call("HEAD", file_of(image_id), headers={**TUS, **headers})


def offset(member: Person, image_id: str) -> int:
    return int(head(member, image_id).headers["Upload-Offset"])


def patch(
    member: Person, image_id: str, at: int, part: bytes | Iterable[bytes], **headers: str
) -> requests.Response:
    sent = {**TUS, **PART, "Upload-Offset": str(at), **headers}
    return member.call("PATCH", file_of(image_id), data=part, headers=sent)


def create(member: Person, data: bytes) -> tuple[str, str]:
    """Ids of a new Image that waits for these bytes, and of its Job."""
    made = member.create(size=len(data))
    return made["image"]["id"], made["job"]["id"]


def finish(member: Person, image_id: str, job_id: str, data: bytes) -> JSON:
    """Send what is missing, and see that what arrives in the zone is the data."""
    soon(lambda: patch(member, image_id, offset(member, image_id), data[offset(member, image_id) :]).ok, 20)
    return arrived(member, image_id, job_id, data)


def arrived(member: Person, image_id: str, job_id: str, data: bytes) -> JSON:
    job = member.wait(job_id)
    assert job["status"] == "success", job
    [link] = member.image(image_id)["links"]
    there = member.zone("zone-a").image.get_image(link["image_ref"])
    assert there.hash_value == hashlib.sha512(data).hexdigest()
    return job


def connection(service: ciming.Ciming) -> socket.socket:
    address = urllib.parse.urlparse(service.url)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30)


def request(member: Person, image_id: str, at: int, length: int | None) -> bytes:
    headers = {
        "Host": "x",
        "X-Auth-Token": member.token(),
        **TUS,
        **PART,
        "Upload-Offset": str(at),
        **({"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}),
    }
    lines = [f"PATCH {file_of(image_id)} HTTP/1.1", *(f"{name}: {said}" for name, said in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def give_up(member: Person, image_id: str) -> None:
    """As soon as nobody sends any more; its Job, and with it the trust, ends then."""
    soon(lambda: member.call("DELETE", file_of(image_id), headers=TUS).status_code == 204, 30)
    [job] = member.get("/v1/jobs", params={"image_id": image_id}).json()["jobs"]
    assert member.wait(job["id"])["status"] == "cancelled"
