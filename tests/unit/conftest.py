# SPDX-License-Identifier: Apache-2.0
"""Configuration and a real database, anew for each test that asks for them."""

import pathlib
import shutil
from collections.abc import Iterator

import pytest
from oslo_config import cfg

from ciming import cmd, config
from ciming.db import session

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


@pytest.fixture(scope="session")
def _schema(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where an empty database is kept, once one was made."""
    return tmp_path_factory.mktemp("schema") / "ciming.sqlite"


@pytest.fixture
def database(conf: cfg.ConfigOpts, _schema: pathlib.Path) -> Iterator[str]:
    """A SQLite file with the newest schema; its URL."""
    file = pathlib.Path(conf.state_path) / "ciming.sqlite"
    if _schema.exists():
        shutil.copy(_schema, file)
    else:
        session.upgrade()
        session.forget_connections()
        shutil.copy(file, _schema)
    yield conf.database.connection
    session.forget_connections()
