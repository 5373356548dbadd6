# SPDX-License-Identifier: Apache-2.0
"""Jobs in a second, from row to end, against bare TaskFlow on the same database; and what an engine costs.

A Job has ten Targets in a cloud that takes everything and keeps nothing. Bare TaskFlow runs as many flows of
as many tasks, which return small values, on the same SQLAlchemy engine: no claim, no fence, no row of a Job
or Target. Once with its own backend as it is, and once with one that keeps its table objects, as ours does.
Each in a process of its own, with as many threads.
"""

import argparse
import contextlib
import functools
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent import futures
from typing import Any

import psutil
from oslo_config import cfg

from ciming import cmd, config, credentials, rpc, staging
from ciming.db import api, models, session, status
from ciming.providers import base
from tests.benchmarks import main_job, memory, report
from tests.functional import faulty
from tests.person import Person
from tests.sandbox import ciming, distributed, processes, sandbox, servers

assert cmd  # imported before what chooses how to be concurrent

TARGETS = 10
STAGE_TASKS, PUBLISH_TASKS = 2, 5
PARTS = ("rates", "idle", "memory")
CONTENDERS = ("ours", "bare", "kept")
DATABASES: Mapping[str, type[servers.Database] | None] = {
    "sqlite": None,
    "postgresql": servers.PostgreSQL,
    "mariadb": servers.MariaDB,
}
IDLE_SECONDS = 60.0
FLIGHT_MIB = 16     # more than what sockets hold
WATCH_SECONDS = 5.0
TRANSFERS = "max_transfers"
LIMITS = ("max_jobs", "max_stages", TRANSFERS, f"{TRANSFERS}_per_cloud", f"{TRANSFERS}_per_project")


class Nowhere(base.Provider):
    """A cloud that takes everything and keeps nothing."""

    formats = ("raw",)

    def __init__(self, place: Mapping[str, Any], credential: Any) -> None:
        """There is nothing to log in to."""

    def check(self, staged: staging.Staged) -> None:
        """All is fine."""

    def upload(
        self, staged: staging.Staged, spec: base.ImageSpec, key: str, transfer: base.Transfer
    ) -> str:
        """No byte is moved."""
        return key

    def register(
        self, blob: str, spec: base.ImageSpec, key: str, alive: base.Alive = lambda: None
    ) -> str:
        """It is an image at once."""
        return blob

    def verify(
        self, image_ref: str, staged: staging.Staged, alive: base.Alive = lambda: None
    ) -> base.Proof:
        """Nobody can say otherwise."""
        return "bytes"

    def discard(self, key: str, alive: base.Alive = lambda: None) -> None:
        """There is nothing."""

    def show(self, image_ref: str) -> base.Metadata | None:
        """There is nothing."""

    def list(
        self, filters: Mapping[str, str], marker: str | None = None, most: int | None = None
    ) -> Iterator[base.Metadata]:
        """There is nothing."""
        return iter(())

    def describe(self, image: str) -> base.Description | None:
        """Nothing is there."""
        return None

    def probe(self) -> Iterator[base.Verdict]:
        """There is nothing to be looked at."""
        return iter(())

    def whose(self) -> str:
        """There is one account."""
        return "all"

    def delete(self, image_ref: str, alive: base.Alive = lambda: None) -> None:
        """There is nothing."""


class Lazy(faulty.Proxy):
    """Takes no byte of an image until it is told to go on; the cloud, with few threads, hears of none."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.go_on = threading.Event()

    def forward(self, client: http.server.BaseHTTPRequestHandler) -> None:
        """Pass a request on."""
        if client.command == "PUT":
            self.go_on.wait()
        super().forward(client)


def configure(folder: pathlib.Path, url: str | None, jobs: int) -> None:
    """The process's configuration, and an empty database."""
    config.register()
    config.CONF([], project="ciming", default_config_files=[], default_config_dirs=[])
    cfg.CONF.set_override("state_path", str(folder))
    cfg.CONF.set_override("max_jobs", jobs, group="engine")
    cfg.CONF.set_override("max_pool_size", 50, group="database")
    if url:
        cfg.CONF.set_override("connection", url, group="database")
    session.upgrade()


def ours(count: int) -> float:
    """Seconds from the first Job's row to the end of the last."""
    from ciming.engine import service

    base.load = lambda _name: Nowhere                               # type: ignore[assignment]
    credentials.of_place = lambda *_: ({}, None)
    rpc.stay_in_process()
    area = staging.open_area(cfg.CONF.staging)
    engine = service.Engine()
    engine.start()
    warm = [create(area) for _ in range(2)]
    wait(warm)
    began = time.monotonic()
    ids = [create(area) for _ in range(count)]
    wait(ids)
    seconds = time.monotonic() - began
    engine.stop()
    return seconds


def create(area: staging.StagingArea) -> str:
    """Write a Job whose bytes are here, and knock, as the API does."""
    data = os.urandom(1 << 16)
    image = models.Image(
        id=models.new_id(), project_id="benchmark", user_id="benchmark", name="benchmark", size=len(data)
    )
    job = models.Job(
        id=models.new_id(),
        project_id="benchmark",
        user_id="benchmark",
        kind="create",
        stage="staging",
        spec={"name": "benchmark"},
        marker=area.marker,
        targets=[
            models.Target(cloud_key=name, cloud=name, provider="nowhere", region=name)
            for name in (f"cloud-{number}" for number in range(TARGETS))
        ],
    )
    size = len(data)
    whole = dict.fromkeys(("size", "reserved", "offset"), size)
    upload = models.Upload(job_id=job.id, **whole, complete=True, expires_at=models.now() + 3_600_000)
    with area.incoming(job.id, 0) as file:
        file.write(data)
    api.create(image, job, upload, lambda _session: None)
    rpc.knock(job.id)
    return str(job.id)


def wait(ids: list[str]) -> None:
    """Until all of them have ended, well."""
    left = list(ids)
    while left:
        job = api.get_job(left[0], None)
        if job.status in status.JOB_ENDS:
            assert job.status == "success", job.error or [target.error for target in job.targets]
            left.pop(0)
        else:
            time.sleep(0.02)


def bare(count: int, *, keep: bool = False) -> float:
    """Seconds for as many LogBooks with the same flows.

    :param keep: do not build TaskFlow's tables anew for each connection
    """
    from taskflow import engines, task
    from taskflow.patterns import linear_flow
    from taskflow.persistence import models as tf_models
    from taskflow.persistence.backends import impl_sqlalchemy

    class Nothing(task.Task):  # type: ignore[misc]  # TaskFlow is untyped
        default_provides = "nothing"

        def execute(self) -> str:
            return "nothing"

    def flow(tasks: int) -> Any:
        made = linear_flow.Flow("flow")
        made.add(*(Nothing(f"task-{number}", provides=f"nothing-{number}") for number in range(tasks)))
        return made

    backend = impl_sqlalchemy.SQLAlchemyBackend({}, engine=session.writing_engine())
    if keep:
        backend.get_connection = functools.cache(backend.get_connection)

    def run(_number: int) -> None:
        book = tf_models.LogBook("job", uuid=str(uuid.uuid4()))
        for number in range(TARGETS + 1):
            book.add(tf_models.FlowDetail(f"flow-{number}", uuid=str(uuid.uuid4())))
        with contextlib.closing(backend.get_connection()) as connection:
            connection.save_logbook(book)
        for number, detail in enumerate(book):
            tasks = PUBLISH_TASKS if number else STAGE_TASKS
            engines.load(flow(tasks), flow_detail=detail, backend=backend, engine="serial").run()
        with contextlib.closing(backend.get_connection()) as connection:
            connection.destroy_logbook(book.uuid)

    with futures.ThreadPoolExecutor(int(cfg.CONF.engine.max_jobs)) as pool:
        list(pool.map(run, range(2)))
        began = time.monotonic()
        list(pool.map(run, range(count)))
        return time.monotonic() - began


def measured(
    contender: str, folder: pathlib.Path, url: str | None, count: int, threads: int
) -> float:
    """Jobs in a second, of a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.jobs", "--contender", contender]
    arguments = {"folder": str(folder), "url": url, "count": count, "threads": threads}
    done = subprocess.run(
        command,
        input=json.dumps(arguments),     # a URL holds a password
        env=processes.environment(),
        cwd=sandbox.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return count / float(done.stdout.split()[-1])


def contend(contender: str) -> None:
    """Do what measured() asks, and print the seconds."""
    wanted = json.loads(sys.stdin.read())
    configure(pathlib.Path(wanted["folder"]), wanted["url"], wanted["threads"])
    contenders: Mapping[str, Callable[[int], float]] = {
        "ours": ours,
        "bare": bare,
        "kept": functools.partial(bare, keep=True),
    }
    print(contenders[contender](wanted["count"]))


def rates(folder: pathlib.Path, rounds: int, count: int, threads: int) -> None:
    """Measure every database, and print what was found."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, kind in DATABASES.items():
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(kind(folder / name)) if kind else None
            for number in range(rounds):
                first = number % len(CONTENDERS)
                order = CONTENDERS[first:] + CONTENDERS[:first]
                for contender in order:
                    place = folder / f"{name}-{number}-{contender}"
                    place.mkdir()
                    url = server.create(f"ciming_{number}_{contender}") if server else None
                    rate = measured(contender, place, url, count, threads)
                    found.setdefault(name, {}).setdefault(contender, []).append(rate)
    report.say(f"\n{count} Jobs of {TARGETS} Targets, {threads} at a time, {report.machine()}")
    report.jobs(found)


def idle(cloud: sandbox.Sandbox, folder: pathlib.Path) -> dict[str, float]:
    """Per cent of a processor that each process takes while there is nothing to do."""
    found = {}
    with (
        servers.RabbitMQ(folder / "broker") as broker,
        servers.PostgreSQL(folder / "database") as database,
        distributed.Distributed(
            cloud,
            folder / "apart",
            quiet(),
            broker=broker,
            database=database,
            port=processes.free_block("apart"),
        ) as apart,
        ciming.Ciming(cloud, folder / "standalone", quiet()) as standalone,
    ):
        watched = {
            "ciming-engine, PostgreSQL and RabbitMQ": apart.engine.pid,
            "ciming-standalone": standalone.pids[0],
        }
        time.sleep(main_job.SETTLE)
        before = {name: used(pid) for name, pid in watched.items()}
        time.sleep(IDLE_SECONDS)
        for name, pid in watched.items():
            found[name] = (used(pid) - before[name]) / IDLE_SECONDS * 100
    return found


def quiet() -> dict[tuple[str, str], str]:
    """Logs as an operator has them."""
    return {("DEFAULT", "debug"): "false"}


def used(pid: int | None) -> float:
    """Seconds of processor that a process and its children took so far."""
    assert pid is not None
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def in_flight(cloud: sandbox.Sandbox, folder: pathlib.Path, count: int) -> report.Memory:
    """What the service holds before, and at most while so many Jobs send to a cloud."""
    options = {("engine", name): str(2 * count) for name in LIMITS}
    data = os.urandom(FLIGHT_MIB << 20)
    with (
        Lazy(cloud.url("glance-b")) as proxy,
        proxy.as_zone(cloud, "zone-slow"),
        ciming.Ciming(cloud, folder / "flight", quiet() | options) as service,
    ):
        person = Person(cloud, "member")
        person.wait(begin(person, "zone-a", data))
        with memory.Peak(os.getsid(service.pids[0])) as peak:
            ids = [begin(person, "zone-slow", data) for _ in range(count)]
            while not all(sending(person.job(each)) for each in ids):
                time.sleep(0.5)
            time.sleep(WATCH_SECONDS)
        proxy.go_on.set()
        for each in ids:
            person.wait(each, seconds=600)
    return report.Memory(peak.before, peak.most)


def begin(person: Person, zone: str, data: bytes) -> str:
    """Create an Image there, and send its data; the Job's id."""
    made = person.create(clouds=[zone], size=len(data))
    assert person.put(made["image"]["id"], data).status_code == 204
    return str(made["job"]["id"])


def sending(job: Mapping[str, Any]) -> bool:
    """Is it in the middle of its transfer?"""
    return any(target["step"] == "upload" for target in job["targets"])


def costs(folder: pathlib.Path, what: Collection[str], count: int) -> None:
    """Measure what an engine costs while it is idle, and with so many Jobs in flight; print it."""
    with sandbox.Sandbox(folder / "sandbox", second=False, barbican=False) as cloud:
        if "idle" in what:
            report.idle(idle(cloud, folder))
        if "memory" in what:
            report.in_flight(count, in_flight(cloud, folder, count))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.jobs", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=30, help="in a round (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=8, help="Jobs at a time (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=50, help="Jobs for memory (default: %(default)s)")
    parser.add_argument("--only", choices=PARTS, help="a part of it")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        contend(arguments.contender)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        pathlib.Path(folder).chmod(0o755)       # PostgreSQL runs as a user of its own
        wanted = {arguments.only} if arguments.only else set(PARTS)
        if "rates" in wanted:
            rates(pathlib.Path(folder), arguments.runs, arguments.jobs, arguments.threads)
        if wanted - {"rates"}:
            costs(pathlib.Path(folder), wanted, arguments.in_flight)


if __name__ == "__main__":
    main()
