# SPDX-License-Identifier: Apache-2.0
"""What may follow the question mark of a list."""

import marshmallow as ma
from marshmallow import fields, validate

from ciming.api import filters, judging, kinds, schemas

NEWEST_FIRST = "created_at:desc"


class Page(ma.Schema):
    limit = filters.Limit()
    marker = fields.UUID(metadata={"description": "Id of the last item that one has."})
    all_projects = filters.Flag("Those of all projects, not only of one's own; for administrators")


class _Images(ma.Schema):
    id = filters.Filter(filters.UUID, "Id")
    name = filters.Filter(filters.TEXT, "Name")
    tag = filters.Filter(filters.TEXT, "One of the tags")
    disk_format = filters.Filter(filters.one_of(schemas.DISK_FORMATS), "Format of the file")
    size = filters.Filter(filters.BYTES, "Size of the file")
    virtual_size = filters.Filter(filters.BYTES, "Size of the disk in it")
    created_at = filters.Filter(filters.TIME, "When it was created")
    updated_at = filters.Filter(filters.TIME, "When it was changed")
    sort = filters.Sort(
        (
            *("id", "name", "status", "disk_format", "size", "virtual_size"),
            *("created_at", "updated_at"),
        ),
        NEWEST_FIRST,
    )


class ImageQuery(Page, _Images):
    status = filters.Filter(filters.one_of(schemas.IMAGE_STATUSES), "Status")
    cloud = filters.Filter(filters.TEXT, "Name of a Cloud in which the Image is linked")


CLOUD_NAME = kinds.Text(validate=validate.Length(1, 255))


A_PROPERTY = r"^[^=\u0000]{1,255}=[^\u0000]{0,255}$"


class Cells(ma.Schema):
    cloud = filters.Filter(filters.TEXT, "Name of the Cloud")
    provider = filters.Filter(filters.TEXT, "Kind of cloud")
    status = filters.Filter(filters.one_of(judging.STATUSES), "Status of the image there")
    property = fields.List(
        kinds.Text(validate=validate.Regexp(A_PROPERTY), metadata={"pattern": A_PROPERTY}),
        validate=validate.Length(max=filters.MOST_CONDITIONS),
        metadata={
            "description": "Only where the Cloud says that the image has this property, as "
            "`architecture=x86_64`; can be repeated.",
        },
    )


class Availability(Cells, _Images):
    limit = filters.Limit()
    marker = fields.UUID(metadata={"description": "Id of the last Image that one has."})
    available_in = fields.List(
        CLOUD_NAME,
        validate=validate.Length(max=filters.MOST_CONDITIONS),
        metadata={"description": "Only Images that this Cloud has, and can use; can be repeated."},
    )
    missing_in = fields.List(
        CLOUD_NAME,
        validate=validate.Length(max=filters.MOST_CONDITIONS),
        metadata={"description": "Only Images that this Cloud does not have; can be repeated."},
    )


class CloudImages(ma.Schema):
    limit = filters.Limit()
    marker = kinds.Text(
        validate=schemas.IMAGE_REF, metadata={"description": "Ref of the last image that one has."}
    )
    name = kinds.Text(validate=validate.Length(1, 255), metadata={"description": "Name there."})
    status = kinds.Text(
        validate=validate.Length(1, 32), metadata={"description": "Status, in the Cloud's own word."}
    )
    tag = kinds.Text(validate=validate.Length(1, 255), metadata={"description": "One of its tags."})
    visibility = fields.String(
        validate=validate.OneOf(schemas.VISIBILITIES), metadata={"description": "Who may use it there."}
    )
    owner = kinds.Text(
        validate=validate.Length(1, 255), metadata={"description": "Who owns it, as the Cloud has it."}
    )
    hidden = filters.Flag("What is hidden there, instead of what is not")
    untracked = filters.Flag("Only what is no Image of the project's")
    candidates = filters.Flag("Look in the other Clouds, too, for what is the same as what is untracked")


class ImageDelete(ma.Schema):
    cloud = fields.List(
        kinds.Text(validate=validate.Length(1, 255)),
        metadata={"description": "Only in this Cloud; can be repeated. Absent: in all of them."},
    )
    keep_remote = filters.Flag("Forget only, and leave what is in the Clouds as it is")


class JobQuery(Page):
    id = filters.Filter(filters.UUID, "Id")
    status = filters.Filter(filters.one_of(schemas.JOB_STATUSES), "Status")
    kind = filters.Filter(filters.one_of(schemas.JOB_KINDS), "Kind")
    image_id = filters.Filter(filters.UUID, "Id of the Image it works on")
    parent_id = filters.Filter(filters.UUID, "Id of the Job it is a part of", data_key="parent")
    request_id = filters.Filter(filters.TEXT, "Id of the request that made it")
    cloud = filters.Filter(filters.TEXT, "Name of a Cloud in which it has a Target")
    created_at = filters.Filter(filters.TIME, "When it was created")
    started_at = filters.Filter(filters.TIME, "When it was started")
    finished_at = filters.Filter(filters.TIME, "When it ended")
    sort = filters.Sort(
        ("id", "kind", "status", "image_id", "created_at", "started_at", "finished_at"), NEWEST_FIRST
    )


class CloudQuery(ma.Schema):
    name = filters.Filter(filters.TEXT, "Name")
    provider = filters.Filter(filters.TEXT, "Kind of cloud")
    region = filters.Filter(filters.TEXT, "Region")
