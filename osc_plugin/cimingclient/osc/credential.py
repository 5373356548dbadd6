# SPDX-License-Identifier: Apache-2.0
"""A credential for a cloud, out of a file: JSON, a clouds.yaml as one downloads it, or ~/.aws/credentials."""

import argparse
import configparser
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import yaml
from osc_lib import exceptions

LARGEST = 20_000  # bytes, which is what Barbican takes
DEFAULT = "default"  # what AWS calls the profile that is meant where none is named


def read(path: str, name: str) -> dict[str, Any]:
    """What is to be stored of a file.

    :param name: of the cloud: of several entries (in AWS's file also: before that called default), that of
        this name is meant
    :raises: `CommandError`, which shows nothing of the file's content.
    """
    try:
        data = pathlib.Path(path).read_bytes()
        if len(data) > LARGEST:
            raise exceptions.CommandError(f"{path} is larger than {LARGEST} bytes: no credential is")
        profiles = _profiles(data)
        said = profiles or _parsed(data)
    except OSError as exc:
        raise exceptions.CommandError(f"Cannot read {path}: {exc.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise exceptions.CommandError(f"{path} is neither JSON nor YAML") from None
    entry = _entry(said, path, (name, DEFAULT) if profiles else (name,))
    if "auth" not in entry:
        return entry
    # The rest of a clouds.yaml's entry says where and how, which the cloud's config does.
    return {"auth_type": entry.get("auth_type", "password"), "auth": entry["auth"]}


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)     # first, as YAML takes no tabs
    except ValueError:
        return yaml.safe_load(data)


def _profiles(data: bytes) -> dict[str, Any] | None:
    """A file as AWS's tools have it, like a clouds.yaml; None: it is none."""
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(data.decode())
    except (configparser.Error, ValueError):
        return None
    known = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "role_arn")
    profiles = ((name, parser[name]) for name in parser.sections())
    found = {name: {key: said[key] for key in known if key in said} for name, said in profiles}
    entries = {name: keys for name, keys in found.items() if keys}
    return {"clouds": entries} if entries else None


def add_option(parser: argparse.ArgumentParser) -> None:
    """`--credential`; the value is a dict by cloud, or None."""
    parser.add_argument(
        "--credential",
        metavar="<cloud>=<file>",
        dest="credentials",
        action=_Read,
        help="File with a credential for a cloud, JSON, a clouds.yaml or ~/.aws/credentials, that is used "
        "for this job and stored nowhere (repeat the option for several)",
    )


class _Read(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        cloud, _equals, path = str(values).partition("=")
        if not cloud or not path:
            parser.error(f"{option_string} {values} is not of the form CLOUD=FILE")
        known = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**known, cloud: path})


def given(parsed_args: argparse.Namespace) -> dict[str, dict[str, Any]] | None:
    """What the files say that `--credential` named.

    :raises: `CommandError`, as for `read`.
    """
    files = parsed_args.credentials or {}
    return {cloud: read(path, cloud) for cloud, path in files.items()} or None


def _entry(said: Any, path: str, names: Sequence[str]) -> dict[str, Any]:
    """The entry of the first of these names that there is, or the only one."""
    if isinstance(said, dict) and isinstance(said.get("clouds"), dict):
        entries = said["clouds"]
        meant = [entries[name] for name in names if name in entries]
        if not meant and len(entries) != 1:
            known = ", ".join(map(str, entries)) or "none"
            raise exceptions.CommandError(
                f"{path} has several clouds, and none of them is {names[0]}: {known}"
            )
        said = [*meant, *entries.values()][0]
    if not isinstance(said, dict):
        raise exceptions.CommandError(f"{path} holds no credential: it is to be an object")
    return said
