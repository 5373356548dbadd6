# SPDX-License-Identifier: Apache-2.0
"""The main job against the floor and against doing it by hand.

Starts real services of its own, and stops and removes them at the end. Takes about twenty times
the image's size of disk, below $TMPDIR.
"""

import argparse
import contextlib
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import psutil

from tests.benchmarks import contenders, memory, phases, report
from tests.person import Person
from tests.sandbox import ciming, disk, sandbox

MIB = 1 << 20
GIB = 1 << 30
LARGER = 4  # how many times as large the image is that memory must not depend on
SETTLE = 5.0  # seconds
WARM_UP = 8  # MiB: the first request of a service loads what it needs


class Bench:
    """The services, and the person who uses them."""

    def __init__(self, folder: pathlib.Path, cloud: sandbox.Sandbox) -> None:
        self.folder = folder
        self.cloud = cloud
        self.person = Person(cloud, "member")

    @contextlib.contextmanager
    def service(self) -> Iterator[ciming.Ciming]:
        """A fresh service that has been used once."""
        folder = self.folder / "ciming"
        with ciming.Ciming(self.cloud, folder, phases.options()) as running:
            contenders.ours(self.person, self.disk(WARM_UP))
            contenders.clean(self.person)
            yield running
        shutil.rmtree(folder)

    def disk(self, megabytes: int) -> pathlib.Path:
        """A disk of whole GiB with so many MiB of random data in it; of one size there is one."""
        file = self.folder / f"{megabytes}.qcow2"
        if not file.exists():
            gigabytes = -(-megabytes * 5 // 4 // 1024)  # a file system takes some itself
            disk.make(file, size=gigabytes * GIB, data=megabytes * MIB)
        return file


class Race:
    """The contenders, once each in a round, one after the other; another one begins each time."""

    def __init__(self, bench: Bench, service: ciming.Ciming, file: pathlib.Path) -> None:
        self.person = bench.person
        self.folder = bench.folder
        self.log_dir = service.log_dir
        self.file = file
        self.phases: dict[str, float] = {}

    def round(self, number: int) -> report.Round:
        """Seconds that each of them took, and where ours went."""
        ways = [self.ours, self.asked, self.floor, self.by_hand]
        ways = ways[number % len(ways) :] + ways[: number % len(ways)]
        seconds, processor = {}, {}
        for way in ways:
            settle()
            before = processor_seconds(self.folder)
            seconds[way.__name__] = way()
            processor[way.__name__] = processor_seconds(self.folder) - before
            contenders.clean(self.person)
        return report.Round(**seconds, phases=self.phases, processor=processor)

    def ours(self) -> float:
        """The main job."""
        began = time.time()
        job_id = contenders.ours(self.person, self.file)
        ended = time.time()
        self.phases = phases.split(began, ended, self.person.job(job_id), self.log_dir)
        return ended - began

    def asked(self) -> float:
        """The main job as a portal has it done, which has a token: nothing is started for it but curl."""
        return timed(lambda: contenders.asked(self.person, self.file))

    def floor(self) -> float:
        """Nothing but the bytes."""
        records = contenders.Floor(self.person)
        return timed(lambda: records.send(self.file))

    def by_hand(self) -> float:
        """Without CIMinG."""
        return timed(lambda: contenders.one_by_one(self.person, self.file))


def timed(call: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def processor_seconds(folder: pathlib.Path) -> float:
    """What all that we have started, services and clients, has taken so far.

    :param folder: named in the command lines of the sandbox's services, which are no children of ours
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = ended.ru_utime + ended.ru_stime
    children = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process in children or str(folder) in " ".join(process.cmdline()):
                times = process.cpu_times()
                spent += times.user + times.system
    return spent


def settle() -> None:
    """Let nobody profit, or suffer, from what ran before.

    Dirty pages go to the disk; and a virtual machine returns freed memory to its host within seconds:
    who takes memory again at once has it for less.
    """
    os.sync()
    time.sleep(SETTLE)


def measure_memory(bench: Bench, file: pathlib.Path) -> report.Memory:
    """What a fresh service takes at most while the main job runs."""
    with bench.service() as service, memory.Peak(os.getsid(service.pids[0])) as peak:
        contenders.ours(bench.person, file)
        contenders.clean(bench.person)
    return report.Memory(peak.before, peak.most)


def run(folder: pathlib.Path, rounds: int, megabytes: int) -> None:
    """Measure, and print what was found."""
    with sandbox.Sandbox(folder / "sandbox", second=False, barbican=False) as cloud:
        bench = Bench(folder, cloud)
        file = bench.disk(megabytes)
        report.say(f"{file.stat().st_size / 1e6:.0f} MB into two zones, {report.machine()}")
        with bench.service() as service:
            race = Race(bench, service, file)
            report.times([race.round(number) for number in range(rounds)])
        sizes = (megabytes, megabytes * LARGER)
        report.memory({size: measure_memory(bench, bench.disk(size)) for size in sizes})
        report.say(report.machine())


def command_line(prog: str, description: str | None, run: Callable[[pathlib.Path, int, int], None]) -> None:
    """Do what the command line says, in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--size-mb", type=int, default=400, help="MiB of data in the image (default: %(default)s)"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), arguments.runs, arguments.size_mb)


if __name__ == "__main__":
    command_line("python -m tests.benchmarks.main_job", __doc__, run)
