# SPDX-License-Identifier: Apache-2.0
"""An image that a Cloud has becomes an Image, and stays where it is."""

from collections.abc import Mapping
from typing import Any

from oslo_log import log

from ciming import context, exceptions
from ciming.api import cloud_images, clouds, delegation, filters, limits, live, orders, schemas
from ciming.db import api as db
from ciming.db import models, tracked

LOG = log.getLogger(__name__)
SAID = ("name", "clouds", "source", "tags", "match_digest", "credentials")
"""What a request may say: all else is as the Cloud has it."""
DIGESTS = ("sha256", "sha512", "guest")


def adopt(
    caller: context.RequestContext, wanted: Mapping[str, Any]
) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Track what the source is, by a Job that links it; the answer to who asked for it."""
    for field in wanted.keys() - {*SAID}:
        raise exceptions.InvalidRequest(
            "What is adopted is as its Cloud has it: leave this out.", field=field
        )
    if "source" not in wanted:
        raise exceptions.InvalidRequest(
            "Name Clouds to bring it into, or a source that is to be adopted.", field="clouds"
        )
    said = wanted.get("credentials", {})
    source = wanted["source"]
    [there] = clouds.resolve(caller, [source["cloud"]], "source.cloud", said)
    credentials = clouds.credentials([there], said)
    found = _find(caller, there, source["image"], credentials)
    others, missed = _equals(caller, there, found) if wanted.get("match_digest") else ([], [])
    refs = {cloud["id"]: ref for cloud, ref in [(there, found["image_ref"]), *others]}
    chosen = [there, *(cloud for cloud, _ in others)]
    limits.check(str(caller.project_id), images=1, jobs=1)
    limits.check_rate(str(caller.project_id), list(refs))
    tags = list(dict.fromkeys(wanted.get("tags", found["tags"])))
    spec = {"name": wanted["name"], "tags": tags, "refs": refs}
    with delegation.delegated(caller, credentials) as given:
        image = _image(caller, wanted["name"], tags, found)
        job = orders.job(caller, "link", given, chosen, spec, stage="staged")
        db.create(image, job, None, given.settle)
    context.about(job.id)
    LOG.info("Adopt Image %s: %s", image.id, [cloud["name"] for cloud in chosen])
    given.knock()
    answer, status, headers = orders.started(image.id, job.id)
    return {**answer, **({"unseen": missed} if missed else {})}, status, headers


def _find(
    caller: context.RequestContext,
    cloud: Mapping[str, Any],
    name: str,
    credentials: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The image, as its Cloud has it.

    :raises CimingError: there is none that can be adopted
    """
    [seen] = live.look(caller, "find", credentials, place=live.place(cloud), image=name)
    cloud_images.check(seen, "source.image")
    for found in seen["found"].values():
        if found["state"] == "pending":
            raise exceptions.Conflict(
                f"Image {found['image_ref']} in {cloud['name']} is {found['status']}: wait until its data is "
                "there.",
                code="source.not_ready",
            )
        known = tracked.linked(str(caller.project_id), cloud["id"], [found["image_ref"]])
        for image in known.values():
            raise exceptions.Conflict(
                f"Image {found['image_ref']} in {cloud['name']} is tracked already: it is Image {image.id} "
                f"({image.name}).",
                code="image_ref.tracked",
            )
        return dict(found)
    raise exceptions.InvalidRequest(
        f"{cloud['name']} has no image {name[:255]} that you can see.",
        code="source.not_found",
        field="source.image",
    )


def _equals(
    caller: context.RequestContext, cloud: Mapping[str, Any], found: Mapping[str, Any]
) -> tuple[list[tuple[dict[str, Any], str]], list[dict[str, Any]]]:
    """What is the same in other Clouds, one in each, the oldest; and which of them were not seen.

    :raises InvalidRequest: nothing is known by which it could be told
    """
    digests = cloud_images.digests_of(found)
    if not digests:
        raise exceptions.InvalidRequest(
            f"{cloud['name']} tells no digest of this image by which it could be found elsewhere.",
            code="source.no_digest",
            field="match_digest",
        )
    others = []
    seen = cloud_images.equals(caller, cloud, sorted(digests))
    for other, there in seen:
        known = tracked.linked(str(caller.project_id), other["id"], list(there["found"]))
        left = [
            each
            for ref, each in there["found"].items()
            if ref not in known and each["state"] == "ready" and cloud_images.digests_of(each) & digests
        ]
        if left:
            oldest = min(left, key=lambda each: (each["created_at"] or 0, each["image_ref"]))
            others.append((other, oldest["image_ref"]))
    return others, cloud_images.unseen(seen)


def _image(
    caller: context.RequestContext, name: str, tags: list[str], found: Mapping[str, Any]
) -> models.Image:
    """With what its Cloud knows of its bytes, as far as we know that."""
    digests = found["digests"] or {}
    sizes = {
        name: found[name] for name in ("size", "virtual_size") if (found[name] or 0) <= filters.MOST_BYTES
    }
    return models.Image(
        id=models.new_id(),
        project_id=caller.project_id,
        user_id=caller.user_id,
        name=name,
        tags=tags,
        digests={each: digests[each] for each in DIGESTS if each in digests},
        disk_format=found["disk_format"] if found["disk_format"] in schemas.DISK_FORMATS else None,
        **sizes,
    )
