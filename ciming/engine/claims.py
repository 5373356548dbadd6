# SPDX-License-Identifier: Apache-2.0
"""Who runs which Job: claims are rows, liveness is a lock.

An engine takes a new name at each start and holds one lock of that name until it dies. A Job whose
owner's lock nobody holds belongs to a dead engine and is claimed again. An engine that lost its lock is as
good as dead: it gives all its Jobs up, and begins anew under another name.
"""

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from oslo_config import cfg
from oslo_log import log

from ciming.db import work
from ciming.engine import events, locks, outages

LOG = log.getLogger(__name__)
STOP_SECONDS = 5.0      # the coordination service may be away, and not say so


class Liveness:
    """This engine's name and lock, and its judgement of others.

    :param on_lost: called once, by a thread of ours, when the lock is found to be lost
    :param former: names that this process had before, and has no more
    """

    marker: str

    def __init__(
        self,
        url: str | None = None,
        on_lost: Callable[[], None] = lambda: None,
        former: Collection[str] = (),
    ) -> None:
        self.name = str(uuid.uuid4())
        self.lost = threading.Event()
        self.former = frozenset(former)
        self._url = url or cfg.CONF.engine.coordination_url
        self._ttl = int(cfg.CONF.engine.coordination_ttl)
        self._on_lost = on_lost
        self._away = outages.Outage("The coordination service")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="liveness", daemon=True)

    def start(self) -> None:
        """Take our own lock, and keep it.

        :raises NotReady: the coordination URL is of no use
        :raises ToozError: the coordination service can not be used
        """
        began = time.monotonic()
        memory = Path(cfg.CONF.state_path) / "coordination"
        self._locks = locks.hold(self.name, self._url, self._ttl, memory)
        self.marker = self._locks.marker
        self._renewed = began
        self._thread.start()

    def stop(self) -> None:
        """Let go of the lock, if it is still there."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self._close()

    @property
    def sure(self) -> bool:
        """Has our lock been seen so lately that it can not have expired? Else no further Job is taken."""
        return not self._locks.expiring or time.monotonic() - self._renewed < self._ttl

    def is_dead(self, owner: str) -> bool:
        """Does nobody hold the lock of another engine? Who can not be judged now is alive.

        Never asked of our own: to open its file would free it.
        """
        if owner == self.name:
            return False
        if owner in self.former:
            return True
        try:
            return self._locks.is_free(owner)
        except Exception as error:
            self._away.tell(error)
            return False

    def _beat(self) -> None:
        """A third of the time to live apart, so that one renewal may fail."""
        while not self._stopping.wait(self._ttl / 3):
            began = time.monotonic()
            try:
                held = self._locks.is_held()
            except Exception as error:      # unknown: neither held nor lost
                self._away.tell(error)
                continue
            self._away.over()
            if not held:
                LOG.warning("Engine %s lost its lock: it gives its Jobs up", self.name)
                self.lost.set()
                self._on_lost()
                return
            self._renewed = began

    def _close(self) -> None:
        try:
            self._locks.close()
        except Exception as error:
            LOG.info("The lock of engine %s was not let go of: %s", self.name, error)


def take(
    liveness: Liveness,
    marker: str,
    running: Collection[str],
    may_take: Callable[[work.Candidate], bool] = lambda _candidate: True,
    large: int | None = None,
) -> Iterator[work.Claim]:
    """Claim, one by one, Jobs that nobody alive runs: not we, where they are not in `running`."""
    judged = {liveness.name: True}
    patience = int(cfg.CONF.staging.retention)
    found = work.candidates(
        marker, liveness.marker, large, liveness.former, patience, me=liveness.name
    )
    for candidate in found:
        owner = candidate.owner
        if candidate.job_id in running or not may_take(candidate):
            continue
        if owner is not None:
            if owner not in judged:
                judged[owner] = liveness.is_dead(owner)
            if not judged[owner]:
                continue
        claim = work.claim(candidate, liveness.name, liveness.marker)
        if claim is not None:
            events.claimed(claim, owner)
            yield claim
