# SPDX-License-Identifier: Apache-2.0
"""What CIMinG needs when it is distributed: a broker and a database server, each in a folder."""

import abc
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import time
from typing import Any, Self

import sqlalchemy as sa

from tests.sandbox import files, processes

START_SECONDS = 60.0
STOP_SECONDS = 20.0
USER = "ciming"


class ServerError(Exception):
    """A server did not start."""


class Server(abc.ABC):
    """A server that outlives the object: its folder remembers port, password and process."""

    stop_signal = signal.SIGTERM

    def __init__(self, folder: pathlib.Path | str) -> None:
        self.folder = pathlib.Path(folder).absolute()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """Where it listens; with the ports after it, its own for as long as the folder is."""
        return int(self._state["port"])

    @property
    def password(self) -> str:
        """Of its user `ciming`."""
        return str(self._state["password"])

    @property
    def running(self) -> bool:
        """Tell whether it runs."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """Its process id, if it runs."""
        return processes.running(self._record)

    def start(self) -> Self:
        """Start it if it does not run, and return when it works."""
        if not self.running:
            self._prepare()
            self._launch("server", self._record, self._command(), self._environment())
        end = time.monotonic() + START_SECONDS
        while not self._works():
            if not self.running or time.monotonic() > end:
                self.stop()
                raise ServerError(f"it did not start:\n{files.tail(self.folder / 'server.log')}")
            time.sleep(0.05)
        return self

    def stop(self) -> bool:
        """End it, and tell whether it ran."""
        return processes.stop(self._record, STOP_SECONDS, group=False, signum=self.stop_signal)

    def kill(self) -> None:
        """Kill it as a crash would."""
        processes.stop(self._record, STOP_SECONDS, group=False, signum=signal.SIGKILL)

    @property
    def _record(self) -> pathlib.Path:
        return self.folder / "process"

    @property
    def _state(self) -> dict[str, Any]:
        file = self.folder / "server.json"
        if not file.exists():
            port = processes.free_block(str(self.folder))
            files.write(file, json.dumps({"port": port, "password": secrets.token_hex(12)}))
        return dict(json.loads(file.read_text()))

    def _launch(
        self, name: str, record: pathlib.Path, command: list[str], environment: dict[str, str]
    ) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=processes.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        processes.record(record, process.pid)
        processes.reap(process)

    def _run(self, command: list[str], given: str = "", **environment: str) -> None:
        """Run a command of the server's that ends."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=processes.environment(**environment),
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Write what it needs, unless an earlier start did."""

    @abc.abstractmethod
    def _command(self) -> list[str]: ...

    def _environment(self) -> dict[str, str]:
        return {}

    @abc.abstractmethod
    def _works(self) -> bool:
        """Tell whether its users can work with it."""


class RabbitMQ(Server):
    """A broker of one node, with an epmd (the port mapper of Erlang) of its own."""

    @property
    def url(self) -> str:
        """As oslo.messaging writes it."""
        return f"rabbit://{USER}:{self.password}@{processes.HOST}:{self.port}/"

    def stop(self) -> bool:
        """End it, and tell whether it ran."""
        stopped = super().stop()
        processes.stop(self._epmd, STOP_SECONDS, group=False)
        return stopped

    def kill(self) -> None:
        """Kill it as a crash would."""
        super().kill()
        processes.stop(self._epmd, STOP_SECONDS, group=False)

    def control(self, *arguments: str) -> None:
        """Have it do something, by its own tool."""
        self._run(["/usr/lib/rabbitmq/bin/rabbitmqctl", *arguments], **self._environment())

    @property
    def _epmd(self) -> pathlib.Path:
        return self.folder / "epmd"

    def _prepare(self) -> None:
        settings = {
            "listeners.tcp.1": f"{processes.HOST}:{self.port}",
            "default_user": USER,
            "default_pass": self.password,
            "log.file.level": "warning",
            "disk_free_limit.absolute": "10MB",
        }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        files.write(self.folder / "rabbitmq.conf", text)
        files.write(self.folder / "plugins", "[].\n")
        if processes.running(self._epmd) is None:
            command = ["epmd", "-port", str(self.port + 1), "-address", processes.HOST]
            self._launch("epmd", self._epmd, command, {})

    def _command(self) -> list[str]:
        return ["/usr/lib/rabbitmq/bin/rabbitmq-server"]    # the one in /usr/sbin wants to be root

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "HOME": folder,                     # for the cookie of Erlang
            "RUNNING_UNDER_SYSTEMD": "1",       # becomes the Erlang process, and is not its parent
            "RABBITMQ_NODENAME": "ciming@localhost",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_DIST_PORT": str(self.port + 2),
            "ERL_EPMD_PORT": str(self.port + 1),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none"
            ),
        }

    def _works(self) -> bool:
        """It greets who speaks AMQP when it has started."""
        try:
            with socket.create_connection((processes.HOST, self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False


class Database(Server):
    """A database server whose user `ciming` may make databases of names that begin so."""

    dialect = ""
    encoding = ""

    def url(self, database: str = USER) -> str:
        """As SQLAlchemy writes it."""
        return f"{self.dialect}://{USER}:{self.password}@{processes.HOST}:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make a database, as the documentation says, unless there is one; its URL."""
        engine = sa.create_engine(self.url(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            if database not in self._names(connection):
                connection.execute(sa.text(f"CREATE DATABASE {database} {self.encoding}"))
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database that nobody uses."""
        engine = sa.create_engine(self.url(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE IF EXISTS {database}"))

    @abc.abstractmethod
    def _names(self, connection: sa.Connection) -> list[str]: ...

    def _works(self) -> bool:
        try:
            with sa.create_engine(self.url(), poolclass=sa.NullPool).connect():
                return True
        except sa.exc.OperationalError:
            return False


class PostgreSQL(Database):
    """PostgreSQL, of the newest version that is installed."""

    dialect = "postgresql+psycopg2"
    encoding = "ENCODING 'UTF8' TEMPLATE template0"
    stop_signal = signal.SIGINT     # does not wait for clients to leave

    def _names(self, connection: sa.Connection) -> list[str]:
        return list(connection.scalars(sa.text("SELECT datname FROM pg_database")))

    @property
    def _data(self) -> pathlib.Path:
        return self.folder / "data"

    def _program(self, name: str) -> list[str]:
        """As root in a user namespace in which we are somebody else: PostgreSQL refuses root."""
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version)
        program = str(found[-1]) if found else shutil.which(name) or name
        somebody = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
        return [*somebody, program] if os.geteuid() == 0 else [program]

    def _prepare(self) -> None:
        if (self.folder / "ready").exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)
        password = self.folder / "password"
        files.write(password, secrets.token_hex(12))
        options = ["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        self._run([*self._program("initdb"), "-D", str(self._data), f"--pwfile={password}", *options])
        role = f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{self.password}';\n"
        given = f"{role}CREATE DATABASE {USER} OWNER {USER};\n"
        self._run([*self._program("postgres"), "--single", "-D", str(self._data), "postgres"], given)
        files.write(self.folder / "ready", "")

    def _command(self) -> list[str]:
        settings = {
            "port": self.port,
            "listen_addresses": processes.HOST,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "32MB",
            "fsync": "off",         # survives kill -9, but no power cut
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._program("postgres"), "-D", str(self._data), *options]


class MariaDB(Database):
    """MariaDB, whose server does not think of Unicode by itself: it has its own defaults."""

    dialect = "mysql+pymysql"
    encoding = "CHARACTER SET utf8mb4"

    def _names(self, connection: sa.Connection) -> list[str]:
        return list(connection.scalars(sa.text("SHOW DATABASES")))

    @property
    def _common(self) -> list[str]:
        user = ["--user=root"] if os.geteuid() == 0 else []
        places = [f"--datadir={self.folder}/data", f"--tmpdir={self.folder}"]
        return ["--no-defaults", *places, "--innodb-log-file-size=16M", *user]

    def _prepare(self) -> None:
        statements = (
            f"CREATE DATABASE IF NOT EXISTS {USER} {self.encoding};",
            f"CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{self.password}';",
            f"GRANT ALL ON `{USER}%`.* TO {USER}@'%';",
        )
        files.write(self.folder / "init.sql", "\n".join(statements) + "\n")
        if not (self.folder / "ready").exists():
            shutil.rmtree(self.folder / "data", ignore_errors=True)
            root = ["--auth-root-authentication-method=socket", "--skip-test-db"]
            self._run(["mariadb-install-db", *self._common, *root])
            files.write(self.folder / "ready", "")

    def _command(self) -> list[str]:
        program = shutil.which("mariadbd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        settings = {
            "port": self.port,
            "bind-address": processes.HOST,
            "socket": "server.sock",        # in the data folder; a longer path may be too long
            "init-file": self.folder / "init.sql",
            "max-connections": 200,
            "innodb-buffer-pool-size": "64M",
            "innodb-flush-log-at-trx-commit": 2,    # survives kill -9, but no power cut
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [program or "mariadbd", *self._common, *options]


def _version(program: pathlib.Path) -> list[int]:
    return [int(part) for part in program.parts[4].split(".")]
