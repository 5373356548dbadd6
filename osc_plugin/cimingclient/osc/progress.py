# SPDX-License-Identifier: Apache-2.0
"""Lines that show how far things are: rewritten on a terminal, one after another elsewhere."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Protocol, TextIO

from cimingclient.osc import text


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing under way; `done` and `total` in bytes, `total` None where nobody knows.

    `pace` is shown where there is no `note`; a change of it alone is no news.
    """

    name: str
    status: str
    step: str = ""
    done: int = 0
    total: int | None = None
    note: str = ""
    pace: str = ""

    @property
    def percent(self) -> int | None:
        return min(100, self.done * 100 // self.total) if self.total else None

    def line(self, width: int) -> str:
        share = "" if self.percent is None else f"{self.percent} %"
        amount = f"{text.size(self.done)} of {text.size(self.total)}" if self.total else ""
        if not self.total and self.done:
            amount = text.size(self.done)
        said = (self.name, self.status, self.step, self.note or self.pace)
        name, status, step, note = map(text.plain, said)
        cells = (f"{name:<{width}}", f"{status:<9}", f"{step:<8}", f"{share:>5}", amount, note)
        return "  ".join(cells).rstrip()


class Board(Protocol):
    """Where rows are shown."""

    def show(self, rows: Sequence[Row]) -> None: ...


def board(stream: TextIO) -> Board:
    """The board that fits what the stream goes to."""
    return Terminal(stream) if is_terminal(stream) else Log(stream)


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class _Stream:
    """A stream that falls silent when nobody reads it any more: the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def write(self, data: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError:
            self._stream = None

    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal."""
        try:
            columns, lines = os.get_terminal_size(self._stream.fileno() if self._stream else 2)
        except (OSError, ValueError):
            columns, lines = 0, 0
        return columns or 80, lines or 24


class Terminal:
    """Rewrites its lines in place, one per row."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = _Stream(stream)
        self._height = 0

    def show(self, rows: Sequence[Row]) -> None:
        columns, height = self._stream.size()
        lines = [row.line(_width(rows)) for row in rows]
        if len(lines) >= height:
            # The cursor cannot go back to what has scrolled away.
            left_out = len(lines) - (height - 2)
            lines = [*lines[: height - 2], f"… and {left_out} more"]
        back = f"\x1b[{self._height}A" if self._height else ""
        # A line that wraps would be two; \x1b[K clears what a longer one left, \x1b[J the rest.
        shown = "".join(f"\r{line[: columns - 1]}\x1b[K\n" for line in lines)
        self._stream.write(f"{back}{shown}\x1b[J")
        self._height = len(lines)


class Log:
    """Writes a line when a row's status, step or note changes, and at each tenth of the bytes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = _Stream(stream)
        self._seen: dict[str, tuple[object, ...]] = {}

    def show(self, rows: Sequence[Row]) -> None:
        for row in rows:
            # Without an end there are no tenths: a line each time that it has doubled.
            mark = row.done.bit_length() if row.percent is None else row.percent // 10
            state = (row.status, row.step, row.note, mark)
            if self._seen.get(row.name) != state:
                self._seen[row.name] = state
                self._stream.write(row.line(_width(rows)) + "\n")


def _width(rows: Sequence[Row]) -> int:
    return max((len(text.plain(row.name)) for row in rows), default=0)
