# SPDX-License-Identifier: Apache-2.0
"""What a project may have, as registered in the real Keystone; and how often it may be in a public Cloud."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.functional.test_bad_input import the_error
from tests.functional.test_clouds import allow, config, credential, secret
from tests.person import Person
from tests.sandbox import ciming, identity, sandbox, seed

MIB = 1 << 20
BYTES = bytes(range(256)) * 8192        # 2 MiB
REGION = "zone-a"
Another = Callable[..., tuple[ciming.Ciming, Person]]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """Its own, with another OpenStack."""
    with sandbox.Sandbox(tmp_path_factory.mktemp("clouds"), second=True) as made:
        yield made


class Limits:
    """Of the service in Keystone, as an operator sets them."""

    def __init__(self, admin: identity.Identity) -> None:
        self._admin = admin
        self._service = admin.ids("service")["ciming"]
        self._ids: dict[str, str] = {}

    def register(self, **limits: int) -> None:
        wanted = [
            {"service_id": self._service, "region_id": REGION, "resource_name": name, "default_limit": most}
            for name, most in limits.items()
        ]
        made = self._admin.call("POST", "/registered_limits", {"registered_limits": wanted})
        self._ids |= {each["resource_name"]: each["id"] for each in made["registered_limits"]}

    def change(self, name: str, most: int) -> None:
        body = {"registered_limit": {"default_limit": most}}
        self._admin.call("PATCH", f"/registered_limits/{self._ids[name]}", body)

    def of_project(self, project_id: str, name: str, most: int) -> None:
        wanted = {"service_id": self._service, "region_id": REGION, "resource_name": name}
        body = {"limits": [{**wanted, "project_id": project_id, "resource_limit": most}]}
        self._admin.call("POST", "/limits", body)


@pytest.fixture(scope="module")
def limits(cloud: sandbox.Sandbox) -> Limits:
    admin = seed.login(cloud.state, "admin", "admin")
    reader, user = admin.ids("role")["reader"], admin.ids("user")["ciming"]
    admin.call("PUT", f"/system/users/{user}/roles/{reader}")
    return Limits(admin)


def options(cloud: sandbox.Sandbox, **other: str) -> dict[tuple[str, str], str]:
    """As the operator guide has them."""
    login = {
        "auth_type": "password",
        "auth_url": f"{cloud.url('keystone')}/v3",
        "username": "ciming",
        "password": cloud.state.passwords["ciming"],
        "user_domain_id": "default",
        "system_scope": "all",
        "endpoint_service_type": "multicloud",
        "endpoint_region_name": REGION,
        **other,
    }
    found = {("oslo_limit", name): value for name, value in login.items()}
    return {("DEFAULT", "use_keystone_limits"): "true", **found}


def create(member: Person, **wanted: Any) -> requests.Response:
    return member.call("POST", "/v1/images", json={"name": "demo", "clouds": ["zone-a"], **wanted})


def test_limits(another: Another, cloud: sandbox.Sandbox, limits: Limits) -> None:
    _service, member = another(options(cloud))
    # One that is not registered is 0, as oslo.limit has it.
    error = the_error(create(member), 413, "limit.exceeded")
    assert "image_count_total" in error["detail"] and "job_count_active" in error["detail"], error
    limits.register(image_count_total=3, job_count_active=2, image_stage_total=2)

    first = create(member, size=len(BYTES)).json()
    second = create(member).json()
    error = the_error(create(member), 413, "limit.exceeded")
    assert "may have 2 Jobs that have not ended (job_count_active), has 2" in error["detail"], error
    assert "image_count_total" not in error["detail"]
    assert len(member.trusts()) == 2        # nothing was left of what was refused

    # Bytes count when they come; two that were created may not both bring theirs.
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    url = f"/v1/images/{first['image']['id']}/file"
    half = member.call("PATCH", url, headers=tus, data=BYTES[:MIB])
    assert half.status_code == 204, half.text
    error = the_error(member.put(second["image"]["id"], BYTES), 413, "limit.exceeded")
    assert "2 MiB in the staging area (image_stage_total), has 2, and this takes 2 more" in error["detail"]
    # Nor a byte of it: who began brings the rest.
    length = {"Upload-Length": str(len(BYTES))}
    url_of_second = f"/v1/images/{second['image']['id']}/file"
    begins = member.call("PATCH", url_of_second, headers={**tus, **length}, data=BYTES[:1])
    the_error(begins, 413, "limit.exceeded")
    rest = member.call("PATCH", url, headers={**tus, "Upload-Offset": str(MIB)}, data=BYTES[MIB:])
    assert rest.status_code == 204, rest.text
    assert member.wait(first["job"]["id"])["status"] == "success"
    assert member.put(second["image"]["id"], BYTES).status_code == 204
    assert member.wait(second["job"]["id"])["status"] == "success"

    third = create(member, size=MIB).json()
    error = the_error(create(member), 413, "limit.exceeded")
    assert "may have 3 Images (image_count_total), has 3" in error["detail"], error
    # A change holds at once; a project's own limit instead of that for all.
    limits.change("image_count_total", -1)
    fourth = create(member)
    assert fourth.status_code == 202, fourth.text
    limits.of_project(member.project_id, "image_count_total", 2)
    limits.change("job_count_active", 100)
    the_error(create(member), 413, "limit.exceeded")
    for made in (third, fourth.json()):
        assert member.call("POST", f"/v1/jobs/{made['job']['id']}/cancel").status_code == 202
        member.wait(made["job"]["id"])
    # Who has too much can delete.
    for made in (first, second):
        job = member.call("DELETE", f"/v1/images/{made['image']['id']}").json()["job"]
        assert member.wait(job["id"])["status"] == "success"


@pytest.mark.parametrize(
    "wrong",
    [{"password": "swordfish"}, {"endpoint_region_name": "nowhere"}, {"auth_url": "http://127.0.0.1:1/v3"}],
)
def test_keystone_does_not_tell(another: Another, cloud: sandbox.Sandbox, wrong: dict[str, str]) -> None:
    service, member = another(options(cloud, **wrong))
    the_error(create(member), 503, "service.unavailable")
    assert member.get("/v1/images").json()["images"] == [] and not member.trusts()
    logs = "".join(log.read_text() for log in service.log_dir.glob("*.log"))
    assert "Limits can not be looked up" in logs and "swordfish" not in logs


def test_the_rate_in_a_public_cloud(another: Another, cloud: sandbox.Sandbox) -> None:
    """Of each project by itself; another Cloud, and zones, are not concerned."""
    service, member = another({("api", "public_cloud_rate"): "2"})
    admin, stranger = Person(cloud, "admin", service.url), Person(cloud, "stranger", service.url)
    ref = secret(admin, json.dumps(credential(cloud)))
    body = {"name": "shared", "provider": "openstack", "config": config(cloud), "visibility": "public"}
    made = admin.call("POST", "/v1/clouds", json={**body, "credential_ref": ref})
    assert made.status_code == 201, made.text
    allow(cloud, admin, ref)
    begun = [create(member, clouds=["shared", "zone-a"]) for _ in range(3)]
    assert [answer.status_code for answer in begun] == [202, 202, 429]
    error = the_error(begun[2], 429, "cloud.too_often")
    assert "2 Jobs in Cloud shared within an hour" in error["detail"]
    assert 3500 < int(begun[2].headers["Retry-After"]) <= 3600
    assert create(stranger, clouds=["shared"]).status_code == 202
    source = {"cloud": "shared", "image": str(uuid.uuid4())}
    read = [create(stranger, source=source) for _ in range(2)]       # which begins there, too
    assert [answer.status_code for answer in read] == [202, 429], [answer.text for answer in read]
    stranger.wait(read[0].json()["job"]["id"])
    assert create(member).status_code == 202
    assert len(member.trusts()) == 3
