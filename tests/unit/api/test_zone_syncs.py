# SPDX-License-Identifier: Apache-2.0
"""Plans that are longer than other requests."""

import json

import pytest
from flask.testing import FlaskClient
from oslo_config import cfg
from werkzeug.test import TestResponse

from ciming.api import app, zone_syncs
from tests.unit import rows
from tests.unit.api.test_app import CALLER

LONG = json.dumps({"plan": "x" * (2 << 20)})


@pytest.fixture
def client(database: rows.Database) -> FlaskClient:
    return app.create_flask_app().test_client()


def sent(client: FlaskClient, body: str, roles: str, path: str = "/v1/zone-syncs") -> TestResponse:
    environ = {**CALLER, "HTTP_X_ROLES": roles}
    return client.post(path, data=body, content_type="application/json", environ_overrides=environ)


def test_only_who_may_sync_zones_may_send_them(client: FlaskClient) -> None:
    """All others are refused before it is read."""
    assert len(LONG) > cfg.CONF.api.max_json_body
    answer = sent(client, LONG, "member,reader")
    assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (400, "plan")
    assert sent(client, LONG, "reader").status_code == 413
    assert sent(client, "{}", "reader").status_code == 403
    assert sent(client, LONG, "member,reader", "/v1/images").status_code == 413


def test_one_at_a_time(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a project, and in being parsed; each gives its place back, however it ends."""
    monkeypatch.setattr(zone_syncs, "PARSED_SECONDS", 0.1)
    for _ in range(3):
        assert sent(client, LONG, "member,reader").status_code == 400
        assert sent(client, "{" * len(LONG), "member,reader").status_code == 400
    with zone_syncs.LONG_PLANS:
        answer = sent(client, LONG, "member,reader")
        assert (answer.status_code, answer.get_json()["errors"][0]["code"]) == (503, "service.unavailable")
        assert sent(client, "{}", "member,reader").status_code == 400
    zone_syncs._sending.add(CALLER["HTTP_X_PROJECT_ID"])
    assert "of your project" in sent(client, LONG, "member,reader").text
    zone_syncs._sending.clear()
    assert sent(client, LONG, "member,reader").status_code == 400
    assert not zone_syncs._sending
