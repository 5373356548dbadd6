# SPDX-License-Identifier: Apache-2.0
"""The door between api and engine: a knock, never the truth.

The API commits rows, then knocks; an engine that misses the knock finds the rows by its poll. So a
broker that is away costs time and nothing else: nobody here waits for it. Only who wants to know something
at once, or hands a credential over, calls and waits for an answer: of an engine that is near the same
staging area, through queues that end with it.
"""

import base64
import functools
import json
import queue
import socket
import threading
import uuid
import zlib
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple, Protocol

import oslo_messaging as messaging
from oslo_config import cfg
from oslo_log import log

from ciming import context, exceptions, places, sealing

LOG = log.getLogger(__name__)
TOPIC = "ciming-engine"
DIRECT = "ciming-direct"
WAITING = 100           # knocks to be sent; more than that say nothing new
RETRIES = 2             # a broker that was started again has closed the connection
AGAIN_SECONDS = 10.0    # until a broker is asked again that refused us
STOP_SECONDS = 5.0
OFFER_SECONDS = 10.0        # for which any engine is waited for,
CALL_SECONDS = 30.0         # and for the answer of the one that offered itself,
PLAN_SECONDS = 100.0        # or for a plan of zones
CALLS = threading.BoundedSemaphore(20)      # at a time, those that wait for a broker too
PLANS = places.Places(4, per_project=2)     # of those: they take long, and leave room for others,
LOOKS = places.Places(12, per_project=6)    # as do looks at Clouds, and checks: so a Job gets its credential
LARGEST = 15 << 20      # bytes of a plan, or of what was seen, packed: RabbitMQ takes 16 MiB by default
TOO_LONG = {
    "code": "zone_sync.too_many",
    "message": "This plan is too long to be shown. Ask for fewer zones at a time, or for some owners only.",
}
# What holds of the broker's queues for calls, whatever the others are like.
PASSING = {
    "amqp_auto_delete": "true",
    "amqp_durable_queues": "false",
    "rabbit_quorum_queue": "false",
}
_url: str | None = None     # None: [DEFAULT] transport_url
Verdicts = list[dict[str, Any]]
Seen = dict[str, Any]
"""What was seen of one Cloud: see ciming.engine.looks."""
MOST_PROPERTIES, MOST_TAGS, LONGEST = 64, 128, 255      # of what is seen of one image


class Knock(NamedTuple):
    """Ids of the Job, and of the request that knocks; where, if one engine is meant."""

    job_id: str
    request_id: str | None
    at: "Holder | None"


class Holder(NamedTuple):
    """The engine that holds what was handed over. Its Job begins as claimed by it.

    :param owner: its name
    :param lock_marker: where its lock is
    """

    marker: str
    peer: str
    owner: str
    lock_marker: str


class Engine(Protocol):
    """What is asked of an engine."""

    def knocked(self) -> None:
        """There may be work."""

    def check(self, project_id: str, bundle: sealing.Bundle, place: dict[str, Any]) -> Verdicts:
        """See ciming.engine.checks."""

    def look(self, kind: str, project_id: str, bundle: sealing.Bundle, what: dict[str, Any]) -> list[Seen]:
        """See ciming.engine.looks."""

    def plan_zones(
        self, project_id: str, bundle: sealing.Bundle, spec: dict[str, Any]
    ) -> dict[str, Any]:
        """See ciming.engine.zone_planning."""

    def take(self, job_id: str, bundle: sealing.Bundle) -> tuple[str, str]:
        """Hold this for a Job that is about to be written; the engine's name, and where its lock is."""


@functools.cache
def transport() -> Any:
    """The process's way to the other side; it connects when it is used.

    :raises NotReady: `transport_url` is none
    """
    try:
        return messaging.get_rpc_transport(cfg.CONF, url=_url)
    except (messaging.MessagingException, ValueError) as error:
        raise exceptions.NotReady(f"[DEFAULT] transport_url can not be used: {error}") from None


@functools.cache
def direct() -> Any:
    """The way of calls: queues that are in no broker's files, and gone with who listens."""
    url = messaging.TransportURL.parse(cfg.CONF, _url)
    if url.transport.startswith(("rabbit", "kombu")):
        url.query.update(PASSING)
    return messaging.get_rpc_transport(cfg.CONF, url=url)


def stay_in_process() -> None:
    """API and engine are threads of one process: no broker."""
    global _url
    _url = "fake://"


def knock(job_id: str, at: Holder | None = None) -> None:
    """Tell the engines, or one of them, that there may be work. A lost knock costs one poll interval."""
    try:
        _knocks().put_nowait(Knock(job_id, context.ids()[1], at))
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
        job_id, request_id, at = waiting.get()
        context.for_job(job_id, request_id)
        try:
            (_client(at.marker, at.peer) if at else client).cast({}, "knock", job_id=job_id)
        except Exception as error:      # whatever it was, the next one is tried
            LOG.warning("Could not knock, the engines' poll will find the Job: %s", error)


def hand_over(job_id: str, bundle: sealing.Bundle, marker: str) -> Holder:
    """Have an engine hold credentials for a Job, which is then to be written as that engine's.

    :param marker: of the staging area in which the Job's bytes will be
    :raises Unavailable: none answers
    """
    peer, sealed = _sealed(job_id, bundle, marker)
    owner, lock_marker = _call(_client(marker, peer), "take", job_id=job_id, sealed=sealed)
    return Holder(marker, peer, owner, lock_marker)


def check_cloud(project_id: str, bundle: sealing.Bundle, place: dict[str, Any], marker: str) -> Verdicts:
    """Have an engine look whether a Cloud can be used.

    :param bundle: with which it is looked
    :raises Unavailable: none answers
    """
    with LOOKS.one(project_id, "Too many look at Clouds now. Try again later."):
        peer, sealed = _sealed(project_id, bundle, marker)
        client = _client(marker, peer)
        found: Verdicts = _call(client, "check_cloud", project_id=project_id, sealed=sealed, place=place)
    return found


def look(
    kind: str, project_id: str, bundle: sealing.Bundle, what: dict[str, Any], marker: str
) -> list[Seen]:
    """Have an engine look what there is in Clouds now; for each of them what was seen.

    :param kind: one of those of ciming.engine.looks
    :param bundle: with which it is looked
    :param what: what that kind has to be told besides
    :raises InvalidRequest: that, or what was seen, is too long to be sent
    :raises Unavailable: none answers
    """
    wanted = _packed(what)
    if len(wanted) > LARGEST:
        raise _too_much()
    with LOOKS.one(project_id, "Too many look at Clouds now. Try again later."):
        peer, sealed = _sealed(project_id, bundle, marker)
        client = _client(marker, peer)
        packed = _call(client, "look", kind=kind, project_id=project_id, sealed=sealed, what=wanted)
    found: list[Seen] | None = _unpacked(packed)
    if found is None:
        raise _too_much()
    return found


def _too_much() -> exceptions.InvalidRequest:
    return exceptions.InvalidRequest(
        "That is too much to be looked at in one request. Ask for a smaller page, or for fewer Clouds.",
        code="request.too_much",
        field="limit",
    )


def plan_zones(
    project_id: str, bundle: sealing.Bundle, spec: dict[str, Any], marker: str
) -> dict[str, Any]:
    """Have an engine read zones, and say what has to be done; `plan`, or `error` (`code` and `message`).

    :param bundle: with which they are read
    :param spec: of a Job that would do it
    :raises Unavailable: none answers
    """
    with PLANS.one(project_id, "Too many plans of zones are made now. Try again later."):
        peer, sealed = _sealed(project_id, bundle, marker)
        client = _client(marker, peer, PLAN_SECONDS)
        found: str = _call(
            client, "plan_zones", PLAN_SECONDS, project_id=project_id, sealed=sealed, spec=spec
        )
    answer: dict[str, Any] = _unpacked(found)
    return answer


def _packed(said: object) -> str:
    """As text, and much smaller: plans, and images, have the same words over and over."""
    return base64.b64encode(zlib.compress(json.dumps(said).encode())).decode()


def _unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))


def _sealed(purpose: str, bundle: sealing.Bundle, marker: str) -> tuple[str, str]:
    """Who of the engines offers to take it, and it, for this one only."""
    peer, public_key = _call(_client(marker, None, OFFER_SECONDS), "offer")
    return peer, sealing.seal(bundle, public_key, purpose)


def _client(marker: str, peer: str | None, timeout: float | None = None) -> Any:
    return messaging.get_rpc_client(
        direct(), _near(marker, peer), timeout=timeout or CALL_SECONDS, retry=RETRIES
    )


def _near(marker: str, peer: str | None) -> messaging.Target:
    """Engines with this staging area, or one of them."""
    return messaging.Target(exchange=DIRECT, topic=f"{DIRECT}-{marker}", server=peer)


def _call(client: Any, method: str, seconds: float | None = None, /, **arguments: Any) -> Any:
    """In a thread of its own: oslo.messaging waits for a broker that is away without an end."""
    if not CALLS.acquire(blocking=False):
        raise exceptions.Unavailable("Too many wait for an engine now. Try again later.")
    answer: futures.Future[Any] = futures.Future()

    def work() -> None:
        try:
            answer.set_result(client.call({}, method, **arguments))
        except BaseException as error:
            answer.set_exception(error)
        finally:
            CALLS.release()

    threading.Thread(target=work, name="call", daemon=True).start()
    try:
        return answer.result((seconds or CALL_SECONDS) + OFFER_SECONDS)
    except Exception as error:      # whatever it was
        LOG.warning("No engine answers: %s", type(error).__name__)
        raise exceptions.Unavailable(
            "No engine answers now. Try again later, or tell the operator."
        ) from None


class _Endpoint:
    """What any engine hears."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def knock(self, _context: object, job_id: str) -> None:
        self._engine.knocked()


class _Direct(_Endpoint):
    """What engines hear that may be called."""

    def __init__(self, engine: Engine, peer: str) -> None:
        super().__init__(engine)
        self._peer = peer
        self._key = sealing.Key()

    def offer(self, _context: object) -> tuple[str, str]:
        return self._peer, self._key.public

    def take(self, _context: object, job_id: str, sealed: str) -> tuple[str, str]:
        return self._engine.take(job_id, self._key.open(sealed, job_id))

    def check_cloud(
        self, _context: object, project_id: str, sealed: str, place: dict[str, Any]
    ) -> Verdicts:
        return self._engine.check(project_id, self._key.open(sealed, project_id), place)

    def look(
        self, _context: object, kind: str, project_id: str, sealed: str, what: str
    ) -> str:
        bundle = self._key.open(sealed, project_id)
        packed = _packed(self._engine.look(kind, project_id, bundle, _unpacked(what)))
        return packed if len(packed) <= LARGEST else _packed(None)

    def plan_zones(
        self, _context: object, project_id: str, sealed: str, spec: dict[str, Any]
    ) -> str:
        packed = _packed(self._engine.plan_zones(project_id, self._key.open(sealed, project_id), spec))
        return packed if len(packed) <= LARGEST else _packed({"error": TOO_LONG})


class Listener:
    """Hears knocks and calls while there is a broker. To start and to stop it waits for none.

    :param marker: of the engine's staging area
    """

    def __init__(self, engine: Engine, marker: str) -> None:
        peer = str(uuid.uuid4())
        # Named after the host and not the engine: a queue of this name stays in the broker.
        target = messaging.Target(topic=TOPIC, server=socket.gethostname())
        served_by = (
            (transport, target, _Endpoint(engine)),
            (direct, _near(marker, peer), _Direct(engine, peer)),
        )
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, args=served, name="listener", daemon=True)
            for served in served_by
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def begin_to_stop(self) -> None:
        self._stopping.set()

    def stop(self) -> None:
        self.begin_to_stop()
        for thread in self._threads:
            thread.join(STOP_SECONDS)       # it may hang: the broker is away

    def _listen(self, way: Callable[[], Any], target: messaging.Target, endpoint: _Endpoint) -> None:
        while not self._stopping.is_set():
            try:
                server = messaging.get_rpc_server(way(), target, [endpoint])
                server.start()          # returns when there is a broker
                self._stopping.wait()
                server.stop()
                server.wait()
            except Exception as error:
                LOG.error("Can not listen for knocks now, Jobs are found by the poll: %s", error)
                self._stopping.wait(AGAIN_SECONDS)
