# SPDX-License-Identifier: Apache-2.0
"""Hrefs of Barbican's secrets: which are one, and whose."""

import re
import urllib.parse
import uuid
from collections.abc import Iterable
from typing import NamedTuple

SERVICE_TYPE = "key-manager"
A_REF = re.compile(
    r"(https?://[^\s/?#@\\]+(?:/[^\s?#@\\]+)?)/v1/secrets/([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
)


class Ref(NamedTuple):
    """A secret's Barbican, as base() has it, and its id."""

    base: str
    secret_id: str


def parse(href: str) -> Ref | None:
    """None: it is none."""
    found = A_REF.fullmatch(href)
    try:
        return Ref(base(found[1]), str(uuid.UUID(found[2]))) if found else None
    except ValueError:      # a host in brackets that is no address
        return None


def base(url: str) -> str:
    """An endpoint as it can be compared: without the version, in lower case where that does not matter."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}"


def is_of(ref: Ref, endpoints: Iterable[str]) -> bool:
    """Is it a secret of one of these Barbicans?"""
    return ref.base in {base(url) for url in endpoints}
