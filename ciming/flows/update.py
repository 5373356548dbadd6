# SPDX-License-Identifier: Apache-2.0
"""Update: what is said of an Image is said in one of its Clouds. One flow per Target."""

from taskflow import flow as flow_base
from taskflow.patterns import linear_flow

from ciming.flows import tasks


def flow() -> flow_base.Flow:
    return linear_flow.Flow("update").add(
        tasks.Update(),
    )
