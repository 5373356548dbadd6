# SPDX-License-Identifier: Apache-2.0
"""Is what a Cloud says of an image what CIMinG knows of it?"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ciming import rpc
from ciming.db import models

STATUSES = ("available", "pending", "missing", "drifted", "forbidden", "unreachable")
KINDS = (
    *("replaced", "status", "hash", "size", "name", "hidden", "deprecated"),
    *("visibility", "min_disk", "min_ram", "tags", "properties"),
)
"""What can differ."""
SLACK_MS = 300_000      # by which a Cloud's clock may be ahead


class Difference(NamedTuple):
    """`what` it is, what CIMinG knows, and what the Cloud says."""

    what: str
    expected: str | None
    found: str | None


def judge(
    image: models.Image, link: models.Link, seen: Mapping[str, Any]
) -> tuple[str, list[Difference]]:
    """The status of an image in a Cloud, and what differs.

    :param seen: what the Cloud says, as ciming.engine.looks has it
    """
    if seen["state"] == "pending":
        return "pending", []
    found = _differences(image, link, seen)
    differs = [Difference(what, _text(mine), _text(its)) for what, mine, its in found]
    return ("drifted" if differs else "available"), differs


def successors(link: models.Link, namesakes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that may have come in place of what is linked: what was there before has replaced nothing."""
    since = link.verified_at - SLACK_MS
    return [each for each in namesakes if each["created_at"] is None or each["created_at"] >= since]


def replaced(link: models.Link, namesake: Mapping[str, Any]) -> Difference:
    """The linked image is gone, and another one of its name is there."""
    return Difference("replaced", link.image_ref, namesake["image_ref"])


def _differences(
    image: models.Image, link: models.Link, seen: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    if (seen["created_at"] or 0) > link.verified_at + SLACK_MS:
        yield "replaced", f"created before {_time(link.verified_at)}", f"created {_time(seen['created_at'])}"
    if seen["state"] == "off":
        yield "status", None, seen["status"]
    yield from _bytes(image, link, seen)
    told = link.told or {}
    names = {_printable(name) for name in (image.name, told.get("name")) if name}
    if told.get("name") and _printable(seen["name"]) not in names:
        yield "name", told["name"], seen["name"]
    for flag in ("hidden", "deprecated"):
        told_so, is_so = bool(told.get(flag)), seen[flag]
        if is_so not in (None, told_so):
            yield flag, told_so, is_so
    for what in ("visibility", "min_disk", "min_ram"):
        mine, its = told.get(what), seen[what]
        if None not in (mine, its) and mine != its:
            yield what, mine, its
    yield from _notes(told, seen)


def _notes(told: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What is not any more as it was said; what came to it is nobody's business."""
    if len(seen["tags"]) < rpc.MOST_TAGS:
        for tag in told.get("tags", ()):
            if tag not in seen["tags"]:
                yield "tags", tag, None
    whole = len(seen["properties"]) < rpc.MOST_PROPERTIES
    for name, value in told.get("properties", {}).items():
        its = seen["properties"].get(name[: rpc.LONGEST])
        if its != value[: rpc.LONGEST] and (whole or its is not None):
            yield "properties", f"{name}={value}", None if its is None else f"{name}={its}"


def _bytes(
    image: models.Image, link: models.Link, seen: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """As far as the Link's proof goes: what was converted for a Cloud is another file there."""
    known = {name: digest for name, digest in image.digests.items() if digest}
    said = seen["digests"]
    if link.proof == "bytes":
        for name in sorted(known.keys() & (said or {}).keys()):
            if known[name] != said[name]:
                yield "hash", f"{name}:{known[name]}", f"{name}:{said[name]}"
        if None not in (image.size, seen["size"]) and image.size != seen["size"]:
            yield "size", image.size, seen["size"]
    if link.proof == "guest":
        has = (said or {}).get("guest")
        if known.get("guest") and (has or said == {}) and has != known["guest"]:
            yield "hash", f"guest:{known['guest']}", f"guest:{has}" if has else None
        if (seen["virtual_size"] or 0) < (image.virtual_size or 0) and seen["virtual_size"]:
            yield "size", image.virtual_size, seen["virtual_size"]


def _printable(name: str) -> str:
    """As some Clouds have it."""
    return "".join(filter(str.isprintable, name))


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
