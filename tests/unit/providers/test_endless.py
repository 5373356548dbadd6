# SPDX-License-Identifier: Apache-2.0
"""Clouds that somebody named and whose answers do not end: they fill no memory, and are not waited for."""

import contextlib
import http.server
import pathlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from oslo_config import cfg

from ciming import connections, disk_image, exceptions
from ciming.providers.aws import account, imports, snapshots
from ciming.providers.aws.account import Account
from ciming.providers.gcp import account as gcp
from ciming.providers.gcp import objects
from tests.unit.providers import test_gcp

LONGEST = 1 << 20       # of an answer, here
SENT = 48 << 20         # of which that much comes
KEYS = {"access_key_id": "AKIA", "secret_access_key": "secret"}


class Endless(http.server.ThreadingHTTPServer):
    """Answers everything as it was told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self.start = b""        # of the body
        self.more = bytes(64 * 1024)
        self.pause = 0.0        # before each more


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Endless
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.close_connection = True
        told = self.server
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with contextlib.suppress(OSError):      # nobody wants to hear it
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.start)
            for _ in range(SENT // len(told.more)):
                time.sleep(told.pause)
                self.wfile.write(told.more)

    do_GET = do_POST = do_PUT = do_HEAD = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endless(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endless]:
    monkeypatch.setattr(connections, "LONGEST", LONGEST)
    for option in ("allow_http", "allow_loopback"):
        conf.set_override(option, True, group="egress")
    with Endless() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()
    for option in ("allow_http", "allow_loopback"):
        conf.clear_override(option, group="egress")


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 12 * LONGEST
    finally:
        tracemalloc.stop()


def amazon(endless: Endless, timeout: float = 20.0, **more: str) -> Account:
    place = {"region": "eu-west-1", "cloud": "amazon", "endpoint_url": endless.url, "timeout": timeout}
    return Account(place, {**KEYS, **more})


def get_block(amazon: Account) -> Any:
    wanted = {"SnapshotId": "snap-1", "BlockIndex": 0, "BlockToken": "AAAA"}
    return amazon.ask("ebs", "GetSnapshotBlock", body="BlockData", **wanted)


def put_part(amazon: Account) -> Any:
    with pathlib.Path(__file__).open("rb", buffering=0) as file:
        part = imports._Part(file.fileno(), 0, 100)
        where = {"Bucket": "bucket", "Key": "key", "UploadId": "1", "PartNumber": 1}
        return amazon.ask("s3", "UploadPart", Body=part, ChecksumSHA256="A" * 43 + "=", **where)


CALLS: Mapping[str, Callable[[Account], Any]] = {
    "ec2": lambda amazon: amazon.ask("ec2", "DescribeImages"),
    "ebs": lambda amazon: amazon.ask("ebs", "ListSnapshotBlocks", SnapshotId="snap-1"),
    "s3": lambda amazon: amazon.ask("s3", "ListMultipartUploads", Bucket="bucket"),
    "sts": lambda amazon: amazon.ask("sts", "GetCallerIdentity"),
    "block": get_block,
    "part": put_part,
}


@pytest.mark.parametrize("status", [200, 400, 503])
@pytest.mark.parametrize("call", CALLS)
def test_aws_that_does_not_end(endless: Endless, call: str, status: int) -> None:
    endless.status = status
    _session()
    with little_memory(), pytest.raises(exceptions.TransientProviderError, match="longer than") as refused:
        CALLS[call](amazon(endless))
    assert refused.value.code == "cloud.unreachable"


def _session() -> None:
    """What boto3 knows of AWS is not what is measured."""
    for service in ("ec2", "ebs", "s3", "sts"):
        account._session().client(service, region_name="eu-west-1")


def test_a_role_that_does_not_end(endless: Endless) -> None:
    _session()
    with little_memory(), pytest.raises(exceptions.TransientProviderError, match="longer than"):
        CALLS["ec2"](amazon(endless, role_arn="arn:aws:iam::123456789012:role/ciming"))


def test_a_block_is_no_longer_than_a_block(endless: Endless) -> None:
    endless.more = bytes(disk_image.BLOCK + 1)
    endless.headers = {"Content-Length": str(len(endless.more))}
    with pytest.raises(exceptions.TransientProviderError, match=f"longer than {disk_image.BLOCK} bytes"):
        get_block(amazon(endless))
    endless.more = bytes(disk_image.BLOCK)
    endless.headers = {"Content-Length": str(len(endless.more))}
    assert get_block(amazon(endless))["BlockData"] == bytes(disk_image.BLOCK)


def test_a_block_that_is_cut(endless: Endless) -> None:
    endless.start, endless.more = b"", bytes(SENT)
    endless.headers = {"Content-Length": str(2 * SENT)}
    with pytest.raises(exceptions.TransientProviderError):
        get_block(amazon(endless))


@pytest.mark.parametrize("call", ["ec2", "block"])
def test_aws_that_comes_drop_by_drop(
    endless: Endless, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """There is always another byte in time."""
    monkeypatch.setattr(account, "SLOWEST", 1 << 30)
    endless.more, endless.pause = b" ", 0.1
    since = time.monotonic()
    with pytest.raises(exceptions.TransientProviderError, match="ReadTimeout") as refused:
        CALLS[call](amazon(endless, timeout=1.0))
    assert refused.value.code == "cloud.unreachable"
    assert time.monotonic() - since < 10


@pytest.mark.parametrize("lines", [b"", b"A: b\r\n"])
def test_before_it_goes_on(endless: Endless, lines: bytes) -> None:
    """Who is to say whether to go on says so, and then nothing, or lines without end."""
    def answer() -> None:
        with listening.accept()[0] as connection, contextlib.suppress(OSError):
            connection.recv(64 * 1024)
            connection.sendall(b"HTTP/1.1 100 Continue\r\n" + lines)
            while lines:
                connection.sendall(lines * 1000)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, daemon=True).start()
        endless.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(exceptions.TransientProviderError):
            put_part(amazon(endless, timeout=2.0))


# Lists


class Lists(Account):
    """Which have one page, again and again."""

    def __init__(self, page: Mapping[str, Any]) -> None:
        super().__init__({"region": "eu-west-1", "cloud": "amazon"}, KEYS)
        self.page = page

    def call(self, *_: Any, **__: Any) -> Mapping[str, Any]:
        return self.page


def test_lists_that_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOST_PAGES", "MOST_BLOCK_PAGES"):
        monkeypatch.setattr(snapshots, name, 20)
    monkeypatch.setattr(imports, "MOST_PARTS", 20)
    of_images = Lists({"Images": [{}], "NextToken": "next"})
    of_blocks = Lists({"Blocks": [], "NextToken": "next"})
    of_parts = Lists({"Parts": [], "IsTruncated": True, "NextPartNumberMarker": 1})
    for found in (
        snapshots.pages(of_images, "DescribeImages", "Images"),
        snapshots.blocks(of_blocks, "snap-1"),
        imports._parts(imports.Bucket(of_parts, "bucket", "owner"), "name", "upload"),
    ):
        with pytest.raises(exceptions.TransientProviderError, match="does not end") as refused:
            list(found)
        assert refused.value.code == "cloud.bad_answer"


@pytest.mark.parametrize("indices", [(1, 1), (3, 2)])
def test_blocks_that_are_not_in_order(indices: tuple[int, int]) -> None:
    blocks = [{"BlockIndex": index, "BlockToken": "AAAA"} for index in indices]
    for page in ({"Blocks": blocks}, {"Blocks": blocks[:1], "NextToken": "next"}):
        found = snapshots.blocks(Lists(page), "snap-1")
        assert next(found) == (indices[0], "AAAA")
        with pytest.raises(exceptions.TransientProviderError, match="order"):
            next(found)


# All others, whose answers are read bit by bit


@pytest.mark.parametrize("status", [300, 404, 416, 500])
def test_an_error_is_no_longer_than_another(endless: Endless, status: int) -> None:
    """Whoever asks for a stream reads it whole where it is an error."""
    endless.status = status
    with little_memory(), requests.Session() as session:
        session.mount("http://", connections.Adapter(outside=True))
        with pytest.raises(requests.RequestException, match="longer than"):
            session.get(endless.url, stream=True, timeout=20).content  # noqa: B018


def test_a_stream_is_as_long_as_it_is(endless: Endless) -> None:
    with requests.Session() as session:
        session.mount("http://", connections.Adapter(outside=True))
        answer = session.get(endless.url, stream=True, timeout=20)
        assert sum(map(len, answer.iter_content(1 << 20))) == SENT


def test_an_error_of_a_stream_that_comes_drop_by_drop(endless: Endless) -> None:
    endless.status, endless.more, endless.pause = 500, b" ", 0.1
    with requests.Session() as session:
        session.mount("http://", connections.Adapter(outside=True))
        with pytest.raises(requests.ReadTimeout):
            session.get(endless.url, stream=True, timeout=1.0).content  # noqa: B018


@pytest.mark.parametrize("status", [404, 500])
def test_google_that_does_not_end(endless: Endless, status: int) -> None:
    """Where a range of an archive was asked for."""
    endless.status = status
    place = {"project_id": "project-1", "cloud": "google", "endpoint_url": endless.url, "timeout": 20.0}
    key = test_gcp.as_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    google = gcp.Account(place, test_gcp.credential(key))
    google._credentials.token = "ya29.c.a-token-of-ours"
    with little_memory(), pytest.raises(exceptions.TransientProviderError, match="longer than"):
        objects._range(objects.Bucket(google, "bucket"), "its.tar.gz", 1, 1 << 20, 0)
