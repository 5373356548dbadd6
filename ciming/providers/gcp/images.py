# SPDX-License-Identifier: Apache-2.0
"""Images of Compute Engine: made of an archive, found by their labels, shared, and removed.

https://cloud.google.com/compute/docs/reference/rest/v1/images,
https://cloud.google.com/compute/docs/reference/rest/v1/globalOperations
"""

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from google.cloud import compute_v1
from oslo_log import log

from ciming import exceptions, points
from ciming.providers.gcp.account import Account, Refusal

LOG = log.getLogger(__name__)
NAME = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
LONGEST_NAME = 63
REF = re.compile(rf"(?:https://[a-z.]+/compute/v1/)?projects/([a-z0-9.:-]+)/global/images/({NAME})")
PAGE = 500
MOST_PAGES = 1000       # of a list; one that does not end is none
PATIENCE = 2 * 3600     # seconds for Google to make an image
TO_DELETE = 900
SILENCE = 600           # seconds without a good answer, after which what takes its time is not waited for
USER = "roles/compute.imageUser"
TRIES = 6       # at a policy that others change, too
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)     # the last one goes on

Alive = Callable[[], None]
Found = TypeVar("Found")


def name(wanted: str, image_id: str, suffix: str = "") -> str:
    """A name that says both, as far as Google has room: `identity()` gives the Image's id back.

    :param suffix: what tells it from another one of the same Image
    """
    tail = f"{uuid.UUID(image_id).hex}{suffix}"
    slug = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")
    slug = slug if slug[:1].isalpha() else f"image-{slug}"
    return f"{slug[: LONGEST_NAME - len(tail) - 1].strip('-')}-{tail}"


def identity(name: str) -> str | None:
    """The id of the Image in a name that we gave; None: it is none of those."""
    found = re.fullmatch(r"[a-z][a-z0-9-]*-([0-9a-f]{32})(?:-[0-9a-f]{8})?", name)
    return str(uuid.UUID(found[1])) if found else None


def ref_in(project: str, name: str) -> str:
    return f"projects/{project}/global/images/{name}"


def parse(image_ref: str) -> tuple[str, str] | None:
    """Project and name."""
    found = REF.fullmatch(image_ref)
    return (found[1], found[2]) if found else None


def as_dict(image: Any) -> dict[str, Any]:
    found: dict[str, Any] = compute_v1.Image.to_dict(
        image, use_integers_for_enums=False, always_print_fields_with_no_presence=False
    )
    return found


def show(account: Account, project: str, name: str) -> Mapping[str, Any] | None:
    """What Google says of an image; None: there is none that can be seen."""
    found = account.call(
        "compute.images.get",
        lambda: account.images.get(project=project, image=name, **asked(account)),
        missing=404,
    )
    return as_dict(found) if found is not None else None


def find(account: Account, labels: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    """Images of the project with these labels, or all of it."""
    wanted = " AND ".join(f"(labels.{key}={value})" for key, value in labels.items())
    request = compute_v1.ListImagesRequest(project=account.project, max_results=PAGE, filter=wanted)
    for _page in range(MOST_PAGES):
        pager = account.call("compute.images.list", lambda: account.images.list(request, **asked(account)))
        page = next(iter(pager.pages))
        yield from map(as_dict, page.items)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
    raise account.bad_answer("compute.images.list")


def asked(account: Account) -> dict[str, Any]:
    """How each call is to be made: once, and not for ever."""
    return {"retry": None, "timeout": account.timeout}


def make(account: Account, image: Mapping[str, Any], request_id: str) -> str:
    """Begin to make an image; the operation's name. Asked twice with one id, it is the same one.

    :raises Refusal: 409 where the name is taken
    """
    return _insert(
        account,
        compute_v1.InsertImageRequest(
            project=account.project, image_resource=compute_v1.Image(dict(image)), request_id=request_id
        ),
    )


@points.mutation
def _insert(account: Account, request: Any) -> str:
    made = account.call(
        "compute.images.create", lambda: account.images.insert_unary(request, **asked(account))
    )
    return account.words(made.name)


def pauses() -> Iterator[float]:
    """Between looks at something that takes its time."""
    yield from PAUSES
    while True:
        yield PAUSES[-1]


def _look(ask: Callable[[], Found], alive: Alive, until: float) -> Found:
    """What Google says of something that takes its time; that goes on while nobody can be asked about it.

    :param until: by the clock `time.monotonic`; it is not asked for longer
    :raises TransientProviderError: there was no good answer for SILENCE seconds
    """
    until = min(until, time.monotonic() + SILENCE)
    for pause in pauses():
        try:
            return ask()
        except exceptions.TransientProviderError as error:
            if time.monotonic() + pause > until:
                raise
            LOG.info("Looks again: %s", error)
        alive()
        time.sleep(pause)
    raise AssertionError


def wait(
    account: Account,
    operation: str,
    alive: Alive,
    patience: float | None = None,
    failed: Callable[[], None] = lambda: None,
) -> None:
    """Until an operation is done. Google's own way of waiting would ask another host than the Cloud's.

    :param failed: called when it has failed, before that is said
    :raises ProviderError: it failed
    :raises TransientProviderError: it takes too long, failed for a reason that passes, or can not be seen
    """

    def ask() -> Any:
        return account.call(
            "compute.globalOperations.get",
            lambda: account.operations.get(project=account.project, operation=operation, **asked(account)),
        )

    until = time.monotonic() + (patience or PATIENCE)
    for pause in pauses():
        found = _look(ask, alive, until)
        if found.status == compute_v1.Operation.Status.DONE:
            break
        if time.monotonic() > until:
            raise exceptions.TransientProviderError(
                f"{account.name}: operation {operation} is not done after {patience or PATIENCE:.0f} s."
            )
        alive()
        time.sleep(pause)
    errors = list(found.error.errors) if found.error else []
    if not errors and not found.http_error_status_code:
        return
    failed()
    said = "; ".join(f"{each.code}: {each.message}" for each in errors)
    said = account.words(said or found.http_error_message)
    status = int(found.http_error_status_code or 0)
    what = f"{account.name}: operation {operation} failed. {status or ''} {said}".replace("  ", " ")
    if status in (429, 500, 502, 503, 504) or any(each.code in PASSING for each in errors):
        raise exceptions.TransientProviderError(what, cloud_request_id=operation)
    over = any("QUOTA" in each.code.upper() for each in errors)
    code = "cloud.quota_exceeded" if over else "image.not_active"
    raise exceptions.ProviderError(what, code=code, cloud_request_id=operation)


PASSING = frozenset(("INTERNAL_ERROR", "BACKEND_ERROR", "RESOURCE_NOT_READY", "RATE_LIMIT_EXCEEDED"))


def is_ready(account: Account, name: str, alive: Alive, patience: float | None = None) -> bool:
    """Wait for an image that is being made, by whomever. False: nothing became of it.

    :raises TransientProviderError: it takes too long, or can not be seen
    """
    until = time.monotonic() + (patience or PATIENCE)
    for pause in pauses():
        found = _look(lambda: show(account, account.project, name), alive, until)
        if found is None or found.get("status") in ("READY", "FAILED"):
            return bool(found and found["status"] == "READY")
        if time.monotonic() > until:
            raise exceptions.TransientProviderError(
                f"{account.name}: image {name} is {found.get('status')} after {patience or PATIENCE:.0f} s."
            )
        alive()
        time.sleep(pause)
    raise AssertionError


def check_deletable(account: Account, name: str) -> None:
    """:raises ProviderError: we have no right to delete it"""
    right = "compute.images.delete"
    asked_for = compute_v1.TestPermissionsRequest(permissions=[right])
    has = account.call(
        "compute.images.testIamPermissions",
        lambda: account.images.test_iam_permissions(
            project=account.project,
            resource=name,
            test_permissions_request_resource=asked_for,
            **asked(account),
        ),
        missing=404,
    )
    if has is not None and right not in has.permissions:
        raise exceptions.ProviderError(
            f"{account.name}: there is no right to {right} for {name}: nothing of it is deleted.",
            code="cloud.forbidden",
        )


def delete(account: Account, name: str, alive: Alive = lambda: None) -> None:
    """Absent is fine; what is being made can only be deleted then."""
    is_ready(account, name, alive, TO_DELETE)
    operation = _delete(account, name)
    if operation is not None:
        wait(account, operation, alive, TO_DELETE)


@points.mutation
def _delete(account: Account, name: str) -> str | None:
    made = account.call(
        "compute.images.delete",
        lambda: account.images.delete_unary(project=account.project, image=name, **asked(account)),
        missing=404,
    )
    return account.words(made.name) if made is not None else None


def share(account: Account, name: str, members: Sequence[str], alive: Alive) -> None:
    """Let these use an image, and whoever may already: only what is lacking is added."""
    seen = compute_v1.GetIamPolicyImageRequest(     # with conditions, or they would be lost
        project=account.project, resource=name, options_requested_policy_version=3
    )
    for _ in range(TRIES):
        policy = account.call(
            "compute.images.getIamPolicy",
            lambda: account.images.get_iam_policy(seen, **asked(account)),
        )
        bindings = [each for each in policy.bindings if each.role == USER and not each.condition.expression]
        lacking = [each for each in members if not any(each in binding.members for binding in bindings)]
        if not lacking:
            return
        if bindings:
            bindings[0].members.extend(lacking)
        else:
            policy.bindings.append(compute_v1.Binding(role=USER, members=lacking))
        alive()
        try:
            _set_policy(account, name, policy)
            return
        except Refusal as error:
            if error.http_status not in (409, 412):
                raise
    raise exceptions.TransientProviderError(
        f"{account.name}: others change who may use {name}, again and again."
    )


@points.mutation
def _set_policy(account: Account, name: str, policy: Any) -> None:
    wanted = compute_v1.GlobalSetPolicyRequest(policy=policy)
    account.call(
        "compute.images.setIamPolicy",
        lambda: account.images.set_iam_policy(
            project=account.project,
            resource=name,
            global_set_policy_request_resource=wanted,
            **asked(account),
        ),
    )
