# SPDX-License-Identifier: Apache-2.0
"""CIMinG in processes of their own: API under a WSGI server, engine, broker, database server."""

import pathlib
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Literal

from tests.sandbox import ciming, files, processes, programs, seed, servers, services
from tests.sandbox import sandbox as sandboxes

BIN = pathlib.Path(sys.executable).parent
UWSGI_INI = sandboxes.ROOT / "etc/ciming/uwsgi.ini"
Web = Literal["gunicorn", "uwsgi"]


class Distributed(ciming.Ciming):
    """The service, as `ciming.Ciming` has it; `api` and `engine` can also be handled one by one.

    The API has two processes and no login but the one that validates tokens; the engine has another
    user of Keystone's. `broker` and `database` are started if they do not run, and not stopped.
    """

    def __init__(
        self,
        sandbox: sandboxes.Sandbox,
        folder: pathlib.Path | str,
        options: ciming.Options | None = None,
        *,
        broker: servers.RabbitMQ,
        database: servers.Database,
        web: Web = "gunicorn",
        port: int | None = None,
        wrap: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sandbox, folder, options, port=port, wrap=wrap, environment=environment)
        self.broker = broker
        self.database = database
        self.web = web
        self.api = self._program("api")
        self.engine = self._program("engine")
        self.second_engine = self._program("second-engine")
        self._more_engines: list[programs.Program] = []

    @property
    def pid_file(self) -> pathlib.Path:
        """The file into which the API's WSGI server writes its process id."""
        return self.folder / "ciming-api.pid"

    @property
    def config_files(self) -> list[pathlib.Path]:
        """The API's and the engine's."""
        return [self.folder / f"ciming-{name}.conf" for name in ("api", "engine")]

    @property
    def running(self) -> bool:
        """Tell whether both run."""
        return self.api.running and self.engine.running

    @property
    def parts(self) -> list[programs.Program]:
        """API and engine."""
        return [self.api, self.engine]

    @property
    def servers(self) -> list[pathlib.Path]:
        """Folders of the servers that it needs; what they keep is in `data`."""
        return [self.broker.folder, self.database.folder]

    @property
    def database_url(self) -> str:
        """Its database, as SQLAlchemy writes it: one of its own on the server."""
        return self.database.url(self._database)

    def start(self) -> "Distributed":
        """Start what does not run, and return when the API answers and the engine runs."""
        self._start_servers()
        if not self.engine.running:
            self.start_engine()
        if not self.api.running:
            self.start_api()
        return self

    def start_without_engine(self) -> None:
        """Start the API only, and what it needs."""
        self._start_servers()
        if not self.api.running:
            self.start_api()

    def start_engine(self) -> None:
        """Start the engine, and return when it says that it has started."""
        self._start_engine(self.engine, self.config_files[1], self.log_dir / "ciming-engine.log")

    def start_second_engine(self) -> None:
        """Start another one beside it, from the same configuration."""
        self._start_engine(self.second_engine, self.config_files[1], self.log_dir / "ciming-engine.log")

    def add_engine(self, name: str, options: ciming.Options) -> programs.Program:
        """Start one more, with a log and options of its own; to stop it is part of stopping all."""
        config = self._configs()[1]
        for (section, option), value in {**options, ("DEFAULT", "log_file"): f"{name}.log"}.items():
            config.setdefault(section, {})[option] = value
        file = self.folder / f"{name}.conf"
        files.write(file, files.ini(config))
        engine = self._program(name)
        self._more_engines.append(engine)
        self._start_engine(engine, file, self.log_dir / f"{name}.log")
        return engine

    def start_api(self) -> None:
        """Start the API, and return when it answers."""
        self._free_port()
        self.pid_file.unlink(missing_ok=True)
        environment = {"OS_CIMING_CONFIG_FILES": str(self.config_files[0]), **self.environment}
        self.api.start([*self._beside(), *self._server()], self.folder, **environment)
        self._until(self.api, self._healthy)

    def stop(self, patience: float = 20.0) -> bool:
        """End both; tell whether any ran."""
        engines = (self.engine, self.second_engine, *self._more_engines)
        stopped = [program.stop(patience) for program in (self.api, *engines)]
        return any(stopped)

    def kill(self) -> None:
        """Kill both as a crash would."""
        for program in (self.api, self.engine):
            program.kill()

    @property
    def _database(self) -> str:
        return f"ciming_{zlib.crc32(str(self.folder).encode()):08x}"

    def _program(self, name: str) -> programs.Program:
        return programs.Program(self.folder / f"{name}.process", self.log_dir / f"{name}-stdout.log")

    def _start_engine(self, engine: programs.Program, config: pathlib.Path, log: pathlib.Path) -> None:
        before = log.stat().st_size if log.exists() else 0
        program = [str(BIN / "ciming-engine"), "--config-file", str(config)]
        engine.start([*self.wrap, *program], self.folder, **self.environment)
        self._until(engine, lambda: log.exists() and b" started" in log.read_bytes()[before:])

    def _start_servers(self) -> None:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self.broker.start()
        self.database.start()
        if not (self.api.running or self.engine.running):
            self._prepare()

    def _prepare(self) -> None:
        self.database.create(self._database)
        for file, sections in zip(self.config_files, self._configs(), strict=True):
            files.write(file, files.ini(sections))
        sync = ["ciming-manage", "--config-file", str(self.config_files[1]), "db", "sync"]
        run = [str(BIN / sync[0]), *sync[1:]]
        done = subprocess.run(run, env=processes.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ciming.CimingError(f"{' '.join(sync)}:\n{done.stdout}{done.stderr}")

    def _configs(self) -> list[dict[str, dict[str, object]]]:
        """What the API and what the engine is told: each knows the password of one Keystone user."""
        common: dict[str, dict[str, object]] = {
            "DEFAULT": {
                "debug": "true",
                "state_path": self.folder,
                "log_dir": self.log_dir,
                "transport_url": self.broker.url,
            },
            "database": {"connection": self.database_url},
            "staging": {"path": self.staging_dir},
            "egress": services.egress(self.sandbox.state),
        }
        state = self.sandbox.state
        users = self.sandbox.admin.ids("user")
        login = services.authtoken(state, "keystone", seed.ENGINE, "multicloud")
        found: list[dict[str, dict[str, object]]] = [
            {
                "keystone_authtoken": services.authtoken(state, "keystone", "ciming", "multicloud"),
                "trust": {"trustee_user_id": users[seed.ENGINE]},
            },
            {"service_user": {name: login[name] for name in services.LOGIN}},
        ]
        for own in found:
            own |= {name: dict(options) for name, options in common.items()}
            for (section, option), value in self.options.items():
                own.setdefault(section, {})[option] = value
        return found

    def _beside(self) -> list[str]:
        """What is put in front of the API where the engine has namespaces of its own: into the same."""
        if not self.wrap:
            return []
        return ["nsenter", "--target", str(self.engine.pid), "--user", "--mount", "--preserve-credentials"]

    def _server(self) -> list[str]:
        address = f"{processes.HOST}:{self.port}"
        pid_file = str(self.pid_file)
        if self.web == "uwsgi":
            uwsgi = ["prlimit", "--core=0", "--", str(BIN / "uwsgi")]      # as the documentation has it
            return [*uwsgi, "--ini", str(UWSGI_INI), "--http", address, "--pidfile", pid_file]
        settings = ["--config", "python:ciming.cmd.gunicorn", "--bind", address, "--pid", pid_file]
        return [str(BIN / "gunicorn"), *settings, "ciming.api.wsgi:application"]

    def _until(self, program: programs.Program, works: ciming.Check) -> None:
        end = time.monotonic() + ciming.START_SECONDS
        while not works():
            if program.ended or time.monotonic() > end:
                self.stop()
                raise ciming.CimingError(f"the service did not start:\n{self.last_words()}")
            time.sleep(0.05)
