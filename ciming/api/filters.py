# SPDX-License-Identifier: Apache-2.0
"""`status=in:active,partial`, `size=gte:1048576`, `sort=name,created_at:desc`: out of the query."""

import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import marshmallow as ma
from marshmallow import fields

from ciming.api import kinds
from ciming.db import lists

ALIKE = ("eq", "neq", "in", "nin")
ORDERED = (*ALIKE, "gt", "gte", "lt", "lte")
SQL = {"eq": "in", "neq": "nin"}        # of one value
OPERATOR = re.compile(rf"({'|'.join(ORDERED)}):(.*)", re.DOTALL)
EPOCH = datetime.fromtimestamp(0, UTC)
VALUE = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^",]+))(?=,|\Z)', re.DOTALL)
MOST_VALUES = 50
MOST_CONDITIONS = 4
MOST_BYTES = 2**63 - 1

A_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
A_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z"
A_NUMBER = "[0-9]{1,18}"


class Kind(NamedTuple):
    """What the values of a filter are. `parse` raises ValueError."""

    parse: Callable[[str], Any]
    what: str
    operators: Sequence[str]
    pattern: str | None = None      # of one value


def _text(value: str) -> str:
    if not 0 < len(value) <= 255 or "\0" in value:
        raise ValueError
    return value


def _time(value: str) -> int:
    """Milliseconds since the epoch; without a zone it is UTC."""
    at = datetime.fromisoformat(value)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - EPOCH) // timedelta(milliseconds=1)


def _number(value: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", value) or int(value) > MOST_BYTES:
        raise ValueError
    return int(value)


TEXT = Kind(_text, "a text of 1 to 255 characters", ALIKE)
UUID = Kind(lambda value: str(uuid.UUID(value)), "a UUID", ALIKE, A_UUID)
TIME = Kind(_time, "a time like 2026-03-01T12:00:00Z", ORDERED, A_TIME)
BYTES = Kind(_number, "a number of bytes", ORDERED, A_NUMBER)


def one_of(words: Iterable[str]) -> Kind:
    """One of these words."""
    known = sorted(words)

    def parse(value: str) -> str:
        if value not in known:
            raise ValueError
        return value

    return Kind(parse, f"one of {', '.join(known)}", ALIKE, f"({'|'.join(known)})")


class Filter(fields.Field[list[tuple[str, list[Any]]]]):
    """Conditions on one attribute: a value, or an operator and values; given again, all must hold."""

    is_multiple = True      # webargs hands all of them over

    def __init__(self, kind: Kind, description: str, **kwargs: Any) -> None:
        one: dict[str, Any] = {"type": "string", "minLength": 1, "pattern": kinds.NO_NUL}
        if kind.pattern:
            one["pattern"] = _pattern(kind.pattern, kind.operators)
        text = f"{description}: {kind.what}. Operators: {', '.join(kind.operators)}."
        schema = {"type": "array", "items": one, "maxItems": MOST_CONDITIONS, "description": text}
        super().__init__(metadata=schema, **kwargs)
        self.kind = kind

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[tuple[str, list[Any]]]:
        if len(value) > MOST_CONDITIONS:
            raise ma.ValidationError(f"At most {MOST_CONDITIONS} conditions, please.")
        return [self._condition(text) for text in value]

    def _condition(self, text: str) -> tuple[str, list[Any]]:
        given = OPERATOR.fullmatch(text)
        how, rest = given.groups() if given else ("eq", text)
        if how not in self.kind.operators:
            raise ma.ValidationError(
                f"{how}: does not go with this. Operators: {', '.join(self.kind.operators)}."
            )
        values = _split(rest) if how in ("in", "nin") else [rest]
        return SQL.get(how, how), [self._parsed(value) for value in values]

    def _parsed(self, value: str) -> Any:
        try:
            return self.kind.parse(value)
        except ValueError:
            raise ma.ValidationError(
                f"{value[:64]!r} is not {self.kind.what}. Before it there may be one of "
                f"{', '.join(f'{each}:' for each in self.kind.operators)}."
            ) from None


def _pattern(one: str, operators: Sequence[str]) -> str:
    single = "|".join(each for each in operators if each not in ("in", "nin"))
    return f"^(({single}):)?{one}$|^n?in:{one}(,{one})*$"


def _split(text: str) -> list[str]:
    r"""`a,"b,c","d\"e"`: values with a comma or a quote stand in quotes."""
    values: list[str] = []
    position = 0
    while position <= len(text):
        found = VALUE.match(text, position)
        if found is None or len(values) == MOST_VALUES:
            raise ma.ValidationError(
                f"Give 1 to {MOST_VALUES} values, with commas between them; one that holds a comma or "
                'quote stands in "quotes".'
            )
        quoted, plain = found.groups()
        values.append(plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        position = found.end() + 1      # behind the comma
    return values


class Sort(fields.Field[list[lists.Order]]):
    """`key[:asc|desc]`, and more of them after commas."""

    def __init__(self, keys: Sequence[str], default: str) -> None:
        one = f"({'|'.join(keys)})(:(asc|desc))?"
        text = f"Keys, each with :asc (the default) or :desc; without it {default}."
        schema = {"type": "string", "pattern": f"^{one}(,{one})*$", "description": text}
        super().__init__(metadata=schema)
        self.keys = keys

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[lists.Order]:
        order: dict[str, lists.Order] = {}
        for text in value.split(","):
            key, _colon, direction = text.partition(":")
            if key not in self.keys:
                raise ma.ValidationError(f"{key[:64]!r} is none of the keys {', '.join(self.keys)}.")
            if direction not in ("asc", "desc") and text != key:
                raise ma.ValidationError(f"{direction[:64]!r} is neither asc nor desc.")
            order.setdefault(key, lists.Order(key, direction == "desc"))    # again: decides nothing
        return list(order.values())


class Flag(fields.Field[bool]):
    """Yes or no; Python's words for it will do."""

    WORDS = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}

    def __init__(self, description: str) -> None:
        text = f"{description}: true or false (the default)."
        schema = {"type": "string", "enum": list(self.WORDS), "description": text}
        super().__init__(metadata=schema)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if value not in self.WORDS:
            raise ma.ValidationError("Either true or false, please.")
        return self.WORDS[value]


class Limit(fields.Field[int]):
    """How many at most; no more than the operator allows."""

    def __init__(self) -> None:
        super().__init__(
            metadata={"type": "integer", "minimum": 1, "description": "Length of a page at most."}
        )

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if not re.fullmatch("0*[1-9][0-9]{0,18}", value):
            raise ma.ValidationError("A whole number from 1, please.")
        return int(value)
