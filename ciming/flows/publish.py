# SPDX-License-Identifier: Apache-2.0
"""Publish: the staged image goes to one Cloud and is linked. One flow per Target."""

from taskflow import flow as flow_base
from taskflow.patterns import linear_flow

from ciming.flows import tasks


def flow() -> flow_base.Flow:
    return linear_flow.Flow("publish").add(
        tasks.Check(),
        tasks.Upload(),
        tasks.Register(),
        tasks.Verify(),
        tasks.Link(),
    )
