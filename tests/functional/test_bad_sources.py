# SPDX-License-Identifier: Apache-2.0
"""Sources, Links and deletions that can not be, and those of others."""

import uuid

import pytest
import requests

from tests.functional.test_bad_input import the_error
from tests.functional.test_between_zones import There, begun, brought, data, links, there
from tests.person import JSON, Person

assert data and there  # fixtures
pytestmark = pytest.mark.usefixtures("service")


@pytest.mark.parametrize(
    ("state", "code", "says"),
    [
        ("queued", "source.not_readable", "was not uploaded yet"),
        ("deactivated", "source.not_readable", "reactivated"),
        ("absent", "source.not_found", "can see"),
        ("somebody's", "source.not_found", "can see"),
        ("ami", "source.not_readable", "ami"),
        ("ambiguous", "image_ref.ambiguous", "several"),
    ],
)
def test_a_source_that_can_not_be_read(
    member: Person, stranger: Person, admin: Person, data: bytes, state: str, code: str, says: str
) -> None:
    who, made = stranger if state == "somebody's" else member, []
    wanted: JSON = {"disk_format": "ami", "container_format": "ami"} if state == "ami" else {}
    name = f"there-{uuid.uuid4()}"
    for _ in range(2 if state == "ambiguous" else 1):
        made.append(There(who, "zone-a", b"" if state == "queued" else data, name=name, **wanted))
    source = {"cloud": "zone-a", "image": made[0].name if state == "ambiguous" else made[0].id}
    if state == "deactivated":
        deactivate = f"/images/{made[0].id}/actions/deactivate"
        admin.zone("zone-a").image.post(deactivate).raise_for_status()
    if state == "absent":
        source["image"] = str(uuid.uuid4())
    job, image = brought(member, clouds=["zone-b"], source=source)
    assert (job["status"], job["error"]["code"], job["targets"][0]["error"]["code"]) == ("error", code, code)
    assert says in job["error"]["message"] and "zone-a" in job["error"]["message"]
    assert (image["status"], image["links"]) == ("error", [])
    for each in made:
        who.zone("zone-a").image.delete(f"/images/{each.id}")


def test_a_damaged_source_goes_nowhere(member: Person, data: bytes) -> None:
    """Half a qcow2, which Glance took: refused as an upload would be."""
    there = There(member, "zone-a", data[: len(data) // 2])
    job, image = brought(member, clouds=["zone-b"], source=there.source)
    assert (job["status"], image["links"]) == ("error", [])
    assert job["error"]["code"].startswith("image.")
    there.glance.delete(f"/images/{there.id}")


@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        ({"source": {"cloud": "nowhere", "image": "x"}}, 400, "cloud.unknown", "source.cloud"),
        ({"source": {"cloud": "zone-a"}}, 400, "request.invalid", "source.image"),
        ({"source": {"cloud": "zone-a", "image": "x" * 10_000}}, 400, "request.invalid", "source.image"),
        ({"source": {"cloud": "zone-a", "image": "x", "u": "x"}}, 400, "request.invalid", "source.u"),
        ({"size": 1}, 400, "request.invalid", "size"),
        ({"clouds": ["zone-a"]}, 400, "request.invalid", "clouds"),
    ],
)
def test_a_source_that_is_none(member: Person, change: JSON, status: int, code: str, field: str) -> None:
    wanted = {"name": "t", "clouds": ["zone-b"], "source": {"cloud": "zone-a", "image": "x"}, **change}
    assert the_error(member.call("POST", "/v1/images", json=wanted), status, code)["field"] == field


@pytest.mark.parametrize("ref", ["../../v2/schemas/image", "x?limit=1", "%2e%2e/", "in:a,b", "a\nb", "#"])
def test_a_name_leads_nowhere_else(member: Person, ref: str) -> None:
    job, _ = brought(member, clouds=["zone-b"], source={"cloud": "zone-a", "image": ref})
    assert (job["status"], job["error"]["code"]) == ("error", "source.not_found")


def test_one_job_at_a_time(member: Person, there: There) -> None:
    _, image = brought(member, clouds=["zone-b"], source=there.source)
    path = f"/v1/images/{image['id']}"
    the_error(member.call("POST", f"{path}/clouds", json={"clouds": ["zone-b"]}), 409, "image.already_linked")
    the_error(member.call("POST", f"{path}/clouds", json={"clouds": "all"}), 409, "image.already_linked")
    link = {"cloud": "zone-b", "image_ref": "x"}
    the_error(member.call("POST", f"{path}/links", json=link), 409, "image.already_linked")
    the_error(member.call("DELETE", path, params={"cloud": "zone-c"}), 404, "link.not_found")
    the_error(member.call("DELETE", path, params={"clouds": "zone-b"}), 400, "request.invalid")
    waiting = member.create()
    busy = f"/v1/images/{waiting['image']['id']}"
    assert waiting["job"]["id"] in the_error(member.call("DELETE", busy), 409, "image.busy")["detail"]
    the_error(member.call("DELETE", f"{busy}/links/zone-a"), 404, "link.not_found")
    assert member.call("POST", f"/v1/jobs/{waiting['job']['id']}/cancel").status_code == 202
    member.wait(waiting["job"]["id"])
    assert member.call("DELETE", busy).status_code == 204       # it was nowhere
    assert member.get(busy).status_code == 404
    ids = [each["id"] for each in member.get("/v1/images", params={"limit": 1000}).json()["images"]]
    assert waiting["image"]["id"] not in ids and image["id"] in ids


def test_what_is_gone_already_is_deleted(member: Person, there: There) -> None:
    _, image = brought(member, clouds=["zone-b"], source=there.source)
    there.glance.delete(f"/images/{there.id}").raise_for_status()
    gone = begun(member.call("DELETE", f"/v1/images/{image['id']}"))
    assert member.wait(gone["job"]["id"])["status"] == "success"
    assert member.get(f"/v1/images/{image['id']}").status_code == 404


def test_others_can_do_nothing_with_it(
    member: Person, stranger: Person, reader: Person, admin: Person, there: There
) -> None:
    _, image = brought(member, clouds=["zone-b"], source=there.source)
    path = f"/v1/images/{image['id']}"
    link = {"cloud": "zone-b", "image_ref": "x"}
    calls: tuple[tuple[str, str, JSON], ...] = (
        ("DELETE", path, {}),
        ("POST", f"{path}/clouds", {"json": {"clouds": ["zone-b"]}}),
        ("POST", f"{path}/links", {"json": link}),
        ("DELETE", f"{path}/links/zone-a", {}),
    )
    for method, where, body in calls:
        the_error(stranger.call(method, where, **body), 404, "image.not_found")
        the_error(admin.call(method, where, **body), 404, "image.not_found")       # sees it, no more
        the_error(reader.call(method, where, **body), 403, "policy.forbidden")
        assert requests.request(method, member.url + where, timeout=30, **body).status_code == 401
    assert set(links(member.image(image["id"]))) == {"zone-a", "zone-b"}


def test_a_link_to_what_one_can_not_see(member: Person, stranger: Person, there: There, data: bytes) -> None:
    theirs = There(stranger, "zone-b", data)
    _, image = brought(member, clouds=["zone-b"], source=there.source)
    assert member.call("DELETE", f"/v1/images/{image['id']}/links/zone-b").status_code == 204
    link = {"cloud": "zone-b", "image_ref": theirs.id}
    begin = begun(member.call("POST", f"/v1/images/{image['id']}/links", json=link))
    job = member.wait(begin["job"]["id"])
    assert (job["kind"], job["status"]) == ("link", "error")
    assert job["targets"][0]["error"]["code"] == "image_ref.not_found"
    assert list(links(member.image(image["id"]))) == ["zone-a"]
    member.zone("zone-b").image.delete(f"/images/{image['id']}")
    theirs.glance.delete(f"/images/{theirs.id}")
