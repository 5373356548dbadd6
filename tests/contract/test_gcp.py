# SPDX-License-Identifier: Apache-2.0
"""What is true of Google Cloud only: what is refused, in which words, and what goes on."""

import contextlib
import dataclasses
import gzip
import multiprocessing
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest
from google.api_core import exceptions as google_exceptions
from google.cloud import compute_v1

from ciming import config, disk_image, exceptions, staging
from ciming.providers import base
from ciming.providers.gcp import archive, images, lifecycle, objects
from ciming.providers.gcp import provider as door
from tests.contract import on_aws, on_gcp, subjects
from tests.contract.on_gcp import BUCKET
from tests.contract.subjects import Transfer, persistently
from tests.sandbox import sandbox

BLOCK = disk_image.BLOCK
MANY = 66       # blocks, each of them a piece where pieces are small: three steps of putting together
Staged = staging.StagedFile
Spec = base.ImageSpec

STORAGE_NEEDED = objects.NEEDED
COMPUTE_NEEDED = (
    *("compute.images.create", "compute.images.setLabels", "compute.images.get", "compute.images.list"),
    *("compute.images.delete", "compute.images.getIamPolicy", "compute.images.setIamPolicy"),
    "compute.globalOperations.get",
)
ALL_NEEDED = ("storage.buckets.get", *STORAGE_NEEDED, *COMPUTE_NEEDED)
MUTATIONS = (
    *("storage.objects.insert", "storage.objects.compose", "storage.objects.delete"),
    *("compute.images.insert", "compute.images.setIamPolicy", "compute.images.delete"),
)
KINDS = ("throttle", "500", "503", "reset", "lost")
PASSING = [
    (action, kind)
    for action in MUTATIONS
    for kind in KINDS
    if "CIMING_TEST_ALL" in os.environ or kind == "lost" or action.endswith("insert")
]
"""All calls and kinds, or one row of each and what makes an image."""


@pytest.fixture(scope="module")
def subject(cloud: sandbox.Sandbox) -> Iterator[on_gcp.GCP]:
    with contextlib.ExitStack() as stack:
        yield on_gcp.GCP(cloud, stack)


@pytest.fixture(autouse=True)
def undisturbed(subject: on_gcp.GCP, key: str) -> Iterator[None]:
    """When the key's traces are removed, all goes well again; Google is quick."""
    subject.standin.settings(pending_seconds=0.0, image_seconds=0.0, change_seconds=0.0)
    yield
    subject.standin.reset()
    subject.standin.settings(pending_seconds=0.0, image_seconds=0.0, change_seconds=0.0)


@pytest.fixture
def provider(subject: on_gcp.GCP) -> door.GCP:
    return subject.at("owner", share_with=[stranger(subject)])


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "BLOCKS", 1)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """Blocks that all differ, with a hole in their midst."""
    half = os.urandom(MANY // 2 * BLOCK)
    data = half + bytes(BLOCK * 3) + half[::-1]
    return subjects.stage(tmp_path_factory.mktemp("many") / "staged", data)


def stranger(subject: on_gcp.GCP) -> str:
    return f"serviceAccount:{subject.standin.accounts['stranger']['client_email']}"


def bring(provider: door.GCP, staged: Staged, spec: Spec, key: str) -> str:
    """The ref of the image, which is proven."""
    blob = persistently(lambda: provider.upload(staged, spec, key, Transfer()))
    image_ref = persistently(lambda: provider.register(blob, spec, key))
    assert persistently(lambda: provider.verify(image_ref, staged)) == "guest"
    return image_ref


def made(subject: on_gcp.GCP, image_ref: str) -> dict[str, Any]:
    """An image as Google has it."""
    project, name = images.parse(image_ref) or ("", "")
    (found,) = (
        each for each in subject.standin.images() if (each["project"], each["name"]) == (project, name)
    )
    return found


def in_bucket(subject: on_gcp.GCP, key: str) -> set[str]:
    return {each["name"] for each in subject.standin.objects(BUCKET) if key in each["name"]}


def in_size(subject: on_gcp.GCP, key: str) -> int:
    """Bytes of an archive that is there."""
    (found,) = (each for each in subject.standin.objects(BUCKET) if key in each["name"])
    return int(found["size"])


class Counted:
    """How often each call was made since."""

    def __init__(self, subject: on_gcp.GCP) -> None:
        self._subject = subject
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        return dict(self._subject.standin.counters()["calls"])

    def __getitem__(self, call: str) -> int:
        return self._now().get(call, 0) - self._before.get(call, 0)

    def __bool__(self) -> bool:
        return self._now() != self._before


# Who may not


@pytest.fixture
def another_key(subject: on_gcp.GCP) -> Iterator[None]:
    """The owner has another key, after a test that took all away."""
    yield
    subject.standin.accounts["owner"] = subject.standin.add_key("owner")


def test_key_that_was_revoked(subject: on_gcp.GCP, staged: Staged, another_key: None) -> None:
    before, fresh = subject.provider(), subject.provider()
    before.check(staged)
    subject.standin.revoke("owner")
    before.check(staged)        # its token is good until it ends
    subject.standin.expire_tokens()
    for each in (before, fresh):
        with pytest.raises(exceptions.CredentialRefused, match="invalid_grant: Invalid JWT") as refused:
            each.check(staged)
        assert not any(secret in str(refused.value) for secret in subject.secrets())
    verdicts = list(fresh.probe())
    assert [each.passed for each in verdicts] == [False] and verdicts[0].check == "login"


def test_token_that_ended(subject: on_gcp.GCP, provider: door.GCP, staged: Staged) -> None:
    """Another one is asked for, and nobody hears of it."""
    provider.check(staged)
    subject.standin.expire_tokens()
    provider.check(staged)
    assert list(provider.list({"name": "no such image"})) == []


@pytest.mark.parametrize("action", ["compute.images.list", "storage.buckets.get"])
def test_credential_that_is_refused(subject: on_gcp.GCP, staged: Staged, spec: Spec, action: str) -> None:
    subject.standin.fault("auth", action, times=10)
    with pytest.raises(exceptions.CredentialRefused, match="401"):
        subject.provider().check(staged)
        list(subject.provider().list({}))


@pytest.mark.parametrize(
    "more",
    [
        {"type": "authorized_user", "refresh_token": "r", "client_id": "i", "client_secret": "s"},
        {"type": "external_account", "credential_source": {"executable": {"command": "/bin/true"}}},
        {"private_key": "key"},
        {"token_uri": "https://oauth2.evil.example/token"},
        {"token_uri": "http://127.0.0.1:1/token"},
    ],
    ids=lambda more: " ".join(map(str, more.values()))[:40],
)
def test_key_that_is_none(subject: on_gcp.GCP, provider: door.GCP, hosts: set[Any], more: Any) -> None:
    """Before anything is asked."""
    with pytest.raises(exceptions.ProviderError) as refused:
        door.GCP(provider._place, {**subject.standin.accounts["owner"], **more})
    assert refused.value.code == "credential.invalid"
    assert not hosts


def everything(provider: door.GCP, staged: Staged, spec: Spec, key: str) -> None:
    provider.check(staged)
    bring(provider, staged, spec, key)
    provider.discard(key)


def test_what_is_needed(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    subject.standin.allow("owner", *ALL_NEEDED)
    everything(provider, staged, spec, key)
    assert all(each.passed is not False for each in provider.probe())


@pytest.mark.parametrize(("seconds", "said"), [(604800, "for 7 days more, and bills it"), (0, "deleted.")])
def test_what_is_deleted_is_billed_for_a_while(
    subject: on_gcp.GCP, key: str, seconds: int, said: str
) -> None:
    """Where the bucket has a soft delete policy, as Google's have by default."""
    bucket = subject.standin.storage_client().bucket(f"soft-{key[:8]}")
    bucket.soft_delete_policy.retention_duration_seconds = seconds
    bucket.create(project=subject.standin.accounts["owner"]["project_id"])
    (found,) = [each for each in subject.at("owner", bucket=bucket.name).probe() if each.check == "bucket"]
    assert found.passed and said in found.message
    assert ("soft delete" in found.message) == bool(seconds)


@pytest.mark.parametrize("missing", ALL_NEEDED)
def test_what_is_missing_is_named(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str, missing: str
) -> None:
    subject.standin.allow("owner", *(each for each in ALL_NEEDED if each != missing))
    with pytest.raises(exceptions.ProviderError, match=missing) as refused:
        everything(provider, staged, spec, key)
    assert refused.value.code == "cloud.forbidden"
    assert not isinstance(refused.value, exceptions.TransientProviderError)


@pytest.mark.parametrize(
    "missing", ["compute.images.create", "compute.images.setLabels", "compute.images.list", *STORAGE_NEEDED]
)
def test_what_is_missing_is_found_by_a_probe(
    subject: on_gcp.GCP, provider: door.GCP, missing: str
) -> None:
    subject.standin.allow("owner", *(each for each in ALL_NEEDED if each != missing))
    verdicts = [each for each in provider.probe() if each.passed is False]
    assert any(missing in each.message for each in verdicts), verdicts


# What there is not


def test_bucket_that_is_not(subject: on_gcp.GCP, staged: Staged) -> None:
    with pytest.raises(exceptions.ProviderError, match="bucket no-such-bucket is not there") as refused:
        subject.at("owner", bucket="no-such-bucket").check(staged)
    assert refused.value.code == "cloud.not_found"


def test_project_that_is_not(subject: on_gcp.GCP, spec: Spec, key: str) -> None:
    with pytest.raises(exceptions.ProviderError, match=r"projects/no-such-project.*was not found") as refused:
        subject.at("owner", project_id="no-such-project").register("blob", spec, key)
    assert not isinstance(refused.value, exceptions.TransientProviderError)


def test_larger_than_any_disk(provider: door.GCP, staged: Staged) -> None:
    with pytest.raises(exceptions.ProviderError, match="larger than any of Google's") as refused:
        provider.check(dataclasses.replace(staged, virtual_size=archive.LARGEST + 1))
    assert refused.value.code == "image.too_large"
    provider.check(dataclasses.replace(staged, virtual_size=archive.LARGEST))


def test_more_than_any_disk_has_is_asked_for(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(exceptions.ProviderError, match="larger than any of Google's"):
        provider.upload(staged, dataclasses.replace(spec, min_disk=65 * 1024), key, Transfer())
    assert not subject.refs(key)


def test_bucket_that_went(subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str) -> None:
    """What was made of it can still be removed, by its user and by who undoes it."""
    for remove in ("delete", "discard"):
        image_ref = bring(subject.at("owner"), staged, spec, key)
        provider = subject.at("owner", bucket="no-such-bucket")
        getattr(provider, remove)(image_ref if remove == "delete" else key)
        assert not subject.refs(key)


def test_what_may_not_be_deleted_can_still_be_read(
    subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """Its archive goes before it, but not where it could not follow."""
    provider = subject.at("owner", keep_archive=True)
    image_ref = bring(provider, staged, spec, key)
    subject.standin.allow("owner", *(each for each in ALL_NEEDED if each != "compute.images.delete"))
    with pytest.raises(exceptions.ProviderError, match=r"compute\.images\.delete") as refused:
        provider.delete(image_ref)
    assert refused.value.code == "cloud.forbidden"
    assert next(iter(provider.download(image_ref, 0)))
    subject.standin.allow("owner", *ALL_NEEDED)
    provider.delete(image_ref)
    assert not subject.refs(key) and not subject.archives(key)


def test_image_that_asks_for_a_larger_disk_is_read_as_what_was_packed(
    subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    provider = subject.at("owner", keep_archive=True)
    image_ref = bring(provider, staged, dataclasses.replace(spec, min_disk=3), key)
    found = provider.describe(image_ref)
    assert found is not None and (found.min_disk, found.size) == (3, archive.GIB)
    assert sum(map(len, provider.download(image_ref, 0))) == found.size


def test_architecture_that_is_unknown(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, key: str
) -> None:
    """Before anything is asked."""
    counted = Counted(subject)
    with pytest.raises(exceptions.ProviderError, match="--property architecture=VALUE") as refused:
        provider.upload(staged, subjects.new_spec(properties={"architecture": "s390x"}), key, Transfer())
    assert refused.value.code == "image.architecture_unknown"
    assert not counted


@pytest.mark.parametrize("action", ["compute.images.insert", "storage.objects.insert"])
def test_quota(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str, action: str
) -> None:
    subject.standin.fault("quota", action, times=100)
    with pytest.raises(exceptions.ProviderError, match=r"[qQ]uota") as refused:
        bring(provider, staged, spec, key)
    assert refused.value.code == "cloud.quota_exceeded"
    provider.discard(key)
    assert not subject.refs(key)


def test_name_that_is_taken(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """By something that is not ours, though it looks so: it is neither used nor harmed."""
    theirs = images.name(spec.name, spec.image_id)
    subject.make_image("owner", BUCKET, theirs, {"ciming-image": spec.image_id})
    image_ref = bring(provider, staged, spec, key)
    assert image_ref.endswith(f"/{images.name(spec.name, spec.image_id, f'-{key[:8]}')}")
    assert bring(provider, staged, spec, key) == image_ref
    provider.discard(key)
    assert subject.squatted(images.ref_in(provider._account.project, theirs))


def test_names_that_are_all_taken(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    for suffix in ("", f"-{key[:8]}"):
        subject.make_image("owner", BUCKET, images.name(spec.name, spec.image_id, suffix), {})
    with pytest.raises(exceptions.ProviderError, match="at each name") as refused:
        bring(provider, staged, spec, key)
    assert refused.value.code == "image.name_taken"


# What Google does not do at once


@pytest.mark.parametrize(
    ("action", "kind"), [*PASSING, ("token", "throttle"), ("token", "502"), ("token", "503")]
)
def test_what_passes(
    subject: on_gcp.GCP, provider: door.GCP, many: Staged, spec: Spec, key: str, action: str, kind: str
) -> None:
    """Done again, and still once; nothing is left."""
    before = {each["name"] for each in subject.standin.images()}
    subject.standin.fault(kind, action)
    image_ref = bring(provider, many, spec, key)
    assert subject.refs(key) == {image_ref} and not in_bucket(subject, key)
    assert {each["name"] for each in subject.standin.images()} - before == {image_ref.rpartition("/")[2]}
    (binding,) = made(subject, image_ref)["policy"]["bindings"]
    assert binding["members"] == [stranger(subject)]
    persistently(lambda: provider.discard(key))
    assert {each["name"] for each in subject.standin.images()} == before


def test_short_pages(
    subject: on_gcp.GCP, small_pieces: None, provider: door.GCP, many: Staged, spec: Spec, key: str
) -> None:
    """All of a list is read, however long its pages are."""
    subject.make_image("owner", BUCKET, f"a-{subjects.new_key()}", {})
    subject.standin.settings(page_size=1)
    with pytest.raises(exceptions.Interrupted):
        provider.upload(many, spec, key, Transfer(20))
    counted = Counted(subject)
    image_ref = bring(provider, many, spec, key)
    assert counted["storage.objects.insert"] < MANY
    assert provider.describe(image_ref) and subject.refs(key) == {image_ref}


def test_lists_that_do_not_end(
    subject: on_gcp.GCP, small_pieces: None, provider: door.GCP, many: Staged, spec: Spec, key: str,
    monkeypatch: Any,
) -> None:  # fmt: skip
    for _ in range(2):
        subject.make_image("owner", BUCKET, f"a-{subjects.new_key()}", {})
    with pytest.raises(exceptions.Interrupted):
        provider.upload(many, spec, key, Transfer(20))
    subject.standin.settings(page_size=1)
    for module, action, look in (
        (images, "compute.images.list", lambda: list(provider.list({}))),
        (objects, "storage.objects.list", lambda: provider.discard(key)),
    ):
        counted = Counted(subject)
        with monkeypatch.context() as patched:
            patched.setattr(module, "MOST_PAGES", 1)
            with pytest.raises(exceptions.TransientProviderError, match=action) as refused:
                look()
        assert refused.value.code == "cloud.bad_answer" and counted[action] == 1


def test_insert_whose_answer_was_lost(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """The image is looked for, and adopted."""
    blob = provider.upload(staged, spec, key, Transfer())
    subject.standin.fault("lost", "compute.images.insert")
    counted = Counted(subject)
    with pytest.raises(exceptions.TransientProviderError):
        provider.register(blob, spec, key)
    image_ref = subject.provider().register(blob, spec, key)
    assert counted["compute.images.insert"] == 1
    assert subject.refs(key) == {image_ref}


def test_insert_is_asked_for_by_one_id(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    """Where a list does not have the image yet, the same operation is the answer."""
    blob = provider.upload(staged, spec, key, Transfer())
    subject.standin.fault("lost", "compute.images.insert")
    with pytest.raises(exceptions.TransientProviderError):
        provider.register(blob, spec, key)
    successor, counted = subject.provider(), Counted(subject)
    monkeypatch.setattr(successor, "_find", lambda _key: [])
    image_ref = successor.register(blob, spec, key)
    assert counted["compute.images.insert"] == 1
    name = image_ref.rpartition("/")[2]
    begun = [
        each for each in subject.standin.operations()
        if each["targetLink"].endswith(f"/{name}") and each["operationType"] == "insert"
    ]  # fmt: skip
    assert len(begun) == 1 and begun[0]["clientOperationId"]


def test_image_that_fails(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """In Google's own words; then another one is made."""
    subject.standin.fault("fail", "compute.images.insert")
    blob = provider.upload(staged, spec, key, Transfer())
    with pytest.raises(exceptions.TransientProviderError, match=r"operation-\S+ failed.*Code: '5A1D1F0'"):
        provider.register(blob, spec, key)
    image_ref = bring(subject.at("owner"), staged, spec, key)
    assert made(subject, image_ref)["status"] == "READY" and subject.refs(key) == {image_ref}


@pytest.mark.parametrize("stays", [True, False])
def test_failure_that_nobody_saw(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str, stays: bool
) -> None:
    """Since who had begun it was killed: it is not the answer for ever."""
    subject.standin.settings(failed_images_stay=stays, pending_seconds=0.2)
    subject.standin.fault("fail", "compute.images.insert")
    blob = provider.upload(staged, spec, key, Transfer())
    with pytest.raises(exceptions.Interrupted):
        provider.register(blob, spec, key, Transfer(2).alive)
    time.sleep(0.5)
    image_ref = bring(subject.at("owner"), staged, spec, key)
    assert subject.refs(key) == {image_ref}


def test_archive_that_google_does_not_take(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """Somebody else wrote over it: that is for good, and yet the next upload mends it."""
    blob = provider.upload(staged, spec, key, Transfer())
    theirs = subject.standin.storage_client().bucket(BUCKET).blob(blob)
    theirs.metadata = subject.standin.storage_client().bucket(BUCKET).get_blob(blob).metadata
    theirs.upload_from_string(gzip.compress(b"no disk" * 100))
    with pytest.raises(exceptions.ProviderError, match="INVALID_IMAGE_TAR: The tar") as refused:
        provider.register(blob, spec, key)
    assert refused.value.code == "image.not_active"
    assert not isinstance(refused.value, exceptions.TransientProviderError)
    provider.discard(key)
    assert not subject.refs(key)
    bring(provider, staged, spec, key)


@pytest.fixture
def stuck(subject: on_gcp.GCP, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Target whose image is never made; afterwards all is forgotten, since nobody could delete it."""
    monkeypatch.setattr(images, "PATIENCE", 0.3)
    monkeypatch.setattr(images, "TO_DELETE", 0.3)
    subject.standin.fault("stuck", "compute.images.insert")
    yield subjects.new_key()
    subject.standin.clear()
    subject.standin.make_bucket(BUCKET)


def test_operation_that_never_ends(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, stuck: str
) -> None:
    """One waits for it for so long, and not with two of them."""
    blob = provider.upload(staged, spec, stuck, Transfer())
    counted = Counted(subject)
    with pytest.raises(exceptions.TransientProviderError, match=r"operation-\S+ is not done after 0 s"):
        provider.register(blob, spec, stuck)
    with pytest.raises(exceptions.TransientProviderError, match="is PENDING after 0 s"):
        provider.register(blob, spec, stuck)
    assert counted["compute.images.insert"] == 1
    with pytest.raises(exceptions.TransientProviderError, match="is PENDING after 0 s"):
        provider.discard(stuck)


@pytest.mark.parametrize(("kind", "times"), [("503", 25), ("throttle", 25), ("reset", 12)])
def test_outage_while_an_image_is_made(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str, kind: str, times: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It goes on meanwhile: nothing of that is an attempt."""
    monkeypatch.setattr(images, "PAUSES", (0.01,))
    blob = provider.upload(staged, spec, key, Transfer())
    subject.standin.fault(kind, "compute.globalOperations.get", times=times)
    counted = Counted(subject)
    image_ref = provider.register(blob, spec, key)
    assert counted["compute.images.insert"] == 1 and counted["compute.globalOperations.get"] > times
    subject.standin.fault(kind, "compute.images.get", after=1, times=times)
    provider.delete(image_ref)
    assert not subject.refs(key)


def test_outage_that_does_not_end(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    blob = provider.upload(staged, spec, key, Transfer())
    for each in ("compute.globalOperations.get", "compute.images.get"):
        subject.standin.fault("503", each, times=1000)
    with pytest.raises(exceptions.Interrupted):
        provider.register(blob, spec, key, Transfer(5).alive)
    monkeypatch.setattr(images, "SILENCE", 0.5)
    with pytest.raises(exceptions.TransientProviderError, match="503"):
        provider.register(blob, spec, key)
    subject.standin.clear_faults()
    provider.discard(key)
    assert not subject.refs(key)


def test_operation_that_is_cancelled(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, stuck: str, monkeypatch: Any
) -> None:
    """At once, whether it was begun or found."""
    monkeypatch.setattr(images, "PATIENCE", 60)
    blob = provider.upload(staged, spec, stuck, Transfer())
    for _ in range(2):
        since = time.monotonic()
        with pytest.raises(exceptions.Interrupted):
            provider.register(blob, spec, stuck, Transfer(4).alive)
        assert time.monotonic() - since < 5


def test_deletion_that_is_cancelled(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(images, "TO_DELETE", 60)
    ref = bring(provider, staged, spec, key)
    subject.standin.fault("stuck", "compute.images.delete")
    since = time.monotonic()
    try:
        with pytest.raises(exceptions.Interrupted):
            provider.delete(ref, Transfer(4).alive)
        assert time.monotonic() - since < 5
    finally:        # what is stuck can not be deleted
        subject.standin.clear()
        subject.standin.make_bucket(BUCKET)


def test_image_that_is_being_made_is_discarded(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """Google deletes it only when it is there."""
    subject.standin.settings(pending_seconds=1.0)
    blob = provider.upload(staged, spec, key, Transfer())
    with pytest.raises(exceptions.Interrupted):
        provider.register(blob, spec, key, Transfer(2).alive)
    labels = {each["name"]: each.get("labels", {}) for each in subject.standin.images()}
    (name,) = (each for each in labels if labels[each].get("ciming-target") == key)
    ref = images.ref_in(provider._account.project, name)
    assert (provider._show(ref) or {})["status"] == "PENDING"
    provider.discard(key)
    assert not subject.refs(key) and not subject.squatted(ref)


# Cut


def test_cut_in_the_middle(
    subject: on_gcp.GCP, small_pieces: None, provider: door.GCP, many: Staged, spec: Spec, key: str
) -> None:
    """What is there is not sent again."""
    counted = Counted(subject)
    with pytest.raises(exceptions.Interrupted):
        provider.upload(many, spec, key, Transfer(MANY))      # asked twice for each
    before = len(in_bucket(subject, key))
    assert MANY // 4 < before < MANY
    subject.provider().upload(many, spec, key, Transfer())
    assert counted["storage.objects.insert"] == MANY + 2      # the map, and the end
    assert in_bucket(subject, key) == {objects.object_name(key)}
    bring(provider, many, spec, key)


def test_killed_in_the_middle(
    subject: on_gcp.GCP, small_pieces: None, provider: door.GCP, many: Staged, spec: Spec, key: str
) -> None:
    """No more pieces are sent again than were on their way."""
    counted = Counted(subject)
    credential, url = subject.standin.accounts["owner"], subject.standin.url
    child = multiprocessing.get_context("spawn").Process(
        target=_upload, args=(provider._place, credential, url, many, spec, key)
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    before = len(in_bucket(subject, key))
    assert MANY // 3 < before < MANY
    bring(provider, many, spec, key)
    assert MANY + 2 <= counted["storage.objects.insert"] <= MANY + 2 + objects.AT_ONCE
    assert not in_bucket(subject, key)


def _upload(*args: Any) -> None:
    """In a process of its own, until half of the blocks are there: then it is killed."""
    place, credential, url, staged, spec, key = args
    on_aws.configure()
    config.CONF.set_override("token_urls", [f"{url}/token"], group="egress")
    archive.BLOCKS = 1

    class Doomed(Transfer):
        def progress(self, bytes_done: int) -> None:
            if bytes_done >= MANY // 2 * BLOCK:
                os.kill(os.getpid(), signal.SIGKILL)

    door.GCP(place, credential).upload(staged, spec, key, Doomed())


@pytest.mark.parametrize("keep", [True, False])
def test_cut_when_it_is_put_together(subject: on_gcp.GCP, staged: Staged, spec: Spec, keep: bool) -> None:
    """Wherever: no piece stays, where archives are kept, too."""
    stop_at, over = 4, False
    while not over:
        key, transfer = subjects.new_key(), Transfer(stop_at)
        provider = subject.at("owner", keep_archive=keep)
        with contextlib.suppress(exceptions.Interrupted):
            provider.upload(staged, spec, key, transfer)
            over = True
        bring(provider, staged, spec, key)
        assert in_bucket(subject, key) == ({objects.object_name(key)} if keep else set())
        provider.discard(key)
        assert not in_bucket(subject, key)
        stop_at += 1
    assert stop_at > 6


def test_archive_of_another_disk(
    subject: on_gcp.GCP, provider: door.GCP, many: Staged, staged: Staged, spec: Spec, key: str
) -> None:
    """That the same Target had before: it is not taken for this one's."""
    provider.upload(many, spec, key, Transfer())
    bring(provider, staged, spec, key)


@pytest.mark.parametrize("most", [2, 3, 32])
def test_steps_of_putting_together(
    subject: on_gcp.GCP, small_pieces: None, provider: door.GCP, many: Staged, spec: Spec, key: str,
    monkeypatch: Any, most: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(objects, "MOST_SOURCES", most)
    image_ref = bring(provider, many, spec, key)
    assert subject.read(image_ref) == pathlib.Path(many.path).read_bytes()
    assert not in_bucket(subject, key)


def on_disk(folder: pathlib.Path) -> set[str]:
    """All files below it, and those that this process has open without a name."""
    found = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    for each in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):      # closed meanwhile
            target = str(each.readlink())
            if target.startswith(str(folder)) and target.endswith(" (deleted)"):
                found.add(target)
    return found


def test_archive_is_nowhere_on_disk(
    subject: on_gcp.GCP, small_pieces: None, provider: door.GCP, many: Staged, spec: Spec, key: str,
    monkeypatch: Any, tmp_path: pathlib.Path,
) -> None:  # fmt: skip
    """As long as it is sent: there is what was staged, and no more."""
    for name in ("staging", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    staged = subjects.stage(tmp_path / "staging/staged", pathlib.Path(many.path).read_bytes())
    subject.standin.fault("slow", "storage.objects.*", after=MANY // 2, seconds=2.0)
    seen, held, counted = [], 0, Counted(subject)
    with futures.ThreadPoolExecutor(1) as pool:
        sending = pool.submit(provider.upload, staged, spec, key, Transfer())
        while not sending.done():
            seen.append(on_disk(tmp_path))
            held += counted["storage.objects.insert"] > MANY // 4
        assert sending.result() == objects.object_name(key)
    assert held and all(each == {"staging/staged"} for each in seen)


# What Google spoils


@pytest.mark.parametrize(
    ("action", "after"), [("insert", 0), ("insert", 30), ("insert", MANY + 1), ("compose", 0), ("compose", 3)]
)
def test_what_is_stored_otherwise(
    subject: on_gcp.GCP, small_pieces: None, provider: door.GCP, many: Staged, spec: Spec, key: str,
    action: str, after: int,
) -> None:  # fmt: skip
    """It becomes no image: the sum over all of it is another one. The next upload has it right."""
    subject.standin.fault("corrupt", f"storage.objects.{action}", after=after)
    counted = Counted(subject)
    with pytest.raises(exceptions.TransientProviderError, match="archive in the bucket is"):
        provider.upload(many, spec, key, Transfer())
    assert not in_bucket(subject, key) and not counted["compute.images.insert"]
    image_ref = bring(provider, many, spec, key)
    assert subject.read(image_ref) == pathlib.Path(many.path).read_bytes()


def test_piece_that_an_earlier_run_left_otherwise(
    subject: on_gcp.GCP, small_pieces: None, provider: door.GCP, many: Staged, spec: Spec, key: str
) -> None:
    subject.standin.fault("corrupt", "storage.objects.insert", after=3)
    with pytest.raises(exceptions.Interrupted):
        provider.upload(many, spec, key, Transfer(MANY // 2))
    before, counted = len(in_bucket(subject, key)), Counted(subject)
    provider.upload(many, spec, key, Transfer())
    assert counted["storage.objects.insert"] == MANY + 2 - before + 1       # this one, once more
    image_ref = bring(provider, many, spec, key)
    assert subject.read(image_ref) == pathlib.Path(many.path).read_bytes()


def test_archive_that_is_read_otherwise(
    subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    provider = subject.at("owner", keep_archive=True)
    image_ref = bring(provider, staged, spec, key)
    subject.standin.fault("corrupt", "storage.objects.get", after=2)
    with pytest.raises(exceptions.ProviderError, match="not gzipped, or damaged"):
        list(provider.download(image_ref, 0))


def test_archive_whose_reading_is_cut(
    subject: on_gcp.GCP, many: Staged, spec: Spec, key: str
) -> None:
    """In the midst of a range: that passes, as where there is no answer at all."""
    provider, asked = subject.at("owner", keep_archive=True), Counted(subject)
    bring(provider, many, spec, key)
    url = f"gs://{BUCKET}/{objects.object_name(key)}"
    subject.standin.fault("cut", "storage.objects.get", after=1)       # the first one shows what is there
    with pytest.raises(exceptions.TransientProviderError, match="IncompleteRead") as broken:
        provider.describe(url)
    assert broken.value.code == "cloud.unreachable"
    subject.standin.fault("cut", "storage.objects.get", after=3, times=3)
    counted = Counted(subject)
    assert b"".join(provider.download(url, 0)).rstrip(b"\0") == pathlib.Path(many.path).read_bytes()
    assert counted["storage.objects.get"] == 1 + -(-in_size(subject, key) // objects.RANGE) + 3
    assert asked["storage.buckets.get"] == 0        # the client asks nothing of its own accord


# Where it goes


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """What this process looks up, or connects to, from now on."""
    found: set[Any] = set()
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connecting(self: socket.socket, address: Any) -> None:
        found.add(address)
        connect(self, address)

    def looking_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        found.add((host, port))
        return look_up(host, port, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", connecting)
    monkeypatch.setattr(socket, "getaddrinfo", looking_up)
    return found


NOT_OURS = "http://127.0.0.2:9"
ENVIRONMENT = {
    **dict.fromkeys(("STORAGE_EMULATOR_HOST", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOT_OURS),
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), NOT_OURS),
    **dict.fromkeys(("GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"), "127.0.0.2:9"),
    "GOOGLE_CLOUD_PROJECT": "somebody-else-2",
    "GOOGLE_CLOUD_UNIVERSE_DOMAIN": "evil.example",
    "GOOGLE_API_USE_MTLS_ENDPOINT": "always",
    "NO_GCE_CHECK": "false",
}


def test_nobody_else_is_asked(
    subject: on_gcp.GCP, many: Staged, spec: Spec, key: str, monkeypatch: Any, hosts: set[Any],
    tmp_path: pathlib.Path,
) -> None:  # fmt: skip
    """Whatever the environment says, and its key is not used."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    theirs = subject.standin.add_key("stranger")
    (tmp_path / "key.json").write_text(str(theirs).replace("'", '"'))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path / 'key.json'}")
    monkeypatch.setenv("HOME", f"{tmp_path}")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login nobody password nothing\n")
    provider = subject.at("owner", keep_archive=True, share_with=[stranger(subject)])
    provider.check(many)
    image_ref = bring(provider, many, spec, key)
    assert provider.describe(image_ref) and sum(map(len, provider.download(image_ref, 0))) == archive.GIB
    assert all(each.passed is not False for each in provider.probe())
    provider.delete(image_ref)
    address = subject.standin.url.removeprefix("http://").split(":")
    assert hosts == {(address[0], int(address[1]))}
    assert theirs["private_key_id"] not in subject.standin.callers()


# What the image is there


def test_what_the_cloud_says_of_images(subject: on_gcp.GCP, staged: Staged, key: str) -> None:
    kms = "projects/my-project-1/locations/europe-west1/keyRings/ring/cryptoKeys/key"
    provider = subject.at(
        "owner",
        family="debian-12",
        labels=["team=images", "empty="],
        storage_location="europe-west1",
        guest_os_features=["GVNIC", "UEFI_COMPATIBLE"],
        kms_key=kms,
    )
    said = {"architecture": "x86_64", "hw_firmware_type": "uefi", "os_distro": "debian"}
    spec = subjects.new_spec(properties=said, tags=("blue",), min_disk=3)
    image = made(subject, bring(provider, staged, spec, key))
    assert (image["family"], image["storageLocations"]) == ("debian-12", ["europe-west1"])
    assert image["labels"].items() >= {
        "team": "images", "empty": "", "os_distro": "debian", "blue": "", "ciming-image": spec.image_id,
    }.items()  # fmt: skip
    assert {each["type"] for each in image["guestOsFeatures"]} == {"GVNIC", "UEFI_COMPATIBLE"}
    assert image["imageEncryptionKey"]["kmsKeyName"] == f"{kms}/cryptoKeyVersions/1"
    assert image["architecture"] == "X86_64"
    found = provider.describe(images.ref_in(provider._account.project, image["name"]))
    assert found and found.properties == said
    assert set(found.tags) == {"blue", "empty"}


def test_least_disk(subject: on_gcp.GCP, staged: Staged, key: str, monkeypatch: Any) -> None:
    """As it is asked for: never less than the disk has."""
    asked: list[Any] = []
    make = images.make

    def noting(account: Any, image: Any, request_id: str) -> str:
        asked.append(image.get("disk_size_gb"))
        return make(account, image, request_id)

    monkeypatch.setattr(images, "make", noting)
    provider = subject.provider()
    for min_disk, wanted in ((0, None), (1, 1), (20, 20)):
        bring(provider, staged, subjects.new_spec(min_disk=min_disk), key)
        assert asked.pop() == wanted
        provider.discard(key)


@pytest.mark.parametrize("min_disk", [0, 20])
def test_disk_that_is_larger(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, key: str, min_disk: int
) -> None:
    """Than was asked for, whoever looks at it."""
    subject.standin.fault("grown", "compute.images.insert")
    spec = subjects.new_spec(min_disk=min_disk)
    blob = provider.upload(staged, spec, key, Transfer())
    for each in (provider, subject.at("owner")):
        wrong = rf"{max(1, min_disk) + 1} GiB, but one of {max(1, min_disk)} GiB"
        with pytest.raises(exceptions.ProviderError, match=wrong) as refused:
            each.register(blob, spec, key)
        assert refused.value.code == "image.size_mismatch"


def test_disk_that_is_smaller(
    provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    image_ref = bring(provider, staged, spec, key)
    with pytest.raises(exceptions.ProviderError, match="holds a disk of 1 GiB, made of RAW") as refused:
        provider.verify(image_ref, dataclasses.replace(staged, virtual_size=archive.GIB + 1))
    assert refused.value.code == "image.size_mismatch"


def test_image_that_is_made_of_something_else(
    provider: door.GCP, staged: Staged, spec: Spec, key: str, monkeypatch: Any
) -> None:
    image_ref, show = bring(provider, staged, spec, key), images.show
    monkeypatch.setattr(images, "show", lambda *what: {**(show(*what) or {}), "source_type": "SNAPSHOT"})
    with pytest.raises(exceptions.ProviderError, match="made of SNAPSHOT") as refused:
        provider.verify(image_ref, staged)
    assert refused.value.code == "image.size_mismatch"


@pytest.mark.parametrize("status", ["PENDING", "FAILED"])
def test_image_that_is_not_ready_is_not_proven(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str, status: str
) -> None:
    subject.standin.settings(pending_seconds=10.0 if status == "PENDING" else 0.0)
    blob = provider.upload(staged, spec, key, Transfer())
    stop_at: int | None = 2
    if status == "FAILED":
        subject.standin.fault("fail", "compute.images.insert")
        stop_at = None
    with pytest.raises((exceptions.Interrupted, exceptions.TransientProviderError)):
        provider.register(blob, spec, key, Transfer(stop_at).alive)
    image_ref = images.ref_in(provider._account.project, images.name(spec.name, spec.image_id))
    with pytest.raises(exceptions.ProviderError, match=f"is {status}") as refused:
        provider.verify(image_ref, staged)
    assert refused.value.code == "image.not_active"


def test_remarks(provider: door.GCP, staged: Staged, spec: Spec) -> None:
    assert not provider.remarks(dataclasses.replace(staged, virtual_size=2 << 30), spec)
    (grown,) = provider.remarks(dataclasses.replace(staged, virtual_size=(2 << 30) + 512), spec)
    assert "one of 3 GiB there: grown by zeros" in grown


def test_disk_that_is_not_whole(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    assert staged.size % archive.GIB
    image = made(subject, bring(provider, staged, spec, key))
    assert image["diskSizeGb"] == "1"
    assert pathlib.Path(image["file"]).stat().st_size == archive.GIB


def policy(subject: on_gcp.GCP, image_ref: str, *members: str, role: str = images.USER) -> None:
    """Somebody else lets others use an image."""
    project, name = images.parse(image_ref) or ("", "")
    client = subject.standin.images_client()
    found = client.get_iam_policy(project=project, resource=name)
    found.bindings.append(compute_v1.Binding(role=role, members=list(members)))
    client.set_iam_policy(
        project=project,
        resource=name,
        global_set_policy_request_resource=compute_v1.GlobalSetPolicyRequest(policy=found),
    )


def members(subject: on_gcp.GCP, image_ref: str) -> set[tuple[str, str]]:
    found = made(subject, image_ref)["policy"].get("bindings", ())
    return {(each["role"], member) for each in found for member in each["members"]}


def test_others_rights_stay(subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str) -> None:
    """Also what somebody says at the same moment."""
    image_ref = bring(subject.at("owner"), staged, spec, key)
    policy(subject, image_ref, "user:one@example.com")
    policy(subject, image_ref, "user:two@example.com", role="roles/compute.viewer")
    raced = iter(("user:three@example.com", "user:four@example.com"))

    def alive() -> None:
        with contextlib.suppress(StopIteration):
            policy(subject, image_ref, next(raced))

    wanted = ["domain:example.com", "user:one@example.com", stranger(subject)]
    counted = Counted(subject)
    images.share(subject.at("owner")._account, image_ref.rpartition("/")[2], wanted, alive)
    assert counted["compute.images.setIamPolicy"] == 2 + 3
    users = {*wanted, "user:three@example.com", "user:four@example.com"}
    everybody = {(images.USER, each) for each in users} | {("roles/compute.viewer", "user:two@example.com")}
    assert members(subject, image_ref) == everybody
    counted = Counted(subject)
    images.share(subject.at("owner")._account, image_ref.rpartition("/")[2], wanted, lambda: None)
    assert counted["compute.images.setIamPolicy"] == 0


def test_conditions_stay(subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str) -> None:
    """Of somebody else's binding of the same role, which is no binding without them."""
    image_ref = bring(subject.at("owner"), staged, spec, key)
    project, name = images.parse(image_ref) or ("", "")
    condition = {"title": "until", "expression": 'request.time < timestamp("2030-01-01T00:00:00Z")'}
    theirs = {"role": images.USER, "members": [stranger(subject)], "condition": condition}
    wanted = compute_v1.Policy(version=3, bindings=[compute_v1.Binding(theirs)])
    client = subject.standin.images_client()
    client.set_iam_policy(
        project=project,
        resource=name,
        global_set_policy_request_resource=compute_v1.GlobalSetPolicyRequest(policy=wanted),
    )
    for _ in range(2):
        images.share(subject.at("owner")._account, name, [stranger(subject)], lambda: None)
        ours = {"role": images.USER, "members": [stranger(subject)]}
        assert made(subject, image_ref)["policy"]["bindings"] == [theirs, ours]
    old = client.get_iam_policy(project=project, resource=name)
    assert old.version == 1 and "_withcond_" in old.bindings[0].role and not old.bindings[0].condition.title
    old = compute_v1.Policy(etag=old.etag, bindings=old.bindings[1:])
    with pytest.raises(google_exceptions.BadRequest, match="version 3"):
        client.set_iam_policy(
            project=project,
            resource=name,
            global_set_policy_request_resource=compute_v1.GlobalSetPolicyRequest(policy=old),
        )


def test_who_may_use_it_can(subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str) -> None:
    image_ref = bring(subject.at("owner", share_with=[stranger(subject)]), staged, spec, key)
    theirs = subject.at("stranger", project_id=subject.standin.accounts["stranger"]["project_id"])
    found = theirs.describe(image_ref)
    assert found and found.unreadable
    other = subjects.new_key()
    closed = bring(subject.at("owner"), staged, subjects.new_spec(), other)
    with pytest.raises(exceptions.ProviderError, match=r"compute\.images\.get"):
        theirs.describe(closed)
    subject.provider().discard(other)


# Whose it is


def test_image_of_the_same_name_in_another_project(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """To delete that one is not to delete ours, nor its archive."""
    theirs = subject.squat(spec, key)
    kept = subject.at("owner", keep_archive=True)
    image_ref = bring(kept, staged, spec, key)
    assert image_ref.rpartition("/")[2] == theirs.rpartition("/")[2]
    with pytest.raises(exceptions.ProviderError, match="in another project") as refused:
        kept.delete(theirs)
    assert refused.value.code == "cloud.forbidden"
    assert subject.squatted(theirs) and kept.show(image_ref) and in_bucket(subject, key)
    found = kept.describe(theirs)
    assert found and found.unreadable and images.parse(theirs)[0] in found.unreadable   # type: ignore[index]
    with pytest.raises(exceptions.ProviderError) as refused:
        list(kept.download(theirs, 0))
    assert refused.value.code == "source.not_exportable"


TENANTS = "9b347fc8113a3bc7dc9648f8f985358a", "0d1f5a2f6c1446a1b1b5f5c1a0e4c9ad"


def test_other_tenants(subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str) -> None:
    """In a project that several have: their images are not there, and nobody can harm them."""
    ours, theirs = (subject.at("owner", keep_archive=True, tenant=tenant) for tenant in TENANTS)
    image_ref = bring(ours, staged, spec, key)
    assert ours.describe(image_ref) and ours.describe(spec.name)
    for image in (image_ref, spec.name, image_ref.rpartition("/")[2]):
        assert theirs.describe(image) is None
    assert theirs.show(image_ref) is None and not list(theirs.list({}))
    theirs.delete(image_ref)
    with pytest.raises(exceptions.ProviderError, match=r"no image .* of yours") as refused:
        list(theirs.download(image_ref, 0))
    assert refused.value.code == "cloud.not_found"
    with pytest.raises(exceptions.ProviderError) as refused:
        theirs.verify(image_ref, staged)
    assert refused.value.code == "image.not_active"
    for whose in (theirs, ours):        # whose an archive is, nothing says
        url = f"gs://{BUCKET}/{objects.object_name(key)}"
        assert whose.describe(url) is None
        with pytest.raises(exceptions.ProviderError, match="no image"):
            list(whose.download(url, 0))
    assert ours.show(image_ref) and subject.refs(key) == {image_ref, objects.object_name(key)}


def test_mark_that_a_stranger_made(subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str) -> None:
    """With another tenant's archive in mind: labels say nothing where anybody can make them."""
    ours, theirs = (subject.at("owner", keep_archive=True, tenant=tenant) for tenant in TENANTS)
    image_ref = bring(ours, staged, spec, key)
    labels = {**made(subject, image_ref)["labels"], "ciming-project": TENANTS[1]}
    trap = subject.squat(spec, key)
    project, name = images.parse(trap) or ("", "")
    client = subject.standin.images_client("stranger")
    wanted = compute_v1.GlobalSetLabelsRequest(
        labels=labels, label_fingerprint=client.get(project=project, image=name).label_fingerprint
    )
    operation = client.set_labels_unary(
        project=project, resource=name, global_set_labels_request_resource=wanted
    )
    subject.standin.operations_client("stranger").wait(project=project, operation=operation.name)
    assert made(subject, trap)["labels"] == labels
    assert theirs.describe(trap) is None
    with pytest.raises(exceptions.ProviderError) as refused:
        list(theirs.download(trap, 0))
    assert refused.value.code == "cloud.not_found"
    unmarked = subject.at("owner").describe(trap)
    assert unmarked and unmarked.unreadable


# What can be read


def put(subject: on_gcp.GCP, name: str, data: bytes) -> str:
    """An object, by Google's client alone; its URL."""
    subject.standin.storage_client().bucket(BUCKET).blob(name).upload_from_string(data, retry=None)
    return f"gs://{BUCKET}/{name}"


@pytest.mark.parametrize("flags", [("--format=oldgnu",), ("--format=oldgnu", "-S")], ids=" ".join)
def test_archive_of_tar(
    subject: on_gcp.GCP, provider: door.GCP, tmp_path: pathlib.Path, flags: tuple[str, ...]
) -> None:
    """That somebody else made, larger than one range."""
    size = 64 << 20
    with (tmp_path / "disk.raw").open("wb") as file:
        for place in (0, 9 << 20, *range(20 << 20, 30 << 20, 1 << 20)):
            file.seek(place)
            file.write(random.Random(place).randbytes(300_000))
        file.truncate(size)
    command = ["tar", "-cf", "-", *flags, "disk.raw"]
    tar = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    data = gzip.compress(tar, 1)
    assert len(data) > objects.RANGE
    url = put(subject, "folder/of tar.tar.gz", data)
    found = provider.describe(url)
    assert found is not None
    assert (found.image_ref, found.size, found.disk_format, found.unreadable) == (url, size, "raw", None)
    whole = (tmp_path / "disk.raw").read_bytes()
    for offset in (0, 1, (9 << 20) + 5, size - 1, size):
        assert b"".join(provider.download(url, offset)) == whole[offset:]


def tar_of(tmp_path: pathlib.Path, *names: str) -> bytes:
    for name in names:
        (tmp_path / name).write_bytes(random.Random(name).randbytes(8192))
    command = ["tar", "--format=oldgnu", "-cf", "-", *names]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout


def hostile(kind: str, tmp_path: pathlib.Path) -> bytes:
    fine = tar_of(tmp_path, "disk.raw")
    return {
        "no gzip": fine,
        "other name": gzip.compress(tar_of(tmp_path, "disk.img")),
        "two members": gzip.compress(tar_of(tmp_path, "disk.raw", "more")),
        "truncated": gzip.compress(fine)[:-1000],
        "empty": b"",
        "of 2^80 bytes": gzip.compress(archive._header([(1 << 79, 0), (1 << 80, 0)], 1 << 80) + bytes(1024)),
        "map that never ends": gzip.compress(
            archive._header([(at, 0) for at in range(5)], 512)[:512]
            + (bytes(504) + b"\1" + bytes(7)) * (1 << 16),
            1,
        ),
        "bomb": gzip.compress(fine + bytes(1 << 28), 1),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["no gzip", "other name", "two members", "truncated", "empty", "of 2^80 bytes", "map that never ends",
     "bomb"],
)  # fmt: skip
def test_hostile_archive(
    subject: on_gcp.GCP, provider: door.GCP, tmp_path: pathlib.Path, kind: str
) -> None:
    """It is refused, soon, and not once more."""
    url = put(subject, "hostile.tar.gz", hostile(kind, tmp_path))
    since = time.monotonic()
    found = provider.describe(url)
    assert found is not None
    with pytest.raises(exceptions.ProviderError, match="no archive of a disk") as refused:
        for _ in provider.download(url, 0):
            pass
    assert refused.value.code == "image.broken"
    assert not isinstance(refused.value, exceptions.TransientProviderError)
    assert found.size is None or kind in ("two members", "truncated", "bomb")   # which is seen later only
    assert found.unreadable is None or "no archive of a disk" in found.unreadable
    assert time.monotonic() - since < 30


@pytest.mark.parametrize(
    "url", [f"gs://{BUCKET}/absent.tar.gz", "gs://no-such-bucket/a.tar.gz", "gs://x", "gs:"]
)
def test_archive_that_is_not(provider: door.GCP, url: str) -> None:
    assert provider.describe(url) is None
    with pytest.raises(exceptions.ProviderError, match=r"is not there|no image") as refused:
        list(provider.download(url, 0))
    assert refused.value.code == "cloud.not_found"


def test_archive_that_is_linked(
    subject: on_gcp.GCP, provider: door.GCP, tmp_path: pathlib.Path
) -> None:
    """Others made it: it is neither changed nor deleted, and that is said."""
    url = put(subject, "linked.tar.gz", gzip.compress(tar_of(tmp_path, "disk.raw")))
    before = provider.show(url)
    assert before is not None
    changes = base.Changes(name="new", tags=("blue",), hidden=True, deprecated=True)
    (remark,) = provider.update(url, changes)
    assert "neither name nor tags" in remark
    with pytest.raises(exceptions.ProviderError, match=r"linked\.tar\.gz.*Unlink it") as refused:
        provider.delete(url)
    assert refused.value.code == "image_ref.not_ours"
    assert provider.show(url) == before
    subject.standin.storage_client().bucket(BUCKET).delete_blob("linked.tar.gz")
    provider.delete(url)
    with pytest.raises(exceptions.ProviderError) as refused:
        provider.update(url, changes)
    assert refused.value.code == "image_ref.not_found"


def test_deprecated_image_is_as_the_cloud_says(
    subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """What can be used still less stays so; what is to be used again is."""
    image_ref = bring(subject.provider(), staged, spec, key)
    obsolete, warned = subject.at("owner", deprecate_to="OBSOLETE"), subject.provider()
    for provider, deprecated, state in (
        (warned, True, "DEPRECATED"),
        (obsolete, True, "OBSOLETE"),
        (warned, True, "OBSOLETE"),
        (warned, False, None),
        (obsolete, False, None),
        (obsolete, True, "OBSOLETE"),
        (obsolete, False, None),
    ):
        assert not provider.update(image_ref, base.Changes(deprecated=deprecated))
        assert made(subject, image_ref).get("deprecated", {}).get("state") == state
        found = provider.show(image_ref)
        assert found and found.deprecated is deprecated
        unwanted = state == "OBSOLETE" and provider is warned
        assert (found.status, found.state) == (("OBSOLETE", "off") if unwanted else ("READY", "ready"))


@pytest.mark.parametrize("state", ["OBSOLETE", "DELETED"])
def test_image_of_which_no_disk_can_be_made(
    subject: on_gcp.GCP, provider: door.GCP, staged: Staged, spec: Spec, key: str, state: str
) -> None:
    """It is there, but off, unless the Cloud's owner wants deprecated images so."""
    image_ref = bring(provider, staged, spec, key)
    lifecycle._deprecate(provider._account, (images.parse(image_ref) or ("", ""))[1], state)
    (found,) = (each for each in provider.list({}) if each.image_ref == image_ref)
    assert (found.status, found.state, found.deprecated) == (state, "off", True)


def test_image_without_its_archive(
    subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    """It says how to let it out, by a command that can be copied."""
    image_ref = bring(subject.at("owner", keep_archive=True), staged, spec, key)
    provider = subject.provider()
    found = provider.describe(image_ref)
    assert found and found.size == archive.GIB and found.unreadable is None
    subject.standin.storage_client().bucket(BUCKET).delete_blob(objects.object_name(key))
    project, name = images.parse(image_ref) or ("", "")
    command = f"gcloud compute images export --image {name} --image-project {project} "
    found = provider.describe(image_ref)
    assert found and found.size is None and command in str(found.unreadable)
    with pytest.raises(exceptions.ProviderError) as refused:
        list(provider.download(image_ref, 0))
    assert refused.value.code == "source.not_exportable"
    assert command in refused.value.detail and f"gs://{BUCKET}/{name}.tar.gz" in refused.value.detail


def test_archive_goes_with_its_image(
    subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    provider = subject.at("owner", keep_archive=True)
    image_ref = bring(provider, staged, spec, key)
    assert in_bucket(subject, key) == {objects.object_name(key)}
    assert provider.register(objects.object_name(key), spec, key) == image_ref
    provider.delete(image_ref)
    assert not in_bucket(subject, key) and not subject.refs(key)


def test_archive_is_in_the_bucket_that_the_cloud_had_then(
    subject: on_gcp.GCP, staged: Staged, spec: Spec, key: str
) -> None:
    subject.standin.make_bucket("another-bucket")
    image_ref = bring(subject.at("owner", keep_archive=True, bucket="another-bucket"), staged, spec, key)
    provider = subject.provider()
    found = provider.describe(image_ref)
    assert found and found.unreadable is None
    data = pathlib.Path(staged.path).read_bytes()
    assert b"".join(provider.download(image_ref, 0)).rstrip(b"\0") == data
    provider.delete(image_ref)
    assert not list(subject.standin.storage_client().list_blobs("another-bucket"))
