# SPDX-License-Identifier: Apache-2.0
"""What users asked for, and how far it is."""

from typing import Any

import flask_smorest
import marshmallow as ma
from flask.views import MethodView

from ciming.api import auth, paging, queries, schemas
from ciming.db import api as db
from ciming.db import lists, models

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
