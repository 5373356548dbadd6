# SPDX-License-Identifier: Apache-2.0
"""What there is to be done to bring zones in line: all of them are read now, in parallel, as whoever asks."""

import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any

from oslo_config import cfg
from oslo_log import log

from ciming import custody, exceptions, sealing, zone_plans
from ciming.db import models, zone_work
from ciming.engine import comparing, locating, tools
from ciming.providers import base

LOG = log.getLogger(__name__)
PATIENCE = 90.0     # seconds, of who waits for a plan; at the end it is made of what was read
LAST_SECONDS = 15.0
AT_A_TIME = 4       # images of one zone that are asked for their members
SHARED_ASKED = 5    # images that are asked for those, to know whether a zone shows us all that it has
NOT_TOLD = ("cloud.not_found", "cloud.forbidden")
Alive = Callable[[], None]
Read = Callable[[], list[base.Surveyed]]


class Zones:
    """The zones of one plan, as a Job's user; so that who gives up can end what hangs."""

    def __init__(self, job: models.Job) -> None:
        self._job = job
        self._open: dict[str, base.Provider] = {}

    def provider(self, zone: str) -> base.Provider:
        if zone not in self._open:
            place = locating.Place(zone, zone, "openstack", zone)
            self._open[zone] = tools.provider_of(self._job, place)
        return self._open[zone]

    @property
    def opened(self) -> list[base.Provider]:
        return list(self._open.values())


def plan(
    zones: Zones,
    project_id: str,
    spec: Mapping[str, Any],
    alive: Alive = lambda: None,
    patiently: Callable[[Read], list[base.Surveyed]] = lambda read: read(),
) -> dict[str, Any]:
    """The plan of a request, see zone_plans.

    :param spec: of a Job: `request`, and whether it is about `everything`, or the images of one project
    :param alive: asked now and then; raises to end it
    :param patiently: reads a zone, again and again where that may help
    :raises ProviderError: the source can not be read, or none of the targets
    """
    request = spec["request"]
    here = request["filters"].get("owner", [None]) if spec["everything"] else [project_id]
    mapped = request["map_project"]
    there = [mapped.get(owner, owner) for owner in here]
    # What others have here is to be there, too: it is not only there.
    all_here = [owner for owner in (*here, *mapped, *there) if mapped.get(owner, owner) in there]
    targets: dict[str, list[base.Surveyed]] = {}
    unread: dict[str, exceptions.CimingError] = {}
    with futures.ThreadPoolExecutor(1 + len(request["to"]), "zones") as pool:
        members = request["members"]
        wanted = {request["from"]: all_here, **dict.fromkeys(request["to"], there)}
        reading = {
            zone: pool.submit(patiently, functools.partial(_read, zones, zone, owners, members, alive))
            for zone, owners in wanted.items()
        }
        source = reading.pop(request["from"]).result()
        beyond = functools.partial(_beyond, zones, request["from"], source, project_id, alive)
        sees_all = not spec["everything"] or bool(patiently(beyond))
        for zone, each in reading.items():
            try:
                targets[zone] = each.result()
            except (exceptions.Cancelled, exceptions.CredentialRefused):
                raise
            except exceptions.CimingError as error:
                LOG.warning("%s can not be read: %s", zone, error)
                unread[zone] = error
    if not targets:
        raise next(iter(unread.values()))
    rules = comparing.Rules(
        filters=request["filters"],
        map_project=mapped,
        everything=spec["everything"],
        seen_of=None if sees_all else project_id,
        properties=cfg.CONF.zone_sync.properties,
        largest=int(cfg.CONF.staging.max_image_size),
    )
    entries = [comparing.unread(zone, error.detail) for zone, error in unread.items()]
    for zone, target in targets.items():
        proven = zone_work.linked(request["from"], zone)
        used = zone_work.used_by_others(zone, project_id) if spec["everything"] else ()
        entries += comparing.compare(source, target, zone, rules, proven, used)
    return zone_plans.made(request, sorted(entries, key=_smallest_first))


def _smallest_first(entry: zone_plans.Entry) -> tuple[Any, ...]:
    return entry["size"], entry["image"] or entry["there"] or "", entry["zone"]


def _read(
    zones: Zones, zone: str, owners: Iterable[str | None], members: bool, alive: Alive
) -> list[base.Surveyed]:
    """All images of a zone, as far as a plan needs them.

    :param owners: projects whose images these are; None: all
    :raises ProviderError: it has too many, or can not be read
    """
    provider, most = zones.provider(zone), int(cfg.CONF.zone_sync.max_images)
    found: dict[str, base.Surveyed] = {}    # one that is hidden meanwhile is listed twice
    for image in itertools.chain.from_iterable(map(provider.survey, dict.fromkeys(owners))):
        alive()
        found[image.image_ref] = image
        if len(found) > most:
            raise exceptions.ProviderError(
                f"{zone} has more than {most} images: sync those of some owners only.",
                code="zone_sync.too_many",
            )
    return list(_with_members(provider, found.values(), alive) if members else found.values())


def _with_members(
    provider: base.Provider, images: Iterable[base.Surveyed], alive: Alive
) -> Iterator[base.Surveyed]:
    """Those that are still there, and who has them shared by now."""

    def ask(image: base.Surveyed) -> base.Surveyed | None:
        alive()
        if image.visibility != "shared":
            return dataclasses.replace(image, members=())
        try:
            return dataclasses.replace(image, members=tuple(provider.members(image.image_ref)))
        except exceptions.ProviderError as error:
            if error.code not in NOT_TOLD:
                raise
            now = provider.show(image.image_ref)
            if now is None:
                return None
            if now.visibility == "shared":
                raise
            return dataclasses.replace(image, visibility=str(now.visibility), members=())

    with futures.ThreadPoolExecutor(AT_A_TIME, "members") as pool:
        yield from filter(None, pool.map(ask, images))


def _beyond(
    zones: Zones, zone: str, images: Iterable[base.Surveyed], project_id: str, alive: Alive
) -> list[base.Surveyed]:
    """One of these that only an operator of the zone can see, if there is any.

    Where a policy does not let us see all, a Glance shows what others can see, and says nothing of the rest.
    """
    others = [image for image in images if image.owner not in ("", project_id)]    # all see what nobody owns
    private = [image for image in others if image.visibility == "private"]
    shared = [image for image in others if image.visibility == "shared"]
    if private:
        return private[:1]
    for image in shared[:SHARED_ASKED]:
        alive()
        try:
            members = image.members
            if members is None:
                members = tuple(zones.provider(zone).members(image.image_ref))
        except exceptions.ProviderError as error:
            if error.code not in NOT_TOLD:
                raise
        else:
            if project_id not in members:
                return [image]
    return []


def _hang_up(zones: Zones) -> None:
    for provider in zones.opened:
        provider.hang_up()


def answer(
    project_id: str, bundle: sealing.Bundle, spec: Mapping[str, Any], patience: float = PATIENCE
) -> dict[str, Any]:
    """`plan`; or `error`, `code` and `message`, for who waits for it.

    :param bundle: of whoever asks, as whom the zones are read
    """
    job = models.Job(id=models.new_id(), project_id=project_id)     # of no row
    zones, over = Zones(job), threading.Event()
    found: dict[str, Any] = {}

    def alive() -> None:
        if over.is_set():
            raise exceptions.Cancelled("Nobody waits for it any more.")

    def ask() -> None:
        try:
            custody.hold(job.id, bundle)
            found["plan"] = plan(zones, project_id, spec, alive)
        except exceptions.CimingError as error:
            found["error"] = tools.fault(error)
        except Exception:       # its text may hold anything: for the log only
            LOG.exception("Unexpected error in a plan of zones")
            found["error"] = {"code": "internal", "message": "Something in CIMinG went wrong."}
        finally:
            custody.drop(job.id)

    asking = threading.Thread(target=ask, name="plan", daemon=True)
    asking.start()
    asking.join(patience - LAST_SECONDS)
    if asking.is_alive():       # what has not answered by now is not read
        _hang_up(zones)
        asking.join(LAST_SECONDS)
    if not found:
        over.set()
        _hang_up(zones)
        silence = f"The zones did not tell all that they have within {patience:.0f} s."
        return {"error": {"code": "cloud.unreachable", "message": silence}}
    return dict(found)
