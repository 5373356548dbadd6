# SPDX-License-Identifier: Apache-2.0
"""How long each process takes to start, and what it holds then, against gunicorn with nothing in it.

From the launch to the first good answer; of the engine, to its word that it has started.
"""

import argparse
import contextlib
import os
import pathlib
import tempfile
from collections.abc import Callable

from tests.benchmarks import main_job, memory, report, uploads
from tests.sandbox import ciming, distributed, sandbox, servers

Started = tuple[float, int]
"""Seconds, and bytes."""


def started(start: Callable[[], object], pid: Callable[[], int]) -> Started:
    """Start a process; it leads a session of its own."""
    seconds = main_job.timed(start)
    return seconds, memory.Peak(os.getsid(pid())).before


def bare(folder: pathlib.Path) -> Started:
    """The floor."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        pids: list[int] = []
        serving = uploads.bare(folder, apart=True)
        return started(lambda: pids.append(stack.enter_context(serving)[1]), lambda: pids[0])


def standalone(cloud: sandbox.Sandbox, folder: pathlib.Path) -> Started:
    """API and engine in one."""
    service = ciming.Ciming(cloud, folder)
    try:
        service.start()     # what a first start does: the database's schema
        service.stop()
        return started(service.start, lambda: service.pids[0])
    finally:
        service.stop()


def separate(cloud: sandbox.Sandbox, folder: pathlib.Path) -> tuple[Started, Started]:
    """The API, with two workers, and the engine."""
    with servers.RabbitMQ(folder / "broker") as broker, servers.PostgreSQL(folder / "database") as database:
        service = distributed.Distributed(cloud, folder / "ciming", broker=broker, database=database)
        try:
            service.start()
            service.stop()
            api = started(service.start_api, lambda: service.pids[0])
            return api, started(service.start_engine, lambda: service.pids[-1])
        finally:
            service.stop()


def run(folder: pathlib.Path, rounds: int) -> None:
    """Measure, and print what was found."""
    found: dict[str, list[Started]] = {}
    with sandbox.Sandbox(folder / "sandbox", second=False, barbican=False) as cloud:
        for number in range(rounds):
            main_job.settle()
            api, engine = separate(cloud, folder / f"separate-{number}")
            for name, figures in {
                "bare gunicorn, 1 worker": bare(folder / f"bare-{number}"),
                "ciming-standalone": standalone(cloud, folder / f"standalone-{number}"),
                "API under gunicorn, 2 workers": api,
                "ciming-engine": engine,
            }.items():
                found.setdefault(name, []).append(figures)
    report.say(report.machine())
    report.processes(found)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.processes", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        pathlib.Path(folder).chmod(0o755)       # PostgreSQL runs as a user of its own
        run(pathlib.Path(folder), arguments.runs)


if __name__ == "__main__":
    main()
