# SPDX-License-Identifier: Apache-2.0
"""The engine: hears knocks, polls for what was missed, claims Jobs, keeps house."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from oslo_config import cfg
from oslo_log import log

from ciming import context, custody, exceptions, notifications, rpc, sealing, staging, trusts
from ciming.db import api, areas, models, work
from ciming.engine import checks, claims, looks, lost_trusts, outages, runner, zone_planning

LOG = log.getLogger(__name__)
FAILURES = (Exception, exceptions.Interrupted)
"""What ends one attempt at something, and not the thread that makes it: the next may go well."""
AGAIN_SECONDS = 1.0
UNTOUCHED_SECONDS = 24 * 3600
"""Who wrote before that, writes no more."""


class Term:
    """An engine under one name: its lock, and the Jobs that it runs. Over when the lock is lost."""

    def __init__(
        self, area: staging.StagingArea, on_end: Callable[[], None], former: Collection[str] = ()
    ) -> None:
        self.over = threading.Event()       # stops its transfers at the next part
        self._on_end = on_end
        self.liveness = claims.Liveness(on_lost=self.end, former=former)
        self.runner = runner.Runner(area, self.over)

    def end(self) -> None:
        """Returns at once."""
        self.over.set()
        self._on_end()

    def close(self) -> None:
        """Return when nothing of it runs any more."""
        self.runner.stop()
        self.liveness.stop()


class Engine:
    """Runs in threads of its own between start() and stop()."""

    def __init__(self) -> None:
        self._area = staging.open_area(cfg.CONF.staging)
        self._stopping = threading.Event()
        self._knocked = threading.Event()
        self._term = self._new_term()
        self._closing: list[threading.Thread] = []
        self._database = outages.Outage("The database")
        self._listener = rpc.Listener(self, self._area.marker)
        self._threads = [
            threading.Thread(target=loop, name=name, daemon=True)
            for name, loop in (("engine", self._claim_loop), ("house", self._house_loop))
        ]

    def start(self) -> None:
        self._term.liveness.start()
        self._listener.start()
        for thread in self._threads:
            thread.start()
        LOG.info("Engine %s started", self._term.liveness.name)

    def begin_to_stop(self) -> None:
        """Stop at the next part of each transfer and hand the Jobs back. Returns at once."""
        self._stopping.set()
        self._term.end()
        self._listener.begin_to_stop()

    def stop(self) -> None:
        """Return when nothing runs any more."""
        self.begin_to_stop()
        self._listener.stop()
        for thread in (*self._threads, *self._closing):
            thread.join()
        self._term.close()
        notifications.stop()
        LOG.info("Engine %s stopped", self._term.liveness.name)

    def knocked(self) -> None:
        self._knocked.set()

    def check(self, project_id: str, bundle: sealing.Bundle, place: dict[str, Any]) -> rpc.Verdicts:
        return checks.check(project_id, bundle, place)

    def look(
        self, kind: str, project_id: str, bundle: sealing.Bundle, what: dict[str, Any]
    ) -> list[rpc.Seen]:
        return looks.KINDS[kind](project_id, bundle, **what)

    def plan_zones(
        self, project_id: str, bundle: sealing.Bundle, spec: dict[str, Any]
    ) -> dict[str, Any]:
        return zone_planning.answer(project_id, bundle, spec)

    def take(self, job_id: str, bundle: sealing.Bundle) -> tuple[str, str]:
        """Hold a bundle for a Job that will be ours.

        :raises NotReady: this engine takes no Jobs now
        """
        liveness = self._term.liveness
        if self._stopping.is_set() or liveness.lost.is_set() or not liveness.sure:
            raise exceptions.NotReady("This engine takes no Jobs now.")
        custody.hold(job_id, bundle)
        return liveness.name, liveness.marker

    def _new_term(self, former: Collection[str] = ()) -> Term:
        return Term(self._area, self._knocked.set, former)

    def _claim_loop(self) -> None:
        while not self._stopping.is_set():
            if self._term.liveness.lost.is_set():
                self._begin_anew()
            try:
                self._look()
                self._database.over()
            except (exceptions.Interrupted, *work.AWAY) as reason:
                self._database.tell(reason)
            except Exception:
                LOG.exception("Could not look for Jobs, will try again")
            self._knocked.wait(cfg.CONF.engine.poll_interval)
            self._knocked.clear()

    def _begin_anew(self) -> None:
        """Take another name. What still runs under the old one ends beside it, and can write nothing."""
        lost = self._term
        closing = threading.Thread(target=lost.close, name="former", daemon=True)
        closing.start()
        self._closing = [*(thread for thread in self._closing if thread.is_alive()), closing]
        made = self._new_term({*lost.liveness.former, lost.liveness.name})
        away = outages.Outage("The coordination service")
        while not self._stopping.is_set():
            try:
                made.liveness.start()
            except Exception as error:
                away.tell(error)
                self._stopping.wait(AGAIN_SECONDS)
                continue
            away.over()
            self._term = made
            if self._stopping.is_set():     # asked before there was this one
                made.end()
            LOG.info("Engine %s goes on as %s", lost.liveness.name, made.liveness.name)
            return

    def _house_loop(self) -> None:
        """Apart, so that a slow Keystone delays no Job."""
        while not self._stopping.is_set():
            try:
                keep_house(self._area, self._stopping)
            except FAILURES:
                LOG.exception("Could not keep house, will try again")
            self._stopping.wait(cfg.CONF.engine.housekeeping_interval)

    def _look(self) -> None:
        term = self._term
        liveness, runs = term.liveness, term.runner
        if not liveness.sure:
            return

        def may_take(candidate: work.Candidate) -> bool:
            return not term.over.is_set() and runs.may_take(candidate)

        large = cfg.CONF.engine.large_image
        for claim in claims.take(liveness, self._area.marker, runs.running, may_take, large):
            runs.start(claim)


def keep_house(area: staging.StagingArea, stopping: threading.Event) -> bool:
    """Expire uploads, purge what is past its retention, delete trusts that outlived their Job or have none.

    What fails is logged, and tried again the next time; False if anything did.
    """

    def purge(job_id: str) -> None:
        if work.forget_spec(job_id, kept_until):
            area.remove(job_id)
            work.purge(job_id)

    def delete_trust(job_id: str, trust_id: str) -> None:
        if trusts.delete(trust_id):
            work.trust_deleted(job_id, trust_id)

    def expire_uploads() -> None:
        for job_id in work.expire_uploads(area.marker):
            _log_for(job_id)
            LOG.info("The upload has expired")

    def remove_left_over() -> None:
        """What a writer who slept brought after its Job had ended."""
        for job_id in area.untouched(time.time() - UNTOUCHED_SECONDS):
            if models.is_id(job_id) and not areas.needed(job_id, area.marker):      # not lost+found
                LOG.info("Removing what is left of Job %s", job_id)
                area.remove(job_id)

    def drop_bundles() -> None:
        custody.sweep(work.is_open)

    kept_until = models.now() - cfg.CONF.staging.retention * 1000
    done = True
    for chores, do in (
        (lambda: [(job_id,) for job_id in work.past_retention(area.marker, kept_until)], purge),
        (work.ended_with_trust, delete_trust),
        (lambda: [()], lost_trusts.delete),
        (lambda: [()], expire_uploads),
        (lambda: [()], remove_left_over),
        (lambda: [()], drop_bundles),
    ):
        done = _do_each(chores, do, stopping) and done
    return done


def _log_for(job_id: str | None = None) -> None:
    if job_id:
        context.for_job(job_id, api.get_job(job_id, None).request_id)


def _do_each(
    chores: Callable[[], Sequence[tuple[str, ...]]],
    do: Callable[..., object],
    stopping: threading.Event,
) -> bool:
    done = True
    try:
        for chore in chores():
            if stopping.is_set():
                return done
            try:
                _log_for(*chore[:1])
                do(*chore)
            except exceptions.NotFound:
                continue        # somebody else did it, and deleted the Job
            except FAILURES:
                LOG.exception("%s failed, will try again", do.__name__)
                done = False
            finally:
                context.forget()
    except FAILURES:
        LOG.exception("Could not look for what there is to do")
        return False
    return done
