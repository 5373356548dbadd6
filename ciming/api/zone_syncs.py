# SPDX-License-Identifier: Apache-2.0
"""Zones that are brought in line with another."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import flask
import flask_smorest
import marshmallow as ma
from flask.views import MethodView
from oslo_config import cfg
from oslo_log import log

from ciming import context, exceptions, policies, rpc, sealing, zone_plans
from ciming.api import auth, delegation, document, errors, limits, schemas, staging_area
from ciming.db import api as db
from ciming.db import models, zone_syncs

LOG = log.getLogger(__name__)
FIRST_YEAR = 1970
LARGEST = 64 * 2**20    # bytes of a request with a plan of some ten thousand images
LONG_PLANS = threading.BoundedSemaphore(1)      # parsed at a time: in memory one is many times as large
PARSED_SECONDS = 60.0   # in which another one's turn is over
_LOCK = threading.Lock()
_sending: set[str | None] = set()       # projects that send one

blueprint = flask_smorest.Blueprint(
    "zone-syncs", __name__, url_prefix="/v1/zone-syncs", description="Zones that are brought in line"
)


@blueprint.route("")
class ZoneSyncs(MethodView):
    @auth.needs("zone_sync:create")
    @blueprint.arguments(schemas.ZoneSync, error_status_code=400)
    @blueprint.response(202, schemas.ZoneJob, headers={"Location": document.LOCATION})
    @blueprint.alt_response(200, schema=schemas.PlanMade, description="The plan, of a dry run.")
    @blueprint.doc(operationId="sync_zones")
    def post(self, wanted: dict[str, Any]) -> Any:
        """Sync zones

        The targets get what the source has: a Job plans that, and each image is brought by a Job of its own,
        that has this one for its `parent`. Operators sync the images of all projects, others those of their
        own.
        """
        _parsed()
        caller = auth.caller()
        everything = policies.allowed("ciming:zone_sync:everything", caller)
        given = wanted.get("plan")
        if "max_delete" in wanted and not wanted["prune"]:
            raise exceptions.InvalidRequest(
                "It says how many may be pruned: say prune, too.", field="max_delete"
            )
        request = _agreed(given) if given else _request(wanted)
        request = _checked(caller, request, everything=everything)
        spec: dict[str, Any] = {"request": request, "everything": everything}
        if given or wanted["dry_run"]:
            made = _plan(caller, spec)
            if not given:
                return flask.jsonify(made)
            if made["digest"] != given["digest"]:
                raise exceptions.Conflict(
                    "The zones are not any more as they were when this plan was made: "
                    f"{zone_plans.changes(given, made)}. Make another one.",
                    code="zone_sync.plan_outdated",
                )
            spec["digest"] = given["digest"]
        return _begun(caller, spec, wait=wanted["when_busy"] == "wait")


def before_request() -> None:
    """A plan may be longer than other requests: of who may sync zones, and of each project one at a time.

    However slowly it comes, no other project waits for it; they take turns in being parsed.

    :raises Unavailable: there is another one just now
    """
    request = flask.request
    size = request.content_length       # None: nobody knows
    is_long = size is None or size > cfg.CONF.api.max_json_body
    if request.blueprint != blueprint.name or request.method != "POST" or not is_long:
        return
    caller = auth.caller()
    if not policies.allowed("ciming:zone_sync:create", caller):
        return      # the limit of other requests holds
    with _LOCK:
        if caller.project_id in _sending:
            raise exceptions.Unavailable("Another long plan of your project is being read. Try again later.")
        _sending.add(caller.project_id)
    flask.g.sends_plan_of = caller.project_id
    request.max_content_length = LARGEST
    request.get_data(cache=True)
    if not LONG_PLANS.acquire(timeout=PARSED_SECONDS):
        raise exceptions.Unavailable("Too many long plans are being read. Try again later.")
    flask.g.parses_plan = True


def _parsed() -> None:
    """The next may be."""
    if flask.g.pop("parses_plan", False):
        LONG_PLANS.release()


def after_long_plan(_error: BaseException | None) -> None:
    _parsed()
    with _LOCK:
        _sending.discard(flask.g.pop("sends_plan_of", ""))


def _begun(caller: context.RequestContext, spec: dict[str, Any], *, wait: bool) -> Any:
    limits.check(str(caller.project_id), jobs=1)
    roles = cfg.CONF.zone_sync.roles if spec["everything"] else ()
    with delegation.delegated(caller, {}, roles=roles) as given:
        row = models.Job(
            id=given.job_id,
            project_id=caller.project_id,
            user_id=caller.user_id,
            kind="zone-sync",
            spec=spec,
            request_id=errors.request_id(),
            marker=staging_area.get().marker,
            stage="staged",
        )
        given.into(row)
        room = zone_syncs.at_most(cfg.CONF.zone_sync.max_per_project, row.project_id)
        zone_syncs.begin(row, room, given.settle, wait=wait)
    context.about(row.id)
    LOG.info("Sync %s with %s", ", ".join(spec["request"]["to"]), spec["request"]["from"])
    given.knock()
    return {"job": db.get_job(row.id, None)}, 202, document.location(f"/v1/jobs/{row.id}")


def _plan(caller: context.RequestContext, spec: dict[str, Any]) -> dict[str, Any]:
    """:raises ProviderError: a zone can not be read"""
    bundle = sealing.Bundle(token=caller.auth_token)
    found = rpc.plan_zones(str(caller.project_id), bundle, spec, staging_area.get().marker)
    if "error" in found:
        error = found["error"]
        raise exceptions.ProviderError(error["message"], code=error["code"])
    plan: dict[str, Any] = found["plan"]
    return plan


def _agreed(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The request of a plan that somebody kept.

    :raises InvalidRequest: it is not as it was made, or more was said beside it
    """
    said = flask.request.get_json().keys() - {"plan", "when_busy"}
    if said:
        raise exceptions.InvalidRequest(
            f"A plan says all of that already: leave {', '.join(sorted(said))[:200]} out.", field="plan"
        )
    if not zone_plans.is_whole(plan):
        raise exceptions.InvalidRequest(
            "This plan was edited, or cut: its digest is another. Make a new one.",
            code="zone_sync.plan_edited",
            field="plan",
        )
    try:
        return _request(schemas.ZoneSync().load(plan["request"]))
    except ma.ValidationError as error:
        field, detail = next(errors.flatten(error.messages, "plan.request"))
        raise exceptions.InvalidRequest(detail, code="zone_sync.plan_edited", field=field) from None


def _request(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, as Jobs and plans have it.

    :raises InvalidRequest: something is missing, or contradicts something else
    """
    for field, name in (("from", "from_"), ("to", "to")):
        if name not in wanted:
            raise exceptions.InvalidRequest("Missing data for required field.", field=field)
    filters = dict(wanted.get("filters") or schemas.ZoneFilters().load({}))
    newer_than = filters.get("newer_than")
    if newer_than is not None:
        if newer_than.year < FIRST_YEAR:
            raise exceptions.InvalidRequest("There were no images then.", field="filters.newer_than")
        if newer_than > datetime.now(UTC):
            raise exceptions.InvalidRequest("This is in the future.", field="filters.newer_than")
        filters["newer_than"] = f"{newer_than.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {
        "from": wanted["from_"],
        "to": list(dict.fromkeys(wanted["to"])),
        "filters": filters,
        **{name: wanted[name] for name in ("replace", "prune", "members")},
        "max_delete": wanted.get("max_delete", schemas.MAX_DELETE),
        "map_project": wanted.get("map_project", {}),
    }


def _checked(
    caller: context.RequestContext, request: dict[str, Any], *, everything: bool
) -> dict[str, Any]:
    """The request, if the caller may have that.

    :raises InvalidRequest: one of its zones is none, or the source
    :raises Forbidden: it is about the images of others
    """
    source, zones = request["from"], ", ".join(caller.zones) or "none"
    for field, names in (("from", [source]), ("to", request["to"])):
        unknown = [name for name in names if name not in caller.zones]
        if unknown:
            raise exceptions.InvalidRequest(
                f"No zone {', '.join(unknown)[:300]}. Zones that you may use: {zones}.",
                code="zone_sync.unknown_zone",
                field=field,
            )
    if source in request["to"]:
        raise exceptions.InvalidRequest(
            f"{source} can not be brought in line with itself.", code="zone_sync.same_zone", field="to"
        )
    mapped = request["map_project"]
    others = {*request["filters"].get("owner", ()), *mapped, *mapped.values()} - {caller.project_id}
    if others and not everything:
        raise exceptions.Forbidden(
            "Only operators sync the images of other projects: leave out owners that are not your own."
        )
    return request
