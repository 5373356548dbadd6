# SPDX-License-Identifier: Apache-2.0
"""The side door, by which tests look at everything and make things go wrong: JSON, and no token."""

import dataclasses
import json
import threading
from collections.abc import Callable
from typing import Any

from tests.sandbox import files, processes
from tests.sandbox.gcp import accounts, buckets, messages, wire
from tests.sandbox.gcp.places import KEYS, PREFIX
from tests.sandbox.gcp.state import Settings, State
from tests.sandbox.gcp.storage import Storage


def write_keys(state: State, port: int) -> str:
    """Write down where we are, and keys, in a file that only its owner reads; return the URL."""
    state.url = f"http://{processes.HOST}:{port}"
    keys = {name: accounts.add_key(state, name) for name in state.accounts}
    files.write(state.directory / KEYS, json.dumps({"url": state.url, "accounts": keys}, indent=1) + "\n")
    return state.url


def answer(state: State, storage: Storage, request: wire.Request) -> wire.Response:
    """Do what a test asks."""
    body: Any = json.loads(request.body or b"null")
    done = ANSWERS.get((request.method, request.path.removeprefix(PREFIX)))
    if done is None:
        return wire.Response(404, {}, b"")
    try:
        with state.lock:
            found, status = done(state, body), 200
            if done is _clear:
                storage.clear()
    except (KeyError, TypeError, ValueError) as error:
        found, status = str(error), 400
    return wire.Response(status, dict(wire.JSON), json.dumps(found).encode())


def _settings(state: State, body: Any) -> Any:
    state.settings = dataclasses.replace(state.settings, **body)
    return dataclasses.asdict(state.settings)


def _counters(state: State, body: Any) -> Any:
    calls = {name: count for name, count in state.counters.items() if name != "bytes"}
    return {"bytes": state.counters["bytes"], "calls": calls}


def _reset(state: State, body: Any) -> Any:
    state.faults.clear()
    state.loosened.set()
    state.loosened = threading.Event()
    state.settings = Settings()
    accounts.allow_all(state)


def _clear(state: State, body: Any) -> Any:
    state.clear()


def _allow(state: State, body: Any) -> Any:
    state.allowed.update({state.accounts[name].name: tuple(allowed) for name, allowed in body.items()})


def _bucket(state: State, body: Any) -> Any:
    project = state.accounts[body["account"]].project
    return buckets.make(state, body["name"], project, body["location"])


def _images(state: State, body: Any) -> Any:
    return [
        messages.document(one.spec) | {"project": one.project, "file": str(one.file), "policy": one.policy}
        for one in state.images.values()
    ]


def _objects(state: State, body: Any) -> Any:
    return [one | {"file": str(state.store.file(bucket, name))}
            for bucket, found in state.store.objects.items() for name, one in found.items()]  # fmt: skip


ANSWERS: dict[tuple[str, str], Callable[[State, Any], Any]] = {
    ("POST", "faults"): lambda state, body: state.faults.add(body),
    ("DELETE", "faults"): lambda state, _: state.faults.clear(),
    ("POST", "settings"): _settings,
    ("GET", "counters"): _counters,
    ("POST", "reset"): _reset,
    ("POST", "clear"): _clear,
    ("POST", "permissions"): _allow,
    ("POST", "keys"): lambda state, body: accounts.add_key(state, body["account"]),
    ("POST", "revoke"): lambda state, body: accounts.revoke(state, body["account"]),
    ("DELETE", "tokens"): lambda state, _: state.tokens.clear(),
    ("GET", "callers"): lambda state, _: sorted(state.callers),
    ("POST", "buckets"): _bucket,
    ("GET", "images"): _images,
    ("GET", "objects"): _objects,
    ("GET", "operations"): lambda state, _: [
        messages.document(one.spec) for one in state.operations.values()
    ],
}
