# SPDX-License-Identifier: Apache-2.0
"""The stand-in of AWS: EBS direct, each rule refused and accepted."""

import base64
import hashlib
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest

from tests.sandbox import aws
from tests.unit.sandbox.calls import BLOCK, block, checksum, put, refused, snapshot


@pytest.fixture
def ebs(standin: aws.StandIn) -> Any:
    return standin.client("ebs")


# Start


def test_start(standin: aws.StandIn, ebs: Any) -> None:
    tags = [{"Key": "ciming:target", "Value": "1"}]
    answer = ebs.start_snapshot(VolumeSize=3, Timeout=10, Description="d", Tags=tags)
    assert answer["Status"] == "pending"
    assert answer["BlockSize"] == BLOCK
    assert answer["VolumeSize"] == 3
    assert answer["Tags"] == tags
    (found,) = standin.client("ec2").describe_snapshots(SnapshotIds=[answer["SnapshotId"]])["Snapshots"]
    assert (found["State"], found["Description"], found["Tags"]) == ("pending", "d", tags)


@pytest.mark.parametrize("size", [1, 65536])
def test_size(ebs: Any, size: int) -> None:
    assert ebs.start_snapshot(VolumeSize=size)["VolumeSize"] == size


@pytest.mark.parametrize(
    "wrong",
    [
        {"VolumeSize": 65537},
        {"Timeout": 4321},
        {"ClientToken": "t" * 65},
        {"ClientToken": "ä"},
        {"ClientToken": "with space"},
        {"Description": "d" * 256},
        {"Tags": [{"Key": "aws:mine", "Value": ""}]},
        {"Tags": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]},
        {"Tags": [{"Key": "k" * 128, "Value": "1"}]},
        {"Tags": [{"Key": "k", "Value": "1" * 256}]},
        {"Tags": [{"Key": str(number), "Value": ""} for number in range(51)]},
        {"KmsKeyArn": "not an arn", "Encrypted": True},
        {"ParentSnapshotId": "snap-00000000000000000"},
        {"ParentSnapshotId": "snap-00000000000000000", "Encrypted": True},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_start_refused(standin: aws.StandIn, ebs: Any, wrong: dict[str, Any]) -> None:
    before = len(standin.snapshots())
    with refused("ValidationException"):
        ebs.start_snapshot(**({"VolumeSize": 1} | wrong))
    assert len(standin.snapshots()) == before


@pytest.mark.parametrize("wrong", [{"VolumeSize": 0}, {"VolumeSize": -1}, {"Timeout": 9}, {}])
def test_start_refused_that_botocore_would_not_send(standin: aws.StandIn, wrong: dict[str, int]) -> None:
    with refused("ValidationException"):
        standin.client("ebs", checks=False).start_snapshot(**wrong)


def test_client_token(standin: aws.StandIn, ebs: Any) -> None:
    first = ebs.start_snapshot(VolumeSize=2, ClientToken="token-1")
    assert ebs.start_snapshot(VolumeSize=2, ClientToken="token-1")["SnapshotId"] == first["SnapshotId"]
    with refused("ConflictException"):
        ebs.start_snapshot(VolumeSize=3, ClientToken="token-1")
    elsewhere = standin.client("ebs", region="eu-central-1")
    assert elsewhere.start_snapshot(VolumeSize=3, ClientToken="token-1")["SnapshotId"] != first["SnapshotId"]
    others = standin.client("ebs", "stranger").start_snapshot(VolumeSize=3, ClientToken="token-1")
    assert others["SnapshotId"] != first["SnapshotId"]
    # Done and deleted: the answer is still the first one.
    standin.client("ec2").delete_snapshot(SnapshotId=first["SnapshotId"])
    assert ebs.start_snapshot(VolumeSize=2, ClientToken="token-1")["SnapshotId"] == first["SnapshotId"]
    with refused("ResourceNotFoundException"):
        put(ebs, first["SnapshotId"], 0, block(1))


def test_client_token_at_the_same_time(ebs: Any) -> None:
    with futures.ThreadPoolExecutor(8) as pool:
        same = pool.map(
            lambda _: ebs.start_snapshot(VolumeSize=1, ClientToken="token-2")["SnapshotId"], range(16)
        )
    assert len(set(same)) == 1


def test_no_more_than_100_pending(standin: aws.StandIn) -> None:
    ebs = standin.client("ebs", "stranger", "us-west-2")
    made = [ebs.start_snapshot(VolumeSize=1)["SnapshotId"] for _ in range(100)]
    with refused("ServiceQuotaExceededException"):
        ebs.start_snapshot(VolumeSize=1)
    ec2 = standin.client("ec2", "stranger", "us-west-2")
    for one in made:
        ec2.delete_snapshot(SnapshotId=one)
    ebs.start_snapshot(VolumeSize=1)


def test_not_known_yet(standin: aws.StandIn, ebs: Any) -> None:
    """What was begun, and what EC2 calls completed."""
    standin.settings(ebs_seconds=1.0, completion_seconds=1.0)
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    with refused("ResourceNotFoundException"):
        put(ebs, made, 0, block(1))
    with refused("ResourceNotFoundException"):
        ebs.list_snapshot_blocks(SnapshotId=made)
    time.sleep(1.0)
    put(ebs, made, 0, block(1))
    ebs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=1)
    with refused("ValidationException"):
        ebs.list_snapshot_blocks(SnapshotId=made)
    standin.client("ec2").get_waiter("snapshot_completed").wait(
        SnapshotIds=[made], WaiterConfig={"Delay": 1}
    )
    time.sleep(1.0)
    assert ebs.list_snapshot_blocks(SnapshotId=made)["Blocks"]
    standin.reset()


# Put


def test_put(standin: aws.StandIn, ebs: Any) -> None:
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    before = standin.counters()
    answer = put(ebs, made, 5, block(1))
    assert answer["Checksum"] == checksum(block(1))
    put(ebs, made, 2047, block(2), Progress=100)
    put(ebs, made, 5, block(3))  # again: the newer one counts
    assert standin.block_digests(made) == {
        5: hashlib.sha256(block(3)).hexdigest(), 2047: hashlib.sha256(block(2)).hexdigest(),
    }  # fmt: skip
    assert standin.read_snapshot(made, 5 * BLOCK, BLOCK) == block(3)
    assert standin.read_snapshot(made, 2047 * BLOCK) == block(2)  # there it ends
    assert standin.read_snapshot(made, 0, BLOCK) == block(0)
    after = standin.counters()
    assert after["puts"] - before["puts"] == 3
    assert after["bytes"] - before["bytes"] == 3 * BLOCK
    assert ebs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"Checksum": checksum(block(2))},
        {"ChecksumAlgorithm": "SHA1"},
        {"BlockIndex": 2048},
        {"BlockData": block(1)[:-1], "Checksum": checksum(block(1)[:-1])},
        {"BlockData": block(1) + b"1", "Checksum": checksum(block(1) + b"1")},
        {"DataLength": BLOCK - 1, "BlockData": block(1)[:-1], "Checksum": checksum(block(1)[:-1])},
        {"DataLength": 512},
        {"Progress": 101},
        {"SnapshotId": "vol-1"},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_put_refused(standin: aws.StandIn, ebs: Any, wrong: dict[str, Any]) -> None:
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    with refused("ValidationException"):
        put(ebs, made, 0, block(1), **wrong)
    assert standin.block_digests(made) == {}


def test_put_into_what_is_not_there(standin: aws.StandIn, ebs: Any) -> None:
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    for client in (standin.client("ebs", "stranger"), standin.client("ebs", region="eu-central-1")):
        with refused("ResourceNotFoundException"):
            put(client, made, 0, block(1))
    with refused("ResourceNotFoundException"):
        put(ebs, "snap-01234567890abcdef", 0, block(1))


def test_blocks_in_a_second(standin: aws.StandIn, ebs: Any) -> None:
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    standin.settings(puts_per_second=1)
    with refused("RequestThrottledException"):
        for index in range(200):
            put(ebs, made, index, block(1))
    standin.settings(puts_per_second=0)
    put(ebs, made, 0, block(1))


def test_put_after_the_end(standin: aws.StandIn, ebs: Any) -> None:
    made = snapshot(standin, 1)
    with refused("ValidationException", "pending"):
        put(ebs, made, 2, block(1))


# Complete


def test_complete(standin: aws.StandIn, ebs: Any) -> None:
    standin.settings(completion_seconds=0.4)
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    for index in (9, 3):
        put(ebs, made, index, block(index))
    digests = b"".join(hashlib.sha256(block(index)).digest() for index in (3, 9))
    answer = ebs.complete_snapshot(
        SnapshotId=made,
        ChangedBlocksCount=2,
        Checksum=base64.b64encode(hashlib.sha256(digests).digest()).decode(),
        ChecksumAlgorithm="SHA256",
        ChecksumAggregationMethod="LINEAR",
    )
    assert answer["Status"] == "pending"
    actions: tuple[Callable[[], Any], ...] = (
        lambda: ebs.list_snapshot_blocks(SnapshotId=made),
        lambda: put(ebs, made, 4, block(4)),
        lambda: ebs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=2),
    )
    for action in actions:
        with refused("ValidationException"):
            action()
    waiter = standin.client("ec2").get_waiter("snapshot_completed")
    waiter.wait(SnapshotIds=[made], WaiterConfig={"Delay": 0.1, "MaxAttempts": 20})
    assert [one["BlockIndex"] for one in ebs.list_snapshot_blocks(SnapshotId=made)["Blocks"]] == [3, 9]


LINEAR = {"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"ChangedBlocksCount": 1},
        {"ChangedBlocksCount": 3},
        {"Checksum": checksum(b"")} | LINEAR,
        {"Checksum": checksum(hashlib.sha256(block(9)).digest() + hashlib.sha256(block(3)).digest())}
        | LINEAR,
        {"Checksum": checksum(hashlib.sha256(block(3)).digest() + hashlib.sha256(block(9)).digest())},
        {"ChecksumAlgorithm": "SHA256"},
    ],
    ids=["too few", "too many", "of nothing", "in another order", "without algorithm", "without checksum"],
)
def test_complete_refused(ebs: Any, wrong: dict[str, Any]) -> None:
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    for index in (9, 3):
        put(ebs, made, index, block(index))
    with refused("ValidationException"):
        ebs.complete_snapshot(**({"SnapshotId": made, "ChangedBlocksCount": 2} | wrong))
    put(ebs, made, 3, block(3))  # it is still pending
    ebs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=2)


def test_empty_snapshot(standin: aws.StandIn, ebs: Any) -> None:
    assert ebs.list_snapshot_blocks(SnapshotId=snapshot(standin))["Blocks"] == []


def test_timeout(standin: aws.StandIn, ebs: Any) -> None:
    standin.settings(minute_seconds=0.05)
    made = ebs.start_snapshot(VolumeSize=1, Timeout=10)["SnapshotId"]
    time.sleep(0.3)
    put(ebs, made, 0, block(1))
    time.sleep(0.3)
    put(ebs, made, 1, block(1))  # counted from the last block
    time.sleep(0.6)
    with refused("ValidationException"):
        put(ebs, made, 2, block(1))
    with refused("ValidationException"):
        ebs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=2)
    (found,) = standin.client("ec2").describe_snapshots(SnapshotIds=[made])["Snapshots"]
    assert found["State"] == "error"


# Read


def test_pages(standin: aws.StandIn, ebs: Any) -> None:
    indices = [*range(0, 500, 4), 2047]
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: put(ebs, made, index, block(7)), reversed(indices)))
    ebs.complete_snapshot(SnapshotId=made, ChangedBlocksCount=len(indices))
    first = ebs.list_snapshot_blocks(SnapshotId=made, MaxResults=100)
    assert [one["BlockIndex"] for one in first["Blocks"]] == indices[:100]
    assert (first["VolumeSize"], first["BlockSize"]) == (1, BLOCK)
    # With a token the start is not looked at.
    second = ebs.list_snapshot_blocks(SnapshotId=made, NextToken=first["NextToken"], StartingBlockIndex=3)
    assert [one["BlockIndex"] for one in second["Blocks"]] == indices[100:]
    assert "NextToken" not in second
    tail = ebs.list_snapshot_blocks(SnapshotId=made, StartingBlockIndex=497)
    assert [one["BlockIndex"] for one in tail["Blocks"]] == [2047]
    standin.settings(sparse_pages=True)
    token: dict[str, str] = {}
    found, empty = [], 0
    while True:
        page = ebs.list_snapshot_blocks(SnapshotId=made, MaxResults=100, **token)
        found += [one["BlockIndex"] for one in page["Blocks"]]
        empty += not page["Blocks"]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert found == indices
    assert empty


def test_pages_refused(standin: aws.StandIn, ebs: Any) -> None:
    made, other = snapshot(standin, 1), snapshot(standin, 1)
    standin.settings(sparse_pages=True)
    token = ebs.list_snapshot_blocks(SnapshotId=other)["NextToken"]
    wrongs: list[dict[str, Any]] = [
        {"MaxResults": 10001}, {"NextToken": "not base 64!"}, {"NextToken": "AAAA"}, {"NextToken": token},
    ]  # fmt: skip
    for wrong in wrongs:
        with refused("ValidationException"):
            ebs.list_snapshot_blocks(**({"SnapshotId": made} | wrong))


def test_get(standin: aws.StandIn, ebs: Any) -> None:
    made = snapshot(standin, 3, 9)
    first, second = ebs.list_snapshot_blocks(SnapshotId=made)["Blocks"]
    answer = ebs.get_snapshot_block(SnapshotId=made, **second)
    assert answer["BlockData"].read() == block(9)
    assert answer["DataLength"] == BLOCK
    assert answer["Checksum"] == checksum(block(9))
    assert answer["ChecksumAlgorithm"] == "SHA256"
    other = snapshot(standin, 3)
    for wrong in (
        {"SnapshotId": made, "BlockIndex": 3, "BlockToken": second["BlockToken"]},
        {"SnapshotId": made, "BlockIndex": 3, "BlockToken": first["BlockToken"][:-4] + "AAAA"},
        {"SnapshotId": made, "BlockIndex": 3, "BlockToken": "nonsense"},
        {"SnapshotId": other, "BlockIndex": 3, "BlockToken": first["BlockToken"]},
    ):
        with refused("ValidationException"):
            ebs.get_snapshot_block(**wrong)


def test_pending_is_not_read(ebs: Any) -> None:
    made = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    put(ebs, made, 0, block(1))
    with refused("ValidationException", "completed"):
        ebs.list_snapshot_blocks(SnapshotId=made)


def test_who_reads(standin: aws.StandIn, ebs: Any) -> None:
    made = snapshot(standin, 1)
    stranger = standin.client("ebs", "stranger")
    with refused("ResourceNotFoundException"):
        stranger.list_snapshot_blocks(SnapshotId=made)
    share = {"SnapshotId": made, "Attribute": "createVolumePermission", "OperationType": "add"}
    ec2 = standin.client("ec2")
    ec2.modify_snapshot_attribute(**share, UserIds=[standin.accounts["stranger"]["account_id"]])
    assert stranger.list_snapshot_blocks(SnapshotId=made)["Blocks"]
    ec2.modify_snapshot_attribute(**share, GroupNames=["all"])
    with refused("ValidationException", "Public"):
        ebs.list_snapshot_blocks(SnapshotId=made)


# Keys


def test_encryption(standin: aws.StandIn, ebs: Any) -> None:
    key = standin.make_key()
    answer = ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=key)
    assert answer["KmsKeyArn"] == key
    made = answer["SnapshotId"]
    put(ebs, made, 0, block(1))
    assert ":key/" in ebs.start_snapshot(VolumeSize=1, Encrypted=True)["KmsKeyArn"]
    assert "KmsKeyArn" not in ebs.start_snapshot(VolumeSize=1, Encrypted=False)
    for wrong in ({"KmsKeyArn": key}, {"KmsKeyArn": key, "Encrypted": False}):
        with refused("ValidationException"):
            ebs.start_snapshot(VolumeSize=1, **wrong)
    with refused("ResourceNotFoundException"):
        ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=standin.make_key("stranger"))
    standin.client("kms").disable_key(KeyId=key)
    assert standin.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    with refused("ValidationException"):
        put(ebs, made, 1, block(1))
    with refused("ValidationException"):
        ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=key)
    standin.enable_key(key)
    put(ebs, made, 1, block(1))
    standin.settings(encryption_by_default=True)
    assert ":key/" in ebs.start_snapshot(VolumeSize=1)["KmsKeyArn"]
    with refused("ValidationException"):
        ebs.start_snapshot(VolumeSize=1, Encrypted=False)
    assert standin.client("ec2").get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
