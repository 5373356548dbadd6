# SPDX-License-Identifier: Apache-2.0
"""The server: one address for all services and regions, which the signature's scope tells apart."""

import http.server
import os
import pathlib
import socket
import socketserver
import struct
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from typing import Any

from tests.sandbox import processes
from tests.sandbox.aws import access, door, ebs, ec2, errors, keys, signing, sts, wire
from tests.sandbox.aws.state import NOT_OPTED_IN, REGIONS, Action, Call, State

ACTIONS: dict[str, dict[str, Action]] = {
    "ec2": ec2.ACTIONS,
    "ebs": ebs.ACTIONS,
    "kms": keys.ACTIONS,
    "sts": sts.ACTIONS,
}
NEVER_DENIED = {"GetCallerIdentity"}


def answer(state: State, request: wire.Request) -> wire.Response:
    """Do what is asked; Dropped if the connection shall end without an answer."""
    request_id = str(uuid.uuid4())
    service = ""
    try:
        service = signing.service_of(request)
        signed = signing.verify(state, request)
        service = signed.service
        if signed.region in NOT_OPTED_IN:
            raise errors.refusal(service, "unknown key", "The region is not enabled for the account")
        if signed.region not in REGIONS:
            raise errors.Dropped  # its host name would not be found
        return _act(state, request, signed, request_id)
    except errors.Refused as refused:
        return wire.refuse(service, refused, request_id)


def _act(state: State, request: wire.Request, signed: signing.Signed, request_id: str) -> wire.Response:
    service = signed.service
    operation, params = wire.read(service, request)
    action = operation.name
    if action not in ACTIONS[service]:
        raise errors.refusal(service, "unknown action", f"The action {action} is not done here.")
    state.count(f"{service}:{action}")
    fault = state.faults.take(service, action, signed.region)
    if fault is not None:
        if fault.kind == "reset":
            raise errors.Dropped
        time.sleep(fault.seconds)
        if refused := fault.refusal(service, action):
            raise refused
    if action not in NEVER_DENIED:
        access.check(state, signed.caller, service, action, signed.region)
    if params.pop("DryRun", False):
        raise errors.Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
    call = Call(state, service, action, signed.caller, signed.region, params, request.digest, fault)
    if service == "ebs" and action in ebs.UNLOCKED:
        result = ACTIONS[service][action](call)
    else:
        with state.lock:
            result = ACTIONS[service][action](call)
    if fault is not None and fault.kind == "lost":
        raise errors.Dropped
    return wire.write(operation, result, request_id)


class Handler(http.server.BaseHTTPRequestHandler):
    """Reads requests off a connection, and writes answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # with it a block takes 45 ms
    wbufsize = 64 << 10
    server: "Server"

    def answer(self) -> None:
        """Answer one request."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = wire.Request(self.command, self.path, headers, self._body())
        state = self.server.state
        try:
            if request.path.startswith(door.PREFIX):
                response = door.answer(state, request)
            else:
                response = answer(state, request)
        except errors.Dropped:
            self._reset()
            return
        except Exception:
            traceback.print_exc()
            response = wire.Response(
                500, {"Content-Type": "text/plain"}, b"the stand-in is broken: see its log"
            )
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in response.headers:
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

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
        self.state = state
        super().__init__((processes.HOST, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not worth a word."""
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()


def run(
    directory: pathlib.Path, port: int, *, ready: Callable[[str], None], with_parent: bool = False
) -> None:
    """Serve until killed, or until standard input ends; `directory` then holds who may call, and where."""
    snapshots = directory / "snapshots"
    snapshots.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in snapshots.iterdir():
        old.unlink()  # of a run that ended: what knew of them is gone
    state = State(directory)
    access.set_up(state)
    for service in ("ec2", "ebs", "sts"):
        wire.model(service)
    with Server(state, port) as server:
        ready(door.write_keys(state, server.server_address[1]))
        if with_parent:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        server.serve_forever()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)
