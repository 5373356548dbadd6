# SPDX-License-Identifier: Apache-2.0
"""The file of `--file`, looked at before the service is asked for anything."""

import contextlib
import io
import os
import pathlib
import stat
import sys
from collections.abc import Iterator
from typing import NamedTuple

from osc_lib import exceptions

from cimingclient.sdk import body


class Source(NamedTuple):
    """Bytes to send, and how many they are (None: a pipe)."""

    stream: io.BufferedReader
    size: int | None
    found: os.stat_result | None  # as a regular file was when it was opened

    @property
    def changed(self) -> bool:
        """Whether somebody has written into the file since."""
        now = _state(self.stream)
        if self.found is None or now is None:
            return False
        return (now.st_size, now.st_mtime_ns) != (self.found.st_size, self.found.st_mtime_ns)


@contextlib.contextmanager
def opened(name: str) -> Iterator[Source]:
    """Open a file, or standard input for `-`.

    :raises: `CommandError` when it is absent, unreadable or empty. A pipe is waited for until it
        gives its first byte or ends.
    """
    with contextlib.ExitStack() as stack:
        if name == "-":
            yield _checked(_standard_input(), "Standard input")
            return
        try:
            stream = stack.enter_context(pathlib.Path(name).open("rb"))
        except OSError as exc:
            raise exceptions.CommandError(f"Cannot read {name}: {exc.strerror}") from exc
        yield _checked(stream, name)


def _standard_input() -> io.BufferedReader:
    if sys.stdin is None:
        raise exceptions.CommandError("There is no standard input.")
    if sys.stdin.isatty():
        raise exceptions.CommandError("Standard input is a terminal: redirect a file or a pipe.")
    stream = sys.stdin.buffer
    if not isinstance(stream, io.BufferedReader):
        raise exceptions.CommandError("Standard input gives no bytes.")
    with contextlib.suppress(OSError):  # it is no file of the system's
        # Where others made it one that never waits, "nothing yet" would look like the end.
        os.set_blocking(stream.fileno(), True)
    return stream


def _checked(stream: io.BufferedReader, name: str) -> Source:
    found = _state(stream)  # before its first byte and its size are read
    try:
        empty = not stream.peek(1)
    except OSError as exc:
        raise exceptions.CommandError(f"Cannot read {name}: {exc.strerror}") from exc
    if empty:
        raise exceptions.CommandError(f"{name} is empty.")
    return Source(stream, body.extent(stream)[1], found)


def _state(stream: io.BufferedReader) -> os.stat_result | None:
    try:
        found = os.fstat(stream.fileno())
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None
