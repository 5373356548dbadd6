# SPDX-License-Identifier: Apache-2.0
"""What is true of AWS's route ebs-direct only: what is refused, in which words, and what goes on."""

import contextlib
import dataclasses
import http.server
import multiprocessing
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ciming import disk_image, exceptions, staging
from ciming.providers import base, pace
from ciming.providers.aws import account as aws_account
from ciming.providers.aws import images, snapshots
from ciming.providers.aws import provider as door
from tests.contract import on_aws, subjects
from tests.contract.on_aws import Counted
from tests.contract.subjects import Transfer, persistently
from tests.sandbox import sandbox

BLOCK = disk_image.BLOCK
MANY = 96       # blocks: three times as many as are on their way at a time
SHARED = "444455556666"
Staged = staging.StagedFile
Spec = base.ImageSpec

NEEDED = {
    "ebs": (
        *("StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "ListSnapshotBlocks"),
        "GetSnapshotBlock",
    ),
    "ec2": (
        *("DescribeSnapshots", "DescribeImages", "RegisterImage", "DeregisterImage", "DeleteSnapshot"),
        *("ModifyImageAttribute", "ModifySnapshotAttribute", "CreateTags"),
    ),
}
"""Actions that the docs name."""
ALL_NEEDED = [f"{service}:{action}" for service, actions in NEEDED.items() for action in actions]
UNSEEN = ("ec2:CreateTags",)
"""That are asked for within another action."""
MUTATIONS = (
    *("StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "RegisterImage"),
    *("ModifySnapshotAttribute", "ModifyImageAttribute", "DeregisterImage"),
)
KINDS = ("throttle", "500", "503", "reset", "lost")
PASSING = [
    (action, kind)
    for action in MUTATIONS
    for kind in KINDS
    if "CIMING_TEST_ALL" in os.environ or kind == "lost" or action == "PutSnapshotBlock"
]
"""All calls and kinds, or one row of each."""


@pytest.fixture(scope="module")
def subject(cloud: sandbox.Sandbox) -> Iterator[on_aws.AWS]:
    with contextlib.ExitStack() as stack:
        yield on_aws.AWS(cloud, stack)


@pytest.fixture(autouse=True)
def undisturbed(subject: on_aws.AWS, key: str) -> Iterator[None]:
    """When the key's traces are removed, all goes well again."""
    yield
    subject.standin.reset()


@pytest.fixture
def provider(subject: on_aws.AWS) -> door.AWS:
    return subject.at("owner", share_with=[SHARED])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """Blocks that all differ, with a hole in their midst."""
    half = os.urandom(MANY // 2 * BLOCK)
    data = half + bytes(BLOCK * 3) + half[::-1]
    return subjects.stage(tmp_path_factory.mktemp("many") / "staged", data)


def bring(provider: door.AWS, staged: Staged, spec: Spec, key: str) -> str:
    """The ref of the image, which is proven."""
    transfer = Transfer()
    blob = persistently(lambda: provider.upload(staged, spec, key, transfer))
    image_ref = persistently(lambda: provider.register(blob, spec, key))
    assert persistently(lambda: provider.verify(image_ref, staged)) == "guest"
    return image_ref


# Who may not


def test_wrong_key(subject: on_aws.AWS, provider: door.AWS, staged: Staged) -> None:
    for changed in ("access_key_id", "secret_access_key"):
        keys = {**subject.credential("owner"), changed: "AKIAWRONGWRONGWRONG0"}
        with pytest.raises(exceptions.CredentialRefused, match="amazon: ec2:DescribeSnapshots") as refused:
            door.AWS(provider._place, keys).check(staged)
        assert refused.value.cloud_request_id
        unknown = changed == "access_key_id"
        assert ("is us-east-1 enabled for their account" in refused.value.detail) == unknown
        assert not any(secret in str(refused.value) for secret in keys.values())


def test_key_that_was_taken_back(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """EC2 calls it as it calls what is another account's: the image is not gone for that."""
    image_ref = bring(provider, staged, spec, key)
    keys = {**subject.credential("owner"), "access_key_id": "AKIAWRONGWRONGWRONG0"}
    theirs = door.AWS(provider._place, keys)
    for call in (
        lambda: theirs.show(image_ref),
        lambda: theirs.describe(image_ref),
        lambda: theirs.verify(image_ref, staged),
        lambda: theirs.update(image_ref, base.Changes(name="other")),
        lambda: theirs.delete(image_ref),
    ):
        with pytest.raises(exceptions.CredentialRefused, match="AuthFailure"):
            call()


class _NotAWS(http.server.BaseHTTPRequestHandler):
    """Repeats what it is told, as a proxy's page may."""

    def _answer(self) -> None:
        said = "".join(f"{name}: {value}" for name, value in self.headers.items())
        body = f"<!DOCTYPE html><p>{said}<br></html>".encode()
        self.send_response(200 if self.path.startswith("/snapshots") else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        pass


def test_something_that_is_not_aws(
    subject: on_aws.AWS, staged: Staged, spec: Spec, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answer is in no text: ours is in it."""
    caplog.set_level("DEBUG", "ciming")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _NotAWS) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        keys = {**subject.credential("owner"), "session_token": "a-session-of-somebodys"}
        theirs = door.AWS({**subject.at("owner")._place, "endpoint_url": url}, keys)
        by_role = door.AWS(theirs._place, {**keys, "role_arn": subject.standin.role.arn})
        for each in (theirs, by_role):
            with pytest.raises(exceptions.TransientProviderError, match="endpoint_url right") as refused:
                each.check(staged)
            assert refused.value.code == "cloud.bad_answer"
            assert refused.value.__cause__ is None and refused.value.__suppress_context__
            assert not any(secret in str(refused.value) + caplog.text for secret in keys.values())
        server.shutdown()


def test_session_that_is_over(subject: on_aws.AWS, provider: door.AWS, staged: Staged) -> None:
    role = {"RoleArn": subject.standin.role.arn, "ExternalId": subject.standin.role.external_id}
    made = subject.standin.client("sts").assume_role(**role, RoleSessionName="test")["Credentials"]
    names = ("access_key_id", "secret_access_key", "session_token")
    values = (made[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"))
    theirs = door.AWS(provider._place, dict(zip(names, values, strict=True)))
    theirs.check(staged)
    subject.standin.expire_sessions()
    with pytest.raises(exceptions.CredentialRefused, match="expired"):
        theirs.check(staged)


def test_role_that_is_somebody_elses(subject: on_aws.AWS, staged: Staged) -> None:
    """Of a project that has learned the ARN: its own external id is not what the role demands."""
    keys = {**on_aws.keys(subject.standin, "broker"), "role_arn": subject.standin.role.arn}
    place = {**subject.at("owner")._place, "project": "another"}
    with pytest.raises(exceptions.ProviderError, match="external id ciming-another") as refused:
        door.AWS(place, keys).check(staged)
    assert refused.value.code == "cloud.role_refused"


def test_what_is_needed(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """No more than the docs say."""
    subject.standin.allow("owner", *ALL_NEEDED)
    provider.check(staged)
    bring(provider, staged, spec, key)
    provider.discard(key)
    page = pathlib.Path(__file__).parents[2] / "doc/source/user/aws.rst"
    assert not [action for actions in NEEDED.values() for action in actions if action not in page.read_text()]


@pytest.mark.parametrize("missing", [each for each in ALL_NEEDED if each not in UNSEEN])
def test_what_is_missing_is_named(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, missing: str
) -> None:
    subject.standin.allow("owner", *(each for each in ALL_NEEDED if each != missing))

    def everything() -> None:
        provider.check(staged)
        bring(provider, staged, spec, key)
        provider.discard(key)

    with pytest.raises(exceptions.ProviderError, match=f"amazon: {missing} was refused") as refused:
        everything()
    assert refused.value.code == "cloud.forbidden"
    assert not isinstance(refused.value, exceptions.TransientProviderError)


@pytest.mark.parametrize(
    "missing", ["ebs:ListSnapshotBlocks", "ebs:GetSnapshotBlock", "ec2:RegisterImage"]
)
def test_what_comes_last_is_asked_for_first(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, missing: str
) -> None:
    """Before any block is put. What was begun is found, also where EC2 hears of it late."""
    made = Counted(subject)
    subject.standin.settings(consistency_seconds=1.0)
    subject.standin.allow("owner", *(each for each in ALL_NEEDED if each != missing))
    with pytest.raises(exceptions.ProviderError, match=f"amazon: {missing} was refused") as refused:
        provider.check(staged)
        provider.upload(staged, spec, key, Transfer())
    assert (refused.value.code, made["puts"]) == ("cloud.forbidden", 0)
    provider.discard(key)
    assert not subject.refs(key)


def test_delete_that_would_leave_the_snapshot(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """AWS would call it a success, and nothing would lead to the snapshot any more."""
    before = {each["id"] for each in subject.standin.snapshots()}
    image_ref = bring(provider, staged, spec, key)
    subject.standin.allow("owner", *(each for each in ALL_NEEDED if each != "ec2:DeleteSnapshot"))
    with pytest.raises(exceptions.ProviderError, match="ec2:DeleteSnapshot was refused") as refused:
        provider.delete(image_ref)
    assert refused.value.code == "cloud.forbidden" and provider.show(image_ref)
    subject.standin.allow("owner", *ALL_NEEDED)
    provider.delete(image_ref)
    assert provider.show(image_ref) is None
    assert {each["id"] for each in subject.standin.snapshots()} == before


def test_discard_that_leaves_the_snapshot(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """AWS calls it a success. The next one finds it by its tag."""
    before = {each["id"] for each in subject.standin.snapshots()}
    bring(provider, staged, spec, key)
    subject.standin.allow("owner", *(each for each in ALL_NEEDED if each != "ec2:DeleteSnapshot"))
    with pytest.raises(exceptions.ProviderError, match=r"its snapshot snap-\w+ is still there") as refused:
        provider.discard(key)
    assert refused.value.code == "cloud.forbidden" and "ec2:DeleteSnapshot" in str(refused.value)
    subject.standin.allow("owner", *ALL_NEEDED)
    provider.discard(key)
    assert {each["id"] for each in subject.standin.snapshots()} == before


def test_delete_while_the_snapshot_is_in_use(
    subject: on_aws.AWS,
    provider: door.AWS,
    staged: Staged,
    spec: Spec,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its image, which is gone in a moment; if it takes longer, the next delete finds it."""
    before = {each["id"] for each in subject.standin.snapshots()}
    image_ref = bring(provider, staged, spec, key)
    delete, refused = snapshots.delete, 2

    def in_use(account: Any, snapshot_id: str) -> None:
        nonlocal refused
        refused -= 1
        if refused >= 0:
            more = {"name": "InvalidSnapshot.InUse", "reason": "", "code": "cloud.refused"}
            raise aws_account.Refusal("In use.", cloud_request_id=None, **more)
        delete(account, snapshot_id)

    monkeypatch.setattr(snapshots, "delete", in_use)
    call = provider._account.call

    def leaving(service: str, action: str, **more: Any) -> Any:
        if action != "DeregisterImage":
            return call(service, action, **more)
        snapshot = subject._snapshot(image_ref)
        call(service, action, **{**more, "DeleteAssociatedSnapshots": False})
        return {"DeleteSnapshotResults": [{"SnapshotId": snapshot, "ReturnCode": "client-error"}]}

    monkeypatch.setattr(provider._account, "call", leaving)
    provider.delete(image_ref)
    assert {each["id"] for each in subject.standin.snapshots()} == before

    image_ref, refused = bring(provider, staged, spec, key), images.LOOKS
    with pytest.raises(exceptions.ProviderError, match=r"its snapshot snap-\w+ is still there"):
        provider.delete(image_ref)
    assert provider.show(image_ref) is None
    monkeypatch.undo()
    provider.delete(image_ref)
    assert {each["id"] for each in subject.standin.snapshots()} == before


def test_delete_of_what_is_another_accounts(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """It is not gone when AWS does not let us."""
    image_ref = bring(provider, staged, spec, key)
    with pytest.raises(exceptions.ProviderError, match="ec2:DeregisterImage was refused") as refused:
        subject.at("stranger").delete(image_ref)
    assert refused.value.code == "cloud.forbidden"
    assert provider.show(image_ref)


# What there is not


def test_region_that_is_not(subject: on_aws.AWS, staged: Staged) -> None:
    """Nothing answers there."""
    with pytest.raises(exceptions.TransientProviderError, match="Is there a region xx-nowhere-1"):
        subject.at("owner", region="xx-nowhere-1", endpoint_url=None).check(staged)
    with pytest.raises(exceptions.TransientProviderError, match="no answer"):
        subject.at("owner", region="xx-nowhere-1").check(staged)


def test_region_that_is_not_enabled(subject: on_aws.AWS, staged: Staged) -> None:
    with pytest.raises(exceptions.ProviderError, match="amazon: ec2:DescribeSnapshots was refused"):
        subject.at("owner", region="ap-east-1").check(staged)


def test_larger_than_any_volume(provider: door.AWS, staged: Staged) -> None:
    with pytest.raises(exceptions.ProviderError, match="larger than any volume") as refused:
        provider.check(dataclasses.replace(staged, virtual_size=door.LARGEST["gp3"] + 1))
    assert refused.value.code == "image.too_large"
    provider.check(dataclasses.replace(staged, virtual_size=door.LARGEST["gp3"]))


def test_larger_than_the_volumes_that_are_wanted(
    subject: on_aws.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """Before anything is made; be it the disk, or what a machine needs at least."""
    provider = subject.at("owner", volume_type="standard")
    with pytest.raises(exceptions.ProviderError, match="volume of type standard"):
        provider.check(dataclasses.replace(staged, virtual_size=(1 << 40) + 1))
    with pytest.raises(exceptions.ProviderError, match="volume of type standard"):
        provider.upload(staged, dataclasses.replace(spec, min_disk=1025), key, Transfer())
    assert not subject.refs(key)


@pytest.mark.parametrize("said", [{}, {"architecture": "s390x"}])
def test_architecture_that_is_unknown(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, key: str, said: dict[str, str]
) -> None:
    """Before anything is made."""
    with pytest.raises(exceptions.ProviderError, match="--property architecture=VALUE") as refused:
        provider.upload(staged, subjects.new_spec(properties=said), key, Transfer())
    assert refused.value.code == "image.architecture_unknown"
    assert not subject.refs(key)


@pytest.mark.parametrize(
    "said", [{"hw_tpm_version": "2.0"}, {"hw_tpm_version": "2.0", "hw_firmware_type": "uefi"}], ids=len
)
def test_with_a_tpm(subject: on_aws.AWS, staged: Staged, key: str, said: dict[str, str]) -> None:
    """Which AWS has only beside UEFI."""
    spec = subjects.new_spec(properties={"architecture": "x86_64", **said})
    made = the_image(subject, bring(subject.at("owner"), staged, spec, key))
    assert (made["BootMode"], made["TpmSupport"]) == ("uefi", "v2.0")


def the_image(subject: on_aws.AWS, image_ref: str) -> dict[str, Any]:
    """As its owner sees it."""
    (found,) = subject.standin.client("ec2").describe_images(ImageIds=[image_ref])["Images"]
    assert isinstance(found, dict)
    return found


def test_what_is_registered(subject: on_aws.AWS, staged: Staged, key: str) -> None:
    """All that the Cloud and the image say; others may use it, and copy what it is made of."""
    own = ["team=images", "Name=said-before-it-was-refused"]
    more = {"imds_v2": True, "tags": own, "volume_type": "gp2", "share_with": [SHARED]}
    provider = subject.at("owner", **more)
    spec = subjects.new_spec(
        properties={"architecture": "aarch64", "os_distro": "debian"}, min_disk=3, tags=("stable",)
    )
    image_ref = bring(provider, staged, spec, key)
    made = the_image(subject, image_ref)
    said = {"Name": spec.name, "Architecture": "arm64", "BootMode": "uefi", "VirtualizationType": "hvm"}
    said |= {"SriovNetSupport": "simple", "ImdsSupport": "v2.0", "RootDeviceName": "/dev/sda1"}
    assert {name: made[name] for name in said} == said
    assert made["EnaSupport"] and not made["Public"]
    (device,) = made["BlockDeviceMappings"]
    disk = device["Ebs"]
    assert (disk["VolumeType"], disk["VolumeSize"], disk["DeleteOnTermination"]) == ("gp2", 3, True)
    tags = {each["Key"]: each["Value"] for each in made["Tags"]}
    marks = {"ciming:image": spec.image_id, "ciming:target": key, "Name": spec.name, "team": "images"}
    assert tags == {**marks, "os_distro": "debian", "stable": ""}
    ec2 = subject.standin.client("ec2")
    (snapshot,) = ec2.describe_snapshots(SnapshotIds=[disk["SnapshotId"]])["Snapshots"]
    assert {each["Key"]: each["Value"] for each in snapshot["Tags"]} == marks
    launch = ec2.describe_image_attribute(ImageId=image_ref, Attribute="launchPermission")
    assert launch["LaunchPermissions"] == [{"UserId": SHARED}]
    volume = ec2.describe_snapshot_attribute(
        SnapshotId=disk["SnapshotId"], Attribute="createVolumePermission"
    )
    assert volume["CreateVolumePermissions"] == [{"UserId": SHARED}]


def test_key_that_is_disabled(subject: on_aws.AWS, staged: Staged, spec: Spec, key: str) -> None:
    arn = subject.standin.make_key()
    subject.standin.enable_key(arn, False)
    provider = subject.at("owner", kms_key=arn)
    with pytest.raises(exceptions.ProviderError, match="ebs:StartSnapshot was refused") as refused:
        provider.upload(staged, spec, key, Transfer())
    assert not isinstance(refused.value, exceptions.TransientProviderError)
    assert not subject.refs(key)
    verdicts = {each.check: each.passed for each in provider.probe()}
    assert (verdicts["login"], verdicts["create"]) == (True, False)
    subject.standin.enable_key(arn)
    assert all(each.passed for each in provider.probe())


@pytest.mark.parametrize(
    ("missing", "check"),
    [
        ("ebs:StartSnapshot", "create"),
        ("ebs:PutSnapshotBlock", "create"),
        ("ebs:ListSnapshotBlocks", "create"),
        ("ebs:GetSnapshotBlock", "create"),
        ("ec2:DeleteSnapshot", "create"),
        ("ec2:RegisterImage", "register"),
        ("ec2:DescribeImages", "read"),
    ],
)
def test_check_names_what_is_not_allowed(
    subject: on_aws.AWS, provider: door.AWS, missing: str, check: str
) -> None:
    """And leaves nothing, as far as it may remove it."""
    before = subject.standin.snapshots()
    subject.standin.allow("owner", *(each for each in ALL_NEEDED if each != missing))
    failed = {each.check: each.message for each in provider.probe() if each.passed is False}
    assert check in failed and missing in failed[check]
    left = [each for each in subject.standin.snapshots() if each not in before]
    assert len(left) == (missing == "ec2:DeleteSnapshot")
    subject.standin.reset()
    for each in left:
        snapshots.delete(provider._account, each["id"])


def test_check_before_ec2_has_heard_of_it(subject: on_aws.AWS, provider: door.AWS) -> None:
    """What it starts does not stay."""
    before = subject.standin.snapshots()
    subject.standin.settings(consistency_seconds=1.0)
    assert all(each.passed for each in provider.probe())
    assert subject.standin.snapshots() == before


def test_encrypted(subject: on_aws.AWS, staged: Staged, spec: Spec, key: str) -> None:
    arn = subject.standin.make_key()
    for named in (arn, arn.rpartition("/")[2]):
        provider, each = subject.at("owner", kms_key=named), subjects.new_key()
        bring(provider, staged, dataclasses.replace(spec, name=each), each)
        made = [one for one in subject.standin.snapshots() if one["tags"].get("ciming:target") == each]
        assert [one["key"] for one in made] == [arn]
        provider.discard(each)


def test_shared_where_aws_encrypts_all(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """With a key of AWS's own, which others can not use: told before any byte, where that may be known."""
    subject.standin.settings(encryption_by_default=True)
    made = Counted(subject)
    for _ in range(2):
        with pytest.raises(exceptions.ProviderError, match=r"own key.*as the Cloud's kms_key") as refused:
            provider.upload(staged, spec, key, Transfer())
        assert refused.value.code == "cloud.refused"
        assert not isinstance(refused.value, exceptions.TransientProviderError)
    assert made["puts"] == 0
    (check,) = (each for each in provider.probe() if not each.passed)
    assert check.check == "create" and "share_with" in check.message
    provider.discard(key)
    assert not subject.refs(key)

    bring(subject.at("owner"), staged, spec, key)
    provider.discard(key)
    bring(subject.at("owner", kms_key=subject.standin.make_key(), share_with=[SHARED]), staged, spec, key)
    provider.discard(key)
    subject.standin.allow("owner", *ALL_NEEDED)
    with pytest.raises(exceptions.ProviderError, match="ModifySnapshotAttribute was refused"):
        bring(provider, staged, spec, key)


@pytest.mark.parametrize("action", ["StartSnapshot", "RegisterImage"])
def test_quota(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, action: str
) -> None:
    subject.standin.fault("quota", action, times=100)
    with pytest.raises(exceptions.ProviderError, match=action) as refused:
        bring(provider, staged, spec, key)
    assert refused.value.code == "cloud.quota_exceeded"
    provider.discard(key)
    assert not subject.refs(key)


def test_too_many_pending_snapshots(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """Of an account's 100, others come to their ends."""
    subject.standin.fault("quota", "StartSnapshot")
    with pytest.raises(exceptions.TransientProviderError, match="limit") as refused:
        provider.upload(staged, spec, key, Transfer())
    assert refused.value.code == "cloud.quota_exceeded"
    assert provider.upload(staged, spec, key, Transfer())


def test_name_that_is_taken(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """By something that is not ours."""
    other = subjects.new_key()
    bring(provider, staged, spec, other)
    image_ref = bring(provider, staged, spec, key)
    image = provider._show(image_ref)
    assert image and image["Name"] == f"{spec.name} {key[:8]}"
    provider.discard(other)


# What AWS does not do at once


@pytest.mark.parametrize(("action", "kind"), PASSING)
def test_what_passes(
    subject: on_aws.AWS,
    provider: door.AWS,
    staged: Staged,
    spec: Spec,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    kind: str,
) -> None:
    """Done again, and still once."""
    monkeypatch.setattr(snapshots, "SEEN_SECONDS", 6.0)
    subject.standin.fault(kind, action)
    before = {each["id"] for each in subject.standin.snapshots()}
    image_ref = bring(provider, staged, spec, key)
    assert subject.refs(key) == {image_ref}
    assert {each["id"] for each in subject.standin.snapshots()} - before == {subject._snapshot(image_ref)}
    persistently(lambda: provider.discard(key))
    assert {each["id"] for each in subject.standin.snapshots()} == before


@pytest.mark.parametrize("seconds", [1.5, 3.0])
def test_ebs_that_has_not_heard_of_it(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, seconds: float
) -> None:
    """Of what it began, or what EC2 calls complete: then it is neither gone nor begun again."""
    subject.standin.settings(ebs_seconds=seconds, consistency_seconds=seconds / 2)
    made = Counted(subject)
    before = {each["id"] for each in subject.standin.snapshots()}
    transfer = Transfer()
    blob = persistently(lambda: provider.upload(staged, spec, key, transfer))
    assert {each["id"] for each in subject.standin.snapshots()} - before == {blob}
    image_ref = provider.register(blob, spec, key)
    assert provider.verify(image_ref, staged) == "guest"
    assert made["ebs:StartSnapshot"] == 1
    assert subject.refs(key) == {image_ref}


def test_check_before_ebs_has_heard_of_it(subject: on_aws.AWS, provider: door.AWS) -> None:
    before = subject.standin.snapshots()
    subject.standin.settings(ebs_seconds=2.0)
    assert {each.check: each.message for each in provider.probe() if not each.passed} == {}
    assert subject.standin.snapshots() == before


def test_ebs_that_never_hears_of_it(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """As long as EC2 shows it, that is no reason to remove what is whole."""
    image_ref = bring(provider, staged, spec, key)
    subject.standin.settings(ebs_seconds=600)
    monkeypatch.setattr(snapshots, "KNOWN_SECONDS", 1.0)
    with pytest.raises(exceptions.TransientProviderError, match="does not exist"):
        provider.verify(image_ref, staged)


@pytest.mark.parametrize("kind", ["throttle", "500", "reset"])
def test_list_of_blocks_that_fails(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, kind: str
) -> None:
    """One page is no reason to read all again."""
    image_ref = bring(provider, staged, spec, key)
    subject.standin.settings(page_blocks=1)
    subject.standin.fault(kind, "ListSnapshotBlocks", times=3, after=1)
    made = Counted(subject)
    assert provider.verify(image_ref, staged) == "guest"
    assert made["ebs:GetSnapshotBlock"] == staged.size // BLOCK + 1


def test_what_was_deleted_is_begun_anew(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """At once, where it was begun so long ago that AWS must have heard of it."""
    first = provider._start(staged, spec, key)["SnapshotId"]
    snapshots.delete(provider._account, first)
    monkeypatch.setattr(snapshots, "KNOWN_SECONDS", 120.0)
    monkeypatch.setattr(snapshots, "_age", lambda made: 121.0 if made["SnapshotId"] == first else 0.0)
    began = time.monotonic()
    assert provider._start(staged, spec, key)["SnapshotId"] != first
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("kind", ["throttle", "503", "reset"])
def test_looks_that_fail(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, kind: str
) -> None:
    """While AWS is at work, which may take hours: that is no attempt that failed."""
    subject.standin.settings(completion_seconds=1.0, image_seconds=1.0)
    subject.standin.fault(kind, "DescribeSnapshots", times=5, after=3)
    blob = provider.upload(staged, spec, key, Transfer())
    subject.standin.fault(kind, "DescribeImages", times=5, after=2)
    assert provider.verify(provider.register(blob, spec, key), staged) == "guest"


def test_looks_that_fail_for_good(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """Who does not want it any more is asked all the same."""
    blob = provider.upload(staged, spec, key, Transfer())
    subject.standin.fault("503", "DescribeSnapshots", times=10**6)
    with pytest.raises(exceptions.TransientProviderError, match="DescribeSnapshots"):
        snapshots.wait(provider._account, blob, Transfer(1).alive)      # it may not have begun well, either
    subject.standin.clear_faults()
    subject.standin.settings(image_seconds=60)
    subject.standin.fault("503", "DescribeImages", times=10**6, after=2)
    with pytest.raises(exceptions.Interrupted):
        provider.register(blob, spec, key, Transfer(5).alive)
    monkeypatch.setattr(snapshots, "OUTAGE_SECONDS", 0.5)
    subject.standin.clear_faults()
    subject.standin.fault("503", "DescribeImages", times=10**6, after=2)
    with pytest.raises(exceptions.TransientProviderError, match="DescribeImages"):
        provider.register(blob, spec, key)
    subject.standin.reset()


@pytest.mark.parametrize(
    "settings",
    [{"consistency_seconds": 1.0}, {"sparse_pages": True}, {"page_blocks": 1, "page_token_seconds": 0}],
    ids=str,
)
def test_lists_of_aws(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, settings: dict[str, Any]
) -> None:
    """They may be late, or have empty pages, or tokens that live no longer than it takes to read a page."""
    subject.standin.settings(**settings)
    image_ref = bring(provider, staged, spec, key)
    assert subject.refs(key) == {image_ref}
    assert provider.describe(image_ref)
    read = b"".join(provider.download(image_ref, 0))
    subject.standin.settings(page_blocks=10_000, page_token_seconds=3600, sparse_pages=False)
    assert read == b"".join(provider.download(image_ref, 0))


def test_looks_that_are_late(
    provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes are there: one look does not end it."""
    transfer = Transfer()
    blob = provider.upload(staged, spec, key, transfer)
    late(monkeypatch, snapshots)
    image_ref = provider.register(blob, spec, key)
    late(monkeypatch, snapshots)
    late(monkeypatch, images)
    assert provider.verify(image_ref, staged) == "guest"


def late(monkeypatch: pytest.MonkeyPatch, of: Any) -> None:
    """Its next look sees nothing."""
    show, left = of.show, [1]
    monkeypatch.setattr(of, "show", lambda *args: show(*args) if not left else left.clear())


def test_what_is_complete_has_a_checksum(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """AWS holds it against that of all blocks; it does not demand one."""
    subject.standin.settings(checksum_needed=True)
    bring(provider, staged, spec, key)


def test_throttled(subject: on_aws.AWS, provider: door.AWS, many: Staged, spec: Spec, key: str) -> None:
    """It goes on at the pace that AWS lets it."""
    subject.standin.settings(puts_per_second=24)
    made = Counted(subject)
    image_ref = bring(provider, many, spec, key)
    assert made["puts"] == MANY
    assert made["ebs:PutSnapshotBlock"] > MANY
    assert subject.refs(key) == {image_ref}


@pytest.mark.parametrize("kind", ["throttling", "concurrent"])
@pytest.mark.parametrize("action", ["StartSnapshot", "PutSnapshotBlock"])
def test_too_much_for_now(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, kind: str, action: str
) -> None:
    """Whatever AWS calls it, it passes, and is no quota."""
    subject.standin.fault(kind, action)
    image_ref = bring(provider, staged, spec, key)
    assert subject.refs(key) == {image_ref}


def test_pace_that_never_fits(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """At last it is the attempt that failed; the next one goes on where it was."""
    monkeypatch.setattr(pace, "TRIES", 2)
    subject.standin.fault("throttle", "PutSnapshotBlock", times=10**6)
    with pytest.raises(pace.Throttled):
        provider.upload(staged, spec, key, Transfer())
    subject.standin.clear_faults()
    bring(provider, staged, spec, key)


def test_killed_in_the_middle(
    subject: on_aws.AWS, provider: door.AWS, many: Staged, spec: Spec, key: str
) -> None:
    """No more blocks are put again than were on their way."""
    made = Counted(subject)
    child = multiprocessing.get_context("spawn").Process(
        target=_upload, args=(provider._place, subject.credential("owner"), many, spec, key)
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    before = made["puts"]
    assert MANY // 3 < before < MANY
    bring(provider, many, spec, key)
    assert MANY <= made["puts"] <= MANY + pace.MOST
    assert made["ebs:StartSnapshot"] == 1


def _upload(*args: Any) -> None:
    """In a process of its own, until half of the blocks are there: then it is killed."""
    place, credential, staged, spec, key = args
    on_aws.configure()

    class Doomed(Transfer):
        def progress(self, bytes_done: int) -> None:
            if bytes_done >= MANY // 2 * BLOCK:
                os.kill(os.getpid(), signal.SIGKILL)

    door.AWS(place, credential).upload(staged, spec, key, Doomed())


def test_stopped_while_a_snapshot_completes(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """AWS takes one completion of a snapshot: who goes on waits for that."""
    subject.standin.settings(completion_seconds=4.0)

    class Stopped(Transfer):
        def alive(self) -> None:
            super().alive()
            if (self.checkpoint or {}).get("whole"):
                raise exceptions.Interrupted("Stop.")

    first = Stopped()
    with pytest.raises(exceptions.Interrupted):
        provider.upload(staged, spec, key, first)
    made = Counted(subject)
    second = Transfer(checkpoint=first.checkpoint)
    blob = subject.at("owner").upload(staged, spec, key, second)
    assert blob == first.checkpoint["snapshot"]     # type: ignore[index]
    assert (made["ebs:CompleteSnapshot"], made["puts"]) == (0, 0)
    assert provider.verify(provider.register(blob, spec, key), staged) == "guest"


def test_cancelled_before_ec2_has_heard_of_it(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """EBS and EC2 make things that EC2 lists only a while later; what is discarded then must be found."""
    subject.standin.settings(consistency_seconds=2.0)
    subject.standin.allow("owner", *(each for each in ALL_NEEDED if each != "ebs:PutSnapshotBlock"))
    with pytest.raises(exceptions.ProviderError, match="ebs:PutSnapshotBlock was refused"):
        provider.upload(staged, spec, key, Transfer())
    provider.discard(key)
    assert not subject.refs(key)

    subject.standin.allow("owner", *ALL_NEEDED)
    blob = provider.upload(staged, spec, key, Transfer())
    asked = Transfer(stop_at=2)
    with pytest.raises(exceptions.Interrupted):
        provider.register(blob, spec, key, asked.alive)
    provider.discard(key)
    assert not subject.refs(key)


@pytest.mark.parametrize("kind", ["lost", "slow"])
@pytest.mark.parametrize("action", ["StartSnapshot", "RegisterImage"])
def test_cancelled_before_there_was_an_answer(
    subject: on_aws.AWS,
    provider: door.AWS,
    staged: Staged,
    spec: Spec,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    kind: str,
) -> None:
    """Who cancels hangs up. AWS makes it all the same, and shows it later."""
    monkeypatch.setattr(snapshots, "SEEN_SECONDS", 6.0)
    before = {each["id"] for each in subject.standin.snapshots()}
    subject.standin.settings(consistency_seconds=2.0)
    subject.standin.fault(kind, action, seconds=1.0 if kind == "slow" else 0.0)
    blob = provider.upload(staged, spec, key, Transfer()) if action == "RegisterImage" else ""
    hanging_up = threading.Timer(0.5, provider.hang_up)
    hanging_up.start()
    with pytest.raises(exceptions.TransientProviderError, match="no answer"):
        if blob:
            provider.register(blob, spec, key)
        else:
            provider.upload(staged, spec, key, Transfer())
    hanging_up.join()
    provider.discard(key)
    time.sleep(1.0)
    assert not subject.refs(key)
    assert {each["id"] for each in subject.standin.snapshots()} == before


def test_discard_of_a_snapshot_of_somebody_elses_image(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """It passes, if they remove it."""
    monkeypatch.setattr(snapshots, "SEEN_SECONDS", 1.0)
    blob = provider.upload(staged, spec, key, Transfer())
    ec2 = subject.standin.client("ec2")
    devices = [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": blob}}]
    made = ec2.register_image(
        Name="theirs", RootDeviceName="/dev/sda1", VirtualizationType="hvm", BlockDeviceMappings=devices
    )["ImageId"]
    with pytest.raises(exceptions.TransientProviderError, match="in use"):
        provider.discard(key)
    ec2.deregister_image(ImageId=made)
    provider.discard(key)
    assert not subject.refs(key)


# What AWS spoils


def test_block_that_is_stored_otherwise(
    subject: on_aws.AWS, provider: door.AWS, many: Staged, spec: Spec, key: str
) -> None:
    subject.standin.fault("corrupt", "PutSnapshotBlock", after=MANY // 2)
    blob = provider.upload(many, spec, key, Transfer())
    image_ref = provider.register(blob, spec, key)
    with pytest.raises(exceptions.ProviderError, match="is damaged") as refused:
        provider.verify(image_ref, many)
    assert refused.value.code == "cloud.bad_answer"


def test_block_that_is_read_otherwise(
    subject: on_aws.AWS, provider: door.AWS, many: Staged, spec: Spec, key: str
) -> None:
    """On the way only: it is asked for again."""
    blob = provider.upload(many, spec, key, Transfer())
    image_ref = provider.register(blob, spec, key)
    subject.standin.fault("corrupt", "GetSnapshotBlock", after=MANY // 2, times=3)
    made = Counted(subject)
    assert provider.verify(image_ref, many) == "guest"
    assert made["ebs:GetSnapshotBlock"] == MANY + 3


def test_snapshot_that_fails(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """Another one is made, and the failed one does not stay."""
    subject.standin.fault("fail", "CompleteSnapshot")
    with pytest.raises(exceptions.TransientProviderError, match="ended as error"):
        provider.upload(staged, spec, key, Transfer())
    image_ref = bring(provider, staged, spec, key)
    assert subject.refs(key) == {image_ref}


def test_image_that_fails(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    subject.standin.fault("fail", "RegisterImage")
    blob = provider.upload(staged, spec, key, Transfer())
    with pytest.raises(exceptions.ProviderError, match=r"is failed.*on demand") as refused:
        provider.register(blob, spec, key)
    assert refused.value.code == "image.not_active"
    provider.discard(key)
    assert not subject.refs(key)


# What the image is there


def test_remarks(provider: door.AWS, staged: Staged, spec: Spec) -> None:
    gib = dataclasses.replace(staged, virtual_size=2 << 30)
    assert not provider.remarks(gib, spec)
    (grown,) = provider.remarks(dataclasses.replace(staged, virtual_size=(2 << 30) + 512), spec)
    assert "one of 3 GiB there: grown by zeros" in grown


def test_remark_on_what_aws_bills(
    provider: door.AWS, staged: Staged, spec: Spec, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it knows, as of an image that was copied from one of its own."""
    spec = dataclasses.replace(spec, properties={**spec.properties, "os_type": "windows"})
    image_ref = bring(provider, staged, spec, key)
    whole = dataclasses.replace(staged, virtual_size=1 << 30)
    (remark,) = provider.remarks(whole, spec)
    assert "one of Linux/UNIX, not Windows" in remark
    wait = images.wait
    monkeypatch.setattr(images, "wait", lambda *args: {**wait(*args), "PlatformDetails": "Windows"})
    provider.verify(image_ref, staged)
    assert not provider.remarks(whole, spec)


def sparse(many: Staged) -> pathlib.Path:
    """The same data at the beginning of a disk that is much larger."""
    file = pathlib.Path(many.path).with_name("sparse")
    file.write_bytes(pathlib.Path(many.path).read_bytes()[: MANY // 2 * BLOCK])
    os.truncate(file, 1 << 40)
    return file


def test_sample(
    subject: on_aws.AWS, many: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """Of a disk that is larger than what shall be read back: said, and still a proof."""
    monkeypatch.setattr(door, "SAMPLE", 16)
    provider = subject.at("owner", verify_up_to=0)
    blob = provider.upload(many, spec, key, Transfer())
    image_ref = provider.register(blob, spec, key)
    made = Counted(subject)
    assert provider.verify(image_ref, many) == "guest"
    assert 0 < made["ebs:GetSnapshotBlock"] <= 16
    assert any("16 blocks were read back" in remark for remark in provider.remarks(many, spec))
    held = Staged(str(sparse(many)), "raw", 1 << 40, 1 << 40, {})
    assert sum(index < MANY for index in provider._sample(held) or ()) >= 14    # where there is data
    other = subjects.stage(pathlib.Path(many.path).with_name("other"), os.urandom(many.size))
    with pytest.raises(exceptions.ProviderError, match="guest digest"):
        provider.verify(image_ref, other)


# What can be read


def unreadable(provider: door.AWS, image: str) -> str:
    found = provider.describe(image)
    assert found is not None and found.unreadable is not None
    return found.unreadable


def test_several_volumes(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    """Which they are; each of them can be read."""
    one = subject._snapshot(bring(provider, staged, spec, key))
    ec2 = subject.standin.client("ec2")
    devices = {"/dev/sda1": one, "/dev/sdb": one}
    made = ec2.register_image(
        Name="of several",
        RootDeviceName="/dev/sda1",
        VirtualizationType="hvm",
        BlockDeviceMappings=[
            {"DeviceName": name, "Ebs": {"SnapshotId": snapshot}} for name, snapshot in devices.items()
        ],
    )["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 1})
    why = unreadable(provider, made)
    assert all(f"{name} ({snapshot})" in why for name, snapshot in devices.items())
    found = provider.describe(one)
    assert found and found.unreadable is None and found.size == 1 << 30
    ec2.deregister_image(ImageId=made)


def test_of_somebody_else(subject: on_aws.AWS, provider: door.AWS, spec: Spec, key: str) -> None:
    """An image that all may use, but not read."""
    theirs = subject.squat(spec, key)
    account_id = subject.standin.accounts["stranger"]["account_id"]
    assert f"account {account_id}, which does not share the snapshot" in unreadable(provider, theirs)


def test_of_a_key_that_is_not_ours_any_more(
    subject: on_aws.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    arn = subject.standin.make_key()
    provider = subject.at("owner", kms_key=arn)
    image_ref = bring(provider, staged, spec, key)
    assert provider.describe(image_ref)
    subject.standin.enable_key(arn, False)
    assert f"It is encrypted with {arn}" in unreadable(provider, image_ref)


def test_what_is_not_ready(
    subject: on_aws.AWS, provider: door.AWS, staged: Staged, spec: Spec, key: str
) -> None:
    with pytest.raises(exceptions.Interrupted):
        provider.upload(staged, spec, key, Transfer(2))
    (snapshot,) = subject.refs(key)
    assert "is pending" in unreadable(provider, snapshot)
    subject.standin.settings(image_seconds=60)
    blob = provider.upload(staged, spec, key, Transfer())
    with pytest.raises(exceptions.Interrupted):
        provider.register(blob, spec, key, Transfer(2).alive)
    (image,) = subject.refs(key)
    assert "is pending" in unreadable(provider, image)


def test_from_the_marketplace(provider: door.AWS) -> None:
    """Nobody but AWS can make such an image: this is what it would say of one."""
    image = {"ImageId": "ami-1", "State": "available", "ProductCodes": [{"ProductCodeId": "x"}]}
    assert "from the marketplace" in str(provider._unreadable_image(image, {"/dev/sda1": "snap-1"}, None))
