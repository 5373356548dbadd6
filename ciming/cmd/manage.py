# SPDX-License-Identifier: Apache-2.0
"""ciming-manage: the operator's chores."""

import argparse
import functools
import sys
import threading
import time
from typing import Any

from oslo_config import cfg

from ciming import cmd, config

DAY_MS = 24 * 3600 * 1000
LONGEST = 18        # digits of a number


def _db_sync() -> int:
    """Create the tables, or bring them to the version of this release."""
    from ciming.db import session

    session.upgrade()
    print("The database schema is up to date.")  # noqa: T201
    return 0


def _db_purge(parser: argparse.ArgumentParser) -> int:
    """Forget now what is past its retention: specs, staged bytes, left-over trusts; and rows of old."""
    from ciming import staging
    from ciming.db import models, purge, session
    from ciming.engine import service

    asked = cfg.CONF.command
    if asked.max_rows and asked.age_in_days is None:
        parser.error("--max-rows needs --age-in-days")
    session.require_current_schema()
    if not service.keep_house(staging.open_area(cfg.CONF.staging), threading.Event()):
        print("Not all could be purged: see the log.", file=sys.stderr)  # noqa: T201
        return 1
    if asked.age_in_days is None:
        print("Purged.")  # noqa: T201
        return 0
    gone = purge.purge(models.now() - asked.age_in_days * DAY_MS, asked.max_rows)
    print(f"Purged: {', '.join(f'{gone[table]} {table}' for table in purge.TABLES)}.")  # noqa: T201
    return 0


def _staging_list() -> int:
    """List the staging areas that Jobs name, by their markers: Jobs that have not ended, and kept ones."""
    from ciming import staging
    from ciming.db import areas, session

    session.require_current_schema()
    own = staging.open_area(cfg.CONF.staging).marker
    found = areas.named()
    if own not in {each.marker for each in found}:
        found = [*found, areas.Area(own, 0, 0)]
    for each in found:
        note = "  this one" if each.marker == own else ""
        print(f"{each.marker}  {each.open} open  {each.kept} kept{note}")  # noqa: T201
    return 0


def _staging_take_over(parser: argparse.ArgumentParser) -> int:
    """Give the Jobs of a staging area that is gone for good to this host's; their bytes are lost."""
    from ciming import staging
    from ciming.db import areas, session

    former = cfg.CONF.command.marker
    session.require_current_schema()
    own = staging.open_area(cfg.CONF.staging).marker
    if former == own:
        parser.error(f"{former} is the staging area of this host")
    if former not in {each.marker for each in areas.named()}:
        print(f"No Job names a staging area {former}.", file=sys.stderr)  # noqa: T201
        return 1
    count = areas.take_over(former, own)
    print(f"Jobs that had not ended, and go on here: {count}")  # noqa: T201
    return 0


def _number(bounds: range, text: str) -> int:
    """An argument that is a whole number within bounds."""
    if not text.isdecimal() or len(text) > LONGEST or int(text) not in bounds:
        what = f"{text[:LONGEST]} is not a whole number from {bounds[0]} to {bounds[-1]}"
        raise argparse.ArgumentTypeError(what)
    return int(text)


def _add_parsers(subparsers: Any) -> None:
    actions = subparsers.add_parser("db", help="The database").add_subparsers(
        dest="action", metavar="{sync,purge}", required=True
    )
    sync = actions.add_parser("sync", help=_db_sync.__doc__)
    sync.set_defaults(run=_db_sync)
    purge = actions.add_parser("purge", help=_db_purge.__doc__)
    purge.set_defaults(run=functools.partial(_db_purge, purge))
    purge.add_argument(
        "--age-in-days",
        "--age_in_days",
        type=functools.partial(_number, range(time.time_ns() // 1_000_000 // DAY_MS + 1)),
        metavar="DAYS",
        help="Also delete Jobs that ended so long ago and can not be retried any more, and Images as old "
        "that are in no Cloud and have no Job",
    )
    purge.add_argument(
        "--max-rows",
        "--max_rows",
        type=functools.partial(_number, range(1, 10**9 + 1)),
        metavar="NUMBER",
        help="Most Jobs, and most Images, to delete; what belongs to them goes with them (default: all)",
    )
    areas = subparsers.add_parser("staging", help="Staging areas").add_subparsers(
        dest="action", metavar="{list,take-over}", required=True
    )
    areas.add_parser("list", help=_staging_list.__doc__).set_defaults(run=_staging_list)
    take_over = areas.add_parser("take-over", help=_staging_take_over.__doc__)
    take_over.set_defaults(run=functools.partial(_staging_take_over, take_over))
    take_over.add_argument("marker", metavar="MARKER", help="As `staging list` shows it")


def main() -> int:
    cmd.leave_no_core()
    cfg.CONF.register_cli_opt(cfg.SubCommandOpt("command", handler=_add_parsers))
    with cmd.one_clear_line():
        config.load(sys.argv[1:])
        return int(cfg.CONF.command.run())
