# SPDX-License-Identifier: Apache-2.0
"""EBS snapshots, written and read block by block, side by side, and only where there is data.

What these APIs demand: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html
"""

import base64
import contextlib
import email.utils
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from oslo_log import log

from ciming import disk_image, exceptions, points, staging
from ciming.providers import base, pace
from ciming.providers.aws.account import Account, Refusal

LOG = log.getLogger(__name__)
Result = TypeVar("Result")
GIB = 1 << 30
TIMEOUT = 24 * 60       # minutes without a block, after which AWS gives a snapshot up
POLL_SECONDS = (0.2, 5.0)
PAGE = 500      # things in a list of EC2: with all their tags no answer that is too long
MOST_PAGES = 1000       # of a list; one that does not end is none
MOST_BLOCK_PAGES = 100_000      # the largest volume has 13,422 that are full, and others are empty
NUMBER = 8      # bytes
ZEROS = bytes(disk_image.BLOCK)
SEEN_SECONDS = 30       # after which EC2 has heard of what EBS made
KNOWN_SECONDS = 120     # after which all of EBS has heard of a snapshot that was begun, or became complete
OUTAGE_SECONDS = 600    # without a good answer, after which who waits for something gives up
TRYING_SECONDS = 10     # for which one that is only tried out may not be known
SEALING_SECONDS = 60    # for which a snapshot that takes no completion may be about to be complete
SPOILT = "INVALID_CUSTOMER_KEY"     # of EBS's reasons, the one that does not pass
ROOM_SECONDS = 12 * 3600    # for which fewer things may have to be under way before one more may begin
AT_A_TIME = ("ResourceLimitExceeded", "ResourceCountLimitExceeded", "PendingSnapshotLimitExceeded")
MOST_ATTEMPTS = 20      # at starting a snapshot that nobody has deleted
READS: Mapping[str, Mapping[str, Any]] = {
    "ListSnapshotBlocks": {"MaxResults": 100},
    "GetSnapshotBlock": {"BlockIndex": 0, "BlockToken": "AAAA"},
}
UNKNOWN = ("ResourceNotFoundException", ("", "SNAPSHOT_NOT_FOUND"))      # to EBS: a name, and its reasons
ABSENT = ("InvalidSnapshot.NotFound", "InvalidSnapshotID.Malformed", "ResourceNotFoundException")

Alive = Callable[[], None]


def volume_size(virtual_size: int) -> int:
    """GiB of the smallest volume that a disk fits on."""
    return max(1, -(-virtual_size // GIB))


# Looking


def find(account: Account, tags: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    """Snapshots of this account with these tags."""
    yield from pages(account, "DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=tagged(tags))


def show(account: Account, snapshot_id: str) -> Mapping[str, Any] | None:
    """What EC2 says of a snapshot; None: it is not there."""
    found = account.call("ec2", "DescribeSnapshots", absent=ABSENT, SnapshotIds=[snapshot_id])
    return found["Snapshots"][0] if found and found["Snapshots"] else None


def pages(account: Account, action: str, what: str, **parameters: Any) -> Iterator[Mapping[str, Any]]:
    """All that a list of EC2 has: a page may be empty, and yet not the last."""
    token: dict[str, str] = {}
    for _page in range(MOST_PAGES):
        page = account.ask("ec2", action, **{"MaxResults": PAGE, **parameters, **token})
        yield from page[what]
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}
    raise account.without_end(action)


def tagged(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """A filter of EC2's lists."""
    return [{"Name": f"tag:{name}", "Values": [literal(value)]} for name, value in tags.items()]


def literal(value: str) -> str:
    """In a filter * and ? are wildcards."""
    return "".join(f"\\{each}" if each in "\\*?" else each for each in value)


def as_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def of_tags(described: Mapping[str, Any]) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in described.get("Tags", ())}


def wait(account: Account, snapshot_id: str, alive: Alive) -> Mapping[str, Any]:
    """Until a snapshot is complete: what EC2 says of it then. That may take hours, in which looks may fail.

    :raises ProviderError: it is gone
    :raises TransientProviderError: AWS gave it up; it is deleted. Or it does not answer any more
    """
    unseen: float | None = None
    for found, pause in looks(functools.partial(show, account, snapshot_id), alive):
        if found is None:
            unseen = unseen or time.monotonic()
            if time.monotonic() - unseen > SEEN_SECONDS:
                raise exceptions.ProviderError(
                    f"{account.name}: snapshot {snapshot_id} is gone.", code="image.not_active"
                )
            alive()
            time.sleep(pause)
            continue
        unseen = None
        if found["State"] == "completed":
            return found
        if found["State"] != "pending":
            alive()
            delete(account, snapshot_id)
            raise exceptions.TransientProviderError(
                f"{account.name}: snapshot {snapshot_id} ended as {found['State']}. "
                f"{account.words(found.get('StateMessage') or '')}".strip()
            )
        alive()
        time.sleep(pause)
    raise AssertionError


def pauses() -> Iterator[float]:
    """Seconds between two looks at what takes its time."""
    pause, longest = POLL_SECONDS
    while True:
        yield pause
        pause = min(longest, pause * 1.5)


def persistently(call: Callable[[], Result], alive: Alive, seconds: float) -> Result:
    """What a call gives, asked again while its errors are passing ones: for so many seconds."""
    until = time.monotonic() + seconds
    for pause in pauses():
        try:
            return call()
        except exceptions.TransientProviderError as error:
            if time.monotonic() > until:
                raise
            LOG.info("Asks again: %s", error)
        alive()
        time.sleep(pause)
    raise AssertionError


def looks(look: Callable[[], Result], alive: Alive) -> Iterator[tuple[Result, float]]:
    """What looks show at something that takes its time, each with the seconds until the next one.

    When there was a good answer, to fail is no reason to give that up.
    """
    patience = 0.0
    for pause in pauses():
        yield persistently(look, alive, patience), pause
        patience = OUTAGE_SECONDS


def of_known(account: Account, snapshot_id: str, call: Callable[[], Result]) -> Result:
    """What a call of EBS gives.

    :raises TransientProviderError: it does not know the snapshot yet, which EC2 shows
    """
    try:
        return call()
    except Refusal as error:
        if not _is_unknown(error) or show(account, snapshot_id) is None:
            raise
        refused = error
    raise exceptions.TransientProviderError(refused.detail, cloud_request_id=refused.cloud_request_id)


def _is_unknown(error: Refusal) -> bool:
    """Does EBS say that there is no such snapshot, and not that its key is not there, say?"""
    name, reasons = UNKNOWN
    return error.name == name and error.reason in reasons


def once_there_is_room(call: Callable[[], str], alive: Alive) -> str:
    """What a call gives that AWS lets so many do at a time: others may take hours to come to their ends.

    :raises Refusal: it gives nothing
    """
    until, told = time.monotonic() + ROOM_SECONDS, False
    for pause in pauses():
        try:
            return call()
        except Refusal as error:
            if error.name not in AT_A_TIME or time.monotonic() > until:
                raise
            if not told:
                LOG.info("Waits until there is room: %s", error)
            told = True
        alive()
        time.sleep(pause)
    raise AssertionError


# Writing


@points.mutation
def start(account: Account, key: str, virtual_size: int, **more: Any) -> Mapping[str, Any]:
    """A pending snapshot for a Target, as EBS says of it. Asked twice, also at once, it is the same one.

    A token of AWS's leads for ever to the snapshot that it made first, deleted or not; and with another name,
    say, after a retry, to none.
    """
    for attempt in range(MOST_ATTEMPTS):
        token = hashlib.sha256(f"{key} {attempt}".encode()).hexdigest()
        wanted = {"ClientToken": token, "VolumeSize": volume_size(virtual_size), "Timeout": TIMEOUT, **more}
        try:
            made = account.ask("ebs", "StartSnapshot", **wanted)
        except Refusal as error:
            if error.name != "ConflictException":
                raise
            continue
        snapshot_id = str(made["SnapshotId"])
        if _appears(account, snapshot_id, KNOWN_SECONDS - _age(made)):
            await_seen(functools.partial(show, account, snapshot_id))
            try_to_read(account, snapshot_id)
            return made
    raise exceptions.TransientProviderError(f"{account.name}: a snapshot that was started is not there.")


def _age(made: Mapping[str, Any]) -> float:
    """Seconds since a snapshot was begun, by AWS's clock: its token may be one that was used before."""
    said = made["ResponseMetadata"]["HTTPHeaders"].get("date")
    try:
        now = email.utils.parsedate_to_datetime(str(said)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, now - float(made["StartTime"].timestamp()))


def _appears(account: Account, snapshot_id: str, seconds: float) -> bool:
    """Is a snapshot there, of which EBS and EC2 may hear so many seconds later? Else it was deleted.

    Whether to go on is not asked: who is cancelled before it is seen would leave it there.
    """
    until = time.monotonic() + seconds
    for pause in pauses():
        if persistently(lambda: is_there(account, snapshot_id), lambda: None, SEEN_SECONDS):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    raise AssertionError


def try_out(account: Account, tags: Mapping[str, str], **more: Any) -> Mapping[str, Any]:
    """Do what an upload does, of which EBS has no dry run, but complete nothing. It does not stay.

    :return: what EBS said of the snapshot
    :raises ProviderError: it can not be done
    """
    wanted = {"VolumeSize": 1, "Timeout": 10, "Tags": as_tags(tags), **more}
    said = account.ask("ebs", "StartSnapshot", **wanted)
    made = str(said["SnapshotId"])
    block = bytes(disk_image.BLOCK)
    try:
        digest = hashlib.sha256(block).digest()
        persistently(lambda: _put(account, made, 0, block, digest), lambda: None, TRYING_SECONDS)
        try_to_read(account, made)
    finally:
        try:
            await_seen(lambda: show(account, made))
        finally:
            delete(account, made)
    return said


def try_to_read(account: Account, snapshot_id: str) -> None:
    """As the proof will, after all bytes. What is not complete is refused, but not for lack of rights.

    :raises Refusal: these keys may not
    """
    for action, more in READS.items():
        try:
            account.call("ebs", action, absent=ABSENT, SnapshotId=snapshot_id, **more)
        except Refusal as error:
            if error.code == "cloud.forbidden" and not error.reason:    # IAM's: those of EBS itself have one
                raise


def await_seen(look: Callable[[], object]) -> None:
    """Until EC2 shows what was made: who fails, or is cancelled by a hang-up, before would leave it there."""
    until = time.monotonic() + SEEN_SECONDS
    for pause in pauses():
        with contextlib.suppress(exceptions.TransientProviderError):
            if look():
                return
        if time.monotonic() > until:
            return
        time.sleep(pause)


def is_there(account: Account, snapshot_id: str) -> bool:
    """As far as EBS or EC2 knows: either may hear of it later than the other."""
    try:
        account.ask("ebs", "ListSnapshotBlocks", SnapshotId=snapshot_id, MaxResults=100)
    except Refusal as error:
        return not _is_unknown(error) or show(account, snapshot_id) is not None    # or it can not be read yet
    return True


def write(account: Account, snapshot_id: str, staged: staging.Staged, transfer: base.Transfer) -> None:
    """Put all blocks that are not zero, but for those that were put before, and complete the snapshot."""
    path = Path(staged.path)
    with _Journal(path.with_name(f"{snapshot_id}.next")) as journal:
        first, count, whole = journal.next, 0, hashlib.sha256()

        def put(block: tuple[int, bytes]) -> tuple[int, bytes]:
            index, data = block
            digest = hashlib.sha256(data).digest()
            if index >= first:
                _put(account, snapshot_id, index, data, digest)
            return index, digest

        blocks = disk_image.blocks(path)
        with contextlib.closing(pace.in_order(put, blocks, transfer.alive, pace.Pace())) as results:
            for index, digest in results:
                count += 1
                whole.update(digest)
                journal.reached(index + 1)
                transfer.progress(min(staged.size, index * disk_image.BLOCK))
    transfer.alive()
    _complete(account, snapshot_id, count, base64.b64encode(whole.digest()).decode(), transfer.alive)


class _Journal:
    """The index from which on blocks may be missing; all before it were put. It survives a kill.

    Of a staged file that was removed with all of its Job's nothing is left.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        known = os.pread(self._file, NUMBER, 0)
        self.next = int.from_bytes(known) if len(known) == NUMBER else 0

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def reached(self, index: int) -> None:
        if index > self.next:
            self.next = index
            os.pwrite(self._file, index.to_bytes(NUMBER), 0)


@points.mutation
def _put(account: Account, snapshot_id: str, index: int, data: bytes, digest: bytes) -> None:
    try:
        account.call(
            "ebs",
            "PutSnapshotBlock",
            SnapshotId=snapshot_id,
            BlockIndex=index,
            BlockData=data,
            DataLength=len(data),
            Checksum=base64.b64encode(digest).decode(),
            ChecksumAlgorithm="SHA256",
        )
    except Refusal as error:
        if error.code != "cloud.refused" or error.reason == SPOILT:
            raise
        # Another of us writes the same block, or was faster and has completed it; or AWS gave it up.
        raise exceptions.TransientProviderError(
            error.detail, cloud_request_id=error.cloud_request_id
        ) from None


def _complete(account: Account, snapshot_id: str, count: int, checksum: str, alive: Alive) -> None:
    """Complete a snapshot, or see that it becomes complete: that is asked for once, and answers get lost."""
    seal = functools.partial(_seal, account, snapshot_id, count, checksum)
    try:
        persistently(lambda: of_known(account, snapshot_id, seal), alive, KNOWN_SECONDS)
    except Refusal as error:
        if error.code != "cloud.refused" or not _becomes_complete(account, snapshot_id, alive):
            raise


@points.mutation
def _seal(account: Account, snapshot_id: str, count: int, checksum: str) -> None:
    account.call(
        "ebs",
        "CompleteSnapshot",
        SnapshotId=snapshot_id,
        ChangedBlocksCount=count,
        Checksum=checksum,
        ChecksumAlgorithm="SHA256",
        ChecksumAggregationMethod="LINEAR",
    )


def _becomes_complete(account: Account, snapshot_id: str, alive: Alive) -> bool:
    until = time.monotonic() + SEALING_SECONDS
    for found, pause in looks(functools.partial(show, account, snapshot_id), alive):
        if found is None or found["State"] != "pending" or time.monotonic() > until:
            return bool(found and found["State"] == "completed")
        alive()
        time.sleep(pause)
    raise AssertionError


@points.mutation
def tag(account: Account, ref: str, tags: Mapping[str, str]) -> None:
    """A snapshot, or an image."""
    account.call("ec2", "CreateTags", Resources=[ref], Tags=as_tags(tags))


@points.mutation
def delete(account: Account, snapshot_id: str) -> None:
    """Absent is fine."""
    account.call("ec2", "DeleteSnapshot", absent=ABSENT, SnapshotId=snapshot_id)


# Reading


def blocks(
    account: Account, snapshot_id: str, start: int = 0, alive: Alive = lambda: None
) -> Iterator[tuple[int, str]]:
    """Indices and tokens of the blocks that a snapshot has, in order.

    :raises TransientProviderError: the list is in another order, or does not end
    """
    token: dict[str, str] = {}
    listed = start
    for _page in range(MOST_BLOCK_PAGES):
        where = {"SnapshotId": snapshot_id, "StartingBlockIndex": start, **token}
        ask = functools.partial(account.ask, "ebs", "ListSnapshotBlocks", **where)
        try:
            page = persistently(functools.partial(of_known, account, snapshot_id, ask), alive, KNOWN_SECONDS)
        except Refusal as error:
            if start == listed or error.reason != "INVALID_PAGE_TOKEN":
                raise
            listed, token = start, {}       # it lives for an hour, and blocks take their time
            continue
        for block in page["Blocks"]:
            if block["BlockIndex"] < start:     # each again and again would be a list without end, too
                raise exceptions.TransientProviderError(
                    f"{account.name}: the blocks of {snapshot_id} are in no order.", code="cloud.bad_answer"
                )
            yield block["BlockIndex"], block["BlockToken"]
            start = block["BlockIndex"] + 1
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}
    raise account.without_end("ListSnapshotBlocks")


def read(
    account: Account, snapshot_id: str, wanted: Iterable[tuple[int, str]], alive: Alive
) -> Iterator[tuple[int, bytes]]:
    """Blocks and their bytes, in the same order. To be closed.

    :raises TransientProviderError: AWS sent other bytes than it says
    """

    def get(block: tuple[int, str]) -> tuple[int, bytes]:
        index, token = block
        where = {"SnapshotId": snapshot_id, "BlockIndex": index, "BlockToken": token}
        ask = functools.partial(account.ask, "ebs", "GetSnapshotBlock", body="BlockData", **where)
        answer = of_known(account, snapshot_id, ask)
        data: bytes = answer["BlockData"]
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        if len(data) != disk_image.BLOCK or answer["Checksum"] != checksum:
            raise exceptions.TransientProviderError(
                f"{account.name}: block {index} of snapshot {snapshot_id} is damaged.",
                code="cloud.bad_answer",
            )
        return index, data

    yield from pace.in_order(get, wanted, alive, pace.Pace())


def digest(account: Account, snapshot_id: str, alive: Alive, sample: Sequence[int] | None = None) -> str:
    """The guest digest of a snapshot.

    :param sample: of these blocks only
    """
    wanted = blocks(account, snapshot_id, alive=alive)
    if sample is not None:
        chosen = set(sample)
        wanted = (block for block in wanted if block[0] in chosen)
    found = (
        (index, hashlib.sha256(data).digest())
        for index, data in read(account, snapshot_id, wanted, alive)
        if data != ZEROS
    )
    return disk_image.digest_of(found)
