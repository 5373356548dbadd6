# SPDX-License-Identifier: Apache-2.0
import argparse
import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
from osc_lib.cli import format_columns

from cimingclient.osc import cached, common, credential, text
from cimingclient.sdk import cloud as _cloud

FIELDS = ("id", "name", "provider", "region", "visibility", "zone")
SHOWN = (*FIELDS, "project_id", "config", "credential_ref", "created_at", "updated_at")
FORMATTERS = {"config": format_columns.DictColumn}
LISTS = ("formats", "guest_os_features", "labels", "share_with", "tags")
"""Keys of a config whose values are lists: with commas."""


class ListCloud(cached.Lister):
    """List the clouds that images can be brought into"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--long", action="store_true", help="List additional fields")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        headers: tuple[str, ...] = ("ID", "Name", "Provider", "Region")
        if parsed_args.long:
            headers += ("Visibility", "Zone")
        fields = FIELDS[: len(headers)]
        return headers, (common.row(cloud, fields, {}) for cloud in self.lists(parsed_args).clouds())


class ShowCloud(common.ShowOne):
    """Show one cloud"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("cloud", metavar="<cloud>", help="Cloud to show (name or ID)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        found = common.found(self.client.find_cloud, parsed_args.cloud)
        return _shown(self.client.get_cloud(found.id))


class CreateCloud(common.ShowOne):
    """Register a cloud, so that images can be brought into it"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="<name>", help="Name of the new cloud")
        parser.add_argument(
            "--provider",
            metavar="<provider>",
            default="openstack",
            help="Kind of cloud (default: openstack)",
        )
        _add_config(parser)
        _add_credential(parser)
        visibility = parser.add_mutually_exclusive_group()
        visibility.add_argument(
            "--private",
            action="store_const",
            const="private",
            dest="visibility",
            help="For this project (default)",
        )
        visibility.add_argument(
            "--public",
            action="store_const",
            const="public",
            dest="visibility",
            help="For all projects (admin only)",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        attrs = {
            "name": parsed_args.name,
            "provider": parsed_args.provider,
            "config": _config(parsed_args),
            "visibility": parsed_args.visibility,
        }
        with _credential(self, parsed_args, parsed_args.name) as given:
            made = self.client.create_cloud(**_known(attrs), **given)
        return _shown(made)


class SetCloud(common.ShowOne):
    """Change a registered cloud"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("cloud", metavar="<cloud>", help="Cloud to change (name or ID)")
        parser.add_argument("--name", metavar="<name>", help="New name")
        _add_config(parser)
        parser.add_argument(
            "--no-config",
            metavar="<key>",
            action="append",
            default=[],
            help="Key of the config to remove (repeat the option for several)",
        )
        ways = _add_credential(parser)
        ways.add_argument("--no-credential", action="store_true", help="Take the credential away")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        found = common.found(self.client.find_cloud, parsed_args.cloud)
        config = {**_config(parsed_args), **dict.fromkeys(parsed_args.no_config)}
        attrs: dict[str, Any] = _known({"name": parsed_args.name, "config": config or None})
        if parsed_args.no_credential:
            attrs["credential_ref"] = None
        with _credential(self, parsed_args, found.name) as given:
            if not attrs and not given:
                raise exceptions.CommandError("There is nothing to change: see the options of this command.")
            changed = self.client.update_cloud(found.id, **attrs, **given)
        if changed.note:
            self.say(text.plain(changed.note))
        return _shown(changed)


class CheckCloud(common.Lister):
    """Look whether a cloud can be used: log in there, make a record of an image, delete it again.

    Exit status 1: something is wrong.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("cloud", metavar="<cloud>", help="Cloud to check (name or ID)")
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        self.passed = False
        return super().run(parsed_args) or int(not self.passed)

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        found = common.found(self.client.find_cloud, parsed_args.cloud)
        self.passed, checks = self.client.check_cloud(found.id)
        return ("Check", "Passed", "Message"), [
            (each["check"], each["passed"], text.plain(each["message"])) for each in checks
        ]


class DeleteCloud(common.Base):
    """Delete registered clouds; what is in them stays there"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "clouds", metavar="<cloud>", nargs="+", help="Cloud(s) to delete (name or ID)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        failed = 0
        for name in parsed_args.clouds:
            try:
                found = common.found(self.client.find_cloud, name)
                self.client.delete_cloud(found.id, ignore_missing=False)
            except (sdk_exceptions.SDKException, ksa_exceptions.ClientException) as exc:
                failed += 1
                self.say(f"Failed to delete {name}: {text.explain(exc)}")
        if failed:
            raise exceptions.CommandError(f"{failed} of {len(parsed_args.clouds)} clouds failed to delete.")


def _shown(cloud: _cloud.Cloud) -> tuple[Sequence[str], Iterable[Any]]:
    return SHOWN, common.row(cloud, SHOWN, FORMATTERS)


def _known(attrs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if value is not None}


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="<key>=<value>",
        action="append",
        default=[],
        help="Where the cloud is, for example auth_url=https://keystone.example.com/v3 (repeat the option "
        "for several; a list has commas; <key>=@<file> takes a file's content)",
    )


def _config(parsed_args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for given in parsed_args.config:
        key, equals, value = given.partition("=")
        if not key or not equals:
            raise exceptions.CommandError(f"--config {given} is not <key>=<value>")
        if value.startswith("@"):
            try:
                value = pathlib.Path(value[1:]).read_text()
            except (OSError, ValueError) as exc:
                raise exceptions.CommandError(f"Cannot read {value[1:]}: {exc}") from None
        found[key] = value.split(",") if key in LISTS else value
    return found


def _add_credential(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--credential-ref",
        metavar="<href>",
        help="Href of the Barbican secret that holds the credential for it",
    )
    ways.add_argument(
        "--credential",
        metavar="<file>",
        help="File with the credential for it: JSON (such as a key file of Google's), a clouds.yaml or "
        "~/.aws/credentials; with --store",
    )
    parser.add_argument(
        "--store",
        action="store_true",
        help="Put the credential into Barbican, where you and the cloud find it again",
    )
    return ways


@contextlib.contextmanager
def _credential(
    command: common.ShowOne, parsed_args: argparse.Namespace, name: str
) -> Iterator[dict[str, str]]:
    """The credential_ref that was given, or is made; one that was made goes again if it was refused."""
    if bool(parsed_args.credential) != parsed_args.store:
        raise exceptions.CommandError("--credential and --store go together: give both, or --credential-ref")
    if not parsed_args.store:
        yield _known({"credential_ref": parsed_args.credential_ref})
        return
    said = credential.read(parsed_args.credential, name)
    try:
        ref = command.client.store_credential(f"credential for {name}", said)
    except (sdk_exceptions.SDKException, ksa_exceptions.ClientException) as exc:
        told = f"Barbican does not take the credential: {text.explain(exc)}"
        raise exceptions.CommandError(told) from exc
    try:
        yield {"credential_ref": ref}
    except (sdk_exceptions.HttpException, ksa_exceptions.ClientException) as error:
        if not (_is_refused(error) and _forgotten(command, ref)):
            command.say(f"The credential stays in Barbican as {ref}: see whether the cloud has it.")
        raise


def _is_refused(error: Exception) -> bool:
    """Else the cloud may have it by now."""
    status = getattr(error, "status_code", None)
    return status is not None and status < 500


def _forgotten(command: common.ShowOne, ref: str) -> bool:
    with contextlib.suppress(sdk_exceptions.SDKException, ksa_exceptions.ClientException):
        command.client.forget_credential(ref)
        return True
    return False
