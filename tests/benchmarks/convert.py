# SPDX-License-Identifier: Apache-2.0
"""A conversion to raw, and the proof that it is the same disk, against qemu-img alone."""

import argparse
import pathlib
import subprocess
import tempfile

from ciming import disk_image
from ciming.disk_image import conversion
from ciming.disk_image.inspector import inspect_file
from tests.benchmarks import main_job, report
from tests.sandbox import disk

MIB = 1 << 20
GIB = 1 << 30


class Contenders:
    """Ways to make a raw file of one qcow2; each result is removed."""

    def __init__(self, folder: pathlib.Path, source: pathlib.Path) -> None:
        self.source = source
        self.found = inspect_file(source, "qcow2")
        disk_image.check_structure(source, self.found)
        self.result = folder / "result.raw"

    def floor(self) -> None:
        """Nothing but qemu-img."""
        command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-W", "-m", "8"]
        subprocess.run([*command, self.source, self.result], check=True)

    def ours(self) -> None:
        """Under limits, and inspected again."""
        self.result.touch()
        conversion.write(self.source, self.found, self.result, "raw", lambda: None)

    def proven(self) -> None:
        """The same, with the guest digests of both."""
        disk_image.convert(self.source, self.found, self.result, "raw")

    def seconds(self, way: str) -> float:
        """How long one of them takes."""
        main_job.settle()
        try:
            return main_job.timed(getattr(self, way))
        finally:
            self.result.unlink()


def run(folder: pathlib.Path, rounds: int, megabytes: int, gigabytes: int) -> None:
    """Measure, and print what was found."""
    source = folder / "source.qcow2"
    disk.make(source, size=gigabytes * GIB, data=megabytes * MIB)
    contenders = Contenders(folder, source)
    size = source.stat().st_size
    report.say(f"qcow2 of {size / MIB:.0f} MiB, {gigabytes} GiB virtual, to raw, {report.machine()}")
    ways = ["floor", "ours", "proven"]
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways[number % 3 :] + ways[: number % 3]:
            found[way].append(contenders.seconds(way))
    report.conversions(found)
    report.say(report.machine())


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.convert", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--size-mb", type=int, default=600, help="MiB of data (default: %(default)s)")
    parser.add_argument("--virtual-gb", type=int, default=10, help="GiB of the disk (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), arguments.runs, arguments.size_mb, arguments.virtual_gb)


if __name__ == "__main__":
    main()
