# SPDX-License-Identifier: Apache-2.0
"""What may happen to an engine."""

import itertools
import threading
from collections.abc import Callable

import pytest


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Have the system refuse the n-th thread from now on whose name begins so."""
    start = threading.Thread.start

    def refuse(name: str, nth: int) -> None:
        numbers = itertools.count(1)

        def refusing(thread: threading.Thread) -> None:
            if thread.name.startswith(name) and next(numbers) == nth:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refusing)

    return refuse
