# SPDX-License-Identifier: Apache-2.0
"""Several engines, one truth: one is killed, sleeps, is cut off, or loses its lock, and the Job ends well.

A row is a database and the kind of coordination service by which the engines live.
"""

import itertools
import os
import pathlib
import re
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa

from tests import liveness
from tests.functional import faulty
from tests.functional.conftest import assert_nothing_left, soon
from tests.person import JSON, Person
from tests.sandbox import ciming, distributed, link, processes, programs, sandbox, servers

TTL = 3
OPTIONS = {
    ("staging", "keep_free"): "0",
    ("engine", "retry_delay"): "0.2",
    ("engine", "poll_interval"): "0.5",
    ("engine", "coordination_ttl"): str(TTL),
}
SECONDS = 12.0      # that an upload to the slow zone takes: most of it is still on our side for half of them
Row = tuple[str, str]
ALL = list(itertools.product(("postgresql", "mariadb"), ("file", "database", "etcd", "redis")))
EXPIRING = [row for row in ALL if row[1] != "file"]


def rows(all_rows: list[Row], *some: Row) -> pytest.MarkDecorator:
    """Some rows, or all of them."""
    wanted = all_rows if "CIMING_TEST_ALL" in os.environ else some
    return pytest.mark.parametrize("row", wanted, ids="-".join, indirect=True)


class Fleet:
    """A service whose engines are started one by one."""

    def __init__(self, service: distributed.Distributed, lives_by: liveness.Service) -> None:
        self.service = service
        self.lives_by = lives_by
        self._numbers = itertools.count(1)
        self._engines: list[Engine] = []

    def engine(self, options: ciming.Options | None = None) -> "Engine":
        """Start another engine."""
        name = f"engine-{next(self._numbers)}"
        lives_by = {("engine", "coordination_url"): self.lives_by.url}
        made = self.service.add_engine(name, {**lives_by, **(options or {})})
        self._engines.append(Engine(made, self.service.log_dir / f"{name}.log"))
        return self._engines[-1]

    def stop(self) -> None:
        for engine in self._engines:
            engine.signal(signal.SIGCONT)
            engine.program.stop()
        self._engines.clear()

    def everything(self) -> dict[str, list[Any]]:
        """All that the database says of Jobs."""
        engine = sa.create_engine(self.service.database_url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            found = {}
            for name in ("jobs", "targets", "links", "images"):
                table = sa.Table(name, sa.MetaData(), autoload_with=connection)
                found[name] = sorted(map(repr, connection.execute(table.select())))
            return found


class Engine:
    def __init__(self, program: programs.Program, log: pathlib.Path) -> None:
        self.program = program
        self._log = log

    def signal(self, signum: signal.Signals) -> None:
        if self.program.pid is not None:
            os.kill(self.program.pid, signum)

    def said(self, pattern: str) -> bool:
        return re.search(pattern, self._log.read_text()) is not None

    def said_of(self, job: JSON, words: str = "") -> bool:
        return self.said(rf"\[job {job['id']}\] {words}")

    @property
    def name(self) -> str:
        """The one that it has now."""
        names = r"Engine (?:\S+ goes on as )?([0-9a-f-]{36})(?: started|$)"
        return str(re.findall(names, self._log.read_text(), re.M)[-1])


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RabbitMQ]:
    """One of our own: other services' engines would hear the knocks, and a test starts it again."""
    with servers.RabbitMQ(tmp_path_factory.mktemp("engines-rabbitmq")) as running:
        yield running


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    return cast(Row, request.param)


@pytest.fixture(scope="module")
def _fleets() -> Iterator[dict[Row, Fleet]]:
    made: dict[Row, Fleet] = {}
    yield made
    for fleet in made.values():
        fleet.service.stop()


@pytest.fixture
def fleet(
    request: pytest.FixtureRequest,
    row: Row,
    cloud: sandbox.Sandbox,
    broker: servers.RabbitMQ,
    tmp_path_factory: pytest.TempPathFactory,
    _fleets: dict[Row, Fleet],
) -> Iterator[Fleet]:
    """The API of a row; its engines are the test's."""
    if row not in _fleets:
        kind, way = row
        database = cast(servers.Database, request.getfixturevalue(kind))
        folder = tmp_path_factory.mktemp("-".join(row))
        port = processes.free_block(str(folder))
        service = distributed.Distributed(cloud, folder, OPTIONS, broker=broker, database=database, port=port)
        if way == "database":
            lives_by = liveness.KINDS[kind](database, service.database_url)
        else:
            where = folder / "locks" if way == "file" else request.getfixturevalue(way)
            lives_by = liveness.KINDS[way](where)
        _fleets[row] = Fleet(service, lives_by)
    found = _fleets[row]
    found.service.start_without_engine()
    yield found
    found.stop()


@pytest.fixture
def raw(tmp_path: pathlib.Path, data: bytes) -> pathlib.Path:
    file = tmp_path / "disk.raw"
    file.write_bytes(data)
    return file


@pytest.fixture
def slow(cloud: sandbox.Sandbox, data: bytes) -> Iterator[faulty.Proxy]:
    """A zone that takes its time."""
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-slow"):
        proxy.throttle = len(data) / SECONDS
        yield proxy


@pytest.fixture
def member(slow: faulty.Proxy, cloud: sandbox.Sandbox, fleet: Fleet) -> Iterator[Person]:
    """Logged in when there is the slow zone; at the end, nothing is left over of what was done."""
    since = datetime.now(UTC) - timedelta(seconds=2)
    found = Person(cloud, "member", fleet.service.url)
    yield found
    assert_nothing_left(fleet.service, found, since)


@pytest.fixture
def begin(member: Person, slow: faulty.Proxy, data: bytes) -> Callable[[], JSON]:
    """Starts a Job, and returns it in the middle of its upload to the slow zone."""

    def job() -> JSON:
        made = member.create(clouds=["zone-a", "zone-slow"], disk_format="raw", size=len(data))
        assert member.put(made["image"]["id"], data).status_code == 204
        soon(lambda: to_slow(member.job(made["job"]["id"]))["bytes_done"] >= 1 << 20, 30)
        return cast(JSON, made["job"])

    return job


def to_slow(job: JSON) -> JSON:
    [target] = [each for each in job["targets"] if each["cloud"] == "zone-slow"]
    return cast(JSON, target)


def ended_well(member: Person, job: JSON, seconds: float = 90) -> JSON:
    """The Job, when it has succeeded; and there is one copy in each zone, the one that is linked."""
    ended = member.wait(job["id"], seconds=seconds)
    assert ended["status"] == "success", ended
    for zone, target in zip(("zone-a", "zone-b"), ended["targets"], strict=True):
        assert copies(member, zone, ended["image_id"]) == [(target["image_ref"], "active")]
    return ended


def copies(member: Person, zone: str, image_id: str) -> list[tuple[str, str]]:
    """Ids and status of all that was made of an Image in a zone."""
    found = member.zone(zone).image.images()
    return [(each.id, each.status) for each in found if each.properties.get("ciming_image") == image_id]


@rows(ALL, ("postgresql", "database"), ("mariadb", "redis"))
def test_one_is_killed(
    row: Row, fleet: Fleet, begin: Callable[[], JSON], member: Person, slow: faulty.Proxy
) -> None:
    first = fleet.engine()
    job = begin()
    second = fleet.engine()
    first.program.kill()
    slow.throttle = None
    seconds = TTL * 2 if row[1] in ("etcd", "redis") else 3
    soon(lambda: second.said_of(job, "Claimed from"), seconds + 2)    # 2: this machine is busy
    ended_well(member, job)


@rows(EXPIRING, ("mariadb", "redis"))
def test_one_sleeps_in_an_upload(
    fleet: Fleet, begin: Callable[[], JSON], member: Person, slow: faulty.Proxy
) -> None:
    """The other finishes meanwhile. The one that wakes can write nothing, and undoes nothing."""
    first = fleet.engine()
    job = begin()
    fleet.engine()
    first.signal(signal.SIGSTOP)
    slow.throttle = None
    ended_well(member, job, seconds=120)
    before, requests = fleet.everything(), len(slow.seen)
    first.signal(signal.SIGCONT)
    soon(lambda: first.said("lost its lock") and first.said_of(job, "Not handed back"))
    soon(lambda: first.said("goes on as"))
    assert fleet.everything() == before
    assert not [seen for seen in slow.seen[requests:] if seen[0] not in ("GET", "PUT")]
    ended_well(member, job)


@rows(EXPIRING, ("postgresql", "etcd"))
def test_one_sleeps_in_a_revert(
    cloud: sandbox.Sandbox, fleet: Fleet, member: Person, slow: faulty.Proxy, data: bytes
) -> None:
    """The other reverts instead; the one that wakes deletes nothing more."""
    first = fleet.engine({("engine", "max_attempts"): "30"})
    slow.throttle = None
    slow.faults = [("PUT", "/file", "corrupt"), *([("DELETE", "/images", "503")] * 30)]
    made = member.create(clouds=["zone-slow"], disk_format="raw", size=len(data))
    assert member.put(made["image"]["id"], data).status_code == 204
    soon(lambda: len(slow.faults) < 29, 30)     # it was refused, and tries again
    first.signal(signal.SIGSTOP)
    assert len(slow.faults) > 10
    slow.faults.clear()
    fleet.engine()
    ended = member.wait(made["job"]["id"])
    assert ended["targets"][0]["error"]["code"] == "image.hash_mismatch"
    assert not copies(member, "zone-b", made["image"]["id"])
    before, requests = fleet.everything(), len(slow.seen)
    first.signal(signal.SIGCONT)
    soon(lambda: first.said_of(ended, "Not handed back") and first.said("goes on as"))
    assert fleet.everything() == before
    assert not [seen for seen in slow.seen[requests:] if seen[0] == "DELETE"]


@rows([("postgresql", "database"), ("mariadb", "database")], ("postgresql", "database"))
@pytest.mark.parametrize("how", ["cut", "silence"])
def test_one_is_cut_off(
    fleet: Fleet, begin: Callable[[], JSON], member: Person, slow: faulty.Proxy, raw: pathlib.Path, how: str
) -> None:
    """From the database: its uploads end and another engine goes on. Later it works again by itself."""
    service = fleet.service
    with link.Link(service.database.port) as network:
        away = network.url(service.database_url)
        lives_by = ("engine", "coordination_url")
        first = fleet.engine({("database", "connection"): away, lives_by: "${database.connection}"})
        job = begin()
        second = fleet.engine()
        getattr(network, how)()
        slow.throttle = None
        soon(lambda: second.said_of(job, "Claimed from"), 90)    # a transaction may be open: 30 s
        ended_well(member, job, seconds=120)
        second.program.stop()
        network.mend()
        assert member.bring(raw, clouds=["zone-a"], disk_format="raw")["status"] == "success"
        first.program.stop()
        assert first.program.status == 0


@rows([row for row in ALL if row[1] in ("etcd", "redis")], ("postgresql", "etcd"))
def test_one_is_cut_off_from_the_database_alone(
    fleet: Fleet, begin: Callable[[], JSON], member: Person, slow: faulty.Proxy
) -> None:
    """It lives, so nobody takes its Job; it goes on with it when it can."""
    service = fleet.service
    with link.Link(service.database.port) as network:
        first = fleet.engine({("database", "connection"): network.url(service.database_url)})
        job = begin()
        second = fleet.engine()
        network.cut()
        soon(lambda: first.said_of(job, "Not handed back"), 30)
        slow.throttle = None
        network.mend()
        ended_well(member, job)
        assert not second.said_of(job)
        assert first.program.running


@rows(ALL, ("postgresql", "database"))
def test_one_loses_its_lock(fleet: Fleet, begin: Callable[[], JSON], member: Person) -> None:
    """It gives its Job up, takes another name, and goes on with it."""
    first = fleet.engine()
    job, former = begin(), first.name
    fleet.lives_by.free(former)
    soon(lambda: first.said("goes on as"), TTL * 2)
    assert first.name != former
    ended_well(member, job)
    assert first.said_of(job, "Interrupted") and first.program.running


@rows([row for row in ALL if row[1] in ("etcd", "redis")], ("mariadb", "redis"))
def test_the_coordination_service_is_away(
    fleet: Fleet, begin: Callable[[], JSON], member: Person, raw: pathlib.Path
) -> None:
    """What runs goes on, what comes waits, and the log says so once."""
    first = fleet.engine()
    job = begin()
    server = fleet.lives_by.server
    assert server is not None
    server.kill()
    try:
        soon(lambda: first.said("The coordination service can not be asked"), TTL * 2)
        ended_well(member, job)
        waits = member.create(clouds=["zone-a"], disk_format="raw")
        assert member.put(waits["image"]["id"], raw.read_bytes()).status_code == 204
        assert member.job(waits["job"]["id"])["status"] == "queued"
    finally:
        server.start()
    assert member.wait(waits["job"]["id"])["status"] == "success"
    assert first.program.running


@rows([("postgresql", "database"), ("mariadb", "database")], ("postgresql", "database"))
@pytest.mark.parametrize("which", ["broker", "database"])
def test_a_server_is_started_again(
    fleet: Fleet, begin: Callable[[], JSON], member: Person, which: str
) -> None:
    """In the middle of a Job, with two engines: it ends well, and both live."""
    both = [fleet.engine(), fleet.engine()]
    job = begin()
    server = fleet.service.broker if which == "broker" else fleet.service.database
    server.kill()
    server.start()
    ended_well(member, job)
    assert all(engine.program.running for engine in both)


@rows([("postgresql", "file"), ("mariadb", "file")], ("postgresql", "file"))
def test_hosts_with_local_folders_leave_each_others_jobs_alone(
    fleet: Fleet, begin: Callable[[], JSON], member: Person, slow: faulty.Proxy, tmp_path: pathlib.Path
) -> None:
    """By mistake: one that can not judge the other, and one that does not even have the bytes."""
    here = fleet.engine()
    job = begin()
    elsewhere = {("engine", "coordination_url"): f"file://{tmp_path}/locks"}
    strangers = [fleet.engine(elsewhere), fleet.engine({("staging", "path"): str(tmp_path / "staging")})]
    here.program.kill()
    slow.throttle = None
    generation = fleet.everything()["jobs"]
    with pytest.raises(AssertionError):
        soon(lambda: any(engine.said_of(job) for engine in strangers), 5)
    assert fleet.everything()["jobs"] == generation
    fleet.engine()
    ended_well(member, job)
