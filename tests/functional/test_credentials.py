# SPDX-License-Identifier: Apache-2.0
"""Credentials that are nowhere written down: given with the request, or a token that can not delegate."""

import contextlib
import json
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from tests.functional import faulty, tus
from tests.functional.conftest import soon
from tests.functional.test_bad_input import the_error
from tests.functional.test_clouds import credential, delete, everything, register, secret
from tests.person import JSON, WAITS, Person
from tests.sandbox import ciming, distributed, identity, sandbox, seed
from tests.shapes import Shape

pytestmark = pytest.mark.every_shape



@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """With a second OpenStack."""
    with sandbox.Sandbox(tmp_path_factory.mktemp("credentials"), second=True) as made:
        yield made


@pytest.fixture(scope="module")
def service(
    request: pytest.FixtureRequest,
    cloud: sandbox.Sandbox,
    shape: Shape,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ciming.Ciming]:
    options = {
        ("engine", "retry_delay"): "0.2",
        ("engine", "max_attempts"): "3",
        ("engine", "housekeeping_interval"): "1",
        ("staging", "keep_free"): "0",
    }
    own = {} if shape is ciming.Ciming else {"broker": request.getfixturevalue("own_broker")}
    with shape(cloud, tmp_path_factory.mktemp("ciming"), options, **own) as running:
        yield running


@pytest.fixture(scope="module")
def member(cloud: sandbox.Sandbox, service: ciming.Ciming) -> Person:
    return Person(cloud, "member", service.url)


@pytest.fixture(scope="module")
def slow(cloud: sandbox.Sandbox, service: ciming.Ciming) -> Iterator[faulty.Proxy]:
    """A zone that can be made slow."""
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-slow"):
        yield proxy


@pytest.fixture(autouse=True)
def _quick_again(slow: faulty.Proxy, member: Person) -> Iterator[None]:
    yield
    slow.throttle = None
    slow.faults.clear()


@pytest.fixture(scope="module")
def there(cloud: sandbox.Sandbox) -> identity.Identity:
    """The other OpenStack's Keystone, as the user whose credentials are used."""
    return seed.login(cloud.state, seed.OTHER, seed.SECOND_USERS[seed.OTHER][0], "keystone2")


@pytest.fixture
def bare(member: Person) -> Iterator[JSON]:
    """A Cloud without a credential."""
    made = register(member, f"bare-{uuid.uuid4().hex[:8]}")
    yield made
    assert member.call("DELETE", f"/v1/clouds/{made['id']}").status_code == 204


class Another:
    """An application credential in the other OpenStack, that can be revoked."""

    def __init__(self, there: identity.Identity, cloud: sandbox.Sandbox) -> None:
        self._there = there
        self._path = f"/users/{there.user_id}/application_credentials"
        body = {"application_credential": {"name": f"another-{uuid.uuid4()}"}}
        made = there.call("POST", self._path, body)["application_credential"]
        self.id, self.secret = made["id"], made["secret"]
        auth = {"application_credential_id": self.id, "application_credential_secret": self.secret}
        self.said: JSON = {**credential(cloud), "auth": auth}

    def revoke(self) -> None:
        self._there.call("DELETE", f"{self._path}/{self.id}")


def act(member: Person, job: JSON, action: str, **body: Any) -> Any:
    return member.call("POST", f"/v1/jobs/{job['id']}/{action}", json=body)


def target(job: JSON, name: str) -> JSON:
    [found] = [each for each in job["targets"] if each["cloud"] == name]
    return dict(found)


def until_begun(member: Person, job_id: str, name: str, seconds: float = 30) -> None:
    """Until a Cloud has let us in, and gets the bytes."""
    soon(lambda: target(member.job(job_id), name)["bytes_done"] > 0, seconds)


def halfway(member: Person, data: bytes, name: str, **wanted: Any) -> tuple[str, str]:
    """Ids of an Image half of whose bytes came, and are on their way into a Cloud, and of its Job."""
    made = member.create(size=len(data), disk_format="raw", **wanted)
    image_id, job_id = made["image"]["id"], made["job"]["id"]

    def half() -> Iterator[bytes]:
        yield from faulty.slowly(data[: len(data) // 2], 5.0)    # it is committed every two
        until_begun(member, job_id, name)

    assert tus.patch(member, image_id, 0, half()).status_code == 204
    return image_id, job_id


@contextlib.contextmanager
def rows(service: ciming.Ciming) -> Iterator[sa.Connection]:
    """The service's database; no connection stays open, which everything() would cut loose."""
    with sa.create_engine(service.database_url, poolclass=sa.pool.NullPool).begin() as connection:
        yield connection


def trust_of(service: ciming.Ciming, job_id: str) -> Any:
    with rows(service) as connection:
        query = sa.text("SELECT trust_id, owner FROM jobs WHERE id = :job")
        return connection.execute(query, {"job": job_id}).one()


def test_given_with_the_command(
    cloud: sandbox.Sandbox,
    service: ciming.Ciming,
    member: Person,
    bare: JSON,
    qcow2: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """Nothing is stored in Barbican, and nothing of it is anywhere where we write."""
    name = bare["name"]
    file = tmp_path / "clouds.yaml"
    file.write_text(json.dumps({"clouds": {"openstack": cloud.clouds["other"]}}))     # as one downloads it
    told = member.openstack(
        *("multicloud", "image", "create", "given", "--file", str(qcow2), "-f", "json", "--wait"),
        *("--cloud", "zone-a", "--cloud", name, "--credential", f"{name}={file}"),
    )
    image = json.loads(told.stdout)
    assert {link["cloud"]: link["proof"] for link in image["links"]} == {"zone-a": "bytes", name: "bytes"}
    assert credential(cloud)["auth"]["application_credential_secret"].encode() not in everything(service)

    # And from there.
    source = {"cloud": name, "image": image["id"]}
    given = {name: credential(cloud)}
    made = member.create(clouds=["zone-b"], source=source, credentials=given)
    assert "credential" not in json.dumps(made)
    assert member.wait(made["job"]["id"])["status"] == "success"
    _delete_with(member, image["id"], given)
    _delete_with(member, made["image"]["id"], given)


def _delete_with(member: Person, image_id: str, given: JSON) -> None:
    """Delete an Image in Clouds of which one has no credential: it is given when that turned out."""
    answer = member.call("DELETE", f"/v1/images/{image_id}")
    job = member.wait(answer.json()["job"]["id"])
    if job["status"] != "success":
        assert {each["error"]["code"] for each in job["targets"] if each["error"]} == {"credential.missing"}
        assert act(member, job, "retry", credentials=given).status_code == 202
        assert member.wait(job["id"])["status"] == "success"


def test_what_is_no_good_is_refused_at_once(member: Person, bare: JSON, cloud: sandbox.Sandbox) -> None:
    name, given = bare["name"], credential(cloud)
    body = {"name": "x", "clouds": ["zone-a", name]}
    error = the_error(member.call("POST", "/v1/images", json=body), 400, "cloud.no_credential")
    assert name in error["detail"]
    bad: tuple[JSON, ...] = (
        {"zone-a": given},
        {"elsewhere": given},
        {name: {}},
        {name: {**given, "auth_url": "file:///etc/passwd", "token": "swordfish"}},
        {name: {"auth_type": "swordfish", "auth": {}}},
    )
    for said in bad:
        answer = member.call("POST", "/v1/images", json={**body, "credentials": said})
        assert "swordfish" not in answer.text
        the_error(answer, 400, "credential.invalid" if name in said else "cloud.no_credential")
    others: tuple[Any, ...] = ([], "x", {name: "x"}, {name: None}, {"": given})
    for other in others:
        answer = member.call("POST", "/v1/images", json={**body, "credentials": other})
        error = the_error(answer, 400, "request.invalid")
        assert error["field"].startswith("credentials")
    assert member.get("/v1/images", params={"name": "x"}).json()["images"] == []


def test_a_token_that_can_not_delegate(
    service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    """Keystone refuses a trust: the Job works with the token itself, which only an engine's memory has."""
    token = member.application_credential_token()
    headers = {"X-Auth-Token": token}
    body = {"name": "t", "clouds": ["zone-a", "zone-b"]}
    made = member.call("POST", "/v1/images", json=body, headers=headers).json()
    assert member.trusts() == []
    trust_id, owner = trust_of(service, made["job"]["id"])
    assert trust_id is None and owner
    assert member.put(made["image"]["id"], qcow2.read_bytes(), headers=headers).status_code == 204
    job = member.wait(made["job"]["id"])
    assert job["status"] == "success", job
    assert token.encode() not in everything(service)
    delete(member, made["image"]["id"])


def test_the_engine_dies(
    cloud: sandbox.Sandbox,
    service: ciming.Ciming,
    member: Person,
    slow: faulty.Proxy,
    bare: JSON,
    data: bytes,
) -> None:
    """With it goes what it held. What is done is done; the rest waits, says so, and goes on."""
    name = bare["name"]
    slow.throttle = len(data) / 60
    given = {name: credential(cloud)}
    token = {"X-Auth-Token": member.application_credential_token()}
    body = {"name": "t", "clouds": ["zone-a", "zone-slow", name], "size": len(data), "credentials": given}
    made = member.call("POST", "/v1/images", json=body, headers=token).json()
    job_id = made["job"]["id"]
    assert member.put(made["image"]["id"], data, headers=token).status_code == 204
    done = ("zone-a", name)
    soon(lambda: all(target(member.job(job_id), each)["status"] == "success" for each in done), 30)
    until_begun(member, job_id, "zone-slow")
    service.kill()
    slow.throttle = None
    service.start()
    job = member.wait(job_id, WAITS)
    error = target(job, "zone-slow")["error"]
    assert error["code"] == "credential.needed" and "zone-slow" in error["message"], error
    assert "resume" in error["message"] and target(job, "zone-slow")["status"] == "waiting"
    assert [target(job, each)["status"] for each in done] == ["success", "success"]
    told = member.openstack("multicloud", "job", "wait", job_id, ok=(5,))
    assert f"job resume {job_id}" in told.stderr, told.stderr
    the_error(act(member, job, "retry"), 409, "job.not_ended")
    the_error(act(member, job, "resume", credentials=[]), 400, "request.invalid")
    told = member.openstack("multicloud", "job", "resume", job_id, "--wait", "-f", "json")
    job = json.loads(told.stdout)
    assert job["status"] == "success", job
    the_error(act(member, job, "resume"), 409, "job.not_waiting")
    assert target(member.job(job_id), "zone-slow")["error"] is None
    assert len(member.image(made["image"]["id"])["links"]) == 3
    _delete_with(member, made["image"]["id"], given)


def test_what_was_given_is_asked_for_again(
    cloud: sandbox.Sandbox,
    service: ciming.Ciming,
    member: Person,
    bare: JSON,
    data: bytes,
) -> None:
    """The engine dies before the bytes are there."""
    name = bare["name"]
    given = {name: credential(cloud)}
    made = member.create(clouds=["zone-a", name], size=len(data), credentials=given)
    service.kill()
    service.start()
    assert member.put(made["image"]["id"], data).status_code == 204
    job = member.wait(made["job"]["id"], WAITS)
    assert target(job, "zone-a")["status"] == "success"
    error = target(job, name)["error"]
    assert error["code"] == "credential.needed" and f"Cloud {name}" in error["message"]
    error = the_error(act(member, job, "resume"), 400, "cloud.no_credential")
    assert name in error["detail"]
    assert act(member, job, "resume", credentials=given).status_code == 202
    assert member.wait(job["id"])["status"] == "success"
    _delete_with(member, made["image"]["id"], given)


def test_revoked_meanwhile(
    cloud: sandbox.Sandbox,
    service: ciming.Ciming,
    member: Person,
    there: identity.Identity,
    data: bytes,
) -> None:
    """One in Barbican, that the Cloud took at first: the Job waits, and goes on with the next one.

    A Glance remembers good tokens for minutes, so the engine starts again, and logs in again.
    """
    first = Another(there, cloud)
    made = register(member, "revoked", credential_ref=secret(member, json.dumps(first.said)))
    image_id, job_id = halfway(member, data, "revoked", clouds=["zone-a", "revoked"])
    first.revoke()
    service.kill()
    service.start()
    assert tus.patch(member, image_id, tus.offset(member, image_id), data[len(data) // 2 :]).ok
    job = member.wait(job_id, WAITS)
    error = target(job, "revoked")["error"]
    assert error["code"] == "cloud.auth_failed" and "revoked" in error["message"], error
    assert target(job, "zone-a")["status"] == "success"

    # The same secret is of no use; the Job waits on.
    assert act(member, job, "resume").status_code == 202
    job = member.wait(job_id, WAITS)

    second = Another(there, cloud)
    ref = secret(member, json.dumps(second.said))
    answer = member.call("PATCH", f"/v1/clouds/{made['id']}", json={"credential_ref": ref})
    assert answer.status_code == 200, answer.text
    assert act(member, job, "resume").status_code == 202
    job = member.wait(job_id)
    assert job["status"] == "success", job
    delete(member, image_id)
    assert member.call("DELETE", f"/v1/clouds/{made['id']}").status_code == 204


def test_the_trust_is_taken_back(member: Person, slow: faulty.Proxy, data: bytes) -> None:
    slow.throttle = len(data) / 60
    made = member.create(clouds=["zone-a", "zone-slow"], size=len(data))
    job_id = made["job"]["id"]
    assert member.put(made["image"]["id"], data).status_code == 204
    until_begun(member, job_id, "zone-slow")
    member.take_trusts_back()
    slow.throttle = None
    job = member.wait(job_id, WAITS, "success")
    if job["status"] == WAITS:      # else the zone had asked Keystone before
        assert "zone-slow" in target(job, "zone-slow")["error"]["message"]
        assert act(member, job, "resume").status_code == 202
        assert member.wait(job_id)["status"] == "success"
    delete(member, made["image"]["id"])


def test_a_token_ends_while_its_engine_lives(member: Person, slow: faulty.Proxy, data: bytes) -> None:
    """One that can not delegate. Its zone, which would remember it for minutes, says so by script."""
    token = {"X-Auth-Token": member.application_credential_token()}
    body = {"name": "t", "clouds": ["zone-a", "zone-slow"], "size": len(data)}
    made = member.call("POST", "/v1/images", json=body, headers=token).json()
    job_id = made["job"]["id"]
    slow.throttle = len(data) / 60
    assert member.put(made["image"]["id"], data, headers=token).status_code == 204
    until_begun(member, job_id, "zone-slow")
    slow.faults += [("GET", "/v2/images", "401")] * 9
    slow.throttle = None
    job = member.wait(job_id, WAITS)
    error = target(job, "zone-slow")["error"]
    assert error["code"] == "cloud.auth_failed" and "zone-slow" in error["message"], error
    assert "resume" in error["message"] and target(job, "zone-a")["status"] == "success"
    slow.faults.clear()
    assert act(member, job, "resume").status_code == 202
    job = member.wait(job_id)
    assert job["status"] == "success", job
    delete(member, made["image"]["id"])


def waiting(member: Person, service: ciming.Ciming, data: bytes) -> JSON:
    """A Job that waits for its user."""
    headers = {"X-Auth-Token": member.application_credential_token()}
    body = {"name": "t", "clouds": ["zone-a"], "size": len(data)}
    made = member.call("POST", "/v1/images", json=body, headers=headers).json()
    service.kill()
    service.start()
    assert member.put(made["image"]["id"], data).status_code == 204
    return member.wait(made["job"]["id"], WAITS)


def test_one_that_waits_is_cancelled(member: Person, service: ciming.Ciming, data: bytes) -> None:
    job = waiting(member, service, data)
    assert act(member, job, "cancel").status_code == 202
    assert member.wait(job["id"])["status"] == "cancelled"


def test_one_that_waits_too_long_ends(member: Person, service: ciming.Ciming, data: bytes) -> None:
    """And can be retried, as long as its bytes are kept."""
    job = waiting(member, service, data)
    with rows(service) as connection:
        old = sa.text("UPDATE jobs SET waiting_since = 1 WHERE id = :job")
        connection.execute(old, {"job": job["id"]})
    job = member.wait(job["id"])
    assert job["status"] == "error" and target(job, "zone-a")["error"]["code"] == "credential.needed", job
    assert act(member, job, "retry").status_code == 202
    assert member.wait(job["id"])["status"] == "success"
    delete(member, job["image_id"])


def test_nobody_to_hand_it_to(
    cloud: sandbox.Sandbox, service: ciming.Ciming, member: Person, bare: JSON
) -> None:
    """No engine runs: then nothing is created."""
    if not isinstance(service, distributed.Distributed):
        pytest.skip("the engine is in the process of the API")
    service.stop()
    service.start_without_engine()
    try:
        name = bare["name"]
        body = {"name": "nobody", "clouds": [name], "credentials": {name: credential(cloud)}}
        the_error(member.call("POST", "/v1/images", json=body), 503, "service.unavailable")
        assert member.get("/v1/images", params={"name": "nobody"}).json()["images"] == []
        assert member.trusts() == []
    finally:
        service.start_engine()


def test_an_address_that_is_forbidden_is_forbidden_here_too(
    member: Person, bare: JSON, cloud: sandbox.Sandbox
) -> None:
    """A credential can not send us anywhere else than where the Cloud is."""
    name = bare["name"]
    elsewhere = credential(cloud) | {
        "auth": {**credential(cloud)["auth"], "auth_url": "http://169.254.169.254/v3"}
    }
    made = member.create(clouds=[name], credentials={name: elsewhere})
    assert member.put(made["image"]["id"], b"x" * 512).status_code == 204
    job = member.wait(made["job"]["id"])
    assert target(job, name)["error"]["code"] == "credential.invalid", job
