# SPDX-License-Identifier: Apache-2.0
import dataclasses
import io
import json
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import openstack
import pytest

from cimingclient import sdk
from cimingclient.sdk import _proxy
from tests.unit.cimingclient import stub as _stub


@pytest.fixture(autouse=True)
def cache_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where the client keeps what it listed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def stub() -> Iterator[_stub.Stub]:
    with _stub.Stub() as running:
        yield running


@pytest.fixture
def client(stub: _stub.Stub) -> _proxy.Proxy:
    return connect(stub)


def credentials(stub: _stub.Stub) -> dict[str, str]:
    return {
        "auth_url": f"{stub.url}/identity/v3",
        "username": "demo",
        "password": "secret",
        "project_name": "demo",
        "user_domain_id": "default",
        "project_domain_id": "default",
    }


def connect(stub: _stub.Stub, **more: Any) -> _proxy.Proxy:
    """The service's proxy, found through Keystone's catalog."""
    conn = openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        auth=credentials(stub),
        region_name="zone-a",
        **more,
    )
    proxy: _proxy.Proxy = sdk.add_to(conn).multicloud
    return proxy


@dataclasses.dataclass
class Result:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Runner:
    """Runs a command in this process, as the shell would after it has logged in."""

    def __init__(self, client: _proxy.Proxy) -> None:
        self.client = client
        self.stderr = io.StringIO()

    def __call__(self, command: type[Any], *argv: str) -> Result:
        stdout = io.StringIO()
        conn: Any = self.client._get_connection()
        app = types.SimpleNamespace(
            client_manager=types.SimpleNamespace(multicloud=self.client),
            cloud=conn.config,
            prepare_to_run_command=lambda _command: None,
            stdout=stdout,
            stderr=self.stderr,
        )
        instance = command(app, None)
        status = instance.run(instance.get_parser("openstack").parse_args(argv))
        return Result(status, stdout.getvalue(), self.stderr.getvalue())


@pytest.fixture
def run(client: _proxy.Proxy) -> Runner:
    return Runner(client)
