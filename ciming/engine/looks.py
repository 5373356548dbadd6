# SPDX-License-Identifier: Apache-2.0
"""What Clouds say of images now. All are asked at the same time, as whoever wants to know, each with one
deadline: who does not answer until then delays nobody, and is hung up on.
"""

import dataclasses
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from oslo_config import cfg
from oslo_log import log

from ciming import custody, exceptions, rpc, sealing
from ciming.db import models
from ciming.engine import hanging, locating, slots, tools
from ciming.providers import base

LOG = log.getLogger(__name__)
AT_ONCE = 128       # Clouds that one engine looks at, those that hang included,
OF_PROJECT = 32     # and of them for one project: its Clouds that hang are in nobody else's way
SLOTS = slots.Slots(slots.Limits(AT_ONCE, per_project=OF_PROJECT))
HANG_UP_SECONDS = 1.0       # between two times, of what goes on when its time is up
NAMESAKE_SECONDS = 1.0      # for which it is looked whether what is gone has a successor
NAMESAKES = 20              # of one that is gone: more are not told
MATCHES = 100               # images of one Cloud, beside one for each digest, that may be the same
FEW = 3                     # names that are looked up one by one
FORBIDDEN = ("cloud.forbidden", "cloud.role_refused", "credential.")
"""What codes of errors begin with that mean that one is not let in."""

Told = dict[str, Any]


class Look:
    """A look at one Cloud, in a thread of its own. What was found by its deadline is told."""

    def __init__(self, job: models.Job, place: Mapping[str, Any], ask: Callable[["Look"], None]) -> None:
        self.found: dict[str, Told] = {}        # by ref
        self.namesakes: dict[str, list[Told]] = {}      # of those that are gone: by their refs
        self.more = False
        self.whole = False      # all that was asked for was seen; what comes after is a favour
        self.provider: base.Provider
        self._job = job
        self._place = locating.Place(**place)
        self._ask = ask
        self._error: exceptions.CimingError | None = None
        self._slot = SLOTS.slot(project=job.project_id)
        self._thread = threading.Thread(target=self._run, name="look", daemon=True)

    def start(self, until: float) -> None:
        """As soon as there is a slot, if there is one by then (monotonic)."""

        def alive() -> None:
            if time.monotonic() >= until:
                raise _silence(
                    "CIMinG looks at too many Clouds now, for your project or for all. Try again later."
                )

        try:
            alive()     # also where a slot becomes free too late
            self._slot.take(alive)
            self._thread.start()
        except exceptions.CimingError as error:
            self._error = error
        except RuntimeError:        # there can be no more threads
            LOG.exception("Can not begin to look at %s", self._place.cloud)
            self._slot.free()
            self._error = _silence("CIMinG does too much at once now. Try again later.")

    def wait(self, until: float) -> None:
        """Until it is over, or its time is up (monotonic)."""
        if self._thread.ident is None:
            return
        self._thread.join(max(0.0, until - time.monotonic()))
        if not self._thread.is_alive():
            return
        if not self.whole:
            patience = cfg.CONF.engine.look_timeout
            self._error = _silence(f"{self._place.cloud} did not answer within {patience:g} s.")
        hanging.hang_up(
            self._thread, lambda: [self.provider] if hasattr(self, "provider") else [], HANG_UP_SECONDS
        )

    def told(self) -> rpc.Seen:
        error = None if self.whole else self._error
        return {
            "found": dict(self.found),
            "namesakes": dict(self.namesakes),
            "more": self.more,
            "status": _status(error) if error else None,
            "error": tools.fault(error) if error else None,
        }

    def _run(self) -> None:
        try:
            # Until there is a provider there is nobody to hang up on.
            self.provider = tools.provider_of(self._job, self._place, cfg.CONF.engine.look_timeout)
            self._ask(self)
        except exceptions.CimingError as error:
            self._error = self._error or error
        except Exception:       # its text may hold anything: for the log only
            LOG.exception("Unexpected error in a look at %s", self._place.cloud)
            self._error = self._error or _silence("Something in CIMinG went wrong.")
        finally:
            self._slot.free()


def _silence(text: str) -> exceptions.CimingError:
    return exceptions.TransientProviderError(text, code="cloud.unreachable")


def _status(error: exceptions.CimingError) -> str:
    passes = isinstance(error, exceptions.TransientProviderError)
    refused = isinstance(error, exceptions.CredentialRefused) or error.code.startswith(FORBIDDEN)
    return "forbidden" if refused and not passes else "unreachable"


def _ask(
    project_id: str,
    bundle: sealing.Bundle,
    asked: Iterable[tuple[Mapping[str, Any], Callable[[Look], None]]],
) -> list[rpc.Seen]:
    """The answers of Clouds, in the order in which they are named."""
    job = models.Job(       # of no row
        id=models.new_id(), project_id=project_id, spec={"given": sorted(bundle.clouds)}
    )
    custody.hold(job.id, bundle)
    try:
        looks = [Look(job, place, ask) for place, ask in asked]
        until = time.monotonic() + cfg.CONF.engine.look_timeout
        for each in looks:
            each.start(until)
        for each in looks:
            each.wait(until)
        return [each.told() for each in looks]
    finally:
        custody.drop(job.id)


def look(project_id: str, bundle: sealing.Bundle, wanted: Sequence[Mapping[str, Any]]) -> list[rpc.Seen]:
    """What each of several Clouds says of the images that it is asked for.

    :param wanted: for each Cloud `place`, the fields of a Place, and `images`, names by their refs
    :return: for each Cloud `found` by ref; `namesakes`, what bears the name of one that is gone, by the
        ref of that; and where not everything was seen, `status` (forbidden, unreachable) and `error`
    """
    return _ask(project_id, bundle, [(each["place"], _looking(each["images"])) for each in wanted])


def _looking(names: Mapping[str, str]) -> Callable[[Look], None]:
    def ask(seen: Look) -> None:
        for found in seen.provider.look(names):
            if found.image_ref in names:        # a Cloud may say what it was not asked
                seen.found[found.image_ref] = _told(found)
        seen.whole = True
        gone = {ref: name for ref, name in names.items() if ref not in seen.found}
        if gone:
            _find_namesakes(seen, gone)

    return ask


def _find_namesakes(seen: Look, gone: Mapping[str, str]) -> None:
    """What was replaced has a successor of its name; others' images, which may bear any, are none."""
    until = time.monotonic() + NAMESAKE_SECONDS
    refs: dict[str, list[str]] = {}
    for ref, name in gone.items():
        refs.setdefault(name, []).append(ref)
    ours = dict(seen.provider.ours())
    filters = [{**ours, "name": name} for name in refs] if len(refs) <= FEW else [ours]
    for found in itertools.chain.from_iterable(map(seen.provider.list, filters)):
        for ref in refs.get(found.name, ()):
            some = seen.namesakes.setdefault(ref, [])
            if len(some) < NAMESAKES:
                some.append(_told(found))
        if time.monotonic() > until:
            return


def browse(
    project_id: str,
    bundle: sealing.Bundle,
    place: Mapping[str, Any],
    filters: Mapping[str, str],
    marker: str | None,
    limit: int,
) -> list[rpc.Seen]:
    """A page of what a Cloud has: as look() has it, and `more`: is that not all?"""

    def ask(seen: Look) -> None:
        page = list(_page(seen.provider, filters, marker, limit + 1))
        seen.more = len(page) > limit
        seen.found.update((each.image_ref, _told(each)) for each in page[:limit])
        seen.whole = True

    return _ask(project_id, bundle, [(place, ask)])


def _page(
    provider: base.Provider, filters: Mapping[str, str], marker: str | None, most: int
) -> Iterable[base.Metadata]:
    if provider.ordered:
        return provider.list(filters, marker, most)
    behind = (each for each in provider.list(filters) if marker is None or each.image_ref > marker)
    return heapq.nsmallest(most, behind, key=lambda each: each.image_ref)


def match(
    project_id: str, bundle: sealing.Bundle, places: Sequence[Mapping[str, Any]], digests: Collection[str]
) -> list[rpc.Seen]:
    """What each of several Clouds has with one of these digests: as look() has it.

    Of one that has too many, not everything was seen.
    """
    most = MATCHES + len(digests)

    def ask(seen: Look) -> None:
        for found in _equals(seen.provider, digests):
            if len(seen.found) == most and found.image_ref not in seen.found:
                raise exceptions.ProviderError(
                    f"More than {most} images there may be the same: the others were not looked at.",
                    code="cloud.too_many_matches",
                )
            seen.found[found.image_ref] = _told(found)
        seen.whole = True

    return _ask(project_id, bundle, [(place, ask) for place in places])


def _equals(provider: base.Provider, digests: Collection[str]) -> Iterator[base.Metadata]:
    if len(digests) == 1:
        return provider.list({"digest": next(iter(digests))})
    wanted = set(digests)
    return (each for each in provider.list({}) if wanted & {*(each.digests or {}).values()})


def find(project_id: str, bundle: sealing.Bundle, place: Mapping[str, Any], image: str) -> list[rpc.Seen]:
    """The image of this ref, or the only one of this name: as look() has it, with at most one `found`."""

    def ask(seen: Look) -> None:
        described = seen.provider.describe(image)
        found = seen.provider.show(described.image_ref) if described else None
        if found is not None:
            seen.found[found.image_ref] = _told(found)
        seen.whole = True

    return _ask(project_id, bundle, [(place, ask)])


def _told(found: base.Metadata) -> Told:
    """What fits into an answer."""
    properties = itertools.islice(found.properties.items(), rpc.MOST_PROPERTIES)
    return dataclasses.asdict(found) | {
        "properties": {name[: rpc.LONGEST]: value[: rpc.LONGEST] for name, value in properties},
        "tags": list(found.tags[: rpc.MOST_TAGS]),
        "digests": None if found.digests is None else dict(found.digests),
    }


KINDS: Mapping[str, Callable[..., list[rpc.Seen]]] = {
    each.__name__: each for each in (look, browse, match, find)
}
"""What the API can ask for."""
