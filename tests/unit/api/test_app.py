# SPDX-License-Identifier: Apache-2.0
"""The application without its middleware, and the document it describes itself with."""

import pathlib
import re
from typing import Any

import flask
import openapi_spec_validator
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from oslo_config import cfg
from oslo_db import exception as oslo_db_exception

from ciming.api import app, auth, schemas

BODILESS = {"HEAD": ("200", "204")}
AN_ID = "7f2d3c3e-6c1b-4d55-9f0e-2f6a5c9b1d11"
PUBLIC = {"list_versions", "show_version", "show_upload_options"}
CALLER = {
    "HTTP_X_IDENTITY_STATUS": "Confirmed",
    "HTTP_X_USER_ID": "alice",
    "HTTP_X_PROJECT_ID": "studio",
    "HTTP_X_ROLES": "member,reader",
}
Document = dict[str, Any]


@pytest.fixture
def api(conf: cfg.ConfigOpts) -> flask.Flask:
    return app.create_flask_app()


@pytest.fixture
def client(api: flask.Flask) -> FlaskClient:
    return api.test_client()


@pytest.fixture
def document(client: FlaskClient) -> Document:
    answer = client.get("/v1/openapi.json")
    assert answer.status_code == 200
    found: Document = answer.get_json()
    return found


def operations(document: Document) -> list[tuple[str, str, Document]]:
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    ]


# A policy check for every handler


def forgetful() -> dict[str, str]:
    return {"secret": "swordfish"}


@pytest.mark.parametrize("identity", [CALLER, {}])
def test_a_handler_that_forgot_its_policy_check_fails(
    api: flask.Flask, client: FlaskClient, identity: dict[str, str]
) -> None:
    api.add_url_rule("/v1/forgetful", "forgetful", forgetful)
    answer = client.get("/v1/forgetful", environ_overrides=identity)
    assert answer.status_code == 500
    assert "swordfish" not in answer.text
    assert answer.get_json()["errors"][0]["status"] == 500


def test_a_handler_that_did_not_forget_it_answers(api: flask.Flask, client: FlaskClient) -> None:
    api.add_url_rule("/v1/careful", "careful", auth.needs("image:list")(forgetful))
    assert client.get("/v1/careful", environ_overrides=CALLER).get_json() == {"secret": "swordfish"}
    assert client.get("/v1/careful").status_code == 401
    nobody = {**CALLER, "HTTP_X_ROLES": ""}
    assert client.get("/v1/careful", environ_overrides=nobody).status_code == 403


def test_an_unexpected_error_tells_nothing(api: flask.Flask, client: FlaskClient) -> None:
    def broken() -> str:
        raise RuntimeError("swordfish")

    api.add_url_rule("/v1/broken", "broken", auth.public(broken))
    answer = client.get("/v1/broken", environ_overrides={"openstack.request_id": "req-1"})
    assert answer.status_code == 500
    assert "swordfish" not in answer.text
    [error] = answer.get_json()["errors"]
    assert (error["code"], error["request_id"]) == ("internal", "req-1")
    assert "req-1" in error["detail"]


@pytest.mark.parametrize(
    "error",
    [oslo_db_exception.DBConnectionError(), oslo_db_exception.DBDeadlock(), sa.exc.TimeoutError("swordfish")],
)
def test_a_database_that_is_away_is_no_fault_of_ours(
    api: flask.Flask, client: FlaskClient, error: Exception
) -> None:
    """Clients ask again after a 503."""

    def broken() -> str:
        raise error

    api.add_url_rule("/v1/broken", "broken", auth.public(broken))
    answer = client.get("/v1/broken")
    assert (answer.status_code, answer.get_json()["errors"][0]["code"]) == (503, "service.unavailable")
    assert "database" in answer.text and "swordfish" not in answer.text


def test_without_a_token_nothing_is_looked_at(client: FlaskClient, document: Document) -> None:
    """Neither path, query nor body: 401 comes first."""
    for method, path, operation in operations(document):
        public = operation["operationId"] in PUBLIC
        url = re.sub(r"\{\w+\}", AN_ID if public else "nonsense", path)
        for body in ({}, {"surprise": 1}):
            answer = client.open(f"{url}?surprise=1", method=method, json=body)
            expected = (200, 204) if public else (401,)
            assert answer.status_code in expected, (method, path)


def test_options_need_no_token(client: FlaskClient, document: Document) -> None:
    for path, methods in document["paths"].items():
        answer = client.options(re.sub(r"\{\w+\}", AN_ID, path))
        assert answer.status_code in (200, 204), path
        assert {method.upper() for method in methods} - {"PARAMETERS"} <= set(answer.allow)


@pytest.mark.parametrize("url", ["//v1/images", "/v1//images", "/v1/images/"])
def test_a_sloppy_url_is_no_fault_of_the_service(client: FlaskClient, url: str) -> None:
    assert client.get(url, environ_overrides=CALLER).status_code < 500


@pytest.mark.parametrize(
    ("method", "url", "status", "code"),
    [
        ("GET", "/v2/nothing", 404, "url.not_found"),
        ("DELETE", "/v1/images", 405, "method.not_allowed"),
        ("GET", "/v1/images", 401, "auth.required"),
        ("GET", "/v1/docs/assets/../../../etc/passwd", 404, "url.not_found"),
    ],
)
def test_every_error_has_one_shape(
    client: FlaskClient, method: str, url: str, status: int, code: str
) -> None:
    answer = client.open(url, method=method, environ_overrides={"openstack.request_id": "req-1"})
    assert answer.status_code == status
    body = answer.get_json()
    [error] = body["errors"]
    assert (error["status"], error["code"], error["request_id"]) == (status, code, "req-1")
    assert error["title"] and error["detail"] in body["message"]
    assert "OpenStack-API-Version" in answer.headers["Vary"]
    if status == 405:
        assert {"GET", "POST"} <= set(answer.allow)


# The document


def test_document_is_valid_openapi(document: Document) -> None:
    openapi_spec_validator.validate(document)


def test_operations_have_ids_of_their_own(document: Document) -> None:
    ids: list[str] = [operation.get("operationId", "") for _method, _path, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", each) for each in ids), ids


def test_the_document_has_every_route(api: flask.Flask, document: Document) -> None:
    """smorest leaves plain Flask routes out: only those that are no API may be plain."""
    described = {(method, path) for method, path, _operation in operations(document)}
    for rule in api.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in rule.methods or ():
            if method not in ("HEAD", "OPTIONS") and not rule.endpoint.startswith(("api-docs.", "docs.")):
                assert (method, path) in described


def answers(document: Document, operation: Document) -> dict[str, Document]:
    """What an operation answers, by status, without references."""
    found = {}
    for status, response in operation["responses"].items():
        while "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        found[status] = response
    return found


def test_the_document_says_what_errors_look_like(document: Document) -> None:
    schemas = document["components"]["schemas"]
    wanted = {"request_id", "code", "status", "title", "detail", "field", "links"}
    assert set(schemas["Error"]["properties"]) == wanted
    assert set(schemas["Error"]["required"]) == wanted - {"field"}
    assert set(schemas["Errors"]["properties"]) == {"message", "errors"}
    for method, path, operation in operations(document):
        for status, answer in answers(document, operation).items():
            if int(status) >= 400 and status != "414":     # that comes from the web server
                reference = answer["content"]["application/json"]["schema"]["$ref"]
                assert reference == "#/components/schemas/Errors", (method, path, status)


def test_the_document_says_which_errors_there_are(document: Document) -> None:
    for method, path, operation in operations(document):
        given = {status for status in answers(document, operation) if int(status) >= 400}
        wanted = set() if operation["operationId"] in PUBLIC else {"401", "403", "406", "503"}
        wanted |= {"404"} if "{" in path else set()
        wanted |= {"400"} if "{image}" in path or "{job}" in path else set()
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            wanted |= {"400", "413", "415"}
        assert wanted <= given, (method, path)
    assert "409" in answers(document, document["paths"]["/v1/images/{image}/file"]["put"])
    assert "507" in answers(document, document["paths"]["/v1/images"]["post"])


def test_the_document_says_which_headers_answers_have(document: Document) -> None:
    for method, path, operation in operations(document):
        for status, answer in answers(document, operation).items():
            if status == "414":
                continue
            assert {"X-Openstack-Request-Id", "OpenStack-API-Version"} <= set(answer["headers"]), path
            assert ("content" in answer) == (status not in BODILESS.get(method, ("204",))), path
    created = document["paths"]["/v1/images"]["post"]["responses"]["202"]
    assert "Location" in created["headers"]
    ids = {operation["operationId"] for _method, _path, operation in operations(document)}
    assert {link["operationId"] for link in created["links"].values()} <= ids


def test_the_document_knows_the_bounds(document: Document) -> None:
    """They are those of the schemas that check requests."""
    fields = document["components"]["schemas"]["ImageCreate"]
    assert fields["additionalProperties"] is False and set(fields["required"]) == {"name", "clouds"}
    known = fields["properties"]
    assert (known["name"]["minLength"], known["name"]["maxLength"]) == (1, 255)
    assert (known["size"]["minimum"], known["size"]["maximum"]) == (1, 2**63 - 1)
    assert (known["properties"]["maxProperties"], known["tags"]["maxItems"]) == (125, 128)
    assert known["clouds"]["oneOf"][0]["maxItems"] == 100
    for name, schema in known.items():
        constrained = {"enum", "pattern", "maximum", "maxItems", "maxProperties", "oneOf", "allOf"}
        assert constrained & set(schema), name
    for path, methods in document["paths"].items():
        for parameter in methods.get("parameters", []):
            uuid = parameter["name"] in ("image", "job")
            assert (parameter["schema"].get("format") == "uuid") == uuid, path
    parameters = document["paths"]["/v1/jobs"]["get"]["parameters"]
    query = {each["name"]: each["schema"] for each in parameters if "name" in each}
    assert query["limit"]["minimum"] == 1 and query["marker"]["format"] == "uuid"
    assert re.search(query["sort"]["pattern"], "status:desc,id")
    assert not re.search(query["sort"]["pattern"], "name")


def test_examples_are_good_examples(document: Document) -> None:
    fields = document["components"]["schemas"]["ImageCreate"]["properties"]
    body = {name: schema["example"] for name, schema in fields.items() if "example" in schema}
    assert len(body) > 8
    assert schemas.ImageCreate().load(body) == body


def test_the_document_says_who_needs_a_token(document: Document) -> None:
    assert document["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["name"] == "X-Auth-Token"
    for _method, _path, operation in operations(document):
        public = operation.get("security") == []
        assert public == (operation["operationId"] in PUBLIC)


def test_the_reference_has_every_operation(document: Document) -> None:
    """It is made from the document, tag by tag."""
    page = pathlib.Path(__file__).parents[3] / "doc/source/api-ref/index.rst"
    found = re.findall(r"^\.\. openapi-operations:: (.*)$", page.read_text(), re.MULTILINE)
    shown = {tag for tags in found for tag in tags.split()}
    assert shown == {tag for _method, _path, operation in operations(document) for tag in operation["tags"]}


def test_every_operation_is_described(document: Document) -> None:
    for _method, path, operation in operations(document):
        assert operation["summary"] and operation["tags"], path
        assert any(code.startswith("2") for code in operation["responses"]), path
    content = document["paths"]["/v1/images/{image}/file"]["put"]["requestBody"]["content"]
    assert list(content) == ["application/octet-stream"]
