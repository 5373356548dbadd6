# SPDX-License-Identifier: Apache-2.0
"""Servers by which engines of several hosts show that they live, each in a folder."""

import base64
import http.client
from typing import Any

import redis
import requests

from tests.sandbox import files, processes, servers


class Etcd(servers.Server):
    """One member, that keeps what it knows in its folder."""

    @property
    def url(self) -> str:
        """As tooz writes it."""
        return f"etcd3+http://{processes.HOST}:{self.port}"

    def revoke(self, key: str) -> None:
        """End the lease that a key is bound to."""
        wanted = {"key": base64.b64encode(key.encode()).decode()}
        [found] = self._post("kv/range", wanted)["kvs"]
        self._post("lease/revoke", {"ID": found["lease"]})

    def _post(self, path: str, body: dict[str, str]) -> Any:
        answer = requests.post(f"http://{processes.HOST}:{self.port}/v3/{path}", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def _prepare(self) -> None:
        """It makes what it needs itself."""

    def _command(self) -> list[str]:
        client, peer = (f"http://{processes.HOST}:{self.port + number}" for number in (0, 1))
        settings = {
            "data-dir": str(self.folder / "data"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        return ["etcd", *(f"--{name}={value}" for name, value in settings.items())]

    def _works(self) -> bool:
        connection = http.client.HTTPConnection(processes.HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        except OSError:
            return False
        finally:
            connection.close()


class Redis(servers.Server):
    """One that keeps nothing: what it knew is gone when it is started again."""

    @property
    def url(self) -> str:
        """As tooz writes it."""
        return f"redis://:{self.password}@{processes.HOST}:{self.port}"

    def client(self) -> redis.Redis:
        """To look into it."""
        return redis.Redis(processes.HOST, self.port, password=self.password)

    def _prepare(self) -> None:
        settings = {
            "bind": processes.HOST,
            "port": self.port,
            "requirepass": self.password,
            "save": '""',
            "appendonly": "no",
            "dir": self.folder,
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        files.write(self.folder / "redis.conf", text)

    def _command(self) -> list[str]:
        return ["redis-server", str(self.folder / "redis.conf")]

    def _works(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False
