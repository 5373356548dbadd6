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
    """As it is, encoded, and encoded twice, as JSON is in Python's text of an error; the longest first."""
    found = {form for once in _encoded(secret) for form in _encoded(once)}
    return sorted(found, key=len, reverse=True)


def _encoded(text: str) -> set[str]:
    """As it is, in Python, in JSON, in a URL and in base64; and as HTTP's headers are read."""
    raw = text.encode(errors="surrogatepass")
    in_json = [json.dumps(text, ensure_ascii=each)[1:-1] for each in (True, False)]
    in_url = [urllib.parse.quote(raw), urllib.parse.quote(raw, safe=""), urllib.parse.quote_plus(raw)]
    in_base64 = base64.b64encode(raw).decode().rstrip("=")
    in_python = [repr(text)[1:-1], repr(raw)[2:-1], raw.decode("latin-1")]
    return {text, *in_python, *in_json, *in_url, in_base64}


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
