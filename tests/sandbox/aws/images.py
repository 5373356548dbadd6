# SPDX-License-Identifier: Apache-2.0
"""AMIs: register, describe, change, share, deregister.

- What may be registered: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html,
  and its devices: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_EbsBlockDevice.html
- Names are unique in an account and region (InvalidAMIName.Duplicate):
  https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html
- Graviton boots by UEFI: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-boot-mode.html; a TPM needs
  UEFI: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/enable-nitrotpm-prerequisites.html
- Who sees what: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImages.html
- Only the owner sees or changes attributes; one attribute a call:
  https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyImageAttribute.html
- Nothing becomes public while that is blocked:
  https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/block-public-access-to-amis.html
- An image that was deregistered may be seen for a while (DescribeImages); its snapshots are left, unless it
  is told otherwise, and then too if the caller may not delete them, which is said in an answer that is a
  success: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeregisterImage.html and
  https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSnapshotReturnCode.html
- A deprecated AMI is shown to its owner, and to others who ask for it:
  https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-deprecate.html
"""

import datetime
import re
import time
from typing import Any

from tests.sandbox.aws import access, describe, errors, keys, lookup, sharing, tags
from tests.sandbox.aws.state import Action, Call, Image, new_id, now
from tests.sandbox.aws.wire import iso

NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
DEVICE = re.compile(r"/dev/[a-z]{2,4}[a-z0-9]*|xvd[a-z]{1,2}")
EPHEMERAL = re.compile(r"ephemeral\d{1,2}")
SIZES = {
    "gp2": (1, 16384), "gp3": (1, 65536), "io1": (4, 16384), "io2": (4, 65536), "st1": (125, 16384),
    "sc1": (125, 16384), "standard": (1, 1024),
}  # fmt: skip
"""GiB that a volume of each type may have."""
IOPS = {"gp3": (3000, 80000), "io1": (100, 64000), "io2": (100, 256000)}
THROUGHPUT = {"gp3": (125, 2000)}
ELSEWHERE = (
    "KmsKeyId", "OutpostArn", "AvailabilityZone", "AvailabilityZoneId", "EbsCardIndex",
    "VolumeInitializationRate",
)  # fmt: skip
"""What of a device is only for instances and Outposts."""
NOT_DONE = ("BillingProducts", "KernelId", "RamdiskId", "ImageLocation")
KEPT = (
    "Name", "Description", "RootDeviceName", "SriovNetSupport", "BootMode", "TpmSupport", "ImdsSupport",
    "UefiData",
)  # fmt: skip
FILTERS = frozenset(
    (
        "architecture", "block-device-mapping.delete-on-termination", "block-device-mapping.device-name",
        "block-device-mapping.snapshot-id", "block-device-mapping.volume-size",
        "block-device-mapping.volume-type",
        "block-device-mapping.encrypted", "creation-date", "description", "ena-support", "hypervisor",
        "image-allowed",
        "image-id", "image-type", "is-public", "kernel-id", "manifest-location", "name", "owner-alias",
        "owner-id",
        "platform", "product-code", "product-code.type", "ramdisk-id", "root-device-name", "root-device-type",
        "source-image-id", "source-image-region", "source-instance-id", "state", "state-reason-code",
        "state-reason-message", "sriov-net-support", "tag-key", "virtualization-type",
    )
)  # fmt: skip


def _invalid(message: str) -> errors.Refused:
    return errors.refusal("ec2", "invalid", message)


def _wrong_device(message: str) -> errors.Refused:
    return errors.Refused("InvalidBlockDeviceMapping", message)


def _clash(message: str) -> errors.Refused:
    return errors.Refused("InvalidParameterCombination", message)


# Registering


def register_image(call: Call) -> dict[str, Any]:
    """Make an image out of snapshots."""
    wanted = call.params
    if unknown := [name for name in NOT_DONE if name in wanted]:
        raise errors.Refused("UnsupportedOperation", f"{', '.join(unknown)}: not done here")
    check_name(call, wanted["Name"])
    check_description(wanted.get("Description", ""))
    labels = tags.of_specifications(wanted, ("image",)).get("image", {})
    spec = {name: wanted[name] for name in KEPT if name in wanted}
    spec |= _machine(wanted)
    spec["BlockDeviceMappings"] = _devices(call)
    spec["ImageLocation"] = f"{call.caller.account}/{wanted['Name']}"
    image = add(call, spec, call.state.settings.image_seconds)
    image.tags[image.owner] = labels
    return {"ImageId": image.id}


def check_description(text: str | None) -> None:
    """Of an image. That it has to be ASCII no page says, but EC2 does."""
    if text is None or len(text) > 255:
        raise _invalid("A description has at most 255 characters")
    if not text.isascii():
        raise _invalid("Character sets beyond ASCII are not supported")


def check_name(call: Call, name: str) -> None:
    """Refused if an image of the caller's can not have the name."""
    if not NAME.fullmatch(name):
        raise errors.Refused(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, and "
            "()[] ./-'@_",
        )
    for other in call.state.images.values():
        if (other.owner, other.region, other.spec["Name"]) == (call.caller.account, call.region, name):
            raise errors.Refused(
                "InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {other.id}"
            )


def add(call: Call, spec: dict[str, Any], seconds: float) -> Image:
    """Make an image that is pending for a while."""
    image = Image(
        id=new_id("ami"),
        owner=call.caller.account,
        region=call.region,
        spec=spec,
        created=now(),
        ready_at=time.time() + seconds,
        failure=call.failure,
    )
    call.state.images[image.id] = image
    return image


def _machine(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return what kind of machine the image is for."""
    architecture = wanted.get("Architecture", "i386")
    virtualization = wanted.get("VirtualizationType", "paravirtual")
    boot, sriov = wanted.get("BootMode"), wanted.get("SriovNetSupport", "simple")
    if virtualization not in ("hvm", "paravirtual"):
        raise _invalid(f"Value ({virtualization}) for parameter virtualizationType is invalid.")
    if sriov != "simple":
        raise _invalid(f"Value ({sriov}) for parameter sriovNetSupport is invalid.")
    if virtualization == "paravirtual":
        if architecture not in ("i386", "x86_64"):
            raise _clash(f"{architecture} images must be hvm")
        for name in ("EnaSupport", "SriovNetSupport", "BootMode", "TpmSupport", "UefiData"):
            if wanted.get(name):
                raise _clash(f"{name} is supported only for HVM AMIs")
    if architecture == "arm64" and boot not in (None, "uefi"):
        raise _clash(f"arm64 does not boot by {boot}")
    if wanted.get("TpmSupport") and boot != "uefi":
        raise _clash("TpmSupport needs the boot mode uefi")
    return {
        "Architecture": architecture,
        "VirtualizationType": virtualization,
        "EnaSupport": wanted.get("EnaSupport", False),
        "RootDeviceType": "ebs",
        "Hypervisor": "xen",
        "ImageType": "machine",
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
    }


def _devices(call: Call) -> list[dict[str, Any]]:
    """Return the devices as DescribeImages shows them."""
    wanted, root = call.params.get("BlockDeviceMappings", []), call.params.get("RootDeviceName")
    if not root:
        raise errors.refusal("ec2", "missing", "The request must contain the parameter RootDeviceName")
    names = [one.get("DeviceName", "") for one in wanted]
    for name in names:
        if not DEVICE.fullmatch(name):
            raise _wrong_device(f"Invalid device name '{name}'")
    if len(set(names)) != len(names):
        raise _wrong_device("A device name is used twice")
    devices = []
    for one in wanted:
        if "NoDevice" in one:
            continue
        if ("Ebs" in one) == ("VirtualName" in one):
            raise _wrong_device(f"{one['DeviceName']} must have either Ebs or VirtualName")
        if "Ebs" in one:
            devices.append(
                {"DeviceName": one["DeviceName"], "Ebs": _volume(call, one["Ebs"], one["DeviceName"])}
            )
        elif EPHEMERAL.fullmatch(one["VirtualName"]):
            devices.append(dict(one))
        else:
            raise _wrong_device(f"Invalid virtual name '{one['VirtualName']}'")
    if not any(one["DeviceName"] == root and "SnapshotId" in one.get("Ebs", {}) for one in devices):
        raise _wrong_device(f"The root device {root} must be mapped to a snapshot")
    return devices


def _volume(call: Call, wanted: dict[str, Any], name: str) -> dict[str, Any]:
    if wrong := [one for one in ELSEWHERE if one in wanted]:
        raise _wrong_device(f"{name}: {', '.join(wrong)} is not supported for images")
    kind, size = wanted.get("VolumeType", "standard"), wanted.get("VolumeSize")
    volume = {
        "DeleteOnTermination": False,
        "VolumeType": kind,
        "Encrypted": wanted.get("Encrypted", False),
    } | wanted
    if "SnapshotId" in wanted:
        if "Encrypted" in wanted:
            raise _wrong_device(f"{name}: the encryption of a volume from a snapshot can not be specified")
        snapshot = lookup.snapshot(call, wanted["SnapshotId"])
        if snapshot.owner != call.caller.account:
            raise errors.Refused("OperationNotPermitted", f"You do not own the snapshot '{snapshot.id}'", 403)
        if snapshot.status != "completed":
            raise errors.Refused("IncorrectState", f"The snapshot '{snapshot.id}' is not 'completed'")
        if not keys.usable(call.state, snapshot.key):
            raise keys.not_usable(snapshot.key)
        size = wanted.get("VolumeSize", snapshot.size)
        if size < snapshot.size:
            raise _wrong_device(
                f"{name}: a volume of {size} GiB is smaller than its snapshot, {snapshot.size} GiB"
            )
        volume |= {"VolumeSize": size, "Encrypted": snapshot.key is not None}
    if size is None:
        raise _wrong_device(f"{name}: a snapshot ID or a volume size is needed")
    limits = ("VolumeSize", SIZES), ("Iops", IOPS), ("Throughput", THROUGHPUT)
    for parameter, by_kind in limits:
        value = volume.get(parameter)
        low, high = by_kind.get(kind, (0, 0))
        if value is not None and not (kind in by_kind and low <= value <= high):
            raise _wrong_device(f"{name}: {parameter} {value} is not supported for {kind} volumes")
    if kind in ("io1", "io2") and "Iops" not in wanted:
        raise _wrong_device(f"{name}: {kind} volumes need Iops")
    return volume


# Describing


def describe_images(call: Call) -> dict[str, Any]:
    """Return images that the caller may use."""
    wanted, account = call.params, call.caller.account
    filters = describe.checked(wanted, FILTERS)
    if "ImageIds" in wanted:
        named = [lookup.image(call, one) for one in dict.fromkeys(wanted["ImageIds"])]
    else:
        everything = [*call.state.images.values(), *call.state.leaving.values()]
        named = [one for one in everything if one.id not in call.state.gone or one.lingers]
        named = [one for one in named if _listed(call, one)]
    describe.check_owners(wanted.get("Owners", []))
    owners = {account if one == "self" else one for one in wanted.get("Owners", [])}
    found = []
    for image in named:
        if "Owners" in wanted and image.owner not in owners:
            continue
        if "ExecutableUsers" in wanted and not _executable(image, wanted["ExecutableUsers"], account):
            continue
        if describe.passes(filters, _facts(image), image.tags.get(account, {})):
            found.append(image)
    shown, token = describe.page(call, found, "ImageIds")
    return {"Images": [show(image, account) for image in shown], "NextToken": token}


def _listed(call: Call, image: Image) -> bool:
    account = call.caller.account
    if (
        image.region != call.region
        or not image.may_use(account)
        or call.state.fresh(image.created.timestamp())
    ):
        return False
    return image.owner == account or call.params.get("IncludeDeprecated", False) or not _deprecated(image)


def _deprecated(image: Image) -> bool:
    return image.deprecation is not None and image.deprecation <= now()


def _executable(image: Image, users: list[str], account: str) -> bool:
    """Tell whether one of the users was given the launch permission: an owner has it without."""
    wanted = {account if one == "self" else one for one in users}
    return ("all" in wanted and image.public) or bool(wanted & image.users)


def show(image: Image, account: str) -> dict[str, Any]:
    """Return the image in the words of DescribeImages."""
    spec = {name: value for name, value in image.spec.items() if name != "UefiData"}
    shown = spec | {
        "ImageId": image.id,
        "State": image.state,
        "OwnerId": image.owner,
        "CreationDate": iso(image.created),
        "Public": image.public,
        "Tags": tags.shown(image.tags, account),
        "DeprecationTime": iso(image.deprecation) if image.deprecation else None,
        "DeregistrationProtection": "disabled",
    }
    if image.state == "failed":
        shown["StateReason"] = {"Code": "Client.InternalError", "Message": image.failure}
    return shown


def _facts(image: Image) -> dict[str, list[str]]:
    shown = show(image, image.owner)
    words = {
        "architecture": "Architecture", "creation-date": "CreationDate", "description": "Description",
        "ena-support": "EnaSupport", "hypervisor": "Hypervisor", "image-id": "ImageId",
        "image-type": "ImageType",
        "is-public": "Public", "manifest-location": "ImageLocation", "name": "Name", "owner-id": "OwnerId",
        "root-device-name": "RootDeviceName", "root-device-type": "RootDeviceType", "state": "State",
        "source-image-id": "SourceImageId", "source-image-region": "SourceImageRegion",
        "sriov-net-support": "SriovNetSupport", "virtualization-type": "VirtualizationType",
    }  # fmt: skip
    facts = {name: [_text(shown[word])] for name, word in words.items() if word in shown}
    devices = shown["BlockDeviceMappings"]
    facts["block-device-mapping.device-name"] = [one["DeviceName"] for one in devices]
    for name, word in (
        ("delete-on-termination", "DeleteOnTermination"), ("snapshot-id", "SnapshotId"),
        ("volume-size", "VolumeSize"), ("volume-type", "VolumeType"), ("encrypted", "Encrypted"),
    ):  # fmt: skip
        volumes = [one["Ebs"] for one in devices if "Ebs" in one]
        facts[f"block-device-mapping.{name}"] = [_text(one[word]) for one in volumes if word in one]
    if "StateReason" in shown:
        facts["state-reason-code"] = [shown["StateReason"]["Code"]]
        facts["state-reason-message"] = [shown["StateReason"]["Message"]]
    return facts


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


ATTRIBUTES = {
    "description": "Description", "bootMode": "BootMode", "sriovNetSupport": "SriovNetSupport",
    "tpmSupport": "TpmSupport", "uefiData": "UefiData", "imdsSupport": "ImdsSupport",
}  # fmt: skip


def describe_image_attribute(call: Call) -> dict[str, Any]:
    """Return one attribute of an image of the caller's own."""
    image, attribute = lookup.own_image(call, call.params["ImageId"]), call.params["Attribute"]
    answer: dict[str, Any] = {"ImageId": image.id}
    if attribute == "launchPermission":
        return answer | {"LaunchPermissions": sharing.shown(image)}
    if attribute == "blockDeviceMapping":
        return answer | {"BlockDeviceMappings": image.spec["BlockDeviceMappings"]}
    if attribute not in ATTRIBUTES:
        raise errors.Refused("UnsupportedOperation", f"{attribute}: not done here")
    word = ATTRIBUTES[attribute]
    value = image.spec.get(word)
    return answer | {word: {} if value is None else {"Value": value}}


# Changing


def modify_image_attribute(call: Call) -> dict[str, Any]:
    """Change one attribute of an image of the caller's own."""
    wanted, image = call.params, lookup.own_image(call, call.params["ImageId"])
    named = wanted.get("Attribute")
    if named not in (None, "description", "launchPermission", "imdsSupport"):
        raise _invalid(f"Value ({named}) for parameter attribute is invalid.")
    changes = {name for name in ("Description", "LaunchPermission", "ImdsSupport") if name in wanted}
    if named == "description" and "Value" in wanted:
        changes.add("Description")
    if named == "launchPermission" and "OperationType" in wanted:
        changes.add("LaunchPermission")
    if len(changes) != 1:
        raise _clash("Exactly one attribute can be changed at a time")
    if image.state != "available":
        raise errors.Refused("InvalidAMIID.Unavailable", f"The image '{image.id}' is not available")
    if changes == {"Description"}:
        text = wanted.get("Description", {}).get("Value", wanted.get("Value"))
        check_description(text)
        image.spec["Description"] = text
    elif changes == {"ImdsSupport"}:
        if wanted["ImdsSupport"].get("Value") != "v2.0":
            raise _invalid("imdsSupport can only become v2.0")
        image.spec["ImdsSupport"] = "v2.0"
    else:
        added, removed = sharing.changes(wanted, "LaunchPermission")
        if sharing.ALL in added:
            if call.state.settings.block_public_access:
                message = "You can't publicly share this image because block public access is enabled"
                raise errors.Refused("OperationNotPermitted", message, 403)
            if any(one["Ebs"].get("Encrypted") for one in image.spec["BlockDeviceMappings"] if "Ebs" in one):
                raise errors.Refused(
                    "OperationNotPermitted", "Images with encrypted snapshots can't be public", 403
                )
        sharing.demand_own_key([call.state.snapshots.get(one) for one in image.snapshots], added)
        sharing.apply(image, added, removed)
    return {}


def deregister_image(call: Call) -> dict[str, Any]:
    """Remove an image, and with it its snapshots if that is said and no other image has them."""
    image = lookup.own_image(call, call.params["ImageId"])
    del call.state.images[image.id]
    call.state.gone.add(image.id)
    image.leaves_at = time.time() + call.state.settings.leaving_seconds
    call.state.leaving[image.id] = image
    results = []
    if call.params.get("DeleteAssociatedSnapshots"):
        may = access.allows(call.state, call.caller, "ec2:DeleteSnapshot")
        for one in image.snapshots:
            used = bool(call.state.image_users(one))
            if may and not used and (snapshot := call.state.snapshots.pop(one, None)):
                snapshot.file.unlink()
            code = "skipped" if used else "success" if may else "missing-permissions"
            results.append({"SnapshotId": one, "ReturnCode": code})
    return {"Return": True, "DeleteSnapshotResults": results}


def enable_image_deprecation(call: Call) -> dict[str, Any]:
    """Deprecate an image at a time to come, rounded to the minute."""
    image, at = lookup.own_image(call, call.params["ImageId"]), call.params["DeprecateAt"]
    moment = at.astimezone(datetime.UTC)
    if moment <= now():
        raise _invalid("DeprecateAt must be in the future")
    if moment > now() + datetime.timedelta(days=3660):
        raise _invalid("DeprecateAt must be within 10 years")
    if image.public and moment > image.created + datetime.timedelta(days=731):
        raise _invalid("DeprecateAt of a public image must be within 2 years of its creation")
    image.deprecation = (moment + datetime.timedelta(seconds=30)).replace(second=0, microsecond=0)
    return {"Return": True}


def disable_image_deprecation(call: Call) -> dict[str, Any]:
    """Take a deprecation back."""
    lookup.own_image(call, call.params["ImageId"]).deprecation = None
    return {"Return": True}


ACTIONS: dict[str, Action] = {
    "RegisterImage": register_image,
    "DescribeImages": describe_images,
    "DescribeImageAttribute": describe_image_attribute,
    "ModifyImageAttribute": modify_image_attribute,
    "DeregisterImage": deregister_image,
    "EnableImageDeprecation": enable_image_deprecation,
    "DisableImageDeprecation": disable_image_deprecation,
}
