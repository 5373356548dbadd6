# SPDX-License-Identifier: Apache-2.0
"""Engines that only live, in processes of their own."""

import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tests.sandbox import processes

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
