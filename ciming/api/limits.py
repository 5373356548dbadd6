# SPDX-License-Identifier: Apache-2.0
"""What a project may have at most, and how often it may be in a Cloud that others use, too.

The former are unified limits, which the operator keeps in Keystone; they are looked at before something
begins, so that two requests at once may both find the last of it, as in Glance.
"""

import functools
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from keystoneauth1 import exceptions as ks_exceptions
from openstack import exceptions as sdk_exceptions
from oslo_config import cfg
from oslo_limit import exception as limit_exceptions
from oslo_limit import limit
from oslo_log import log

from ciming import exceptions
from ciming.db import models, usage

LOG = log.getLogger(__name__)
MIB = 2**20
HOUR_MS = 3600 * 1000
IMAGES, JOBS, STAGED = "image_count_total", "job_count_active", "image_stage_total"
USAGE: Mapping[str, Callable[[str], int]] = {
    IMAGES: usage.images,
    JOBS: usage.jobs,
    STAGED: lambda project_id: _mib(usage.staged(project_id)),
}
"""By the names under which the operator registers the limits: Glance's, where it has one for the same."""
WORDS = {IMAGES: "Images", JOBS: "Jobs that have not ended", STAGED: "MiB in the staging area"}
_LOCK = threading.Lock()


def check(project_id: str, *, images: int = 0, jobs: int = 0, staged: int | None = 0) -> None:
    """May a project have so much more?

    :param staged: bytes; None: nobody knows how many, but some
    :raises OverLimit: it may not
    :raises Unavailable: Keystone does not tell
    """
    if not cfg.CONF.use_keystone_limits:
        return
    more = {IMAGES: images, JOBS: jobs, STAGED: 1 if staged is None else _mib(staged)}
    wanted = {name: count for name, count in more.items() if count}
    try:
        with _LOCK:     # its connection is made when it is first used
            enforcer = _enforcer()
        enforcer.enforce(project_id, wanted)
    except limit_exceptions.ProjectOverLimit as error:
        raise exceptions.OverLimit(" ".join(map(_told, error.over_limit_info_list))) from None
    except (
        limit_exceptions.SessionInitError,
        ks_exceptions.ClientException,
        sdk_exceptions.SDKException,
        ValueError,     # oslo.limit's, of what is configured
    ) as error:
        LOG.error("Limits can not be looked up in Keystone: see [oslo_limit]. %s", error)
        raise exceptions.Unavailable(
            "Keystone does not tell what limits your project has. Try again later, or tell the operator."
        ) from None


def check_rate(project_id: str, cloud_keys: Collection[str]) -> None:
    """May one more Job of a project work in these Clouds now? Only public ones are bounded.

    :raises TooOften: it has to wait
    """
    most, now = cfg.CONF.api.public_cloud_rate, models.now()
    if not most:
        return
    for name, began in usage.busiest(project_id, cloud_keys, most, now - HOUR_MS):
        seconds = -(-(began + HOUR_MS - now) // 1000)
        raise exceptions.TooOften(
            f"Your project began {most} Jobs in Cloud {name} within an hour, and may not begin more: others "
            f"use it, too. Try again in {seconds} s.",
            retry_after=seconds,
        )


@functools.cache
def _enforcer() -> Any:
    """It asks Keystone for limits each time, and once for where they belong."""
    return limit.Enforcer(_used, cache=False)


def _used(project_id: str | None, names: Collection[str]) -> dict[str, int]:
    assert project_id is not None       # each of ours is a project's
    return {name: USAGE[name](project_id) for name in names}


def _mib(count: int) -> int:
    return -(-count // MIB)


def _told(info: Any) -> str:
    return (
        f"Your project may have {info.limit} {WORDS[info.resource_name]} ({info.resource_name}), has "
        f"{info.current_usage}, and this takes {info.delta} more. Remove some, or ask the operator."
    )
