# SPDX-License-Identifier: Apache-2.0
"""What may follow the question mark of a list."""

import marshmallow as ma
from marshmallow import fields, validate

from ciming.api import filters, kinds, schemas

NEWEST_FIRST = "created_at:desc"


class Page(ma.Schema):
    limit = filters.Limit()
    marker = fields.UUID(metadata={"description": "Id of the last item that one has."})
    all_projects = filters.Flag("Those of all projects, not only of one's own; for administrators")


class ImageQuery(Page):
    id = filters.Filter(filters.UUID, "Id")
    name = filters.Filter(filters.TEXT, "Name")
    status = filters.Filter(filters.one_of(schemas.IMAGE_STATUSES), "Status")
    disk_format = filters.Filter(filters.one_of(schemas.DISK_FORMATS), "Format of the file")
    size = filters.Filter(filters.BYTES, "Size of the file")
    virtual_size = filters.Filter(filters.BYTES, "Size of the disk in it")
    cloud = filters.Filter(filters.TEXT, "Name of a Cloud in which the Image is linked")
    created_at = filters.Filter(filters.TIME, "When it was created")
    updated_at = filters.Filter(filters.TIME, "When it was changed")
    sort = filters.Sort(
        (
            *("id", "name", "status", "disk_format", "size", "virtual_size"),
            *("created_at", "updated_at"),
        ),
        NEWEST_FIRST,
    )


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
