# SPDX-License-Identifier: Apache-2.0
"""What all commands have in common: the client, clear errors, a voice beside the result."""

import argparse
import atexit
import functools
import gc
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar, cast

from openstack import exceptions as sdk_exceptions
from openstack import resource
from osc_lib import exceptions
from osc_lib.command import command

from cimingclient.osc import text
from cimingclient.sdk import _proxy

ResourceT = TypeVar("ResourceT", bound=resource.Resource)

DISTRIBUTION = "python-cimingclient"


class Base(command.Command):
    """A command of ours."""

    _exit_status = 0

    @property
    def client(self) -> _proxy.Proxy:
        # The plugin gave the client manager this attribute; its own type does not tell.
        manager: Any = self.app.client_manager
        return cast(_proxy.Proxy, manager.multicloud)

    def get_epilog(self) -> str:
        """The end of the help, as cliff has it.

        cliff's own looks for our name in all that is installed, each time a command runs: that takes
        longer than all our requests before the first byte of an image.
        """
        hooks = (hook.obj.get_epilog() for hook in self._hooks if hook.obj)
        ours = f"This command is provided by the {DISTRIBUTION} plugin."
        return "\n\n".join(filter(None, (self._epilog, *hooks, ours)))

    def say(self, line: str) -> None:
        """Tell the person; stdout is for the result."""
        self.app.stderr.write(line + "\n")

    def run(self, parsed_args: argparse.Namespace) -> int:
        _end_at_once()
        try:
            return super().run(parsed_args) or self._exit_status
        except sdk_exceptions.HttpException as exc:
            raise exceptions.CommandError(text.explain(exc)) from exc


@functools.cache
def _end_at_once() -> None:
    """Have no last look for garbage at the process's end, when all its memory goes anyway.

    Among all that openstackclient has loaded that takes longer than what we do after the last byte.
    """
    atexit.register(gc.freeze)


class Command(Base):
    """Does something, and shows nothing."""


class ShowOne(Base, command.ShowOne):
    """Shows one thing."""


class Lister(Base, command.Lister):
    """Lists things."""


def found(find: Callable[[str, bool], ResourceT | None], name_or_id: str) -> ResourceT:
    """The one that a name or id means.

    :raises: `NotFoundException` when there is none, `DuplicateResource` when there are several.
    """
    item = find(name_or_id, False)
    assert item is not None
    return item


def exactly(value: str | None) -> str | None:
    """A filter for this very text, whatever it looks like."""
    return None if value is None else f"eq:{value}"


def one_of(values: Sequence[str] | None) -> str | None:
    """A filter for any of these words."""
    return f"in:{','.join(values)}" if values else None


class List(Protocol):
    """A list call of the proxy."""

    def __call__(self, **query: Any) -> Iterable[Any]: ...


def add_paging(parser: argparse.ArgumentParser, noun: str) -> None:
    """`--long`, `--sort`, `--limit`, `--marker`, as other lists have them."""
    parser.add_argument("--long", action="store_true", help="List additional fields")
    parser.add_argument(
        "--sort",
        metavar="<key>[:<direction>]",
        help="Keys to sort by, separated by commas, each with asc or desc (default: created_at:desc)",
    )
    parser.add_argument(
        "--limit",
        metavar="<num>",
        type=positive,
        help="Maximum number to show (default: all)",
    )
    parser.add_argument(
        "--marker",
        metavar=f"<{noun}>",
        help=f"The last {noun} of the previous page: show what comes after it",
    )


def add_all_projects(parser: argparse.ArgumentParser) -> None:
    """`--all-projects`; the value is True or None."""
    parser.add_argument(
        "--all-projects",
        action="store_const",
        const=True,
        help="Include those of all projects (admin only)",
    )


def page(call: List, limit: int | None, *, sparse: bool = False, **query: Any) -> Iterable[Any]:
    """At most `limit` items, without asking for a page that nobody reads.

    :param sparse: little is left of a page, or nothing, and each one is a look into Clouds: as long as
        `limit` they would be many.
    """
    given = {key: value for key, value in query.items() if value is not None}
    if limit is not None and not sparse:
        given["limit"] = limit
    return itertools.islice(call(**given), limit)


def positive(value: str) -> int:
    """An argument that is a whole number from 1."""
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return number


def row(item: resource.Resource, fields: Sequence[str], formatters: dict[str, Any]) -> list[Any]:
    """The fields' values, each in its column type; what is not known yet stays None."""
    values = ((field, getattr(item, field)) for field in fields)
    return [
        value if value is None or field not in formatters else formatters[field](value)
        for field, value in values
    ]
