# SPDX-License-Identifier: Apache-2.0
"""All TaskFlow wiring: a claimed Job's stage flow, then one publish flow per Target, then its end.

All flows of a Job are in one LogBook, whose id is the Job's. Stage flows have threads of their own, so
that publishers can not starve the stage they wait for.
"""

import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_log import log
from taskflow import engines, states
from taskflow import exceptions as tf_exceptions
from taskflow.persistence import models as tf_models

from ciming import context, exceptions, staging, trusts
from ciming.db import models, status, work
from ciming.engine import persistence, tools
from ciming.flows import publish, stage

LOG = log.getLogger(__name__)
STAGE = "stage"
ENDS = (states.SUCCESS, states.REVERTED, states.FAILURE)
NOT_TO_BE_RETRIED = ("image.", "upload.")       # codes of Jobs whose bytes are of no use


class Runner:
    """Runs claimed Jobs; `running` holds their ids."""

    def __init__(self, area: staging.StagingArea, stopping: threading.Event) -> None:
        options = cfg.CONF.engine
        self.running: set[str] = set()
        self._area = area
        self._stopping = stopping
        self._max_jobs = int(options.max_jobs)
        self._jobs = futures.ThreadPoolExecutor(options.max_jobs, "job")
        self._stages = futures.ThreadPoolExecutor(options.stage_threads, "stage")
        self._publishers = futures.ThreadPoolExecutor(options.publish_threads, "publish")

    @property
    def full(self) -> bool:
        return len(self.running) >= self._max_jobs

    def start(self, claim: work.Claim) -> None:
        self.running.add(claim.job_id)
        self._jobs.submit(self._run, claim)

    def stop(self) -> None:
        """Wait until all threads have seen that the engine stops."""
        for pool in (self._jobs, self._stages, self._publishers):
            pool.shutdown()

    def _run(self, claim: work.Claim) -> None:
        """One Job, from where it is to its end. If interrupted it goes on later, here or elsewhere."""
        context.for_job(claim.job_id, claim.request_id)
        try:
            self._stage_and_publish(claim)
            self._end(claim)
        except exceptions.Interrupted as reason:
            LOG.info("Interrupted: %s", reason)
            self._hand_back(claim)
        except Exception:
            LOG.exception("Unexpected error")
            self._stopping.wait(cfg.CONF.engine.max_retry_delay)
            self._hand_back(claim, self._give_up)
        finally:
            self.running.discard(claim.job_id)

    def _give_up(self, claim: work.Claim) -> None:
        """End what has not ended, and leave nothing of it in the clouds."""
        job = work.load(claim)
        for target in job.targets:
            if target.attempts and target.status not in status.TARGET_ENDS:
                tools.TargetTools(claim, job, self._stopping, target).withdraw()
        work.give_up(claim)

    @staticmethod
    def _hand_back(claim: work.Claim, before: Callable[[work.Claim], None] | None = None) -> None:
        try:
            if before:
                before(claim)
            work.release(claim)
        except exceptions.Interrupted as reason:
            LOG.info("Not handed back: %s", reason)

    def _stage_and_publish(self, claim: work.Claim) -> None:
        job = work.load(claim)
        _log_for(job)
        flows = Flows(claim, [STAGE, *(target.id for target in job.targets)])
        if job.stage == "staging":
            self._stages.submit(self._stage, flows, job).result()
            job = work.load(claim)
        if job.stage == "staged":
            todo = [target for target in job.targets if target.status not in status.TARGET_ENDS]
            parts = [self._publishers.submit(self._publish, flows, job, target) for target in todo]
            futures.wait(parts)
            for part in parts:
                part.result()

    def _stage(self, flows: "Flows", job: models.Job) -> None:
        _log_for(job)
        source = staging.UploadSource(self._uploaded(job))
        kit = tools.StageTools(flows.claim, job, self._stopping, source)
        if flows.run(STAGE, stage.flow, tools=kit) != states.SUCCESS:
            work.end_stage(flows.claim)

    def _publish(self, flows: "Flows", job: models.Job, target: models.Target) -> None:
        _log_for(job)
        image = job.image
        staged = staging.StagedFile(
            path=str(self._uploaded(job)),
            disk_format=str(image.disk_format),
            size=int(image.size or 0),
            virtual_size=int(image.virtual_size or 0),
            digests={name: digest for name, digest in image.digests.items() if digest},
        )
        kit = tools.TargetTools(flows.claim, job, self._stopping, target)
        end = flows.run(target.id, publish.flow, tools=kit, staged=staged)
        if end == states.SUCCESS:
            return
        if end != states.REVERTED:      # TaskFlow itself failed, so nothing was undone
            kit.withdraw()
        work.end_target(flows.claim, target.id)

    def _uploaded(self, job: models.Job) -> Path:
        generation = job.upload.generation if job.upload else 0
        return self._area.upload_path(job.id, generation)

    def _end(self, claim: work.Claim) -> None:
        """Clean up, then end the Job: who sees it ended finds nothing left over."""
        work.check(claim)
        job = work.load(claim)
        if job.stage == "failed":
            code = str((job.error or work.INTERNAL)["code"])
            purge = code.startswith(NOT_TO_BE_RETRIED)
        else:
            purge = all(target.status == "success" for target in job.targets)
        if purge:
            self._area.remove(job.id)
            persistence.forget(job.id, claim)
        if job.trust_id and trusts.delete(job.trust_id):
            work.trust_deleted(job.id, job.trust_id)
        LOG.info("Ended: %s", work.finish(claim, purge=purge))


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

    def run(self, name: str, factory: Callable[[], Any], **injected: Any) -> str:
        """Run a flow, or what is left of it; its state at the end: SUCCESS, REVERTED or FAILURE.

        :param injected: what its tasks get besides each other's results; never persisted
        """
        detail = self._details[name]
        if detail.state in ENDS:
            return str(detail.state)
        try:
            engine = engines.load(factory(), flow_detail=detail, backend=self._backend, engine="serial")
            engine.storage.inject(injected, transient=True)
            engine.run()
        except Exception as error:      # what failed is in the Job's rows; here it is only logged
            LOG.info("Flow %s failed: %s", name, error)
            return str(detail.state if detail.state in ENDS else states.FAILURE)
        return str(states.SUCCESS)
