# SPDX-License-Identifier: Apache-2.0
"""A staging area is gone, and another one takes its Jobs over."""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import requests

from tests.functional import crash, faulty, tus
from tests.functional.conftest import soon
from tests.person import Person
from tests.sandbox import ciming, processes, sandbox

Another = Callable[..., tuple[ciming.Ciming, Person]]
FEW = 100_000       # bytes a second: nothing ends before all is lost


def manage(service: ciming.Ciming, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = pathlib.Path(sys.executable).parent / "ciming-manage"
    return subprocess.run(
        [str(program), "--config-file", str(service.config_files[-1]), "staging", *arguments],
        env=processes.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def areas(service: ciming.Ciming) -> dict[str, list[str]]:
    """What is said of each, by its marker."""
    return {line.split()[0]: line.split()[1:] for line in manage(service, "list").stdout.splitlines()}


def test_its_jobs_end_or_begin_again(
    cloud: sandbox.Sandbox, another: Another, qcow2: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    data = os.urandom(4 << 20)
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-slow"):
        proxy.throttle = FEW
        service, member = another({})
        made = member.bring(qcow2, name="source", clouds=["zone-a"])
        [link] = member.image(made["image_id"])["links"]
        half, comes = tus.create(member, data)
        assert tus.patch(member, half, 0, data[: 1 << 20]).status_code == 204
        whole = member.create(name="whole", clouds=["zone-a", "zone-slow"], size=len(data))
        assert member.put(whole["image"]["id"], data).status_code == 204
        alone = member.create(name="alone", clouds=["zone-slow"], size=len(data))
        assert member.put(alone["image"]["id"], data).status_code == 204
        source = {"cloud": "zone-a", "image": link["image_ref"]}
        read = member.create(name="read", clouds=["zone-slow"], source=source)
        for job in (whole["job"], alone["job"], read["job"]):
            soon(lambda job=job: any(each["bytes_done"] for each in member.job(job["id"])["targets"]))
        soon(lambda: "success" in {each["status"] for each in member.job(whole["job"]["id"])["targets"]})
        [former] = areas(service)
        assert areas(service)[former] == ["4", "open", "0", "kept", "this", "one"]
        alive = manage(service, "take-over", former)
        assert alive.returncode == 2 and "is the staging area of this host" in alive.stderr

        service.kill()
        service.staging_dir.rename(tmp_path / "gone")
        proxy.throttle = None
        service.start()
        refused = tus.patch(member, half, 1 << 20, data[1 << 20 :])
        assert refused.status_code == 503 and refused.json()["errors"][0]["code"] == "upload.elsewhere"
        assert manage(service, "take-over", "x").returncode == 1
        there = areas(service)
        assert there.pop(former) == ["4", "open", "0", "kept"]
        assert [*there.values()] == [["0", "open", "0", "kept", "this", "one"]]
        done = manage(service, "take-over", former)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith(": 4\n")

        for job in (whole["job"], read["job"]):     # a Cloud has these bytes
            ended = member.wait(job["id"])
            assert ended["status"] == "success", str(ended)
        lost = member.wait(alone["job"]["id"])
        errors = [lost["error"], *(each["error"] for each in lost["targets"])]
        assert lost["status"] == "error"
        assert {each["code"] for each in errors if each} == {"staging.damaged"}
        assert tus.offset(member, half) == 0
        assert tus.finish(member, half, comes, data)["status"] == "success"
        assert member.trusts() == []
        assert [*service.staging_dir.glob("*/*")] == []
        for name in ("whole", "read", "alone"):
            assert len([*member.zone("zone-b").image.images(name=name)]) == (name != "alone")


def test_what_was_received_and_not_looked_at_yet(
    another: Another, qcow2: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """It is read again; of an upload it is said that it was lost."""
    where = crash.Points(tmp_path / "points")
    (tmp_path / "points").mkdir()
    service, member = another(crash.OPTIONS, environment=where.environment)
    made = member.bring(qcow2, name="source", clouds=["zone-a"])
    [link] = member.image(made["image_id"])["links"]
    source = {"cloud": "zone-a", "image": link["image_ref"]}
    data = qcow2.read_bytes()
    for flow, said, status in (
        ("fetch", {"source": source}, "success"),
        ("stage", {"size": len(data)}, "error"),
    ):
        where.arm(f"noted {flow} Receive execute")
        begun = member.create(name=flow, clouds=["zone-b"], **said)
        if flow == "stage":
            with contextlib.suppress(requests.ConnectionError):     # it may die before it answers
                member.put(begun["image"]["id"], data)
        soon(lambda: where.killed)
        [former] = [marker for marker, jobs in areas(service).items() if jobs[0] == "1"]
        service.stop()
        service.staging_dir.rename(tmp_path / f"gone with {flow}")
        service.start()
        assert manage(service, "take-over", former).returncode == 0
        ended = member.wait(begun["job"]["id"])
        assert ended["status"] == status, str(ended)
    assert ended["error"]["code"] == "staging.damaged"
    assert member.trusts() == []
