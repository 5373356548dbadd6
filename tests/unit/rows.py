# SPDX-License-Identifier: Apache-2.0
"""Rows for tests, written as the API writes them, and a picture of all rows to compare with."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from ciming.db import api, models, pending, session, work
from tests.sandbox import servers

ENGINE, LOCKS, AREA = "engine-1", "locks-1", "area-1"
SIZE = 3 * 1024 * 1024


class Database:
    """What a test has: a SQLite file, or a database on a server; can be taken away."""

    def __init__(self, where: pathlib.Path | servers.Database) -> None:
        self.where = where

    def take_away(self) -> None:
        if isinstance(self.where, servers.Database):
            self.where.kill()
        else:
            self.where.rename(self.where.with_name("mislaid"))
            self.where.mkdir()
            session.engine().dispose()      # who has the file open would go on with it

    def mend(self) -> None:
        if isinstance(self.where, servers.Database):
            self.where.start()


def make_job(
    *,
    stage: str = "staging",
    zones: Sequence[str] = ("zone-a", "zone-b"),
    size: int | None = SIZE,
    marker: str = AREA,
    name: str = "demo",
    **values: Any,
) -> models.Job:
    """A committed Job of a new Image, with a Target per zone; its upload is whole unless it waits for one."""
    image = models.Image(id=models.new_id(), project_id="studio", user_id="alice", name=name, size=size)
    job = models.Job(
        id=models.new_id(),
        project_id="studio",
        user_id="alice",
        kind="create",
        stage=stage,
        spec={"name": "demo"},
        trust_id="trust-1",
        marker=marker,
        targets=[
            models.Target(cloud_key=zone, cloud=zone, provider="openstack", region=zone) for zone in zones
        ],
        **values,
    )
    waits = stage == "uploading"
    upload = models.Upload(
        job_id=job.id,
        size=size,
        reserved=0 if waits else size,
        offset=0 if waits else size,
        complete=not waits,
        expires_at=models.now() + 60_000,
    )
    api.create(image, job, upload, lambda _session: None)
    return api.get_job(job.id, None)


def take(job_id: str, owner: str = ENGINE, lock_marker: str = LOCKS) -> work.Claim:
    """Claim a Job, whoever has it."""
    row = api.get_job(job_id, None)
    claim = work.claim(work.Candidate(job_id, row.owner, row.generation), owner, lock_marker)
    assert claim is not None
    return claim


def go_on(
    begin: Callable[..., None], job_id: str, pending_id: str, user_id: str = "bob", trust_id: str = "trust-2"
) -> None:
    """Retry or resume a Job, as the API does: under a trust that was announced."""

    def give(row: models.Job) -> None:
        row.trust_id = trust_id

    begin(job_id, user_id, "req-2", functools.partial(pending.settle, pending_id=pending_id), give)


def everything() -> dict[str, list[Any]]:
    """All rows of all tables."""
    metadata = sa.MetaData()
    with session.engine().connect() as connection:
        metadata.reflect(connection)
        return {
            table.name: sorted(map(tuple, connection.execute(table.select())), key=repr)
            for table in metadata.sorted_tables
        }
