# SPDX-License-Identifier: Apache-2.0
"""What a task may touch: steps with attempts, the source, the provider, and the Job's rows.

Injected into a flow at each load, never persisted.
"""

import abc
import contextlib
import functools
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from oslo_config import cfg
from oslo_log import log

from ciming import credentials, exceptions, staging
from ciming.db import models, work
from ciming.providers import base

LOG = log.getLogger(__name__)
Result = TypeVar("Result")
PROGRESS_SECONDS = 0.5
ASK_SECONDS = 2.0
LONGEST = 2000      # characters of a cloud's own words


def fault(error: exceptions.CimingError) -> dict[str, Any]:
    """An error as rows and answers have it."""
    return {
        "code": error.code,
        "message": error.detail[:LONGEST],
        "cloud_request_id": getattr(error, "cloud_request_id", None),
    }


class Tools(abc.ABC):
    """Common to all flows of a Job."""

    def __init__(self, claim: work.Claim, job: models.Job, stopping: threading.Event) -> None:
        self.claim = claim
        self.job = job
        self._stopping = stopping
        self._fault: dict[str, Any] | None = None

    def alive(self) -> None:
        """:raises Interrupted: the engine stops: leave everything as it is, the Job goes on elsewhere"""
        if self._stopping.is_set():
            raise exceptions.Interrupted("The engine stops.")

    def attempt(self, step: str, call: Callable[[], Result]) -> Result:
        """Do a step, again and again while its errors are passing ones; each is seen in the Job.

        :raises CimingError: for good
        """
        LOG.debug("Step: %s", step)
        self._write(step=step, status="running")
        result = self._until_final(step, call, self._tell)
        if self._fault:
            self._fault = None
            self._write(error=None)
        return result

    def undo(self, call: Callable[[], None]) -> None:
        """Do the opposite of a step; the error that led here stays the one that is shown."""
        self._write(step="withdraw")
        self._until_final("withdraw", call, self._tell_leftover)

    def _until_final(
        self,
        step: str,
        call: Callable[[], Result],
        tell: Callable[[exceptions.CimingError, bool], None],
    ) -> Result:
        failures = 0
        while True:
            try:
                self.alive()
                return call()
            except exceptions.CimingError as error:
                failure = error
            except Exception:       # its text may hold anything: for the log only
                LOG.exception("Unexpected error in step %s", step)
                failure = exceptions.CimingError(str(work.INTERNAL["message"]))
            failures += 1
            LOG.warning("%s failed (%s of this step): %s", step, failures, failure)
            final = not self._again(failures, failure)
            tell(failure, final)
            if final:
                raise failure from None
            self._pause(failures)

    def _tell(self, error: exceptions.CimingError, final: bool) -> None:
        self._fault = fault(error)
        self._write(status="running" if final else "retrying", error=self._fault)

    def _tell_leftover(self, error: exceptions.CimingError, final: bool) -> None:
        """What the Target failed of is known; that its traces are still there, only at the end."""
        if final:
            first = self._fault or fault(error)
            left = f"What was begun there{self._begun()} could not be removed: {error.detail[:LONGEST]}"
            self._write(error={**first, "message": f"{first['message']} {left}"})

    def _begun(self) -> str:
        """What there is to be removed, as far as we know."""
        return ""

    @staticmethod
    def _again(failures: int, error: exceptions.CimingError) -> bool:
        passing = isinstance(error, exceptions.TransientProviderError | exceptions.Unavailable)
        return passing and failures < int(cfg.CONF.engine.max_attempts)

    def _pause(self, failures: int) -> None:
        options = cfg.CONF.engine
        delay = min(options.retry_delay * 2 ** (failures - 1), options.max_retry_delay)
        self._stopping.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, no secret

    @abc.abstractmethod
    def _write(self, **values: Any) -> None:
        """Write step, status or error into the Job's rows."""


class StageTools(Tools):
    """For the stage flow."""

    def __init__(
        self,
        claim: work.Claim,
        job: models.Job,
        stopping: threading.Event,
        source: staging.Source,
    ) -> None:
        super().__init__(claim, job, stopping)
        self.source = source
        self.declared_format: str | None = (job.spec or {}).get("disk_format")
        self.max_virtual_size: int = cfg.CONF.staging.max_virtual_size

    def check_promises(self, staged: staging.StagedFile) -> None:
        """Are these the bytes that were received, and that the caller has the checksum of?

        :raises CimingError: the staging area lost some of them
        :raises ImageRejected: they are others
        """
        if staged.size != self.job.image.size:
            raise exceptions.CimingError(
                f"{self.job.image.size} bytes were received, but the staging area holds {staged.size}.",
                code="staging.damaged",
            )
        algorithm, _, promised = (self.job.spec or {}).get("checksum", "").partition(":")
        if promised and staged.digest(algorithm) != promised.lower():
            raise exceptions.ImageRejected(
                f"The data has {algorithm} {staged.digest(algorithm)}, but {promised.lower()} was "
                "given at create. Check the file, and create the image again.",
                code="image.checksum_mismatch",
            )

    def staged(self, staged: staging.StagedFile) -> None:
        work.staged(
            self.claim,
            disk_format=staged.disk_format,
            virtual_size=staged.virtual_size,
            digests={name: staged.digests[name] for name in ("sha256", "sha512")},
        )

    def _write(self, **values: Any) -> None:
        work.update_stage(self.claim, step=values.get("step"), error=values.get("error"))


class TargetTools(Tools):
    """For a Target's flow; also the Transfer that its provider reports to."""

    def __init__(
        self,
        claim: work.Claim,
        job: models.Job,
        stopping: threading.Event,
        target: models.Target,
    ) -> None:
        super().__init__(claim, job, stopping)
        self.key = target.id
        self.checkpoint: Mapping[str, Any] | None = target.checkpoint
        self._target = target
        self._told = time.monotonic()
        self._asked = 0.0
        self._fault = target.error
        spec = job.spec or {}
        self.spec = base.ImageSpec(
            image_id=job.image_id,
            name=spec["name"],
            properties=spec.get("properties", {}),
            min_disk=spec.get("min_disk", 0),
            min_ram=spec.get("min_ram", 0),
            visibility=spec.get("visibility"),
            tags=tuple(spec.get("tags", ())),
        )

    @functools.cached_property
    def provider(self) -> base.Provider:
        """The Target's cloud. Made when first used: inside an attempt."""
        place, credential = credentials.of_target(self.job, self._target)
        return base.load(self._target.provider)(place, credential)

    def alive(self) -> None:
        """Also asks, at a bounded rate, whether the Job is still ours."""
        super().alive()
        if time.monotonic() - self._asked >= ASK_SECONDS:
            self._asked = time.monotonic()
            work.check(self.claim)

    def withdraw(self) -> None:
        """Remove what this Target made in its cloud; what can not be removed is said in its error."""
        with contextlib.suppress(exceptions.CimingError):
            self.undo(lambda: self.provider.discard(self.key))

    def _begun(self) -> str:
        return f" ({', '.join(map(str, self.checkpoint.values()))})" if self.checkpoint else ""

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        work.update_target(self.claim, self.key, checkpoint=dict(checkpoint))
        self.checkpoint = checkpoint

    def progress(self, bytes_done: int) -> None:
        """Written at a bounded rate; each write also asks whether the Job is still ours."""
        whole = bytes_done == self._target.bytes_total
        if not whole and time.monotonic() - self._told < PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        work.progress(self.claim, self.key, bytes_done)

    def link(self, image_ref: str, proof: str) -> None:
        work.add_link(self.claim, self.key, image_ref, proof)

    def _write(self, **values: Any) -> None:
        work.update_target(self.claim, self.key, **values)
