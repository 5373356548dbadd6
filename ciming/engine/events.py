# SPDX-License-Identifier: Apache-2.0
"""What is worth telling of a Job: to the log, to Prometheus, and to who listens for notifications."""

from oslo_log import log

from ciming import context, metrics, notifications
from ciming.db import models, work

LOG = log.getLogger(__name__)


def claimed(claim: work.Claim, owner: str | None) -> None:
    """An engine has a Job now; `owner` had it before, if any engine had."""
    context.for_job(claim.job_id, claim.request_id)
    LOG.info("Claimed from %s", owner or "the queue")
    context.forget()
    if owner not in (None, claim.owner):
        metrics.TAKEOVERS.inc()


def started(job: models.Job) -> None:
    """A Job begins, and was not begun before."""
    notifications.job("start", job, job.status)


def linked(job: models.Job, target: models.Target, image_ref: str, proof: str) -> None:
    """A Target's image is there, proven and linked; the Target has ended so."""
    notifications.link(job, target, image_ref, proof)
    target_ended(job, target, "success")


def target_ended(job: models.Job, target: models.Target, status: str) -> None:
    """A Target has ended."""
    metrics.TARGETS.labels(target.provider, metrics.place(target), status).inc()
    metrics.TARGET_SECONDS.labels(target.provider, status).observe(_since_start(job))


def ended(job: models.Job, status: str) -> None:
    """A Job has ended; its Targets are as they ended, too."""
    LOG.info("Ended: %s", status)
    metrics.JOB_SECONDS.labels(job.kind, status).observe(_since_start(job))
    notifications.job("error" if status == "error" else "end", job, status)


def _since_start(job: models.Job) -> float:
    """Seconds."""
    return max(0, models.now() - (job.started_at or models.now())) / 1000
