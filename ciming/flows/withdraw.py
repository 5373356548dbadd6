# SPDX-License-Identifier: Apache-2.0
"""Withdraw: an image is deleted in one Cloud, and its Link forgotten. One flow per Target."""

from taskflow import flow as flow_base
from taskflow.patterns import linear_flow

from ciming.flows import tasks


def flow() -> flow_base.Flow:
    return linear_flow.Flow("withdraw").add(
        tasks.Delete(),
        tasks.Unlink(),
    )
