# SPDX-License-Identifier: Apache-2.0
"""What Glance calls things, and what AWS calls them: one table for both directions, and for the docs.

Glance: https://docs.openstack.org/glance/latest/admin/useful-image-properties.html, AWS:
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html and
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-boot.html; who needs UEFI:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-boot-mode.html,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/enable-nitrotpm-prerequisites.html
"""

import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ciming import exceptions
from ciming.providers import base


class Property(NamedTuple):
    """A property of Glance, and the parameter of RegisterImage that says the same."""

    glance: str
    aws: str
    values: Mapping[str, str]
    """AWS's value by Glance's; of several with the same one, the first is what it becomes in Glance."""


PROPERTIES = (
    Property("architecture", "Architecture", {
        "x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64", "amd64": "x86_64", "i686": "i386",
        "i386": "i386",
    }),
    Property("hw_firmware_type", "BootMode", {"uefi": "uefi", "bios": "legacy-bios"}),
    Property("hw_tpm_version", "TpmSupport", {"2.0": "v2.0"}),
    Property("description", "Description", {}),
)  # fmt: skip
"""The table; without values, any text is the same in both."""
AS_TAGS = re.compile(r"os_(?!hash_|hidden$|glance_|secure_boot$|require_quiesce$|admin_user$)\w+")
"""Properties that become tags, and such tags properties: what the guest is."""
BOOT_MODES = {"x86_64": "uefi-preferred", "arm64": "uefi"}
"""By architecture, what an image boots by that does not say it; others: as AWS thinks."""
PLAIN = "Linux/UNIX"
"""AWS's platform of an image that is made of a snapshot: nothing tells it of another one's licence.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/billing-info-fields.html"""
LICENSED: Mapping[tuple[str, str], str] = {
    ("os_type", "windows"): "Windows",
    ("os_distro", "windows"): "Windows",
    ("os_distro", "rhel"): "Red Hat Enterprise Linux",
    ("os_distro", "sles"): "SUSE Linux",
}
"""Such platforms, by what a property of Glance says."""

NAME = r"[^A-Za-z0-9()\[\] ./\-'@_]"
LONGEST_NAME = 128
LONGEST_TEXT = 255      # of a description
LONGEST_KEY, LONGEST_VALUE = 127, 255       # of a tag, as EBS direct has it
MOST_TAGS = 50
OURS = "ciming:"
SOON = 120      # seconds until an image is deprecated: more than AWS's clock may differ, and than it rounds


def parameters(spec: base.ImageSpec, cloud: str) -> dict[str, Any]:
    """What RegisterImage is to be told of the machine.

    :raises ProviderError: it can not be told for what machines the image is
    """
    found = {}
    for row in PROPERTIES:
        value = spec.properties.get(row.glance)
        if value is not None and (told := _there(row, value)):
            found[row.aws] = told
    if "Architecture" not in found:
        known, said = ", ".join(PROPERTIES[0].values), spec.properties.get("architecture")
        raise exceptions.ProviderError(
            f"{cloud} has to be told for which machines the image is, and "
            f"{f'does not know the architecture {said!r}' if said else 'nothing says it'}. Create it with "
            f"--property architecture=VALUE, which may be {known}.",
            code="image.architecture_unknown",
        )
    machine, trusted = found["Architecture"], "TpmSupport" in found
    if "BootMode" not in found and machine in BOOT_MODES:
        found["BootMode"] = "uefi" if trusted else BOOT_MODES[machine]
    if found.get("BootMode") == "legacy-bios" and (trusted or machine == "arm64"):
        raise exceptions.ProviderError(
            f"In {cloud} {'a TPM (hw_tpm_version)' if trusted else 'a machine of ARM'} needs UEFI, but "
            "hw_firmware_type is bios. Create it with --property hw_firmware_type=uefi, if it boots by that.",
            code="image.firmware_unfit",
        )
    return found


def _there(row: Property, value: str) -> str | None:
    if row.values:
        return row.values.get(value.lower())
    text = "".join(each for each in value if each.isascii() and each.isprintable())     # EC2 takes no more
    return text[:LONGEST_TEXT] or None


def beside(spec: base.ImageSpec, image: Mapping[str, Any], its_tags: Mapping[str, str]) -> base.ImageSpec:
    """The same with what AWS says of an image, where nothing else is said."""
    return dataclasses.replace(
        spec,
        properties={**properties(image, its_tags), **spec.properties},
        tags=tuple(dict.fromkeys([*spec.tags, *glance_tags(its_tags)])),
    )


def tags(spec: base.ImageSpec, more: Mapping[str, str]) -> dict[str, str]:
    """Tags for the image and its snapshot: Glance's, what the guest is, and more that come first."""
    found = dict(more)
    said = {name: value for name, value in spec.properties.items() if AS_TAGS.fullmatch(name)}
    for name, value in {**said, **dict.fromkeys(spec.tags, "")}.items():
        if fits(name, value) and len(found) < MOST_TAGS:
            found.setdefault(name, value)
    return found


def fits(name: str, value: str = "") -> bool:
    """Can an image have this tag, and is it not ours or AWS's?"""
    reserved = name.lower().startswith(("aws:", OURS))
    return 1 <= len(name) <= LONGEST_KEY and len(value) <= LONGEST_VALUE and not reserved


def name(wanted: str, suffix: str = "") -> str:
    """A name that AWS takes, as near to what is wanted as can be."""
    fitting = re.sub(NAME, "-", wanted)[: LONGEST_NAME - len(suffix)] + suffix
    return fitting.ljust(3, "-")


def lost(spec: base.ImageSpec, more: Mapping[str, str], platform: str = PLAIN) -> Iterator[str]:
    """What AWS can not be told, in words.

    :param platform: as AWS has it of the image
    """
    by_name = {row.glance: row for row in PROPERTIES}
    for each, value in spec.properties.items():
        if each in by_name:
            there, row = _there(by_name[each], value), by_name[each]
            if there is None:
                yield f"Property {each}={value[:100]} has no counterpart in AWS."
            elif not row.values and there != value:
                yield f"Its {each} in AWS has {len(there)} of its {len(value)} characters."
        elif not AS_TAGS.fullmatch(each):
            yield f"Property {each} has no counterpart in AWS."
    tagged = tags(spec, more)
    for each in (*filter(AS_TAGS.fullmatch, spec.properties), *spec.tags):
        if tagged.get(each) != spec.properties.get(each, ""):
            yield f"{each[:100]} could not become a tag in AWS."
    if name(spec.name) != spec.name:
        yield f"Its name in AWS is {name(spec.name)}: not every character may be in one."
    said = {(each, value.lower()) for each, value in spec.properties.items()}
    licensed = [what for pair, what in LICENSED.items() if pair in said]
    if licensed and platform == PLAIN:
        yield (
            f"To AWS it is one of {PLAIN}, not {licensed[0]}: AWS neither bills a licence of that nor gives "
            "one, with the updates that come with it, to its instances."
        )
    if spec.min_ram:
        yield "AWS knows no least memory of an image (min_ram)."
    if spec.visibility not in (None, "private"):
        yield f"Who may use it ({spec.visibility}) is for the Cloud's share_with to say."


def properties(image: Mapping[str, Any], its_tags: Mapping[str, str]) -> dict[str, str]:
    """What AWS says of an image, as properties of Glance."""
    found = {each: value for each, value in its_tags.items() if value and AS_TAGS.fullmatch(each)}
    for row in PROPERTIES:
        value = image.get(row.aws)
        if value and row.values:
            there = [theirs for theirs, ours in row.values.items() if ours == value]
            found |= {row.glance: there[0]} if there else {}
        elif value:
            found[row.glance] = str(value)
    return found


def glance_tags(its_tags: Mapping[str, str]) -> tuple[str, ...]:
    """Tags of Glance have no value."""
    return tuple(
        each for each, value in its_tags.items() if not value and not each.lower().startswith(("aws:", OURS))
    )


STATES: Mapping[str, base.State] = {
    **dict.fromkeys(("available", "completed"), "ready"),
    **dict.fromkeys(("pending", "transient"), "pending"),
}
"""Of images and snapshots; in all others they are off."""


def seen(described: Mapping[str, Any], its_tags: Mapping[str, str]) -> base.Metadata:
    """What AWS says of an image or a snapshot, in the words that all providers have."""
    return base.Metadata(
        image_ref=str(described.get("ImageId") or described["SnapshotId"]),
        name=its_tags.get("Name") or str(described.get("Name") or described.get("Description", "")),
        status=described["State"],
        state=STATES.get(described["State"], "off"),
        virtual_size=_size(described),
        visibility={True: "public", False: "private"}.get(described.get("Public")),     # type: ignore[arg-type]
        owner=described.get("OwnerId"),
        tags=glance_tags(its_tags),
        properties=properties(described, its_tags),
        deprecated=is_over(described.get("DeprecationTime")) if "ImageId" in described else None,
        protected=str(described.get("DeregistrationProtection")).startswith("enabled")
        if "ImageId" in described
        else None,
        image_id=its_tags.get(f"{OURS}image"),
        created_at=base.milliseconds(described.get("CreationDate")),
    )


def _size(described: Mapping[str, Any]) -> int | None:
    """Bytes of the disk of a snapshot, or of an image's root device."""
    volumes = {
        device["DeviceName"]: device["Ebs"].get("VolumeSize")
        for device in described.get("BlockDeviceMappings", ())
        if "Ebs" in device
    }
    root = volumes.get(described.get("RootDeviceName"), next(iter(volumes.values()), None))
    size = described.get("VolumeSize", root)
    return None if size is None else size << 30


def is_over(moment: str | None) -> bool:
    """Or as near as one that we name?"""
    ends = base.milliseconds(moment)
    return ends is not None and ends <= (time.time() + 2 * SOON) * 1000
