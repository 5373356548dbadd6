# SPDX-License-Identifier: Apache-2.0
"""What of Compute Engine's API is done: https://cloud.google.com/compute/docs/reference/rest/v1."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from google.cloud import compute_v1

from tests.sandbox.gcp import accounts, calls, errors, images, messages, operations, wire
from tests.sandbox.gcp.state import State


class Method(NamedTuple):
    """One method: its request's parameters, and what it does."""

    action: str
    request: Any
    done: Callable[..., messages.Found]
    locked: bool = True


IMAGES: dict[tuple[str, str], Method] = {
    ("GET", ""): Method("images.get", compute_v1.GetImageRequest, images.get),
    ("DELETE", ""): Method("images.delete", compute_v1.DeleteImageRequest, images.delete),
    ("PATCH", ""): Method("images.patch", compute_v1.PatchImageRequest, images.patch),
    ("POST", "deprecate"): Method("images.deprecate", compute_v1.DeprecateImageRequest, images.deprecate),
    ("POST", "setLabels"): Method("images.setLabels", compute_v1.SetLabelsImageRequest, images.set_labels),
    ("GET", "getIamPolicy"): Method(
        "images.getIamPolicy", compute_v1.GetIamPolicyImageRequest, images.get_policy
    ),
    ("POST", "setIamPolicy"): Method(
        "images.setIamPolicy", compute_v1.SetIamPolicyImageRequest, images.set_policy
    ),
    ("POST", "testIamPermissions"): Method(
        "images.testIamPermissions", compute_v1.TestIamPermissionsImageRequest, images.test_permissions
    ),
}
LISTS: dict[tuple[str, str], Method] = {
    ("GET", "images"): Method("images.list", compute_v1.ListImagesRequest, images.ls),
    ("POST", "images"): Method("images.insert", compute_v1.InsertImageRequest, images.insert),
    ("GET", "operations"): Method(
        "globalOperations.list", compute_v1.ListGlobalOperationsRequest, operations.ls
    ),
}
FAMILY = Method("images.getFromFamily", compute_v1.GetFromFamilyImageRequest, images.from_family)
OPERATIONS: dict[tuple[str, str], Method] = {
    ("GET", ""): Method("globalOperations.get", compute_v1.GetGlobalOperationRequest, operations.get),
    ("DELETE", ""): Method(
        "globalOperations.delete", compute_v1.DeleteGlobalOperationRequest, operations.delete
    ),
    ("POST", "wait"): Method(
        "globalOperations.wait", compute_v1.WaitGlobalOperationRequest, operations.wait, locked=False
    ),
}


def answer(state: State, request: wire.Request) -> wire.Response:
    """Do what is asked."""
    match request.parts:
        case ["compute", "v1", "projects", project, "global", *rest]:
            method, names = _method(request, rest)
            return _do(state, request, method, [project, *names])
    raise errors.not_done(f"{request.method} {request.path}")


def _method(request: wire.Request, rest: list[str]) -> tuple[Method, list[str]]:
    verb = request.method
    match rest:
        case [kind] if (verb, kind) in LISTS:
            return LISTS[verb, kind], []
        case ["images", "family", family] if verb == "GET":
            return FAMILY, [family]
        case ["images", name, *what] if len(what) < 2 and (verb, "".join(what)) in IMAGES:
            return IMAGES[verb, "".join(what)], [name]
        case ["operations", name, *what] if len(what) < 2 and (verb, "".join(what)) in OPERATIONS:
            return OPERATIONS[verb, "".join(what)], [name]
    raise errors.not_done(f"{request.method} {request.path}")


def _do(state: State, request: wire.Request, method: Method, names: list[str]) -> wire.Response:
    with calls.call(state, request, f"compute.{method.action}") as call:
        messages.check_query(method.request, request.query)
        if names[0] not in accounts.PROJECTS:
            raise errors.not_found(f"The resource 'projects/{names[0]}' was not found")
        if method.locked:
            with state.lock:
                return _answer(method.done(call, request, *names))
        found = method.done(call, request, *names)
        with state.lock:
            return _answer(found)


def _answer(found: messages.Found) -> wire.Response:
    document = found if isinstance(found, dict) else messages.document(found)
    return wire.Response(200, dict(wire.JSON), json.dumps(document).encode())
