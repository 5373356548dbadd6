# SPDX-License-Identifier: Apache-2.0
"""ImportSnapshot: a disk image in S3 becomes a snapshot.

- VHD, VMDK and RAW, of VMDK only stream-optimized ones:
  https://docs.aws.amazon.com/vm-import/latest/userguide/prerequisites.html
- The role vmimport, or the one that is named, must be there:
  https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html
- A task is active, then completed or, if it failed, deleted, with a StatusMessage; its tags are its own, not
  the snapshot's: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportSnapshot.html
- What runs can be cancelled: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CancelImportTask.html
"""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import threading
import time
from typing import Any

from tests.sandbox.aws import copies, describe, ebs, errors, keys, s3, tags, tokens
from tests.sandbox.aws.state import BLOCK, GIB, Action, Call, Snapshot, Task, new_id

TASK_ID = re.compile("import-snap-[0-9a-f]{17}")
QEMU_FORMATS = {"RAW": "raw", "VHD": "vpc", "VMDK": "vmdk"}
ROLE = "vmimport"
WRONG_FORMAT = "ClientError: Disk validation failed [Unsupported specified file format]"
WRONG_VMDK = "ClientError: Disk validation failed [Unsupported VMDK File Format]"
LONGEST = 300
"""Seconds that qemu-img may take."""


class _Failed(Exception):
    """The message that the task ends with."""


# Starting


def import_snapshot(call: Call) -> dict[str, Any]:
    """Start an import, or return what the same request with the same token started."""
    return tokens.once(call, lambda: _import_snapshot(call))


def _invalid(message: str) -> errors.Refused:
    return errors.Refused("InvalidParameter", message)


def _import_snapshot(call: Call) -> dict[str, Any]:
    wanted, disk = call.params, call.params.get("DiskContainer")
    if not disk:
        raise errors.refusal("ec2", "missing", "The request must contain the parameter DiskContainer")
    if disk.get("Format", "").upper() not in QEMU_FORMATS:
        raise _invalid(f"The format {disk.get('Format')} is not one of {', '.join(QEMU_FORMATS)}")
    bucket, key = _place(disk)
    if wanted.get("RoleName", ROLE) != ROLE or not call.state.settings.vmimport:
        raise _invalid(
            f"The service role {wanted.get('RoleName', ROLE)} provided does not exist or does not have "
            "sufficient permissions"
        )
    if "KmsKeyId" in wanted and not wanted.get("Encrypted"):
        raise errors.Refused("InvalidParameterDependency", "KmsKeyId needs Encrypted")
    labels = tags.of_specifications(wanted, ("import-snapshot-task",)).get("import-snapshot-task", {})
    task = Task(
        id=new_id("import-snap"),
        owner=call.caller.account,
        region=call.region,
        format=disk["Format"].upper(),
        bucket=bucket,
        key=key,
        description=wanted.get("Description", ""),
        kms_key=_key(call),
        tags={call.caller.account: labels},
    )
    s3.check_object(task.owner, task.region, bucket, key)
    call.state.tasks[task.id] = task
    threading.Thread(target=_run, args=(call, task), daemon=True).start()
    return _shown(task)


def _place(disk: dict[str, Any]) -> tuple[str, str]:
    """Return bucket and key."""
    if ("Url" in disk) == ("UserBucket" in disk):
        raise _invalid("Either Url or UserBucket must be given")
    if "UserBucket" in disk:
        place = disk["UserBucket"]
        return place.get("S3Bucket", ""), place.get("S3Key", "")
    found = re.fullmatch(r"s3://([^/]+)/(.+)", disk["Url"])
    if not found:
        raise _invalid("Only s3:// URLs are done here")
    return found[1], found[2]


def _key(call: Call) -> str | None:
    """Return the ARN of the key, or what was given for one: that it is none shows later."""
    if not call.params.get("Encrypted") and not call.state.settings.encryption_by_default:
        return None
    name = call.params.get("KmsKeyId", keys.DEFAULT)
    found = keys.find(call.state, call.caller, call.region, name)
    return found.arn if found else str(name)


# Working


def _run(call: Call, task: Task) -> None:
    """Do an import, in a thread of its own."""
    state, began = call.state, time.monotonic()
    source, raw = (state.directory / f"{task.id}.{suffix}" for suffix in ("object", "raw"))
    try:
        _read(task, source)
        _step(task, 19, "validating")
        if call.failure:
            raise _Failed("ServerError: an internal error has occurred during conversion.")
        if not keys.usable(state, task.kms_key):
            raise _Failed(f"ClientError: {copies.NO_KEY}")
        _validate(task, source)
        _step(task, 42, "converting")
        _convert(task, source, raw)
        _step(task, 70, "creating snapshot")
        digests = _digests(raw)
        while time.monotonic() < began + state.settings.import_seconds and task.status == "active":
            time.sleep(0.02)
        with state.lock:
            if task.status != "active":
                raise _Failed("User Cancelled")
            _finish(call, task, raw, digests)
    except _Failed as failed:
        with state.lock:
            task.status, task.message = "deleted", str(failed)
    finally:
        source.unlink(missing_ok=True)
        raw.unlink(missing_ok=True)


def _read(task: Task, source: pathlib.Path) -> None:
    try:
        s3.copy_object(task.owner, task.region, task.bucket, task.key, source)
    except errors.Refused as refused:
        raise _Failed(f"ClientError: {refused.message}") from None
    task.size = source.stat().st_size


def _step(task: Task, progress: int, message: str) -> None:
    if task.status != "active":
        raise _Failed("User Cancelled")
    task.progress, task.message = progress, message


def _validate(task: Task, source: pathlib.Path) -> None:
    """Look whether the file is what it is said to be; anything is RAW."""
    with source.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, task.size - 512))
        foot = file.read(8)
    if task.size == 0 or (task.format == "VHD" and foot != b"conectix"):
        raise _Failed(WRONG_FORMAT)
    if task.format == "VMDK":
        if head != b"KDMV":
            raise _Failed(WRONG_VMDK)
        found = json.loads(_qemu_img("info", "--output=json", "-f", "vmdk", str(source)))
        if found["format-specific"]["data"]["create-type"] != "streamOptimized":
            raise _Failed(WRONG_VMDK)


def _qemu_img(*arguments: str) -> bytes:
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, timeout=LONGEST, check=False)
    if done.returncode:
        raise _Failed(WRONG_FORMAT)
    return done.stdout


def _convert(task: Task, source: pathlib.Path, raw: pathlib.Path) -> None:
    _qemu_img("convert", "-f", QEMU_FORMATS[task.format], "-O", "raw", str(source), str(raw))


def _digests(raw: pathlib.Path) -> dict[int, bytes]:
    """Return the SHA-256 of each block that has data, the last one filled up with zeros."""
    digests, nothing = {}, bytes(BLOCK)
    with raw.open("rb") as file:
        size, place = raw.stat().st_size, 0
        while place < size:
            try:
                place = os.lseek(file.fileno(), place, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:  # a hole up to the end
                break
            data = os.pread(file.fileno(), BLOCK, place).ljust(BLOCK, b"\0")
            if data != nothing:
                digests[place // BLOCK] = hashlib.sha256(data).digest()
            place += BLOCK
    return digests


def _finish(call: Call, task: Task, raw: pathlib.Path, digests: dict[int, bytes]) -> None:
    snapshot = Snapshot(
        id=new_id("snap"),
        owner=task.owner,
        region=task.region,
        size=-(-raw.stat().st_size // GIB),
        description=f"Created by AWS-VMImport service for {task.id}",
        file=call.state.directory,
        timeout=0.0,
        key=task.kms_key,
        sealed=True,
        digests=digests,
    )
    ebs.create_file(call.state, snapshot)
    os.truncate(raw, snapshot.size * GIB)
    raw.replace(snapshot.file)
    call.state.snapshots[snapshot.id] = snapshot
    task.status, task.message, task.snapshot = "completed", None, snapshot.id


# Looking and cancelling


def _shown(task: Task) -> dict[str, Any]:
    detail = {
        "Description": task.description,
        "DiskImageSize": task.size / GIB,
        "Encrypted": task.kms_key is not None,
        "Format": task.format,
        "KmsKeyId": task.kms_key,
        "Progress": str(task.progress) if task.status == "active" else None,
        "SnapshotId": task.snapshot,
        "Status": task.status,
        "StatusMessage": task.message,
        "UserBucket": {"S3Bucket": task.bucket, "S3Key": task.key},
    }
    labels = tags.shown(task.tags, task.owner)
    return {
        "ImportTaskId": task.id,
        "Description": task.description,
        "SnapshotTaskDetail": detail,
        "Tags": labels,
    }


def _task(call: Call, task_id: str) -> Task:
    if not TASK_ID.fullmatch(task_id):
        raise errors.Refused("InvalidConversionTaskId.Malformed", f"The task ID '{task_id}' is not valid")
    found = call.state.tasks.get(task_id)
    if found is None or (found.owner, found.region) != (call.caller.account, call.region):
        raise errors.Refused("InvalidConversionTaskId", f"The task '{task_id}' does not exist")
    return found


def describe_import_snapshot_tasks(call: Call) -> dict[str, Any]:
    """Return the caller's imports."""
    describe.checked(call.params, frozenset())
    if "ImportTaskIds" in call.params:
        found = [_task(call, one) for one in call.params["ImportTaskIds"]]
    else:
        mine = (call.caller.account, call.region)
        found = [one for one in call.state.tasks.values() if (one.owner, one.region) == mine]
    page, token = describe.page(call, found, "ImportTaskIds")
    return {"ImportSnapshotTasks": [_shown(one) for one in page], "NextToken": token}


def cancel_import_task(call: Call) -> dict[str, Any]:
    """Cancel an import that runs: it is deleted a moment later."""
    task = _task(call, call.params.get("ImportTaskId", ""))
    if task.status != "active":
        raise errors.Refused("IncorrectState", f"The task '{task.id}' is {task.status}")
    task.status, task.message = "deleting", "User Cancelled"
    return {"ImportTaskId": task.id, "PreviousState": "active", "State": "deleting"}


ACTIONS: dict[str, Action] = {
    "ImportSnapshot": import_snapshot,
    "DescribeImportSnapshotTasks": describe_import_snapshot_tasks,
    "CancelImportTask": cancel_import_task,
}
