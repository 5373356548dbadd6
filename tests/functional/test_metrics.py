# SPDX-License-Identifier: Apache-2.0
"""What Prometheus gets of a real run, before and after a crash in the middle of it."""

import pathlib
from collections.abc import Callable

import pytest
import requests
from prometheus_client import parser

from tests.functional import faulty
from tests.functional.conftest import soon
from tests.person import Person
from tests.sandbox import ciming, distributed, processes, sandbox

Another = Callable[..., tuple[ciming.Ciming, Person]]


class Scraper:
    """Asks again each time; what there is not counts as 0."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.port = processes.free_block(f"{folder} metrics")
        self.options = {("metrics", "bind_port"): str(self.port), ("engine", "retry_delay"): "0.2"}

    def value(self, name: str, **labels: str) -> float:
        answer = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=30)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        for family in parser.text_string_to_metric_families(answer.text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0


@pytest.fixture
def scraper(tmp_path: pathlib.Path) -> Scraper:
    return Scraper(tmp_path)


def test_a_run(another: Another, scraper: Scraper, cloud: sandbox.Sandbox, qcow2: pathlib.Path) -> None:
    service, member = another(scraper.options)
    value = scraper.value
    assert (value("ciming_database_up"), value("ciming_jobs", status="running")) == (1, 0)
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-slow"):
        proxy.faults.append(("PUT", "/file", "503"))
        proxy.throttle = qcow2.stat().st_size / 6
        made = member.create(clouds=["zone-a", "zone-slow"])["job"]
        assert value("ciming_jobs", status="uploading") == 1
        member.put(made["image_id"], qcow2.read_bytes())
        soon(lambda: value("ciming_engine_jobs") == 1 and value("ciming_jobs", status="running") == 1)
        assert member.wait(made["id"])["status"] == "success"
    wrong = member.create(disk_format="vmdk")
    member.put(wrong["image"]["id"], qcow2.read_bytes())
    assert member.wait(wrong["job"]["id"])["status"] == "error"

    soon(lambda: value("ciming_engine_jobs") == 0)
    for status, count in {"success": 1, "error": 1, "running": 0, "uploading": 0}.items():
        assert value("ciming_jobs", status=status) == count
    size = qcow2.stat().st_size
    assert value("ciming_uploaded_bytes_total", provider="openstack", cloud="zone-a") == size
    assert size <= value("ciming_uploaded_bytes_total", provider="openstack", cloud="zone-slow") <= 2 * size
    for outcome, count in {"success": 1, "retry": 1, "error": 0}.items():
        attempts = value("ciming_attempts_total", step="upload", cloud="zone-slow", outcome=outcome)
        assert attempts == count, outcome
    assert value("ciming_attempts_total", step="inspect", cloud="", outcome="error") == 1
    for zone in ("zone-a", "zone-slow"):
        assert value("ciming_targets_total", provider="openstack", cloud=zone, status="success") == 1
    assert value("ciming_targets_total", provider="openstack", cloud="zone-a", status="error") == 1
    ended = {"provider": "openstack", "status": "success"}
    assert value("ciming_target_duration_seconds_count", **ended) == 2
    assert value("ciming_job_duration_seconds_count", kind="create", status="success") == 1
    assert value("ciming_job_duration_seconds_count", kind="create", status="error") == 1
    assert value("ciming_job_duration_seconds_sum", kind="create", status="success") > 5
    assert value("ciming_queue_age_seconds") == value("ciming_takeovers_total") == 0
    assert value("process_resident_memory_bytes") > 1 << 20
    if isinstance(service, distributed.Distributed):
        waits = member.create()
        service.engine.stop()
        member.put(waits["image"]["id"], qcow2.read_bytes())
        with pytest.raises(requests.ConnectionError):
            value("ciming_queue_age_seconds")
        service.start_engine()
        member.wait(waits["job"]["id"])


def test_a_takeover(another: Another, scraper: Scraper, cloud: sandbox.Sandbox, qcow2: pathlib.Path) -> None:
    """The port is free at once for who comes after; what the dead one had is not lost from the rows."""
    service, member = another(scraper.options)
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-slow"):
        proxy.throttle = qcow2.stat().st_size / 60
        made = member.create(clouds=["zone-slow"])["job"]
        member.put(made["image_id"], qcow2.read_bytes())
        soon(lambda: member.job(made["id"])["targets"][0]["step"] == "upload")
        service.kill()
        proxy.throttle = None
        service.start()
        assert member.wait(made["id"])["status"] == "success"
    soon(lambda: scraper.value("ciming_job_duration_seconds_count", kind="create", status="success") == 1)
    assert scraper.value("ciming_takeovers_total") == 1
