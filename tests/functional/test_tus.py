# SPDX-License-Identifier: Apache-2.0
"""Resumable uploads: tus 1.0.0 by other people's clients, by our own, and by clients that misbehave."""

import os
import pathlib
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
import requests

from tests.functional import faulty
from tests.functional.conftest import soon
from tests.functional.test_bad_input import the_error
from tests.functional.tus import (
    PART,
    TUS,
    arrived,
    connection,
    create,
    file_of,
    finish,
    head,
    offset,
    patch,
    request,
)
from tests.person import JSON, Person
from tests.sandbox import ciming

pytestmark = pytest.mark.usefixtures("service")
MIB = 1 << 20


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
    """Send a half of a part, where chunked as one and a half chunks, and hang up; the bytes sent."""
    with connection(service) as line:
        line.sendall(request(member, image_id, at, None if chunked else len(part)))
        half = part[: len(part) // 2]
        size = len(half) * 2 // 3
        begin = b"%x\r\n" % size
        line.sendall(begin + half[:size] + b"\r\n" + begin + half[size:] if chunked else half)
        return len(half)


@pytest.mark.parametrize(
    "rest",
    [b"zz\r\nabc", b"3\r\nabcdef\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n", b"-5\r\nabc\r\n"],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_chunks_that_are_none(
    service: ciming.Ciming, member: Person, method: str, rest: bytes
) -> None:
    if getattr(service, "web", "") == "uwsgi":
        pytest.skip("what is a chunk is for uWSGI to say, and it is not strict")
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
    told = 0

    def slow() -> Iterator[bytes]:
        nonlocal told
        yield from faulty.slowly(data[: 12 * MIB], 5)
        told = offset(member, image_id)
        service.kill()
        yield data[12 * MIB :]

    with pytest.raises(requests.RequestException):
        patch(member, image_id, 0, slow())
    service.start()
    kept = offset(member, image_id)
    assert 0 < told <= kept <= 12 * MIB
    finish(member, image_id, job_id, data)
