# SPDX-License-Identifier: Apache-2.0
"""How long a Job waits for another engine when its own is killed, by kind of coordination service.

From kill -9, in the middle of an upload and at any moment between two signs of life, until the Job's row has
another owner.
"""

import argparse
import contextlib
import os
import pathlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from ciming.db import models
from tests import liveness
from tests.benchmarks import report
from tests.functional import faulty
from tests.person import Person
from tests.sandbox import coordination, distributed, processes, sandbox, servers

SIZE = 24 << 20
SLOWLY = SIZE / 60.0        # bytes per second


def until(condition: Callable[[], bool], seconds: float = 60) -> float:
    """Wait for a condition; how long it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError("it took too long")
        time.sleep(0.01)
    return time.monotonic() - began


def takeover(service: distributed.Distributed, url: str, ttl: int, slow: faulty.Proxy, data: bytes) -> float:
    """Seconds of one takeover."""
    options = {("engine", "coordination_url"): url, ("engine", "coordination_ttl"): str(ttl)}
    database = sa.create_engine(service.database_url)
    member = Person(service.sandbox, "member", service.url)

    def owner() -> str | None:
        with database.connect() as connection:
            found: str | None = connection.scalar(sa.select(models.Job.owner).where(models.Job.id == job_id))
        return found

    slow.throttle = SLOWLY
    first = service.add_engine("first", options)
    made = member.create(clouds=["zone-slow"], disk_format="raw", size=len(data))
    job_id = made["job"]["id"]
    member.put(made["image"]["id"], data)
    until(lambda: bool(member.job(job_id)["targets"][0]["bytes_done"]))
    second = service.add_engine("second", options)
    time.sleep(random.uniform(0, ttl / 3))
    name = owner()
    first.kill()
    seconds = until(lambda: owner() != name)
    slow.throttle = None
    member.wait(job_id, seconds=120)
    second.stop()
    return seconds


@contextlib.contextmanager
def contenders(folder: pathlib.Path) -> Iterator[dict[str, tuple[servers.Database, liveness.Service]]]:
    """The kinds, each with a database: its own where it is one."""
    with contextlib.ExitStack() as stack:
        postgresql = stack.enter_context(servers.PostgreSQL(folder / "postgresql"))
        mariadb = stack.enter_context(servers.MariaDB(folder / "mariadb"))
        etcd = stack.enter_context(coordination.Etcd(folder / "etcd"))
        redis = stack.enter_context(coordination.Redis(folder / "redis"))
        yield {
            "file": (postgresql, liveness.Folder(folder / "locks")),
            "PostgreSQL": (postgresql, liveness.PostgreSQL(postgresql)),
            "MariaDB": (mariadb, liveness.MariaDB(mariadb)),
            "etcd": (postgresql, liveness.Etcd(etcd)),
            "Redis": (postgresql, liveness.Redis(redis)),
        }


def run(folder: pathlib.Path, rounds: int, ttl: int) -> None:
    """Measure, and print what was found."""
    found: dict[str, list[float]] = {}
    data = os.urandom(SIZE)
    with (
        sandbox.Sandbox(folder / "sandbox", second=False, barbican=False) as cloud,
        faulty.Proxy(cloud.url("glance-b")) as slow,
        slow.as_zone(cloud, "zone-slow"),
        servers.RabbitMQ(folder / "broker") as broker,
        contenders(folder) as kinds,
        contextlib.ExitStack() as stack,
    ):
        services = {}
        for name, (database, _) in kinds.items():
            place = folder / name
            port = processes.free_block(str(place))
            service = distributed.Distributed(cloud, place, broker=broker, database=database, port=port)
            stack.callback(service.stop)
            service.start_without_engine()
            services[name] = service
        for _ in range(rounds):
            for name, (_, lives_by) in kinds.items():
                seconds = takeover(services[name], lives_by.url, ttl, slow, data)
                found.setdefault(name, []).append(seconds)
    report.say(report.machine())
    report.takeovers(found, {name for name, (_, kind) in kinds.items() if kind.at_once}, ttl)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.takeover", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--ttl", type=int, default=5, help="[engine] coordination_ttl (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        pathlib.Path(folder).chmod(0o755)       # PostgreSQL runs as a user of its own
        run(pathlib.Path(folder), arguments.runs, arguments.ttl)


if __name__ == "__main__":
    main()
