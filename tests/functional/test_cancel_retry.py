# SPDX-License-Identifier: Apache-2.0
"""Jobs that their users cancel or retry, at every moment of their life."""

import contextlib
import hashlib
import json
import pathlib
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures

import pytest
import requests

from tests.functional import faulty
from tests.functional.conftest import soon
from tests.functional.test_bad_input import the_error
from tests.functional.test_faults import ids
from tests.functional.test_zone_sync import Glance
from tests.functional.tus import create, head, patch
from tests.person import JSON, Person
from tests.sandbox import ciming, sandbox, seed

Another = Callable[..., tuple[ciming.Ciming, Person]]
pytestmark = pytest.mark.usefixtures("service")
MIB = 1 << 20


@pytest.fixture
def flaky(cloud: sandbox.Sandbox, member: Person) -> Iterator[faulty.Proxy]:
    """zone-b's Glance once more, as zone-flaky, through a proxy that stumbles."""
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-flaky"):
        yield proxy


def act(who: Person, job: JSON, action: str) -> requests.Response:
    return who.call("POST", f"/v1/jobs/{job['id']}/{action}")


def done(answer: requests.Response) -> JSON:
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def statuses(job: JSON) -> list[str]:
    return [target["status"] for target in job["targets"]]


def fail(member: Person, flaky: faulty.Proxy, data: pathlib.Path, clouds: list[str]) -> JSON:
    """A Job whose Target in zone-flaky has failed for good."""
    flaky.faults = [("PUT", "/file", "503")] * 5
    job = member.bring(data, clouds=clouds)
    assert (job["targets"][-1]["status"], job["targets"][-1]["attempts"]) == ("error", 5)
    return job


# Cancel


def test_cancel_before_any_byte(service: ciming.Ciming, member: Person, data: bytes) -> None:
    image_id, job_id = create(member, data)
    job = done(act(member, member.job(job_id), "cancel"))
    assert (job["id"], job["wanted"]) == (job_id, "cancel")
    job = member.wait(job_id)
    assert (job["status"], job["error"]["code"]) == ("cancelled", "upload.terminated")
    assert statuses(job) == ["cancelled"]
    assert member.image(image_id)["status"] == "error"


def test_cancel_between_two_parts(service: ciming.Ciming, member: Person, data: bytes) -> None:
    image_id, job_id = create(member, data)
    assert patch(member, image_id, 0, data[:MIB]).status_code == 204
    done(act(member, member.job(job_id), "cancel"))
    assert member.wait(job_id)["status"] == "cancelled"
    assert head(member, image_id).status_code == 410
    the_error(patch(member, image_id, MIB, b"y"), 410, "upload.terminated")
    the_error(member.put(image_id, data), 410, "upload.terminated")
    assert not (service.staging_dir / job_id).exists()


@pytest.mark.parametrize("verb", ["put", "patch"])
def test_cancel_while_somebody_sends(
    service: ciming.Ciming, member: Person, data: bytes, verb: str
) -> None:
    """The sender is told at its next commit, and the Clouds that follow its bytes keep nothing."""
    before = ids(member, "zone-a")
    image_id, job_id = create(member, data)
    body = faulty.slowly(data, seconds=60, parts=120)
    with futures.ThreadPoolExecutor() as pool:
        sending = pool.submit(
            member.put if verb == "put" else lambda image_id, body: patch(member, image_id, 0, body),
            image_id,
            body,
        )
        soon(lambda: member.job(job_id)["progress"]["bytes_done"] > 0)
        done(act(member, member.job(job_id), "cancel"))
        the_error(sending.result(timeout=30), 410, "upload.terminated")
    assert member.wait(job_id)["status"] == "cancelled"
    assert not (service.staging_dir / job_id).exists()
    assert ids(member, "zone-a") == before


def test_cancel_in_mid_transfer(
    flaky: faulty.Proxy, service: ciming.Ciming, member: Person, data: bytes
) -> None:
    """What is finished stays, the rest is undone, and it does not take as long as the transfer would."""
    before = ids(member, "zone-b")
    flaky.throttle = len(data) / 60
    made = member.create(clouds=["zone-a", "zone-flaky"])
    assert member.put(made["image"]["id"], data).status_code == 204
    soon(lambda: statuses(member.job(made["job"]["id"]))[0] == "success", 30)
    soon(lambda: member.job(made["job"]["id"])["targets"][1]["bytes_done"] > 0, 30)
    done(act(member, made["job"], "cancel"))
    job = member.wait(made["job"]["id"], seconds=20)
    assert (job["status"], statuses(job), job["error"]) == ("cancelled", ["success", "cancelled"], None)
    assert job["targets"][1]["error"] is None
    assert ids(member, "zone-b") == before
    image = member.image(made["image"]["id"])
    assert (image["status"], [link["cloud"] for link in image["links"]]) == ("partial", ["zone-a"])
    assert not (service.staging_dir / job["id"]).exists()
    the_error(act(member, job, "retry"), 409, "job.was_cancelled")


def test_cancel_while_a_cloud_hangs(flaky: faulty.Proxy, member: Person, data: bytes) -> None:
    """It takes bytes no more, and answers nothing: nobody waits for it."""
    before = ids(member, "zone-b")
    flaky.faults = [("PUT", "/file", "stall")]
    made = member.create(clouds=["zone-a", "zone-flaky"])
    assert member.put(made["image"]["id"], data).status_code == 204
    soon(lambda: not flaky.faults and member.job(made["job"]["id"])["targets"][0]["status"] == "success", 30)
    done(act(member, made["job"], "cancel"))
    job = member.wait(made["job"]["id"], seconds=30)       # [openstack] timeout is 300
    assert (job["status"], statuses(job)) == ("cancelled", ["success", "cancelled"])
    assert ids(member, "zone-b") == before


@pytest.mark.parametrize("call", ["/file", "/v2/images/"])
def test_cancel_while_the_source_hangs(
    flaky: faulty.Proxy, service: ciming.Ciming, member: Person, qcow2: pathlib.Path, call: str
) -> None:
    source = Glance(member, "zone-b", "").put("source", qcow2.read_bytes(), disk_format="qcow2")["id"]
    flaky.faults = [("GET", call, "stall")]
    made = member.create(clouds=["zone-a"], source={"cloud": "zone-flaky", "image": source})
    soon(lambda: not flaky.faults)
    done(act(member, made["job"], "cancel"))
    job = member.wait(made["job"]["id"], seconds=30)       # [openstack] timeout is 300
    assert (job["status"], statuses(job)) == ("cancelled", ["cancelled"])
    assert not (service.staging_dir / job["id"]).exists()


def test_cancel_between_two_attempts(flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path) -> None:
    flaky.faults = [("PUT", "/file", "503")] * 4
    made = member.create(clouds=["zone-flaky"])
    member.put(made["image"]["id"], qcow2.read_bytes())
    soon(lambda: statuses(member.job(made["job"]["id"])) == ["retrying"])
    done(act(member, made["job"], "cancel"))
    job = member.wait(made["job"]["id"])
    assert job["status"] in ("cancelled", "success")     # that it had just begun the last attempt may be


def test_cancel_again_and_what_has_ended(flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path) -> None:
    """On the way to its end it is no error; afterwards it is, and the state is named."""
    flaky.throttle = qcow2.stat().st_size / 60
    made = member.create(clouds=["zone-flaky"])
    member.put(made["image"]["id"], qcow2.read_bytes())
    with futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: act(member, made["job"], "cancel"), range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert member.wait(made["job"]["id"])["status"] == "cancelled"
    error = the_error(act(member, made["job"], "cancel"), 409, "job.has_ended")
    assert "cancelled" in error["detail"]
    job = member.bring(qcow2)
    assert "success" in the_error(act(member, job, "cancel"), 409, "job.has_ended")["detail"]
    assert member.job(job["id"])["wanted"] == "run"


def test_cancel_by_the_command(flaky: faulty.Proxy, member: Person, data: bytes) -> None:
    flaky.throttle = len(data) / 60
    made = member.create(clouds=["zone-a", "zone-flaky"])
    member.put(made["image"]["id"], data)
    command = ("multicloud", "job", "cancel", made["job"]["id"])
    soon(lambda: statuses(member.job(made["job"]["id"]))[0] == "success", 30)
    run = member.openstack(*command, "--wait", "-f", "json", ok=(4,))
    assert json.loads(run.stdout)["status"] == "cancelled"
    assert f"Job {made['job']['id']} was cancelled." in run.stderr
    run = member.openstack(*command, ok=(1,))
    assert "has ended: cancelled" in run.stderr and "Traceback" not in run.stderr


# Retry


def test_retry_when_a_zone_is_back(
    flaky: faulty.Proxy, service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    """Only what failed is done again, with the kept bytes and under a new trust."""
    before = ids(member, "zone-b")
    job = fail(member, flaky, qcow2, ["zone-a", "zone-flaky"])
    assert (job["status"], ids(member, "zone-b")) == ("partial", before)
    [kept] = member.image(job["image_id"])["links"]
    run = member.openstack("multicloud", "job", "retry", job["id"], "--wait", "-f", "json")
    shown = json.loads(run.stdout)
    assert (shown["status"], shown["error"]) == ("success", None)
    again = member.job(job["id"])
    assert again["request_id"] != job["request_id"] and again["started_at"] > job["finished_at"]
    first, second = again["targets"]
    assert first == job["targets"][0]
    assert (second["attempts"], second["error"], second["bytes_done"]) == (1, None, qcow2.stat().st_size)
    image = member.image(job["image_id"])
    assert image["status"] == "active" and kept in image["links"]
    assert ids(member, "zone-b") - before == {second["image_ref"]}
    the_error(act(member, job, "retry"), 409, "job.nothing_failed")


def test_retry_of_what_the_staging_area_lost(
    flaky: faulty.Proxy, service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    """A Cloud that has the image gives it back."""
    flaky.faults = [("PUT", "/file", "503")] * 5
    job = member.bring(qcow2, clouds=["zone-a", "zone-flaky"])
    assert statuses(job) == ["success", "error"]
    for file in (service.staging_dir / job["id"]).iterdir():
        file.unlink()
    done(act(member, job, "retry"))
    job = member.wait(job["id"])
    assert (job["status"], statuses(job)) == ("success", ["success", "success"]), job
    [theirs] = [target for target in job["targets"] if target["cloud"] == "zone-flaky"]
    image = member.zone("zone-b").image.get_image(theirs["image_ref"])
    assert image.hash_value == hashlib.sha512(qcow2.read_bytes()).hexdigest()


def test_retry_from_what_was_linked_by_hand(
    flaky: faulty.Proxy, service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    """It is in no Cloud that the Job was for, but its user has it elsewhere."""
    job = fail(member, flaky, qcow2, ["zone-flaky"])
    for file in (service.staging_dir / job["id"]).iterdir():
        file.unlink()
    zone = member.zone("zone-a").image
    data = qcow2.read_bytes()
    theirs = zone.create_image("x", data=data, disk_format="qcow2", container_format="bare", tags=["x"])
    body = {"cloud": "zone-a", "image_ref": theirs.id}
    answer = member.call("POST", f"/v1/images/{job['image_id']}/links", json=body)
    linked = member.wait(answer.json()["job"]["id"])
    assert linked["status"] == "success", linked
    done(act(member, job, "retry"))
    job = member.wait(job["id"])
    assert (job["status"], statuses(job)) == ("success", ["success"]), job
    image = member.zone("zone-b").image.get_image(job["targets"][0]["image_ref"])
    assert image.hash_value == hashlib.sha512(qcow2.read_bytes()).hexdigest()
    assert (image.tags, member.image(job["image_id"])["tags"]) == ([], [])      # it has nothing of theirs
    zone.delete_image(theirs.id)


def test_retry_from_a_cloud_that_gives_other_bytes(
    cloud: sandbox.Sandbox, flaky: faulty.Proxy, service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    """They go nowhere, and the next retry asks for them anew."""
    with cloud.policy("glance-a", {"add_image": "!"}):
        job = member.bring(qcow2, clouds=["zone-a", "zone-flaky"])
    assert statuses(job) == ["error", "success"]
    for file in (service.staging_dir / job["id"]).iterdir():
        file.unlink()
    flaky.faults = [("GET", "/file", "corrupt-answer")]
    done(act(member, job, "retry"))
    job = member.wait(job["id"])
    assert (job["status"], job["error"]["code"]) == ("partial", "cloud.bad_answer")
    assert statuses(job) == ["error", "success"]
    done(act(member, job, "retry"))
    assert statuses(member.wait(job["id"])) == ["success", "success"]


def test_retry_without_any_copy(
    flaky: faulty.Proxy, service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    job = fail(member, flaky, qcow2, ["zone-flaky"])
    for file in (service.staging_dir / job["id"]).iterdir():
        file.unlink()
    done(act(member, job, "retry"))
    job = member.wait(job["id"])
    assert (job["status"], job["error"]["code"]) == ("error", "staging.damaged")


def test_retry_again_and_again(flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path) -> None:
    job = fail(member, flaky, qcow2, ["zone-flaky"])
    assert job["status"] == "error"
    for _ in range(2):
        flaky.faults = [("PUT", "/file", "503")] * 5
        done(act(member, job, "retry"))
        assert member.wait(job["id"])["status"] == "error"
        assert member.job(job["id"])["targets"][0]["attempts"] == 5
    done(act(member, job, "retry"))
    assert member.wait(job["id"])["status"] == "success"


def test_cancel_of_a_retry(flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path) -> None:
    before = ids(member, "zone-b")
    job = fail(member, flaky, qcow2, ["zone-a", "zone-flaky"])
    flaky.throttle = qcow2.stat().st_size / 60
    the_error(act(member, job, "cancel"), 409, "job.has_ended")
    assert done(act(member, job, "retry"))["status"] in ("queued", "running")
    the_error(act(member, job, "retry"), 409, "job.not_ended")
    done(act(member, job, "cancel"))
    job = member.wait(job["id"])
    assert (job["status"], statuses(job)) == ("cancelled", ["success", "cancelled"])
    assert ids(member, "zone-b") == before


def test_two_retries_at_once(flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path) -> None:
    """One wins; the other's trust is not left over."""
    job = fail(member, flaky, qcow2, ["zone-flaky"])
    flaky.throttle = qcow2.stat().st_size / 60
    trusts = len(member.trusts())
    with futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: act(member, job, "retry"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    for answer in answers:
        if answer.status_code == 409:
            the_error(answer, 409, "job.not_ended")
    assert len(member.trusts()) <= trusts + 1
    flaky.throttle = None
    assert member.wait(job["id"])["status"] == "success"


@contextlib.contextmanager
def as_member(cloud: sandbox.Sandbox, who: Person, name: str) -> Iterator[Person]:
    """Somebody else of the project, with the role as long as it lasts."""
    keystone = cloud.admin
    user, role = keystone.ids("user")[name], keystone.ids("role")["member"]
    url = f"/projects/{who.project_id}/users/{user}/roles/{role}"
    keystone.call("PUT", url)
    try:
        who.log_in_again()
        yield who
    finally:
        keystone.call("DELETE", url)
        who.log_in_again()


def test_a_colleague_retries(
    flaky: faulty.Proxy, cloud: sandbox.Sandbox, member: Person, reader: Person, qcow2: pathlib.Path
) -> None:
    """Under their own trust: that of who made the Job is gone."""
    before = ids(member, "zone-b")
    job = fail(member, flaky, qcow2, ["zone-flaky"])
    the_error(act(reader, job, "retry"), 403, "policy.forbidden")
    flaky.throttle = qcow2.stat().st_size / 60
    with as_member(cloud, reader, seed.READER) as colleague:
        trusts = len(member.trusts())
        done(act(colleague, job, "retry"))
        assert (len(colleague.trusts()), len(member.trusts())) == (1, trusts)
        flaky.throttle = None
        assert colleague.wait(job["id"])["status"] == "success"
        assert colleague.trusts() == []
    [made] = ids(member, "zone-b") - before
    assert member.zone("zone-b").image.get_image(made).owner_id == member.project_id


def test_retry_past_retention(
    cloud: sandbox.Sandbox, another: Another, qcow2: pathlib.Path
) -> None:
    service, member = another(
        {("staging", "retention"): "2", ("engine", "housekeeping_interval"): "0.5"}
    )
    with cloud.policy("glance-b", {"add_image": "!"}):
        job = member.bring(qcow2, clouds=["zone-b"])
        assert job["status"] == "error"
        done(act(member, job, "retry"))         # in time
        assert member.wait(job["id"])["status"] == "error"
    soon(lambda: not (service.staging_dir / job["id"]).exists())
    soon(lambda: act(member, job, "retry").status_code == 409)
    error = the_error(act(member, job, "retry"), 409, "job.not_kept")
    assert "status error" in error["detail"]
    assert member.trusts() == []


def test_bad_data_is_not_retried(member: Person, qcow2: pathlib.Path) -> None:
    job = member.bring(qcow2, disk_format="raw")
    error = the_error(act(member, job, "retry"), 409, "job.no_data")
    assert job["error"]["code"] in error["detail"] and "status error" in error["detail"]


def test_what_waits_for_its_data_is_not_retried(member: Person, data: bytes) -> None:
    _image_id, job_id = create(member, data)
    job = member.job(job_id)
    assert "status uploading" in the_error(act(member, job, "retry"), 409, "job.not_ended")["detail"]
    run = member.openstack("multicloud", "job", "retry", job_id, ok=(1,))
    assert "status uploading" in run.stderr and "Traceback" not in run.stderr
    done(act(member, job, "cancel"))
    member.wait(job_id)


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_whose_job_it_is(
    member: Person, reader: Person, stranger: Person, admin: Person, data: bytes, action: str
) -> None:
    _image_id, job_id = create(member, data)
    job = member.job(job_id)
    the_error(act(reader, job, action), 403, "policy.forbidden")
    for who in (stranger, admin):
        the_error(act(who, job, action), 404, "job.not_found")
    the_error(act(member, {"id": str(uuid.uuid4())}, action), 404, "job.not_found")
    the_error(act(member, {"id": "nonsense"}, action), 400, "job.invalid_id")
    answer = member.call("POST", f"/v1/jobs/{job_id}/{action}", json={"force": True})
    assert the_error(answer, 400, "request.invalid")["field"] == "force"
    assert member.job(job_id)["wanted"] == "run"
    done(act(member, job, "cancel"))
    member.wait(job_id)


def test_a_token_that_can_not_delegate_retries_all_the_same(
    flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path
) -> None:
    """With the token itself, which an engine holds."""
    job = fail(member, flaky, qcow2, ["zone-flaky"])
    token = {"X-Auth-Token": member.application_credential_token()}
    done(member.call("POST", f"/v1/jobs/{job['id']}/retry", headers=token))
    assert member.wait(job["id"])["status"] == "success"


def test_many_cancel_and_retry_at_random(flaky: faulty.Proxy, member: Person, qcow2: pathlib.Path) -> None:
    """Whatever the order: the Job ends, and (as after each test) nothing is left over."""
    job = fail(member, flaky, qcow2, ["zone-a", "zone-flaky"])
    flaky.throttle = qcow2.stat().st_size / 2
    until = threading.Event()

    def keep_on(action: str) -> set[int]:
        seen = set()
        while not until.is_set():
            seen.add(act(member, job, action).status_code)
        return seen

    with futures.ThreadPoolExecutor() as pool:
        answers = [pool.submit(keep_on, action) for action in ("cancel", "retry", "cancel", "retry")]
        try:
            soon(lambda: member.job(job["id"])["status"] in ("cancelled", "success"), 60)
        finally:
            until.set()
        assert set().union(*(answer.result() for answer in answers)) <= {202, 409}
    assert member.wait(job["id"])["status"] in ("cancelled", "success")
