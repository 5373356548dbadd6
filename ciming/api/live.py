# SPDX-License-Identifier: Apache-2.0
"""Looks at Clouds on behalf of the caller: what an engine is asked, and what answers show of it."""

from collections.abc import Mapping
from typing import Any

from marshmallow import fields

from ciming import context, rpc, sealing
from ciming.api import judging, kinds, schemas, staging_area


def look(
    caller: context.RequestContext,
    kind: str,
    credentials: Mapping[str, Mapping[str, Any]] | None = None,
    **what: Any,
) -> list[rpc.Seen]:
    """What an engine sees as the caller; see ciming.engine.looks.

    :param credentials: that came with the request
    :raises Unavailable: none answers
    """
    bundle = sealing.Bundle(str(caller.auth_token), credentials or {})
    return rpc.look(kind, str(caller.project_id), bundle, what, staging_area.get().marker)


def place(cloud: Mapping[str, Any]) -> dict[str, Any]:
    """Where a Cloud is, as engines have it, of one as clouds.usable() has it."""
    return {
        "cloud_key": cloud["id"],
        "cloud": cloud["name"],
        **{name: cloud[name] for name in ("provider", "region")},
    }


class Metadata(schemas.Answer):
    name = fields.String()
    status = fields.String(metadata={"description": "In the Cloud's own word."})
    state = kinds.word("ready", "pending", "off")
    size = fields.Integer(allow_none=True, metadata={"description": "Bytes of its file."})
    virtual_size = fields.Integer(allow_none=True, metadata={"description": "Bytes of its disk."})
    digests = fields.Dict(
        allow_none=True,
        metadata={"description": "Of its file, by algorithm; `guest`: of its disk. As the Cloud has them."},
    )
    disk_format = fields.String(allow_none=True)
    container_format = fields.String(allow_none=True)
    min_disk = fields.Integer(allow_none=True, metadata={"description": "GiB"})
    min_ram = fields.Integer(allow_none=True, metadata={"description": "MiB"})
    visibility = fields.String(allow_none=True)
    owner = fields.String(allow_none=True)
    tags = fields.List(fields.String())
    properties = fields.Dict(metadata={"description": "By Glance's names."})
    hidden = fields.Boolean(allow_none=True)
    deprecated = fields.Boolean(allow_none=True)
    protected = fields.Boolean(allow_none=True)
    created_at = kinds.time(allow_none=True)


class Difference(schemas.Answer):
    what = kinds.word(*judging.KINDS)
    expected = fields.String(allow_none=True, metadata={"description": "What CIMinG knows."})
    found = fields.String(allow_none=True, metadata={"description": "What the Cloud says."})


class Cell(schemas.Answer):
    cloud = fields.String()
    cloud_id = fields.String()
    provider = fields.String()
    region = fields.String(allow_none=True)
    status = kinds.word(*judging.STATUSES)
    image_ref = fields.String(
        allow_none=True, metadata={"description": "What it is called there; null: it is not linked there."}
    )
    proof = kinds.word("bytes", "guest", "asserted", allow_none=True)
    differs = fields.List(
        fields.Nested(Difference), metadata={"description": "Of what is `drifted`."}
    )
    metadata = fields.Nested(
        Metadata,
        allow_none=True,
        metadata={"description": "What the Cloud says of it now; null: it said nothing."},
    )
    error = fields.Nested(
        schemas.Fault, allow_none=True, metadata={"description": "Why the Cloud was not seen."}
    )


class Availability(schemas.Answer):
    image = fields.Nested(schemas.Image)
    clouds = fields.List(fields.Nested(Cell), metadata={"description": "What it is in each Cloud."})


class Availabilities(schemas.Answer):
    availability = fields.List(fields.Nested(Availability))
    links = fields.List(fields.Nested(schemas.Href))


class Candidate(schemas.Answer):
    image_id = fields.String(allow_none=True, metadata={"description": "Id of an Image."})
    cloud = fields.String(allow_none=True, metadata={"description": "Or the name of another Cloud,"})
    image_ref = fields.String(allow_none=True, metadata={"description": "and its ref there."})
    name = fields.String()


class CloudImage(Metadata):
    image_ref = fields.String(metadata={"description": "What it is called there."})
    image_id = fields.String(
        allow_none=True, metadata={"description": "The Image that it is linked to; null: it is untracked."}
    )
    candidates = fields.List(
        fields.Nested(Candidate),
        metadata={"description": "What has the same hash or guest digest, where it is untracked."},
    )


class CloudImages(schemas.Answer):
    images = fields.List(fields.Nested(CloudImage))
    unseen = fields.List(
        fields.Nested(schemas.Unseen),
        metadata={"description": "Other Clouds, where no candidates could be seen, or not all."},
    )
    links = fields.List(fields.Nested(schemas.Href))
