# SPDX-License-Identifier: Apache-2.0
"""Version discovery, as the API-SIG wants it: without a token, at / and /v1."""

from typing import Any

import flask
import flask_smorest
from flask.views import MethodView

from ciming import exceptions
from ciming.api import auth, middleware, schemas

SERVICE_TYPE = "multicloud"
KNOWN = ("1", "1.0", "latest")

blueprint = flask_smorest.Blueprint("versions", __name__, description="Version discovery")


def negotiate() -> None:
    """`OpenStack-API-Version: multicloud 1`: reserved for the day when there are several.

    :raises NotAcceptable: a version of this API is wanted that there is not
    """
    if flask.request.blueprint == blueprint.name:
        return      # whoever wants another version finds out here which there are
    for wanted in flask.request.headers.get(middleware.VERSION_HEADER, "").split(","):
        service, _, version = wanted.strip().partition(" ")
        if service == SERVICE_TYPE and version.strip() not in KNOWN:
            raise exceptions.NotAcceptable(
                f"There is no version {version[:64]!r} of this API. It has version 1 only; "
                f"GET / lists what there is.",
                field=middleware.VERSION_HEADER,
            )


def say(response: flask.Response) -> flask.Response:
    """Which version an answer is of."""
    response.headers[middleware.VERSION_HEADER] = f"{SERVICE_TYPE} 1.0"
    response.headers.add("Vary", middleware.VERSION_HEADER)
    return response


def _v1() -> dict[str, Any]:
    return {
        "id": "v1.0",
        "status": "CURRENT",
        "min_version": "",      # no microversions yet
        "version": "",
        "links": [{"rel": "self", "href": f"{flask.request.url_root}v1/"}],
    }


@blueprint.route("/")
class Root(MethodView):
    @auth.public
    @blueprint.response(200, schemas.Versions)
    @blueprint.doc(operationId="list_versions", security=[])
    def get(self) -> dict[str, Any]:
        """List API versions"""
        return {"versions": [_v1()]}


@blueprint.route("/v1", strict_slashes=False)
class One(MethodView):
    @auth.public
    @blueprint.response(200, schemas.VersionOne)
    @blueprint.doc(operationId="show_version", security=[])
    def get(self) -> dict[str, Any]:
        """Show API version 1"""
        return {"version": _v1()}
