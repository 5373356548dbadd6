# SPDX-License-Identifier: Apache-2.0
"""STS: who am I, and sessions of a role.

- An external id that the role's trust demands must be given and equal:
  https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_common-scenarios_third-party.html
- A session lasts 900 s to what the role allows, which is an hour, as it is for a role that says nothing:
  https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
"""

import datetime
import secrets
from typing import Any

from tests.sandbox.aws import access, errors
from tests.sandbox.aws.state import Action, Call, Caller, Credential, now

LONGEST = 3600
"""Seconds of a session."""


def get_caller_identity(call: Call) -> dict[str, Any]:
    """Return who signed; nobody can be denied it."""
    return {"UserId": call.caller.user_id, "Account": call.caller.account, "Arn": call.caller.arn}


def assume_role(call: Call) -> dict[str, Any]:
    """Return credentials of a new session."""
    wanted = call.params
    role = call.state.roles.get(wanted["RoleArn"])
    trusted = role is not None and call.caller.name in role.trusted
    if role is None or not trusted or wanted.get("ExternalId") != role.external_id:
        raise errors.refusal(
            "sts",
            "denied",
            f"User: {call.caller.arn} is not authorized to perform: sts:AssumeRole on resource: "
            f"{wanted['RoleArn']}",
        )
    seconds = wanted.get("DurationSeconds", LONGEST)
    if seconds > LONGEST:
        message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        raise errors.refusal("sts", "invalid", message)
    name = wanted["RoleSessionName"]
    role_id = access.key_id("AROA")
    caller = Caller(
        role.name,
        role.account,
        f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{name}",
        f"{role_id}:{name}",
    )
    ends = now().replace(microsecond=0) + datetime.timedelta(seconds=seconds)
    secret, token = (secrets.token_urlsafe(count) + call.state.settings.session_mark for count in (30, 200))
    credential = Credential(access.key_id("ASIA"), secret, caller, token, ends.timestamp())
    call.state.credentials[credential.access_key] = credential
    return {
        "Credentials": {
            "AccessKeyId": credential.access_key,
            "SecretAccessKey": credential.secret_key,
            "SessionToken": credential.token,
            "Expiration": ends,
        },
        "AssumedRoleUser": {"AssumedRoleId": caller.user_id, "Arn": caller.arn},
    }


ACTIONS: dict[str, Action] = {"GetCallerIdentity": get_caller_identity, "AssumeRole": assume_role}
