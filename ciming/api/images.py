# SPDX-License-Identifier: Apache-2.0
"""Images: create, list, show, change, delete; bring them into more Clouds."""

import functools
from typing import Any

import flask_smorest
import marshmallow as ma
from flask.views import MethodView
from oslo_log import log

from ciming import context, exceptions
from ciming.api import (
    adoption,
    auth,
    clouds,
    delegation,
    document,
    limits,
    orders,
    paging,
    queries,
    schemas,
    staging_area,
)
from ciming.db import api as db
from ciming.db import images, lists, models, uploads

LOG = log.getLogger(__name__)

blueprint = flask_smorest.Blueprint(
    "images", __name__, url_prefix="/v1/images", description="One image across clouds"
)


@blueprint.route("")
class Images(MethodView):
    @auth.needs("image:list")
    @blueprint.arguments(queries.ImageQuery, location="query", unknown=ma.RAISE, error_status_code=400)
    @blueprint.response(200, schemas.Images)
    @blueprint.doc(operationId="list_images")
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List Images"""
        return paging.page("image", lists.images, query)

    @auth.needs("image:create")
    @blueprint.arguments(schemas.ImageCreate, error_status_code=400)
    @blueprint.response(202, schemas.ImageAndJob, headers={"Location": document.LOCATION})
    @blueprint.doc(operationId="create_image")
    def post(self, wanted: dict[str, Any]) -> Any:
        """Create an Image

        With a `source` the Job brings it from the Cloud that has it, and links it there, too; with no
        `clouds` beside it, it only links it. Else the Job is `uploading` until the data came by `PUT
        /v1/images/{image}/file`.
        """
        if not wanted["clouds"]:
            return adoption.adopt(auth.caller(), wanted)
        return orders.started(*_create(auth.caller(), wanted))


@blueprint.route("/<string:image>")
class Image(MethodView):
    @auth.needs("image:show")
    @blueprint.response(200, schemas.Image)
    @blueprint.doc(operationId="show_image")
    def get(self, image: str) -> models.Image:
        """Show an Image"""
        return db.get_image(schemas.row_id("image", image), auth.scope())

    @auth.needs("image:update")
    @blueprint.arguments(schemas.ImageUpdate, error_status_code=400)
    @blueprint.response(202, schemas.ChangedImage, headers={"Location": document.LOCATION})
    @blueprint.alt_response(
        200, schema=schemas.ChangedImage, description="The Image is in no Cloud: only its record was changed."
    )
    @blueprint.doc(operationId="update_image")
    def patch(self, wanted: dict[str, Any], image: str) -> Any:
        """Change an Image

        Its record at once, and what is in its Clouds by a Job. What a Cloud can not carry is in the `remarks`
        of its Target. `tags` are all that it is to have; others' tags in a Cloud stay.
        """
        row, given = orders.own_image(image), wanted.pop("credentials", {})
        if not row.links:
            images.change(row.id, wanted)
            LOG.info("Changed Image %s: %s", row.id, ", ".join(wanted))
            return {"image": db.get_image(row.id, None), "job": None}, 200
        there = [orders.as_cloud(link) for link in row.links]
        credentials = clouds.credentials(there, given)
        change = functools.partial(images.changed_by, said=wanted)
        return orders.begin("update", row, there, credentials, change, said=list(wanted))

    @auth.needs("image:delete")
    @blueprint.arguments(queries.ImageDelete, location="query", unknown=ma.RAISE, error_status_code=400)
    @blueprint.response(202, schemas.ImageAndJob, headers={"Location": document.LOCATION})
    @blueprint.alt_response(204, description="Nothing was to be done in a Cloud.")
    @blueprint.doc(operationId="delete_image")
    def delete(self, query: dict[str, Any], image: str) -> Any:
        """Delete an Image

        In all its Clouds, by a Job whose Targets say how it went, and then its record; or in some of them,
        and its record stays. An image that is protected in its Cloud stays there, and stays linked.
        """
        row = orders.own_image(image)
        names = query.get("cloud")
        links = row.links if names is None else orders.linked(row, names)
        if links and not query.get("keep_remote"):
            refs = {link.cloud_key: link.image_ref for link in links}
            there = [orders.as_cloud(link) for link in links]
            return orders.begin("delete", row, there, refs=refs, whole=names is None)
        images.forget(row.id, None if names is None else [link.cloud_key for link in links])
        LOG.info("Forgot Image %s%s", row.id, "" if names is None else f" in {names}")
        return "", 204


@blueprint.route("/<string:image>/clouds")
class ImageClouds(MethodView):
    @auth.needs("image:sync")
    @blueprint.arguments(schemas.ImageClouds, error_status_code=400)
    @blueprint.response(202, schemas.ImageAndJob, headers={"Location": document.LOCATION})
    @blueprint.doc(operationId="sync_image")
    def post(self, wanted: dict[str, Any], image: str) -> Any:
        """Bring an Image into more Clouds

        From the best of its Links that can be read. `all` are those that it is not in yet.
        """
        row = orders.own_image(image)
        said = wanted.get("credentials", {})
        chosen = clouds.resolve(auth.caller(), wanted["clouds"], given=said)
        if wanted["clouds"] == "all":
            linked = {link.cloud_key for link in row.links}
            chosen = [cloud for cloud in chosen if cloud["id"] not in linked]
        if not row.links:
            raise exceptions.Conflict(
                f"Image {row.id} is in no Cloud from which it could be brought.", code="image.not_linked"
            )
        if not chosen:
            raise exceptions.Conflict(
                f"Image {row.id} is in all Clouds that you may use.", code="image.already_linked"
            )
        there = [orders.as_cloud(link) for link in row.links]
        return orders.begin("sync", row, chosen, clouds.credentials([*chosen, *there], said))


def _create(caller: context.RequestContext, wanted: dict[str, Any]) -> tuple[str, str]:
    """Check everything that can be checked, make the trust, then commit all rows at once; the ids of both."""
    said = wanted.pop("credentials", {})
    chosen = clouds.resolve(caller, wanted.pop("clouds"), given=said)
    if "match_digest" in wanted:
        raise exceptions.InvalidRequest("This is for what is adopted: clouds [].", field="match_digest")
    size, source = wanted.pop("size", None), wanted.pop("source", None)
    if source:
        [there] = clouds.resolve(caller, [source["cloud"]], "source.cloud", said)
        chosen = _besides(there, source, chosen, size)
        wanted["source"] = source
    staging_area.check_size(size or 0)
    used = [*chosen, *([there] if source else [])]
    credentials = clouds.credentials(used, said)
    limits.check(str(caller.project_id), images=1, jobs=1, staged=None if source else size or 0)
    limits.check_rate(str(caller.project_id), [cloud["id"] for cloud in used])
    with delegation.delegated(caller, credentials) as given:
        image = models.Image(
            id=models.new_id(),
            project_id=caller.project_id,
            user_id=caller.user_id,
            name=wanted["name"],
            size=size,
            tags=list(dict.fromkeys(wanted.get("tags", []))),
        )
        job = orders.job(
            caller, "create", given, chosen, wanted, stage="staging" if source else "uploading"
        )
        if source:
            job.begun = [[models.now(), [source["cloud_key"]]]]
        for target in job.targets:
            target.bytes_total = size
        # Room is only looked for: it is reserved when bytes come, or one could hold it with none.
        upload = models.Upload(job_id=job.id, size=size, expires_at=staging_area.expiry())
        if source:
            upload = images.from_cloud(job.id)
        check_room = functools.partial(
            uploads.reserve, needed=size or 0, room=staging_area.room, job_id=job.id
        )
        db.create(image, job, upload, check_room, given.settle)
    context.about(job.id)
    LOG.info("Create Image %s in %s", image.id, [cloud["name"] for cloud in chosen])
    if source:
        given.knock()
    return image.id, job.id


def _besides(
    cloud: dict[str, Any], source: dict[str, Any], chosen: list[dict[str, Any]], size: int | None
) -> list[dict[str, Any]]:
    """The Clouds into which it is to be brought: not that of the source, which is added to the source.

    :raises InvalidRequest: there is no other, or what the source will tell was said as well
    """
    if size is not None:
        raise exceptions.InvalidRequest("The source has its own size: leave it out.", field="size")
    source.update(cloud_key=cloud["id"], cloud=cloud["name"])
    source.update({name: cloud[name] for name in ("provider", "region")})
    others = [each for each in chosen if each["id"] != cloud["id"]]
    if not others:
        raise exceptions.InvalidRequest(
            f"The image is in {cloud['name']} already: name another Cloud to bring it into.", field="clouds"
        )
    return others
