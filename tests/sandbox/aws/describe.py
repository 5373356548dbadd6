# SPDX-License-Identifier: Apache-2.0
"""Filters and pages of EC2's lists.

- Values of a filter are joined by OR, filters by AND; * and ? are wildcards, a backslash makes them plain,
  case counts; at most 50 filters with 200 values:
  https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
- A page has 5 to 1000 things, and can not be asked for together with ids; only its token tells whether there
  is more: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html#api-pagination
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tests.sandbox.aws import errors
from tests.sandbox.aws.state import Call

Facts = Mapping[str, Iterable[str]]
"""Values of a thing, by the name of the filter."""
Thing = TypeVar("Thing")
FEWEST, MOST = 5, 1000
MOST_FILTERS, MOST_VALUES = 50, 200


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.findall(r"\\.|.", text, re.DOTALL)
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(part) or re.escape(part[-1]) for part in parts), re.DOTALL)


def checked(params: Mapping[str, Any], known: frozenset[str]) -> list[tuple[str, list[re.Pattern[str]]]]:
    """Return the filters of a request; Refused if one is not known or says nothing."""
    found = []
    for one in params.get("Filters", []):
        name, values = one.get("Name", ""), one.get("Values", [])
        if name not in known and not name.startswith("tag:"):
            raise errors.refusal("ec2", "invalid", f"The filter '{name}' is invalid")
        if not values:
            raise errors.refusal("ec2", "invalid", f"The filter '{name}' has no value")
        if len(values) > MOST_VALUES:
            raise errors.Refused(
                "FilterLimitExceeded", f"The maximum number of filter values is {MOST_VALUES}"
            )
        found.append((name, [_pattern(value) for value in values]))
    if len(found) > MOST_FILTERS:
        raise errors.Refused("FilterLimitExceeded", f"The maximum number of filters is {MOST_FILTERS}")
    return found


def passes(filters: list[tuple[str, list[re.Pattern[str]]]], facts: Facts, tags: Mapping[str, str]) -> bool:
    """Tell whether a thing with these facts and tags is wanted."""

    def values(name: str) -> Iterable[str]:
        if name.startswith("tag:"):
            return [tags[name[4:]]] if name[4:] in tags else []
        return tags if name == "tag-key" else facts.get(name, ())

    return all(
        any(pattern.fullmatch(value) for pattern in patterns for value in values(name))
        for name, patterns in filters
    )


def page(call: Call, things: Sequence[Thing], ids: str) -> tuple[list[Thing], str | None]:
    """Return one page of the things, which are in a lasting order by `id`, and the token of the next.

    `ids` names the parameter that can not be together with a size of pages.
    """
    wanted, state = call.params, call.state
    size, token = wanted.get("MaxResults"), wanted.get("NextToken")
    if size is not None and ids in wanted:
        message = f"The parameter {ids} cannot be used with the parameter maxResults"
        raise errors.Refused("InvalidParameterCombination", message)
    if size is not None and size < FEWEST:
        message = (
            f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value of {FEWEST} or more."
        )
        raise errors.refusal("ec2", "invalid", message)
    place = f"{call.action}:{call.caller.account}:{call.region}"
    after, number = "", 0
    if token is not None:
        try:
            seal, after, count = base64.b64decode(token, validate=True).decode().split(":")
            number = int(count)
        except ValueError:
            seal = ""
        if seal != state.seal(f"{place}:{after}:{number}"):
            raise errors.refusal("ec2", "invalid", "Unable to parse pagination token")
    left = sorted((one for one in things if one.id > after), key=lambda one: one.id)  # type: ignore[attr-defined]
    if size is None:
        return left, None
    shown = left[: 0 if state.settings.sparse_pages and number % 2 == 0 else min(size, MOST)]
    if len(shown) == len(left):
        return shown, None
    last = shown[-1].id if shown else after  # type: ignore[attr-defined]
    text = f"{last}:{number + 1}"
    return shown, base64.b64encode(f"{state.seal(f'{place}:{text}')}:{text}".encode()).decode()
