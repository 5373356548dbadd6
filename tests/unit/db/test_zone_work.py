# SPDX-License-Identifier: Apache-2.0
"""Syncs of zones in rows: who holds which zones, what is noted of a plan, its Jobs, and how far it is."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from ciming import exceptions, zone_plans
from ciming.db import api, jobs, models, purge, session, work, zone_syncs, zone_work
from tests.unit import rows
from tests.unit.db.test_work import at_once

pytestmark = pytest.mark.usefixtures("database")

WRITES: dict[str, Callable[[work.Claim], Any]] = {
    "lock": zone_work.lock,
    "plan": lambda held: zone_work.plan(held, plan(), models.now()),
    "add_children": lambda held: zone_work.add_children(held, 5),
    "tally": lambda held: zone_work.tally(held, "bring", dict),
    "pruned": lambda held: zone_work.pruned(held, 1, entry("-", "z")),
    "skip": lambda held: zone_work.skip(held, [1], "Because."),
    "cancel_children": zone_work.cancel_children,
    "leave_rest": zone_work.leave_rest,
    "fail": lambda held: zone_work.fail(held, {"code": "x", "message": "X."}),
}
ONE = "0abcdef0-0000-4000-8000-000000000001"


def entry(symbol: str, image: str, zone: str = "zone-b", **more: Any) -> zone_plans.Entry:
    known = {"symbol": symbol, "zone": zone, "image": image, "there": None, "name": f"name of {image}"}
    if symbol == zone_plans.ONLY_THERE:
        known |= {"image": None, "there": image}
    rest = {"size": 10, "digest": "sha512:55", "differs": [], "why": None, "proof": None}
    return {**known, "owner": "studio", "carry": {"owner": "studio", "tags": ["t"]}, **rest, **more}


def request(**more: Any) -> dict[str, Any]:
    return {"from": "zone-a", "to": ["zone-b", "zone-c"], "replace": False, "prune": False, **more}


def plan(*entries: zone_plans.Entry, **more: Any) -> dict[str, Any]:
    return zone_plans.made(request(**more), entries)


def sync(
    *checks: Callable[[Any], object],
    project: str = "studio",
    everything: bool = False,
    wait: bool = False,
    **more: Any,
) -> models.Job:
    """A committed Job that syncs zones."""
    job = models.Job(
        id=models.new_id(),
        project_id=project,
        user_id="alice",
        kind="zone-sync",
        stage="staging",
        spec={"request": request(**more), "everything": everything},
        trust_id="trust-1",
        marker=rows.AREA,
    )
    zone_syncs.begin(job, *checks, wait=wait)
    return api.get_job(job.id, None)


@pytest.fixture
def held() -> work.Claim:
    return rows.take(sync().id)


def report(held: work.Claim) -> Mapping[str, Any]:
    return zone_work.tally(held, "bring", dict)


def children(held: work.Claim) -> list[models.Job]:
    """In the order of what they bring: several can be of one millisecond."""
    child, number = models.ZoneEntry.child_id, sa.func.min(models.ZoneEntry.number)
    query = sa.select(child).where(models.ZoneEntry.job_id == held.job_id, child.is_not(None))
    query = query.group_by(child).order_by(number)
    with session.reader() as reading:
        ids = reading.scalars(query).all()
    return [api.get_job(str(each), None) for each in ids]


def end(child: models.Job, **errors: Any) -> None:
    """A child ends; of its Targets those with an error, by zone, are not well."""
    claim = rows.take(child.id)
    for target in child.targets:
        error = errors.get(target.cloud_key)
        work.update_target(claim, target.id, status="error" if error else "success", error=error)
    work.finish(claim, purge=True)


def an_image() -> str:
    """The id of one that is linked in two zones."""
    job = rows.make_job()
    held = rows.take(job.id)
    for target in job.targets:
        work.add_link(held, target.id, f"ref in {target.cloud_key}", "bytes")
    end(job)
    return str(job.image_id)


# Who holds which zones


def test_one_sync_of_the_same_zones() -> None:
    """In whatever direction; what another project does is not told of."""
    first = sync()
    others: list[dict[str, Any]] = [{}, {"from": "zone-b", "to": ["zone-a"]}]
    for zones in (*others, {"from": "zone-c", "to": ["zone-x", "zone-a"]}):
        with pytest.raises(exceptions.Conflict, match=first.id) as caught:
            sync(**zones)
        assert caught.value.code == "zone_sync.busy"
    with session.reader() as reading:
        assert reading.scalars(sa.select(models.Job.id)).all() == [first.id]      # those were not written
    beside: dict[str, Any] = {"from": "zone-b", "to": ["zone-c"]}
    sync(**beside)
    sync(project="elsewhere")
    sync(project="elsewhere", everything=True)
    with pytest.raises(exceptions.Conflict):
        sync(everything=True)       # of all projects' images, whoever asks


def test_one_that_waits_comes_after() -> None:
    first, second = (rows.take(sync(wait=True).id) for _ in range(2))
    assert zone_work.lock(first) is None and zone_work.lock(first) is None
    assert zone_work.lock(second) == first.job_id
    zone_work.leave_rest(first)
    work.finish(first, purge=True)
    assert zone_work.lock(second) is None
    with pytest.raises(exceptions.Conflict, match=second.job_id):
        sync()


def test_of_many_at_once_one_begins() -> None:
    results = at_once(6, lambda _number: sync())
    begun = [each for each in results if isinstance(each, models.Job)]
    assert len(begun) == 1
    assert {getattr(each, "code", None) for each in results if each not in begun} == {"zone_sync.busy"}


def test_so_many_syncs_of_one_project() -> None:
    """Those that wait, too; also of several requests at once."""
    room = zone_syncs.at_most(3, "studio")
    results = at_once(6, lambda _number: sync(room, wait=True))
    begun = [each for each in results if isinstance(each, models.Job)]
    refused = [each for each in results if isinstance(each, exceptions.OverLimit)]
    assert (len(begun), len(refused)) == (3, 3) and "has so many" in refused[0].detail
    sync(zone_syncs.at_most(1, "garage"), project="garage")
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).where(models.Job.id == begun[0].id).values(finished_at=1))
    sync(room, wait=True)


def test_what_a_check_refuses_holds_nothing() -> None:
    def refuse(_session: Any) -> None:
        raise exceptions.Conflict("No.", code="x")

    with pytest.raises(exceptions.Conflict, match="No"):
        sync(refuse)
    sync()


# What is noted of a plan


def test_what_is_to_be_done_is_noted(held: work.Claim) -> None:
    every = (entry("+", "1"), entry("=", "2"), entry("*", "3"), entry("-", "4"), entry("!", "5", why="Off."))
    found = plan(*every)
    zone_work.plan(held, found, models.now())
    assert report(held) == {
        **dict.fromkeys(("created", "updated", "replaced", "pruned", "failed", "cancelled"), 0),
        "same": 1, "left": 1, "only_there": 1, "cannot": 1, "not_pruned": None, "digest": found["digest"],
        "progress": {"images_done": 0, "images_total": 1, "bytes_done": 0, "bytes_total": 10},
        "failures": [
            {
                "zone": "zone-b", "image": "5", "name": "name of 5", "job": None,
                "code": "zone_sync.cannot", "message": "Off.",
            }
        ],
        "step": "bring",
    }
    assert zone_work.to_prune(held) == []
    again = (entry("*", "3"), entry("-", "4"), entry("-", "6", why="Protected."))
    zone_work.plan(held, plan(*again, replace=True, prune=True), models.now())        # in place of the first
    seen = report(held)
    assert (seen["same"], seen["left"], seen["only_there"], seen["cannot"]) == (0, 0, 2, 0)
    assert seen["progress"] | {"images_total": 2, "bytes_total": 10} == seen["progress"]
    assert [each["there"] for _, each in zone_work.to_prune(held)] == ["4"]


# Its Jobs


def test_a_job_for_each_image(held: work.Claim) -> None:
    """In order, so many at a time; all zones that one image is to come to are of one Job."""
    every = (entry("+", ONE), entry("~", "2", there="x"), entry("+", ONE, "zone-c"), entry("+", "3"))
    zone_work.plan(held, plan(*every), models.now())
    assert len(zone_work.add_children(held, 2)) == 2
    assert zone_work.children(held) == (2, 0, 1)
    one, two = children(held)
    first, second = (
        [(each.cloud_key, each.bytes_total, each.step) for each in child.targets] for child in (one, two)
    )
    assert first == [("zone-b", 10, "download"), ("zone-c", 10, "download")]
    assert second == [("zone-b", 0, "register")]
    assert one.spec is not None and one.spec["source"]["image"] == ONE
    assert set(one.spec["there"]) == {"zone-b", "zone-c"}
    assert (one.kind, one.trust_id, one.owner) == ("sync", "trust-1", None)
    assert (one.image.id, one.image.tags) == (ONE, ["t"])
    assert len(zone_work.add_children(held, 2)) == 1
    assert zone_work.add_children(held, 2) == []


def test_without_a_trust_they_are_this_engines() -> None:
    job = sync()
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).values(trust_id=None))
    held = rows.take(job.id)
    zone_work.plan(held, plan(entry("+", "1")), models.now())
    zone_work.add_children(held, 1)
    [child] = children(held)
    assert (child.owner, child.trust_id) == (rows.ENGINE, None)


def entry_of(image_id: str, ref: str = "ref in zone-a") -> zone_plans.Entry:
    """One with the bytes that an image is known to have."""
    return entry("+", ref, size=api.get_image(image_id, None).size)


def test_an_image_that_a_job_works_on_comes_last_and_then_is_given_up(held: work.Claim) -> None:
    linked, other = an_image(), rows.make_job()
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).where(models.Job.id == other.id).values(image_id=linked))
    zone_work.plan(held, plan(entry_of(linked), entry("+", "2"), entry("+", "3")), models.now())
    assert zone_work.add_children(held, 1) == []        # it was the first,
    assert len(zone_work.add_children(held, 1)) == 1    # and now others are
    assert len(zone_work.add_children(held, 5)) == 1
    assert zone_work.children(held) == (2, 0, 1) and report(held)["failures"] == []
    assert zone_work.add_children(held, 5) == []
    assert zone_work.add_children(held, 5, patient=False) == []
    [failure] = report(held)["failures"]
    assert failure["code"] == "image.busy" and other.id in failure["message"]
    assert zone_work.children(held).left == 0


def test_an_image_that_another_sync_brings_is_waited_for(held: work.Claim) -> None:
    """However long that takes; but not where it needs its user, who may be away for days."""
    linked = an_image()
    zone_work.plan(held, plan(entry_of(linked)), models.now())
    assert len(zone_work.add_children(held, 1)) == 1
    [child] = children(held)
    second = rows.take(sync(to=["zone-d"]).id)
    zone_work.plan(second, plan({**entry_of(linked), "zone": "zone-d"}), models.now())
    for _ in range(2):
        assert zone_work.add_children(second, 1, patient=False) == []
    assert zone_work.children(second).left == 1 and report(second)["failures"] == []
    end(child)
    assert len(zone_work.add_children(second, 1, patient=False)) == 1
    [child] = children(second)
    third = rows.take(sync(to=["zone-e"]).id)
    zone_work.plan(third, plan({**entry_of(linked), "zone": "zone-e"}), models.now())
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).where(models.Job.id == child.id).values(waiting_since=1))
    assert zone_work.add_children(third, 1, patient=False) == []
    assert [failure["code"] for failure in report(third)["failures"]] == ["image.busy"]


def test_an_image_that_was_busy_is_brought_when_that_has_ended(held: work.Claim) -> None:
    linked, other = an_image(), rows.make_job()
    moved = sa.update(models.Job).where(models.Job.id == other.id)
    with session.writer() as writing:
        writing.execute(moved.values(image_id=linked))
    zone_work.plan(held, plan(entry_of(linked)), models.now())
    assert zone_work.add_children(held, 1) == []
    with session.writer() as writing:
        writing.execute(moved.values(finished_at=1))
    assert len(zone_work.add_children(held, 1)) == 1
    [child] = children(held)
    end(child)
    assert report(held)["created"] == 1 and report(held)["failures"] == []


@pytest.mark.parametrize(
    ("proof", "owner", "left"),
    [("bytes", "studio", ["zone-c"]), ("guest", "studio", ["zone-c"]),
     ("asserted", "studio", ["zone-b", "zone-c"]), ("bytes", "garage", ["zone-b", "zone-c"])],
)
def test_what_a_job_has_brought_meanwhile_is_there(
    held: work.Claim, proof: str, owner: str, left: list[str]
) -> None:
    """Though not what a person says, or what the project has for itself and not for another."""
    linked, other = an_image(), rows.make_job(zones=["zone-b"])
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).where(models.Job.id == other.id).values(image_id=linked))
    first = entry_of(linked) | {"carry": {"owner": owner, "tags": []}}
    zone_work.plan(held, plan(first, first | {"zone": "zone-c"}), models.now())
    assert zone_work.add_children(held, 1) == []
    work.add_link(rows.take(other.id), other.targets[0].id, "brought", proof)
    end(other)
    assert len(zone_work.add_children(held, 1)) == 1
    [child] = children(held)
    assert [target.cloud_key for target in child.targets] == left
    end(child)
    assert report(held)["created"] == 2 and zone_work.children(held).left == 0


def test_what_is_to_replace_another_image_is_brought_all_the_same(held: work.Claim) -> None:
    """Or nobody would hide that one."""
    linked, other = an_image(), rows.make_job(zones=["zone-b"])
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).where(models.Job.id == other.id).values(image_id=linked))
    zone_work.plan(held, plan(entry_of(linked) | {"symbol": "*"}, replace=True), models.now())
    work.add_link(rows.take(other.id), other.targets[0].id, "brought", "bytes")
    end(other)
    assert len(zone_work.add_children(held, 1)) == 1


def test_an_image_that_is_everywhere_by_now_gets_no_job(held: work.Claim) -> None:
    read_at, linked = models.now() - 1, an_image()
    zone_work.plan(held, plan(entry_of(linked)), read_at)
    assert zone_work.add_children(held, 1) == [] and zone_work.children(held) == (0, 0, 0)
    assert report(held)["created"] == 1


def test_two_syncs_of_one_source_have_one_image() -> None:
    """The second waits for the first, which brings the same image to another zone."""
    first, second = (rows.take(sync(to=[zone]).id) for zone in ("zone-b", "zone-c"))
    zone_work.plan(first, plan(entry("+", ONE), to=["zone-b"]), models.now())
    zone_work.plan(second, plan(entry("+", ONE, "zone-c"), to=["zone-c"]), models.now())
    results = at_once(2, lambda number: zone_work.add_children((first, second)[number], 1))
    assert sorted(map(len, results)) == [0, 1], results
    [child] = [*children(first), *children(second)]
    end(child)
    assert sum(len(zone_work.add_children(each, 1)) for each in (first, second)) == 1
    assert {child.image_id for each in (first, second) for child in children(each)} == {ONE}


def test_which_image_it_is(held: work.Claim) -> None:
    """That which is linked there; that of this id, if it is the project's; a new one."""
    linked, other_bytes = an_image(), an_image()
    gone, theirs, known = rows.make_job(), rows.make_job(), rows.make_job()
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).where(models.Job.id != held.job_id).values(finished_at=1))
        where = models.Image.id == gone.image_id
        writing.execute(sa.update(models.Image).where(where).values(deleted_at=1))
        where = models.Image.id == theirs.image_id
        writing.execute(sa.update(models.Image).where(where).values(project_id="elsewhere", deleted_at=1))
        link = sa.update(models.Link).where(models.Link.image_id == other_bytes)
        writing.execute(link.values(image_ref=ONE))
        writing.get_one(models.Image, other_bytes).digests = {"sha512": "77"}
    strange = ("x" * 40, ONE.upper())       # Glance takes such ids, and here nobody would find them
    converted = ONE     # as it is there, by a Link that is `guest`
    refs = (str(gone.image_id), str(theirs.image_id), *strange, converted)
    entries = [entry_of(linked), entry_of(str(known.image_id), str(known.image_id))]
    zone_work.plan(held, plan(*entries, *(entry("+", ref) for ref in refs)), models.now())
    zone_work.add_children(held, 9)
    found = {str((child.spec or {})["source"]["image"]): child.image for child in children(held)}
    assert found["ref in zone-a"].id == linked
    assert found[str(gone.image_id)].id == gone.image_id and found[str(gone.image_id)].deleted_at is None
    assert found[str(known.image_id)].id == known.image_id
    assert found[converted].id == converted != other_bytes
    for ref in (str(theirs.image_id), *strange):
        assert found[ref].id != ref and found[ref].project_id == "studio"


def test_a_sync_that_is_cancelled_begins_nothing_more(held: work.Claim) -> None:
    zone_work.plan(held, plan(*(entry("+", str(number)) for number in range(4))), models.now())
    zone_work.add_children(held, 1)
    with session.writer() as writing:
        writing.execute(sa.update(models.Job).where(models.Job.id == held.job_id).values(wanted="cancel"))
    assert zone_work.add_children(held, 5) == []
    zone_work.cancel_children(held)
    [child] = children(held)
    assert child.wanted == "cancel"
    for target in child.targets:
        claim = rows.take(child.id)
        work.update_target(claim, target.id, status="cancelled")
        work.finish(claim, purge=True)
    zone_work.leave_rest(held)
    seen = report(held)
    assert (seen["cancelled"], seen["failed"]) == (4, 0)
    assert seen["progress"]["images_done"] == seen["progress"]["images_total"] == 4


def test_a_part_that_has_just_ended_is_in_nobodys_way(
    held: work.Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone_work.plan(held, plan(*(entry("+", str(number)) for number in range(2))), 0)
    zone_work.add_children(held, 2)
    ended, runs = children(held)
    end(ended)
    seen_before = [ended.id, runs.id]
    monkeypatch.setattr(zone_syncs, "open_children", lambda _session, of: seen_before * (of == held.job_id))
    jobs.cancel(held.job_id)
    assert [child.wanted for child in children(held)] == ["run", "cancel"]


# How far it is


def test_it_counts_what_its_jobs_came_to(held: work.Claim) -> None:
    entries = [entry("+", "1"), entry("+", "1", "zone-c"), entry("*", "2"), entry("~", "3"), entry("+", "4")]
    zone_work.plan(held, plan(*entries, replace=True), models.now())
    zone_work.add_children(held, 3)
    first, second, third = children(held)
    end(first, **{"zone-c": {"code": "cloud.forbidden", "message": "403"}})
    end(second)
    claim = rows.take(third.id)
    seen = zone_work.tally(held, "bring", lambda progress: {"bytes_per_second": progress["bytes_done"]})
    assert (seen["created"], seen["replaced"], seen["updated"], seen["failed"]) == (1, 1, 0, 1)
    assert seen["progress"] == {
        "images_done": 3, "images_total": 5, "bytes_done": 30, "bytes_total": 40,
        "bytes_per_second": 30,
    }
    [failure] = seen["failures"]
    assert failure == {
        "zone": "zone-c", "image": "1", "name": "name of 1", "job": first.id,
        "code": "cloud.forbidden", "message": "403",
    }
    assert seen["step"] == "bring"
    work.give_up(claim)
    work.finish(claim, purge=True)
    assert report(held)["failed"] == 2


def test_what_a_running_sync_counts_is_not_purged(held: work.Claim) -> None:
    zone_work.plan(held, plan(entry("+", "1"), entry("+", "2")), models.now())
    zone_work.add_children(held, 2)
    first, second = children(held)
    end(first)
    assert not any(purge.purge(models.now() + 1).values())
    end(second)
    work.finish(held, purge=True)
    assert purge.purge(models.now() + 1)["jobs"] == 2       # its parent has a trust yet


def test_prune(held: work.Claim) -> None:
    linked = an_image()
    entries = [entry("-", "ref in zone-b"), entry("-", "2"), entry("-", "3")]
    zone_work.plan(held, plan(*entries, prune=True), models.now())
    (one, first), (two, second), (three, _) = zone_work.to_prune(held)
    zone_work.pruned(held, one, first)
    zone_work.pruned(held, two, second, {"code": "cloud.forbidden", "message": "403"})
    assert [number for number, _ in zone_work.to_prune(held)] == [three]
    zone_work.skip(held, [three], "Enough.")
    seen = report(held)
    assert (seen["pruned"], seen["failed"], seen["not_pruned"]) == (1, 1, "Enough.")
    image = api.get_image(str(linked), None)
    assert [link.cloud_key for link in image.links] == ["zone-a"] and image.status == "active"


def test_what_others_use(held: work.Claim) -> None:
    """What they have linked, and what a Job of theirs has begun."""
    an_image()
    begun = rows.make_job(zones=["zone-b"])
    work.update_target(rows.take(begun.id), begun.targets[0].id, checkpoint={"image": "begun"})
    named = rows.make_job(zones=["zone-b"])
    with session.writer() as writing:
        writing.get_one(models.Job, named.id).spec = {"refs": {"zone-b": "named", "zone-c": "x"}}
    assert zone_work.used_by_others("zone-b", "garage") == {"ref in zone-b", "begun", "named"}
    assert zone_work.used_by_others("zone-b", "studio") == set()
    assert zone_work.used_by_others("zone-c", "garage") == set()


@pytest.mark.parametrize("name", WRITES)
def test_who_lost_the_job_writes_nothing(held: work.Claim, name: str) -> None:
    zone_work.plan(held, plan(entry("-", "z"), entry("+", "1"), prune=True), models.now())
    rows.take(held.job_id, "engine-2")
    before = rows.everything()
    with pytest.raises(exceptions.ClaimLost):
        WRITES[name](held)
    assert rows.everything() == before
