# SPDX-License-Identifier: Apache-2.0
"""What requests may say and answers do say; the OpenAPI document is made from these."""

import re
import uuid
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from ciming import exceptions

DISK_FORMATS = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso")
IMAGE_STATUSES = ("uploading", "pending", "active", "partial", "error")
JOB_STATUSES = (
    *("uploading", "queued", "running", "waiting-credentials"),
    *("success", "partial", "error", "cancelled"),
)
JOB_KINDS = ("create", "sync", "link", "update", "delete", "zone-sync")
TARGET_STATUSES = ("waiting", "running", "retrying", "success", "error", "cancelled")
STEPS = (
    *("receive", "download", "inspect", "convert", "check"),
    *("upload", "register", "verify", "link", "withdraw"),
)
VISIBILITIES = ("private", "shared", "community", "public")
CHECKSUM = {"md5": 32, "sha256": 64, "sha512": 128}     # algorithm: hex digits

# What Glance calls its own attributes, and what CIMinG marks its images with.
RESERVED_PROPERTIES = {
    *("id", "name", "status", "owner", "size", "virtual_size", "visibility", "checksum", "tags"),
    *("protected", "min_disk", "min_ram", "file", "schema", "self", "locations", "direct_url"),
    *("container_format", "disk_format", "created_at", "updated_at"),
    *("os_hash_algo", "os_hash_value", "os_hidden", "stores"),
}
RESERVED_PREFIXES = ("os_glance_", "ciming_")


def row_id(noun: str, text: str) -> str:
    """A UUID out of the URL, as it stands in the rows.

    :raises InvalidRequest: it is none
    """
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise exceptions.InvalidRequest(
            f"{text[:64]!r} is not a UUID.", code=f"{noun}.invalid_id", field=noun
        ) from None


def _property_name(name: str) -> None:
    if name in RESERVED_PROPERTIES or name.startswith(RESERVED_PREFIXES):
        raise ma.ValidationError("This name is reserved.")


def _checksum(value: str) -> None:
    algorithm, _, digest = value.partition(":")
    if not re.fullmatch(rf"[0-9a-fA-F]{{{CHECKSUM.get(algorithm, 0)}}}", digest) or not digest:
        raise ma.ValidationError("Write it as sha256:HEX, sha512:HEX or md5:HEX.")


class Text(fields.String):
    """A string that every database and cloud can hold."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, *args, **kwargs)
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise self.make_error("invalid_utf8")
        return text


class Whole(fields.Integer):
    """An integer, and no other JSON that Python would take for one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strict=True, **kwargs)

    def _validated(self, value: Any) -> int:
        if isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Time(fields.Field[int]):
    """Milliseconds since the epoch in rows, ISO 8601 in UTC in answers."""

    def _serialize(self, value: int | None, *_args: Any, **_kwargs: Any) -> str | None:
        if value is None:
            return None
        at = datetime.fromtimestamp(value / 1000, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time() -> Time:
    return Time(metadata={"type": "string", "format": "date-time"}, allow_none=True)


class CloudNames(fields.Field[Any]):
    """A list of Cloud names, or the word "all"."""

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> list[str] | str:
        if value == "all":
            return "all"
        if (
            not isinstance(value, list)
            or not 0 < len(value) <= 100
            or not all(isinstance(name, str) and 0 < len(name) <= 255 for name in value)
        ):
            raise ma.ValidationError('Give a list of 1 to 100 Cloud names, or "all".')
        return list(dict.fromkeys(value))


class ImageCreate(ma.Schema):
    name = Text(required=True, validate=validate.Length(1, 255))
    disk_format = Text(
        validate=validate.OneOf(DISK_FORMATS),
        metadata={"description": "Absent: what the inspection finds."},
    )
    container_format = Text(validate=validate.OneOf(["bare"]))
    size = Whole(
        validate=validate.Range(1, 2**63 - 1),
        metadata={"description": "Bytes that will come; lets CIMinG refuse early."},
    )
    checksum = Text(
        validate=_checksum, metadata={"description": "What the bytes must hash to: `sha256:HEX`."}
    )
    properties = fields.Dict(
        keys=Text(validate=[validate.Length(1, 255), _property_name]),
        values=Text(validate=validate.Length(max=4096)),
        validate=validate.Length(max=128),
    )
    min_disk = Whole(
        validate=validate.Range(0, 2**31 - 1), metadata={"description": "GiB"}
    )
    min_ram = Whole(
        validate=validate.Range(0, 2**31 - 1), metadata={"description": "MiB"}
    )
    visibility = Text(validate=validate.OneOf(VISIBILITIES))
    tags = fields.List(
        Text(validate=validate.Length(1, 255)), validate=validate.Length(max=128)
    )
    clouds = CloudNames(
        required=True,
        metadata={"oneOf": [{"type": "array", "items": {"type": "string"}}, {"enum": ["all"]}]},
    )


class Digests(ma.Schema):
    sha256 = fields.String(dump_default=None, allow_none=True)
    sha512 = fields.String(dump_default=None, allow_none=True)
    guest = fields.String(dump_default=None, allow_none=True)


class Link(ma.Schema):
    cloud = fields.String()
    provider = fields.String()
    region = fields.String(allow_none=True)
    image_ref = fields.String()
    proof = fields.String(validate=validate.OneOf(["bytes", "guest", "asserted"]))
    verified_at = _time()


class Image(ma.Schema):
    id = fields.UUID()
    name = fields.String()
    project_id = fields.String()
    status = fields.String()
    disk_format = fields.String(allow_none=True)
    size = fields.Integer(allow_none=True)
    virtual_size = fields.Integer(allow_none=True)
    digests = fields.Nested(Digests)
    links = fields.List(fields.Nested(Link))
    tags = fields.List(fields.String())
    created_at = _time()
    updated_at = _time()


class Fault(ma.Schema):
    code = fields.String()
    message = fields.String()
    cloud_request_id = fields.String(dump_default=None, allow_none=True)


class Target(ma.Schema):
    id = fields.UUID()
    cloud = fields.String()
    provider = fields.String()
    region = fields.String(allow_none=True)
    status = fields.String()
    step = fields.String(allow_none=True)
    bytes_done = fields.Integer()
    bytes_total = fields.Integer(allow_none=True)
    attempts = fields.Integer()
    image_ref = fields.String(allow_none=True)
    error = fields.Nested(Fault, allow_none=True)


class Progress(ma.Schema):
    bytes_done = fields.Integer()
    bytes_total = fields.Integer(allow_none=True)


class Job(ma.Schema):
    id = fields.UUID()
    kind = fields.String()
    status = fields.String()
    project_id = fields.String()
    image_id = fields.UUID()
    parent = fields.UUID(attribute="parent_id", allow_none=True)
    request_id = fields.String(allow_none=True)
    progress = fields.Nested(Progress)
    targets = fields.List(fields.Nested(Target))
    error = fields.Nested(Fault, allow_none=True)
    created_at = _time()
    started_at = _time()
    finished_at = _time()


class ImageAndJob(ma.Schema):
    image = fields.Nested(Image)
    job = fields.Nested(Job)


class Cloud(ma.Schema):
    id = fields.String()
    name = fields.String()
    provider = fields.String()
    region = fields.String(allow_none=True)
    visibility = fields.String()
    zone = fields.Boolean()


class Href(ma.Schema):
    rel = fields.String()
    href = fields.String()


class Clouds(ma.Schema):
    clouds = fields.List(fields.Nested(Cloud))


class Images(ma.Schema):
    images = fields.List(fields.Nested(Image))
    links = fields.List(fields.Nested(Href))


class Jobs(ma.Schema):
    jobs = fields.List(fields.Nested(Job))
    links = fields.List(fields.Nested(Href))


class Error(ma.Schema):
    request_id = fields.String()
    code = fields.String()
    status = fields.Integer()
    title = fields.String()
    detail = fields.String()
    field = fields.String(metadata={"description": "The part of the request that is wrong."})
    links = fields.List(fields.Nested(Href))


class Errors(ma.Schema):
    message = fields.String()
    errors = fields.List(fields.Nested(Error))


class Version(ma.Schema):
    id = fields.String()
    status = fields.String()
    min_version = fields.String()
    version = fields.String()
    links = fields.List(fields.Nested(Href))


class Versions(ma.Schema):
    versions = fields.List(fields.Nested(Version))


class VersionOne(ma.Schema):
    version = fields.Nested(Version)

