# SPDX-License-Identifier: Apache-2.0
"""Where Images are now: a matrix of Images and Clouds, live."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import flask_smorest
import marshmallow as ma
from flask.views import MethodView

from ciming import context, exceptions, rpc
from ciming.api import auth, clouds, judging, live, orders, paging, queries
from ciming.db import lists, models, tracked

Cloud = Mapping[str, Any]
Cell = dict[str, Any]
NOT_USABLE = {
    "code": "cloud.unknown",
    "message": "The Image is linked in this Cloud, which is none that you may use now.",
    "cloud_request_id": None,
}

blueprint = flask_smorest.Blueprint(
    "availability", __name__, url_prefix="/v1", description="Where Images are now"
)


@blueprint.route("/availability")
class Availabilities(MethodView):
    @auth.needs("image:availability")
    @blueprint.arguments(queries.Availability, location="query", unknown=ma.RAISE, error_status_code=400)
    @blueprint.response(200, live.Availabilities)
    @blueprint.doc(operationId="list_availability")
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """See where Images are

        Clouds are asked now, all at the same time. Pages are those of the Images; what is asked for of
        Clouds leaves some of them out, so that a page may have fewer, and yet not be the last.
        """
        caller = auth.caller()
        of_cells = {name: query.pop(name) for name in queries.Cells().fields if name in query}
        there = {name: _ids(caller, query.pop(name, ()), name) for name in ("available_in", "missing_in")}
        rows, links = paging.rows_of("image", lists.images, query)
        everywhere = _columns(caller, rows)
        shown = {cloud["id"] for cloud in _chosen(everywhere, of_cells)}
        needed = shown.union(*there.values())
        found = _matrix(caller, rows, [cloud for cloud in everywhere if cloud["id"] in needed])
        kept = [(image, cells) for image, cells in found if _is_where(cells, **there)]
        return {"availability": list(_shown(kept, shown, of_cells)), "links": links}


@blueprint.route("/images/<string:image>/availability")
class Availability(MethodView):
    @auth.needs("image:availability")
    @blueprint.arguments(queries.Cells, location="query", unknown=ma.RAISE, error_status_code=400)
    @blueprint.response(200, live.Availability)
    @blueprint.doc(operationId="show_availability")
    def get(self, query: dict[str, Any], image: str) -> dict[str, Any]:
        """See where an Image is

        Its Clouds are asked now, all at the same time.
        """
        caller, row = auth.caller(), orders.own_image(image)
        ((_, cells),) = _matrix(caller, [row], _chosen(_columns(caller, [row]), query))
        return {"image": row, "clouds": _filtered(cells, query)}


def _ids(caller: context.RequestContext, names: Iterable[str], field: str) -> set[str]:
    """Of Clouds.

    :raises InvalidRequest: one of them is none that the caller may use
    """
    try:
        return {clouds.find(caller, name)["id"] for name in names}
    except exceptions.NotFound as error:
        raise exceptions.InvalidRequest(error.detail, code="cloud.unknown", field=field) from None


def _columns(caller: context.RequestContext, images: Iterable[models.Image]) -> Sequence[Cloud]:
    """All Clouds that the caller may use, and those in which the Images are linked though they may not."""
    usable = {cloud["id"]: cloud for cloud in clouds.usable(caller)}
    others = {
        link.cloud_key: {**orders.as_cloud(link), "lost": True}
        for image in images
        for link in image.links
        if link.cloud_key not in usable
    }
    return [*usable.values(), *others.values()]


def _chosen(columns: Iterable[Cloud], query: Mapping[str, Any]) -> Sequence[Cloud]:
    """Those that are asked for."""
    named = [{**cloud, "cloud": cloud["name"]} for cloud in columns]
    return paging.matching(named, {name: query[name] for name in ("cloud", "provider") if name in query})


def _matrix(
    caller: context.RequestContext, images: Sequence[models.Image], columns: Sequence[Cloud]
) -> list[tuple[models.Image, list[Cell]]]:
    """What each Image is in each of these Clouds."""
    seen = _look(caller, images, columns)
    coming = {(each.image_id, each.cloud_key): each for each in tracked.coming([row.id for row in images])}
    found = []
    for image in images:
        links, cells = {link.cloud_key: link for link in image.links}, []
        for cloud in columns:
            key = cloud["id"]
            if cloud.get("lost") and key not in links:
                continue        # it is there for another Image of this page
            said = _cell(image, links.get(key), seen.get(key), coming.get((image.id, key)))
            cells.append({**_empty(cloud), **said})
        found.append((image, cells))
    return found


def _empty(cloud: Cloud) -> Cell:
    place = {"cloud": cloud["name"], "cloud_id": cloud["id"]}
    place |= {name: cloud[name] for name in ("provider", "region")}
    nothing = dict.fromkeys(("image_ref", "proof", "metadata", "error"))
    return {**place, "status": "missing", "differs": [], **nothing}


def _cell(
    image: models.Image, link: models.Link | None, seen: rpc.Seen | None, coming: tracked.Coming | None
) -> Cell:
    """What is to be said beside that it is missing."""
    if link is None:
        return {"status": "pending", "image_ref": coming.image_ref} if coming else {}
    there = {"image_ref": link.image_ref, "proof": link.proof}
    if seen is None:
        return {**there, "status": "unreachable", "error": NOT_USABLE}
    metadata = seen["found"].get(link.image_ref)
    if metadata:
        status, differs = judging.judge(image, link, metadata)
        return {**there, "status": status, "differs": differs, "metadata": metadata}
    if seen["error"]:
        return {**there, "status": seen["status"], "error": seen["error"]}
    namesakes = judging.successors(link, seen["namesakes"].get(link.image_ref, ()))
    if namesakes:
        newest = max(namesakes, key=lambda each: each["created_at"] or 0)
        return {
            **there,
            "status": "drifted",
            "differs": [judging.replaced(link, newest)],
            "metadata": newest,
        }
    return {**there, "status": "missing"}


def _look(
    caller: context.RequestContext, images: Iterable[models.Image], columns: Iterable[Cloud]
) -> dict[str, rpc.Seen]:
    """What the Clouds say, by their ids: of each only what is linked there."""
    named: dict[str, dict[str, str]] = {}
    for image in images:
        for link in image.links:
            name = (link.told or {}).get("name") or image.name
            named.setdefault(link.cloud_key, {})[link.image_ref] = name
    asked = [cloud for cloud in columns if cloud["id"] in named and not cloud.get("lost")]
    if not asked:
        return {}
    wanted = [{"place": live.place(cloud), "images": named[cloud["id"]]} for cloud in asked]
    found = live.look(caller, "look", wanted=wanted)
    for cloud, seen in zip(asked, found, strict=True):
        _leave_out_tracked(caller, cloud, seen)
    return {cloud["id"]: seen for cloud, seen in zip(asked, found, strict=True)}


def _leave_out_tracked(caller: context.RequestContext, cloud: Cloud, seen: rpc.Seen) -> None:
    """What is another Image has replaced none."""
    refs = {each["image_ref"] for some in seen["namesakes"].values() for each in some}
    known = tracked.linked(str(caller.project_id), cloud["id"], refs) if refs else {}
    seen["namesakes"] = {
        ref: left
        for ref, some in seen["namesakes"].items()
        if (left := [each for each in some if each["image_ref"] not in known])
    }


def _is_where(cells: Iterable[Cell], available_in: set[str], missing_in: set[str]) -> bool:
    status = {cell["cloud_id"]: cell["status"] for cell in cells}
    # A Cloud that was just deleted has no cell.
    return all(status.get(each) == "available" for each in available_in) and all(
        status.get(each) == "missing" for each in missing_in
    )


def _shown(
    found: Iterable[tuple[models.Image, list[Cell]]], shown: set[str], query: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Without Clouds that were not asked for, and without Images of which nothing is left."""
    for image, cells in found:
        left = _filtered([cell for cell in cells if cell["cloud_id"] in shown], query)
        if left or not {"status", "property"} & query.keys():
            yield {"image": image, "clouds": left}


def _filtered(cells: Iterable[Cell], query: Mapping[str, Any]) -> list[Cell]:
    wanted = [text.split("=", 1) for text in query.get("property", ())]
    found = paging.matching(cells, {name: query[name] for name in ("status",) if name in query})
    return [cell for cell in found if all(_property(cell, name) == value for name, value in wanted)]


def _property(cell: Cell, name: str) -> str | None:
    value: str | None = cell["metadata"]["properties"].get(name) if cell["metadata"] else None
    return value
