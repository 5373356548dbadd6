# SPDX-License-Identifier: Apache-2.0
"""What only separate processes show: one of them is away, or killed, or there are two."""

import pathlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests import shapes
from tests.functional import faulty
from tests.functional.conftest import soon
from tests.person import Person
from tests.sandbox import distributed, processes, sandbox, servers

QUICK = {("staging", "keep_free"): "0", ("engine", "retry_delay"): "0.2"}
NO_POLL = {**QUICK, ("engine", "poll_interval"): "3600"}
Start = Callable[..., tuple[distributed.Distributed, Person]]


@pytest.fixture
def start(
    request: pytest.FixtureRequest, cloud: sandbox.Sandbox, tmp_path: pathlib.Path
) -> Iterator[Start]:
    """Starts a service of a shape with options of its own; and its member."""
    made: list[distributed.Distributed] = []

    def starter(
        shape: str = "distributed", options: dict[tuple[str, str], str] | None = None
    ) -> tuple[distributed.Distributed, Person]:
        port = processes.free_block(str(tmp_path))
        service = shapes.make(shape, request.getfixturevalue)(cloud, tmp_path, options or QUICK, port=port)
        assert isinstance(service, distributed.Distributed)
        made.append(service)
        service.start()
        return service, Person(cloud, "member", service.url)

    yield starter
    for service in made:
        service.stop()


@pytest.fixture
def broker(rabbitmq: servers.RabbitMQ) -> Iterator[servers.RabbitMQ]:
    """The broker, which a test may stop."""
    yield rabbitmq
    rabbitmq.start()


@pytest.fixture
def slow(cloud: sandbox.Sandbox, qcow2: pathlib.Path) -> Iterator[faulty.Proxy]:
    """A zone to which the image takes six seconds."""
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-slow"):
        proxy.throttle = qcow2.stat().st_size / 6
        yield proxy


def uploading(member: Person, job_id: str) -> bool:
    target = member.job(job_id)["targets"][0]
    return bool(target["step"] == "upload" and target["bytes_done"])


def test_a_job_waits_for_an_engine(start: Start, qcow2: pathlib.Path) -> None:
    service, member = start()
    assert service.engine.stop()
    assert service.engine.status == 0
    made = member.create(clouds=["zone-a", "zone-b"])
    assert member.put(made["image"]["id"], qcow2.read_bytes()).status_code == 204
    assert member.job(made["job"]["id"])["status"] == "queued"
    assert member.image(made["image"]["id"])["status"] == "pending"
    service.start_engine()
    assert member.wait(made["job"]["id"])["status"] == "success"


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
    assert member.wait(made["job"]["id"])["status"] == "success"


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
