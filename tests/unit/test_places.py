# SPDX-License-Identifier: Apache-2.0
"""Who gets a place among requests that take long, who waits for one, and who is refused."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import pytest

from ciming import exceptions, places


@pytest.fixture
def pool() -> Iterator[futures.ThreadPoolExecutor]:
    with futures.ThreadPoolExecutor(20) as made:
        yield made


def refused(made: places.Places, project: str) -> float | None:
    """After so many seconds; None: it got in."""
    began = time.monotonic()
    try:
        with made.one(project, "Too many."):
            return None
    except exceptions.Unavailable as error:
        assert error.detail == "Too many."
        return time.monotonic() - began


def test_of_one_project_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "WAIT_SECONDS", 0.05)
    made = places.Places(3, 2)
    with made.one("a", ""), made.one("a", ""):
        assert refused(made, "a") is not None and refused(made, "b") is None
        with made.one("b", ""):
            assert refused(made, "b") is not None and refused(made, "c") is not None
    assert refused(made, "a") is None
    with contextlib.suppress(KeyError), made.one("a", ""):      # however it ends
        raise KeyError
    with made.one("a", ""), made.one("a", ""):
        pass


def test_one_that_becomes_free_is_waited_for(pool: futures.ThreadPoolExecutor) -> None:
    made = places.Places(1, 1)
    with made.one("a", ""):
        waits = [pool.submit(refused, made, "b")]
        time.sleep(0.2)
        assert not waits[0].done()
    assert waits[0].result(5) is None


def test_so_many_wait_and_the_next_is_refused_at_once(
    pool: futures.ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them holds a thread of the process."""
    monkeypatch.setattr(places, "WAIT_SECONDS", 60)
    made, enough = places.Places(2, 1), threading.Event()

    def hold(project: str) -> None:
        with made.one(project, ""):
            enough.wait(60)

    held = [pool.submit(hold, project) for project in ("a", "b", "a", "b")]
    try:
        while made._waiting.total() < 2:
            time.sleep(0.01)
        assert (refused(made, "a") or 60) < 5 and (refused(made, "c") or 60) < 5
    finally:
        enough.set()
    for each in held:
        each.result(5)
