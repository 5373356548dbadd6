# SPDX-License-Identifier: Apache-2.0
"""Files that only their owner may read, and configuration in the form that oslo.config reads."""

import os
import pathlib
import tempfile
from collections.abc import Mapping

Sections = Mapping[str, Mapping[str, object]]


def write(path: pathlib.Path, text: str) -> None:
    """Write a file of mode 0600 in one step: a reader sees the old text or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, new = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    pathlib.Path(new).replace(path)


def ini(sections: Sections) -> str:
    """Return the sections as the text of an oslo.config file."""
    lines = []
    for name, options in sections.items():
        lines.append(f"[{name}]")
        lines.extend(f"{option} = {value}" for option, value in options.items())
    return "\n".join(lines) + "\n"


def tail(path: pathlib.Path, lines: int = 20) -> str:
    """Return the last lines of a log, or nothing when there is none."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
