# SPDX-License-Identifier: Apache-2.0
"""Partial answers, as ``fields`` selects them.

https://cloud.google.com/storage/docs/json_api#partial-response
"""

import re
from typing import Any

from tests.sandbox.gcp import errors

Selection = dict[str, "Selection"]
TOKEN = re.compile(r"[A-Za-z0-9_.-]+|\*|[,/()]")


def select(found: Any, text: str) -> Any:
    """Return only what is selected; Refused if that can not be read."""
    tokens = TOKEN.findall(text)
    if "".join(tokens) != text or not tokens:
        raise _wrong(text)
    wanted = _list(tokens, text)
    if tokens:
        raise _wrong(text)
    return _apply(found, wanted)


def _wrong(text: str) -> errors.Refused:
    return errors.Refused(
        400, "invalidParameter", f"Invalid field selection {text}", location=("parameter", "fields")
    )


def _list(tokens: list[str], text: str) -> Selection:
    found: Selection = {}
    while True:
        if not tokens or tokens[0] in ",/()":
            raise _wrong(text)
        name = tokens.pop(0)
        below: Selection = {}
        if tokens[:1] == ["/"]:
            tokens.pop(0)
            below = _list_one(tokens, text)
        elif tokens[:1] == ["("]:
            tokens.pop(0)
            below = _list(tokens, text)
            if tokens[:1] != [")"]:
                raise _wrong(text)
            tokens.pop(0)
        found[name] = found.get(name, {}) | below
        if tokens[:1] != [","]:
            return found
        tokens.pop(0)


def _list_one(tokens: list[str], text: str) -> Selection:
    end = next((index for index, token in enumerate(tokens) if token in ",)"), len(tokens))
    if "(" in tokens[:end]:
        end = tokens.index(")") + 1 if ")" in tokens else len(tokens)
    path = tokens[:end]
    del tokens[:end]
    below = _list(path, text)
    if path:
        raise _wrong(text)
    return below


def _apply(found: Any, wanted: Selection) -> Any:
    if not wanted:
        return found
    if isinstance(found, list):
        return [_apply(one, wanted) for one in found]
    if not isinstance(found, dict):
        return found
    if "*" in wanted:
        return {name: _apply(value, wanted["*"]) for name, value in found.items()}
    return {name: _apply(value, wanted[name]) for name, value in found.items() if name in wanted}
