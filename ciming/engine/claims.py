# SPDX-License-Identifier: Apache-2.0
"""Who runs which Job: claims are rows, liveness is a lock.

An engine takes a new name at each start and holds one lock of that name until it dies. A Job whose
owner's lock can be taken belongs to a dead engine and is claimed again.
"""

import urllib.parse
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from oslo_log import log
from tooz import ToozError, coordination

from ciming import staging
from ciming.db import work

LOG = log.getLogger(__name__)


class Liveness:
    """This engine's name and lock, and its judgement of others."""

    def __init__(self, url: str) -> None:
        self.name = str(uuid.uuid4())
        parsed = urllib.parse.urlparse(url)
        if parsed.scheme != "file":
            raise ToozError(f"[engine] coordination_url is {url}, but only file:// is supported")
        folder = Path(parsed.path)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.marker = staging.marker_of(folder)
        self._coordinator = coordination.get_coordinator(url, self.name.encode())

    def start(self) -> None:
        """Take our own lock.

        :raises ToozError: the coordination service can not be used
        """
        self._coordinator.start(start_heart=True)
        self._lock = self._coordinator.get_lock(self.name.encode())
        if not self._lock.acquire(blocking=False):
            raise ToozError(f"The lock of engine {self.name} is taken")

    def stop(self) -> None:
        self._lock.release()
        self._coordinator.stop()

    def is_dead(self, owner: str) -> bool:
        """Can the lock of another engine be taken? Never asked of our own: to open it would free it."""
        if owner == self.name:
            return False
        lock = self._coordinator.get_lock(owner.encode())
        if not lock.acquire(blocking=False):
            return False
        lock.release()
        return True


def take(
    liveness: Liveness,
    marker: str,
    running: Collection[str],
    may_take: Callable[[work.Candidate], bool] = lambda _candidate: True,
    large: int | None = None,
) -> Iterator[work.Claim]:
    """Claim, one by one, Jobs that nobody alive runs: not we, where they are not in `running`."""
    judged = {liveness.name: True}
    for candidate in work.candidates(marker, liveness.marker, large):
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
            LOG.info("Job %s: claimed from %s", claim.job_id, owner or "the queue")
            yield claim
