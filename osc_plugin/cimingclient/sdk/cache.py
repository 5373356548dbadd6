# SPDX-License-Identifier: Apache-2.0
"""Lists out of what was listed before, without a request, not even to Keystone::

    kept = cache.of(conn)
    kept.refresh("images")
    for image in kept.images(status="active", sort="name"):
        ...
    cache.of(conn, max_age=60).jobs()      # asks when what is kept is older than a minute

What is kept is kept for one user in one project of one cloud, in files that are theirs alone.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from openstack import resource

from cimingclient.sdk import _kept, _proxy, _query, exceptions
from cimingclient.sdk import availability as _availability
from cimingclient.sdk import cloud as _cloud
from cimingclient.sdk import image as _image
from cimingclient.sdk import job as _job

NEWEST_FIRST = "created_at:desc"


class Kind(NamedTuple):
    """What a list has, and the order that the service gives it."""

    resource: type[resource.Resource]
    order: str = ""


KINDS = {
    "clouds": Kind(_cloud.Cloud),
    "images": Kind(_image.Image, NEWEST_FIRST),
    "jobs": Kind(_job.Job, NEWEST_FIRST),
    "availability": Kind(_availability.Availability, NEWEST_FIRST),
}
#: What may be wanted of a list that has all items nevertheless.
WHOLE = {"sort", "all_projects"}


class Cache:
    """Lists, as `Proxy` has them.

    :param store: where they are kept.
    :param client: gives the proxy that is asked, when one is.
    :param max_age: seconds that what is kept may be old, else the service is asked; None: it never is.
    :param told: called with what a person should know: how old a list is, that one could not be kept.
    """

    def __init__(
        self,
        store: _kept.Store,
        client: Callable[[], _proxy.Proxy],
        max_age: float | None = None,
        told: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._store, self._client, self._max_age, self._told = store, client, max_age, told

    def clouds(self, **query: Any) -> Iterator[_cloud.Cloud]:
        """As `Proxy.clouds`; errors as for `images`."""
        return self._list("clouds", query)

    def images(self, **query: Any) -> Iterator[_image.Image]:
        """As `Proxy.images`, with the same filters and orders.

        :raises: `NothingKept` when nothing is and the service is not to be asked; `CacheError` when
            what is there is another user's, or broken.
        """
        return self._list("images", query)

    def jobs(self, **query: Any) -> Iterator[_job.Job]:
        """As `Proxy.jobs`; errors as for `images`."""
        return self._list("jobs", query)

    def availability(self, **query: Any) -> Iterator[_availability.Availability]:
        """As `Proxy.availability`, as it was then; errors as for `images`."""
        return self._list("availability", query)

    def find_image(self, name_or_id: str, ignore_missing: bool = True) -> _image.Image | None:
        """As `Proxy.find_image`; errors as for `images`, too."""
        return _proxy.pick(_image.Image, name_or_id, self._known("images"), ignore_missing)

    def find_cloud(self, name_or_id: str, ignore_missing: bool = True) -> _cloud.Cloud | None:
        """As `Proxy.find_cloud`; errors as for `images`, too."""
        return _proxy.pick(_cloud.Cloud, name_or_id, self._known("clouds"), ignore_missing)

    def _known(self, what: str) -> Iterator[Any]:
        """The list itself, or what the kept matrix has of it."""
        try:
            return self._list(what, {})
        except exceptions.NothingKept:
            kept = self._store.read("availability")
            if kept is None:
                raise
        cells = [cell for item in kept.items for cell in item["clouds"]]
        found = [item["image"] for item in kept.items] if what == "images" else _query.clouds_of(cells)
        return (KINDS[what].resource.existing(**each) for each in found)

    def age(self, what: str, all_projects: bool = False) -> float | None:
        """Seconds since `clouds`, `images`, `jobs` or `availability` were kept; None: they were not."""
        kept = self._store.read(_name(what, all_projects))
        return None if kept is None else max(0.0, time.time() - kept.at)

    def refresh(self, what: str, all_projects: bool = False) -> None:
        """Ask the service for all `clouds`, `images`, `jobs` or `availability`, and keep them.

        :raises: `CacheError` when they cannot be kept.
        """
        self._store.write(_name(what, all_projects), self._asked(what, all_projects))

    def _list(self, what: str, query: dict[str, Any]) -> Iterator[Any]:
        every = bool(query.pop("all_projects", False))
        items = self._fresh(what, every)
        if items is None:
            items = self._asked(what, every)
            try:
                self._store.write(_name(what, every), items)
            except exceptions.CacheError as exc:
                self._told(f"What was listed of {what} is not kept: {exc}")
        kind = KINDS[what]
        select = _query.select_matrix if what == "availability" else _query.select
        found = select(items, query, kind.order)
        return (kind.resource.existing(**item) for item in found)

    def _fresh(self, what: str, every: bool) -> list[dict[str, Any]] | None:
        """The items that were kept; None: the service is to be asked."""
        if self._max_age == 0:
            return None
        try:
            kept = self._store.read(_name(what, every))
        except exceptions.CacheError as exc:
            if self._max_age is None:
                raise
            self._told(f"What was kept of {what} is of no use: {exc}")
            return None
        if kept is None and self._max_age is None:
            raise exceptions.NothingKept(f"Nothing of {what} was kept yet.")
        if kept is None or (self._max_age is not None and time.time() - kept.at > self._max_age):
            return None
        self._told(f"This is of {_words(time.time() - kept.at)} ago: {what} as they were listed then.")
        return kept.items

    def _asked(self, what: str, every: bool) -> list[dict[str, Any]]:
        return _plain(getattr(self._client(), what)(**_scope(every)))


class Keeping:
    """The proxy's own lists: all items of one that is whole are kept for the next time, if that can be."""

    def __init__(self, store: _kept.Store, proxy: _proxy.Proxy) -> None:
        self._store, self._proxy = store, proxy
        self.find_image, self.find_cloud = proxy.find_image, proxy.find_cloud

    def clouds(self, **query: Any) -> Iterator[_cloud.Cloud]:
        """As `Proxy.clouds`."""
        return self._list("clouds", query)

    def images(self, **query: Any) -> Iterator[_image.Image]:
        """As `Proxy.images`."""
        return self._list("images", query)

    def jobs(self, **query: Any) -> Iterator[_job.Job]:
        """As `Proxy.jobs`."""
        return self._list("jobs", query)

    def availability(self, **query: Any) -> Iterator[_availability.Availability]:
        """As `Proxy.availability`."""
        return self._list("availability", query)

    def _list(self, what: str, query: dict[str, Any]) -> Iterator[Any]:
        asked = getattr(self._proxy, what)(**query)
        if query.keys() - WHOLE:
            return iter(asked)
        found = list(asked)
        with contextlib.suppress(exceptions.CacheError):
            self._store.write(_name(what, every=bool(query.get("all_projects"))), _plain(found))
        return iter(found)


def of(conn: Any, max_age: float | None = None) -> Cache:
    """The cache of an openstacksdk connection that `sdk.add_to` was given; costs no request.

    :param max_age: as for `Cache`.
    :raises: `CacheError` when the connection does not say for which user it is, or there is no place for it.
    """
    store = _kept.Store(_kept.identity(conn.config.config))
    return Cache(store, lambda: conn.multicloud, max_age)


def _words(seconds: float) -> str:
    """A time, as `42 s` or `3 min`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _name(what: str, every: bool) -> str:
    return f"{what}-of-all-projects" if every else what


def _scope(every: bool) -> dict[str, Any]:
    return {"all_projects": True} if every else {}


def _plain(found: Iterable[resource.Resource]) -> list[dict[str, Any]]:
    return [each.to_dict(computed=False, original_names=True) for each in found]
