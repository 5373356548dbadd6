# SPDX-License-Identifier: Apache-2.0
"""Client tokens of EC2: https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests.sandbox.aws import errors
from tests.sandbox.aws.state import Call


def once(call: Call, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Act, or return what the same request with the same token was answered before."""
    token = call.params.get("ClientToken")
    if token is None:
        return act()
    if not (token.isascii() and len(token) <= 64):
        raise errors.refusal("ec2", "invalid", "ClientToken must have at most 64 ASCII characters")
    digest = hashlib.sha256(json.dumps(call.params, sort_keys=True, default=str).encode()).hexdigest()
    place = (call.action, call.caller.account, call.region, token)
    if place not in call.state.client_tokens:
        call.state.client_tokens[place] = digest, act()
    before, answer = call.state.client_tokens[place]
    if before != digest:
        message = (
            "Arguments on this idempotent request are inconsistent with arguments used in previous requests."
        )
        raise errors.Refused("IdempotentParameterMismatch", message)
    return answer
