# SPDX-License-Identifier: Apache-2.0
"""Who may work at a time, and who is next."""

import threading
from concurrent import futures
from typing import Any

import pytest

from ciming import exceptions
from ciming.engine import slots


def alive() -> None:
    pass


def free(slot: slots.Slot) -> bool:
    """Could it be had at once?"""

    def impatient() -> None:
        raise exceptions.Interrupted("not at once")

    try:
        slot.take(impatient)
    except exceptions.Interrupted:
        return slot.held
    slot.free()
    return True


@pytest.mark.parametrize(
    ("limits", "other", "expected"),
    [
        (slots.Limits(2), {"cloud": "a", "project": "p"}, True),
        (slots.Limits(1), {"cloud": "b", "project": "q"}, False),
        (slots.Limits(9, per_cloud=1), {"cloud": "a", "project": "q"}, False),
        (slots.Limits(9, per_cloud=1), {"cloud": "b", "project": "p"}, True),
        (slots.Limits(9, per_project=1), {"cloud": "b", "project": "p"}, False),
        (slots.Limits(9, per_project=1), {"cloud": "a", "project": "q"}, True),
    ],
)
def test_limits(limits: slots.Limits, other: dict[str, Any], expected: bool) -> None:
    made = slots.Slots(limits)
    held = made.slot(cloud="a", project="p")
    held.take(alive)
    held.take(alive)        # again is nothing
    assert free(made.slot(**other)) == expected
    held.free()
    held.free()
    assert free(made.slot(**other))


@pytest.mark.parametrize(("total", "large"), [(1, 1), (2, 1), (4, 3), (16, 12)])
def test_large_ones_leave_room_for_small_ones(total: int, large: int) -> None:
    made = slots.Slots(slots.Limits(total))
    for _ in range(large):
        made.slot(large=True).take(alive)
    assert not free(made.slot(large=True))
    assert free(made.slot()) == (large < total)


def test_first_come_first_served() -> None:
    made, order = slots.Slots(slots.Limits(1)), []
    first = made.slot()
    first.take(alive)

    def wait(number: int) -> None:
        mine = made.slot()
        mine.take(alive)
        order.append(number)
        mine.free()

    with futures.ThreadPoolExecutor(5) as pool:
        for number in range(5):
            pool.submit(wait, number)
            while len(made._waiting) <= number:
                pass
        first.free()
    assert order == [0, 1, 2, 3, 4]


def test_who_does_not_fit_holds_nobody_up() -> None:
    made = slots.Slots(slots.Limits(2, per_cloud=1))
    busy = made.slot(cloud="a")
    busy.take(alive)
    waits = made.slot(cloud="a")
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(waits.take, alive)
        while not made._waiting:
            pass
        assert free(made.slot(cloud="b"))
        busy.free()
        waiting.result(10)


def test_who_gives_up_waiting_leaves_nothing() -> None:
    made = slots.Slots(slots.Limits(1))
    held = made.slot()
    held.take(alive)
    assert not free(made.slot())
    assert not made._waiting
    held.free()
    assert free(made.slot())


def test_never_more_than_the_limit() -> None:
    made = slots.Slots(slots.Limits(3, per_cloud=2))
    lock, now, most = threading.Lock(), [0], [0]

    def work(number: int) -> None:
        mine = made.slot(cloud=str(number % 2), project="p", large=number % 3 == 0)
        for _ in range(20):
            mine.take(alive)
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            with lock:
                now[0] -= 1
            mine.free()

    with futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    assert most[0] <= 3
    assert not made._waiting and not +made._taken
