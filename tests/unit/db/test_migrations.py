# SPDX-License-Identifier: Apache-2.0
"""The migrations make what the models describe."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import autogenerate
from alembic.runtime import migration
from oslo_config import cfg
from taskflow.persistence.backends.sqlalchemy import tables

from ciming import exceptions
from ciming.db import api, lists, models, session, work
from tests.sandbox import servers
from tests.unit import rows

THEIRS = {"alembic_version", *tables.fetch(sa.MetaData())._fields}
"""TaskFlow's tables (on SQLite it has no version table); our migrations add only indices to them."""

NEW_TABLES = ("pending_trusts", "clouds", "zone_entries", "zone_locks")
NEW_INDICES = ("ix_links_cloud_key", "ix_targets_cloud_key")
"""Since the first release."""


def _ours(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    return kind != "table" or name not in THEIRS


def _differences() -> Sequence[Any]:
    options = {"compare_type": True, "version_table": session.VERSION_TABLE, "include_object": _ours}
    with session.engine().connect() as connection:
        context = migration.MigrationContext.configure(connection, opts=options)
        return list(autogenerate.compare_metadata(context, models.Base.metadata))


def test_models_and_migrations_agree(database: rows.Database) -> None:
    assert _differences() == []


@pytest.fixture
def own_database(database: rows.Database, conf: cfg.ConfigOpts) -> Iterator[None]:
    """A new one on the same server, to be harmed."""
    if not isinstance(database.where, servers.Database):
        yield       # a SQLite file is always new
        return
    session.forget_connections()
    conf.set_override("connection", database.where.create("ciming_own"), group="database")
    session.upgrade()
    yield
    session.forget_connections()
    database.where.drop("ciming_own")


def test_a_difference_would_be_seen(own_database: None) -> None:
    with session.writing_engine().begin() as connection:
        indices = models.Base.metadata.tables["jobs"].indexes
        [index] = [each for each in indices if each.name == "ix_jobs_open"]
        index.drop(connection)
        connection.execute(sa.text("ALTER TABLE images DROP COLUMN tags"))
    assert sorted(change[0] for change in _differences()) == ["add_column", "add_index"]


def test_taskflow_has_its_tables_and_our_indices(database: rows.Database) -> None:
    inspector = sa.inspect(session.engine())
    expected = {*models.Base.metadata.tables, session.VERSION_TABLE, *THEIRS}
    assert {*inspector.get_table_names(), "alembic_version"} == expected
    assert session.VERSION_TABLE != "alembic_version"
    for table in ("atomdetails", "flowdetails"):
        columns = [index["column_names"] for index in inspector.get_indexes(table)]
        assert ["parent_uuid"] in columns


def test_upgrade_again_changes_nothing(database: rows.Database) -> None:
    assert session.schema_is_current()
    rows.make_job()
    before = rows.everything()
    session.upgrade()
    assert rows.everything() == before


def test_the_schema_of_the_first_release_is_brought_up_to_date(own_database: None) -> None:
    rows.make_job()
    with session.writing_engine().begin() as connection:
        known = models.Base.metadata.tables
        for table in NEW_TABLES:
            known[table].drop(connection)
        for index in (index for table in known.values() for index in table.indexes):
            if index.name in NEW_INDICES:
                index.drop(connection)
        connection.execute(sa.text("DELETE FROM mutexes WHERE name <> 'staging'"))
        for column in ("deleted_at", "hidden", "deprecated"):
            connection.execute(sa.text(f"ALTER TABLE images DROP COLUMN {column}"))
        for column in ("begun", "report", "waiting_since"):
            connection.execute(sa.text(f"ALTER TABLE jobs DROP COLUMN {column}"))
        connection.execute(sa.text("ALTER TABLE targets DROP COLUMN remarks"))
        connection.execute(sa.text("ALTER TABLE links DROP COLUMN told"))
        connection.execute(sa.text("ALTER TABLE uploads DROP COLUMN converted"))
        connection.execute(sa.text(f"UPDATE {session.VERSION_TABLE} SET version_num = '0001'"))
    before = rows.everything()
    assert not session.schema_is_current()
    session.upgrade()
    assert session.schema_is_current() and _differences() == []
    after = rows.everything()
    assert [after.pop(table) for table in NEW_TABLES] == [[]] * len(NEW_TABLES)
    for name in ("clouds", "zones"):
        after["mutexes"].remove((name, 0))
    for table, new in {"images": 3, "jobs": 3, "targets": 1, "links": 1, "uploads": 1}.items():
        after[table] = [row[:-new] for row in after[table]]     # without the last columns
    assert after | {session.VERSION_TABLE: [("0001",)]} == before


@pytest.mark.parametrize(
    ("table", "whose"), [(session.VERSION_TABLE, ""), ("alembic_version", " of TaskFlow")]
)
def test_the_schema_of_a_newer_release_is_left_alone(own_database: None, table: str, whose: str) -> None:
    if table == "alembic_version" and session.engine().dialect.name == "sqlite":
        pytest.skip("TaskFlow says no version there")
    with session.writing_engine().begin() as connection:
        connection.execute(sa.text(f"UPDATE {table} SET version_num = '9999'"))
    before = rows.everything()
    for asked in (session.upgrade, session.require_current_schema):
        with pytest.raises(exceptions.NotReady, match=f"newer release{whose}: install that"):
            asked()
    assert rows.everything() == before


class Cut(BaseException):
    """The process was killed."""


LOOKS = ("SELECT", "SHOW", "DESCRIBE")


def _upgrade_bit_by_bit() -> int:
    """Killed after the first statement that was never executed, again and again; how many there were."""
    executed: set[str] = set()

    def kill(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if (text := f"{statement} {parameters}") not in executed and not statement.startswith(LOOKS):
            executed.add(text)
            raise Cut

    while True:
        session.forget_connections()
        sa.event.listen(session.engine(), "after_cursor_execute", kill)
        with contextlib.suppress(Cut):
            session.upgrade()
            session.forget_connections()
            return len(executed)


def _made() -> dict[str, str]:
    """What the server says of each table; and the rows that migrations write."""
    with session.engine().connect() as connection:
        names = connection.scalars(sa.text("SHOW TABLES")).all()
        made = {name: str(connection.execute(sa.text(f"SHOW CREATE TABLE {name}")).one()) for name in names}
    return {**made, "rows": str(rows.everything())}


@pytest.fixture
def empty(conf: cfg.ConfigOpts, mariadb: servers.Database) -> Iterator[None]:
    """A database of MariaDB, the only one on which half of a migration stays."""
    conf.set_override("connection", mariadb.create("ciming_empty"), group="database")
    yield
    session.forget_connections()
    conf.clear_override("connection", group="database")
    mariadb.drop("ciming_empty")


def test_an_upgrade_that_was_interrupted_goes_on(empty: None) -> None:
    """After whichever statement, of TaskFlow's migrations too."""
    assert _upgrade_bit_by_bit() > 80
    assert session.schema_is_current() and session.taskflow_schema_is_current() and _differences() == []
    bit_by_bit = _made()
    with session.engine().begin() as connection:
        connection.execute(sa.text("SET FOREIGN_KEY_CHECKS = 0"))
        for name in bit_by_bit.keys() - {"rows"}:
            connection.execute(sa.text(f"DROP TABLE {name}"))
    session.forget_connections()
    session.upgrade()
    assert _made() == bit_by_bit


def test_the_table_of_somebody_else_is_not_taken(empty: None) -> None:
    with session.engine().begin() as connection:
        connection.execute(sa.text("CREATE TABLE links (image_id VARCHAR(36), url VARCHAR(255))"))
    with pytest.raises(sa.exc.OperationalError, match="'links' already exists"):
        session.upgrade()


def test_only_the_owner_may_read(conf: cfg.ConfigOpts, tmp_path: pathlib.Path) -> None:
    conf.set_override("state_path", str(tmp_path / "state"))
    session.upgrade()
    session.forget_connections()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_names_are_equal_only_if_all_their_bytes_are(database: rows.Database) -> None:
    names = ["Debian 🐧", "debian 🐧", "Debian 🐧 ", "Débian 🐧", "Debian 💿"]
    jobs = [rows.make_job(zones=names, name=name) for name in names]
    for job, name in zip(jobs, names, strict=True):
        page = lists.Page(9, conditions=[lists.Condition("name", "in", [name])])
        assert [image.id for image in lists.images(None, page)] == [job.image_id]
        found = api.get_job(job.id, None)
        assert sorted(target.cloud_key for target in found.targets) == sorted(names)
        held = rows.take(job.id)
        for target in found.targets:
            work.add_link(held, target.id, f"ref of {target.cloud}", "bytes")
        links = api.get_image(job.image_id, None).links
        assert {link.cloud: link.image_ref for link in links} == {each: f"ref of {each}" for each in names}


@pytest.mark.parametrize("table", models.Base.metadata.tables)
def test_every_table_has_a_collation_that_is_exact(database: rows.Database, table: str) -> None:
    """A migration that makes a table has to say so on MariaDB."""
    with session.engine().connect() as connection:
        if connection.dialect.name == "mysql":
            query = "SELECT collation_name FROM information_schema.columns WHERE table_schema = database()"
            named = sa.text(f"{query} AND table_name = '{table}' AND data_type = 'varchar'")
            assert set(connection.scalars(named)) == {"utf8mb4_nopad_bin"}
        else:
            assert connection.scalar(sa.text("SELECT 'a' = 'A' OR 'a' = 'a '")) in (0, False)


@pytest.mark.sqlite
@pytest.mark.parametrize("table", ["images", "jobs"])
def test_lists_are_served_by_an_index(database: rows.Database, table: str) -> None:
    query = f"SELECT id FROM {table} WHERE project_id = 'x' ORDER BY created_at DESC, id DESC LIMIT 10"
    with session.engine().connect() as connection:
        plan = [row[3] for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {query}"))]
    assert len(plan) == 1 and f"ix_{table}_project_created" in plan[0], plan
