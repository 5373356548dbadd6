# SPDX-License-Identifier: Apache-2.0
"""Operations: what takes its time, PENDING, RUNNING, and then DONE, with an error or without.

- https://cloud.google.com/compute/docs/reference/rest/v1/globalOperations
- ``wait`` answers when it is DONE, and after two minutes at the latest:
  https://cloud.google.com/compute/docs/reference/rest/v1/globalOperations/wait
- What a failed one says:
  https://cloud.google.com/compute/docs/api/how-tos/api-requests-responses#handling_api_responses
"""

import threading
import time
import traceback
from collections.abc import Callable

from google.cloud import compute_v1

from tests.sandbox.gcp import access, errors, listing, messages
from tests.sandbox.gcp.state import Call, Image, Operation, State, new_id, now, rfc3339

ROOT = "https://www.googleapis.com/compute/v1/"
FIELDS = messages.fields(compute_v1.Operation)
Progress = Callable[[float], None]


class FailedError(Exception):
    """The operation ends with an error."""

    def __init__(self, code: str, message: str, status: int = 400, words: str = "BAD REQUEST") -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.words = code, message, status, words


def start(call: Call, kind: str, image: Image, seconds: float, work: Callable[[Progress], None]) -> Operation:
    """Begin an operation: `work` is done while it is RUNNING, and FailedError is how it ends badly."""
    made = now()
    number = new_id()
    name = f"operation-{int(made.timestamp() * 1000)}-{number % 16**13:013x}-{number % 16**8:08x}-standin0"
    spec = compute_v1.Operation(
        kind="compute#operation",
        id=number,
        name=name,
        operation_type=kind,
        target_link=f"{ROOT}{image.name}",
        target_id=image.spec.id,
        status=compute_v1.Operation.Status.PENDING,
        user=call.account.email,
        progress=0,
        insert_time=rfc3339(made),
        self_link=f"{ROOT}projects/{image.project}/global/operations/{name}",
    )
    operation = Operation(image.project, spec, made)
    call.state.operations[image.project, name] = operation
    threading.Thread(target=_run, args=(call, operation, seconds, work), daemon=True).start()
    return operation


def _run(call: Call, operation: Operation, seconds: float, work: Callable[[Progress], None]) -> None:
    state, spec = call.state, operation.spec

    def progress(part: float) -> None:
        with state.lock:
            spec.progress = min(99, int(part * 100))

    time.sleep(state.settings.pending_seconds)
    with state.lock:
        spec.status = compute_v1.Operation.Status.RUNNING
        spec.start_time = rfc3339(now())
    if call.has("stuck"):
        state.loosened.wait()
    end = time.monotonic() + seconds
    failure = None
    try:
        work(progress)
    except FailedError as failed:
        failure = failed
    except Exception:
        traceback.print_exc()
        failure = FailedError(
            "INTERNAL_ERROR", "Internal error: see the stand-in's log", 500, "INTERNAL ERROR"
        )
    time.sleep(max(0.0, end - time.monotonic()))
    with state.lock:
        if failure is not None:
            spec.error = {"errors": [{"code": failure.code, "message": failure.message}]}
            spec.http_error_status_code = failure.status
            spec.http_error_message = failure.words
        spec.progress = 100
        spec.end_time = rfc3339(now())
        spec.status = compute_v1.Operation.Status.DONE
    operation.ended.set()


def on_demand(call: Call) -> None:
    """FailedError if the call is to fail afterwards."""
    if call.has("fail"):
        message = "Internal error. Please try again or contact Google Support. (Code: '5A1D1F0')"
        raise FailedError("INTERNAL_ERROR", message, 503, "SERVICE UNAVAILABLE")


def find(call: Call, project: str, name: str, permission: str) -> Operation:
    """Return an operation; Refused if there is none, or if who calls may not do this with it."""
    resource = f"projects/{project}/global/operations/{name}"
    access.check_compute(call, permission, project, resource)
    found = call.state.operations.get((project, name))
    if found is None:
        raise errors.not_found(f"The resource '{resource}' was not found")
    return found


def get(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    return find(call, project, name, "compute.globalOperations.get").spec


def wait(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    """Answer when it is DONE, or else when the time is over; no lock is held meanwhile."""
    with call.state.lock:
        found = find(call, project, name, "compute.globalOperations.get")
    found.ended.wait(call.state.settings.wait_seconds)
    return found.spec


def delete(call: Call, request: messages.Request, project: str, name: str) -> messages.Found:
    find(call, project, name, "compute.globalOperations.delete")
    del call.state.operations[project, name]
    return compute_v1.DeleteGlobalOperationResponse()


def ls(call: Call, request: messages.Request, project: str) -> messages.Found:
    access.check_compute(call, "compute.globalOperations.list", project, f"projects/{project}")
    found = [messages.document(one.spec) for (where, _), one in _all(call.state) if where == project]
    page, token = listing.answer(found, request.query, call.state.settings.page_size, FIELDS)
    answer = {
        "kind": "compute#operationList",
        "id": f"projects/{project}/global/operations",
        "selfLink": f"{ROOT}projects/{project}/global/operations",
    }
    return answer | ({"items": page} if page else {}) | ({"nextPageToken": token} if token else {})


def _all(state: State) -> list[tuple[tuple[str, str], Operation]]:
    return list(state.operations.items())
