# SPDX-License-Identifier: Apache-2.0
"""A disk into a bucket of Google Cloud, which a stand-in plays, against a bare upload and tar by hand."""

import argparse
import pathlib
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping

from ciming import config, disk_image, staging
from ciming.disk_image import inspector
from ciming.providers.gcp import provider as door
from tests.benchmarks import apart, aws, report
from tests.contract import on_aws, subjects
from tests.sandbox import gcp

MIB = 1 << 20
BUCKET = "benchmark"
ARCHIVE = "archive.tar.gz"      # ready, beside the raw file
QEMU = ("qemu-img", "convert", "-f", "qcow2", "-O", "raw")


def ours(standin: gcp.StandIn, _source: pathlib.Path, raw: pathlib.Path) -> None:
    """From a raw file: packed and sent at the same time, put together, proven."""
    owner = standin.accounts["owner"]
    place = {"project_id": owner["project_id"], "bucket": BUCKET, "endpoint_url": standin.url}
    size = raw.stat().st_size
    staged = staging.StagedFile(str(raw), "raw", size, size, {})
    provider = door.GCP({**place, "timeout": 60.0}, owner)
    provider.upload(staged, subjects.new_spec(), str(uuid.uuid4()), subjects.Transfer())


def floor(standin: gcp.StandIn, _source: pathlib.Path, raw: pathlib.Path) -> None:
    """The archive that is ready, by Google's client."""
    blob = standin.storage_client().bucket(BUCKET).blob(ARCHIVE)
    blob.upload_from_filename(str(raw.with_name(ARCHIVE)))


def proven(standin: gcp.StandIn, source: pathlib.Path, raw: pathlib.Path) -> None:
    """From qcow2: converted, with both guest digests, and sent."""
    made = raw.with_name("converted.raw")
    disk_image.convert(source, inspector.inspect_file(source, "qcow2"), made, "raw")
    ours(standin, source, made)
    made.unlink()


def by_hand(standin: gcp.StandIn, source: pathlib.Path, raw: pathlib.Path) -> None:
    """From qcow2, as people do: qemu-img, tar, an upload."""
    folder = raw.parent / "by-hand"
    folder.mkdir()
    subprocess.run([*QEMU, source, folder / "disk.raw"], check=True)
    subprocess.run(["tar", "--format=oldgnu", "-Szcf", ARCHIVE, "disk.raw"], cwd=folder, check=True)
    standin.storage_client().bucket(BUCKET).blob(ARCHIVE).upload_from_filename(str(folder / ARCHIVE))
    shutil.rmtree(folder)


WAYS: Mapping[str, Callable[..., None]] = {
    "floor": floor, "ours": ours, "proven": proven, "by hand": by_hand,
}  # fmt: skip


def by(way: str, folder: pathlib.Path, source: pathlib.Path, raw: pathlib.Path) -> None:
    """One of the ways, to the stand-in that runs there."""
    on_aws.configure()
    standin = gcp.StandIn(folder)
    config.CONF.set_override("token_urls", [f"{standin.url}/token"], group="egress")
    WAYS[way](standin, source, raw)


def packed(raw: pathlib.Path) -> None:
    """Its archive, ready to be sent, of about the size that ours has."""
    link = raw.with_name("disk.raw")
    link.hardlink_to(raw)
    tar = ["tar", "--format=oldgnu", "-Scf", "-", "disk.raw"]
    with raw.with_name(ARCHIVE).open("wb") as archive:
        packing = subprocess.Popen(tar, cwd=raw.parent, stdout=subprocess.PIPE)
        subprocess.run(["gzip", "-1"], stdin=packing.stdout, stdout=archive, check=True)
        assert packing.wait() == 0
    link.unlink()


def run(folder: pathlib.Path, rounds: int, megabytes: int, gigabytes: int) -> None:
    """Measure, and print what was found."""
    source, raw = aws.made(folder, megabytes, gigabytes)
    small = aws.made(folder, megabytes // 4, gigabytes)
    packed(raw)
    size = raw.with_name(ARCHIVE).stat().st_size
    report.say(f"disk of {gigabytes} GiB, an archive of {size / MIB:.0f} MiB, {report.machine()}")
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    held: dict[int, int] = {}
    for number in range(rounds):
        ways = list(WAYS)
        for way in ways[number % 4 :] + ways[: number % 4]:
            seconds, memory = run_way(way, folder, source, raw)
            found[way].append(seconds)
            if way == "ours":
                held[megabytes] = max(memory, held.get(megabytes, 0))
    _, held[megabytes // 4] = run_way("ours", folder, *small)
    report.into_gcp(found, held)
    report.say(report.machine())


def run_way(way: str, folder: pathlib.Path, source: pathlib.Path, raw: pathlib.Path) -> tuple[float, int]:
    """Seconds, and the most bytes of memory, with a stand-in that has nothing yet."""
    with gcp.start(folder / "gcp") as standin:
        standin.make_bucket(BUCKET)
        found = apart.run(by, way, standin.directory, source, raw)
    shutil.rmtree(folder / "gcp")
    return found


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gcp", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--size-mb", type=int, default=600, help="MiB of data (default: %(default)s)")
    parser.add_argument("--virtual-gb", type=int, default=10, help="GiB of the disk (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), arguments.runs, arguments.size_mb, arguments.virtual_gb)


if __name__ == "__main__":
    main()
