# SPDX-License-Identifier: Apache-2.0
"""Refusals, as Google writes them.

- Compute: https://cloud.google.com/compute/docs/api/how-tos/troubleshooting-apis
- Storage: https://cloud.google.com/storage/docs/json_api/v1/status-codes
- What the front end of all services says, with a ``status``: https://cloud.google.com/apis/design/errors
- Tokens: https://datatracker.ietf.org/doc/html/rfc6749#section-5.2
"""

import json
from typing import Any

from tests.sandbox.gcp.wire import JSON, Response


class Dropped(Exception):
    """The connection ends without an answer."""


class Refused(Exception):
    """An answer that is an error; `status` is the canonical code, where the front end itself refuses."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        status: str | None = None,
        location: tuple[str, str] | None = None,
        details: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.status, self.location, self.details = status, location, details

    def response(self) -> Response:
        """Return what is answered."""
        one: dict[str, Any] = {"message": self.message, "domain": "global", "reason": self.reason}
        if self.location is not None:
            one |= {"locationType": self.location[0], "location": self.location[1]}
        error: dict[str, Any] = {"code": self.code, "message": self.message, "errors": [one]}
        if self.status is not None:
            error["status"] = self.status
        if self.details is not None:
            error["details"] = [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "googleapis.com"}
                | self.details
            ]
        headers = dict(JSON)
        if self.code == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="https://accounts.google.com/", error="invalid_token"'
        return Response(self.code, headers, json.dumps({"error": error}).encode())


class Plain(Refused):
    """An error whose answer is text."""

    def response(self) -> Response:
        return Response(self.code, {"Content-Type": "text/plain; charset=utf-8"}, self.message.encode())


class NotModified(Refused):
    """The answer to a read whose condition says that it is not needed: it has no body."""

    def __init__(self) -> None:
        super().__init__(304, "notModified", "Not Modified")

    def response(self) -> Response:
        return Response(304, {}, b"")


class NoToken(Refused):
    """What the token endpoint refuses."""

    def response(self) -> Response:
        said = {"error": self.reason, "error_description": self.message}
        return Response(self.code, dict(JSON), json.dumps(said).encode())


def invalid(message: str, reason: str = "invalid") -> Refused:
    """Return the refusal of what can not be asked so."""
    return Refused(400, reason, message)


def field(name: str, value: object, why: str) -> Refused:
    """Return Compute's refusal of a value."""
    return invalid(f"Invalid value for field '{name}': '{value}'. {why}")


def malformed(message: str) -> Refused:
    """Return the refusal of a request that the front end can not read."""
    return Refused(400, "badRequest", message, status="INVALID_ARGUMENT")


def not_found(message: str) -> Refused:
    return Refused(404, "notFound", message)


def forbidden(message: str) -> Refused:
    return Refused(403, "forbidden", message)


def condition(message: str) -> Refused:
    """Return the refusal of what was to be done only under a condition."""
    return Refused(412, "conditionNotMet", message, location=("header", "If-Match"))


def not_done(what: str) -> Refused:
    """Return the answer to what the stand-in does not do."""
    return Refused(501, "notImplemented", f"{what} is not done here.")
