# SPDX-License-Identifier: Apache-2.0
"""A web site, on loopback, that notes who asks it."""

import contextlib
import http.server
import json
import pathlib
import ssl
import threading
from collections.abc import Iterator


class Site(http.server.ThreadingHTTPServer):
    """Notes who asked for what; leads `/away` to where it was told; refuses a POST, and repeats it."""

    daemon_threads = True

    def __init__(self, tls: pathlib.Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []      # path, Host
        self.names: list[str | None] = []           # SNI
        self.away = ""
        self.scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            context.sni_callback = lambda _socket, name, _context: self.names.append(name)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def url(self, host: str = "127.0.0.1", path: str = "/") -> str:
        return f"{self.scheme}://{host}:{self.server_port}{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))
        self.send_response(302 if self.path == "/away" else 200)
        if self.path == "/away":
            self.send_header("Location", self.server.away)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"])).decode()
        message = f"Can not do {said} with {self.headers.get('X-Auth-Token')}"
        answer = json.dumps({"error": {"code": 401, "message": message}}).encode()
        self.send_response(401)
        self.send_header("x-openstack-request-id", f"req of {self.headers.get('X-Auth-Token') or said}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(tls: pathlib.Path | None = None) -> Iterator[Site]:
    with Site(tls) as site:
        threading.Thread(target=site.serve_forever, args=(0.05,), daemon=True).start()
        yield site
        site.shutdown()
