# SPDX-License-Identifier: Apache-2.0
"""Scripts that stand in for qemu-img, and what became of the processes that they are."""

import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from ciming.disk_image import qemu_img


def stand_in(folder: Path, script: str) -> str:
    """A PATH on which qemu-img is this script."""
    command = folder / "qemu-img"
    command.write_text("#!/bin/sh\n" + textwrap.dedent(script))
    command.chmod(0o755)
    return f"{folder}:{qemu_img.PATH}"


def gone(pid: int) -> bool:
    """Also when nobody has reaped it yet."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
