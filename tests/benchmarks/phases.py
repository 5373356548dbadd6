# SPDX-License-Identifier: Apache-2.0
"""Where the main job spends its time: out of the Job, and of the steps that the service logs."""

import datetime
import pathlib
import re
from typing import Any

from oslo_log import log

STEPS = "ciming.engine.tools"
"""What logs every step as it begins, at level DEBUG."""
PHASES = ("client starts", "first bytes", "format known", "transfer", "end", "client ends")


def options() -> dict[tuple[str, str], str]:
    """Options with which the service logs steps, and no other detail."""
    levels = [*log.get_default_log_levels(), "taskflow=WARN", f"{STEPS}=DEBUG"]
    return {("DEFAULT", "debug"): "false", ("DEFAULT", "default_log_levels"): ",".join(levels)}


def split(began: float, ended: float, job: dict[str, Any], log_dir: pathlib.Path) -> dict[str, float]:
    """Seconds that each phase took.

    :param began: when the command was started, seconds since the epoch, as `ended`
    """
    steps = _steps(job["id"], log_dir)
    marks = (
        began,
        _time(job["created_at"]),  # the service had the client's first request
        _time(job["started_at"]),  # bytes are there, not all of them: an engine has claimed the Job
        min(at for at, step in steps if step == "check"),
        max(at for at, step in steps if step == "link"),
        _time(job["finished_at"]),
        ended,
    )
    return {name: marks[i + 1] - marks[i] for i, name in enumerate(PHASES)}


def _steps(job_id: str, log_dir: pathlib.Path) -> list[tuple[float, str]]:
    """When each step of the Job began, and its name."""
    line = re.compile(rf"^(\S+ \S+) \d+ DEBUG {STEPS} .*\[job {job_id}\] Step: (\w+) ")
    found = []
    for file in log_dir.glob("ciming*.log"):
        for match in filter(None, map(line.match, file.read_text().splitlines())):
            found.append((_time(match[1]), match[2]))
    assert found, f"{log_dir} has no step of Job {job_id}"
    return found


def _time(text: str) -> float:
    """Seconds since the epoch; logs have local time."""
    return datetime.datetime.fromisoformat(text).timestamp()
