# SPDX-License-Identifier: Apache-2.0
"""Images that are there: another Job with one, Links forgotten, deletion; on a real database file."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from ciming import exceptions
from ciming.db import api, images, jobs, lists, models, pending, purge, session, work
from tests.unit import rows

pytestmark = pytest.mark.usefixtures("database")
SHA512 = "5e" * 64


def linked(*zones: str) -> models.Job:
    """A Job that has brought its Image into zones, and ended."""
    job = rows.make_job(zones=zones)
    claim = rows.take(job.id)
    work.staged(claim, disk_format="raw", virtual_size=512, digests={"sha256": "", "sha512": SHA512})
    for target in job.targets:
        work.add_link(claim, target.id, f"ref-{target.cloud}", "bytes")
    work.finish(claim, purge=True)
    return api.get_job(job.id, None)


def another(kind: str, image_id: str, *zones: str, **values: object) -> models.Job:
    """A Job to begin with an Image that is there."""
    return models.Job(
        id=models.new_id(),
        project_id="studio",
        user_id="alice",
        kind=kind,
        stage="staging" if kind == "sync" else "staged",
        spec={"name": "demo", **values},
        image_id=image_id,
        marker=rows.AREA,
        targets=[
            models.Target(cloud_key=zone, cloud=zone, provider="openstack", region=zone) for zone in zones
        ],
    )


def clouds(image_id: str) -> list[str]:
    return [link.cloud for link in api.get_image(image_id, None).links]


def found(**values: object) -> dict[str, object]:
    place = {"cloud_key": "zone-a", "cloud": "zone-a", "provider": "openstack", "region": "zone-a"}
    digests = {"digests": {"sha512": SHA512}, "tags": ["theirs"]}
    return {**place, "image_ref": "ref", "size": rows.SIZE, **digests, **values}


def from_zone(**values: object) -> models.Job:
    """A Job that brings an Image from zone-a into zone-b."""
    job = rows.make_job(zones=("zone-b",), size=None)
    with session.writer() as writing:
        writing.get_one(models.Job, job.id).spec = {"name": "demo", "source": {"image": "debian"}, **values}
    return api.get_job(job.id, None)


def plenty(_held: int, _coming: int) -> int:
    return 1 << 40


def test_a_sync_makes_an_image_pending_and_active_again() -> None:
    image_id = linked("zone-a").image_id
    job = another("sync", image_id, "zone-b")
    images.begin(job, upload=True)
    row = api.get_job(job.id, None)
    assert (row.status, api.get_image(image_id, None).status) == ("queued", "pending")
    assert row.upload is not None and row.upload.complete
    claim = rows.take(job.id)
    work.found(claim, found(), plenty)
    work.fetched(claim, 1000)
    row = api.get_job(job.id, None)
    assert row.progress == {"bytes_done": 1000, "bytes_total": 2 * rows.SIZE}
    assert row.targets[0].bytes_total == rows.SIZE
    work.staged(claim, disk_format="raw", virtual_size=512, digests={"sha256": "", "sha512": SHA512})
    work.add_link(claim, job.targets[0].id, "ref", "bytes")
    assert work.finish(claim, purge=True) == "success"
    assert api.get_image(image_id, None).status == "active"
    assert clouds(image_id) == ["zone-a", "zone-b"]


def test_a_source_that_is_linked_has_what_its_cloud_said() -> None:
    """And whose credential that was: another one may not see the image."""
    claim = rows.take(rows.make_job().id)
    said = {"name": "theirs", "min_disk": 1, "min_ram": None, "whose": "project p"}
    work.found(claim, found(cloud_key="c", cloud="other", **said), plenty)
    work.staged(claim, disk_format="raw", virtual_size=512, digests={"sha256": "", "sha512": SHA512})
    [link] = api.get_image(str(work.load(claim).image_id), None).links
    assert (link.cloud, link.image_ref, link.told) == ("other", "ref", said)


def test_a_sync_that_fails_makes_it_partial_and_forgetting_mends_that() -> None:
    image_id = linked("zone-a").image_id
    job = another("sync", image_id, "zone-b")
    images.begin(job, upload=True)
    claim = rows.take(job.id)
    work.end_stage(claim)
    work.end_target(claim, job.targets[0].id)
    assert work.finish(claim, purge=False) == "error"
    assert api.get_image(image_id, None).status == "partial"
    again = another("link", image_id, "zone-b", refs={"zone-b": "ref"})
    images.begin(again)
    claim = rows.take(again.id)
    work.add_link(claim, again.targets[0].id, "ref", "asserted")
    assert work.finish(claim, purge=True) == "success"
    assert api.get_image(image_id, None).status == "active"
    images.forget(image_id, ["zone-b"])
    assert (api.get_image(image_id, None).status, clouds(image_id)) == ("active", ["zone-a"])


def test_a_source_is_linked_once_it_is_staged() -> None:
    """With the proof that its own hash gives; and its tags are the Image's."""
    for digests, proof in (({"sha512": SHA512}, "bytes"), ({}, "asserted")):
        job = from_zone()
        claim = rows.take(job.id)
        work.found(claim, found(digests=digests), plenty)
        assert clouds(job.image_id) == []
        work.staged(claim, disk_format="raw", virtual_size=512, digests={"sha256": "", "sha512": SHA512})
        image = api.get_image(job.image_id, None)
        [link] = image.links
        assert (link.cloud, link.image_ref, link.proof, image.tags) == ("zone-a", "ref", proof, ["theirs"])


def test_another_file_of_the_disk_is_the_jobs_and_not_the_images() -> None:
    """Also for the next engine; and what is reserved beside it is beside that file."""
    image_id = linked("zone-a").image_id
    before = api.get_image(image_id, None)
    job = another("sync", image_id, "zone-b")
    images.begin(job, upload=True)
    claim = rows.take(job.id)
    larger = 7 * rows.SIZE
    work.found(claim, found(size=larger, digests={}, converted=True), plenty)
    row = work.load(claim)
    assert row.file == {"size": larger, "disk_format": None, "virtual_size": None, "digests": {}}
    digests = {"sha256": "2", "sha512": "5"}
    for _ in range(2):      # executed again after a crash
        work.staged(claim, disk_format="vhd", virtual_size=1024, digests=digests)
    row = api.get_job(job.id, None)
    assert row.file == {"size": larger, "disk_format": "vhd", "virtual_size": 1024, "digests": digests}
    assert (row.targets[0].bytes_total, row.progress["bytes_done"]) == (larger, larger)
    work.reserve(claim, 0, 10, plenty)
    assert row.upload is not None and work.load(claim).upload.reserved == larger + 10  # type: ignore[union-attr]
    work.add_link(claim, job.targets[0].id, "ref", "guest")
    assert work.finish(claim, purge=True) == "success"
    after = api.get_image(image_id, None)
    for name in ("size", "disk_format", "virtual_size", "digests"):
        assert getattr(after, name) == getattr(before, name)
    assert [link.proof for link in after.links] == ["bytes", "guest"]


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [
        ({}, {"image_ref": "same bytes"}, 7),
        ({}, {"image_ref": "ami-1", "converted": True}, 0),
        ({"image_ref": "ami-1", "converted": True}, {"image_ref": "ami-1", "converted": True}, 7),
        ({"image_ref": "ami-1", "converted": True}, {"image_ref": "ami-2", "converted": True}, 0),
        ({"image_ref": "ami-1", "converted": True}, {}, 0),
    ],
)
def test_what_came_of_another_file_does_not_count(
    first: dict[str, object], then: dict[str, object], kept: int
) -> None:
    """For who goes on, perhaps after a retry."""
    job = another("sync", linked("zone-a").image_id, "zone-b")
    images.begin(job, upload=True)
    claim = rows.take(job.id)
    work.found(claim, found(**first), plenty)
    work.fetched(claim, 7)
    work.found(claim, found(**then), plenty)
    upload = work.load(claim).upload
    assert upload is not None and upload.offset == kept


def test_what_is_brought_again_is_not_staged_meanwhile() -> None:
    """Or the next engine would take what it finds for all of it, and looked at."""
    job = another("sync", linked("zone-a").image_id, "zone-b")
    images.begin(job, upload=True)
    claim = rows.take(job.id)
    work.found(claim, found(), plenty)
    work.staged(claim, disk_format="raw", virtual_size=512, digests={"sha256": "", "sha512": SHA512})
    assert work.load(claim).stage == "staged"
    work.found(claim, found(image_ref="ami-1", converted=True), plenty)
    assert work.load(claim).stage == "staging"


def test_what_gives_lost_bytes_back_changes_nothing_of_an_image() -> None:
    job = rows.make_job(zones=("zone-b",))
    claim = rows.take(job.id)
    work.staged(claim, disk_format="raw", virtual_size=512, digests={"sha256": "", "sha512": SHA512})
    work.found(claim, found(cloud_key="public"), plenty)
    row = work.load(claim)
    assert (row.image.tags, row.image.size) == ([], rows.SIZE)
    assert [keys for _, keys in row.begun or []] == [["public"]]


def test_there_must_be_room_for_a_source() -> None:
    job = rows.make_job(zones=("zone-b",), size=None)
    claim = rows.take(job.id)
    with pytest.raises(exceptions.StagingFull):
        work.found(claim, found(), lambda _held, _coming: rows.SIZE - 1)
    row = api.get_job(job.id, None)
    assert "found" not in (row.spec or {}) and row.image.size is None


def test_one_job_at_a_time() -> None:
    image_id = linked("zone-a").image_id
    images.begin(another("sync", image_id, "zone-b"), upload=True)
    before = rows.everything()
    calls: tuple[Callable[[], None], ...] = (
        lambda: images.begin(another("sync", image_id, "zone-c"), upload=True),
        lambda: images.begin(another("delete", image_id, "zone-a")),
        lambda: images.forget(image_id, ["zone-a"]),
        lambda: images.forget(image_id, None),
    )
    for begin in calls:
        with pytest.raises(exceptions.Conflict) as caught:
            begin()
        assert caught.value.code == "image.busy"
    assert rows.everything() == before


@pytest.mark.parametrize(
    ("kind", "zone", "error"),
    [
        ("sync", "zone-a", exceptions.Conflict),
        ("link", "zone-a", exceptions.Conflict),
        ("delete", "zone-b", exceptions.NotFound),
    ],
)
def test_links_must_be_as_the_job_needs_them(kind: str, zone: str, error: type[Exception]) -> None:
    image_id = linked("zone-a").image_id
    with pytest.raises(error):
        images.begin(another(kind, image_id, zone))
    with pytest.raises(exceptions.NotFound):
        images.forget(image_id, ["zone-b"])
    assert clouds(image_id) == ["zone-a"]


def test_a_retry_brings_nothing_where_it_is_by_now() -> None:
    job = rows.make_job(zones=("zone-a", "zone-b"))
    claim = rows.take(job.id)
    work.staged(claim, disk_format="raw", virtual_size=512, digests={"sha256": "", "sha512": SHA512})
    work.add_link(claim, job.targets[0].id, "ref", "bytes")
    work.end_target(claim, job.targets[1].id)
    assert work.finish(claim, purge=False) == "partial"
    other = another("link", job.image_id, "zone-b", refs={"zone-b": "ref"})
    images.begin(other)

    def retry() -> None:
        pending_id = pending.announce(pending.Likeness("alice", "studio", 1000))
        rows.go_on(jobs.retry, job.id, pending_id, "alice")

    with pytest.raises(exceptions.Conflict) as caught:
        retry()
    assert caught.value.code == "image.busy"
    claim = rows.take(other.id)
    work.add_link(claim, other.targets[0].id, "ref", "asserted")
    work.finish(claim, purge=True)
    with pytest.raises(exceptions.Conflict) as caught:
        retry()
    assert caught.value.code == "image.already_linked"
    assert api.get_job(job.id, None).status == "partial"


@pytest.mark.parametrize("whole", [True, False])
def test_deleted_in_all_clouds_or_in_some(whole: bool) -> None:
    """The record goes only if all of it was meant; its Job can be seen until it is purged."""
    image_id = linked("zone-a", "zone-b").image_id
    refs = {"zone-a": "ref-zone-a", "zone-b": "ref-zone-b"}
    job = another("delete", image_id, *refs, refs=refs, whole=whole)
    images.begin(job)
    claim = rows.take(job.id)
    work.remove_link(claim, job.targets[0].id)
    assert clouds(image_id) == ["zone-b"]
    work.remove_link(claim, job.targets[1].id)
    assert work.finish(claim, purge=True) == "success"
    if not whole:
        assert (api.get_image(image_id, None).status, clouds(image_id)) == ("error", [])
        return
    with pytest.raises(exceptions.NotFound):
        api.get_image(image_id, None)
    with pytest.raises(exceptions.NotFound):
        images.begin(another("sync", image_id, "zone-b"))
    assert not lists.images(None, lists.Page(10))
    assert api.get_job(job.id, None).image_id == image_id
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).values(trust_id=None))
    gone = purge.purge(models.now() + 1000)
    assert (gone["jobs"], gone["images"]) == (2, 1)


def test_a_delete_that_failed_somewhere_keeps_the_record() -> None:
    image_id = linked("zone-a", "zone-b").image_id
    refs = {"zone-a": "ref-zone-a", "zone-b": "ref-zone-b"}
    job = another("delete", image_id, *refs, refs=refs, whole=True)
    images.begin(job)
    claim = rows.take(job.id)
    work.remove_link(claim, job.targets[0].id)
    work.end_target(claim, job.targets[1].id)
    assert work.finish(claim, purge=False) == "partial"
    image = api.get_image(image_id, None)
    assert (image.status, clouds(image_id)) == ("active", ["zone-b"])


def test_forgotten_with_its_record() -> None:
    image_id = linked("zone-a").image_id
    images.forget(image_id, None)
    with pytest.raises(exceptions.NotFound):
        api.get_image(image_id, None)
    with pytest.raises(exceptions.NotFound):
        images.forget(image_id, None)
