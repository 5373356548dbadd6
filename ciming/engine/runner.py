# SPDX-License-Identifier: Apache-2.0
"""All TaskFlow wiring: a claimed Job's stage flow, a publish flow per Target beside it, then its end.

All flows of a Job are in one LogBook, whose id is the Job's. Each flow has a thread of its own, which costs
little while it waits; what is limited is how many of them work at a time.
"""

import contextlib
import functools
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, TypeVar

from oslo_config import cfg
from oslo_log import log
from taskflow import engines, states
from taskflow import exceptions as tf_exceptions
from taskflow.persistence import models as tf_models

from ciming import context, custody, exceptions, growing, metrics, staging, trusts, zone_plans
from ciming.db import models, status, uploads, work
from ciming.engine import (
    atom_points,
    conversions,
    events,
    persistence,
    slots,
    sources,
    stage_tools,
    target_tools,
    tools,
    watch,
    zone_sync,
)
from ciming.flows import adjust, fetch, link, publish, stage, update, withdraw
from ciming.flows import zone_sync as zone_flows

LOG = log.getLogger(__name__)
Result = TypeVar("Result")
STAGE, FETCH, RESTORE, ZONES = "stage", "fetch", "restore", "zone-sync"
STAGE_FLOWS = {STAGE: stage.flow, FETCH: fetch.flow, RESTORE: stage.flow}
TARGET_FLOWS = {
    "create": publish.flow, "sync": publish.flow, "link": link.flow,
    "update": update.flow, "delete": withdraw.flow,
}
"""By the kind of the Job."""
MOST_SYNCS = 1000       # threads, that are made when they are needed
ENDS = (states.SUCCESS, states.REVERTED, states.FAILURE)


class Runner:
    """Runs claimed Jobs; `running` holds them by their ids."""

    def __init__(self, area: staging.StagingArea, stopping: threading.Event) -> None:
        options = cfg.CONF.engine
        self.running: dict[str, work.Claim] = {}
        metrics.RUNNING.set_function(self.running.__len__)
        self._area = area
        self._stopping = stopping
        self._max_jobs = int(options.max_jobs)
        self._jobs = futures.ThreadPoolExecutor(options.max_jobs, "job")
        # Apart, and hardly bounded: they wait for Jobs of images, and for each other.
        self._syncs = futures.ThreadPoolExecutor(MOST_SYNCS, "zones")
        self._stages = slots.Slots(slots.Limits(options.max_stages))
        self._conversions = slots.Slots(slots.Limits(options.max_conversions))
        self._transfers = slots.Slots(
            slots.Limits(
                options.max_transfers,
                options.max_transfers_per_cloud,
                options.max_transfers_per_project,
            )
        )

    def may_take(self, candidate: work.Candidate) -> bool:
        """Is there room for this Job, in all and of what one project may have?"""
        if candidate.kind == ZONES:
            return True
        running = [claim for claim in list(self.running.values()) if claim.kind != ZONES]
        theirs = [claim for claim in running if claim.project_id == candidate.project_id]
        most = slots.Limits(self._max_jobs).large
        return _has_room(candidate, running, self._max_jobs) and _has_room(candidate, theirs, most)

    def start(self, claim: work.Claim) -> None:
        self.running[claim.job_id] = claim
        pool = self._syncs if claim.kind == ZONES else self._jobs
        pool.submit(self._run, claim)

    def stop(self) -> None:
        """Wait until all threads have seen that the engine stops."""
        self._jobs.shutdown()
        self._syncs.shutdown()

    def _run(self, claim: work.Claim) -> None:
        """One Job, from where it is to its end. If interrupted it goes on later, here or elsewhere."""
        context.for_job(claim.job_id, claim.request_id)
        try:
            work_on = self._sync_zones if claim.kind == ZONES else self._stage_and_publish
            work_on(claim)
            self._end(claim)
        except exceptions.Waits as reason:
            LOG.info("Waits: %s", reason)
            self._let_wait(claim)
        except sources.Stalls as reason:
            LOG.info("Given back: %s", reason)
            self._hand_back(claim, work.stop_following)
        except exceptions.Interrupted as reason:
            LOG.info("Interrupted: %s", reason)
            self._hand_back(claim)
        except Exception:
            LOG.exception("Unexpected error")
            self._stopping.wait(cfg.CONF.engine.max_retry_delay)
            self._hand_back(claim, self._give_up)
        finally:
            self.running.pop(claim.job_id, None)

    def _give_up(self, claim: work.Claim) -> None:
        """End what has not ended, and leave nothing of it in the clouds."""
        job = work.load(claim)
        for target in job.targets:
            if target.attempts and target.status not in status.TARGET_ENDS:
                kit = self._tools(claim, job, target, watch.Watch(claim, self._stopping))
                kit.withdraw()
        work.give_up(claim)

    def _tools(
        self,
        claim: work.Claim,
        job: models.Job,
        target: models.Target,
        watching: watch.Watch,
        staged: growing.GrowingFile | None = None,
        converted: conversions.Conversions | None = None,
    ) -> target_tools.TargetTools:
        slot = self._transfers.slot(
            cloud=target.cloud_key, project=job.project_id, large=_yields(job)
        )
        staged = staged or growing.GrowingFile()
        return target_tools.TargetTools(job, watching, staged, claim, target, slot, converted)

    def _hand_back(
        self, claim: work.Claim, before: Callable[[work.Claim], None] | None = None
    ) -> None:
        """Let any engine claim the Job; or keep it, where only we hold what it needs."""
        try:
            if before:
                before(claim)
            if custody.of(claim.parent_id or claim.job_id) is None or self._stopping.is_set():
                work.release(claim)
        except exceptions.Interrupted as reason:
            LOG.info("Not handed back: %s", reason)

    def _let_wait(self, claim: work.Claim) -> None:
        """What we hold goes first: as soon as the Job waits, its user may bring us something else."""
        custody.drop(claim.job_id)
        try:
            work.wait(claim)
        except exceptions.Interrupted as reason:
            LOG.info("Does not wait: %s", reason)

    def _sync_zones(self, claim: work.Claim) -> None:
        """Plan, then see the Jobs of the images to their ends; once that is over, it is not done again."""
        job = self._begin(claim)
        if (job.report or {}).get("step") == zone_sync.END:
            return
        watching = watch.Watch(claim, self._stopping)
        kit = zone_sync.ZoneTools(job, watching, claim)
        if job.waiting_since is None or job.wanted == "cancel":
            if self._line_up(Flows(claim, [ZONES]), job, kit, watching) != states.SUCCESS:
                kit.say_why(work.INTERNAL)
        else:
            kit.say_why(zone_sync.WAITED)
        kit.settle_children()

    @staticmethod
    def _line_up(
        flows: "Flows", job: models.Job, kit: zone_sync.ZoneTools, watching: watch.Watch
    ) -> str:
        def run() -> str:
            _log_for(job)
            return flows.run(ZONES, zone_flows.flow, tools=kit)

        with futures.ThreadPoolExecutor(1, "zones") as pool:
            running = _submit(pool, run)
            _await([running], [kit], watching)
            return running.result()

    def _begin(self, claim: work.Claim) -> models.Job:
        """The Job that is ours from now on; given up, if it has waited for its user for too long."""
        job = work.load(claim)
        _log_for(job)
        if job.waiting_since is not None and job.wanted != "cancel":
            LOG.info("Waited for a credential for too long")
            self._give_up(claim)
        elif claim.starts:
            events.started(job)
        return job

    def _stage_and_publish(self, claim: work.Claim) -> None:
        """Bring the bytes in, and to each Target as soon as that can be."""
        job = self._begin(claim)
        if job.waiting_since is not None and job.wanted != "cancel":
            return
        watching = watch.Watch(claim, self._stopping)
        flows = Flows(claim, [*STAGE_FLOWS, *(target.id for target in job.targets)])
        todo = [target for target in job.targets if target.status not in status.TARGET_ENDS]
        if not todo:        # and what is cleaned up need not come back
            return
        with (
            contextlib.closing(growing.GrowingFile()) as staged,
            contextlib.closing(
                conversions.Conversions(self._area, claim, watching, staged, self._conversions)
            ) as converted,
            futures.ThreadPoolExecutor(len(todo) + 1, "flow") as pool,
        ):
            kits = [self._tools(claim, job, target, watching, staged, converted) for target in todo]
            parts: list[futures.Future[None]] = []
            try:
                for each in kits:
                    parts.append(_submit(pool, self._publish, flows, job, each))
                if job.kind in status.MOVING and _are_wanted(job, staged, parts, kits, watching):
                    slot = self._stages.slot(large=_yields(job))
                    kit = stage_tools.StageTools(job, watching, staged, claim, slot, self._area.room)
                    bringing = _submit(pool, self._stage, flows, job, kit)
                    _await([bringing], [kit], watching)
                    bringing.result()
            except BaseException as reason:
                staged.fail(reason)     # or those who follow would wait for ever
                raise
            finally:
                _await(parts, kits[: len(parts)], watching)
            _raise_first([part.exception() for part in parts])

    def _stage(self, flows: "Flows", job: models.Job, kit: stage_tools.StageTools) -> None:
        """Have the file whole and looked at, or failed."""
        _log_for(job)
        claim, staged = flows.claim, kit.staged
        staged.check()      # it may begin when it was given up, see _submit()
        if job.stage == "staged" and self._path(job).exists():
            staged.finish(self._staged(job))
            return
        if job.stage != "failed":
            name, kit.source = self._source(claim, job, kit)
            done = self._run_stage(flows, name, kit)
            if name == FETCH and not done and (kit.lost or flows.begun(RESTORE)):
                kit.source = sources.Remote(self._area, claim, kit.origin, self._path(job))
                done = self._run_stage(flows, RESTORE, kit)
            if done:
                return
            if work.load(claim).wanted != "cancel":
                work.end_stage(claim)
            job = work.load(claim)
        if job.wanted == "cancel":
            staged.fail(exceptions.Cancelled("The Job was cancelled."))
        else:
            staged.fail(tools.error_of(job.error or work.INTERNAL))

    def _run_stage(self, flows: "Flows", name: str, kit: stage_tools.StageTools) -> bool:
        """Is the file there now? A former run may have done it, and not have come to say so."""
        if flows.run(name, STAGE_FLOWS[name], tools=kit) != states.SUCCESS:
            return False
        if not kit.staged.whole:
            try:
                kit.staged.finish(self._staged(work.load(flows.claim)))
            except FileNotFoundError:
                kit.tell_lost()
        return kit.staged.whole

    def _source(
        self, claim: work.Claim, job: models.Job, kit: stage_tools.StageTools
    ) -> tuple[str, sources.Source]:
        """The flow that brings the bytes, and where from: what was lost is restored from where it is."""

        def told() -> int:
            upload = work.load(claim).upload
            return upload.offset if upload else 0

        was_here = job.image.digests.get("sha512") and job.image.links      # one of them may give it back
        if was_here or job.kind == "sync" or "source" in (job.spec or {}):
            tell = functools.partial(work.fetched, claim)
            return FETCH, sources.Remote(self._area, claim, kit.origin, self._path(job), tell, told)
        return STAGE, sources.Upload(self._area, claim, cfg.CONF.engine.max_stall)

    def _path(self, job: models.Job) -> Path:
        return self._area.upload_path(job.id, job.upload.generation if job.upload else 0)

    def _staged(self, job: models.Job) -> staging.StagedFile:
        """What the stage flow of a Job left."""
        file, digests = job.file, job.file["digests"]
        return staging.StagedFile(
            path=str(self._path(job)),
            disk_format=str(file["disk_format"]),
            size=int(file["size"] or 0),
            virtual_size=int(file["virtual_size"] or 0),
            digests={name: digests[name] for name in ("sha256", "sha512") if digests.get(name)},
            guest=job.image.digests.get("guest"),
            converted_for=job.source["cloud"] if job.source.get("converted") else None,
        )

    def _publish(self, flows: "Flows", job: models.Job, kit: target_tools.TargetTools) -> None:
        """Do what the Job is for in one Cloud, or undo what was begun there."""
        _log_for(job)
        known = kit.entry.get("symbol") == zone_plans.METADATA
        end = flows.run(kit.key, adjust.flow if known else TARGET_FLOWS[job.kind], tools=kit)
        if end == states.SUCCESS:
            return
        if end != states.REVERTED:      # TaskFlow itself failed, so nothing was undone
            kit.withdraw()
        events.target_ended(job, kit.target, work.end_target(flows.claim, kit.key))

    def _end(self, claim: work.Claim) -> None:
        """Clean up, then end the Job: who sees it ended finds nothing left over."""
        work.check(claim)
        job = work.load(claim)
        if job.wanted == "cancel" or job.parent_id or job.kind == ZONES:     # a new sync does it again
            purge = True
        elif job.stage == "failed":
            code = str((job.error or work.INTERNAL)["code"])
            purge = code.startswith(uploads.OF_NO_USE)
        else:
            purge = all(target.status == "success" for target in job.targets)
        if purge:
            self._area.remove(job.id)
        persistence.forget(claim)
        if job.trust_id and not job.parent_id and trusts.delete(job.trust_id):
            work.trust_deleted(job.id, job.trust_id)
        custody.drop(job.id)        # before somebody retries it and brings us something else
        events.ended(job, work.finish(claim, purge=purge))


def _has_room(candidate: work.Candidate, running: Sequence[work.Claim], places: int) -> bool:
    """Is one of so many places free? Those that take long leave some to others."""
    if len(running) >= places:
        return False
    long = sum(claim.takes_long for claim in running)
    return not candidate.takes_long or long < slots.Limits(places).large


def _submit(pool: futures.Executor, call: Callable[..., Result], *args: Any) -> futures.Future[Result]:
    """Have a thread do it.

    :raises Interrupted: there can be no more; it may be done all the same, by one that has ended its part
    """
    try:
        return pool.submit(call, *args)
    except RuntimeError as error:
        raise exceptions.Interrupted(f"There can be no more threads: {error}") from error


def _are_wanted(
    job: models.Job,
    staged: growing.GrowingFile,
    parts: Sequence[futures.Future[None]],
    kits: Sequence[target_tools.TargetTools],
    watching: watch.Watch,
) -> bool:
    """Does any Target ask for the bytes? A cloud may copy by itself what another region of it has."""
    if job.kind != "sync":
        return True

    def settled(seconds: float) -> bool:
        return staged.wanted.wait(seconds) or all(part.done() for part in parts)

    for part in parts:      # the last one that ends need not be waited for
        part.add_done_callback(lambda _part: staged.wanted.set() if settled(0) else None)
    _await(parts, kits, watching, settled)
    return not all(part.done() for part in parts)


def _await(
    parts: Sequence[futures.Future[Any]],
    kits: Sequence[tools.Tools],
    watching: watch.Watch,
    settled: Callable[[float], bool] | None = None,
) -> None:
    """Until all parts have ended; no cloud that hangs holds it up when nobody is to go on.

    :param settled: what else is enough: looks for so many seconds whether that is so
    """

    def ended(seconds: float) -> bool:
        return not futures.wait(parts, seconds).not_done

    while not (settled or ended)(watch.ASK_SECONDS):
        with contextlib.suppress(exceptions.Interrupted):
            watching.ask()
        if watching.over:
            for part, kit in zip(parts, kits, strict=True):
                if not part.done():
                    kit.hang_up()


def _raise_first(reasons: Sequence[BaseException | None]) -> None:
    """Raise one of them, if there is any: a Job waits for its user only when all else of it has ended."""
    raised = [reason for reason in reasons if reason is not None]
    for reason in sorted(raised, key=lambda reason: isinstance(reason, exceptions.Waits)):
        raise reason


def _yields(job: models.Job) -> bool:
    """Does it leave some room to others: for its size, or as one of many that nobody waits for?"""
    sizes = (job.image.size, job.upload.size if job.upload else None)     # a Cloud's own file may be larger
    size = max((each for each in sizes if each is not None), default=None)
    return job.parent_id is not None or work.is_large(job.kind, size, cfg.CONF.engine.large_image)


def _log_for(job: models.Job) -> None:
    context.for_job(job.id, job.request_id, job.user_id, job.project_id)


class Flows:
    """The LogBook of one claimed Job, with a flow detail for each of its flows."""

    def __init__(self, claim: work.Claim, names: Sequence[str]) -> None:
        self.claim = claim
        self._backend = persistence.FencedBackend(claim)
        connection = self._backend.get_connection()
        try:
            book = connection.get_logbook(claim.job_id)
        except tf_exceptions.NotFound:
            book = tf_models.LogBook("job", uuid=claim.job_id)
            for name in names:      # all at once: two threads that save one book overwrite each other
                book.add(tf_models.FlowDetail(name, uuid=str(uuid.uuid4())))
            connection.save_logbook(book)
        self._details = {detail.name: detail for detail in book}

    def begun(self, name: str) -> bool:
        """Was anything of a flow done, in this run or an earlier one?"""
        return len(self._details[name]) > 0

    def run(self, name: str, factory: Callable[[], Any], **injected: Any) -> str:
        """Run a flow, or what is left of it; its state at the end: SUCCESS, REVERTED or FAILURE.

        :param injected: what its tasks get besides each other's results; never persisted
        """
        detail = self._details[name]
        if detail.state in ENDS:
            return str(detail.state)
        try:
            flow = factory()
            engine = engines.load(flow, flow_detail=detail, backend=self._backend, engine="serial")
            atom_points.watch(engine, flow, f"{self.claim.job_id} {name}")
            engine.storage.inject(injected, transient=True)
            # Nobody reads the progress that TaskFlow keeps of a task, and it is half of what it writes.
            engine.storage.set_task_progress = lambda *_args, **_kwargs: None
            engine.run()
        except Exception as error:      # what failed is in the Job's rows; here it is only logged
            LOG.info("Flow %s failed: %s", name, error)
            return str(detail.state if detail.state in ENDS else states.FAILURE)
        return str(states.SUCCESS)
