# SPDX-License-Identifier: Apache-2.0
"""The connection to the database, and its schema."""

import contextlib
import functools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import fasteners
import sqlalchemy as sa
from alembic import command
from alembic import config as alembic_config
from alembic import script as alembic_script
from alembic.runtime import migration as alembic_migration
from oslo_config import cfg
from oslo_db import api as oslo_db_api
from oslo_db.sqlalchemy import enginefacade, exc_filters
from sqlalchemy import orm
from taskflow.persistence.backends import impl_sqlalchemy as taskflow_db
from taskflow.persistence.backends.sqlalchemy import tables as taskflow_tables

from ciming import exceptions
from ciming.db import repeatable

assert repeatable       # alembic takes it from there
P = ParamSpec("P")
Result = TypeVar("Result")
VERSION_TABLE = "ciming_alembic_version"     # TaskFlow's own alembic has the default name
SYNC = "Run: ciming-manage db sync"
UPGRADE_LOCK = 0x63696D696E67       # PostgreSQL names advisory locks by numbers
UPGRADE_SECONDS = 600               # for which one upgrade waits for another
CONNECT_SECONDS = 10
_TURN = threading.Lock()
BUSY_SECONDS = 15       # for which a writer waits for others
IDLE_SECONDS = 30       # after which the server ends a transaction of which it hears no more, with its locks
SILENCE = {     # how a connection is given up whose other side has not answered for half a minute
    socket.TCP_KEEPIDLE: 15,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 30_000,
}

READ_ONLY = {"25006", 1290, 1792, 1836}     # PostgreSQL's code, and MariaDB's


@functools.cache
def engine() -> sa.Engine:
    """The process's SQLAlchemy engine; call it after the fork, not before.

    :raises NotReady: the URL is none, or of a kind that oslo.db does not know
    """
    url = _url()
    if url.get_backend_name() not in ("sqlite", "postgresql", "mysql"):
        raise exceptions.NotReady(
            "[database] connection must begin with sqlite:, postgresql+psycopg2: or mysql+pymysql: (for "
            f"MariaDB, too), but it begins with {url.drivername}:"
        )
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url)
    made: sa.Engine = enginefacade.transaction_context().writer.get_engine()
    made.hide_parameters = True     # in errors, and so in logs
    sa.event.listen(made, "do_connect", _not_for_ever)
    sa.event.listen(made, "connect", _notice_silence)
    is_away = functools.partial(_is_away, made.dialect.is_disconnect)
    made.dialect.is_disconnect = is_away  # type: ignore[method-assign]  # no event comes before oslo.db's
    if made.dialect.name == "mysql":
        sa.event.listen(made, "connect", _mariadb_connect)
    if made.dialect.name == "postgresql":
        sa.event.listen(made, "connect", _postgresql_connect)
    return made


@functools.cache
def writing_engine() -> sa.Engine:
    """The same engine for transactions that write: SQLite begins those with BEGIN IMMEDIATE.

    With a plain BEGIN, read-then-write in several threads ends in "database is locked".
    """
    return engine().execution_options(writes=True)


def forget_connections() -> None:
    """Before a fork: the child makes its own."""
    engine().dispose()
    engine.cache_clear()
    writing_engine.cache_clear()


def _url() -> sa.URL:
    try:
        return sa.engine.make_url(cfg.CONF.database.connection)
    except (sa.exc.ArgumentError, ValueError):
        raise exceptions.NotReady("[database] connection is no URL of a database.") from None


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    """One that keeps its connections: oslo.db's opens the file for each transaction, which takes longer.

    While one is open, SQLite does not write back and remove its WAL either.
    """
    if url.database:
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = sa.create_engine(url, poolclass=sa.QueuePool, max_overflow=-1, hide_parameters=True)
    exc_filters.register_engine(made)
    sa.event.listen(made, "connect", _sqlite_connect)
    sa.event.listen(made, "begin", _sqlite_begin)
    return made


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None       # we say BEGIN, not Python's module
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")


def _not_for_ever(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
    parameters.setdefault("connect_timeout", CONNECT_SECONDS)


def _notice_silence(connection: Any, _record: Any) -> None:
    """A server that the network hides says nothing: without this, who asked it waits for hours."""
    number = connection.fileno() if hasattr(connection, "fileno") else connection._sock.fileno()
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as same:    # OSError: no TCP
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in SILENCE.items():
            same.setsockopt(socket.IPPROTO_TCP, option, value)


def _is_away(known: Callable[..., bool], error: Exception, *where: Any) -> bool:
    """Also a server that takes no writes, as after a failover: the next connection may be to another one."""
    return known(error, *where) or bool({getattr(error, "pgcode", None), *error.args[:1]} & READ_ONLY)


def _mariadb_connect(connection: Any, _record: Any) -> None:
    connection.set_character_set("utf8mb4")     # all of Unicode, for which oslo.db does not ask
    # As on PostgreSQL: who has waited for a lock then sees what its holder wrote.
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute("SHOW VARIABLES LIKE 'idle_transaction_timeout'")
        if cursor.fetchone():       # MySQL has no such thing
            cursor.execute(f"SET SESSION idle_transaction_timeout = {IDLE_SECONDS}")


def _postgresql_connect(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    connection.commit()     # or a rollback undoes it


def _sqlite_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """SQLite has one writer at a time, and others look again after ever longer pauses: here they queue.

    If another process writes for long, each finds that out by itself in time, and not one after the other.
    """
    mine = engine().dialect.name == "sqlite" and _TURN.acquire(timeout=BUSY_SECONDS)
    try:
        yield
    finally:
        if mine:
            _TURN.release()


@contextlib.contextmanager
def reader() -> Iterator[orm.Session]:
    """A transaction that only reads; its rows stay usable after it."""
    with orm.Session(engine(), expire_on_commit=False) as session, session.begin():
        yield session


@contextlib.contextmanager
def writer() -> Iterator[orm.Session]:
    """A transaction that may write; committed at the end, rolled back on any exception."""
    with turn(), orm.Session(writing_engine(), expire_on_commit=False) as session, session.begin():
        yield session


def again(transaction: Callable[P, Result]) -> Callable[P, Result]:
    """A transaction that is done anew when the server ended it, as of several in each other's way."""
    return oslo_db_api.wrap_db_retry(  # type: ignore[no-any-return]  # oslo.db is untyped
        max_retries=5, retry_interval=0.1, retry_on_deadlock=True, jitter=True
    )(transaction)


def changed_one(result: sa.Result[Any]) -> bool:
    """Did an UPDATE change exactly one row?"""
    return isinstance(result, sa.CursorResult) and result.rowcount == 1


class Scripts(NamedTuple):
    """Migrations, and where a database says how far it has come with them."""

    folder: Path
    version_table: str
    whose: str = ""

    @property
    def settings(self) -> alembic_config.Config:
        made = alembic_config.Config()
        made.set_main_option("script_location", str(self.folder))
        return made


OURS = Scripts(Path(__file__).parent / "migrations", VERSION_TABLE)
TASKFLOWS = Scripts(Path(taskflow_tables.__file__).parent / "alembic", "alembic_version", " of TaskFlow")


def schema_is_current() -> bool:
    """:raises NotReady: there is no database, or it is of a newer release"""
    _require_file()
    return _is_at_head(OURS)


def taskflow_schema_is_current() -> bool:
    """TaskFlow has tables of its own beside ours. On SQLite it makes them as they are and says no version.

    :raises NotReady: there is no database, or it is of a newer release
    """
    _require_file()
    if engine().dialect.name == "sqlite":
        metadata = sa.MetaData()
        taskflow_tables.fetch(metadata)
        there = sa.inspect(engine())
        names = there.get_table_names()
        return all(
            table.name in names
            and {column["name"] for column in there.get_columns(table.name)} >= set(table.columns.keys())
            for table in metadata.sorted_tables
        )
    return _is_at_head(TASKFLOWS)


def _require_file() -> None:
    """SQLite makes one as soon as it is asked for anything; a look is to leave nothing behind."""
    url = _url()
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:") or "uri" in url.query:
        return
    if not Path(str(url.database)).exists():
        raise exceptions.NotReady(f"There is no database {url.database}. {SYNC}")


def _is_at_head(scripts: Scripts) -> bool:
    """:raises NotReady: the database is further than these go"""
    known = alembic_script.ScriptDirectory.from_config(scripts.settings)
    with engine().connect() as connection:
        context = alembic_migration.MigrationContext.configure(
            connection, opts={"version_table": scripts.version_table}
        )
        current = context.get_current_revision()
    if current is not None and current not in {script.revision for script in known.walk_revisions()}:
        raise exceptions.NotReady(
            f"The database is of a newer release{scripts.whose}: install that, or restore the backup."
        )
    return current == known.get_current_head()


def require_current_schema() -> None:
    """:raises NotReady: the schema is that of another release, or there is none"""
    if not (schema_is_current() and taskflow_schema_is_current()):
        raise exceptions.NotReady(f"The database schema is not that of this release. {SYNC}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One upgrade at a time, on all hosts: a server frees its lock with the connection of who died."""
    if engine().dialect.name == "sqlite":
        folder = Path(cfg.CONF.state_path)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with fasteners.InterProcessLock(folder / "schema.lock"):
            yield
        return
    with engine().connect() as connection:
        connection.detach()     # so that it is closed at the end, and the lock with it
        if engine().dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_lock(UPGRADE_LOCK)))
        elif not connection.scalar(sa.select(sa.func.get_lock(_mariadb_lock(), UPGRADE_SECONDS))):
            raise exceptions.NotReady("Another upgrade of this database takes too long. Try again later.")
        connection.commit()
        yield


def _mariadb_lock() -> str:
    return f"ciming schema of {engine().url.database}"[:64]     # its locks are the whole server's


def upgrade() -> None:
    """Bring the schema, TaskFlow's included, to the newest version; one process at a time.

    :raises NotReady: it is that of a newer release
    """
    with _alone():
        for scripts in (OURS, TASKFLOWS):
            _is_at_head(scripts)        # or further than that, which is an error
        backend = taskflow_db.SQLAlchemyBackend({}, engine=engine())
        with contextlib.closing(backend.get_connection()) as connection:
            connection.upgrade()
        settings = OURS.settings
        with (
            writing_engine().connect() as connection,
            _tables_may_be_rebuilt(connection),
            connection.begin(),
        ):
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")


@contextlib.contextmanager
def _tables_may_be_rebuilt(connection: sa.Connection) -> Iterator[None]:
    """SQLite changes a column by another table in its place, and would miss those that refer to the first."""
    if connection.dialect.name != "sqlite":
        yield
        return
    plain: Any = connection.connection.driver_connection
    plain.execute("PRAGMA foreign_keys=OFF")        # is heard before a transaction only
    try:
        yield
        wrong = plain.execute("PRAGMA foreign_key_check").fetchall()
        assert not wrong, wrong
    finally:
        plain.execute("PRAGMA foreign_keys=ON")
