# SPDX-License-Identifier: Apache-2.0
"""Polling a Job until it stops."""

import time
from collections.abc import Callable

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions

from cimingclient.sdk import job as _job

#: Seconds after the first of some failures after which waiting is given up: longer than a service restarts.
PATIENCE = 120.0
#: Seconds that one answer may take; who waits has a timeout of their own.
ANSWER = 60.0

_SHORTEST = 0.05
_SHORTEST_MOVING = 0.2  # while bytes are on their way it does not end: leave the processor to them
_SHARE = 25  # of the time waited so far: a Job that took 2 s is seen to have ended within 0.1 s


def wait(
    fetch: Callable[[], _job.Job],
    progress: Callable[[_job.Job], None] | None,
    interval: float,
    timeout: float | None,
) -> _job.Job:
    """Ask until the Job stops; `interval` and `timeout` in seconds.

    The pause grows with the time waited: what ends soon is seen at once, and what takes hours is
    not asked for ten times a second.
    """
    began = time.monotonic()
    failing_since: float | None = None
    shortest = _SHORTEST
    while True:
        try:
            job = fetch()
        except (exceptions.HttpException, ksa_exceptions.ClientException) as exc:
            now = time.monotonic()
            failing_since = failing_since or now  # the question may have taken long to fail
            if not passes(exc) or now - failing_since > PATIENCE:
                raise
        else:
            failing_since = None
            if progress:
                progress(job)
            if job.status in _job.STOPS:
                return job
            shortest = _SHORTEST_MOVING if _moving(job) else _SHORTEST
        waited = time.monotonic() - began
        if timeout is not None and waited >= timeout:
            raise exceptions.ResourceTimeout(f"The Job has not ended after {timeout:g} s.")
        pause = _pause(waited, interval, shortest)
        time.sleep(pause if timeout is None else min(pause, timeout - waited))


def _moving(job: _job.Job) -> bool:
    amount = job.progress or {}
    total = amount.get("bytes_total")
    return total is not None and (amount.get("bytes_done") or 0) < total


def _pause(waited: float, interval: float, shortest: float) -> float:
    """Seconds until the next question, after so many of waiting."""
    return min(interval, max(shortest, waited / _SHARE))


def passes(exc: Exception) -> bool:
    """Whether it may go away by itself: a service that restarts, or has too much to do."""
    if isinstance(exc, exceptions.HttpException):
        return exc.status_code is not None and (exc.status_code >= 500 or exc.status_code == 429)
    if isinstance(exc, ksa_exceptions.SSLError):    # a line that broke in the handshake is one, too
        return "certificate" not in str(exc).lower()
    return isinstance(
        exc,
        ksa_exceptions.RetriableConnectionFailure
        | ksa_exceptions.UnknownConnectionError
        | ksa_exceptions.HttpServerError,
    )
