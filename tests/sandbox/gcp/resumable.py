# SPDX-License-Identifier: Apache-2.0
"""Uploads that may be resumed: https://cloud.google.com/storage/docs/performing-resumable-uploads.

- A session's URI is itself the credential, and ends after a week (404):
  https://cloud.google.com/storage/docs/resumable-uploads#session-uris
- Data come in order, in multiples of 256 KiB but for the last; bytes that are there already are passed over.
  What begins too late is a 503, in plain text. What is there is told by 308 and a Range, or no Range if it is
  nothing.
- A session that was cancelled is answered by 499, and then by 410; one that is complete, by the object.
- Checksums may come with the description, or with the last of the data:
  https://cloud.google.com/storage/docs/data-validation
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import secrets
import threading
import time
from typing import Any

import google_crc32c

from tests.sandbox.gcp import buckets, checksums, errors, objects, preconditions, wire
from tests.sandbox.gcp.state import Call, Settings
from tests.sandbox.gcp.store import Resource

UNIT = 256 << 10
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclasses.dataclass
class Session:
    """One upload that goes on."""

    call: Call
    request: wire.Request
    """What began it."""
    bucket: str
    name: str
    described: Resource
    total: int | None
    file: pathlib.Path
    began: float = dataclasses.field(default_factory=time.time)
    crc32c: int = 0
    md5: Any = dataclasses.field(default_factory=hashlib.md5)
    size: int = 0
    cancelled: bool = False
    made: Resource | None = None
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def add(self, data: bytes) -> None:
        self.crc32c = google_crc32c.extend(self.crc32c, data)
        self.md5.update(data)
        if self.call.has("corrupt") and data and not self.size:
            data = bytes([data[0] ^ 1]) + data[1:]
        with self.file.open("ab") as opened:
            opened.write(data)
        self.size += len(data)


def begin(call: Call, request: wire.Request, bucket: str, sessions: dict[str, Session]) -> wire.Response:
    """Begin an upload; the answer tells its URI."""
    described = buckets.document(request) if request.body else {}
    if kind := request.headers.get("x-upload-content-type"):
        described.setdefault("contentType", kind)
    name = str(request.query.get("name", described.get("name", "")))
    objects.described(described)
    length = request.headers.get("x-upload-content-length")
    total = None if length is None else preconditions.number("X-Upload-Content-Length", length)
    with call.state.lock:
        objects.check_new(call, request, bucket, name)
        upload = secrets.token_urlsafe(64)
        file = call.state.store.incoming()
        sessions[upload] = Session(call, request, bucket, name, described, total, file)
    target = f"{call.state.url}{request.target}&upload_id={upload}"
    return wire.Response(200, {"Location": target, "X-GUploader-UploadID": upload}, b"")


def find(sessions: dict[str, Session], upload: str, settings: Settings) -> Session:
    """Return the session that a URI names; Refused if there is none any more."""
    session = sessions.get(upload)
    if session is None or time.time() > session.began + settings.session_seconds:
        raise errors.Plain(404, "notFound", "Not Found")
    if session.cancelled:
        raise errors.Plain(410, "gone", "Gone")
    return session


def cancel(session: Session) -> wire.Response:
    """End a session."""
    session.cancelled = True
    session.file.unlink(missing_ok=True)
    return wire.Response(499, {}, b"")


def put(session: Session, request: wire.Request) -> wire.Response:
    """Take more data, or tell what is there."""
    if session.made is not None:
        return _answer(session.made)
    data = request.body
    first, total, last = _range(request, len(data))
    if total is not None:
        if session.total not in (None, total):
            raise errors.invalid(f"The upload has {session.total} bytes, not {total}")
        session.total = total
    if first is not None:
        if first > session.size:
            raise errors.Plain(
                503,
                "backendError",
                f"Invalid request.  According to the Content-Range header, the upload offset is {first} "
                f"byte(s), which exceeds already uploaded size of {session.size} byte(s).",
            )
        if not last and len(data) % UNIT:
            raise errors.invalid(
                "Invalid request.  The number of bytes uploaded is required to be equal or greater than "
                f"{UNIT}, except for the final request (it's recommended to be the exact multiple of it). "
                f"The received request contained {len(data)} bytes, which does not meet this requirement."
            )
        session.add(data[session.size - first :])
    if session.size != session.total:
        return wire.Response(308, {"Range": f"bytes=0-{session.size - 1}"} if session.size else {}, b"")
    return _answer(_end(session, request))


def _range(request: wire.Request, length: int) -> tuple[int | None, int | None, bool]:
    """Return where data begin, if there are any, how many there will be, and whether these are the last."""
    text = request.headers.get("content-range")
    if text is None:
        return 0, length, True
    found = CONTENT_RANGE.fullmatch(text)
    total = None if found is None or found[3] == "*" else int(found[3])
    if found is not None and found[1] is None:
        if length:
            raise errors.invalid("A request with data must tell their range.")
        return None, total, False
    if found is None or int(found[2]) - int(found[1]) + 1 != length or int(found[2]) >= (total or 1 << 63):
        raise errors.invalid(f"Failed to parse Content-Range header: {text}")
    return int(found[1]), total, int(found[2]) + 1 == total


def _end(session: Session, request: wire.Request) -> Resource:
    state, call = session.call.state, session.call
    try:
        wanted = checksums.said(session.described, session.request.headers)
        wanted |= checksums.said({}, request.headers)
        crc32c, md5 = session.crc32c, session.md5.digest()
        checksums.check(wanted, crc32c, md5)
        if call.has("corrupt"):     # it tells those of what it has
            data = session.file.read_bytes()
            crc32c, md5 = google_crc32c.value(data), hashlib.md5(data).digest()
        kept = objects.described(session.described)
        with state.lock:
            objects.check_new(call, session.request, session.bucket, session.name)
            session.made = objects.keep(
                call,
                session.bucket,
                session.name,
                session.file,
                kept,
                crc32c=crc32c,
                md5=md5,
            )
    except errors.Refused:
        cancel(session)
        raise
    return session.made


def _answer(made: Resource) -> wire.Response:
    return wire.Response(200, dict(wire.JSON), json.dumps(made).encode())
