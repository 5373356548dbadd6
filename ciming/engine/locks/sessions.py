# SPDX-License-Identifier: Apache-2.0
"""Locks that belong to a session with a database server."""

import abc
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tooz import ToozError

from ciming import exceptions
from ciming.engine.locks import base
from ciming.engine.locks.base import MARKER, MARKER_SECONDS

CONNECT_SECONDS = 5


class _InDatabase(base.Locks):
    """A lock of a database session: freed at once when its connection ends, from whichever side.

    Not by tooz, which can not tell whether such a lock is still held: see the page on liveness among the
    decisions.
    """

    driver: str
    session: str
    """Asks who we are; the other statements take `:key`, and answer whether it worked, or who holds it."""
    take: str
    give: str
    holder: str
    _name: str | None = None

    def __init__(self, url: str, ttl: int, _memory: Path) -> None:
        engine = sa.create_engine(
            sa.make_url(url).set(drivername=self.driver),
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
            hide_parameters=True,
            connect_args={"connect_timeout": CONNECT_SECONDS, **self._patience(ttl)},
        )
        self._alone = threading.Lock()      # one connection, and several threads
        self._connection = engine.connect()
        try:
            self._limit(ttl)
            self._me = self._connection.scalar(sa.text(self.session))
            self.marker = self._agree()
        except BaseException:
            self.close()
            raise

    @abc.abstractmethod
    def _patience(self, ttl: int) -> dict[str, object]:
        """What the driver is told, so that we notice when the server is gone."""

    @abc.abstractmethod
    def _limit(self, ttl: int) -> None:
        """Tell the server when to give us up; refuse one that can not keep a lock."""

    def _key(self, name: str) -> object:
        return f"ciming-{name}"     # MariaDB's are the whole server's, and at most 64 characters

    def _ask(self, statement: str, name: str) -> Any:
        with self._alone:
            return self._connection.scalar(sa.text(statement), {"key": self._key(name)})

    def hold(self, name: str) -> None:
        if not self._ask(self.take, name):
            raise ToozError(f"The lock {name} is taken")
        self._name = name

    def is_held(self) -> bool:
        if self._name is None or self._connection.invalidated:      # the lock went with the connection
            return False
        try:
            return bool(self._ask(self.holder, self._name) == self._me)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                return False
            raise

    def is_free(self, name: str) -> bool:
        return self._ask(self.holder, name) is None

    def close(self) -> None:
        self._connection.invalidate()       # closes it, and asks the server nothing
        self._connection.close()

    def _agree(self) -> str:
        """The marker in the database, made by whoever comes first."""
        end = time.monotonic() + MARKER_SECONDS
        while not self._ask(self.take, MARKER):
            if time.monotonic() > end:
                raise ToozError(f"The lock {MARKER} stays taken")
            time.sleep(0.1)
        try:
            table = sa.Table("ciming_coordination", sa.MetaData(), sa.Column("marker", sa.String(36)))
            table.create(self._connection, checkfirst=True)
            if (known := self._connection.scalar(sa.select(table.c.marker))) is None:
                known = str(uuid.uuid4())
                self._connection.execute(table.insert().values(marker=known))
        finally:
            self._ask(self.give, MARKER)
        return str(known)


class PostgreSQL(_InDatabase):
    """Advisory locks."""

    driver = "postgresql+psycopg2"
    session = "SELECT pg_backend_pid()"
    take = "SELECT pg_try_advisory_lock(:key)"
    give = "SELECT pg_advisory_unlock(:key)"
    holder = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND (classid::bigint << 32) | objid::bigint = :key"
    )

    def _key(self, name: str) -> object:
        """Its locks are named by numbers of 64 bits, with a sign."""
        return int.from_bytes(uuid.uuid5(uuid.NAMESPACE_OID, name).bytes[:8], "big", signed=True)

    def _patience(self, ttl: int) -> dict[str, object]:
        third = max(1, ttl // 3)
        return {
            "application_name": "ciming-engine: shows that it lives",
            "keepalives_idle": third,
            "keepalives_interval": third,
            "keepalives_count": 2,
            "tcp_user_timeout": ttl * 1000,
        }

    def _limit(self, ttl: int) -> None:
        self.expiring = (self._connection.dialect.server_version_info or (0,)) >= (14,)
        if self.expiring:
            self._connection.execute(sa.text(f"SET idle_session_timeout = {ttl * 1000}"))


class MariaDB(_InDatabase):
    """User-level locks, of MariaDB and MySQL."""

    driver = "mysql+pymysql"
    session = "SELECT CONNECTION_ID()"
    take = "SELECT GET_LOCK(:key, 0)"
    give = "SELECT RELEASE_LOCK(:key)"
    holder = "SELECT IS_USED_LOCK(:key)"

    def _patience(self, ttl: int) -> dict[str, object]:
        return {"read_timeout": ttl, "write_timeout": ttl}

    def _limit(self, ttl: int) -> None:
        clustered = self._connection.execute(sa.text("SHOW VARIABLES LIKE 'wsrep_on'")).all()
        if clustered and clustered[0][1] == "ON":
            raise exceptions.NotReady(
                "[engine] coordination_url names a server of a Galera cluster, where locks are each server's "
                "own. Use etcd, Redis or PostgreSQL."
            )
        self._connection.execute(sa.text(f"SET SESSION wait_timeout = {ttl}"))
