# SPDX-License-Identifier: Apache-2.0
"""Glance's words for what a sync of zones compares and carries."""

from collections.abc import Mapping, Sequence
from typing import Any

from ciming.providers import base
from ciming.providers.openstack import records

NAMES = {
    "name": "name",
    "visibility": "visibility",
    "tags": "tags",
    "protected": "protected",
    "hidden": "os_hidden",
    "min_disk": "min_disk",
    "min_ram": "min_ram",
}
"""Ours, and Glance's."""


def surveyed(image: Mapping[str, Any], described: base.Description) -> base.Surveyed:
    """What Glance says of an image, for who compares zones."""
    digest = next(iter(described.digests.items()), None)
    return base.Surveyed(
        image_ref=described.image_ref,
        name=described.name,
        owner=str(image.get("owner") or ""),
        status=str(image["status"]),
        size=described.size,
        digest=":".join(digest) if digest else None,
        md5=str(image["checksum"]) if image.get("checksum") else None,
        created_at=str(image.get("created_at") or ""),
        visibility=str(image.get("visibility") or "private"),
        tags=tuple(sorted(described.tags)),
        protected=described.protected,
        hidden=bool(image.get("os_hidden")),
        min_disk=described.min_disk,
        min_ram=described.min_ram,
        properties=_properties(image),
        mark=image.get("ciming_image"),
        unreadable=described.unreadable,
    )


def _properties(image: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value
        for name, value in image.items()
        if isinstance(value, str) and records.is_property(name)
    }


def patch(image: Mapping[str, Any], carry: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """The JSON patch by which an image becomes as wanted."""
    changes = [
        {"op": "replace", "path": f"/{theirs}", "value": carry[ours]}
        for ours, theirs in NAMES.items()
        if ours in carry and _differs(image, theirs, carry[ours])
    ]
    there = _properties(image)
    for name, value in carry.get("properties", {}).items():
        path = f"/{name.replace('~', '~0').replace('/', '~1')}"
        if value is None and name in there:
            changes.append({"op": "remove", "path": path})
        elif value is not None and there.get(name) != value:
            changes.append({"op": "replace" if name in there else "add", "path": path, "value": value})
    return changes


def _differs(image: Mapping[str, Any], name: str, value: Any) -> bool:
    now = image.get(name)
    return set(now or ()) != set(value) if name == "tags" else now != value
