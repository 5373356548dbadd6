# SPDX-License-Identifier: Apache-2.0
"""What only separate processes show: one of them is away, or killed, or there are two."""

import contextlib
import pathlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import cast

import amqp
import psutil
import pytest
import requests
import sqlalchemy as sa

from ciming import rpc
from tests import shapes
from tests.functional import faulty, tus
from tests.functional.conftest import soon
from tests.person import Person
from tests.sandbox import distributed, processes, sandbox, seed, servers

QUICK = {("staging", "keep_free"): "0", ("engine", "retry_delay"): "0.2"}
NO_POLL = {**QUICK, ("engine", "poll_interval"): "3600"}
Start = Callable[..., tuple[distributed.Distributed, Person]]


@pytest.fixture
def start(
    request: pytest.FixtureRequest,
    cloud: sandbox.Sandbox,
    broker: servers.RabbitMQ,
    tmp_path: pathlib.Path,
) -> Iterator[Start]:
    """Starts a service of a shape with options of its own; and its member."""
    made: list[distributed.Distributed] = []

    def server(name: str) -> servers.Server:
        return broker if name == "rabbitmq" else cast(servers.Server, request.getfixturevalue(name))

    def starter(
        shape: str = "distributed", options: dict[tuple[str, str], str] | None = None
    ) -> tuple[distributed.Distributed, Person]:
        port = processes.free_block(str(tmp_path))
        service = shapes.make(shape, server)(cloud, tmp_path, options or QUICK, port=port)
        assert isinstance(service, distributed.Distributed)
        made.append(service)
        service.start()
        return service, Person(cloud, "member", service.url)

    yield starter
    for service in made:
        service.stop()


@pytest.fixture
def slow(cloud: sandbox.Sandbox, qcow2: pathlib.Path) -> Iterator[faulty.Proxy]:
    """A zone to which the image takes a minute."""
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-slow"):
        proxy.throttle = qcow2.stat().st_size / 60
        yield proxy


def uploading(member: Person, job_id: str) -> bool:
    return bool(member.job(job_id)["targets"][0]["step"] == "upload")


def test_a_job_waits_for_an_engine(start: Start, qcow2: pathlib.Path) -> None:
    service, member = start()
    assert service.engine.stop()
    assert service.engine.status == 0
    before = [trust["id"] for trust in member.trusts()]
    made = member.create(clouds=["zone-a", "zone-b"])
    assert member.put(made["image"]["id"], qcow2.read_bytes()).status_code == 204
    assert member.job(made["job"]["id"])["status"] == "queued"
    [trust] = [trust for trust in member.trusts() if trust["id"] not in before]
    assert trust["trustee_user_id"] == member.cloud.admin.ids("user")[seed.ENGINE]
    assert member.image(made["image"]["id"])["status"] == "pending"
    service.start_engine()
    assert member.wait(made["job"]["id"])["status"] == "success"


def test_cancel_while_no_engine_runs(start: Start, qcow2: pathlib.Path) -> None:
    service, member = start()
    assert service.engine.stop()
    made = member.create(clouds=["zone-a", "zone-b"])
    assert member.put(made["image"]["id"], qcow2.read_bytes()).status_code == 204
    url = f"/v1/jobs/{made['job']['id']}"
    for _ in range(2):
        job = member.call("POST", f"{url}/cancel").json()
        assert (job["status"], job["wanted"]) == ("queued", "cancel")
    assert member.call("POST", f"{url}/retry").status_code == 409
    service.start_engine()
    job = member.wait(made["job"]["id"])
    assert (job["status"], {target["status"] for target in job["targets"]}) == ("cancelled", {"cancelled"})
    assert {target["attempts"] for target in job["targets"]} == {0}
    assert not (service.staging_dir / job["id"]).exists()


@contextlib.contextmanager
def between_trust_and_job(
    service: distributed.Distributed, member: Person
) -> Iterator[futures.Future[requests.Response]]:
    """A create whose trust Keystone has made, and whose rows can not be written as long as this lasts."""
    before = len(member.trusts())
    with futures.ThreadPoolExecutor() as pool, sql(service) as holding:
        holding.execute(sa.text("LOCK TABLE jobs IN EXCLUSIVE MODE"))
        body = {"name": "t", "clouds": ["zone-a"]}
        answer = pool.submit(member.call, "POST", "/v1/images", json=body)
        soon(lambda: len(member.trusts()) == before + 1)
        yield answer
        holding.rollback()


@contextlib.contextmanager
def sql(service: distributed.Distributed) -> Iterator[sa.Connection]:
    engine = sa.create_engine(service.database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def a_minute_passes(service: distributed.Distributed) -> None:
    """For trusts that are on their way."""
    with sql(service) as connection:
        aged = connection.execute(sa.text("UPDATE pending_trusts SET created_at = created_at - 60000"))
        assert aged.rowcount == 1
        connection.commit()


def pending_trusts(service: distributed.Distributed) -> int:
    with sql(service) as connection:
        return int(connection.scalar(sa.text("SELECT count(*) FROM pending_trusts")) or 0)


def test_the_api_dies_between_the_trust_and_its_job(start: Start) -> None:
    """Housekeeping finds the trust, and only that one."""
    service, member = start(options={**QUICK, ("engine", "housekeeping_interval"): "0.2"})
    kept = member.create()["job"]["id"]
    before = member.trusts()
    with between_trust_and_job(service, member) as answer:
        service.api.kill()
        with pytest.raises(requests.ConnectionError):
            answer.result(timeout=30)
    assert len(member.trusts()) == len(before) + 1
    a_minute_passes(service)
    soon(lambda: member.trusts() == before)
    soon(lambda: pending_trusts(service) == 0)
    service.start_api()
    assert [job["id"] for job in member.get("/v1/jobs").json()["jobs"]] == [kept]
    assert member.call("POST", f"/v1/jobs/{kept}/cancel").status_code == 202
    assert member.wait(kept)["status"] == "cancelled"


def test_an_api_that_sleeps_between_the_trust_and_its_job(start: Start) -> None:
    """It was taken for dead, so its Job comes too late: the user is told to try again."""
    service, member = start(options={**QUICK, ("engine", "housekeeping_interval"): "0.2"})
    before = member.trusts()
    with between_trust_and_job(service, member) as answer:
        a_minute_passes(service)
        soon(lambda: member.trusts() == before)
    assert answer.result(timeout=30).status_code == 503
    assert member.get("/v1/jobs").json()["jobs"] == []
    soon(lambda: pending_trusts(service) == 0)
    assert member.call("POST", f"/v1/jobs/{member.create()['job']['id']}/cancel").status_code == 202
    soon(lambda: member.trusts() == before)


def test_api_and_engine_do_not_know_each_others_password(start: Start) -> None:
    service, member = start()
    api, engine = (file.read_text() for file in service.config_files)
    passwords = member.cloud.state.passwords
    assert passwords["ciming"] in api and passwords["ciming"] not in engine
    assert passwords[seed.ENGINE] in engine and passwords[seed.ENGINE] not in api


def test_queues_are_quorum_queues(start: Start, broker: servers.RabbitMQ) -> None:
    """The broker refuses to declare a queue again that is of another type."""
    start()
    host = socket.gethostname()
    for name in (rpc.TOPIC, f"{rpc.TOPIC}.{host}"):
        for kind in ("quorum", "classic"):
            address = f"{processes.HOST}:{broker.port}"
            with amqp.Connection(address, servers.USER, broker.password) as connection:
                refused = pytest.raises(amqp.PreconditionFailed)
                with refused if kind == "classic" else contextlib.nullcontext():
                    connection.channel().queue_declare(
                        name, durable=True, auto_delete=False, arguments={"x-queue-type": kind}
                    )


def test_a_knock_arrives(start: Start, broker: servers.RabbitMQ, qcow2: pathlib.Path) -> None:
    """No poll helps here; and after the broker was killed, both sides find it again."""
    _service, member = start(options=NO_POLL)
    assert member.bring(qcow2)["status"] == "success"
    broker.kill()
    broker.start()
    assert member.bring(qcow2)["status"] == "success"


def test_a_broker_that_is_away_stops_nothing(
    start: Start, broker: servers.RabbitMQ, qcow2: pathlib.Path
) -> None:
    service, member = start()
    broker.stop()
    for _ in range(2):
        made = member.create()
        began = time.monotonic()
        assert member.put(made["image"]["id"], qcow2.read_bytes()).status_code == 204
        assert time.monotonic() - began < 3, "the request waited for the broker"
        assert member.wait(made["job"]["id"])["status"] == "success"
        # What is started now finds no broker either.
        assert service.engine.stop() and service.engine.status == 0
        assert service.api.stop()
        service.start_engine()
        service.start_api()


def test_an_engine_dies(
    start: Start, slow: faulty.Proxy, cloud: sandbox.Sandbox, qcow2: pathlib.Path
) -> None:
    """The API serves on; another engine, that was there already, goes on with the Job."""
    service, _ = start()
    member = Person(cloud, "member", service.url)
    made = member.create(clouds=["zone-slow"])
    member.put(made["image"]["id"], qcow2.read_bytes())
    soon(lambda: uploading(member, made["job"]["id"]))
    service.start_second_engine()
    service.engine.kill()
    assert member.job(made["job"]["id"])["status"] == "running"
    assert member.bring(qcow2)["status"] == "success"
    slow.throttle = None
    assert member.wait(made["job"]["id"])["status"] == "success"


def test_the_api_dies(
    start: Start, slow: faulty.Proxy, cloud: sandbox.Sandbox, qcow2: pathlib.Path
) -> None:
    """Its workers die with it; the engine goes on."""
    service, _ = start()
    member = Person(cloud, "member", service.url)
    made = member.create(clouds=["zone-slow"])
    member.put(made["image"]["id"], qcow2.read_bytes())
    soon(lambda: uploading(member, made["job"]["id"]))
    service.api.kill()
    soon(lambda: processes.free(service.port), 3)
    service.start_api()
    slow.throttle = None
    assert member.wait(made["job"]["id"])["status"] == "success"


def test_two_processes_serve_one_upload(start: Start, qcow2: pathlib.Path) -> None:
    """Each a part, because the other one is stopped at that moment."""
    service, member = start()
    data = qcow2.read_bytes()
    image_id, job_id = tus.create(member, data)
    workers = psutil.Process(service.api.pid).children()
    assert len(workers) == 2
    step = len(data) // 4 + 1
    for number, at in enumerate(range(0, len(data), step)):
        workers[number % 2].suspend()
        try:
            answer = tus.patch(member, image_id, at, data[at : at + step])
        finally:
            workers[number % 2].resume()
        assert answer.status_code == 204, answer.text
    tus.arrived(member, image_id, job_id, data)


@pytest.mark.skipif("uwsgi" in shapes.wanted(), reason="all tests are run in this shape")
def test_uwsgi_and_mariadb(start: Start, qcow2: pathlib.Path) -> None:
    """With length and without, whole and cut; lists, errors."""
    service, member = start("uwsgi")
    data = qcow2.read_bytes()
    made = member.create(name="Débian ☃", clouds=["zone-a", "zone-b"], size=len(data))
    image_id = made["image"]["id"]
    for wrong in (data[:-1], iter([data[:-1]])):
        answer = member.put(image_id, wrong)
        assert answer.status_code == 400 and "upload.size_mismatch" in answer.text
    assert member.put(image_id, faulty.slowly(data, seconds=3)).status_code == 204
    assert member.wait(made["job"]["id"])["status"] == "success"
    assert member.bring(qcow2)["status"] == "success"
    [found] = member.get("/v1/images", params={"name": "Débian ☃"}).json()["images"]
    assert found["id"] == image_id and len(found["links"]) == 2
    assert member.get("/v1/images", params={"name": "débian ☃"}).json()["images"] == []
    assert member.get("/v1/images/nonsense").status_code == 400
    service.kill()
    soon(lambda: processes.free(service.port), 5)
    service.start()
    assert member.image(image_id)["status"] == "active"
