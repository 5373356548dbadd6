# SPDX-License-Identifier: Apache-2.0
"""What AWS copies from region to region by itself: the same image as by its bytes, or none."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from ciming import exceptions, staging
from ciming.providers import base, pace
from ciming.providers.aws import images, snapshots
from ciming.providers.aws import provider as door
from tests.contract import on_aws, subjects
from tests.contract.subjects import Transfer, persistently
from tests.sandbox import sandbox

MACHINE = {"architecture": "x86_64", "hw_firmware_type": "uefi", "os_distro": "debian"}
SEEN_SECONDS = 1.0
TOLD = ("Architecture", "BootMode", "EnaSupport", "RootDeviceName", "SriovNetSupport", "Description")


class There(NamedTuple):
    """An image in the region that copies are made from."""

    place: Mapping[str, Any]
    image_ref: str
    staged: staging.StagedFile
    spec: base.ImageSpec
    """What its Links are known to be: nothing of machines."""


@pytest.fixture(scope="module")
def subject(cloud: sandbox.Sandbox) -> Iterator[on_aws.AWS]:
    with contextlib.ExitStack() as stack:
        yield on_aws.AWS(cloud, stack)


@pytest.fixture(autouse=True)
def undisturbed(subject: on_aws.AWS) -> Iterator[None]:
    yield
    subject.standin.reset()


@pytest.fixture
def provider(subject: on_aws.AWS) -> door.AWS:
    """Where copies are made."""
    return subject.at("owner", region=on_aws.OTHER_REGION)


@pytest.fixture
def key(provider: door.AWS) -> Iterator[str]:
    made = subjects.new_key()
    yield made
    provider.discard(made)


@pytest.fixture
def bring(subject: on_aws.AWS, staged: staging.StagedFile) -> Iterator[Callable[..., There]]:
    """Bring an image there, by bytes."""
    made = []

    def bring(**more: Any) -> There:
        provider, key = subject.at("owner", **more), subjects.new_key()
        made.append((provider, key))
        spec = subjects.new_spec(properties={**MACHINE, "description": "a disk"}, tags=("blue",))
        image_ref = provider.register(provider.upload(staged, spec, key, Transfer()), spec, key)
        return There(provider._place, image_ref, staged, dataclasses.replace(spec, properties={}, tags=()))

    yield bring
    for provider, key in made:
        provider.discard(key)


@pytest.fixture
def there(bring: Callable[..., There]) -> There:
    return bring()


def copy(provider: door.AWS, there: There, key: str, **said: Any) -> str | None:
    spec = dataclasses.replace(there.spec, **said)
    return provider.copy(there.place, there.image_ref, spec, key, Transfer())


def registered(provider: door.AWS, there: There, key: str, blob: str | None) -> Mapping[str, Any]:
    """The image that is made of a copy; it is the same disk, and the only one."""
    assert blob is not None
    image_ref = provider.register(blob, there.spec, key)
    size, guest = there.staged.virtual_size, there.staged.guest_digest()
    known = staging.StagedFile("", "raw", size, size, {}, guest)
    assert provider.verify(image_ref, known) == "guest"
    with pytest.raises(exceptions.ProviderError, match=guest):
        provider.verify(image_ref, dataclasses.replace(known, guest=guest[::-1]))
    (image,) = provider._find_images(key)
    assert image["ImageId"] == image_ref
    return image


def test_copy(subject: on_aws.AWS, provider: door.AWS, there: There, key: str) -> None:
    before = subject.standin.counters()
    transfer = Transfer()
    blob = provider.copy(there.place, there.image_ref, there.spec, key, transfer)
    image = registered(provider, there, key, blob)
    assert transfer.checkpoint and transfer.checkpoint["image"] == image["ImageId"]
    original = subject.provider()._show(there.image_ref)
    assert original is not None
    assert {name: image.get(name) for name in TOLD} == {name: original.get(name) for name in TOLD}
    tags = {each["Key"]: each["Value"] for each in image["Tags"]}
    assert (tags["ciming:target"], tags["ciming:image"]) == (key, there.spec.image_id)
    assert (tags["os_distro"], tags["blue"], tags["Name"]) == ("debian", "", there.spec.name)
    after = subject.standin.counters()
    assert after["puts"] == before["puts"]
    assert after["calls"]["ec2:CopyImage"] == before["calls"].get("ec2:CopyImage", 0) + 1
    assert not {"ebs:StartSnapshot", "ec2:RegisterImage"} & {
        name for name, count in after["calls"].items() if count != before["calls"].get(name, 0)
    }


def test_twice(subject: on_aws.AWS, provider: door.AWS, there: There, key: str) -> None:
    blob = copy(provider, there, key)
    assert copy(subject.at("owner", region=on_aws.OTHER_REGION), there, key) == blob
    assert len(subject.refs(key)) == 1


@pytest.mark.parametrize("kind", ["lost", "reset", "throttle", "503"])
def test_answer_that_does_not_come(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str, kind: str
) -> None:
    """And the copy is not to be seen at once."""
    time.sleep(SEEN_SECONDS)        # what is copied is
    subject.standin.settings(consistency_seconds=SEEN_SECONDS)
    subject.standin.fault(kind, "CopyImage")
    transfer = Transfer()

    def again() -> str | None:
        return provider.copy(there.place, there.image_ref, there.spec, key, transfer)

    with pytest.raises(exceptions.TransientProviderError):
        again()
    registered(provider, there, key, persistently(again))
    assert len(subject.refs(key)) == 1


def test_interrupted(subject: on_aws.AWS, provider: door.AWS, there: There, key: str) -> None:
    """At any question; then it goes on."""
    stop_at, checkpoint = 0, None
    while True:
        stop_at += 1
        transfer = Transfer(stop_at, checkpoint=checkpoint)
        try:
            provider.copy(there.place, there.image_ref, there.spec, key, transfer)
        except exceptions.Interrupted:
            checkpoint = transfer.checkpoint
            continue
        break
    assert stop_at > 1
    registered(provider, there, key, copy(provider, there, key))


def test_discard(subject: on_aws.AWS, provider: door.AWS, there: There, key: str) -> None:
    """Also what is being made yet, and is seen only after a while."""
    time.sleep(SEEN_SECONDS)
    subject.standin.settings(copy_seconds=60, consistency_seconds=SEEN_SECONDS)
    with pytest.raises(exceptions.Interrupted):
        provider.copy(there.place, there.image_ref, there.spec, key, Transfer(2))
    assert subject.refs(key)
    provider.discard(key)
    assert not subject.refs(key)


def test_cancelled_before_there_was_an_answer(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS copies all the same, and shows it later."""
    monkeypatch.setattr(snapshots, "SEEN_SECONDS", 6.0)
    time.sleep(SEEN_SECONDS)
    before = {each["id"] for each in subject.standin.snapshots()}
    subject.standin.settings(copy_seconds=60, consistency_seconds=2 * SEEN_SECONDS)
    time.sleep(SEEN_SECONDS)
    subject.standin.fault("lost", "CopyImage")
    with pytest.raises(exceptions.TransientProviderError, match="no answer"):
        copy(provider, there, key)
    provider.discard(key)
    assert not subject.refs(key)
    assert {each["id"] for each in subject.standin.snapshots()} == before


def test_credential_that_is_refused(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str
) -> None:
    """It is for the user to bring another one: to send the bytes instead would not help."""
    subject.standin.fault("auth", "CopyImage")
    with pytest.raises(exceptions.CredentialRefused):
        copy(provider, there, key)


def test_refused(subject: on_aws.AWS, provider: door.AWS, there: There, key: str) -> None:
    """By bytes, then, and nothing is left; or from elsewhere."""
    subject.standin.fault("denied", "CopyImage")
    transfer = Transfer()
    with pytest.raises(exceptions.ProviderError, match="CopyImage"):
        provider.copy(there.place, there.image_ref, there.spec, key, transfer)
    assert not subject.refs(key)
    gone = there._replace(image_ref="ami-0123456789abcdef0")
    assert provider.copy(gone.place, gone.image_ref, there.spec, key, transfer) is None
    registered(
        provider, there, key, provider.copy(there.place, there.image_ref, there.spec, key, transfer)
    )


@pytest.mark.parametrize("kind", ["auth", "reset", "503"])
def test_source_that_is_not_to_be_seen(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str, kind: str
) -> None:
    """A region that is not enabled for the Target's account, or down: other Clouds may have the bytes."""
    looks = 1 if kind == "auth" else images.LOOKS
    subject.standin.fault(kind, "DescribeImages", region=on_aws.REGION, times=looks)
    with pytest.raises(exceptions.ProviderError, match="DescribeImages") as refused:
        copy(provider, there, key)
    passing = exceptions.TransientProviderError | exceptions.CredentialRefused
    assert not isinstance(refused.value, passing) and not subject.refs(key)
    registered(provider, there, key, copy(provider, there, key))


@pytest.mark.parametrize("kind", ["reset", "503"])
def test_source_that_stumbles(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str, kind: str
) -> None:
    """Once is no reason to send all of the bytes."""
    subject.standin.fault(kind, "DescribeImages", region=on_aws.REGION)
    registered(provider, there, key, copy(provider, there, key))


def test_source_that_is_asked_too_often(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str
) -> None:
    subject.standin.fault("throttle", "DescribeImages", region=on_aws.REGION)
    with pytest.raises(pace.Throttled):
        copy(provider, there, key)


def test_too_many_at_a_time(subject: on_aws.AWS, provider: door.AWS, there: There, key: str) -> None:
    """There will be room for it; that is waited for as long as somebody wants it."""
    subject.standin.fault("quota", "CopyImage", times=5)
    with pytest.raises(exceptions.Interrupted):
        provider.copy(there.place, there.image_ref, there.spec, key, Transfer(3))
    assert copy(provider, there, key)


def test_too_many_for_good(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By bytes, then."""
    monkeypatch.setattr(snapshots, "ROOM_SECONDS", 0.5)
    subject.standin.fault("quota", "CopyImage", times=10**6)
    with pytest.raises(exceptions.ProviderError, match="CopyImage") as refused:
        copy(provider, there, key)
    assert refused.value.code == "cloud.quota_exceeded"
    assert not isinstance(refused.value, exceptions.TransientProviderError)


def test_copy_that_fails(subject: on_aws.AWS, bring: Callable[..., There], key: str, there: There) -> None:
    """It is not what its user asked for, and they are told why."""
    arn = subject.standin.make_key(region=on_aws.OTHER_REGION)
    subject.standin.enable_key(arn, False)
    provider = subject.at("owner", region=on_aws.OTHER_REGION, kms_key=arn)
    with pytest.raises(exceptions.ProviderError, match="Given key ID is not accessible"):
        copy(provider, there, key)
    assert not subject.refs(key)


def test_copy_that_somebody_removes(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SEEN_SECONDS", 0.5)
    subject.standin.settings(copy_seconds=60)

    class Removing(Transfer):
        def alive(self) -> None:
            super().alive()
            if self.checkpoint and "image" in self.checkpoint:
                provider.discard(key)

    with pytest.raises(exceptions.ProviderError, match="is gone"):
        provider.copy(there.place, there.image_ref, there.spec, key, Removing())


def test_encrypted(subject: on_aws.AWS, there: There, key: str) -> None:
    arn = subject.standin.make_key(region=on_aws.OTHER_REGION)
    provider = subject.at("owner", region=on_aws.OTHER_REGION, kms_key=arn)
    image = registered(provider, there, key, copy(provider, there, key))
    (made,) = (each for each in subject.standin.snapshots() if each["id"] in image_snapshots(image))
    assert made["key"] == arn


def image_snapshots(image: Mapping[str, Any]) -> set[str]:
    return {each["Ebs"]["SnapshotId"] for each in image["BlockDeviceMappings"]}


@pytest.mark.parametrize(
    ("here", "there_too", "said"),
    [
        ({"volume_type": "gp2"}, {}, {}),
        ({"imds_v2": True}, {}, {}),
        ({}, {}, {"min_disk": 2}),
        ({}, {}, {"properties": {"architecture": "aarch64"}}),
        ({}, {}, {"properties": {"hw_firmware_type": "bios"}}),
        ({"tenant": "another"}, {}, {}),
        ({}, {"tenant": "another"}, {}),
        ({}, {"endpoint_url": on_aws.NOBODY}, {}),
    ],
    ids=str,
)
def test_another_image(
    subject: on_aws.AWS,
    there: There,
    key: str,
    here: dict[str, Any],
    there_too: dict[str, Any],
    said: dict[str, Any],
) -> None:
    """What is wanted is not what CopyImage would make; or it is none of ours, or in another AWS."""
    provider = subject.at("owner", region=on_aws.OTHER_REGION, **here)
    before = subject.standin.counters()["calls"].get("ec2:CopyImage", 0)
    elsewhere = there._replace(place={**there.place, **there_too})
    assert copy(provider, elsewhere, key, **said) is None
    assert subject.standin.counters()["calls"].get("ec2:CopyImage", 0) == before


def test_machines_that_aws_does_not_have(provider: door.AWS, there: There, key: str) -> None:
    with pytest.raises(exceptions.ProviderError, match="s390x"):
        copy(provider, there, key, properties={"architecture": "s390x"})


def test_encrypted_there_only(
    subject: on_aws.AWS, provider: door.AWS, bring: Callable[..., There], key: str
) -> None:
    """It would be encrypted here too, by a key that nobody has named."""
    assert copy(provider, bring(kms_key=subject.standin.make_key()), key) is None


def test_for_machines_of_all_kinds(
    subject: on_aws.AWS, provider: door.AWS, bring: Callable[..., There], key: str
) -> None:
    """What only some machines may use is not what is wanted."""
    assert copy(provider, bring(imds_v2=True), key) is None


def test_of_somebody_else(subject: on_aws.AWS, there: There, key: str) -> None:
    """An image that is not shared."""
    provider = subject.at("stranger", region=on_aws.OTHER_REGION)
    assert copy(provider, there, key) is None


def test_gone(subject: on_aws.AWS, provider: door.AWS, there: There, key: str) -> None:
    subject.provider().delete(there.image_ref)
    assert copy(provider, there, key) is None


def test_upload_goes_on(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str, spec: base.ImageSpec
) -> None:
    """What was begun by bytes comes to its end by bytes, and so does what is to be sent."""
    by_bytes = Transfer(checkpoint={"copied": False})
    assert provider.copy(there.place, there.image_ref, spec, key, by_bytes) is None
    with pytest.raises(exceptions.Interrupted):
        provider.upload(there.staged, spec, key, Transfer(3))
    assert subject.refs(key)
    assert copy(provider, there, key) is None


def test_name_that_is_taken(
    subject: on_aws.AWS, provider: door.AWS, there: There, key: str
) -> None:
    squatter = subjects.new_key()
    spec = dataclasses.replace(there.spec, properties=MACHINE)
    provider.register(provider.upload(there.staged, spec, squatter, Transfer()), spec, squatter)
    image = registered(provider, there, key, copy(provider, there, key))
    assert image["Name"] == f"{there.spec.name} {key[:8]}"
    provider.discard(squatter)


def test_within_a_region(subject: on_aws.AWS, there: There) -> None:
    """A Cloud may be the same region, with other settings."""
    provider, key = subject.provider(), subjects.new_key()
    registered(provider, there, key, copy(provider, there, key))
    provider.discard(key)
    assert provider.show(there.image_ref)
