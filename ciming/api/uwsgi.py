# SPDX-License-Identifier: Apache-2.0
"""What uWSGI does otherwise than other WSGI servers."""

import importlib
import io
import sys
from collections.abc import Callable
from typing import Any


def is_here() -> bool:
    """Do we run inside of uWSGI? It has a module of its name built in."""
    return "uwsgi" in sys.modules or "uwsgi" in sys.builtin_module_names


class ChunkedInput(io.RawIOBase):
    """A chunked body as a file, as PEP 3333 has it.

    :param next_chunk: gives the next chunk, and nothing at the end
    """

    def __init__(self, next_chunk: Callable[[], bytes]) -> None:
        self._next_chunk: Callable[[], bytes] | None = next_chunk
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest and self._next_chunk:
            self._rest = memoryview(self._next_chunk())
            if not self._rest:
                self._next_chunk = None
        part = self._rest[: len(buffer)]
        buffer[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)


def by_the_book(app: Any) -> Any:
    """uWSGI's own wsgi.input is empty for a chunked request; and it believes any X-Forwarded-Proto."""
    if not is_here():
        return app
    chunked_read = importlib.import_module("uwsgi").chunked_read

    def wrapped(environ: Any, start_response: Any) -> Any:
        if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
            environ["wsgi.input"] = ChunkedInput(chunked_read)
            environ["wsgi.input_terminated"] = True
        environ["wsgi.url_scheme"] = "https" if environ.get("HTTPS") == "on" else "http"
        return app(environ, start_response)

    return wrapped
