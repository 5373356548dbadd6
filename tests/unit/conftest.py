# SPDX-License-Identifier: Apache-2.0
"""Configuration and a real database, anew for each test that asks for them."""

import os
import pathlib
import shutil
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from oslo_config import cfg
from taskflow.persistence.backends.sqlalchemy import tables

from ciming import cmd, config
from ciming.db import models, session
from tests.unit.rows import Database

assert cmd  # imported first, as the processes do: it settles how they are concurrent


@pytest.fixture
def conf(tmp_path: pathlib.Path) -> Iterator[cfg.ConfigOpts]:
    """The global configuration with its defaults, and a folder of its own."""
    config.register()
    config.CONF([], project="ciming", default_config_files=[], default_config_dirs=[])
    config.CONF.set_override("state_path", str(tmp_path))
    yield config.CONF
    config.CONF.clear_override("state_path")
    config.CONF.reset()


SERVERS = ("postgresql", "mariadb")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of rows run on every kind of database; others too where all is to be tested."""
    if "database" not in metafunc.fixturenames:
        return
    folder = pathlib.Path(__file__).parent / "db"
    for_all = "CIMING_TEST_ALL" in os.environ or folder in metafunc.definition.path.parents
    only_sqlite = metafunc.definition.get_closest_marker("sqlite")
    kinds = ("sqlite", *SERVERS) if for_all and not only_sqlite else ("sqlite",)
    metafunc.parametrize("database", kinds, indirect=True)


@pytest.fixture(scope="session")
def _schema(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where an empty SQLite database is kept, once one was made."""
    return tmp_path_factory.mktemp("schema") / "ciming.sqlite"


@pytest.fixture(scope="session")
def _upgraded() -> set[str]:
    """The servers that have the schema; a test that harms it makes a database of its own."""
    return set()


@pytest.fixture
def database(
    request: pytest.FixtureRequest, conf: cfg.ConfigOpts, _schema: pathlib.Path, _upgraded: set[str]
) -> Iterator[Database]:
    """A database with the newest schema and no rows."""
    if request.param == "sqlite":
        made = Database(_sqlite(conf, _schema))
    else:
        server = request.getfixturevalue(request.param)
        made = Database(server)
        conf.set_override("connection", server.create("ciming_unit"), group="database")
        if request.param not in _upgraded:
            session.upgrade()
            _upgraded.add(request.param)
        _empty()
    yield made
    session.forget_connections()
    conf.clear_override("connection", group="database")
    made.mend()


def _sqlite(conf: cfg.ConfigOpts, schema: pathlib.Path) -> pathlib.Path:
    file = pathlib.Path(conf.state_path) / "ciming.sqlite"
    if schema.exists():
        shutil.copy(schema, file)
    else:
        session.upgrade()
        session.forget_connections()
        shutil.copy(file, schema)
    return file


def _empty() -> None:
    """Delete all rows but those that a migration writes."""
    metadata = sa.MetaData()
    theirs = [table.name for table in tables.fetch(metadata)]
    ours = [name for name in models.Base.metadata.tables if name != models.Mutex.__tablename__]
    with session.writing_engine().begin() as connection:
        connection.execute(sa.update(models.Job).values(parent_id=None))    # MariaDB looks row by row
        for table in reversed(metadata.sorted_tables + models.Base.metadata.sorted_tables):
            if table.name in (*theirs, *ours):
                connection.execute(table.delete())
