# SPDX-License-Identifier: Apache-2.0
"""A Keystone, on loopback, that says what it was told to say, and notes what it is asked."""

import http.server
import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any


class Keystone(http.server.ThreadingHTTPServer):
    """Its catalog has its address without a version; who logs in is let in, also under a trust."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/identity"
        self.asked: list[str] = []
        version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": f"{self.url}/v3/"}]}
        endpoint = {"interface": "public", "url": self.url, "region": "one", "region_id": "one"}
        token = {
            "user": {"id": "service"},
            "expires_at": _in(3600),
            "catalog": [{"type": "identity", "endpoints": [endpoint]}],
        }
        self.answers: dict[str, tuple[int, Any]] = {    # by method and path: status and body
            "GET ": (300, {"versions": {"values": [version]}}),
            "GET /v3": (200, {"version": version}),
            "POST /v3/auth/tokens": (201, {"token": token}),
        }
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def give(self, trust_ids: Sequence[str], ends_in: float = 3600) -> None:
        """These are the trusts of the service user, and end in so many seconds."""
        same = {"trustor_user_id": "alice", "project_id": "studio", "expires_at": _in(ends_in)}
        trusts = [{"id": trust_id, **same} for trust_id in trust_ids]
        self.answers["GET /v3/OS-TRUST/trusts"] = 200, {"trusts": trusts}


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Keystone

    def _answer(self) -> None:
        said = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = self.path.partition("?")[0].removeprefix("/identity").rstrip("/")
        asked = f"{self.command} {path}"
        if "OS-TRUST:trust" in said:
            asked += " under a trust"
        self.server.asked.append(asked)
        status, body = self.server.answers.get(
            asked, self.server.answers.get(asked.removesuffix(" under a trust"), (404, {}))
        )
        answer = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Subject-Token", "a token")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""
