# SPDX-License-Identifier: Apache-2.0
"""Notifications, as other OpenStack services send them: job.start, job.end, job.error, image.link.

A thread of its own sends them: a broker that is away delays no Job. What they say holds no secret.
"""

import functools
import queue
import socket
import threading
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, NamedTuple

import oslo_messaging as messaging
from oslo_config import cfg
from oslo_log import log

from ciming import context, exceptions, metrics
from ciming.db import models

LOG = log.getLogger(__name__)
GROUP = "oslo_messaging_notifications"
OVER_A_BROKER = {"messaging", "messagingv2", "routing"}
WAITING = 1000          # to be sent, while the broker is away
STOP_SECONDS = 5.0      # for what is still to be sent


class Event(NamedTuple):
    """One notification."""

    event_type: str
    payload: dict[str, Any]
    error: bool


def check() -> None:
    """:raises NotReady: the configuration is of no use"""
    wanted = set(cfg.CONF[GROUP].driver)
    known = {each.name for each in metadata.entry_points(group="oslo.messaging.notify.drivers")}
    if wanted - known:
        raise exceptions.NotReady(
            f"[{GROUP}] driver: {', '.join(sorted(wanted - known))} is none of {', '.join(sorted(known))}."
        )
    if wanted & OVER_A_BROKER:
        _transport()


def _transport() -> Any:
    """A way to whoever listens; it connects when it is used. Not that of rpc.py, which may be in-process."""
    try:
        return messaging.get_notification_transport(cfg.CONF)
    except (messaging.MessagingException, ValueError) as error:
        raise exceptions.NotReady(f"[{GROUP}] transport_url can not be used: {error}") from None


def job(what: str, row: models.Job, status: str) -> None:
    """Notify of a Job: start, end, error.

    :param status: that of the Job now, which `row` need not know yet
    """
    _send(
        f"job.{what}",
        {
            "job_id": row.id,
            "kind": row.kind,
            "status": status,
            "image_id": row.image_id,
            "image_name": row.image.name if row.image_id else None,
            "parent_id": row.parent_id,
            "project_id": row.project_id,
            "user_id": row.user_id,
            "request_id": row.request_id,
            "created_at": _time(row.created_at),
            "started_at": _time(row.started_at),
            "error_code": row.error["code"] if row.error else None,
            "targets": [
                {
                    "target_id": target.id,
                    **_cloud(target),
                    "status": target.status,
                    "image_ref": target.image_ref,
                    "error_code": target.error["code"] if target.error else None,
                }
                for target in row.targets
            ],
        },
        error=what == "error",
    )


def link(row: models.Job, target: models.Target, image_ref: str, proof: str) -> None:
    """Notify of an Image that is in one more Cloud, as image.link."""
    _send(
        "image.link",
        {
            "image_id": row.image_id,
            "image_name": row.image.name,
            "job_id": row.id,
            "project_id": row.project_id,
            "user_id": row.user_id,
            "request_id": row.request_id,
            **_cloud(target),
            "image_ref": image_ref,
            "proof": proof,
        },
    )


def _cloud(target: models.Target) -> dict[str, Any]:
    return {"cloud": target.cloud, "provider": target.provider, "region": target.region}


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _send(event_type: str, payload: dict[str, Any], *, error: bool = False) -> None:
    if cfg.CONF[GROUP].driver:
        _sender().put(Event(event_type, payload, error))


class _Sender:
    """A queue, and the thread that empties it."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Event | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="notifications", daemon=True)
        self._thread.start()

    def put(self, event: Event | None) -> None:
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            if event:
                _lost(event, f"{WAITING} others wait to be sent")

    def stop(self) -> None:
        self.put(None)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        notifier = None
        while event := self._waiting.get():
            ids = (event.payload[name] for name in ("job_id", "request_id", "user_id", "project_id"))
            whose = context.for_job(*ids)
            try:
                notifier = notifier or _notifier()
                tell = notifier.error if event.error else notifier.info
                tell(whose, event.event_type, event.payload)
            except Exception as error:      # whatever it was, the next one is tried
                _lost(event, str(error))


def _lost(event: Event, why: str) -> None:
    metrics.LOST.inc()
    LOG.warning("The notification %s is lost: %s", event.event_type, why)


def _notifier() -> messaging.Notifier:
    made = messaging.Notifier(_transport(), publisher_id=f"ciming-engine.{socket.gethostname()}")
    if made.retry < 0:
        made.retry = None       # -1 means "for ever", but kombu gives up at once
    return made


@functools.cache
def _sender() -> _Sender:
    """Made when first used, and so after the fork."""
    return _Sender()


def stop() -> None:
    """Wait a moment for what is still to be sent."""
    if _sender.cache_info().currsize:
        _sender().stop()
