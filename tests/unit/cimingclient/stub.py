# SPDX-License-Identifier: Apache-2.0
"""An HTTP server with the answers of Keystone's token call and of the service.

It stands for the wire, so that tests can say what comes over it: refused tokens, early refusals,
pages. It decides nothing; the functional tests run the client against the real services.
"""

import dataclasses
import hashlib
import http
import json
import re
import socketserver
import ssl
import threading
import uuid
from collections.abc import Iterator
from typing import Any
from urllib import parse
from wsgiref import simple_server

Json = dict[str, Any]
BLOCK = 1 << 20
_FAR = "2999-01-01T00:00:00.000000Z"


@dataclasses.dataclass
class Refusal:
    """An error answer; `read`: the request's body is read before it."""

    status: int
    detail: str
    code: str = "request.invalid"
    field: str | None = None
    read: bool = True
    keep: bool = False  # what came of an upload,
    part: int | None = None  # or so much of it


#: Instead of an answer, the connection is cut: at once, in mid-body, or when all was taken in.
HANG_UP = Refusal(0, "")
LOSE_ANSWER = Refusal(0, "", keep=True)


@dataclasses.dataclass
class Received:
    """One body that came with a PUT or PATCH."""

    size: int
    sha256: str
    length: str
    token: str


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True


class _Handler(simple_server.WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Stub:
    """Serves on a free port as long as it is entered."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.clouds: list[Json] = [cloud("zone-a"), cloud("zone-b")]
        self.images: list[Json] = []
        #: What `GET /v1/jobs/{id}` answers, one after another; the last one stays.
        self.jobs: dict[str, list[Json]] = {}
        #: What a create answers, and its Job's states from then on.
        self.outcome: list[Json] = []
        #: Refusals to come, by the call they are for.
        self.refusals: dict[str, list[Refusal]] = {}
        #: The same, for bytes of whatever image.
        self.refuse_files: list[Refusal] = []
        self.refuse_heads: list[Refusal] = []
        #: The same, for a look at whatever image.
        self.refuse_images: list[Refusal] = []
        #: Pages of answers of what is looked up live, by the call.
        self.live: dict[str, list[Json]] = {}
        self.page_length = 2
        self.calls: list[str] = []
        #: What lists were asked for, but for the paging.
        self.queries: list[dict[str, str]] = []
        self.created: list[Json] = []
        #: What came to Barbican, by the href it gave.
        self.secrets: dict[str, Json] = {}
        #: Bodies of calls that register or change a Cloud, or sync zones.
        self.said: list[Json] = []
        #: What a dry run of a sync of zones answers.
        self.plan: Json = {}
        self.received: list[Received] = []
        #: Bytes of the one upload that are here.
        self.offset = 0
        self.tokens = 0
        self.service_type = "multicloud"
        self._server = simple_server.make_server("127.0.0.1", 0, self, _Server, _Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Stub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def refuse(self, call: str, *refusals: Refusal) -> None:
        self.refusals.setdefault(call, []).extend(refusals)

    def __call__(self, environ: Json, start_response: Any) -> list[bytes]:
        call = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        if not environ["PATH_INFO"].startswith("/identity"):
            self.calls.append(call)
        status, headers, body = self._answer(call, environ)
        text = json.dumps(body).encode() if body is not None else b""
        headers = {"Content-Type": "application/json", "Content-Length": str(len(text))} | headers
        headers["X-Openstack-Request-Id"] = "req-stub"
        start_response(f"{status} {http.HTTPStatus(status).phrase}", list(headers.items()))
        return [text]

    def _answer(self, call: str, environ: Json) -> tuple[int, dict[str, str], Json | None]:
        is_file = re.fullmatch("(PUT|PATCH) /v1/images/.*/file", call)
        is_head = re.fullmatch("HEAD /v1/images/.*/file", call)
        general = self.refuse_files if is_file else self.refuse_heads if is_head else None
        general = self.refuse_images if re.fullmatch("GET /v1/images/[^/]*", call) else general
        if refusals := general or self.refusals.get(call):
            refusal = refusals.pop(0)
            if refusal.read and refusal is not HANG_UP:
                size = self._receive(environ, refusal.part)
                self.offset += size if refusal.keep else 0
            if not refusal.status:
                raise ConnectionAbortedError
            return refusal.status, {}, _error(refusal)
        if call.startswith(("GET /identity", "POST /identity")):
            return self._identity(call)
        if call == "GET /":
            return 200, {}, {"versions": [_version("v1.0", "CURRENT", f"{self.url}/v1/")]}
        if call.partition(" ")[2].startswith("/keys"):
            return self._keys(call, environ)
        if re.fullmatch("(POST|PATCH|DELETE) /v1/clouds.*", call):
            return self._cloud(call, environ)
        if call == "POST /v1/zone-syncs":
            self.said.append(json.loads(_body(environ)))
            if self.said[-1].get("dry_run"):
                return 200, {}, self.plan
            return 202, {}, {"job": self._begun(self.outcome, kind="zone-sync")}
        if call == "POST /v1/images":
            return self._create(json.loads(_body(environ)))
        if item := re.fullmatch("PATCH /v1/images/([^/]*)", call):
            [changed] = [each for each in self.images if each["id"] == item[1]]
            begun = self._begun(self.outcome, kind="update", image_id=changed["id"])
            return 202, {}, {"image": changed | json.loads(_body(environ)), "job": begun}
        if item := re.fullmatch("DELETE /v1/images/([^/]*)", call):
            [gone] = [each for each in self.images if each["id"] == item[1]]
            begun = self._begun([job("success")], kind="delete", image_id=gone["id"])
            return 202, {"Location": f"/v1/jobs/{begun['id']}"}, {"image": gone, "job": begun}
        if action := re.fullmatch(r"POST (/v1/jobs/.*)/(cancel|retry)", call):
            status, headers, body = self._read(f"GET {action[1]}", {})
            return (202 if status == 200 else status), headers, body
        if is_file:
            self.offset += self._receive(environ)
            return 204, self._upload(environ), None
        if is_head:
            return 200, self._upload(environ), None
        return self._read(call, dict(parse.parse_qsl(environ["QUERY_STRING"])))

    def _keys(self, call: str, environ: Json) -> tuple[int, dict[str, str], Json | None]:
        if call.startswith("GET"):
            return 200, {}, {"versions": {"values": [_version("v1", "stable", f"{self.url}/keys/v1/")]}}
        if call.startswith("DELETE"):
            del self.secrets[f"{self.url}{call.partition(' ')[2]}"]
            return 204, {}, None
        ref = f"{self.url}/keys/v1/secrets/{uuid.uuid4()}"
        self.secrets[ref] = json.loads(_body(environ))
        return 201, {}, {"secret_ref": ref}

    def _cloud(self, call: str, environ: Json) -> tuple[int, dict[str, str], Json | None]:
        verb, _, path = call.partition(" ")
        item = path.removeprefix("/v1/clouds").strip("/")
        if verb == "DELETE":
            status, headers, body = _one(self.clouds, item)
            self.clouds = [each for each in self.clouds if each["id"] != item]
            return (204, headers, None) if status == 200 else (status, headers, body)
        if item.endswith("/check"):
            good = {"check": "login", "passed": True, "message": "Logged in."}
            bad = {"check": "create", "passed": False, "message": "other: 403\nForbidden"}
            checks = [good] if item.startswith("zone-a") else [good, bad]
            return 200, {}, {"passed": bad not in checks, "checks": checks}
        self.said.append(json.loads(_body(environ)))
        if verb == "PATCH":
            status, headers, body = _one(self.clouds, item)
            return status, headers, body | self.said[-1] | {"note": "The credential was cleared."}
        made = {"id": str(uuid.uuid4()), "zone": False, "region": "RegionOne", **self.said[-1]}
        self.clouds.append(made)
        return 201, {}, made

    def _look(self, call: str, query: dict[str, str]) -> Json:
        number = int(query.pop("marker", 0))
        self.queries.append(query)
        rest = parse.urlencode(query | {"marker": number + 1})
        links = [{"rel": "next", "href": f"{self.url}{call.removeprefix('GET ')}?{rest}"}]
        return {**self.live[call][number], "links": links if self.live[call][number + 1 :] else []}

    def _read(self, call: str, query: dict[str, str]) -> tuple[int, dict[str, str], Json | None]:
        if call in self.live:
            return 200, {}, self._look(call, query)
        noun, _, item = call.removeprefix("GET /v1/").partition("/")
        if noun == "clouds":
            return _one(self.clouds, item) if item else (200, {}, {"clouds": self.clouds})
        if noun == "jobs" and item in self.jobs:
            states = self.jobs[item]
            return 200, {}, states.pop(0) if len(states) > 1 else states[0]
        items = self.images if noun == "images" else [job[0] for job in self.jobs.values()]
        return _one(items, item) if item else (200, {}, self._page(noun, items, query))

    def _page(self, noun: str, items: list[Json], query: dict[str, str]) -> Json:
        limit = min(int(query.pop("limit", self.page_length)), self.page_length)
        marker = query.pop("marker", None)
        self.queries.append(dict(query))
        query.pop("sort", None)
        query.pop("all_projects", None)
        found = [each for each in items if all(_meets(each[key], query[key]) for key in query)]
        if marker:
            found = found[[each["id"] for each in found].index(marker) + 1 :]
        page: Json = {noun: found[:limit], "links": []}
        if found[limit:]:
            rest = parse.urlencode(query | {"limit": limit, "marker": found[limit - 1]["id"]})
            page["links"] = [{"rel": "next", "href": f"{self.url}/v1/{noun}?{rest}"}]
        return page

    def _create(self, attributes: Json) -> tuple[int, dict[str, str], Json]:
        self.created.append(attributes)
        made = image(attributes["name"], status="uploading")
        self.images.append(made)
        begin = self._begun(self.outcome or [job("success")], image_id=made["id"]) | {"status": "uploading"}
        return 202, {"Location": f"/v1/jobs/{begin['id']}"}, {"image": made, "job": begin}

    def _begun(self, outcome: list[Json], **more: Any) -> Json:
        """A Job that goes through these states from now on."""
        states = [state | more for state in outcome]
        self.jobs[states[0]["id"]] = states
        return states[0]

    def _upload(self, environ: Json) -> dict[str, str]:
        size = environ.get("HTTP_UPLOAD_LENGTH") or (self.created and self.created[-1].get("size"))
        return {"Upload-Offset": str(self.offset)} | ({"Upload-Length": str(size)} if size else {})

    def _receive(self, environ: Json, part: int | None = None) -> int:
        digest, size = hashlib.sha256(), 0
        for block in _blocks(environ):
            if part is not None and size >= part:
                break
            digest.update(block)
            size += len(block)
        length, token = environ["CONTENT_LENGTH"], environ.get("HTTP_X_AUTH_TOKEN", "")
        self.received.append(Received(size, digest.hexdigest(), length, token))
        return size

    def _identity(self, call: str) -> tuple[int, dict[str, str], Json]:
        if call.startswith("GET"):
            return 200, {}, {"version": _version("v3.14", "stable", f"{self.url}/identity/v3/")}
        self.tokens += 1
        named = {"id": "p", "name": "demo", "domain": {"id": "default", "name": "Default"}}
        endpoint = {"id": "e", "interface": "public", "region": "zone-a", "region_id": "zone-a"}
        service = {"id": "s", "type": self.service_type, "name": "ciming"}
        token = {
            "methods": ["password"],
            "expires_at": _FAR,
            "issued_at": "2020-01-01T00:00:00.000000Z",
            "user": named,
            "project": named,
            "roles": [{"id": "r", "name": "member"}],
            "catalog": [
                service | {"endpoints": [endpoint | {"url": self.url}]},
                {"id": "k", "type": "key-manager", "name": "barbican"}
                | {"endpoints": [endpoint | {"url": f"{self.url}/keys"}]},
            ],
        }
        return 201, {"X-Subject-Token": f"token-{self.tokens}"}, {"token": token}


def _meets(value: Any, wanted: str) -> bool:
    how, _colon, rest = wanted.partition(":")
    return value in rest.split(",") if how == "in" else value == wanted.removeprefix("eq:")


def cloud(name: str, **more: Any) -> Json:
    kind = {"provider": "openstack", "region": name, "visibility": "public", "zone": True}
    return {"id": name, "name": name, **kind, **more}


def image(name: str, **more: Any) -> Json:
    return {
        "id": str(uuid.uuid4()),
        "name": name,
        "project_id": "p",
        "status": "active",
        "disk_format": "qcow2",
        "size": 5 << 20,
        "virtual_size": 1 << 30,
        "digests": {"sha256": "ab", "sha512": None, "guest": None},
        "links": [link("zone-a")],
        "tags": ["blue"],
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "some_day": "fields that a client does not know do no harm",
    } | more


def link(where: str) -> Json:
    return {
        "cloud": where,
        "provider": "openstack",
        "region": where,
        "image_ref": "1234",
        "proof": "bytes",
        "verified_at": "2026-01-01T00:00:00Z",
    }


def job(status: str, *targets: Json, identity: str = "", **more: Any) -> Json:
    return {
        "id": identity or str(uuid.uuid4()),
        "kind": "create",
        "status": status,
        "wanted": "run",
        "image_id": "",
        "progress": {"bytes_done": 25, "bytes_total": 100},
        "targets": list(targets),
        "error": None,
        "request_id": "req-1",
        "project_id": "p",
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": None,
        "finished_at": None,
    } | more


def target(where: str, status: str, step: str = "upload", done: int = 0, **more: Any) -> Json:
    return {
        "id": str(uuid.uuid4()),
        "cloud": where,
        "status": status,
        "step": step,
        "bytes_done": done,
        "bytes_total": 100,
        "attempts": 1,
        "image_ref": None,
        "error": None,
    } | more


def _one(items: list[Json], item: str) -> tuple[int, dict[str, str], Json]:
    for each in items:
        if each["id"] == item:
            return 200, {}, each
    return 404, {}, _error(Refusal(404, f"No such thing: {item}", "not_found"))


def _error(refusal: Refusal) -> Json:
    error = {
        "request_id": "req-stub",
        "code": refusal.code,
        "status": refusal.status,
        "title": "Refused",
        "detail": refusal.detail,
    }
    if refusal.field:
        error["field"] = refusal.field
    return {"message": refusal.detail, "errors": [error]}


def _version(name: str, status: str, url: str) -> Json:
    return {"id": name, "status": status, "links": [{"rel": "self", "href": url}]}


def _body(environ: Json) -> bytes:
    return b"".join(_blocks(environ))


def _blocks(environ: Json) -> Iterator[bytes]:
    stream = environ["wsgi.input"]
    if environ.get("HTTP_TRANSFER_ENCODING") == "chunked":
        while length := int(stream.readline(), 16):
            yield stream.read(length)
            stream.readline()
        stream.readline()
        return
    left = int(environ["CONTENT_LENGTH"] or 0)
    while left:
        block = stream.read(min(left, BLOCK))
        if not block:
            return
        left -= len(block)
        yield block
