# SPDX-License-Identifier: Apache-2.0
"""CopyImage: from region to region, or within one.

- https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CopyImage.html
- Launch permissions are not copied, tags only if asked for, and then only the caller's own:
  https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/CopyingAMIs.html
- A key that can not be used shows only later, when the copy fails:
  https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CopySnapshot.html
- The same client token with other parameters is an IdempotentParameterMismatch:
  https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
"""

import copy
import dataclasses
import os
import time
from typing import Any

from tests.sandbox.aws import errors, images, keys, lookup, tags, tokens
from tests.sandbox.aws.state import REGIONS, Action, Call, Image, Snapshot, new_id

NOT_DONE = (
    "DestinationOutpostArn", "DestinationAvailabilityZone", "DestinationAvailabilityZoneId",
    "SnapshotCopyCompletionDurationMinutes",
)  # fmt: skip
NO_KEY = "Given key ID is not accessible"


def copy_image(call: Call) -> dict[str, Any]:
    """Start a copy, or return what the same request with the same token started."""
    return tokens.once(call, lambda: _copy_image(call))


def _copy_image(call: Call) -> dict[str, Any]:
    wanted = call.params
    if unknown := [name for name in NOT_DONE if name in wanted]:
        raise errors.Refused("UnsupportedOperation", f"{', '.join(unknown)}: not done here")
    if wanted["SourceRegion"] not in REGIONS:
        raise errors.Refused("InvalidRequest", "The source region is not valid")
    source = lookup.image(dataclasses.replace(call, region=wanted["SourceRegion"]), wanted["SourceImageId"])
    if source.state != "available":
        raise errors.Refused("InvalidAMIID.Unavailable", f"The image '{source.id}' is {source.state}")
    images.check_name(call, wanted["Name"])
    images.check_description(wanted.get("Description", ""))
    labels = tags.of_specifications(wanted, ("image", "snapshot"))
    if "KmsKeyId" in wanted and not wanted.get("Encrypted"):
        raise errors.Refused("InvalidParameterDependency", "KmsKeyId needs Encrypted")
    spec = copy.deepcopy(source.spec) | {
        "Name": wanted["Name"],
        "SourceImageId": source.id,
        "SourceImageRegion": source.region,
        "ImageLocation": f"{call.caller.account}/{wanted['Name']}",
    }
    spec.pop("Description", None)
    if "Description" in wanted:
        spec["Description"] = wanted["Description"]
    for snapshot_id in source.snapshots:
        _check(call, call.state.snapshots[snapshot_id])
    made = images.add(call, spec, call.state.settings.copy_seconds)
    for device in spec["BlockDeviceMappings"]:
        if "SnapshotId" in device.get("Ebs", {}):
            one = _copy_snapshot(call, source, device["Ebs"]["SnapshotId"], made)
            one.tags[one.owner] = dict(labels.get("snapshot", {}))
            device["Ebs"] |= {"SnapshotId": one.id, "Encrypted": one.key is not None}
    own = source.tags.get(call.caller.account, {}) if wanted.get("CopyImageTags") else {}
    made.tags[made.owner] = own | labels.get("image", {})
    return {"ImageId": made.id}


def _check(call: Call, source: Snapshot) -> None:
    """Refused if the caller can not copy the snapshot so."""
    if not source.may_use(call.caller.account):
        raise errors.Refused("InvalidRequest", "You do not have permission to access the storage of this ami")
    if source.key and call.params.get("Encrypted") is False:
        raise errors.Refused("InvalidParameterCombination", "A copy of an encrypted snapshot is encrypted")


def _copy_snapshot(call: Call, image: Image, snapshot_id: str, made: Image) -> Snapshot:
    """Make a copy of a snapshot: it is complete when the image is."""
    source = call.state.snapshots[snapshot_id]
    by_default = call.state.settings.encryption_by_default
    key, failure = None, made.failure
    if source.key or call.params.get("Encrypted") or by_default:
        name = call.params.get("KmsKeyId", keys.DEFAULT)
        found = keys.find(call.state, call.caller, call.region, name)
        key = found.arn if found else name
        if found is None or not found.enabled or not keys.usable(call.state, source.key):
            failure = NO_KEY
    copied = Snapshot(
        id=new_id("snap"),
        owner=call.caller.account,
        region=call.region,
        size=source.size,
        description=f"Copied for DestinationAmi {made.id} from SourceAmi {image.id}",
        file=call.state.directory / "snapshots",
        timeout=0.0,
        key=key,
        sealed=True,
        ready_at=time.time() + call.state.settings.copy_seconds,
        failure=failure,
        digests=source.digests,
    )
    copied.file /= copied.id
    os.link(source.file, copied.file)  # neither is written any more
    call.state.snapshots[copied.id] = copied
    made.failure = failure
    return copied


ACTIONS: dict[str, Action] = {"CopyImage": copy_image}
