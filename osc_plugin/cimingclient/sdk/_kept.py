# SPDX-License-Identifier: Apache-2.0
"""Files with what was listed: a folder for each who lists, that nobody else reads; never a credential."""

import contextlib
import hashlib
import json
import os
import pathlib
import stat
import tempfile
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from cimingclient.sdk import exceptions

FORMAT = 1
_SKEW = 60.0  # seconds by which a clock may have been set back meanwhile
#: What of a login says who one is, and where: no secret is among them.
_WHO = ("username", "user_id", "application_credential_id", "application_credential_name")
_WHERE = (
    *("auth_url", "user_domain_id", "user_domain_name", "identity_provider", "protocol"),
    *("project_id", "project_name", "project_domain_id", "project_domain_name"),
    *("domain_id", "domain_name", "default_domain", "system_scope", "trust_id"),
    *("region_name", "interface", "multicloud_endpoint_override"),
    # From Keystone to Keystone: which one it is in the end, and what there.
    *("service_provider", "remote_project_id", "remote_project_name"),
    *("remote_project_domain_id", "remote_project_domain_name"),
)


class Kept(NamedTuple):
    """Items as the service had them, at a time (seconds since the epoch)."""

    at: float
    items: list[dict[str, Any]]


def identity(config: Mapping[str, Any]) -> dict[str, str]:
    """Who lists, and where, by their configuration; the same words are the same one.

    :raises: `CacheError` when a token is all that says it.
    """
    beside, said = config, config.get("auth") or {}
    found = {name: str(said.get(name) or beside.get(name) or "") for name in (*_WHO, *_WHERE)}
    # Which of two goes before the other is for the login to know: they make another one.
    found |= {f"{name} beside": str(beside[name]) for name in (*_WHO, *_WHERE) if _differ(name, said, beside)}
    if said.get("token") or beside.get("token") or not any(found[name] for name in _WHO):
        raise exceptions.CacheError(
            "With a login that names no user nothing is kept: it could not be known whose it is."
        )
    if found["default_domain"] == "default":  # openstackclient says so without being told
        del found["default_domain"]
    found["auth_url"] = found["auth_url"].rstrip("/")
    return {name: value for name, value in found.items() if value}


def _differ(name: str, said: Mapping[str, Any], beside: Mapping[str, Any]) -> bool:
    return bool(said.get(name) and beside.get(name) and said[name] != beside[name])


class Store:
    """The files of one who lists.

    :param folder: where those of all are; by default where the XDG base directory specification has it.
    :raises: `CacheError` when there is no such place.
    """

    def __init__(self, who: Mapping[str, str], folder: pathlib.Path | None = None) -> None:
        self._who = dict(who)
        text = json.dumps(self._who, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._folder = (folder or _base()) / "cimingclient" / name

    def path(self, what: str) -> pathlib.Path:
        return self._folder / f"{what}.json"

    def read(self, what: str) -> Kept | None:
        """What was kept; None: nothing was.

        :raises: `CacheError` when there is a file that is not ours, or no good.
        """
        path = self.path(what)
        try:
            _check(self._folder, os.lstat(self._folder), stat.S_ISDIR, writable=True)
            with open(path, "rb", opener=_no_link) as file:
                _check(path, os.fstat(file.fileno()), stat.S_ISREG)
                said = json.load(file)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise exceptions.CacheError(f"{path} cannot be read: {exc.strerror}.") from exc
        except (ValueError, RecursionError) as exc:
            raise exceptions.CacheError(f"{path} is broken.") from exc
        if not _is_ours(said, self._who, what):
            raise exceptions.CacheError(f"{path} is broken, or was written for somebody else.")
        return Kept(said["at"], said["items"])

    def write(self, what: str, items: list[dict[str, Any]]) -> Kept:
        """Keep it instead of what was kept before: who reads sees the one or the other.

        :raises: `CacheError` when that cannot be.
        """
        kept = Kept(time.time(), items)
        said = {"format": FORMAT, "what": what, "who": self._who, "at": kept.at, "items": items}
        path = self.path(what)
        try:
            self._folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, exist_ok=True)
            _check(self._folder, os.lstat(self._folder), stat.S_ISDIR, writable=True)
            _replace(path, json.dumps(said, separators=(",", ":")))
        except OSError as exc:
            raise exceptions.CacheError(f"{path} cannot be written: {exc.strerror}.") from exc
        return kept


def _base() -> pathlib.Path:
    said = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return said if said.is_absolute() else pathlib.Path("~/.cache").expanduser()
    except RuntimeError as exc:
        raise exceptions.CacheError("Without a home, or XDG_CACHE_HOME, nothing is kept.") from exc


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _check(path: pathlib.Path, found: os.stat_result, is_kind: Any, *, writable: bool = False) -> None:
    """:raises: `CacheError` when others could have written it (or, unless that will do, could read it)."""
    others = stat.S_IWGRP | stat.S_IWOTH if writable else stat.S_IRWXG | stat.S_IRWXO
    if not is_kind(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & others:
        raise exceptions.CacheError(f"{path} is not yours alone: it is left alone.")


def _replace(path: pathlib.Path, text: str) -> None:
    number, name = tempfile.mkstemp(prefix=".", dir=path.parent)  # 0600
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        pathlib.Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            pathlib.Path(name).unlink()
        raise


def _is_ours(said: Any, who: Mapping[str, str], what: str) -> bool:
    if not isinstance(said, dict):
        return False
    known = {"format": FORMAT, "what": what, "who": dict(who)}
    at, items = said.get("at"), said.get("items")
    return (
        all(said.get(name) == value for name, value in known.items())
        and isinstance(at, int | float)
        and at <= time.time() + _SKEW
        and isinstance(items, list)
        and all(isinstance(item, dict) for item in items)
    )
