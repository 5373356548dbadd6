# SPDX-License-Identifier: Apache-2.0
"""ciming-status upgrade check: is this installation ready for this release?

Nothing is left changed, and no service but the database is asked.
"""

import functools
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_upgradecheck import common_checks, upgradecheck

from ciming import cmd, config

Code = upgradecheck.Code
Result = upgradecheck.Result
Check = Callable[[Any], Result]

LIBRARIES = (
    "ciming",
    "keystonemiddleware.auth_token",
    "oslo.db",
    "oslo.limit",
    "oslo.log",
    "oslo.messaging",
    "oslo.middleware.cors",
    "oslo.middleware.healthcheck",
    "oslo.middleware.http_proxy_to_wsgi",
    "oslo.policy",
)
"""Whose options a configuration has, as in etc/ciming/config-generator.conf."""


def _check(look: Callable[[], Result | str]) -> Check:
    """A text is a success; what keeps a process from its start is a failure."""

    @functools.wraps(look)
    def checked(_self: Any) -> Result:
        try:
            found = look()
        except cmd.NOT_READY as error:
            return Result(Code.FAILURE, cmd.in_one_line(error))
        return Result(Code.SUCCESS, found) if isinstance(found, str) else found

    return checked


def _schema() -> Result | str:
    from ciming.db import session

    if session.schema_is_current():
        return "It is that of this release."
    return Result(Code.FAILURE, f"It is not that of this release. {session.SYNC}")


def _taskflow_schema() -> Result | str:
    from ciming.db import session

    if session.taskflow_schema_is_current():
        return "It is that of the TaskFlow that is installed."
    return Result(Code.FAILURE, f"It is not that of the TaskFlow that is installed. {session.SYNC}")


def _coordination() -> Result | str:
    from ciming.engine import locks

    kind = locks.check(cfg.CONF.engine.coordination_url)
    seen = "those of this host only" if kind == "file" else "those of all hosts"
    return f"{kind}: an engine sees whether others live, {seen}."


def _configuration() -> Result | str:
    faults = list(_bad_values())
    if faults:
        return Result(Code.FAILURE, " ".join(faults))
    old = list(_old_options())
    if old:
        return Result(Code.WARNING, " ".join(old))
    return "All options are those of this release, and their values can be read."


def _bad_values() -> Iterator[str]:
    conf = cfg.CONF
    for group, opts in config.GROUPS.items():
        for opt in opts:
            try:
                getattr(conf[group] if group else conf, opt.dest)
            except (cfg.Error, ValueError) as error:
                yield f"[{group or 'DEFAULT'}] {opt.name}: {error.__context__ or error}."


def _old_options() -> Iterator[str]:
    """What the files say that this release, or a library of it, says otherwise or not at all."""
    known, renamed = _options()
    written = list(_written())
    groups = {group for group, _ in (*known, *renamed)}
    groups |= {value for _, name, values in written if name == "auth_section" for value in values}
    for group, name, _ in written:
        where = f"[{group}] {name}"
        if (group, name) in known:
            opt = known[group, name]
            if opt.deprecated_for_removal:
                yield f"{where} will go. {opt.deprecated_reason or ''}".strip()
        elif (group, name) in renamed:
            yield f"{where} is called {renamed[group, name]} now."
        elif group in (*config.GROUPS, "DEFAULT"):      # libraries may have more than they tell
            yield f"{where} is no option of this release: it does nothing."
        elif group not in groups:
            yield f"{where} does nothing: no section of this release is called so."


def _options() -> tuple[dict[tuple[str, str], cfg.Opt], dict[tuple[str, str], str]]:
    """All options by group and name, and the names that some had before."""
    known: dict[tuple[str, str], cfg.Opt] = {}
    renamed: dict[tuple[str, str], str] = {}
    for entry in metadata.entry_points(group="oslo.config.opts"):
        if entry.name not in LIBRARIES:
            continue
        for group, opts in entry.load()():
            name = str(getattr(group, "name", group) or "DEFAULT")
            for opt in opts:
                known[name, opt.dest] = opt
                for old in opt.deprecated_opts:
                    was = (old.group or name, (old.name or opt.name).replace("-", "_"))
                    renamed[was] = f"[{name}] {opt.name}"
    return known, renamed


def _written() -> Iterator[tuple[str, str, list[str]]]:
    """Group, name and values of each option in the configuration's files."""
    folders = [Path(folder) for folder in cfg.CONF.config_dir]
    files = [Path(file) for file in cfg.CONF.config_file]
    for file in (*files, *(each for folder in folders for each in sorted(folder.glob("*.conf")))):
        sections: dict[str, dict[str, Any]] = {}
        cfg.ConfigParser(str(file), sections).parse()
        for group, options in sections.items():
            for name, values in options.items():
                yield group, name.replace("-", "_"), values


def _staging() -> Result | str:
    folder = Path(cfg.CONF.staging.path)
    there = folder if folder.exists() else next(each for each in folder.parents if each.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".ciming-status-", dir=there):
            pass
    except OSError as error:
        what = "" if there == folder else f"{folder} is not there, and can not be made: "
        return Result(
            Code.FAILURE,
            f"{what}{there} is not writable for the user of this command ({error.strerror}). Run it as the "
            "user that CIMinG runs as, and give that user the folder.",
        )
    if there == folder:
        return f"{folder} is writable for the user of this command."
    return f"{folder} is not there yet: the first start makes it."


def _policy() -> Result | str:
    from ciming import policies

    conf = cfg.CONF
    enforcer = policies.get_enforcer()
    name = conf.oslo_policy.policy_file
    if conf.find_file(name) is None:
        location = conf.get_location("policy_file", "oslo_policy")
        if location and location.location == cfg.Locations.user:
            return Result(Code.WARNING, f"{name} was not found: the defaults apply.")
        return "There is no file: the defaults apply."
    try:
        enforcer.load_rules()
        enforcer.check_rules(raise_on_violation=True)
    except Exception as error:      # of YAML, of oslo.policy
        return Result(Code.FAILURE, f"{name}: {cmd.in_one_line(error)}")
    written = enforcer.file_rules
    wrong = [rule for rule in written if str(written[rule].check) == "!" != written[rule].check_str.strip()]
    if wrong:
        return Result(Code.FAILURE, f"{name}: not understood, and so forbidden: {', '.join(sorted(wrong))}.")
    ours = {rule for rule in written if rule.startswith("ciming:")}
    unknown = ours - enforcer.registered_rules.keys()
    if unknown:
        return Result(Code.WARNING, f"{name}: no rules of this release: {', '.join(sorted(unknown))}.")
    return f"{name} changes {len(written)} rules."


class Checks(upgradecheck.UpgradeCommands):
    """The checks, in the order they are shown."""

    _upgrade_checks = (
        ("Database schema", _check(_schema)),
        ("TaskFlow's schema", _check(_taskflow_schema)),
        ("Coordination URL", _check(_coordination)),
        ("Configuration", _check(_configuration)),
        ("Staging folder", _check(_staging)),
        ("Policy file", _check(_policy)),
        ("Policy file is YAML", (common_checks.check_policy_json, {"conf": cfg.CONF})),
    )


def main() -> int:
    config.register()
    logging.getLogger("oslo_policy").setLevel(logging.CRITICAL)     # what it logs is in the table
    with cmd.one_clear_line():
        return int(upgradecheck.main(cfg.CONF, "ciming", Checks(), sys.argv[1:]))
