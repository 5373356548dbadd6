# SPDX-License-Identifier: Apache-2.0
"""Who else may see and use an image: its IAM policy.

- https://cloud.google.com/compute/docs/reference/rest/v1/images/setIamPolicy and
  https://cloud.google.com/compute/docs/images/managing-access-custom-images: with roles/compute.imageUser one
  may see and use it; allAuthenticatedUsers may be a member, allUsers may not
- What a role allows: https://cloud.google.com/iam/docs/roles-permissions/compute
- Read, modify, write: a policy with an etag that is not the present one is a 409:
  https://cloud.google.com/iam/docs/policies#etag; without one, it replaces whatever is there
- What has to do with conditions is said in version 3: https://cloud.google.com/iam/docs/policies#versions.
  Who asks for another one gets roles that can not be set again:
  https://cloud.google.com/iam/docs/troubleshooting-withcond
- A condition has a title and an expression, and is not for everybody:
  https://cloud.google.com/iam/docs/conditions-overview. It is not looked at here, so it lets nobody in.
"""

import base64
import hashlib
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
VERSIONS = ("0", "1", "3")
NO_ETAG = "ACAB"
"""The etag of an image that had no policy yet."""


def allows(image: Image, account: Account, permission: str) -> bool:
    """Tell whether the policy of an image lets somebody do this."""
    members = {f"serviceAccount:{account.email}", "allAuthenticatedUsers"}
    return any(
        permission in ROLES[binding["role"]] or "*" in ROLES[binding["role"]]
        for binding in image.policy.get("bindings", ())
        if members & set(binding["members"]) and "condition" not in binding
    )


def check(call: Call, image: Image, permission: str) -> None:
    """Refused if neither the project nor the image lets who calls do this."""
    if not access.may(call, permission, image.project) and (
        call.has("denied") or not allows(image, call.account, permission)
    ):
        raise access.no_permission(permission, image.name)


def get(call: Call, image: Image, version: str) -> messages.Found:
    check(call, image, "compute.images.getIamPolicy")
    if version not in VERSIONS:
        raise errors.invalid(f"Invalid value for optionsRequestedPolicyVersion: {version}")
    found = {"version": 1, "etag": NO_ETAG} | image.policy
    if version != "3" and found["version"] == 3:
        found |= {"version": 1, "bindings": [_without_condition(each) for each in image.policy["bindings"]]}
    return found


def _without_condition(binding: dict[str, Any]) -> dict[str, Any]:
    if "condition" not in binding:
        return binding
    mark = hashlib.sha256(binding["condition"]["expression"].encode()).hexdigest()[:20]
    return {"role": f"{binding['role']}_withcond_{mark}", "members": binding["members"]}


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
    version = policy.get("version", 0)
    if policy.keys() & {"auditConfigs", "rules"}:
        raise errors.not_done("A policy with audits or rules")
    bindings = [_binding(call, one) for one in policy.get("bindings", said.get("bindings", []))]
    conditions = any("condition" in one for one in bindings)
    before = etag is not None and image.policy.get("version") == 3
    if str(version) not in VERSIONS or (version != 3 and (conditions or before)):
        raise errors.invalid("A policy with conditions must be of version 3.", "badRequest")
    fresh = base64.b64encode(b"Bw" + secrets.token_bytes(7)).decode()
    image.policy = {"version": 3 if conditions else 1, "etag": fresh} | (
        {"bindings": bindings} if bindings else {}
    )
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
    condition = said.get("condition")
    if condition is not None and not (condition.get("title") and condition.get("expression")):
        raise errors.invalid("A condition must have a title and an expression.", "badRequest")
    if condition is not None and "allAuthenticatedUsers" in members:
        raise errors.invalid("allAuthenticatedUsers can not be in a binding with a condition.", "badRequest")
    emails = {account.email for account in call.state.accounts.values()}
    for member in members:
        if member == "allUsers":
            raise errors.invalid("allUsers is not supported for this resource.", "badRequest")
        if member != "allAuthenticatedUsers" and not MEMBER.fullmatch(member):
            raise errors.invalid(f"The member {member} is of an unknown type.", "badRequest")
        kind, _, email = member.partition(":")
        if kind == "serviceAccount" and email not in emails:
            raise errors.invalid(f"Service account {email} does not exist.", "badRequest")
    return {"role": role, "members": list(members)} | ({"condition": condition} if condition else {})
