# SPDX-License-Identifier: Apache-2.0
"""The side door, by which tests look at everything and make things go wrong: JSON, and no signature."""

import dataclasses
import json
import pathlib
from typing import Any

from tests.sandbox import files, processes
from tests.sandbox.aws import access, keys, s3, wire
from tests.sandbox.aws.state import Settings, State

PREFIX = "/_standin/"
KEYS = "keys.json"
PID = "pid"


def write_keys(state: State, port: int) -> str:
    """Write down where we are and who may call, in a file that only its owner reads; return the URL."""
    accounts = {
        one.caller.name: {
            "access_key": one.access_key,
            "secret_key": one.secret_key,
            "account_id": one.caller.account,
        }
        for one in state.credentials.values()
    }
    (role,) = state.roles.values()
    url = f"http://{processes.HOST}:{port}"
    text = {
        "url": url,
        "accounts": accounts,
        "role": {"arn": role.arn, "external_id": role.external_id},
    }
    files.write(state.directory / KEYS, json.dumps(text, indent=1) + "\n")
    return url


def answer(state: State, request: wire.Request) -> wire.Response:
    """Do what a test asks."""
    what = request.method, request.path.removeprefix(PREFIX)
    body: Any = json.loads(request.body or b"null")
    try:
        with state.lock:
            found = _answer(state, what, body)
        status = 404 if found is None else 200
    except (KeyError, TypeError, ValueError) as error:
        found, status = str(error), 400
    return wire.Response(status, {"Content-Type": "application/json"}, json.dumps(found).encode())


def _answer(state: State, what: tuple[str, str], body: Any) -> Any:
    match what:
        case "POST", "faults":
            state.faults.add(body)
            return {}
        case "DELETE", "faults":
            state.faults.clear()
            return {}
        case "GET", "counters":
            calls = {name: count for name, count in state.counters.items() if ":" in name}
            return {"puts": state.counters["puts"], "bytes": state.counters["bytes"], "calls": calls}
        case "POST", "settings":
            state.settings = dataclasses.replace(state.settings, **body)
            return dataclasses.asdict(state.settings)
        case "POST", "reset":
            state.faults.clear()
            state.settings = Settings()
            access.allow_all(state)
            return {}
        case "POST", "clear":
            state.clear()
            s3.clear()
            return {}
        case "POST", "policies":
            state.policies.update({name: tuple(allowed) for name, allowed in body.items()})
            return {}
        case "POST", "keys":
            return {"arn": keys.make(state, access.ACCOUNTS[body["account"]][0], body["region"]).arn}
        case "POST", "credentials":
            access.add(state, body["user"], body["access_key"], body["secret_key"], body.get("token"))
            return {}
        case "GET", "callers":
            return sorted(state.callers)
        case "PUT", "role":
            access.trust(state, body["external_id"])
            return {}
        case "PUT", "keys":
            state.keys[body["arn"]].enabled = body["enabled"]
            return {}
        case "POST", "expire":
            for name, one in list(state.credentials.items()):
                if one.token is not None:
                    state.credentials[name] = dataclasses.replace(one, ends=0.0)
            return {}
        case "GET", "images":
            return [
                {
                    "id": one.id, "owner": one.owner, "region": one.region, "name": one.spec["Name"],
                    "state": one.state, "tags": one.tags.get(one.owner, {}), "tags_by_account": one.tags,
                    "snapshots": one.snapshots, "users": sorted(one.users), "public": one.public,
                    "deprecated": one.deprecation is not None,
                }
                for one in state.images.values()
            ]  # fmt: skip
        case "GET", "snapshots":
            return [
                {
                    "id": one.id, "owner": one.owner, "region": one.region, "size": one.size,
                    "state": one.status,
                    "tags": one.tags.get(one.owner, {}), "tags_by_account": one.tags,
                    "blocks": len(one.digests),
                    "users": sorted(one.users), "public": one.public, "key": one.key, "file": str(one.file),
                }
                for one in state.snapshots.values()
            ]  # fmt: skip
        case "GET", path if path.startswith("digests/"):
            snapshot = state.snapshots.get(pathlib.PurePath(path).name)
            return snapshot and {index: one.hex() for index, one in sorted(snapshot.digests.items())}
    return None
