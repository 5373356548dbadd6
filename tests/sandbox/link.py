# SPDX-License-Identifier: Apache-2.0
"""A network between a client and a server on this host, that can break."""

import contextlib
import socket
import socketserver
import threading
import urllib.parse
from typing import Self

from tests.sandbox import processes

BLOCK = 64 * 1024


class Link:
    """Passes TCP on to a port: `cut()` ends what there is and lets nothing new through, `silence()` loses

    no connection, but passes nothing on; `mend()` ends both.
    """

    def __init__(self, port: int) -> None:
        self._open, self._passing = threading.Event(), threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._port = port
        self.mend()
        link = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                link.join(self.request)

        self._server = socketserver.ThreadingTCPServer((processes.HOST, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self.cut()
        self._passing.set()
        self._server.server_close()

    def url(self, url: str) -> str:
        """The same URL by way of us."""
        parts = urllib.parse.urlsplit(url)
        return url.replace(f":{parts.port}", f":{self._server.server_address[1]}", 1)

    def cut(self) -> None:
        self._open.clear()
        with self._lock:
            ends = list(self._sockets)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        self._passing.clear()

    def mend(self) -> None:
        self._open.set()
        self._passing.set()

    def join(self, client: socket.socket) -> None:
        """Serve one client until it, or the server, has had enough."""
        self._passing.wait()
        if not self._open.is_set():
            return
        with socket.create_connection((processes.HOST, self._port)) as server:
            with self._lock:
                self._sockets |= {client, server}
            back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
            back.start()
            self._pass(client, server)
            back.join()
            with self._lock:
                self._sockets -= {client, server}

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(BLOCK):
                self._passing.wait()
                sink.sendall(block)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
