# SPDX-License-Identifier: Apache-2.0
"""Adjust: an image that is in a zone already gets the metadata that it is to have. One flow per Target."""

from taskflow import flow as flow_base
from taskflow.patterns import linear_flow

from ciming.flows import tasks


def flow() -> flow_base.Flow:
    return linear_flow.Flow("adjust").add(
        tasks.Know(),
        tasks.Link(),
    )
