# SPDX-License-Identifier: Apache-2.0
"""The only reader of secrets: from a Job's trust to what a provider can log in with.

Nothing here is ever written anywhere; what it returns is for one use, in memory.
"""

from typing import Any

from oslo_config import cfg

from ciming import exceptions, trusts
from ciming.db import models


def of_target(job: models.Job, target: models.Target) -> tuple[dict[str, Any], Any]:
    """Where the Target's cloud is, and the credential for it: `place` and `credential` of a Provider.

    :raises ProviderError: there is none
    """
    if job.trust_id is None:
        raise exceptions.ProviderError(
            f"The trust for this Job is gone, so CIMinG can not log in to {target.cloud}.",
            code="credential.missing",
        )
    place = {"region": target.region, "interface": cfg.CONF.openstack.interface}
    return place, trusts.session(job.trust_id)
