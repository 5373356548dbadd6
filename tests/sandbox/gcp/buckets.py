# SPDX-License-Identifier: Apache-2.0
"""Buckets: insert, get, list, and which permissions one has.

- https://cloud.google.com/storage/docs/json_api/v1/buckets/insert, with ``project``, and a name that nobody
  in the world has (409): https://cloud.google.com/storage/docs/buckets#naming
- Places: https://cloud.google.com/storage/docs/locations; classes:
  https://cloud.google.com/storage/docs/storage-classes
- https://cloud.google.com/storage/docs/json_api/v1/buckets/testIamPermissions tells those of the asked ones
  that the caller has.
"""

import json
import zlib
from typing import Any

from tests.sandbox.gcp import access, errors, names, pages, preconditions, wire
from tests.sandbox.gcp.state import Call, State, now, rfc3339
from tests.sandbox.gcp.store import Resource

MULTI_REGIONS = ("ASIA", "EU", "US")
REGIONS = (
    "AFRICA-SOUTH1", "ASIA-EAST1", "ASIA-EAST2", "ASIA-NORTHEAST1", "ASIA-NORTHEAST2", "ASIA-NORTHEAST3",
    "ASIA-SOUTH1", "ASIA-SOUTH2", "ASIA-SOUTHEAST1", "ASIA-SOUTHEAST2", "AUSTRALIA-SOUTHEAST1",
    "AUSTRALIA-SOUTHEAST2", "EUROPE-CENTRAL2", "EUROPE-NORTH1", "EUROPE-NORTH2", "EUROPE-SOUTHWEST1",
    "EUROPE-WEST1", "EUROPE-WEST2", "EUROPE-WEST3", "EUROPE-WEST4", "EUROPE-WEST6", "EUROPE-WEST8",
    "EUROPE-WEST9", "EUROPE-WEST10", "EUROPE-WEST12", "ME-CENTRAL1", "ME-CENTRAL2", "ME-WEST1",
    "NORTHAMERICA-NORTHEAST1", "NORTHAMERICA-NORTHEAST2", "NORTHAMERICA-SOUTH1", "SOUTHAMERICA-EAST1",
    "SOUTHAMERICA-WEST1", "US-CENTRAL1", "US-EAST1", "US-EAST4", "US-EAST5", "US-SOUTH1", "US-WEST1",
    "US-WEST2", "US-WEST3", "US-WEST4",
)  # fmt: skip
CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
KEPT = ("labels", "iamConfiguration", "lifecycle", "softDeletePolicy", "versioning")
"""What is kept of a new bucket, but has no effect here; what would have one is refused."""


def find(call: Call, name: str) -> Resource:
    """Return a bucket; Refused if there is none."""
    found: Resource | None = call.state.store.get_bucket(name)
    if found is None:
        raise errors.not_found("The specified bucket does not exist.")
    return found


def project(call: Call, name: str) -> str:
    """Return the project that a bucket is of; Refused if there is no such bucket."""
    find(call, name)
    return call.state.store.projects[name]


def insert(call: Call, request: wire.Request) -> Resource:
    where = _project(call, request, "storage.buckets.create")
    body = document(request)
    name = names.check_bucket(body.get("name"))
    location = str(body.get("location", "US")).upper()
    if location not in REGIONS + MULTI_REGIONS:
        raise errors.invalid(f"The specified location constraint is not valid: {location}")
    storage_class = body.get("storageClass", "STANDARD")
    if storage_class not in CLASSES:
        raise errors.invalid(f"The specified storage class is not valid: {storage_class}")
    if unknown := body.keys() - {"name", "location", "storageClass", "kind", *KEPT}:
        raise errors.not_done(f"A bucket with {', '.join(sorted(unknown))}")
    if body.get("versioning", {}).get("enabled"):
        raise errors.not_done("A bucket with versions")
    if call.state.store.get_bucket(name) is not None:
        message = "Your previous request to create the named bucket succeeded and you already own it."
        if call.state.store.projects[name] != where:
            message = (
                "The requested bucket name is not available. Please select a different name and try again."
            )
        raise errors.Refused(409, "conflict", message)
    kept = {key: value for key, value in body.items() if key in KEPT}
    return make(call.state, name, where, location, str(storage_class), kept)


def make(
    state: State,
    name: str,
    project: str,
    location: str = "US",
    storage_class: str = "STANDARD",
    more: dict[str, Any] | None = None,
) -> Resource:
    """Make a bucket and return its resource."""
    if names.check_bucket(name) in state.store.buckets:
        raise ValueError(f"there is a bucket {name}")
    time = rfc3339(now())
    bucket: Resource = {
        "kind": "storage#bucket",
        "id": name,
        "selfLink": f"https://www.googleapis.com/storage/v1/b/{name}",
        "projectNumber": str(10**11 + zlib.crc32(project.encode())),
        "name": name,
        "timeCreated": time,
        "updated": time,
        "metageneration": "1",
        "location": location,
        "locationType": "multi-region" if location in MULTI_REGIONS else "region",
        "storageClass": storage_class,
        "etag": "CAE=",
    } | (more or {})
    state.store.create_bucket(name, bucket)
    state.store.projects[name] = project
    return bucket


def get(call: Call, request: wire.Request, name: str) -> Resource:
    access.check_storage(call, "storage.buckets.get", project(call, name), access.BUCKET)
    found = find(call, name)
    preconditions.check(request.query, found, reading=True)
    return found


def ls(call: Call, request: wire.Request) -> Resource:
    where = _project(call, request, "storage.buckets.list")
    prefix = request.query.get("prefix", "")
    found = {
        name: bucket
        for name, bucket in call.state.store.buckets.items()
        if call.state.store.projects[name] == where and name.startswith(prefix)
    }
    page, token = pages.cut(call.state, sorted(found), request.query)
    answer: Resource = {"kind": "storage#buckets"}
    if page:
        answer["items"] = [found[name] for name in page]
    return answer | ({"nextPageToken": token} if token else {})


def test_permissions(call: Call, request: wire.Request, name: str) -> Resource:
    where = project(call, name)
    asked = [value for key, value in request.arguments if key == "permissions"]
    for one in asked:
        if not one.startswith(("storage.buckets.", "storage.objects.", "storage.multipartUploads.")):
            raise errors.invalid(f"Invalid permission: '{one}'")
    answer: Resource = {"kind": "storage#testIamPermissionsResponse"}
    had = [one for one in asked if access.may(call, one, where)]
    return answer | ({"permissions": had} if had else {})


def document(request: wire.Request) -> Resource:
    """Return the JSON object that a request holds; Refused if it holds none."""
    try:
        found = _without_nulls(json.loads(request.body))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise errors.Refused(400, "parseError", "Parse Error")
    return found


def _without_nulls(found: Any) -> Any:
    """What is null is not said: Google's client says so of what it does not know."""
    if isinstance(found, dict):
        return {key: _without_nulls(value) for key, value in found.items() if value is not None}
    return [_without_nulls(value) for value in found] if isinstance(found, list) else found


def _project(call: Call, request: wire.Request, permission: str) -> str:
    where = request.query.get("project")
    if not where:
        raise errors.Refused(
            400, "required", "Required parameter: project", location=("parameter", "project")
        )
    access.check_storage(call, permission, where, access.PROJECT)
    return where
