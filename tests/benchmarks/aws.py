# SPDX-License-Identifier: Apache-2.0
"""A disk into a snapshot of AWS, which a stand-in plays, against a bare loop of boto3 and an import."""

import argparse
import base64
import hashlib
import pathlib
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

from ciming import disk_image, staging
from ciming.disk_image import inspector
from ciming.providers.aws import provider as door
from tests.benchmarks import apart, report
from tests.contract import on_aws, subjects
from tests.sandbox import aws, disk

MIB, GIB = 1 << 20, 1 << 30
BUCKET = "benchmark"
AT_A_TIME = 32      # blocks, as ours


def ours(standin: aws.StandIn, source: pathlib.Path, raw: pathlib.Path) -> None:
    """From a raw file."""
    place = {"region": on_aws.REGION, "endpoint_url": standin.url, "timeout": 60.0}
    provider = door.AWS(place, on_aws.keys(standin, "owner"))
    size = raw.stat().st_size
    staged = staging.StagedFile(str(raw), "raw", size, size, {})
    provider.upload(staged, subjects.new_spec(), str(uuid.uuid4()), subjects.Transfer())


def floor(standin: aws.StandIn, source: pathlib.Path, raw: pathlib.Path) -> None:
    """The same, by the calls that have to be made and nothing else."""
    ebs, ec2 = (standin.client(service, connections=AT_A_TIME) for service in ("ebs", "ec2"))
    gib = -(-raw.stat().st_size // GIB)
    snapshot = ebs.start_snapshot(VolumeSize=gib)["SnapshotId"]

    def put(block: tuple[int, bytes]) -> bytes:
        index, data = block
        digest = hashlib.sha256(data).digest()
        ebs.put_snapshot_block(
            SnapshotId=snapshot,
            BlockIndex=index,
            BlockData=data,
            DataLength=len(data),
            Checksum=base64.b64encode(digest).decode(),
            ChecksumAlgorithm="SHA256",
        )
        return digest

    with futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        digests = list(_some_at_a_time(pool, put, disk_image.blocks(raw)))
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=len(digests))
    while ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] != "completed":
        time.sleep(0.2)


def _some_at_a_time(
    pool: futures.Executor, call: Callable[[Any], Any], items: Iterator[Any]
) -> Iterator[Any]:
    """Or all blocks would be in memory."""
    running: list[futures.Future[Any]] = []
    for item in items:
        if len(running) >= AT_A_TIME * 2:
            yield running.pop(0).result()
        running.append(pool.submit(call, item))
    for future in running:
        yield future.result()


def proven(standin: aws.StandIn, source: pathlib.Path, raw: pathlib.Path) -> None:
    """From qcow2: converted, with both guest digests, and sent."""
    made = raw.with_name("converted.raw")
    disk_image.convert(source, inspector.inspect_file(source, "qcow2"), made, "raw")
    ours(standin, source, made)
    made.unlink()


def imported(standin: aws.StandIn, source: pathlib.Path, raw: pathlib.Path) -> None:
    """From qcow2, as people do: qemu-img, an object in S3, an import; of what AWS takes, the smallest."""
    made = raw.with_name("imported.vmdk")
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run([*command, source, made], check=True)
    s3, ec2 = standin.client("s3"), standin.client("ec2")
    s3.upload_file(str(made), BUCKET, "disk")
    made.unlink()
    container = {"Format": "VMDK", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "disk"}}
    task = ec2.import_snapshot(DiskContainer=container)["ImportTaskId"]
    while True:
        (found,) = ec2.describe_import_snapshot_tasks(ImportTaskIds=[task])["ImportSnapshotTasks"]
        if found["SnapshotTaskDetail"]["Status"] == "completed":
            break
        time.sleep(0.2)
    s3.delete_object(Bucket=BUCKET, Key="disk")


WAYS: Mapping[str, Callable[..., None]] = {
    "floor": floor, "ours": ours, "proven": proven, "imported": imported,
}  # fmt: skip


def by(way: str, folder: pathlib.Path, source: pathlib.Path, raw: pathlib.Path) -> None:
    """One of the ways, to the stand-in that runs there."""
    on_aws.configure()
    WAYS[way](aws.StandIn(folder), source, raw)


def run_way(way: str, standin: aws.StandIn, source: pathlib.Path, raw: pathlib.Path) -> tuple[float, int]:
    """Seconds, and the most bytes of memory; what it made is forgotten."""
    found = apart.run(by, way, standin.directory, source, raw)
    for snapshot in standin.snapshots():
        standin.client("ec2").delete_snapshot(SnapshotId=snapshot["id"])
    return found


def made(folder: pathlib.Path, megabytes: int, gigabytes: int) -> tuple[pathlib.Path, pathlib.Path]:
    """A disk as qcow2, and as raw."""
    source, raw = folder / f"{megabytes}.qcow2", folder / f"{megabytes}.raw"
    disk.make(source, size=gigabytes * GIB, data=megabytes * MIB)
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", source, raw], check=True)
    return source, raw


def run(folder: pathlib.Path, rounds: int, megabytes: int, gigabytes: int) -> None:
    """Measure, and print what was found."""
    source, raw = made(folder, megabytes, gigabytes)
    small = made(folder, megabytes // 4, gigabytes)
    needed = sum(1 for _ in disk_image.blocks(raw)) * disk_image.BLOCK
    report.say(
        f"disk of {gigabytes} GiB, blocks of {needed / MIB:.0f} MiB that are not zero, {report.machine()}"
    )
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    held: dict[int, int] = {}
    with aws.start(folder / "aws") as standin:
        standin.client("s3").create_bucket(Bucket=BUCKET)
        ways = list(WAYS)
        for number in range(rounds):
            for way in ways[number % 4 :] + ways[: number % 4]:
                before = standin.counters()["bytes"]
                seconds, memory = run_way(way, standin, source, raw)
                found[way].append(seconds)
                if way == "ours":
                    sent = standin.counters()["bytes"] - before
                    held[megabytes] = max(memory, held.get(megabytes, 0))
        _, held[megabytes // 4] = run_way("ours", standin, *small)
    report.into_aws(found, sent / needed, held)
    report.say(report.machine())


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.aws", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--size-mb", type=int, default=600, help="MiB of data (default: %(default)s)")
    parser.add_argument("--virtual-gb", type=int, default=10, help="GiB of the disk (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), arguments.runs, arguments.size_mb, arguments.virtual_gb)


if __name__ == "__main__":
    main()
