# SPDX-License-Identifier: Apache-2.0
"""What users asked for, and how far it is."""

from collections.abc import Callable
from typing import Any

import flask_smorest
import marshmallow as ma
from flask.views import MethodView
from oslo_config import cfg
from oslo_log import log

from ciming import context, policies, rpc
from ciming.api import auth, clouds, delegation, errors, limits, orders, paging, queries, schemas
from ciming.db import api as db
from ciming.db import jobs, lists, models

LOG = log.getLogger(__name__)

blueprint = flask_smorest.Blueprint("jobs", __name__, url_prefix="/v1/jobs", description="Work in progress")


@blueprint.route("")
class Jobs(MethodView):
    @auth.needs("job:list")
    @blueprint.arguments(queries.JobQuery, location="query", unknown=ma.RAISE, error_status_code=400)
    @blueprint.response(200, schemas.Jobs)
    @blueprint.doc(operationId="list_jobs")
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List Jobs"""
        return paging.page("job", lists.jobs, query)


@blueprint.route("/<string:job>")
class Job(MethodView):
    @auth.needs("job:show")
    @blueprint.response(200, schemas.Job)
    @blueprint.doc(operationId="show_job")
    def get(self, job: str) -> models.Job:
        """Show a Job"""
        return db.get_job(schemas.row_id("job", job), auth.scope())


@blueprint.route("/<string:job>/cancel")
class Cancel(MethodView):
    @auth.needs("job:cancel")
    @blueprint.arguments(schemas.Nothing, required=False, error_status_code=400)
    @blueprint.response(202, schemas.Job)
    @blueprint.doc(operationId="cancel_job")
    def post(self, _nothing: dict[str, Any], job: str) -> models.Job:
        """Cancel a Job

        What is not finished is undone, and no more data is taken; Targets that succeeded keep their Links. To
        cancel a Job again that has not ended yet changes nothing.
        """
        row = _own(job)
        jobs.cancel(row.id)
        LOG.info("To be cancelled")
        rpc.knock(row.id)
        return db.get_job(row.id, None)


@blueprint.route("/<string:job>/retry")
class Retry(MethodView):
    @auth.needs("job:retry")
    @blueprint.arguments(schemas.WithCredentials, required=False, error_status_code=400)
    @blueprint.response(202, schemas.Job)
    @blueprint.doc(operationId="retry_job")
    def post(self, wanted: dict[str, Any], job: str) -> models.Job:
        """Retry a Job

        The Targets that failed are tried again with the data that was kept, for the caller from now on. For a
        Job that ended in `error` or `partial`, as long as its data is kept and no other works on its Image.
        """
        row = _own(job)
        jobs.check_retry(row)           # before anything is asked of Keystone
        limits.check(row.project_id, jobs=1)
        limits.check_rate(row.project_id, jobs.places(row))
        return _anew(row, wanted, jobs.retry)


@blueprint.route("/<string:job>/resume")
class Resume(MethodView):
    @auth.needs("job:resume")
    @blueprint.arguments(schemas.WithCredentials, required=False, error_status_code=400)
    @blueprint.response(202, schemas.Job)
    @blueprint.doc(operationId="resume_job")
    def post(self, wanted: dict[str, Any], job: str) -> models.Job:
        """Resume a Job that waits for credentials

        It goes on from where it was, for the caller from now on. Credentials that were given with a request
        have to be given again, for those of its Clouds that are not done yet.
        """
        row = _own(job)
        jobs.check_resume(row)
        return _anew(row, wanted, jobs.resume)


def _anew(row: models.Job, wanted: dict[str, Any], begin: Callable[..., None]) -> models.Job:
    """Have a Job go on for the caller."""
    caller, said = auth.caller(), wanted.get("credentials", {})
    everything = bool((row.spec or {}).get("everything"))
    if everything:
        policies.authorize("ciming:zone_sync:everything", caller)
    known = {cloud["id"]: cloud for cloud in clouds.usable(caller)}
    places = [known[key] for key in jobs.places(row) if key in known]
    clouds.check_complete(places, said, "credentials")
    linked = [orders.as_cloud(link) for link in (row.image.links if row.image_id else ())]
    credentials = clouds.credentials([*places, *linked], said)
    roles = cfg.CONF.zone_sync.roles if everything else ()
    with delegation.delegated(caller, credentials, row.id, roles) as given:
        begin(row.id, str(caller.user_id), errors.request_id(), given.settle, given.into)
    LOG.info("To go on")
    given.knock()
    return db.get_job(row.id, None)


def _own(job: str) -> models.Job:
    """Of one's own project only: an administrator, too, sees more than they may change."""
    row = db.get_job(schemas.row_id("job", job), auth.caller().project_id)
    context.about(row.id)
    return row
