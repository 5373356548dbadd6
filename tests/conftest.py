# SPDX-License-Identifier: Apache-2.0
"""The real services that contract and functional tests share: started once, stopped at the end."""

import os
import pathlib
from collections.abc import Iterator

import pytest

from tests import shapes
from tests.person import Person
from tests.sandbox import ciming, coordination, disk, sandbox, servers

SHAPES = os.environ.get("CIMING_TEST_SHAPE", "").split() or shapes.wanted()
Shape = shapes.Shape
TOLD = "told"
"""The property of a test in which it says what is to be in the log, also when it passes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, unless all is wanted, what says so; and of a second shape what does not ask for it."""
    if "CIMING_TEST_ALL" in os.environ:
        return

    def left_out(item: pytest.Item) -> bool:
        case = getattr(item, "callspec", None)
        again = case is not None and case.params.get("shape") not in (None, "standalone")
        marked = item.get_closest_marker
        return marked("with_all") is not None or (again and marked("every_shape") is None)

    config.hook.pytest_deselected(items=[item for item in items if left_out(item)])
    items[:] = [item for item in items if not left_out(item)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == TOLD and report.when == "call":
                terminalreporter.write_line(f"\n{text}")


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RabbitMQ]:
    with servers.RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.PostgreSQL]:
    with servers.PostgreSQL(tmp_path_factory.mktemp("postgresql")) as running:
        yield running


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MariaDB]:
    with servers.MariaDB(tmp_path_factory.mktemp("mariadb")) as running:
        yield running


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[coordination.Etcd]:
    with coordination.Etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[coordination.Redis]:
    with coordination.Redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """A Keystone with two zones."""
    made = sandbox.Sandbox(tmp_path_factory.mktemp("sandbox"))
    with made:
        yield made


@pytest.fixture(scope="session")
def member(cloud: sandbox.Sandbox) -> Person:
    return Person(cloud, "member")


@pytest.fixture(scope="session")
def reader(cloud: sandbox.Sandbox) -> Person:
    return Person(cloud, "reader")


@pytest.fixture(scope="session")
def stranger(cloud: sandbox.Sandbox) -> Person:
    return Person(cloud, "stranger")


@pytest.fixture(scope="session")
def admin(cloud: sandbox.Sandbox) -> Person:
    return Person(cloud, "admin")


@pytest.fixture(scope="session", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    """How CIMinG runs: every test of it is done in each of these shapes."""
    return shapes.make(request.param, request.getfixturevalue)


@pytest.fixture(scope="session")
def service(
    cloud: sandbox.Sandbox, member: Person, shape: Shape, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ciming.Ciming]:
    """CIMinG, as an operator would run it, but quicker to try again."""
    options = {
        ("engine", "retry_delay"): "0.2",
        ("engine", "max_attempts"): "5",
        ("staging", "keep_free"): "0",
        ("staging", "max_virtual_size"): str(64 << 40),     # what the corpus counts on
    }
    with shape(cloud, tmp_path_factory.mktemp("ciming"), options) as running:
        yield running
    member.take_trusts_back()       # of uploads that nobody waits for any more


@pytest.fixture(scope="session")
def qcow2(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small but real disk image."""
    return disk.make(tmp_path_factory.mktemp("disk") / "disk.qcow2", size=32 << 20, data=4 << 20)
