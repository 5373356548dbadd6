# SPDX-License-Identifier: Apache-2.0
"""Which rows of the matrix are shown; the functional tests look at real Clouds."""

import pytest

from ciming.api import availability

CELLS = [{"cloud_id": "one", "status": "available"}, {"cloud_id": "two", "status": "missing"}]


@pytest.mark.parametrize(
    ("available_in", "missing_in", "shown"),
    [
        (set(), set(), True),
        ({"one"}, {"two"}, True),
        ({"two"}, set(), False),
        (set(), {"one"}, False),
        ({"one", "deleted"}, set(), False),
        (set(), {"two", "deleted"}, False),
    ],
)
def test_where_it_is_wanted(available_in: set[str], missing_in: set[str], shown: bool) -> None:
    """Nothing is known of a Cloud that was deleted between two questions."""
    assert availability._is_where(CELLS, available_in, missing_in) == shown
