# SPDX-License-Identifier: Apache-2.0
"""Clouds as the API answers them: zones, registered ones, and who may do what."""

import json
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient
from oslo_config import cfg
from werkzeug.test import TestResponse

from ciming import context, exceptions, rpc, sealing
from ciming.api import app, clouds, staging_area
from ciming.db import models, session, work
from tests.unit import rows
from tests.unit.api.test_app import CALLER
from tests.unit.api.test_jobs import refused
from tests.unit.configs.test_openstack import BY_ID
from tests.unit.db.test_clouds import into

TOKEN = "a-token-of-mine"
SECRET = "swordfish"
KEYS = "https://keys.example.org"
INTERNAL_KEYS = "http://10.0.0.9:9311/barbican"
UNKNOWN = "7f2d3c3e-6c1b-4d55-9f0e-2f6a5c9b1d11"
REF = f"{KEYS}/v1/secrets/67ba1d7e-0000-4000-8000-00000000000a"
AWS = {"region": "eu-west-1", "route": "s3-import", "bucket": "images"}
GOOGLE = {"project_id": "my-project", "bucket": "images"}
CONFIG = {"auth_url": "https://keystone.example.com/v3", "region": "RegionOne"}
ROLES = {"member": "member,reader", "reader": "reader", "admin": "admin,member,reader"}
ZONES = ("zone-a", "zone-b")
CATALOG = [
    {
        "type": "image",
        "endpoints": [{"region": zone, "publicURL": f"https://{zone}.example.org"} for zone in ZONES],
    },
    {
        "type": "key-manager",
        "endpoints": [{"region": "zone-a", "publicURL": f"{KEYS}/", "internalURL": f"{INTERNAL_KEYS}/v1"}],
    },
]


class Caller:
    """Somebody of a project."""

    def __init__(self, api: flask.Flask, role: str = "member", project: str = "studio") -> None:
        self.client: FlaskClient = api.test_client()
        self.environ = {
            **CALLER,
            "HTTP_X_AUTH_TOKEN": TOKEN,
            "HTTP_X_ROLES": ROLES[role],
            "HTTP_X_PROJECT_ID": project,
            "HTTP_X_SERVICE_CATALOG": json.dumps(CATALOG),
        }

    def __call__(self, method: str, path: str = "", **kwargs: Any) -> TestResponse:
        path = f"/v1/clouds{path}"
        return self.client.open(path, method=method, environ_overrides=self.environ, **kwargs)

    def register(self, **wanted: Any) -> dict[str, Any]:
        body = {"name": "other", "provider": "openstack", "config": CONFIG, "credential_ref": REF, **wanted}
        answer = self("POST", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.get_json()
        assert answer.headers["Location"] == f"/v1/clouds/{made['id']}"
        return made

    def names(self) -> list[str]:
        return [cloud["name"] for cloud in self("GET").get_json()["clouds"]]

    @property
    def context(self) -> context.RequestContext:
        return context.from_environ(self.environ)


@pytest.fixture
def api(database: rows.Database) -> flask.Flask:
    return app.create_flask_app()


@pytest.fixture
def member(api: flask.Flask) -> Caller:
    return Caller(api)


@pytest.fixture
def admin(api: flask.Flask) -> Caller:
    return Caller(api, "admin", "operators")


def test_zones_are_there_without_registration(member: Caller) -> None:
    assert member.names() == ["zone-a", "zone-b"]
    zone = member("GET", "/zone-a").get_json()
    assert (zone["id"], zone["zone"], zone["config"], zone["credential_ref"]) == ("zone-a", True, {}, None)
    assert (zone["project_id"], zone["created_at"]) == (None, None)


def test_register_and_show(member: Caller) -> None:
    made = member.register()
    assert made == member("GET", f"/{made['id']}").get_json() == member("GET", "/other").get_json()
    assert made["config"] == CONFIG and made["credential_ref"] == REF
    assert (made["region"], made["provider"], made["visibility"]) == ("RegionOne", "openstack", "private")
    assert (made["zone"], made["project_id"]) == (False, "studio")
    assert member.names() == ["zone-a", "zone-b", "other"]
    found = member("GET", query_string={"region": "RegionOne"}).get_json()["clouds"]
    assert [cloud["id"] for cloud in found] == [made["id"]]


def test_another_projects_cloud_is_not_there(api: flask.Flask, member: Caller, admin: Caller) -> None:
    made = member.register()
    for other in (Caller(api, project="elsewhere"), admin):
        assert other.names() == ["zone-a", "zone-b"]
        for key in (made["id"], "other"):
            for method, more in (("GET", {}), ("DELETE", {}), ("PATCH", {"json": {"name": "mine"}})):
                refused(other(method, f"/{key}", **more), 404, "cloud.not_found")
        with pytest.raises(exceptions.InvalidRequest, match="Unknown Cloud"):
            clouds.resolve(other.context, [made["id"]])
    assert Caller(api, project="elsewhere").register()["id"] != made["id"]     # its own, of the same name
    assert member("GET", "/other").get_json() == made


def test_who_only_reads_changes_nothing(api: flask.Flask, member: Caller) -> None:
    made = member.register()
    reader = Caller(api, "reader")
    assert reader("GET", "/other").get_json() == made
    before = rows.everything()
    refused(reader("POST", json={}), 403, "policy.forbidden")
    refused(reader("PATCH", "/other", json={}), 403, "policy.forbidden")
    refused(reader("DELETE", "/other"), 403, "policy.forbidden")
    assert rows.everything() == before


def test_public_clouds_are_for_operators(api: flask.Flask, member: Caller, admin: Caller) -> None:
    body = {"name": "shared", "provider": "openstack", "config": CONFIG, "visibility": "public"}
    refused(member("POST", json=body), 403, "policy.forbidden")
    made = admin.register(**body)
    assert member.names() == ["zone-a", "zone-b", "shared"]
    assert member("GET", "/shared").get_json() == {**made, "credential_ref": None}
    assert member("GET").get_json()["clouds"][2]["credential_ref"] is None
    refused(member("PATCH", "/shared", json={"name": "mine"}), 403, "policy.forbidden")
    refused(member("DELETE", "/shared"), 403, "policy.forbidden")
    colleague = Caller(api, "admin", "another")
    assert colleague("PATCH", "/shared", json={"name": "ours"}).get_json()["credential_ref"] == REF
    assert colleague("DELETE", "/ours").status_code == 204
    assert member.names() == ["zone-a", "zone-b"]


@pytest.mark.parametrize("name", ["other", "zone-a"])
def test_a_name_is_taken_once(member: Caller, name: str) -> None:
    member.register()
    another = member.register(name="another")
    body = {"name": name, "provider": "openstack", "config": CONFIG}
    assert refused(member("POST", json=body), 409, "cloud.name_taken")["field"] == "name"
    answer = member("PATCH", f"/{another['id']}", json={"name": name})
    assert refused(answer, 409, "cloud.name_taken")["field"] == "name"


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_zone_stays_as_it_is(member: Caller, method: str) -> None:
    more = {"json": {"name": "mine"}} if method == "PATCH" else {}
    answer = member(method, "/zone-a", **more)
    assert "zone-a is a zone" in refused(answer, 409, "cloud.is_zone")["detail"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "all"}, "name"),
        ({"name": UNKNOWN}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "a:b"}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": None}, "name"),
        ({"provider": "floppy"}, "provider"),
        ({"provider": "\0"}, "provider"),
        ({"visibility": "shared"}, "visibility"),
        ({"password": "swordfish"}, "password"),
        ({"config": []}, "config"),
        ({"config": {**CONFIG, "password": "swordfish"}}, "config.password"),
        ({"config": {"auth_url": CONFIG["auth_url"]}}, "config.region"),
        ({"config": {**CONFIG, "auth_url": "file:///etc/passwd"}}, "config.auth_url"),
        ({"config": {**CONFIG, "auth_url": "https://169.254.169.254/"}}, "config.auth_url"),
        ({"config": {**CONFIG, "region": "\0"}}, "config.region"),
        ({"config": {**CONFIG, "region": "\ud800"}}, "config.region"),
        ({"config": {**CONFIG, "interface": "secret"}}, "config.interface"),
        ({"config": {**CONFIG, "formats": ["floppy"]}}, "config.formats.0"),
        ({"config": {**CONFIG, "formats": []}}, "config.formats"),
        ({"config": {**CONFIG, "cacert": "/etc/ssl/ca.pem"}}, "config.cacert"),
        ({"credential_ref": ""}, "credential_ref"),
        ({"credential_ref": "swordfish"}, "credential_ref"),
        ({"credential_ref": REF.replace("keys", "elsewhere")}, "credential_ref"),
        ({"credential_ref": REF.replace("https", "http")}, "credential_ref"),
        ({"credential_ref": REF.replace("secrets", "containers")}, "credential_ref"),
        ({"credential_ref": f"{REF}/payload"}, "credential_ref"),
        ({"credential_ref": f"{REF}?x=1"}, "credential_ref"),
        ({"credential_ref": f"https://[x/v1/secrets/{UNKNOWN}"}, "credential_ref"),
        ({"credential_ref": f"https://[::1]x/v1/secrets/{UNKNOWN}"}, "credential_ref"),
        ({"credential_ref": f"{KEYS}/v1/secrets/../secrets/{UNKNOWN}"}, "credential_ref"),
        ({"credential_ref": REF.replace("//", "//me:swordfish@")}, "credential_ref"),
    ],
)
def test_what_is_wrong_is_named(member: Caller, wrong: dict[str, Any], field: str) -> None:
    before = rows.everything()
    body = {"name": "other", "provider": "openstack", "config": CONFIG, "credential_ref": REF, **wrong}
    answer = member("POST", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.get_json()["errors"][0]["field"] == field
    assert "swordfish" not in answer.text
    assert rows.everything() == before
    if "provider" in wrong or "visibility" in wrong:
        return
    member.register(name="there")
    before = rows.everything()
    missing = field == "config.region" and "region" not in wrong["config"]
    answer = member("PATCH", "/there", json={"config": {"region": None}} if missing else wrong)
    assert answer.status_code == 400, answer.text
    assert answer.get_json()["errors"][0]["field"] == field
    assert rows.everything() == before


@pytest.mark.parametrize("base", [KEYS, INTERNAL_KEYS])
def test_a_secret_of_ones_own_barbican(member: Caller, base: str) -> None:
    """By any of its addresses."""
    ref = f"{base}/v1/secrets/{UNKNOWN}"
    assert member.register(credential_ref=ref)["credential_ref"] == ref


def test_without_a_barbican_there_is_no_secret(member: Caller) -> None:
    member.environ["HTTP_X_SERVICE_CATALOG"] = json.dumps(CATALOG[:1])
    body = {"name": "other", "provider": "openstack", "config": CONFIG, "credential_ref": REF}
    error = refused(member("POST", json=body), 400, "cloud.invalid_secret")
    assert "no Barbican" in error["detail"]


def test_a_body_that_is_no_json(member: Caller) -> None:
    member.register()
    for method, path in (("POST", ""), ("PATCH", "/other")):
        broken = member(method, path, data=b"{", content_type="application/json")
        refused(broken, 400, "request.invalid_json")
        refused(member(method, path, data=b"x", content_type="text/plain"), 415, "request.content_type")
    refused(member("PATCH", "/other"), 400, "request.invalid_json")


def test_a_body_of_any_depth(member: Caller) -> None:
    """It is read more than once, from stacks of several depths."""
    for depth in range(900, 1000):
        body = b'{"name": "x", "config": ' + b"[" * depth + b"]" * depth + b"}"
        answer = member("POST", "", data=body, content_type="application/json")
        assert answer.status_code == 400, depth


def test_change(member: Caller) -> None:
    made = member.register()
    assert "note" not in member("PATCH", "/other", json={}).get_json()
    answer = member("PATCH", "/other", json={"config": {"no_such": None}})
    assert refused(answer, 400, "cloud.invalid_config")["field"] == "config.no_such"
    config = {"formats": ["raw"], "interface": "internal"}
    changed = member("PATCH", "/other", json={"name": "renamed", "config": {"formats": ["raw"]}}).get_json()
    assert (changed["id"], changed["name"]) == (made["id"], "renamed")
    assert changed["config"] == {**CONFIG, "formats": ["raw"]}
    assert (changed["credential_ref"], changed.get("note")) == (REF, None)
    changed = member("PATCH", "/renamed", json={"config": {"formats": None}}).get_json()
    assert (changed["config"], changed["credential_ref"]) == (CONFIG, REF)
    changed = member("PATCH", "/renamed", json={"config": config, "credential_ref": REF}).get_json()
    assert (changed["config"], changed["credential_ref"]) == ({**CONFIG, **config}, REF)
    assert "note" not in changed


@pytest.mark.parametrize(
    "change",
    [
        {"auth_url": "https://elsewhere.example.com/v3"},
        {"region": "RegionTwo"},
        {"interface": "internal"},
    ],
)
def test_another_place_needs_another_credential(member: Caller, change: dict[str, str]) -> None:
    member.register()
    same = member("PATCH", "/other", json={"config": CONFIG}).get_json()
    assert (same["credential_ref"], same.get("note")) == (REF, None)
    changed = member("PATCH", "/other", json={"config": change}).get_json()
    assert changed["credential_ref"] is None and "was cleared" in changed["note"]
    assert member("GET", "/other").get_json()["credential_ref"] is None
    given = f"{KEYS}/v1/secrets/{UNKNOWN}"
    moved = member("PATCH", "/other", json={"config": CONFIG, "credential_ref": given}).get_json()
    assert (moved["credential_ref"], moved.get("note")) == (given, None)
    assert member("PATCH", "/other", json={"credential_ref": None}).get_json()["credential_ref"] is None


def test_what_is_in_use(member: Caller) -> None:
    made = member.register()
    with session.reader() as reading:
        row = reading.get_one(models.Cloud, made["id"])
    job = into(row)
    for answer in (
        member("DELETE", "/other"),
        member("PATCH", "/other", json={"config": {"region": "RegionTwo"}}),
    ):
        assert job.id in refused(answer, 409, "cloud.in_use")["detail"]
    assert member("PATCH", "/other", json={"config": {"formats": ["raw"]}}).status_code == 200
    held = rows.take(job.id)
    work.add_link(held, job.targets[0].id, "ref", "bytes")
    work.finish(held, purge=True)
    assert job.image_id in refused(member("DELETE", "/other"), 409, "cloud.in_use")["detail"]
    assert member("PATCH", "/other", json={"config": {"region": "RegionTwo"}}).status_code == 200


@pytest.mark.parametrize(
    ("provider", "config", "changes", "harmless"),
    [
        ("aws", AWS, [{"bucket": "another"}, {"route": None, "bucket": None}], {"tags": ["a=b"]}),
        ("gcp", GOOGLE, [{"bucket": "another"}, {"project_id": "another"}], {"family": "ours"}),
    ],
)
def test_what_jobs_have_begun_stays_where_it_is(
    member: Caller,
    provider: str,
    config: dict[str, Any],
    changes: list[dict[str, Any]],
    harmless: dict[str, Any],
) -> None:
    made = member.register(provider=provider, config=config)
    with session.reader() as reading:
        row = reading.get_one(models.Cloud, made["id"])
    job = into(row)
    for change in changes:
        answer = member("PATCH", "/other", json={"config": change})
        assert job.id in refused(answer, 409, "cloud.in_use")["detail"]
    assert member("PATCH", "/other", json={"config": harmless}).status_code == 200
    work.finish(rows.take(job.id), purge=True)
    changed = member("PATCH", "/other", json={"config": changes[0]}).get_json()
    assert changed["config"]["bucket"] == "another" and changed["credential_ref"] == REF


def test_delete(member: Caller) -> None:
    made = member.register()
    answer = member("DELETE", f"/{made['id']}")
    assert (answer.status_code, answer.data) == (204, b"")
    refused(member("DELETE", "/other"), 404, "cloud.not_found")
    assert member.names() == ["zone-a", "zone-b"]


def test_check(member: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine gets to know where, and as whom."""
    asked: list[tuple[Any, ...]] = []
    verdicts = [{"check": "login", "passed": True, "message": "In."}]

    def check_cloud(*what: Any) -> Any:
        asked.append(what)
        if len(asked) == 4:
            raise exceptions.Unavailable("No engine answers now.")
        return verdicts

    monkeypatch.setattr(rpc, "check_cloud", check_cloud)
    made = member.register()
    before = rows.everything()
    assert member("POST", "/other/check").get_json() == {"passed": True, "checks": verdicts}
    place = {"cloud_key": made["id"], "cloud": "other", "provider": "openstack", "region": "RegionOne"}
    assert asked == [("studio", sealing.Bundle(token=TOKEN), place, staging_area.get().marker)]
    verdicts.append({"check": "quota", "passed": None, "message": "?"})
    assert member("POST", "/zone-a/check", json={}).get_json()["passed"] is True
    assert asked[1][2]["cloud_key"] == asked[1][2]["region"] == "zone-a"
    verdicts.append({"check": "create", "passed": False, "message": "No."})
    assert member("POST", "/other/check").get_json()["passed"] is False
    refused(member("POST", "/other/check"), 503, "service.unavailable")
    refused(member("POST", "/no-such/check"), 404, "cloud.not_found")
    assert rows.everything() == before


# Which Clouds a create means


def test_resolve(member: Caller) -> None:
    made = member.register()
    bare = member.register(name="bare", credential_ref=None)

    def chosen(wanted: list[str] | str) -> list[str]:
        return [cloud["name"] for cloud in clouds.resolve(member.context, wanted)]

    assert chosen(["other", "zone-a", made["id"]]) == ["other", "zone-a"]
    assert chosen("all") == ["zone-a", "zone-b", "other"]       # as they are
    for name in ("bare", bare["id"]):
        with pytest.raises(exceptions.InvalidRequest, match="no credential for bare") as caught:
            chosen(["zone-a", name])
        assert (caught.value.code, caught.value.field) == ("cloud.no_credential", "clouds")


def test_a_zone_comes_before_a_cloud_of_its_name(member: Caller) -> None:
    """A region may come later than the Cloud."""
    made = member.register(name="zone-c")
    catalog = json.loads(json.dumps(CATALOG))
    catalog[0]["endpoints"].append({"region": "zone-c", "publicURL": "https://zone-c.example.org"})
    member.environ["HTTP_X_SERVICE_CATALOG"] = json.dumps(catalog)
    assert member("GET", "/zone-c").get_json()["zone"] is True
    assert member("GET", f"/{made['id']}").get_json()["zone"] is False
    assert [cloud["id"] for cloud in clouds.resolve(member.context, ["zone-c"])] == ["zone-c"]
    assert member("DELETE", f"/{made['id']}").status_code == 204


def test_without_tls_where_the_operator_allows_it(member: Caller, conf: cfg.ConfigOpts) -> None:
    plain = {**CONFIG, "auth_url": "http://10.0.0.1:5000/v3"}
    body = {"name": "plain", "provider": "openstack", "config": plain}
    error = refused(member("POST", json=body), 400, "cloud.invalid_config")
    assert "http://10.0.0.1:5000 is not encrypted" in error["detail"]
    conf.set_override("allow_http", True, group="egress")
    try:
        assert member.register(**body, credential_ref=None)["config"] == plain
    finally:
        conf.clear_override("allow_http", group="egress")




# Credentials that come with a request

GIVEN = {"auth_type": "v3applicationcredential", "auth": BY_ID}
LOADED = {"auth_type": "v3applicationcredential", **BY_ID}


def test_a_credential_that_comes_with_the_request_will_do(member: Caller) -> None:
    bare = member.register(credential_ref=None)
    for name in ("other", bare["id"]):
        [chosen] = clouds.resolve(member.context, ["other"], given=[name])
        assert clouds.credentials([chosen], {name: GIVEN}) == {bare["id"]: LOADED}
    every = clouds.resolve(member.context, "all", given=["other"])
    assert {each["name"] for each in every} == {*ZONES, "other"}
    assert clouds.credentials([chosen], {}) == {}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"zone-a": GIVEN}, "zone-a is a zone"),
        ({"elsewhere": GIVEN}, "Name each of the Clouds that are asked for, once: other, zone-a."),
        ({"other": {}}, "other: "),
        ({"other": {"auth_type": "v3password", "auth": {"password": SECRET}}}, "v3password needs username"),
        ({"other": {**GIVEN, "auth_plugin_swordfish": "x"}}, "no other keys than"),
        ({"other": {**GIVEN, "cacert": "/etc/passwd"}}, "no other keys than"),
        ({"other": {"auth_type": SECRET, "auth": {}}}, "auth_type: "),
        ({"other": {"auth": SECRET}}, "auth: it is to be an object"),
        ({"other": {**GIVEN, "auth": {"password": SECRET * 20_000}}}, "more than"),
    ],
)
def test_one_that_is_none_is_refused_without_a_word_out_of_it(
    member: Caller, said: dict[str, Any], why: str
) -> None:
    member.register()
    chosen = clouds.resolve(member.context, ["other", "zone-a"])
    with pytest.raises(exceptions.InvalidRequest) as caught:
        clouds.credentials(chosen, said)
    assert (caught.value.code, caught.value.field) == ("credential.invalid", "credentials")
    assert why in caught.value.detail and SECRET not in caught.value.detail


def test_one_cloud_has_one(member: Caller) -> None:
    made = member.register()
    chosen = clouds.resolve(member.context, ["other"])
    with pytest.raises(exceptions.InvalidRequest, match="once"):
        clouds.credentials(chosen, {"other": GIVEN, made["id"]: GIVEN})
