# SPDX-License-Identifier: Apache-2.0
"""Tags of images and snapshots.

- A key has 1 to 127 characters and does not begin with aws:, a value at most 255, a resource at most 50 tags:
  https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html
- Tags on something that is shared are seen only by the account that wrote them:
  https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html
- DeleteTags with a value deletes only where the value is equal, an empty one included; without, in any case:
  https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteTags.html
"""

from collections.abc import Mapping
from typing import Any

from tests.sandbox.aws import errors, lookup
from tests.sandbox.aws.state import Action, Call, Image, Snapshot, Tags

MOST = 50
MOST_RESOURCES = 1000


def checked(wanted: list[dict[str, str]]) -> dict[str, str]:
    """Return tags as a mapping; Refused if they break a rule."""
    found: dict[str, str] = {}
    for tag in wanted:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if key in found:
            raise errors.refusal("ec2", "invalid", f"Duplicate tag key '{key}' specified.")
        if not 1 <= len(key) <= 127:
            raise errors.refusal("ec2", "invalid", "Tag keys must have 1 to 127 characters")
        if key.lower().startswith("aws:"):
            raise errors.refusal("ec2", "invalid", f"Tag keys starting with 'aws:' are reserved: {key}")
        if len(value) > 255:
            raise errors.refusal("ec2", "invalid", "Tag values must have at most 255 characters")
        found[key] = value
    if len(found) > MOST:
        raise errors.Refused("TagLimitExceeded", f"The maximum number of tags is {MOST}")
    return found


def of_specifications(params: Mapping[str, Any], kinds: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return the tags that a request gives to what it makes, by kind of resource."""
    found: dict[str, dict[str, str]] = {}
    for one in params.get("TagSpecifications", []):
        kind = one.get("ResourceType")
        if kind not in kinds:
            raise errors.refusal("ec2", "invalid", f"'{kind}' is not a valid taggable resource type here")
        if kind in found:
            raise errors.refusal("ec2", "invalid", f"More than one tag specification for {kind}")
        found[kind] = checked(one.get("Tags", []))
    return found


def shown(tags: Tags, account: str) -> list[dict[str, str]]:
    """Return the tags that the account sees."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.get(account, {}).items())]


def _resources(call: Call) -> list[Image | Snapshot]:
    ids = call.params["Resources"]
    if len(ids) > MOST_RESOURCES:
        raise errors.refusal("ec2", "invalid", f"At most {MOST_RESOURCES} resources")
    found: list[Image | Snapshot] = []
    for one in ids:
        if one.startswith("ami-"):
            found.append(lookup.image(call, one))
        elif one.startswith("snap-"):
            found.append(lookup.snapshot(call, one))
        else:
            raise errors.Refused("InvalidID", f"The ID '{one}' is not valid")
    return found


def create_tags(call: Call) -> dict[str, Any]:
    """Write tags on all resources, or on none."""
    new = checked(call.params["Tags"])
    account = call.caller.account
    resources = _resources(call)
    if any(len(one.tags.get(account, {}) | new) > MOST for one in resources):
        raise errors.Refused("TagLimitExceeded", f"The maximum number of tags is {MOST}")
    for one in resources:
        one.tags.setdefault(account, {}).update(new)
    return {}


def delete_tags(call: Call) -> dict[str, Any]:
    """Delete tags; those that are not there are no error."""
    for one in _resources(call):
        theirs = one.tags.setdefault(call.caller.account, {})
        if "Tags" not in call.params:
            theirs.clear()
        for tag in call.params.get("Tags", []):
            if theirs.get(tag["Key"]) == tag.get("Value", theirs.get(tag["Key"])):
                theirs.pop(tag["Key"], None)
    return {}


ACTIONS: dict[str, Action] = {"CreateTags": create_tags, "DeleteTags": delete_tags}
