# SPDX-License-Identifier: Apache-2.0
"""The kinds of coordination services, each of which can let an engine down."""

import abc
import pathlib
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from ciming.engine.locks import sessions
from tests.sandbox import coordination, servers


class Service(abc.ABC):
    """A coordination service."""

    url: str
    at_once = True
    """Is a killed engine found out at once?"""
    forgets = True
    """Are locks gone when it was started again?"""
    server: servers.Server | None = None

    @abc.abstractmethod
    def free(self, name: str) -> None:
        """Take an engine's lock away behind its back."""


class Folder(Service):
    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.url = f"file://{folder}"

    def free(self, name: str) -> None:
        (self._folder / name).unlink()


class Database(Service):
    locks: type[Any]
    kill: str

    def __init__(self, server: servers.Database, url: str | None = None) -> None:
        self.server = server
        self._driven = url or server.create("ciming_coordination")
        self.url = self._driven.replace("+psycopg2", "").replace("+pymysql", "")

    def free(self, name: str) -> None:
        key = self.locks._key(None, name)
        engine = sa.create_engine(self._driven, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            session = connection.scalar(sa.text(self.locks.holder), {"key": key})
            connection.execute(sa.text(self.kill.format(int(session))))


class PostgreSQL(Database):
    locks = sessions.PostgreSQL
    kill = "SELECT pg_terminate_backend({})"


class MariaDB(Database):
    locks = sessions.MariaDB
    kill = "KILL {}"


class Etcd(Service):
    at_once = False
    forgets = False

    def __init__(self, server: coordination.Etcd) -> None:
        self.server, self._revoke = server, server.revoke
        self.url = server.url

    def free(self, name: str) -> None:
        self._revoke(f"/tooz/locks{name}")


class Redis(Service):
    at_once = False

    def __init__(self, server: coordination.Redis) -> None:
        self.server, self._client = server, server.client
        self.url = server.url

    def free(self, name: str) -> None:
        assert self._client().delete(f"_tooz_{name}_lock")


KINDS: dict[str, Callable[..., Service]] = {
    "file": Folder,
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "etcd": Etcd,
    "redis": Redis,
}
