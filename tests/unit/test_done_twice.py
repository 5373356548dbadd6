# SPDX-License-Identifier: Apache-2.0
"""What the crash tests take for work that was done twice."""

import pytest

from tests.functional import crash

RUN = ("before publish Check execute", "after publish Check execute", "noted publish Check execute")
AGAIN = "before publish Check execute"


@pytest.mark.parametrize(
    ("trace", "twice"),
    [
        ((*RUN, "before publish Upload execute"), False),
        ((*RUN, AGAIN), True),
        ((*RUN[:2], AGAIN), False),         # its end was not noted
        ((*RUN, "before publish Upload revert", "noted publish Check revert", AGAIN), False),
        ((*RUN, "before publish Upload revert", AGAIN), False),     # the note was lost in a kill
        (("noted publish Upload revert", "before publish Upload revert"), True),
        (("noted publish Upload revert", *RUN, "before publish Upload revert"), False),
    ],
)
def test_done_twice(trace: tuple[str, ...], twice: bool) -> None:
    assert bool(crash.done_twice([(point, "job target") for point in trace])) is twice
    others = [(point, f"job {number}") for number, point in enumerate(trace)]
    assert not crash.done_twice(others)
