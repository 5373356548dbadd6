# SPDX-License-Identifier: Apache-2.0
"""Requests and answers as they travel."""

import dataclasses
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

JSON: Mapping[str, str] = {"Content-Type": "application/json; charset=UTF-8"}


class Slice(NamedTuple):
    """A part of an open file; who sends it closes it."""

    file: BinaryIO
    offset: int
    length: int


@dataclasses.dataclass
class Response:
    """One answer; the body of a download is a part of a file, of which half is sent if it is `cut`."""

    status: int
    headers: dict[str, str]
    body: bytes | Slice
    cut: bool = False


class Request:
    """One HTTP request: `parts` are those of the path, names of headers are in lower case."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.path, _, query = target.partition("?")
        self.parts = [urllib.parse.unquote(part) for part in self.path.split("/")[1:]]
        self.arguments = urllib.parse.parse_qsl(query, keep_blank_values=True)
        self.query = dict(self.arguments)


def answer(found: Any, **headers: str) -> Response:
    """Return something as JSON."""
    return Response(200, dict(JSON) | headers, json.dumps(found).encode())
