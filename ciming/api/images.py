# SPDX-License-Identifier: Apache-2.0
"""Images: create, list, show."""

import functools
from typing import Any

import flask_smorest
import marshmallow as ma
from flask.views import MethodView
from oslo_log import log

from ciming import context
from ciming.api import auth, clouds, delegation, document, errors, paging, queries, schemas, staging_area
from ciming.db import api as db
from ciming.db import lists, models, uploads

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

        The Job is `uploading` until the data came by `PUT /v1/images/{image}/file`.
        """
        image, job = _create(auth.caller(), wanted)
        return {"image": image, "job": job}, 202, {"Location": f"/v1/jobs/{job.id}"}


@blueprint.route("/<string:image>")
class Image(MethodView):
    @auth.needs("image:show")
    @blueprint.response(200, schemas.Image)
    @blueprint.doc(operationId="show_image")
    def get(self, image: str) -> models.Image:
        """Show an Image"""
        return db.get_image(schemas.row_id("image", image), auth.scope())


def _create(caller: context.RequestContext, wanted: dict[str, Any]) -> tuple[models.Image, models.Job]:
    """Check everything that can be checked, make the trust, then commit all rows at once."""
    chosen = clouds.resolve(caller, wanted.pop("clouds"))
    size = wanted.pop("size", None)
    staging_area.check_size(size or 0)
    with delegation.trust(caller) as given:
        image = models.Image(
            id=models.new_id(),
            project_id=caller.project_id,
            user_id=caller.user_id,
            name=wanted["name"],
            size=size,
            tags=list(dict.fromkeys(wanted.get("tags", []))),
        )
        job = models.Job(
            id=models.new_id(),
            project_id=caller.project_id,
            user_id=caller.user_id,
            kind="create",
            stage="uploading",
            spec=wanted,
            trust_id=given.trust_id,
            request_id=errors.request_id(),
            marker=staging_area.get().marker,
            targets=[
                models.Target(
                    cloud_key=cloud["id"],
                    cloud=cloud["name"],
                    provider=cloud["provider"],
                    region=cloud["region"],
                    step="receive",
                    bytes_total=size,
                )
                for cloud in chosen
            ],
        )
        # Room is only looked for: it is reserved when bytes come, or one could hold it with none.
        upload = models.Upload(job_id=job.id, size=size, expires_at=staging_area.expiry())
        check_room = functools.partial(
            uploads.reserve, needed=size or 0, room=staging_area.room, job_id=job.id
        )
        db.create(image, job, upload, check_room, given.settle, clouds.hold(chosen))
    context.about(job.id)
    LOG.info("Create Image %s in %s", image.id, [cloud["name"] for cloud in chosen])
    return db.get_image(image.id, None), db.get_job(job.id, None)
