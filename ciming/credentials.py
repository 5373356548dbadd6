# SPDX-License-Identifier: Apache-2.0
"""The only reader of secrets: from a Job's trust to what a provider can log in with.

Nothing here is ever written anywhere; what it returns is for one use, in memory.
"""

from typing import Any, Protocol

from oslo_config import cfg

from ciming import exceptions, trusts
from ciming.db import models


class Place(Protocol):
    """A Cloud, as Targets and Links name it."""

    @property
    def cloud(self) -> str: ...
    @property
    def region(self) -> str | None: ...


def of_place(job: models.Job, place: Place) -> tuple[dict[str, Any], Any]:
    """Where a Cloud is, and the credential for it: `place` and `credential` of a Provider.

    :raises ProviderError: there is none
    """
    if job.trust_id is None:
        raise exceptions.ProviderError(
            f"The trust for this Job is gone, so CIMinG can not log in to {place.cloud}.",
            code="credential.missing",
        )
    where = {"region": place.region, "interface": cfg.CONF.openstack.interface}
    return where, trusts.session(job.trust_id)
