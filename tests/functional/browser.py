# SPDX-License-Identifier: Apache-2.0
"""Chromium without a window, and a page for it that tells what it could do and read."""

import contextlib
import http.server
import json
import os
import pathlib
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, Self

from tests.sandbox import processes

PAGE = pathlib.Path(__file__).with_name("page.html")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)


class Page:
    """Serves the page from an origin of its own, and takes what it has seen."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self._seen: queue.Queue[dict[str, Any]] = queue.Queue()
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == "/"
                text = PAGE.read_text().replace("SETTINGS", json.dumps(page.settings))
                self._answer(200 if known else 404, text if known else "")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                page._seen.put(json.loads(body))
                self._answer(200, "")

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(text.encode())))
                self.send_header("Cache-Control", "no-store")   # there is a token in it
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer((processes.HOST, 0), Handler)
        self.origin = f"http://{processes.HOST}:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def visit(self, profile: pathlib.Path, settings: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
        """Have Chromium open the page; return what that has seen, within a time."""
        self.settings = settings
        with _chromium(self.origin, profile) as log:
            try:
                return self._seen.get(timeout=seconds)
            except queue.Empty:
                raise AssertionError(f"The page told nothing:\n{log.read_text()[-4000:]}") from None


@contextlib.contextmanager
def _chromium(url: str, profile: pathlib.Path) -> Iterator[pathlib.Path]:
    """Chromium at a URL as long as the block runs; the file of what it complains about."""
    profile.mkdir()
    log = profile / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={profile / 'data'}", url],
            env=processes.environment(HOME=str(profile)),
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
