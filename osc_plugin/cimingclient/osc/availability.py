# SPDX-License-Identifier: Apache-2.0
import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from osc_lib import exceptions

from cimingclient.osc import cached, columns, common, export, text, watch
from cimingclient.sdk import availability as _availability

STATUSES = ("available", "pending", "missing", "drifted", "forbidden", "unreachable")
UNSEEN = ("forbidden", "unreachable")
LONG = (
    *("status", "size", "virtual_size", "disk_format", "digests", "min_disk", "min_ram", "visibility"),
    *("hidden", "deprecated", "tags", "created_at"),
)
"""What a cloud says of an image, as far as a table has it."""
LONG_HEADERS = (
    *("Cloud Status", "Size", "Virtual Size", "Disk Format", "Digests", "Min Disk", "Min RAM", "Visibility"),
    *("Hidden", "Deprecated", "Tags", "Created At"),
)
FORMATTERS: dict[str, Any] = {
    "size": columns.Size,
    "virtual_size": columns.Size,
    "digests": columns.Pairs,
    "tags": columns.List,
}


class ListAvailability(cached.Lister):
    """List where images are now, as their clouds say"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        common.add_paging(parser, "image")
        add_filters(parser)
        parser.add_argument(
            "--status",
            metavar="<status>",
            action="append",
            choices=STATUSES,
            help=f"Only where an image is {', '.join(STATUSES)} (repeat the option for several)",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        headers: tuple[str, ...] = ("ID", "Name", "Cloud", "Status", "Image Ref", "Reason")
        if parsed_args.long:
            headers += ("Provider", "Region", "Proof", *LONG_HEADERS)
        return headers, (
            _row(found.image, cell, parsed_args.long)
            for found in asked(self.lists(parsed_args), parsed_args)
            for cell in found.clouds
        )


class ExportAvailability(common.Command):
    """Write what each available image is called in each cloud, for tools that launch workloads.

    Exit status: 0, or 3 where a cloud could not be asked, so that some may be missing.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--format",
            metavar="<format>",
            choices=export.FORMATS,
            required=True,
            help=f"{', '.join(export.FORMATS)}",
        )
        add_filters(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        wanted = _Wanted(self.client, parsed_args)
        found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        unseen: dict[str, dict[str, Any]] = {}
        for each in asked(self.client, wanted.asked):
            unseen |= {cell["cloud"]: cell for cell in each.clouds if wanted.lacks(cell)}
            cells = [cell for cell in each.clouds if wanted.has(cell)]
            if cells and wanted.is_where(each.clouds):
                found.append((each.image, cells))
        for name, cell in unseen.items():
            self.say(text.plain(f"{name} was not seen, so what is there is left out: {_reason(cell)}"))
            self._exit_status = watch.EXIT_STATUS["partial"]
        clouds = {cloud.name: cloud for cloud in self.client.clouds()}
        written = export.FORMATS[parsed_args.format](found, clouds)
        self.app.stdout.write(written)


class _Wanted:
    """What is to be exported.

    The service leaves out whatever does not meet a filter, and so what it has not seen. So it is `asked` for
    images and clouds alone.
    """

    def __init__(self, client: cached.Lists, parsed_args: argparse.Namespace) -> None:
        def names(given: Iterable[str]) -> set[str]:
            return {common.found(client.find_cloud, each).name for each in given}

        self._clouds = names(parsed_args.clouds)
        self._available, self._missing = names(parsed_args.available_in), names(parsed_args.missing_in)
        self._provider = parsed_args.provider
        self._properties = _properties(parsed_args)
        no_filter: dict[str, Any] = {name: [] for name in ("properties", "available_in", "missing_in")}
        no_filter |= dict.fromkeys(("status", "provider", "architecture"))
        self.asked = argparse.Namespace(**{**vars(parsed_args), **no_filter})
        if self._clouds:
            self.asked.clouds = sorted(self._clouds | self._available | self._missing)

    def has(self, cell: dict[str, Any]) -> bool:
        """Is an image available in this cloud as it is wanted?"""
        said = (cell["metadata"] or {}).get("properties", {})
        fits = all(said.get(name) == value for name, value in self._properties)
        return cell["status"] == "available" and self._is_of(cell) and fits

    def lacks(self, cell: dict[str, Any]) -> bool:
        """Would one have to know what an image is in this cloud, and it was not seen?"""
        needed = self._is_of(cell) or cell["cloud"] in self._available | self._missing
        return cell["status"] in UNSEEN and needed

    def _is_of(self, cell: dict[str, Any]) -> bool:
        chosen = not self._clouds or cell["cloud"] in self._clouds
        return chosen and self._provider in (None, cell["provider"])

    def is_where(self, cells: Iterable[dict[str, Any]]) -> bool:
        """Is it available, and missing, where that is wanted?"""
        statuses = {cell["cloud"]: cell["status"] for cell in cells}
        return all(statuses.get(name) == "available" for name in self._available) and all(
            statuses.get(name) == "missing" for name in self._missing
        )


class ListCloudImage(common.Lister):
    """List what is in a cloud now, linked to an image or not"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("cloud", metavar="<cloud>", help="Cloud to look into (name or ID)")
        parser.add_argument("--long", action="store_true", help="List additional fields")
        parser.add_argument(
            "--untracked", action="store_true", help="Only what is linked to no image of your project"
        )
        parser.add_argument("--hidden", action="store_true", help="What is hidden, instead of what is not")
        parser.add_argument(
            "--candidates",
            action="store_true",
            help="Look in your other clouds, too, for what is the same as what is untracked",
        )
        for name in ("name", "status", "tag", "visibility", "owner"):
            parser.add_argument(f"--{name}", metavar=f"<{name}>", help=f"Only images with this {name}")
        parser.add_argument(
            "--limit", metavar="<num>", type=common.positive, help="Maximum number to show (default: all)"
        )
        parser.add_argument(
            "--marker", metavar="<image-ref>", help="The last one of the previous page: show what comes after"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        cloud = common.found(self.client.find_cloud, parsed_args.cloud)
        names = ("name", "status", "tag", "visibility", "owner", "marker")
        flags = {name: True for name in ("hidden", "untracked", "candidates") if getattr(parsed_args, name)}
        told: set[str] = set()

        def unseen(other: dict[str, Any]) -> None:
            if other["cloud"] not in told:
                told.add(other["cloud"])
                reason = columns.error(other["error"])
                self.say(text.plain(f"Not seen whether {other['cloud']} has the same: {reason}"))

        found = common.page(
            lambda **query: self.client.cloud_images(cloud, unseen, **query),
            parsed_args.limit,
            sparse=parsed_args.untracked,
            **{name: getattr(parsed_args, name) for name in names},
            **flags,
        )
        headers: tuple[str, ...] = ("Image Ref", "Name", "Status", "Image ID", "Candidates")
        if parsed_args.long:
            headers += LONG_HEADERS[1:]
        return headers, (_listed(each, parsed_args.long) for each in found)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Which images, and which clouds."""
    several = "(repeat the option for several)"
    parser.add_argument(
        "--image",
        metavar="<image>",
        dest="images",
        action="append",
        default=[],
        help=f"Only this image (name or ID) {several}",
    )
    parser.add_argument("--name", metavar="<name>", help="Only images of this name")
    parser.add_argument("--tag", metavar="<tag>", help="Only images with this tag")
    parser.add_argument(
        "--cloud",
        metavar="<cloud>",
        dest="clouds",
        action="append",
        default=[],
        help=f"Only in this cloud (name or ID) {several}",
    )
    parser.add_argument("--provider", metavar="<provider>", help="Only in clouds of this kind")
    parser.add_argument(
        "--property",
        metavar="<key=value>",
        dest="properties",
        action="append",
        default=[],
        help=f"Only where the cloud says that the image has this property {several}",
    )
    parser.add_argument(
        "--architecture", metavar="<architecture>", help="Only where it is for such machines, as x86_64"
    )
    for which in ("available", "missing"):
        parser.add_argument(
            f"--{which}-in",
            metavar="<cloud>",
            action="append",
            default=[],
            help=f"Only images that are {which} in this cloud (name or ID) {several}",
        )


def asked(client: cached.Lists, parsed_args: argparse.Namespace) -> Iterable[_availability.Availability]:
    """What was asked for."""
    ids = [common.found(client.find_image, each).id for each in parsed_args.images]
    names = [common.found(client.find_cloud, each).name for each in parsed_args.clouds]
    properties = [f"{name}={value}" for name, value in _properties(parsed_args)]
    marker, limit = getattr(parsed_args, "marker", None), getattr(parsed_args, "limit", None)
    query = {
        "id": common.one_of(ids),
        "name": common.exactly(parsed_args.name),
        "tag": common.exactly(parsed_args.tag),
        "cloud": common.one_of(names),
        "provider": common.exactly(parsed_args.provider),
        "status": common.one_of(parsed_args.status),
        "property": properties or None,
        "available_in": parsed_args.available_in or None,
        "missing_in": parsed_args.missing_in or None,
        "sort": getattr(parsed_args, "sort", None),
        "marker": common.found(client.find_image, marker).id if marker else None,
    }
    sparse = any(query[name] for name in ("status", "property", "available_in", "missing_in"))
    return common.page(client.availability, limit, sparse=sparse, **query)


def _properties(parsed_args: argparse.Namespace) -> list[tuple[str, str]]:
    found = []
    for given in parsed_args.properties:
        name, equals, value = given.partition("=")
        if not equals:
            raise exceptions.CommandError(f"--property {given} is not <key>=<value>")
        found.append((name, value))
    return found + ([("architecture", parsed_args.architecture)] if parsed_args.architecture else [])


def _row(image: dict[str, Any], cell: dict[str, Any], long: bool) -> list[Any]:
    row = [image["id"], image["name"], cell["cloud"], cell["status"], cell["image_ref"], _reason(cell)]
    row += [cell["provider"], cell["region"], cell["proof"]] if long else []
    said = cell["metadata"] or {}
    return [*map(columns.words, row), *(_formatted(said, name) for name in LONG if long)]


def _reason(cell: dict[str, Any]) -> str | None:
    """Why it is not available."""
    if cell["error"]:
        return columns.error(cell["error"])
    return text.plain("; ".join(map(_difference, cell["differs"]))) or None


def _difference(differs: dict[str, Any]) -> str:
    expected = differs["expected"]
    return f"{differs['what']}: {differs['found']}" + (f", not {expected}" if expected else "")


def _listed(found: _availability.CloudImage, long: bool) -> list[Any]:
    row = map(columns.words, (found.image_ref, found.name, found.status, found.image_id))
    more = [_formatted(found, name) for name in LONG[1:]] if long else []
    return [*row, columns.Candidates(found.candidates), *more]


def _formatted(said: Any, name: str) -> Any:
    value = said.get(name)
    return value if value is None else FORMATTERS.get(name, columns.words)(value)
