# SPDX-License-Identifier: Apache-2.0
"""What users do to Images that are there: begin another Job with one, say something else of it, forget Links.

One Job works on an Image at a time: the row of the Image is updated first, so that two who come at once do
so one after the other.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions, points
from ciming.db import api, clouds, models, status
from ciming.db import session as db


@points.mutation
def begin(job: models.Job, *checks: Callable[[orm.Session], object], upload: bool = False) -> None:
    """Write a Job for an Image that is there.

    :param checks: raise, in the same transaction, if that can not be
    :param upload: bytes will come into the staging area, from a Cloud
    :raises Conflict: another Job works on it, or its Links are not as the Job needs them
    :raises NotFound: it was deleted meanwhile
    """
    with db.writer() as session:
        alone_with(session, job.image_id)
        check_links(session, job)
        clouds.hold(session, job)
        job.status = "queued"
        session.add(job)
        session.flush()
        if upload:
            session.add(from_cloud(job.id))
        for check in checks:
            check(session)
        api.refresh(session, job)


@points.mutation
def change(image_id: str, said: Mapping[str, Any]) -> None:
    """Say something else of an Image that is in no Cloud.

    :param said: by columns
    :raises Conflict: a Job works on it, or it came into a Cloud meanwhile
    :raises NotFound: it was deleted meanwhile
    """
    with db.writer() as session:
        image = alone_with(session, image_id)
        if image.links:
            raise exceptions.Conflict(
                f"Image {image_id} came into a Cloud at this moment. Try again.", code="image.busy"
            )
        _say(image, said)


def changed_by(job: models.Job, said: Mapping[str, Any]) -> Callable[[orm.Session], object]:
    """To be done where a Job is written: say something else of its Image, which the Job then carries.

    What its Targets are told is what the Image's row says by then, so that one who is retried late tells
    nothing old. The Job knows what is to be told, and the tags that are the Image's no more.
    """

    def change(session: orm.Session) -> None:
        image = session.get_one(models.Image, job.image_id)
        former = image.tags
        _say(image, said)
        untag = [tag for tag in former if tag not in image.tags]
        job.spec = {**(job.spec or {}), "name": image.name, "tags": image.tags, "untag": untag}

    return change


def _say(image: models.Image, said: Mapping[str, Any]) -> None:
    for name, value in said.items():
        setattr(image, name, value)


def from_cloud(job_id: str) -> models.Upload:
    """The row of an upload that nobody sends: an engine will bring the bytes."""
    return models.Upload(job_id=job_id, complete=True, expires_at=models.now())


@points.mutation
def forget(image_id: str, cloud_keys: Collection[str] | None) -> None:
    """Forget Links, and leave what is in the Clouds as it is.

    :param cloud_keys: of those; None: all, and the Image, too
    :raises Conflict: a Job works on it, or has no such Link
    :raises NotFound: it was deleted meanwhile
    """
    link = models.Link
    with db.writer() as session:
        image = alone_with(session, image_id)
        there = {each.cloud_key for each in image.links}
        if cloud_keys is None:
            image.deleted_at = models.now()
        for lost in set(cloud_keys or ()) - there:
            raise not_linked(image_id, lost)
        gone = sa.delete(link).where(link.image_id == image_id, link.cloud_key.in_(cloud_keys or there))
        session.execute(gone)
        session.expire_all()
        api.refresh_image(session, image_id)


def not_linked(image_id: str, cloud: str) -> exceptions.NotFound:
    """The error of one who names a Cloud that the Image is not in."""
    return exceptions.NotFound(
        f"Image {image_id} has no Link in {cloud[:255]}.", code="link.not_found", field="cloud"
    )


def alone_with(session: orm.Session, image_id: str, job_id: str | None = None) -> models.Image:
    """The Image, on which nobody else works until the end of the transaction.

    :param job_id: of the Job that is to
    :raises Conflict: a Job works on it
    :raises NotFound: it was deleted
    """
    image, job = models.Image, models.Job
    there = sa.update(image).where(image.id == image_id, image.deleted_at.is_(None))
    if not db.changed_one(session.execute(there.values(updated_at=models.now()))):
        raise exceptions.NotFound(f"No image {image_id}.", code="image.not_found")
    running = sa.select(job).where(
        job.image_id == image_id, job.finished_at.is_(None), job.id.is_distinct_from(job_id)
    )
    for other in session.scalars(running.limit(1)):
        raise exceptions.Conflict(
            f"Job {other.id} ({other.kind}, {other.status}) works on image {image_id}. Wait until it has "
            "ended, or cancel it.",
            code="image.busy",
        )
    return session.get_one(image, image_id)


def check_links(session: orm.Session, job: models.Job) -> None:
    """Where something is to be changed or removed it must be, and where it is to be brought it must not.

    :raises NotFound: a Link is missing
    :raises Conflict: there is one already
    """
    link = models.Link
    linked = session.scalars(sa.select(link.cloud_key).where(link.image_id == job.image_id)).all()
    for target in job.targets:
        if target.status == "success":
            continue
        if job.kind in status.LINKED and target.cloud_key not in linked:
            raise not_linked(job.image_id, target.cloud)
        if job.kind not in status.LINKED and target.cloud_key in linked:
            raise exceptions.Conflict(
                f"Image {job.image_id} is in {target.cloud} already.", code="image.already_linked"
            )
