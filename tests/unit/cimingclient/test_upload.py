# SPDX-License-Identifier: Apache-2.0
"""Uploads by the SDK, over a wire that misbehaves."""

import contextlib
import hashlib
import io
import os
import pathlib
import threading
import time
import tracemalloc
from typing import Any

import pytest
from openstack import exceptions

from cimingclient.sdk import _proxy, body
from cimingclient.sdk import exceptions as sdk_exceptions
from tests.unit.cimingclient import stub as _stub

DATA = os.urandom(3 * body.BLOCK + 17)
SHA256 = hashlib.sha256(DATA).hexdigest()
CALL = "PUT /v1/images/i/file"
EXPIRED = _stub.Refusal(401, "The token is not valid any more", "auth.required")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk"
    path.write_bytes(DATA)
    return path


def pipe(data: bytes) -> io.BufferedReader:
    reading, writing = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as stream:
            stream.write(data)

    threading.Thread(target=feed, daemon=True).start()
    return os.fdopen(reading, "rb")


def test_a_file_is_sent_with_its_length(stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path) -> None:
    seen: list[tuple[int, int | None]] = []
    client.upload_image("i", path, progress=lambda *args: seen.append(args))
    [got] = stub.received
    assert (got.size, got.sha256, got.length) == (len(DATA), SHA256, str(len(DATA)))
    assert seen[0] == (body.BLOCK, len(DATA)) and seen[-1] == (len(DATA), len(DATA))


def test_a_stream_is_sent_from_where_it_is(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stream = io.BytesIO(b"before" + DATA)
    stream.seek(6)
    client.upload_image("i", stream)
    assert stub.received[0].sha256 == SHA256


def test_a_pipe_is_sent_in_chunks(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    seen: list[tuple[int, int | None]] = []
    with pipe(DATA) as stream:
        client.upload_image("i", stream, progress=lambda *args: seen.append(args))
    [got] = stub.received
    assert (got.size, got.sha256, got.length) == (len(DATA), SHA256, "")
    assert seen[-1] == (len(DATA), None)


def test_what_a_slow_pipe_has_is_sent_as_it_comes() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as feed:
        ends = threading.Timer(10, feed.close)  # where it waits for more
        ends.start()
        feed.write(b"some")
        stream.peek(1)  # as the commands do
        blocks = iter(body.Body(stream))
        assert next(blocks) == b"some"
        feed.write(b"more")
        assert next(blocks) == b"more"
        ends.cancel()
        feed.close()
        assert next(blocks, None) is None


def test_what_can_only_be_read_is_sent_too(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    class Readable:
        read = io.BytesIO(DATA).read

    stream: Any = Readable()
    client.upload_image("i", stream)
    assert stub.received[0].sha256 == SHA256


def test_a_refused_token_is_renewed_and_the_file_sent_again(
    stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path
) -> None:
    stub.refuse(CALL, EXPIRED)
    client.upload_image("i", path)
    assert [got.sha256 for got in stub.received] == [SHA256, SHA256]
    assert [got.token for got in stub.received] == ["token-1", "token-2"]


def test_a_token_refused_before_the_body_was_read_is_renewed_too(
    stub: _stub.Stub, client: _proxy.Proxy, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    stub.refuse(CALL, _stub.Refusal(401, "The token is not valid any more", read=False))
    client.upload_image("i", path)
    assert [got.size for got in stub.received] == [64 << 20]


def test_a_pipe_is_not_sent_again_in_part(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.refuse(CALL, EXPIRED)
    with pipe(DATA) as stream, pytest.raises(exceptions.HttpException) as caught:
        client.upload_image("i", stream)
    assert caught.value.status_code == 401
    assert stub.calls.count(CALL) == 1


@pytest.mark.parametrize("status", [400, 409, 507])
@pytest.mark.parametrize("sized", [True, False], ids=["with length", "in chunks"])
def test_an_early_refusal_is_heard_though_the_body_was_cut(
    stub: _stub.Stub, client: _proxy.Proxy, tmp_path: pathlib.Path, status: int, sized: bool
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    stub.refuse(CALL, _stub.Refusal(status, "Not now, not here", read=False))
    sent = [0]
    stream = path.open("rb") if sized else pipe(bytes(64 << 20))
    with stream, pytest.raises(exceptions.HttpException, match="Not now, not here") as caught:
        client.upload_image("i", stream, progress=lambda count, _: sent.append(count))
    assert caught.value.status_code == status
    assert sent[-1] < 64 << 20


def test_memory_stays_the_same_whatever_the_size(
    stub: _stub.Stub, client: _proxy.Proxy, tmp_path: pathlib.Path
) -> None:
    peaks = []
    for size in (16 << 20, 128 << 20):
        path = tmp_path / str(size)
        with path.open("wb") as file:
            file.truncate(size)
        tracemalloc.start()
        client.upload_image("i", path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert stub.received[-1].size == 128 << 20
    assert peaks[1] - peaks[0] < 4 * body.BLOCK


def test_a_file_that_shrinks_meanwhile_is_an_error(client: _proxy.Proxy, path: pathlib.Path) -> None:
    def shrink(sent: int, total: int | None) -> None:
        os.truncate(path, 100)

    with pytest.raises(sdk_exceptions.SourceError, match="became shorter"):
        client.upload_image("i", path, progress=shrink)


def test_a_file_that_grows_meanwhile_is_sent_as_announced(
    stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path
) -> None:
    def grow(sent: int, total: int | None) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    client.upload_image("i", path, progress=grow)
    assert stub.received[0].sha256 == SHA256


def test_a_failing_callback_is_not_taken_for_the_connection(client: _proxy.Proxy, path: pathlib.Path) -> None:
    def broken(sent: int, total: int | None) -> None:
        raise BrokenPipeError("nobody reads")

    with pytest.raises(sdk_exceptions.SourceError, match="nobody reads"):
        client.upload_image("i", path, progress=broken)


# Going on, on a line that breaks


def test_what_is_missing_is_sent(stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path) -> None:
    stub.offset = 1000
    seen: list[tuple[int, int | None]] = []
    assert client.resume_upload("i", path, progress=lambda *args: seen.append(args))
    [got] = stub.received
    assert (got.size, got.sha256) == (len(DATA) - 1000, hashlib.sha256(DATA[1000:]).hexdigest())
    assert seen[0] == (1000 + body.BLOCK, len(DATA)) and seen[-1] == (len(DATA), len(DATA))


def test_where_nothing_is_missing_that_is_told(
    stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path
) -> None:
    stub.created.append({"size": len(DATA)})
    stub.offset = len(DATA)
    assert not client.resume_upload("i", path)
    assert not stub.received


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("status", [0, 502])
def test_a_broken_line_is_mended(
    stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path, status: int, fresh: bool
) -> None:
    stub.refuse_files.append(_stub.Refusal(status, "", keep=True, part=body.BLOCK))
    client.resume_upload("i", path, fresh=fresh)
    assert stub.calls.count("HEAD /v1/images/i/file") == (1 if fresh else 2)
    assert [got.size for got in stub.received] == [body.BLOCK, len(DATA) - body.BLOCK]
    assert stub.received[-1].sha256 == hashlib.sha256(DATA[body.BLOCK :]).hexdigest()


def test_what_has_grown_when_the_line_breaks_is_sent_as_announced(
    stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path
) -> None:
    def grow(sent: int, total: int | None) -> None:
        assert total == len(DATA)
        with path.open("ab") as file:
            file.write(b"more")

    stub.refuse_files.append(_stub.Refusal(0, "", keep=True, part=body.BLOCK))
    client.resume_upload("i", path, progress=grow)
    assert [got.size for got in stub.received] == [body.BLOCK, len(DATA) - body.BLOCK]
    assert stub.received[-1].sha256 == hashlib.sha256(DATA[body.BLOCK :]).hexdigest()


@pytest.mark.parametrize("code", ["upload.locked", "upload.incomplete", "upload.wrong_offset"])
def test_what_passes_is_waited_for(
    stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path, code: str
) -> None:
    stub.refuse_files.append(_stub.Refusal(423, "Not yet", code))
    client.resume_upload("i", path)
    assert stub.offset == len(DATA)


def test_who_was_wrong_about_a_fresh_image_sends_what_is_missing(
    stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path
) -> None:
    stub.offset = 1000
    stub.refuse_files.append(_stub.Refusal(409, "Not there", "upload.wrong_offset"))
    client.resume_upload("i", path, fresh=True)
    assert stub.received[-1].size == len(DATA) - 1000


def test_patience_begins_when_the_line_breaks(
    stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path
) -> None:
    """However long the part took that was on its way."""
    stub.refuse_files.append(_stub.Refusal(0, "", keep=True, part=body.BLOCK))

    def slowly(*_: object) -> None:
        time.sleep(0.3)

    client.resume_upload("i", path, progress=slowly, patience=0.2)
    assert [got.size for got in stub.received] == [body.BLOCK, len(DATA) - body.BLOCK]


def test_patience_ends(stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path) -> None:
    stub.refuse_files += [_stub.Refusal(503, "Away")] * 1000
    with pytest.raises(exceptions.HttpException, match="Away"):
        client.resume_upload("i", path, patience=1.0)


def test_what_does_not_pass_is_told_at_once(
    stub: _stub.Stub, client: _proxy.Proxy, path: pathlib.Path
) -> None:
    stub.refuse_files.append(_stub.Refusal(409, "It has its data", "image.has_data"))
    with pytest.raises(exceptions.HttpException, match="It has its data"):
        client.resume_upload("i", path)
    assert len(stub.received) == 1


def test_a_pipe_is_read_up_to_where_to_go_on(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.created.append({"size": len(DATA)})
    stub.offset = 1000
    with pipe(DATA) as stream:
        client.resume_upload("i", stream)
    [got] = stub.received
    assert (got.size, got.sha256, got.length) == (
        len(DATA) - 1000,
        hashlib.sha256(DATA[1000:]).hexdigest(),
        "",
    )


def test_a_pipe_that_ends_before_that_is_an_error(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.created.append({"size": len(DATA)})
    stub.offset = 1000
    with pipe(b"less") as stream, pytest.raises(sdk_exceptions.SourceError, match="before byte 1000"):
        client.resume_upload("i", stream)


def test_a_pipe_is_read_up_to_there_before_there_is_a_connection() -> None:
    """The service hangs up where nothing comes, and a slow pipe takes its time."""
    with pipe(b"what it has, and the rest") as stream:
        made = body.Body(stream, skip=12)
        assert stream.peek().startswith(b" and")
        assert b"".join(made) == b" and the rest"
