# SPDX-License-Identifier: Apache-2.0
"""What the tests of the stand-in do again and again, by unmodified boto3."""

import base64
import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions
import pytest

from tests.sandbox import aws

BLOCK = 512 << 10
_numbers = itertools.count()


@contextlib.contextmanager
def refused(code: str, text: str = "") -> Iterator[None]:
    """The service refuses with this code, and its message has the text."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    assert text in error["Message"]
    assert caught.value.response["ResponseMetadata"]["RequestId"]


def block(byte: int) -> bytes:
    return bytes([byte]) * BLOCK


def checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put(ebs: Any, snapshot: str, index: int, data: bytes, **more: Any) -> Any:
    return ebs.put_snapshot_block(
        **{
            "SnapshotId": snapshot,
            "BlockIndex": index,
            "BlockData": data,
            "DataLength": BLOCK,
            "Checksum": checksum(data),
            "ChecksumAlgorithm": "SHA256",
        }
        | more
    )


def snapshot(standin: aws.StandIn, *indices: int, size: int = 1, account: str = "owner", **more: Any) -> str:
    """A completed snapshot; block n is full of n."""
    ebs = standin.client("ebs", account, region=more.pop("region", "us-east-1"))
    made = str(ebs.start_snapshot(VolumeSize=size, **more)["SnapshotId"])
    for index in indices:
        put(ebs, made, index, block(index % 256))
    ebs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=len(indices))
    return made


def request(snapshot_id: str, **more: Any) -> dict[str, Any]:
    """What RegisterImage takes without complaint."""
    volume = {"SnapshotId": snapshot_id, "VolumeType": "gp3", "DeleteOnTermination": True}
    return {
        "Name": f"image {next(_numbers)}",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": volume}],
    } | more


def image(standin: aws.StandIn, account: str = "owner", region: str = "us-east-1", **more: Any) -> str:
    """A registered image."""
    source = snapshot(standin, account=account, region=region)
    wanted = request(source, **more)
    return str(standin.client("ec2", account, region).register_image(**wanted)["ImageId"])


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
