# SPDX-License-Identifier: Apache-2.0
"""What Glance calls things, and what Google calls them: one table for both directions, and for the docs.

Glance: https://docs.openstack.org/glance/latest/admin/useful-image-properties.html, Google:
https://cloud.google.com/compute/docs/images/create-custom#guest-os-features,
https://cloud.google.com/compute/docs/labeling-resources#requirements
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ciming import exceptions
from ciming.providers import base


class Property(NamedTuple):
    """A property of Glance, and the field of an image that says the same; of features, that it has one."""

    glance: str
    google: str
    values: Mapping[str, str]
    """Google's value by Glance's; of several with the same one, the first is what it becomes in Glance."""


PROPERTIES = (
    Property("architecture", "architecture", {
        "x86_64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64", "amd64": "X86_64",
    }),
    Property("hw_firmware_type", "guest_os_features", {"uefi": "UEFI_COMPATIBLE"}),
    Property("hw_scsi_model", "guest_os_features", {"virtio-scsi": "VIRTIO_SCSI_MULTIQUEUE"}),
    Property("hw_mem_encryption", "guest_os_features", {"true": "SEV_CAPABLE", "True": "SEV_CAPABLE"}),
    Property("description", "description", {}),
)  # fmt: skip
"""The table; without values, any text is the same in both."""
UNSAID = {("hw_firmware_type", "bios")}     # what Google takes for granted where nothing is said
AS_LABELS = re.compile(r"os_(?!hash_|hidden$|glance_|secure_boot$|require_quiesce$|admin_user$)\w+")
"""Properties that become labels, and such labels properties: what the guest is."""
ARM64_FEATURES = ("GVNIC", "UEFI_COMPATIBLE")   # without which no machine of that kind boots it

LONGEST_TEXT = 2048     # of a description
LABEL_KEY, LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
MOST_LABELS = 64
OURS = "ciming-"


def fields(spec: base.ImageSpec, features: Sequence[str], cloud: str) -> dict[str, Any]:
    """What images.insert is to be told of the machine.

    :param features: names of guest OS features that are wanted besides
    :raises ProviderError: no machine of Google's is of the image's architecture
    """
    found: dict[str, Any] = {"description": description(spec)}
    wanted = list(features)
    for row in PROPERTIES:
        value = spec.properties.get(row.glance)
        told = row.values.get(str(value)) or row.values.get(str(value).lower())
        if row.google == "guest_os_features" and told:
            wanted.append(told)
        elif row.values and told:
            found[row.google] = told
    said = spec.properties.get("architecture")
    if said and "architecture" not in found:
        raise exceptions.ProviderError(
            f"{cloud} has no machines of the architecture {said[:100]!r}. Create the image with --property "
            f"architecture=VALUE, which may be {', '.join(PROPERTIES[0].values)}.",
            code="image.architecture_unknown",
        )
    if found.get("architecture") == "ARM64":
        wanted += ARM64_FEATURES
    if wanted:
        found["guest_os_features"] = [{"type_": each} for each in dict.fromkeys(wanted)]
    return found


def description(spec: base.ImageSpec) -> str:
    """Its name, which Google's own can not be, on the first line; below, what a person said of it."""
    text = "\n".join(filter(None, [_printable(spec.name), spec.properties.get("description")]))
    return text[:LONGEST_TEXT]


def _printable(text: str) -> str:
    return "".join(filter(str.isprintable, text))


def name(image: Mapping[str, Any]) -> str:
    """What a person calls it."""
    ours = f"{OURS}image" in image.get("labels", {})
    first = str(image.get("description", "")).partition("\n")[0]
    return first if ours and first else str(image.get("name", ""))


def renamed(image: Mapping[str, Any], wanted: str) -> str | None:
    """The description of an image with another name in it; None: it is not ours, and has none in it."""
    if f"{OURS}image" not in image.get("labels", {}):
        return None
    rest = str(image.get("description", "")).partition("\n")[2]
    return "\n".join(filter(None, [_printable(wanted), rest]))[:LONGEST_TEXT]


def labels(spec: base.ImageSpec, more: Mapping[str, str]) -> dict[str, str]:
    """Labels: what the guest is, Glance's tags, and more that come first."""
    found = dict(more)
    said = {name: value for name, value in spec.properties.items() if AS_LABELS.fullmatch(name)}
    for each, value in {**said, **dict.fromkeys(spec.tags, "")}.items():
        if fits(each, value) and len(found) < MOST_LABELS:
            found.setdefault(each, value)
    return found


def fits(key: str, value: str = "") -> bool:
    """Can an image have this label, and is it not ours?"""
    return bool(LABEL_KEY.fullmatch(key) and LABEL_VALUE.fullmatch(value) and not key.startswith(OURS))


def lost(spec: base.ImageSpec, more: Mapping[str, str]) -> Iterator[str]:
    """What Google can not be told, in words."""
    known: dict[str, set[str]] = {}
    for row in PROPERTIES:
        known.setdefault(row.glance, set()).update(row.values)
    for each, value in spec.properties.items():
        if each in known:
            same = {value, value.lower()} & known[each] or (each, value.lower()) in UNSAID
            if known[each] and not same:
                yield f"Property {each}={value[:100]} has no counterpart in Google Cloud."
        elif not AS_LABELS.fullmatch(each):
            yield f"Property {each[:100]} has no counterpart in Google Cloud."
    there = labels(spec, more)
    for each in (*filter(AS_LABELS.fullmatch, spec.properties), *spec.tags):
        if each not in there:
            yield f"{each[:100]} could not become a label in Google Cloud."
    if spec.min_ram:
        yield "Google Cloud knows no least memory of an image (min_ram)."
    if spec.visibility not in (None, "private"):
        yield f"Who may use it ({spec.visibility}) is for the Cloud's share_with to say."


def properties(image: Mapping[str, Any]) -> dict[str, str]:
    """What Google says of an image, as properties of Glance."""
    found = {each: value for each, value in image.get("labels", {}).items() if value}
    found = {each: value for each, value in found.items() if AS_LABELS.fullmatch(each)}
    has = {str(each.get("type_")) for each in image.get("guest_os_features", ())}
    has.add(str(image.get("architecture")))
    for row in PROPERTIES:
        there = [theirs for theirs, ours in row.values.items() if ours in has]
        found |= {row.glance: there[0]} if there else {}
    text = str(image.get("description", ""))
    if f"{OURS}image" in image.get("labels", {}):
        text = text.partition("\n")[2]
    return {**found, "description": text} if text else found


def glance_tags(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Tags of Glance have no value."""
    found = image.get("labels", {}).items()
    return tuple(each for each, value in found if not value and not each.startswith(OURS))
