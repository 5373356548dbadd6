# SPDX-License-Identifier: Apache-2.0
"""The other way to a snapshot: an object in S3, sent in parts, which AWS imports.

A Target has one object, found by its name, and one import, found by its tags, which the snapshot bears once
it is complete. Then the object goes. What S3 and the import demand:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html,
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportSnapshot.html
"""

import base64
import contextlib
import functools
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ciming import exceptions, points, staging
from ciming.providers import base, pace
from ciming.providers.aws import snapshots
from ciming.providers.aws.account import Account, Refusal

LARGEST = 5 << 40       # bytes of an object
PART = 8 << 20          # bytes of one part, where these are enough parts
MOST_PARTS = 10_000
MIB = 1 << 20
PAGE = 100      # imports in a list: nowhere is said how many there may be
PATIENCE = 60   # seconds for what AWS has taken on to be seen
MOST_ATTEMPTS = 20      # at starting an import under a token that none of the earlier ones has
ROLE = "vmimport"
PERMISSIONS = "https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html"
FAILED = ("error", "cancelled", "deleting", "deleted")
FOR_GOOD = ("ClientError", "User Cancelled")    # how AWS's words on what will not go another time begin
NO_ACCESS = ("role", "403", "access")           # words of those on what the role may not
OTHERWISE = "IdempotentParameterMismatch"
NO_BUCKET = ("NoSuchBucket", "404")
NO_OBJECT = ("NoSuchKey", *NO_BUCKET)
NO_UPLOAD = "NoSuchUpload"
CHANGED = (NO_UPLOAD, "InvalidPart")        # by another of us, or whoever clears away: to be looked at anew
NO_TASK = ("InvalidConversionTaskId", "InvalidConversionTaskId.Malformed")

Alive = Callable[[], None]


class Bucket(NamedTuple):
    """A bucket of the account whose keys these are: what bears its name in another one is not meant."""

    account: Account
    name: str
    owner: str

    def call(self, action: str, *, absent: tuple[str, ...] = (), **more: Any) -> Mapping[str, Any] | None:
        where = {"Bucket": self.name, "ExpectedBucketOwner": self.owner}
        return self.account.call("s3", action, absent=absent, **where, **more)


def bucket(account: Account, name: str) -> Bucket:
    return Bucket(account, name, account.ask("sts", "GetCallerIdentity")["Account"])


def object_name(key: str) -> str:
    return f"ciming/{key}.raw"


# May it be used?


def check(place: Bucket) -> None:
    """:raises ProviderError: the bucket is not there, not ours, in another region, or keeps what is in it"""
    which = f"the bucket {place.name}"
    try:
        found = place.call("HeadBucket", absent=NO_BUCKET)
    except Refusal as error:
        if error.code != "cloud.forbidden":
            raise
        raise exceptions.ProviderError(
            f"{error.detail} Is {which} of account {place.owner}, and may these keys list it?",
            code=error.code,
            cloud_request_id=error.cloud_request_id,
        ) from None
    region, wanted = (found or {}).get("BucketRegion"), place.account.region
    if found is None:
        raise exceptions.ProviderError(
            f"{place.account.name}: {which} is not there. Make it in {wanted}, or name another one.",
            code="cloud.not_found",
        )
    if region not in (None, wanted):
        raise exceptions.ProviderError(
            f"{place.account.name}: {which} is in {region}, and AWS imports from one in {wanted} only.",
            code="cloud.refused",
        )
    if _keeps_all(place):
        raise exceptions.ProviderError(
            f"{place.account.name}: {which} has a default retention, so what was imported from it could not "
            "be removed. Name one without.",
            code="cloud.refused",
        )


def _keeps_all(place: Bucket) -> bool:
    """As far as these keys may know: it is no right that an upload needs."""
    with contextlib.suppress(exceptions.ProviderError):
        found = place.call("GetObjectLockConfiguration") or {}
        return "Rule" in found.get("ObjectLockConfiguration", {})
    return False


def try_out(place: Bucket) -> None:
    """Do in the bucket what an upload does there, but for the bytes.

    :raises ProviderError: it can not be done
    """
    check(place)
    name = object_name("check")
    upload = _begin(place, name)
    try:
        list(_parts(place, name, upload))
    finally:
        _abort(place, name, upload)
    clear(place, name, lambda: None)
    marked = _delete(place, name)
    if marked.get("DeleteMarker"):      # where the bucket keeps versions, it says that there is none
        with contextlib.suppress(Refusal):
            _delete(place, name, VersionId=marked["VersionId"])


# Into the bucket


def put(place: Bucket, name: str, staged: staging.Staged, transfer: base.Transfer) -> None:
    """An object of the bytes of a staged file. What is there of them is not sent again."""
    with Path(staged.path).open("rb", buffering=0) as file:
        parts = _split(file.fileno(), staged.size)
        if not _is_there(place, name, staged.size, parts, transfer.alive):
            _send(place, name, staged.size, parts, transfer)


class _Part(io.RawIOBase):
    """A part of an open file, with a place of its own in it; in memory is only what is just being sent."""

    def __init__(self, file: int, start: int, size: int) -> None:
        self._file, self._start, self._size, self._place = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._place))
        data = os.pread(self._file, wanted, self._start + self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def digest(self) -> bytes:
        self.seek(0)
        digest = hashlib.file_digest(self, "sha256").digest()
        self.seek(0)
        return digest


def _split(file: int, size: int) -> dict[int, _Part]:
    """A file's parts by their numbers, which begin with 1."""
    step = part_size(size)
    starts = range(0, max(size, 1), step)
    return {number: _Part(file, at, min(step, size - at)) for number, at in enumerate(starts, 1)}


def part_size(size: int) -> int:
    """Bytes of each part of an object; of whole MiB, and such that there are not too many."""
    return max(PART, -(-size // MOST_PARTS // MIB) * MIB)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _is_there(
    place: Bucket, name: str, size: int, parts: Mapping[int, _Part], alive: Alive
) -> bool:
    """Has the object these bytes? Its checksum is that of its parts' digests.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    found = _show(place, name)
    if found is None or found["ContentLength"] != size:
        return False
    whole = hashlib.sha256()
    for part in parts.values():
        alive()
        whole.update(part.digest())
    return bool(found.get("ChecksumSHA256") == f"{_base64(whole.digest())}-{len(parts)}")


def _show(place: Bucket, name: str) -> Mapping[str, Any] | None:
    return place.call("HeadObject", absent=NO_OBJECT, Key=name, ChecksumMode="ENABLED")


def _send(
    place: Bucket, name: str, size: int, parts: Mapping[int, _Part], transfer: base.Transfer
) -> None:
    transfer.alive()
    upload = next(_uploads(place, name), None) or _begin(place, name)
    if (transfer.checkpoint or {}).get("upload") != upload:
        transfer.save_checkpoint({"upload": upload})        # who has to clean up by hand needs it
    there = dict(_parts(place, name, upload))

    def put(number: int) -> dict[str, Any]:
        checksum = _base64(parts[number].digest())
        known = there.get(number, {})
        tag = known["ETag"] if known.get("ChecksumSHA256") == checksum else None
        tag = tag or _put(place, name, upload, number, parts[number], checksum)
        return {"PartNumber": number, "ETag": tag, "ChecksumSHA256": checksum}

    done: list[dict[str, Any]] = []
    step = part_size(size)
    try:
        with contextlib.closing(pace.in_order(put, parts, transfer.alive, pace.Pace())) as results:
            for part in results:
                done.append(part)
                transfer.progress(min(size, len(done) * step) // 2)
        transfer.alive()
        _complete(place, name, upload, done)
    except Refusal as error:
        if error.name not in CHANGED:
            raise
        raise exceptions.TransientProviderError(
            error.detail, cloud_request_id=error.cloud_request_id
        ) from None


def _uploads(place: Bucket, name: str) -> Iterator[str]:
    """Ids of what was begun of an object and has not ended, the oldest first: never more than a page."""
    found = place.call("ListMultipartUploads", absent=NO_BUCKET, Prefix=name) or {}
    ours = [each for each in found.get("Uploads", ()) if each["Key"] == name]
    yield from (each["UploadId"] for each in sorted(ours, key=lambda each: each["Initiated"]))


def _parts(place: Bucket, name: str, upload: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """What S3 has of an upload, by number."""
    marker: dict[str, int] = {}
    for _page in range(MOST_PARTS):
        page = place.call("ListParts", absent=(NO_UPLOAD,), Key=name, UploadId=upload, **marker) or {}
        yield from ((part["PartNumber"], part) for part in page.get("Parts", ()))
        if not page.get("IsTruncated"):
            return
        marker = {"PartNumberMarker": page["NextPartNumberMarker"]}
    raise place.account.without_end("ListParts")


@points.mutation
def _begin(place: Bucket, name: str) -> str:
    made = place.call("CreateMultipartUpload", Key=name, ChecksumAlgorithm="SHA256")
    assert made is not None
    return str(made["UploadId"])


@points.mutation
def _put(place: Bucket, name: str, upload: str, number: int, part: _Part, checksum: str) -> str:
    sent = place.call(
        "UploadPart",
        Key=name,
        UploadId=upload,
        PartNumber=number,
        Body=part,
        ChecksumSHA256=checksum,
    )
    assert sent is not None
    return str(sent["ETag"])


@points.mutation
def _complete(place: Bucket, name: str, upload: str, parts: list[dict[str, Any]]) -> None:
    place.call("CompleteMultipartUpload", Key=name, UploadId=upload, MultipartUpload={"Parts": parts})


@points.mutation
def _abort(place: Bucket, name: str, upload: str) -> None:
    """Absent is fine."""
    place.call("AbortMultipartUpload", absent=(NO_UPLOAD, *NO_BUCKET), Key=name, UploadId=upload)


@points.mutation
def _delete(place: Bucket, name: str, **version: str) -> Mapping[str, Any]:
    """What S3 says of what it did. Absent is fine."""
    return place.call("DeleteObject", absent=NO_OBJECT, Key=name, **version) or {}


def clear(place: Bucket, name: str, alive: Alive) -> None:
    """Remove an object, all its versions where the bucket keeps them, and what was begun; absent is fine."""
    for upload in _uploads(place, name):
        alive()
        _abort(place, name, upload)
    while (found := _show(place, name)) is not None:
        alive()
        _delete(place, name, **({"VersionId": found["VersionId"]} if "VersionId" in found else {}))


# Into a snapshot


def bring(
    place: Bucket,
    key: str,
    staged: staging.Staged,
    marks: Mapping[str, str],
    tags: Mapping[str, str],
    wanted: Mapping[str, Any],
    transfer: base.Transfer,
) -> str:
    """A complete snapshot of a staged file: its id. An import that runs or has come to its end is the one.

    :param marks: tags that imports are known by
    :param tags: for the import and its snapshot
    :param wanted: what else ImportSnapshot is to be told
    """
    account, name = place.account, object_name(key)
    ours = list(find(account, marks))
    task_id = next((each["ImportTaskId"] for each in ours if _holds(account, each)), None)
    if task_id is None:
        put(place, name, staged, transfer)
        transfer.alive()
        told = {
            **wanted,
            "DiskContainer": {"Format": "RAW", "UserBucket": {"S3Bucket": place.name, "S3Key": name}},
            "TagSpecifications": [
                {"ResourceType": "import-snapshot-task", "Tags": snapshots.as_tags(tags)}
            ],
        }
        task_id = _start(account, key, told, {each["ImportTaskId"] for each in ours}, transfer.alive)
    if (transfer.checkpoint or {}).get("import") != task_id:
        transfer.save_checkpoint({"import": task_id})
    role = str(wanted.get("RoleName", ROLE))
    snapshot_id = _wait(account, task_id, staged.size, transfer, role)
    _appears(account, snapshot_id, transfer.alive)
    snapshots.wait(account, snapshot_id, transfer.alive)
    transfer.alive()
    snapshots.tag(account, snapshot_id, tags)
    return snapshot_id


def find(account: Account, marks: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    """Imports of the last days that have these tags, which no filter is documented for."""
    found = snapshots.pages(
        account, "DescribeImportSnapshotTasks", "ImportSnapshotTasks", MaxResults=PAGE
    )
    return (task for task in found if marks.items() <= snapshots.of_tags(task).items())


def _detail(task: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = task.get("SnapshotTaskDetail", {})
    return found


def _runs(task: Mapping[str, Any]) -> bool:
    return _detail(task).get("Status") not in ("completed", *FAILED)


def _holds(account: Account, task: Mapping[str, Any]) -> bool:
    """Does it run, or is what it made still there?"""
    made = _detail(task).get("SnapshotId")
    completed = _detail(task).get("Status") == "completed"
    return _runs(task) or (completed and snapshots.is_there(account, str(made)))


def _start(
    account: Account, key: str, told: Mapping[str, Any], earlier: set[str], alive: Alive
) -> str:
    """An import for a Target: its id. Asked twice, also at once, it is the same one.

    A token leads to the import that it was first used for, whatever became of that.

    :param earlier: those that came to nothing
    """
    for attempt in range(len(earlier), len(earlier) + MOST_ATTEMPTS):
        token = hashlib.sha256(f"{key} {attempt}".encode()).hexdigest()
        wanted = {**told, "ClientToken": token}
        try:
            task_id = snapshots.once_there_is_room(functools.partial(_import, account, wanted), alive)
        except Refusal as error:
            if error.name == OTHERWISE:     # the Cloud's config was another one then
                continue
            raise _advised(error, told.get("RoleName", ROLE)) from None
        if task_id not in earlier:
            return task_id
    raise exceptions.TransientProviderError(f"{account.name}: an import that was started is not there.")


@points.mutation
def _import(account: Account, told: Mapping[str, Any]) -> str:
    return str(account.ask("ec2", "ImportSnapshot", **told)["ImportTaskId"])


def _advised(error: Refusal, role: str) -> exceptions.ProviderError:
    if error.name != "InvalidParameter" or " role " not in error.detail:
        return error
    return exceptions.ProviderError(
        f"{error.detail} {_advice(role)}",
        code="cloud.role_refused",
        cloud_request_id=error.cloud_request_id,
    )


def _advice(role: str) -> str:
    return (
        f"AWS imports as the role {role}: it has to be there, to trust vmie.amazonaws.com, and may need more "
        f"rights to the bucket: see {PERMISSIONS}"
    )


def _show_task(account: Account, task_id: str) -> Mapping[str, Any] | None:
    found = account.call("ec2", "DescribeImportSnapshotTasks", absent=NO_TASK, ImportTaskIds=[task_id])
    return found["ImportSnapshotTasks"][0] if found and found["ImportSnapshotTasks"] else None


def _wait(account: Account, task_id: str, size: int, transfer: base.Transfer, role: str) -> str:
    """The snapshot that an import makes, which is the second half of the way.

    :raises ProviderError: AWS gave it up
    """
    until, done = time.monotonic() + PATIENCE, 0
    for task, pause in snapshots.looks(functools.partial(_show_task, account, task_id), transfer.alive):
        found = _detail(task or {})
        if found.get("Status") == "completed":
            return str(found["SnapshotId"])
        if found.get("Status") in FAILED:
            raise _failure(account, task_id, found, role)
        if task is None and time.monotonic() > until:
            raise exceptions.TransientProviderError(f"{account.name}: import {task_id} is gone.")
        done = max(done, _percent(found))
        transfer.progress(size // 2 + size * done // 200)
        transfer.alive()
        time.sleep(pause)
    raise AssertionError


def _percent(found: Mapping[str, Any]) -> int:
    """Less than all: that is when it is completed."""
    said = str(found.get("Progress", ""))
    return min(99, int(said)) if said.isascii() and said.isdecimal() else 0


def _failure(
    account: Account, task_id: str, found: Mapping[str, Any], role: str
) -> exceptions.ProviderError:
    said = account.words(found.get("StatusMessage") or "")
    what = f"{account.name}: import {task_id} ended as {found['Status']}. {said}".strip()
    if not said.startswith(FOR_GOOD):
        return exceptions.TransientProviderError(what)
    if any(word in said.lower() for word in NO_ACCESS):
        return exceptions.ProviderError(f"{what} {_advice(role)}", code="cloud.role_refused")
    return exceptions.ProviderError(what, code="image.not_active")


def _appears(account: Account, snapshot_id: str, alive: Alive) -> None:
    """Until EC2 has heard of a snapshot, as far as that takes no longer than usual."""
    until = time.monotonic() + PATIENCE
    for found, pause in snapshots.looks(functools.partial(snapshots.show, account, snapshot_id), alive):
        if found is not None or time.monotonic() > until:
            return
        alive()
        time.sleep(pause)


# Undone


def discard(place: Bucket, key: str, marks: Mapping[str, str], alive: Alive) -> None:
    """Remove what an upload has made, its import included; absent is fine."""
    account = place.account
    try:
        for task in find(account, marks):
            ended = _stopped(account, task["ImportTaskId"], alive) if _runs(task) else task
            snapshot_id = _detail(ended).get("SnapshotId")
            if snapshot_id:     # it may bear no tags yet
                alive()
                snapshots.delete(account, snapshot_id)
    finally:        # also of an import that does not stop
        clear(place, object_name(key), alive)


def _stopped(account: Account, task_id: str, alive: Alive) -> Mapping[str, Any]:
    """An import that runs no more. Where AWS does not stop it, it may yet come to its end.

    :raises ProviderError: it goes on
    """
    alive()
    refused = _cancel(account, task_id)
    until = time.monotonic() + PATIENCE
    for pause in snapshots.pauses():
        task = _show_task(account, task_id) or {}
        if not task or not _runs(task):
            return task
        if time.monotonic() > until:
            what = f"{account.name}: import {task_id} does not stop."
            raise refused or exceptions.TransientProviderError(what)
        alive()
        time.sleep(pause)
    raise AssertionError


@points.mutation
def _cancel(account: Account, task_id: str) -> Refusal | None:
    """What AWS says against it: it may have ended just now."""
    try:
        account.call("ec2", "CancelImportTask", absent=NO_TASK, ImportTaskId=task_id)
    except Refusal as error:
        return error
    return None
