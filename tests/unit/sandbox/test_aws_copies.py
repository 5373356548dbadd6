# SPDX-License-Identifier: Apache-2.0
"""The stand-in of AWS: images that are copied, and disks that are imported."""

import os
import pathlib
import subprocess
from typing import Any

import pytest

from tests.sandbox import aws
from tests.unit.sandbox.calls import BLOCK, block, eventually, image, refused, request, snapshot

THERE = "eu-central-1"
BUCKET = "imports"


def copied(standin: aws.StandIn, source: str, **changes: Any) -> str:
    wanted = {"SourceImageId": source, "SourceRegion": "us-east-1", "Name": f"copy of {source}"}
    return str(standin.client("ec2", region=THERE).copy_image(**(wanted | changes))["ImageId"])


def described(standin: aws.StandIn, image_id: str, region: str = THERE) -> dict[str, Any]:
    (found,) = standin.client("ec2", region=region).describe_images(ImageIds=[image_id])["Images"]
    return dict(found)


def of_image(standin: aws.StandIn, image_id: str) -> str:
    (found,) = (one for one in standin.images() if one["id"] == image_id)
    (only,) = found["snapshots"]
    return str(only)


# Copies


def test_copy(standin: aws.StandIn) -> None:
    standin.settings(copy_seconds=0.3)
    here, there = standin.client("ec2"), standin.client("ec2", region=THERE)
    specifications = [{"ResourceType": "image", "Tags": [{"Key": "mine", "Value": "1"}]}]
    wanted = request(snapshot(standin, 1, 5), Description="d", BootMode="uefi", EnaSupport=True)
    source = here.register_image(**wanted, TagSpecifications=specifications)["ImageId"]
    account = standin.accounts["stranger"]["account_id"]
    here.modify_image_attribute(ImageId=source, LaunchPermission={"Add": [{"UserId": account}]})
    tags = [{"ResourceType": kind, "Tags": [{"Key": "new", "Value": kind}]} for kind in ("image", "snapshot")]
    made = copied(standin, source, TagSpecifications=tags)
    assert described(standin, made)["State"] == "pending"
    snapshot_id = of_image(standin, made)
    (pending,) = there.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert pending["State"] == "pending"
    there.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 0.1, "MaxAttempts": 30})
    (done,) = there.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert done["State"] == "completed"
    assert done["Tags"] == [{"Key": "new", "Value": "snapshot"}]
    found = described(standin, made)
    assert found["Tags"] == [{"Key": "new", "Value": "image"}]
    assert (found["SourceImageId"], found["SourceImageRegion"]) == (source, "us-east-1")
    assert (found["BootMode"], found["EnaSupport"], found["Architecture"]) == ("uefi", True, "x86_64")
    assert "Description" not in found
    permissions = there.describe_image_attribute(ImageId=made, Attribute="launchPermission")
    assert permissions["LaunchPermissions"] == []
    # Its own blocks: the first image may go.
    first = of_image(standin, source)
    assert standin.block_digests(snapshot_id) == standin.block_digests(first) != {}
    here.deregister_image(ImageId=source, DeleteAssociatedSnapshots=True)
    assert standin.read_snapshot(snapshot_id, 5 * BLOCK, BLOCK) == block(5)
    ebs = standin.client("ebs", region=THERE)
    assert [one["BlockIndex"] for one in ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]] == [1, 5]


def test_copy_of_tags(standin: aws.StandIn) -> None:
    tags = [{"ResourceType": "image", "Tags": [{"Key": "mine", "Value": "1"}]}]
    source = image(standin, TagSpecifications=tags)
    made = copied(standin, source, CopyImageTags=True)
    assert described(standin, made)["Tags"] == [{"Key": "mine", "Value": "1"}]


def test_copy_asked_for_twice(standin: aws.StandIn) -> None:
    source = image(standin)
    first = copied(standin, source, ClientToken="copy-1")
    assert copied(standin, source, ClientToken="copy-1") == first
    with refused("IdempotentParameterMismatch"):
        copied(standin, source, ClientToken="copy-1", Name="another name")
    with refused("InvalidAMIName.Duplicate"):
        copied(standin, source)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("InvalidRequest", {"SourceRegion": "mars-north-1"}),
        ("InvalidAMIID.NotFound", {"SourceRegion": "us-west-2"}),
        ("InvalidAMIID.NotFound", {"SourceImageId": "ami-01234567890abcdef"}),
        ("InvalidAMIID.Malformed", {"SourceImageId": "ami-1"}),
        ("InvalidAMIName.Malformed", {"Name": "a:b:c"}),
        ("InvalidParameterDependency", {"KmsKeyId": "alias/aws/ebs"}),
        ("InvalidParameterValue", {"TagSpecifications": [{"ResourceType": "volume", "Tags": []}]}),
        ("InvalidParameterValue", {"Description": "für alle"}),
        ("InvalidParameterValue", {"Description": "d" * 256}),
    ],
)
def test_copy_refused(standin: aws.StandIn, code: str, wrong: dict[str, Any]) -> None:
    source = image(standin)
    before = standin.images(), standin.snapshots()
    with refused(code):
        copied(standin, source, **wrong)
    assert (standin.images(), standin.snapshots()) == before


def test_copy_of_what_is_shared(standin: aws.StandIn) -> None:
    source = image(standin)
    stranger = standin.client("ec2", "stranger", THERE)
    wanted = {"SourceImageId": source, "SourceRegion": "us-east-1", "Name": "taken"}
    with refused("AuthFailure"):
        stranger.copy_image(**wanted)
    account = standin.accounts["stranger"]["account_id"]
    here = standin.client("ec2")
    here.modify_image_attribute(ImageId=source, LaunchPermission={"Add": [{"UserId": account}]})
    with refused("InvalidRequest", "storage"):
        stranger.copy_image(**wanted)
    share = {"CreateVolumePermission": {"Add": [{"UserId": account}]}}
    here.modify_snapshot_attribute(SnapshotId=of_image(standin, source), **share)
    made = stranger.copy_image(**wanted)["ImageId"]
    (found,) = (one for one in standin.images() if one["id"] == made)
    assert found["owner"] == account


def test_copy_with_a_key(standin: aws.StandIn) -> None:
    source, key = image(standin), standin.make_key(region=THERE)
    made = copied(standin, source, Encrypted=True, KmsKeyId=key)
    assert described(standin, made)["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    again = {"SourceRegion": THERE, "Name": "encrypted again"}
    assert described(standin, copied(standin, made, **again))["State"] == "available"
    with refused("InvalidParameterCombination"):
        copied(standin, made, SourceRegion=THERE, Name="not encrypted", Encrypted=False)
    standin.enable_key(key, False)
    for number, name in enumerate((key, "no-such-key")):
        failed = copied(standin, source, Name=f"with key {number}", Encrypted=True, KmsKeyId=name)
        found = described(standin, failed)
        assert found["State"] == "failed"
        assert "key" in found["StateReason"]["Message"]
        (bad,) = (one for one in standin.snapshots() if one["id"] == of_image(standin, failed))
        assert bad["state"] == "error"


def test_copy_that_fails(standin: aws.StandIn) -> None:
    standin.fault("fail", "CopyImage")
    assert described(standin, copied(standin, image(standin)))["State"] == "failed"


# Imports


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A raw disk: data at the start, in the middle and at the end, which is no whole GiB."""
    file = tmp_path_factory.mktemp("import") / "disk.raw"
    with file.open("wb") as opened:
        opened.write(os.urandom(BLOCK))
        opened.seek(7 * BLOCK)
        opened.write(os.urandom(BLOCK))
        opened.seek(20 * BLOCK)
        opened.write(b"end" + bytes(509))
    return file


def converted(disk: pathlib.Path, name: str, kind: str, options: str = "") -> bytes:
    to = disk.with_name(name)
    command = ["qemu-img", "convert", "-f", "raw", "-O", kind, *(["-o", options] if options else [])]
    subprocess.run([*command, str(disk), str(to)], check=True)
    return to.read_bytes()


def uploaded(standin: aws.StandIn, data: bytes, key: str = "disk", region: str = "us-east-1") -> None:
    s3 = standin.client("s3", region=region)
    bucket = BUCKET if region == "us-east-1" else f"{BUCKET}-{region}"
    if bucket not in {one["Name"] for one in s3.list_buckets()["Buckets"]}:
        more = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
        s3.create_bucket(Bucket=bucket, **more)
    s3.put_object(Bucket=bucket, Key=key, Body=data)


def started(standin: aws.StandIn, kind: str = "RAW", **more: Any) -> Any:
    disk = {"Format": kind, "UserBucket": {"S3Bucket": BUCKET, "S3Key": "disk"}}
    return standin.client("ec2").import_snapshot(**({"DiskContainer": disk} | more))


def task(standin: aws.StandIn, task_id: str) -> dict[str, Any]:
    (found,) = standin.client("ec2").describe_import_snapshot_tasks(ImportTaskIds=[task_id])[
        "ImportSnapshotTasks"
    ]
    return dict(found["SnapshotTaskDetail"])


def ended(standin: aws.StandIn, task_id: str) -> dict[str, Any]:
    eventually(lambda: task(standin, task_id)["Status"] in ("completed", "deleted"))
    return task(standin, task_id)


@pytest.mark.parametrize(
    ("kind", "qemu", "options"),
    [
        ("RAW", "raw", ""),
        ("VHD", "vpc", "subformat=dynamic,force_size"),
        ("VHD", "vpc", "subformat=fixed,force_size"),
        ("VMDK", "vmdk", "subformat=streamOptimized"),
    ],
)
def test_import(standin: aws.StandIn, disk: pathlib.Path, kind: str, qemu: str, options: str) -> None:
    uploaded(standin, converted(disk, "converted", qemu, options))
    tags = [{"ResourceType": "import-snapshot-task", "Tags": [{"Key": "k", "Value": "v"}]}]
    answer = started(standin, kind, TagSpecifications=tags, Description="d")
    assert answer["SnapshotTaskDetail"]["Status"] == "active"
    assert answer["Tags"] == [{"Key": "k", "Value": "v"}]
    found = ended(standin, answer["ImportTaskId"])
    assert found["Status"] == "completed", found
    made = found["SnapshotId"]
    data = disk.read_bytes()
    assert standin.read_snapshot(made, 0, len(data)) == data
    (seen,) = standin.client("ec2").describe_snapshots(SnapshotIds=[made])["Snapshots"]
    assert (seen["State"], seen["VolumeSize"], seen.get("Tags", [])) == ("completed", 1, [])
    ebs = standin.client("ebs")
    blocks = ebs.list_snapshot_blocks(SnapshotId=made)["Blocks"]
    assert [one["BlockIndex"] for one in blocks] == [0, 7, 20]
    last = ebs.get_snapshot_block(SnapshotId=made, **blocks[-1])["BlockData"].read()
    assert last == data[20 * BLOCK :].ljust(BLOCK, b"\0")
    standin.client("ec2").register_image(**request(made))


@pytest.mark.parametrize(
    ("kind", "qemu", "options"),
    [
        ("VHD", "raw", ""),
        ("VHD", "qcow2", ""),
        ("VMDK", "raw", ""),
        ("VMDK", "vmdk", "subformat=monolithicSparse"),
    ],
)
def test_import_of_another_format(
    standin: aws.StandIn, disk: pathlib.Path, kind: str, qemu: str, options: str
) -> None:
    uploaded(standin, converted(disk, "converted", qemu, options))
    before = standin.snapshots()
    found = ended(standin, started(standin, kind)["ImportTaskId"])
    assert found["Status"] == "deleted"
    assert "Disk validation failed" in found["StatusMessage"]
    assert "SnapshotId" not in found
    assert standin.snapshots() == before


def test_import_that_is_cancelled(standin: aws.StandIn) -> None:
    uploaded(standin, bytes(BLOCK))
    standin.settings(import_seconds=5)
    made = started(standin)["ImportTaskId"]
    eventually(lambda: task(standin, made).get("Progress") == "70")
    ec2 = standin.client("ec2")
    assert ec2.cancel_import_task(ImportTaskId=made)["PreviousState"] == "active"
    found = ended(standin, made)
    assert (found["Status"], found["StatusMessage"]) == ("deleted", "User Cancelled")
    with refused("IncorrectState"):
        ec2.cancel_import_task(ImportTaskId=made)


def test_import_that_fails(standin: aws.StandIn) -> None:
    uploaded(standin, bytes(BLOCK))
    standin.fault("fail", "ImportSnapshot")
    assert ended(standin, started(standin)["ImportTaskId"])["Status"] == "deleted"
    key = standin.make_key()
    standin.enable_key(key, False)
    found = ended(standin, started(standin, Encrypted=True, KmsKeyId=key)["ImportTaskId"])
    assert found["Status"] == "deleted"
    assert "key" in found["StatusMessage"]


def test_import_asked_for_twice(standin: aws.StandIn) -> None:
    uploaded(standin, bytes(BLOCK))
    first = started(standin, ClientToken="import-1")["ImportTaskId"]
    assert started(standin, ClientToken="import-1")["ImportTaskId"] == first
    with refused("IdempotentParameterMismatch"):
        started(standin, ClientToken="import-1", Description="another")


def container(**changes: Any) -> dict[str, Any]:
    return {"DiskContainer": {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "disk"}} | changes}


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("MissingParameter", {"DiskContainer": {}}),
        ("InvalidParameter", container(Format="QCOW2")),
        ("InvalidParameter", container(Url="s3://imports/disk")),
        ("InvalidParameter", {"DiskContainer": {"Format": "RAW"}}),
        ("InvalidParameter", container(UserBucket={"S3Bucket": BUCKET, "S3Key": "none"})),
        ("InvalidParameter", container(UserBucket={"S3Bucket": "none", "S3Key": "disk"})),
        ("InvalidParameter", {"RoleName": "another"}),
        ("InvalidParameterDependency", {"KmsKeyId": "alias/aws/ebs"}),
        ("InvalidParameterValue", {"TagSpecifications": [{"ResourceType": "snapshot", "Tags": []}]}),
    ],
)
def test_import_refused(standin: aws.StandIn, code: str, wrong: dict[str, Any]) -> None:
    uploaded(standin, bytes(BLOCK))
    with refused(code):
        started(standin, **wrong)


def test_import_from_elsewhere(standin: aws.StandIn) -> None:
    uploaded(standin, bytes(BLOCK), region=THERE)
    uploaded(standin, bytes(BLOCK))
    with refused("InvalidParameter", "region"):
        started(standin, **container(UserBucket={"S3Bucket": f"{BUCKET}-{THERE}", "S3Key": "disk"}))
    with refused("InvalidParameter"):
        standin.client("ec2", "stranger").import_snapshot(**container())


def test_import_without_the_role(standin: aws.StandIn) -> None:
    uploaded(standin, bytes(BLOCK))
    standin.settings(vmimport=False)
    with refused("InvalidParameter", "vmimport"):
        started(standin)


def test_tasks(standin: aws.StandIn) -> None:
    uploaded(standin, bytes(BLOCK))
    made = started(standin)["ImportTaskId"]
    ec2, stranger = standin.client("ec2"), standin.client("ec2", "stranger")
    listed = ec2.describe_import_snapshot_tasks()["ImportSnapshotTasks"]
    assert made in {one["ImportTaskId"] for one in listed}
    assert stranger.describe_import_snapshot_tasks()["ImportSnapshotTasks"] == []
    for code, wrong in (
        ("InvalidConversionTaskId.Malformed", "import-1"),
        ("InvalidConversionTaskId", "import-snap-01234567890abcdef"),
    ):
        with refused(code):
            ec2.describe_import_snapshot_tasks(ImportTaskIds=[wrong])
    with refused("InvalidConversionTaskId"):
        stranger.cancel_import_task(ImportTaskId=made)
    with refused("UnauthorizedOperation", "ec2:ImportSnapshot"):
        standin.client("ec2", "reader").import_snapshot(**container())
