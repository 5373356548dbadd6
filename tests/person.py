# SPDX-License-Identifier: Apache-2.0
"""A user of the sandbox: by REST, by the command line, and at the clouds themselves."""

import functools
import pathlib
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Any

import openstack
import requests

from tests.sandbox import processes, sandbox

JSON = dict[str, Any]
ENDS = ("success", "partial", "error", "cancelled")
WAITS = "waiting-credentials"


class Person:
    """One entry of the sandbox's clouds.yaml."""

    def __init__(self, cloud: sandbox.Sandbox, name: str, url: str | None = None) -> None:
        self.cloud = cloud
        self.name = name
        self.url = url or cloud.url("ciming")
        self._zones: dict[str, openstack.connection.Connection] = {}
        self._catalog = 0

    def zone(self, region: str) -> openstack.connection.Connection:
        """The plain openstacksdk, without any plugin, in one zone."""
        session = self._connection.session
        if region not in self._zones:
            self._zones[region] = openstack.connection.Connection(session=session, region_name=region)
        return self._zones[region]

    @property
    def _connection(self) -> openstack.connection.Connection:
        """With a token whose catalog is that of now: a token knows the zones of its time."""
        if self._catalog != self.cloud.admin.catalogs:
            self._catalog = self.cloud.admin.catalogs
            self.log_in_again()
        return self._keystone

    @functools.cached_property
    def _keystone(self) -> openstack.connection.Connection:
        loader = openstack.config.OpenStackConfig(
            config_files=[str(self.cloud.clouds_file)], load_envvars=False
        )
        return openstack.connection.Connection(config=loader.get_one(self.name))

    def log_in_again(self) -> None:
        """Have another token from now on."""
        self._keystone.session.invalidate()
        self._zones.clear()

    def token(self) -> str:
        return str(self._connection.auth_token)

    @property
    def project_id(self) -> str:
        return str(self._connection.current_project_id)

    @property
    def user_id(self) -> str:
        return str(self._connection.current_user_id)

    def application_credential_token(self) -> str:
        """A token of a new application credential."""
        session, keystone = self._connection.session, f"{self.cloud.url('keystone')}/v3"
        wanted = {"application_credential": {"name": str(uuid.uuid4())}}
        url = f"{keystone}/users/{session.get_user_id()}/application_credentials"
        made = session.post(url, json=wanted).json()["application_credential"]
        login = {"id": made["id"], "secret": made["secret"]}
        identity = {"methods": ["application_credential"], "application_credential": login}
        answer = requests.post(
            f"{keystone}/auth/tokens", json={"auth": {"identity": identity}}, timeout=30
        )
        return answer.headers["X-Subject-Token"]

    def trusts(self) -> list[JSON]:
        """Trusts that this person gave and that still are."""
        session = self._connection.session
        url = f"{self.cloud.url('keystone')}/v3/OS-TRUST/trusts"
        answer = session.get(url, params={"trustor_user_id": session.get_user_id()})
        return list(answer.json()["trusts"])

    def take_trusts_back(self) -> None:
        """Delete all trusts of this person's."""
        for trust in self.trusts():
            url = f"{self.cloud.url('keystone')}/v3/OS-TRUST/trusts/{trust['id']}"
            self._connection.session.delete(url)

    # by REST

    def call(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        headers = {"X-Auth-Token": self.token(), **kwargs.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=120, **kwargs)

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.call("GET", path, **kwargs)

    def create(self, **wanted: Any) -> JSON:
        """The image and job of a new Image."""
        answer = self.call("POST", "/v1/images", json={"name": "t", "clouds": ["zone-a"], **wanted})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def put(self, image_id: str, data: bytes | Iterable[bytes], **kwargs: Any) -> requests.Response:
        headers = {"Content-Type": "application/octet-stream", **kwargs.pop("headers", {})}
        return self.call("PUT", f"/v1/images/{image_id}/file", data=data, headers=headers, **kwargs)

    def bring(self, file: pathlib.Path, **wanted: Any) -> JSON:
        """Create an Image from a file and return its ended Job."""
        made = self.create(**wanted)
        answer = self.put(made["image"]["id"], file.read_bytes())
        assert answer.status_code == 204, answer.text
        return self.wait(made["job"]["id"])

    def job(self, job_id: str) -> JSON:
        return dict(self.get(f"/v1/jobs/{job_id}").json())

    def image(self, image_id: str) -> JSON:
        return dict(self.get(f"/v1/images/{image_id}").json())

    def wait(self, job_id: str, *wanted: str, seconds: float = 60) -> JSON:
        """The Job, when its status is one of those wanted: by default an end."""
        end = time.monotonic() + seconds
        while (job := self.job(job_id))["status"] not in (wanted or ENDS):
            assert time.monotonic() < end, job
            time.sleep(0.1)
        return job

    # by the command line

    def start(self, *arguments: str, text: bool = True, **kwargs: Any) -> subprocess.Popen[Any]:
        """Start an `openstack` command as this person."""
        # Started in a script's background, we ignore Ctrl-C, and so would the command.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        program = pathlib.Path(sys.executable).parent / "openstack"
        environment = {
            **processes.environment(),
            "OS_CLIENT_CONFIG_FILE": str(self.cloud.clouds_file),
            "OS_CLOUD": self.name,
            "COLUMNS": "200",
        }
        return subprocess.Popen(
            [str(program), *arguments],
            env=environment,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=text,
            **kwargs,
        )

    def openstack(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run an `openstack` command as this person."""
        with self.start(*arguments) as running:
            out, said = running.communicate(timeout=180)
        assert running.returncode in ok, f"{running.returncode}\n{out}\n{said}"
        return subprocess.CompletedProcess(arguments, running.returncode, out, said)
