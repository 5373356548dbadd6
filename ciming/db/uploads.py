# SPDX-License-Identifier: Apache-2.0
"""Uploads as leased rows: who may write an image's bytes, and how many are on disk.

A lease ends LEASE_MS after its last commit; the generation fences a writer that comes late.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions, points, staging
from ciming.db import api, models
from ciming.db import session as db

LEASE_MS = 10_000
DEAD_MS = 600_000       # after the end of a lease: who holds it is not only slow

EXPIRED = {
    "code": "upload.expired",
    "message": "The image data never came, or not all of it. Create the image again to start over.",
    "cloud_request_id": None,
}
TERMINATED = {
    "code": "upload.terminated",
    "message": "The upload was given up by its user. Create the image again to start over.",
    "cloud_request_id": None,
}
ENDED = (EXPIRED["code"], TERMINATED["code"])
OF_NO_USE = ("image.", "upload.")
"""How the codes of Jobs begin whose bytes are not kept, as no retry could do anything with them."""

Room = Callable[[int, int], int]
"""Bytes that may still come, where so many are held or promised, and so many of those are to come."""


@dataclass(frozen=True)
class Lease:
    """The right to write the bytes of one Job from `start` on.

    They are `size` in all where that is known, and `room` at most.
    """

    job_id: str
    generation: int
    size: int | None
    room: int
    start: int = 0


def reserve(session: orm.Session, needed: int, room: Room, *, job_id: str, offset: int = 0) -> int:
    """Bytes that the upload of a Job may still bring, where `offset` of them are here.

    :raises StagingFull: fewer than `needed`
    """
    _one_at_a_time(session)
    upload, job = models.Upload, models.Job
    here = sa.select(job.marker).where(job.id == job_id).scalar_subquery()
    # Of one whose API process died only what has come: nobody else gives the rest of its room back.
    died = sa.and_(upload.owner.is_not(None), upload.leased_until < models.now() - DEAD_MS)
    held_by = sa.case((sa.and_(died, upload.complete.is_(False)), upload.offset), else_=upload.reserved)
    there = upload.offset + upload.converted
    coming_of = sa.case((held_by > there, held_by - there), else_=0)
    others = sa.select(sa.func.sum(held_by), sa.func.sum(coming_of))
    others = others.join(job, job.id == upload.job_id).where(job.id != job_id, job.marker == here)
    held, coming = session.execute(others).one()
    left = room(int(held or 0) + offset, int(coming or 0))
    if needed > left:
        raise staging.no_room(needed, left)
    return left


def _one_at_a_time(session: orm.Session) -> None:
    """Two that reserve at once must not both find the last room; where writers are alone, it is no loss."""
    mutex = models.Mutex
    taken = sa.update(mutex).where(mutex.name == "staging").values(taken=mutex.taken + 1)
    assert db.changed_one(session.execute(taken)), "the migration has written this row"


@points.mutation
def begin(
    image_id: str,
    owner: str,
    size: int | None,
    expires_at: int,
    room: Room,
    *,
    marker: str,
    offset: int | None = None,
) -> Lease:
    """Take the lease: for a new upload from byte 0, or to go on from `offset`.

    :param marker: of the staging area that the bytes would go to
    :param size: bytes of the whole as this request announces them, if it does
    :raises Conflict: the image has its bytes, somebody else is sending them, or `offset` is not where
        they end
    :raises Locked: the same of one who wants to go on while somebody else is sending
    :raises Gone: the upload has expired, or was given up
    :raises InvalidRequest: `size` contradicts what was announced at create, or nothing was
    :raises Unavailable: no engine would find them there
    :raises StagingFull: there is no room for it
    """
    with db.writer() as session:
        job, upload = find(session, image_id)
        check_open(image_id, job, upload)
        assert job is not None and upload is not None
        _check_place(job, marker)
        if upload.owner is not None and upload.leased_until > models.now():
            raise held(image_id, resuming=offset is not None)
        size = _check_size(upload, size)
        if offset is not None:
            _check_offset(upload, offset, size)
        start = offset or 0
        room_left = reserve(session, (size or 1) - start, room, job_id=job.id, offset=start)
        lease = Lease(job.id, upload.generation + 1, size, start + room_left, start)
        taken = session.execute(
            _if_held(lease, upload.generation).values(
                owner=owner,
                generation=lease.generation,
                size=size if offset is not None else upload.size,
                reserved=size or 0,
                offset=start,
                leased_until=models.now() + LEASE_MS,
                expires_at=expires_at,
            )
        )
        if not db.changed_one(taken):
            raise held(image_id, resuming=offset is not None)
        return lease


def find(session: orm.Session, image_id: str) -> tuple[models.Job | None, models.Upload | None]:
    """The Job that brings an Image's bytes in, and its upload as long as that is there."""
    creates = (models.Job.image_id == image_id, models.Job.kind == "create")
    job = session.scalars(sa.select(models.Job).where(*creates)).one_or_none()
    return job, job.upload if job else None


def check_open(image_id: str, job: models.Job | None, upload: models.Upload | None) -> None:
    """:raises CimingError: no more bytes are taken"""
    _check_not_ended(job)
    _check_not_refused(job)
    if upload is None or upload.complete:
        raise exceptions.Conflict(
            f"Image {image_id} takes no data: it has its data already, or its Job has ended.",
            code="image.has_data",
        )


def _check_not_ended(job: models.Job | None) -> None:
    if job is not None and job.error and job.error["code"] in ENDED:
        raise exceptions.Gone(job.error["message"], code=job.error["code"])


def _check_not_refused(job: models.Job | None) -> None:
    if job is not None and job.stage == "failed" and job.error and job.upload is None:
        raise exceptions.Conflict(
            f"Job {job.id} has ended: {job.error['message']}", code="image.has_data"
        )


def _check_place(job: models.Job, marker: str) -> None:
    if job.marker != marker:
        raise exceptions.Unavailable(
            "The data of this image belongs into another staging area than the one of the API that answered. "
            "All of its hosts need the same [staging] path: tell the operator.",
            code="upload.elsewhere",
        )


def _check_size(upload: models.Upload, size: int | None) -> int | None:
    if size is not None and upload.size not in (None, size):
        raise exceptions.InvalidRequest(
            f"The data has {size} bytes, but {upload.size} were announced before.",
            code="upload.size_mismatch",
            field="size",
        )
    return upload.size if size is None else size


def _check_offset(upload: models.Upload, offset: int, size: int | None) -> None:
    if size is None:
        raise exceptions.InvalidRequest(
            "An upload in parts needs to know the size: give it at create, or as Upload-Length.",
            code="upload.size_unknown",
            field="Upload-Length",
        )
    if offset != upload.offset:
        raise exceptions.Conflict(
            f"The data that is here ends at byte {upload.offset}: go on from there.",
            code="upload.wrong_offset",
            field="Upload-Offset",
        )


def held(image_id: str, *, resuming: bool) -> exceptions.CimingError:
    """The error of one who finds somebody else sending."""
    kind, code = (
        (exceptions.Locked, "upload.locked") if resuming else (exceptions.Conflict, "upload.in_progress")
    )
    return kind(f"Another upload to image {image_id} is under way.", code=code)


@dataclass(frozen=True)
class State:
    """How far an upload is: bytes of the whole (None: not known yet), and when it is given up."""

    offset: int
    size: int | None
    expires_at: int | None


def state(image: models.Image) -> State:
    """How far the upload of an Image is; one that is whole stays so, unless it was refused.

    :raises Gone: it has expired, or was given up
    :raises Conflict: what came was refused, and is not kept
    """
    with db.reader() as session:
        job, upload = find(session, image.id)
        if upload is not None and not upload.complete:
            return State(upload.offset, upload.size, upload.expires_at)
        _check_not_ended(job)
        _check_not_refused(job)     # its size may be what was announced, and no byte of it be here
        if image.size is None:
            check_open(image.id, job, upload)
        return State(image.size or 0, image.size, None)


@dataclass(frozen=True)
class Progress:
    """How far an upload is, for who follows it; `error` where it was given up."""

    generation: int
    offset: int
    complete: bool
    error: dict[str, Any] | None


def progress(job_id: str) -> Progress:
    """How far the upload of a Job is."""
    upload, job = models.Upload, models.Job
    query = sa.select(upload.generation, upload.offset, upload.complete, job.stage, job.error)
    with db.reader() as session:
        row = session.execute(query.join(job, job.id == upload.job_id).where(job.id == job_id)).one()
    error = row.error if row.stage == "failed" else None
    return Progress(row.generation, row.offset, row.complete, error)


@points.mutation
def commit(lease: Lease, offset: int, written: int, expires_at: int, room: Room) -> int:
    """Say that `offset` bytes are on disk, and keep the lease; bytes that may come in all.

    :param written: bytes that take room
    :raises Conflict: the lease is another's by now
    :raises Gone: the upload was given up
    :raises StagingFull: no more may come
    """
    with db.writer() as session:
        if lease.size is None:
            _one_at_a_time(session)     # before our row, as who begins has it
        _fence(
            session,
            lease,
            offset=offset,
            reserved=lease.size or written,
            leased_until=models.now() + LEASE_MS,
            expires_at=expires_at,
        )
        if lease.size is not None:
            return lease.room
        return written + reserve(session, 0, room, job_id=lease.job_id, offset=written)


@points.mutation
def complete(lease: Lease, size: int) -> None:
    """All bytes are on disk: hand the Job to the engines, unless it has failed by then."""
    with db.writer() as session:
        whole = dict.fromkeys(("offset", "size", "reserved"), size)
        _fence(session, lease, complete=True, owner=None, leased_until=0, **whole)
        comes = sa.update(models.Job).where(models.Job.id == lease.job_id, models.Job.stage == "uploading")
        session.execute(comes.values(stage="staging"))
        job = session.get_one(models.Job, lease.job_id)
        session.get_one(models.Image, job.image_id).size = size
        api.refresh(session, job)


@points.mutation
def release(lease: Lease, offset: int) -> bool:
    """Give the lease back; the upload goes on later from `offset`. Where it was lost: do nothing, False."""
    free = _if_held(lease).values(offset=offset, reserved=offset, owner=None, leased_until=0)
    with db.writer() as session:
        return db.changed_one(session.execute(free))


def _if_held(lease: Lease, generation: int | None = None) -> sa.Update:
    upload = models.Upload
    return sa.update(upload).where(
        upload.job_id == lease.job_id,
        upload.generation == (lease.generation if generation is None else generation),
        upload.complete.is_(False),
    )


def _fence(session: orm.Session, lease: Lease, **values: object) -> None:
    if not db.changed_one(session.execute(_if_held(lease).values(**values))):
        raise _lost(session, lease)


def lost(lease: Lease) -> exceptions.CimingError:
    """The error of one whose lease is not theirs any more."""
    with db.reader() as session:
        return _lost(session, lease)


def _lost(session: orm.Session, lease: Lease) -> exceptions.CimingError:
    job = session.get(models.Job, lease.job_id)
    try:
        _check_not_ended(job)
        _check_not_refused(job)     # not upload.lost: who gets that tries again
    except exceptions.CimingError as error:
        return error
    return exceptions.Conflict("Another upload has taken over, or its Job has ended.", code="upload.lost")
