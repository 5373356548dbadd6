# SPDX-License-Identifier: Apache-2.0
"""Calls to Clouds for whose answer nobody waits any more."""

import contextlib
import threading
from collections.abc import Callable, Iterable

from ciming.providers import base


def hang_up(asking: threading.Thread, clouds: Callable[[], Iterable[base.Provider]], pause: float) -> None:
    """End what a thread asks of Clouds: now, and then again and again, until it has ended.

    After a call that was ended it may make the next, and who only connects can not be hung up on.

    :param clouds: those that it asks by now
    :param pause: seconds between two times
    """

    def once() -> None:
        for cloud in clouds():
            cloud.hang_up()

    def go_on() -> None:
        while True:
            asking.join(pause)
            if not asking.is_alive():
                return
            once()

    once()
    with contextlib.suppress(RuntimeError):     # there can be no more threads
        threading.Thread(target=go_on, name="hang-up", daemon=True).start()
