# SPDX-License-Identifier: Apache-2.0
"""What is counted of what transfers say, and how it is served."""

import socket
import urllib.request
from collections.abc import Iterator

import pytest
from oslo_config import cfg

from ciming import exceptions, metrics
from ciming.db import models
from tests.unit import rows


def target(**values: object) -> models.Target:
    return models.Target(
        **{"provider": "openstack", "cloud": "zone-a", "cloud_key": "zone-a", "region": "zone-a"}
        | {"bytes_done": 0, **values}
    )


def sent() -> float:
    """Bytes so far; of this figure alone, others ask the database."""
    [counter] = metrics.BYTES.collect()
    return sum(sample.value for sample in counter.samples if sample.name.endswith("_total"))


@pytest.mark.parametrize(
    ("before", "positions", "counted"),
    [
        (0, (0, 10, 10, 30), 30),
        (0, (10, 20, 0, 5, 20), 40),         # all of it again
        (20, (20, 30), 10),                  # goes on where another engine was
        (20, (0, 10), 10),                   # begins again after another engine
        (0, (100, 40, 60), 120),             # again from a part that is known to be there
    ],
)
def test_bytes(before: int, positions: tuple[int, ...], counted: int) -> None:
    at_first = sent()
    meter = metrics.Meter(target(bytes_done=before))
    for position in positions:
        meter.reached(position)
    assert sent() - at_first == counted


def test_only_zones_have_a_name() -> None:
    """Users register Clouds of any names: labels of those would be without number."""
    assert metrics.place(target()) == "zone-a"
    assert metrics.place(target(cloud="mine", cloud_key=models.new_id())) == "other"
    assert metrics.place(target(provider="aws", cloud="eu", cloud_key="eu", region="eu")) == "other"


@pytest.fixture
def port(conf: cfg.ConfigOpts) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        number = int(found.getsockname()[1])
    conf.set_override("bind_port", number, group="metrics")
    yield number
    conf.clear_override("bind_port", group="metrics")


def test_off_by_default(conf: cfg.ConfigOpts) -> None:
    assert metrics.listen() is None
    metrics.serve(None)


def test_a_taken_port_is_said(conf: cfg.ConfigOpts, port: int) -> None:
    taken = pytest.raises(exceptions.NotReady, match=rf"\[metrics\] 127\.0\.0\.1 port {port} .*in use")
    with socket.create_server(("127.0.0.1", port)), taken:
        metrics.listen()


def test_no_such_address(conf: cfg.ConfigOpts, port: int) -> None:
    conf.set_override("bind_host", "192.0.2.1", group="metrics")
    try:
        with pytest.raises(exceptions.NotReady, match=r"192\.0\.2\.1"):
            metrics.listen()
    finally:
        conf.clear_override("bind_host", group="metrics")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_database_that_is_away_hides_nothing_else(
    conf: cfg.ConfigOpts, database: rows.Database, port: int, host: str
) -> None:
    conf.set_override("bind_host", host, group="metrics")
    try:
        rows.make_job()
        metrics.serve(metrics.listen())
        url = f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        assert "ciming_database_up 1.0" in text and 'ciming_jobs{status="queued"} 1.0' in text
        assert 'ciming_jobs{status="waiting-credentials"} 0.0' in text
        database.take_away()
        with urllib.request.urlopen(url, timeout=60) as answer:
            text = answer.read().decode()
        assert "ciming_database_up 0.0" in text and "ciming_jobs{" not in text
        assert "ciming_engine_jobs" in text and "process_cpu_seconds_total" in text
        assert "_created" not in text
    finally:
        conf.clear_override("bind_host", group="metrics")
