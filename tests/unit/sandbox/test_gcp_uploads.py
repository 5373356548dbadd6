# SPDX-License-Identifier: Apache-2.0
"""The stand-in of Google Cloud: uploads, in one request and in many."""

import json
import time
from typing import Any

import pytest
import requests

from tests.sandbox import gcp
from tests.unit.sandbox.gcp_calls import bucket, refused, session

UNIT = 256 << 10


def upload(cloud: gcp.StandIn, where: Any, data: bytes = b"", **more: Any) -> Any:
    query = more.pop("query", {"uploadType": "media", "name": "a"})
    target = f"{cloud.url}/upload/storage/v1/b/{where.name}/o"
    return session(cloud).post(target, params=query, data=data, timeout=10, **more)


def multipart(cloud: gcp.StandIn, where: Any, description: Any, data: bytes, **more: Any) -> Any:
    body = (
        b"--mark\r\ncontent-type: application/json\r\n\r\n" + json.dumps(description).encode()
        + b"\r\n--mark\r\ncontent-type: text/plain\r\n\r\n" + data + b"\r\n--mark--"
    )  # fmt: skip
    kind = more.pop("kind", 'multipart/related; boundary="mark"')
    headers = {"Content-Type": kind} | more.pop("headers", {})
    return upload(cloud, where, more.pop("body", body), query={"uploadType": "multipart"}, headers=headers)


def reason(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["errors"][0]["reason"]


def test_media(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    answer = upload(cloud, where, b"hello", headers={"Content-Type": "text/plain"}).json()
    assert (answer["name"], answer["size"], answer["contentType"]) == ("a", "5", "text/plain")
    assert where.blob("a").download_as_bytes() == b"hello"
    assert reason(upload(cloud, where, b"a", query={"uploadType": "media"})) == (400, "required")
    assert reason(upload(cloud, where, b"a", query={"uploadType": "moon", "name": "a"})) == (400, "invalid")


def test_multipart(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    tricky = b"\r\n--mark\r\n\r\n--marks--\r\n\r\n"
    answer = multipart(cloud, where, {"name": "b"}, tricky).json()
    assert (answer["size"], answer["contentType"]) == (str(len(tricky)), "text/plain")
    assert where.blob("b").download_as_bytes() == tricky
    for broken in (
        {"kind": "multipart/mixed; boundary=mark"},
        {"kind": "multipart/related"},
        {"body": b"--mark"},
    ):
        assert reason(multipart(cloud, where, {"name": "c"}, b"", **broken)) == (400, "badContent")
    assert reason(multipart(cloud, where, [], b"a")) == (400, "parseError")
    assert not where.blob("c").exists()


@pytest.mark.parametrize(
    ("description", "headers"),
    [
        ({"crc32c": "AAAAAA=="}, {}),
        ({"md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}, {}),
        ({}, {"X-Goog-Hash": "crc32c=AAAAAA=="}),
        ({}, {"X-Goog-Hash": "md5=AAAAAAAAAAAAAAAAAAAAAA=="}),
        ({}, {"X-Goog-Hash": "sha256=AAAA"}),
        ({"crc32c": "mnG7TA=="}, {"X-Goog-Hash": "crc32c=AAAAAA=="}),
        ({}, {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}),
    ],
)
def test_wrong_checksums(cloud: gcp.StandIn, description: dict[str, str], headers: dict[str, str]) -> None:
    where = bucket(cloud)
    where.blob("b").upload_from_string(b"old")
    response = multipart(cloud, where, {"name": "b"} | description, b"hello", headers=headers)
    assert reason(response) == (400, "invalid")
    assert where.blob("b").download_as_bytes() == b"old"
    right = {"crc32c": "mnG7TA==", "md5Hash": "XUFAKrxLKna5cZ2REBfFkg=="}
    assert multipart(cloud, where, {"name": "b"} | right, b"hello").status_code == 200


@pytest.mark.parametrize(
    ("description", "code"),
    [
        ({"metadata": {"a": 1}}, 400),
        ({"metadata": []}, 400),
        ({"metadata": {"a": "b" * 8192}}, 400),
        ({"storageClass": "HOT"}, 400),
        ({"customTime": "moon"}, 400),
        ({"moon": 1}, 501),
        ({"temporaryHold": True}, 501),
        ({"customTime": "2026-01-01T00:00:00Z", "size": "7", "generation": "1"}, 200),
    ],
)
def test_descriptions(cloud: gcp.StandIn, description: dict[str, Any], code: int) -> None:
    response = multipart(cloud, bucket(cloud), {"name": "b"} | description, b"hello")
    assert response.status_code == code
    if code == 200:
        assert (response.json()["size"], response.json()["customTime"][:4]) == ("5", "2026")


def test_length_is_told(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    target = f"{cloud.url}/upload/storage/v1/b/{where.name}/o?uploadType=media&name=a"
    response = session(cloud).post(target, data=iter([b"a", b"b"]), timeout=10)
    assert reason(response) == (411, "lengthRequired")


# Resumable


def begin(cloud: gcp.StandIn, where: Any, description: Any = None, **more: Any) -> str:
    query = {"uploadType": "resumable", "name": "r"} | more.pop("query", {})
    response = upload(cloud, where, json.dumps(description or {}).encode(), query=query, **more)
    assert response.status_code == 200, response.text
    return str(response.headers["Location"])


def send(target: str, data: bytes, span: str | None, **headers: str) -> requests.Response:
    if span is not None:
        headers["Content-Range"] = f"bytes {span}"
    return requests.put(target, data=data, headers=headers, timeout=10)  # the URI is the credential


def test_the_client_resumes(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    blob = where.blob("big", chunk_size=UNIT)
    data = bytes(range(256)) * 4096
    blob.upload_from_string(data + b"end", checksum="crc32c", if_generation_match=0)
    assert blob.download_as_bytes() == data + b"end"
    assert (blob.size, bool(blob.md5_hash), blob.component_count) == (len(data) + 3, True, None)


def test_resume(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    target = begin(cloud, where, {"metadata": {"a": "b"}}, headers={"X-Upload-Content-Type": "text/x"})
    status = send(target, b"", "*/*")
    assert (status.status_code, "Range" in status.headers) == (308, False)
    total = 2 * UNIT + 5
    first = send(target, b"a" * UNIT, f"0-{UNIT - 1}/*")
    assert (first.status_code, first.headers["Range"]) == (308, f"bytes=0-{UNIT - 1}")
    again = send(target, b"a" * UNIT + b"b" * UNIT, f"0-{2 * UNIT - 1}/{total}")  # some of it is there
    assert again.headers["Range"] == f"bytes=0-{2 * UNIT - 1}"
    assert not where.blob("r").exists()
    late = send(target, b"c", f"{total - 1}-{total - 1}/{total}")
    assert (late.status_code, late.headers["Content-Type"]) == (503, "text/plain; charset=utf-8")
    assert "exceeds already uploaded size" in late.text
    last = send(target, b"c" * 5, f"{2 * UNIT}-{total - 1}/{total}")
    assert (last.status_code, last.json()["contentType"], last.json()["metadata"]) == (
        200,
        "text/x",
        {"a": "b"},
    )
    assert where.blob("r").download_as_bytes() == b"a" * UNIT + b"b" * UNIT + b"c" * 5
    assert send(target, b"", f"*/{total}").json()["generation"] == last.json()["generation"]


@pytest.mark.parametrize(
    ("data", "span"),
    [
        (b"a" * 100, "0-99/*"),
        (b"a" * 100, "0-99/200"),
        (b"a" * 100, "0-98/99"),
        (b"a" * 100, "0-99/50"),
        (b"a" * 100, "*/100"),
        (b"a" * 100, "moon"),
        (b"a" * 7, "0-6/7"),
    ],
)
def test_chunks_that_are_refused(cloud: gcp.StandIn, data: bytes, span: str) -> None:
    target = begin(cloud, bucket(cloud), headers={"X-Upload-Content-Length": "100"})
    assert reason(send(target, data, span)) == (400, "invalid")
    assert send(target, b"a" * 100, "0-99/100").status_code == 200


def test_at_once(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    assert send(begin(cloud, where), b"hello", None).status_code == 200
    assert where.blob("r").download_as_bytes() == b"hello"
    assert send(begin(cloud, where), b"", "*/0").status_code == 200
    assert where.blob("r").download_as_bytes() == b""


def test_checksums_at_the_end(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    first = begin(cloud, where, {"crc32c": "AAAAAA=="})
    assert reason(send(first, b"hello", "0-4/5")) == (400, "invalid")
    second = begin(cloud, where)
    headers = {"X-Goog-Hash": "crc32c=AAAAAA=="}
    assert reason(send(second, b"hello", "0-4/5", **headers)) == (400, "invalid")
    assert not where.blob("r").exists()
    assert send(second, b"hello", "0-4/5").status_code == 410
    assert send(begin(cloud, where), b"hello", "0-4/5", **{"X-Goog-Hash": "crc32c=mnG7TA=="}).ok


def test_sessions_end(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    target = begin(cloud, where)
    assert requests.delete(target, timeout=10).status_code == 499
    assert send(target, b"a", "0-0/1").status_code == 410
    assert send(target + "x", b"a", "0-0/1").status_code == 404
    target = begin(cloud, where)
    cloud.settings(session_seconds=0.01)
    time.sleep(0.02)
    assert send(target, b"", "*/*").status_code == 404


def test_conditions_at_the_end(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    target = begin(cloud, where, query={"ifGenerationMatch": "0"})
    where.blob("r").upload_from_string(b"first")
    assert reason(send(target, b"hello", "0-4/5")) == (412, "conditionNotMet")
    assert where.blob("r").download_as_bytes() == b"first"
    with refused(412, "conditionNotMet"):
        where.blob("r", chunk_size=UNIT).upload_from_string(b"x" * (9 << 20), if_generation_match=0)


def test_who_may_begin(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    target = f"{cloud.url}/upload/storage/v1/b/{where.name}/o?uploadType=resumable&name=a"
    response = session(cloud, "reader").post(target, json={}, timeout=10)
    assert reason(response) == (403, "forbidden")
    assert requests.post(target, json={}, timeout=10).status_code == 401
