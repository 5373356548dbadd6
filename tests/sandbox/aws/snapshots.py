# SPDX-License-Identifier: Apache-2.0
"""Snapshots as EC2 has them: describe, share, delete.

- https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSnapshots.html
- An encrypted snapshot can not be public:
  https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifySnapshotAttribute.html
- A snapshot that an AMI uses can not be deleted (InvalidSnapshot.InUse):
  https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSnapshot.html
"""

from typing import Any

from tests.sandbox.aws import describe, errors, lookup, sharing, tags
from tests.sandbox.aws.state import Action, Call, Snapshot
from tests.sandbox.aws.wire import iso

FILTERS = frozenset(
    (
        "description", "encrypted", "owner-alias", "owner-id", "progress", "snapshot-id", "start-time",
        "status",
        "storage-tier", "tag-key", "transfer-type", "volume-id", "volume-size",
    )
)  # fmt: skip
NO_VOLUME = "vol-ffffffff"
"""The volume of a snapshot that was not taken of one."""


def describe_snapshots(call: Call) -> dict[str, Any]:
    """Return snapshots that the caller may use."""
    wanted, account = call.params, call.caller.account
    filters = describe.checked(wanted, FILTERS)
    if "SnapshotIds" in wanted:
        named = [lookup.snapshot(call, one) for one in dict.fromkeys(wanted["SnapshotIds"])]
    else:
        named = [
            one
            for one in call.state.snapshots.values()
            if one.region == call.region
            and one.may_use(account)
            and not call.state.fresh(one.started.timestamp())
        ]
    owners = {account if one == "self" else one for one in wanted.get("OwnerIds", [])}
    users = {account if one == "self" else one for one in wanted.get("RestorableByUserIds", [])}
    found = []
    for one in named:
        if "OwnerIds" in wanted and one.owner not in owners:
            continue
        if "RestorableByUserIds" in wanted and not ((one.public and "all" in users) or users & one.users):
            continue
        if describe.passes(filters, _facts(one), one.tags.get(account, {})):
            found.append(one)
    page, token = describe.page(call, found, "SnapshotIds")
    return {"Snapshots": [show(one, account) for one in page], "NextToken": token}


def show(snapshot: Snapshot, account: str) -> dict[str, Any]:
    """Return the snapshot in the words of DescribeSnapshots."""
    return {
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.owner,
        "VolumeId": NO_VOLUME,
        "VolumeSize": snapshot.size,
        "State": snapshot.status,
        "StateMessage": snapshot.failure if snapshot.status == "error" else None,
        "Progress": "100%" if snapshot.status == "completed" else "0%",
        "StartTime": snapshot.started,
        "Description": snapshot.description,
        "Encrypted": snapshot.key is not None,
        "KmsKeyId": snapshot.key,
        "StorageTier": "standard",
        "Tags": tags.shown(snapshot.tags, account),
    }


def _facts(snapshot: Snapshot) -> dict[str, list[str]]:
    shown = show(snapshot, snapshot.owner)
    words = {
        "description": "Description", "owner-id": "OwnerId", "progress": "Progress",
        "snapshot-id": "SnapshotId",
        "status": "State", "storage-tier": "StorageTier", "volume-id": "VolumeId",
        "volume-size": "VolumeSize",
    }  # fmt: skip
    facts = {name: [str(shown[word])] for name, word in words.items()}
    return facts | {"encrypted": [str(shown["Encrypted"]).lower()], "start-time": [iso(snapshot.started)]}


def describe_snapshot_attribute(call: Call) -> dict[str, Any]:
    """Return who may make volumes of a snapshot of the caller's own."""
    snapshot = lookup.own_snapshot(call, call.params["SnapshotId"])
    if call.params["Attribute"] == "productCodes":
        return {"SnapshotId": snapshot.id, "ProductCodes": []}
    return {"SnapshotId": snapshot.id, "CreateVolumePermissions": sharing.shown(snapshot)}


def modify_snapshot_attribute(call: Call) -> dict[str, Any]:
    """Share a snapshot of the caller's own, or share it no more."""
    snapshot = lookup.own_snapshot(call, call.params["SnapshotId"])
    if call.params.get("Attribute", "createVolumePermission") != "createVolumePermission":
        raise errors.refusal("ec2", "invalid", "Only createVolumePermission can be changed")
    added, removed = sharing.changes(call.params, "CreateVolumePermission")
    if sharing.ALL in added and snapshot.key:
        raise errors.Refused("OperationNotPermitted", "Encrypted snapshots can't be public", 403)
    sharing.apply(snapshot, added, removed)
    return {}


def delete_snapshot(call: Call) -> dict[str, Any]:
    """Delete a snapshot of the caller's own that no image uses."""
    snapshot = lookup.own_snapshot(call, call.params["SnapshotId"])
    if users := call.state.image_users(snapshot.id):
        message = f"The snapshot {snapshot.id} is currently in use by {', '.join(users)}"
        raise errors.Refused("InvalidSnapshot.InUse", message)
    del call.state.snapshots[snapshot.id]
    snapshot.file.unlink()
    return {}


ACTIONS: dict[str, Action] = {
    "DescribeSnapshots": describe_snapshots,
    "DescribeSnapshotAttribute": describe_snapshot_attribute,
    "ModifySnapshotAttribute": modify_snapshot_attribute,
    "DeleteSnapshot": delete_snapshot,
}
