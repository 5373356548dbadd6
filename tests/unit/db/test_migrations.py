# SPDX-License-Identifier: Apache-2.0
"""The migrations make what the models describe."""

import pathlib
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import autogenerate
from alembic.runtime import migration
from oslo_config import cfg
from taskflow.persistence.backends.sqlalchemy import tables

from ciming.db import models, session
from tests.unit import rows

THEIRS = {"alembic_version", *tables.fetch(sa.MetaData())._fields}
"""TaskFlow's tables (on SQLite it has no version table); our migrations add only indices to them."""


def _ours(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    return kind != "table" or name not in THEIRS


def _differences() -> Sequence[Any]:
    options = {"compare_type": True, "version_table": session.VERSION_TABLE, "include_object": _ours}
    with session.engine().connect() as connection:
        context = migration.MigrationContext.configure(connection, opts=options)
        return list(autogenerate.compare_metadata(context, models.Base.metadata))


def test_models_and_migrations_agree(database: str) -> None:
    assert _differences() == []


def test_a_difference_would_be_seen(database: str) -> None:
    with session.writing_engine().begin() as connection:
        connection.execute(sa.text("DROP INDEX ix_jobs_open"))
        connection.execute(sa.text("ALTER TABLE images DROP COLUMN tags"))
    assert sorted(change[0] for change in _differences()) == ["add_column", "add_index"]


def test_taskflow_has_its_tables_and_our_indices(database: str) -> None:
    inspector = sa.inspect(session.engine())
    expected = {*models.Base.metadata.tables, session.VERSION_TABLE, *THEIRS}
    assert {*inspector.get_table_names(), "alembic_version"} == expected
    for table in ("atomdetails", "flowdetails"):
        columns = [index["column_names"] for index in inspector.get_indexes(table)]
        assert ["parent_uuid"] in columns


def test_upgrade_again_changes_nothing(database: str) -> None:
    assert session.schema_is_current()
    rows.make_job()
    before = rows.everything()
    session.upgrade()
    assert rows.everything() == before


def test_only_the_owner_may_read(conf: cfg.ConfigOpts, tmp_path: pathlib.Path) -> None:
    conf.set_override("state_path", str(tmp_path / "state"))
    session.upgrade()
    session.forget_connections()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("table", ["images", "jobs"])
def test_lists_are_served_by_an_index(database: str, table: str) -> None:
    query = f"SELECT id FROM {table} WHERE project_id = 'x' ORDER BY created_at DESC, id DESC LIMIT 10"
    with session.engine().connect() as connection:
        plan = [row[3] for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {query}"))]
    assert len(plan) == 1 and f"ix_{table}_project_created" in plan[0], plan
