# SPDX-License-Identifier: Apache-2.0
"""What is in a Cloud now, whether it is tracked or not."""

from collections.abc import Mapping, Sequence
from typing import Any

import flask_smorest
import marshmallow as ma
from flask.views import MethodView

from ciming import context, exceptions, rpc
from ciming.api import auth, clouds, live, paging, queries
from ciming.db import tracked

Found = list[dict[str, Any]]

blueprint = flask_smorest.Blueprint(
    "cloud-images", __name__, url_prefix="/v1/clouds", description="What is in a Cloud"
)


@blueprint.route("/<string:cloud>/images")
class CloudImages(MethodView):
    @auth.needs("cloud:images")
    @blueprint.arguments(queries.CloudImages, location="query", unknown=ma.RAISE, error_status_code=400)
    @blueprint.response(200, live.CloudImages)
    @blueprint.doc(operationId="list_cloud_images")
    def get(self, query: dict[str, Any], cloud: str) -> dict[str, Any]:
        """List what is in a Cloud

        It is asked now. Each image says which Image it is linked to; of what is linked to none, whether an
        Image has the same digest. A page of what is untracked may have fewer, and yet not be the last.
        """
        caller = auth.caller()
        place = clouds.find(caller, cloud)
        limit, marker = paging.length(query), query.pop("marker", None)
        untracked, everywhere = query.pop("untracked", False), query.pop("candidates", False)
        if query.pop("hidden", False):
            query["hidden"] = "true"
        page = {"filters": query, "marker": marker, "limit": limit}
        [seen] = live.look(caller, "browse", place=live.place(place), **page)
        check(seen)
        found = list(seen["found"].values())
        links = [paging.next_page(limit, found[-1]["image_ref"])] if seen["more"] else []
        known = tracked.linked(str(caller.project_id), place["id"], list(seen["found"]))
        for each in found:
            linked = known.get(each["image_ref"])
            each.update(image_id=linked.id if linked else None, candidates=[])
        left = [each for each in found if each["image_id"] is None]
        _add_images(caller, left)
        missed = _add_others(caller, place, left) if everywhere else []
        return {"images": left if untracked else found, "unseen": missed, "links": links}


def check(seen: rpc.Seen, field: str = "marker") -> None:
    """Was the Cloud seen?

    :param field: what in the request names an image
    :raises CimingError: the Cloud was not seen
    """
    error = seen["error"]
    if error is None:
        return
    if error["code"] in ("marker.not_found", "image_ref.ambiguous"):
        raise exceptions.InvalidRequest(error["message"], code=error["code"], field=field)
    kind = exceptions.Forbidden if seen["status"] == "forbidden" else exceptions.Unavailable
    raise kind(error["message"], code=error["code"])


def digests_of(image: Mapping[str, Any]) -> set[str]:
    return {*(image["digests"] or {}).values()}


def equals(
    caller: context.RequestContext, place: Mapping[str, Any], digests: Sequence[str]
) -> list[tuple[dict[str, Any], rpc.Seen]]:
    """What the caller's other Clouds have with one of these digests, by Cloud."""
    others = [
        cloud
        for cloud in clouds.usable(caller)
        if cloud["id"] != place["id"] and (cloud["zone"] or cloud["credential_ref"])
    ]
    if not others or not digests:
        return []
    seen = live.look(caller, "match", places=[live.place(each) for each in others], digests=list(digests))
    return list(zip(others, seen, strict=True))


def _add_images(caller: context.RequestContext, found: Found) -> None:
    """Of those with the same digest, as candidates."""
    wanted = {digest for each in found for digest in digests_of(each)}
    known = tracked.with_digests(str(caller.project_id), wanted)
    for each in found:
        same = {image for digest in digests_of(each) for image in known.get(digest, ())}
        each["candidates"] += [
            {"image_id": image.id, "name": image.name, "cloud": None, "image_ref": None}
            for image in sorted(same)
        ]


def _add_others(caller: context.RequestContext, place: Mapping[str, Any], found: Found) -> Found:
    """What is the same in other Clouds, as candidates; the Clouds that were not seen."""
    wanted = sorted({digest for each in found for digest in digests_of(each)})
    seen = equals(caller, place, wanted)
    for cloud, there in seen:
        for each in found:
            each["candidates"] += [
                {"image_id": None, "name": other["name"], "cloud": cloud["name"], "image_ref": ref}
                for ref, other in there["found"].items()
                if digests_of(other) & digests_of(each)
            ]
    return unseen(seen)


def unseen(seen: Sequence[tuple[dict[str, Any], rpc.Seen]]) -> Found:
    """The Clouds of which not everything was seen."""
    return [
        {"cloud": cloud["name"], "status": there["status"], "error": there["error"]}
        for cloud, there in seen
        if there["error"]
    ]
