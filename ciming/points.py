# SPDX-License-Identifier: Apache-2.0
"""Names for the moments at which a test kills the service.

Inert unless the environment names a folder when the process starts, which only tests do. Then each point
that is reached is a line in `trace` there, and the one that the file `kill` names ends the whole process
group, as a crash would.
"""

import contextlib
import functools
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

FOLDER = os.environ.get("CIMING_CRASH_POINTS")
MUTATIONS: list[str] = []
"""Names of all functions that are marked, in the modules that were imported."""

_lock = threading.Lock()
_counts: Counter[str] = Counter()


def mutation(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Mark what changes something that outlives this process: there is a point before it, and one after."""
    name = f"{function.__module__}.{function.__qualname__}".removeprefix("ciming.")
    MUTATIONS.append(name)
    return between(name, function)


def between(name: str, function: Callable[Arguments, Result], of: str = "") -> Callable[Arguments, Result]:
    """The function with a point before and one after it.

    :param of: whose it is, for the trace
    """
    if not FOLDER:
        return function

    @functools.wraps(function)
    def watched(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        reached(f"before {name}", of)
        try:
            return function(*args, **kwargs)
        finally:
            reached(f"after {name}", of)

    return watched


def reached(point: str, of: str = "") -> None:
    """Here a test may kill us."""
    if not FOLDER:
        return
    with _lock:
        with Path(FOLDER, "trace").open("a") as trace:
            trace.write(f"{point}\t{of}\n")
        if _is_the_end(point, Path(FOLDER, "kill")):
            os.killpg(0, signal.SIGKILL)


def _is_the_end(point: str, kill: Path) -> bool:
    """`kill` holds a point, and at which time that it is reached; it is renamed, so that it ends us once."""
    try:
        wanted = kill.read_text()
    except FileNotFoundError:
        _counts.clear()
        return False
    if not wanted.startswith(f"{point}\t"):
        return False
    _counts[wanted] += 1
    if _counts[wanted] < int(wanted.rpartition("\t")[2]):
        return False
    with contextlib.suppress(FileNotFoundError):    # another process of ours was faster
        kill.rename(kill.with_name("killed"))
        return True
    return False
