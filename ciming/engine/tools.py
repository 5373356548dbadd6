# SPDX-License-Identifier: Apache-2.0
"""What a task may touch: steps with attempts, and the Job's rows.

Injected into a flow at each load, never persisted.
"""

import abc
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from oslo_config import cfg
from oslo_log import log

from ciming import credentials, exceptions, growing, metrics, trusts
from ciming.db import clouds, models, work
from ciming.engine import locating, sources
from ciming.engine import watch as watch_
from ciming.providers import base

LOG = log.getLogger(__name__)
Result = TypeVar("Result")
HANG_SECONDS = 2.0  # without a question, after which a call to a cloud hangs
LONGEST = 2000      # characters of a cloud's own words
RESUME = "The Job waits: resume it with a credential that is good."


def fault(error: exceptions.CimingError) -> dict[str, Any]:
    """An error as rows and answers have it."""
    return {
        "code": error.code,
        "message": error.detail[:LONGEST],
        "cloud_request_id": getattr(error, "cloud_request_id", None),
    }


def error_of(fault: dict[str, Any]) -> exceptions.CimingError:
    """The error that became a fault."""
    return exceptions.ProviderError(
        fault["message"], code=fault["code"], cloud_request_id=fault.get("cloud_request_id")
    )


def provider_of(
    job: models.Job, place: models.Target | locating.Place, patience: float | None = None
) -> base.Provider:
    """A Cloud, as the Job's user.

    :param patience: as credentials.of_place() has it
    :raises ProviderError: there is no credential, or no such provider
    """
    where, credential = credentials.of_place(job, place, patience)
    carry = entry_of(job, place.cloud_key).get("carry")
    if carry:
        where["owner"] = carry["owner"]
    return base.load(place.provider)(where, credential)


def entry_of(job: models.Job, cloud_key: str) -> Mapping[str, Any]:
    """What a plan of zones says of the Job's image in one of them; nothing where there is no plan."""
    found: Mapping[str, Any] = (job.spec or {}).get("there", {}).get(cloud_key, {})
    return found


def whose(place: models.Target | locating.Place, provider: base.Provider) -> dict[str, str]:
    """Nothing of a zone, which has no credential of its own, or where the Cloud does not say it now."""
    if clouds.is_zone(place.cloud_key, place.region):
        return {}
    with contextlib.suppress(exceptions.ProviderError):
        return {"whose": provider.whose()}
    return {}


class Tools(abc.ABC):
    """Common to all flows of a Job."""

    def __init__(self, job: models.Job, watch: watch_.Watch, staged: growing.GrowingFile) -> None:
        self.job = job
        self._watch = watch
        self.staged = staged
        self._fault: dict[str, Any] | None = None
        self._let_in = False        # has the cloud let us in, in this Job?
        self._asked = time.monotonic()

    def alive(self) -> None:
        """Asked between two parts of whatever takes long.

        :raises Interrupted: leave everything as it is, the Job goes on elsewhere
        :raises Cancelled: its user does not want it any more
        """
        self._asked = time.monotonic()
        self._watch.ask()
        if self._watch.cancelled:
            raise exceptions.Cancelled("The Job was cancelled.")

    def hang_up(self) -> None:
        """From another thread, when nobody is to go on: end a call to a cloud that does not return."""
        if time.monotonic() - self._asked > HANG_SECONDS:
            for provider in self._called():
                LOG.info("Hanging up on %s", self._place() or "a Cloud")
                provider.hang_up()

    @abc.abstractmethod
    def _called(self) -> Iterable[base.Provider]:
        """Clouds at which a call may hang that is to be ended."""

    def attempt(self, step: str, call: Callable[[], Result]) -> Result:
        """Do a step, again and again while its errors are passing ones; each is seen in the Job.

        :raises CimingError: for good
        :raises Waits: until its user brings a credential
        """
        try:
            with self.cancelling():
                self.alive()
                LOG.debug("Step: %s", step)
                self._write(step=step, status="running")
                result = self._until_final(step, call, self._tell, self.alive)
        except exceptions.CredentialRefused as error:
            if self._is_mistake(error):
                raise
            self._fault = fault(error) | {"message": f"{error.detail[:LONGEST]} {RESUME}"}
            self._write(status="waiting", error=self._fault)
            raise exceptions.Waits(error.detail) from None
        self._let_in = True
        self._is_over()
        return result

    @contextlib.contextmanager
    def cancelling(self) -> Iterator[None]:
        """Who is cancelled here ends by that, and not by an error that was a passing one."""
        try:
            yield
        except exceptions.Cancelled:
            self._is_over()
            raise

    def _is_over(self) -> None:
        """The error that is shown, if any."""
        if self._fault:
            self._fault = None
            self._write(error=None)

    def _is_mistake(self, error: exceptions.CredentialRefused) -> bool:
        """Was it never good, or is it not the user's? Then waiting would not help."""
        known_good = isinstance(error, exceptions.CredentialNeeded) or self._let_in
        return not (known_good and trusts.can_log_in())

    def undo(self, call: Callable[[], None]) -> None:
        """Do the opposite of a step; the error that led here stays the one that is shown."""
        self._write(step="withdraw")
        self._until_final("withdraw", call, self._tell_leftover, self._watch.ask)

    def _until_final(
        self,
        step: str,
        call: Callable[[], Result],
        tell: Callable[[exceptions.CimingError, bool], None],
        alive: Callable[[], None],
    ) -> Result:
        failures = 0
        while True:
            try:
                alive()
                with work.interrupting():
                    result = call()
                metrics.attempted(step, self._place(), "success")
                return result
            except (growing.Stalled, sources.Replaced) as reason:      # no fault of anybody
                LOG.info("%s starts again: %s", step, reason)
                self._start_again()
                continue
            except exceptions.Cancelled:
                raise
            except exceptions.CimingError as error:
                failure = error
            except Exception:       # its text may hold anything: for the log only
                LOG.exception("Unexpected error in step %s", step)
                failure = exceptions.CimingError(str(work.INTERNAL["message"]))
            alive()     # or it failed because nobody is to go on
            failures += 1
            LOG.warning("%s failed (%s of this step): %s", step, failures, failure)
            final = not self._again(failures, failure)
            metrics.attempted(step, self._place(), "error" if final else "retry")
            tell(failure, final)
            if final:
                raise failure from None
            self._pause(failures, alive)

    def _start_again(self) -> None:  # noqa: B027  # most have nothing to wait for
        """What was taken so far is void."""

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

    def _place(self) -> str:
        """Where it works, for who counts."""
        return ""

    @staticmethod
    def _again(failures: int, error: exceptions.CimingError) -> bool:
        kinds = exceptions.TransientProviderError | exceptions.Unavailable | exceptions.StagingFull
        passing = isinstance(error, kinds)
        return passing and failures < int(cfg.CONF.engine.max_attempts)

    def _pause(self, failures: int, alive: Callable[[], None]) -> None:
        options = cfg.CONF.engine
        delay = min(options.retry_delay * 2 ** (failures - 1), options.max_retry_delay)
        until = time.monotonic() + delay * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, no secret
        while (left := until - time.monotonic()) > 0:
            self._watch.pause(min(left, watch_.ASK_SECONDS))
            alive()

    @abc.abstractmethod
    def _write(self, **values: Any) -> None:
        """Write step, status or error into the Job's rows."""
