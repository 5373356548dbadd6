# SPDX-License-Identifier: Apache-2.0
"""What all operations of the OpenAPI document have in common, said once: errors, headers, ids."""

from typing import Any

import apispec
import flask
from marshmallow import fields

from ciming.api import schemas

ERRORS = {
    400: ("Invalid", "Something in the request is wrong: `field` names it."),
    401: ("Unauthorized", "No token, or one that is wrong or expired."),
    403: ("Forbidden", "The policy does not allow this."),
    404: ("NotFound", "There is none, or it belongs to another project."),
    406: ("NotAcceptable", "`OpenStack-API-Version` asks for a version that there is not."),
    409: ("Conflict", "It is in a state in which this can not be done."),
    410: ("Gone", "The upload has expired, or was given up."),
    412: ("PreconditionFailed", "The request asks for a protocol version that there is not."),
    413: ("TooLarge", "The body is larger than it may be, or the project may have no more."),
    415: ("ContentType", "The body is of a type that is not taken here."),
    423: ("Locked", "Somebody else writes to it now."),
    429: ("TooMany", "The project has to wait; `Retry-After` says how many seconds."),
    460: ("ChecksumMismatch", "The bytes that came are not those that were announced."),
    502: ("CloudError", "A cloud said no, or something that can not be understood."),
    503: ("Unavailable", "A service that is needed does not answer, or too much is under way."),
    507: ("StagingFull", "The staging area has no room for it."),
}
"""Name of the response, and when it is given."""

URI_TOO_LONG = "The web server refused it, in words of its own: most take a request line of 4 to 8 KiB."

MORE_ERRORS = {
    "create_cloud": (409,),
    "update_cloud": (409,),
    "delete_cloud": (409,),
    "create_image": (409, 429, 507),
    "upload_image": (409, 410, 413, 415, 507),
    "show_upload": (409, 410, 412),
    "continue_upload": (409, 410, 412, 413, 415, 423, 460, 507),
    "terminate_upload": (409, 410, 412, 423),
    "update_image": (409, 413, 429),
    "delete_image": (409, 429),
    "sync_image": (409, 429),
    "link_image": (409, 429),
    "unlink_image": (409,),
    "sync_zones": (409, 502),
    "cancel_job": (409,),
    "retry_job": (409, 429),
    "resume_job": (409,),
}
"""By operationId: what does not follow from the shape of the request."""

LINKS = {
    "create_cloud": {
        name: {"operationId": f"{name}_cloud", "parameters": {"cloud": "$response.body#/id"}}
        for name in ("show", "update", "check", "delete")
    },
    "create_image": {
        "image": {"operationId": "show_image", "parameters": {"image": "$response.body#/image/id"}},
        "upload": {"operationId": "upload_image", "parameters": {"image": "$response.body#/image/id"}},
        "job": {"operationId": "show_job", "parameters": {"job": "$response.body#/job/id"}},
        "cancel": {"operationId": "cancel_job", "parameters": {"job": "$response.body#/job/id"}},
    },
    "sync_zones": {
        name: {"operationId": f"{name}_job", "parameters": {"job": "$response.body#/job/id"}}
        for name in ("show", "cancel")
    },
    "cancel_job": {"retry": {"operationId": "retry_job", "parameters": {"job": "$response.body#/id"}}},
}
"""By operationId: what one can do with the ids in an answer."""

A_UUID = {"type": "string", "format": "uuid"}
PATH = {
    "image": {"schema": A_UUID, "description": "Id of the Image."},
    "job": {"schema": A_UUID, "description": "Id of the Job."},
    "cloud": {
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "description": "Id or name of the Cloud.",
    },
}

REQUEST_ID = "X-Openstack-Request-Id"
VERSION = "OpenStack-API-Version"
HEADERS = {
    REQUEST_ID: {
        "description": "Id of the request: quote it when you ask the operator for help.",
        "schema": {"type": "string", "pattern": "^req-[0-9a-f-]{36}$"},
        "required": True,
    },
    VERSION: {
        "description": "The version that the answer is of.",
        "schema": {"type": "string", "example": "multicloud 1.0"},
        "required": True,
    },
}
LOCATION = {
    "description": "Path of what shows how it goes on.",
    "schema": {"type": "string", "format": "uri-reference"},
    "required": True,
}


def location(path: str) -> dict[str, str]:
    """The header that names something in an answer; a proxy may have us below a path."""
    return {"Location": f"{flask.request.script_root}{path}"}


BYTES = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
LENGTH = BYTES | {"minimum": 1}
TUS = {"type": "string", "enum": ["1.0.0"]}
UPLOAD_STATE = {
    "Tus-Resumable": {"description": "The protocol.", "schema": TUS, "required": True},
    "Upload-Offset": {"description": "Bytes that are here.", "schema": BYTES, "required": True},
    "Upload-Length": {"description": "Bytes there are in all, where that is known.", "schema": LENGTH},
    "Upload-Defer-Length": {
        "description": "1 where it is not known how many bytes there are in all.",
        "schema": {"type": "integer", "enum": [1]},
    },
    "Upload-Expires": {
        "description": "When the upload is given up if no more comes.",
        "schema": {"type": "string", "example": "Tue, 24 Nov 2026 19:25:03 GMT"},
    },
}
UPLOAD_OPTIONS = {
    "Tus-Resumable": UPLOAD_STATE["Tus-Resumable"],
    "Tus-Version": {"description": "Versions there are.", "schema": {"type": "string"}, "required": True},
    "Tus-Extension": {"description": "What is offered.", "schema": {"type": "string"}, "required": True},
    "Tus-Max-Size": {"description": "Bytes an image may have.", "schema": BYTES, "required": True},
    "Tus-Checksum-Algorithm": {
        "description": "Algorithms for `Upload-Checksum`.",
        "schema": {"type": "string"},
        "required": True,
    },
}
ASKED_TUS = {"name": "Tus-Resumable", "in": "header", "required": True, "schema": TUS}
ASKED_PART = [
    ASKED_TUS,
    {
        "name": "Upload-Offset",
        "in": "header",
        "required": True,
        "description": "The byte at which the part begins: where the data ends that is here.",
        "schema": BYTES,
    },
    {
        "name": "Upload-Length",
        "in": "header",
        "description": "Bytes there are in all, where create did not say.",
        "schema": LENGTH,
    },
    {
        "name": "Upload-Checksum",
        "in": "header",
        "description": "What the part must hash to: the algorithm, a space, the digest in base64.",
        "schema": {"type": "string", "example": "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="},
    },
]
ASKED_VERSION = {
    "description": "`multicloud 1` or `multicloud latest`. Other services' versions do not matter.",
    "schema": {"type": "string", "example": "multicloud 1"},
}


class Common(apispec.BasePlugin):
    """Adds it to every operation as that is registered."""

    def init_spec(self, spec: apispec.APISpec) -> None:
        """Have the shared parts ready; those that nobody uses stay out of the document."""
        super().init_spec(spec)
        for name, header in HEADERS.items():
            spec.components.header(name, header)
        spec.components.parameter(VERSION, "header", ASKED_VERSION)
        for name, description in ERRORS.values():
            content = {"application/json": {"schema": schemas.Errors}}
            response = {"description": description, "content": content, "headers": _headers()}
            spec.components.response(name, response, lazy=True)

    def path_helper(
        self,
        path: str | None = None,
        operations: dict[Any, Any] | None = None,
        parameters: list[dict[Any, Any]] | None = None,
        **_: Any,
    ) -> None:
        """Say what the parts of the path are."""
        for parameter in parameters or ():
            parameter.update(PATH.get(parameter["name"], {}))

    def operation_helper(
        self, path: str | None = None, operations: dict[Any, Any] | None = None, **_: Any
    ) -> None:
        """Say what can go wrong, and which headers all answers have."""
        for operation in (operations or {}).values():
            name = operation.get("operationId", "")
            answers = operation["responses"]
            for answer in answers.values():
                if isinstance(answer, dict):
                    answer["headers"] = answer.get("headers", {}) | _headers()
            for status in _errors(path or "", operation):
                answers[str(status)] = ERRORS[status][0]
            for status in [each for each in answers if str(each).startswith("2") and name in LINKS]:
                answers[status]["links"] = LINKS[name]
            if _query(operation):
                answers["414"] = {"description": URI_TOO_LONG}
            operation.setdefault("parameters", []).append(VERSION)


def only_null(_converter: Any, field: fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
    """A nested schema or null: apispec would take any object in place of the null."""
    if not (isinstance(field, fields.Nested) and field.allow_none):
        return {}
    return {"anyOf": [ret["anyOf"][0], {"type": "object", "nullable": True, "enum": [None]}]}


def _headers() -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in HEADERS}


def _errors(path: str, operation: dict[str, Any]) -> list[int]:
    """The statuses that can come of a request of this shape."""
    found = set(MORE_ERRORS.get(operation.get("operationId", ""), ()))
    if operation.get("security") != []:
        found |= {401, 403, 406, 503}       # Keystone may be away
    if "{" in path:
        found.add(404)
    if "{image}" in path or "{job}" in path or _query(operation):
        found.add(400)
    if "application/json" in operation.get("requestBody", {}).get("content", ()):
        found |= {400, 413, 415}
    return sorted(found)


def _query(operation: dict[str, Any]) -> bool:
    parameters = [each for each in operation.get("parameters", ()) if isinstance(each, dict)]
    return any(each.get("in") == "query" for each in parameters)
