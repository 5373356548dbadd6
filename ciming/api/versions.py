# SPDX-License-Identifier: Apache-2.0
"""Version discovery, as the API-SIG wants it: without a token, at / and /v1."""

from typing import Any

import flask
import flask_smorest
from flask.views import MethodView

from ciming.api import auth, schemas

blueprint = flask_smorest.Blueprint("versions", __name__, description="Version discovery")


def _v1() -> dict[str, Any]:
    return {
        "id": "v1.0",
        "status": "CURRENT",
        "min_version": "",      # no microversions yet
        "version": "",
        "links": [{"rel": "self", "href": f"{flask.request.host_url}v1/"}],
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
