# SPDX-License-Identifier: Apache-2.0
"""Which image, in which Cloud, a Job's bytes come from."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from oslo_config import cfg
from oslo_log import log

from ciming import exceptions
from ciming.db import models
from ciming.providers import base

LOG = log.getLogger(__name__)
PROOFS = ("bytes", "guest", "asserted")     # the best first


class Place(NamedTuple):
    """A Cloud, as a Target or a Link names it."""

    cloud_key: str
    cloud: str
    provider: str
    region: str | None


def place_of(said: Mapping[str, Any]) -> Place:
    """That of what a Job's spec says of an image."""
    return Place(*(said[name] for name in Place._fields))


class Candidate(NamedTuple):
    """An image that may be the source: its ref, or what a person called it."""

    place: Place
    image: str
    proof: str | None = None    # of a Link


def find(job: models.Job, provider_of: Callable[[Place], base.Provider]) -> dict[str, Any]:
    """The source of a Job: what was named, or the best Link that can be read; as the Job's spec has it.

    It is `converted` where it is proven to be the same disk, but is another file: that is taken where nobody
    has the file itself.

    :raises ProviderError: there is none, with the reason
    """
    converted: list[dict[str, Any]] = []
    reasons: list[exceptions.ProviderError] = []
    for candidate in _candidates(job):
        try:
            found = _readable(candidate, job.image, provider_of(candidate.place))
        except exceptions.ProviderError as error:
            LOG.info("Not from %s: %s", candidate.place.cloud, error)
            reasons.append(error)
            continue
        if not (candidate.proof == "guest" and differs(found, job.image)):
            return _as_spec(candidate.place, found)
        converted.append(_as_spec(candidate.place, found) | {"converted": True})
    passing = exceptions.TransientProviderError | exceptions.CredentialNeeded
    for reason in reasons:
        if isinstance(reason, passing):     # it may be the file itself
            raise reason from None
    if converted:
        return converted[0]
    if len(reasons) == 1:
        raise reasons[0] from None
    told = " ".join(reason.detail for reason in reasons)
    raise exceptions.ProviderError(
        f"None of its Links can be read. {told}".strip(), code="source.not_readable"
    )


def _candidates(job: models.Job) -> Iterator[Candidate]:
    named = (job.spec or {}).get("source")
    if named:
        yield Candidate(place_of(named), named["image"])
        was_here = job.kind == "create" and job.image.digests.get("sha512")     # and is lost
        if not was_here:
            return
    for link in sorted(job.image.links, key=lambda link: (PROOFS.index(link.proof), link.cloud)):
        place = Place(link.cloud_key, link.cloud, link.provider, link.region)
        yield Candidate(place, link.image_ref, link.proof)


def _readable(candidate: Candidate, image: models.Image, provider: base.Provider) -> base.Description:
    """What the image is, if its bytes can be read and may be ours."""
    cloud, found = candidate.place.cloud, provider.describe(candidate.image)
    if found is None:
        raise exceptions.ProviderError(
            f"{cloud} has no image {candidate.image[:255]} that you can see.", code="source.not_found"
        )
    if found.unreadable:
        raise exceptions.ProviderError(found.unreadable, code=found.unreadable_code)
    size, largest = found.size or 0, int(cfg.CONF.staging.max_image_size)
    if not 0 < size <= largest:
        raise exceptions.ProviderError(
            f"Image {found.image_ref} in {cloud} has {size} bytes; it may have 1 to {largest}.",
            code="source.not_readable",
        )
    if differs(found, image) and not (candidate.proof == "guest" and image.digests.get("guest")):
        raise exceptions.ProviderError(
            f"Image {found.image_ref} in {cloud} is not what Image {image.id} was: it has other bytes.",
            code="source.changed",
        )
    return found


def differs(found: base.Description, image: models.Image) -> bool:
    """Is it certain that these are other bytes? An Image whose bytes never came may be any."""
    ours = {name: digest for name, digest in image.digests.items() if digest}
    if ours and image.size != found.size:
        return True
    return any(ours.get(name, digest) != digest for name, digest in found.digests.items())


def same(found: base.Description, image: models.Image) -> bool:
    """Is it certain that these are the same bytes?"""
    known = any(image.digests.get(name) for name in found.digests)
    return known and not differs(found, image)


def _as_spec(place: Place, found: base.Description) -> dict[str, Any]:
    values = dataclasses.asdict(found)
    names = ("image_ref", "name", "size", "disk_format", "digests", "properties", "min_disk", "min_ram")
    return {
        **place._asdict(),
        **{name: values[name] for name in names},
        "tags": list(found.tags),
    }
