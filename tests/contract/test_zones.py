# SPDX-License-Identifier: Apache-2.0
"""What a sync of zones asks of a zone, against a real Glance; no other kind of cloud can be asked it."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from ciming import exceptions, staging
from ciming.providers import base
from ciming.providers.openstack import provider as door
from tests.contract import subjects
from tests.contract.on_openstack import ZONE, session_of
from tests.contract.subjects import Transfer
from tests.person import Person
from tests.sandbox import sandbox

SAID: Mapping[str, Any] = {
    "name": "Débian ☃",
    "tags": ("b", "a"),
    "visibility": "private",
    "hidden": True,
    "protected": True,
    "min_disk": 2,
    "min_ram": 512,
}


def of(cloud: sandbox.Sandbox, name: str) -> door.OpenStack:
    return door.OpenStack({"region": ZONE}, session_of(cloud, name))


@pytest.fixture
def provider(cloud: sandbox.Sandbox) -> door.OpenStack:
    return of(cloud, "member")


@pytest.fixture
def operator(cloud: sandbox.Sandbox) -> door.OpenStack:
    return of(cloud, "admin")


@pytest.fixture
def image(
    provider: door.OpenStack,
    operator: door.OpenStack,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
) -> Iterator[str]:
    """One of the member's."""
    key = subjects.new_key()
    made = provider.register(provider.upload(staged, spec, key, Transfer()), spec, key)
    yield made
    operator.settle(made, {"protected": False})     # or it can not be deleted
    operator.delete(made)


def found(provider: door.OpenStack, image_ref: str, owner: str | None = None) -> base.Surveyed | None:
    """What a survey says of one image, which is there at most once."""
    every = [each for each in provider.survey(owner) if each.image_ref == image_ref]
    assert len(every) < 2
    return every[0] if every else None


def changes(provider: door.OpenStack, image_ref: str, carry: Mapping[str, Any]) -> int:
    """Settle; how many changes that took."""
    asked: list[int] = []
    provider.settle(image_ref, carry, lambda: asked.append(1))
    return len(asked)


def test_what_a_survey_says(
    provider: door.OpenStack, member: Person, image: str, spec: base.ImageSpec, data: bytes
) -> None:
    seen = found(provider, image)
    assert seen is not None and seen.created_at.startswith("20")
    assert dataclasses.replace(seen, created_at="") == base.Surveyed(
        image_ref=image,
        name=spec.name,
        owner=member.project_id,
        status="active",
        size=len(data),
        digest=f"sha512:{hashlib.sha512(data).hexdigest()}",
        md5=hashlib.md5(data).hexdigest(),
        created_at="",
        visibility="shared",        # Glance's default, with nobody as yet
        properties={"architecture": "x86_64"},
        mark=spec.image_id,
    )


@pytest.mark.parametrize(
    "said", [{"hidden": True}, {"protected": True}, {"hidden": True, "visibility": "community"}]
)
def test_what_was_settled_is_found_again_and_discarded(
    cloud: sandbox.Sandbox,
    member: Person,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
    said: Mapping[str, Any],
) -> None:
    """As when a sync ends between that and the Link: by an operator, for a project."""
    key, place = subjects.new_key(), {"region": ZONE, "owner": member.project_id}
    operator = door.OpenStack(place, session_of(cloud, "admin"))
    theirs = dataclasses.replace(spec, owner=member.project_id, visibility="private")
    made = operator.register(operator.upload(staged, theirs, key, Transfer()), theirs, key)
    operator.settle(made, said)
    assert operator.upload(staged, theirs, key, Transfer()) == made
    operator.discard(key)
    assert operator.show(made) is None


def test_who_sees_what(
    cloud: sandbox.Sandbox,
    operator: door.OpenStack,
    member: Person,
    stranger: Person,
    image: str,
) -> None:
    theirs = of(cloud, "stranger")
    assert found(theirs, image) is None and found(theirs, image, member.project_id) is None
    assert found(operator, image) == found(operator, image, member.project_id) is not None
    assert found(operator, image, stranger.project_id) is None
    operator.settle(image, {"members": (stranger.project_id,)})
    assert found(theirs, image) is None     # Glance lists what a member has accepted
    path = f"/images/{image}/members/{stranger.project_id}"
    stranger.zone(ZONE).image.put(path, json={"status": "accepted"}).raise_for_status()
    assert found(theirs, image) is not None
    assert found(theirs, image, stranger.project_id) is None


def test_an_image_without_data(provider: door.OpenStack, member: Person) -> None:
    glance = member.zone(ZONE).image
    made = glance.post("/images", json={"name": "empty"}).json()["id"]
    seen = found(provider, made)
    assert seen is not None and (seen.status, seen.size, seen.digest) == ("queued", None, None)
    assert seen.unreadable is not None and "queued" in seen.unreadable
    glance.delete_image(made)
    assert found(provider, made) is None


def test_a_survey_goes_through_all_pages(
    provider: door.OpenStack, member: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PAGE", 2)
    glance = member.zone(ZONE).image
    wanted = [{"name": "page", "os_hidden": number > 4} for number in range(8)]
    made = [glance.post("/images", json=body).json()["id"] for body in wanted]
    every = [each.image_ref for each in provider.survey(member.project_id)]
    assert len(every) == len(set(every)) and set(made) <= set(every)
    for each in made:
        glance.delete_image(each)


@pytest.mark.parametrize("what", SAID)
def test_one_thing_is_settled(provider: door.OpenStack, image: str, what: str) -> None:
    before = found(provider, image)
    assert before is not None
    said: dict[str, Any] = {what: tuple(sorted(SAID[what])) if what == "tags" else SAID[what]}
    wanted = dataclasses.replace(before, **said)
    assert changes(provider, image, {what: SAID[what]}) == 1
    assert found(provider, image) == wanted
    assert changes(provider, image, {what: SAID[what]}) == 0


def test_all_is_settled_at_once(provider: door.OpenStack, image: str) -> None:
    assert changes(provider, image, SAID) == 1
    assert changes(provider, image, SAID) == 0


def test_properties(provider: door.OpenStack, image: str) -> None:
    """Those that are named; names with what JSON pointers mean otherwise, too."""
    first = {"os_distro": "debian", "a/b~c": "1", "hw:rng": "2"}
    assert changes(provider, image, {"properties": first}) == 1
    second = {"os_distro": "Débian", "a/b~c": None, "absent": None, "architecture": "x86_64"}
    assert changes(provider, image, {"properties": second}) == 1
    seen = found(provider, image)
    assert seen is not None
    assert seen.properties == {"os_distro": "Débian", "hw:rng": "2", "architecture": "x86_64"}
    assert changes(provider, image, {"properties": second}) == 0


def test_members(provider: door.OpenStack, stranger: Person, image: str) -> None:
    assert provider.members(image) == []
    for wanted, count in (
        (("b" * 32, stranger.project_id), 2),
        ((stranger.project_id,), 1),
        ((stranger.project_id,), 0),
        (("c" * 32,), 2),
        ((), 1),
    ):
        assert changes(provider, image, {"members": wanted}) == count
        assert provider.members(image) == sorted(wanted)


def test_an_image_that_is_gone(provider: door.OpenStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SEEN_SECONDS", 1)
    gone = subjects.new_key()
    with pytest.raises(exceptions.ProviderError) as caught:
        provider.settle(gone, {"name": "x"})
    assert caught.value.code == "image.not_active"
    with pytest.raises(exceptions.ProviderError) as caught:
        provider.members(gone)
    assert caught.value.code == "cloud.not_found"


def test_it_is_asked_before_each_change(provider: door.OpenStack, image: str) -> None:
    before = found(provider, image)

    def stop() -> None:
        raise exceptions.Cancelled("Enough.")

    for carry in ({"name": "x"}, {"members": ("b" * 32,)}):
        with pytest.raises(exceptions.Cancelled):
            provider.settle(image, carry, stop)
    assert found(provider, image) == before and provider.members(image) == []


@pytest.mark.parametrize("kind", ["aws", "gcp"])
@pytest.mark.parametrize(
    "call",
    [
        lambda provider: provider.survey(),
        lambda provider: provider.members("x"),
        lambda provider: provider.settle("x", {"name": "y"}),
    ],
    ids=["survey", "members", "settle"],
)
def test_other_clouds_are_no_zones(kind: str, call: Callable[[base.Provider], object]) -> None:
    nowhere = object.__new__(base.load(kind))       # they need to know nothing of a cloud to say so
    with pytest.raises(exceptions.ProviderError) as caught:
        call(nowhere)
    assert caught.value.code == "zone_sync.no_zone"
