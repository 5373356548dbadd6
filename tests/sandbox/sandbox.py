# SPDX-License-Identifier: Apache-2.0
"""The sandbox: a real Keystone with two zones, and what belongs to them, on loopback."""

import contextlib
import functools
import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any, NamedTuple, Self

import yaml

from tests.sandbox import files, identity, processes, seed, services
from tests.sandbox import state as sandbox_state

ROOT = pathlib.Path(__file__).parents[2]
START_SECONDS = 120.0
PORT_SECONDS = 5.0
"""How long a service that was killed may still hold its port: its worker has to notice."""
Launchers = dict[str, subprocess.Popen[bytes]]


class SandboxError(Exception):
    """A service did not start, or does not work."""


class Status(NamedTuple):
    """How a service is."""

    service: services.Service
    pid: int | None
    healthy: bool


class Sandbox:
    """Real OpenStack services that live in (and are remembered by) one folder.

    Choices that are not given are those of the last start, or the defaults: tokens live an hour,
    no second cloud, Barbican on, free ports.
    """

    def __init__(
        self,
        state_dir: pathlib.Path | str,
        *,
        token_seconds: int | None = None,
        second: bool | None = None,
        barbican: bool | None = None,
        port_base: int | None = None,
    ) -> None:
        self.folder = pathlib.Path(state_dir).absolute()
        self.venv = pathlib.Path(os.environ.get("SANDBOX_VENV", ROOT / ".cache/sandbox-venv"))
        self.state = sandbox_state.State.load(self._state_file)
        self._started = self.state.choices
        if token_seconds is not None:
            self.state.token_seconds = token_seconds
        if second is not None:
            self.state.second = second
        if barbican is not None:
            self.state.barbican = barbican
        if port_base is not None:
            self.state.port_base = port_base
            self.state.ports_forced = True

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def clouds_file(self) -> pathlib.Path:
        """The clouds.yaml of this sandbox, for OS_CLIENT_CONFIG_FILE."""
        return self.folder / "clouds.yaml"

    @property
    def clouds(self) -> dict[str, Any]:
        """What clouds.yaml says: the clouds by name."""
        return dict(seed.clouds(self.state)["clouds"])

    @functools.cached_property
    def admin(self) -> identity.Identity:
        """The first cloud's Keystone, as its administrator."""
        return seed.login(self.state, "admin", "admin")

    def port(self, name: str) -> int:
        """Return the port of a service; that of CIMinG is `ciming`."""
        return services.port(self.state, name)

    def url(self, name: str) -> str:
        """Return the base URL of a service."""
        return services.url(self.state, name)

    @contextlib.contextmanager
    def policy(self, service: str, rules: dict[str, str]) -> Iterator[None]:
        """Let a Glance (`glance-a`, `glance-b`) judge by these policy rules for a while.

        It reads the file again when that has changed, but keeps a rule that is no longer in it:
        afterwards the file says what Glance's own default is.
        """
        file = self.folder / service / "policy.yaml"
        defaults = self._glance_policy()
        files.write(file, yaml.safe_dump(rules))
        try:
            yield
        finally:
            files.write(file, yaml.safe_dump({rule: defaults[rule] for rule in rules}))

    def status(self) -> list[Status]:
        """Look at every service."""
        found = []
        for service in services.services(self.state):
            pid = processes.running(self._pid_file(service.name))
            found.append(Status(service, pid, pid is not None and _healthy(service)))
        return found

    def up(self) -> Self:
        """Start what is not running, and return when all of it works.

        Running services that were started with other choices are stopped first. SandboxError
        says what did not start; then nothing that this call started is left behind.
        """
        if self.state.choices != self._started:
            self.down()
        self.state.make_passwords(seed.USERS)
        if self._missing():
            self._choose_ports()
        missing = self._missing()
        for service in missing:
            services.configure(service, self.state, self.folder / service.name, self.venv)
        self.state.save(self._state_file)
        launchers: Launchers = {}
        with futures.ThreadPoolExecutor() as pool:
            try:
                self._launch(missing, launchers)
                self._bring_up(pool, launchers)
            except BaseException:
                self._abandon(missing, launchers)  # so that the pool has nothing to wait for
                raise
        self._started = self.state.choices
        files.write(self.clouds_file, yaml.safe_dump(seed.clouds(self.state), sort_keys=False))
        return self

    def down(self, wipe: bool = False) -> list[str]:
        """Stop what runs, return the names; with `wipe`, forget everything."""
        with futures.ThreadPoolExecutor(len(services.PORTS)) as pool:
            names = list(services.PORTS)
            stopped = list(pool.map(processes.stop, map(self._pid_file, names)))
        if wipe and self._state_file.exists():
            shutil.rmtree(self.folder)
        return [name for name, done in zip(names, stopped, strict=True) if done]

    @property
    def _state_file(self) -> pathlib.Path:
        return self.folder / "state.json"

    def _pid_file(self, name: str) -> pathlib.Path:
        return self.folder / name / "pid"

    def _glance_policy(self) -> dict[str, str]:
        code = (
            "import json; from glance import policies;"
            "print(json.dumps({rule.name: rule.check_str for rule in policies.list_rules()}))"
        )
        run = subprocess.run(
            [f"{self.venv}/bin/python", "-c", code], capture_output=True, check=True
        )
        return dict(json.loads(run.stdout))

    def _missing(self) -> list[services.Service]:
        return [
            service
            for service in services.services(self.state)
            if processes.running(self._pid_file(service.name)) is None
        ]

    def _choose_ports(self) -> None:
        """Keep the ports of the last start if they are still free."""
        end = time.monotonic() + PORT_SECONDS
        while self.state.port_base:
            missing = self._missing()
            taken = [service.port for service in missing if not processes.free(service.port)]
            if not taken:
                return
            if time.monotonic() > end:
                alone = len(missing) == len(services.services(self.state))
                if self.state.ports_forced or not alone:
                    raise SandboxError(f"something else listens on {taken}")
                break
            time.sleep(0.1)
        self.state.port_base = processes.free_block(str(self.folder))

    def _launch(self, missing: list[services.Service], launchers: Launchers) -> None:
        """Start one launcher per kind: it imports the service once, for all its instances."""
        environment = processes.environment(PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore")
        for kind in dict.fromkeys(service.kind for service in missing):
            instances = [f"{self.folder / s.name}:{s.port}" for s in missing if s.kind == kind]
            command = [f"{self.venv}/bin/python", "-P", "-m", "tests.sandbox.serve", kind]
            with (self.folder / f"launch-{kind}.log").open("wb") as log:
                launchers[kind] = subprocess.Popen(
                    [*command, *instances],
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def _bring_up(self, pool: futures.Executor, launchers: Launchers) -> None:
        """Wait for every cloud, fill it if that was not done yet, and try it."""
        clouds = dict.fromkeys(service.keystone for service in services.services(self.state))
        for cloud in [pool.submit(self._bring_up_cloud, name, launchers) for name in clouds]:
            cloud.result()

    def _bring_up_cloud(self, keystone: str, launchers: Launchers) -> None:
        own = [s for s in services.services(self.state) if s.keystone == keystone]
        end = time.monotonic() + START_SECONDS
        self._wait(own[0], launchers, end)
        self._seed(keystone)
        for service in own[1:]:
            self._wait(service, launchers, end)
        seed.probe(self.state, keystone)

    def _seed(self, keystone: str) -> None:
        """Fill a cloud, unless this was done with the same users and ports before."""
        mark = self.folder / keystone / "seeded"
        wanted = seed.fingerprint(self.state)
        if mark.exists() and mark.read_text() == wanted:
            return
        (seed.first_cloud if keystone == "keystone" else seed.second_cloud)(self.state)
        self.state.save(self._state_file)
        files.write(mark, wanted)

    def _wait(self, service: services.Service, launchers: Launchers, end: float) -> None:
        while not _healthy(service):
            launcher = launchers.get(service.kind)
            launched = launcher is None or launcher.poll() is not None
            dead = launched and processes.running(self._pid_file(service.name)) is None
            if dead or time.monotonic() > end:
                raise SandboxError(f"{service.name} did not start:\n{self._last_words(service)}")
            time.sleep(0.05)

    def _last_words(self, service: services.Service) -> str:
        logs = (
            self.folder / f"launch-{service.kind}.log",
            self.folder / service.name / "stdout.log",
            self.folder / service.name / "service.log",
        )
        return "\n".join(f"== {log}\n{files.tail(log)}" for log in logs)

    def _abandon(self, missing: list[services.Service], launchers: Launchers) -> None:
        for launcher in launchers.values():
            launcher.kill()
            launcher.wait()
        for service in missing:
            processes.stop(self._pid_file(service.name))


def _healthy(service: services.Service) -> bool:
    return processes.get(service.port, services.PROBES[service.kind][0]) == 200
