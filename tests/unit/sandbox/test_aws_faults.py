# SPDX-License-Identifier: Apache-2.0
"""The stand-in of AWS: what goes wrong on demand, what is counted, and how it starts and ends."""

import os
import pathlib
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest

from tests.sandbox import aws, processes
from tests.sandbox.aws import starter
from tests.unit.sandbox.calls import block, eventually, image, put, refused, request, snapshot

ACTIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "StartSnapshot": ("ebs", lambda ebs: ebs.start_snapshot(VolumeSize=1)),
    "DescribeImages": ("ec2", lambda ec2: ec2.describe_images(Owners=["self"])),
    "GetCallerIdentity": ("sts", lambda sts: sts.get_caller_identity()),
}


@pytest.mark.parametrize(
    ("kind", "action", "code", "status"),
    [
        ("throttle", "StartSnapshot", "RequestThrottledException", 400),
        ("throttling", "StartSnapshot", "ThrottlingException", 400),
        ("throttle", "DescribeImages", "RequestLimitExceeded", 503),
        ("throttle", "GetCallerIdentity", "Throttling", 400),
        ("500", "StartSnapshot", "InternalServerException", 500),
        ("500", "DescribeImages", "InternalError", 500),
        ("500", "GetCallerIdentity", "InternalFailure", 500),
        ("503", "StartSnapshot", "ServiceUnavailableException", 503),
        ("503", "DescribeImages", "Unavailable", 503),
        ("auth", "StartSnapshot", "UnrecognizedClientException", 403),
        ("auth", "DescribeImages", "AuthFailure", 401),
        ("denied", "DescribeImages", "UnauthorizedOperation", 403),
        ("concurrent", "StartSnapshot", "ConcurrentLimitExceededException", 400),
        ("quota", "StartSnapshot", "ServiceQuotaExceededException", 402),
    ],
)
def test_answers(standin: aws.StandIn, kind: str, action: str, code: str, status: int) -> None:
    service, call = ACTIONS[action]
    client = standin.client(service)
    standin.fault(kind, action, times=2)
    before = len(standin.snapshots())
    for _ in range(2):
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            call(client)
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        assert caught.value.response["ResponseMetadata"]["RequestId"]
    assert len(standin.snapshots()) == before
    call(client)


@pytest.mark.parametrize(
    ("action", "code"), [("RegisterImage", "AMIQuotaExceeded"), ("DeleteSnapshot", "ResourceLimitExceeded")]
)
def test_quotas(standin: aws.StandIn, action: str, code: str) -> None:
    source = snapshot(standin)
    ec2 = standin.client("ec2")
    standin.fault("quota", action)
    with refused(code):
        if action == "RegisterImage":
            ec2.register_image(**request(source))
        else:
            ec2.delete_snapshot(SnapshotId=source)


def test_which_calls(standin: aws.StandIn) -> None:
    east, west = (standin.client("ebs", region=region) for region in ("us-east-1", "us-west-2"))
    standin.fault("500", "StartSnapshot", service="ebs", region="us-west-2", after=1)
    east.start_snapshot(VolumeSize=1)
    west.start_snapshot(VolumeSize=1)
    standin.client("sts").get_caller_identity()
    with refused("InternalServerException"):
        west.start_snapshot(VolumeSize=1)
    west.start_snapshot(VolumeSize=1)
    standin.fault("500")
    standin.clear_faults()
    west.start_snapshot(VolumeSize=1)


def test_kind_that_is_none(standin: aws.StandIn) -> None:
    with pytest.raises(RuntimeError):
        standin.fault("plague")


def test_reset_and_lost_answer(standin: aws.StandIn) -> None:
    ebs = standin.client("ebs")
    before = len(standin.snapshots())
    standin.fault("reset", "StartSnapshot")
    with pytest.raises(botocore.exceptions.HTTPClientError):
        ebs.start_snapshot(VolumeSize=1, ClientToken="lost-1")
    assert len(standin.snapshots()) == before
    standin.fault("lost", "StartSnapshot")
    with pytest.raises(botocore.exceptions.HTTPClientError):
        ebs.start_snapshot(VolumeSize=1, ClientToken="lost-1")
    assert len(standin.snapshots()) == before + 1
    made = ebs.start_snapshot(VolumeSize=1, ClientToken="lost-1")["SnapshotId"]
    assert len(standin.snapshots()) == before + 1
    standin.fault("lost", "PutSnapshotBlock")
    with pytest.raises(botocore.exceptions.HTTPClientError):
        put(ebs, made, 0, block(1))
    assert list(standin.block_digests(made)) == [0]


def test_slow(standin: aws.StandIn) -> None:
    sts = standin.client("sts")
    standin.fault("slow", "GetCallerIdentity", seconds=0.5)
    began = time.monotonic()
    sts.get_caller_identity()
    assert time.monotonic() - began >= 0.5


def test_corrupt_blocks(standin: aws.StandIn) -> None:
    ebs = standin.client("ebs")
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    standin.fault("corrupt", "PutSnapshotBlock")
    put(ebs, made, 0, block(1))
    put(ebs, made, 1, block(1))
    ebs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=2)
    first, second = ebs.list_snapshot_blocks(SnapshotId=made)["Blocks"]
    assert ebs.get_snapshot_block(SnapshotId=made, **first)["BlockData"].read() != block(1)
    assert ebs.get_snapshot_block(SnapshotId=made, **second)["BlockData"].read() == block(1)
    standin.fault("corrupt", "GetSnapshotBlock")
    assert ebs.get_snapshot_block(SnapshotId=made, **second)["BlockData"].read() != block(1)
    assert ebs.get_snapshot_block(SnapshotId=made, **second)["BlockData"].read() == block(1)


def test_failing_afterwards(standin: aws.StandIn) -> None:
    ebs, ec2 = standin.client("ebs"), standin.client("ec2")
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    standin.fault("fail", "CompleteSnapshot")
    ebs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=0)
    with pytest.raises(botocore.exceptions.WaiterError):
        ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[made], WaiterConfig={"Delay": 0.05})
    (found,) = ec2.describe_snapshots(SnapshotIds=[made])["Snapshots"]
    assert found["State"] == "error"
    assert found["StateMessage"]
    standin.fault("fail", "RegisterImage")
    bad = image(standin)
    (seen,) = ec2.describe_images(ImageIds=[bad])["Images"]
    assert seen["State"] == "failed"
    assert seen["StateReason"]["Message"]
    ec2.deregister_image(ImageId=bad)


def test_counters(standin: aws.StandIn) -> None:
    before = standin.counters()["calls"].get("sts:GetCallerIdentity", 0)
    standin.fault("500", "GetCallerIdentity")
    sts = standin.client("sts")
    with refused("InternalFailure"):
        sts.get_caller_identity()
    sts.get_caller_identity()
    assert standin.counters()["calls"]["sts:GetCallerIdentity"] == before + 2


def test_setting_that_is_none(standin: aws.StandIn) -> None:
    with pytest.raises(RuntimeError):
        standin.settings(moon=1)


# Start and end


def refuses(url: str) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((processes.HOST, int(url.rpartition(":")[2]))) != 0


def test_start_and_stop(tmp_path: pathlib.Path) -> None:
    with aws.start(tmp_path / "one") as one:
        assert stat.S_IMODE((one.directory / "keys.json").stat().st_mode) == 0o600
        one.settings(completion_seconds=0)
        image(one)
        one.client("s3").create_bucket(Bucket="forgotten")
        (before,) = one.snapshots()
        one.clear()
        assert (one.images(), one.snapshots()) == ([], [])
        assert one.client("s3").list_buckets()["Buckets"] == []
        assert not pathlib.Path(before["file"]).exists()
        snapshot(one, 1)
        (only,) = one.snapshots()
        assert pathlib.Path(only["file"]).exists()
    assert refuses(one.url)
    with aws.start(one.directory) as again:
        assert again.snapshots() == []
        assert not pathlib.Path(only["file"]).exists()
        assert again.accounts["owner"]["secret_key"] != one.accounts["owner"]["secret_key"]


PARENT = """
import pathlib, sys
from tests.sandbox import aws
print(aws.start(pathlib.Path(sys.argv[1]), stays=sys.argv[2] == "stays").url, flush=True)
"""


@pytest.mark.parametrize("stays", [False, True])
def test_end_of_who_started_it(tmp_path: pathlib.Path, stays: bool) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PARENT, str(tmp_path), "stays" if stays else "goes"],
        cwd=starter.ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    url = ended.stdout.strip()
    if stays:
        assert not refuses(url)
        assert aws.stop(tmp_path)
    assert processes.gone(tmp_path / "pid", 10)
    eventually(lambda: refuses(url))  # its last thread may end a moment later
    assert not aws.stop(tmp_path)


def test_in_the_foreground(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "tests.sandbox.aws", "--dir", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, cwd=starter.ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        url, keys = running.stdout.readline().strip(), running.stdout.readline().strip()
        assert pathlib.Path(keys) == tmp_path / "keys.json"
        assert aws.StandIn(tmp_path).url == url
        assert aws.StandIn(tmp_path).client("sts").get_caller_identity()["Account"]
        running.terminate()
