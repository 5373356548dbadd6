# SPDX-License-Identifier: Apache-2.0
"""What stands before the application: pages of other origins, proxies, load balancers, versions."""

import json
import pathlib
import uuid
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.functional import browser
from tests.functional.test_bad_input import the_error
from tests.person import ENDS, Person
from tests.sandbox import ciming, processes, sandbox
from tests.shapes import Shape

Another = Callable[..., tuple[ciming.Ciming, Person]]
DISABLED = "DISABLED BY FILE"


def ask(service: ciming.Ciming, path: str, method: str = "GET", **headers: str) -> requests.Response:
    """Without a token."""
    return requests.request(method, service.url + path, headers=headers, timeout=30)


# CORS


def test_a_page_of_another_origin(another: Another, tmp_path: pathlib.Path) -> None:
    """A real browser decides; one origin is allowed, the other is not."""
    with browser.Page() as allowed, browser.Page() as refused:
        service, member = another({("cors", "allowed_origin"): allowed.origin})
        settings = {
            "service": service.url,
            "token": member.token(),
            "clouds": ["zone-a"],
            "size": 4096,
            "ends": ENDS,
        }
        seen = allowed.visit(tmp_path / "allowed", settings)
        before = len(member.get("/v1/images").json()["images"])
        unseen = refused.visit(tmp_path / "refused", settings)
    assert seen["origin"] == allowed.origin != service.url
    assert seen["listed"]["status"] == 200
    assert seen["listed"]["OpenStack-API-Version"] == "multicloud 1.0"
    created = seen["created"]
    assert created["status"] == 202
    assert created["Location"] == f"/v1/jobs/{created['job']}"
    assert created["X-Openstack-Request-Id"] == member.job(created["job"])["request_id"]
    assert "PUT" in seen["options"]["Allow"]
    parts, length = seen["in_parts"], str(settings["size"])
    unknown = {"Upload-Offset": "0", "Upload-Length": None, "Upload-Defer-Length": "1"}
    assert parts["asked"] == {**unknown, "Tus-Resumable": "1.0.0"}
    assert parts["sent"].pop("Upload-Expires")
    assert parts["sent"] == {"Upload-Offset": "100", "Upload-Length": length}
    assert parts["again"] == {**parts["sent"], "Upload-Defer-Length": None}
    assert seen["uploaded"] == {"status": 204}
    assert seen["ended"] == {"status": "success"}
    assert member.image(created["image"])["status"] == "active"
    complaint = seen["complained"]
    assert complaint["status"] == 400 and "zone-a, zone-b" in complaint["message"]
    assert complaint["errors"][0]["field"] == "clouds"
    assert seen["without_token"]["status"] == 401
    assert seen["without_token"]["errors"][0]["code"] == "auth.required"

    assert unseen["origin"] == refused.origin
    assert unseen["steps"] == seen["steps"]
    assert {json.dumps(unseen[step]) for step in unseen["steps"]} == {'{"refused": "TypeError"}'}
    assert len(member.get("/v1/images").json()["images"]) == before


PORTAL = "https://portal.example.org"


@pytest.fixture(scope="module")
def open_to_portal(
    cloud: sandbox.Sandbox, shape: Shape, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ciming.Ciming]:
    """Behind a proxy that may say who asks, and open to pages of another origin."""
    folder = tmp_path_factory.mktemp("portal")
    options = {
        ("cors", "allowed_origin"): PORTAL,
        ("oslo_middleware", "enable_proxy_headers_parsing"): "true",
        ("staging", "keep_free"): "0",
    }
    with shape(cloud, folder, options, port=processes.free_block(str(folder))) as running:
        yield running


def test_preflight(open_to_portal: ciming.Ciming) -> None:
    """What a browser asks before each kind of call; no token is in it."""
    file = f"/v1/images/{uuid.uuid4()}/file"
    for method, path, wanted in (
        ("POST", "/v1/images", "content-type,x-auth-token,openstack-api-version"),
        ("PUT", file, "content-type,x-auth-token,x-openstack-request-id"),
        ("PATCH", file, "content-type,x-auth-token,tus-resumable,upload-offset,upload-checksum"),
        ("DELETE", file, "x-auth-token,tus-resumable"),
        ("HEAD", file, "x-auth-token,tus-resumable"),
    ):
        headers = {
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": wanted,
        }
        answer = ask(open_to_portal, path, "OPTIONS", Origin=PORTAL, **headers)
        assert answer.ok
        assert answer.headers["Access-Control-Allow-Origin"] == PORTAL
        assert answer.headers["Access-Control-Allow-Methods"] == method
        assert answer.headers["Access-Control-Allow-Headers"] == wanted
        assert "Access-Control-Allow-Credentials" not in answer.headers
        for origin, name in (("https://evil.example.org", wanted), (PORTAL, "x-surprise")):
            asked = headers | {"Access-Control-Request-Headers": name}
            other = ask(open_to_portal, path, "OPTIONS", Origin=origin, **asked)
            assert not [name for name in other.headers if name.startswith("Access-Control-")]


def test_every_answer_varies_by_origin(open_to_portal: ciming.Ciming, member: Person) -> None:
    """Or a cache would give one origin's answer to another."""
    paths = ("/", "/healthcheck", "/v1/images", "/nowhere")
    preflight = {"Access-Control-Request-Method": "GET"}
    for origin in ({}, {"Origin": PORTAL}, {"Origin": "https://evil.example.org"}):
        for path in paths:
            for method, more in (("GET", {}), ("OPTIONS", {}), ("OPTIONS", preflight)):
                answer = ask(open_to_portal, path, method, **origin, **more)
                vary = answer.headers["Vary"].split(", ")
                assert sorted(vary) == ["OpenStack-API-Version", "Origin"], (path, method)


def test_no_page_gets_in_by_default(service: ciming.Ciming) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"Origin": PORTAL, "Access-Control-Request-Method": "GET"}
        answer = ask(service, "/v1/images", method, **headers)
        assert not [name for name in answer.headers if name.startswith("Access-Control-")]
        assert answer.headers["Vary"] == "OpenStack-API-Version"


def test_options_still_reaches_the_application(open_to_portal: ciming.Ciming) -> None:
    """With and without an Origin; and what is not there stays so for who is no browser."""
    for headers in ({}, {"Origin": PORTAL}):
        answer = ask(open_to_portal, f"/v1/images/{uuid.uuid4()}/file", "OPTIONS", **headers)
        assert answer.ok and "PUT" in answer.headers["Allow"]
    assert ask(open_to_portal, "/nowhere", "OPTIONS").status_code == 404
    assert answer.headers["Access-Control-Allow-Origin"] == PORTAL
    assert {"Tus-Resumable", "Tus-Max-Size"} <= _exposed(answer)


def test_what_a_page_may_read(open_to_portal: ciming.Ciming) -> None:
    answer = ask(open_to_portal, "/v1/images", Origin=PORTAL)
    assert answer.status_code == 401
    assert _exposed(answer) >= {
        *("X-Openstack-Request-Id", "Location", "Retry-After", "Link", "OpenStack-API-Version"),
        *("Upload-Offset", "Upload-Length", "Upload-Expires", "Tus-Resumable", "Tus-Version"),
        *("Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"),
    }


def _exposed(answer: requests.Response) -> set[str]:
    return set(answer.headers["Access-Control-Expose-Headers"].split(","))


# Behind a proxy

PROXIED = (
    {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "images.example.org"},
    {"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "images.example.org, 10.0.0.1"},
    {"Forwarded": "for=192.0.2.1;proto=https;host=images.example.org"},
    {"Forwarded": 'for="192.0.2.1:4711";proto=https;host="images.example.org", host="10.0.0.1:8790"'},
)
BELOW = {"X-Forwarded-Prefix": "/multicloud"}


@pytest.mark.parametrize("headers", PROXIED)
def test_a_proxy_is_believed_where_the_operator_says_so(
    cloud: sandbox.Sandbox, open_to_portal: ciming.Ciming, qcow2: pathlib.Path, headers: dict[str, str]
) -> None:
    member = Person(cloud, "member", open_to_portal.url)
    [version] = ask(open_to_portal, "/", **headers).json()["versions"]
    assert version["links"][0]["href"] == "https://images.example.org/v1/"
    for _ in range(2):
        member.bring(qcow2)
    page = member.get("/v1/jobs?limit=1", headers=headers).json()
    assert page["links"][0]["href"].startswith("https://images.example.org/v1/jobs?limit=1&marker=")


def test_below_a_path(
    cloud: sandbox.Sandbox, open_to_portal: ciming.Ciming, qcow2: pathlib.Path
) -> None:
    """The proxy takes the path off; whatever we say about ourselves has it."""
    member = Person(cloud, "member", open_to_portal.url)
    [version] = ask(open_to_portal, "/", **BELOW).json()["versions"]
    assert version["links"][0]["href"] == f"{open_to_portal.url}/multicloud/v1/"
    answer = member.call("POST", "/v1/images", json={"name": "below", "clouds": ["zone-a"]}, headers=BELOW)
    job_id = answer.json()["job"]["id"]
    assert answer.headers["Location"] == f"/multicloud/v1/jobs/{job_id}"
    assert member.call("POST", f"/v1/jobs/{job_id}/cancel").ok
    page = ask(open_to_portal, "/v1/docs", **BELOW).text
    assert "/multicloud/v1/openapi.json" in page
    assert '"/v1/docs/assets' not in page


@pytest.mark.parametrize("headers", PROXIED)
def test_nobody_is_believed_by_default(service: ciming.Ciming, headers: dict[str, str]) -> None:
    [version] = ask(service, "/", **headers).json()["versions"]
    assert version["links"][0]["href"] == f"{service.url}/v1/"


def test_a_keystone_that_is_away_is_no_fault_of_the_token(another: Another) -> None:
    closed = f"http://127.0.0.1:{processes.free_block('nobody')}"
    service, member = another({("keystone_authtoken", "auth_url"): closed})
    for call in (member.get("/v1/images"), member.call("POST", "/v1/images", json={})):
        assert call.status_code == 503
        assert call.json()["errors"][0]["code"] == "service.unavailable"
    assert ask(service, "/v1").status_code == 200


# Health


def test_healthcheck_with_its_disable_file(another: Another, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "maintenance"
    service, member = another(
        {("healthcheck", "backends"): "disable_by_file", ("healthcheck", "disable_by_file_path"): str(file)}
    )
    for _ in range(2):
        answer = ask(service, "/healthcheck")
        assert (answer.status_code, answer.text) == (200, "OK")
        assert ask(service, "/healthcheck", "HEAD").status_code == 204
        file.touch()
        for path in ("/healthcheck", "/healthcheck?detailed"):
            answer = ask(service, path)
            assert (answer.status_code, answer.text) == (503, DISABLED)
            assert answer.headers["X-Openstack-Request-Id"].startswith("req-")
        as_json = ask(service, "/healthcheck", Accept="application/json").json()
        assert as_json == {"detailed": False, "reasons": [DISABLED]}
        assert ask(service, "/healthcheck", "HEAD").status_code == 503
        assert member.get("/v1/clouds").status_code == 200      # whoever is still here is served
        file.unlink()


def test_health_is_for_whom_the_operator_says(another: Another) -> None:
    """For all others it is as if there were nothing there; proxies may be several."""
    service, _member = another(
        {
            ("healthcheck", "allowed_source_ranges"): "127.0.0.0/8,192.0.2.0/24,2001:db8::/32",
            ("oslo_middleware", "enable_proxy_headers_parsing"): "true",
        }
    )
    for said in ("192.0.2.7", "192.0.2.7, 10.0.0.1", "2001:db8::7"):
        assert ask(service, "/healthcheck", **{"X-Forwarded-For": said}).status_code == 200, said
    for said in ("192.0.2.7:4711", '"[2001:db8::7]:4711"'):
        assert ask(service, "/healthcheck", Forwarded=f"for={said}").status_code == 200, said
    for said in ("198.51.100.7", "198.51.100.7, 192.0.2.7", "unknown", "fe80::1%eth0", ","):
        answer = ask(service, "/healthcheck", **{"X-Forwarded-For": said})
        assert answer.status_code == 404, said
        assert answer.json()["errors"][0]["code"] == "url.not_found"
    assert ask(service, "/healthcheck").status_code == 200


def test_details_of_health_where_the_operator_wants_them(another: Another) -> None:
    service, _member = another({("healthcheck", "detailed"): "true"})
    answer = ask(service, "/healthcheck?detailed", Accept="application/json")
    assert answer.status_code == 200
    assert answer.json()["detailed"] and answer.json()["threads"]


# Versions


@pytest.mark.parametrize(
    "header",
    ["multicloud 1", "multicloud 1.0", "multicloud latest", "compute 2.95", "image 99, multicloud 1", ""],
)
def test_a_version_that_there_is(member: Person, header: str) -> None:
    answer = member.get("/v1/clouds", headers={"OpenStack-API-Version": header})
    assert answer.status_code == 200
    assert answer.headers["OpenStack-API-Version"] == "multicloud 1.0"


@pytest.mark.parametrize("header", ["multicloud 2", "multicloud", "compute 2.1, multicloud 1.1"])
def test_a_version_that_there_is_not(member: Person, header: str) -> None:
    answer = member.get("/v1/clouds", headers={"OpenStack-API-Version": header})
    error = the_error(answer, 406, "version.unsupported")
    assert error["field"] == "OpenStack-API-Version"
    assert member.get("/", headers={"OpenStack-API-Version": header}).status_code == 200
