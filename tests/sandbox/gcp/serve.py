# SPDX-License-Identifier: Apache-2.0
"""The server: one address for both services and for tokens, which the path tells apart."""

import http.server
import os
import pathlib
import secrets
import socket
import socketserver
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from tests.sandbox import processes
from tests.sandbox.gcp import accounts, calls, compute, door, errors, places, tokens, wire
from tests.sandbox.gcp.state import State
from tests.sandbox.gcp.storage import Storage

UPLOAD_ID = "X-GUploader-UploadID"
"""The header by which Storage tells its requests apart: what to tell Google's support."""


def answer(state: State, storage: Storage, request: wire.Request) -> wire.Response:
    """Do what is asked; Dropped if the connection shall end without an answer."""
    if request.path.startswith(places.PREFIX):
        return door.answer(state, storage, request)
    try:
        if request.path.startswith("/compute/"):
            return compute.answer(state, request)
        if (request.method, request.path) == ("POST", accounts.TOKEN_PATH):
            with calls.unsigned(state, "token"):
                return tokens.grant(state, request)
        response = _stored(storage, request)
    except errors.Refused as refused:
        return refused.response()
    response.headers.setdefault(UPLOAD_ID, secrets.token_urlsafe(64))
    return response


def _stored(storage: Storage, request: wire.Request) -> wire.Response:
    try:
        return storage.answer(request)
    except errors.Refused as refused:
        return refused.response()


class Handler(http.server.BaseHTTPRequestHandler):
    """Reads requests off a connection, and writes answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # with it each answer takes 45 ms
    wbufsize = 64 << 10
    server: "Server"

    def answer(self) -> None:
        """Answer one request."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "transfer-encoding" in headers:
            self.close_connection = True
            self._send(errors.Refused(411, "lengthRequired", "The length is required.").response())
            return
        body = self.rfile.read(int(headers.get("content-length") or 0))
        request = wire.Request(self.command, self.path, headers, body)
        try:
            self._send(answer(self.server.state, self.server.storage, request))
        except errors.Dropped:
            self._reset()
        except ConnectionError:
            raise
        except Exception:
            traceback.print_exc()
            self._send(errors.Refused(500, "backendError", "The stand-in is broken: see its log.").response())

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = answer

    def _send(self, response: wire.Response) -> None:
        body = response.body
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.status not in (204, 304):
            self.send_header(
                "Content-Length", str(body.length if isinstance(body, wire.Slice) else len(body))
            )
        self.end_headers()
        if isinstance(body, wire.Slice):
            self.wfile.flush()
            count = body.length // 2 if response.cut else body.length
            with body.file:
                self.connection.sendfile(body.file, body.offset, count or None)
            self.close_connection = self.close_connection or response.cut
        else:
            self.wfile.write(body)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: there may be hundreds of requests a second."""


class Server(socketserver.ThreadingTCPServer):
    """Listens; a thread for each connection."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, state: State, port: int) -> None:
        self.state, self.storage = state, Storage(state)
        super().__init__((processes.HOST, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not worth a word."""
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()


def run(
    directory: pathlib.Path, port: int, *, ready: Callable[[str], None], with_parent: bool = False
) -> None:
    """Serve until killed, or until standard input ends; `directory` then holds keys, and where we are."""
    state = State(directory)
    state.disks.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in state.disks.iterdir():
        old.unlink()  # of a run that ended: what knew of them is gone
    accounts.set_up(state)
    with Server(state, port) as server:
        ready(door.write_keys(state, server.server_address[1]))
        if with_parent:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        server.serve_forever()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)
