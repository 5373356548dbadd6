# SPDX-License-Identifier: Apache-2.0
"""Cancel and retry as the API answers them, as far as Keystone is not asked."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from ciming import rpc
from ciming.api import app
from ciming.db import api, jobs, models, pending, work
from tests.unit import rows
from tests.unit.api.test_app import CALLER

ACTIONS = ("cancel", "retry")
UNKNOWN = "7f2d3c3e-6c1b-4d55-9f0e-2f6a5c9b1d11"


@pytest.fixture
def client(database: rows.Database, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(rpc, "_url", "fake://")     # knocks go nowhere
    return app.create_flask_app().test_client()


def act(
    client: FlaskClient, job_id: str, action: str, roles: str = "member,reader", **kwargs: Any
) -> TestResponse:
    environ = {**CALLER, "HTTP_X_ROLES": roles}
    return client.post(f"/v1/jobs/{job_id}/{action}", environ_overrides=environ, **kwargs)


def refused(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    [error] = answer.get_json()["errors"]
    assert (error["code"], error["status"]) == (code, status)
    return dict(error)


def ended(*, purge: bool) -> models.Job:
    job = rows.make_job()
    held = rows.take(job.id)
    work.give_up(held)
    work.finish(held, purge=purge)
    return job


@pytest.mark.parametrize("body", [{}, {"json": {}}, {"data": b"", "content_type": "text/plain"}])
def test_cancel(client: FlaskClient, body: dict[str, Any]) -> None:
    """It needs no body, and may have an empty one."""
    job = rows.make_job(stage="uploading")
    answer = act(client, job.id, "cancel", **body)
    assert answer.status_code == 202, answer.text
    found = answer.get_json()
    assert (found["id"], found["wanted"], found["status"]) == (job.id, "cancel", "queued")
    assert act(client, job.id, "cancel").status_code == 202


@pytest.mark.parametrize("action", ACTIONS)
def test_a_body_that_says_something_is_refused(client: FlaskClient, action: str) -> None:
    job = rows.make_job()
    before = rows.everything()
    answer = act(client, job.id, action, json={"force": True})
    assert refused(answer, 400, "request.invalid")["field"] == "force"
    refused(act(client, job.id, action, json=[]), 400, "request.invalid")
    broken = act(client, job.id, action, data=b"{", content_type="application/json")
    refused(broken, 400, "request.invalid_json")
    refused(act(client, job.id, action, data=b"x"), 415, "request.content_type")
    assert rows.everything() == before


@pytest.mark.parametrize("action", ACTIONS)
def test_who_may(client: FlaskClient, action: str) -> None:
    """Not one who only reads, and nobody of another project, an administrator neither."""
    job = rows.make_job()
    before = rows.everything()
    refused(act(client, job.id, action, roles="reader"), 403, "policy.forbidden")
    for roles in ("member,reader", "admin,member,reader"):
        environ = {**CALLER, "HTTP_X_ROLES": roles, "HTTP_X_PROJECT_ID": "elsewhere"}
        answer = client.post(f"/v1/jobs/{job.id}/{action}", environ_overrides=environ)
        refused(answer, 404, "job.not_found")
    refused(act(client, UNKNOWN, action), 404, "job.not_found")
    assert refused(act(client, "nonsense", action), 400, "job.invalid_id")["field"] == "job"
    assert rows.everything() == before


def test_what_has_ended_is_not_cancelled(client: FlaskClient) -> None:
    job = ended(purge=False)
    error = refused(act(client, job.id, "cancel"), 409, "job.has_ended")
    assert "has ended: error" in error["detail"]


def test_what_can_not_be_retried_is_said_before_keystone_is_asked(client: FlaskClient) -> None:
    refused(act(client, rows.make_job().id, "retry"), 409, "job.not_ended")
    refused(act(client, ended(purge=True).id, "retry"), 409, "job.not_kept")
    assert not pending.lost(models.now() + 1)


def test_the_job_is_that_of_the_row(client: FlaskClient) -> None:
    job = ended(purge=False)
    pending_id = pending.announce(pending.Likeness("bob", "studio", 1_700_000_000_000))
    rows.go_on(jobs.retry, job.id, pending_id)
    shown = client.get(f"/v1/jobs/{job.id}", environ_overrides=CALLER).get_json()
    assert (shown["status"], shown["request_id"], shown["started_at"]) == ("queued", "req-2", None)
    assert "trust" not in str(shown) and api.get_job(job.id, None).trust_id == "trust-2"
