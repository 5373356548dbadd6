# SPDX-License-Identifier: Apache-2.0
"""The Clouds a caller may use: the zones of their own catalog."""

from typing import Any

import flask_smorest
import marshmallow as ma
from flask.views import MethodView
from oslo_config import cfg

from ciming import context, exceptions
from ciming.api import auth, paging, queries, schemas

blueprint = flask_smorest.Blueprint(
    "clouds", __name__, url_prefix="/v1/clouds", description="Places where images can live"
)


def usable(caller: context.RequestContext) -> list[dict[str, Any]]:
    """All Clouds that the caller may use."""
    return [
        {
            "id": zone,
            "name": zone,
            "provider": "openstack",
            "region": zone,
            "visibility": "public",
            "zone": True,
        }
        for zone in caller.zones
    ]


def resolve(
    caller: context.RequestContext, wanted: list[str] | str, field: str = "clouds"
) -> list[dict[str, Any]]:
    """The Clouds of these names or ids, each once; "all" for every one.

    :param field: of the request that names them
    :raises InvalidRequest: the caller may use no Cloud of such a name, or they are too many
    """
    clouds = usable(caller)
    if wanted == "all":
        wanted = [cloud["name"] for cloud in clouds]
    known = {key: cloud for cloud in clouds for key in (cloud["id"], cloud["name"])}
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        names = ", ".join(cloud["name"] for cloud in clouds) or "none"
        raise exceptions.InvalidRequest(
            f"Unknown Cloud: {', '.join(unknown)[:300]}. Clouds that you may use: {names}.",
            code="cloud.unknown",
            field=field,
        )
    chosen = list({known[name]["id"]: known[name] for name in wanted}.values())
    most = cfg.CONF.api.max_targets
    if len(chosen) > most:
        raise exceptions.InvalidRequest(
            f"{len(chosen)} Clouds are too many at once: name {most} at most.",
            code="cloud.too_many",
            field="clouds",
        )
    return chosen


@blueprint.route("")
class Clouds(MethodView):
    @auth.needs("cloud:list")
    @blueprint.arguments(queries.CloudQuery, location="query", unknown=ma.RAISE, error_status_code=400)
    @blueprint.response(200, schemas.Clouds)
    @blueprint.doc(operationId="list_clouds")
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List Clouds"""
        return {"clouds": paging.matching(usable(auth.caller()), query)}


@blueprint.route("/<string:cloud>")
class Cloud(MethodView):
    @auth.needs("cloud:show")
    @blueprint.response(200, schemas.Cloud)
    @blueprint.doc(operationId="show_cloud")
    def get(self, cloud: str) -> dict[str, Any]:
        """Show a Cloud"""
        for found in usable(auth.caller()):
            if cloud in (found["id"], found["name"]):
                return found
        raise exceptions.NotFound(f"No Cloud {cloud[:255]}.", code="cloud.not_found")
