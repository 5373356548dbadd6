# SPDX-License-Identifier: Apache-2.0
"""Clouds that stumble or refuse, and a service that is killed."""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.functional import faulty
from tests.functional.conftest import soon
from tests.person import JSON, Person
from tests.sandbox import ciming, processes, sandbox, seed, services
from tests.shapes import Shape


@pytest.fixture
def flaky(
    cloud: sandbox.Sandbox, service: ciming.Ciming, member: Person
) -> Iterator[faulty.Proxy]:
    """zone-b's Glance once more, as zone-flaky, through a proxy that stumbles."""
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-flaky"):
        yield proxy


@pytest.fixture(scope="module")
def keystone(cloud: sandbox.Sandbox) -> Iterator[faulty.Proxy]:
    """The Keystone to which the engine of the patient service logs in."""
    with faulty.Proxy(cloud.url("keystone")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def patient(
    cloud: sandbox.Sandbox, keystone: faulty.Proxy, shape: Shape, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Person]:
    """The member of a service that tries often, but waits for no answer longer than two seconds."""
    folder = tmp_path_factory.mktemp("patient")
    login = services.authtoken(cloud.state, "keystone", seed.ENGINE, "multicloud")
    login |= {"auth_section": "service_user", "auth_url": f"{keystone.url}/v3"}
    options = {
        ("engine", "retry_delay"): "0.2",
        ("engine", "max_retry_delay"): "0.5",
        ("engine", "max_attempts"): "100",
        ("engine", "housekeeping_interval"): "0.5",
        ("openstack", "timeout"): "2",
        ("staging", "keep_free"): "0",
        **{("service_user", name): str(login[name]) for name in (*services.LOGIN, "auth_section")},
    }
    with shape(cloud, folder, options, port=processes.free_block(str(folder))) as running:
        yield Person(cloud, "member", running.url)


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
    ("method", "path", "fault"),
    [
        *(("GET", path, "503") for path in ("/$", "/schemas", "/images")),
        *(("POST", "/images$", status) for status in ("429", "500")),
        *(("PUT", "/file", status) for status in ("429", "503")),
        *(("GET", "/images", fault) for fault in ("truncate-answer", "corrupt-answer")),
        ("POST", "/images$", "truncate-answer"),
    ],
)
def test_glance_stumbles_for_a_while(
    flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path, method: str, path: str, fault: faulty.Fault
) -> None:
    before = ids(member, "zone-b")
    flaky.faults = [(method, path, fault)] * 2
    job = member.bring(qcow2, clouds=["zone-a", "zone-flaky"])
    assert job["status"] == "success", job
    good, stumbled = (target["attempts"] for target in job["targets"])
    assert good == 1 and stumbled in (2, 3)     # to find Glance's version takes two calls
    assert ids(member, "zone-b") - before == {job["image_id"]}


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


def test_glance_is_away_for_a_while(
    flaky: faulty.Proxy, patient: Person, qcow2: pathlib.Path
) -> None:
    """The Job says that it tries again, how often and why; the other zone does not wait."""
    made = patient.create(clouds=["zone-a", "zone-flaky"])
    job_id = made["job"]["id"]
    with flaky.away():
        patient.put(made["image"]["id"], qcow2.read_bytes())
        soon(lambda: patient.job(job_id)["targets"][1]["attempts"] > 2)
        job = patient.wait(job_id, "running")
        good, waiting = job["targets"]
        assert (waiting["status"], waiting["error"]["code"]) == ("retrying", "cloud.unreachable")
        assert "zone-flaky" in waiting["error"]["message"]
        soon(lambda: patient.job(job_id)["targets"][0]["status"] == "success")
    good, waited = patient.wait(job_id)["targets"]
    assert (good["status"], good["attempts"]) == ("success", 1)
    assert (waited["status"], waited["error"]) == ("success", None)
    assert waited["attempts"] > 2


def test_glance_goes_away_in_mid_transfer(
    flaky: faulty.Proxy, patient: Person, qcow2: pathlib.Path
) -> None:
    before = ids(patient, "zone-b")
    data = qcow2.read_bytes()
    flaky.throttle = len(data) / 12
    made = patient.create(clouds=["zone-flaky"])
    patient.put(made["image"]["id"], data)
    soon(flaky.received.total)
    with flaky.away():
        flaky.throttle = None
        soon(lambda: patient.job(made["job"]["id"])["targets"][0]["status"] == "retrying")
    job = patient.wait(made["job"]["id"])
    assert job["status"] == "success", job
    assert ids(patient, "zone-b") - before == {job["image_id"]}


@pytest.mark.parametrize("path", ["/v3/auth/tokens", "/OS-TRUST/trusts"])
def test_keystone_stumbles_for_a_while(
    keystone: faulty.Proxy, patient: Person, qcow2: pathlib.Path, path: str
) -> None:
    """When it fails to delete a trust, the Job ends, and the trust goes later."""
    method = "POST" if path.endswith("tokens") else "DELETE"
    made = patient.create(clouds=["zone-a", "zone-b"])
    keystone.faults = [(method, path, status) for status in ("503", "429", "500")]
    patient.put(made["image"]["id"], qcow2.read_bytes())
    job = patient.wait(made["job"]["id"])
    assert job["status"] == "success", job
    soon(lambda: not keystone.faults)
    soon(lambda: not patient.trusts())


def test_keystone_is_away_for_a_while(
    keystone: faulty.Proxy, patient: Person, qcow2: pathlib.Path
) -> None:
    made = patient.create(clouds=["zone-a", "zone-b"])
    job_id = made["job"]["id"]
    with keystone.away():
        patient.put(made["image"]["id"], qcow2.read_bytes())
        soon(lambda: all(target["attempts"] > 2 for target in patient.job(job_id)["targets"]))
        for target in patient.job(job_id)["targets"]:
            assert target["status"] == "retrying"
            assert target["error"]["code"] == "cloud.unreachable"
    job = patient.wait(job_id)
    assert job["status"] == "success", job
    soon(lambda: not patient.trusts())


def test_keystone_is_away_when_a_job_ends(
    flaky: faulty.Proxy, keystone: faulty.Proxy, patient: Person, qcow2: pathlib.Path
) -> None:
    """Who has a token needs no Keystone to bring the image there; its trust goes when that is back."""
    flaky.throttle = qcow2.stat().st_size / 12
    made = patient.create(clouds=["zone-flaky"])
    patient.put(made["image"]["id"], qcow2.read_bytes())
    soon(flaky.received.total)
    with keystone.away():
        flaky.throttle = None
        assert patient.wait(made["job"]["id"])["status"] == "success"
        assert patient.trusts()
    soon(lambda: not patient.trusts())


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [("GET", "/images", "stall"), ("POST", "/images$", "stall"), ("PUT", "/file", "stall 4")],
)
def test_glance_answers_no_more(
    flaky: faulty.Proxy, patient: Person, qcow2: pathlib.Path, method: str, path: str, fault: faulty.Fault
) -> None:
    """A call is given up after [openstack] timeout, and made again."""
    before = ids(patient, "zone-b")
    flaky.faults = [(method, path, fault)]
    job = patient.bring(qcow2, clouds=["zone-a", "zone-flaky"])
    assert job["status"] == "success", job
    assert [target["attempts"] for target in job["targets"]] == [1, 2]
    assert ids(patient, "zone-b") - before == {job["image_id"]}


def test_glance_answers_late(flaky: faulty.Proxy, patient: Person, qcow2: pathlib.Path) -> None:
    """But in time: that is no fault."""
    flaky.faults = [("POST", "/images$", "stall 1"), ("PUT", "/file", "stall 1")]
    job = patient.bring(qcow2, clouds=["zone-flaky"])
    assert (job["status"], job["targets"][0]["attempts"]) == ("success", 1)


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
    flaky.faults = [("PUT", "/file", "corrupt")]
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
    flaky.throttle = len(data) / 60
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


def test_service_stops_in_the_middle_of_eight_transfers(
    cloud: sandbox.Sandbox, service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    """SIGTERM hands all of them over; the next start goes on, and nothing is there twice."""
    data = qcow2.read_bytes()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(faulty.Proxy(cloud.url(f"glance-{zone}"))) for zone in "ab"]
        for zone, proxy in zip("ab", slow, strict=True):
            stack.enter_context(proxy.as_zone(cloud, f"zone-slow-{zone}"))
            proxy.throttle = len(data) / 60
        made = [member.create(clouds=["zone-slow-a", "zone-slow-b"]) for _ in range(4)]
        for each in made:
            assert member.put(each["image"]["id"], data).status_code == 204

        def targets() -> list[JSON]:
            return [target for each in made for target in member.job(each["job"]["id"])["targets"]]

        soon(lambda: all(each["step"] == "upload" and each["bytes_done"] for each in targets()), 30)
        service.stop()
        assert {program.status for program in service.parts} == {0}      # nothing had to be killed
        for proxy in slow:
            proxy.throttle = None
        service.start()
        for each in made:
            job = member.wait(each["job"]["id"], seconds=90)
            assert job["status"] == "success", job
            assert {target["image_ref"] for target in job["targets"]} == {each["image"]["id"]}
            assert {target["attempts"] for target in job["targets"]} == {1}
    mine = {each["image"]["id"] for each in made}
    for zone in ("zone-a", "zone-b"):
        there = member.zone(zone).image.images()
        ours = [i.id for i in there if (i.properties or {}).get("ciming_image") in mine]
        assert sorted(ours) == sorted(mine)


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
    """A Job whose trust was taken back says so, waits, and goes on under another one."""
    made = member.create()
    member.take_trusts_back()
    member.put(made["image"]["id"], qcow2.read_bytes())
    job = member.wait(made["job"]["id"], "waiting-credentials")
    assert job["targets"][0]["error"]["code"] == "cloud.auth_failed"
    assert member.call("POST", f"/v1/jobs/{job['id']}/resume").status_code == 202
    assert member.wait(job["id"])["status"] == "success"


@pytest.mark.parametrize("lost", ["role", "project"])
def test_trust_of_one_who_lost_the_role_or_project_goes_when_it_is_back(
    cloud: sandbox.Sandbox, another: Callable[..., tuple[ciming.Ciming, Person]], lost: str
) -> None:
    """Keystone lets nobody use it meanwhile, nor delete it, but it would work again."""
    service, _member = another(
        {("staging", "upload_expiry"): "1", ("engine", "housekeeping_interval"): "0.5"}
    )
    stranger, admin = Person(cloud, "stranger", service.url), Person(cloud, "admin", service.url)
    keystone = cloud.admin
    ids = {kind: keystone.ids(kind) for kind in ("user", "role")}
    project = f"/projects/{stranger.project_id}"
    role = f"{project}/users/{ids['user'][seed.STRANGER]}/roles/{ids['role']['member']}"
    job = stranger.create()["job"]
    [trust] = stranger.trusts()

    def have(it: bool) -> None:
        if lost == "role":
            keystone.call("PUT" if it else "DELETE", role)
        else:
            keystone.call("PATCH", project, {"project": {"enabled": it}})

    have(False)
    try:
        assert admin.wait(job["id"])["error"]["code"] == "upload.expired"
        soon(lambda: "can not be used now" in service.last_words(200))
        assert trust["id"] in {each["id"] for each in keystone.call("GET", "/OS-TRUST/trusts")["trusts"]}
    finally:
        have(True)
    stranger.log_in_again()
    soon(lambda: not stranger.trusts())
