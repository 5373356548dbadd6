# SPDX-License-Identifier: Apache-2.0
"""Images: https://cloud.google.com/compute/docs/reference/rest/v1/images.

- insert: the caller reads the archive; with the requestId of a former request it is that one's answer, if the
  request is the same: https://cloud.google.com/compute/docs/reference/rest/v1/images/insert
- Its status is PENDING, then READY or FAILED; until it is READY it can not be changed (resourceNotReady):
  https://cloud.google.com/compute/docs/api/how-tos/troubleshooting-apis
- setLabels has to tell the present fingerprint (412):
  https://cloud.google.com/compute/docs/reference/rest/v1/images/setLabels
- The newest of a family that is not deprecated:
  https://cloud.google.com/compute/docs/images/image-families-best-practices
- patch changes a description, a family and a deprecation, and nothing else:
  https://cloud.google.com/compute/docs/reference/rest/v1/images/patch
- deprecate: https://cloud.google.com/compute/docs/images/deprecate-custom
"""

import base64
import hashlib
import json
import uuid
from collections.abc import Callable

from google.cloud import compute_v1

from tests.sandbox.gcp import access, archive, buckets, errors, listing, messages, operations, policies, rules
from tests.sandbox.gcp.operations import ROOT, FailedError, Progress
from tests.sandbox.gcp.state import GIB, Call, Image, Operation, new_id, now, rfc3339

FIELDS = messages.fields(compute_v1.Image)
NO_LABELS = "42WmSpB8rSM="
"""The fingerprint of no labels."""


def find(call: Call, project: str, name: str, permission: str) -> Image:
    """Return an image; Refused if there is none, or if who calls may not do this with it."""
    resource = f"projects/{project}/global/images/{name}"
    found = call.state.images.get((project, name))
    if found is not None:
        policies.check(call, found, permission)
        return found
    access.check_compute(call, permission, project, resource)
    raise errors.not_found(f"The resource '{resource}' was not found")


def get(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    return find(call, project, name, "compute.images.get").spec


def ls(call: Call, request: messages.Request, project: str) -> messages.Found:
    access.check_compute(call, "compute.images.list", project, f"projects/{project}")
    found = [messages.document(one.spec) for one in call.state.images.values() if one.project == project]
    page, token = listing.answer(found, request.query, call.state.settings.page_size, FIELDS)
    answer = {
        "kind": "compute#imageList",
        "id": f"projects/{project}/global/images",
        "selfLink": f"{ROOT}projects/{project}/global/images",
    }
    return answer | ({"items": page} if page else {}) | ({"nextPageToken": token} if token else {})


def from_family(call: Call, request: messages.Request, project: str, family: str) -> messages.Found:
    permission = "compute.images.getFromFamily"
    resource = f"projects/{project}/global/images/family/{family}"
    found = [
        one
        for one in call.state.images.values()
        if one.project == project and one.spec.family == family and one.spec.status == "READY"
        and one.spec.deprecated.state in ("", "ACTIVE")
    ]  # fmt: skip
    if not found:
        access.check_compute(call, permission, project, resource)
        raise errors.not_found(f"The resource '{resource}' was not found")
    newest = max(found, key=lambda one: one.made)
    policies.check(call, newest, permission)
    return newest.spec


def insert(call: Call, request: messages.Request, project: str) -> messages.Found:
    wanted = messages.read(compute_v1.Image, request.body)
    name = f"projects/{project}/global/images/{wanted.name}"
    access.check_compute(call, "compute.images.create", project, name)
    if wanted.labels:
        access.check_compute(call, "compute.images.setLabels", project, name)
    said = messages.text(wanted)
    place = rules.check_image(wanted)
    return _once(call, request, project, said, lambda: _insert(call, project, wanted, place))


def _insert(call: Call, project: str, wanted: compute_v1.Image, place: rules.Place) -> Operation:
    if (project, wanted.name) in call.state.images:
        name = f"projects/{project}/global/images/{wanted.name}"
        raise errors.Refused(409, "alreadyExists", f"The resource '{name}' already exists")
    where = _readable(call, wanted.raw_disk.source, place)
    made, number = now(), new_id()
    if not wanted.storage_locations:
        wanted.storage_locations = [str(where).lower()]
    wanted.kind, wanted.id, wanted.creation_timestamp = "compute#image", number, rfc3339(made)
    wanted.status, wanted.source_type = "PENDING", "RAW"
    wanted.label_fingerprint = fingerprint(dict(wanted.labels))
    wanted.self_link = f"{ROOT}projects/{project}/global/images/{wanted.name}"
    if (
        wanted.image_encryption_key.kms_key_name
        and "cryptoKeyVersions" not in wanted.image_encryption_key.kms_key_name
    ):
        wanted.image_encryption_key.kms_key_name += "/cryptoKeyVersions/1"
    image = Image(project, wanted, call.state.disks / str(number), made)
    call.state.images[project, wanted.name] = image
    source = call.state.store.file(*place)
    wanted.archive_size_bytes = source.stat().st_size

    def work(progress: Progress) -> None:
        try:
            operations.on_demand(call)
            size = archive.unpack(source, image.file, progress)
        except (FailedError, archive.BadArchiveError, FileNotFoundError) as error:
            _fail(call, image)
            if isinstance(error, FailedError):
                raise
            raise FailedError("INVALID_IMAGE_TAR", str(error)) from None
        with call.state.lock:
            larger = max(size // GIB, image.spec.disk_size_gb)     # of the disk it becomes
            image.spec.disk_size_gb = larger + call.has("grown")
            image.spec.status = "READY"

    return operations.start(call, "insert", image, call.state.settings.image_seconds, work)


def _readable(call: Call, source: str, place: rules.Place) -> object:
    """Return the location of an archive that who calls may read; Refused if they may not."""
    bucket = call.state.store.get_bucket(place.bucket)
    owner = call.state.store.projects.get(place.bucket, "")
    if bucket is None or (
        call.state.store.find(*place) is None and access.may(call, "storage.objects.list", owner)
    ):
        message = f"The resource '{source}' of type 'Google Cloud Storage object' was not found."
        raise errors.not_found(message)
    if not access.may(call, "storage.objects.get", owner) or call.state.store.find(*place) is None:
        raise errors.forbidden("Required 'read' permission for 'rawDisk.source'")
    location = str(bucket["location"])
    if location in buckets.MULTI_REGIONS:
        return location
    return next((one for one in buckets.MULTI_REGIONS if location.startswith(one[:4])), "US")


def _fail(call: Call, image: Image) -> None:
    with call.state.lock:
        image.file.unlink(missing_ok=True)
        image.spec.status = "FAILED"
        if not call.state.settings.failed_images_stay:
            call.state.images.pop((image.project, image.spec.name), None)


def delete(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    image = find(call, project, name, "compute.images.delete")

    def work(progress: Progress) -> None:
        operations.on_demand(call)
        with call.state.lock:
            call.state.images.pop((project, name), None)
            image.file.unlink(missing_ok=True)

    return _change(call, request, "delete", image, work)


def patch(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    image = find(call, project, name, "compute.images.update")
    wanted = messages.read(compute_v1.Image, request.body)
    said = messages.document(wanted)
    rules.check_patch(said)
    changed = {each: getattr(wanted, each) for each in rules.CHANGEABLE if each in said}
    if "deprecated" in changed:
        rules.check_deprecation(wanted.deprecated)

    def work(progress: Progress) -> None:
        operations.on_demand(call)
        with call.state.lock:
            for each, value in changed.items():
                setattr(image.spec, each, value)

    return _change(call, request, "patch", image, work)


def deprecate(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    image = find(call, project, name, "compute.images.deprecate")
    wanted = messages.read(compute_v1.DeprecationStatus, request.body)
    rules.check_deprecation(wanted)

    def work(progress: Progress) -> None:
        operations.on_demand(call)
        with call.state.lock:
            image.spec.deprecated = None if messages.document(wanted) in ({}, {"state": "ACTIVE"}) else wanted

    return _change(call, request, "deprecate", image, work)


def set_labels(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    image = find(call, project, name, "compute.images.setLabels")
    wanted = messages.read(compute_v1.GlobalSetLabelsRequest, request.body)
    rules.check_labels(wanted.labels)
    if wanted.label_fingerprint != image.spec.label_fingerprint:
        raise errors.condition("Labels fingerprint either invalid or resource labels have changed")

    def work(progress: Progress) -> None:
        operations.on_demand(call)
        with call.state.lock:
            image.spec.labels = wanted.labels
            image.spec.label_fingerprint = fingerprint(dict(wanted.labels))

    return _change(call, request, "setLabels", image, work)


def get_policy(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    version = request.query.get("optionsRequestedPolicyVersion", "0")
    return policies.get(call, _any(call, project, name, "compute.images.getIamPolicy"), version)


def set_policy(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    image = _any(call, project, name, "compute.images.setIamPolicy")
    return policies.put(call, image, request.body)


def test_permissions(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    return policies.test(call, _any(call, project, name, "compute.images.get"), request.body)


def fingerprint(labels: dict[str, str]) -> str:
    """Return the fingerprint of labels."""
    if not labels:
        return NO_LABELS
    return base64.b64encode(hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).digest()[:8]).decode()


def _any(call: Call, project: str, name: str, permission: str) -> Image:
    """Return an image, whoever may see it."""
    found = call.state.images.get((project, name))
    return found if found is not None else find(call, project, name, permission)


def _change(
    call: Call, request: messages.Request, kind: str, image: Image, work: Callable[[Progress], None]
) -> messages.Found:
    if image.spec.status == "PENDING":
        raise errors.invalid(f"The resource '{image.name}' is not ready", "resourceNotReady")
    said = f"{kind} {image.name} {request.body.decode('utf-8', 'replace')}"
    seconds = call.state.settings.change_seconds
    return _once(
        call, request, image.project, said, lambda: operations.start(call, kind, image, seconds, work)
    )


def _once(
    call: Call, request: messages.Request, project: str, said: str, begin: Callable[[], Operation]
) -> messages.Found:
    """Return the operation that this request began; begin it if there was no such request."""
    request_id = request.query.get("requestId")
    if request_id is None:
        return begin().spec
    rules.check_request_id(request_id)
    former = call.state.requests.get((project, str(uuid.UUID(request_id))))
    if former is None:
        operation = begin()
        operation.spec.client_operation_id = request_id
        former = call.state.requests[project, str(uuid.UUID(request_id))] = said, operation
    if former[0] != said:
        raise errors.field("requestId", request_id, "The request ID was used for another request.")
    return former[1].spec
