# SPDX-License-Identifier: Apache-2.0
"""A proxy in front of a real Glance that stumbles by script, and a client that is slow."""

import contextlib
import http.client
import http.server
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any, Literal, Self

from tests.sandbox import sandbox

BLOCK = 64 * 1024
Fault = Literal["503", "reset", "lose-answer"]


class Proxy:
    """`faults` are (method, path pattern, what happens) for the next requests that match, in order.

    `503`: answered at once. `reset`: the connection ends half-way in the body. `lose-answer`: the
    Glance gets and does all, but its answer never arrives. `corrupt` flips a byte of each upload.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urllib.parse.urlparse(upstream)
        self.faults: list[tuple[str, str, Fault]] = []
        self.throttle: float | None = None
        self.corrupt = False
        self.longest = 0.0
        self.seen: list[tuple[str, str, int]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def register(self, cloud: sandbox.Sandbox, region: str) -> None:
        """Make this the Glance of a zone of its own."""
        cloud.admin.set_endpoints("glance", {region: self.url})

    @contextlib.contextmanager
    def as_zone(self, cloud: sandbox.Sandbox, region: str) -> Iterator[Self]:
        self.register(cloud, region)
        try:
            yield self
        finally:
            cloud.admin.remove_region(region)

    def next_fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault[0] == method and re.search(fault[1], path):
                self.faults.remove(fault)
                return fault[2]
        return None

    def _handler(proxy) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.forward(self)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def forward(self, client: http.server.BaseHTTPRequestHandler) -> None:
        fault = self.next_fault(client.command, client.path)
        length = int(client.headers.get("Content-Length") or 0)
        started = time.monotonic()
        if fault == "503":
            self._answer(client, 503, b"stumbled", {"x-openstack-request-id": "req-faulty"})
            client.close_connection = True
            return
        glance = http.client.HTTPConnection(str(self.upstream.netloc), timeout=120)
        glance.putrequest(client.command, client.path, skip_host=True, skip_accept_encoding=True)
        for name, value in client.headers.items():
            glance.putheader(name, value)
        glance.endheaders()
        left = length // 2 if fault == "reset" else length
        while left:
            block = client.rfile.read(min(BLOCK, left))
            if not block:
                break
            left -= len(block)
            if self.corrupt and client.command == "PUT" and not left:
                block = block[:-1] + bytes([block[-1] ^ 1])
            glance.send(block)
            if self.throttle:
                time.sleep(len(block) / self.throttle)
        if fault == "reset" or left:
            glance.close()
            client.close_connection = True
            return
        answer = glance.getresponse()
        body = answer.read()
        self.longest = max(self.longest, time.monotonic() - started)
        self.seen.append((client.command, client.path, answer.status))
        if fault == "lose-answer":
            client.close_connection = True
            return
        skip = ("transfer-encoding", "content-length", "connection")
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in skip}
        self._answer(client, answer.status, body, headers)

    @staticmethod
    def _answer(
        client: http.server.BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        client.send_response(status)
        for name, value in headers.items():
            client.send_header(name, value)
        client.send_header("Content-Length", str(len(body)))
        client.end_headers()
        client.wfile.write(body)


def slowly(data: bytes, seconds: float, parts: int = 20) -> Iterator[bytes]:
    """The data in parts, over some time."""
    step = -(-len(data) // parts)
    for start in range(0, len(data), step):
        time.sleep(seconds / parts)
        yield data[start : start + step]
