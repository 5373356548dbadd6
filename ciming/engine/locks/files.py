# SPDX-License-Identifier: Apache-2.0
"""Locks in a folder of one host."""

import uuid
from pathlib import Path

from tooz import ToozError, coordination

from ciming import exceptions, staging
from ciming.engine.locks import base


class Files(base.Locks):
    """Record locks in a folder: the kernel frees them with their process, and only then."""

    expiring = False
    _name: str | None = None

    def __init__(self, url: str, _ttl: int, _memory: Path) -> None:
        parts = base.parsed(url)
        if parts.netloc or not parts.path.startswith("/"):
            raise exceptions.NotReady(
                "[engine] coordination_url must have the whole path of a folder after file://, "
                "as in file:///var/lib/ciming/locks"
            )
        self._folder = Path(parts.path)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.marker = staging.marker_of(self._folder)
        self._coordinator = coordination.get_coordinator(url, uuid.uuid4().bytes)
        self._coordinator.start()

    def hold(self, name: str) -> None:
        self._lock = self._coordinator.get_lock(name.encode())
        if not self._lock.acquire(blocking=False):
            raise ToozError(f"The lock {name} is taken")
        self._name, self._file = name, self._identity(name)

    def is_held(self) -> bool:
        """Is the file that we locked the one that others find? To open it again would free it."""
        return self._name is not None and self._identity(self._name) == self._file

    def is_free(self, name: str) -> bool:
        lock = self._coordinator.get_lock(name.encode())
        if not self._identity(name):
            return True
        if not lock.acquire(blocking=False):
            return False
        self._remove(name)
        lock.release()
        return True

    def close(self) -> None:
        if self._name is not None:
            if self.is_held():
                self._remove(self._name)
            self._lock.release()
        self._coordinator.stop()

    def _identity(self, name: str) -> tuple[int, int] | None:
        try:
            found = (self._folder / name).stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
