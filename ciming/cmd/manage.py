# SPDX-License-Identifier: Apache-2.0
"""ciming-manage: the operator's chores."""

import sys
import threading

from oslo_config import cfg

from ciming import cmd, config


def _db_sync() -> int:
    """Create the tables, or bring them to the version of this release."""
    from ciming.db import session

    session.upgrade()
    print("The database schema is up to date.")  # noqa: T201
    return 0


def _db_purge() -> int:
    """Forget now what is past its retention: specs, staged bytes, left-over trusts."""
    from ciming import staging
    from ciming.db import session
    from ciming.engine import service

    session.require_current_schema()
    if not service.keep_house(staging.open_area(cfg.CONF.staging), threading.Event()):
        print("Not all could be purged: see the log.", file=sys.stderr)  # noqa: T201
        return 1
    print("Purged.")  # noqa: T201
    return 0


COMMANDS = {"sync": _db_sync, "purge": _db_purge}


def _add_parsers(subparsers: object) -> None:
    parser = subparsers.add_parser("db", help="The database")  # type: ignore[attr-defined]
    parser.add_argument("action", choices=sorted(COMMANDS))


def main() -> int:
    cfg.CONF.register_cli_opt(cfg.SubCommandOpt("command", handler=_add_parsers))
    with cmd.one_clear_line():
        config.load(sys.argv[1:])
        return COMMANDS[cfg.CONF.command.action]()
