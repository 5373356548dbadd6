# SPDX-License-Identifier: Apache-2.0
"""Registered Clouds: what a project sees are its own, and the public ones.

Writers are one at a time, by a mutex, so that no two rows that somebody sees come to have one name.
Who makes a Target or a Link holds the row until the end of the transaction, so that it is not deleted
meanwhile.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions
from ciming.db import models, status
from ciming.db import session as db

Change = Callable[[orm.Session, models.Cloud], object]
SHOWN = 5       # ids that an error names


def visible(project_id: str) -> Sequence[models.Cloud]:
    """All that a project sees, by name."""
    with db.reader() as session:
        query = sa.select(models.Cloud).where(_seen_by(project_id)).order_by(models.Cloud.name)
        return session.scalars(query).all()


def find(cloud_id: str, project_id: str) -> models.Cloud | None:
    """The one of this id, if the project sees it."""
    query = sa.select(models.Cloud).where(models.Cloud.id == cloud_id, _seen_by(project_id))
    with db.reader() as session:
        return session.scalar(query)


def create(row: models.Cloud) -> None:
    """:raises Conflict: its name is taken"""
    with db.writer() as session:
        _one_at_a_time(session)
        _check_name(session, row)
        session.add(row)


def update(cloud_id: str, change: Change) -> models.Cloud:
    """Change a row, while nobody else changes any, or makes a Target in it.

    :param change: does so; raises if that can not be
    :raises Conflict: its new name is taken
    :raises NotFound: it was deleted meanwhile
    """
    with db.writer() as session:
        row = _alone(session, cloud_id)
        name = row.name
        change(session, row)
        if row.name != name:
            _check_name(session, row)
            for model in (models.Link, models.Target):
                renamed = sa.update(model).where(model.cloud_key == cloud_id).values(cloud=row.name)
                session.execute(renamed, execution_options={"synchronize_session": False})
        return row


def delete(cloud_id: str) -> None:
    """Delete a Cloud that nothing is in, or on its way to.

    :raises Conflict: something is
    :raises NotFound: it was deleted meanwhile
    """
    with db.writer() as session:
        row = _alone(session, cloud_id)
        check_idle(session, row)
        query = sa.select(models.Link.image_id).where(models.Link.cloud_key == cloud_id)
        images = session.scalars(query.order_by(models.Link.image_id)).all()
        if images:
            raise exceptions.Conflict(
                f"Cloud {row.name} has Images: {_some(images)}. Delete or unlink them there first.",
                code="cloud.in_use",
            )
        session.delete(row)


def check_idle(session: orm.Session, row: models.Cloud) -> None:
    """:raises Conflict: a Job that has not ended works there, or brings its image from there"""
    job, target = models.Job, models.Target
    there = sa.exists().where(target.job_id == job.id, target.cloud_key == row.id)
    moves = sa.and_(job.kind.in_(status.MOVING), job.spec.is_not(None))
    query = sa.select(job.id, job.spec, there).where(job.finished_at.is_(None), sa.or_(there, moves))
    jobs = [
        job_id
        for job_id, spec, is_there in session.execute(query.order_by(job.created_at))
        if is_there or _names(spec or {}, row.id)
    ]
    if jobs:
        raise exceptions.Conflict(
            f"Cloud {row.name} is in use by Jobs that have not ended: {_some(jobs)}. Wait for them, or "
            "cancel them.",
            code="cloud.in_use",
        )


def _names(spec: Mapping[str, Any], cloud_id: str) -> bool:
    """Does the Job bring its image from there, or is a credential held for it? SQL can not tell."""
    sources = [spec.get(name, {}).get("cloud_key") for name in ("source", "found")]
    return cloud_id in (*sources, *spec.get("given", ()))


def hold(session: orm.Session, job: models.Job) -> None:
    """Let no Cloud that a Job is to work in, or brings its image from, be deleted before it is committed.

    Nor renamed: the Job has their names of then. To be asked before the Job is written, as who renames has
    the Cloud first, and then what is in it.

    :raises Conflict: one is gone already
    """
    places = [(target.cloud_key, target.region) for target in job.targets if target.status != "success"]
    source = (job.spec or {}).get("source")
    if source:
        places.append((source["cloud_key"], source["region"]))
    needed = {key for key, region in places if not is_zone(key, region)}
    if not needed:
        return
    names = _names_of(session, needed)
    gone = needed - names.keys()
    if gone:
        raise exceptions.Conflict(
            f"Cloud {', '.join(sorted(gone))} was deleted meanwhile.", code="cloud.deleted", field="clouds"
        )
    for target in job.targets:
        target.cloud = names.get(target.cloud_key, target.cloud)
    if source and source["cloud_key"] in names:
        job.spec = {**(job.spec or {}), "source": {**source, "cloud": names[source["cloud_key"]]}}


def name_of(session: orm.Session, place: Mapping[str, Any]) -> str:
    """What a Cloud is called, until the end of the transaction.

    :param place: where a Link is to be
    """
    if is_zone(place["cloud_key"], place["region"]):
        return str(place["cloud"])
    return _names_of(session, [place["cloud_key"]]).get(place["cloud_key"], str(place["cloud"]))


def _names_of(session: orm.Session, cloud_ids: Collection[str]) -> dict[str, str]:
    cloud = models.Cloud
    query = sa.select(cloud.id, cloud.name).where(cloud.id.in_(cloud_ids)).order_by(cloud.id)
    return {row.id: row.name for row in session.execute(query.with_for_update(read=True))}


def is_zone(cloud_key: str, region: str | None) -> bool:
    """Are this Target, Link or source those of a zone, whose id is its region, or of a registered Cloud?"""
    return cloud_key == region


def _seen_by(project_id: str) -> sa.ColumnElement[bool]:
    return sa.or_(models.Cloud.project_id == project_id, models.Cloud.visibility == "public")


def _one_at_a_time(session: orm.Session) -> None:
    mutex = models.Mutex
    session.execute(sa.update(mutex).where(mutex.name == "clouds").values(taken=mutex.taken + 1))


def _alone(session: orm.Session, cloud_id: str) -> models.Cloud:
    _one_at_a_time(session)
    row = session.get(models.Cloud, cloud_id, with_for_update=True)
    if row is None:
        raise exceptions.NotFound(f"No Cloud {cloud_id}.", code="cloud.not_found")
    return row


def _check_name(session: orm.Session, row: models.Cloud) -> None:
    """A public Cloud is seen by all, so nobody's may have its name."""
    cloud = models.Cloud
    query = sa.select(cloud.id).where(cloud.name == row.name, cloud.id != row.id)
    if row.visibility != "public":
        query = query.where(_seen_by(row.project_id))
    if session.scalars(query.limit(1)).first():
        raise name_taken(row.name)


def name_taken(name: str) -> exceptions.Conflict:
    return exceptions.Conflict(
        f"There is a Cloud {name} already: choose another name.", code="cloud.name_taken", field="name"
    )


def _some(ids: Sequence[Any]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"{', '.join(ids[:SHOWN])}{more}"
