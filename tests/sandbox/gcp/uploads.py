# SPDX-License-Identifier: Apache-2.0
"""Uploads in one request: the data alone, or with the object's description.

- https://cloud.google.com/storage/docs/json_api/v1/objects/insert
- multipart/related has two parts, the description as JSON first:
  https://cloud.google.com/storage/docs/uploads-downloads#multipart and
  https://www.rfc-editor.org/rfc/rfc2387
"""

import email.message
import hashlib
import json

import google_crc32c

from tests.sandbox.gcp import checksums, errors, objects, wire
from tests.sandbox.gcp.state import Call
from tests.sandbox.gcp.store import Resource


def media(call: Call, request: wire.Request, bucket: str) -> Resource:
    """Make an object of a request's body."""
    described = {}
    if kind := request.headers.get("content-type"):
        described["contentType"] = kind
    return _insert(call, request, bucket, described, request.body)


def multipart(call: Call, request: wire.Request, bucket: str) -> Resource:
    """Make an object of the second part of a request's body, by what the first one says."""
    described, kind, data = _parts(request)
    if kind:
        described.setdefault("contentType", kind)
    return _insert(call, request, bucket, described, data)


def _insert(call: Call, request: wire.Request, bucket: str, described: Resource, data: bytes) -> Resource:
    name = str(request.query.get("name", described.get("name", "")))
    kept = objects.described(described)
    with call.state.lock:
        objects.check_new(call, request, bucket, name)
    crc32c, md5 = google_crc32c.extend(0, data), hashlib.md5(data).digest()
    checksums.check(checksums.said(described, request.headers), crc32c, md5)
    if call.has("corrupt") and data:
        data = bytes([data[0] ^ 1]) + data[1:]
        crc32c, md5 = google_crc32c.value(data), hashlib.md5(data).digest()      # of what it has
    file = call.state.store.incoming()
    file.write_bytes(data)
    try:
        with call.state.lock:
            objects.check_new(call, request, bucket, name)  # it may be another one meanwhile
            return objects.keep(call, bucket, name, file, kept, crc32c=crc32c, md5=md5)
    finally:
        file.unlink(missing_ok=True)


def _parts(request: wire.Request) -> tuple[Resource, str, bytes]:
    header = email.message.Message()
    header["Content-Type"] = request.headers.get("content-type", "")
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/related" or not isinstance(boundary, str):
        raise _wrong("it is not multipart/related")
    mark = b"--" + boundary.encode()
    body = request.body
    end = body.rfind(b"\r\n" + mark + b"--")
    second = body.find(b"\r\n" + mark + b"\r\n")
    if not body.startswith(mark + b"\r\n") or not 0 <= second < end:
        raise _wrong("it has not two parts")
    first_data = body.find(b"\r\n\r\n", 0, second)
    second_data = body.find(b"\r\n\r\n", second + len(mark), end)
    if first_data < 0 or second_data < 0:
        raise _wrong("a part has no headers")
    try:
        described = json.loads(body[first_data + 4 : second])
    except ValueError:
        described = None
    if not isinstance(described, dict):
        raise errors.Refused(400, "parseError", "Parse Error")
    headers = email.message_from_bytes(body[second + len(mark) + 4 : second_data])
    return described, str(headers.get("content-type", "")), body[second_data + 4 : end]


def _wrong(why: str) -> errors.Refused:
    return errors.Refused(400, "badContent", f"Bad Content: {why}")
