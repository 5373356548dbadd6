# SPDX-License-Identifier: Apache-2.0
"""What an image may be: https://cloud.google.com/compute/docs/reference/rest/v1/images/insert.

- Names and families: https://cloud.google.com/compute/docs/naming-resources
- Labels: https://cloud.google.com/compute/docs/labeling-resources#requirements
- Features: https://cloud.google.com/compute/docs/images/create-custom#guest-os-features, those that Google's
  client knows
- Where it is stored, one place:
  https://cloud.google.com/compute/docs/images/create-custom#selecting_image_storage_location
- Its key: https://cloud.google.com/compute/docs/disks/customer-managed-encryption
- Its archive is in Cloud Storage, in a file whose name ends in .tar.gz:
  https://cloud.google.com/sdk/gcloud/reference/compute/images/create
- A requestId is a UUID, and not zero: the first page.
"""

import datetime
import re
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from google.cloud import compute_v1

from tests.sandbox.gcp import buckets, errors

NAME = re.compile(r"(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
LABELS = 64
DESCRIPTION = 2048
SOURCES = ("raw_disk", "source_disk", "source_image", "source_snapshot")
KMS = re.compile(
    r"projects/[a-z][-a-z0-9]{4,28}[a-z0-9]/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]{1,63}"
    r"/cryptoKeys/[A-Za-z0-9_-]{1,63}(?:/cryptoKeyVersions/[1-9][0-9]*)?"
)
LICENSE = re.compile(
    r"(?:https://www\.googleapis\.com/compute/v1/)?projects/[a-z0-9-]+/global/licenses/[a-z0-9-]+"
)
LOCATIONS = frozenset(one.lower() for one in buckets.REGIONS + buckets.MULTI_REGIONS)
ARCHITECTURES = ("ARM64", "X86_64")
NO_FEATURES = frozenset({"UNDEFINED_TYPE", "FEATURE_TYPE_UNSPECIFIED"})
FEATURES = frozenset(one.name for one in compute_v1.GuestOsFeature.Type) - NO_FEATURES | {
    "SUSPEND_RESUME_COMPATIBLE"
}
OF_THE_SERVICE = (
    "archive_size_bytes", "creation_timestamp", "deprecated", "enable_confidential_compute", "id",
    "kind", "label_fingerprint", "satisfies_pzi", "satisfies_pzs", "self_link", "source_disk_id",
    "source_image_id", "source_snapshot_id", "source_type", "status", "user_licenses",
)  # fmt: skip
"""What only the service sets: said by a client, it is ignored."""
NOT_DONE = (
    "license_codes", "params", "shielded_instance_initial_state", "source_disk_encryption_key",
    "source_image_encryption_key", "source_snapshot_encryption_key",
)  # fmt: skip


CHANGEABLE = ("description", "family", "deprecated")
"""What of an image that is there may be said anew."""


class Place(NamedTuple):
    """Where an archive is."""

    bucket: str
    name: str


def check_image(image: compute_v1.Image) -> Place:
    """Return where the archive of a new image is; Refused if there can be no such image."""
    for one in OF_THE_SERVICE:
        if one in compute_v1.Image.meta.fields:
            compute_v1.Image.pb(image).ClearField(one)
    for one in NOT_DONE:
        if getattr(image, one):
            raise errors.not_done(f"An image with {one}")
    _check_name("resource.name", image.name)
    if image.family:
        _check_name("resource.family", image.family)
    _check_description(image.description)
    check_labels(image.labels)
    if image.architecture and image.architecture not in ARCHITECTURES:
        raise errors.field("resource.architecture", image.architecture, "It is not an architecture.")
    for index, feature in enumerate(image.guest_os_features):
        if feature.type_ not in FEATURES:
            raise errors.field(
                f"resource.guestOsFeatures[{index}].type", feature.type_, "It is not a feature."
            )
    if len({feature.type_ for feature in image.guest_os_features}) < len(image.guest_os_features):
        raise errors.field("resource.guestOsFeatures", "", "A feature is there twice.")
    if len(image.storage_locations) > 1 or not LOCATIONS.issuperset(image.storage_locations):
        places = ", ".join(image.storage_locations)
        raise errors.field("resource.storageLocations", places, "Must be one region or multi-region.")
    for index, license in enumerate(image.licenses):
        if not LICENSE.fullmatch(license):
            raise errors.field(f"resource.licenses[{index}]", license, "The URL is malformed.")
    _check_key(image.image_encryption_key)
    if sum(1 for one in SOURCES if one in image) != 1:
        raise errors.invalid("Invalid resource usage: 'Must specify exactly one source for an image.'")
    if "raw_disk" not in image:
        raise errors.not_done("An image of anything but an archive")
    return _place(image.raw_disk)


def check_patch(said: Mapping[str, object]) -> None:
    """Refused if something of an image is to be changed that can not be."""
    for name in sorted(said.keys() - set(CHANGEABLE)):
        raise errors.field(f"resource.{name}", said[name], "It can not be changed.")
    if "family" in said:
        _check_name("resource.family", str(said["family"]))
    _check_description(str(said.get("description", "")))


def _check_description(text: str) -> None:
    if len(text) > DESCRIPTION:
        raise errors.field("resource.description", text, f"Must be at most {DESCRIPTION} characters.")


def check_labels(labels: Mapping[str, str]) -> None:
    """Refused if something can not have these labels."""
    if len(labels) > LABELS:
        raise errors.field("resource.labels", "", f"There may be at most {LABELS} labels.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise errors.field("resource.labels", "", f"Label key '{key}' violates format constraints.")
        if not LABEL_VALUE.fullmatch(value):
            raise errors.field("resource.labels", "", f"Label value '{value}' violates format constraints.")


def check_deprecation(status: compute_v1.DeprecationStatus) -> None:
    """Refused if an image can not be deprecated so."""
    states = {one.name for one in compute_v1.DeprecationStatus.State} - {"UNDEFINED_STATE"}
    if status.state and status.state not in states:
        raise errors.field("resource.state", status.state, "It is not a state.")
    for name in ("deprecated", "obsolete", "deleted"):
        if time := getattr(status, name):
            try:
                if datetime.datetime.fromisoformat(time).tzinfo is None:
                    raise ValueError(time)
            except ValueError:
                raise errors.field(f"resource.{name}", time, "It is not a time as RFC 3339 has it.") from None
    if status.replacement and "/global/images/" not in status.replacement:
        raise errors.field("resource.replacement", status.replacement, "The URL is malformed.")


def check_request_id(text: str) -> None:
    """Refused if it is none."""
    try:
        good = str(uuid.UUID(text)) == text.lower() and uuid.UUID(text).int
    except ValueError:
        good = False
    if not good:
        raise errors.field("requestId", text, "Must be a valid UUID that is not zero.")


def _check_name(field: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise errors.field(field, name, f"Must be a match of regex '{NAME.pattern}'")


def _check_key(key: compute_v1.CustomerEncryptionKey) -> None:
    if key.raw_key or key.rsa_encrypted_key or key.sha256 or key.kms_key_service_account:
        raise errors.not_done("A key that is not Cloud KMS's own")
    if key.kms_key_name and not KMS.fullmatch(key.kms_key_name):
        raise errors.field(
            "resource.imageEncryptionKey.kmsKeyName", key.kms_key_name, "It is not a key's name."
        )


def _place(disk: compute_v1.RawDisk) -> Place:
    if disk.container_type not in ("", "TAR"):
        raise errors.field("resource.rawDisk.containerType", disk.container_type, "Must be TAR.")
    if disk.sha1_checksum:
        raise errors.not_done("A checksum by SHA-1")
    parts = urllib.parse.urlsplit(disk.source)
    bucket, _, name = parts.path[1:].partition("/")
    if parts.scheme != "https" or parts.netloc != "storage.googleapis.com" or parts.query or parts.fragment:
        raise errors.field("resource.rawDisk.source", disk.source, "The URL is malformed.")
    if not bucket or not name.endswith(".tar.gz"):
        why = "The provided source is not a supported file."
        raise errors.field("resource.rawDisk.source", disk.source, why)
    return Place(bucket, urllib.parse.unquote(name))
