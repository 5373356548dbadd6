# SPDX-License-Identifier: Apache-2.0
"""Requests and answers as they travel, read and written by botocore's own models of the services.

What a model demands (required, enum, pattern, min, max) is demanded here; a parameter that it does not
know is refused. Four protocols: ec2 and query (form in, XML out), rest-json, json.
"""

import base64
import binascii
import datetime
import functools
import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from xml.sax import saxutils

import botocore.loaders
import botocore.model
import botocore.utils

from tests.sandbox.aws import errors

Params = dict[str, Any]
Tree = dict[str, Any]
SERVICES = ("ec2", "ebs", "kms", "sts", "s3")
VERSIONS = {"ec2": "2016-11-15", "sts": "2011-06-15"}
NAMED_CODES = {"ImageNameRequest"}
"""Shapes whose actions have an own code for what is wrong with them."""
INTEGER = re.compile(r"-?\d{1,18}")


class Request:
    """One HTTP request: path and query as they came, names of headers in lower case."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method, self.headers, self.body = method, headers, body
        self.path, _, self.query = target.partition("?")

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the body: the signature needs it, and so do blocks."""
        return hashlib.sha256(self.body).digest()

    @functools.cached_property
    def arguments(self) -> list[tuple[str, str]]:
        """The query's names and values."""
        pairs = (pair.partition("=") for pair in self.query.split("&") if pair)
        return [(urllib.parse.unquote(name), urllib.parse.unquote(value)) for name, _, value in pairs]


class Response(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@functools.cache
def model(service: str) -> botocore.model.ServiceModel:
    """Return the service's model, only out of botocore: a user's own models are not looked at."""
    loader = botocore.loaders.Loader(
        extra_search_paths=[botocore.loaders.Loader.BUILTIN_DATA_PATH], include_default_search_paths=False
    )
    return botocore.model.ServiceModel(loader.load_service_model(service, "service-2"), service)


def protocol(service: str) -> str:
    """Return how the service talks."""
    return str(model(service).metadata["protocol"])


# Reading


def read(service: str, request: Request) -> tuple[botocore.model.OperationModel, Params]:
    """Return the operation that is asked for, and its parameters; Refused if they are not as documented."""
    readers = {"ec2": _read_form, "query": _read_form, "rest-json": _read_rest, "json": _read_json}
    operation, params = readers[protocol(service)](service, request)
    if operation.input_shape is not None:
        for cause, problem in _problems(operation.input_shape, params, ""):
            raise errors.refusal(service, cause, problem)
    return operation, params


def _operation(service: str, name: str) -> botocore.model.OperationModel:
    if name not in model(service).operation_names:
        raise errors.refusal(
            service, "unknown action", f"The action {name} is not valid for this web service."
        )
    return model(service).operation_model(name)


def _read_form(service: str, request: Request) -> tuple[botocore.model.OperationModel, Params]:
    if request.method != "POST" or request.path != "/":
        raise errors.refusal(service, "unknown action", "The request must be a POST to /.")
    try:
        pairs = urllib.parse.parse_qsl(
            request.body.decode(), keep_blank_values=True, strict_parsing=bool(request.body)
        )
    except ValueError:
        raise errors.Refused(
            "MalformedQueryString", "The query string contains a syntax error.", 404
        ) from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise errors.Refused("MalformedQueryString", "A parameter was given twice.", 404)
    if "Action" not in fields:
        raise errors.Refused("MissingAction", "The request is missing an action or a required parameter.")
    operation = _operation(service, fields.pop("Action"))
    if fields.pop("Version", None) != VERSIONS[service]:
        raise errors.Refused("NoSuchVersion", "The API version is not known.")
    tree: Tree = {}
    for name, value in fields.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise errors.refusal(service, "invalid", f"Parameter {name} is both a value and a structure.")
        node[last] = value
    shape = operation.input_shape
    return operation, {} if shape is None else _form_structure(service, shape, tree, "")


def _form_name(service: str, name: str, shape: botocore.model.Shape) -> str:
    wire = shape.serialization
    if service != "ec2":
        return str(wire.get("name", name))
    named = str(wire.get("queryName") or wire.get("name", name))
    return named if "queryName" in wire else named[0].upper() + named[1:]


def _form_structure(service: str, shape: Any, tree: Tree, path: str) -> Params:
    known = {_form_name(service, name, member): name for name, member in shape.members.items()}
    params = {}
    for wire_name, node in tree.items():
        if wire_name not in known:
            raise errors.refusal(
                service, "unknown parameter", f"The parameter {path}{wire_name} is not recognized"
            )
        name = known[wire_name]
        params[name] = _form_value(service, shape.members[name], node, f"{path}{wire_name}")
    return params


def _form_value(service: str, shape: Any, node: Any, path: str) -> Any:
    if shape.type_name == "structure":
        if not isinstance(node, dict):
            raise errors.refusal(service, "invalid", f"The parameter {path} is not a structure.")
        return _form_structure(service, shape, node, f"{path}.")
    if shape.type_name == "list":
        if node == "":
            return []
        if service != "ec2" and isinstance(node, dict):
            node = node.get("member")
        if not isinstance(node, dict) or not all(re.fullmatch(r"[1-9]\d{0,4}", key) for key in node):
            raise errors.refusal(service, "invalid", f"The parameter {path} is not a list.")
        return [
            _form_value(service, shape.member, node[key], f"{path}.{key}") for key in sorted(node, key=int)
        ]
    if not isinstance(node, str):
        raise errors.refusal(service, "unknown parameter", f"The parameter {path} is a single value.")
    return _from_text(service, shape, node, path)


def _from_text(service: str, shape: Any, text: str, path: str) -> Any:
    try:
        if shape.type_name in ("integer", "long"):
            if not INTEGER.fullmatch(text):
                raise ValueError(text)
            return int(text)
        if shape.type_name == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if shape.type_name == "timestamp":
            return botocore.utils.parse_timestamp(text)
        if shape.type_name == "blob":
            return base64.b64decode(text, validate=True)
        if shape.type_name in ("float", "double"):
            return float(text)
    except (ValueError, KeyError, binascii.Error):
        message = f"Value ({text}) for parameter {path} is invalid. It is not of type {shape.type_name}."
        raise errors.refusal(service, "invalid", message) from None
    return text


def _read_json(service: str, request: Request) -> tuple[botocore.model.OperationModel, Params]:
    prefix, _, name = request.headers.get("x-amz-target", "").rpartition(".")
    if request.method != "POST" or request.path != "/" or prefix != model(service).metadata["targetPrefix"]:
        raise errors.refusal(service, "unknown action", "The request names no action.")
    operation = _operation(service, name)
    return operation, _from_json(service, operation.input_shape, _json(service, request.body))


def _json(service: str, body: bytes) -> Any:
    try:
        return json.loads(body or b"{}")
    except ValueError:
        raise errors.Refused("SerializationException", "The body is not JSON.") from None


def _from_json(service: str, shape: Any, value: Any) -> Any:
    kinds = {
        "structure": dict, "map": dict, "list": list, "string": str, "boolean": bool, "blob": str,
        "integer": int, "long": int, "timestamp": (int, float), "float": (int, float), "double": (int, float),
    }  # fmt: skip
    kind = shape.type_name
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean"):  # type: ignore[arg-type]
        raise errors.Refused("SerializationException", f"{type(value).__name__} can not be {kind}")
    if kind == "structure":
        if unknown := value.keys() - shape.members.keys():
            raise errors.Refused("SerializationException", f"Unknown members: {', '.join(sorted(unknown))}")
        return {
            name: _from_json(service, shape.members[name], one)
            for name, one in value.items() if one is not None
        }  # fmt: skip
    if kind == "list":
        return [_from_json(service, shape.member, one) for one in value]
    return value


class _Route(NamedTuple):
    method: str
    path: re.Pattern[str]
    literals: frozenset[str]
    """Words that must be in the query."""
    members: frozenset[str]
    """Arguments of the query, and headers, that must be there."""
    name: str


@functools.cache
def _routes(service: str) -> list[_Route]:
    """All operations of a REST service, those that demand most first."""
    routes = []
    for name in model(service).operation_names:
        operation = model(service).operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        pattern = re.sub(r"\{(\w+)\+\}", r"(?P<\1>.+)", path)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
        shape = operation.input_shape
        required = [shape.members[one] for one in shape.required_members] if shape else []
        members = [
            one.serialization["name"].lower()
            for one in required if one.serialization.get("location") in ("querystring", "header")
        ]  # fmt: skip
        literals = frozenset(query.split("&")) - {""}
        demanded = frozenset(members) if service == "s3" else frozenset()
        routes.append(_Route(operation.http["method"], re.compile(pattern), literals, demanded, name))
    return sorted(routes, key=lambda route: -len(route.literals) - len(route.members))


def route(service: str, request: Request) -> tuple[str, dict[str, str]]:
    """Return the operation of a REST service, and what its path says; Refused if there is none."""
    words = {f"{name}={value}" if value else name for name, value in request.arguments}
    names = {name for name, _ in request.arguments}
    present = {name.lower() for name in names} | request.headers.keys()
    path = request.path if service != "s3" else request.path.rstrip("/") or "/"
    for one in _routes(service):
        found = one.path.fullmatch(path)
        if (
            found
            and one.method == request.method
            and one.members <= present
            and one.literals <= words | names
        ):
            return one.name, {key: urllib.parse.unquote(value) for key, value in found.groupdict().items()}
    raise errors.refusal(service, "unknown action", f"No operation is {request.method} {request.path}.")


def _read_rest(service: str, request: Request) -> tuple[botocore.model.OperationModel, Params]:
    name, places = route(service, request)
    operation = model(service).operation_model(name)
    shape: Any = operation.input_shape
    payload = shape.serialization.get("payload")
    query = dict(request.arguments)
    params: Params = {}
    in_body: set[str] = set()
    for name, member in shape.members.items():
        wire = member.serialization.get("name", name)
        location = member.serialization.get("location")
        where: Mapping[str, str] = {"uri": places, "querystring": query, "header": request.headers}.get(
            location, {}
        )
        if location is None:
            in_body.add(name)
        elif (text := where.get(wire.lower() if location == "header" else wire)) is not None:
            params[name] = _from_text(service, member, text, wire)
    if payload:
        return operation, params | {payload: request.body}
    if in_body:
        body = _json(service, request.body)
        if not isinstance(body, dict):
            raise errors.Refused("SerializationException", "The body is no JSON object.")
        if unknown := body.keys() - in_body:
            raise errors.Refused("SerializationException", f"Unknown members: {', '.join(sorted(unknown))}")
        params |= _from_json(service, shape, body)
    elif request.body:
        raise errors.Refused("SerializationException", "The operation takes no body.")
    return operation, params


def _problems(shape: Any, value: Any, path: str) -> Iterator[tuple[errors.Cause, str]]:
    """What the model does not allow."""
    meta = shape.metadata if shape.name not in NAMED_CODES else {}
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                yield "missing", f"The request must contain the parameter {path}{name}"
        for name, one in value.items():
            yield from _problems(shape.members[name], one, f"{path}{name}.")
        return
    size = value if shape.type_name in ("integer", "long") else None
    if shape.type_name in ("string", "list"):
        size = len(value)
    label = path.rstrip(".")
    shown = "" if meta.get("sensitive") else f" '{str(value)[:80]}'"
    if size is not None and size < meta.get("min", size):
        yield "invalid", f"Value{shown} at '{label}' must be (of length) at least {meta['min']}"
    if size is not None and size > meta.get("max", size):
        yield "invalid", f"Value{shown} at '{label}' must be (of length) at most {meta['max']}"
    if "enum" in meta and value not in meta["enum"]:
        yield "invalid", f"Value{shown} at '{label}' must be one of {', '.join(meta['enum'][:20])}"
    if "pattern" in meta and r"\p{" not in meta["pattern"] and not re.fullmatch(meta["pattern"], value):
        yield "invalid", f"Value{shown} at '{label}' must match {meta['pattern']}"
    if shape.type_name == "list":
        for place, one in enumerate(value, 1):
            yield from _problems(shape.member, one, f"{path}{place}.")


# Writing


def write(operation: botocore.model.OperationModel, result: Params, request_id: str) -> Response:
    """Return the answer: `result` as the model of the operation's output has it."""
    service = operation.service_model
    shape: Any = operation.output_shape
    kind = service.metadata["protocol"]
    status = operation.http.get("responseCode", 200)
    if kind in ("ec2", "query"):
        inner = "<return>true</return>" if shape is None else _xml_structure(shape, result)
        if kind == "ec2":
            inner = f"<requestId>{request_id}</requestId>{inner}"
            space = f"http://ec2.amazonaws.com/doc/{service.api_version}/"
        else:
            inner = (
                f"<{operation.name}Result>{inner}</{operation.name}Result>"
                f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
            )
            space = service.metadata["xmlNamespace"]
        body = f'<{operation.name}Response xmlns="{space}">{inner}</{operation.name}Response>'
        return Response(status, _headers("text/xml", request_id), body.encode())
    if kind == "json":
        headers = _headers("application/x-amz-json-1.1", request_id)
        return Response(status, headers, json.dumps(_to_json(shape, result)).encode())
    headers = _headers("application/json", request_id)
    rest = dict(result)
    for name, member in shape.members.items():
        if member.serialization.get("location") == "header" and name in rest:
            headers[member.serialization["name"]] = str(rest.pop(name))
    if payload := shape.serialization.get("payload"):
        headers["Content-Type"] = "application/octet-stream"
        return Response(status, headers, rest.pop(payload))
    return Response(status, headers, json.dumps(_to_json(shape, rest)).encode())


def refuse(service: str, refused: errors.Refused, request_id: str) -> Response:
    """Return the answer that the error is, in the service's own form."""
    code, message = refused.code, refused.message
    kind = "rest-xml" if service == "s3" else protocol(service)
    if kind == "rest-json":
        headers = _headers("application/json", request_id) | {"x-amzn-ErrorType": code}
        return Response(refused.status, headers, json.dumps({"Message": message} | refused.more).encode())
    if kind == "json":
        headers = _headers("application/x-amz-json-1.1", request_id)
        return Response(refused.status, headers, json.dumps({"__type": code, "message": message}).encode())
    error = _elements({"Code": code, "Message": message} | refused.more)
    if kind == "ec2":
        body = (
            f"<Response><Errors><Error>{error}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
    elif kind == "query":
        by = "Sender" if refused.status < 500 else "Receiver"
        body = (
            f'<ErrorResponse xmlns="{model(service).metadata["xmlNamespace"]}">'
            f"<Error><Type>{by}</Type>{error}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    else:
        body = f"<Error>{error}<RequestId>{request_id}</RequestId><HostId>{request_id}</HostId></Error>"
        headers = {
            "Content-Type": "application/xml",
            "x-amz-request-id": request_id,
            "x-amz-id-2": request_id,
        }
        if "Region" in refused.more:  # an answer to HEAD has no body
            headers["x-amz-bucket-region"] = refused.more["Region"]
        return Response(refused.status, headers, body.encode())
    return Response(refused.status, _headers("text/xml", request_id), body.encode())


def _headers(content_type: str, request_id: str) -> dict[str, str]:
    return {"Content-Type": content_type, "x-amzn-RequestId": request_id}


def _elements(values: Mapping[str, str]) -> str:
    return "".join(f"<{name}>{saxutils.escape(value)}</{name}>" for name, value in values.items())


def _known(shape: Any, value: Params) -> Iterator[tuple[str, Any, Any]]:
    if unknown := value.keys() - shape.members.keys():
        raise AssertionError(f"{shape.name} has no {unknown}")
    for name, one in value.items():
        if one is not None:
            yield name, shape.members[name], one


def _xml_structure(shape: Any, value: Params) -> str:
    return "".join(
        _xml(member.serialization.get("name", name), member, one)
        for name, member, one in _known(shape, value)
    )


def _xml(tag: str, shape: Any, value: Any) -> str:
    if shape.type_name == "structure":
        inner = _xml_structure(shape, value)
    elif shape.type_name == "list":
        item = shape.member.serialization.get("name", "member")
        inner = "".join(_xml(item, shape.member, one) for one in value)
    elif shape.type_name == "boolean":
        inner = "true" if value else "false"
    elif shape.type_name == "timestamp":
        inner = iso(value)
    else:
        inner = saxutils.escape(str(value))
    return f"<{tag}>{inner}</{tag}>"


def iso(value: datetime.datetime) -> str:
    """Return the time as EC2 writes it."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"


def _to_json(shape: Any, value: Any) -> Any:
    if shape is None:
        return {}
    if shape.type_name == "structure":
        return {
            member.serialization.get("name", name): _to_json(member, one)
            for name, member, one in _known(shape, value)
        }
    if shape.type_name == "list":
        return [_to_json(shape.member, one) for one in value]
    return value.timestamp() if shape.type_name == "timestamp" else value
