# SPDX-License-Identifier: Apache-2.0
"""What an engine holds for Jobs in its memory, and nowhere else: bundles of credentials.

They go when the Job ends or waits for others, when it turns out that it never came to be, and with the
process.
"""

import threading
import time
from collections.abc import Callable

from ciming import sealing

PATIENCE = 60.0     # seconds until the Job of a bundle must be there
_LOCK = threading.Lock()
_HELD: dict[str, tuple[sealing.Bundle, float]] = {}


def hold(job_id: str, bundle: sealing.Bundle) -> None:
    """From now on, in place of what was held before."""
    with _LOCK:
        _HELD[job_id] = (bundle, time.monotonic())


def of(job_id: str) -> sealing.Bundle | None:
    with _LOCK:
        held = _HELD.get(job_id)
    return held[0] if held else None


def drop(job_id: str) -> None:
    with _LOCK:
        _HELD.pop(job_id, None)


def sweep(is_open: Callable[[str], bool]) -> None:
    """Drop what is of no Job that has not ended: its API process died before it wrote the Job."""
    with _LOCK:
        old = [job_id for job_id, (_, since) in _HELD.items() if time.monotonic() - since > PATIENCE]
    for job_id in old:
        if not is_open(job_id):
            drop(job_id)
