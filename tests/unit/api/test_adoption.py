# SPDX-License-Identifier: Apache-2.0
"""What is known of an image that becomes an Image."""

from typing import Any

import pytest

from ciming import context
from ciming.api import adoption

SEEN: dict[str, Any] = {"digests": None, "size": 5, "virtual_size": 7, "disk_format": "qcow2"}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, (5, 7, "qcow2")),
        ({"disk_format": "ploop"}, (5, 7, None)),
        ({"disk_format": "x" * 255}, (5, 7, None)),     # databases have room for less
        ({"size": 2**63, "virtual_size": 2**63 - 1}, (None, 2**63 - 1, "qcow2")),
        ({"size": None, "virtual_size": None, "disk_format": None}, (None, None, None)),
    ],
)
def test_what_a_cloud_says_is_taken_as_far_as_it_is_known(more: dict[str, Any], expected: Any) -> None:
    caller = context.RequestContext(user_id="alice", project_id="studio")
    image = adoption._image(caller, "demo", [], SEEN | more)
    assert (image.size, image.virtual_size, image.disk_format) == expected
