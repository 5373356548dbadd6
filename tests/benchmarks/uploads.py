# SPDX-License-Identifier: Apache-2.0
"""Bytes into the staging area, by PUT and by tus, against a bare application that writes a file.

All are sent by curl, to gunicorn with one gthread worker. Ours ends when the bytes are on the disk; the bare
application has a way that does so too, and one that leaves them to the page cache.
"""

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from tests.benchmarks import main_job, report
from tests.functional import amazon
from tests.person import Person
from tests.sandbox import ciming, processes, sandbox

MIB = 1 << 20
PART = 64 * MIB
CLOUD = "frankfurt"
REFUSED = {
    "disk_format": "raw",
    "properties": {"architecture": "x86_64"},
    "checksum": f"sha256:{'0' * 64}",
}
"""Said of an image whose Job ends before a cloud has a part in it, and after all its bytes have come."""
BARE = '''
import os


def application(environ, start_response):
    with open(environ["PATH_INFO"], "wb", buffering=0) as file:
        while block := environ["wsgi.input"].read(1 << 20):
            file.write(block)
        if environ["QUERY_STRING"] == "sync":
            os.fdatasync(file.fileno())
    start_response("204 No Content", [])
    return []
'''


@contextlib.contextmanager
def bare(folder: pathlib.Path, *, apart: bool = False) -> Iterator[tuple[str, int]]:
    """The floor: its URL, to which the path of the file to write is added, and its process id.

    :param apart: in a session of its own
    """
    (folder / "bare.py").write_text(BARE)
    port = processes.free_block(str(folder))
    program = pathlib.Path(sys.executable).parent / "gunicorn"
    options = ["--worker-class", "gthread", "--threads", "4", "--no-control-socket", "--timeout", "0"]
    command = [str(program), *options, "--bind", f"{processes.HOST}:{port}", "bare:application"]
    with subprocess.Popen(
        command, cwd=folder, stderr=subprocess.DEVNULL, start_new_session=apart
    ) as server:
        while processes.get(port, f"{folder}/probe") != 204:
            assert server.poll() is None
        try:
            yield f"http://{processes.HOST}:{port}", server.pid
        finally:
            server.terminate()


def curl(method: str, url: str, file: pathlib.Path, headers: dict[str, str]) -> None:
    """Send a file."""
    given = file.parent / "headers"
    given.write_text("".join(f"{name}: {value}\n" for name, value in headers.items()))
    command = ["curl", "--silent", "--show-error", "--fail", "--request", method, "--header", f"@{given}"]
    subprocess.run([*command, "--upload-file", str(file), url], check=True, stdout=subprocess.DEVNULL)


Send = Callable[[str, dict[str, str]], None]
"""Sends to a URL, with the headers that carry the token."""


class Contenders:
    """The ways for one file. It is for AWS, which takes it when it is whole, and its checksum is wrong."""

    def __init__(self, folder: pathlib.Path, person: Person, url: str, megabytes: int) -> None:
        self.folder, self.person, self.url = folder, person, url
        self.file = folder / "file"
        self.target = folder / "floor"
        self.parts = []
        with self.file.open("wb") as whole:
            for number in range(-(-megabytes * MIB // PART)):
                block = os.urandom(min(PART, megabytes * MIB - number * PART))
                whole.write(block)
                self.parts.append(folder / f"part-{number}")
                self.parts[-1].write_bytes(block)

    def floor(self) -> float:
        """Into the bare application."""
        return self._written("")

    def synced(self) -> float:
        """Into the bare application, until the bytes are on the disk."""
        return self._written("?sync")

    def _written(self, query: str) -> float:
        seconds = main_job.timed(lambda: curl("PUT", f"{self.url}{self.target}{query}", self.file, {}))
        self.target.unlink()
        return seconds

    def put(self) -> float:
        """In one request."""
        headers = {"Content-Type": "application/octet-stream"}
        return self._sent(lambda url, token: curl("PUT", url, self.file, headers | token))

    def tus(self) -> float:
        """In parts."""
        return self._sent(self._parts)

    def _parts(self, url: str, token: dict[str, str]) -> None:
        fixed = {"Content-Type": "application/offset+octet-stream", "Tus-Resumable": "1.0.0"}
        for number, part in enumerate(self.parts):
            curl("PATCH", url, part, {"Upload-Offset": str(number * PART)} | fixed | token)

    def _sent(self, send: Send) -> float:
        size = self.file.stat().st_size
        made = self.person.create(size=size, clouds=[CLOUD], **REFUSED)
        url = f"{self.person.url}/v1/images/{made['image']['id']}/file"
        token = {"X-Auth-Token": self.person.token()}
        seconds = main_job.timed(lambda: send(url, token))
        job = self.person.wait(made["job"]["id"])
        assert job["error"]["code"] == "image.checksum_mismatch", job
        return seconds


def run(folder: pathlib.Path, rounds: int, megabytes: int) -> None:
    """Measure, and print what was found."""
    with sandbox.Sandbox(folder / "sandbox", second=False) as cloud, amazon.Amazon(folder / "aws") as aws:
        quiet = {("DEFAULT", "debug"): "false"}
        with ciming.Ciming(cloud, folder / "ciming", quiet), bare(folder) as (url, _pid):
            person = Person(cloud, "member")
            aws.register(person)
            contenders = Contenders(folder, person, url, megabytes)
            ways = [contenders.floor, contenders.synced, contenders.put, contenders.tus]
            found: dict[str, list[float]] = {way.__name__: [] for way in ways}
            for number in range(rounds):
                first = number % len(ways)
                for way in ways[first:] + ways[:first]:
                    main_job.settle()
                    found[way.__name__].append(way())
    report.say(f"{megabytes} MiB into the staging area, {report.machine()}")
    report.uploads(found)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.uploads", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--size-mb", type=int, default=512, help="MiB (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ciming-benchmark-") as folder:
        run(pathlib.Path(folder), arguments.runs, arguments.size_mb)


if __name__ == "__main__":
    main()
