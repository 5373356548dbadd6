# SPDX-License-Identifier: Apache-2.0
"""KMS keys that encrypt snapshots, and that may be disabled.

https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html
https://docs.aws.amazon.com/ebs/latest/userguide/ebsapis-using-encryption.html
"""

import uuid
from typing import Any

from tests.sandbox.aws import errors
from tests.sandbox.aws.state import Action, Call, Caller, Key, State, now

DEFAULT = "alias/aws/ebs"


def make(state: State, account: str, region: str) -> Key:
    """Make an enabled key."""
    name = str(uuid.uuid4())
    key = Key(name, f"arn:aws:kms:{region}:{account}:key/{name}", account, region)
    state.keys[key.arn] = key
    return key


def default(state: State, account: str, region: str) -> Key:
    """Return the key that EBS uses when none is named: AWS makes it at the first use."""
    for key in state.keys.values():
        if (key.account, key.region, key.id) == (account, region, f"ebs-{account}"):
            return key
    arn = f"arn:aws:kms:{region}:{account}:key/ebs-{account}"
    return state.keys.setdefault(arn, Key(f"ebs-{account}", arn, account, region))


def find(state: State, caller: Caller, region: str, name: str) -> Key | None:
    """Return the key that an ARN, an id or the default alias means to the caller."""
    if name == DEFAULT:
        return default(state, caller.account, region)
    for key in state.keys.values():
        if name in (key.arn, key.id) and (key.account, key.region) == (caller.account, region):
            return key
    return None


def usable(state: State, arn: str | None) -> bool:
    """Tell whether what the key encrypts can be read and written; without a key always."""
    return arn is None or (arn in state.keys and state.keys[arn].enabled)


def not_usable(arn: str | None) -> errors.Refused:
    """Return EC2's refusal of a key that can not be used."""
    return errors.Refused("InvalidParameterValue", f"The KMS key {arn} is not enabled")


def _wanted(call: Call) -> Key:
    key = find(call.state, call.caller, call.region, call.params["KeyId"])
    if key is None:
        raise errors.Refused("NotFoundException", f"Key '{call.params['KeyId']}' does not exist")
    return key


def _metadata(key: Key) -> dict[str, Any]:
    return {
        "KeyId": key.id,
        "Arn": key.arn,
        "AWSAccountId": key.account,
        "Enabled": key.enabled,
        "KeyState": "Enabled" if key.enabled else "Disabled",
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "KeyManager": "AWS" if key.id.startswith("ebs-") else "CUSTOMER",
    }


def create_key(call: Call) -> dict[str, Any]:
    """Make a key."""
    key = make(call.state, call.caller.account, call.region)
    return {"KeyMetadata": _metadata(key) | {"CreationDate": now()}}


def describe_key(call: Call) -> dict[str, Any]:
    """Return a key's state."""
    return {"KeyMetadata": _metadata(_wanted(call))}


def enable_key(call: Call) -> dict[str, Any]:
    """Let a key be used."""
    _wanted(call).enabled = True
    return {}


def disable_key(call: Call) -> dict[str, Any]:
    """Let a key not be used."""
    _wanted(call).enabled = False
    return {}


ACTIONS: dict[str, Action] = {
    "CreateKey": create_key,
    "DescribeKey": describe_key,
    "EnableKey": enable_key,
    "DisableKey": disable_key,
}
