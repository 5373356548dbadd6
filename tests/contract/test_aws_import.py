# SPDX-License-Identifier: Apache-2.0
"""What is true of AWS's route s3-import only."""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ciming import exceptions, staging
from ciming.providers import base, pace
from ciming.providers.aws import imports, snapshots
from ciming.providers.aws import provider as door
from tests.contract import on_aws, subjects
from tests.contract.on_aws import Counted
from tests.contract.subjects import Transfer, persistently
from tests.sandbox import sandbox

MIB = 1 << 20
SMALLEST = 5 * MIB      # that S3 takes of a part which is not the last
PARTS = 4
BUCKET = on_aws.Import.place["bucket"]

Staged = staging.StagedFile
Spec = base.ImageSpec


@pytest.fixture(scope="module")
def subject(cloud: sandbox.Sandbox) -> Iterator[on_aws.Import]:
    with contextlib.ExitStack() as stack:
        yield on_aws.Import(cloud, stack)


@pytest.fixture(autouse=True)
def undisturbed(subject: on_aws.Import) -> Iterator[None]:
    yield
    subject.standin.reset()


@pytest.fixture
def provider(subject: on_aws.Import) -> door.AWS:
    return subject.provider()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts as small as can be."""
    monkeypatch.setattr(imports, "PART", SMALLEST)


@pytest.fixture(scope="module")
def large() -> bytes:
    return os.urandom(SMALLEST) * (PARTS - 1) + b"and a bit."


@pytest.fixture
def in_parts(tmp_path: pathlib.Path, large: bytes, small: None) -> Staged:
    return subjects.stage(tmp_path / "large", large)


def is_whole(subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str) -> None:
    """It goes on to its end; what is left is one image, of the right bytes."""
    blob = persistently(lambda: provider.upload(staged, spec, key, Transfer()))
    image_ref = provider.register(blob, spec, key)
    assert provider.verify(image_ref, staged) == "guest"
    assert subject.refs(key) == {image_ref}


# In parts


@pytest.mark.parametrize(
    ("size", "step"),
    [
        (1, imports.PART),
        (imports.PART * imports.MOST_PARTS, imports.PART),
        (imports.PART * imports.MOST_PARTS + 1, imports.PART + MIB),
        (imports.LARGEST, 525 * MIB),
    ],
)
def test_size_of_parts(size: int, step: int) -> None:
    """S3 takes parts of up to 5 GiB."""
    assert imports.part_size(size) == step
    assert -(-size // step) <= imports.MOST_PARTS


def test_in_parts(
    subject: on_aws.Import, provider: door.AWS, in_parts: Staged, large: bytes, spec: Spec, key: str
) -> None:
    made, transfer = Counted(subject), Transfer()
    blob = provider.upload(in_parts, spec, key, transfer)
    assert made["s3:UploadPart"] == PARTS
    assert (made["ec2:ImportSnapshot"], made["s3:CompleteMultipartUpload"]) == (1, 1)
    half = in_parts.size // 2
    assert {SMALLEST // 2, SMALLEST, half, in_parts.size} <= set(transfer.told)
    assert transfer.told == sorted(transfer.told)
    image_ref = provider.register(blob, spec, key)
    assert subject.read(image_ref) == large
    assert subject.refs(key) == {image_ref}


def _upload(*args: Any) -> None:
    """In a process of its own, until two parts are there: then it is killed."""
    place, credential, staged, spec, key = args
    one_by_one = pace.Pace(1)
    imports.PART = SMALLEST
    pace.Pace = lambda: one_by_one  # type: ignore[assignment, misc]
    on_aws.configure()

    class Doomed(Transfer):
        def progress(self, bytes_done: int) -> None:
            if bytes_done >= SMALLEST:
                os.kill(os.getpid(), signal.SIGKILL)

    door.AWS(place, credential).upload(staged, spec, key, Doomed())


def test_killed_between_parts(
    subject: on_aws.Import, provider: door.AWS, in_parts: Staged, spec: Spec, key: str
) -> None:
    """Those that were there are not sent again."""
    made = Counted(subject)
    place, credential = provider._place, subject.credential("owner")
    child = multiprocessing.get_context("spawn").Process(
        target=_upload, args=(place, credential, in_parts, spec, key)
    )
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    (upload,) = subject.uploads(key)
    assert subject.refs(key) == {upload["Key"]}
    sent = made["s3:UploadPart"]
    assert 2 <= sent < PARTS
    listed = subject.s3.list_parts(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])["Parts"]
    is_whole(subject, provider, in_parts, spec, key)
    assert made["s3:UploadPart"] == sent + PARTS - len(listed)
    assert made["s3:CreateMultipartUpload"] == made["ec2:ImportSnapshot"] == 1


def test_what_is_there_of_other_bytes_is_sent_again(
    subject: on_aws.Import, provider: door.AWS, in_parts: Staged, spec: Spec, key: str
) -> None:
    """And the oldest upload is the one that goes on."""
    where = {"Bucket": BUCKET, "Key": f"ciming/{key}.raw"}
    first = subject.s3.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")["UploadId"]
    part = pathlib.Path(in_parts.path).read_bytes()[:SMALLEST]
    for number, body in ((1, part), (2, part[:-1] + b"?"), (PARTS + 1, b"more")):
        subject.s3.upload_part(
            **where, UploadId=first, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256"
        )
    made = Counted(subject)
    is_whole(subject, provider, in_parts, spec, key)
    assert made["s3:CreateMultipartUpload"] == 0
    assert made["s3:UploadPart"] == PARTS - 1


@pytest.mark.parametrize("kind", ["throttle", "500", "503", "reset", "lost"])
def test_a_part_that_fails_is_sent_again(
    subject: on_aws.Import, provider: door.AWS, in_parts: Staged, spec: Spec, key: str, kind: str
) -> None:
    subject.standin.fault(kind, "UploadPart", times=2)
    made = Counted(subject)
    provider.upload(in_parts, spec, key, Transfer())
    assert made["s3:UploadPart"] == PARTS + 2


def test_a_part_that_was_spoilt_is_noticed(
    subject: on_aws.Import, provider: door.AWS, in_parts: Staged, spec: Spec, key: str
) -> None:
    """Before the object is made; another attempt sends that part again."""
    subject.standin.fault("corrupt", "UploadPart")
    made = Counted(subject)
    with pytest.raises(exceptions.TransientProviderError, match="InvalidPart"):
        provider.upload(in_parts, spec, key, Transfer())
    is_whole(subject, provider, in_parts, spec, key)
    assert made["s3:UploadPart"] == PARTS + 1


# Answers that got lost


@pytest.mark.parametrize(
    "call",
    [
        *("s3:CreateMultipartUpload", "s3:CompleteMultipartUpload", "s3:DeleteObject"),
        *("ec2:ImportSnapshot", "ec2:CreateTags"),
    ],
)
def test_a_lost_answer_makes_no_second_copy(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str, call: str
) -> None:
    made = Counted(subject)
    before = {each["id"] for each in subject.standin.snapshots()}
    subject.standin.fault("lost", call.partition(":")[2])
    with pytest.raises(exceptions.TransientProviderError):
        provider.upload(staged, spec, key, Transfer())
    is_whole(subject, subject.provider(), staged, spec, key)
    assert made["s3:UploadPart"] == 1
    assert made["s3:CompleteMultipartUpload"] == made["ec2:ImportSnapshot"] == 1
    assert len({each["id"] for each in subject.standin.snapshots()} - before) == 1


def test_an_import_that_is_not_seen_yet_is_not_made_twice(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """AWS shows what was made just now after a while: then its token leads there."""
    subject.standin.fault("lost", "ImportSnapshot")
    with pytest.raises(exceptions.TransientProviderError):
        provider.upload(staged, spec, key, Transfer())
    monkeypatch.setattr(imports, "find", lambda *_: iter(()))
    is_whole(subject, subject.provider(), staged, spec, key)
    assert len(subject.tasks(key)) == 1


def test_a_snapshot_that_is_not_seen_yet(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    subject.standin.settings(consistency_seconds=1)
    blob = provider.upload(staged, spec, key, Transfer())
    assert subject.refs(key) == {blob}


@pytest.mark.parametrize("kind", ["throttle", "503", "reset"])
def test_looks_that_fail(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str, kind: str
) -> None:
    """While AWS imports, which may take hours: that is no attempt that failed."""
    subject.standin.settings(import_seconds=1.0)
    subject.standin.fault(kind, "DescribeImportSnapshotTasks", times=5, after=2)
    provider.upload(staged, spec, key, Transfer())


# Imports that fail


def test_an_import_that_fails_says_why_and_is_made_again(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    subject.standin.fault("fail", "ImportSnapshot")
    with pytest.raises(exceptions.TransientProviderError, match="internal error has occurred") as caught:
        provider.upload(staged, spec, key, Transfer())
    (task,) = subject.tasks(key)
    assert task["ImportTaskId"] in caught.value.detail
    made = Counted(subject)
    is_whole(subject, provider, staged, spec, key)
    assert len(subject.tasks(key)) == 2
    assert made["s3:UploadPart"] == 0, "the object was still there"


def test_earlier_imports_that_are_not_listed_any_more(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """Their tokens lead to them still: so the one that would be next was used already."""
    known: list[str] = []
    for _ in range(2):
        subject.standin.fault("fail", "ImportSnapshot")
        with pytest.raises(exceptions.TransientProviderError):
            provider.upload(staged, spec, key, Transfer())
        known += [each for each in map(_id, subject.tasks(key)) if each not in known]
    find = imports.find
    monkeypatch.setattr(
        imports, "find", lambda *args: (each for each in find(*args) if _id(each) != known[0])
    )
    is_whole(subject, provider, staged, spec, key)
    assert len(subject.tasks(key)) == 3


def _id(task: Mapping[str, Any]) -> str:
    return str(task["ImportTaskId"])


def test_another_key_than_an_earlier_import_had(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """A token is for one wish only."""
    subject.standin.fault("fail", "ImportSnapshot")
    with pytest.raises(exceptions.TransientProviderError):
        provider.upload(staged, spec, key, Transfer())
    monkeypatch.setattr(imports, "find", lambda *_: iter(()))
    arn = subject.standin.make_key()
    blob = subject.at("owner", kms_key=arn).upload(staged, spec, key, Transfer())
    assert [each["key"] for each in subject.standin.snapshots() if each["id"] == blob] == [arn]


def test_too_many_imports_at_a_time(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """The object is there already: others come to their ends, or at last it is told."""
    subject.standin.fault("quota", "ImportSnapshot", times=3)
    is_whole(subject, provider, staged, spec, key)
    provider.discard(key)
    monkeypatch.setattr(snapshots, "ROOM_SECONDS", 0.5)
    subject.standin.fault("quota", "ImportSnapshot", times=10**6)
    with pytest.raises(exceptions.ProviderError, match="ImportSnapshot") as refused:
        provider.upload(staged, spec, key, Transfer())
    assert refused.value.code == "cloud.quota_exceeded"


def test_an_import_that_fails_for_good(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    arn = subject.standin.make_key()
    subject.standin.enable_key(arn, False)
    encrypted = subject.at("owner", kms_key=arn)
    with pytest.raises(exceptions.ProviderError, match="ClientError") as caught:
        encrypted.upload(staged, spec, key, Transfer())
    assert not isinstance(caught.value, exceptions.TransientProviderError)
    subject.standin.enable_key(arn)
    blob = encrypted.upload(staged, spec, key, Transfer())
    assert [each["key"] for each in subject.standin.snapshots() if each["id"] == blob] == [arn]


@pytest.mark.parametrize("role", [{}, {"import_role": "another"}])
def test_without_the_role(
    subject: on_aws.Import, staged: Staged, spec: Spec, key: str, role: Mapping[str, str]
) -> None:
    """What to do is said; done, it goes on with the object that is there."""
    name = role.get("import_role", "vmimport")
    subject.standin.settings(vmimport=bool(role))
    with pytest.raises(exceptions.ProviderError, match=f"role {name}") as caught:
        subject.at("owner", **role).upload(staged, spec, key, Transfer())
    assert caught.value.code == "cloud.role_refused"
    assert imports.PERMISSIONS in caught.value.detail and caught.value.cloud_request_id
    subject.standin.settings(vmimport=True)
    made = Counted(subject)
    is_whole(subject, subject.provider(), staged, spec, key)
    assert made["s3:UploadPart"] == 0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("ClientError: Disk validation failed [Reason 403 Forbidden]", "cloud.role_refused"),
        ("ClientError: Disk validation failed [Unsupported specified file format]", "image.not_active"),
        ("User Cancelled", "image.not_active"),
        (None, "cloud.unavailable"),
    ],
)
def test_what_became_of_an_import(provider: door.AWS, said: str | None, code: str) -> None:
    for status in imports.FAILED:
        found = {"Status": status, "StatusMessage": said}
        error = imports._failure(provider._account, "import-snap-1", found, "vmimport")
        assert error.code == code and status in error.detail and (said or "") in error.detail
        assert isinstance(error, exceptions.TransientProviderError) == (said is None)


# Undone


class Running(Transfer):
    """Says stop as soon as an import runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = 0.0

    def alive(self) -> None:
        if "import" in (self.checkpoint or {}):
            self.stopped = time.monotonic()
            raise exceptions.Interrupted("Stop.")


def test_cancelled_while_the_import_runs(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    subject.standin.settings(import_seconds=30)
    transfer = Running()
    with pytest.raises(exceptions.Interrupted):
        provider.upload(staged, spec, key, transfer)
    assert time.monotonic() - transfer.stopped < 5
    (task,) = subject.tasks(key)
    assert subject.refs(key) == {task["ImportTaskId"], f"ciming/{key}.raw"}, "nothing is undone"
    began = time.monotonic()
    subject.provider().discard(key)
    assert time.monotonic() - began < 10
    (task,) = subject.tasks(key)
    assert task["SnapshotTaskDetail"]["Status"] in ("deleting", "deleted")
    assert not subject.refs(key)


@pytest.mark.parametrize("action", ["CreateMultipartUpload", "ImportSnapshot"])
def test_cancelled_before_there_was_an_answer(
    subject: on_aws.Import,
    provider: door.AWS,
    staged: Staged,
    spec: Spec,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
) -> None:
    """Who cancels hangs up. AWS makes it all the same, a moment later."""
    monkeypatch.setattr(snapshots, "SEEN_SECONDS", 6.0)
    before = {each["id"] for each in subject.standin.snapshots()}
    subject.standin.settings(import_seconds=60)
    subject.standin.fault("slow", action, seconds=3.0)
    ended = threading.Event()

    def hang_up() -> None:
        while not ended.wait(1.0):
            provider.hang_up()

    hanging_up = threading.Thread(target=hang_up)
    hanging_up.start()
    with pytest.raises(exceptions.TransientProviderError, match=f"{action} had no answer"):
        provider.upload(staged, spec, key, Transfer())
    ended.set()
    hanging_up.join()
    provider.discard(key)
    time.sleep(3.0)
    assert not subject.refs(key)
    assert {each["id"] for each in subject.standin.snapshots()} == before


def test_discard_of_a_snapshot_without_tags(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """Killed between an import's end and its tags."""
    before = {each["id"] for each in subject.standin.snapshots()}
    subject.standin.fault("denied", "CreateTags")
    with pytest.raises(exceptions.ProviderError) as caught:
        provider.upload(staged, spec, key, Transfer())
    assert caught.value.code == "cloud.forbidden"
    assert len({each["id"] for each in subject.standin.snapshots()} - before) == 1
    provider.discard(key)
    assert {each["id"] for each in subject.standin.snapshots()} == before
    assert not subject.refs(key)


def test_an_import_that_ends_before_it_is_cancelled(
    subject: on_aws.Import, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    before = {each["id"] for each in subject.standin.snapshots()}
    subject.standin.settings(import_seconds=0.5)
    with pytest.raises(exceptions.Interrupted):
        provider.upload(staged, spec, key, Running())
    cancel = imports._cancel

    def late(*args: Any) -> Any:
        while subject.tasks(key)[0]["SnapshotTaskDetail"]["Status"] == "active":
            time.sleep(0.05)
        return cancel(*args)

    monkeypatch.setattr(imports, "_cancel", late)
    provider.discard(key)
    assert {each["id"] for each in subject.standin.snapshots()} == before


@pytest.mark.parametrize("seconds", [1.5, 8])
def test_an_import_that_may_not_be_cancelled(
    subject: on_aws.Import,
    provider: door.AWS,
    staged: Staged,
    spec: Spec,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    """It may come to its end in time; if not, that is told, but its object does not stay."""
    monkeypatch.setattr(imports, "PATIENCE", 5)
    before = {each["id"] for each in subject.standin.snapshots()}
    subject.standin.settings(import_seconds=seconds)
    with pytest.raises(exceptions.Interrupted):
        provider.upload(staged, spec, key, Running())
    subject.standin.fault("denied", "CancelImportTask")
    told = seconds > imports.PATIENCE
    with pytest.raises(exceptions.ProviderError, match="CancelImp") if told else contextlib.nullcontext():
        provider.discard(key)
    assert not subject.objects(key)
    provider.discard(key)
    assert {each["id"] for each in subject.standin.snapshots()} == before


def test_discard_of_several_uploads(
    subject: on_aws.Import, provider: door.AWS, key: str
) -> None:
    where = {"Bucket": BUCKET, "Key": f"ciming/{key}.raw"}
    others = {"Bucket": BUCKET, "Key": f"ciming/{key}.raw.not-ours"}
    for _ in range(2):
        subject.s3.create_multipart_upload(**where)
    theirs = subject.s3.create_multipart_upload(**others)["UploadId"]
    subject.s3.put_object(**where, Body=b"whole")
    provider.discard(key)
    assert [each["UploadId"] for each in subject.uploads(key)] == [theirs]
    subject.s3.abort_multipart_upload(**others, UploadId=theirs)
    assert not subject.objects(key)


def test_no_version_of_an_object_stays(
    subject: on_aws.Import, staged: Staged, spec: Spec, key: str
) -> None:
    subject.s3.create_bucket(Bucket="versions")
    subject.s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):
        subject.s3.put_object(Bucket="versions", Key=f"ciming/{key}.raw", Body=b"earlier")
    subject.at("owner", bucket="versions").upload(staged, spec, key, Transfer())
    listed = subject.s3.list_object_versions(Bucket="versions")
    assert not listed.get("Versions") and not listed.get("DeleteMarkers")


def test_check_leaves_no_marker(subject: on_aws.Import) -> None:
    """In a bucket that keeps versions, as far as it may remove that."""
    subject.s3.create_bucket(Bucket="marked")
    subject.s3.put_bucket_versioning(Bucket="marked", VersioningConfiguration={"Status": "Enabled"})
    provider = subject.at("owner", bucket="marked")
    assert all(each.passed for each in verdicts(provider).values())
    assert not subject.s3.list_object_versions(Bucket="marked").get("DeleteMarkers")
    subject.standin.allow("owner", *USED)
    assert all(each.passed for each in verdicts(provider).values())
    subject.standin.reset()
    assert len(subject.s3.list_object_versions(Bucket="marked")["DeleteMarkers"]) == 1


# The bucket


def test_no_bucket(subject: on_aws.Import, staged: Staged, spec: Spec, key: str) -> None:
    provider = subject.at("owner", bucket="nowhere")
    with pytest.raises(exceptions.ProviderError, match="nowhere is not there") as caught:
        provider.check(staged)
    assert caught.value.code == "cloud.not_found"
    with pytest.raises(exceptions.ProviderError, match="NoSuchBucket"):
        provider.upload(staged, spec, key, Transfer())
    provider.discard(key)
    assert verdicts(provider)["bucket"].passed is False


def test_a_bucket_that_is_gone(
    subject: on_aws.Import, staged: Staged, spec: Spec, key: str
) -> None:
    subject.s3.create_bucket(Bucket="short-lived")
    provider = subject.at("owner", bucket="short-lived")
    subject.standin.settings(import_seconds=30)
    with pytest.raises(exceptions.Interrupted):
        provider.upload(staged, spec, key, Running())
    subject.s3.delete_object(Bucket="short-lived", Key=f"ciming/{key}.raw")
    subject.s3.delete_bucket(Bucket="short-lived")
    provider.discard(key)
    assert not subject.refs(key)


def test_a_bucket_elsewhere(subject: on_aws.Import, staged: Staged) -> None:
    there = subject.standin.client("s3", region=on_aws.OTHER_REGION)
    there.create_bucket(
        Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": on_aws.OTHER_REGION}
    )
    provider = subject.at("owner", bucket="elsewhere")
    with pytest.raises(exceptions.ProviderError, match=f"is in {on_aws.OTHER_REGION}") as caught:
        provider.check(staged)
    assert not isinstance(caught.value, exceptions.TransientProviderError)
    assert verdicts(provider)["bucket"].passed is False


def test_a_strangers_bucket(subject: on_aws.Import, staged: Staged) -> None:
    subject.standin.client("s3", "stranger").create_bucket(Bucket="theirs")
    account = subject.standin.accounts["owner"]["account_id"]
    with pytest.raises(exceptions.ProviderError, match=f"of account {account}") as caught:
        subject.at("owner", bucket="theirs").check(staged)
    assert caught.value.code == "cloud.forbidden"


def test_a_bucket_that_keeps_all(subject: on_aws.Import, staged: Staged) -> None:
    """Unless these keys may not know."""
    subject.s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    provider = subject.at("owner", bucket="locked")
    provider.check(staged)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    subject.s3.put_object_lock_configuration(
        Bucket="locked", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    with pytest.raises(exceptions.ProviderError, match="locked has a default retention"):
        provider.check(staged)
    assert verdicts(provider)["bucket"].passed is False
    subject.standin.allow("owner", *USED)
    provider.check(staged)


def test_larger_than_an_object(provider: door.AWS) -> None:
    size = imports.LARGEST + 1
    with pytest.raises(exceptions.ProviderError, match="ebs-direct") as caught:
        provider.check(staging.StagedFile("/nonexistent", "raw", size, size, {}))
    assert caught.value.code == "image.too_large"


def verdicts(provider: door.AWS) -> dict[str, base.Verdict]:
    return {each.check: each for each in provider.probe()}


@pytest.mark.parametrize(
    "missing",
    [
        *("ListBucket", "PutObject", "GetObject", "DeleteObject", "AbortMultipartUpload"),
        *("ListMultipartUploadParts", "ListBucketMultipartUploads"),
    ],
)
def test_probe_finds_what_is_not_allowed(
    subject: on_aws.Import, provider: door.AWS, missing: str
) -> None:
    """And leaves nothing, as far as it may remove it."""
    assert all(each.passed for each in verdicts(provider).values())
    assert not subject.objects("check")
    subject.standin.allow("owner", *USED - {f"s3:{missing}"})
    assert verdicts(provider)["bucket"].passed is False
    subject.standin.reset()
    assert bool(subject.objects("check")) == (missing == "AbortMultipartUpload")
    imports.clear(provider._bucket(), imports.object_name("check"), lambda: None)


USED = {
    *("s3:ListBucket", "s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"),
    *("s3:ListMultipartUploadParts", "s3:ListBucketMultipartUploads"),
    *("ec2:ImportSnapshot", "ec2:DescribeImportSnapshotTasks", "ec2:CancelImportTask", "ec2:CreateTags"),
    *("ec2:DescribeSnapshots", "ec2:DescribeImages", "ec2:RegisterImage", "ec2:DeregisterImage"),
    *("ec2:DeleteSnapshot", "ebs:ListSnapshotBlocks", "ebs:GetSnapshotBlock"),
}
"""The permissions that this route needs: the docs name them."""


def test_no_other_permission_is_needed(
    subject: on_aws.Import, in_parts: Staged, spec: Spec, key: str
) -> None:
    subject.standin.allow("owner", *USED)
    provider = subject.provider()
    assert all(each.passed for each in verdicts(provider).values())
    provider.check(in_parts)
    with pytest.raises(exceptions.Interrupted):
        provider.upload(in_parts, spec, key, Transfer(stop_at=5))
    blob = provider.upload(in_parts, spec, key, Transfer())
    image_ref = provider.register(blob, spec, key)
    assert provider.verify(image_ref, in_parts) == "guest"
    provider.discard(key)
    subject.standin.settings(import_seconds=30)
    with pytest.raises(exceptions.Interrupted):
        provider.upload(in_parts, spec, key, Running())
    provider.discard(key)
    assert not subject.refs(key)
