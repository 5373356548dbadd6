# SPDX-License-Identifier: Apache-2.0
"""Engines that only live, in processes of their own, and coordination services that let them down."""

import abc
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from ciming.engine.locks import sessions
from tests.sandbox import coordination, processes, servers

TTL = 3
"""Seconds, the fewest that there can be."""
ENGINE = """
import sys
from ciming import cmd, config
from ciming.engine import claims
config.register()
config.CONF([], project="ciming", default_config_files=[], default_config_dirs=[])
config.CONF.set_override("state_path", sys.argv[2])
config.CONF.set_override("coordination_ttl", int(sys.argv[3]), group="engine")
engine = claims.Liveness(sys.argv[1])
engine.start()
print(engine.name, engine.marker, flush=True)
for line in sys.stdin:
    owner = line.strip()
    print(engine.is_dead(owner) if owner else engine.lost.is_set(), flush=True)
"""


def within(check: Callable[[], bool], seconds: float) -> bool:
    """Does a condition hold within some seconds? To ask takes time as well."""
    end = time.monotonic() + seconds
    while not (holds := check()) and time.monotonic() < end:
        time.sleep(0.05)
    return holds


class Other:
    """Another engine, on a host of its own."""

    def __init__(self, url: str, state: pathlib.Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENGINE, url, str(state), str(TTL)],
            env=processes.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name, self.marker = self._read().split()

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _ask(self, line: str) -> bool:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return {"True": True, "False": False}[self._read()]

    def thinks_dead(self, owner: str) -> bool:
        return self._ask(owner)

    def knows_it_lost(self) -> bool:
        return self._ask("")

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


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

    def __init__(self, server: servers.Database) -> None:
        self.server = server
        self.url = server.create("ciming_coordination").replace("+psycopg2", "").replace("+pymysql", "")
        self._real_url = server.url("ciming_coordination")

    def free(self, name: str) -> None:
        key = self.locks._key(None, name)
        engine = sa.create_engine(self._real_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
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


KINDS: dict[str, Callable[[Any], Service]] = {
    "file": Folder,
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "etcd": Etcd,
    "redis": Redis,
}
