# SPDX-License-Identifier: Apache-2.0
"""Who may do what: permissions in a project, by account; and of one image, by its policy.

- What each method needs: https://cloud.google.com/compute/docs/access/iam-permissions and
  https://cloud.google.com/storage/docs/access-control/iam-json
- The wording: https://cloud.google.com/storage/docs/troubleshooting#access-permission and
  https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-permissions
- Who may not list a bucket is not told that an object is not there:
  https://cloud.google.com/storage/docs/json_api/v1/status-codes#403-forbidden
"""

import fnmatch

from tests.sandbox.gcp import errors
from tests.sandbox.gcp.state import Account, Call

PROJECT, BUCKET, OBJECT = (
    "Google Cloud project",
    "Google Cloud Storage bucket",
    "Google Cloud Storage object",
)


def may(call: Call, permission: str, project: str) -> bool:
    """Tell whether who calls has a permission in a project."""
    if call.account.project != project or call.has("denied"):
        return False
    patterns = call.state.allowed[call.account.name]
    return any(fnmatch.fnmatchcase(permission, pattern) for pattern in patterns)


def check_compute(call: Call, permission: str, project: str, resource: str) -> None:
    """Refused if who calls has not the permission in the project."""
    if not may(call, permission, project):
        raise no_permission(permission, resource)


def no_permission(permission: str, resource: str) -> errors.Refused:
    return errors.forbidden(f"Required '{permission}' permission for '{resource}'")


def check_storage(call: Call, permission: str, project: str, kind: str) -> None:
    """Refused if who calls has not the permission in the project that the thing is of."""
    if not may(call, permission, project):
        raise no_access(call.account, permission, kind)


def no_access(account: Account, permission: str, kind: str) -> errors.Refused:
    return errors.forbidden(
        f"{account.email} does not have {permission} access to the {kind}. "
        f"Permission '{permission}' denied on resource (or it may not exist)."
    )
