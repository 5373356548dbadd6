# SPDX-License-Identifier: Apache-2.0
"""What a Glance says of an image, in the words that all providers have.

https://docs.openstack.org/glance/latest/user/statuses.html
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ciming import answers
from ciming.providers import base

FORMATS = ("qcow2", "raw", "vmdk", "vhd", "vhdx", "vdi", "iso")
MOST_SAID = 1024 * 1024     # bytes that a Glance may say about one image
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
        *("locations", "direct_url", "stores"),
    )
)
THEIRS = ("os_glance_", "ciming_")      # how names begin that belong to one Glance, or to CIMinG


def is_property(name: str) -> bool:
    """Is it one that somebody gave the image?"""
    return name not in OWN and not name.startswith(THEIRS)


def _is_word(value: object) -> bool:
    return answers.is_text(value, 255) and str(value).isprintable()


KINDS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("id", "status", "owner", "disk_format", "container_format"), _is_word),
    **dict.fromkeys(("os_hash_algo", "os_hash_value", "checksum"), _is_word),
    **dict.fromkeys(("visibility", "created_at", "ciming_image"), _is_word),
    "name": lambda value: answers.is_text(value, 255),
    **dict.fromkeys(("size", "virtual_size"), lambda value: answers.is_whole(value, 2**63 - 1)),
    **dict.fromkeys(("min_disk", "min_ram"), lambda value: answers.is_whole(value, 2**31 - 1)),
    "tags": lambda value: isinstance(value, list) and all(answers.is_text(tag, 255) for tag in value),
    **dict.fromkeys(("protected", "os_hidden"), lambda value: isinstance(value, bool)),
}
"""What a Glance says of an image, as far as we use it."""

_WAYS_OUT = {
    "deactivated": "its data can be read again once its operator has reactivated it",
    "queued": "its data was not uploaded yet",
    "saving": "its data is on its way, try again later",
    "importing": "its data is on its way, try again later",
}
# What the guest is and needs, which is so in every cloud. Not who owns it, where it lies or how it was signed
# (that would not hold after a conversion), nor what a service noted.
_ELSEWHERE = re.compile(r"architecture|hypervisor_type|vm_mode|hw_\w+|os_(?!hash_|hidden$|glance_)\w+")


def record(found: Any) -> Mapping[str, Any]:
    """What a Glance says of an image, with all that we use of it.

    :raises ValueError: it can be none; what it is
    """
    said = isinstance(found, dict) and {**dict.fromkeys(KINDS), **found}
    if not (said and said["id"] and said["status"] and answers.fits(said, KINDS)):
        raise ValueError("an image")
    if len(json.dumps(said)) > MOST_SAID:
        raise ValueError(f"an image of which it says more than {MOST_SAID} bytes")
    return said


def is_pending(image: Mapping[str, Any]) -> bool:
    return STATES.get(image["status"]) == "pending"


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
            name: str(value)
            for name, value in image.items()
            if value is not None and is_property(name)
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
    if "hidden" in found:
        found["os_hidden"] = found.pop("hidden")
    return found


def described(image: Mapping[str, Any], region: str) -> base.Description:
    return base.Description(
        image_ref=str(image["id"]),
        name=str(image.get("name") or ""),
        size=image.get("size"),
        disk_format=image.get("disk_format"),
        digests=digests(image),
        properties={
            name: str(value)
            for name, value in image.items()
            if _ELSEWHERE.fullmatch(name) and value is not None
        },
        min_disk=int(image.get("min_disk") or 0),
        min_ram=int(image.get("min_ram") or 0),
        tags=tuple(image.get("tags") or ()),
        unreadable=_unreadable(image, region),
        protected=bool(image.get("protected")),
    )


def _unreadable(image: Mapping[str, Any], region: str) -> str | None:
    which, container = f"Image {image['id']} in {region}", image.get("container_format")
    status = image["status"]
    if status != "active":
        return f"{which} is {status}: {_WAYS_OUT.get(status, 'only an active image has data')}."
    if image["disk_format"] not in FORMATS:
        return f"{which} is of the format {image['disk_format']}, which CIMinG does not know."
    if container not in (None, "bare"):
        return f"{which} is in a container ({container}), not bare."
    return None
