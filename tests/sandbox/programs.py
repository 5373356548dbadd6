# SPDX-License-Identifier: Apache-2.0
"""A program of CIMinG's as a process of its own, remembered by a file."""

import os
import pathlib
import signal
import subprocess
from collections.abc import Sequence

from tests.sandbox import processes


class Program:
    """A process that is started, stopped and killed; another object with the same record finds it."""

    def __init__(self, record: pathlib.Path, log: pathlib.Path) -> None:
        self._record = record
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.status: int | None = None
        """With which it ended, if this object started it."""

    @property
    def running(self) -> bool:
        """Tell whether it runs."""
        return processes.running(self._record) is not None

    @property
    def pid(self) -> int | None:
        """Its process id, if it runs."""
        return processes.running(self._record)

    @property
    def ended(self) -> bool:
        """Tell whether it was started by this object and runs no more."""
        return self._process is not None and self._process.poll() is not None

    def start(self, command: Sequence[str], folder: pathlib.Path, **environment: str) -> None:
        """Launch it; to wait until it works is the caller's part."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=processes.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        processes.record(self._record, self._process.pid)

    def remember(self, pid: int) -> None:
        """Take a process over that somebody else started, or that started what we launched."""
        processes.record(self._record, pid)

    def stop(self, patience: float = 15.0, signum: signal.Signals = signal.SIGTERM) -> bool:
        """End it: a signal, and SIGKILL after `patience` seconds; tell whether it ran."""
        stopped = processes.stop(self._record, patience, group=False, signum=signum)
        self._reap()
        return stopped

    def kill(self) -> None:
        """Kill it as a crash would; what dies with it is its own care."""
        pid = self.pid
        assert pid is not None, "it does not run"
        os.kill(pid, signal.SIGKILL)
        processes.gone(self._record, 10.0)
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self.status = self._process.wait()
            self._process = None
