# SPDX-License-Identifier: Apache-2.0
"""What another's cloud answers: words that can be shown, and values that are of the kinds they should be."""

import base64
import json
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 1000      # characters of a cloud's own words
HIDDEN = "***"


def words(text: object, secrets: Iterable[str] = ()) -> str:
    """A cloud's own words, on one line; it may repeat what it was told in confidence, we do not."""
    shown = str(text)
    for secret in secrets:
        for form in filter(None, _forms(secret)):
            shown = shown.replace(form, HIDDEN)
    return "".join(filter(str.isprintable, " ".join(shown.split())))[:LONGEST]


def _forms(secret: str) -> list[str]:
    """As it is, in Python, in JSON, in a URL and in base64."""
    in_json = [json.dumps(secret, ensure_ascii=each)[1:-1] for each in (True, False)]
    in_url = [encode(secret, safe="") for encode in (urllib.parse.quote, urllib.parse.quote_plus)]
    in_base64 = base64.b64encode(secret.encode()).decode().rstrip("=")
    return [secret, repr(secret)[1:-1], *in_json, *in_url, in_base64]


def is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest


def is_whole(value: object, largest: int) -> bool:
    """JSON's true is an integer for Python, too."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest


def fits(value: object, kinds: Mapping[str, Any]) -> bool:
    """Is this an object whose members, as far as they are known and said, are of their kinds?

    :param kinds: by name; each tells of a value
    """
    return isinstance(value, dict) and all(
        value.get(name) is None or is_kind(value[name]) for name, is_kind in kinds.items()
    )
