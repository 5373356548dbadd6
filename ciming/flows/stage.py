# SPDX-License-Identifier: Apache-2.0
"""Stage: the image's bytes come into the staging area, are looked at and hashed. One flow per Job."""

from taskflow import flow as flow_base
from taskflow.patterns import linear_flow

from ciming.flows import tasks


def flow() -> flow_base.Flow:
    return linear_flow.Flow("stage").add(
        tasks.Receive(),
        tasks.Inspect(),
    )
