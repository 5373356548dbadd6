# SPDX-License-Identifier: Apache-2.0
"""Starts and stops the stand-in as a process of its own, and speaks to its side places."""

import http.client
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.parse
from typing import Any, BinaryIO, Self

from tests.sandbox import files, processes
from tests.sandbox.gcp import places

ROOT = pathlib.Path(__file__).parents[3]
PATIENCE = 20.0
STEP = 4 << 20


class StandIn:
    """A stand-in that runs; as a context manager it is stopped at the end."""

    def __init__(self, directory: pathlib.Path) -> None:
        known = json.loads((directory / places.KEYS).read_text())
        self.directory = directory
        self.url: str = known["url"]
        self.accounts: dict[str, dict[str, Any]] = known["accounts"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; what it knew is forgotten."""
        stop(self.directory)

    def credentials(self, account: str = "owner", **more: Any) -> Any:
        """Return Google's credentials of an account, by its key: `more` are their arguments, `scopes` say."""
        import google.oauth2.service_account

        info = self.accounts[account]
        return google.oauth2.service_account.Credentials.from_service_account_info(info, **more)

    def images_client(self, account: str = "owner") -> Any:
        """Return Google's client of images, unmodified."""
        from google.cloud import compute_v1

        return compute_v1.ImagesClient(credentials=self.credentials(account), client_options=self._options)

    def operations_client(self, account: str = "owner") -> Any:
        """Return Google's client of operations, unmodified."""
        from google.cloud import compute_v1

        return compute_v1.GlobalOperationsClient(
            credentials=self.credentials(account), client_options=self._options
        )

    def storage_client(self, account: str = "owner") -> Any:
        """Return Google's client of storage, unmodified."""
        from google.cloud import storage

        project = self.accounts[account]["project_id"]
        return storage.Client(project, credentials=self.credentials(account), client_options=self._options)

    @property
    def _options(self) -> dict[str, str]:
        return {"api_endpoint": self.url}

    def fault(self, kind: str, action: str = "*", **more: Any) -> None:
        """Let calls go wrong: see ``faults.Fault``."""
        self._ask("POST", "faults", {"kind": kind, "action": action} | more)

    def clear_faults(self) -> None:
        """Forget the faults that did not happen yet."""
        self._ask("DELETE", "faults")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings: see ``state.Settings``; return all of them."""
        return dict(self._ask("POST", "settings", changes))

    def allow(self, account: str, *permissions: str) -> None:
        """Let an account have these permissions and no others: ``storage.objects.*`` and the like."""
        self._ask("POST", "permissions", {account: permissions})

    def reset(self) -> None:
        """Forget faults, and changes of settings and of what accounts may do; not what was made."""
        self._ask("POST", "reset")

    def clear(self) -> None:
        """Forget everything that was made: images, operations, buckets, uploads."""
        self._ask("POST", "clear")

    def add_key(self, account: str) -> dict[str, Any]:
        """Give an account another key; return what its file holds."""
        return dict(self._ask("POST", "keys", {"account": account}))

    def revoke(self, account: str) -> None:
        """Delete all keys of an account: tokens that they were used for are good until they end."""
        self._ask("POST", "revoke", {"account": account})

    def expire_tokens(self) -> None:
        """Let every token have ended."""
        self._ask("DELETE", "tokens")

    def callers(self) -> set[str]:
        """Return the ids of all keys that somebody has been known by."""
        return set(self._ask("GET", "callers"))

    def make_bucket(self, name: str, account: str = "owner", location: str = "US") -> None:
        """Make a bucket of the account's project."""
        self._ask("POST", "buckets", {"name": name, "account": account, "location": location})

    def counters(self) -> dict[str, Any]:
        """Return `bytes` of stored objects, and `calls` by ``service.resource.method``, refused ones too."""
        return dict(self._ask("GET", "counters"))

    def images(self) -> list[dict[str, Any]]:
        """Return every image of every project, with its `project`, `policy`, and `file` where the disk is."""
        return list(self._ask("GET", "images"))

    def operations(self) -> list[dict[str, Any]]:
        """Return every operation of every project."""
        return list(self._ask("GET", "operations"))

    def objects(self, bucket: str) -> list[dict[str, Any]]:
        """Return every object of a bucket; `file` is where its data are."""
        return [one for one in self._ask("GET", "objects") if one["bucket"] == bucket]

    def read_image(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        """Return the bytes of the disk that a guest sees, or `length` of them from `offset` on."""
        with self._disk(name).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def holds(self, name: str, disk: pathlib.Path) -> bool:
        """Tell whether an image has the bytes of a disk, and behind them only zeros."""
        with self._disk(name).open("rb") as file, disk.open("rb") as expected:
            if disk.stat().st_size > self._disk(name).stat().st_size:
                return False
            place = -1
            while (place := min(_data(file, place), _data(expected, place))) != _NOWHERE:
                both = [os.pread(one.fileno(), STEP, place).ljust(STEP, b"\0") for one in (file, expected)]
                if both[0] != both[1]:
                    return False
                place += STEP - 1
        return True

    def _disk(self, name: str) -> pathlib.Path:
        (file,) = (one["file"] for one in self.images() if one["name"] == name)
        return pathlib.Path(file)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        parts = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(method, places.PREFIX + path, json.dumps(body))
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {text.decode()}")
        return json.loads(text)


_NOWHERE = 1 << 63


def _data(file: BinaryIO, behind: int) -> int:
    """Return where a sparse file has data next."""
    try:
        return os.lseek(file.fileno(), behind + 1, os.SEEK_DATA)
    except OSError:
        return _NOWHERE


def start(directory: pathlib.Path, *, port: int = 0, stays: bool = False) -> StandIn:
    """Start a stand-in that keeps everything in the folder, and wait until it answers.

    It ends with the process that started it, unless it `stays`: then ``stop`` ends it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / places.KEYS).unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.sandbox.gcp", "--dir", str(directory), "--port", str(port)]
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
    processes.record(directory / places.PID, child.pid)
    if stays:
        processes.reap(child)
    else:
        _PIPES[directory] = child
    end = time.monotonic() + PATIENCE
    while not (directory / places.KEYS).exists():
        if child.poll() is not None or time.monotonic() > end:
            stop(directory)
            raise RuntimeError(f"the stand-in did not start: {files.tail(directory / 'log')}")
        time.sleep(0.01)
    return StandIn(directory)


def running(directory: pathlib.Path) -> bool:
    """Tell whether there is a stand-in of the folder."""
    return processes.running(directory / places.PID) is not None and (directory / places.KEYS).exists()


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
    return processes.stop(directory / places.PID)
