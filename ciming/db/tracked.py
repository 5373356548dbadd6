# SPDX-License-Identifier: Apache-2.0
"""What a project's Images are in its Clouds, for who holds that against what the Clouds have."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import sqlalchemy as sa

from ciming.db import models, status
from ciming.db import session as db

CHUNK = 500     # values that one statement has at most


class Tracked(NamedTuple):
    """An Image, as far as a list needs it."""

    id: str
    name: str


class Coming(NamedTuple):
    """What a Job is bringing into a Cloud."""

    image_id: str
    cloud_key: str
    image_ref: str | None


def linked(project_id: str, cloud_key: str, image_refs: Collection[str]) -> dict[str, Tracked]:
    """The Images that these are in a Cloud, by their refs there."""
    image, link = models.Image, models.Link
    query = sa.select(link.image_ref, image.id, image.name).join(image, image.id == link.image_id)
    query = query.where(image.project_id == project_id, link.cloud_key == cloud_key)
    found: dict[str, Tracked] = {}
    with db.reader() as session:
        for some in _chunks(image_refs):
            rows = session.execute(query.where(link.image_ref.in_(some)))
            found.update((ref, Tracked(image_id, name)) for ref, image_id, name in rows)
    return found


def coming(image_ids: Collection[str]) -> list[Coming]:
    """What is on its way of these Images."""
    job, target = models.Job, models.Target
    query = sa.select(job.image_id, target.cloud_key, target.image_ref).join(job, job.id == target.job_id)
    query = query.where(
        job.finished_at.is_(None),
        job.kind.in_(status.BRINGING),
        target.status.not_in(status.TARGET_ENDS),
    )
    with db.reader() as session:
        return [
            Coming(*row)
            for some in _chunks(image_ids)
            for row in session.execute(query.where(job.image_id.in_(some)))
        ]


def with_digests(project_id: str, digests: Collection[str]) -> dict[str, list[Tracked]]:
    """The Images that have one of these digests, by it."""
    image = models.Image
    query = sa.select(image.id, image.name, image.digests)
    query = query.where(image.project_id == project_id, image.deleted_at.is_(None))
    wanted, found = set(digests), dict[str, list[Tracked]]()
    if wanted:
        with db.reader() as session:
            for image_id, name, known in session.execute(query.execution_options(yield_per=CHUNK)):
                for digest in wanted & {*(known or {}).values()}:
                    found.setdefault(digest, []).append(Tracked(image_id, name))
    return found


def _chunks(values: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(set(values))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
