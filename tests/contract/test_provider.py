# SPDX-License-Identifier: Apache-2.0
"""What every provider keeps to (`ciming.providers.base`), against the real thing.

A provider is added to this suite by one line in conftest.py.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from functools import partial
from typing import Any

import pytest

from ciming import exceptions, staging
from ciming.providers import base
from tests.contract import subjects
from tests.contract.subjects import Subject, Transfer, persistently

Staged = staging.StagedFile
Spec = base.ImageSpec
Call = Callable[[base.Provider], Any]

AT_ONCE = 8         # pieces that a provider has on their way
DEFAULT_CREDENTIALS = {
    **{f"OS_{name}": "nonsense" for name in ("AUTH_URL", "USERNAME", "PASSWORD", "TOKEN", "CLOUD")},
    **{f"AWS_{name}": "nonsense" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PROFILE")},
    "GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent",
}


def bring(
    provider: base.Provider, staged: Staged, spec: Spec, key: str, transfer: Transfer | None = None
) -> str:
    """Upload and register; the image's ref."""
    return provider.register(provider.upload(staged, spec, key, transfer or Transfer()), spec, key)


@pytest.fixture
def calls(subject: Subject, staged: Staged, spec: Spec) -> dict[str, Call]:
    """Every method, with something that is not there yet."""
    key, absent = subjects.new_key(), subject.absent()
    return {
        "check": lambda provider: provider.check(staged),
        "upload": lambda provider: provider.upload(staged, spec, key, Transfer()),
        "register": lambda provider: provider.register(absent, spec, key),
        "verify": lambda provider: provider.verify(absent, staged),
        "discard": lambda provider: provider.discard(key),
        "show": lambda provider: provider.show(absent),
        "list": lambda provider: list(provider.list({})),
        "describe": lambda provider: provider.describe(absent),
        "delete": lambda provider: provider.delete(absent),
        "update": lambda provider: provider.update(absent, base.Changes(name="x")),
        "download": lambda provider: list(provider.download(absent, 0)),
    }


def the_error(subject: Subject, call: Callable[[], Any]) -> exceptions.ProviderError:
    """What a call raised, after a look at what every error keeps to."""
    with pytest.raises(exceptions.ProviderError) as caught:
        call()
    error = caught.value
    assert error.__context__ is None or error.__suppress_context__     # `from None`
    assert len(error.detail) > 20
    shown = "".join(traceback.format_exception(error)) + repr(vars(error))
    for secret in subject.secrets():
        assert secret not in shown
    return error


# The way that a Target goes


def test_an_image_arrives_and_is_proven(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str, data: bytes
) -> None:
    provider.check(staged)
    image_ref = bring(provider, staged, spec, key)
    assert provider.verify(image_ref, staged) == subject.proof
    assert subject.read(image_ref) == data
    assert subject.refs(key) == {image_ref}


def test_everything_twice_is_as_once(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    provider.check(staged)
    provider.check(staged)
    blob = provider.upload(staged, spec, key, Transfer())
    assert provider.upload(staged, spec, key, Transfer()) == blob
    image_ref = provider.register(blob, spec, key)
    assert provider.register(blob, spec, key) == image_ref
    assert provider.upload(staged, spec, key, Transfer()) == blob
    assert provider.verify(image_ref, staged) == provider.verify(image_ref, staged)
    assert provider.show(image_ref) == provider.show(image_ref)
    assert subject.refs(key) == {image_ref}


def test_another_instance_adopts_what_it_finds(
    subject: Subject, staged: Staged, spec: Spec, key: str
) -> None:
    """A kill -9 between any two steps: the answer is lost, what was made is not."""
    blob = subject.provider().upload(staged, spec, key, Transfer())
    assert subject.provider().upload(staged, spec, key, Transfer()) == blob
    image_ref = subject.provider().register(blob, spec, key)
    assert subject.provider().register(blob, spec, key) == image_ref
    assert subject.provider().verify(image_ref, staged) == subject.proof
    assert subject.refs(key) == {image_ref}


def test_progress_grows_to_the_size(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    transfer = Transfer()
    provider.upload(staged, spec, key, transfer)
    assert transfer.told == sorted(transfer.told)
    assert transfer.told[0] >= 0 and transfer.told[-1] == staged.size
    assert len(set(transfer.told)) > 2
    assert transfer.asked > 2
    again = Transfer()
    provider.upload(staged, spec, key, again)
    assert again.told[-1] == staged.size
    for secret in subject.secrets():
        assert secret not in str(transfer.checkpoint)


# Interrupted


@pytest.mark.parametrize("reason", [exceptions.Interrupted, exceptions.ClaimLost])
def test_an_interrupted_upload_stops_at_once(
    provider: base.Provider,
    staged: Staged,
    spec: Spec,
    key: str,
    reason: type[exceptions.Interrupted],
) -> None:
    whole = staged.size // staging.BLOCK + 1
    transfer = Transfer(stop_at=whole, reason=reason)
    with pytest.raises(reason) as caught:
        provider.upload(staged, spec, key, transfer)
    assert type(caught.value) is reason
    assert whole <= transfer.asked <= whole + AT_ONCE       # others ask beside, and hear the same
    assert not transfer.told or transfer.told[-1] < staged.size


def test_who_is_not_alive_makes_nothing(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    with pytest.raises(exceptions.ClaimLost):
        provider.upload(staged, spec, key, Transfer(stop_at=1, reason=exceptions.ClaimLost))
    assert not subject.refs(key)


def test_interrupted_anywhere_it_goes_on_with_what_it_made(
    subject: Subject, staged: Staged, data: bytes
) -> None:
    """Cut at each question whether to go on."""
    for cut_at in itertools.count(1):
        key, spec, transfer = subjects.new_key(), subjects.new_spec(), Transfer(stop_at=cut_at)
        try:
            subject.provider().upload(staged, spec, key, transfer)
        except exceptions.Interrupted:
            made = subject.refs(key)
        else:
            break       # it was whole before it was asked so often
        provider, successor = subject.provider(), Transfer(checkpoint=transfer.checkpoint)
        image_ref = persistently(partial(bring, provider, staged, spec, key, successor))
        assert made <= subject.parts(image_ref) and subject.refs(key) == {image_ref}
        assert provider.verify(image_ref, staged) == subject.proof
        assert subject.read(image_ref) == data
        provider.discard(key)
    subject.provider().discard(key)
    assert cut_at > 3


def test_two_at_once_make_one_copy(subject: Subject, staged: Staged, spec: Spec, key: str) -> None:
    """An engine that was thought dead, and its successor: they may hinder, but not double, each other."""
    gate = threading.Barrier(2)

    def upload() -> None:
        provider = subject.provider()
        provider.check(staged)
        gate.wait()
        with contextlib.suppress(exceptions.ProviderError):
            provider.upload(staged, spec, key, Transfer())

    with futures.ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(upload) for _ in range(2)]:
            each.result()
    made = subject.refs(key)
    assert len(made) == 1
    provider = subject.provider()
    image_ref = persistently(lambda: bring(provider, staged, spec, key))
    assert made <= subject.parts(image_ref) and subject.refs(key) == {image_ref}
    assert provider.verify(image_ref, staged) == subject.proof


# Undone


def test_discard(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    provider.discard(key)                       # absent is fine
    image_ref = bring(provider, staged, spec, key)
    other = subjects.new_key()
    theirs = bring(provider, staged, subjects.new_spec(), other)
    provider.discard(key)
    assert not subject.refs(key) and provider.show(image_ref) is None
    assert subject.refs(other) == {theirs}
    provider.discard(key)
    provider.discard(other)


def test_discard_asks_before_it_removes(
    provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    """Who slept for too long must not remove what a successor has made."""
    image_ref = bring(provider, staged, spec, key)
    with pytest.raises(exceptions.Interrupted):
        provider.discard(key, Transfer(stop_at=1).alive)
    assert provider.show(image_ref) is not None
    provider.discard(key)


def test_discard_removes_a_half_upload(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    with pytest.raises(exceptions.Interrupted):
        provider.upload(staged, spec, key, Transfer(stop_at=3))
    subject.provider().discard(key)
    assert not subject.refs(key)


def test_after_discard_it_can_be_brought_again(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    bring(provider, staged, spec, key)
    provider.discard(key)
    image_ref = bring(provider, staged, spec, key)
    assert provider.verify(image_ref, staged) == subject.proof
    assert subject.refs(key) == {image_ref}


# Whose it is


def test_a_strangers_image_with_our_mark_is_left_alone(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    theirs = subject.squat(spec, key)
    provider.discard(key)
    assert subject.squatted(theirs)
    image_ref = bring(provider, staged, spec, key)
    assert image_ref != theirs
    assert provider.verify(image_ref, staged) == subject.proof
    assert subject.refs(key) == {image_ref}
    provider.discard(key)
    assert not subject.refs(key)
    assert subject.squatted(theirs)


def test_what_is_ours(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    """A stranger's image that we can see is none of it."""
    theirs = subject.squat(spec, key)
    image_ref = bring(provider, staged, spec, key)
    listed = {each.image_ref for each in provider.list(provider.ours())}
    assert image_ref in listed and theirs not in listed
    provider.discard(key)


def test_no_credential_is_taken_from_the_surroundings(
    subject: Subject, staged: Staged, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    for name, value in DEFAULT_CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clouds.yaml").write_text("clouds: nonsense")
    subject.provider().check(staged)


# Proof


@pytest.fixture
def image_ref(provider: base.Provider, staged: Staged, spec: Spec, key: str) -> Iterator[str]:
    """An image that is there."""
    yield bring(provider, staged, spec, key)


def test_verify_refuses_other_bytes(
    subject: Subject,
    provider: base.Provider,
    image_ref: str,
    data: bytes,
    tmp_path: pathlib.Path,
) -> None:
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    for other in (flipped, data[:-1], data + b"x"):
        staged = subjects.stage(tmp_path / "other", other)
        error = the_error(subject, partial(provider.verify, image_ref, staged))
        assert not isinstance(error, exceptions.TransientProviderError)
        assert error.code.startswith("image.")


def test_verify_and_register_refuse_what_is_gone(
    subject: Subject,
    provider: base.Provider,
    image_ref: str,
    staged: Staged,
    spec: Spec,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some look for it again for a while."""
    for name in ("aws.snapshots", "openstack.provider"):
        monkeypatch.setattr(f"ciming.providers.{name}.SEEN_SECONDS", 1)
    provider.delete(image_ref)
    for call in (
        lambda: provider.verify(image_ref, staged),
        lambda: provider.register(image_ref, spec, key),
    ):
        error = the_error(subject, call)
        assert not isinstance(error, exceptions.TransientProviderError)
        assert "None" not in error.detail


# To look and to delete


def test_show_and_list(subject: Subject, provider: base.Provider, image_ref: str, spec: Spec) -> None:
    shown = provider.show(image_ref)
    assert shown is not None and shown.image_ref == image_ref
    assert shown.name == spec.name
    assert [each for each in provider.list({}) if each.image_ref == image_ref] == [shown]
    assert image_ref in {each.image_ref for each in provider.list({"name": spec.name})}
    assert not list(provider.list({"name": "no such image"}))


def test_metadata(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, image_ref: str
) -> None:
    """What all clouds say, in the same words; what one does not say is none."""
    found = provider.show(image_ref)
    assert found is not None
    assert (found.state, found.image_id) == ("ready", spec.image_id)
    assert not found.hidden and not found.deprecated and not found.protected
    assert found.properties["architecture"] == "x86_64" and not {*found.properties} & {"ciming_image", "id"}
    assert found.created_at and abs(found.created_at / 1000 - time.time()) < 600
    for algorithm, digest in (found.digests or {}).items():
        assert digest == (staged.guest_digest() if algorithm == "guest" else staged.digest(algorithm))
    size = staged.size if subject.name == "openstack" else subject.size_of(staged)
    assert size in (found.size, found.virtual_size)
    listed = provider.list({"name": spec.name, "status": found.status.upper(), "owner": str(found.owner)})
    assert list(listed) == [found]
    assert not list(provider.list({"name": spec.name, "tag": "none of its"}))
    if found.digests:
        digest = next(iter(found.digests.values()))
        assert image_ref in {each.image_ref for each in provider.list({"digest": digest})}


def test_look(
    subject: Subject, provider: base.Provider, staged: Staged, image_ref: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one, of several, of more than one call can name; what is not there is not told."""
    other = subjects.new_key()
    second, absent = bring(provider, staged, subjects.new_spec(), other), subject.absent()
    both = {each: provider.show(each) for each in (image_ref, second)}
    for batch in (provider.batch, 1):
        monkeypatch.setattr(type(provider), "batch", batch)
        assert {each.image_ref: each for each in provider.look([image_ref, absent, second])} == both
    assert list(provider.look([image_ref])) == [both[image_ref]]
    assert list(provider.look([absent])) == [] == list(provider.look([]))
    provider.discard(other)


def test_describe(
    subject: Subject, provider: base.Provider, image_ref: str, spec: Spec, staged: Staged
) -> None:
    """By ref and by name the same; enough of it to know whether it is what one has."""
    found = provider.describe(image_ref)
    assert found is not None and found == provider.describe(spec.name)
    assert (found.image_ref, found.name) == (image_ref, spec.name)
    assert found.protected is False
    if subject.lets_out:
        assert (found.size, found.unreadable) == (subject.size_of(staged), None)
    else:
        assert found.unreadable and "source" in found.unreadable
    assert bool(found.digests) == subject.knows_digests
    for algorithm, digest in found.digests.items():
        assert staged.digest(algorithm) == digest
    for absent in (subjects.new_key(), "no such image", "../..", "?", "a,b", "in:a"):
        assert provider.describe(absent) is None


def test_probe(subject: Subject, provider: base.Provider) -> None:
    """It tells what works and what does not, raises nothing, and leaves nothing."""
    before = {each.image_ref for each in provider.list({})}
    verdicts = list(provider.probe())
    assert len(verdicts) > 3 and not [each for each in verdicts if each.passed is False], verdicts
    for unfit in (subject.forbidden(), subject.unreachable()):
        verdicts = list(unfit.probe())
        assert [each for each in verdicts if each.passed is False], verdicts
        for secret in subject.secrets():
            assert secret not in str(verdicts)
    assert {each.image_ref for each in provider.list({})} == before


def test_delete(subject: Subject, provider: base.Provider, image_ref: str, key: str) -> None:
    provider.delete(image_ref)
    assert provider.show(image_ref) is None
    assert image_ref not in {each.image_ref for each in provider.list({})}
    provider.delete(image_ref)
    provider.delete(subjects.new_key())
    assert not subject.refs(key)


# What is said of it later


def test_name_and_tags(subject: Subject, provider: base.Provider, image_ref: str, key: str) -> None:
    """To say it twice is as once; others' tags stay."""
    provider.update(image_ref, base.Changes(tags=("theirs",)))
    provider.update(image_ref, base.Changes(tags=("old", "both")))
    anew = base.Changes(name="renamed", tags=("new", "both"), untag=("old", "never-there"))
    for _ in range(2):
        lost = subject.provider().update(image_ref, anew)
        assert bool(lost) != subject.renames and all("its own name stays" in each for each in lost)
        found = provider.describe(image_ref)
        assert found is not None and found.name == "renamed"
        assert sorted(found.tags) == ["both", "new", "theirs"]
    assert subject.refs(key) == {image_ref}
    provider.update(image_ref, base.Changes(tags=(), untag=("new", "both")))
    found = provider.describe(image_ref)
    assert found is not None and (found.name, found.tags) == ("renamed", ("theirs",))


@pytest.mark.parametrize("what", ["hidden", "deprecated"])
def test_what_a_cloud_carries_or_says_that_it_does_not(
    subject: Subject, provider: base.Provider, image_ref: str, what: str
) -> None:
    for value in (False, True, True, False, False):
        said: dict[str, Any] = {what: value}
        lost = provider.update(image_ref, base.Changes(**said))
        if what in subject.carries:
            assert (lost, subject.says(provider, image_ref, what)) == ([], value)
        else:
            assert bool(lost) == value      # it is never so there
    assert not provider.update(image_ref, base.Changes())


def test_what_is_gone_or_forbidden_is_not_changed(
    subject: Subject, provider: base.Provider, image_ref: str
) -> None:
    before = provider.show(image_ref)
    changes = base.Changes(name="renamed", tags=("new",), hidden=True, deprecated=True)
    with pytest.raises(exceptions.Interrupted):
        provider.update(image_ref, changes, Transfer(stop_at=1).alive)
    error = the_error(subject, lambda: subject.forbidden().update(image_ref, changes))
    assert (error.code, provider.show(image_ref)) == ("cloud.forbidden", before)
    provider.delete(image_ref)
    error = the_error(subject, lambda: provider.update(image_ref, changes))
    assert error.code == "image_ref.not_found"
    assert not isinstance(error, exceptions.TransientProviderError)


# Errors


def test_a_format_that_is_not_taken(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str
) -> None:
    foreign = dataclasses.replace(staged, disk_format=subject.foreign_format)
    error = the_error(subject, lambda: provider.check(foreign))
    assert error.code == "image.format_not_taken"
    assert subject.foreign_format in error.detail
    assert not isinstance(error, exceptions.TransientProviderError)
    assert subject.foreign_format not in provider.formats


def test_a_refusal_is_for_good_and_has_the_clouds_own_id(
    subject: Subject, staged: Staged, spec: Spec, key: str
) -> None:
    provider = subject.forbidden()
    error = the_error(subject, lambda: provider.upload(staged, spec, key, Transfer()))
    assert not isinstance(error, exceptions.TransientProviderError)
    assert error.code == "cloud.forbidden"
    assert error.cloud_request_id
    assert not subject.refs(key)


ASKS_NOTHING = {"__init__", "formats", "probe", "whose"}     # or need not, or raises nothing


@pytest.mark.parametrize("method", sorted({*base.Provider.__abstractmethods__, "update"} - ASKS_NOTHING))
def test_an_unreachable_cloud_may_come_back(
    subject: Subject, calls: dict[str, Call], method: str
) -> None:
    provider = subject.unreachable()
    since = time.monotonic()
    error = the_error(subject, lambda: calls[method](provider))
    assert isinstance(error, exceptions.TransientProviderError)
    assert time.monotonic() - since < 10, "its own retries are hidden from the Target's attempts"


def test_it_says_whose_images_it_sees(subject: Subject, provider: base.Provider) -> None:
    """The same of the same credential; and no secret."""
    said = provider.whose()
    assert said == subject.provider().whose()
    assert said.startswith(("project ", "account ")) and not any(each in said for each in subject.secrets())


def test_it_is_found_by_its_name(subject: Subject) -> None:
    assert isinstance(subject.provider(), base.load(subject.name))
    with pytest.raises(exceptions.ProviderError) as caught:
        base.load("no such provider")
    assert caught.value.code == "provider.not_installed"


def test_formats_are_those_that_inspection_knows(provider: base.Provider) -> None:
    from ciming.api import schemas

    assert provider.formats
    assert set(provider.formats) <= set(schemas.DISK_FORMATS)


# The way back


@pytest.mark.parametrize("offset", [0, 1, 1 << 20, -1, None])
def test_download_from_an_offset(
    subject: Subject, provider: base.Provider, staged: Staged, spec: Spec, key: str, offset: int | None
) -> None:
    """None: where the image ends."""
    if not subject.lets_out:
        ref = bring(provider, staged, spec, key)
        error = the_error(subject, lambda: list(provider.download(ref, 0)))
        assert error.code == "source.not_exportable"
        return
    end, data = subject.size_of(staged), pathlib.Path(staged.path).read_bytes()
    offset = end if offset is None else offset % len(data)
    ref = bring(provider, staged, spec, key)
    expected = memoryview(data)[offset:]
    for block in provider.download(ref, offset):
        known = expected[: len(block)]
        assert block[: len(known)] == known and not any(block[len(known) :].strip(b"\0"))
        expected, offset = expected[len(known) :], offset + len(block)
    assert (len(expected), offset) == (0, end)
