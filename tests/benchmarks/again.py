# SPDX-License-Identifier: Apache-2.0
"""How many bytes are sent again after kill -9 in the middle of a transfer: to a Glance, and to CIMinG itself.

A Glance takes an image in one request only, so one image at most. What a client sends to CIMinG goes on from
the last byte that was committed.
"""

import argparse
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures

import requests
import sqlalchemy as sa

from ciming import cmd
from ciming.db import models
from tests.benchmarks import report
from tests.benchmarks.takeover import until
from tests.functional import faulty, tus
from tests.person import Person
from tests.sandbox import ciming, sandbox

assert cmd  # imported before what chooses how to be concurrent

MIB = 1 << 20
BLOCK = 64 * 1024
SECONDS = 8.0       # that an undisturbed transfer takes


def to_glance(service: ciming.Ciming, member: Person, slow: faulty.Proxy, data: bytes) -> report.Again:
    """Kill the service while it sends to a zone."""
    made = member.create(clouds=["zone-slow"], disk_format="raw", size=len(data))
    job_id = made["job"]["id"]
    slow.received.clear()
    slow.throttle = len(data) / SECONDS
    assert member.put(made["image"]["id"], data).status_code == 204
    enough = moment(data)
    until(lambda: member.job(job_id)["targets"][0]["bytes_done"] >= enough)
    service.kill()
    slow.throttle = None        # what was sent before arrives yet
    time.sleep(1)
    before = slow.received.total()
    service.start()
    ended = member.wait(job_id, seconds=120)
    assert ended["status"] == "success", ended
    return report.Again(before, slow.received.total() - len(data), before)


def to_us(service: ciming.Ciming, member: Person, data: bytes) -> report.Again:
    """Kill the service while a client sends to it."""
    image_id, job_id = tus.create(member, data)
    enough, sent = moment(data), 0

    def blocks() -> Iterator[bytes]:
        nonlocal sent
        for start in range(0, len(data), BLOCK):
            yield data[start : start + BLOCK]
            sent = min(start + BLOCK, len(data))
            time.sleep(BLOCK / len(data) * SECONDS)

    def send() -> None:
        try:
            tus.patch(member, image_id, 0, blocks())
        except requests.ConnectionError:
            return
        raise AssertionError("it was not killed in the middle")

    with futures.ThreadPoolExecutor() as pool:
        sending = pool.submit(send)
        until(lambda: sending.done() or sent >= enough)
        service.kill()
        sending.result()
    committed = in_row(service, job_id)
    service.start()
    kept = tus.offset(member, image_id)
    before = sent
    tus.finish(member, image_id, job_id, data)
    return report.Again(before, before - kept, before - committed)


def moment(data: bytes) -> float:
    """Bytes that are sent before the kill."""
    return len(data) * random.uniform(0.1, 0.8)


def in_row(service: ciming.Ciming, job_id: str) -> int:
    """Bytes of an upload that are committed."""
    engine = sa.create_engine(service.database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        query = sa.select(models.Upload.offset).where(models.Upload.job_id == job_id)
        return int(connection.execute(query).scalar_one())


def run(folder: pathlib.Path, rounds: int, megabytes: int) -> None:
    """Measure, and print what was found."""
    data = os.urandom(megabytes * MIB)
    glance, us = [], []
    with (
        sandbox.Sandbox(folder / "sandbox", second=False, barbican=False) as cloud,
        faulty.Proxy(cloud.url("glance-b")) as slow,
        slow.as_zone(cloud, "zone-slow"),
        ciming.Ciming(cloud, folder / "ciming") as service,
    ):
        member = Person(cloud, "member")
        for _ in range(rounds):
            glance.append(to_glance(service, member, slow, data))
            us.append(to_us(service, member, data))
    report.say(f"kill -9 while {megabytes} MiB are sent, {report.machine()}")
    report.again(len(data), glance, us)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.again", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--size-mb", type=int, default=64, help="MiB (default: %(default)s)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), arguments.runs, arguments.size_mb)


if __name__ == "__main__":
    main()
