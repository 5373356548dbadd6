# SPDX-License-Identifier: Apache-2.0
"""The door between api and engine: a knock, never the truth.

The API commits rows, then knocks; an engine that misses the knock finds the rows by its poll. So a
broker that is away costs time and nothing else: nobody here waits for it. Only who wants to know something
at once calls, and waits for an answer.
"""

import functools
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

import oslo_messaging as messaging
from oslo_config import cfg
from oslo_log import log

from ciming import context, exceptions

LOG = log.getLogger(__name__)
TOPIC = "ciming-engine"
WAITING = 100           # knocks to be sent; more than that say nothing new
RETRIES = 2             # a broker that was started again has closed the connection
AGAIN_SECONDS = 10.0    # until a broker is asked again that refused us
STOP_SECONDS = 5.0
CALL_SECONDS = 30.0         # for which an engine's answer is waited for
_url: str | None = None     # None: [DEFAULT] transport_url
Knock = tuple[str, str | None]
"""Ids of the Job, and of the request that knocks."""
Verdicts = list[dict[str, Any]]
Check = Callable[[str, str, dict[str, Any]], Verdicts]
"""Of project, trust and place; see ciming.engine.checks."""


@functools.cache
def transport() -> Any:
    """The process's way to the other side; it connects when it is used.

    :raises NotReady: `transport_url` is none
    """
    try:
        return messaging.get_rpc_transport(cfg.CONF, url=_url)
    except (messaging.MessagingException, ValueError) as error:
        raise exceptions.NotReady(f"[DEFAULT] transport_url can not be used: {error}") from None


def stay_in_process() -> None:
    """API and engine are threads of one process: no broker."""
    global _url
    _url = "fake://"


def knock(job_id: str) -> None:
    """Tell the engines that there may be work. A lost knock costs one poll interval."""
    try:
        _knocks().put_nowait((job_id, context.ids()[1]))
    except queue.Full:
        LOG.warning("The broker is away: no knock, the engines' poll will find the Job")


@functools.cache
def _knocks() -> "queue.Queue[Knock]":
    """What a thread of its own sends: a broker may take long to be found away. Made after the fork."""
    waiting: queue.Queue[Knock] = queue.Queue(WAITING)
    threading.Thread(target=_send, args=(waiting,), name="knocks", daemon=True).start()
    return waiting


def _send(waiting: "queue.Queue[Knock]") -> None:
    target = messaging.Target(topic=TOPIC)
    client = messaging.get_rpc_client(transport(), target, retry=RETRIES)
    while True:
        job_id, request_id = waiting.get()
        context.for_job(job_id, request_id)
        try:
            client.cast({}, "knock", job_id=job_id)
        except Exception as error:      # whatever it was, the next one is tried
            LOG.warning("Could not knock, the engines' poll will find the Job: %s", error)


def check_cloud(project_id: str, trust_id: str, place: dict[str, Any]) -> Verdicts:
    """Have an engine look whether a Cloud can be used.

    :raises Unavailable: none answers
    """
    client = messaging.get_rpc_client(
        transport(), messaging.Target(topic=TOPIC), timeout=CALL_SECONDS, retry=RETRIES
    )
    try:
        found: Verdicts = client.call(
            {}, "check_cloud", project_id=project_id, trust_id=trust_id, place=place
        )
    except Exception as error:      # whatever it was
        LOG.warning("No engine answers: %s", type(error).__name__)
        raise exceptions.Unavailable(
            "No engine answers now. Try again later, or tell the operator."
        ) from None
    return found


class _Endpoint:
    def __init__(self, on_knock: Callable[[str], None], on_check: Check) -> None:
        self._on_knock = on_knock
        self._on_check = on_check

    def check_cloud(
        self, _context: object, project_id: str, trust_id: str, place: dict[str, Any]
    ) -> Verdicts:
        return self._on_check(project_id, trust_id, place)

    def knock(self, _context: object, job_id: str) -> None:
        self._on_knock(job_id)


class Listener:
    """Hears knocks while there is a broker. To start and to stop it waits for none."""

    def __init__(self, on_knock: Callable[[str], None], on_check: Check) -> None:
        # Named after the host and not the engine: a queue of this name stays in the broker.
        self._target = messaging.Target(topic=TOPIC, server=socket.gethostname())
        self._endpoint = _Endpoint(on_knock, on_check)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def begin_to_stop(self) -> None:
        self._stopping.set()

    def stop(self) -> None:
        self.begin_to_stop()
        self._thread.join(STOP_SECONDS)     # it may hang: the broker is away

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                server = messaging.get_rpc_server(transport(), self._target, [self._endpoint])
                server.start()          # returns when there is a broker
                self._stopping.wait()
                server.stop()
                server.wait()
            except Exception as error:
                LOG.error("Can not listen for knocks now, Jobs are found by the poll: %s", error)
                self._stopping.wait(AGAIN_SECONDS)
