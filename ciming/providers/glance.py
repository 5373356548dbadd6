# SPDX-License-Identifier: Apache-2.0
"""What a Glance says of an image, in the words that all providers have.

https://docs.openstack.org/glance/latest/user/statuses.html
"""

from collections.abc import Mapping
from typing import Any

from ciming.providers import base

STATES: Mapping[str, base.State] = {
    "active": "ready",
    **dict.fromkeys(("queued", "saving", "uploading", "importing"), "pending"),
}
"""By status; all others are off."""
OWN = frozenset(
    (
        *("id", "name", "status", "size", "virtual_size", "disk_format", "container_format", "checksum"),
        *("os_hash_algo", "os_hash_value", "min_disk", "min_ram", "visibility", "owner", "tags"),
        *("os_hidden", "protected", "created_at", "updated_at", "self", "file", "schema"),
        *("locations", "direct_url", "stores", "ciming_image", "ciming_target", "ciming_project"),
    )
)
"""What is no property that somebody gave the image."""


def metadata(image: Mapping[str, Any]) -> base.Metadata:
    """:param image: as the API shows it, of the kinds that it should be"""
    return base.Metadata(
        image_ref=image["id"],
        name=image.get("name") or "",
        status=image["status"],
        state=STATES.get(image["status"], "off"),
        digests=digests(image),
        tags=tuple(image.get("tags") or ()),
        properties={
            name: str(value) for name, value in image.items() if name not in OWN and value is not None
        },
        hidden=image.get("os_hidden"),
        image_id=image.get("ciming_image"),
        created_at=base.milliseconds(image.get("created_at")),
        **{name: image.get(name) for name in ALIKE},
    )


ALIKE = (
    *("size", "virtual_size", "disk_format", "container_format", "min_disk", "min_ram"),
    *("visibility", "owner", "protected"),
)


def digests(image: Mapping[str, Any]) -> dict[str, str]:
    """Of its file, by hashlib's names; before Rocky there was only one."""
    if image.get("os_hash_value"):
        return {str(image["os_hash_algo"]): str(image["os_hash_value"])}
    return {"md5": str(image["checksum"])} if image.get("checksum") else {}


def query(filters: Mapping[str, str]) -> dict[str, str]:
    """Filters of list() as Glance has them: what begins with an operator is to be no operator."""
    found = dict(filters)
    if "name" in found:
        found["name"] = f"eq:{found['name']}"
    if "status" in found:
        found["status"] = f"eq:{found['status'].lower()}"
    if "digest" in found:
        found["os_hash_value"] = found.pop("digest")
    return found
