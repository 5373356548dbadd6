# SPDX-License-Identifier: Apache-2.0
"""Resumable uploads by clients that misbehave: clear answers, and nothing is lost."""

import base64
import hashlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import requests

from tests.functional import faulty
from tests.functional.conftest import soon
from tests.functional.test_bad_input import Another, the_error
from tests.functional.tus import (
    PART,
    TUS,
    connection,
    create,
    file_of,
    finish,
    give_up,
    head,
    offset,
    patch,
    request,
)
from tests.person import Person
from tests.sandbox import ciming

pytestmark = pytest.mark.usefixtures("service")
MIB = 1 << 20


def test_wrong_offset(member: Person) -> None:
    data = b"x" * 1024
    image_id, job_id = create(member, data)
    assert patch(member, image_id, 0, data[:500]).status_code == 204
    for wrong in (0, 499, 501, 1024, 5000):
        error = the_error(patch(member, image_id, wrong, b"y"), 409, "upload.wrong_offset")
        assert "500" in error["detail"]
    for nonsense in ("-1", "x", "", "1.5", "9" * 30, "\u0665"):
        said = nonsense.encode()
        answer = patch(member, image_id, 0, b"y", **{"Upload-Offset": said})  # type: ignore[arg-type]
        assert the_error(answer, 400, "upload.invalid_header")["field"] == "Upload-Offset"
    finish(member, image_id, job_id, data)


def test_a_second_writer_is_locked_out(member: Person, data: bytes) -> None:
    image_id, job_id = create(member, data)
    slow = threading.Thread(target=patch, args=(member, image_id, 0, faulty.slowly(data[:MIB], 4)))
    slow.start()
    time.sleep(1)
    the_error(patch(member, image_id, 0, data), 423, "upload.locked")
    the_error(member.put(image_id, data), 409, "upload.in_progress")
    the_error(member.call("DELETE", file_of(image_id), headers=TUS), 423, "upload.locked")
    slow.join()
    assert offset(member, image_id) == MIB
    finish(member, image_id, job_id, data)


def test_checksum_of_a_part(member: Person, data: bytes) -> None:
    image_id, job_id = create(member, data)
    part = data[: 3 * MIB]
    right = base64.b64encode(hashlib.sha1(part).digest()).decode()
    wrong = base64.b64encode(hashlib.sha1(b"other").digest()).decode()
    answer = patch(member, image_id, 0, part, **{"Upload-Checksum": f"sha1 {wrong}"})
    the_error(answer, 460, "upload.checksum_mismatch")
    assert offset(member, image_id) == 0
    assert patch(member, image_id, 0, part, **{"Upload-Checksum": f"sha1 {right}"}).status_code == 204
    assert offset(member, image_id) == len(part)
    for nonsense in ("crc32 AAAA", "sha1", "sha1 ~~~", f"sha256 {right}", "x" * 5000):
        answer = patch(member, image_id, len(part), b"y", **{"Upload-Checksum": nonsense})
        assert the_error(answer, 400, "upload.invalid_checksum")["field"] == "Upload-Checksum"
    finish(member, image_id, job_id, data)


def test_a_part_with_a_checksum_that_is_cut_short_is_not_kept(
    service: ciming.Ciming, member: Person, data: bytes
) -> None:
    image_id, job_id = create(member, data)
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    asked = request(member, image_id, 0, len(data)).removesuffix(b"\r\n")
    with connection(service) as line:
        line.sendall(asked + f"Upload-Checksum: sha256 {digest}\r\n\r\n".encode() + data[: 3 * MIB])
    soon(lambda: patch(member, image_id, 0, data[:7]).status_code == 204)
    finish(member, image_id, job_id, data)


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.1", ""])
def test_another_version_of_tus(member: Person, version: str | None) -> None:
    image_id, job_id = create(member, b"x" * 512)
    for method in ("PATCH", "HEAD", "DELETE"):
        headers = {**PART, "Upload-Offset": "0"}
        headers |= {} if version is None else {"Tus-Resumable": version}
        answer = member.call(method, file_of(image_id), headers=headers, data=b"y" * 512)
        assert (answer.status_code, answer.headers["Tus-Version"]) == (412, "1.0.0")
    assert offset(member, image_id) == 0
    finish(member, image_id, job_id, b"x" * 512)


def test_more_than_was_announced(member: Person) -> None:
    data = b"x" * 1024
    image_id, job_id = create(member, data)
    the_error(patch(member, image_id, 0, data + b"y"), 413, "upload.size_mismatch")
    endless = (b"z" * MIB for _ in range(1 << 20))
    try:
        answer = patch(member, image_id, 0, endless)
    except requests.ConnectionError:
        pass        # the service hung up on it
    else:
        the_error(answer, 400, "upload.size_mismatch")
    assert offset(member, image_id) == 0
    answer = patch(member, image_id, 0, data, **{"Upload-Length": "1025"})
    the_error(answer, 400, "upload.size_mismatch")
    finish(member, image_id, job_id, data)


def test_a_size_that_was_not_given_at_create(member: Person) -> None:
    data = b"x" * 1024
    made = member.create()
    image_id, job_id = made["image"]["id"], made["job"]["id"]
    assert head(member, image_id).headers["Upload-Defer-Length"] == "1"
    the_error(patch(member, image_id, 0, data), 400, "upload.size_unknown")
    answer = patch(member, image_id, 0, data, **{"Upload-Length": str(1 << 62)})
    the_error(answer, 413, "image.too_large")
    for body in (b"", data):
        answer = patch(member, image_id, 0, body, **{"Upload-Length": "0"})
        assert the_error(answer, 400, "image.empty")["field"] == "Upload-Length"
    assert patch(member, image_id, 0, data[:10], **{"Upload-Length": "1024"}).status_code == 204
    finish(member, image_id, job_id, data)


def test_no_room(another: Another) -> None:
    _service, member = another({("staging", "quota"): str(4 * MIB)})
    image_id = member.create()["image"]["id"]
    answer = patch(member, image_id, 0, b"x", **{"Upload-Length": str(5 * MIB)})
    the_error(answer, 507, "staging.full")
    assert patch(member, image_id, 0, b"x", **{"Upload-Length": str(MIB)}).status_code == 204
    give_up(member, image_id)


def test_a_body_that_never_ends(another: Another) -> None:
    """Nobody knows how much it is to be; as much as an image may have is taken, and then no more."""
    service, member = another({("staging", "max_image_size"): str(4 * MIB)})
    image_id = member.create()["image"]["id"]
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += MIB
            assert sent < 1 << 30, "it is all taken"
            time.sleep(0.01)
            yield b"x" * MIB

    try:
        answer = member.put(image_id, endless())
    except requests.RequestException:       # hung up on, before the answer was read
        pass
    else:
        the_error(answer, 400, "image.too_large")
    assert not list(service.staging_dir.rglob("*.[0-9]*"))
    assert offset(member, image_id) == 0
    give_up(member, image_id)


def test_whose_upload_it_is(member: Person, reader: Person, stranger: Person) -> None:
    image_id, job_id = create(member, b"x" * 512)
    for who, status in ((stranger, 404), (reader, 403)):
        assert head(who, image_id).status_code == status
        assert patch(who, image_id, 0, b"y").status_code == status
        assert who.call("DELETE", file_of(image_id), headers=TUS).status_code == status
    answer = patch(member, image_id, 0, b"y", **{"X-Auth-Token": "expired"})
    the_error(answer, 401, "auth.required")
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    answer = patch(member, image_id, 0, b"y", **{"Content-Type": "application/octet-stream"})
    the_error(answer, 415, "request.content_type")
    answer = patch(member, image_id, 0, b"y", **{"Content-Encoding": "gzip"})
    the_error(answer, 415, "request.content_type")
    wrong = (("Content-Range", "bytes 100-511/512", 400), ("Content-Encoding", "gzip", 415))
    for name, said, status in wrong:
        headers = {"Content-Type": "application/octet-stream", name: said}
        answer = member.call("PUT", file_of(image_id), headers=headers, data=b"x" * 512)
        assert answer.status_code == status, answer.text
    finish(member, image_id, job_id, b"x" * 512)


def test_giving_up(service: ciming.Ciming, member: Person, data: bytes) -> None:
    image_id, job_id = create(member, data)
    assert patch(member, image_id, 0, data[:MIB]).status_code == 204
    answer = member.call("DELETE", file_of(image_id), headers=TUS, data=b"why")
    the_error(answer, 400, "request.invalid")
    assert member.call("DELETE", file_of(image_id), headers=TUS).status_code == 204
    assert member.wait(job_id)["status"] == "cancelled"
    assert head(member, image_id).status_code == 410
    the_error(patch(member, image_id, MIB, b"y"), 410, "upload.terminated")
    the_error(member.put(image_id, data), 410, "upload.terminated")
    assert not (service.staging_dir / job_id).exists()


def test_a_client_that_stays_away(another: Another) -> None:
    service, member = another(
        {("staging", "upload_expiry"): "2", ("engine", "housekeeping_interval"): "0.5"}
    )
    image_id, job_id = create(member, b"x" * 1024)
    assert patch(member, image_id, 0, b"x").status_code == 204
    job = member.wait(job_id)
    assert (job["status"], job["error"]["code"]) == ("error", "upload.expired")
    assert head(member, image_id).status_code == 410
    soon(lambda: not (service.staging_dir / job_id).exists())
    the_error(patch(member, image_id, 1, b"x"), 410, "upload.expired")


def test_a_thousand_half_open_uploads(another: Another) -> None:
    """Memory and threads stay bounded, and others are served."""
    crowded, member = another({})
    ids = [member.create(size=1024)["image"]["id"] for _ in range(30)]
    parents = [psutil.Process(pid) for pid in crowded.pids]
    family = [*parents, *(child for each in parents for child in each.children(recursive=True))]

    def used() -> tuple[int, int]:
        return sum(each.memory_info().rss for each in family), sum(each.num_threads() for each in family)

    before = used()
    lines = []
    try:
        for number in range(1000):
            line = connection(crowded)
            line.sendall(request(member, ids[number % len(ids)], 0, 1024) + b"x" * 100)
            lines.append(line)
            if number % 250 == 249:
                assert member.get("/v1/images", params={"limit": 1}).status_code == 200
        memory, threads = (after - earlier for after, earlier in zip(used(), before, strict=True))
    finally:
        for line in lines:
            line.close()
    assert memory < 64 * MIB
    assert threads < 100
    for image_id in ids:
        give_up(member, image_id)


def test_clients_that_fall_silent_in_mid_head(another: Another) -> None:
    """More of them than there are threads hold the service up no longer than the configured time."""
    silenced, member = another({("api", "upload_timeout"): "2", ("api", "threads"): "8"})
    member.token()
    lines = [connection(silenced) for _ in range(16)]
    try:
        for line in lines:
            line.sendall(b"PATCH /v1/images/x/file HTTP/1.1\r\nHost:")
        assert member.get("/v1/images").status_code == 200
    finally:
        for line in lines:
            line.close()


def test_clients_that_fall_silent_in_mid_body(another: Another) -> None:
    """They take all the places that uploads have, and lose them after the configured time."""
    silenced, member = another({("api", "upload_timeout"): "4", ("api", "max_uploads"): "1"})
    ids = [member.create(size=MIB)["image"]["id"] for _ in range(8)]
    block = 64 * 1024

    def refused() -> bool:
        """Is there no place, in whichever process answers?"""
        answers = [patch(member, str(uuid.uuid4()), 0, b"x") for _ in range(6)]
        assert {answer.status_code for answer in answers} <= {404, 503}
        return all("upload.too_many" in answer.text for answer in answers)

    lines = []
    try:
        for image_id in ids:
            line = connection(silenced)
            line.sendall(request(member, image_id, 0, MIB) + b"x" * (block + 100))
            lines.append(line)
        soon(refused)
        soon(lambda: not refused(), 90)
        soon(lambda: block in {offset(member, image_id) for image_id in ids}, 90)
    finally:
        for line in lines:
            line.close()
        for image_id in ids:
            give_up(member, image_id)


def test_slow_clients_of_one_project_leave_room_for_others(another: Another) -> None:
    """In each process."""
    options = {("api", "max_project_uploads"): "1", ("api", "max_uploads"): "2"}
    dripped, member = another(options)
    stranger = Person(member.cloud, "stranger", dripped.url)
    theirs, *ids = [person.create(size=MIB)["image"]["id"] for person in (stranger, *[member] * 12)]
    lines: list[socket.socket] = []

    def refused() -> bool:
        """Has the project its place in whichever process answers? Else it takes one more."""
        answers = [patch(member, str(uuid.uuid4()), 0, b"x") for _ in range(6)]
        if all("of your project" in answer.text for answer in answers):
            return True
        if len(lines) == len(ids):      # all of them are under way
            return False
        line = connection(dripped)
        lines.append(line)
        line.sendall(request(member, ids[len(lines) - 1], 0, MIB) + b"x")
        return False

    try:
        soon(refused)
        assert patch(stranger, theirs, 0, b"x" * 512).status_code == 204
    finally:
        for line in lines:
            line.close()
        give_up(stranger, theirs)
        for image_id in ids:
            give_up(member, image_id)


def parts_at_once(send: Callable[[], Any], times: int) -> list[Any]:
    """What several threads get that do the same at the same moment."""
    gate, got = threading.Barrier(times), []

    def one() -> None:
        gate.wait()
        got.append(send())

    threads = [threading.Thread(target=one) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_two_of_the_same_part_at_once(member: Person, data: bytes) -> None:
    image_id, job_id = create(member, data)
    answers = parts_at_once(lambda: patch(member, image_id, 0, data[: 8 * MIB]).status_code, 5)
    assert answers.count(204) == 1
    assert set(answers) <= {204, 409, 423}
    finish(member, image_id, job_id, data)
