# SPDX-License-Identifier: Apache-2.0
"""What an engine counts and measures, for Prometheus.

Labels are few: the steps and statuses there are, the kinds of clouds, and the names of zones, which
operators make. A Cloud that a user registered is "other".
"""

import socket
import socketserver
import threading
from collections.abc import Iterator
from wsgiref import simple_server

import prometheus_client
from oslo_config import cfg
from oslo_log import log
from prometheus_client import metrics_core, registry

from ciming import exceptions, version
from ciming.db import figures, models

LOG = log.getLogger(__name__)
OTHER = "other"
SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
CLIENT_SECONDS = 10.0       # without a byte, after which who scrapes is given up

REGISTRY = prometheus_client.CollectorRegistry()
BYTES = prometheus_client.Counter(
    "ciming_uploaded_bytes",
    "Bytes that this engine sent to Clouds, those of attempts that failed too",
    ("provider", "cloud"),
    registry=REGISTRY,
)
ATTEMPTS = prometheus_client.Counter(
    "ciming_attempts",
    "Attempts at a step, by how they ended: success, retry (it is tried again), error (for good)",
    ("step", "cloud", "outcome"),
    registry=REGISTRY,
)
TARGETS = prometheus_client.Counter(
    "ciming_targets",
    "Targets that ended in this engine",
    ("provider", "cloud", "status"),
    registry=REGISTRY,
)
TARGET_SECONDS = prometheus_client.Histogram(
    "ciming_target_duration_seconds",
    "From the start of a Job to the end of one of its Targets",
    ("provider", "status"),
    buckets=SECONDS,
    registry=REGISTRY,
)
JOB_SECONDS = prometheus_client.Histogram(
    "ciming_job_duration_seconds",
    "From the start of a Job to its end, in whatever engines",
    ("kind", "status"),
    buckets=SECONDS,
    registry=REGISTRY,
)
TAKEOVERS = prometheus_client.Counter(
    "ciming_takeovers", "Jobs that this engine took from one that had died", registry=REGISTRY
)
RUNNING = prometheus_client.Gauge("ciming_engine_jobs", "Jobs that this engine runs", registry=REGISTRY)
LOST = prometheus_client.Counter(
    "ciming_notifications_lost", "Those too many while none could be sent", registry=REGISTRY
)
prometheus_client.Info("ciming_build", "The release", registry=REGISTRY).info(
    {"version": version.version_string()}
)
prometheus_client.ProcessCollector(registry=REGISTRY)


class _Rows(registry.Collector):
    """What the database knows; every engine says the same."""

    def collect(self) -> Iterator[metrics_core.Metric]:
        try:
            found = figures.read()
        except Exception as error:      # the other figures are of use all the more then
            LOG.warning("The database has no figures now: %s", error)
            found = None
        yield metrics_core.GaugeMetricFamily(
            "ciming_database_up", "Does the database answer?", float(found is not None)
        )
        if found is None:
            return
        jobs = metrics_core.GaugeMetricFamily("ciming_jobs", "Jobs there are, by status", labels=("status",))
        for status, count in found.jobs.items():
            jobs.add_metric((status,), count)
        yield jobs
        yield metrics_core.GaugeMetricFamily(
            "ciming_queue_age_seconds",
            "How long the oldest of the Jobs that no engine has waits for one; 0 if none does",
            found.queue_age,
        )


REGISTRY.register(_Rows())


def place(target: models.Target) -> str:
    """A Target's Cloud as a label: one of few."""
    is_zone = target.provider == "openstack" and target.cloud_key == target.region
    return target.cloud if is_zone else OTHER


def attempted(step: str, where: str, outcome: str) -> None:
    """An attempt at a step ended: success, retry (it is tried again), error (for good)."""
    ATTEMPTS.labels(step, where, outcome).inc()


class Meter:
    """Counts the bytes that a Target's transfers move, from what they say they have reached."""

    def __init__(self, target: models.Target) -> None:
        self._count = BYTES.labels(target.provider, place(target)).inc
        self._reached = target.bytes_done

    def reached(self, position: int) -> None:
        """A position before the last one: it started again from there."""
        if position > self._reached:
            self._count(position - self._reached)
        self._reached = position


class _Handler(simple_server.WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, *_: object) -> None:
        """Who scrapes does so often."""


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        address = listener.getsockname()[:2]
        super().__init__(address, _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = address
        self.setup_environ()
        self.set_app(prometheus_client.make_wsgi_app(REGISTRY))


def listen() -> socket.socket | None:
    """Take the port, if one is wanted; before a fork, so that it is there for every child.

    :raises NotReady: it can not be had
    """
    options = cfg.CONF.metrics
    if not options.bind_port:
        return None
    try:
        [family, *_] = socket.getaddrinfo(options.bind_host, options.bind_port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((options.bind_host, options.bind_port), family=family, backlog=16)
    except OSError as error:
        raise exceptions.NotReady(
            f"[metrics] {options.bind_host} port {options.bind_port} can not be listened on: "
            f"{error.strerror}"
        ) from None


def serve(listener: socket.socket | None) -> None:
    """Answer who scrapes, in threads of its own, as long as the process lives."""
    if listener is None:
        return
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # nobody reads those
    server = _Server(listener)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
