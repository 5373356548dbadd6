# SPDX-License-Identifier: Apache-2.0
"""Link: an image that is in a Cloud already is known as ours from now on. One flow per Target."""

from taskflow import flow as flow_base
from taskflow.patterns import linear_flow

from ciming.flows import tasks


def flow() -> flow_base.Flow:
    return linear_flow.Flow("link").add(
        tasks.Compare(),
        tasks.Link(),
    )
