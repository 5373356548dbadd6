# SPDX-License-Identifier: Apache-2.0
"""EBS direct APIs: a snapshot is started, written block by block, completed, listed and read.

- Sizes are whole GiB, 1 to 65536; a Timeout is 10 to 4320 minutes, an hour if nothing is said, and counts
  from the last block: https://docs.aws.amazon.com/ebs/latest/APIReference/API_StartSnapshot.html
- A client token has at most 64 ASCII characters; the same request with it returns the first answer, another
  one is a ConflictException: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-direct-api-idempotency.html
- At most 100 snapshots of an account are pending, and so many blocks are put a second as the settings allow,
  then it is a RequestThrottledException: https://docs.aws.amazon.com/general/latest/gr/ebs-service.html
- Encryption: https://docs.aws.amazon.com/ebs/latest/userguide/ebsapis-using-encryption.html
- A block is 524288 bytes, has a SHA-256 checksum, may be written again, but only while its snapshot is
  pending: https://docs.aws.amazon.com/ebs/latest/APIReference/API_PutSnapshotBlock.html
- The number of blocks must be right, and the checksum over the blocks' checksums too, if it is given; what
  happens then takes time: https://docs.aws.amazon.com/ebs/latest/APIReference/API_CompleteSnapshot.html
- Blocks are listed in order, 100 to 10000 a page, or fewer, or none but a token:
  https://docs.aws.amazon.com/ebs/latest/APIReference/API_ListSnapshotBlocks.html
- The direct APIs may not know yet a snapshot that they began a moment ago, nor, to be read, one that EC2
  calls completed; AWS's own client tries again for two minutes:
  https://github.com/awslabs/coldsnap/blob/develop/src/upload.rs
- Only completed snapshots are read, and no public ones; a block's token lives 7 days, a page's an hour:
  https://docs.aws.amazon.com/ebs/latest/userguide/ebsapi-faq.html

Stricter than the documents: there are no parents, hence no ListChangedBlocks.
"""

import base64
import contextlib
import datetime
import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from tests.sandbox.aws import errors, keys, tags
from tests.sandbox.aws.state import BLOCK, GIB, Action, Call, Snapshot, State, new_id, now

LARGEST = 65536
FILE_SIZE = 8192
"""GiB that can be stored of a snapshot: no file system here has files of 64 TiB."""
LONGEST_TAG = 255
"""Characters of a value: https://docs.aws.amazon.com/ebs/latest/APIReference/API_Tag.html"""
PENDING = 100
DEFAULT_TIMEOUT = 60
BLOCK_TOKEN_LIFE = datetime.timedelta(days=7)
PAGE = 10000


def _invalid(message: str, reason: str = "INVALID_PARAMETER_VALUE") -> errors.Refused:
    return errors.refusal("ebs", "invalid", message, Reason=reason)


# Writing


def start_snapshot(call: Call) -> dict[str, Any]:
    """Start a snapshot, or return what the same request with the same token did before."""
    wanted = call.params
    if not 1 <= wanted["VolumeSize"] <= LARGEST:
        raise _invalid(f"VolumeSize must be 1 to {LARGEST} GiB", "INVALID_VOLUME_SIZE")
    token = wanted.get("ClientToken")
    if token is not None and not (token.isascii() and len(token) <= 64):
        raise _invalid("ClientToken must have at most 64 ASCII characters")
    if "ParentSnapshotId" in wanted:
        raise _invalid("snapshots with a parent are not done here")
    try:
        labels = tags.checked(wanted.get("Tags", []))
    except errors.Refused as refused:
        raise _invalid(refused.message, "INVALID_TAG") from None
    if any(len(value) > LONGEST_TAG for value in labels.values()):
        raise _invalid(f"Tag values must have at most {LONGEST_TAG} characters", "INVALID_TAG")
    place = ("StartSnapshot", call.caller.account, call.region, str(token))
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    if token is not None and place in call.state.client_tokens:
        before, answer = call.state.client_tokens[place]
        if before != digest:
            message = "The request uses the same client token as a previous, but non-identical request."
            raise errors.Refused("ConflictException", message, 409)
        return dict(answer)
    key = _key(call)
    _count_pending(call)
    snapshot = Snapshot(
        id=new_id("snap"),
        owner=call.caller.account,
        region=call.region,
        size=wanted["VolumeSize"],
        description=wanted.get("Description", ""),
        file=call.state.directory,
        timeout=wanted.get("Timeout", DEFAULT_TIMEOUT) * call.state.settings.minute_seconds,
        key=key,
        tags={call.caller.account: labels},
    )
    create_file(call.state, snapshot)
    call.state.snapshots[snapshot.id] = snapshot
    answer = {
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.owner,
        "Status": "pending",
        "StartTime": snapshot.started,
        "VolumeSize": snapshot.size,
        "BlockSize": BLOCK,
        "Description": wanted.get("Description"),
        "Tags": wanted.get("Tags"),
        "KmsKeyArn": key,
    }
    if token is not None:
        call.state.client_tokens[place] = digest, answer
    return answer


def create_file(state: State, snapshot: Snapshot) -> None:
    """Make the sparse file that holds the snapshot's blocks."""
    snapshot.file = state.directory / "snapshots" / snapshot.id
    with snapshot.file.open("xb") as file:
        file.truncate(min(snapshot.size, FILE_SIZE) * GIB)


def _count_pending(call: Call) -> None:
    pending = [
        one.id
        for one in call.state.snapshots.values()
        if one.owner == call.caller.account and one.region == call.region and one.status == "pending"
    ]
    if len(pending) >= PENDING:
        message = f"You have reached the limit of {PENDING} pending snapshots"
        reason = "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"
        raise errors.Refused("ServiceQuotaExceededException", message, 402, Reason=reason)


def _key(call: Call) -> str | None:
    """Return the ARN of the key that the snapshot shall have."""
    encrypted, name = call.params.get("Encrypted"), call.params.get("KmsKeyArn")
    by_default = call.state.settings.encryption_by_default
    if encrypted is False and (by_default or name):
        raise _invalid("the snapshot must be encrypted")
    if encrypted is None and name and not by_default:
        raise _invalid("KmsKeyArn needs Encrypted")
    if not encrypted and not by_default:
        return None
    key = keys.find(call.state, call.caller, call.region, name or keys.DEFAULT)
    if key is None:
        message = f"The KMS key {name} does not exist"
        raise errors.Refused(
            "ResourceNotFoundException", message, 404, Reason="DEPENDENCY_RESOURCE_NOT_FOUND"
        )
    if not key.enabled:
        raise _invalid(f"The KMS key {key.arn} is not enabled", "INVALID_CUSTOMER_KEY")
    return key.arn


def _mine(call: Call) -> Snapshot:
    """Return the snapshot if it is the caller's own."""
    snapshot = call.state.snapshots.get(call.params["SnapshotId"])
    if snapshot is None or snapshot.region != call.region or snapshot.owner != call.caller.account:
        raise _absent(call.params["SnapshotId"])
    _demand_known(call, snapshot.started.timestamp())
    return snapshot


def _demand_known(call: Call, since: float) -> None:
    if time.time() < since + call.state.settings.ebs_seconds:
        raise _absent(call.params["SnapshotId"])


def _absent(snapshot_id: str) -> errors.Refused:
    message = f"The snapshot '{snapshot_id}' does not exist."
    return errors.Refused("ResourceNotFoundException", message, 404, Reason="SNAPSHOT_NOT_FOUND")


def _writable(call: Call) -> Snapshot:
    snapshot = _mine(call)
    if snapshot.sealed or snapshot.status != "pending":
        raise _invalid(f"The snapshot '{snapshot.id}' is not in the pending state", "INVALID_SNAPSHOT_ID")
    _demand_key(call, snapshot)
    return snapshot


def _demand_key(call: Call, snapshot: Snapshot) -> None:
    if not keys.usable(call.state, snapshot.key):
        raise _invalid(f"The KMS key {snapshot.key} is not enabled", "INVALID_CUSTOMER_KEY")


def put_snapshot_block(call: Call) -> dict[str, Any]:
    """Store one block; called without the lock."""
    wanted, state = call.params, call.state
    index, data = wanted["BlockIndex"], wanted["BlockData"]
    if wanted["DataLength"] != BLOCK:
        raise _invalid(f"DataLength must be {BLOCK}")
    if len(data) != BLOCK:
        raise _invalid("Failed to read block data")
    checksum = base64.b64encode(call.digest).decode()
    if wanted["Checksum"] != checksum:
        raise _invalid("The checksum does not match the block's data")
    with state.lock:
        snapshot = _writable(call)
        _count_second(state)
        if index >= snapshot.size * GIB // BLOCK:
            raise _invalid(f"Block {index} is beyond the volume's end", "INVALID_BLOCK")
        if index in snapshot.writing:
            raise _invalid(f"Block {index} is being written", "CONFLICTING_BLOCK_UPDATE")
        snapshot.writing.add(index)
    if call.fault and call.fault.kind == "corrupt":
        data = _flipped(data)
    try:
        with _opened(snapshot, os.O_WRONLY) as file:
            os.pwrite(file, data, index * BLOCK)
        with state.lock:
            snapshot.digests[index] = call.digest
            snapshot.touched = time.time()
            state.counters["puts"] += 1
            state.counters["bytes"] += BLOCK
    finally:
        with state.lock:
            snapshot.writing.discard(index)
    return {"Checksum": checksum, "ChecksumAlgorithm": "SHA256"}


def _count_second(state: State) -> None:
    """Throttle those who put more blocks in a second than the settings allow."""
    second = int(time.monotonic())
    state.second = (second, state.second[1] + 1 if state.second[0] == second else 1)
    if 0 < state.settings.puts_per_second < state.second[1]:
        raise errors.refusal("ebs", "throttled", "Rate exceeded", Reason="ACCOUNT_THROTTLED")


@contextlib.contextmanager
def _opened(snapshot: Snapshot, flags: int) -> Iterator[int]:
    try:
        file = os.open(snapshot.file, flags)
    except FileNotFoundError:
        raise _absent(snapshot.id) from None
    try:
        yield file
    finally:
        os.close(file)


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def linear(digests: dict[int, bytes]) -> str:
    """Return the checksum over all blocks, as CompleteSnapshot has it."""
    whole = hashlib.sha256(b"".join(digests[index] for index in sorted(digests)))
    return base64.b64encode(whole.digest()).decode()


def complete_snapshot(call: Call) -> dict[str, Any]:
    """Seal a snapshot: it is completed, or in error, a while later."""
    wanted, snapshot = call.params, _writable(call)
    if wanted["ChangedBlocksCount"] != len(snapshot.digests):
        raise _invalid(
            f"ChangedBlocksCount is {wanted['ChangedBlocksCount']}, but not all blocks were written"
        )
    if snapshot.writing:
        raise _invalid("A block is being written", "CONFLICTING_BLOCK_UPDATE")
    given = [name in wanted for name in ("Checksum", "ChecksumAlgorithm", "ChecksumAggregationMethod")]
    if any(given) and not all(given):
        raise _invalid("Checksum, ChecksumAlgorithm and ChecksumAggregationMethod go together")
    if call.state.settings.checksum_needed and not all(given):
        raise _invalid("There is no Checksum")
    if "Checksum" in wanted and wanted["Checksum"] != linear(snapshot.digests):
        raise _invalid("The checksum does not match the snapshot's blocks")
    snapshot.sealed = True
    snapshot.ready_at = time.time() + call.state.settings.completion_seconds
    snapshot.failure = call.failure
    return {"Status": snapshot.status}


# Reading


def _readable(call: Call) -> Snapshot:
    snapshot = call.state.snapshots.get(call.params["SnapshotId"])
    if snapshot is None or snapshot.region != call.region or not snapshot.may_use(call.caller.account):
        raise _absent(call.params["SnapshotId"])
    _demand_known(call, snapshot.ready_at if snapshot.status == "completed" else snapshot.started.timestamp())
    if snapshot.public:
        raise _invalid("Public snapshots are not supported", "INVALID_SNAPSHOT_ID")
    if snapshot.status != "completed":
        raise _invalid(f"The snapshot '{snapshot.id}' is not in the completed state", "INVALID_SNAPSHOT_ID")
    _demand_key(call, snapshot)
    return snapshot


def _token(state: State, life: datetime.timedelta, *words: object) -> str:
    ends = int((now() + life).timestamp())
    text = f"{ends}:{':'.join(map(str, words))}"
    return base64.b64encode(f"{state.seal(text)}:{text}".encode()).decode()


def _opened_token(state: State, token: str) -> list[str] | None:
    """Return the words of a token of ours that is still valid."""
    try:
        seal, _, text = base64.b64decode(token, validate=True).decode().partition(":")
    except ValueError:
        return None
    ends, *words = text.split(":")
    return words if seal == state.seal(text) and now().timestamp() < int(ends) else None


def list_snapshot_blocks(call: Call) -> dict[str, Any]:
    """Return a page of the blocks that were written."""
    wanted, snapshot, state = call.params, _readable(call), call.state
    first, page = wanted.get("StartingBlockIndex", 0), 0
    if "NextToken" in wanted:
        words = _opened_token(state, wanted["NextToken"])
        if words is None or words[0] != snapshot.id:
            raise _invalid("The page token is not valid", "INVALID_PAGE_TOKEN")
        first, page = int(words[1]), int(words[2])
    size = 0 if state.settings.sparse_pages and page % 2 == 0 else wanted.get("MaxResults", PAGE)
    size = min(size, state.settings.page_blocks)
    life = datetime.timedelta(seconds=state.settings.page_token_seconds)
    left = sorted(index for index in snapshot.digests if index >= first)
    expires = now() + BLOCK_TOKEN_LIFE
    answer = {
        "Blocks": [
            {"BlockIndex": index, "BlockToken": _token(state, BLOCK_TOKEN_LIFE, snapshot.id, index)}
            for index in left[:size]
        ],
        "ExpiryTime": expires,
        "VolumeSize": snapshot.size,
        "BlockSize": BLOCK,
    }
    if left[size:]:
        answer["NextToken"] = _token(state, life, snapshot.id, left[size], page + 1)
    return answer


def get_snapshot_block(call: Call) -> dict[str, Any]:
    """Return the data of a block; called without the lock."""
    wanted, state = call.params, call.state
    with state.lock:
        snapshot = _readable(call)
        words = _opened_token(state, wanted["BlockToken"])
        if words != [snapshot.id, str(wanted["BlockIndex"])]:
            raise _invalid("The block token is not valid for this block", "INVALID_BLOCK_TOKEN")
    with _opened(snapshot, os.O_RDONLY) as file:
        data = os.pread(file, BLOCK, wanted["BlockIndex"] * BLOCK)
    if call.fault and call.fault.kind == "corrupt":
        data = _flipped(data)
    return {
        "DataLength": BLOCK,
        "BlockData": data,
        "Checksum": base64.b64encode(snapshot.digests[wanted["BlockIndex"]]).decode(),
        "ChecksumAlgorithm": "SHA256",
    }


ACTIONS: dict[str, Action] = {
    "StartSnapshot": start_snapshot,
    "PutSnapshotBlock": put_snapshot_block,
    "CompleteSnapshot": complete_snapshot,
    "ListSnapshotBlocks": list_snapshot_blocks,
    "GetSnapshotBlock": get_snapshot_block,
}
UNLOCKED = {"PutSnapshotBlock", "GetSnapshotBlock"}
