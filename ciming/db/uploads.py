# SPDX-License-Identifier: Apache-2.0
"""Uploads as leased rows: who may write an image's bytes, and how many are on disk.

A lease ends LEASE_MS after its last commit; the generation fences a writer that comes late.
"""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions, staging
from ciming.db import api, models
from ciming.db import session as db

LEASE_MS = 10_000


Room = Callable[[int, int], int]
"""Bytes that may still come, where so many are held or promised, and so many of those are to come."""


@dataclass(frozen=True)
class Lease:
    """The right to write the bytes of one Job: `size` of them where that is known, `room` at most."""

    job_id: str
    generation: int
    size: int | None
    room: int


def reserve(session: orm.Session, needed: int, room: Room, *, job_id: str, offset: int = 0) -> int:
    """Bytes that the upload of a Job may still bring, where `offset` of them are here.

    :raises StagingFull: fewer than `needed`
    """
    _one_at_a_time(session)
    upload, job = models.Upload, models.Job
    here = sa.select(job.marker).where(job.id == job_id).scalar_subquery()
    others = sa.select(sa.func.sum(upload.reserved), sa.func.sum(upload.reserved - upload.offset))
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


def begin(image_id: str, owner: str, size: int | None, expires_at: int, room: Room) -> Lease:
    """Take the lease for a new upload from byte 0.

    :param size: bytes announced with the request, if any
    :raises Conflict: the image has its bytes, or somebody else is sending them
    :raises InvalidRequest: `size` contradicts what was announced at create
    :raises StagingFull: there is no room for it
    """
    with db.writer() as session:
        upload = session.scalars(
            sa.select(models.Upload)
            .join(models.Job, models.Job.id == models.Upload.job_id)
            .where(models.Job.image_id == image_id)
        ).one_or_none()
        _check_free(image_id, upload, size)
        assert upload is not None
        size = upload.size if size is None else size
        lease = Lease(
            upload.job_id,
            upload.generation + 1,
            size,
            reserve(session, size or 1, room, job_id=upload.job_id),
        )
        taken = session.execute(
            _if_held(lease, upload.generation).values(
                owner=owner,
                generation=lease.generation,
                reserved=size or 0,
                offset=0,
                leased_until=models.now() + LEASE_MS,
                expires_at=expires_at,
            )
        )
        if not db.changed_one(taken):
            raise _in_progress(image_id)
        return lease


def _check_free(image_id: str, upload: models.Upload | None, size: int | None) -> None:
    if upload is None or upload.complete:
        raise exceptions.Conflict(
            f"Image {image_id} takes no data: it has its data already, or its Job has ended.",
            code="image.has_data",
        )
    if upload.owner is not None and upload.leased_until > models.now():
        raise _in_progress(image_id)
    if size is not None and upload.size not in (None, size):
        raise exceptions.InvalidRequest(
            f"The body has {size} bytes, but {upload.size} were announced at create.",
            code="upload.size_mismatch",
            field="size",
        )


def _in_progress(image_id: str) -> exceptions.Conflict:
    return exceptions.Conflict(
        f"Another upload to image {image_id} is under way.", code="upload.in_progress"
    )


def commit(lease: Lease, offset: int, expires_at: int, room: Room) -> int:
    """Say that `offset` bytes are on disk, and keep the lease; bytes that may come in all.

    :raises Conflict: the lease is another's by now
    :raises StagingFull: no more may come
    """
    with db.writer() as session:
        _fence(
            session,
            lease,
            offset=offset,
            reserved=lease.size or offset,
            leased_until=models.now() + LEASE_MS,
            expires_at=expires_at,
        )
        if lease.size is not None:
            return lease.room
        return offset + reserve(session, 0, room, job_id=lease.job_id, offset=offset)


def complete(lease: Lease, size: int) -> None:
    """All bytes are on disk: hand the Job to the engines."""
    with db.writer() as session:
        whole = dict.fromkeys(("offset", "size", "reserved"), size)
        _fence(session, lease, complete=True, owner=None, leased_until=0, **whole)
        job = session.get_one(models.Job, lease.job_id)
        job.stage = "staging"
        session.get_one(models.Image, job.image_id).size = size
        api.refresh(session, job)


def abandon(lease: Lease) -> None:
    """Give the lease back; the upload starts again at byte 0. Does nothing when it was lost."""
    with db.writer() as session:
        session.execute(_if_held(lease).values(offset=0, reserved=0, owner=None, leased_until=0))


def _if_held(lease: Lease, generation: int | None = None) -> sa.Update:
    upload = models.Upload
    return sa.update(upload).where(
        upload.job_id == lease.job_id,
        upload.generation == (lease.generation if generation is None else generation),
        upload.complete.is_(False),
    )


def _fence(session: orm.Session, lease: Lease, **values: object) -> None:
    if not db.changed_one(session.execute(_if_held(lease).values(**values))):
        raise exceptions.Conflict(
            "Another upload has taken over, or this one has expired.", code="upload.lost"
        )
