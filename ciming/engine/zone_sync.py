# SPDX-License-Identifier: Apache-2.0
"""What the flow of a sync of zones may touch: the plan, and the Jobs of its images.

A Job's `report` has `step` (plan, bring, prune, end), counts (`same, left, only_there, created, updated,
replaced, pruned, failed, cannot, cancelled`), `progress`, `failures`, `not_pruned` (why, or None), and the
`digest` of the plan.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from oslo_config import cfg
from oslo_log import log

from ciming import exceptions, growing, rpc, zone_plans
from ciming.db import models, work, zone_work
from ciming.engine import tools, zone_planning
from ciming.engine import watch as watch_
from ciming.providers import base

LOG = log.getLogger(__name__)
END = "end"
WAITED = {
    "code": exceptions.CredentialNeeded.code,
    "message": "It has waited for a credential of its user's for too long. Begin another sync.",
    "cloud_request_id": None,
}
HOLD_SECONDS = 3.0  # between two looks whether zones that another sync holds are free
PAUSE = 0.3         # seconds between two looks at the children,
TELL_SECONDS = 1.0  # and between two notes of how far they are
READ_SECONDS = 600.0    # after which a zone that can not be read is not read again
BUSY_SECONDS = 60.0     # for which images that others' Jobs work on are waited for, when nothing else is left


class ZoneTools(tools.Tools):
    """For the flow of a Job that syncs zones."""

    def __init__(self, job: models.Job, watch: watch_.Watch, claim: work.Claim) -> None:
        super().__init__(job, watch, growing.GrowingFile())
        self._claim = claim
        self._spec: Mapping[str, Any] = job.spec or {}
        self._zones = zone_planning.Zones(job)
        self._began = time.monotonic()
        self._moved: int | None = None      # bytes that were there before anything was brought by us
        self._brought = 0                   # images, as well

    def hold_zones(self) -> None:
        """Wait until no other sync holds any of these zones."""
        while holder := zone_work.lock(self._claim):
            LOG.debug("Waits for Job %s", holder)
            self.alive()
            self._watch.pause(HOLD_SECONDS)

    def plan(self) -> None:
        """Plan anew what is to be done, and note it.

        :raises Conflict: that is not what was agreed to
        """
        self._tally("plan")
        read_at = models.now()
        found = self._planned(self._tell)
        expected = self._spec.get("digest")
        if expected and found["digest"] != expected:
            raise exceptions.Conflict(
                "The zones are not any more as they were when the plan was made: make another one.",
                code="zone_sync.plan_outdated",
            )
        zone_work.plan(self._claim, found, read_at)

    def _planned(self, tell: Callable[[exceptions.CimingError, bool], None]) -> dict[str, Any]:
        def patiently(read: zone_planning.Read) -> list[base.Surveyed]:
            until = time.monotonic() + READ_SECONDS

            def once() -> list[base.Surveyed]:
                try:
                    return read()
                except exceptions.TransientProviderError as error:
                    if time.monotonic() > until:
                        raise tools.error_of(tools.fault(error)) from None
                    raise

            try:
                return self._until_final("plan", once, tell, self.alive)
            except (exceptions.TransientProviderError, exceptions.Unavailable) as error:
                raise tools.error_of(tools.fault(error)) from None      # it was tried often enough

        return zone_planning.plan(self._zones, self.job.project_id, self._spec, self.alive, patiently)

    def bring(self) -> None:
        """Have each image brought by a Job of its own, so many at a time; return when all have ended.

        :raises Cancelled: the sync was cancelled
        :raises Waits: until the user brings a credential
        """
        most, told = int(cfg.CONF.zone_sync.parallel), float("-inf")
        self._began, self._moved = time.monotonic(), None
        idle_since = float("inf")
        while True:
            self._asked = time.monotonic()      # no call of ours hangs
            self._watch.ask()
            children = zone_work.children(self._claim)
            if children.left and children.open < most and not (self._watch.cancelled or children.waiting):
                patient = time.monotonic() - idle_since < BUSY_SECONDS
                added = zone_work.add_children(self._claim, most - children.open, patient=patient)
                for child in added[:1]:
                    rpc.knock(child)
                children = zone_work.children(self._claim)
            if time.monotonic() - told > TELL_SECONDS:
                self._tally("bring")
                told = time.monotonic()
            if children.open:
                idle_since = float("inf")
                if children.waiting == children.open:
                    raise exceptions.Waits("Its images wait for a credential of the user's.")
            elif children.left and not self._watch.cancelled:
                idle_since = min(idle_since, time.monotonic())
            else:
                break
            self._watch.pause(PAUSE if children.open else watch_.ASK_SECONDS)      # that may take hours
        self._tally("bring")
        self.alive()

    def prune(self) -> None:
        """Delete what only the targets have; nothing where anything went wrong before.

        :raises Conflict: that is more than may be deleted, or a zone can not be read now
        """
        request, entries = self._spec["request"], zone_work.to_prune(self._claim)
        self._tally("prune")
        wrong, most = zone_work.not_in_line(self._claim), request["max_delete"]
        if entries and wrong:
            why = f"Nothing was pruned, because not all else was done: {wrong} failed, or can not be brought."
            zone_work.skip(self._claim, [number for number, _ in entries], why)
        elif len(entries) > most:
            why = f"{len(entries)} images are only in targets, and at most {most} may be pruned: none was."
            raise self._not_pruned(entries, why, "zone_sync.too_many_to_delete")
        else:
            for number, entry in self._still_only_there(entries):
                self._delete(number, entry)
        self._tally("prune")

    def _still_only_there(
        self, entries: Sequence[tuple[int, zone_plans.Entry]]
    ) -> Sequence[tuple[int, zone_plans.Entry]]:
        """Those of which that is true now: it may be a day since the plan was made."""
        if not entries:
            return entries
        try:
            now = self._planned(lambda *_: None)["entries"]
            unread = [each["why"] for each in now if zone_plans.is_unread(each)]
        except exceptions.CredentialRefused:
            raise
        except exceptions.ProviderError as error:       # the source, or all targets
            unread = [error.detail]
        if unread:
            why = f"Nothing was pruned: {' '.join(unread)}"
            raise self._not_pruned(entries, why, "zone_sync.not_pruned")
        left = [each for each in now if each["symbol"] == zone_plans.ONLY_THERE and not each["why"]]
        only = {_said_of(each) for each in left}
        still = [
            (number, entry)
            for number, entry in entries
            if _said_of(entry) in only or self._is_gone(entry)
        ]
        others = {number for number, _ in entries} - {number for number, _ in still}
        if others:
            why = f"{len(others)} images were not pruned: since the plan was made, they or the zones changed."
            zone_work.skip(self._claim, others, why)
        return still

    def _not_pruned(
        self, entries: Iterable[tuple[int, zone_plans.Entry]], why: str, code: str
    ) -> exceptions.Conflict:
        """The error to raise when none of them is; it is noted with them."""
        error = exceptions.Conflict(why, code=code)
        zone_work.skip(self._claim, [number for number, _ in entries], why, tools.fault(error))
        return error

    def _is_gone(self, entry: zone_plans.Entry) -> bool:
        """Was it deleted, perhaps by us, who could not note it any more?"""
        return self._zones.provider(entry["zone"]).show(entry["there"]) is None

    def _delete(self, number: int, entry: zone_plans.Entry) -> None:
        try:
            self._until_final("withdraw", lambda: self._withdraw(entry), lambda *_: None, self.alive)
        except (exceptions.Cancelled, exceptions.CredentialRefused):
            raise
        except exceptions.CimingError as error:
            zone_work.pruned(self._claim, number, entry, tools.fault(error))
        else:
            zone_work.pruned(self._claim, number, entry)

    def _withdraw(self, entry: zone_plans.Entry) -> None:
        provider = self._zones.provider(entry["zone"])
        found = provider.describe(entry["there"])
        if found is None or found.image_ref != entry["there"]:
            return
        if found.protected:
            raise exceptions.ProviderError(
                f"Image {found.image_ref} in {entry['zone']} is protected by now: it is left alone.",
                code="image_ref.protected",
            )
        provider.delete(found.image_ref, self.alive)

    def say_why(self, error: dict[str, Any]) -> None:
        """It has failed: if nobody knows why, say that at least."""
        job = work.load(self._claim)
        if job.error is None and job.wanted != "cancel":
            zone_work.fail(self._claim, error)

    def settle_children(self) -> None:
        """Before the Job ends: nothing of it goes on."""
        while zone_work.children(self._claim).open:
            zone_work.cancel_children(self._claim)
            self._watch.ask()
            self._watch.pause(PAUSE)
        zone_work.leave_rest(self._claim)
        self._tally(END)

    def _tally(self, step: str) -> Mapping[str, Any]:
        return zone_work.tally(self._claim, step, self._rate)

    def _rate(self, progress: Mapping[str, int]) -> dict[str, Any]:
        """Bytes and images in a second of this run, and the seconds that the rest may take."""
        if self._moved is None:
            self._moved, self._brought = progress["bytes_done"], progress["images_done"]
        seconds = max(time.monotonic() - self._began, 0.001)
        found: dict[str, Any] = {
            "bytes_per_second": max(0, int((progress["bytes_done"] - self._moved) / seconds)),
            "seconds_left": None,
        }
        for what, before in (("bytes", self._moved), ("images", self._brought)):
            now = progress[f"{what}_done"]
            done, left = now - before, progress[f"{what}_total"] - now
            if done > 0:
                found["seconds_left"] = max(found["seconds_left"] or 0, int(left * seconds / done))
        return found

    def _called(self) -> Iterable[base.Provider]:
        return self._zones.opened

    def _write(self, **values: Any) -> None:
        if "error" in values:
            zone_work.fail(self._claim, values["error"])


def _said_of(entry: zone_plans.Entry) -> tuple[str | None, ...]:
    """What was judged when an image was found to be only there."""
    return entry["zone"], entry["there"], entry.get("state")
