# SPDX-License-Identifier: Apache-2.0
"""What an engine writes of a sync of zones that it runs: the plan, its children, and how far it is."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from oslo_db import exception as oslo_db_exception
from sqlalchemy import orm

from ciming import exceptions, points, zone_plans
from ciming.db import api, images, models, status, work, zone_syncs
from ciming.db import session as db

MOST_FAILURES = 100     # that a report names
ENTRY_ENDS = (*status.TARGET_ENDS, "skipped")
BRINGS = (zone_plans.CREATE, zone_plans.CONTENT)
PROVEN = ("bytes", "guest")
DONE = {
    zone_plans.CREATE: "created",
    zone_plans.METADATA: "updated",
    zone_plans.CONTENT: "replaced",
    zone_plans.ONLY_THERE: "pruned",
}
"""What a report counts, by the symbol of what has succeeded."""
NEW = {"same": 0, "left": 0, "only_there": 0, "digest": None, "not_pruned": None}


class Children(NamedTuple):
    """Of one sync: Jobs that have not ended, those of them that wait for their user, and what has no Job."""

    open: int
    waiting: int
    left: int


class Refused(NamedTuple):
    """Why there can be no Job of an image now; and does that pass, as another sync brings it?"""

    error: dict[str, Any]
    passes: bool


@points.mutation
def lock(held: work.Claim) -> str | None:
    """See zone_syncs.lock."""
    with work.fenced(held) as (session, job):
        return zone_syncs.lock(session, job)


@points.mutation
def plan(held: work.Claim, found: Mapping[str, Any], read_at: int) -> None:
    """Note what a plan has to be done, and what not, in place of what was noted before.

    :param read_at: when the zones began to be read
    """
    request, summary, number = found["request"], found["summary"], 0
    with work.fenced(held) as (session, job):
        job.spec = {**(job.spec or {}), "read_at": read_at}
        session.execute(sa.delete(models.ZoneEntry).where(models.ZoneEntry.job_id == job.id))
        for entry in found["entries"]:
            cannot = entry["symbol"] == zone_plans.CANNOT
            if not cannot and not zone_plans.acts(entry, request):
                continue
            number += 1
            why = {"code": "zone_sync.cannot", "message": entry["why"]} if cannot else None
            session.add(_row(job.id, number, entry, "error" if cannot else "waiting", why))
        left = 0 if request["replace"] else summary[zone_plans.CONTENT]
        job.report = NEW | {
            "same": summary[zone_plans.SAME],
            "left": left,
            "only_there": summary[zone_plans.ONLY_THERE],
            "digest": found["digest"],
        }


def _row(
    job_id: str, number: int, entry: zone_plans.Entry, state: str, error: dict[str, Any] | None
) -> models.ZoneEntry:
    return models.ZoneEntry(
        job_id=job_id,
        number=number,
        symbol=entry["symbol"],
        zone=entry["zone"],
        image_ref=entry["image"],
        size=entry["size"],
        said=entry,
        status=state,
        error=error,
    )


def children(held: work.Claim) -> Children:
    job = models.Job
    query = sa.select(sa.func.count(), sa.func.count(job.waiting_since)).where(
        job.parent_id == held.job_id, job.finished_at.is_(None)
    )
    left = sa.select(sa.func.count()).where(*_to_bring(held.job_id))
    with work.interrupting(), db.reader() as session:
        return Children(*session.execute(query).one(), session.scalar(left) or 0)


def _to_bring(job_id: str) -> Sequence[sa.ColumnElement[bool]]:
    entry = models.ZoneEntry
    return entry.job_id == job_id, entry.status == "waiting", entry.image_ref.is_not(None)


@points.mutation
def add_children(held: work.Claim, most: int, *, patient: bool = True) -> Sequence[str]:
    """Begin the Jobs of so many more images, the next ones; their ids.

    None where the sync is to be cancelled. An image that another Job works on comes after the others.

    :param patient: it does; else it is given up, and that is said, unless another sync brings it
    """
    entry = models.ZoneEntry
    made: list[str] = []
    with work.fenced(held) as (session, job):
        if job.wanted != "run":
            return made
        query = sa.select(entry).where(*_to_bring(job.id))
        for image_ref in _next(session, job.id, most):
            rows = session.scalars(query.where(entry.image_ref == image_ref).order_by(entry.number)).all()
            child = _child(session, job, rows)
            for row in rows:
                if row.status in ENTRY_ENDS:
                    continue
                if isinstance(child, models.Job):
                    row.child_id, row.status, row.error = child.id, "given", None
                elif child:
                    row.status, row.error = "waiting" if patient or child.passes else "error", child.error
            if isinstance(child, models.Job):
                made.append(child.id)
    return made


def _next(session: orm.Session, job_id: str, most: int) -> Sequence[str]:
    entry = models.ZoneEntry
    first = sa.func.min(entry.number)
    query = (
        sa.select(entry.image_ref)
        .where(*_to_bring(job_id))
        .group_by(entry.image_ref)
        .order_by(sa.func.count(entry.error), first)
        .limit(most)
    )
    return [str(image_ref) for image_ref in session.scalars(query)]


def _child(
    session: orm.Session, job: models.Job, rows: Sequence[models.ZoneEntry]
) -> models.Job | Refused | None:
    """The Job of one image; or why there can be none now; or None, as others have done it."""
    first, spec = rows[0].said, job.spec or {}
    zone = spec["request"]["from"]
    source = {**_place(zone), "image": first["image"]}
    image = _image(session, job, source, first)
    try:
        with session.begin_nested():    # a refusal leaves nothing
            images.alone_with(session, image.id)
    except (exceptions.Conflict, exceptions.NotFound) as error:
        return Refused({"code": error.code, "message": error.detail}, _is_synced(session, image.id))
    for row in rows:
        if _was_brought(session, job, image, row):
            row.status, row.error = "success", None
    rows = [row for row in rows if row.status not in ENTRY_ENDS]
    if not rows:
        return None
    there = {row.zone: {**row.said, "image": None} for row in rows}
    child = models.Job(
        id=models.new_id(),
        project_id=job.project_id,
        user_id=job.user_id,
        kind="sync",
        image_id=image.id,
        parent_id=job.id,
        request_id=job.request_id,
        spec={"name": image.name, "source": source, "there": there, "given": spec.get("given", [])},
        trust_id=job.trust_id,
        wanted="run",
        stage="staging",
        marker=job.marker,
        # Where only this engine holds what it works with, no other is to take it.
        owner=None if job.trust_id else job.owner,
        lock_marker=None if job.trust_id else job.lock_marker,
        targets=[_target(row) for row in rows],
        status="queued",
    )
    session.add(child)
    session.flush()
    session.add(images.from_cloud(child.id))
    api.refresh(session, child)
    return child


def _is_synced(session: orm.Session, image_id: str) -> bool:
    """Does another sync work on an image? Not where it waits for its user: that may take days."""
    child, parent = models.Job, orm.aliased(models.Job)
    query = (
        sa.select(child.id)
        .join(parent, parent.id == child.parent_id)
        .where(child.image_id == image_id, child.finished_at.is_(None), child.waiting_since.is_(None))
        .where(parent.finished_at.is_(None))
    )
    return session.scalar(query.limit(1)) is not None


def _was_brought(
    session: orm.Session, job: models.Job, image: models.Image, row: models.ZoneEntry
) -> bool:
    """Has another Job brought it for this project? Not what was there before: that may be gone."""
    link, read_at = session.get(models.Link, (image.id, row.zone)), (job.spec or {}).get("read_at")
    if link is None or link.proof not in PROVEN or read_at is None or link.verified_at <= read_at:
        return False
    # Where it replaces another one, that is still to be hidden.
    return row.symbol == zone_plans.CREATE and row.said["carry"]["owner"] == job.project_id


def _target(row: models.ZoneEntry) -> models.Target:
    brings = row.symbol in BRINGS
    return models.Target(
        **_place(row.zone),
        step="download" if brings else "register",
        bytes_total=row.size if brings else 0,
    )


def _place(zone: str) -> dict[str, Any]:
    return {"cloud_key": zone, "cloud": zone, "provider": "openstack", "region": zone}


def _image(
    session: orm.Session, job: models.Job, source: Mapping[str, Any], entry: zone_plans.Entry
) -> models.Image:
    """The Image that this is, or a new one: with the id that it has in the source, if nobody has that."""
    image, link = models.Image, models.Link
    algorithm, _colon, digest = (entry["digest"] or "").partition(":")

    def is_it(known: models.Image) -> bool:
        """Not where the source has what was made of it for that zone."""
        return known.digests.get(algorithm) in (None, digest) and known.size in (None, entry["size"])

    linked = (
        sa.select(image)
        .join(link, link.image_id == image.id)
        .where(link.cloud_key == source["cloud_key"], link.image_ref == source["image"])
        .where(image.project_id == job.project_id, image.deleted_at.is_(None))
        .order_by(image.id)
    )
    for found in filter(is_it, session.scalars(linked)):
        return found
    values = {
        "name": entry["name"] or entry["image"],
        "size": entry["size"],
        "digests": {algorithm: digest} if digest else {},
        "tags": (entry["carry"] or {}).get("tags", []),
    }
    made = {"project_id": job.project_id, "user_id": job.user_id, "status": "pending", **values}
    if models.is_id(entry["image"]):    # Glance takes capitals, too, by which no Image would be found
        try:
            with session.begin_nested():
                session.add(new := image(id=entry["image"], **made))
            return new
        except oslo_db_exception.DBDuplicateEntry:      # perhaps at this very moment
            former = session.get_one(image, entry["image"])
        if former.project_id == job.project_id and former.deleted_at is not None:
            former.deleted_at = None
            for name, value in values.items():
                setattr(former, name, value)
            session.flush()
        if former.project_id == job.project_id and is_it(former):
            return former
    session.add(new := image(id=models.new_id(), **made))
    session.flush()
    return new


@points.mutation
def tally(
    held: work.Claim, step: str, rate: Callable[[Mapping[str, int]], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Note how far a sync is; its report.

    :param step: what it does now: plan, bring, prune, end
    :param rate: what is to be said of progress beside what was counted
    """
    with work.fenced(held) as (session, job):
        _settle(session, job.id)
        report = {**NEW, **(job.report or {}), **_counts(session, job.id)}
        report["progress"] |= rate(report["progress"])
        job.report = {**report, "step": step}
        return job.report


def _settle(session: orm.Session, job_id: str) -> None:
    """Entries whose child has done its part there are as that ended."""
    entry, target, child = models.ZoneEntry, models.Target, models.Job
    ended = (
        sa.select(entry, target.status, target.error, child.error.label("whole"))
        .join(child, child.id == entry.child_id)
        .join(target, sa.and_(target.job_id == child.id, target.cloud_key == entry.zone))
        .where(entry.job_id == job_id, entry.status == "given", child.finished_at.is_not(None))
    )
    for row, state, error, whole in session.execute(ended).all():
        row.status = state if state in status.TARGET_ENDS else "error"
        row.error = (error or whole) if row.status == "error" else None


def _counts(session: orm.Session, job_id: str) -> dict[str, Any]:
    """What a report says of entries."""
    entry, target = models.ZoneEntry, models.Target
    counts = dict.fromkeys((*DONE.values(), "failed", "cannot", "cancelled"), 0)
    progress = dict.fromkeys(("images_done", "images_total", "bytes_done", "bytes_total"), 0)
    query = sa.select(entry.symbol, entry.status, sa.func.count(), sa.func.sum(entry.size))
    query = query.where(entry.job_id == job_id).group_by(entry.symbol, entry.status)
    for symbol, state, count, size in session.execute(query):
        if symbol == zone_plans.CANNOT:
            counts["cannot"] += count
            continue
        outcome = {"success": DONE[symbol], "error": "failed", "cancelled": "cancelled"}.get(state)
        if outcome:
            counts[outcome] += count
        ended = state in ENTRY_ENDS
        progress["images_total"] += count
        progress["images_done"] += count if ended else 0
        if symbol in BRINGS:
            progress["bytes_total"] += int(size or 0)
            progress["bytes_done"] += int(size or 0) if ended else 0
    moving = (
        sa.select(sa.func.sum(target.bytes_done))
        .join(entry, sa.and_(entry.child_id == target.job_id, entry.zone == target.cloud_key))
        .where(entry.job_id == job_id, entry.status == "given", entry.symbol.in_(BRINGS))
    )
    progress["bytes_done"] += int(session.scalar(moving) or 0)
    return {**counts, "progress": progress, "failures": list(_failures(session, job_id))}


def _failures(session: orm.Session, job_id: str) -> Iterator[dict[str, Any]]:
    entry = models.ZoneEntry
    query = sa.select(entry).where(entry.job_id == job_id, entry.status == "error").order_by(entry.number)
    for row in session.scalars(query.limit(MOST_FAILURES)):
        error = row.error or work.INTERNAL
        yield {
            "zone": row.zone,
            "image": row.image_ref or row.said["there"],
            "name": row.said["name"],
            "job": row.child_id,
            "code": error["code"],
            "message": error["message"],
        }


def not_in_line(held: work.Claim) -> int:
    """How many images were not brought, or can not be."""
    entry = models.ZoneEntry
    query = sa.select(sa.func.count()).where(
        entry.job_id == held.job_id,
        entry.status.in_(("error", "cancelled")),
        entry.symbol != zone_plans.ONLY_THERE,
    )
    with work.interrupting(), db.reader() as session:
        return session.scalar(query) or 0


def to_prune(held: work.Claim) -> Sequence[tuple[int, zone_plans.Entry]]:
    """Number and entry of what only targets have, and is still to be deleted there."""
    entry = models.ZoneEntry
    query = sa.select(entry.number, entry.said).where(
        entry.job_id == held.job_id, entry.status == "waiting", entry.symbol == zone_plans.ONLY_THERE
    )
    with work.interrupting(), db.reader() as session:
        return [(row.number, row.said) for row in session.execute(query.order_by(entry.number))]


@points.mutation
def pruned(
    held: work.Claim, number: int, entry: zone_plans.Entry, error: dict[str, Any] | None = None
) -> None:
    """One of those is gone, and its Link with it; or it is not, for that reason."""
    link = models.Link
    with work.fenced(held) as (session, job):
        row = session.get_one(models.ZoneEntry, (job.id, number))
        row.status, row.error = "error" if error else "success", error
        if error:
            return
        lost = sa.select(link).join(models.Image, models.Image.id == link.image_id).where(
            link.cloud_key == entry["zone"],
            link.image_ref == entry["there"],
            models.Image.project_id == job.project_id,
        )
        for each in session.scalars(lost).all():
            session.delete(each)
            session.flush()
            session.expire_all()
            api.refresh_image(session, each.image_id)


@points.mutation
def skip(
    held: work.Claim, numbers: Iterable[int], why: str, error: dict[str, Any] | None = None
) -> None:
    """These are not pruned, for that reason.

    :param error: of which the sync fails for that; whoever goes on after a crash has nothing left to prune
    """
    entry = models.ZoneEntry
    with work.fenced(held) as (session, job):
        which = sa.update(entry).where(entry.job_id == job.id, entry.number.in_(list(numbers)))
        session.execute(which.values(status="skipped"))
        job.report = {**(job.report or {}), "not_pruned": why}
        job.error = error or job.error


@points.mutation
def cancel_children(held: work.Claim) -> None:
    """Whatever of a sync has not ended is not wanted any more."""
    child = models.Job
    with work.fenced(held) as (session, job):
        query = sa.select(child).where(child.parent_id == job.id, child.finished_at.is_(None))
        for row in session.scalars(query.where(child.wanted == "run")).all():
            row.wanted = "cancel"
            api.refresh(session, row)


@points.mutation
def leave_rest(held: work.Claim) -> None:
    """What a sync has not come to is left: by who cancelled it, or because it failed."""
    entry = models.ZoneEntry
    with work.fenced(held) as (session, job):
        end = "cancelled" if job.wanted == "cancel" else "skipped"
        rest = sa.update(entry).where(entry.job_id == job.id, entry.status == "waiting")
        session.execute(rest.values(status=end))


@points.mutation
def fail(held: work.Claim, error: dict[str, Any] | None) -> None:
    """The sync as a whole ends with this, unless it does not."""
    with work.fenced(held) as (_session, job):
        job.error = error


def used_by_others(zone: str, project_id: str) -> Collection[str]:
    """Refs of images in a zone that Images of other projects are linked to, or their Jobs work on."""
    link, image, target, job = models.Link, models.Image, models.Target, models.Job
    links = (
        sa.select(link.image_ref)
        .join(image, image.id == link.image_id)
        .where(link.cloud_key == zone, image.project_id != project_id)
    )
    works = (
        sa.select(target.checkpoint, job.spec)
        .join(job, job.id == target.job_id)
        .where(target.cloud_key == zone)
        .where(job.finished_at.is_(None), job.project_id != project_id)
    )
    with db.reader() as session:
        found = {*session.scalars(links)}
        for checkpoint, spec in session.execute(works):
            made, named = (checkpoint or {}).get("image"), (spec or {}).get("refs", {}).get(zone)
            found |= {ref for ref in (made, named) if ref}
        return found


def linked(source: str, target: str) -> Collection[tuple[str, str]]:
    """Refs of images in two zones that were proven to be one disk, by whomever."""
    here, there = models.Link, orm.aliased(models.Link)
    query = (
        sa.select(here.image_ref, there.image_ref.label("there"))
        .join(there, there.image_id == here.image_id)
        .where(here.cloud_key == source, there.cloud_key == target)
        .where(here.proof.in_(PROVEN), there.proof.in_(PROVEN))
    )
    with db.reader() as session:
        return [(row.image_ref, row.there) for row in session.execute(query)]
