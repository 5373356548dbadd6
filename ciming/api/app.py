# SPDX-License-Identifier: Apache-2.0
"""The WSGI application: blueprints, error shape, OpenAPI document."""

import json
from typing import Any

import flask
import flask_smorest
from oslo_config import cfg
from swagger_ui_bundle import swagger_ui_path
from werkzeug import exceptions as http

from ciming import exceptions
from ciming.api import (
    auth,
    availability,
    cloud_images,
    clouds,
    document,
    errors,
    images,
    jobs,
    links,
    middleware,
    receiving,
    schemas,
    uploads,
    versions,
    zone_syncs,
)

BLUEPRINTS = (
    versions.blueprint,
    clouds.blueprint,
    cloud_images.blueprint,
    images.blueprint,
    availability.blueprint,
    links.blueprint,
    uploads.blueprint,
    jobs.blueprint,
    zone_syncs.blueprint,
)

DOCUMENT = {
    "API_TITLE": "CIMinG",
    "API_VERSION": "v1",
    "OPENAPI_VERSION": "3.0.3",
    "OPENAPI_URL_PREFIX": "/v1",
    "OPENAPI_JSON_PATH": "openapi.json",
    "OPENAPI_SWAGGER_UI_PATH": "docs",
    "OPENAPI_SWAGGER_UI_URL": "docs/assets/",       # served from here, no CDN
    "API_SPEC_OPTIONS": {
        "info": {
            "description": "One image, every cloud, one verified identity.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
            }
        },
        "security": [{"token": []}],
    },
}


class Api(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest is untyped
    """flask-smorest's, with our error schema in the document and our shape in the answers."""

    ERROR_SCHEMA = schemas.Errors
    DEFAULT_ERROR_RESPONSE_NAME = None      # each operation says which there are

    def _register_error_handlers(self) -> None:
        errors.register(self._app)


def create_flask_app() -> flask.Flask:
    """The application without its middleware."""
    app = flask.Flask("ciming", static_folder=None)
    app.config.update(DOCUMENT, MAX_CONTENT_LENGTH=cfg.CONF.api.max_json_body)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    app.add_url_rule("/v1/docs/assets/<path:name>", "docs.asset", _docs_asset)
    api = Api(app, spec_kwargs={"extra_plugins": [document.Common()]})
    api.ma_plugin.converter.add_attribute_function(document.only_null)
    for blueprint in BLUEPRINTS:
        api.register_blueprint(blueprint)
    for endpoint in ("api-docs.openapi_json", "api-docs.openapi_swagger_ui"):
        app.view_functions[endpoint] = auth.public(app.view_functions[endpoint])
    app.before_request(zone_syncs.before_request)
    app.teardown_request(zone_syncs.after_long_plan)
    app.before_request(_require_json)
    app.after_request(auth.assert_policy_checked)
    app.before_request(versions.negotiate)
    app.after_request(versions.say)
    app.after_request(_hear_to_the_end)
    return app


@auth.public
def _docs_asset(name: str) -> flask.Response:
    return flask.send_from_directory(str(swagger_ui_path), name)


def _require_json() -> None:
    """A body of another type would read as an empty one; one that can not be parsed is no 500."""
    known = flask.request.environ.get("HTTP_X_IDENTITY_STATUS") == "Confirmed"
    data = flask.request.blueprint == uploads.blueprint.name
    if flask.request.method not in ("POST", "PATCH") or data or flask.request.routing_exception or not known:
        return      # the handler, or Flask, has another answer
    has_body = flask.request.content_length or "Transfer-Encoding" in flask.request.headers
    if not has_body and not flask.request.is_json:
        if flask.request.method == "PATCH":
            raise exceptions.InvalidRequest(
                "Say in the body, as JSON, what is to be changed.", code="request.invalid_json", field="body"
            )
        return      # the handler says whether it needs one
    if not flask.request.is_json:
        raise http.UnsupportedMediaType("The body must be JSON: Content-Type: application/json.")
    try:
        json.loads(flask.request.get_data(cache=True))
    except ValueError as error:
        raise exceptions.InvalidRequest(
            f"The body is not JSON: {error}", code="request.invalid_json", field="body"
        ) from None


def _hear_to_the_end(response: flask.Response) -> flask.Response:
    """Also who may not send anything: a server that just closed the connection would cut our answer off."""
    if response.status_code >= 400 and flask.request.method != "HEAD":
        receiving.drain()
    return response


def create_app() -> Any:
    """The whole WSGI application, for any server."""
    return middleware.wrap(create_flask_app().wsgi_app, cfg.CONF)
