# SPDX-License-Identifier: Apache-2.0
"""What an Image is in its Clouds, linked and unlinked by hand."""

from typing import Any

import flask_smorest
from flask.views import MethodView
from oslo_log import log

from ciming.api import auth, clouds, document, orders, schemas
from ciming.db import images

LOG = log.getLogger(__name__)

blueprint = flask_smorest.Blueprint(
    "links", __name__, url_prefix="/v1/images", description="What an Image is in each of its Clouds"
)


@blueprint.route("/<string:image>/links")
class Links(MethodView):
    @auth.needs("image:link")
    @blueprint.arguments(schemas.LinkCreate, error_status_code=400)
    @blueprint.response(202, schemas.ImageAndJob, headers={"Location": document.LOCATION})
    @blueprint.doc(operationId="link_image")
    def post(self, wanted: dict[str, Any], image: str) -> Any:
        """Link what a Cloud has to an Image

        The Job looks whether you can see it there. Its proof is `bytes` where the Cloud's hash is that of the
        Image, else `asserted`.
        """
        row = orders.own_image(image)
        said = wanted.get("credentials", {})
        [cloud] = clouds.resolve(auth.caller(), [wanted["cloud"]], "cloud", said)
        credentials = clouds.credentials([cloud], said)
        return orders.begin("link", row, [cloud], credentials, refs={cloud["id"]: wanted["image_ref"]})


@blueprint.route("/<string:image>/links/<string:cloud>")
class Link(MethodView):
    @auth.needs("image:unlink")
    @blueprint.response(204)
    @blueprint.doc(operationId="unlink_image")
    def delete(self, image: str, cloud: str) -> None:
        """Forget a Link

        What is in the Cloud stays as it is.
        """
        row = orders.own_image(image)
        images.forget(row.id, [link.cloud_key for link in orders.linked(row, [cloud])])
        LOG.info("Unlinked Image %s in %s", row.id, cloud)
