# SPDX-License-Identifier: Apache-2.0
"""Starts and stops the stand-in as a process of its own, and speaks to its side door."""

import functools
import hashlib
import http.client
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from tests.sandbox import files, processes
from tests.sandbox.aws import door
from tests.sandbox.aws.state import BLOCK

ROOT = pathlib.Path(__file__).parents[3]
PATIENCE = 20.0


class Role(NamedTuple):
    """The role that `owner` and `broker` may assume."""

    arn: str
    external_id: str


class StandIn:
    """A stand-in that runs; as a context manager it is stopped at the end."""

    def __init__(self, directory: pathlib.Path) -> None:
        known = json.loads((directory / door.KEYS).read_text())
        self.directory = directory
        self.url: str = known["url"]
        self.accounts: dict[str, dict[str, str]] = known["accounts"]
        self.role = Role(**known["role"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; what it knew is forgotten."""
        stop(self.directory)

    def client(
        self,
        service: str,
        account: str = "owner",
        region: str = "us-east-1",
        *,
        session: Mapping[str, str] | None = None,
        keys: Mapping[str, str] | None = None,
        connections: int = 10,
        checks: bool = True,
    ) -> Any:
        """Return boto3's client, unmodified, that does not retry; the same one each time.

        `keys` replace the account's own, by boto3's names; `session` is the Credentials that AssumeRole
        answered; without `checks` it sends what botocore itself takes for invalid.
        """
        mine = {
            "aws_access_key_id": self.accounts[account]["access_key"],
            "aws_secret_access_key": self.accounts[account]["secret_key"],
        }
        if session is not None:
            mine = {
                "aws_access_key_id": session["AccessKeyId"],
                "aws_secret_access_key": session["SecretAccessKey"],
                "aws_session_token": session["SessionToken"],
            }
        signs = tuple(sorted((mine | dict(keys or {})).items()))
        return _client(self.url, service, region, signs, connections, checks)

    def profile(self, account: str) -> str:
        """Return a user's keys as ~/.aws/credentials has them."""
        known = self.accounts[account]
        return (
            f"[default]\naws_access_key_id = {known['access_key']}\n"
            f"aws_secret_access_key = {known['secret_key']}\n"
        )

    def holds(self, snapshot_id: str, disk: pathlib.Path) -> bool:
        """Tell whether a snapshot has these bytes, and but for them only zeros."""
        digests = self.block_digests(snapshot_id)
        expected: dict[int, str] = {}
        with disk.open("rb") as file:
            for index in itertools.count():
                block = file.read(BLOCK)
                if not block:
                    return digests == expected
                if block.strip(b"\0"):
                    expected[index] = hashlib.sha256(block.ljust(BLOCK, b"\0")).hexdigest()
        raise AssertionError

    def fault(self, kind: str, action: str = "*", **more: Any) -> None:
        """Let calls go wrong: see ``faults.Fault``."""
        self._ask("POST", "faults", {"kind": kind, "action": action} | more)

    def clear_faults(self) -> None:
        """Forget the faults that did not happen yet."""
        self._ask("DELETE", "faults")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings: see ``state.Settings``; return all of them."""
        return dict(self._ask("POST", "settings", changes))

    def allow(self, account: str, *actions: str) -> None:
        """Let a user, or the role by its name, do these and nothing else: ``ec2:Describe*`` and the like."""
        self._ask("POST", "policies", {account: actions})

    def reset(self) -> None:
        """Forget faults, and changes of settings and of what users may do; not what was made."""
        self._ask("POST", "reset")

    def clear(self) -> None:
        """Forget everything that was made: images, snapshots, keys, imports, buckets."""
        self._ask("POST", "clear")

    def make_key(self, account: str = "owner", region: str = "us-east-1") -> str:
        """Make a KMS key and return its ARN."""
        return str(self._ask("POST", "keys", {"account": account, "region": region})["arn"])

    def enable_key(self, arn: str, enabled: bool = True) -> None:
        """Enable or disable a KMS key."""
        self._ask("PUT", "keys", {"arn": arn, "enabled": enabled})

    def add_credential(
        self, account: str, access_key: str, secret_key: str, token: str | None = None
    ) -> None:
        """Give a user another key, of one's own choice; with a token it is a session's."""
        said = {"user": account, "access_key": access_key, "secret_key": secret_key, "token": token}
        self._ask("POST", "credentials", said)

    def callers(self) -> set[str]:
        """Return the ids of all access keys that somebody has signed with, rightly."""
        return set(self._ask("GET", "callers"))

    def trust(self, external_id: str) -> None:
        """Have the role demand this external id."""
        self._ask("PUT", "role", {"external_id": external_id})
        self.role = Role(self.role.arn, external_id)

    def expire_sessions(self) -> None:
        """Let every session of a role have ended."""
        self._ask("POST", "expire")

    def counters(self) -> dict[str, Any]:
        """Return `puts` and `bytes` of stored blocks, and `calls` by ``service:Action``, refused ones too."""
        return dict(self._ask("GET", "counters"))

    def images(self) -> list[dict[str, Any]]:
        """Return every image of every account and region."""
        return list(self._ask("GET", "images"))

    def snapshots(self) -> list[dict[str, Any]]:
        """Return every snapshot of every account and region; `file` is where its data are."""
        return list(self._ask("GET", "snapshots"))

    def block_digests(self, snapshot_id: str) -> dict[int, str]:
        """Return the SHA-256, in hexadecimal, of each block that was written."""
        return {int(index): one for index, one in self._ask("GET", f"digests/{snapshot_id}").items()}

    def read_snapshot(self, snapshot_id: str, offset: int = 0, length: int = -1) -> bytes:
        """Return the disk's bytes, or `length` of them from `offset` on."""
        (file,) = (one["file"] for one in self.snapshots() if one["id"] == snapshot_id)
        with pathlib.Path(file).open("rb") as opened:
            opened.seek(offset)
            return opened.read(length)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        parts = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(method, door.PREFIX + path, json.dumps(body))
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {text.decode()}")
        return json.loads(text)


def start(directory: pathlib.Path, *, port: int = 0, stays: bool = False) -> StandIn:
    """Start a stand-in that keeps everything in the folder, and wait until it answers.

    It ends with the process that started it, unless it `stays`: then ``stop`` ends it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / door.KEYS).unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.sandbox.aws", "--dir", str(directory), "--port", str(port)]
    with (directory / "log").open("ab") as log:
        child = subprocess.Popen(
            command if stays else [*command, "--with-parent"],
            cwd=ROOT,
            env=processes.environment(PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, sys.path)])),
            stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    processes.record(directory / door.PID, child.pid)
    if stays:
        processes.reap(child)
    else:
        _PIPES[directory] = child
    end = time.monotonic() + PATIENCE
    while not (directory / door.KEYS).exists():
        if child.poll() is not None or time.monotonic() > end:
            stop(directory)
            raise RuntimeError(f"the stand-in did not start: {files.tail(directory / 'log')}")
        time.sleep(0.01)
    return StandIn(directory)


@functools.cache
def _session() -> Any:
    """Return one session for all clients: EC2's model takes half a second to load."""
    import boto3.session

    return boto3.session.Session()


@functools.cache
def _client(
    url: str, service: str, region: str, keys: tuple[tuple[str, str], ...], connections: int, checks: bool
) -> Any:
    import botocore.config

    config = botocore.config.Config(
        retries={"total_max_attempts": 1},
        max_pool_connections=connections,
        parameter_validation=checks,
        signature_version="s3v4" if service == "s3" else None,
        s3={"addressing_style": "path"},
    )
    return _session().client(service, region_name=region, endpoint_url=url, config=config, **dict(keys))


def running(directory: pathlib.Path) -> bool:
    """Tell whether there is a stand-in of the folder."""
    return processes.running(directory / door.PID) is not None and (directory / door.KEYS).exists()


_PIPES: dict[pathlib.Path, subprocess.Popen[bytes]] = {}
"""Children whose standard input we hold: it ends when we do."""


def stop(directory: pathlib.Path) -> bool:
    """End the stand-in of the folder, whoever started it; tell whether there was one."""
    child = _PIPES.pop(directory, None)
    if child is not None:
        child.terminate()
        child.wait()
        assert child.stdin is not None
        child.stdin.close()
        return True
    return processes.stop(directory / door.PID)
