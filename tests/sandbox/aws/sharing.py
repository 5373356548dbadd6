# SPDX-License-Identifier: Apache-2.0
"""Launch permissions of images, and permissions to make volumes of snapshots.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyImageAttribute.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifySnapshotAttribute.html
"""

import re
from collections.abc import Mapping
from typing import Any

from tests.sandbox.aws import errors
from tests.sandbox.aws.state import Image, Snapshot

ALL = "all"
ACCOUNT = re.compile(r"\d{12}")


def changes(params: Mapping[str, Any], word: str) -> tuple[set[str], set[str]]:
    """Return whom a request gives the permission, and from whom it takes it, in either of its two forms."""
    pairs = []
    for verb, operation in (("Add", "add"), ("Remove", "remove")):
        new = {_whom(one) for one in params.get(word, {}).get(verb, [])}
        if params.get("OperationType") == operation:
            groups = params.get("UserGroups", params.get("GroupNames", []))
            new |= {_whom({"UserId": one}) for one in params.get("UserIds", [])}
            new |= {_whom({"Group": one}) for one in groups}
        pairs.append(new)
    if not any(pairs):
        raise errors.Refused("InvalidParameterCombination", "No permission is added or removed")
    return pairs[0], pairs[1]


def _whom(permission: Mapping[str, str]) -> str:
    if list(permission) == ["Group"] and permission["Group"] == ALL:
        return ALL
    if list(permission) == ["UserId"] and ACCOUNT.fullmatch(permission["UserId"]):
        return permission["UserId"]
    shown = ", ".join(f"{name} {value}" for name, value in permission.items())
    raise errors.Refused("InvalidAMIAttributeItemValue", f"Invalid attribute item value: {shown}")


def apply(thing: Image | Snapshot, added: set[str], removed: set[str]) -> None:
    """Change the permissions; removing what is not there is no error."""
    thing.users = (thing.users | added) - removed - {ALL}
    thing.public = (thing.public or ALL in added) and ALL not in removed


def shown(thing: Image | Snapshot) -> list[dict[str, str]]:
    """Return the permissions as a describing call has them."""
    everybody = [{"Group": ALL}] if thing.public else []
    return everybody + [{"UserId": one} for one in sorted(thing.users)]
