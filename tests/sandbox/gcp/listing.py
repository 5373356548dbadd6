# SPDX-License-Identifier: Apache-2.0
"""Compute's lists: filters, orders and pages.

https://cloud.google.com/compute/docs/reference/rest/v1/images/list: a filter compares fields by ``=``,
several are joined by AND or only stand in parentheses; or, in the older way, one field ``eq`` a regular
expression that has to match all of it, and the two are never mixed. Other operators are refused here, as what
can not be read is.
``maxResults`` is 0 to 500; sorted is by ``name`` or ``creationTimestamp desc``.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.sandbox.gcp import errors

MOST = 500
Resource = dict[str, Any]
TOKEN = re.compile(r"\s*(?:(\(|\)|=)|\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|([^\s()=\"']+))")
FIELD = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*")
NEW, OLD = "=", "eq"


def answer(
    found: list[Resource], query: Mapping[str, str], page_size: int, known: frozenset[str]
) -> tuple[list[Resource], str | None]:
    """Return the page that is asked for, and the token of the next one; `known` are the fields there are."""
    if text := query.get("filter"):
        matches = _filter(text, known)
        found = [one for one in found if matches(one)]
    order = query.get("orderBy", "name")
    if order not in ("name", "creationTimestamp desc"):
        raise errors.field("orderBy", order, "The order is not supported.")
    found.sort(key=lambda one: str(one["name"]))
    if order != "name":
        found.sort(key=lambda one: str(one.get("creationTimestamp", one.get("insertTime"))), reverse=True)
    most = query.get("maxResults", str(MOST))
    if not most.isascii() or not most.isdigit() or int(most) > MOST:
        raise errors.field("maxResults", most, f"Must be from 0 to {MOST}.")
    size = min(int(most) or MOST, page_size or MOST)
    if token := query.get("pageToken"):
        last = _read(token)
        found = found[next((index + 1 for index, one in enumerate(found) if str(one["id"]) == last), 0) :]
    if len(found) <= size:
        return found, None
    return found[:size], base64.urlsafe_b64encode(str(found[size - 1]["id"]).encode()).decode()


def _read(token: str) -> str:
    try:
        last = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        last = ""
    if not last.isdigit():
        raise errors.field("pageToken", token, "The page token is invalid.")
    return last


def _filter(text: str, known: frozenset[str]) -> Callable[[Resource], bool]:
    def wrong() -> errors.Refused:
        return errors.field("filter", text, "Invalid list filter expression.")

    tokens = _tokens(text)
    if tokens is None:
        raise wrong()
    terms: list[tuple[str, str, str]] = []
    alone = False
    while tokens:
        if terms and tokens[0] == ("word", "AND"):
            tokens.pop(0)
        elif terms and (alone or tokens[0] != ("mark", "(")):
            raise wrong()
        enclosed = 0
        while tokens[:1] == [("mark", "(")]:
            enclosed += 1
            tokens.pop(0)
        if (
            len(tokens) < 3
            or tokens[0][0] != "word"
            or tokens[1][1] not in (NEW, OLD)
            or tokens[2][0] == "mark"
        ):
            raise wrong()
        (_, name), (_, operator), (_, value) = tokens[:3]
        del tokens[:3]
        if tokens[:enclosed] != [("mark", ")")] * enclosed:
            raise wrong()
        del tokens[:enclosed]
        alone = not enclosed
        if not FIELD.fullmatch(name) or name.partition(".")[0] not in known:
            raise wrong()
        terms.append((name, operator, value))
    if not terms or len({operator for _, operator, _ in terms}) > 1:
        raise wrong()
    if terms[0][1] == OLD and len({name for name, _, _ in terms}) > 1:
        raise wrong()
    try:
        tests = [_test(*term) for term in terms]
    except re.error:
        raise wrong() from None
    return lambda one: all(test(one) for test in tests)


def _tokens(text: str) -> list[tuple[str, str]] | None:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        one = TOKEN.match(text, place)
        if one is None:
            return None
        place = one.end()
        mark, double, single, word = one.groups()
        if mark is not None:
            found.append(("mark", mark))
        elif word is not None:
            found.append(("word", word))
        else:
            found.append(("text", re.sub(r"\\(.)", r"\1", double if double is not None else single)))
    return found


def _test(name: str, operator: str, value: str) -> Callable[[Resource], bool]:
    def of(one: Resource) -> str | None:
        found: Any = one
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return None if found is None else str(found).lower() if isinstance(found, bool) else str(found)

    if operator == NEW:
        return lambda one: of(one) == value
    pattern = re.compile(value)
    return lambda one: pattern.fullmatch(of(one) or "") is not None
