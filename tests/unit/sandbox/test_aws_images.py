# SPDX-License-Identifier: Apache-2.0
"""The stand-in of AWS: images, snapshots and tags of EC2, each rule refused and accepted."""

import datetime
import functools
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox import aws
from tests.unit.sandbox.calls import block as block_of
from tests.unit.sandbox.calls import eventually, image, put, refused, request, snapshot


@pytest.fixture
def ec2(standin: aws.StandIn) -> Any:
    return standin.client("ec2")


@pytest.fixture
def stranger(standin: aws.StandIn) -> Any:
    return standin.client("ec2", "stranger")


def described(ec2: Any, image_id: str) -> dict[str, Any]:
    (found,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    return dict(found)


# Register


def test_register_keeps_everything(standin: aws.StandIn, ec2: Any) -> None:
    source, more = snapshot(standin, 1), snapshot(standin, size=4)
    tags = [{"Key": "ciming:target", "Value": "1"}, {"Key": "empty", "Value": ""}]
    wanted = {
        "Name": "Fedora (40) [x] a.b/c-d'e@f_g",
        "Description": "about it",
        "Architecture": "arm64",
        "VirtualizationType": "hvm",
        "BootMode": "uefi",
        "TpmSupport": "v2.0",
        "ImdsSupport": "v2.0",
        "EnaSupport": True,
        "SriovNetSupport": "simple",
        "RootDeviceName": "/dev/sda1",
    }
    volume = {"SnapshotId": source, "VolumeType": "gp3", "VolumeSize": 8, "DeleteOnTermination": True}
    devices: list[dict[str, Any]] = [
        {"DeviceName": "/dev/sda1", "Ebs": volume | {"Iops": 4000, "Throughput": 200}},
        {"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": more, "VolumeType": "io2", "Iops": 100}},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"},
    ]
    made = ec2.register_image(
        **wanted, BlockDeviceMappings=devices, TagSpecifications=[{"ResourceType": "image", "Tags": tags}]
    )["ImageId"]
    found = described(ec2, made)
    assert {name: found[name] for name in wanted} == wanted
    assert found["BlockDeviceMappings"] == [
        {"DeviceName": "/dev/sda1", "Ebs": devices[0]["Ebs"] | {"Encrypted": False}},
        {
            "DeviceName": "/dev/sdb",
            "Ebs": {
                "SnapshotId": more, "VolumeType": "io2", "Iops": 100, "VolumeSize": 4, "Encrypted": False,
                "DeleteOnTermination": False,
            },
        },
        devices[2],
    ]  # fmt: skip
    assert found["Tags"] == tags
    assert (found["State"], found["RootDeviceType"], found["Public"]) == ("available", "ebs", False)
    assert found["OwnerId"] == standin.accounts["owner"]["account_id"]
    (seen,) = (one for one in standin.images() if one["id"] == made)
    assert (seen["snapshots"], seen["region"]) == ([source, more], "us-east-1")
    assert seen["tags"] == {"ciming:target": "1", "empty": ""}


def test_register_defaults(standin: aws.StandIn, ec2: Any) -> None:
    """They are old: who means a machine of today must say so."""
    wanted = request(snapshot(standin))
    del wanted["Architecture"], wanted["VirtualizationType"]
    found = described(ec2, ec2.register_image(**wanted)["ImageId"])
    assert (found["Architecture"], found["VirtualizationType"]) == ("i386", "paravirtual")
    assert found["EnaSupport"] is False
    assert "BootMode" not in found


def test_image_is_pending_first(standin: aws.StandIn, ec2: Any) -> None:
    standin.settings(image_seconds=0.3)
    made = image(standin)
    assert described(ec2, made)["State"] == "pending"
    ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 0.1, "MaxAttempts": 20})


@pytest.mark.parametrize("name", ["ab", "n" * 129, "a:b", "ä b", "a*b", "a\nb", "a+b"])
def test_names(standin: aws.StandIn, name: str) -> None:
    with refused("InvalidAMIName.Malformed"):
        standin.client("ec2", checks=False).register_image(**request(snapshot(standin), Name=name))


def test_name_is_unique(standin: aws.StandIn, ec2: Any) -> None:
    name = "the same name"
    first = image(standin, Name=name)
    with refused("InvalidAMIName.Duplicate", first):
        image(standin, Name=name)
    image(standin, region="eu-central-1", Name=name)
    image(standin, account="stranger", Name=name)
    ec2.deregister_image(ImageId=first)
    image(standin, Name=name)


def wrong_device(**changes: Any) -> Any:
    """Devices whose root volume differs."""

    def made(source: str) -> dict[str, Any]:
        volume = {"SnapshotId": source, "VolumeType": "gp3"} | changes
        volume = {name: value for name, value in volume.items() if value is not None}
        return {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": volume}]}

    return made


BAD_DEVICE = {"DeviceName": "sda?", "VirtualName": "ephemeral0"}
BAD_TAGS = [{"Key": "aws:x", "Value": ""}]


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("InvalidParameterValue", {"Architecture": "x86"}),
        ("InvalidParameterValue", {"VirtualizationType": "kvm"}),
        ("InvalidParameterValue", {"BootMode": "uefi-only"}),
        ("InvalidParameterValue", {"SriovNetSupport": "complex"}),
        ("InvalidParameterValue", {"ImdsSupport": "v1.0"}),
        ("InvalidParameterValue", {"Description": "d" * 256}),
        ("InvalidParameterCombination", {"VirtualizationType": "paravirtual", "EnaSupport": True}),
        ("InvalidParameterCombination", {"VirtualizationType": "paravirtual", "SriovNetSupport": "simple"}),
        ("InvalidParameterCombination", {"VirtualizationType": "paravirtual", "Architecture": "arm64"}),
        ("InvalidParameterCombination", {"Architecture": "arm64", "BootMode": "legacy-bios"}),
        ("InvalidParameterCombination", {"Architecture": "arm64", "BootMode": "uefi-preferred"}),
        ("InvalidParameterCombination", {"TpmSupport": "v2.0", "BootMode": "legacy-bios"}),
        ("MissingParameter", {"RootDeviceName": ""}),
        ("InvalidBlockDeviceMapping", {"RootDeviceName": "/dev/sda1"}),
        ("InvalidBlockDeviceMapping", {"BlockDeviceMappings": []}),
        ("InvalidBlockDeviceMapping", {"BlockDeviceMappings": [BAD_DEVICE]}),
        ("InvalidBlockDeviceMapping", wrong_device(SnapshotId=None, VolumeSize=1)),
        ("InvalidBlockDeviceMapping", wrong_device(SnapshotId=None)),
        ("InvalidBlockDeviceMapping", wrong_device(VolumeType="gp2", Throughput=200)),
        ("InvalidBlockDeviceMapping", wrong_device(VolumeType="gp2", Iops=3000)),
        ("InvalidBlockDeviceMapping", wrong_device(VolumeType="io1")),
        ("InvalidBlockDeviceMapping", wrong_device(VolumeType="st1")),
        ("InvalidBlockDeviceMapping", wrong_device(Iops=100)),
        ("InvalidBlockDeviceMapping", wrong_device(Encrypted=True)),
        ("InvalidBlockDeviceMapping", wrong_device(KmsKeyId="alias/aws/ebs")),
        ("InvalidParameterValue", wrong_device(VolumeType="gp9")),
        ("InvalidSnapshotID.Malformed", wrong_device(SnapshotId="snap-xyz")),
        ("InvalidSnapshot.NotFound", wrong_device(SnapshotId="snap-01234567890abcdef")),
        ("InvalidParameterValue", {"TagSpecifications": [{"ResourceType": "snapshot", "Tags": []}]}),
        ("InvalidParameterValue", {"TagSpecifications": [{"ResourceType": "image", "Tags": BAD_TAGS}]}),
    ],
)  # fmt: skip
def test_register_refused(standin: aws.StandIn, ec2: Any, code: str, wrong: Any) -> None:
    source = snapshot(standin)
    before = len(standin.images())
    with refused(code):
        ec2.register_image(**(request(source) | (wrong(source) if callable(wrong) else wrong)))
    assert len(standin.images()) == before


def test_size_of_the_root(standin: aws.StandIn, ec2: Any) -> None:
    source = snapshot(standin, size=3)
    for size, fits in ((2, False), (3, True), (4, True)):
        wanted = request(source) | wrong_device(VolumeSize=size)(source)
        if fits:
            ec2.register_image(**wanted)
        else:
            with refused("InvalidBlockDeviceMapping", "smaller"):
                ec2.register_image(**wanted)


def test_device_twice(standin: aws.StandIn, ec2: Any) -> None:
    wanted = request(snapshot(standin))
    with refused("InvalidBlockDeviceMapping", "twice"):
        ec2.register_image(**(wanted | {"BlockDeviceMappings": wanted["BlockDeviceMappings"] * 2}))


def test_parameter_that_is_not_known(standin: aws.StandIn) -> None:
    ec2 = standin.client("ec2")

    def more(params: dict[str, Any], **_: Any) -> None:
        params["body"]["Nmae"] = "x"

    ec2.meta.events.register("before-call.ec2.DescribeImages", more)
    try:
        with refused("UnknownParameter", "Nmae"):
            ec2.describe_images()
    finally:
        ec2.meta.events.unregister("before-call.ec2.DescribeImages", more)


def test_action_that_is_not_there(ec2: Any) -> None:
    with refused("InvalidAction"):
        ec2.describe_instances()


def test_only_completed_snapshots_of_ones_own(standin: aws.StandIn, ec2: Any, stranger: Any) -> None:
    ebs = standin.client("ebs")
    pending = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    with refused("IncorrectState"):
        ec2.register_image(**request(pending))
    standin.settings(completion_seconds=0.3)
    put(ebs, pending, 0, block_of(1))
    ebs.complete_snapshot(SnapshotId=pending, ChangedBlocksCount=1)
    with refused("IncorrectState"):
        ec2.register_image(**request(pending))
    standin.settings(completion_seconds=0)
    theirs = snapshot(standin)
    with refused("InvalidSnapshot.NotFound"):
        stranger.register_image(**request(theirs))
    account = standin.accounts["stranger"]["account_id"]
    ec2.modify_snapshot_attribute(SnapshotId=theirs, CreateVolumePermission={"Add": [{"UserId": account}]})
    with refused("OperationNotPermitted"):
        stranger.register_image(**request(theirs))
    with refused("InvalidSnapshot.NotFound"):
        standin.client("ec2", region="eu-central-1").register_image(**request(theirs))


def test_key_of_the_snapshot(standin: aws.StandIn, ec2: Any) -> None:
    key = standin.make_key()
    source = snapshot(standin, 1, Encrypted=True, KmsKeyArn=key)
    standin.enable_key(key, False)
    with refused("InvalidParameterValue", key):
        ec2.register_image(**request(source))
    standin.enable_key(key)
    found = described(ec2, ec2.register_image(**request(source))["ImageId"])
    assert found["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    with refused("OperationNotPermitted"):
        ec2.modify_image_attribute(ImageId=found["ImageId"], LaunchPermission={"Add": [{"Group": "all"}]})


def test_default_key_is_not_shared(standin: aws.StandIn, ec2: Any) -> None:
    account = {"Add": [{"UserId": standin.accounts["stranger"]["account_id"]}]}
    for arn, shared in ((standin.make_key(), True), (None, False)):
        key: dict[str, Any] = {"KmsKeyArn": arn} if arn else {}
        source = snapshot(standin, 1, Encrypted=True, **key)
        made = ec2.register_image(**request(source))["ImageId"]
        calls: list[Callable[[], Any]] = [
            functools.partial(ec2.modify_image_attribute, ImageId=made, LaunchPermission=account),
            functools.partial(
                ec2.modify_snapshot_attribute, SnapshotId=source, CreateVolumePermission=account
            ),
        ]
        for call in calls:
            if shared:
                call()
            else:
                with refused("OperationNotPermitted"):
                    call()


# Describe


def test_ids(standin: aws.StandIn, ec2: Any, stranger: Any) -> None:
    made = image(standin)
    with refused("InvalidAMIID.NotFound", "ami-01234567890abcdef"):
        ec2.describe_images(ImageIds=[made, "ami-01234567890abcdef"])
    for wrong in ("ami-12", "snap-01234567890abcdef", "ami-0123456789ABCDEF0"):
        with refused("InvalidAMIID.Malformed"):
            ec2.describe_images(ImageIds=[wrong])
    with refused("AuthFailure"):
        stranger.describe_images(ImageIds=[made])
    with refused("InvalidAMIID.NotFound"):
        standin.client("ec2", region="eu-central-1").describe_images(ImageIds=[made])


def names(ec2: Any, **wanted: Any) -> set[str]:
    return {one["Name"] for one in ec2.describe_images(**wanted)["Images"]}


def test_who_sees_what(standin: aws.StandIn, ec2: Any, stranger: Any) -> None:
    account = standin.accounts["stranger"]["account_id"]
    owner = standin.accounts["owner"]["account_id"]
    private, shared, public = (
        image(standin, Name=f"seen {kind}") for kind in ("private", "shared", "public")
    )
    everything = {"Filters": [{"Name": "name", "Values": ["seen *"]}]}
    ec2.modify_image_attribute(ImageId=shared, LaunchPermission={"Add": [{"UserId": account}]})
    ec2.modify_image_attribute(
        ImageId=public, Attribute="launchPermission", OperationType="add", UserGroups=["all"]
    )
    assert names(ec2, **everything) == {"seen private", "seen shared", "seen public"}
    assert names(stranger, **everything) == {"seen shared", "seen public"}
    assert names(stranger, **everything, Owners=["self"]) == set()
    assert names(stranger, **everything, Owners=[owner]) == {"seen shared", "seen public"}
    assert names(stranger, **everything, ExecutableUsers=["self"]) == {"seen shared"}
    assert names(stranger, **everything, ExecutableUsers=["all"]) == {"seen public"}
    assert names(ec2, **everything, ExecutableUsers=[account]) == {"seen shared"}
    assert names(standin.client("ec2", region="us-west-2"), **everything) == set()
    permissions = {"ImageId": shared, "Attribute": "launchPermission"}
    assert ec2.describe_image_attribute(**permissions)["LaunchPermissions"] == [{"UserId": account}]
    with refused("AuthFailure"):
        stranger.describe_image_attribute(**permissions)
    for action, more in (
        (stranger.deregister_image, {}),
        (stranger.modify_image_attribute, {"Description": {"Value": "mine"}}),
    ):
        with refused("AuthFailure"):
            action(ImageId=public, **more)
    ec2.modify_image_attribute(ImageId=shared, LaunchPermission={"Remove": [{"UserId": account}]})
    assert names(stranger, **everything) == {"seen public"}
    assert private in {one["id"] for one in standin.images()}


def test_tags_of_others_are_not_seen(standin: aws.StandIn, ec2: Any, stranger: Any) -> None:
    tags = [{"ResourceType": "image", "Tags": [{"Key": "mine", "Value": "1"}]}]
    made = image(standin, TagSpecifications=tags)
    ec2.modify_image_attribute(ImageId=made, LaunchPermission={"Add": [{"Group": "all"}]})
    assert described(stranger, made).get("Tags", []) == []
    stranger.create_tags(Resources=[made], Tags=[{"Key": "theirs", "Value": "2"}])
    assert described(stranger, made)["Tags"] == [{"Key": "theirs", "Value": "2"}]
    assert described(ec2, made)["Tags"] == [{"Key": "mine", "Value": "1"}]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"name": ["filtered one"]}, {"one"}),
        ({"name": ["filtered *"], "tag:kind": ["a"]}, {"one"}),
        ({"name": ["filtered *"], "tag:kind": ["a", "b"]}, {"one", "two"}),
        ({"name": ["filtered *"], "tag:kind": ["?"]}, {"one", "two"}),
        ({"name": ["filtered *"], "tag-key": ["kind"]}, {"one", "two"}),
        ({"name": ["filtered *"], "tag:Kind": ["a"]}, set()),
        ({"name": ["FILTERED *"]}, set()),
        ({"name": [r"filtered \*"]}, set()),
        ({"name": ["filtered *"], "architecture": ["arm64"]}, {"two"}),
        ({"name": ["filtered *"], "state": ["available"], "ena-support": ["true"]}, {"one"}),
        ({"name": ["filtered *"], "state": ["pending"]}, set()),
        ({"name": ["filtered *"], "block-device-mapping.volume-type": ["gp3"]}, {"one", "two"}),
        ({"name": ["filtered *"], "root-device-name": ["/dev/sd*"]}, set()),
        ({"name": ["filtered *"], "is-public": ["false"], "description": ["x"]}, {"two"}),
    ],
)
def test_filters(standin: aws.StandIn, ec2: Any, filters: dict[str, list[str]], found: set[str]) -> None:
    def tags(value: str) -> list[dict[str, Any]]:
        return [{"ResourceType": "image", "Tags": [{"Key": "kind", "Value": value}]}]

    if not names(ec2, Filters=[{"Name": "name", "Values": ["filtered *"]}]):
        image(standin, Name="filtered one", EnaSupport=True, TagSpecifications=tags("a"))
        image(
            standin, Name="filtered two", Architecture="arm64", Description="x", TagSpecifications=tags("b")
        )
    wanted = [{"Name": name, "Values": values} for name, values in filters.items()]
    assert names(ec2, Filters=wanted) == {f"filtered {one}" for one in found}


def test_filters_refused(ec2: Any) -> None:
    for describe, word in ((ec2.describe_images, "Owners"), (ec2.describe_snapshots, "OwnerIds")):
        with refused("InvalidUserID.Malformed"):
            describe(**{word: ["me"]})
    for describe in (ec2.describe_images, ec2.describe_snapshots, ec2.describe_regions):
        with refused("InvalidParameterValue"):
            describe(Filters=[{"Name": "colour", "Values": ["red"]}])
    with refused("FilterLimitExceeded"):
        ec2.describe_images(Filters=[{"Name": "name", "Values": [str(number) for number in range(201)]}])


@pytest.mark.parametrize("sparse", [False, True])
def test_pages(standin: aws.StandIn, sparse: bool) -> None:
    ec2 = standin.client("ec2", "stranger", "eu-west-1")
    if not ec2.describe_images(Owners=["self"])["Images"]:
        source = snapshot(standin, account="stranger", region="eu-west-1")
        for _ in range(12):
            ec2.register_image(**request(source))
    standin.settings(sparse_pages=sparse)
    pages = list(
        ec2.get_paginator("describe_images").paginate(Owners=["self"], PaginationConfig={"PageSize": 5})
    )
    assert len(pages) == (6 if sparse else 3)
    ids = [one["ImageId"] for page in pages for one in page["Images"]]
    assert len(set(ids)) == len(ids) == 12
    assert len(ec2.describe_images(Owners=["self"])["Images"]) == 12


def test_pages_refused(standin: aws.StandIn, ec2: Any) -> None:
    made = image(standin)
    for describe, ids in (
        (ec2.describe_images, {"ImageIds": [made]}),
        (ec2.describe_snapshots, {"SnapshotIds": [snapshot(standin)]}),
    ):
        with refused("InvalidParameterCombination"):
            describe(MaxResults=5, **ids)
        with refused("InvalidParameterValue"):
            describe(MaxResults=4)
        with refused("InvalidParameterValue"):
            describe(MaxResults=5, NextToken="nonsense")


def test_not_seen_at_once(standin: aws.StandIn, ec2: Any) -> None:
    source = snapshot(standin)
    time.sleep(0.6)
    standin.settings(consistency_seconds=0.5)
    made = ec2.register_image(**request(source))["ImageId"]
    with refused("InvalidAMIID.NotFound"):
        ec2.describe_images(ImageIds=[made])
    with refused("InvalidAMIID.NotFound"):
        ec2.create_tags(Resources=[made], Tags=[{"Key": "k", "Value": "v"}])
    eventually(lambda: made in {one["ImageId"] for one in ec2.describe_images()["Images"]})


# Change


def test_attributes(standin: aws.StandIn, ec2: Any) -> None:
    made = image(standin, Description="old", BootMode="uefi-preferred")
    ec2.modify_image_attribute(ImageId=made, Description={"Value": "new"})
    ec2.modify_image_attribute(ImageId=made, ImdsSupport={"Value": "v2.0"})
    found = described(ec2, made)
    assert (found["Description"], found["ImdsSupport"]) == ("new", "v2.0")
    for attribute, word, value in (
        ("description", "Description", "new"),
        ("bootMode", "BootMode", "uefi-preferred"),
        ("imdsSupport", "ImdsSupport", "v2.0"),
    ):
        assert ec2.describe_image_attribute(ImageId=made, Attribute=attribute)[word] == {"Value": value}


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("InvalidParameterCombination", {}),
        ("InvalidParameterCombination", {"Description": {"Value": "d"}, "ImdsSupport": {"Value": "v2.0"}}),
        ("InvalidAMIAttributeItemValue", {"LaunchPermission": {"Add": [{"UserId": "12"}]}}),
        ("InvalidParameterValue", {"LaunchPermission": {"Add": [{"Group": "everybody"}]}}),
        ("InvalidParameterValue", {"ImdsSupport": {"Value": "v1.0"}}),
        ("InvalidParameterValue", {"Description": {"Value": "d" * 256}}),
        ("InvalidParameterValue", {"Attribute": "kernel", "Value": "x"}),
    ],
)
def test_attributes_refused(standin: aws.StandIn, ec2: Any, code: str, wrong: dict[str, Any]) -> None:
    made = image(standin)
    with refused(code):
        ec2.modify_image_attribute(ImageId=made, **wrong)


def test_public_access_that_is_blocked(standin: aws.StandIn, ec2: Any) -> None:
    made = image(standin)
    standin.settings(block_public_access=True)
    with refused("OperationNotPermitted"):
        ec2.modify_image_attribute(ImageId=made, LaunchPermission={"Add": [{"Group": "all"}]})


def test_deprecation(standin: aws.StandIn, ec2: Any, stranger: Any) -> None:
    made = image(standin)
    ec2.modify_image_attribute(ImageId=made, LaunchPermission={"Add": [{"Group": "all"}]})
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    with refused("InvalidParameterValue"):
        ec2.enable_image_deprecation(ImageId=made, DeprecateAt=past)
    with refused("InvalidParameterValue"):
        ec2.enable_image_deprecation(ImageId=made, DeprecateAt=past + datetime.timedelta(days=4000))
    with refused("InvalidParameterValue"):      # of a public one
        ec2.enable_image_deprecation(ImageId=made, DeprecateAt=past + datetime.timedelta(days=800))
    ec2.enable_image_deprecation(ImageId=made, DeprecateAt=past + datetime.timedelta(days=1))
    assert described(ec2, made)["DeprecationTime"]
    assert described(stranger, made)["State"] == "available"
    ec2.disable_image_deprecation(ImageId=made)
    assert "DeprecationTime" not in described(ec2, made)
    with refused("AuthFailure"):
        stranger.enable_image_deprecation(ImageId=made, DeprecateAt=past + datetime.timedelta(days=1))


def test_tags(standin: aws.StandIn, ec2: Any) -> None:
    made, source = image(standin), snapshot(standin)
    ec2.create_tags(Resources=[made, source], Tags=[{"Key": "k", "Value": "1"}, {"Key": "x", "Value": ""}])
    ec2.create_tags(Resources=[made], Tags=[{"Key": "k", "Value": "2"}])
    assert described(ec2, made)["Tags"] == [{"Key": "k", "Value": "2"}, {"Key": "x", "Value": ""}]
    ec2.delete_tags(Resources=[made], Tags=[{"Key": "k", "Value": "1"}])  # another value: it stays
    ec2.delete_tags(Resources=[made], Tags=[{"Key": "x"}, {"Key": "none"}])
    assert described(ec2, made)["Tags"] == [{"Key": "k", "Value": "2"}]
    (found,) = ec2.describe_snapshots(SnapshotIds=[source])["Snapshots"]
    assert found["Tags"] == [{"Key": "k", "Value": "1"}, {"Key": "x", "Value": ""}]
    ec2.delete_tags(Resources=[made])
    assert described(ec2, made).get("Tags", []) == []


@pytest.mark.parametrize(
    ("code", "tags"),
    [
        ("InvalidParameterValue", [{"Key": "aws:x", "Value": ""}]),
        ("InvalidParameterValue", [{"Key": "k" * 128, "Value": ""}]),
        ("InvalidParameterValue", [{"Key": "k", "Value": "v" * 257}]),
        ("InvalidParameterValue", [{"Key": "", "Value": "v"}]),
        ("TagLimitExceeded", [{"Key": str(number), "Value": ""} for number in range(51)]),
    ],
)
def test_tags_refused(standin: aws.StandIn, ec2: Any, code: str, tags: list[dict[str, str]]) -> None:
    made = image(standin)
    with refused(code):
        ec2.create_tags(Resources=[made], Tags=tags)
    ec2.create_tags(Resources=[made], Tags=[{"Key": str(number), "Value": ""} for number in range(50)])
    with refused("TagLimitExceeded"):
        ec2.create_tags(Resources=[made], Tags=[{"Key": "one more", "Value": ""}])


def test_tags_on_what_is_not_there(standin: aws.StandIn, ec2: Any) -> None:
    made, tags = image(standin), [{"Key": "k", "Value": "v"}]
    for code, other in (
        ("InvalidID", "thing-1"),
        ("InvalidAMIID.NotFound", "ami-01234567890abcdef"),
        ("InvalidSnapshot.NotFound", "snap-01234567890abcdef"),
    ):
        with refused(code):
            ec2.create_tags(Resources=[made, other], Tags=tags)
    assert described(ec2, made).get("Tags", []) == []


# Remove


def test_deregister(standin: aws.StandIn, ec2: Any) -> None:
    made = image(standin)
    source = described(ec2, made)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    with refused("InvalidSnapshot.InUse", made):
        ec2.delete_snapshot(SnapshotId=source)
    assert ec2.deregister_image(ImageId=made)["Return"] is True
    with refused("InvalidAMIID.NotFound"):
        ec2.describe_images(ImageIds=[made])
    with refused("InvalidAMIID.Unavailable"):
        ec2.deregister_image(ImageId=made)
    with refused("InvalidAMIID.NotFound"):
        ec2.deregister_image(ImageId="ami-01234567890abcdef")
    ec2.delete_snapshot(SnapshotId=source)  # it was left
    with refused("InvalidSnapshot.NotFound"):
        ec2.delete_snapshot(SnapshotId=source)


def test_deregistered_is_seen_for_a_while(standin: aws.StandIn, ec2: Any) -> None:
    standin.settings(image_seconds=60, leaving_seconds=0.5)
    made = image(standin, Name="leaving")  # a pending one can be deregistered, too
    ec2.deregister_image(ImageId=made)
    assert described(ec2, made)["State"] == "deregistered"
    assert names(ec2, Filters=[{"Name": "name", "Values": ["leaving"]}]) == {"leaving"}
    with refused("InvalidAMIID.Unavailable"):
        ec2.deregister_image(ImageId=made)
    assert made not in {one["id"] for one in standin.images()}
    image(standin, Name="leaving")  # the name is free
    time.sleep(0.6)
    with refused("InvalidAMIID.NotFound"):
        ec2.describe_images(ImageIds=[made])


def test_deregister_with_snapshots(standin: aws.StandIn, ec2: Any) -> None:
    source = snapshot(standin, 1)
    first, second = (ec2.register_image(**request(source))["ImageId"] for _ in range(2))
    for made, result in ((first, "skipped"), (second, "success")):
        answer = ec2.deregister_image(ImageId=made, DeleteAssociatedSnapshots=True)
        assert answer["DeleteSnapshotResults"] == [{"SnapshotId": source, "ReturnCode": result}]
    with refused("InvalidSnapshot.NotFound"):
        ec2.describe_snapshots(SnapshotIds=[source])


# Snapshots


def test_snapshots(standin: aws.StandIn, ec2: Any, stranger: Any) -> None:
    made = snapshot(standin, 1, Description="listed", Tags=[{"Key": "k", "Value": "listed"}])
    (found,) = ec2.describe_snapshots(Filters=[{"Name": "tag:k", "Values": ["listed"]}])["Snapshots"]
    assert found["SnapshotId"] == made
    assert (found["State"], found["Progress"], found["VolumeSize"]) == ("completed", "100%", 1)
    assert made in {one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    with refused("InvalidSnapshot.NotFound"):
        stranger.describe_snapshots(SnapshotIds=[made])
    with refused("InvalidSnapshotID.Malformed"):
        ec2.describe_snapshots(SnapshotIds=["snap-1"])
    account = standin.accounts["stranger"]["account_id"]
    ec2.modify_snapshot_attribute(
        SnapshotId=made, Attribute="createVolumePermission", OperationType="add", UserIds=[account]
    )
    shared = stranger.describe_snapshots(RestorableByUserIds=["self"])["Snapshots"]
    assert {one["SnapshotId"]: one.get("Tags", []) for one in shared}[made] == []
    assert stranger.describe_snapshots(OwnerIds=["self"], SnapshotIds=[made])["Snapshots"] == []
    with refused("AuthFailure"):
        stranger.delete_snapshot(SnapshotId=made)
    attribute = ec2.describe_snapshot_attribute(SnapshotId=made, Attribute="createVolumePermission")
    assert attribute["CreateVolumePermissions"] == [{"UserId": account}]
    both = {"Remove": [{"UserId": account}], "Add": [{"UserId": "0" * 12}]}
    with refused("InvalidParameterCombination"):
        ec2.modify_snapshot_attribute(SnapshotId=made, CreateVolumePermission=both)
    ec2.modify_snapshot_attribute(SnapshotId=made, CreateVolumePermission={"Remove": [{"UserId": account}]})
    with refused("InvalidSnapshot.NotFound"):
        stranger.describe_snapshots(SnapshotIds=[made])


# The account


def test_regions(ec2: Any) -> None:
    usual = {one["RegionName"] for one in ec2.describe_regions()["Regions"]}
    assert {"us-east-1", "eu-central-1"} <= usual
    every = ec2.describe_regions(AllRegions=True)["Regions"]
    assert {one["RegionName"] for one in every if one["OptInStatus"] == "not-opted-in"} == {"ap-east-1"}
    assert ec2.describe_regions(RegionNames=["eu-west-1"])["Regions"][0]["RegionName"] == "eu-west-1"
    with refused("InvalidParameterValue"):
        ec2.describe_regions(RegionNames=["mars-north-1"])


def test_account_attributes(ec2: Any) -> None:
    found = ec2.describe_account_attributes(AttributeNames=["supported-platforms"])["AccountAttributes"]
    assert found[0]["AttributeValues"] == [{"AttributeValue": "VPC"}]


def test_reader(standin: aws.StandIn) -> None:
    made = image(standin)
    ec2, ebs = standin.client("ec2", "reader"), standin.client("ebs", "reader")
    assert described(ec2, made)["ImageId"] == made
    assert ebs.list_snapshot_blocks(SnapshotId=snapshot(standin, 1))["Blocks"]
    source = snapshot(standin)
    before = standin.images(), standin.snapshots()
    calls: dict[str, Callable[[], Any]] = {
        "ec2:RegisterImage": lambda: ec2.register_image(**request(source)),
        "ec2:DeregisterImage": lambda: ec2.deregister_image(ImageId=made),
        "ec2:DeleteSnapshot": lambda: ec2.delete_snapshot(SnapshotId=source),
        "ec2:CreateTags": lambda: ec2.create_tags(Resources=[made], Tags=[{"Key": "k", "Value": "v"}]),
    }
    for action, call in calls.items():
        with refused("UnauthorizedOperation", action):
            call()
    with refused("AccessDeniedException", "ebs:StartSnapshot"):
        ebs.start_snapshot(VolumeSize=1)
    with refused("AccessDeniedException", "ebs:PutSnapshotBlock"):
        put(ebs, source, 0, block_of(1))
    assert (standin.images(), standin.snapshots()) == before


def test_dry_run(standin: aws.StandIn, ec2: Any) -> None:
    wanted = request(snapshot(standin)) | {"DryRun": True}
    before = standin.images()
    with refused("DryRunOperation"):
        ec2.register_image(**wanted)
    with refused("UnauthorizedOperation", "ec2:RegisterImage"):
        standin.client("ec2", "reader").register_image(**wanted)
    assert standin.images() == before
    with refused("DryRunOperation"):
        ec2.describe_images(DryRun=True)


def test_one_action_less(standin: aws.StandIn, ec2: Any) -> None:
    standin.allow("owner", "ec2:Describe*", "ebs:*")
    with refused("UnauthorizedOperation", "ec2:RegisterImage"):
        image(standin)
