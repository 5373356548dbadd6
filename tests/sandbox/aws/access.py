# SPDX-License-Identifier: Apache-2.0
"""Who may do what: accounts, keys, a role, and policies as lists of patterns of actions.

https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html has the wording.
"""

import dataclasses
import fnmatch
import secrets
import string
import time

from tests.sandbox.aws import errors
from tests.sandbox.aws.state import Caller, Credential, Role, State

READS = (
    "ec2:Describe*", "ec2:GetEbsEncryptionByDefault", "ebs:List*", "ebs:Get*", "kms:Describe*", "s3:Get*",
    "s3:List*", "s3:Head*", "sts:*",
)  # fmt: skip
ACCOUNTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "owner": ("111122223333", ("*",)),
    "reader": ("111122223333", READS),
    "stranger": ("444455556666", ("*",)),
    "broker": ("777788889999", ("sts:*",)),  # may do nothing but assume the role
}
"""The users: their account, and what they may do."""
ROLE = "ciming-images"
_LETTERS = string.ascii_uppercase + "234567"


def key_id(prefix: str) -> str:
    """Return a new access key id, or a user's unique id."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(16))


def set_up(state: State) -> None:
    """Make the accounts, each with a user who has a key, and the role."""
    for name, (account, _) in ACCOUNTS.items():
        caller = Caller(name, account, f"arn:aws:iam::{account}:user/{name}", key_id("AIDA"))
        credential = Credential(key_id("AKIA"), secrets.token_urlsafe(30), caller)
        state.credentials[credential.access_key] = credential
    role = Role(ROLE, ACCOUNTS["owner"][0], f"ciming-{secrets.token_hex(16)}", frozenset({"owner", "broker"}))
    state.roles[role.arn] = role
    allow_all(state)


def add(state: State, user: str, access_key: str, secret_key: str, token: str | None) -> None:
    """Give a user another key; with a token it is a session's, and ends."""
    caller = next(one.caller for one in state.credentials.values() if one.caller.name == user)
    ends = None if token is None else time.time() + 3600
    state.credentials[access_key] = Credential(access_key, secret_key, caller, token, ends)


def trust(state: State, external_id: str) -> None:
    """Have the role demand another external id."""
    for arn, role in state.roles.items():
        state.roles[arn] = dataclasses.replace(role, external_id=external_id)


def allow_all(state: State) -> None:
    """Let everybody do what they may do at the start."""
    state.policies = {name: allowed for name, (_, allowed) in ACCOUNTS.items()} | {ROLE: ("*",)}


def allows(state: State, caller: Caller, wanted: str) -> bool:
    """Tell whether a policy of the caller's allows an action, such as ec2:DescribeImages."""
    return any(fnmatch.fnmatchcase(wanted, pattern) for pattern in state.policies[caller.name])


def check(state: State, caller: Caller, service: str, action: str, region: str) -> None:
    """Refused if no policy of the caller's allows the action."""
    wanted = f"{service}:{action}"
    if allows(state, caller, wanted):
        return
    text = (
        f"User: {caller.arn} is not authorized to perform: {wanted} on resource: arn:aws:{service}:{region}:"
        f"{caller.account}:* because no identity-based policy allows the {wanted} action"
    )
    if service == "ec2":
        text = f"You are not authorized to perform this operation. {text}."
    raise errors.refusal(service, "denied", text)
