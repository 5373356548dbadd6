# SPDX-License-Identifier: Apache-2.0
"""Google Cloud: one project, and the bucket through which images come into it."""

import re
from typing import Any, ClassVar

import marshmallow as ma
from marshmallow import fields, validate

from ciming import configs
from ciming.configs import kinds

# https://cloud.google.com/resource-manager/docs/creating-managing-projects
PROJECT = r"(?:[a-z0-9.-]{1,60}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"
# https://cloud.google.com/storage/docs/buckets#naming
BUCKET = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
LOCATION = r"[a-z]{2,20}(?:-[a-z]{2,20}\d{1,2})?"
FAMILY = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
KMS_KEY = (
    r"projects/[a-z0-9.:-]{1,91}/locations/[a-z0-9-]{1,63}/keyRings/[\w-]{1,63}/cryptoKeys/[\w-]{1,63}"
    r"(?:/cryptoKeyVersions/\d{1,9})?"
)
MEMBER = r"(?:user|group|serviceAccount):[^\s@:]{1,200}@[a-z0-9.-]{1,200}|domain:[a-z0-9.-]{1,200}"
# https://cloud.google.com/compute/docs/reference/rest/v1/images (guestOsFeatures[].type)
FEATURES = (
    *("BARE_METAL_LINUX_COMPATIBLE", "GVNIC", "IDPF", "MULTI_IP_SUBNET", "SECURE_BOOT", "SEV_CAPABLE"),
    *("SEV_LIVE_MIGRATABLE", "SEV_LIVE_MIGRATABLE_V2", "SEV_SNP_CAPABLE", "SNP_SVSM_CAPABLE"),
    *("TDX_CAPABLE", "UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE", "WINDOWS"),
)
# https://cloud.google.com/compute/docs/images/deprecate-custom#deprecation-states
DEPRECATED = ("DEPRECATED", "OBSOLETE")
MOST_LABELS = 40        # of the 64 that Google allows: some are ours


def _pattern(pattern: str, error: str) -> validate.Regexp:
    return validate.Regexp(rf"(?:{pattern})\Z", flags=re.ASCII, error=error)


def _label(text: str) -> None:
    """https://cloud.google.com/compute/docs/labeling-resources#requirements"""
    key, is_pair, value = text.partition("=")
    fits = re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) and re.fullmatch(r"[a-z0-9_-]{0,63}", value)
    if not (is_pair and fits):
        raise ma.ValidationError("Write it as KEY=VALUE, of at most 63 characters a-z, 0-9, _ and - each.")
    if key.startswith("ciming-"):
        raise ma.ValidationError("Labels that begin with ciming- are reserved.")


def _keys_differ(labels: list[str]) -> None:
    kinds.different([text.partition("=")[0] for text in labels])


class _Format(ma.Schema):
    type = fields.String(required=True, validate=validate.OneOf(("text", "json")))
    subject_token_field_name = kinds.text()


class _Source(ma.Schema):
    """Where the subject token is; one that is in a file, or comes from a command, is none of these."""

    url = fields.String(required=True, validate=[validate.Length(1, 1024), kinds.outside])
    headers = fields.Dict(keys=kinds.text(), values=kinds.text(longest=4096))
    format = fields.Nested(_Format)


class Credential(ma.Schema):
    """A key of a service account, or how a workload identity pool is asked: as Google's console gives it."""

    IGNORED: ClassVar[tuple[str, ...]] = (
        *("auth_uri", "auth_provider_x509_cert_url", "client_x509_cert_url", "client_id", "universe_domain"),
        "token_info_url",
    )
    NEEDED: ClassVar[dict[str, tuple[str, ...]]] = {
        "service_account": ("client_email", "private_key", "private_key_id", "token_uri"),
        "external_account": ("audience", "subject_token_type", "token_url", "credential_source"),
    }

    type = fields.String(
        required=True,
        validate=validate.OneOf(
            tuple(NEEDED), error="It is no key of a service account, nor of an external account."
        ),
    )
    project_id = kinds.text()
    private_key_id = kinds.text()
    private_key = kinds.text(longest=8192)
    client_email = kinds.text()
    token_uri = kinds.text()
    audience = kinds.text()
    subject_token_type = kinds.text()
    token_url = kinds.text()
    service_account_impersonation_url = kinds.text()
    credential_source = fields.Nested(_Source)

    @ma.pre_load
    def plain(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if name not in self.IGNORED}

    @ma.validates_schema
    def complete(self, data: dict[str, Any], **_kwargs: Any) -> None:
        needed = self.NEEDED[data["type"]]
        for name in needed:
            if name not in data:
                raise ma.ValidationError("It is needed.", name)


class GCP(configs.Config):
    tuning: ClassVar[frozenset[str]] = frozenset(
        (
            *("bucket", "storage_location", "family", "labels", "guest_os_features", "kms_key"),
            *("share_with", "keep_archive", "deprecate_to"),
        )
    )
    on_the_way: ClassVar[frozenset[str]] = frozenset(("bucket",))
    credential: ClassVar[type[ma.Schema]] = Credential

    project_id = fields.String(required=True, validate=_pattern(PROJECT, "Not an id of a project."))
    bucket = fields.String(required=True, validate=_pattern(BUCKET, "Not a name of a bucket."))
    endpoint_url = fields.String(validate=[validate.Length(1, 1024), kinds.outside])
    storage_location = fields.String(validate=_pattern(LOCATION, "Not a name like eu or europe-west1."))
    family = fields.String(validate=_pattern(FAMILY, "Not a name of a family: a-z, 0-9 and -, at most 63."))
    labels = fields.List(
        fields.String(validate=_label), validate=[validate.Length(1, MOST_LABELS), _keys_differ]
    )
    guest_os_features = fields.List(
        fields.String(validate=validate.OneOf(FEATURES)), validate=[validate.Length(1), kinds.different]
    )
    kms_key = fields.String(
        validate=_pattern(KMS_KEY, "Not a name like projects/P/locations/L/keyRings/R/cryptoKeys/K.")
    )
    share_with = fields.List(
        fields.String(validate=_pattern(MEMBER, "Not a member like user:NAME@HOST, group:… or domain:….")),
        validate=[validate.Length(1, 100), kinds.different],
    )
    keep_archive = fields.Boolean()
    deprecate_to = fields.String(validate=validate.OneOf(DEPRECATED))
