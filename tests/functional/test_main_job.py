# SPDX-License-Identifier: Apache-2.0
"""The main job: one command, two zones, one identity."""

import hashlib
import json
import pathlib
import time

import pytest

from tests import corpus
from tests.functional import faulty
from tests.functional.test_bad_input import the_error
from tests.person import Person
from tests.sandbox import ciming, sandbox
from tests.shapes import Shape


@pytest.mark.every_shape
def test_one_command_two_zones(
    service: ciming.Ciming, member: Person, reader: Person, qcow2: pathlib.Path
) -> None:
    run = member.openstack(
        *("multicloud", "image", "create", "demo", "--file", str(qcow2)),
        *("--cloud", "zone-a", "--cloud", "zone-b", "--wait", "-f", "json"),
        *("--property", "os_distro=debian", "--min-disk", "1", "--min-ram", "256", "--tag", "golden"),
    )
    assert "zone-a" in run.stderr and "success" in run.stderr      # progress, a line per Target
    image = json.loads(run.stdout)
    assert image["status"] == "active"
    sha512 = hashlib.sha512(qcow2.read_bytes()).hexdigest()
    for zone in ("zone-a", "zone-b"):
        plain = json.loads(
            member.openstack(
                "--os-region-name", zone, "image", "show", image["id"], "-f", "json"
            ).stdout
        )
        assert plain["id"] == image["id"]
        assert plain["status"] == "active"
        assert plain["disk_format"] == "qcow2"
        assert plain["properties"]["os_hash_value"] == sha512
        assert plain["properties"]["os_distro"] == "debian"
        assert (plain["min_disk"], plain["min_ram"], plain["tags"]) == (1, 256, ["golden"])
    shown = json.loads(
        reader.openstack("multicloud", "image", "show", "demo", "-f", "json").stdout
    )
    assert [(link["cloud"], link["image_ref"], link["proof"]) for link in shown["links"]] == [
        ("zone-a", image["id"], "bytes"),
        ("zone-b", image["id"], "bytes"),
    ]
    assert shown["digests"]["sha512"] == sha512


def test_all_clouds_and_each_good_format(
    service: ciming.Ciming, member: Person, tmp_path: pathlib.Path
) -> None:
    of_format = {case.disk_format: case for case in reversed(corpus.good(tmp_path))}
    assert set(of_format) == {"raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso"}
    for case in of_format.values():
        job = member.bring(case.path, name=case.name, clouds="all", disk_format=case.disk_format)
        assert job["status"] == "success", (case.name, job)
        image = member.image(job["image_id"])
        assert image["disk_format"] == case.disk_format
        assert {link["cloud"] for link in image["links"]} == {"zone-a", "zone-b"}


def test_taken_uuid_falls_back_to_another(
    service: ciming.Ciming, member: Person, stranger: Person, qcow2: pathlib.Path
) -> None:
    """Somebody else holds our UUID in zone-b: theirs is left alone, the Link records ours."""
    made = member.create(clouds=["zone-a", "zone-b"])
    image_id = made["image"]["id"]
    theirs = stranger.zone("zone-b").image.post(
        "/images",
        json={
            "id": image_id,
            "name": "squat",
            "visibility": "community",
            "disk_format": "raw",
            "container_format": "bare",
            "ciming_image": image_id,
            "ciming_target": made["job"]["targets"][1]["id"],
        },
    )
    assert theirs.status_code == 201
    member.put(image_id, qcow2.read_bytes())
    assert member.wait(made["job"]["id"])["status"] == "success"
    refs = {link["cloud"]: link["image_ref"] for link in member.image(image_id)["links"]}
    assert refs["zone-a"] == image_id
    assert refs["zone-b"] != image_id
    assert member.zone("zone-b").image.get_image(refs["zone-b"]).status == "active"
    assert stranger.zone("zone-b").image.get_image(image_id).status == "queued"
    stranger.zone("zone-b").image.delete_image(image_id)


@pytest.mark.parametrize("visibility", ["private", "shared", "community"])
def test_visibility(
    service: ciming.Ciming, member: Person, qcow2: pathlib.Path, visibility: str
) -> None:
    job = member.bring(qcow2, visibility=visibility)
    assert job["status"] == "success"
    assert member.zone("zone-a").image.get_image(job["image_id"]).visibility == visibility


def test_token_ends_before_the_transfer(
    shape: Shape, tmp_path_factory: pytest.TempPathFactory, qcow2: pathlib.Path
) -> None:
    """Tokens live 8 seconds; the upload and the transfer to the zone each take longer."""
    cloud = sandbox.Sandbox(
        tmp_path_factory.mktemp("short"), token_seconds=8, barbican=False
    )
    folder = tmp_path_factory.mktemp("service")
    data = qcow2.read_bytes()
    with cloud, shape(cloud, folder), faulty.Proxy(cloud.url("glance-b")) as slow:
        slow.throttle = len(data) / 12        # bytes a second
        slow.register(cloud, "zone-slow")
        member = Person(cloud, "member")
        expired = {"X-Auth-Token": member.token()}
        made = member.create(clouds=["zone-a", "zone-slow"], size=len(data))
        member.put(made["image"]["id"], faulty.slowly(data, seconds=10))
        file = f"images/{made['image']['id']}/file"
        for method, path in (("GET", "jobs"), ("POST", "images"), ("PUT", file)):
            answer = member.call(method, f"/v1/{path}", json={}, headers=expired)
            the_error(answer, 401, "auth.required")
        job = member.wait(made["job"]["id"], seconds=90)
        assert job["status"] == "success", job
        assert slow.longest > 8, "the transfer did not outlive the token"
        _goes_on_with_another_token(member, data)
        assert not member.trusts()


def _goes_on_with_another_token(member: Person, data: bytes) -> None:
    """A token that ends between two parts of an upload."""
    made = member.create(size=len(data))
    part = {
        "Tus-Resumable": "1.0.0",
        "Content-Type": "application/offset+octet-stream",
        "X-Auth-Token": member.token(),
    }
    path = f"/v1/images/{made['image']['id']}/file"
    first = member.call("PATCH", path, headers={**part, "Upload-Offset": "0"}, data=data[:100])
    assert first.status_code == 204
    time.sleep(9)
    rest = {**part, "Upload-Offset": "100"}
    the_error(member.call("PATCH", path, headers=rest, data=data[100:]), 401, "auth.required")
    rest["X-Auth-Token"] = member.token()
    assert member.call("PATCH", path, headers=rest, data=data[100:]).status_code == 204
    assert member.wait(made["job"]["id"])["status"] == "success"
