# SPDX-License-Identifier: Apache-2.0
"""What all tasks of a Job ask from time to time: may we go on?"""

import threading
import time

from ciming import exceptions
from ciming.db import work

ASK_SECONDS = 1.0


class Watch:
    """Over one claimed Job; the database is asked at a bounded rate, whoever asks us."""

    def __init__(self, claim: work.Claim, stopping: threading.Event) -> None:
        self._claim = claim
        self._stopping = stopping
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self.cancelled = False
        self._lost = False

    @property
    def over(self) -> bool:
        """Is nobody to go on, as far as is known?"""
        return self.cancelled or self.ends

    @property
    def ends(self) -> bool:
        """Is nothing even to be undone here?"""
        return self._lost or self._stopping.is_set()

    def ask(self) -> None:
        """:raises Interrupted: leave everything as it is: the Job goes on later, here or elsewhere"""
        if self._stopping.is_set():
            raise exceptions.Interrupted("The engine stops.")
        with self._lock:
            if time.monotonic() - self._asked >= ASK_SECONDS:
                try:
                    self.cancelled = work.check(self._claim) == "cancel"
                except exceptions.ClaimLost:
                    self._lost = True
                    raise
                self._asked = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than the engine runs."""
        self._stopping.wait(seconds)
