# SPDX-License-Identifier: Apache-2.0
"""What the tests of Google's stand-in do again and again, by unmodified Google clients."""

import contextlib
import functools
import gzip
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import google.api_core.exceptions
import google.auth.transport.requests
import pytest
from google.cloud import compute_v1

from tests.sandbox import gcp

GIB = 1 << 30
BLOCK = 512
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_numbers = itertools.count()


@contextlib.contextmanager
def refused(code: int, reason: str, text: str = "") -> Iterator[None]:
    """The service refuses with this status and reason, and its message has the text."""
    with pytest.raises(google.api_core.exceptions.GoogleAPICallError) as caught:
        yield
    check(caught.value, code, reason, text)


def check(error: Any, code: int, reason: str, text: str = "") -> None:
    """Uploads leave the reasons out of their exceptions, so the answer itself is looked at."""
    assert error.code == code, error
    said = error.response.json()["error"]
    assert (said["code"], [one["reason"] for one in said["errors"]]) == (code, [reason])
    assert text in said["message"]


def fresh(prefix: str = "thing") -> str:
    return f"{prefix}-{next(_numbers)}"


@functools.cache
def images(cloud: gcp.StandIn, account: str = "owner") -> Any:
    return cloud.images_client(account)


@functools.cache
def operations(cloud: gcp.StandIn, account: str = "owner") -> Any:
    return cloud.operations_client(account)


@functools.cache
def storage(cloud: gcp.StandIn, account: str = "owner") -> Any:
    return cloud.storage_client(account)


@functools.cache
def session(cloud: gcp.StandIn, account: str = "owner", scope: str = SCOPE) -> Any:
    """Return what google-auth makes of requests."""
    credentials = cloud.credentials(account, scopes=[scope])
    return google.auth.transport.requests.AuthorizedSession(credentials, max_refresh_attempts=0)


def project(cloud: gcp.StandIn, account: str = "owner") -> str:
    return str(cloud.accounts[account]["project_id"])


def bucket(cloud: gcp.StandIn, account: str = "owner", **more: Any) -> Any:
    """A new bucket of the account's."""
    name = fresh("bucket")
    cloud.make_bucket(name, account, **more)
    return storage(cloud, account).bucket(name)


def put(where: Any, data: bytes, name: str | None = None, **more: Any) -> Any:
    """A new object."""
    blob = where.blob(name or fresh("object"))
    blob.upload_from_string(data, retry=None, **more)
    return blob


def octal(value: int, length: int) -> bytes:
    return f"{value:0{length - 1}o}".encode() + b"\0"


def tar(
    data: bytes = b"\x42" * BLOCK,
    *,
    at: Sequence[int] = (0,),
    size: int = GIB,
    name: bytes = b"disk.raw",
    magic: bytes = b"ustar  \0",
    kind: bytes = b"S",
    stored: int | None = None,
    checksum: int = 0,
    tail: bytes = bytes(2 * BLOCK),
) -> bytes:
    """A tar archive with a sparse disk: the same data are at each of the places."""
    entries = [octal(place, 12) + octal(len(data), 12) for place in at] + [octal(size, 12) + octal(0, 12)]
    first, rest = entries[:4], entries[4:]
    head = bytearray(BLOCK)
    head[: len(name)] = name
    head[100:124] = octal(0o644, 8) + octal(0, 8) + octal(0, 8)
    head[124:148] = octal(len(data) * len(at) if stored is None else stored, 12) + octal(0, 12)
    head[148:157] = b" " * 8 + kind
    head[257:265] = magic
    if kind == b"S":
        head[386 : 386 + 24 * len(first)] = b"".join(first)
        head[482] = bool(rest)
        head[483:495] = octal(size, 12)
    head[148:156] = octal(sum(head) + checksum, 7) + b" "
    blocks = [bytes(head)]
    while rest:
        taken, rest = rest[:21], rest[21:]
        blocks.append(b"".join(taken).ljust(504, b"\0") + bytes([bool(rest)]) + bytes(7))
    whole = data * len(at)
    return b"".join([*blocks, whole, bytes(-len(whole) % BLOCK), tail])


def archive(**more: Any) -> bytes:
    return gzip.compress(tar(**more), 1)


@functools.cache
def source(cloud: gcp.StandIn, account: str = "owner") -> str:
    """The URL of an archive that is good; it is never changed."""
    return url(put(bucket(cloud, account), archive(), "good.tar.gz"))


def url(blob: Any) -> str:
    return f"https://storage.googleapis.com/{blob.bucket.name}/{blob.name}"


def spec(cloud: gcp.StandIn, **more: Any) -> Any:
    """An image that is taken without complaint."""
    raw = {"source": source(cloud), "container_type": "TAR"} | more.pop("raw_disk", {})
    return compute_v1.Image({"name": fresh("image"), "raw_disk": raw} | more)


def begin(cloud: gcp.StandIn, wanted: Any, account: str = "owner", **more: Any) -> Any:
    """Begin to make an image; return the operation."""
    request = {"project": project(cloud, account), "image_resource": wanted} | more
    return images(cloud, account).insert_unary(request=request)


def wait(cloud: gcp.StandIn, operation: Any, account: str = "owner") -> Any:
    return operations(cloud, account).wait(project=project(cloud, account), operation=operation.name)


def image(cloud: gcp.StandIn, account: str = "owner", **more: Any) -> Any:
    """An image that is READY."""
    wanted = spec(cloud, **more)
    done = wait(cloud, begin(cloud, wanted, account), account)
    assert not done.error.errors, done
    return images(cloud, account).get(project=project(cloud, account), image=wanted.name)
