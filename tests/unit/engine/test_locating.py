# SPDX-License-Identifier: Apache-2.0
"""Which image becomes a Job's source. (The clouds are mocked: only what they say matters here.)"""

import types
from typing import Any

import pytest

from ciming import exceptions
from ciming.db import models
from ciming.engine import locating
from ciming.providers import base

pytestmark = pytest.mark.usefixtures("conf")

OURS = {"sha256": "aa", "sha512": "bb", "guest": None}
PROOFS = {"zone-a": "asserted", "zone-b": "guest", "zone-c": "bytes"}


def description(**values: Any) -> base.Description:
    digests = {"sha512": "bb"}
    fine = {"image_ref": "ref", "name": "n", "size": 100, "disk_format": "raw", "digests": digests}
    return base.Description(**{**fine, **values})


def linked(digests: dict[str, Any] | None = None, size: int | None = 100) -> models.Job:
    """A sync of an Image that is in three zones, with the best proof in the last one."""
    links = [
        models.Link(
            cloud_key=zone,
            cloud=zone,
            provider="openstack",
            region=zone,
            image_ref=f"ref-{zone}",
            proof=proof,
        )
        for zone, proof in PROOFS.items()
    ]
    image = models.Image(id="image", digests=OURS if digests is None else digests, size=size, links=links)
    return models.Job(kind="sync", spec={}, image=image)


def find(
    job: models.Job, **there: base.Description | exceptions.ProviderError | None
) -> tuple[dict[str, Any], list[str]]:
    """The source, and the zones that were asked."""
    asked: list[str] = []

    def provider_of(place: locating.Place) -> Any:
        def describe(_image: str) -> base.Description | None:
            asked.append(place.cloud)
            found = there[place.cloud.replace("-", "_")]
            if isinstance(found, exceptions.ProviderError):
                raise found
            return found

        return types.SimpleNamespace(describe=describe)

    return locating.find(job, provider_of), asked


def test_the_best_link_that_can_be_read() -> None:
    fine = description()
    found, asked = find(linked(), zone_a=fine, zone_b=fine, zone_c=fine)
    assert (found["cloud"], asked) == ("zone-c", ["zone-c"])
    found, asked = find(linked(), zone_a=fine, zone_b=fine, zone_c=None)
    assert (found["cloud"], asked) == ("zone-b", ["zone-c", "zone-b"])
    away = exceptions.TransientProviderError("away")
    found, asked = find(linked(), zone_a=fine, zone_b=description(unreadable="no"), zone_c=away)
    assert (found["cloud"], asked) == ("zone-a", ["zone-c", "zone-b", "zone-a"])
    assert found["image_ref"] == "ref" and found["digests"] == {"sha512": "bb"}


@pytest.mark.parametrize(
    "changed",
    [
        {"size": 99},
        {"digests": {"sha512": "cc"}},
        {"digests": {"sha256": "cc"}},
        {"size": 0},
        {"size": None},
        {"size": 1 << 62},
        {"unreadable": "It is deactivated."},
    ],
)
def test_none_can_be_read(changed: dict[str, Any]) -> None:
    other = description(**changed)
    with pytest.raises(exceptions.ProviderError) as caught:
        find(linked(), zone_a=other, zone_b=other, zone_c=None)
    assert caught.value.code == "source.not_readable"
    for zone in PROOFS:
        assert zone in caught.value.detail or changed.get("unreadable")
    assert not isinstance(caught.value, exceptions.TransientProviderError)


def test_what_was_converted_is_another_file() -> None:
    """Of the same disk, where we know that one's digest."""
    job = linked()
    job.image.links = [link for link in job.image.links if link.proof == "guest"]
    assert "converted" not in find(job, zone_b=description())[0]    # it came as it was, or so it seems
    with pytest.raises(exceptions.ProviderError) as caught:
        find(job, zone_b=description(size=99))
    assert caught.value.code == "source.changed"
    job.image.digests = {**OURS, "guest": "gg"}
    assert "converted" not in find(job, zone_b=description())[0]
    found, _ = find(job, zone_b=description(size=99, digests={}))
    assert (found["cloud"], found["size"], found["converted"]) == ("zone-b", 99, True)


@pytest.mark.parametrize(
    ("asserted", "bytes_", "cloud"),
    [
        (description(), description(), "zone-c"),
        (description(), None, "zone-a"),        # it has the file itself, by its hash
        (None, None, "zone-b"),
        (None, exceptions.TransientProviderError("away"), None),
        (exceptions.CredentialNeeded("whose?"), None, None),
    ],
)
def test_the_file_itself_goes_before_its_disk(asserted: Any, bytes_: Any, cloud: str | None) -> None:
    """Also where it may be back soon."""
    job = linked({**OURS, "guest": "gg"})
    there = {"zone_a": asserted, "zone_b": description(size=99, digests={}), "zone_c": bytes_}
    if cloud is None:
        with pytest.raises(exceptions.ProviderError) as caught:
            find(job, **there)
        assert caught.value in (asserted, bytes_)
        return
    found, _ = find(job, **there)
    assert (found["cloud"], found.get("converted", False)) == (cloud, cloud == "zone-b")


@pytest.mark.parametrize(("kind", "whole", "cloud"), [
    ("create", True, "zone-c"), ("create", False, None), ("sync", True, None),
])  # fmt: skip
def test_what_was_lost_may_come_from_its_links_where_its_source_is_gone(
    kind: str, whole: bool, cloud: str | None
) -> None:
    """Once it was whole; a part of a sync of zones has the one that was planned, or none."""
    job = linked(None if whole else {})
    place = {"cloud_key": "k", "cloud": "zone-x", "provider": "openstack", "region": "r"}
    job.kind, job.spec = kind, {"source": {**place, "image": "debian"}}
    there = {"zone_a": None, "zone_b": None, "zone_c": description(), "zone_x": None}
    if cloud is None:
        with pytest.raises(exceptions.ProviderError) as caught:
            find(job, **there)
        assert caught.value.code == "source.not_found"
        return
    assert find(job, **there)[0]["cloud"] == cloud


def test_what_has_other_bytes_than_it_had_is_no_source_for_its_disk() -> None:
    job = linked({**OURS, "guest": "gg"})
    job.image.links = [link for link in job.image.links if link.proof != "guest"]
    with pytest.raises(exceptions.ProviderError, match="has other bytes"):
        find(job, zone_a=description(size=99), zone_c=description(size=99))


def test_one_that_may_come_back_is_asked_again() -> None:
    away = exceptions.TransientProviderError("zone-b is away")
    with pytest.raises(exceptions.TransientProviderError, match="zone-b"):
        find(linked(), zone_a=None, zone_b=away, zone_c=None)


def test_an_image_that_never_had_bytes_may_become_any() -> None:
    place = {"cloud_key": "k", "cloud": "zone-x", "provider": "openstack", "region": "r"}
    job = models.Job(
        kind="create",
        spec={"source": {**place, "image": "debian"}},
        image=models.Image(id="image", digests={}, links=[]),
    )
    found, _ = find(job, zone_x=description(size=7, tags=("t",)))
    assert (found["size"], found["cloud_key"], found["tags"]) == (7, "k", ["t"])
    with pytest.raises(exceptions.ProviderError) as caught:
        find(job, zone_x=None)
    assert caught.value.code == "source.not_found" and "debian" in caught.value.detail


@pytest.mark.parametrize(
    ("digests", "same"),
    [({"sha512": "bb"}, True), ({"sha512": "cc"}, False), ({"md5": "aa"}, False), ({}, False)],
)
def test_what_is_surely_the_same(digests: dict[str, str], same: bool) -> None:
    assert locating.same(description(digests=digests), linked().image) is same
