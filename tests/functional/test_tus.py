# SPDX-License-Identifier: Apache-2.0
"""Resumable uploads: tus 1.0.0 by other people's clients, by our own, and by clients that misbehave."""

import base64
import hashlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psutil
import pytest
import requests

from tests.functional import faulty
from tests.functional.conftest import soon
from tests.functional.test_bad_input import Another, the_error
from tests.person import JSON, Person
from tests.sandbox import ciming

pytestmark = pytest.mark.usefixtures("service")
MIB = 1 << 20
PART = {"Content-Type": "application/offset+octet-stream"}
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture(scope="module")
def data() -> bytes:
    """A raw disk of random bytes."""
    return os.urandom(24 * MIB)


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


# Clients that work


def test_options_tell_what_can_be_done(service: ciming.Ciming) -> None:
    answer = requests.options(f"{service.url}{file_of(str(uuid.uuid4()))}", timeout=30)
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Extension"] == "checksum,expiration,termination"
    assert "sha1" in answer.headers["Tus-Checksum-Algorithm"].split(",")
    assert int(answer.headers["Tus-Max-Size"]) > 1 << 30
    assert {"HEAD", "PATCH", "DELETE", "PUT"} <= set(answer.headers["Allow"].split(", "))


def test_in_parts(member: Person, data: bytes) -> None:
    image_id, job_id = create(member, data)
    answer = head(member, image_id)
    assert (answer.headers["Upload-Offset"], answer.headers["Upload-Length"]) == ("0", str(len(data)))
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Upload-Expires"]
    for at in range(0, len(data), 10 * MIB):
        part = data[at : at + 10 * MIB]
        answer = patch(member, image_id, at, part)
        assert (answer.status_code, answer.headers["Tus-Resumable"]) == (204, "1.0.0"), answer.text
        assert answer.headers["Upload-Offset"] == str(at + len(part))
    arrived(member, image_id, job_id, data)
    answer = head(member, image_id)      # for a client that lost the last answer
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (200, str(len(data)))


def test_curl(service: ciming.Ciming, member: Person, data: bytes, tmp_path: pathlib.Path) -> None:
    image_id, job_id = create(member, data)
    for at in (0, 10 * MIB):
        part = tmp_path / "part"
        part.write_bytes(data[at : at + 10 * MIB] if at == 0 else data[at:])
        said = {"X-Auth-Token": member.token(), **TUS, **PART, "Upload-Offset": str(at)}
        headers = tmp_path / "headers"
        headers.write_text("".join(f"{name}: {value}\n" for name, value in said.items()))
        command = ["curl", "-sS", "-w", "%{http_code}", "-X", "PATCH", "-H", f"@{headers}"]
        command += ["--data-binary", f"@{part}", f"{service.url}{file_of(image_id)}"]
        assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"204"
    arrived(member, image_id, job_id, data)


def test_clients_that_can_only_post(member: Person) -> None:
    image_id, job_id = create(member, b"x" * 512)
    headers = {**TUS, **PART, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    answer = member.call("POST", file_of(image_id), headers=headers, data=b"x" * 100)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "100")
    headers["X-HTTP-Method-Override"] = "TRACE"
    the_error(member.call("POST", file_of(image_id), headers=headers), 405, "method.not_allowed")
    finish(member, image_id, job_id, b"x" * 512)


TUSPY = """
import os, sys
from tusclient.client import TusClient
url, path, step = sys.argv[1:]
client = TusClient("http://unused/", headers={"X-Auth-Token": os.environ["TOKEN"]})
client.uploader(path, url=url, chunk_size=int(step)).upload()
"""


def test_tuspy_killed_in_the_middle(
    service: ciming.Ciming, member: Person, data: bytes, tmp_path: pathlib.Path
) -> None:
    """An unmodified client from PyPI."""
    image_id, job_id = create(member, data)
    file = tmp_path / "disk"
    file.write_bytes(data)

    def upload(step: int) -> subprocess.Popen[bytes]:
        url = f"{service.url}{file_of(image_id)}"
        command = [sys.executable, "-c", TUSPY, url, str(file), str(step)]
        return subprocess.Popen(command, env={**os.environ, "TOKEN": member.token()})

    first = upload(64 * 1024)
    soon(lambda: offset(member, image_id) > 2 * MIB, 60)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    kept = offset(member, image_id)
    assert 2 * MIB < kept < len(data)
    soon(lambda: upload(4 * MIB).wait(60) == 0, 30)
    arrived(member, image_id, job_id, data)


def test_command_interrupted_in_the_middle(
    service: ciming.Ciming, member: Person, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "disk"
    with file.open("wb") as sparse:
        sparse.truncate(512 * MIB)
        sparse.seek(200 * MIB)
        sparse.write(os.urandom(MIB))
    command = ("multicloud", "image", "create", "long", "--file", str(file), "--cloud", "zone-a")
    running = member.start(*command)
    soon(lambda: named(member, "long"), 30)
    [image] = named(member, "long")
    soon(lambda: offset(member, image["id"]) > 0, 30)
    running.send_signal(signal.SIGINT)
    _out, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert f"image upload {image['id']} --file {file}" in said
    kept = offset(member, image["id"])
    assert 0 < kept < 512 * MIB
    run = member.openstack(
        *("multicloud", "image", "upload", "long", "--file", str(file)),
        *("--wait", "--progress", "-f", "value", "-c", "status"),
    )
    assert run.stdout == "active\n"
    member.zone("zone-a").image.delete_image(image["id"])


def named(member: Person, name: str) -> list[JSON]:
    return list(member.get("/v1/images", params={"name": name}).json()["images"])


def test_command_goes_on_from_standard_input(member: Person, data: bytes, tmp_path: pathlib.Path) -> None:
    image_id, job_id = create(member, data)
    assert patch(member, image_id, 0, data[: 5 * MIB]).ok
    command = ("multicloud", "image", "upload", image_id, "--file", "-", "--wait", "-c", "status")
    running = member.start(*command, stdin=subprocess.PIPE, text=False)
    running.communicate(data, timeout=60)
    assert running.returncode == 0
    arrived(member, image_id, job_id, data)


# Lines and services that break


def test_a_part_that_is_cut_short_is_kept(service: ciming.Ciming, member: Person, data: bytes) -> None:
    image_id, job_id = create(member, data)
    for chunked in (False, True):
        before = offset(member, image_id)
        sent = send_half(service, member, image_id, before, data[before : before + 4 * MIB], chunked)
        soon(lambda: offset(member, image_id) > before)  # noqa: B023
        assert offset(member, image_id) <= before + sent
    finish(member, image_id, job_id, data)


def send_half(
    service: ciming.Ciming, member: Person, image_id: str, at: int, part: bytes, chunked: bool
) -> int:
    """Send a half of a part, and hang up; the bytes sent."""
    with connection(service) as line:
        line.sendall(request(member, image_id, at, None if chunked else len(part)))
        half = part[: len(part) // 2]
        line.sendall((b"%x\r\n" % len(part) if chunked else b"") + half)
        return len(half)


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


@pytest.mark.parametrize(
    "rest",
    [b"zz\r\nabc", b"3\r\nabcdef\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n", b"-5\r\nabc\r\n"],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_chunks_that_are_none(
    service: ciming.Ciming, member: Person, method: str, rest: bytes
) -> None:
    image_id, job_id = create(member, b"x" * 512)
    with connection(service) as line:
        asked = request(member, image_id, 0, None)
        if method == "PUT":
            asked = asked.replace(b"PATCH", b"PUT", 1).replace(b"offset+", b"")
        line.sendall(asked + rest)
        answer = line.makefile("rb").readline()
    assert answer.split()[1] == b"400", answer
    finish(member, image_id, job_id, b"x" * 512)


def test_service_dies_in_mid_part(service: ciming.Ciming, member: Person, data: bytes) -> None:
    """What was committed stays; the offset says how much that is."""
    image_id, job_id = create(member, data)

    def slow() -> Iterator[bytes]:
        yield from faulty.slowly(data[: 12 * MIB], 5)
        assert offset(member, image_id) > 0
        service.kill()
        yield data[12 * MIB :]

    with pytest.raises(requests.RequestException):
        patch(member, image_id, 0, slow())
    service.start()
    kept = offset(member, image_id)
    assert 0 < kept <= 12 * MIB
    finish(member, image_id, job_id, data)


# Clients that misbehave


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
    assert patch(member, image_id, 0, data[:10], **{"Upload-Length": "1024"}).status_code == 204
    finish(member, image_id, job_id, data)


def test_no_room(another: Another) -> None:
    _service, member = another({("staging", "quota"): str(4 * MIB)})
    image_id = member.create()["image"]["id"]
    answer = patch(member, image_id, 0, b"x", **{"Upload-Length": str(5 * MIB)})
    the_error(answer, 507, "staging.full")
    assert patch(member, image_id, 0, b"x", **{"Upload-Length": str(MIB)}).status_code == 204
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


def give_up(member: Person, image_id: str) -> None:
    """As soon as nobody sends any more; its Job, and with it the trust, ends then."""
    soon(lambda: member.call("DELETE", file_of(image_id), headers=TUS).status_code == 204, 30)
    [job] = member.get("/v1/jobs", params={"image_id": image_id}).json()["jobs"]
    assert member.wait(job["id"])["status"] == "cancelled"


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
