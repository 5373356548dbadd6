# SPDX-License-Identifier: Apache-2.0
"""What is said of an Image that is there: in its record at once, and in all its Clouds by a Job."""

import json
import pathlib
import uuid
from collections.abc import Iterator

import pytest
import requests

from tests.functional import faulty, test_aws, test_gcp
from tests.functional.conftest import soon
from tests.person import JSON, Person
from tests.sandbox import aws, ciming, gcp, sandbox

pytestmark = pytest.mark.usefixtures("service")
ZONES = ["zone-a", "zone-b"]
MACHINE = {"architecture": "x86_64"}
Standins = tuple[aws.StandIn, gcp.StandIn]


@pytest.fixture
def there(member: Person, qcow2: pathlib.Path) -> Iterator[JSON]:
    """An Image in both zones; in the end it is nowhere."""
    name = f"lifecycle-{uuid.uuid4()}"
    job = member.bring(qcow2, name=name, clouds=ZONES, tags=["old", "both"])
    assert job["status"] == "success", job
    yield member.image(job["image_id"])
    gone = member.call("DELETE", f"/v1/images/{job['image_id']}")
    if gone.status_code == 202:
        assert member.wait(gone.json()["job"]["id"])["status"] == "success"


def patch(who: Person, image: JSON, **said: object) -> requests.Response:
    return who.call("PATCH", f"/v1/images/{image['id']}", json=said)


def changed(who: Person, image: JSON, **said: object) -> JSON:
    """The ended Job that changed it."""
    answer = patch(who, image, **said)
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    assert (job["kind"], answer.headers["Location"]) == ("update", f"/v1/jobs/{job['id']}")
    return who.wait(job["id"])


def glance(who: Person, image: JSON, zone: str, behind: str = "") -> JSON:
    """What the zone says of it; or the one behind it."""
    [ref] = [link["image_ref"] for link in image["links"] if link["cloud"] == zone]
    return dict(who.zone(behind or zone).image.get(f"/images/{ref}").json())


def target(job: JSON, cloud: str) -> JSON:
    [found] = [target for target in job["targets"] if target["cloud"] == cloud]
    return dict(found)


# Everywhere


def test_by_the_command_line(member: Person, there: JSON) -> None:
    """All zones, what they can not carry is said; and back again."""
    image = ("multicloud", "image")
    name = f"renamed-{uuid.uuid4()}"
    said = ("--name", name, "--tag", "new", "--tag", "both", "--hidden", "--deprecated", "--wait")
    done = member.openstack(*image, "set", there["name"], *said, "-f", "json")
    shown = json.loads(done.stdout)
    assert (shown["name"], shown["tags"]) == (name, ["old", "both", "new"])
    assert (shown["hidden"], shown["deprecated"], shown["status"]) == (True, True, "active")
    for zone in ZONES:
        assert f"{zone}: Glance knows no deprecated images" in done.stderr
        found = glance(member, there, zone)
        assert (found["name"], found["os_hidden"]) == (name, True)
        assert sorted(found["tags"]) == ["both", "new", "old"]
        assert found["ciming_image"] == there["id"]
    member.openstack(*image, "unset", name, "--tag", "old", "--wait")
    assert sorted(glance(member, there, "zone-b")["tags"]) == ["both", "new"]
    back = ("--no-tag", "--tag", "last", "--unhidden", "--undeprecated")
    done = member.openstack(*image, "set", name, *back, "--wait")
    assert "deprecated" not in done.stderr
    assert [member.image(there["id"])[each] for each in ("tags", "hidden", "deprecated")] == [
        *(["last"], False, False),
    ]
    found = glance(member, there, "zone-a")
    assert (found["tags"], found["os_hidden"], found["name"]) == (["last"], False, name)
    for arguments, word in (
        (("set", name), "nothing to change"),
        (("unset", name, "--tag", "never"), "has no tag never"),
        (("set", name, "--name", "x" * 256), "name: Length must be between 1 and 255"),
    ):
        assert word in member.openstack(*image, *arguments, ok=(1,)).stderr
    both = ("set", name, "--hidden", "--unhidden")
    assert "not allowed with" in member.openstack(*image, *both, ok=(2,)).stderr


standin, amazon = test_aws.standin, test_aws.amazon


def test_each_cloud_says_what_it_can_not_carry(
    service: ciming.Ciming,
    member: Person,
    standin: aws.StandIn,
    amazon: JSON,
    qcow2: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    with gcp.start(tmp_path / "gcp", port=service.sandbox.port("google")) as google:
        google.make_bucket(test_gcp.BUCKET)
        with test_gcp.registered(member, google, "google"):
            job = member.bring(qcow2, name="old", clouds=["zone-a", "amazon", "google"], properties=MACHINE)
            assert job["status"] == "success", job
            image = member.image(job["image_id"])
            said = {"name": "new", "tags": ["good", "Not for Google"], "hidden": True, "deprecated": True}
            job = changed(member, image, **said)
            assert job["status"] == "success", job
            remarks = {each["cloud"]: each["remarks"] for each in job["targets"]}
            assert [len(remarks[cloud]) for cloud in ("zone-a", "amazon", "google")] == [1, 2, 3]
            assert "its own name stays old" in remarks["amazon"][0]
            assert "Not for Google could not become a label" in remarks["google"][1]
            (ami,), (disk,) = standin.images(), google.images()
            assert {"good": "", "Not for Google": "", "Name": "new"}.items() <= ami["tags"].items()
            assert ami["deprecated"] and disk["deprecated"]["state"] == "DEPRECATED"
            assert (disk["labels"]["good"], disk["description"]) == ("", "new")
            assert glance(member, image, "zone-a")["os_hidden"] is True
            job = changed(member, image, tags=[], deprecated=False)
            assert not any(each["remarks"] for each in job["targets"]), job
            (ami,), (disk,) = standin.images(), google.images()
            assert not ami["deprecated"] and "deprecated" not in disk
            assert not {"good", "Not for Google"} & {*ami["tags"], *disk["labels"]}
            gone = member.call("DELETE", f"/v1/images/{image['id']}").json()
            assert member.wait(gone["job"]["id"], seconds=200)["status"] == "success"


# Not everywhere


def test_what_was_deleted_behind_our_back(member: Person, there: JSON) -> None:
    """The others are told; a retry after it is known to be gone tells what the record says by then."""
    [ref] = [link["image_ref"] for link in there["links"] if link["cloud"] == "zone-b"]
    member.zone("zone-b").image.delete(f"/images/{ref}")
    job = changed(member, there, name="first")
    assert job["status"] == "partial"
    error = target(job, "zone-b")["error"]
    assert error["code"] == "image_ref.not_found"
    assert ref in error["message"] and "Unlink it" in error["message"]
    assert (target(job, "zone-a")["status"], glance(member, there, "zone-a")["name"]) == ("success", "first")
    assert [member.image(there["id"])[each] for each in ("name", "status")] == ["first", "active"]
    unlinked = member.call("DELETE", f"/v1/images/{there['id']}/links/zone-b")
    assert unlinked.status_code == 204
    assert changed(member, there, name="second")["status"] == "success"
    again = member.call("POST", f"/v1/jobs/{job['id']}/retry")
    assert (again.status_code, again.json()["errors"][0]["code"]) == (404, "link.not_found")


def test_a_late_retry_tells_nothing_old(
    cloud: sandbox.Sandbox, member: Person, qcow2: pathlib.Path
) -> None:
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-moody"):
        job = member.bring(qcow2, name="moody", clouds=["zone-a", "zone-moody"], tags=["one"])
        image = member.image(job["image_id"])
        proxy.faults = [("PATCH", "/images/", "403")]
        job = changed(member, image, tags=["two"])
        assert (job["status"], target(job, "zone-moody")["error"]["code"]) == ("partial", "cloud.forbidden")
        proxy.faults = [("PATCH", "/images/", "503")] * 50
        begun = patch(member, image, hidden=True, tags=["three"]).json()["job"]
        soon(lambda: target(member.job(begun["id"]), "zone-moody")["status"] == "retrying")
        assert patch(member, image, hidden=False).json()["errors"][0]["code"] == "image.busy"
        member.call("POST", f"/v1/jobs/{begun['id']}/cancel")
        ended = member.wait(begun["id"])
        assert (ended["status"], target(ended, "zone-a")["status"]) == ("cancelled", "success")
        proxy.faults = []
        assert member.call("POST", f"/v1/jobs/{job['id']}/retry").status_code == 202
        assert member.wait(job["id"])["status"] == "success"
        assert glance(member, image, "zone-a")["tags"] == ["three"]
        assert glance(member, image, "zone-moody", "zone-b")["tags"] == ["three"]
        assert changed(member, image, hidden=True)["status"] == "success"
        assert glance(member, image, "zone-moody", "zone-b")["os_hidden"] is True
        gone = member.call("DELETE", f"/v1/images/{image['id']}").json()
        assert member.wait(gone["job"]["id"])["status"] == "success"


def test_an_image_in_no_cloud(member: Person, there: JSON) -> None:
    """Its record is all that there is; while a Job works on it, it stays as it is."""
    for zone in ZONES:
        assert member.call("DELETE", f"/v1/images/{there['id']}/links/{zone}").status_code == 204
    answer = patch(member, there, name="nowhere", hidden=True)
    assert (answer.status_code, answer.json()["job"]) == (200, None)
    shown = member.image(there["id"])
    assert (shown["name"], shown["hidden"], shown["deprecated"]) == ("nowhere", True, None)
    for link in there["links"]:
        member.zone(link["cloud"]).image.delete(f"/images/{link['image_ref']}")
    waits = member.create(name="waits", size=512)
    refused = patch(member, waits["image"], name="other")
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (409, "image.busy")
    assert member.image(waits["image"]["id"])["name"] == "waits"
    member.call("POST", f"/v1/jobs/{waits['job']['id']}/cancel")
    member.wait(waits["job"]["id"])


BAD: list[tuple[JSON, str]] = [
    ({}, "body"),
    ({"credentials": {}}, "body"),
    ({"name": ""}, "name"),
    ({"name": None}, "name"),
    ({"tags": "one"}, "tags"),
    ({"tags": ["x" * 256]}, "tags.0"),
    ({"tags": [str(number) for number in range(129)]}, "tags"),
    ({"hidden": "yes"}, "hidden"),
    ({"deprecated": 1}, "deprecated"),
    ({"visibility": "public"}, "visibility"),
    ({"hidden": True, "credentials": {"zone-a": {"x": "y"}}}, "credentials"),
]
"""Bodies, and the field that is wrong."""


def test_bad_input(member: Person, there: JSON) -> None:
    for body, field in BAD:
        answer = member.call("PATCH", f"/v1/images/{there['id']}", json=body)
        error = answer.json()["errors"][0]
        assert (answer.status_code, error.get("field")) == (400, field), answer.text
    assert member.image(there["id"]) == there
