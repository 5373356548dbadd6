# SPDX-License-Identifier: Apache-2.0
"""What engines do to rows: claim a Job, and write as long as it is theirs.

Every write begins with a conditional UPDATE of the Job by (owner, generation) in the same
transaction, so an engine that lost its Job can write nothing.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as oslo_db_exception
from sqlalchemy import orm

from ciming import exceptions, points
from ciming.db import api, clouds, models, status, uploads, zone_syncs
from ciming.db import session as db

AWAY = (
    oslo_db_exception.DBConnectionError,
    oslo_db_exception.DBDeadlock,
    oslo_db_exception.DBNonExistentDatabase,    # also SQLite's "unable to open database file"
    sa.exc.OperationalError,        # "database is locked", too
    sa.exc.InterfaceError,
    sa.exc.TimeoutError,
)
PLACE = ("cloud_key", "cloud", "provider", "region")
LINKED = (*PLACE, "image_ref")
"""What a Link has of a source."""
TOLD = ("name", "min_disk", "min_ram", "whose")
"""What it keeps of what that Cloud said."""
INTERNAL = {
    "code": "internal",
    "message": "Something in CIMinG went wrong. Please report the Job's id to its operator.",
    "cloud_request_id": None,
}


@dataclass(frozen=True)
class Claim:
    """One engine's hold on one Job."""

    job_id: str
    owner: str
    generation: int
    request_id: str | None = None       # of the request that made the Job
    takes_long: bool = False
    starts: bool = False                # it was not claimed before
    kind: str = ""
    parent_id: str | None = None
    project_id: str = ""


@dataclass(frozen=True)
class Candidate:
    """A Job that could be claimed, if its owner (where it has one) is dead."""

    job_id: str
    owner: str | None
    generation: int
    takes_long: bool = False
    """Its image is large, or still on its way in; or it is one of many, and others go first."""
    kind: str = ""
    project_id: str = ""


def candidates(
    marker: str,
    lock_marker: str,
    large: int | None = None,
    dead: Collection[str] = (),
    patience: int | None = None,
    me: str | None = None,
) -> Sequence[Candidate]:
    """Unfinished Jobs whose bytes are here, oldest first: free ones, and those of owners we can judge.

    Parts of others come after those that somebody waits for.

    Bytes that are on their way at this moment are followed, by one engine and until they stall. Jobs that
    wait for their user are not for engines, but to be cancelled, or ended when they waited for too long.

    :param large: bytes from which on an image takes long
    :param patience: seconds that a Job may wait for its user
    :param dead: owners who are judged already, wherever their locks were
    :param me: who asks: what it keeps though it has stalled is followed by its successor only
    """
    job, upload, image, target = models.Job, models.Upload, models.Image, models.Target
    receives = sa.exists().where(target.job_id == job.id, target.step == "receive")
    comes = sa.and_(
        sa.or_(job.generation == 0, job.owner != me, sa.not_(receives)),    # see stop_following()
        upload.offset > 0,
        upload.size.is_not(None),
        upload.leased_until > models.now(),
    )
    overdue = models.now() - patience * 1000 if patience is not None else 0
    waits = sa.and_(job.waiting_since > overdue, job.wanted == "run")
    query = (
        sa.select(job.id, job.owner, job.generation, job.stage, job.kind, job.parent_id)
        .add_columns(job.project_id, image.size)
        .outerjoin(image, image.id == job.image_id)
        .outerjoin(upload, upload.job_id == job.id)
        .where(
            job.finished_at.is_(None),
            sa.or_(job.stage != "uploading", comes),
            sa.or_(job.waiting_since.is_(None), sa.not_(waits)),
            job.marker == marker,
            sa.or_(job.owner.is_(None), job.lock_marker == lock_marker, job.owner.in_(dead)),
        )
        .order_by(sa.case((job.parent_id.is_(None), 0), else_=1), job.created_at)
    )
    with db.reader() as session:
        return [
            Candidate(
                row.id,
                row.owner,
                row.generation,
                row.stage == "uploading" or row.parent_id is not None or is_large(row.kind, row.size, large),
                row.kind,
                row.project_id,
            )
            for row in session.execute(query)
        ]


def is_large(kind: str, size: int | None, large: int | None) -> bool:
    """Does a Job of this kind take long? What comes out of a Cloud may be of any size until it is located."""
    if size is None:
        return large is not None and kind in status.MOVING
    return large is not None and size >= large


@points.mutation
def claim(candidate: Candidate, owner: str, lock_marker: str) -> Claim | None:
    """Take a Job; None when another engine was faster."""
    generation, now = candidate.generation + 1, models.now()
    with db.writer() as session:
        taken = session.execute(
            sa.update(models.Job)
            .where(
                models.Job.id == candidate.job_id,
                models.Job.generation == candidate.generation,
                models.Job.owner.is_(candidate.owner)
                if candidate.owner is None
                else models.Job.owner == candidate.owner,
                models.Job.finished_at.is_(None),
            )
            .values(
                owner=owner,
                lock_marker=lock_marker,
                generation=generation,
                started_at=sa.func.coalesce(models.Job.started_at, now),
            )
        )
        if not db.changed_one(taken):
            return None
        job = session.get_one(models.Job, candidate.job_id)
        api.refresh(session, job)
    starts = job.started_at == now
    return Claim(
        candidate.job_id,
        owner,
        generation,
        job.request_id,
        candidate.takes_long,
        starts,
        job.kind,
        job.parent_id,
        job.project_id,
    )


def fence(connection: sa.Connection | orm.Session, held: Claim) -> None:
    """The first statement of every write of a running Job.

    :raises ClaimLost: the Job is not ours any more
    """
    job = models.Job
    held_by_us = (job.id == held.job_id, job.owner == held.owner, job.generation == held.generation)
    touch = sa.update(job).where(*held_by_us).values(updated_at=models.now())
    if not db.changed_one(connection.execute(touch)):
        raise exceptions.ClaimLost(f"Job {held.job_id} belongs to another engine now.")


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """A database that can not be used means "unknown": neither "lost" nor "go on".

    The task is run again later. Other errors of the database are ours, and final.
    """
    try:
        yield
    except AWAY as error:
        raise exceptions.Interrupted(f"The database can not be used: {error}") from error


@contextlib.contextmanager
def fenced(held: Claim) -> Iterator[tuple[orm.Session, models.Job]]:
    """A writing transaction that is ours alone; statuses are derived again at its end."""
    with interrupting(), db.writer() as session:
        fence(session, held)
        job = session.get_one(models.Job, held.job_id)
        yield session, job
        api.refresh(session, job)


def load(held: Claim) -> models.Job:
    """:raises ClaimLost: it has ended long ago, elsewhere, and was deleted"""
    with interrupting(), db.reader() as session:
        job = session.get(models.Job, held.job_id)
    if job is None:
        raise exceptions.ClaimLost(f"Job {held.job_id} is gone.")
    return job


@points.mutation
def release(held: Claim) -> None:
    """Hand the Job back: any engine may claim it at once."""
    with fenced(held) as (_session, job):
        job.owner = None


@points.mutation
def wait(held: Claim) -> None:
    """Nothing goes on before its user brings a credential: hand the Job back."""
    with fenced(held) as (_session, job):
        job.waiting_since, job.owner = models.now(), None


def is_open(job_id: str) -> bool:
    """Is there such a Job, which has not ended and does not wait?"""
    job = models.Job
    query = sa.select(job.id).where(job.id == job_id, job.finished_at.is_(None), job.waiting_since.is_(None))
    with db.reader() as session:
        return session.scalar(query) is not None


@points.mutation
def stop_following(held: Claim) -> None:
    """The bytes do not come any more: nothing is done until all are there."""
    with fenced(held) as (_session, job):
        for target in job.targets:
            if target.status not in status.TARGET_ENDS:
                target.status, target.step, target.bytes_done = "waiting", "receive", 0


@points.mutation
def found(held: Claim, source: dict[str, Any], room: uploads.Room) -> None:
    """It is known which image of which Cloud is the Job's source: note it, and reserve room.

    :param source: as engine.locating finds it
    :raises StagingFull: there is none
    """
    with fenced(held) as (session, job):
        uploads.reserve(session, source["size"], room, job_id=job.id)
        before = job.source
        said = job.spec or {}
        named = job.kind == "create" and "source" in said       # or it is one of the Image's Links
        job.spec = {**said, "found": source}
        assert job.upload is not None
        job.upload.size = job.upload.reserved = source["size"]
        if _other_file(before) != _other_file(source):
            job.upload.offset = 0       # what is here of another file is of no use
        if job.stage == "staged":       # it is lost
            job.stage = "staging"
        image = session.get_one(models.Image, job.image_id)
        if not source.get("converted"):
            image.size = source["size"]
        if not named and before.get("cloud_key") != source["cloud_key"]:    # else it was known at once
            job.begun = [*(job.begun or []), [models.now(), [source["cloud_key"]]]]
        if named:
            image.tags = list(dict.fromkeys([*image.tags, *source["tags"]]))
        for target in job.targets:
            if target.bytes_total is None or target.status not in status.TARGET_ENDS:
                target.bytes_total = source["size"]


def _other_file(source: Mapping[str, Any]) -> tuple[str, str] | None:
    """Where a file is that is not the Image's own."""
    return (source["cloud_key"], source["image_ref"]) if source.get("converted") else None


@points.mutation
def fetched(held: Claim, offset: int) -> None:
    """So many bytes of the source are here: no status depends on it."""
    with interrupting(), db.writer() as session:
        fence(session, held)
        upload = models.Upload
        session.execute(sa.update(upload).where(upload.job_id == held.job_id).values(offset=offset))


@points.mutation
def staged(held: Claim, *, disk_format: str, virtual_size: int, digests: dict[str, str]) -> None:
    """The bytes are here, whole, inspected and hashed; a source that has just these is linked.

    Where they are another file than the Image's own, the Job notes what they are, and the Image stays.
    """
    with fenced(held) as (session, job):
        source = job.source
        linked = _as_linked(session, source) if source else {}      # before anything of ours is written
        job.stage = "staged"
        image = session.get_one(models.Image, job.image_id)
        size = job.file["size"]
        if job.upload:
            job.upload.offset = size or 0       # of what was restored, nothing was told before
        if source.get("converted"):
            file = {"disk_format": disk_format, "virtual_size": virtual_size, "digests": digests}
            job.spec = {**(job.spec or {}), "found": {**source, "file": file}}
        else:
            image.disk_format = disk_format
            image.virtual_size = virtual_size
            image.digests = {"guest": image.digests.get("guest"), **digests}
        for target in job.targets:
            if target.bytes_total is None or target.status not in status.TARGET_ENDS:
                target.bytes_total = size       # or more, where it is converted
        if source and source["cloud_key"] not in {link.cloud_key for link in image.links}:
            session.add(
                models.Link(
                    image_id=image.id,
                    proof="bytes" if source["digests"] else "asserted",
                    verified_at=models.now(),
                    told={name: source[name] for name in TOLD if name in source},
                    **linked,
                )
            )


def _as_linked(session: orm.Session, source: Mapping[str, Any]) -> dict[str, Any]:
    """What a Link has of a source, with the Cloud's name of now."""
    return {**{name: source[name] for name in LINKED}, "cloud": clouds.name_of(session, source)}


@points.mutation
def reserve(held: Claim, converted: int, coming: int, room: uploads.Room | None = None) -> None:
    """Reserve room in the staging area beside the image itself, instead of any before.

    :param converted: bytes that are on disk of what it was converted to
    :param coming: bytes that will be
    :param room: None: what will be has its room already
    :raises StagingFull: there is no room for them
    """
    with fenced(held) as (session, job):
        upload = session.get(models.Upload, job.id)
        if upload is not None:
            there = (upload.size or 0) + converted
            if room is not None:
                uploads.reserve(session, coming, room, job_id=job.id, offset=there)
            upload.reserved, upload.converted = there + coming, converted


@points.mutation
def proven(held: Claim, guest: str) -> None:
    """The image was converted, or read back from a cloud, and that had this same guest digest."""
    with fenced(held) as (session, job):
        image = session.get_one(models.Image, job.image_id)
        image.digests = {**image.digests, "guest": guest}


@points.mutation
def update_stage(held: Claim, *, step: str | None, error: dict[str, Any] | None) -> None:
    """Write the stage flow's step into the Targets that wait for it, its error into the Job.

    Where the upload was given up meanwhile, that is the error, and stays. A Target with an error waits for
    its user, and its step says how far it had come. No status depends on it.
    """
    job, target = models.Job, models.Target
    with interrupting(), db.writer() as session:
        fence(session, held)
        whole = sa.update(job).where(job.id == held.job_id, job.stage != "failed")
        session.execute(whole.values(error=error or sa.null()))
        waiting = (target.job_id == held.job_id, target.status == "waiting", target.error.is_(sa.null()))
        if step:
            session.execute(sa.update(target).where(*waiting).values(step=step))


@points.mutation
def end_stage(held: Claim) -> None:
    """The stage flow failed, by the Job's error; its Targets end with that when they are withdrawn."""
    with fenced(held) as (_session, job):
        job.stage, job.error = "failed", job.error or INTERNAL


@points.mutation
def update_target(held: Claim, target_id: str, **values: Any) -> None:
    """Write values into a Target that goes on; `status="retrying"` counts as another attempt.

    No other status depends on it.
    """
    target = models.Target
    attempts = target.attempts + (1 if values.get("status") == "retrying" else 0)
    values["attempts"] = sa.case((attempts < 1, 1), else_=attempts)
    with interrupting(), db.writer() as session:
        fence(session, held)
        said = {name: sa.null() if value is None else value for name, value in values.items()}
        session.execute(sa.update(target).where(target.id == target_id).values(**said))


@points.mutation
def end_target(held: Claim, target_id: str) -> str:
    """The Target's flow failed: the Target ends with its last error, or as cancelled; its status."""
    with fenced(held) as (session, job):
        target = session.get_one(models.Target, target_id)
        if job.wanted == "cancel" and not target.error:
            target.status = "cancelled"
        else:
            target.status, target.error = "error", target.error or job.error or INTERNAL
    return target.status


@points.mutation
def progress(held: Claim, target_id: str, bytes_done: int) -> None:
    """Write how far a transfer is: no status depends on it."""
    with interrupting(), db.writer() as session:
        fence(session, held)
        target = models.Target
        session.execute(
            sa.update(target).where(target.id == target_id).values(bytes_done=bytes_done)
        )


def check(held: Claim) -> str:
    """What is wanted of the Job: run, cancel.

    :raises ClaimLost: the Job is not ours any more
    """
    with interrupting(), db.writer() as session:
        fence(session, held)
        wanted = session.scalar(sa.select(models.Job.wanted).where(models.Job.id == held.job_id))
    return str(wanted)


@points.mutation
def give_up(held: Claim) -> None:
    """Something unexpected ended the run: so end all that has not ended."""
    with fenced(held) as (_session, job):
        if job.stage != "staged":
            job.stage, job.error = "failed", job.error or INTERNAL
        for target in job.targets:
            if target.status not in status.TARGET_ENDS:
                target.status, target.error = "error", target.error or job.error or INTERNAL


@points.mutation
def add_link(
    held: Claim,
    target_id: str,
    image_ref: str,
    proof: str,
    told: dict[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
) -> None:
    """The Target's image is there and proven: link it, and end the Target.

    :param told: what its Cloud says of it by now
    :param source: what it was proven against without any bytes: a place and its `image_ref`, and what is
        `told` of it; if that is linked, its own proof stays
    """
    with fenced(held) as (session, job):
        target = session.get_one(models.Target, target_id)
        there = {name: getattr(target, name) for name in PLACE}
        there["cloud"] = clouds.name_of(session, there)     # before anything of ours is written
        if source:
            here = _as_linked(session, source)
            known = {(link.cloud_key, link.image_ref): link.proof for link in job.image.links}
            its = known.get((source["cloud_key"], source["image_ref"]), proof)
            same = {"image_id": job.image_id, "proof": its, "verified_at": models.now()}
            session.merge(models.Link(**same, **here, told=source["told"]))
        session.merge(
            models.Link(
                image_id=job.image_id,
                **there,
                image_ref=image_ref,
                proof=proof,
                verified_at=models.now(),
                told=told,
            )
        )
        target.status, target.image_ref, target.error = "success", image_ref, None
        target.bytes_done = target.bytes_total or 0


@points.mutation
def updated(
    held: Claim, target_id: str, image_ref: str, told: dict[str, Any], remarks: list[str] | None
) -> None:
    """The Target's image is as is said of it, but for the remarks: end the Target.

    :param told: what its Cloud was told
    """
    with fenced(held) as (session, job):
        target = session.get_one(models.Target, target_id)
        link = session.get(models.Link, (job.image_id, target.cloud_key))
        if link is not None:        # or it was unlinked meanwhile
            link.told = {**(link.told or {}), **told}
        target.status, target.image_ref, target.error = "success", image_ref, None
        target.remarks = remarks


@points.mutation
def leave(held: Claim, target_id: str, image_ref: str) -> models.Image | None:
    """Forget the Link to what is another Image of the project, too: that one, if there is one.

    Of two that are deleted at once, the second is alone with it.
    """
    with fenced(held) as (session, job):
        target, link, image = session.get_one(models.Target, target_id), models.Link, models.Image
        same = sa.select(link.image_id).where(
            link.cloud_key == target.cloud_key, link.image_ref == image_ref
        )
        ids = session.scalars(same.order_by(link.image_id).with_for_update()).all()
        others = sa.select(image).where(image.id.in_(ids), image.id != job.image_id)
        other = session.scalar(others.where(image.project_id == job.project_id).limit(1))
        if other is not None:
            mine = link.image_id == job.image_id, link.cloud_key == target.cloud_key
            session.execute(sa.delete(link).where(*mine))
            session.expire(job.image)
        return other


@points.mutation
def remove_link(held: Claim, target_id: str) -> None:
    """The Target's image is there no more: forget its Link, and end the Target."""
    with fenced(held) as (session, job):
        target, link = session.get_one(models.Target, target_id), models.Link
        session.execute(
            sa.delete(link).where(link.image_id == job.image_id, link.cloud_key == target.cloud_key)
        )
        target.status, target.error = "success", None
        session.expire(job.image)


@points.mutation
def trust_deleted(job_id: str, trust_id: str) -> None:
    with interrupting(), db.writer() as session:
        session.execute(
            sa.update(models.Job)
            .where(models.Job.id == job_id, models.Job.trust_id == trust_id)
            .values(trust_id=None)
        )


@points.mutation
def finish(held: Claim, *, purge: bool) -> str:
    """End the Job; its status from now on is one of the ends, and is returned.

    :param purge: forget the spec and the upload: there is nothing left to retry
    """
    with fenced(held) as (session, job):
        job.finished_at = models.now()
        job.owner = None
        if job.kind == "zone-sync":
            zone_syncs.close(session, job.id)
        elif ((job.spec or {}).get("whole") or job.parent_id) and not job.image.links:
            job.image.deleted_at = models.now()
        if job.parent_id:
            job.trust_id = None     # its parent's
        if purge:
            _purge(session, job.id)
        elif job.stage == "failed":
            _free_room(job.upload)
    return job.status


def _free_room(upload: models.Upload | None) -> None:
    """Others may have the room of what an engine did not bring: a retry reserves it again."""
    if upload and upload.complete and upload.offset < (upload.size or 0):
        upload.reserved = min(upload.reserved, upload.offset)


def _purge(session: orm.Session, job_id: str) -> None:
    session.execute(sa.update(models.Job).where(models.Job.id == job_id).values(spec=sa.null()))
    session.execute(sa.delete(models.Upload).where(models.Upload.job_id == job_id))


def past_retention(marker: str, before: int) -> Sequence[str]:
    """Ids of Jobs that ended before a time and whose spec or bytes were kept."""
    job = models.Job
    bytes_too = sa.exists().where(models.Upload.job_id == job.id)
    with db.reader() as session:
        query = sa.select(job.id).where(job.marker == marker, job.finished_at < before)
        return session.scalars(query.where(sa.or_(job.spec.is_not(None), bytes_too))).all()


@points.mutation
def forget_spec(job_id: str, before: int) -> bool:
    """The first step of a purge: without a spec nobody can retry the Job. False: somebody does."""
    job = models.Job
    with db.writer() as session:
        ended = sa.update(job).where(job.id == job_id, job.finished_at < before)
        return db.changed_one(session.execute(ended.values(spec=sa.null())))


@points.mutation
def purge(job_id: str) -> None:
    """The last step: forget the spec and the upload of a Job that has ended, after its bytes are gone.

    Its row may be gone meanwhile, too.
    """
    with db.writer() as session:
        _purge(session, job_id)


def ended_with_trust() -> Sequence[tuple[str, str]]:
    """(Job id, trust id) of Jobs that ended while Keystone could not be asked to delete the trust."""
    job = models.Job
    with db.reader() as session:
        rows = session.execute(
            sa.select(job.id, job.trust_id).where(
                job.finished_at.is_not(None), job.trust_id.is_not(None), job.parent_id.is_(None)
            )
        )
        return [(row.id, row.trust_id) for row in rows]


@points.mutation
def expire_uploads(marker: str) -> Sequence[str]:
    """Fail the Jobs whose bytes never came; an engine then claims them to clean up."""
    job, upload = models.Job, models.Upload
    overdue = (
        upload.complete.is_(False),
        upload.expires_at < models.now(),
        upload.leased_until < models.now(),
    )
    expired = []
    with db.writer() as session:
        query = sa.select(job).join(upload, upload.job_id == job.id)
        for row in session.scalars(query.where(job.marker == marker, *overdue)).all():
            close = sa.update(upload).where(upload.job_id == row.id, *overdue)
            if not db.changed_one(session.execute(close.values(complete=True))):
                continue        # it goes on after all
            row.stage, row.error = "failed", uploads.EXPIRED
            api.refresh(session, row)
            expired.append(row.id)
    return expired
