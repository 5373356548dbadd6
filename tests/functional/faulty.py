# SPDX-License-Identifier: Apache-2.0
"""A proxy in front of a real service that stumbles by script, and a client that is slow."""

import contextlib
import http.client
import http.server
import re
import socket
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

from tests.sandbox import sandbox

BLOCK = 64 * 1024
RETRY_AFTER = "1"
NOT_OURS = ("transfer-encoding", "content-length", "connection")
Fault = str
"""What happens to one request:

- a status (`429`, `500`, `503`): answered at once, the service does not hear of it;
- `stall`: half-way in the body nothing more happens, `stall 3`: for three seconds;
- `reset`: half-way in the body the connection ends;
- `corrupt`: the last byte of its body is another;
- `lose-answer`: the service gets and does all, but its answer never arrives;
- `truncate-answer`: only half of it arrives;
- `corrupt-answer`: its last byte is another.
"""


class Server(http.server.ThreadingHTTPServer):
    """Knows its open connections, to end them with itself."""

    def __init__(self, port: int, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self._open: set[Any] = set()
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients and services that go away are what all this is about."""

    def end(self) -> None:
        """Listen no more, answer nobody, and pass on nothing of what came already."""
        self.ended.set()
        self.shutdown()
        self.server_close()
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class Proxy:
    """`faults` are (method, path pattern, what happens) for the next requests that match, in order.

    `throttle` is in bytes a second; `received` counts the bytes of images that came, by path.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urllib.parse.urlparse(upstream)
        self.faults: list[tuple[str, str, Fault]] = []
        self.throttle: float | None = None
        self.longest = 0.0
        self.seen: list[tuple[str, str, int]] = []
        self.received: Counter[str] = Counter()
        self._server = Server(0, self._handler())
        self.port = self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.end()

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """For a while nothing listens here, and what was under way is cut."""
        self._server.end()
        try:
            yield
        finally:
            self._server = Server(self.port, self._handler())
            self._serve()

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

    def next_fault(self, method: str, path: str) -> Fault:
        for fault in self.faults:
            if fault[0] == method and re.search(fault[1], path):
                self.faults.remove(fault)
                return fault[2]
        return ""

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
        fault, _, seconds = self.next_fault(client.command, client.path).partition(" ")
        started = time.monotonic()
        if fault.isdigit():
            client.rfile.read(int(client.headers.get("Content-Length") or 0))     # or it hears no answer
            headers = {"x-openstack-request-id": "req-faulty", "Retry-After": RETRY_AFTER}
            self._answer(client, int(fault), b"stumbled", headers)
            client.close_connection = True
            return
        if self.throttle:       # or the system takes much of it before we do
            client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BLOCK)
        service = http.client.HTTPConnection(str(self.upstream.netloc), timeout=120)
        with contextlib.closing(service):
            if not self._pass_on(client, service, fault, float(seconds) if seconds else None):
                client.close_connection = True
                return
            answer = service.getresponse()
            body = answer.read()
        self.longest = max(self.longest, time.monotonic() - started)
        self.seen.append((client.command, client.path, answer.status))
        if fault == "lose-answer":
            client.close_connection = True
            return
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in NOT_OURS}
        if "json" in headers.get("Content-Type", ""):       # Keystone says in it where it is
            body = body.replace(self.upstream.geturl().encode(), self.url.encode())
        self._answer(client, answer.status, body, headers, fault)

    def _pass_on(
        self,
        client: http.server.BaseHTTPRequestHandler,
        service: http.client.HTTPConnection,
        fault: Fault,
        seconds: float | None,
    ) -> bool:
        """Send a request on; tell whether all of it was."""
        service.putrequest(client.command, client.path, skip_host=True, skip_accept_encoding=True)
        for name, value in client.headers.items():
            service.putheader(name, value)
        service.endheaders()
        length = int(client.headers.get("Content-Length") or 0)
        rest = length // 2 if fault in ("reset", "stall") else 0
        if not self._send(client, service, length - rest, fault) or fault == "reset":
            return False
        if fault == "stall" and ended(client).wait(seconds):
            return False
        return self._send(client, service, rest)

    def _send(
        self,
        client: http.server.BaseHTTPRequestHandler,
        service: http.client.HTTPConnection,
        left: int,
        fault: Fault = "",
    ) -> bool:
        while left and not ended(client).is_set():
            block = client.rfile.read(min(BLOCK, left))
            if not block:
                return False
            left -= len(block)
            if client.command == "PUT":
                self.received[client.path] += len(block)
            service.send(_other(block) if fault == "corrupt" and not left else block)
            if self.throttle:
                time.sleep(len(block) / self.throttle)
        return not left

    @staticmethod
    def _answer(
        client: http.server.BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str],
        fault: Fault = "",
    ) -> None:
        client.send_response(status)
        for name, value in headers.items():
            client.send_header(name, value)
        client.send_header("Content-Length", str(len(body)))
        client.end_headers()
        if fault == "truncate-answer":
            body = body[: len(body) // 2]
            client.close_connection = True
        client.wfile.write(_other(body) if fault == "corrupt-answer" else body)


def ended(client: http.server.BaseHTTPRequestHandler) -> threading.Event:
    """Set once the server that this client came to goes."""
    assert isinstance(client.server, Server)
    return client.server.ended


def _other(block: bytes) -> bytes:
    """The block with another last byte."""
    return block[:-1] + bytes([block[-1] ^ 1])


def slowly(data: bytes, seconds: float, parts: int = 20) -> Iterator[bytes]:
    """The data in parts, over some time."""
    step = -(-len(data) // parts)
    for start in range(0, len(data), step):
        time.sleep(seconds / parts)
        yield data[start : start + step]
