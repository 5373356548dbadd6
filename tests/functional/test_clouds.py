# SPDX-License-Identifier: Apache-2.0
"""Clouds beyond one's own zones: another OpenStack, and its credential in Barbican."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional.test_bad_input import the_error
from tests.person import JSON, Person
from tests.sandbox import ciming, sandbox, seed, services
from tests.shapes import Shape

REGION = services.SECOND_REGION


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """With a second OpenStack."""
    with sandbox.Sandbox(tmp_path_factory.mktemp("clouds"), second=True) as made:
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
        ("staging", "keep_free"): "0",
    }
    # Another service's engine, at the same broker, would look for our Clouds in its own database.
    own = {} if shape is ciming.Ciming else {"broker": request.getfixturevalue("own_broker")}
    with shape(cloud, tmp_path_factory.mktemp("ciming"), options, **own) as running:
        yield running


@pytest.fixture(scope="module")
def member(cloud: sandbox.Sandbox, service: ciming.Ciming) -> Person:
    return Person(cloud, "member", service.url)


@pytest.fixture(scope="module")
def stranger(cloud: sandbox.Sandbox, service: ciming.Ciming) -> Person:
    return Person(cloud, "stranger", service.url)


@pytest.fixture(scope="module")
def admin(cloud: sandbox.Sandbox, service: ciming.Ciming) -> Person:
    return Person(cloud, "admin", service.url)


@pytest.fixture(scope="module")
def other(cloud: sandbox.Sandbox) -> Any:
    """The other OpenStack's Glance, by the plain SDK, as the user whose credential is used."""
    return Person(cloud, "other").zone(REGION).image


def config(cloud: sandbox.Sandbox, **more: Any) -> JSON:
    return {"auth_url": cloud.url("keystone2"), "region": REGION, **more}


def credential(cloud: sandbox.Sandbox) -> JSON:
    entry = cloud.clouds["other"]
    return {"auth_type": entry["auth_type"], "auth": entry["auth"]}


def secret(person: Person, payload: str, kind: str = "text/plain") -> str:
    """A secret of that person in Barbican; its href."""
    manager = person.zone("zone-a").key_manager
    answer = manager.post("/secrets", json={"payload": payload, "payload_content_type": kind})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret_ref"])


def register(person: Person, name: str, **wanted: Any) -> JSON:
    body = {"name": name, "provider": "openstack", "config": config(person.cloud), **wanted}
    answer = person.call("POST", "/v1/clouds", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def delete(person: Person, *images: str) -> None:
    """Images with all that is of them in the Clouds."""
    for image_id in images:
        answer = person.call("DELETE", f"/v1/images/{image_id}")
        if answer.status_code == 202:
            job = person.wait(answer.json()["job"]["id"])
            assert job["status"] == "success", job


def error_in(job: JSON, name: str) -> JSON:
    [target] = [each for each in job["targets"] if each["cloud"] == name]
    assert target["status"] == "error", target
    return dict(target["error"])


def everything(service: ciming.Ciming) -> bytes:
    """All that the service has written: rows, logs, configuration, staged bytes."""
    folders = [service.folder, *service.servers]
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return b"\n".join(path.read_bytes() for path in found)


def test_ones_own(
    cloud: sandbox.Sandbox, service: ciming.Ciming, member: Person, other: Any, qcow2: pathlib.Path
) -> None:
    """The whole story by the command line: register, bring there and from there, change, delete."""
    options = [f"--config={key}={value}" for key, value in config(cloud).items()]
    store = ("--credential", str(cloud.clouds_file), "--store")
    made = json.loads(
        member.openstack("multicloud", "cloud", "create", "other", *options, *store, "-f", "json").stdout
    )
    assert made["credential_ref"].startswith(f"{cloud.url('barbican')}/v1/secrets/")
    listed = json.loads(member.openstack("multicloud", "cloud", "list", "--long", "-f", "json").stdout)
    assert [(each["Name"], each["Zone"]) for each in listed] == [
        ("zone-a", True), ("zone-b", True), ("other", False),
    ]  # fmt: skip
    image = created(member, "there", "--file", str(qcow2), "--cloud", "zone-a", "--cloud", "other")
    sha512 = hashlib.sha512(qcow2.read_bytes()).hexdigest()
    links = {link["cloud"]: link for link in image["links"]}
    assert {name: link["proof"] for name, link in links.items()} == {"zone-a": "bytes", "other": "bytes"}
    assert links["other"]["region"] == REGION and links["other"]["image_ref"] == image["id"]
    found = other.get_image(image["id"])
    assert (found.status, found.hash_value, found.disk_format) == ("active", sha512, "qcow2")
    assert "ciming_project" not in (found.properties or {})

    # What is there comes into a zone.
    by_hand = other.create_image(
        "by hand", data=qcow2.read_bytes(), disk_format="qcow2", container_format="bare"
    )
    back = created(member, "back", "--from", "other:by hand", "--cloud", "zone-b")
    refs = {link["cloud"]: link["image_ref"] for link in back["links"]}
    assert refs.keys() == {"other", "zone-b"} and refs["other"] == by_hand.id
    assert member.zone("zone-b").image.get_image(refs["zone-b"]).hash_value == sha512

    # It is checked as well as a zone is.
    for name in ("other", "zone-a"):
        checked = json.loads(member.openstack("multicloud", "cloud", "check", name, "-f", "json").stdout)
        assert {"login", "create", "read", "delete"} < {each["Check"] for each in checked}
        assert not [each for each in checked if each["Passed"] is False], checked
    assert {each.id for each in other.images()} == {image["id"], by_hand.id}

    # Its secret is nowhere but in Barbican.
    written = everything(service)
    assert made["id"].encode() in written
    assert credential(cloud)["auth"]["application_credential_secret"].encode() not in written

    # It is in use, and so it stays.
    refused = member.openstack("multicloud", "cloud", "delete", "other", ok=(1,))
    assert image["id"] in refused.stderr and "HTTP 409" in refused.stderr
    change = ("multicloud", "cloud", "set", "other", "--config", "region=Elsewhere", "-f", "json")
    moved = member.openstack(*change)
    assert json.loads(moved.stdout)["credential_ref"] is None and "was cleared" in moved.stderr
    bare = member.call("POST", "/v1/images", json={"name": "t", "clouds": ["other"]})
    the_error(bare, 400, "cloud.no_credential")
    again = ("--config", f"region={REGION}", *store)
    member.openstack("multicloud", "cloud", "set", "other", "--name", "renamed", *again)
    assert {link["cloud"] for link in member.image(image["id"])["links"]} == {"zone-a", "renamed"}
    delete(member, image["id"], back["id"])
    assert [each.id for each in other.images()] == []
    member.openstack("multicloud", "cloud", "delete", "renamed")
    assert [each["zone"] for each in member.get("/v1/clouds").json()["clouds"]] == [True, True]


def created(member: Person, name: str, *options: str) -> JSON:
    """What the command shows when it has brought an image where it shall be."""
    command = ("multicloud", "image", "create", name, *options, "--wait", "-f", "json")
    return dict(json.loads(member.openstack(*command).stdout))


def test_a_password_does_as_well(
    cloud: sandbox.Sandbox, service: ciming.Ciming, member: Person, qcow2: pathlib.Path
) -> None:
    login = {
        "auth_type": "password",
        "username": seed.OTHER,
        "password": cloud.state.passwords[seed.OTHER],
        "project_name": seed.SECOND_USERS[seed.OTHER][0],
        "user_domain_id": "default",
        "project_domain_id": "default",
    }
    made = register(member, "by-password", credential_ref=secret(member, json.dumps(login)))
    job = member.bring(qcow2, clouds=["by-password"])
    assert job["status"] == "success", job
    delete(member, job["image_id"])
    assert member.call("DELETE", f"/v1/clouds/{made['id']}").status_code == 204


@pytest.mark.parametrize(
    ("code", "words", "make"),
    [
        ("credential.invalid", "neither a JSON object", lambda person: secret(person, "swordfish")),
        ("credential.invalid", "no other keys", lambda person: secret(person, '{"swordfish": "x"}')),
        (
            "credential.not_readable",
            "Barbican answered 403",
            lambda person: secret(Person(person.cloud, "stranger"), "swordfish"),
        ),
        (
            "credential.missing",
            "gone from Barbican",
            lambda person: f"{person.cloud.url('barbican')}/v1/secrets/67ba1d7e-0000-4000-8000-00000000000a",
        ),
        (
            "cloud.auth_failed",
            "Keystone did not let CIMinG",
            lambda person: secret(person, json.dumps(_with_another_secret(person.cloud))),
        ),
    ],
    ids=["no-object", "other-keys", "somebody-elses", "gone", "revoked"],
)
def test_a_secret_of_no_use(
    service: ciming.Ciming,
    member: Person,
    qcow2: pathlib.Path,
    code: str,
    words: str,
    make: Callable[[Person], str],
) -> None:
    """The Target says which Cloud and why, and nothing of what is in the secret; the zone has its image."""
    made = register(member, "of-no-use", credential_ref=make(member))
    job = member.bring(qcow2, clouds=["zone-a", "of-no-use"])
    assert job["status"] == "partial", job
    error = error_in(job, "of-no-use")
    assert error["code"] == code and words in error["message"] and "of-no-use" in error["message"]
    assert "swordfish" not in json.dumps(job)
    assert b"swordfish" not in everything(service)

    checked = member.call("POST", "/v1/clouds/of-no-use/check").json()
    assert checked["passed"] is False and words in checked["checks"][-1]["message"], checked

    # It is put right, and the Job tried again.
    good = secret(member, json.dumps(credential(member.cloud)))
    assert member.call("PATCH", f"/v1/clouds/{made['id']}", json={"credential_ref": good}).status_code == 200
    assert member.call("POST", f"/v1/jobs/{job['id']}/retry").status_code == 202
    assert member.wait(job["id"])["status"] == "success"
    delete(member, job["image_id"])
    assert member.call("DELETE", f"/v1/clouds/{made['id']}").status_code == 204


def _with_another_secret(cloud: sandbox.Sandbox) -> JSON:
    given = credential(cloud)
    return {**given, "auth": {**given["auth"], "application_credential_secret": "swordfish"}}


def test_a_public_one(
    cloud: sandbox.Sandbox,
    service: ciming.Ciming,
    member: Person,
    stranger: Person,
    admin: Person,
    other: Any,
    qcow2: pathlib.Path,
) -> None:
    """All use one account there, and each project sees its own images only."""
    body = {"name": "shared", "provider": "openstack", "config": config(cloud), "visibility": "public"}
    the_error(member.call("POST", "/v1/clouds", json=body), 403, "policy.forbidden")
    ref = secret(admin, json.dumps(credential(cloud)))
    made = register(admin, "shared", visibility="public", credential_ref=ref)
    assert member.get("/v1/clouds/shared").json()["credential_ref"] is None
    mine = {**body, "visibility": "private"}
    the_error(member.call("POST", "/v1/clouds", json=mine), 409, "cloud.name_taken")

    # The service user may not read the secret yet.
    error = error_in(member.bring(qcow2, clouds=["shared"]), "shared")
    assert error["code"] == "credential.not_readable" and "ACL" in error["message"]
    allow(cloud, admin, ref)
    job = member.bring(qcow2, clouds=["shared"])
    assert job["status"] == "success", job
    found = other.get_image(job["image_id"])
    assert found.properties["ciming_project"] == member.project_id
    by_hand = other.create_image("operators", data=b"x" * 512, disk_format="raw", container_format="bare")

    # A stranger sees neither that image nor the operator's own.
    for image_ref in (job["image_id"], by_hand.id, by_hand.name):
        made_of = stranger.create(source={"cloud": "shared", "image": image_ref})
        assert stranger.wait(made_of["job"]["id"])["error"]["code"] == "source.not_found"
    own = stranger.bring(qcow2, clouds=["shared"])
    assert own["status"] == "success", own
    at_home = stranger.bring(qcow2)["image_id"]
    body = {"cloud": "shared", "image_ref": job["image_id"]}
    answer = stranger.call("POST", f"/v1/images/{at_home}/links", json=body)
    assert stranger.wait(answer.json()["job"]["id"])["status"] == "error"

    # The owner of it does, and has it elsewhere.
    answer = member.call("POST", f"/v1/images/{job['image_id']}/clouds", json={"clouds": ["zone-b"]})
    assert member.wait(answer.json()["job"]["id"])["status"] == "success"
    delete(member, job["image_id"])
    assert {each.id for each in other.images()} == {own["image_id"], by_hand.id}
    the_error(admin.call("DELETE", f"/v1/clouds/{made['id']}"), 409, "cloud.in_use")
    delete(stranger, own["image_id"], at_home)
    other.delete_image(by_hand.id)
    assert admin.call("DELETE", f"/v1/clouds/{made['id']}").status_code == 204


def allow(cloud: sandbox.Sandbox, admin: Person, ref: str) -> None:
    """Let the engine's service user read a secret: in each shape of the service it is another one."""
    users = cloud.admin.ids("user")
    readers = [users[name] for name in ("ciming", seed.ENGINE)]
    acl = {"read": {"users": readers, "project-access": True}}
    manager = admin.zone("zone-a").key_manager
    answer = manager.put(f"/secrets/{ref.rpartition('/')[2]}/acl", json=acl)
    assert answer.status_code == 200, answer.text


def test_where_nobody_may_go(
    cloud: sandbox.Sandbox, another: Callable[..., tuple[ciming.Ciming, Person]], qcow2: pathlib.Path
) -> None:
    """By its address it can not be registered; a name is found out when it is connected to."""
    _service, member = another({("egress", "allow_loopback"): "false"})
    body = {"name": "here", "provider": "openstack", "config": config(cloud)}
    error = the_error(member.call("POST", "/v1/clouds", json=body), 400, "cloud.invalid_config")
    assert error["field"] == "config.auth_url" and "own host" in error["detail"]
    url = cloud.url("keystone2").replace("127.0.0.1", "localhost")
    ref = secret(member, json.dumps({**credential(cloud), "auth": _without_url(cloud)}))
    register(member, "here", config=config(cloud, auth_url=url), credential_ref=ref)
    job = member.bring(qcow2, clouds=["zone-a", "here"])
    error = error_in(job, "here")
    assert error["code"] == "egress.refused" and "own host" in error["message"], error
    delete(member, job["image_id"])


def _without_url(cloud: sandbox.Sandbox) -> JSON:
    return {key: value for key, value in credential(cloud)["auth"].items() if key != "auth_url"}
