# SPDX-License-Identifier: Apache-2.0
"""AMIs: made of a snapshot, shared, described, and removed together with it."""

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ciming import exceptions, points
from ciming.providers import base
from ciming.providers.aws import metadata, snapshots
from ciming.providers.aws.account import Account, Refusal

ABSENT = ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable")
UNSEEN = (*ABSENT, "AuthFailure")       # of another account, that does not share it
GONE = ("success", "skipped")   # a snapshot; that which was skipped is another image's too
ROOT = "/dev/sda1"
NAME_TAKEN = "InvalidAMIName.Duplicate"
IN_USE = "InvalidSnapshot.InUse"        # by an image that is deregistered, for a moment
LEFT = "ciming:left-by"         # tag of a snapshot: the image that it was of
LOOKS = 5       # for an image that bears a name which was free a moment ago
ALL: Any = {"IncludeDeprecated": True, "IncludeDisabled": True}      # or those seem not to be there
PATIENCE = 900  # seconds for an image to become available

Alive = Callable[[], None]


def find(account: Account, tags: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    """Images of this account with these tags, or all of its own."""
    filters = {"Filters": snapshots.tagged(tags)} if tags else {}
    found = snapshots.pages(account, "DescribeImages", "Images", Owners=["self"], **ALL, **filters)
    return (image for image in found if image["State"] != "deregistered")


def named(account: Account, image_ids: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Those of these images that this account may use."""
    wanted = [{"Name": "image-id", "Values": list(image_ids)}]
    found = snapshots.pages(account, "DescribeImages", "Images", Filters=wanted, **ALL)
    return (image for image in found if image["State"] != "deregistered")


def show(account: Account, image_id: str) -> Mapping[str, Any] | None:
    """What EC2 says of an image; None: there is none that this account may use."""
    found = account.call("ec2", "DescribeImages", absent=UNSEEN, ImageIds=[image_id], **ALL)
    alive = [image for image in found["Images"] if image["State"] != "deregistered"] if found else []
    return alive[0] if alive else None


def snapshot_ids(image: Mapping[str, Any]) -> dict[str, str]:
    """Snapshots of an image, by the name of the device that each is for."""
    return {
        device["DeviceName"]: device["Ebs"]["SnapshotId"]
        for device in image.get("BlockDeviceMappings", ())
        if "SnapshotId" in device.get("Ebs", {})
    }


def register(
    account: Account,
    snapshot_id: str,
    spec: base.ImageSpec,
    key: str,
    tags: Mapping[str, str],
    volume: Mapping[str, Any],
    machine: Mapping[str, Any],
    alive: Alive,
) -> str:
    """An image of a snapshot: its ref.

    :param volume: what is to be said of the root device beside its snapshot
    :param machine: what else RegisterImage is to be told
    """
    wanted = {
        **machine,
        "RootDeviceName": ROOT,
        "VirtualizationType": "hvm",
        "EnaSupport": machine["Architecture"] != "i386",    # no machine of that kind has it
        "SriovNetSupport": "simple",
        "BlockDeviceMappings": [
            {
                "DeviceName": ROOT,
                "Ebs": {"SnapshotId": snapshot_id, "DeleteOnTermination": True, **volume},
            }
        ],
        "TagSpecifications": [{"ResourceType": "image", "Tags": snapshots.as_tags(tags)}],
    }
    return _named(account, spec, key, alive, lambda name: _make(account, {**wanted, "Name": name}))


def copy(
    account: Account,
    image: Mapping[str, Any],
    region: str,
    spec: base.ImageSpec,
    key: str,
    token: str,
    tags: Mapping[str, Mapping[str, str]],
    more: Mapping[str, Any],
    alive: Alive,
) -> str:
    """Have AWS copy an image of a region into that of the account; its ref there, where it is pending yet.

    :param token: asked twice with the same one, it is the same image
    :param tags: by what is to bear them, `image` and `snapshot`
    :param more: what else CopyImage is to be told
    """
    wanted = {
        **more,
        "SourceImageId": image["ImageId"],
        "SourceRegion": region,
        "TagSpecifications": [
            {"ResourceType": what, "Tags": snapshots.as_tags(each)} for what, each in tags.items()
        ],
    }

    def make(name: str) -> str:
        same = hashlib.sha256(f"{token} {image['ImageId']} {name}".encode()).hexdigest()
        told = {**wanted, "Name": name, "ClientToken": same}
        return snapshots.once_there_is_room(lambda: _copy(account, told), alive)

    return _named(account, spec, key, alive, make)


def _named(
    account: Account, spec: base.ImageSpec, key: str, alive: Alive, make: Callable[[str], str]
) -> str:
    """An image of the name that it is to have; where that is taken, with a part of the key behind it."""
    for suffix in ("", f" {key[:8]}"):
        alive()
        try:
            return make(metadata.name(spec.name, suffix))
        except Refusal as error:
            if error.name != NAME_TAKEN:
                raise
            refused = error
        made = _ours(account, key)      # by a call whose answer was lost, or by another of us
        if made is not None:
            return made
    raise refused


@points.mutation
def _make(account: Account, wanted: Mapping[str, Any]) -> str:
    return str(account.ask("ec2", "RegisterImage", **wanted)["ImageId"])


@points.mutation
def _copy(account: Account, wanted: Mapping[str, Any]) -> str:
    return str(account.ask("ec2", "CopyImage", **wanted)["ImageId"])


def _ours(account: Account, key: str) -> str | None:
    """AWS shows what was made just now after a while."""
    for look in range(LOOKS):
        time.sleep(look * 0.5)
        for image in find(account, {"ciming:target": key}):
            return str(image["ImageId"])
    return None


def wait(
    account: Account, image_id: str, alive: Alive, patience: float = PATIENCE
) -> Mapping[str, Any]:
    """Until an image can be used: what EC2 says of it then. Looks may fail meanwhile.

    :param patience: seconds
    :raises ProviderError: it failed, or is gone
    """
    unseen: float | None = None
    until = time.monotonic() + patience
    for image, pause in snapshots.looks(functools.partial(show, account, image_id), alive):
        if image is not None and image["State"] == "available":
            return image
        if image is not None and image["State"] != "pending":
            why = account.words(image.get("StateReason", {}).get("Message", ""))
            raise exceptions.ProviderError(
                f"{account.name}: image {image_id} is {image['State']}. {why}".strip(),
                code="image.not_active",
            )
        now = time.monotonic()
        if image is None:       # who cancels now would not find it
            unseen = unseen or now
            if now - unseen > snapshots.SEEN_SECONDS:
                raise exceptions.ProviderError(
                    f"{account.name}: image {image_id} is gone.", code="image.not_active"
                )
            time.sleep(pause)
            continue
        unseen = None
        if now > until:
            raise exceptions.TransientProviderError(
                f"{account.name}: image {image_id} is not available yet."
            )
        alive()
        time.sleep(pause)
    raise AssertionError


@points.mutation
def share(account: Account, image_id: str, snapshot: str, accounts: Sequence[str]) -> None:
    """Let others use an image, and copy what it is made of; those who may already stay."""
    whom = [{"UserId": each} for each in accounts]
    account.call("ec2", "ModifySnapshotAttribute", SnapshotId=snapshot, CreateVolumePermission={"Add": whom})
    account.call("ec2", "ModifyImageAttribute", ImageId=image_id, LaunchPermission={"Add": whom})


@points.mutation
def deregister(account: Account, image_id: str) -> None:
    """Remove an image, and its snapshots where no other image is made of them; absent is fine.

    :raises ProviderError: AWS keeps one of the snapshots
    """
    answer = account.call(
        "ec2", "DeregisterImage", absent=ABSENT, ImageId=image_id, DeleteAssociatedSnapshots=True
    )
    for each in (answer or {}).get("DeleteSnapshotResults", ()):
        if each["ReturnCode"] not in GONE:      # the answer is a success all the same
            _delete_left(account, image_id, each["SnapshotId"])


def _delete_left(account: Account, image_id: str, snapshot_id: str) -> None:
    """What nothing leads to any more: so it is tried here and now, and noted where it stays."""
    for look in range(LOOKS):
        time.sleep(look * 0.5)
        try:
            return snapshots.delete(account, snapshot_id)
        except exceptions.ProviderError as error:
            left = error
        passes = isinstance(left, Refusal) and left.name == IN_USE
        if not (passes or isinstance(left, exceptions.TransientProviderError)):
            break
    with contextlib.suppress(exceptions.ProviderError):
        snapshots.tag(account, snapshot_id, {LEFT: image_id})
    raise exceptions.ProviderError(
        f"Image {image_id} is deregistered, but its snapshot {snapshot_id} is still there. {left.detail}",
        code=left.code,
        cloud_request_id=left.cloud_request_id,
    )
