# SPDX-License-Identifier: Apache-2.0
"""What of Cloud Storage's JSON API is done: https://cloud.google.com/storage/docs/json_api/v1.

Uploads and downloads have paths of their own: https://cloud.google.com/storage/docs/request-endpoints.
"""

import dataclasses
from typing import Any

from tests.sandbox.gcp import (
    buckets,
    calls,
    compose,
    errors,
    fields,
    objects,
    resumable,
    uploads,
    wire,
)
from tests.sandbox.gcp.state import State

UPLOADS = {"media": uploads.media, "multipart": uploads.multipart}


class Storage:
    """The service; it knows which uploads go on."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._sessions: dict[str, resumable.Session] = {}

    def clear(self) -> None:
        """Forget uploads that go on."""
        self._sessions.clear()

    def answer(self, request: wire.Request) -> wire.Response:
        """Do what is asked."""
        match request.method, request.parts:
            case "PUT" | "DELETE", ["upload", "storage", "v1", "b", _, "o"] if "upload_id" in request.query:
                return self._resume(request)
            case "POST", ["upload", "storage", "v1", "b", bucket, "o"]:
                return self._upload(request, bucket)
            case "GET", ["download", "storage", "v1", "b", bucket, "o", name]:
                return self._download(request, bucket, name)
            case method, ["storage", "v1", "b", *rest]:
                return self._json(request, method, rest)
        raise errors.not_done(f"{request.method} {request.path}")

    def _resume(self, request: wire.Request) -> wire.Response:
        with calls.unsigned(self._state, "storage.objects.insert") as fault:
            session = resumable.find(self._sessions, request.query["upload_id"], self._state.settings)
            with session.lock:
                if fault is not None:
                    session.call = dataclasses.replace(session.call, fault=fault)
                if request.method == "DELETE":
                    return resumable.cancel(session)
                return resumable.put(session, request)

    def _upload(self, request: wire.Request, bucket: str) -> wire.Response:
        kind = request.query.get("uploadType")
        with calls.call(self._state, request, "storage.objects.insert") as call:
            if kind == "resumable":
                return resumable.begin(call, request, bucket, self._sessions)
            if kind not in UPLOADS:
                raise errors.invalid(f"Invalid uploadType: {kind}")
            return _answer(request, UPLOADS[kind](call, request, bucket))

    def _download(self, request: wire.Request, bucket: str, name: str) -> wire.Response:
        if request.query.get("alt") != "media":
            raise errors.not_done("A download without alt=media")
        with calls.call(self._state, request, "storage.objects.get") as call:
            with self._state.lock:
                response = objects.download(call, request, bucket, name)
            if call.has("corrupt") and isinstance(response.body, wire.Slice):
                with response.body.file as file:
                    file.seek(response.body.offset)
                    data = file.read(response.body.length)
                response.body = bytes([data[0] ^ 1]) + data[1:] if data else data
            response.cut = call.has("cut")
            return response

    def _json(self, request: wire.Request, method: str, rest: list[str]) -> wire.Response:
        def done(action: str, what: Any, *names: str) -> wire.Response:
            with calls.call(self._state, request, f"storage.{action}") as call:
                if what is compose.compose:
                    return _answer(request, what(call, request, *names))
                with self._state.lock:
                    return _answer(request, what(call, request, *names))

        match method, rest:
            case "GET", []:
                return done("buckets.list", buckets.ls)
            case "POST", []:
                return done("buckets.insert", buckets.insert)
            case "GET", [bucket]:
                return done("buckets.get", buckets.get, bucket)
            case "GET", [bucket, "iam", "testPermissions"]:
                return done("buckets.testIamPermissions", buckets.test_permissions, bucket)
            case "GET", [bucket, "o"]:
                return done("objects.list", objects.ls, bucket)
            case "GET", [bucket, "o", name] if request.query.get("alt") == "media":
                return self._download(request, bucket, name)
            case "GET", [bucket, "o", name]:
                return done("objects.get", objects.get, bucket, name)
            case "DELETE", [bucket, "o", name]:
                return done("objects.delete", objects.delete, bucket, name)
            case "POST", [bucket, "o", name, "compose"]:
                return done("objects.compose", compose.compose, bucket, name)
        raise errors.not_done(f"{request.method} {request.path}")


def _answer(request: wire.Request, found: Any) -> wire.Response:
    if found is None:
        return wire.Response(204, {}, b"")
    if selected := request.query.get("fields"):
        found = fields.select(found, selected)
    return wire.answer(found)
