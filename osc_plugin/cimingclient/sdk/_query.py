# SPDX-License-Identifier: Apache-2.0
"""The service's filters and orders, on items that are here already."""

import csv
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cimingclient.sdk import exceptions

Item = dict[str, Any]
_OPERATOR = re.compile("(eq|neq|in|nin|gt|gte|lt|lte):(.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
#: How the names of sizes and times end: what has more and less.
_ORDERED = ("size", "_at")


def select(items: Iterable[Item], query: Mapping[str, Any], default: str) -> list[Item]:
    """Those that meet all conditions, in order, after the marker: as the service would list them.

    :param query: as for the proxy's lists; a condition on what no item has is an error.
    :param default: the order where none is wanted; nothing: as they are.
    :raises: `QueryError` for a query that cannot be understood.
    """
    wanted = {name: value for name, value in query.items() if value is not None}
    order, marker = wanted.pop("sort", None) or default, wanted.pop("marker", None)
    wanted.pop("limit", None)  # how long a page is
    found = list(items)
    for name, value in wanted.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            meets = _condition(name, str(text))
            found = [item for item in found if meets(item)]
    found = _sorted(found, order)
    return found if marker is None else _after(found, str(marker))


def select_matrix(items: Iterable[Item], query: Mapping[str, Any], default: str) -> list[Item]:
    """The same of what is where: conditions on Images, on cells, and on what Images are in some Clouds."""
    wanted = {name: value for name, value in query.items() if value is not None}
    named = ("cloud", "provider", "status")
    of_cells: dict[str, Any] = {name: wanted.pop(name) for name in named if name in wanted}
    properties = [text.partition("=")[::2] for text in _listed(wanted.pop("property", ()))]
    where = [
        (name, status)
        for status in ("available", "missing")
        for name in _listed(wanted.pop(f"{status}_in", ()))
    ]
    by_id = {item["image"]["id"]: item for item in items}
    _check_known(by_id.values(), [name for name, _ in where])
    found = []
    for image in select([item["image"] for item in by_id.values()], wanted, default):
        cells = by_id[image["id"]]["clouds"]
        if all(_is(cells, name, status) for name, status in where):
            left = [cell for cell in select(cells, of_cells, "") if _has(cell, properties)]
            if left or not (properties or "status" in of_cells):
                found.append({**by_id[image["id"]], "clouds": left})
    return found


def clouds_of(cells: Iterable[Item]) -> list[Item]:
    """The Clouds that cells are of, each once."""
    known = {cell["cloud_id"]: cell for cell in cells}
    return [
        {"id": key, "name": cell["cloud"], "provider": cell["provider"], "region": cell["region"]}
        for key, cell in known.items()
    ]


def _listed(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, list | tuple) else [value])]


def _check_known(items: Iterable[Item], names: Iterable[str]) -> None:
    known = {cell[key] for item in items for cell in item["clouds"] for key in ("cloud", "cloud_id")}
    for name in names:
        if name not in known:
            raise exceptions.QueryError(f"No Cloud {name} was among those that were asked.")


def _is(cells: Iterable[Item], name: str, status: str) -> bool:
    """Is that the status in the Cloud of this name or id?"""
    return any(cell["status"] == status for cell in cells if name in (cell["cloud"], cell["cloud_id"]))


def _has(cell: Item, properties: Iterable[tuple[str, str]]) -> bool:
    said = (cell["metadata"] or {}).get("properties") or {}
    return all(said.get(name) == value for name, value in properties)


def _condition(name: str, text: str) -> Callable[[Item], bool]:
    given = _OPERATOR.fullmatch(text)
    how, rest = given.groups() if given else ("eq", text)
    if how in _ORDERS and not name.endswith(_ORDERED):
        raise exceptions.QueryError(f"{name}: {how}: does not go with this. Operators: eq, neq, in, nin.")
    values = _split(rest) if how in ("in", "nin") else [rest]
    if how in _ORDERS:
        compare, bound = _ORDERS[how], _value(name, rest)
        return lambda item: any(compare(each, bound) for each in _values(item, name))
    parsed = {_value(name, value) for value in values}
    if how in ("neq", "nin"):
        return lambda item: not parsed.intersection(_values(item, name))
    return lambda item: bool(parsed.intersection(_values(item, name)))


def _split(text: str) -> list[str]:
    return next(csv.reader([text], escapechar="\\", doublequote=False), [])


def _values(item: Item, name: str) -> list[Any]:
    """What the item has there, as it can be compared; what is not known is nothing."""
    if name == "tag":
        return list(item.get("tags") or ())
    if name == "cloud" and name not in item:  # of an Image, or of a Job
        return [each["cloud"] for each in [*(item.get("links") or ()), *(item.get("targets") or ())]]
    if name not in item or isinstance(item[name], list | dict):
        raise _no_such(name)
    return [] if item[name] is None else [_value(name, item[name])]


def _no_such(name: str) -> exceptions.QueryError:
    return exceptions.QueryError(f"There is no filter or order by {name}.")


def _value(name: str, said: Any) -> Any:
    """Sizes are numbers, times are moments, ids have no capitals, anything else is text."""
    try:
        if name.endswith("size"):
            return int(said)
        if name.endswith("_at"):
            at = datetime.fromisoformat(said)
            return at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, TypeError):
        raise exceptions.QueryError(
            f"{name}: {said!r} is not a {'number' if name.endswith('size') else 'time'}."
        ) from None
    return said.lower() if name in ("id", "image_id", "parent") else said


def _sorted(items: list[Item], order: str) -> list[Item]:
    """What is not known counts as larger than all that is; ids decide in the end."""
    keys = [text.partition(":")[::2] for text in order.split(",") if text]
    for name, direction in [*keys, ("id", keys[-1][1])][::-1] if keys else []:
        if direction not in ("", "asc", "desc"):
            raise exceptions.QueryError(f"sort: {direction!r} is neither asc nor desc.")

        def place(item: Item, name: str = name) -> tuple[Any, ...]:
            if name not in item:  # a filter may have other names
                raise _no_such(name)
            values = _values(item, name)
            return not values, *values

        items = sorted(items, key=place, reverse=direction == "desc")
    return items


def _after(items: list[Item], marker: str) -> list[Item]:
    for number, item in enumerate(items):
        if item.get("id") == marker:
            return items[number + 1 :]
    raise exceptions.QueryError(f"The marker {marker} was not found.")
