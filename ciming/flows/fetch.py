# SPDX-License-Identifier: Apache-2.0
"""Fetch: an image that a Cloud has comes into the staging area. One flow per Job, in place of stage."""

from taskflow import flow as flow_base
from taskflow.patterns import linear_flow

from ciming.flows import tasks


def flow() -> flow_base.Flow:
    return linear_flow.Flow("fetch").add(
        tasks.Locate(),
        tasks.Receive(),
        tasks.Inspect(),
    )
