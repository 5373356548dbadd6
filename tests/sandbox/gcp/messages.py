# SPDX-License-Identifier: Apache-2.0
"""Compute's messages, by the descriptions of them that Google's client brings.

What they do not know is refused, in the body and among the parameters:
https://cloud.google.com/apis/docs/system-parameters has those that every method knows.
"""

import json
from typing import Any

from google.protobuf import json_format

from tests.sandbox.gcp import errors, wire

SYSTEM = frozenset({"alt", "$alt", "prettyPrint", "fields", "key", "quotaUser", "userIp", "$userProject"})
Request = wire.Request
Found = Any
"""A message, or a document."""


def fields(kind: Any) -> frozenset[str]:
    """Return what the fields of a message are called in JSON."""
    return frozenset(field.json_name for field in kind.pb().DESCRIPTOR.fields)


def read(kind: Any, body: bytes) -> Any:
    """Return the message that a body holds; Refused if it is none."""
    try:
        return kind.wrap(json_format.Parse(body or b"{}", kind.pb()()))
    except json_format.ParseError as error:
        raise errors.malformed(f"Invalid JSON payload received. {error}") from None
    except UnicodeDecodeError:
        raise errors.malformed("Invalid JSON payload received. It is not UTF-8.") from None


def check_query(kind: Any, query: dict[str, str]) -> None:
    """Refused if the method of this request has no such parameter, or none of such a value."""
    values: dict[str, Any] = {name: value for name, value in query.items() if name not in SYSTEM}
    known = {field.json_name: field for field in kind.pb().DESCRIPTOR.fields}
    for name, value in values.items():
        field = known.get(name)
        if field is not None and field.type == field.TYPE_BOOL and value in ("true", "false"):
            values[name] = value == "true"
    try:
        json_format.ParseDict(values, kind.pb()())
    except json_format.ParseError as error:
        raise errors.malformed(f"Invalid value or name of a query parameter: {error}") from None


def document(message: Any) -> dict[str, Any]:
    """Return a message as JSON has it."""
    found: dict[str, Any] = json_format.MessageToDict(type(message).pb(message))
    return found


def text(message: Any) -> str:
    """Return what tells a message from any other."""
    return json.dumps(document(message), sort_keys=True)
