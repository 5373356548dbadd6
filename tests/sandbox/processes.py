# SPDX-License-Identifier: Apache-2.0
"""Processes that outlive who started them, and the loopback ports they listen on.

A process is known by its id and the kernel's time of its start, kept in a file ``pid starttime``:
an id that the kernel gave to somebody else meanwhile is never taken for ours. Only the standard
library is used here: the services' own virtual environment imports it too.
"""

import contextlib
import http.client
import itertools
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
import zlib

HOST = "127.0.0.1"
BLOCK = 8
"""Ports that one sandbox takes."""
FIRST, LAST = 20000, 32000
"""Where free blocks are looked for: below the range that the kernel gives to clients."""


def start_time(pid: int) -> str | None:
    """Return when the process started, in clock ticks since boot; None if there is no such one."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def record(file: pathlib.Path, pid: int) -> None:
    """Remember the process in the file."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(f"{pid} {start_time(pid)}\n")
    new.replace(file)


def running(file: pathlib.Path) -> int | None:
    """Return the id of the process that the file remembers, if it still runs."""
    try:
        pid, started = file.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == started else None


def stop(
    file: pathlib.Path,
    patience: float = 10.0,
    *,
    group: bool = True,
    signum: signal.Signals = signal.SIGTERM,
) -> bool:
    """End the remembered process: SIGTERM (or `signum`), and SIGKILL after `patience` seconds.

    The signals go to the process group that it leads, or with `group` false to itself alone.
    Returns whether there was anything to stop.
    """
    pid = running(file)
    if pid is None:
        return False
    _signal(pid, signum, group)
    if not gone(file, patience):
        _signal(pid, signal.SIGKILL, group)
        gone(file, patience)
    return True


def _signal(pid: int, signum: int, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        if group and os.getpgid(pid) == pid:
            os.killpg(pid, signum)
        else:
            os.kill(pid, signum)


def gone(file: pathlib.Path, patience: float) -> bool:
    """Wait until the remembered process has ended, at most `patience` seconds."""
    end = time.monotonic() + patience
    while running(file) is not None:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a child in the background, so that it is no zombie when it has ended."""
    threading.Thread(target=process.wait, daemon=True).start()


def environment(**extra: str) -> dict[str, str]:
    """Return what a service may inherit: no OpenStack credential, no proxy before loopback."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OS_") and not name.lower().endswith("_proxy")
    }
    return kept | extra


def get(port: int, path: str, timeout: float = 2.0) -> int | None:
    """Return the status with which a loopback port answers, None when it does not."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request("GET", path)
        return int(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def free(port: int) -> bool:
    """Tell whether a service could listen on the port now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
    return True


def free_block(key: str) -> int:
    """Return the first port of a free block, which nobody else gets while this process lives.

    Between the choice and the moment when a service listens are seconds, and services are killed
    and started again: others must not be given its ports meanwhile.

    The search starts at a place that follows from `key`: two sandboxes that start at the same
    moment look at different blocks.
    """
    blocks = range(FIRST, LAST, BLOCK)
    start = zlib.crc32(key.encode()) % len(blocks)
    for base in itertools.chain(blocks[start:], blocks[:start]):
        if all(free(port) for port in range(base, base + BLOCK)) and _claimed(base):
            return base
    raise RuntimeError(f"no {BLOCK} free ports in a row between {FIRST} and {LAST}")


_claims: list[socket.socket] = []


def _claimed(base: int) -> bool:
    """Claim a block by an abstract socket: the kernel gives its name once, until its process ends."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0ciming-ports-{base}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True
