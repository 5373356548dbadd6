# SPDX-License-Identifier: Apache-2.0
"""The stand-in of AWS, from within: what boto3 would not send, and what takes days."""

import dataclasses
import datetime
import hashlib
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox.aws import access, ebs, errors, images, state, wire
from tests.unit.sandbox.calls import BLOCK, block, checksum


def form(text: str, method: str = "POST", path: str = "/") -> wire.Request:
    return wire.Request(method, path, {}, text.encode())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("MissingAction", "Version=2016-11-15"),
        ("NoSuchVersion", "Action=DescribeImages"),
        ("NoSuchVersion", "Action=DescribeImages&Version=2014-09-01"),
        ("InvalidAction", "Action=DescribeMoons&Version=2016-11-15"),
        ("MalformedQueryString", "Action=DescribeImages&Version=2016-11-15&DryRun=true&DryRun=true"),
        ("MalformedQueryString", "Action=DescribeImages&Version"),
        ("InvalidParameterValue", "Action=DescribeImages&Version=2016-11-15&MaxResults=five"),
        ("InvalidParameterValue", "Action=DescribeImages&Version=2016-11-15&MaxResults=5.0"),
        ("InvalidParameterValue", "Action=DescribeImages&Version=2016-11-15&DryRun=maybe"),
        ("InvalidParameterValue", "Action=DescribeImages&Version=2016-11-15&ImageId=ami-1"),
        ("InvalidParameterValue", "Action=DescribeImages&Version=2016-11-15&ImageId.x=ami-1"),
        ("InvalidParameterValue", "Action=DescribeImages&Version=2016-11-15&Filter.1=x"),
        ("InvalidParameterValue", "Action=DescribeImages&Version=2016-11-15&Filter.1=x&Filter.1.Name=y"),
        ("UnknownParameter", "Action=DescribeImages&Version=2016-11-15&Filter.1.Nmae=x"),
        ("UnknownParameter", "Action=DescribeImages&Version=2016-11-15&NextToken.1=x"),
        ("MissingParameter", "Action=RegisterImage&Version=2016-11-15"),
        ("InvalidParameterValue", "Action=RegisterImage&Version=2016-11-15&Name=abc&BootMode=none"),
    ],
)
def test_forms_refused(code: str, text: str) -> None:
    with pytest.raises(errors.Refused) as caught:
        wire.read("ec2", form(text))
    assert caught.value.code == code


def test_form() -> None:
    text = (
        "Action=DescribeImages&Version=2016-11-15&ImageId.2=b&ImageId.1=a&ImageId.10=c&DryRun=false"
        "&Filter.1.Name=name&Filter.1.Value.1=x&MaxResults=7"
    )
    operation, params = wire.read("ec2", form(text))
    assert operation.name == "DescribeImages"
    assert params == {
        "ImageIds": ["a", "b", "c"],
        "DryRun": False,
        "Filters": [{"Name": "name", "Values": ["x"]}],
        "MaxResults": 7,
    }


@pytest.mark.parametrize(
    ("code", "method", "path", "body"),
    [
        ("UnknownOperationException", "DELETE", "/snapshots", {}),
        ("UnknownOperationException", "POST", "/volumes", {}),
        ("SerializationException", "POST", "/snapshots", {"VolumeSize": "1"}),
        ("SerializationException", "POST", "/snapshots", {"VolumeSize": True}),
        ("SerializationException", "POST", "/snapshots", {"VolumeSize": 1, "Volume": 2}),
        ("SerializationException", "POST", "/snapshots", {"VolumeSize": 1, "Tags": {"Key": "k"}}),
        ("SerializationException", "POST", "/snapshots", [1]),
        ("ValidationException", "POST", "/snapshots", {}),
        ("ValidationException", "PUT", "/snapshots/snap-1/blocks/x", {}),
        ("ValidationException", "GET", "/snapshots/snap-1/blocks?maxResults=99", {}),
    ],
)
def test_json_refused(code: str, method: str, path: str, body: Any) -> None:
    request = wire.Request(method, path, {}, json.dumps(body).encode() if method != "GET" else b"")
    with pytest.raises(errors.Refused) as caught:
        wire.read("ebs", request)
    assert caught.value.code == code


def test_json() -> None:
    operation, params = wire.read("ebs", form('{"VolumeSize": 1, "Encrypted": null}', path="/snapshots"))
    assert (operation.name, params) == ("StartSnapshot", {"VolumeSize": 1})


@pytest.fixture
def call(tmp_path: pathlib.Path) -> state.Call:
    """A call of the owner's, in a world of its own."""
    (tmp_path / "snapshots").mkdir()
    made = state.State(tmp_path)
    access.set_up(made)
    (owner,) = (one.caller for one in made.credentials.values() if one.caller.name == "owner")
    return state.Call(made, "ebs", "", owner, "us-east-1", {}, b"", None)


def with_params(call: state.Call, **params: Any) -> state.Call:
    return dataclasses.replace(call, params=params)


def written(call: state.Call) -> str:
    """A completed snapshot with one block."""
    made = str(ebs.start_snapshot(with_params(call, VolumeSize=1))["SnapshotId"])
    ebs.put_snapshot_block(putting(call, made))
    ebs.complete_snapshot(with_params(call, SnapshotId=made, ChangedBlocksCount=1))
    call.state.snapshots[made].ready_at = 0.0
    return made


def putting(call: state.Call, snapshot_id: str) -> state.Call:
    data = block(1)
    wanted = {
        "SnapshotId": snapshot_id, "BlockIndex": 0, "BlockData": data, "DataLength": BLOCK,
        "Checksum": checksum(data), "ChecksumAlgorithm": "SHA256",
    }  # fmt: skip
    return dataclasses.replace(call, params=wanted, digest=hashlib.sha256(data).digest())


def test_block_that_is_being_written(call: state.Call) -> None:
    made = str(ebs.start_snapshot(with_params(call, VolumeSize=1))["SnapshotId"])
    snapshot = call.state.snapshots[made]
    snapshot.writing.add(0)
    meanwhile: list[Callable[[], Any]] = [
        lambda: ebs.put_snapshot_block(putting(call, made)),
        lambda: ebs.complete_snapshot(with_params(call, SnapshotId=made, ChangedBlocksCount=0)),
    ]
    for again in meanwhile:
        with pytest.raises(errors.Refused) as caught:
            again()
        assert caught.value.more["Reason"] == "CONFLICTING_BLOCK_UPDATE"
    snapshot.writing.clear()
    ebs.put_snapshot_block(putting(call, made))


@pytest.mark.parametrize(("later", "valid"), [({"days": 6}, True), ({"days": 8}, False)])
def test_life_of_a_block_token(
    call: state.Call, monkeypatch: pytest.MonkeyPatch, later: dict[str, int], valid: bool
) -> None:
    made = written(call)
    (only,) = ebs.list_snapshot_blocks(with_params(call, SnapshotId=made))["Blocks"]
    moment = state.now() + datetime.timedelta(**later)
    monkeypatch.setattr(ebs, "now", lambda: moment)
    wanted = with_params(call, SnapshotId=made, **only)
    if valid:
        assert ebs.get_snapshot_block(wanted)["BlockData"] == block(1)
    else:
        with pytest.raises(errors.Refused) as caught:
            ebs.get_snapshot_block(wanted)
        assert caught.value.more["Reason"] == "INVALID_BLOCK_TOKEN"


@pytest.mark.parametrize(("later", "valid"), [({"minutes": 59}, True), ({"minutes": 61}, False)])
def test_life_of_a_page_token(
    call: state.Call, monkeypatch: pytest.MonkeyPatch, later: dict[str, int], valid: bool
) -> None:
    made = written(call)
    call.state.settings.sparse_pages = True
    token = ebs.list_snapshot_blocks(with_params(call, SnapshotId=made))["NextToken"]
    moment = state.now() + datetime.timedelta(**later)
    monkeypatch.setattr(ebs, "now", lambda: moment)
    wanted = with_params(call, SnapshotId=made, NextToken=token)
    if valid:
        assert len(ebs.list_snapshot_blocks(wanted)["Blocks"]) == 1
    else:
        with pytest.raises(errors.Refused) as caught:
            ebs.list_snapshot_blocks(wanted)
        assert caught.value.more["Reason"] == "INVALID_PAGE_TOKEN"


def test_deprecated_is_hidden(call: state.Call) -> None:
    """From others, as long as they do not ask for it; not from its owner."""
    (stranger,) = (one.caller for one in call.state.credentials.values() if one.caller.name == "stranger")
    theirs = dataclasses.replace(call, caller=stranger)
    image = images.add(call, {"Name": "old", "BlockDeviceMappings": []}, 0)
    image.public = True
    image.deprecation = state.now() - datetime.timedelta(minutes=1)

    def found(by: state.Call, **params: Any) -> int:
        return len(images.describe_images(with_params(by, **params))["Images"])

    assert found(call) == 1
    assert found(theirs) == 0
    assert found(theirs, IncludeDeprecated=True) == 1
    assert found(theirs, ImageIds=[image.id]) == 1


def test_snapshot_that_nobody_completes(call: state.Call) -> None:
    made = str(ebs.start_snapshot(with_params(call, VolumeSize=1))["SnapshotId"])
    snapshot = call.state.snapshots[made]
    snapshot.touched = time.time() - 59 * 60
    assert snapshot.status == "pending"
    snapshot.touched = time.time() - 61 * 60
    assert snapshot.status == "error"
