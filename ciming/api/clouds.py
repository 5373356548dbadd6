# SPDX-License-Identifier: Apache-2.0
"""The Clouds a caller may use: the zones of their own catalog, and registered ones."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import flask_smorest
import marshmallow as ma
from flask.views import MethodView
from oslo_config import cfg
from oslo_log import log
from sqlalchemy import orm

from ciming import barbican, configs, context, exceptions, policies, rpc, sealing
from ciming.api import auth, document, errors, paging, queries, schemas, staging_area
from ciming.db import clouds as db
from ciming.db import models

LOG = log.getLogger(__name__)
LARGEST = 20_000        # characters of a credential, as a secret in Barbican may have
CLEARED = (
    "The Cloud is said to be elsewhere now, so its credential_ref was cleared: give one that is meant for "
    "this place."
)
COLUMNS = (
    *("id", "name", "provider", "visibility", "project_id"),
    *("config", "credential_ref", "created_at", "updated_at"),
)
LOCATION = {**document.LOCATION, "description": "Path of the Cloud."}

blueprint = flask_smorest.Blueprint(
    "clouds", __name__, url_prefix="/v1/clouds", description="Places where images can live"
)


def usable(caller: context.RequestContext) -> list[dict[str, Any]]:
    """All Clouds that the caller sees; zones come first, also where they share a name."""
    zones: list[dict[str, Any]] = [
        {
            "id": zone,
            "name": zone,
            "provider": "openstack",
            "region": zone,
            "visibility": "public",
            "zone": True,
            "project_id": None,
            "config": {},
            "credential_ref": None,
            "created_at": None,
            "updated_at": None,
        }
        for zone in caller.zones
    ]
    return [*zones, *(_registered(row) for row in db.visible(str(caller.project_id)))]


def _registered(row: models.Cloud) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS} | {
        "region": row.config.get("region"),
        "zone": False,
    }


def _shown(cloud: dict[str, Any], caller: context.RequestContext) -> dict[str, Any]:
    """Without what is the business of its own project and of operators."""
    if cloud["project_id"] == caller.project_id or policies.allowed("ciming:cloud:public", caller):
        return cloud
    return {**cloud, "credential_ref": None}


def resolve(
    caller: context.RequestContext,
    wanted: list[str] | str,
    field: str = "clouds",
    given: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The Clouds of these names or ids, each once; "all" for every one that can be used as it is.

    :param field: of the request that names them
    :param given: names or ids of Clouds whose credential comes with the request
    :raises InvalidRequest: the caller may use no Cloud of such a name, one has no credential, or they are
        too many
    """
    clouds = usable(caller)
    if wanted == "all":
        wanted = [cloud["id"] for cloud in clouds if _complete(cloud, given)]
    known = {cloud[key]: cloud for key in ("name", "id") for cloud in reversed(clouds)}
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        names = ", ".join(cloud["name"] for cloud in clouds) or "none"
        raise exceptions.InvalidRequest(
            f"Unknown Cloud: {', '.join(unknown)[:300]}. Clouds that you may use: {names}.",
            code="cloud.unknown",
            field=field,
        )
    chosen = list({known[name]["id"]: known[name] for name in wanted}.values())
    check_complete(chosen, given, field)
    most = cfg.CONF.api.max_targets
    if len(chosen) > most:
        raise exceptions.InvalidRequest(
            f"{len(chosen)} Clouds are too many at once: name {most} at most.",
            code="cloud.too_many",
            field="clouds",
        )
    return chosen


def check_complete(chosen: Iterable[dict[str, Any]], given: Collection[str], field: str) -> None:
    """:raises InvalidRequest: there is no credential for one of the Clouds"""
    bare = [cloud["name"] for cloud in chosen if not _complete(cloud, given)]
    if bare:
        raise exceptions.InvalidRequest(
            f"There is no credential for {', '.join(bare)}: give one with the request, or set credential_ref "
            "of the Cloud.",
            code="cloud.no_credential",
            field=field,
        )


def _complete(cloud: dict[str, Any], given: Collection[str]) -> bool:
    return bool(cloud["zone"] or cloud["credential_ref"] or cloud["name"] in given or cloud["id"] in given)


def credentials(chosen: Iterable[Mapping[str, Any]], said: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What came with a request, as the providers' schemas have it, by the ids of the Clouds.

    :param chosen: the Clouds that the request is about
    :param said: by their names or ids
    :raises InvalidRequest: it is none, or for another Cloud, or for a zone. No word out of it is in there
    """
    known = {cloud[key]: cloud for cloud in chosen for key in ("name", "id")}
    found: dict[str, dict[str, Any]] = {}
    for name, each in said.items():
        cloud = known.get(name)
        if cloud is None or cloud["id"] in found:
            names = ", ".join(dict.fromkeys(cloud["name"] for cloud in known.values()))
            raise _no_credential(f"Name each of the Clouds that are asked for, once: {names}.")
        if db.is_zone(cloud["id"], cloud["region"]):
            raise _no_credential(f"{cloud['name']} is a zone: it needs none.")
        found[cloud["id"]] = _credential(cloud, each)
    return found


def _credential(cloud: Mapping[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    schema = _schema(cloud["provider"]).credential()
    if len(json.dumps(said)) > LARGEST:
        raise _no_credential(f"{cloud['name']}: it has more than {LARGEST} characters.")
    try:
        found: dict[str, Any] = schema.load(said)
    except ma.ValidationError as error:
        raise _no_credential(f"{cloud['name']}: {configs.why(schema, error)}") from None
    return found


def _no_credential(why: str) -> exceptions.InvalidRequest:
    return exceptions.InvalidRequest(why, code="credential.invalid", field="credentials")


def find(caller: context.RequestContext, key: str) -> dict[str, Any]:
    """The Cloud of an id or name.

    :raises NotFound: there is none, or it is another project's
    """
    clouds = usable(caller)
    for name in ("id", "name"):
        for found in clouds:
            if key == found[name]:
                return found
    raise exceptions.NotFound(f"No Cloud {key[:255]}.", code="cloud.not_found")


@blueprint.route("")
class Clouds(MethodView):
    @auth.needs("cloud:list")
    @blueprint.arguments(queries.CloudQuery, location="query", unknown=ma.RAISE, error_status_code=400)
    @blueprint.response(200, schemas.Clouds)
    @blueprint.doc(operationId="list_clouds")
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List Clouds"""
        caller = auth.caller()
        found = paging.matching(usable(caller), query)
        return {"clouds": [_shown(cloud, caller) for cloud in found]}

    @auth.needs("cloud:create")
    @blueprint.arguments(schemas.CloudCreate, error_status_code=400)
    @blueprint.response(201, schemas.Cloud, headers={"Location": LOCATION})
    @blueprint.doc(operationId="create_cloud")
    def post(self, wanted: dict[str, Any]) -> Any:
        """Register a Cloud

        What `config` has to say depends on the provider. To register public ones is for operators.
        """
        caller = auth.caller()
        if wanted["visibility"] == "public":
            policies.authorize("ciming:cloud:public", caller)
        _check_name(caller, wanted["name"])
        _check_ref(caller, wanted["credential_ref"])
        wanted["config"] = _loaded(_schema(wanted["provider"]), wanted["config"])
        row = models.Cloud(id=models.new_id(), project_id=caller.project_id, **wanted)
        db.create(row)
        LOG.info("Registered Cloud %s", row.id)
        return _registered(row), 201, document.location(f"/v1/clouds/{row.id}")


@blueprint.route("/<string:cloud>")
class Cloud(MethodView):
    @auth.needs("cloud:show")
    @blueprint.response(200, schemas.Cloud)
    @blueprint.doc(operationId="show_cloud")
    def get(self, cloud: str) -> dict[str, Any]:
        """Show a Cloud"""
        caller = auth.caller()
        return _shown(find(caller, cloud), caller)

    @auth.needs("cloud:update")
    @blueprint.arguments(schemas.CloudUpdate, error_status_code=400)
    @blueprint.response(200, schemas.ChangedCloud)
    @blueprint.doc(operationId="update_cloud")
    def patch(self, wanted: dict[str, Any], cloud: str) -> dict[str, Any]:
        """Change a registered Cloud

        Its provider and visibility stay. To change what says where it is clears `credential_ref`, unless a
        new one comes with the same call, and then `note` says so; it can not be done while Jobs work on it.
        """
        caller = auth.caller()
        found = _changeable(caller, cloud)
        if "name" in wanted:
            _check_name(caller, wanted["name"])
        _check_ref(caller, wanted.get("credential_ref"))
        notes: list[str] = []
        row = db.update(found["id"], lambda session, row: notes.extend(_change(session, row, wanted)))
        LOG.info("Changed Cloud %s: %s", row.id, ", ".join(wanted))
        return {**_registered(row), **({"note": " ".join(notes)} if notes else {})}

    @auth.needs("cloud:delete")
    @blueprint.response(204)
    @blueprint.doc(operationId="delete_cloud")
    def delete(self, cloud: str) -> None:
        """Delete a registered Cloud

        Not while it has Images, or Jobs work on it. The images there, and the secret, stay.
        """
        found = _changeable(auth.caller(), cloud)
        db.delete(found["id"])
        LOG.info("Deleted Cloud %s", found["id"])


@blueprint.route("/<string:cloud>/check")
class Check(MethodView):
    @auth.needs("cloud:check")
    @blueprint.arguments(schemas.Nothing, required=False, error_status_code=400)
    @blueprint.response(200, schemas.Checks)
    @blueprint.doc(operationId="check_cloud")
    def post(self, _nothing: dict[str, Any], cloud: str) -> dict[str, Any]:
        """Check a Cloud

        An engine looks, as the caller and within seconds, whether the Cloud can be used. It creates a record
        of an image there, and deletes it again.
        """
        caller = auth.caller()
        found = find(caller, cloud)
        place = {"cloud_key": found["id"], "cloud": found["name"]}
        place |= {name: found[name] for name in ("provider", "region")}
        bundle = sealing.Bundle(token=caller.auth_token)
        checks = rpc.check_cloud(str(caller.project_id), bundle, place, staging_area.get().marker)
        return {"passed": all(each["passed"] is not False for each in checks), "checks": checks}


def _changeable(caller: context.RequestContext, key: str) -> dict[str, Any]:
    """A registered Cloud that the caller may change.

    :raises Conflict: it is a zone
    :raises Forbidden: it is public, and the caller no operator
    """
    found = find(caller, key)
    if found["zone"]:
        raise exceptions.Conflict(
            f"{found['name']} is a zone: a region of your OpenStack, that nobody registered. It can not be "
            "changed or deleted here.",
            code="cloud.is_zone",
        )
    if found["visibility"] == "public":
        policies.authorize("ciming:cloud:public", caller)
    return found


def _change(session: orm.Session, row: models.Cloud, wanted: dict[str, Any]) -> list[str]:
    """Change a row; what there is to be said of it."""
    row.name = wanted.get("name", row.name)
    notes = []
    if "config" in wanted:
        schema = _schema(row.provider)
        for name in wanted["config"].keys() - schema.fields.keys():     # also one that is to be removed
            raise exceptions.InvalidRequest(
                "Unknown field.", code="cloud.invalid_config", field=f"config.{name}"[:200]
            )
        merged = {name: value for name, value in (row.config | wanted["config"]).items() if value is not None}
        config = _loaded(schema, merged)
        if configs.diverted(schema, row.config, config):
            db.check_idle(session, row)
        keeps = "credential_ref" in wanted or not row.credential_ref
        if configs.moved(schema, row.config, config) and not keeps:
            row.credential_ref = None
            notes.append(CLEARED)
        row.config = config
    row.credential_ref = wanted.get("credential_ref", row.credential_ref)
    return notes


def _check_name(caller: context.RequestContext, name: str) -> None:
    """Those of one's zones are reserved; the others are looked at when it is written."""
    if name in caller.zones:
        raise db.name_taken(name)


def _check_ref(caller: context.RequestContext, href: str | None) -> None:
    """:raises InvalidRequest: it is no secret of the caller's own Barbican"""
    if href is None:
        return
    ref = barbican.parse(href)
    endpoints = caller.endpoints(barbican.SERVICE_TYPE)
    if ref and barbican.is_of(ref, endpoints):
        return
    where = ", ".join(dict.fromkeys(barbican.base(url) for url in endpoints))
    raise exceptions.InvalidRequest(
        f"This is no href of a secret in your Barbican: {where}/v1/secrets/UUID is needed."
        if where
        else "Your catalog has no Barbican (key-manager), so there can be no secret with a credential.",
        code="cloud.invalid_secret",
        field="credential_ref",
    )


def _schema(provider: str) -> configs.Config:
    schema = configs.load(provider)
    if schema is None:
        raise exceptions.InvalidRequest(
            f"No Clouds of this provider can be registered. Those that can: {', '.join(configs.names())}.",
            code="cloud.unknown_provider",
            field="provider",
        )
    return schema


def _loaded(schema: configs.Config, config: dict[str, Any]) -> dict[str, Any]:
    """:raises InvalidRequest: the provider can do nothing with it; the first thing that is wrong"""
    try:
        found: dict[str, Any] = schema.load(config)
    except ma.ValidationError as error:
        field, detail = next(errors.flatten(error.messages, "config"))
        raise exceptions.InvalidRequest(detail, code="cloud.invalid_config", field=field) from None
    return found
