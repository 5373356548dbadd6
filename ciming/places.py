# SPDX-License-Identifier: Apache-2.0
"""How many requests of one process may do something that takes long: in all, and of one project."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from ciming import exceptions

WAIT_SECONDS = 5.0


class Places:
    """Who finds no place waits a little for one; but no more than there are places, or it is refused at once.

    So a project keeps no other one out, nor takes more of the process's threads than twice its share.
    """

    def __init__(self, total: int, per_project: int) -> None:
        self._limits = (total, per_project)
        self._changed = threading.Condition()
        self._taken: Counter[str] = Counter()       # by project
        self._waiting: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, project_id: str, else_say: str) -> Iterator[None]:
        """:raises Unavailable: there is none"""
        with self._changed:
            if not (self._has_room(self._taken, project_id) or self._wait(project_id)):
                raise exceptions.Unavailable(else_say)
            self._taken[project_id] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken = self._taken - Counter((project_id,))      # keeps none that has none
                self._changed.notify_all()

    def _has_room(self, counts: Counter[str], project_id: str) -> bool:
        total, per_project = self._limits
        return counts.total() < total and counts[project_id] < per_project

    def _wait(self, project_id: str) -> bool:
        """Was there one in time?"""
        if not self._has_room(self._waiting, project_id):
            return False
        self._waiting[project_id] += 1
        try:
            return self._changed.wait_for(lambda: self._has_room(self._taken, project_id), WAIT_SECONDS)
        finally:
            self._waiting = self._waiting - Counter((project_id,))
