# SPDX-License-Identifier: Apache-2.0
"""The engine: hears knocks, polls for what was missed, claims Jobs, keeps house."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from oslo_config import cfg
from oslo_log import log

from ciming import exceptions, rpc, staging, trusts
from ciming.db import models, pending, work
from ciming.engine import claims, persistence, runner

LOG = log.getLogger(__name__)
TRUST_MS = 60_000       # after which a trust that was announced is looked for where no Job came to name it,
NO_TRUST_MS = 3600_000      # and after which it will not come any more


class Engine:
    """Runs in threads of its own between start() and stop()."""

    def __init__(self) -> None:
        conf = cfg.CONF
        self._area = staging.open_area(conf.staging)
        self._liveness = claims.Liveness(conf.engine.coordination_url)
        self._stopping = threading.Event()
        self._knocked = threading.Event()
        self._runner = runner.Runner(self._area, self._stopping)
        self._listener = rpc.Listener(lambda _job_id: self._knocked.set())
        self._threads = [
            threading.Thread(target=loop, name=name, daemon=True)
            for name, loop in (("engine", self._claim_loop), ("house", self._house_loop))
        ]

    def start(self) -> None:
        self._liveness.start()
        self._listener.start()
        for thread in self._threads:
            thread.start()
        LOG.info("Engine %s started", self._liveness.name)

    def begin_to_stop(self) -> None:
        """Stop at the next part of each transfer and hand the Jobs back. Returns at once."""
        self._stopping.set()
        self._knocked.set()
        self._listener.begin_to_stop()

    def stop(self) -> None:
        """Return when nothing runs any more."""
        self.begin_to_stop()
        self._listener.stop()
        for thread in self._threads:
            thread.join()
        self._runner.stop()
        self._liveness.stop()
        LOG.info("Engine %s stopped", self._liveness.name)

    def _claim_loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except exceptions.Interrupted as reason:
                LOG.warning("Will look for Jobs again: %s", reason)
            except Exception:
                LOG.exception("Could not look for Jobs, will try again")
            self._knocked.wait(cfg.CONF.engine.poll_interval)
            self._knocked.clear()

    def _house_loop(self) -> None:
        """Apart, so that a slow Keystone delays no Job."""
        while not self._stopping.is_set():
            keep_house(self._area, self._stopping)
            self._stopping.wait(cfg.CONF.engine.housekeeping_interval)

    def _look(self) -> None:
        runs = self._runner
        large = cfg.CONF.engine.large_image
        for claim in claims.take(self._liveness, self._area.marker, runs.running, runs.may_take, large):
            runs.start(claim)


def keep_house(area: staging.StagingArea, stopping: threading.Event) -> bool:
    """Expire uploads, purge what is past its retention, delete trusts that outlived their Job or have none.

    What fails is logged, and tried again the next time; False if anything did.
    """

    def purge(job_id: str) -> None:
        if work.forget_spec(job_id, kept_until):
            area.remove(job_id)
            persistence.forget(job_id)
            work.purge(job_id)

    def delete_trust(job_id: str, trust_id: str) -> None:
        if trusts.delete(trust_id):
            work.trust_deleted(job_id, trust_id)

    def delete_old_trust(pending_id: str, trust_id: str) -> None:
        if trusts.delete(trust_id):
            pending.forget(pending_id)

    kept_until = models.now() - cfg.CONF.staging.retention * 1000
    done = True
    for chores, do in (
        (lambda: [(job_id,) for job_id in work.past_retention(area.marker, kept_until)], purge),
        (work.ended_with_trust, delete_trust),
        (pending.condemned, delete_old_trust),
        (_lost_trusts, _delete_lost),
        (lambda: [(area.marker,)], work.expire_uploads),
    ):
        done = _do_each(chores, do, stopping) and done
    return done


def _lost_trusts() -> Sequence[tuple[pending.Likeness, list[str]]]:
    """What trusts look like of which nobody knows what became, and ids of those that do look so."""
    lost = pending.lost(models.now() - TRUST_MS)
    given: dict[pending.Likeness, list[str]] = {likeness: [] for likeness in lost}
    for trust in trusts.given() if lost else ():
        expires_at = int(trust.expires_at.timestamp()) * 1000
        likeness = pending.Likeness(trust.trustor_user_id, trust.project_id, expires_at)
        if likeness in given:
            given[likeness].append(trust.id)
    return list(given.items())


def _delete_lost(likeness: pending.Likeness, trust_ids: list[str]) -> None:
    """Delete those that are in no Job. First it is made sure that they will come into none."""
    announced = pending.doom(likeness)
    if not announced:
        return      # it is in a Job after all
    nameless = pending.nameless(trust_ids)
    deleted = [trust_id for trust_id in nameless if trusts.delete(trust_id)]
    if len(deleted) >= announced:
        pending.forget_like(likeness)
    elif not nameless:      # one may be on its way still
        pending.forget_like(likeness, before=models.now() - NO_TRUST_MS)


def _do_each(
    chores: Callable[[], Sequence[tuple[Any, ...]]],
    do: Callable[..., object],
    stopping: threading.Event,
) -> bool:
    done = True
    try:
        for chore in chores():
            if stopping.is_set():
                return done
            try:
                do(*chore)
            except Exception:
                LOG.exception("%s of %s failed", do.__name__, chore)
                done = False
    except exceptions.Unavailable as error:
        LOG.warning("Could not look for what there is to do: %s", error)
        return False
    except Exception:
        LOG.exception("Could not look for what there is to do")
        return False
    return done
