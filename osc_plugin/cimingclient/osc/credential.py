# SPDX-License-Identifier: Apache-2.0
"""A credential for a cloud, out of a file: JSON, a clouds.yaml as one downloads it, or ~/.aws/credentials."""

import argparse
import configparser
import pathlib
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
        said = _profiles(data) or yaml.safe_load(data)
    except OSError as exc:
        raise exceptions.CommandError(f"Cannot read {path}: {exc.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise exceptions.CommandError(f"{path} is neither JSON nor YAML") from None
    entry = _entry(said, path, name)
    if "auth" not in entry:
        return entry
    # The rest of a clouds.yaml's entry says where and how, which the cloud's config does.
    return {"auth_type": entry.get("auth_type", "password"), "auth": entry["auth"]}


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


def _entry(said: Any, path: str, name: str) -> dict[str, Any]:
    if isinstance(said, dict) and isinstance(said.get("clouds"), dict):
        entries = said["clouds"]
        name = name if name in entries else DEFAULT
        if name not in entries and len(entries) != 1:
            names = ", ".join(map(str, entries)) or "none"
            raise exceptions.CommandError(f"{path} has several clouds, and none of them is {name}: {names}")
        said = entries[name] if name in entries else next(iter(entries.values()))
    if not isinstance(said, dict):
        raise exceptions.CommandError(f"{path} holds no credential: it is to be an object")
    return said
