# SPDX-License-Identifier: Apache-2.0
"""What a request asks for, as the rows of a Job."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from oslo_log import log
from sqlalchemy import orm

from ciming import context
from ciming.api import auth, delegation, document, errors, limits, schemas, staging_area
from ciming.db import api as db
from ciming.db import images, models

LOG = log.getLogger(__name__)
FIRST_STEPS = {
    "create": "receive", "sync": "download", "link": "verify",
    "update": "update", "delete": "withdraw",
}
Change = Callable[[models.Job], Callable[[orm.Session], object]]


def job(
    caller: context.RequestContext,
    kind: str,
    given: delegation.Given,
    clouds: Iterable[Mapping[str, Any]],
    spec: Mapping[str, Any],
    **values: Any,
) -> models.Job:
    """A Job with a Target for each Cloud, to be written.

    :param clouds: as clouds.usable() has them
    :param values: of further columns
    """
    made = models.Job(
        id=given.job_id,
        project_id=caller.project_id,
        user_id=caller.user_id,
        kind=kind,
        spec=dict(spec),
        request_id=errors.request_id(),
        marker=staging_area.get().marker,
        targets=[
            models.Target(
                cloud_key=cloud["id"],
                cloud=cloud["name"],
                provider=cloud["provider"],
                region=cloud["region"],
                step=FIRST_STEPS[kind],
            )
            for cloud in clouds
        ],
        **values,
    )
    given.into(made)
    return made


def begin(
    kind: str,
    image: models.Image,
    clouds: Iterable[Mapping[str, Any]],
    credentials: delegation.Credentials | None = None,
    change: Change | None = None,
    **spec: Any,
) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Have another Job begin with an Image; the answer to who asked for it.

    :param credentials: that came with the request
    :param change: gives what is to be done in the same transaction as the Job is written
    :raises Conflict: another works on it, or its Links are not as that needs them
    :raises OverLimit: the project may have no more
    :raises TooOften: it has begun too many Jobs there
    """
    caller, moves, clouds = auth.caller(), kind == "sync", list(clouds)
    project_id = str(caller.project_id)
    if kind != "delete":        # who has too much must be able to
        has_file = any(link.proof != "guest" for link in image.links)
        comes = image.size if has_file else None        # what it was converted to may have any size
        limits.check(project_id, jobs=1, staged=comes if moves else 0)
    source = [link.cloud_key for link in image.links] if moves and len(image.links) == 1 else []
    limits.check_rate(project_id, [*(cloud["id"] for cloud in clouds), *source])
    with delegation.delegated(caller, credentials or {}) as given:
        said = {"name": image.name, "tags": image.tags, **spec}
        stage = "staging" if moves else "staged"
        row = job(caller, kind, given, clouds, said, image_id=image.id, stage=stage)
        images.begin(row, given.settle, *([change(row)] if change else ()), upload=moves)
    context.about(row.id)
    LOG.info("%s Image %s: %s", kind.title(), image.id, [target.cloud for target in row.targets])
    answer = started(image.id, row.id)
    given.knock()
    return answer


def started(image_id: str, job_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The answer to who asked for a Job; one that deletes may have done so."""
    answer = {"image": db.get_image(image_id, None, deleted=True), "job": db.get_job(job_id, None)}
    return answer, 202, document.location(f"/v1/jobs/{job_id}")


def own_image(image: str) -> models.Image:
    """Of one's own project only: an administrator, too, sees more than they may change."""
    return db.get_image(schemas.row_id("image", image), auth.caller().project_id)


def linked(image: models.Image, names: Iterable[str]) -> list[models.Link]:
    """The Links in Clouds of these names or ids.

    :raises NotFound: there is none
    """
    known = {link.cloud: link for link in image.links}
    known |= {link.cloud_key: link for link in image.links}     # of a zone, its name: that goes first
    for name in names:
        if name not in known:
            raise images.not_linked(image.id, name)
    return list({known[name].cloud_key: known[name] for name in names}.values())


def as_cloud(link: models.Link) -> dict[str, Any]:
    """Where a Link is, as clouds.usable() has it."""
    return {"id": link.cloud_key, "name": link.cloud, "provider": link.provider, "region": link.region}
