# SPDX-License-Identifier: Apache-2.0
"""CIMinG itself: ciming-standalone as a process of its own, against a sandbox."""

import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from tests.sandbox import files, processes, programs, services
from tests.sandbox import sandbox as sandboxes

START_SECONDS = 60.0
PORT_SECONDS = 5.0
"""How long a service that was killed may still hold its port."""
Options = Mapping[tuple[str, str], str]
Check = Callable[[], bool]


class CimingError(Exception):
    """The service did not start."""


class Ciming:
    """The service with its configuration, database, staging area and logs in one folder.

    It outlives the object: another object with the same folder finds it again. `options` are set
    over what is written by default, `wrap` is put in front of the command, `port` is the one that
    the sandbox's catalog names unless another is given, `environment` is added to what it inherits.
    """

    def __init__(
        self,
        sandbox: sandboxes.Sandbox,
        folder: pathlib.Path | str,
        options: Options | None = None,
        *,
        port: int | None = None,
        wrap: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.sandbox = sandbox
        self.folder = pathlib.Path(folder).absolute()
        self.options = dict(options or {})
        self.wrap = list(wrap)
        self.environment = dict(environment or {})
        self._port = port
        self._standalone = programs.Program(self.folder / "process", self.log_dir / "stdout.log")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port or self.sandbox.port("ciming")

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://{processes.HOST}:{self.port}"

    @property
    def config_files(self) -> list[pathlib.Path]:
        """Its configuration, written anew at each start."""
        return [self.folder / "ciming.conf"]

    @property
    def pid_file(self) -> pathlib.Path:
        """The file into which it writes its process id."""
        return self.folder / "ciming.pid"

    @property
    def running(self) -> bool:
        """Tell whether it runs; one that was started by hand, with our files, is taken over."""
        if not self._standalone.running and self.pid_file.exists() and self._healthy():
            self._remember()
        return self._standalone.running

    @property
    def parts(self) -> list[programs.Program]:
        """What is started, in order."""
        return [self._standalone]

    @property
    def pids(self) -> list[int]:
        """The processes that were started, those that run: of an API, the server's master."""
        return [program.pid for program in self.parts if program.pid is not None]

    @property
    def servers(self) -> list[pathlib.Path]:
        """Folders of the servers that it needs; what they keep is in `data`."""
        return []

    @property
    def database_url(self) -> str:
        """Its database, as SQLAlchemy writes it."""
        return f"sqlite:///{self.folder}/ciming.sqlite"

    @property
    def staging_dir(self) -> pathlib.Path:
        """Where bytes are on their way."""
        return self.folder / "staging"

    @property
    def log_dir(self) -> pathlib.Path:
        """Where it logs."""
        return self.folder / "log"

    def start(self) -> Self:
        """Start it if it does not run, and return when it answers."""
        if not self.running:
            self._free_port()
            self.log_dir.mkdir(parents=True, exist_ok=True)
            files.write(self.config_files[0], files.ini(self._config()))
            self._launch()
        self._wait()
        return self

    def stop(self, patience: float = 15.0) -> bool:
        """End it: SIGTERM, and SIGKILL after `patience` seconds; tell whether it ran."""
        return self.running and self._standalone.stop(patience)

    def kill(self) -> None:
        """Kill it as a crash would; what dies with it is the service's own care."""
        self._standalone.kill()

    def last_words(self, lines: int = 20) -> str:
        """Return the end of each of its logs."""
        logs = sorted(self.log_dir.glob("*.log"))
        return "\n".join(f"== {log}\n{files.tail(log, lines)}" for log in logs)

    def _healthy(self) -> bool:
        return processes.get(self.port, "/healthcheck") == 200

    def _remember(self) -> None:
        self._standalone.remember(int(self.pid_file.read_text()))

    def _config(self) -> dict[str, dict[str, object]]:
        sections: dict[str, dict[str, object]] = {
            "DEFAULT": {
                "debug": "true",
                "state_path": self.folder,
                "log_dir": self.log_dir,
            },
            "api": {
                "bind_host": processes.HOST,
                "bind_port": self.port,
                "pid_file": self.pid_file,
            },
            "database": {"connection": self.database_url},
            "staging": {"path": self.staging_dir},
            "keystone_authtoken": services.authtoken(
                self.sandbox.state, "keystone", "ciming", "multicloud"
            ),
            "service_user": {"auth_section": "keystone_authtoken"},
            "egress": services.egress(self.sandbox.state),      # the other clouds are here
        }
        for (section, option), value in self.options.items():
            sections.setdefault(section, {})[option] = value
        return sections

    def _free_port(self) -> None:
        end = time.monotonic() + PORT_SECONDS
        while not processes.free(self.port):
            if time.monotonic() > end:
                raise CimingError(f"something else listens on port {self.port}")
            time.sleep(0.05)

    def _launch(self) -> None:
        self.pid_file.unlink(missing_ok=True)
        program = pathlib.Path(sys.executable).parent / "ciming-standalone"
        command = [*self.wrap, str(program), "--config-file", str(self.config_files[0])]
        self._standalone.start(command, self.folder, **self.environment)

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not self._healthy():
            if self._standalone.ended or time.monotonic() > end:
                self.stop()
                raise CimingError(f"the service did not start:\n{self.last_words()}")
            time.sleep(0.05)
        self._remember()  # with `wrap` it need not be the process that was launched
