# SPDX-License-Identifier: Apache-2.0
"""Every error answer has one shape, that of the API-SIG's guideline.

openstacksdk shows only a top-level `message`, so there is one beside `errors`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import flask
from oslo_log import log
from werkzeug import exceptions as http

from ciming import exceptions
from ciming.db import work

LOG = log.getLogger(__name__)

CODES = {
    400: "request.invalid",
    401: "auth.required",
    404: "url.not_found",
    405: "method.not_allowed",
    413: "request.too_large",
    415: "request.content_type",
    422: "request.invalid",
}

PLACES = {"json": "body", "query": "query"}     # where no field is named


def request_id() -> str:
    return str(flask.request.environ.get("openstack.request_id", ""))


def _answer(status: int, errors: list[dict[str, Any]]) -> flask.Response:
    for error in errors:
        error.update(request_id=request_id(), status=status, links=[])
    message = " ".join(_sentence(error) for error in errors)
    response = flask.jsonify(message=message, errors=errors)
    response.status_code = status
    return response


def _sentence(error: Mapping[str, Any]) -> str:
    return f"{error['field']}: {error['detail']}" if error.get("field") else str(error["detail"])


def _ours(error: exceptions.CimingError) -> flask.Response:
    body = {"code": error.code, "title": error.title, "detail": error.detail}
    if error.field:
        body["field"] = error.field
    response = _answer(error.status, [body])
    if isinstance(error, exceptions.TooOften):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _http(error: http.HTTPException) -> flask.typing.ResponseReturnValue:
    if error.code is None or error.code < 400:
        return error.get_response()
    status = 400 if error.code == 422 else error.code
    code = CODES.get(error.code, f"http.{error.code}")
    messages = (getattr(error, "data", None) or {}).get("messages") or {}
    errors: list[dict[str, Any]] = [
        {"code": code, "title": "Invalid request", "detail": detail, "field": field or PLACES[place]}
        for place, wrong in messages.items()
        for field, detail in flatten(wrong)
    ]
    if not errors:
        errors = [{"code": code, "title": error.name, "detail": error.description or error.name}]
    response = _answer(status, errors)
    if error.code == 405 and isinstance(error, http.MethodNotAllowed):
        response.headers["Allow"] = ", ".join(error.valid_methods or ())
    return response


def flatten(messages: object, path: str = "") -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it) out of marshmallow's nested messages."""
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            # marshmallow says where in a mapping it was: key, value, _schema
            step = "" if name in ("_schema", "key", "value") else str(name)
            yield from flatten(inner, f"{path}.{step}".strip("."))
    elif isinstance(messages, list):
        for message in messages:
            yield path[:200], str(message)


def _too_deep(error: RecursionError) -> flask.Response:
    """Whoever came to it in the body, which is read more than once, from stacks of several depths."""
    if flask.request.method not in ("POST", "PATCH"):
        return _unexpected(error)
    return _ours(
        exceptions.InvalidRequest("The body is nested too deep.", code="request.invalid_json", field="body")
    )


def _database_away(error: Exception) -> flask.Response:
    LOG.error("The database can not be used", exc_info=error)
    return _ours(exceptions.Unavailable("The database can not be used now. Try again later."))


def _unexpected(error: Exception) -> flask.Response:
    LOG.exception("Unexpected error")
    return _answer(
        500,
        [
            {
                "code": "internal",
                "title": "Internal error",
                "detail": "Something in CIMinG went wrong. Please report the request id "
                f"{request_id()} to its operator.",
            }
        ],
    )


def register(app: flask.Flask) -> None:
    app.register_error_handler(exceptions.CimingError, _ours)
    app.register_error_handler(http.HTTPException, _http)
    app.register_error_handler(RecursionError, _too_deep)
    for away in work.AWAY:
        app.register_error_handler(away, _database_away)
    app.register_error_handler(Exception, _unexpected)
