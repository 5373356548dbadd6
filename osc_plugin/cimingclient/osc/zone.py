# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import pathlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from osc_lib import exceptions
from osc_lib.cli import parseractions

from cimingclient.osc import columns, text, watch
from cimingclient.sdk import job as _job

PLAN = {
    "Symbol": "symbol",
    "Name": "name",
    "Size": "size",
    "Zone": "zone",
    "Source ID": "image",
    "Target ID": "there",
    "Owner": "owner",
    "Why": "why",
}
JOB = ("ID", "Status", *(name.title() for name in columns.COUNTS), "Bytes", "Seconds")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
SIZES = {"K": 10, "M": 20, "G": 30, "T": 40}
BESIDE_A_PLAN = ("source", "target", "dry_run", "replace", "prune", "max_delete", "map_project", "members")


class SyncZone(watch.WatchingLister):
    """Bring zones in line with another one.

    With --dry-run the plan is shown: + is created, = is the same, ~ has other metadata, * has other content
    (left alone without --replace), - is only in the target (left alone without --prune), ! cannot be
    brought.
    Exit status with --wait: 0 success, 1 error, 3 partial, 4 cancelled, 5 waiting for credentials.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--from", dest="source", metavar="<zone>", help="Zone that has what is wanted"
        )
        parser.add_argument(
            "--to",
            dest="target",
            metavar="<zone>",
            action="append",
            help="Zone that is to have it, too (repeat the option for several)",
        )
        _add_filters(parser)
        parser.add_argument("--dry-run", action="store_true", help="Show the plan, and do nothing")
        parser.add_argument(
            "--save-plan", metavar="<file>", help="Write the plan of --dry-run into a file, for --plan"
        )
        parser.add_argument(
            "--plan",
            metavar="<file>",
            help="Do just what this plan says; it is refused if the zones have changed since",
        )
        parser.add_argument(
            "--replace",
            action="store_true",
            help="Where the content differs, bring the image under a new ID and hide the old one",
        )
        parser.add_argument(
            "--prune",
            action="store_true",
            help="Delete what only the targets have, if nothing went wrong before",
        )
        parser.add_argument(
            "--max-delete",
            metavar="<num>",
            type=_whole,
            help="With --prune: delete nothing if that would be more images (default: 10)",
        )
        parser.add_argument(
            "--members",
            action="store_true",
            help="Compare the members of shared images, too: one call for each of them",
        )
        parser.add_argument(
            "--map-project",
            metavar="<project>=<project>",
            action=parseractions.KeyValueAction,
            help="Owner here, and the project that is to own its images there: IDs (repeat for several)",
        )
        parser.add_argument(
            "--when-busy",
            choices=("refuse", "wait"),
            default="refuse",
            help="What to do while another sync of these zones runs (default: refuse)",
        )
        parser.add_argument("--wait", action="store_true", help="Wait until the job has ended")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        _check(parsed_args)
        if parsed_args.plan:
            plan = _read(parsed_args.plan)
            job = self.client.apply_zone_plan(plan, parsed_args.when_busy)
        else:
            zones = (parsed_args.source, parsed_args.target)
            wanted = _wanted(parsed_args)
            if parsed_args.dry_run:
                return self._shown(self.client.plan_zone_sync(*zones, **wanted), parsed_args.save_plan)
            job = self.client.sync_zones(*zones, **wanted, when_busy=parsed_args.when_busy)
        if parsed_args.wait:
            job = self.watch(job)
            self._say_if_nothing(job)
        else:
            self.say(f"To watch it: openstack multicloud job wait {job.id}")
        return JOB, [_row(job)]

    def _shown(
        self, plan: dict[str, Any], file: str | None
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        if file:
            _write(file, plan)
            self.say(f"The plan is in {file}: openstack multicloud zone sync --plan {file}")
        if not plan["entries"]:
            self.say("No image matches.")
        told = ", ".join(f"{count} {symbol}" for symbol, count in plan["summary"].items() if count)
        if told:
            self.say(f"In all: {told}")
        return tuple(PLAN), [_entry(entry) for entry in plan["entries"]]

    def _say_if_nothing(self, job: _job.Job) -> None:
        report = job.report or {}
        if job.status == "success" and not columns.counts(report) and not report.get("only_there"):
            self.say("No image matches.")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    repeat = "(repeat the option for several)"
    parser.add_argument(
        "--owner", metavar="<project>", action="append", help=f"Only images of this project: its ID {repeat}"
    )
    parser.add_argument(
        "--visibility",
        choices=("private", "shared", "community", "public"),
        action="append",
        help=f"Only images of this visibility {repeat}",
    )
    parser.add_argument(
        "--name", metavar="<glob>", action="append", help=f"Only images with such a name: debian-* {repeat}"
    )
    parser.add_argument(
        "--tag", metavar="<tag>", action="append", help="Only images with this tag (repeat the option: all)"
    )
    parser.add_argument(
        "--property",
        metavar="<key=value>",
        action="append",
        help="Only images with this property (repeat the option: all)",
    )
    parser.add_argument(
        "--status",
        choices=("active", "deactivated", "queued", "saving", "importing"),
        action="append",
        help="Only images in this status of their zone (default: active)",
    )
    parser.add_argument(
        "--newer-than",
        metavar="<time>",
        type=_time,
        help="Only images created since then: 2026-03-01T12:00:00Z, or 7d ago: s, m, h, d, w",
    )
    parser.add_argument(
        "--size-below", metavar="<size>", type=_size, help="Only images with fewer bytes: 1048576, 500M, 2G"
    )


def _check(parsed_args: argparse.Namespace) -> None:
    """:raises: `CommandError` for options that do not go together."""
    options = {name: getattr(parsed_args, name) for name in (*BESIDE_A_PLAN, *FILTERS)}
    given = [name for name, value in options.items() if value is not None and value is not False]
    if parsed_args.plan and given:
        names = ", ".join(f"--{_OPTIONS.get(name, name).replace('_', '-')}" for name in given)
        raise exceptions.CommandError(f"The plan says all of that already: leave {names} out.")
    if parsed_args.save_plan and not parsed_args.dry_run:
        raise exceptions.CommandError("--save-plan goes with --dry-run.")
    if parsed_args.dry_run and parsed_args.wait:
        raise exceptions.CommandError("With --dry-run there is nothing to --wait for.")
    if not parsed_args.plan and not (parsed_args.source and parsed_args.target):
        raise exceptions.CommandError("Say --from and --to, or --plan.")


FILTERS = ("owner", "visibility", "name", "tag", "property", "status", "newer_than", "size_below")
_OPTIONS = {"source": "from", "target": "to"}


def _wanted(parsed_args: argparse.Namespace) -> dict[str, Any]:
    filters = {name: getattr(parsed_args, name) for name in FILTERS if getattr(parsed_args, name) is not None}
    if "property" in filters:
        filters["property"] = _properties(filters["property"])
    flags = ("replace", "prune", "members")
    wanted: dict[str, Any] = {name: True for name in flags if getattr(parsed_args, name)}
    more = {name: getattr(parsed_args, name) for name in ("max_delete", "map_project")}
    wanted |= {name: value for name, value in more.items() if value is not None}
    return {**wanted, "filters": filters}


def _properties(given: Iterable[str]) -> dict[str, str]:
    """:raises: `CommandError` where one is to have two values."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise exceptions.CommandError(f"--property {text.plain(each)}: write it as KEY=VALUE.")
        if found.setdefault(name, value) != value:
            raise exceptions.CommandError(f"--property {text.plain(name)} can not have two values at once.")
    return found


def _read(name: str) -> dict[str, Any]:
    """:raises: `CommandError` when there is no plan in the file."""
    try:
        plan = json.loads(pathlib.Path(name).read_text())
    except OSError as exc:
        raise exceptions.CommandError(f"Cannot read {name}: {exc.strerror}") from exc
    except (ValueError, RecursionError):
        plan = None
    if not isinstance(plan, dict) or "digest" not in plan:
        raise exceptions.CommandError(f"There is no plan in {name}: --dry-run --save-plan writes one.")
    return plan


def _write(name: str, plan: dict[str, Any]) -> None:
    try:
        pathlib.Path(name).write_text(json.dumps(plan, indent=1) + "\n")
    except OSError as exc:
        raise exceptions.CommandError(f"Cannot write {name}: {exc.strerror}") from exc


def _entry(entry: dict[str, Any]) -> list[Any]:
    values = dict(entry, why=entry["why"] or ", ".join(entry["differs"]) or None)
    shown = {key: columns.words(value) for key, value in values.items()}
    shown["size"] = columns.Size(values["size"])
    return [shown[key] for key in PLAN.values()]


def _row(job: _job.Job) -> list[Any]:
    report, amount = job.report or {}, job.progress or {}
    found = [report.get(name, 0) for name in columns.COUNTS]
    return [job.id, job.status, *found, amount.get("bytes_done") or 0, _seconds(job)]


def _seconds(job: _job.Job) -> float | None:
    """How long it took, once it has ended."""
    if not (job.started_at and job.finished_at):
        return None
    began, ended = (datetime.fromisoformat(each) for each in (job.started_at, job.finished_at))
    return round((ended - began).total_seconds(), 1)


def _whole(value: str) -> int:
    number = int(value)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return number


def _time(value: str) -> str:
    """ISO 8601; or an age, which is a time before now."""
    amount, unit = value[:-1], value[-1:]
    if unit in UNITS and amount.isdigit():
        try:
            return (datetime.now(UTC) - timedelta(**{UNITS[unit]: int(amount)})).isoformat()
        except OverflowError:
            raise argparse.ArgumentTypeError(f"{value} is too long ago") from None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value} is neither a time nor an age like 7d") from None
    return at.replace(tzinfo=at.tzinfo or UTC).isoformat()


def _size(value: str) -> int:
    amount, unit = (value[:-1], value[-1]) if value[-1:] in SIZES else (value, "")
    if not amount.isdigit() or not int(amount):
        raise argparse.ArgumentTypeError(f"{value} is no size like 1048576, 500M or 2G")
    return int(amount) << SIZES.get(unit, 0)
