# SPDX-License-Identifier: Apache-2.0
"""What requests may say and answers do say; the OpenAPI document is made from these."""

import uuid
from datetime import UTC
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from ciming import exceptions, zone_plans
from ciming.api import kinds

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
    *("copy", "upload", "register", "verify", "link", "update", "withdraw"),
)
MAX_DELETE = 10
VISIBILITIES = ("private", "shared", "community", "public")


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


def _clouds(fewest: int, more: str = "") -> dict[str, Any]:
    names = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 255}}
    return {
        "description": f"Names or ids of Clouds, or `all` that one may use.{more}",
        "oneOf": [
            {**names, "minItems": fewest, "maxItems": 100},
            {"type": "string", "enum": ["all"]},
        ],
        "example": ["zone-a", "zone-b"],
    }


class WithCredentials(ma.Schema):
    credentials = fields.Dict(
        keys=kinds.Text(validate=validate.Length(1, 255)),
        values=fields.Dict(),
        validate=kinds.few,
        metadata={
            "maxProperties": kinds.MOST_PROPERTIES,
            "writeOnly": True,
            "description": "Credentials by names or ids of Clouds, as their providers want them. One "
            "engine holds them, in its memory only: no answer has them, and nothing is written down.",
            "example": {
                "other": {
                    "auth_type": "v3applicationcredential",
                    "auth": {
                        "application_credential_id": "2f3c2a5e3f0e4ab2a0c9d1a7a2f9c1de",
                        "application_credential_secret": "…",
                    },
                }
            },
        },
    )


class ImageCreate(WithCredentials):
    name = kinds.Text(required=True, validate=validate.Length(1, 255), metadata={"example": "demo"})
    disk_format = fields.String(
        validate=validate.OneOf(DISK_FORMATS),
        metadata={"description": "Absent: what the inspection finds.", "example": "qcow2"},
    )
    container_format = fields.String(validate=validate.OneOf(["bare"]))
    size = kinds.Whole(
        validate=validate.Range(1, 2**63 - 1),
        metadata={
            "description": "Bytes that will come; lets CIMinG refuse early. "
            "The operator's bound may be lower.",
            "example": 419430400,
        },
    )
    checksum = kinds.Text(
        validate=kinds.checksum,
        metadata={
            "description": "What the bytes must hash to, as `sha256:HEX`, `sha512:HEX` or `md5:HEX`.",
            "pattern": f"^({kinds.A_CHECKSUM})$",
            "example": f"sha256:{'5e' * 32}",
        },
    )
    properties = fields.Dict(
        keys=kinds.Text(validate=[validate.Length(1, 255), kinds.property_name]),
        values=kinds.Text(validate=validate.Length(max=4096)),
        validate=kinds.few,
        metadata={
            "description": "Properties of the image in its Clouds. Names have 1 to 255 characters; "
            "those of Glance's own attributes are reserved, and what begins with "
            f"{' or '.join(f'`{prefix}`' for prefix in kinds.RESERVED_PREFIXES)}.",
            "maxProperties": kinds.MOST_PROPERTIES,
            "example": {"os_distro": "debian"},
        },
    )
    min_disk = kinds.Whole(
        validate=validate.Range(0, 2**31 - 1),
        metadata={"description": "Disk that an instance needs at least, in GiB.", "example": 10},
    )
    min_ram = kinds.Whole(
        validate=validate.Range(0, 2**31 - 1),
        metadata={"description": "Memory that an instance needs at least, in MiB.", "example": 512},
    )
    visibility = fields.String(
        validate=validate.OneOf(VISIBILITIES), metadata={"description": "Who may use it in the Clouds."}
    )
    tags = fields.List(
        kinds.Text(validate=validate.Length(1, 255)),
        validate=validate.Length(max=128),
        metadata={"example": ["golden"]},
    )
    clouds = kinds.CloudNames(
        fewest=0,
        required=True,
        metadata=_clouds(0, " None, with a `source`: adopt that; it stays where it is, and is tracked."),
    )
    match_digest = kinds.YesNo(
        "Of what is adopted: link what has the same digest in other Clouds that one may use, too."
    )
    source = fields.Nested(
        "ImageSource",
        unknown=ma.RAISE,
        metadata={"description": "An image that a Cloud has already. Absent: its data will be sent."},
    )


class ImageUpdate(WithCredentials):
    """At least one of what may be said anew."""

    name = kinds.Text(validate=validate.Length(1, 255), metadata={"example": "demo"})
    tags = fields.List(
        kinds.Text(validate=validate.Length(1, 255)),
        validate=validate.Length(max=128),
        metadata={"description": "All tags that it is to have.", "example": ["golden"]},
    )
    hidden = kinds.YesNo("Is it to be left out of the Clouds' lists?")
    deprecated = kinds.YesNo("Is it to be used no more?")

    @ma.validates_schema
    def _says_something(self, said: dict[str, Any], **_: Any) -> None:
        if not said.keys() - {"credentials"}:
            raise ma.ValidationError("Give at least one of name, tags, hidden and deprecated.")

    @ma.post_load
    def _each_once(self, said: dict[str, Any], **_: Any) -> dict[str, Any]:
        return said | ({"tags": list(dict.fromkeys(said["tags"]))} if "tags" in said else {})


IMAGE_REF = validate.Length(1, 1024)


class ImageSource(ma.Schema):
    cloud = kinds.Text(required=True, validate=validate.Length(1, 255), metadata={"example": "zone-a"})
    image = kinds.Text(
        required=True,
        validate=IMAGE_REF,
        metadata={"description": "Id or name of the image there.", "example": "debian-12"},
    )


class ImageClouds(WithCredentials):
    clouds = kinds.CloudNames(required=True, metadata=_clouds(1))


class LinkCreate(WithCredentials):
    cloud = kinds.Text(required=True, validate=validate.Length(1, 255), metadata={"example": "zone-a"})
    image_ref = kinds.Text(
        required=True,
        validate=IMAGE_REF,
        metadata={"description": "Id or name of the image there.", "example": "debian-12"},
    )


CREDENTIAL_REF = {
    "description": "Href of the Barbican secret that holds the credential; `null`: none. It must be one of "
    "the Barbican in the caller's catalog.",
    "example": f"https://keys.example.org/v1/secrets/{'67ba1d7e-0000-4000-8000-00000000000a'}",
}


class CloudCreate(ma.Schema):
    name = kinds.cloud_name(required=True)
    provider = kinds.Text(
        required=True,
        validate=validate.Length(1, 32),
        metadata={"description": "Kind of cloud.", "example": "openstack"},
    )
    config = fields.Dict(
        keys=kinds.Text(validate=validate.Length(1, 255)),
        validate=kinds.few,
        required=True,
        metadata={
            "description": "Where it is, as its provider has to be told: see the provider's page.",
            "maxProperties": kinds.MOST_PROPERTIES,
            "example": {"auth_url": "https://keystone.example.com/v3", "region": "RegionOne"},
        },
    )
    credential_ref = kinds.Text(
        allow_none=True,
        load_default=None,
        validate=validate.Length(1, 1024),
        metadata=CREDENTIAL_REF,
    )
    visibility = fields.String(
        validate=validate.OneOf(("private", "public")),
        load_default="private",
        metadata={"description": "`public`: all projects may use it; for operators."},
    )


class CloudUpdate(ma.Schema):
    name = kinds.cloud_name()
    config = fields.Dict(
        keys=kinds.Text(validate=validate.Length(1, 255)),
        validate=kinds.few,
        metadata={
            "description": "Keys to be changed; `null` removes one. What says where the Cloud is clears "
            "`credential_ref`, unless a new one comes with it.",
            "maxProperties": kinds.MOST_PROPERTIES,
            "example": {"formats": ["raw"]},
        },
    )
    credential_ref = kinds.Text(
        allow_none=True, validate=validate.Length(1, 1024), metadata=CREDENTIAL_REF
    )


A_ZONE = validate.Length(1, 255)
A_PROJECT = validate.Length(1, 64)


class ZoneFilters(ma.Schema):
    """All of them have to be met."""

    owner = fields.List(
        kinds.Text(validate=A_PROJECT),
        validate=validate.Length(1, 100),
        metadata={"description": "Ids of projects that own the images: any of them."},
    )
    visibility = fields.List(
        fields.String(validate=validate.OneOf(VISIBILITIES)), validate=validate.Length(1, 4)
    )
    name = fields.List(
        kinds.Text(validate=validate.Length(1, 255)),
        validate=validate.Length(1, 100),
        metadata={"description": "Globs: `*`, `?` and `[…]`. Any of them.", "example": ["debian-*"]},
    )
    tag = fields.List(
        kinds.Text(validate=validate.Length(1, 255)),
        validate=validate.Length(1, 100),
        metadata={"description": "Tags that an image has: each of them."},
    )
    property = fields.Dict(
        keys=kinds.Text(validate=validate.Length(1, 255)),
        values=kinds.Text(validate=validate.Length(max=4096)),
        validate=kinds.few,
        metadata={"maxProperties": kinds.MOST_PROPERTIES, "example": {"os_distro": "debian"}},
    )
    status = fields.List(
        fields.String(validate=validate.OneOf(("active", "deactivated", "queued", "saving", "importing"))),
        validate=validate.Length(1, 5),
        load_default=lambda: ["active"],
        metadata={"description": "Of an image in its zone. Only active ones can be brought."},
    )
    newer_than = fields.AwareDateTime(
        default_timezone=UTC,
        metadata={
            "description": "Images that were created then, or later.",
            "example": "2026-03-01T12:00:00Z",
        },
    )
    size_below = kinds.Whole(
        validate=validate.Range(1, 2**63 - 1), metadata={"description": "Bytes that an image has fewer than."}
    )


class ZonePlan(ma.Schema):
    """A plan, as it was answered to a dry run: nothing in it may be changed."""

    request = fields.Dict(required=True)
    entries = fields.List(fields.Dict(), required=True)
    summary = fields.Dict(required=True)
    digest = fields.String(required=True)


class ZoneSync(ma.Schema):
    from_ = kinds.Text(
        data_key="from",
        validate=A_ZONE,
        metadata={"description": "The zone that has what is wanted.", "example": "zone-a"},
    )
    to = fields.List(
        kinds.Text(validate=A_ZONE),
        validate=validate.Length(1, 20),
        metadata={"description": "The zones that are to have it, too.", "example": ["zone-b"]},
    )
    filters = fields.Nested(ZoneFilters, unknown=ma.RAISE)
    replace = kinds.yes_or_no("Where content differs, bring the image under a new id, and hide the old one")
    prune = kinds.yes_or_no("Delete what only the targets have, after a run without errors")
    max_delete = kinds.Whole(
        validate=validate.Range(0, 2**31 - 1),
        metadata={"description": f"Images that may be pruned; {MAX_DELETE} if it is not said."},
    )
    members = kinds.yes_or_no("Compare the members of shared images, too: one call for each")
    map_project = fields.Dict(
        keys=kinds.Text(validate=A_PROJECT),
        values=kinds.Text(validate=A_PROJECT),
        validate=kinds.few,
        metadata={
            "maxProperties": kinds.MOST_PROPERTIES,
            "description": "By the ids of owners: those of the projects that are to own the images there.",
        },
    )
    dry_run = kinds.yes_or_no("Answer the plan, and do nothing")
    when_busy = fields.String(
        validate=validate.OneOf(("refuse", "wait")),
        load_default="refuse",
        metadata={"description": "What to do while another sync of these zones runs."},
    )
    plan = fields.Nested(
        ZonePlan,
        unknown=ma.RAISE,
        metadata={
            "description": "Do just this, or nothing if the zones have changed since. It says all that a "
            "request says, so nothing else can be said beside it but `when_busy`."
        },
    )


class Nothing(ma.Schema):
    """The body of a call that needs none."""


class Answer(ma.Schema):
    """What the service says: every field is there, and clients have to expect more of them."""

    class Meta:
        unknown = ma.EXCLUDE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        field_obj.required = not field_obj.metadata.get("optional")


class Digests(Answer):
    sha256 = fields.String(dump_default=None, allow_none=True)
    sha512 = fields.String(dump_default=None, allow_none=True)
    guest = fields.String(
        dump_default=None,
        allow_none=True,
        metadata={"description": "Of the disk inside; known where the image was converted."},
    )


class Link(Answer):
    cloud = fields.String()
    provider = fields.String()
    region = fields.String(allow_none=True)
    image_ref = fields.String(metadata={"description": "What the image is called there."})
    proof = kinds.word("bytes", "guest", "asserted")
    verified_at = kinds.time()


class Image(Answer):
    id = fields.UUID()
    name = fields.String()
    project_id = fields.String(metadata={"description": "The project that owns it."})
    status = kinds.word(*IMAGE_STATUSES)
    disk_format = fields.String(
        allow_none=True, metadata={"description": "What the inspection found."}
    )
    size = fields.Integer(allow_none=True, metadata={"description": "Bytes of the file."})
    virtual_size = fields.Integer(
        allow_none=True, metadata={"description": "Bytes of the disk inside."}
    )
    digests = fields.Nested(Digests)
    links = fields.List(
        fields.Nested(Link), metadata={"description": "One for each Cloud that has it."}
    )
    tags = fields.List(fields.String())
    hidden = fields.Boolean(
        allow_none=True, metadata={"description": "What was said of it last; null: nothing."}
    )
    deprecated = fields.Boolean(
        allow_none=True, metadata={"description": "What was said of it last; null: nothing."}
    )
    created_at = kinds.time()
    updated_at = kinds.time()


class Fault(Answer):
    code = fields.String()
    message = fields.String()
    cloud_request_id = fields.String(
        dump_default=None,
        allow_none=True,
        metadata={"description": "The cloud's own id of the failed call."},
    )


class Target(Answer):
    id = fields.UUID(metadata={"description": "In zones it is the property `ciming_target`."})
    cloud = fields.String()
    provider = fields.String()
    region = fields.String(allow_none=True)
    status = kinds.word(*TARGET_STATUSES)
    step = fields.String(
        validate=validate.OneOf(STEPS),
        allow_none=True,
        metadata={"description": "What it does now, or did last."},
    )
    bytes_done = kinds.count()
    bytes_total = kinds.count(allow_none=True)
    attempts = fields.Integer(metadata={"description": "How often a step was tried."})
    image_ref = fields.String(
        allow_none=True, metadata={"description": "Id of the image there, once it is known."}
    )
    error = fields.Nested(Fault, allow_none=True)
    remarks = fields.List(
        fields.String(),
        allow_none=True,
        metadata={"description": "In what the image is another there, and what could not be said of it."},
    )


class Progress(Answer):
    bytes_done = kinds.count()
    bytes_total = kinds.count(allow_none=True)
    images_done = fields.Integer(metadata={"description": "Of a sync of zones.", "optional": True})
    images_total = fields.Integer(metadata={"description": "Of a sync of zones.", "optional": True})
    bytes_per_second = fields.Integer(metadata={"description": "Of a sync of zones.", "optional": True})
    seconds_left = fields.Integer(
        allow_none=True,
        metadata={"description": "Of a sync of zones: what the rest may take.", "optional": True},
    )


class ZoneFailure(Answer):
    zone = fields.String()
    image = fields.String(
        allow_none=True,
        metadata={
            "description": "Its id in the source, or else in the target; null: the zone could not be read."
        },
    )
    name = fields.String()
    job = fields.UUID(allow_none=True, metadata={"description": "The Job that was to bring it."})
    code = fields.String()
    message = fields.String()


class Report(Answer):
    """How far a sync of zones is, in images."""

    step = kinds.word("plan", "bring", "prune", "end", allow_none=True)
    same = fields.Integer(metadata={"description": "In line before."})
    left = fields.Integer(metadata={"description": "Of other content there, and left so."})
    only_there = fields.Integer(metadata={"description": "Only in a target, when it was planned."})
    created = fields.Integer()
    updated = fields.Integer(metadata={"description": "Of other metadata there before."})
    replaced = fields.Integer()
    pruned = fields.Integer()
    failed = fields.Integer()
    cannot = fields.Integer(metadata={"description": "That could not be brought from the beginning."})
    cancelled = fields.Integer()
    not_pruned = fields.String(allow_none=True, metadata={"description": "Why nothing was pruned."})
    failures = fields.List(fields.Nested(ZoneFailure), metadata={"description": "The first 100."})
    digest = fields.String(allow_none=True, metadata={"description": "Of the plan."})


class ZoneEntry(Answer):
    symbol = kinds.word(*zone_plans.SYMBOLS)
    zone = fields.String(metadata={"description": "The target."})
    image = fields.String(allow_none=True, metadata={"description": "Its id in the source."})
    there = fields.String(allow_none=True, metadata={"description": "Its id in the target."})
    name = fields.String()
    owner = fields.String()
    size = kinds.count()
    digest = fields.String(allow_none=True, metadata={"description": "Of its file: `algorithm:hex`."})
    differs = fields.List(fields.String(), metadata={"description": "Names of metadata."})
    why = fields.String(allow_none=True, metadata={"description": "Why it can not be brought, or is left."})
    proof = fields.String(allow_none=True, metadata={"description": "How it is known to be the same there."})
    carry = fields.Dict(allow_none=True, metadata={"description": "What the image there is to have."})
    state = fields.String(
        allow_none=True,
        metadata={"description": "SHA-256 of what the image there is like, if it may be changed or deleted."},
    )


class PlanMade(Answer):
    request = fields.Dict(metadata={"description": "What was asked for."})
    entries = fields.List(fields.Nested(ZoneEntry))
    summary = fields.Dict(
        values=fields.Integer(), metadata={"description": "How many entries there are of each symbol."}
    )
    digest = fields.String(metadata={"description": "By which it is known whether a plan was edited."})


class Job(Answer):
    id = fields.UUID()
    kind = kinds.word(*JOB_KINDS)
    status = kinds.word(*JOB_STATUSES)
    wanted = kinds.word("run", "cancel")
    project_id = fields.String()
    image_id = fields.UUID(
        allow_none=True,
        metadata={"description": "The Image it works on; null for a sync of zones, which has children."},
    )
    parent = fields.UUID(
        attribute="parent_id",
        allow_none=True,
        metadata={"description": "The Job it is a part of."},
    )
    request_id = fields.String(
        allow_none=True, metadata={"description": "Id of the request that made it, or retried it last."}
    )
    progress = fields.Nested(Progress)
    targets = fields.List(fields.Nested(Target), metadata={"description": "One for each Cloud."})
    error = fields.Nested(
        Fault, allow_none=True, metadata={"description": "Why the data could not be used."}
    )
    report = fields.Nested(
        Report,
        allow_none=True,
        metadata={"description": "Of a sync of zones: what became of its images; null for other kinds."},
    )
    created_at = kinds.time()
    started_at = kinds.time(allow_none=True)        # of the last run, where it was retried
    finished_at = kinds.time(allow_none=True)


class Unseen(Answer):
    cloud = fields.String()
    status = kinds.word("forbidden", "unreachable")
    error = fields.Nested(Fault)


class ImageAndJob(Answer):
    image = fields.Nested(Image)
    job = fields.Nested(Job)
    unseen = fields.List(
        fields.Nested(Unseen),
        metadata={
            "description": "Of `match_digest`: Clouds that were not seen, or not whole.",
            "optional": True,
        },
    )


class ChangedImage(Answer):
    image = fields.Nested(Image)
    job = fields.Nested(
        Job, allow_none=True, metadata={"description": "null: there was nothing to be done in a Cloud."}
    )


class ZoneJob(Answer):
    job = fields.Nested(Job)


class Cloud(Answer):
    id = fields.String()
    name = fields.String()
    provider = fields.String()
    region = fields.String(allow_none=True)
    visibility = kinds.word("public", "private")
    zone = fields.Boolean(
        metadata={"description": "A region of the caller's own OpenStack, which nobody registers."}
    )
    project_id = fields.String(
        allow_none=True, metadata={"description": "The project that registered it; null for zones."}
    )
    config = fields.Dict(metadata={"description": "Where it is; empty for zones."})
    credential_ref = fields.String(
        allow_none=True,
        metadata={"description": "Href of the secret with its credential; for its own project only."},
    )
    created_at = kinds.time(allow_none=True)
    updated_at = kinds.time(allow_none=True)


class ChangedCloud(Cloud):
    note = fields.String(
        metadata={"description": "What else the change has done.", "optional": True}
    )


class Check(Answer):
    check = fields.String(metadata={"description": "What was looked at.", "example": "login"})
    passed = fields.Boolean(
        allow_none=True, metadata={"description": "null: that can not be told there."}
    )
    message = fields.String()


class Checks(Answer):
    passed = fields.Boolean(metadata={"description": "Nothing was found that is wrong."})
    checks = fields.List(
        fields.Nested(Check), metadata={"description": "In the order in which it was tried."}
    )


class Href(Answer):
    rel = fields.String(metadata={"example": "next"})
    href = fields.String()


class Clouds(Answer):
    clouds = fields.List(fields.Nested(Cloud))


class Images(Answer):
    images = fields.List(fields.Nested(Image))
    links = fields.List(fields.Nested(Href))


class Jobs(Answer):
    jobs = fields.List(fields.Nested(Job))
    links = fields.List(fields.Nested(Href))


class Error(Answer):
    request_id = fields.String()
    code = fields.String()
    status = fields.Integer()
    title = fields.String()
    detail = fields.String()
    field = fields.String(
        metadata={"description": "The part of the request that is wrong.", "optional": True}
    )
    links = fields.List(fields.Nested(Href))


class Errors(Answer):
    message = fields.String()
    errors = fields.List(fields.Nested(Error))


class Version(Answer):
    id = fields.String()
    status = fields.String()
    min_version = fields.String()
    version = fields.String()
    links = fields.List(fields.Nested(Href))


class Versions(Answer):
    versions = fields.List(fields.Nested(Version))


class VersionOne(Answer):
    version = fields.Nested(Version)

