# SPDX-License-Identifier: Apache-2.0
"""Images that a zone has already: brought to others, linked, unlinked, deleted; seen from the zones."""

import hashlib
import json
import pathlib
import uuid
from collections.abc import Iterator

import pytest
import requests

from tests.functional.conftest import soon
from tests.person import JSON, Person
from tests.sandbox import ciming

pytestmark = pytest.mark.usefixtures("service")
ELSEWHERE = {
    "architecture": "x86_64",
    "hw_disk_bus": "scsi",
    "hw_firmware_type": "uefi",
    "os_distro": "debian",
}
HERE = {"my_own": "note", "ciming_image": "somebody's", "img_block_device_mapping": "[]"}


class There:
    """An image that somebody put into a zone without CIMinG."""

    def __init__(
        self, who: Person, zone: str, data: bytes, disk_format: str = "qcow2", **wanted: object
    ) -> None:
        self.glance = who.zone(zone).image
        self.zone = zone
        body = {"name": f"there-{uuid.uuid4()}", "disk_format": disk_format, "container_format": "bare"}
        answer = self.glance.post("/images", json={**body, **wanted})
        assert answer.status_code == 201, answer.text
        self.id, self.name = answer.json()["id"], answer.json()["name"]
        if data:
            octets = {"Content-Type": "application/octet-stream"}
            self.glance.put(f"/images/{self.id}/file", data=data, headers=octets).raise_for_status()

    def change(self, name: str, value: object) -> None:
        patch = [{"op": "replace", "path": f"/{name}", "value": value}]
        kind = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
        self.glance.patch(f"/images/{self.id}", json=patch, headers=kind).raise_for_status()

    @property
    def source(self) -> JSON:
        return {"cloud": self.zone, "image": self.id}


@pytest.fixture
def data(qcow2: pathlib.Path) -> bytes:
    return qcow2.read_bytes()


@pytest.fixture
def there(member: Person, data: bytes) -> Iterator[There]:
    made = There(member, "zone-a", data, min_disk=3, min_ram=64, tags=["golden"], **ELSEWHERE, **HERE)
    yield made
    made.glance.delete(f"/images/{made.id}")


def begun(answer: requests.Response) -> JSON:
    assert answer.status_code == 202, answer.text
    body = dict(answer.json())
    assert answer.headers["Location"].endswith(f"/v1/jobs/{body['job']['id']}")
    return body


def links(image: JSON) -> dict[str, tuple[str, str]]:
    return {link["cloud"]: (link["image_ref"], link["proof"]) for link in image["links"]}


def brought(member: Person, **wanted: object) -> tuple[JSON, JSON]:
    """The Job that has ended, and its Image."""
    made = member.create(**wanted)
    return member.wait(made["job"]["id"]), member.image(made["image"]["id"])


def glance(member: Person, zone: str, image_id: str) -> JSON | None:
    answer = member.zone(zone).image.get(f"/images/{image_id}")
    return None if answer.status_code == 404 else dict(answer.json())


# From a zone


def test_what_a_zone_has_comes_into_another(member: Person, there: There, data: bytes) -> None:
    job, image = brought(member, name="from", clouds=["zone-b"], source=there.source)
    assert (job["kind"], job["status"]) == ("create", "success")
    assert [target["cloud"] for target in job["targets"]] == ["zone-b"]
    assert job["progress"] == {"bytes_done": 2 * len(data), "bytes_total": 2 * len(data)}
    assert (image["status"], image["size"], image["disk_format"]) == ("active", len(data), "qcow2")
    assert image["digests"]["sha512"] == hashlib.sha512(data).hexdigest()
    assert image["tags"] == ["golden"]
    assert links(image)["zone-a"] == (there.id, "bytes")
    image_ref, proof = links(image)["zone-b"]
    assert proof == "bytes"
    copy = glance(member, "zone-b", image_ref)
    assert copy and (copy["status"], copy["name"]) == ("active", "from")
    assert (copy["min_disk"], copy["min_ram"]) == (3, 64)
    assert {name: copy.get(name) for name in ELSEWHERE} == ELSEWHERE
    assert copy["tags"] == ["golden"]
    assert copy["ciming_image"] == image["id"]
    assert not {"my_own", "img_block_device_mapping"} & copy.keys()
    assert copy["os_hash_value"] == hashlib.sha512(data).hexdigest()


def test_what_its_user_says_goes_before_what_the_source_says(member: Person, there: There) -> None:
    said = {"properties": {"os_distro": "ubuntu", "mine": "too"}, "min_ram": 0, "tags": ["mine"]}
    source = {"cloud": "zone-a", "image": there.name}
    _, image = brought(member, name="from", clouds="all", source=source, **said)
    assert set(links(image)) == {"zone-a", "zone-b"}
    copy = glance(member, "zone-b", links(image)["zone-b"][0])
    assert copy and (copy["os_distro"], copy["mine"]) == ("ubuntu", "too")
    assert (copy["min_disk"], copy["min_ram"]) == (3, 0)
    assert sorted(copy["tags"]) == sorted(image["tags"]) == ["golden", "mine"]


def test_by_the_command_line(member: Person, there: There, tmp_path: pathlib.Path, data: bytes) -> None:
    """From a zone to another; forgotten there, and brought once more; linked by hand; deleted everywhere."""
    image = ("multicloud", "image")
    wanted = ("--from", f"zone-a:{there.name}", "--cloud", "zone-b", "--wait", "-f", "json")
    made = member.openstack(*image, "create", "cli-from", *wanted)
    assert "zone-b" in made.stderr
    found = json.loads(made.stdout)
    assert {link["cloud"] for link in found["links"]} == {"zone-a", "zone-b"}
    image_id, there_too = found["id"], found["links"][1]["image_ref"]
    member.openstack(*image, "unlink", image_id, "zone-b")
    shown = json.loads(member.openstack(*image, "show", image_id, "-f", "json").stdout)
    assert ([link["cloud"] for link in shown["links"]], shown["status"]) == (["zone-a"], "active")
    assert glance(member, "zone-b", there_too)      # it stays
    linked = member.openstack(*image, "link", image_id, f"zone-b:{there_too}", "--wait", "-f", "json")
    assert json.loads(linked.stdout)["links"][1]["proof"] == "bytes"
    member.openstack(*image, "delete", image_id, "--cloud", "zone-b", "--wait")
    assert not glance(member, "zone-b", there_too)
    synced = member.openstack(*image, "sync", "cli-from", "--all-clouds", "--wait", "-f", "json")
    assert len(json.loads(synced.stdout)["links"]) == 2
    said = member.openstack(*image, "sync", "cli-from", "--all-clouds", ok=(1,)).stderr
    assert "in all Clouds" in said
    member.openstack(*image, "delete", "cli-from", "--wait")
    assert member.get(f"/v1/images/{image_id}").status_code == 404
    assert not glance(member, "zone-a", there.id)
    assert "form CLOUD:IMAGE" in member.openstack(*image, "link", image_id, "zone-b", ok=(2,)).stderr


def test_what_is_two_images_is_not_deleted_with_one(member: Person, there: There) -> None:
    """Both were created from it; it is deleted with the last."""
    (_, first), (_, second) = (brought(member, clouds=["zone-b"], source=there.source) for _ in range(2))
    gone = begun(member.call("DELETE", f"/v1/images/{first['id']}"))
    job = member.wait(gone["job"]["id"])
    assert (job["status"], job["targets"][1]["remarks"]) == ("success", None)
    [remark] = job["targets"][0]["remarks"]
    assert second["id"] in remark and glance(member, "zone-a", there.id)
    gone = begun(member.call("DELETE", f"/v1/images/{second['id']}"))
    assert member.wait(gone["job"]["id"])["status"] == "success"
    assert not glance(member, "zone-a", there.id)


def test_a_protected_source_can_be_read_but_not_deleted(member: Person, there: There) -> None:
    there.change("protected", True)
    job, image = brought(member, clouds=["zone-b"], source=there.source)
    assert job["status"] == "success"
    gone = begun(member.call("DELETE", f"/v1/images/{image['id']}"))
    job = member.wait(gone["job"]["id"])
    assert (job["kind"], job["status"]) == ("delete", "partial")
    fine, error = job["targets"][1], job["targets"][0]["error"]
    assert (fine["cloud"], fine["status"], error["code"]) == ("zone-b", "success", "image_ref.protected")
    image = member.image(image["id"])
    assert (list(links(image)), image["status"]) == (["zone-a"], "active")
    there.change("protected", False)
    again = member.call("POST", f"/v1/jobs/{job['id']}/retry")
    assert again.status_code == 202, again.text
    assert member.wait(job["id"])["status"] == "success"
    assert member.get(f"/v1/images/{image['id']}").status_code == 404
    assert not glance(member, "zone-a", there.id)
    assert member.job(job["id"])["image_id"] == image["id"]        # it can still be seen what was done


# Into more zones


def test_sync_takes_another_link_where_the_best_can_not_be_read(
    member: Person, there: There, qcow2: pathlib.Path
) -> None:
    """What was in zone-a is gone, and Glance has taken no UUID twice: zone-b has it still."""
    _, image = brought(member, clouds=["zone-b"], source=there.source)
    other = There(member, "zone-a", qcow2.read_bytes()[:-512])
    member.call("DELETE", f"/v1/images/{image['id']}/links/zone-a")
    link = {"cloud": "zone-a", "image_ref": other.id}
    begin = begun(member.call("POST", f"/v1/images/{image['id']}/links", json=link))
    assert member.wait(begin["job"]["id"])["status"] == "success"
    assert links(member.image(image["id"]))["zone-a"] == (other.id, "asserted")      # it has other bytes
    deleted = begun(member.call("DELETE", f"/v1/images/{image['id']}", params={"cloud": "zone-b"}))
    assert member.wait(deleted["job"]["id"])["status"] == "success"
    synced = begun(member.call("POST", f"/v1/images/{image['id']}/clouds", json={"clouds": ["zone-b"]}))
    job = member.wait(synced["job"]["id"])
    assert (job["kind"], job["status"], job["error"]["code"]) == ("sync", "error", "source.changed")
    image = member.image(image["id"])
    assert (image["status"], list(links(image))) == ("partial", ["zone-a"])
    other.glance.delete(f"/images/{other.id}")


def test_forget_only(member: Person, there: There) -> None:
    _, image = brought(member, clouds=["zone-b"], source=there.source)
    path = f"/v1/images/{image['id']}"
    copy = links(image)["zone-b"][0]
    forget = {"keep_remote": "true"}
    assert member.call("DELETE", path, params={**forget, "cloud": "zone-b"}).status_code == 204
    assert list(links(member.image(image["id"]))) == ["zone-a"]
    assert member.call("DELETE", path, params=forget).status_code == 204
    assert member.get(path).status_code == 404
    assert member.call("DELETE", path).status_code == 404
    assert glance(member, "zone-a", there.id) and glance(member, "zone-b", copy)
    member.zone("zone-b").image.delete(f"/images/{copy}")


def test_cancelled_while_it_comes(
    service: ciming.Ciming, member: Person, data: bytes, there: There
) -> None:
    made = member.create(clouds=["zone-b"], source=there.source)
    member.call("POST", f"/v1/jobs/{made['job']['id']}/cancel")
    job = member.wait(made["job"]["id"])
    assert job["status"] in ("cancelled", "success")
    soon(lambda: not (service.staging_dir / made["job"]["id"]).exists())
