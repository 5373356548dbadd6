# SPDX-License-Identifier: Apache-2.0
"""Locks that have to be renewed, in etcd and Redis."""

import abc
import types
import urllib.parse
import uuid
from pathlib import Path
from typing import Any

from tooz import ToozError, coordination

from ciming.engine.locks import base
from ciming.engine.locks.base import MARKER


class _ByTooz(base.Locks):
    """Locks that expire. tooz' heart is not started: it does not say when it failed to renew one."""

    _lock: Any = None

    def __init__(self, url: str, ttl: int, memory: Path) -> None:
        parts = base.parsed(url)
        place = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        self._coordinator = self._driver(url, parts, {"lock_timeout": ttl, "timeout": max(1, ttl // 3)})
        self._coordinator.start()
        try:
            self.marker = self._agree(memory / str(uuid.uuid5(uuid.NAMESPACE_URL, place)))
        except BaseException:
            self.close()
            raise

    @abc.abstractmethod
    def _driver(self, url: str, parts: urllib.parse.SplitResult, options: dict[str, Any]) -> Any:
        """A coordinator of tooz'."""

    def hold(self, name: str) -> None:
        self._lock = self._coordinator.get_lock(name.encode())
        if not self._lock.acquire(blocking=False):
            raise ToozError(f"The lock {name} is taken")

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._coordinator.stop()

    def _agree(self, memory: Path) -> str:
        """The service's marker: a group of tooz'. One that forgot it is given the one we remember."""
        with self._coordinator.get_lock(MARKER.encode()):
            if not (markers := self._markers()):
                known = memory.read_text() if memory.exists() else str(uuid.uuid4())
                self._coordinator.create_group(f"{MARKER}-{known}".encode()).get()
                markers = [known]
        memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = memory.with_name(str(uuid.uuid4()))
        fresh.write_text(markers[0])
        fresh.replace(memory)
        return markers[0]

    def _markers(self) -> list[str]:
        names = [group.decode() for group in self._coordinator.get_groups().get()]
        return [name.removeprefix(f"{MARKER}-") for name in names if name.startswith(f"{MARKER}-")]


class Etcd(_ByTooz):
    """A key bound to a lease, in etcd 3."""

    def _driver(self, url: str, _parts: urllib.parse.SplitResult, options: dict[str, Any]) -> Any:
        from tooz.drivers import etcd3gw  # noqa: F401  # or tooz would only say that there is no driver

        return coordination.get_coordinator(url, uuid.uuid4().bytes, **options)

    def is_held(self) -> bool:
        """That a lease is over, tooz does not say; its key is gone then."""
        self._lock.heartbeat()
        return not self.is_free(self._lock.name.decode())

    def is_free(self, name: str) -> bool:
        """Read, because to take a lock and to let it go again makes a lease that stays."""
        return not self._coordinator.client.get((self._lock.LOCK_PREFIX + name.encode()).decode())


class Redis(_ByTooz):
    """A key that expires, in Redis."""

    def _driver(self, _url: str, parts: urllib.parse.SplitResult, options: dict[str, Any]) -> Any:
        from redis import backoff, retry
        from tooz.drivers import redis as driver

        class Driver(driver.RedisDriver):
            """Tries again no more often than tooz does: with redis' own pauses that takes a minute."""

            @classmethod
            def _make_client(cls, *arguments: Any) -> Any:
                client = super()._make_client(*arguments)
                client.set_retry(retry.Retry(backoff.NoBackoff(), 0))
                return client

        place = types.SimpleNamespace(
            hostname=parts.hostname,
            port=parts.port,
            path=parts.path,
            username=parts.username and urllib.parse.unquote(parts.username),
            password=parts.password and urllib.parse.unquote(parts.password),
        )
        given = urllib.parse.parse_qs(parts.query)
        return Driver(uuid.uuid4().bytes, place, given | {name: [each] for name, each in options.items()})

    def is_held(self) -> bool:
        if not self._lock.is_still_owner():
            return False
        self._lock.heartbeat()
        return True

    def is_free(self, name: str) -> bool:
        lock = self._coordinator.get_lock(name.encode())
        if not lock.acquire(blocking=False):
            return False
        lock.release()
        return True
