# SPDX-License-Identifier: Apache-2.0
"""How much memory a service takes at most while something runs."""

import contextlib
import pathlib
import threading
from typing import Self

INTERVAL = 0.05  # seconds between two looks
PROC = pathlib.Path("/proc")


class Peak:
    """Watches all processes of a session, the short-lived ones too, while the block runs.

    :param session: id of the process that leads it
    """

    def __init__(self, session: int) -> None:
        self.session = session
        self.before = _pss(session)
        """Bytes that the processes held before; what they share is counted once."""
        self.most = self.before
        """Bytes that they held at most."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            self.most = max(self.most, _pss(self.session))


def _pss(session: int) -> int:
    """Bytes that the processes of a session hold now."""
    total = 0
    for process in PROC.iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if process.name.isdigit() and _session(process) == session:
                total += _kilobytes(process / "smaps_rollup", "Pss:") * 1024
    return total


def _session(process: pathlib.Path) -> int:
    # What follows the name in parentheses: state, parent, group, session.
    return int((process / "stat").read_text().rpartition(")")[2].split()[3])


def _kilobytes(file: pathlib.Path, name: str) -> int:
    """The value of a line `name   123 kB`; 0 for a process that is just ending."""
    values = (line.split() for line in file.read_text().splitlines())
    return next((int(value[1]) for value in values if value[0] == name), 0)
