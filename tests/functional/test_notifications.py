# SPDX-License-Identifier: Apache-2.0
"""Who listens at a real broker is told of Jobs and links; a broker that is away delays no Job."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import oslo_messaging as messaging
from oslo_config import cfg

from ciming import config
from tests.functional.conftest import soon
from tests.person import Person
from tests.sandbox import ciming, sandbox, servers

Another = Callable[..., tuple[ciming.Ciming, Person]]
GROUP = "oslo_messaging_notifications"


class Listener:
    """Keeps what comes, in order."""

    def __init__(self, broker: servers.RabbitMQ, topic: str) -> None:
        self.options = {
            (GROUP, "driver"): "messagingv2",
            (GROUP, "transport_url"): broker.url,
            (GROUP, "topics"): topic,
        }
        self.heard: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = []
        conf = cfg.ConfigOpts()
        config.set_lib_defaults()       # quorum queues, as ours are
        conf([], default_config_files=[], default_config_dirs=[])
        transport = messaging.get_notification_transport(conf, url=broker.url)
        self._server = messaging.get_notification_listener(
            transport, [messaging.Target(topic=topic)], [self], executor="threading"
        )

    def __enter__(self) -> "Listener":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._server.wait()

    def info(
        self, context: dict[str, Any], publisher: str, event: str, payload: dict[str, Any], _more: object
    ) -> None:
        assert publisher.startswith("ciming-engine.")
        self.heard.append(("info", event, payload, context))

    def error(
        self, context: dict[str, Any], publisher: str, event: str, payload: dict[str, Any], _more: object
    ) -> None:
        self.heard.append(("error", event, payload, context))

    def events(self, job_id: str) -> list[tuple[str, str]]:
        return [(level, event) for level, event, payload, _ in self.heard if payload["job_id"] == job_id]


def test_who_listens_is_told(
    another: Another, broker: servers.RabbitMQ, cloud: sandbox.Sandbox, qcow2: pathlib.Path
) -> None:
    with Listener(broker, "told") as listener:
        _service, member = another(listener.options)
        well = member.bring(qcow2, name="well", clouds=["zone-a", "zone-b"])
        badly = member.bring(qcow2, name="badly", disk_format="vmdk")
        assert (well["status"], badly["status"]) == ("success", "error")
        soon(lambda: ("error", "job.error") in listener.events(badly["id"]))
        start, end, link = ("info", "job.start"), ("info", "job.end"), ("info", "image.link")
        soon(lambda: end in listener.events(well["id"]))
        assert listener.events(well["id"]) == [start, link, link, end]
        # Of another priority, so from another queue: in no order.
        assert sorted(listener.events(badly["id"])) == [("error", "job.error"), start]

    for _level, event, payload, context in listener.heard:
        job = well if payload["job_id"] == well["id"] else badly
        for name in ("project_id", "request_id", "image_id"):
            assert payload[name] == job[name]
        assert (context["project_id"], context["request_id"]) == (job["project_id"], job["request_id"])
        assert payload["image_name"] == ("well" if job is well else "badly")
        if event == "image.link":
            [target] = [target for target in job["targets"] if target["cloud"] == payload["cloud"]]
            assert payload["image_ref"] == target["image_ref"]
            assert (payload["proof"], payload["region"]) == ("bytes", target["region"])
    last = {payload["job_id"]: payload for _, event, payload, _ in listener.heard if event != "job.start"}
    assert last[well["id"]]["status"] == "success"
    assert [target["status"] for target in last[well["id"]]["targets"]] == ["success", "success"]
    assert [target["image_ref"] for target in last[well["id"]]["targets"]] == [
        target["image_ref"] for target in well["targets"]
    ]
    assert last[badly["id"]]["status"] == "error"
    assert last[badly["id"]]["error_code"] == badly["error"]["code"]
    said = json.dumps(listener.heard)
    for secret in (member.token(), *cloud.state.passwords.values()):
        assert secret not in said


def test_a_broker_that_is_away(another: Another, broker: servers.RabbitMQ, qcow2: pathlib.Path) -> None:
    """Jobs end as ever, and so does the service; when the broker is back, who listens is told."""
    listener = Listener(broker, "away")
    broker.stop()
    service, member = another(listener.options)
    jobs = [member.bring(qcow2) for _ in range(2)]
    assert [job["status"] for job in jobs] == ["success", "success"]
    broker.start()
    with listener:
        soon(lambda: all(("info", "job.end") in listener.events(job["id"]) for job in jobs), 60)
        broker.stop()
        assert member.bring(qcow2)["status"] == "success"
        service.stop()
        assert {part.status for part in service.parts} == {0}, "it was killed in the end"
