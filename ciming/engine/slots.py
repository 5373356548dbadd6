# SPDX-License-Identifier: Apache-2.0
"""How many may do something at a time: in all, for one Cloud, for one project; and who is next."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

LOOK_SECONDS = 0.5      # between two questions whether to go on waiting
LARGE_SHARE = 0.75      # of all, that large images, or one project, may take: others are not to wait for them


@dataclass(frozen=True)
class Limits:
    """None: no limit."""

    total: int
    per_cloud: int | None = None
    per_project: int | None = None

    @property
    def large(self) -> int:
        return max(1, int(self.total * LARGE_SHARE))


class Slots:
    """First come, first served, among those whose limits leave room."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: list[Slot] = []
        self._taken: Counter[str] = Counter()

    def slot(self, *, cloud: str = "", project: str = "", large: bool = False) -> "Slot":
        """A slot that can be taken and freed again and again, by one thread at a time."""
        limits = self._limits
        claims: list[tuple[str, int | None]] = [
            ("total", limits.total),
            (f"cloud {cloud}", limits.per_cloud),
            (f"project {project}", limits.per_project),
            ("large", limits.large if large else None),
        ]
        return Slot(self, {name: limit for name, limit in claims if limit is not None})

    def take(self, slot: "Slot", alive: Callable[[], None]) -> None:
        with self._changed:
            self._waiting.append(slot)
            self._grant()
        try:
            while not slot.held:
                alive()
                with self._changed:
                    self._changed.wait_for(lambda: slot.held, LOOK_SECONDS)
        except BaseException:
            self.free(slot)
            raise

    def free(self, slot: "Slot") -> None:
        with self._changed:
            if slot.held:
                self._taken.subtract(slot.claims.keys())
                slot.held = False
            elif slot in self._waiting:
                self._waiting.remove(slot)
            self._grant()

    def _grant(self) -> None:
        for slot in list(self._waiting):
            if all(self._taken[name] < limit for name, limit in slot.claims.items()):
                self._taken.update(slot.claims.keys())
                self._waiting.remove(slot)
                slot.held = True
        self._changed.notify_all()


class Slot:
    """One of the slots: asked for, or held."""

    def __init__(self, slots: Slots, claims: dict[str, int]) -> None:
        self.claims = claims
        self.held = False
        self._slots = slots

    def take(self, alive: Callable[[], None]) -> None:
        """Wait for it, and hold it; `alive` is asked meanwhile. Nothing is done where it is held."""
        if not self.held:
            self._slots.take(self, alive)

    def free(self) -> None:
        """Give it back; nothing is done where it is not held."""
        if self.held:
            self._slots.free(self)
