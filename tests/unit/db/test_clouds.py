# SPDX-License-Identifier: Apache-2.0
"""Registered Clouds: who sees them, whose name is whose, and what keeps them from being deleted."""

import functools
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions
from ciming.db import api, clouds, jobs, models, pending, session, work
from tests.unit import rows

REF = "https://keys.example.org/v1/secrets/67ba1d7e-0000-4000-8000-00000000000a"


def register(name: str = "other", project: str = "studio", **values: Any) -> models.Cloud:
    config = {"auth_url": "https://keystone.example.com/v3", "region": "RegionOne"}
    given = {"provider": "openstack", "config": config, "credential_ref": REF, "visibility": "private"}
    row = models.Cloud(id=models.new_id(), name=name, project_id=project, **{**given, **values})
    clouds.create(row)
    return row


def into(cloud: models.Cloud, **values: Any) -> models.Job:
    """A Job with a Target there."""
    job = rows.make_job(zones=["zone-a"], **values)
    with session.writer() as writing:
        target = writing.get_one(models.Job, job.id).targets[0]
        target.cloud_key, target.cloud, target.region = cloud.id, cloud.name, "RegionOne"
    return api.get_job(job.id, None)


def a_job(*targets: models.Target, **spec: Any) -> models.Job:
    """One that is not written yet."""
    return models.Job(
        id=models.new_id(),
        project_id="studio",
        user_id="alice",
        kind="create",
        stage="uploading",
        spec={"name": "demo", **spec},
        marker=rows.AREA,
        targets=list(targets),
    )


def names(project: str) -> list[str]:
    return [row.name for row in clouds.visible(project)]


def test_a_project_sees_its_own_and_the_public_ones(database: rows.Database) -> None:
    ours, theirs = register("ours"), register("theirs", "elsewhere")
    public = register("everybodys", "operators", visibility="public")
    assert names("studio") == ["everybodys", "ours"]
    assert names("elsewhere") == ["everybodys", "theirs"]
    assert clouds.find(ours.id, "studio") is not None
    assert clouds.find(public.id, "studio") is not None
    assert clouds.find(theirs.id, "studio") is None
    assert clouds.find(models.new_id(), "studio") is None


def test_a_row_keeps_what_it_was_given(database: rows.Database) -> None:
    made = register(config={"region": "Région 🐧", "formats": ["raw", "qcow2"]})
    found = clouds.find(made.id, "studio")
    assert found is not None and found.created_at == found.updated_at
    assert (found.config, found.credential_ref) == (made.config, REF)


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (("studio", "private"), ("studio", "private"), True),
        (("studio", "private"), ("elsewhere", "private"), False),
        (("operators", "public"), ("studio", "private"), True),
        (("operators", "public"), ("admins", "public"), True),
        (("studio", "private"), ("operators", "public"), True),
    ],
)
def test_nobody_sees_two_of_one_name(
    database: rows.Database, first: tuple[str, str], second: tuple[str, str], taken: bool
) -> None:
    register("other", first[0], visibility=first[1])
    free = register("free", second[0], visibility=second[1])
    attempts: list[Callable[[], object]] = [
        lambda: clouds.update(free.id, lambda _session, row: setattr(row, "name", "other")),
        lambda: register("other", second[0], visibility=second[1]),
    ]
    if not taken:
        attempts.pop()()
        attempts.clear()
    for attempt in attempts:
        with pytest.raises(exceptions.Conflict, match="a Cloud other already") as caught:
            attempt()
        assert (caught.value.code, caught.value.field) == ("cloud.name_taken", "name")
    register("OTHER", second[0], visibility=second[1])      # another name


def at_once(*calls: Callable[[], object]) -> list[BaseException | None]:
    """What calls raise that are made at the same time."""
    ready = threading.Barrier(len(calls))

    def one(call: Callable[[], object]) -> object:
        ready.wait(30)
        return call()

    with futures.ThreadPoolExecutor(len(calls)) as pool:
        return [future.exception() for future in [pool.submit(one, call) for call in calls]]


def test_two_creates_at_once_of_one_name(database: rows.Database) -> None:
    for number in range(5):
        failed = at_once(*[functools.partial(register, f"other-{number}")] * 4)
        assert sorted(type(error).__name__ for error in failed) == [*["Conflict"] * 3, "NoneType"]
    assert len(names("studio")) == 5


def test_a_cloud_is_renamed_wherever_it_is_named(database: rows.Database) -> None:
    cloud = register()
    job, another = into(cloud), into(register("another"))
    held = rows.take(job.id)
    work.add_link(held, job.targets[0].id, "ref", "bytes")
    changed = clouds.update(cloud.id, lambda _session, row: setattr(row, "name", "renamed"))
    assert changed.name == "renamed" and changed.updated_at >= cloud.updated_at
    assert api.get_job(job.id, None).targets[0].cloud == "renamed"
    assert api.get_image(job.image_id, None).links[0].cloud == "renamed"
    assert api.get_job(another.id, None).targets[0].cloud == "another"


def test_renamed_while_a_job_is_made(database: rows.Database) -> None:
    """Names that were read before are old when it is written: of Targets, of the source, and of Links."""
    cloud = register()
    place = {"cloud_key": cloud.id, "cloud": "old", "provider": "openstack", "region": "RegionOne"}
    image = models.Image(id=models.new_id(), project_id="studio", user_id="alice", name="demo")
    zone = models.Target(cloud_key="zone-a", cloud="zone-a", provider="openstack", region="zone-a")
    job = a_job(models.Target(**place), zone, source={**place, "image": "debian"})
    api.create(image, job, models.Upload(job_id=job.id, expires_at=models.now() + 60_000))
    job = api.get_job(job.id, None)
    assert {target.cloud for target in job.targets} == {"other", "zone-a"}
    assert (job.spec or {})["source"]["cloud"] == "other"

    clouds.update(cloud.id, lambda _session, row: setattr(row, "name", "new"))      # not in the spec
    held = rows.take(job.id)
    found = {**place, "image_ref": "debian", "size": 10, "tags": [], "digests": {}}
    work.found(held, found, lambda _held, _coming: 1 << 40)
    work.staged(held, disk_format="raw", virtual_size=10, digests={})
    assert [link.cloud for link in api.get_image(image.id, None).links] == ["new"]


def test_renamed_while_it_is_linked(database: rows.Database) -> None:
    for _ in range(5):
        cloud = register("before")
        job = into(cloud)
        held, name = rows.take(job.id), models.new_id()

        def rename(_session: orm.Session, row: models.Cloud, name: str = name) -> None:
            row.name = name

        failed = at_once(
            functools.partial(work.add_link, held, job.targets[0].id, "ref", "bytes"),
            functools.partial(clouds.update, cloud.id, rename),
        )
        assert failed == [None, None]
        assert api.get_image(job.image_id, None).links[0].cloud == name


def test_what_is_in_use_is_not_deleted(database: rows.Database) -> None:
    cloud = register()
    made = [into(cloud) for _ in range(7)]
    with pytest.raises(exceptions.Conflict, match=r"Jobs that have not ended: .* and 2 more") as caught:
        clouds.delete(cloud.id)
    assert caught.value.code == "cloud.in_use" and made[0].id in caught.value.detail
    for job in made:
        held = rows.take(job.id)
        if job is made[0]:
            work.add_link(held, job.targets[0].id, "ref", "bytes")
        work.give_up(held)
        work.finish(held, purge=True)
    with pytest.raises(exceptions.Conflict, match=f"has Images: {made[0].image_id}\\.") as caught:
        clouds.delete(cloud.id)
    with session.writer() as writing:
        writing.execute(sa.delete(models.Link))
    clouds.delete(cloud.id)
    assert names("studio") == []
    for again in (
        lambda: clouds.delete(cloud.id),
        lambda: clouds.update(cloud.id, lambda _session, _row: None),
    ):
        with pytest.raises(exceptions.NotFound, match=cloud.id):
            again()


def test_a_change_that_can_not_be_changes_nothing(database: rows.Database) -> None:
    cloud = register()

    def change(_session: orm.Session, row: models.Cloud) -> None:
        row.name, row.credential_ref = "renamed", None
        raise exceptions.InvalidRequest("no")

    before = rows.everything()
    with pytest.raises(exceptions.InvalidRequest):
        clouds.update(cloud.id, change)
    assert rows.everything() == before


def test_deleted_while_a_job_is_made_in_it(database: rows.Database) -> None:
    """One of the two is refused, whoever comes first."""
    for _ in range(5):
        cloud = register()

        def create(cloud: models.Cloud = cloud) -> None:
            image = models.Image(id=models.new_id(), project_id="studio", user_id="alice", name="demo")
            target = models.Target(
                cloud_key=cloud.id, cloud=cloud.name, provider="openstack", region="RegionOne"
            )
            job = a_job(target)
            api.create(image, job, models.Upload(job_id=job.id, expires_at=models.now() + 60_000))

        failed = at_once(create, functools.partial(clouds.delete, cloud.id))
        [error] = [each for each in failed if each]
        assert isinstance(error, exceptions.Conflict)
        if error.code == "cloud.in_use":
            clouds.update(cloud.id, lambda _session, row: setattr(row, "name", models.new_id()))
        else:
            assert error.code == "cloud.deleted" and error.field == "clouds"


@pytest.mark.parametrize("how", ["target", "source"])
def test_what_a_job_needs_is_held(database: rows.Database, how: str) -> None:
    """Where it works, and where it brings its image from; not where it is done."""
    here, gone = register("here"), models.Cloud(id=models.new_id(), name="gone")

    def needing(cloud: models.Cloud, status: str = "waiting") -> models.Job:
        place = {"cloud_key": cloud.id, "cloud": cloud.name, "provider": "openstack", "region": "RegionOne"}
        if how == "target":
            return a_job(models.Target(**place, status=status))
        zone = models.Target(cloud_key="zone-a", cloud="zone-a", provider="openstack", region="zone-a")
        return a_job(zone, source={**place, "image": "debian"})

    with session.writer() as writing:
        clouds.hold(writing, a_job())
        clouds.hold(writing, needing(here))
        if how == "target":
            clouds.hold(writing, needing(gone, "success"))
        with pytest.raises(exceptions.Conflict, match=gone.id):
            clouds.hold(writing, needing(gone))


def test_where_an_image_comes_from_is_in_use(database: rows.Database) -> None:
    source, other = register("source"), register("other")
    job = rows.make_job()
    with session.writer() as writing:
        place = {"cloud_key": source.id, "cloud": "source", "provider": "openstack", "region": "RegionOne"}
        writing.get_one(models.Job, job.id).spec = {"name": "demo", "source": {**place, "image": "debian"}}
    with pytest.raises(exceptions.Conflict, match=job.id):
        clouds.delete(source.id)
    clouds.delete(other.id)


def test_a_job_whose_cloud_is_gone_is_not_retried(database: rows.Database) -> None:
    cloud = register()
    job = into(cloud)
    held = rows.take(job.id)
    work.give_up(held)
    work.finish(held, purge=False)
    clouds.delete(cloud.id)
    before = rows.everything()
    pending_id = pending.announce(pending.Likeness("bob", "studio", 1_700_000_000_000))
    with pytest.raises(exceptions.Conflict, match=cloud.id):
        rows.go_on(jobs.retry, job.id, pending_id)
    pending.forget(pending_id)
    assert rows.everything() == before
