# SPDX-License-Identifier: Apache-2.0
"""The only place that starts qemu-img: with an explicit format, under limits, and never left behind.

A child dies with the thread that started it: call from threads that live as long as the work.
"""

import json
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ciming import exceptions
from ciming.disk_image import rejections

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MIB = 1024 * 1024
GIB = 1024 * MIB
CPU_SECONDS = 20  # for the smallest image; what a sound one of 100 GiB needs is below a second
WAITING = 4  # wall-clock seconds for each second of CPU: storage is slow, hosts are busy
ADDRESS_SPACE = 1 * GIB  # what other OpenStack services give it
OUTPUT = 1 * MIB
CPU_SECONDS_PER_GIB = 20  # of a disk that is read or written whole: the slowest decompression takes half
BUFFERS = 4 * GIB  # of up to 64 threads that do so: mostly addresses without memory
LOOK_SECONDS = 0.5  # between two questions whether to go on

NO_COMMAND = (126, 127)  # of prlimit and setpriv
# Signals by which an image that asks for too much ends qemu-img; others come from outside.
BY_THE_IMAGE = (signal.SIGXCPU, signal.SIGXFSZ, signal.SIGABRT, signal.SIGSEGV, signal.SIGTRAP)


@dataclass(frozen=True)
class Result:
    """What qemu-img said; each text is cut at a MiB."""

    status: int
    output: str
    errors: str

    def json(self) -> dict[str, Any]:
        """:raises ImageRejected: it did not get as far as to say anything"""
        try:
            answer = json.loads(self.output)
        except ValueError:
            raise rejections.broken(f"qemu-img cannot read it ({self.complaint()})") from None
        return dict(answer)

    def complaint(self) -> str:
        """The first error, fit to be shown."""
        lines = self.errors.strip().splitlines() or ["no reason given"]
        line = next((line for line in lines if line.startswith("ERROR")), lines[0])
        return "".join(c if c.isprintable() else "?" for c in line.removeprefix("qemu-img: "))[:300]


def run(
    *arguments: str,
    image: Path,
    driver: str,
    target: str | None = None,
    disk: int = 0,
    address_space: int | None = None,
    writes: int = OUTPUT,
    cpu_seconds: int | None = None,
    keep: Sequence[int] = (),
    alive: Callable[[], None] = lambda: None,
) -> Result:
    """Run qemu-img to its end.

    :param image: the file that it reads; time and memory limits grow with its size
    :param driver: qemu's name of its format
    :param target: what it writes to, where it writes
    :param disk: the virtual size in bytes, where all of the disk is read; limits grow with it, too
    :param address_space: in bytes, when not by size
    :param writes: the longest file in bytes that it may write
    :param cpu_seconds: when not by size
    :param keep: descriptors that it inherits
    :param alive: asked while it runs; what that raises ends it
    :raises ImageRejected: it hit a limit
    :raises Unavailable: it could not be run at all
    """
    size = image.stat().st_size
    cpu = cpu_seconds or CPU_SECONDS + size // GIB + disk * CPU_SECONDS_PER_GIB // GIB
    memory = address_space or ADDRESS_SPACE + size // 64 + (BUFFERS if disk else 0)
    limits = {
        "as": (resource.RLIMIT_AS, memory),
        "cpu": (resource.RLIMIT_CPU, cpu),
        "fsize": (resource.RLIMIT_FSIZE, writes),
        "core": (resource.RLIMIT_CORE, 0),
    }
    source = _source(image, driver)
    command = ["setpriv", "--no-new-privs", "--pdeathsig", "KILL", "--", "prlimit"]
    command += [f"--{name}={_within(kind, value)}" for name, (kind, value) in limits.items()]
    command += ["--", "qemu-img", *arguments, "--image-opts", source]
    command += [target] if target else []
    # Files, not pipes: the limit on written files bounds them too.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        status = _wait(command, (output, errors), cpu * WAITING, keep, alive)
        complaints = _text(errors)
        for name, word in ((source, "image"), (str(image.absolute()), "image"), (target, "result")):
            complaints = complaints.replace(name, f"the {word}") if name else complaints
        result = Result(status, _text(output), complaints)
    _refuse_limits(result)
    return result


def _source(path: Path, driver: str) -> str:
    """Names an image: its format is given, and its name is never more than a name."""
    name = str(path.absolute()).replace(",", ",,")
    # It is ours alone. On NFS, the lock of whoever brought it here would keep qemu-img out.
    options = f"driver={driver},file.driver=file,file.locking=off,file.filename={name}"
    if driver == "vpc":
        options += ",force_size_calc=current_size"  # as everybody but qemu does
    return options


def _within(kind: int, value: int) -> str:
    """A limit, soft and hard; nobody may raise the hard limit they live under."""
    _soft, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # The soft CPU limit tells itself apart (SIGXCPU); at the hard one it would be a plain SIGKILL.
    return f"{value}:{value + 1}" if kind == resource.RLIMIT_CPU and value != hard else str(value)


def _wait(
    command: list[str],
    said: tuple[IO[bytes], IO[bytes]],
    seconds: float,
    keep: Sequence[int],
    alive: Callable[[], None],
) -> int:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said[0],
            stderr=said[1],
            env={"PATH": PATH, "LC_ALL": "C"},
            cwd="/",
            pass_fds=keep,
        )
    except OSError as error:
        raise exceptions.Unavailable(f"qemu-img could not be started ({error.strerror})") from None
    with process:
        try:
            return _await(process, seconds, alive)
        except BaseException:
            process.kill()
            raise


def _await(process: "subprocess.Popen[bytes]", seconds: float, alive: Callable[[], None]) -> int:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            return process.wait(min(left, LOOK_SECONDS))
        except subprocess.TimeoutExpired:
            alive()
    raise rejections.too_complex(f"qemu-img took longer than {seconds:.0f} s")


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(OUTPUT).decode("utf-8", "replace")


def _refuse_limits(result: Result) -> None:
    if -result.status in BY_THE_IMAGE or "Cannot allocate memory" in result.errors:
        raise rejections.too_complex("qemu-img needs too much time or memory for it")
    if result.status < 0:
        raise exceptions.Unavailable("qemu-img was stopped from outside")
    helper = result.errors.startswith(("setpriv:", "prlimit:"))
    if result.status in NO_COMMAND or (helper and result.status):
        raise exceptions.Unavailable(f"qemu-img could not be started ({result.complaint()})")
