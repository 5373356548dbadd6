# SPDX-License-Identifier: Apache-2.0
"""Who reads the log of a real run finds every line of a Job, by its id and by that of the request."""

import contextlib
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import requests

from tests.functional.conftest import soon
from tests.person import Person
from tests.sandbox import ciming

WORK = ("ciming.engine.", "ciming.trusts")
"""Loggers of what only Jobs do."""
TEXT = re.compile(
    r"\S+ \S+ \d+ [A-Z]+ (?P<name>\S+) \[(?P<ids>[^]]*)\] (\[job (?P<job>\S+)\] )?(?P<text>.*)"
)


class Line(NamedTuple):
    name: str
    job: str | None
    request: str | None
    text: str


def from_text(line: str) -> Line | None:
    """None for the lines of a traceback."""
    found = TEXT.match(line)
    if not found:
        return None
    [request] = re.findall(r"req-\S+", found["ids"]) or [None]
    return Line(found["name"], found["job"], request, found["text"])


def from_json(line: str) -> Line:
    found = json.loads(line)
    context = found["context"]
    return Line(found["name"], context.get("job_id"), context.get("request_id"), found["message"])


def breaking_off(data: bytes) -> Iterator[bytes]:
    yield data[: 1 << 20]
    raise ConnectionAbortedError


@pytest.mark.parametrize("kind", ["text", "json"])
def test_every_line_about_a_job_says_so(
    another: Callable[..., tuple[ciming.Ciming, Person]], qcow2: pathlib.Path, kind: str
) -> None:
    service, member = another(
        {("DEFAULT", "use_json"): str(kind == "json"), ("engine", "retry_delay"): "0.2"}
    )

    def lines() -> list[Line]:
        read = from_json if kind == "json" else from_text
        logs = service.log_dir.glob("ciming*.log")
        return [line for log in logs for line in map(read, log.read_text().splitlines()) if line]

    data = qcow2.read_bytes()
    made = [member.create(clouds=["zone-a", "zone-b"]) for _ in range(2)]
    trusts = [trust["id"] for trust in member.trusts()]
    for one in made:
        with contextlib.suppress(requests.ConnectionError):
            member.put(one["image"]["id"], breaking_off(data))
        soon(lambda one=one: any(line.job == one["job"]["id"] and "go on" in line.text for line in lines()))
        soon(lambda one=one: member.put(one["image"]["id"], data).status_code == 204)
    jobs = [member.wait(one["job"]["id"], seconds=100) for one in made]
    assert {job["status"] for job in jobs} == {"success"}

    found = lines()
    for line in found:
        if line.name.startswith(WORK) and not re.match(r"Engine \S+ (started|stopped)", line.text):
            [job] = [job for job in jobs if job["id"] == line.job]
            assert line.request == job["request_id"], line
    for job in jobs:
        of_job = [line for line in found if line.job == job["id"]]
        assert all(line.request for line in of_job)
        for text in ("Create Image", "does not go on", "Claimed from", "Step: upload", "Ended: success"):
            assert any(text in line.text for line in of_job), text
        names = [job["id"], *(target["id"] for target in job["targets"]), *trusts]
        for line in found:
            if any(name in line.text for name in names):
                assert line.job and line.request, line
