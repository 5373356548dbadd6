# SPDX-License-Identifier: Apache-2.0
"""Who else may see and use an image: its IAM policy.

- https://cloud.google.com/compute/docs/reference/rest/v1/images/setIamPolicy and
  https://cloud.google.com/compute/docs/images/managing-access-custom-images: with roles/compute.imageUser one
  may see and use it; allAuthenticatedUsers may be a member, allUsers may not
- What a role allows: https://cloud.google.com/iam/docs/roles-permissions/compute
- Read, modify, write: a policy with an etag that is not the present one is a 409:
  https://cloud.google.com/iam/docs/policies#etag; without one, it replaces whatever is there
"""

import base64
import re
import secrets
from typing import Any

from google.cloud import compute_v1

from tests.sandbox.gcp import access, errors, messages
from tests.sandbox.gcp.state import Account, Call, Image

USE = (
    "compute.images.get",
    "compute.images.getFromFamily",
    "compute.images.list",
    "compute.images.useReadOnly",
)
ROLES: dict[str, tuple[str, ...]] = {
    "roles/compute.imageUser": USE,
    "roles/compute.viewer": (*USE[:3], "compute.images.getIamPolicy"),
    "roles/compute.admin": ("*",),
}
MEMBER = re.compile(r"(?:user|group|serviceAccount):[^@\s]+@[^@\s]+|domain:[^@\s]+")
NO_ETAG = "ACAB"
"""The etag of an image that had no policy yet."""


def allows(image: Image, account: Account, permission: str) -> bool:
    """Tell whether the policy of an image lets somebody do this."""
    members = {f"serviceAccount:{account.email}", "allAuthenticatedUsers"}
    return any(
        permission in ROLES[binding["role"]] or "*" in ROLES[binding["role"]]
        for binding in image.policy.get("bindings", ())
        if members & set(binding["members"])
    )


def check(call: Call, image: Image, permission: str) -> None:
    """Refused if neither the project nor the image lets who calls do this."""
    if not access.may(call, permission, image.project) and (
        call.has("denied") or not allows(image, call.account, permission)
    ):
        raise access.no_permission(permission, image.name)


def get(call: Call, image: Image) -> messages.Found:
    check(call, image, "compute.images.getIamPolicy")
    return {"version": 1, "etag": NO_ETAG} | image.policy


def put(call: Call, image: Image, body: bytes) -> messages.Found:
    check(call, image, "compute.images.setIamPolicy")
    said = messages.document(messages.read(compute_v1.GlobalSetPolicyRequest, body))
    policy = said.get("policy", {})
    etag = policy.get("etag", said.get("etag"))
    if etag is not None and etag != image.policy.get("etag", NO_ETAG):
        raise errors.Refused(
            409,
            "aborted",
            "There were concurrent policy changes. Please retry the whole read-modify-write with exponential "
            "backoff.",
            status="ABORTED",
        )
    if policy.get("version", 1) not in (0, 1) or policy.keys() & {"auditConfigs", "rules"}:
        raise errors.not_done("A policy with conditions, audits or rules")
    bindings = [_binding(call, one) for one in policy.get("bindings", said.get("bindings", []))]
    fresh = base64.b64encode(b"Bw" + secrets.token_bytes(7)).decode()
    image.policy = {"version": 1, "etag": fresh} | ({"bindings": bindings} if bindings else {})
    return image.policy


def test(call: Call, image: Image, body: bytes) -> messages.Found:
    """Tell which of the asked permissions who calls has."""
    asked = messages.read(compute_v1.TestPermissionsRequest, body).permissions
    for one in asked:
        if not one.startswith("compute.images."):
            raise errors.invalid(f"Permission {one} is not valid for this resource.")
    had = [one for one in asked if access.may(call, one, image.project) or allows(image, call.account, one)]
    return {"permissions": had} if had else {}


def _binding(call: Call, said: dict[str, Any]) -> dict[str, Any]:
    role, members = said.get("role", ""), said.get("members", [])
    if role not in ROLES:
        raise errors.invalid(f"Role {role} is not supported for this resource.", "badRequest")
    if "condition" in said:
        raise errors.not_done("A binding with a condition")
    emails = {account.email for account in call.state.accounts.values()}
    for member in members:
        if member == "allUsers":
            raise errors.invalid("allUsers is not supported for this resource.", "badRequest")
        if member != "allAuthenticatedUsers" and not MEMBER.fullmatch(member):
            raise errors.invalid(f"The member {member} is of an unknown type.", "badRequest")
        kind, _, email = member.partition(":")
        if kind == "serviceAccount" and email not in emails:
            raise errors.invalid(f"Service account {email} does not exist.", "badRequest")
    return {"role": role, "members": list(members)}
