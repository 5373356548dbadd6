# SPDX-License-Identifier: Apache-2.0
"""Clouds that stumble or refuse, and a service that is killed."""

import json
import pathlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.functional import faulty
from tests.functional.conftest import soon
from tests.person import Person
from tests.sandbox import ciming, processes, sandbox, seed


@pytest.fixture
def flaky(
    cloud: sandbox.Sandbox, service: ciming.Ciming, member: Person
) -> Iterator[faulty.Proxy]:
    """zone-b's Glance once more, as zone-flaky, through a proxy that stumbles."""
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-flaky"):
        member.log_in_again()       # a token knows the zones of its time
        yield proxy


def ids(member: Person, zone: str) -> set[str]:
    return {image.id for image in member.zone(zone).image.images()}


def test_no_permission_in_one_zone(
    cloud: sandbox.Sandbox, service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    with cloud.policy("glance-b", {"add_image": "!"}):
        run = member.openstack(
            *("multicloud", "image", "create", "half", "--file", str(qcow2)),
            *("--cloud", "zone-a", "--cloud", "zone-b", "--wait", "-f", "json"),
            ok=(3,),
        )
    image = json.loads(run.stdout)
    assert image["status"] == "partial"
    [job] = member.get("/v1/jobs", params={"image_id": image["id"]}).json()["jobs"]
    good, bad = job["targets"]
    assert (job["status"], good["status"], bad["status"]) == ("partial", "success", "error")
    assert bad["error"]["code"] == "cloud.forbidden"
    assert "403" in bad["error"]["message"] and "zone-b" in bad["error"]["message"]
    assert bad["error"]["cloud_request_id"].startswith("req-")
    assert bad["error"]["cloud_request_id"] in run.stderr
    assert bad["attempts"] == 1     # a permanent error is not retried


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/$"), ("GET", "/schemas"), ("GET", "/images"), ("POST", "/images"), ("PUT", "/file")],
)
def test_glance_answers_503_for_a_while(
    flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path, method: str, path: str
) -> None:
    flaky.faults = [(method, path, "503")] * 2
    job = member.bring(qcow2, clouds=["zone-a", "zone-flaky"])
    assert job["status"] == "success", job
    good, stumbled = (target["attempts"] for target in job["targets"])
    assert good == 1 and stumbled in (2, 3)     # to find Glance's version takes two calls


def test_retrying_is_visible(
    flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path
) -> None:
    flaky.faults = [("PUT", "/file", "503")] * 4
    made = member.create(clouds=["zone-flaky"])
    member.put(made["image"]["id"], qcow2.read_bytes())
    seen = set()
    while (job := member.job(made["job"]["id"]))["status"] not in ("success", "error"):
        [target] = job["targets"]
        seen.add((target["status"], (target["error"] or {}).get("cloud_request_id")))
    assert ("retrying", "req-faulty") in seen
    assert job["status"] == "success"
    assert job["targets"][0]["error"] is None


def test_glance_stays_away(flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path) -> None:
    """The budget of attempts ends, the other zone is not touched by it, no half image stays."""
    before = ids(member, "zone-b")
    flaky.faults = [("PUT", "/file", "503")] * 5
    job = member.bring(qcow2, clouds=["zone-a", "zone-flaky"])
    assert [target["status"] for target in job["targets"]] == ["success", "error"]
    assert job["targets"][1]["attempts"] == 5
    assert job["targets"][1]["error"]["code"] == "cloud.unavailable"
    assert ids(member, "zone-b") == before


def test_what_can_not_be_removed_is_said(
    flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path
) -> None:
    flaky.faults = [("PUT", "/file", "503")] * 5
    flaky.faults += [("DELETE", "/images", "503")] * 5
    job = member.bring(qcow2, clouds=["zone-flaky"])
    error = job["targets"][0]["error"]
    assert error["code"] == "cloud.unavailable"
    assert f"({job['image_id']}) could not be removed" in error["message"]
    member.zone("zone-b").image.delete_image(job["image_id"])


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("POST", "/images$", "lose-answer"),
        ("PUT", "/file", "lose-answer"),
        ("PUT", "/file", "reset"),
    ],
)
def test_lost_answer_makes_no_second_copy(
    flaky: faulty.Proxy,
    member: Person,
    qcow2: pathlib.Path,
    method: str,
    path: str,
    fault: faulty.Fault,
) -> None:
    before = ids(member, "zone-b")
    flaky.faults = [(method, path, fault)]
    job = member.bring(qcow2, clouds=["zone-flaky"])
    assert job["status"] == "success", job
    assert job["targets"][0]["attempts"] > 1
    assert ids(member, "zone-b") - before == {job["image_id"]}


def test_wrong_hash_is_an_error_and_leaves_nothing(
    flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path
) -> None:
    before = ids(member, "zone-b")
    flaky.corrupt = True
    job = member.bring(qcow2, clouds=["zone-flaky"])
    assert job["targets"][0]["error"]["code"] == "image.hash_mismatch"
    assert ids(member, "zone-b") == before


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_service_dies_in_mid_transfer(
    flaky: faulty.Proxy, service: ciming.Ciming, member: Person, qcow2: pathlib.Path, how: str
) -> None:
    """kill -9 leaves nothing alive and the port free; the next start goes on with the Job."""
    before = ids(member, "zone-b")
    data = qcow2.read_bytes()
    flaky.throttle = len(data) / 6
    made = member.create(clouds=["zone-a", "zone-flaky"])
    member.put(made["image"]["id"], data)
    soon(lambda: "upload" in {target["step"] for target in member.job(made["job"]["id"])["targets"]})
    time.sleep(1)
    getattr(service, how)()
    soon(lambda: processes.free(service.port), 3)
    flaky.throttle = None
    service.start()
    job = member.wait(made["job"]["id"], seconds=90)
    assert job["status"] == "success", job
    assert ids(member, "zone-b") - before == {made["image"]["id"]}


def test_service_dies_in_mid_upload(
    service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    """The bytes of a PUT are lost with the service, the Image is not: they can be sent again."""
    data = qcow2.read_bytes()
    made = member.create(size=len(data))

    def half() -> Iterator[bytes]:
        yield data[: len(data) // 2]
        time.sleep(0.5)
        service.kill()
        yield data[len(data) // 2 :]

    with pytest.raises(Exception, match=r"(?i)connection|broken|remote"):
        member.put(made["image"]["id"], half())
    service.start()
    soon(lambda: member.put(made["image"]["id"], data).status_code == 204, 15)
    assert member.wait(made["job"]["id"])["status"] == "success"


def test_upload_that_never_comes_expires(
    another: Callable[..., tuple[ciming.Ciming, Person]]
) -> None:
    _service, member = another(
        {("staging", "upload_expiry"): "1", ("engine", "housekeeping_interval"): "0.5"}
    )
    made = member.create()
    job = member.wait(made["job"]["id"])
    assert (job["status"], job["error"]["code"]) == ("error", "upload.expired")
    assert not member.trusts()


def test_keystone_forgets_the_trust_meanwhile(
    service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    """A Job whose trust was taken back says so; it hangs nowhere."""
    made = member.create()
    member.take_trusts_back()
    member.put(made["image"]["id"], qcow2.read_bytes())
    job = member.wait(made["job"]["id"])
    assert job["status"] == "error"
    assert job["targets"][0]["error"]["code"] == "cloud.auth_failed"


def test_trust_of_one_who_lost_the_role_goes_when_it_is_back(
    cloud: sandbox.Sandbox, another: Callable[..., tuple[ciming.Ciming, Person]]
) -> None:
    """Keystone lets nobody use it meanwhile, nor delete it, but it would work again."""
    service, _member = another(
        {("staging", "upload_expiry"): "1", ("engine", "housekeeping_interval"): "0.5"}
    )
    stranger, admin = Person(cloud, "stranger", service.url), Person(cloud, "admin", service.url)
    keystone = cloud.admin
    ids = {kind: keystone.ids(kind) for kind in ("user", "role")}
    role = f"/projects/{stranger.project_id}/users/{ids['user'][seed.STRANGER]}/roles/{ids['role']['member']}"
    job = stranger.create()["job"]
    [trust] = stranger.trusts()
    keystone.call("DELETE", role)
    try:
        assert admin.wait(job["id"])["error"]["code"] == "upload.expired"
        soon(lambda: "can not be used now" in service.last_words(200))
        assert trust["id"] in {each["id"] for each in keystone.call("GET", "/OS-TRUST/trusts")["trusts"]}
    finally:
        keystone.call("PUT", role)
    stranger.log_in_again()
    soon(lambda: not stranger.trusts())
