# SPDX-License-Identifier: Apache-2.0
"""Zone sync: zones are brought in line. One flow per Job; each image has a Job of its own below it."""

from taskflow import flow as flow_base
from taskflow.patterns import linear_flow

from ciming.flows import tasks


def flow() -> flow_base.Flow:
    return linear_flow.Flow("zone-sync").add(
        tasks.HoldZones(),
        tasks.Plan(),
        tasks.Bring(),
        tasks.Prune(),
    )
