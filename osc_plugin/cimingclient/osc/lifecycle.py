# SPDX-License-Identifier: Apache-2.0
"""What is said of an image that is there, in all its clouds."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from osc_lib import exceptions

from cimingclient.osc import common, credential, image, watch
from cimingclient.sdk import _proxy


class SetImage(watch.WatchingShowOne):
    """Change what is said of an image, in all its clouds.

    What a cloud can not carry is said. Exit status with --wait: as for image create.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="<image>", help="Image to change (name or ID)")
        parser.add_argument("--name", metavar="<name>", help="New name of the image")
        parser.add_argument(
            "--tag",
            metavar="<tag>",
            dest="tags",
            action="append",
            help="Tag to add to the image (repeat the option for several)",
        )
        parser.add_argument(
            "--no-tag",
            action="store_true",
            help="Remove the tags that the image has; with --tag, replace them",
        )
        _add_switch(
            parser,
            *("hidden", "unhidden"),
            "Leave the image out of its clouds' lists",
            "Have it in its clouds' lists again",
        )
        _add_switch(
            parser,
            *("deprecated", "undeprecated"),
            "Say that the image is to be used no more",
            "Say that it may be used again",
        )
        _add_common(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        found = common.found(self.client.find_image, parsed_args.image)
        wanted = {name: getattr(parsed_args, name) for name in ("name", "hidden", "deprecated")}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        if parsed_args.tags or parsed_args.no_tag:
            former = [] if parsed_args.no_tag else found.tags or []
            wanted["tags"] = list(dict.fromkeys([*former, *(parsed_args.tags or [])]))
        return _changed(self, found.id, wanted, parsed_args)


class UnsetImage(watch.WatchingShowOne):
    """Take back what is said of an image, in all its clouds.

    Exit status with --wait: as for image create.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="<image>", help="Image to change (name or ID)")
        parser.add_argument(
            "--tag",
            metavar="<tag>",
            dest="tags",
            action="append",
            default=[],
            help="Tag to remove from the image (repeat the option for several)",
        )
        _add_common(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        found = common.found(self.client.find_image, parsed_args.image)
        unknown = set(parsed_args.tags) - set(found.tags or [])
        for tag in sorted(unknown):
            raise exceptions.CommandError(f"Image {found.id} has no tag {tag}.")
        tags = [tag for tag in found.tags or [] if tag not in parsed_args.tags]
        return _changed(self, found.id, {"tags": tags} if parsed_args.tags else {}, parsed_args)


def _add_switch(parser: argparse.ArgumentParser, on: str, off: str, on_help: str, off_help: str) -> None:
    group = parser.add_mutually_exclusive_group()
    for option, value, text in ((on, True, on_help), (off, False, off_help)):
        group.add_argument(f"--{option}", dest=on, action="store_const", const=value, help=text)


def _add_common(parser: argparse.ArgumentParser) -> None:
    credential.add_option(parser)
    parser.add_argument("--wait", action="store_true", help="Wait until all its clouds were told")


def _changed(
    command: watch.WatchingShowOne, image_id: str, wanted: dict[str, Any], parsed_args: argparse.Namespace
) -> tuple[Sequence[str], Iterable[Any]]:
    if not wanted:
        raise exceptions.CommandError("There is nothing to change: see the options of this command.")
    changed: _proxy.Changed = command.client.update_image(image_id, credential.given(parsed_args), **wanted)
    if changed.job and parsed_args.wait:
        command.watch(changed.job)
    shown = image.as_it_is(command, changed.image)
    fields = (*image.FIELDS, "job_id")
    return fields, (*common.row(shown, image.FIELDS, image.FORMATTERS), changed.job and changed.job.id)
