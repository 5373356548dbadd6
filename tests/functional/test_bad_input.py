# SPDX-License-Identifier: Apache-2.0
"""Bad input gets a clear answer and loses nothing."""

import contextlib
import hashlib
import http.client
import os
import pathlib
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest
import requests

from ciming.disk_image import DISK_FORMATS
from tests import corpus
from tests.functional import faulty
from tests.functional.conftest import soon
from tests.person import Person
from tests.sandbox import ciming

Another = Callable[..., tuple[ciming.Ciming, Person]]
pytestmark = pytest.mark.usefixtures("service")


def the_error(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """The one error of an answer, after a look at its shape."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    [error] = body["errors"]
    assert error["code"] == code, error
    assert error["status"] == status
    assert error["detail"] in body["message"]
    assert error["request_id"] == answer.headers["X-Openstack-Request-Id"]
    return dict(error)


def counts(member: Person) -> tuple[int, int, int]:
    return (
        len(member.get("/v1/images", params={"limit": 1000}).json()["images"]),
        len(member.get("/v1/jobs", params={"limit": 1000}).json()["jobs"]),
        len(member.trusts()),
    )


def test_unknown_cloud_names_those_one_may_use(member: Person) -> None:
    before = counts(member)
    answer = member.call("POST", "/v1/images", json={"name": "x", "clouds": ["zone-a", "moon"]})
    error = the_error(answer, 400, "cloud.unknown")
    assert error["field"] == "clouds"
    assert "moon" in error["detail"] and "zone-a, zone-b" in error["detail"]
    assert counts(member) == before
    run = member.openstack(
        "multicloud", "image", "create", "x", "--file", "/etc/hostname", "--cloud", "moon", ok=(1,)
    )
    assert "zone-a, zone-b" in run.stderr and "Traceback" not in run.stderr


def test_too_many_clouds(another: Another) -> None:
    _service, member = another({("api", "max_targets"): "1"})
    for clouds in (["zone-a", "zone-b"], "all"):
        answer = member.call("POST", "/v1/images", json={"name": "x", "clouds": clouds})
        assert the_error(answer, 400, "cloud.too_many")["field"] == "clouds"
    assert member.create(clouds=["zone-a", "zone-a"])       # which is one
    member.take_trusts_back()


GOOD = {"name": "x", "clouds": ["zone-a"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"clouds": ["zone-a"]}, "name"),
        ({**GOOD, "name": ""}, "name"),
        ({**GOOD, "name": "n" * 10_000}, "name"),
        ({**GOOD, "name": 7}, "name"),
        ({**GOOD, "name": "a\0b"}, "name"),
        ({**GOOD, "name": "\ud800"}, "name"),
        ({**GOOD, "name": None}, "name"),
        ({**GOOD, "clouds": []}, "clouds"),
        ({**GOOD, "clouds": "zone-a"}, "clouds"),
        ({**GOOD, "clouds": [1]}, "clouds"),
        ({**GOOD, "clouds": ["c" * 10_000]}, "clouds"),
        ({**GOOD, "size": "12"}, "size"),
        ({**GOOD, "size": 0}, "size"),
        ({**GOOD, "size": -1}, "size"),
        ({**GOOD, "size": 2**70}, "size"),
        ({**GOOD, "size": 2**62}, "size"),
        ({**GOOD, "min_disk": 1.5}, "min_disk"),
        ({**GOOD, "min_ram": "much"}, "min_ram"),
        ({**GOOD, "disk_format": "floppy"}, "disk_format"),
        ({**GOOD, "container_format": "ovf"}, "container_format"),
        ({**GOOD, "visibility": "secret"}, "visibility"),
        ({**GOOD, "checksum": "sha256:beef"}, "checksum"),
        ({**GOOD, "checksum": "crc:beef"}, "checksum"),
        ({**GOOD, "checksum": "x" * 10_000}, "checksum"),
        ({**GOOD, "tags": "golden"}, "tags"),
        ({**GOOD, "tags": ["t" * 10_000]}, "tags.0"),
        ({**GOOD, "properties": ["a"]}, "properties"),
        ({**GOOD, "properties": {"a": 1}}, "properties.a"),
        ({**GOOD, "properties": {"os_glance_x": "1"}}, "properties.os_glance_x"),
        ({**GOOD, "properties": {"owner": "me"}}, "properties.owner"),
        ({**GOOD, "properties": {"ciming_target": "me"}}, "properties.ciming_target"),
        ({**GOOD, "surprise": 1}, "surprise"),
        ([1], "body"),
        ("text", "body"),
        ({**GOOD, "size": True}, "size"),
    ],
)
def test_bad_field_is_named(member: Person, body: Any, field: str) -> None:
    answer = member.call("POST", "/v1/images", json=body)
    assert answer.status_code == 400, answer.text
    assert len(answer.content) < 5_000
    fields = [error.get("field") for error in answer.json()["errors"]]
    assert field in fields
    assert answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"\xff\xfe", b'{"name": "x"' * 3, b"[" * 100_000, b'{"size": ' + b"9" * 5_000 + b"}"],
)
def test_invalid_json(member: Person, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = member.call("POST", "/v1/images", data=body, headers=headers)
    the_error(answer, 400, "request.invalid_json")


def test_a_body_that_is_not_json(member: Person) -> None:
    answer = member.call("POST", "/v1/images", data="name=x", headers={"Content-Type": "text/plain"})
    the_error(answer, 415, "request.content_type")


def test_a_huge_json_body(member: Person) -> None:
    answer = member.call("POST", "/v1/images", json={**GOOD, "name": "x" * 3_000_000})
    the_error(answer, 413, "request.too_large")


def test_a_huge_body_of_what_is_refused_unread(member: Person) -> None:
    """The answer arrives, although the server has it before the client has sent all."""
    huge = b"x" * 3_000_000
    the_error(member.call("POST", "/v1/nowhere", data=huge), 404, "url.not_found")
    the_error(member.call("DELETE", "/v1/images", data=huge), 405, "method.not_allowed")
    answer = requests.post(f"{member.url}/v1/images", data=huge, timeout=30)
    the_error(answer, 401, "auth.required")


@pytest.mark.parametrize("noun", ["image", "job"])
def test_ids(member: Person, stranger: Person, reader: Person, qcow2: pathlib.Path, noun: str) -> None:
    error = the_error(member.get(f"/v1/{noun}s/nonsense"), 400, f"{noun}.invalid_id")
    assert error["field"] == noun
    the_error(member.get(f"/v1/{noun}s/{uuid.uuid4()}"), 404, f"{noun}.not_found")
    job = member.bring(qcow2)
    row_id = job["id"] if noun == "job" else job["image_id"]
    assert reader.get(f"/v1/{noun}s/{row_id}").status_code == 200
    the_error(stranger.get(f"/v1/{noun}s/{row_id}"), 404, f"{noun}.not_found")
    assert row_id not in stranger.get(f"/v1/{noun}s").text
    the_error(stranger.get(f"/v1/{noun}s", params={"marker": row_id}), 400, "request.invalid")
    if noun == "image":
        the_error(stranger.put(row_id, b"x"), 404, "image.not_found")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/images?limit=0", "limit"),
        ("/v1/images?limit=x", "limit"),
        ("/v1/images?marker=x", "marker"),
        ("/v1/images?marker=00000000-0000-4000-8000-000000000000", "marker"),
        ("/v1/images?status=fine", "status"),
        ("/v1/images?color=red", "color"),
        ("/v1/jobs?image_id=x", "image_id"),
        ("/v1/jobs?kind=odd", "kind"),
        ("/v1/images?status=in:active,fine", "status"),
        ("/v1/images?status=gt:active", "status"),
        ("/v1/images?name=gte:a", "name"),
        ("/v1/images?name=in:%22a", "name"),
        ("/v1/images?name=%00", "name"),
        ("/v1/images?size=gte:much", "size"),
        ("/v1/images?size=lt:1&size=x", "size"),
        ("/v1/images?created_at=gt:yesterday", "created_at"),
        ("/v1/images?sort=color", "sort"),
        ("/v1/images?sort=name:up", "sort"),
        ("/v1/jobs?sort=name", "sort"),
        ("/v1/jobs?finished_at=2026-13-01", "finished_at"),
        ("/v1/clouds?name=gt:a", "name"),
        ("/v1/clouds?limit=1", "limit"),
    ],
)
def test_bad_query(member: Person, path: str, field: str) -> None:
    error = the_error(member.get(path), 400, "request.invalid")
    assert error["field"] == field


@pytest.mark.parametrize("token", [None, "", "nonsense", "g" * 10_000])
def test_no_good_token(service: ciming.Ciming, token: str | None) -> None:
    headers = {} if token is None else {"X-Auth-Token": token}
    for method, path in (("GET", "images"), ("POST", "images"), ("GET", "jobs"), ("GET", "clouds")):
        answer = requests.request(method, f"{service.url}/v1/{path}", headers=headers, json={}, timeout=30)
        the_error(answer, 401, "auth.required")


def test_reader_may_not_create(reader: Person, member: Person) -> None:
    the_error(reader.call("POST", "/v1/images", json=GOOD), 403, "policy.forbidden")
    made = member.create()
    the_error(reader.put(made["image"]["id"], b"x"), 403, "policy.forbidden")
    assert member.put(made["image"]["id"], b"x" * 512).status_code == 204
    member.wait(made["job"]["id"])


# Bytes that are not what was said


NAMED = {
    "raw-declared-qcow2",
    "vmdk-declared-qcow2",
    "qcow2-made-backing",
    "whole-qcow2-half",
}
"""Bad files that everybody thinks of; of the others, one of each kind of badness."""


def test_bad_files_are_refused(service: ciming.Ciming, member: Person, tmp_path: pathlib.Path) -> None:
    """With --all every tenth of them as well; the unit tests always see all."""
    every = corpus.bad(tmp_path)
    some = {(case.code, case.declared): case for case in every}
    named = {case.name: case for case in every if case.name in NAMED}
    assert named.keys() == NAMED
    chosen = [*some.values(), *named.values()]
    chosen += every[::10] if "CIMING_TEST_ALL" in os.environ else []
    assert len(chosen) >= 12
    for case in chosen:
        if case.code == "image.empty" or case.declared not in (None, *DISK_FORMATS):
            continue        # refused before any byte is looked at
        wanted = {"disk_format": case.declared} if case.declared else {}
        job = member.bring(case.path, name=case.name, clouds="all", **wanted)
        assert job["status"] == "error", case
        assert job["error"]["code"] == case.code, (case, job["error"])
        assert {target["error"]["code"] for target in job["targets"]} == {case.code}
        assert "/root" not in job["error"]["message"] and "staging" not in job["error"]["message"]
        assert member.image(job["image_id"])["status"] == "error"
        assert not (service.staging_dir / job["id"]).exists()       # such bytes go at once


def test_empty_body(member: Person, tmp_path: pathlib.Path) -> None:
    made = member.create()
    for body in (b"", iter(())):
        the_error(member.put(made["image"]["id"], body), 400, "image.empty")
    empty = tmp_path / "empty"
    empty.touch()
    run = member.openstack(
        "multicloud", "image", "create", "x", "--file", str(empty), "--cloud", "zone-a", ok=(1,)
    )
    assert "empty" in run.stderr
    member.put(made["image"]["id"], b"x" * 512)
    member.wait(made["job"]["id"])


def test_wrong_checksum(member: Person, qcow2: pathlib.Path) -> None:
    data = qcow2.read_bytes()
    for algorithm in ("md5", "sha256", "sha512"):
        wrong = hashlib.new(algorithm, b"other").hexdigest()
        job = member.bring(qcow2, checksum=f"{algorithm}:{wrong}")
        assert (job["status"], job["error"]["code"]) == ("error", "image.checksum_mismatch")
        right = hashlib.new(algorithm, data).hexdigest().upper()
        assert member.bring(qcow2, checksum=f"{algorithm}:{right}")["status"] == "success"


def test_body_of_another_length_than_announced(
    service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    data = qcow2.read_bytes()
    made = member.create(size=len(data))
    image_id = made["image"]["id"]
    for wrong in (data + b"x", data[:-1]):
        the_error(member.put(image_id, wrong), 400, "upload.size_mismatch")
        the_error(member.put(image_id, iter([wrong])), 400, "upload.size_mismatch")
    folder = service.staging_dir / made["job"]["id"]
    for chunked in (False, True):
        with half_sent(service, member, image_id, data, chunked):
            soon(folder.exists)
        soon(lambda: not folder.exists())
        soon(lambda: "in_progress" not in member.put(image_id, b"x").text)
    assert member.job(made["job"]["id"])["status"] == "uploading"
    assert member.put(image_id, data).status_code == 204       # nothing was lost
    assert member.wait(made["job"]["id"])["status"] == "success"


@contextlib.contextmanager
def half_sent(
    service: ciming.Ciming, member: Person, image_id: str, data: bytes, chunked: bool
) -> Iterator[None]:
    """A client that sends the first half, and dies at the end of the block."""
    connection = http.client.HTTPConnection(urllib.parse.urlparse(service.url).netloc)
    connection.putrequest("PUT", f"/v1/images/{image_id}/file")
    connection.putheader("X-Auth-Token", member.token())
    connection.putheader("Content-Type", "application/octet-stream")
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putheader("Content-Length", str(len(data)))
    connection.endheaders()
    connection.send((b"%x\r\n" % len(data) if chunked else b"") + data[: len(data) // 2])
    yield
    connection.close()


def test_two_uploads_at_once_and_one_too_many(member: Person, qcow2: pathlib.Path) -> None:
    data = qcow2.read_bytes()
    made = member.create(size=len(data))
    image_id = made["image"]["id"]
    answers = []
    slow = threading.Thread(
        target=lambda: answers.append(member.put(image_id, faulty.slowly(data, seconds=4)))
    )
    slow.start()
    time.sleep(1.5)
    the_error(member.put(image_id, data), 409, "upload.in_progress")
    slow.join()
    assert answers[0].status_code == 204, answers[0].text
    the_error(member.put(image_id, data), 409, "image.has_data")
    assert member.wait(made["job"]["id"])["status"] == "success"
    the_error(member.put(image_id, data), 409, "image.has_data")


def test_not_octets(member: Person) -> None:
    made = member.create()
    headers = {"Content-Type": "application/json"}
    answer = member.put(made["image"]["id"], b"{}", headers=headers)
    the_error(answer, 415, "request.content_type")
    member.put(made["image"]["id"], b"x" * 512)
    member.wait(made["job"]["id"])


# A staging area that is full


@pytest.fixture
def crowded(another: Another, tmp_path: pathlib.Path) -> Person:
    """The member of a service whose staging area is on a disk of 8 MiB."""
    mount = f"mkdir -p {tmp_path}/staging && mount -t tmpfs -o size=8m full {tmp_path}/staging"
    return another({}, wrap=("unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh"))[1]


def test_disk_full(crowded: Person) -> None:
    answer = crowded.call("POST", "/v1/images", json={**GOOD, "size": 9 << 20})
    the_error(answer, 507, "staging.full")
    made = crowded.create()
    image_id = made["image"]["id"]
    the_error(crowded.put(image_id, b"x" * (9 << 20)), 507, "staging.full")
    the_error(crowded.put(image_id, faulty.slowly(b"x" * (9 << 20), 0.2)), 507, "staging.full")
    assert crowded.put(image_id, b"x" * (1 << 20)).status_code == 204       # the part was removed
    assert crowded.wait(made["job"]["id"])["status"] == "success"


def test_disk_fills_up_while_it_comes(crowded: Person) -> None:
    """Two uploads of unknown length, each with room when it began; the first waits for the other's end."""
    made = [crowded.create() for _ in range(2)]
    under_way, other_ended = threading.Event(), threading.Event()

    def first() -> Iterator[bytes]:
        yield b"x" * (5 << 20)
        under_way.set()
        other_ended.wait(30)
        yield b"x" * 512

    with futures.ThreadPoolExecutor() as pool:
        sent = pool.submit(crowded.put, made[0]["image"]["id"], first())
        under_way.wait(30)
        try:
            answer = crowded.put(made[1]["image"]["id"], faulty.slowly(b"x" * (5 << 20), 1))
        finally:
            other_ended.set()
        the_error(answer, 507, "staging.full")
        assert sent.result().status_code == 204
    # One after the other: two at once can find the SQLite of the sandbox's Glance locked.
    assert crowded.wait(made[0]["job"]["id"])["status"] == "success"
    assert crowded.put(made[1]["image"]["id"], b"x" * 512).status_code == 204
    assert crowded.wait(made[1]["job"]["id"])["status"] == "success"


def test_no_room_for_what_a_cloud_has(crowded: Person) -> None:
    """The Job says so and waits for room, until its user wants it no more; what fits is brought meanwhile."""
    glance = crowded.zone("zone-a").image
    there = []
    for size in (9 << 20, 1 << 20):
        body = {"name": "there", "disk_format": "raw", "container_format": "bare"}
        made = glance.post("/images", json=body).json()["id"]
        octets = {"Content-Type": "application/octet-stream"}
        glance.put(f"/images/{made}/file", data=b"x" * size, headers=octets).raise_for_status()
        there.append(made)
    large, small = (
        crowded.create(clouds=["zone-b"], source={"cloud": "zone-a", "image": each})
        for each in there
    )
    assert crowded.wait(small["job"]["id"])["status"] == "success"

    def waits() -> bool:
        job = crowded.get(f"/v1/jobs/{large['job']['id']}").json()
        return job["status"] == "running" and (job["error"] or {}).get("code") == "staging.full"

    soon(waits)
    crowded.call("POST", f"/v1/jobs/{large['job']['id']}/cancel")
    assert crowded.wait(large["job"]["id"])["status"] == "cancelled"
    for each in there:
        glance.delete(f"/images/{each}").raise_for_status()


def test_quota(another: Another) -> None:
    _service, member = another({("staging", "quota"): str(4 << 20)})
    before = len(member.trusts())
    answer = member.call("POST", "/v1/images", json={**GOOD, "size": 5 << 20})
    the_error(answer, 507, "staging.full")
    assert len(member.trusts()) == before       # the one for this Job was taken back
    first, other = member.create(size=3 << 20), member.create(size=2 << 20)
    with futures.ThreadPoolExecutor() as pool:
        body = faulty.slowly(b"x" * (3 << 20), 3)
        sent = pool.submit(member.put, first["image"]["id"], body)
        time.sleep(1)       # what the first announced is its own, although most is still to come
        the_error(member.put(other["image"]["id"], b"x" * (2 << 20)), 507, "staging.full")
        assert sent.result().status_code == 204
    assert member.wait(first["job"]["id"])["status"] == "success"
    assert member.put(other["image"]["id"], b"x" * (2 << 20)).status_code == 204
    assert member.wait(other["job"]["id"])["status"] == "success"
