# SPDX-License-Identifier: Apache-2.0
"""A service that is killed at a point, people who do not give up, and pictures of what there is then."""

import difflib
import json
import pathlib
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import requests
import sqlalchemy as sa

from tests.functional import amazon, google
from tests.person import ENDS, JSON, Person
from tests.sandbox import ciming, distributed

ZONES = ("zone-a", "zone-b")
PATIENCE = 240.0        # many Jobs are begun anew after each kill
NAMES = {
    r"req-[0-9a-f-]{36}": "REQUEST",
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "ANOTHER",
    r"\b(ami|snap)-[0-9a-f]{17}\b": r"\1-ANOTHER",
    r'("(upload|import|copy)": )"[^"]+"': r'\1"ANOTHER"',     # in a checkpoint
    r"\b[a-z0-9-]+-IMAGE\b": "NAME-IMAGE",      # at Google, out of the Image's own
}
"""What names that are chosen at random are called."""
OCTETS = {"Content-Type": "application/octet-stream"}
TUS = {"Tus-Resumable": "1.0.0"}
PART = {**TUS, "Content-Type": "application/offset+octet-stream"}
QUOTA = 1 << 30
FLOWS = ("logbooks", "flowdetails", "atomdetails")
CHANGES = (
    *("created_at", "updated_at", "started_at", "finished_at", "begun", "verified_at", "expires_at"),
    *("generation", "lock_marker", "marker", "request_id", "cloud_request_id", "name"),
)
"""What differs from run to run."""
STEADY = ("cloud", "kind", "stage", "status", "bytes_total", "remarks")
"""What tells rows apart and does not."""
OPTIONS = {
    ("engine", "retry_delay"): "0.1",
    ("engine", "poll_interval"): "0.2",
    ("engine", "housekeeping_interval"): "0.3",
    ("engine", "max_stall"): "3",
    ("staging", "quota"): str(QUOTA),
    ("openstack", "zone_formats"): "zone-raw:raw",
    ("staging", "keep_free"): "0",
}
"""How a service is told that all is to go quickly."""


class Points:
    """The folder through which a service is told where to die; see ciming/points.py."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._kill, self._killed = folder / "kill", folder / "killed"

    @property
    def environment(self) -> dict[str, str]:
        return {"CIMING_CRASH_POINTS": str(self._folder)}

    @property
    def killed(self) -> bool:
        return self._killed.exists()

    def arm(self, point: str, number: int = 1) -> None:
        """Have the service die when it reaches a point so often; forget what was before."""
        self.disarm()
        new = self._folder / "kill.new"
        new.write_text(f"{point}\t{number}")
        new.rename(self._kill)

    def disarm(self) -> None:
        for file in (self._kill, self._killed, self._folder / "trace"):
            file.unlink(missing_ok=True)

    def saw(self, point: str) -> bool:
        """Was a point reached, since it was armed?"""
        return any(point == reached for reached, _ in self.trace)

    @property
    def trace(self) -> list[tuple[str, str]]:
        """(point, whose) in order, since it was armed."""
        file = self._folder / "trace"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(point, of) for point, _, of in (line.partition("\t") for line in lines)]


def done_twice(trace: Sequence[tuple[str, str]]) -> list[str]:
    """Acts of atoms that began again after their end had been noted, and without being undone meanwhile.

    Once one atom of a flow is undone, all of that flow may be done again, by a retry: that the others are
    undone, too, may be in the rows when a kill comes, and not in the trace.
    """
    noted: set[tuple[str, str]] = set()
    twice = []
    for point, of in trace:
        when, _, act = point.partition(" ")
        if when == "before" and (act, of) in noted:
            twice.append(f"{act} of {of}")
        if act.endswith(" revert"):
            noted -= {each for each in noted if each[1] == of and each[0].endswith(" execute")}
        if when == "noted":
            noted.add((act, of))
        if act.endswith(" execute"):
            noted -= {each for each in noted if each[1] == of and each[0].endswith(" revert")}
    return twice


class Survivor:
    """A user who goes on when the service has died, and starts it again first.

    :param refuse_once: have the moody zone not take an image's bytes at first
    :param received: how many bytes the slow zone got
    """

    def __init__(
        self,
        service: ciming.Ciming,
        member: Person,
        points: Points,
        refuse_once: Callable[[str], None],
        received: Callable[[], int],
        aws: amazon.Amazon,
        gcp: google.Google,
    ) -> None:
        self.service = service
        self.points = points
        self.member = member
        self.refuse_once = refuse_once
        self.received = received
        self.aws = aws
        self.gcp = gcp
        self._starting = threading.Lock()     # held while it starts, or is killed
        self.database = sa.create_engine(service.database_url, poolclass=sa.NullPool)

    def start_again(self) -> None:
        """Start what is dead. Who receives bytes has a lease, who makes a trust some time for that:

        it is as if those were over then.
        """
        with self._starting:
            if self.service.running:
                return
            if not (isinstance(self.service, distributed.Distributed) and self.service.api.running):
                self.execute("UPDATE uploads SET leased_until = 0")
                self.execute("UPDATE pending_trusts SET created_at = 0")
            self.service.start()

    def kill(self, dice: random.Random) -> None:
        """Kill all of the service; or where it has two parts, one of them as well."""
        with self._starting:
            parts = self.service.parts
            for part in dice.choice([parts, *([part] for part in parts)]):
                part.kill()

    def execute(self, statement: str, **values: Any) -> None:
        with self.database.begin() as connection:
            connection.execute(sa.text(statement), values)

    def count(self, query: str, **values: Any) -> int:
        with self.database.connect() as connection:
            return int(connection.scalar(sa.text(query), values) or 0)

    def ask(self, call: Callable[[], requests.Response], final: int = 200) -> requests.Response:
        """Ask until there is an answer.

        :param final: a status from 500 up that is one
        """
        end = time.monotonic() + PATIENCE
        while True:
            self.start_again()
            try:
                answer = call()
            except requests.RequestException:
                answer = None
            held = answer is not None and "upload.in_progress" in answer.text
            if answer is not None and not held and answer.status_code in (final, *range(500)):
                return answer
            assert time.monotonic() < end, answer and answer.text
            time.sleep(0.05)

    def get(self, path: str, **params: str) -> JSON:
        return dict(self.ask(lambda: self.member.get(path, params=params)).json())

    def create(self, name: str, **wanted: Any) -> str:
        """The id of a new image; one that was made, but not told of, is found by its name."""
        body = {"name": name, "clouds": list(ZONES), **wanted}

        def make() -> requests.Response:
            found = self.member.get("/v1/images", params={"name": name})
            if found.json()["images"]:
                return found
            return self.member.call("POST", "/v1/images", json=body)

        answer = self.ask(make)
        assert answer.status_code in (200, 202), answer.text
        made = answer.json()
        return str(made["image"]["id"] if "image" in made else made["images"][0]["id"])

    def send(self, image_id: str, data: bytes, *, announced: bool = True) -> str:
        """Send all bytes in one request; the code of the error, if any.

        :param announced: say first how many they are
        """
        answer = self.ask(lambda: self.member.put(image_id, data if announced else iter([data])))
        return "" if answer.status_code == 204 else str(answer.json()["errors"][0]["code"])

    def offset(self, image_id: str) -> int:
        path = f"/v1/images/{image_id}/file"
        return int(self.ask(lambda: self.member.call("HEAD", path, headers=TUS)).headers["Upload-Offset"])

    def resume(self, image_id: str, data: bytes, parts: Callable[[bytes], Iterator[bytes]]) -> None:
        """Send the bytes up to the end of `data`, from where the service is."""
        path = f"/v1/images/{image_id}/file"
        while (offset := self.offset(image_id)) < len(data):
            headers = {**PART, "Upload-Offset": str(offset)}
            rest = data[offset:]
            self.ask(
                lambda headers=headers, rest=rest: self.member.call(  # type: ignore[misc]
                    "PATCH", path, data=parts(rest), headers=headers
                )
            )

    def give_up(self, image_id: str) -> None:
        path = f"/v1/images/{image_id}/file"
        answer = self.ask(lambda: self.member.call("DELETE", path, headers=TUS))
        assert answer.status_code in (204, 410), answer.text

    def act(self, image_id: str, verb: str, *fine: str) -> None:
        """Cancel or retry its Job.

        :param fine: codes of refusals that say it was done before
        """
        path = f"/v1/jobs/{self.job(image_id)['id']}/{verb}"
        answer = self.ask(lambda: self.member.call("POST", path))
        assert answer.status_code == 202 or answer.json()["errors"][0]["code"] in fine, answer.text

    def lose_bytes(self, image_id: str) -> None:
        """Remove what the staging area holds of it."""
        for file in (self.service.staging_dir / self.job(image_id)["id"]).glob("*"):
            file.unlink()

    def change(self, image_id: str, method: str, path: str, *fine: str, **kwargs: Any) -> None:
        """Have something done with an Image that is there, and wait until that has ended.

        :param fine: codes of refusals that say it was done before
        """
        answer = self.ask(lambda: self.member.call(method, f"/v1/images/{image_id}{path}", **kwargs))
        done = answer.status_code in (202, 204) or answer.json()["errors"][0]["code"] in fine
        assert done, answer.text
        assert self.ended(image_id)["status"] == "success"

    def say(self, image_id: str, **said: Any) -> None:
        """Say something else of an Image, if that is not said of it, and wait until its Clouds know."""
        path = f"/v1/images/{image_id}"

        def tell() -> requests.Response:
            found = self.member.get(path)
            known = found.status_code == 200 and said.items() <= found.json().items()
            return found if known else self.member.call("PATCH", path, json=said)

        answer = self.ask(tell)
        assert answer.status_code in (200, 202), answer.text
        assert self.ended(image_id)["status"] == "success"

    def ended(self, image_id: str) -> JSON:
        """Its last Job, when that has ended."""
        self.until(lambda: self.job(image_id)["status"] in ENDS)
        return self.job(image_id)

    def job(self, image_id: str) -> JSON:
        last, *_ = self.get("/v1/jobs", image_id=image_id)["jobs"]
        return dict(last)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something, and start the service again meanwhile."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, self.service.last_words(40)
            self.start_again()
            time.sleep(0.05)

    def settled(self, image_id: str) -> None:
        """Wait until all is over; retention too, as if much time had passed when the Job has ended."""
        self.ended(image_id)
        self.execute("UPDATE jobs SET finished_at = 1 WHERE image_id = :image", image=image_id)
        left = "image_id = :image AND (spec IS NOT NULL OR trust_id IS NOT NULL)"
        self.until(lambda: not self.count(f"SELECT count(*) FROM jobs WHERE {left}", image=image_id))
        uploads = "uploads WHERE job_id IN (SELECT id FROM jobs WHERE image_id = :image)"
        self.until(lambda: not self.count(f"SELECT count(*) FROM {uploads}", image=image_id))
        self.until(lambda: not self.count("SELECT count(*) FROM pending_trusts"))

    def picture(self, image_id: str) -> JSON:
        """All that there is of an image, with what differs from run to run left out."""
        found = {**self._rows(image_id), "clouds": {zone: self._images(zone, image_id) for zone in ZONES}}
        jobs = [job["id"] for job in found["jobs"]]
        there = {path.name for path in self.service.staging_dir.iterdir() if path.is_dir()}
        found["staging"] = sorted(there.intersection(jobs))
        for target in found["targets"]:
            if target["status"] != "success":       # as far as it came
                del target["bytes_done"]
                (target["checkpoint"] or {}).pop("sent", None)
        target_ids = [target["id"] for target in found["targets"]]
        found["aws"] = self.aws.left(image_id, target_ids)
        found["gcp"] = self.gcp.left(image_id, target_ids)
        names = {image_id: "IMAGE", image_id.replace("-", ""): "IMAGE", **dict.fromkeys(jobs, "JOB")}
        names |= {target["id"]: f"TARGET-{target['cloud']}" for target in found["targets"]}
        text = json.dumps(_without_changes(found), sort_keys=True, default=str, indent=1)
        for each, name in names.items():
            text = text.replace(each, name)
        for pattern, name in NAMES.items():
            text = re.sub(pattern, name, text)
        return dict(json.loads(text))

    def _rows(self, image_id: str) -> JSON:
        metadata = sa.MetaData()
        with self.database.connect() as connection:
            metadata.reflect(connection)
            tables = metadata.tables
            job_ids = sa.select(tables["jobs"].c.id).where(tables["jobs"].c.image_id == image_id)
            where = {
                "images": tables["images"].c.id == image_id,
                "jobs": tables["jobs"].c.image_id == image_id,
                "links": tables["links"].c.image_id == image_id,
                **{name: tables[name].c.job_id.in_(job_ids) for name in ("targets", "uploads")},
                **{name: sa.true() for name in FLOWS},
            }
            return {
                name: _read(connection, tables[name].select().where(which))
                for name, which in where.items()
            }

    def _images(self, zone: str, image_id: str) -> list[JSON]:
        answer = self.member.zone(zone).image.get(
            "/images",
            params={"ciming_image": image_id},
            connect_retries=3,      # a connection that was kept may be closed at this moment
        )
        kept = (
            *("id", "status", "size", "os_hash_value", "disk_format", "visibility", "tags", "os_hidden"),
            "ciming_target",
        )
        return [{name: image.get(name) for name in kept} for image in answer.json()["images"]]


def _read(connection: sa.Connection, query: sa.Select[Any]) -> list[JSON]:
    """Rows in an order that does not follow from what differs."""
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return sorted(rows, key=lambda row: [*(str(row.get(name)) for name in STEADY), not row.get("image_ref")])


def _without_changes(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_changes(each) for name, each in value.items() if name not in CHANGES}
    if isinstance(value, list):
        return [_without_changes(each) for each in value]
    return value


def difference(expected: JSON, found: JSON) -> str:
    """What is not as it should be; nothing where all is."""
    before, after = (json.dumps(each, sort_keys=True, indent=1).splitlines() for each in (expected, found))
    return "\n".join(difflib.unified_diff(before, after, n=1, lineterm=""))


def counts(trace: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How often each point was reached, in the order in which they first were."""
    return dict(Counter(point for point, _ in trace))
