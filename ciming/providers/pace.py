# SPDX-License-Identifier: Apache-2.0
"""Calls side by side: as many as the cloud bears, each tried some times, their results in order."""

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

from ciming import exceptions

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST = 32       # calls at a time
FIRST = 8       # to begin with
TRIES = 6       # of one call, before it is the Target's attempt that failed
LONGEST_PAUSE = 8.0     # seconds
ASK_SECONDS = 1.0   # between two questions whether to go on, while a call takes its time
CALM = 1.0      # seconds in which a number of refusals is one


class Throttled(exceptions.TransientProviderError):
    """The cloud wants fewer calls in a second."""


class Pace:
    """How many calls may run: one more after each round that went well, half of them when it was too fast."""

    def __init__(self, most: int = MOST) -> None:
        self.allowed = float(min(FIRST, most))
        self.most = most
        self._running = 0
        self._slowed = -CALM
        self._free = threading.Condition()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until another call may run."""
        with self._free:
            self._free.wait_for(lambda: self._running < max(1, int(self.allowed)))
            self._running += 1
        try:
            yield
        finally:
            with self._free:
                self._running -= 1
                self._free.notify()

    def fine(self) -> None:
        with self._free:
            self.allowed = min(self.most, self.allowed + 1 / self.allowed)
            self._free.notify()

    def too_fast(self) -> None:
        with self._free:
            if time.monotonic() - self._slowed > CALM:
                self._slowed = time.monotonic()
                self.allowed = max(1.0, self.allowed / 2)


class _Stopped(Exception):
    """Nobody waits for it any more."""


def in_order(
    call: Callable[[Item], Result], items: Iterable[Item], alive: Callable[[], None], pace: Pace
) -> Generator[Result, None, None]:
    """What a call gives for each item, in their order; no more items are taken than can be worked on.

    To be closed, or read to its end: then no call runs any more.

    :param alive: asked before each item is taken; what that raises ends it
    :raises ProviderError: a call failed, for good or too often
    """
    over = threading.Event()

    def persistently(item: Item) -> Result:
        for tried in range(1, TRIES + 1):
            with pace.turn():
                if over.is_set():
                    raise _Stopped
                try:
                    found = call(item)
                except exceptions.TransientProviderError as error:
                    if isinstance(error, Throttled) or error.code == "cloud.unreachable":      # or late
                        pace.too_fast()
                    if tried == TRIES:
                        raise
                else:
                    pace.fine()
                    return found
            over.wait(min(LONGEST_PAUSE, 0.1 * 2**tried) * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
        raise AssertionError

    running: deque[futures.Future[Result]] = deque()
    with futures.ThreadPoolExecutor(pace.most, "cloud") as pool:
        try:
            for item in items:
                alive()
                while running and (len(running) >= pace.most or running[0].done()):
                    yield _result(running.popleft(), alive)
                running.append(pool.submit(persistently, item))
            while running:
                yield _result(running.popleft(), alive)
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)


def _result(future: futures.Future[Result], alive: Callable[[], None]) -> Result:
    """What it comes to, however long that takes."""
    while True:
        try:
            return future.result(ASK_SECONDS)
        except TimeoutError:
            alive()
