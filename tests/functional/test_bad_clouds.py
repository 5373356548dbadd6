# SPDX-License-Identifier: Apache-2.0
"""Clouds that can not be used, for every reason there is: each is told by its name, and nothing hangs.

What else another OpenStack may answer is in tests/contract/test_elsewhere.py.
"""

import base64
import contextlib
import json
import pathlib
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import pytest

from tests.contract.on_openstack import zone_at
from tests.contract.test_elsewhere import Strange, said
from tests.functional.test_bad_input import the_error
from tests.functional.test_clouds import delete, error_in, everything, register, secret
from tests.person import JSON, Person
from tests.sandbox import ciming, sandbox
from tests.unit import certificates, sites

Another = Callable[..., tuple[ciming.Ciming, Person]]

BEYOND = {"zone-beyond": "http://169.254.169.254/", "zone-private": "http://10.0.0.1:9292/"}
FISH = "swordfish"
PASSWORD = {"auth_type": "v3password", "username": "alice", "password": FISH, "project_name": "studio"}
PASSWORD |= {"user_domain_id": "default", "project_domain_id": "default"}
TOKENS = ("POST", "/auth/tokens")


class Bad(NamedTuple):
    """A Cloud, and what its Target's error says beside its name."""

    code: str
    says: str
    credential_ref: str
    config: JSON


class Maker:
    """Makes Clouds with something wrong."""

    def __init__(self, cloud: sandbox.Sandbox, member: Person, stack: contextlib.ExitStack) -> None:
        self._cloud = cloud
        self._member = member
        self._stack = stack
        self._keystone = cloud.url("keystone")
        self.password = cloud.state.passwords["alice"]
        self.good = json.dumps(PASSWORD | {"password": self.password})

    def secret(self, code: str, says: str, payload: str | JSON, kind: str = "text/plain") -> Bad:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        return Bad(code, says, secret(self._member, text, kind), {"auth_url": self._keystone})

    def ref(self, code: str, says: str, ref: str) -> Bad:
        return Bad(code, says, ref, {"auth_url": self._keystone})

    def place(self, code: str, says: str, **config: str) -> Bad:
        where = {"auth_url": self._keystone, **config}
        return Bad(code, says, secret(self._member, self.good), where)

    def strange(self, code: str, says: str, answer: Any, pause: float = 0.0) -> Bad:
        """Its Keystone answers so to whoever logs in."""
        proxy = self._stack.enter_context(Strange(self._keystone))
        proxy.answers, proxy.pause = [(*TOKENS, answer)], pause
        return self.place(code, says, auth_url=proxy.url)

    def without_payload(self) -> str:
        answer = self._member.zone("zone-a").key_manager.post("/secrets", json={"name": "empty"})
        return str(answer.json()["secret_ref"])


def bad_clouds(maker: Maker, stranger: Person, site: sites.Site) -> Iterator[tuple[str, Bad]]:
    invalid, refused = "credential.invalid", "egress.refused"
    nobodys = f"{maker._cloud.url('barbican')}/v1/secrets/{uuid.uuid4()}"
    yield "nobodys", maker.ref("credential.missing", "gone from Barbican", nobodys)
    yield "empty", maker.ref("credential.missing", "gone from Barbican", maker.without_payload())
    theirs = secret(stranger, maker.good)
    yield "somebodys", maker.ref("credential.not_readable", "Barbican answered 403", theirs)
    yield "text", maker.secret(invalid, "neither a JSON object", FISH)
    yield "long", maker.secret(invalid, "neither a JSON object", FISH.ljust(20_000, "x"))
    binary = {"payload": base64.b64encode(b"\xff\xfe" * 99).decode(), "payload_content_encoding": "base64"}
    yield "binary", maker.ref(invalid, "neither a JSON object", stored(maker._member, **binary))
    yield "file", maker.secret(invalid, "no other keys", PASSWORD | {"cacert": "/etc/swordfish"})
    token_file = {"auth_type": "v3oidcaccesstokenfile", "auth": {"access_token_file": "/etc/swordfish"}}
    yield "token-file", maker.secret(invalid, "no other keys", token_file)
    yield "plugin", maker.secret(invalid, "auth_type", PASSWORD | {"auth_type": "swordfish:Plugin"})
    elsewhere = PASSWORD | {"auth_url": "https://swordfish.example.com/v3"}
    yield "other-keystone", maker.secret(invalid, "another Keystone", elsewhere)
    yield "wrong", maker.secret("cloud.auth_failed", "did not let CIMinG", PASSWORD)
    yield "no-region", maker.place("cloud.no_endpoint", "image endpoint", region="nowhere")
    yield "catalog", maker.place(refused, "link-local", region="zone-beyond")
    yield "private-catalog", maker.place(refused, "private network", region="zone-private")
    away = said(b"", 302, Location="http://10.0.0.1/v3/auth/tokens")
    yield "redirect", maker.strange(refused, "private network", away)
    yield "certificate", maker.place("cloud.tls_failed", "certificate", auth_url=site.url())
    plain = maker._keystone.replace("http:", "https:")
    yield "no-tls", maker.place("cloud.unreachable", "SSL", auth_url=plain)
    yield "nobody", maker.place("cloud.unreachable", "refused", auth_url="http://127.0.0.1:1")
    echo = said({"error": {"message": f"not {maker.password}", "code": 401}}, 401)
    yield "echo", maker.strange("cloud.auth_failed", "not ***", echo)
    yield "nonsense", maker.strange("cloud.bad_answer", "not Keystone's", said({"token": []}, 201))
    yield "silent", maker.strange("cloud.unreachable", "timed out", said(b"{}"), pause=600)
    yield "slow", maker.strange("cloud.unreachable", "timed out", said(b"{}"), pause=0.05)


def stored(person: Person, **body: str) -> str:
    kind = {"payload_content_type": "application/octet-stream"}
    answer = person.zone("zone-a").key_manager.post("/secrets", json={**body, **kind})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret_ref"])


def test_each_is_told_by_its_name(
    cloud: sandbox.Sandbox, another: Another, stranger: Person, qcow2: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """One Job into all of them, and a zone; then each is checked. All ends, and no secret is told."""
    options = {
        ("egress", "allow_private"): "false",
        ("openstack", "timeout"): "5",
        ("engine", "max_attempts"): "2",
        ("engine", "retry_delay"): "0.1",
        ("engine", "max_transfers"): "64",
        ("api", "max_targets"): "64",
    }
    service, member = another(options)
    certificates.make(tmp_path / "certificate")
    with contextlib.ExitStack() as stack:
        for region, url in BEYOND.items():
            stack.enter_context(zone_at(cloud, region, url))
        site = stack.enter_context(sites.serving(tmp_path / "certificate"))
        every = dict(bad_clouds(Maker(cloud, member, stack), stranger, site))
        for name, bad in every.items():
            config = {"region": "zone-b", **bad.config}
            register(member, name, config=config, credential_ref=bad.credential_ref)
        job = member.bring(qcow2, clouds=["zone-a", *every])
        assert job["status"] == "partial", job
        for name, bad in every.items():
            error = error_in(job, name)
            assert error["code"] == bad.code, (name, error)
            assert name in error["message"] and bad.says in error["message"], (name, error)
        link = {"cloud": "wrong", "image_ref": job["image_id"]}
        linking = member.call("POST", f"/v1/images/{job['image_id']}/links", json=link).json()["job"]
        job = member.wait(linking["id"])        # and does not wait for a better one
        assert (job["status"], error_in(job, "wrong")["code"]) == ("error", "cloud.auth_failed")
        with futures.ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda name: member.call("POST", f"/v1/clouds/{name}/check"), every)
        for (name, bad), answer in zip(every.items(), answers, strict=True):
            assert answer.status_code == 200, answer.text
            checked = answer.json()
            failed = [each for each in checked["checks"] if each["passed"] is False]
            assert checked["passed"] is False and bad.says in failed[0]["message"], (name, checked)
        written = everything(service)
        for word in (FISH, cloud.state.passwords["alice"]):
            assert word not in json.dumps(job) and word.encode() not in written
        assert site.asked == []
        delete(member, job["image_id"])


LONG = "x" * 10_000


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/v1/images/{image}/links", {"cloud": "zone-a", "image_ref": LONG}, "image_ref"),
        ("POST", "/v1/images/{image}/links", {"cloud": LONG, "image_ref": "x"}, "cloud"),
        ("POST", "/v1/images/{image}/clouds", {"clouds": [LONG]}, "clouds"),
        (
            *("POST", "/v1/images"),
            {"name": "t", "clouds": ["zone-b"], "source": {"cloud": "zone-a", "image": LONG}},
            "source.image",
        ),
        ("POST", "/v1/clouds", {"name": LONG}, "name"),
        ("POST", "/v1/clouds", {"provider": LONG}, "provider"),
        ("POST", "/v1/clouds", {"credential_ref": f"http://{LONG}/v1/secrets/x"}, "credential_ref"),
        ("POST", "/v1/clouds", {"config": {"auth_url": f"http://{LONG}", "region": "x"}}, "config.auth_url"),
        ("POST", "/v1/clouds", {"config": {"auth_url": "http://a", "region": LONG}}, "config.region"),
        ("POST", "/v1/clouds", {"config": {LONG: "x"}}, f"config.{LONG}"[:200]),
    ],
)
def test_what_is_too_long(
    service: ciming.Ciming, member: Person, method: str, path: str, body: JSON, field: str
) -> None:
    """10,000 characters, wherever a Cloud or what is in it is named."""
    if path == "/v1/clouds":
        body = {"name": "t", "provider": "openstack", "config": {}, **body}
    answer = member.call(method, path.format(image=uuid.uuid4()), json=body)
    assert answer.status_code == 400, answer.text
    assert field in [error.get("field") for error in answer.json()["errors"]]
    assert len(answer.content) < 5_000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/v1/clouds/{LONG}"),
        ("DELETE", f"/v1/clouds/{LONG}"),
        ("POST", f"/v1/clouds/{LONG}/check"),
        ("DELETE", f"/v1/images/{uuid.uuid4()}/links/{LONG}"),
        ("DELETE", f"/v1/images/{uuid.uuid4()}?cloud={LONG}"),
        ("GET", f"/v1/images?cloud={LONG}"),
        ("GET", f"/v1/jobs?cloud={LONG}"),
        ("GET", f"/v1/clouds?name={LONG}"),
    ],
    ids=range(8),
)
def test_a_path_that_is_too_long(service: ciming.Ciming, member: Person, method: str, path: str) -> None:
    answer = member.call(method, path)
    assert 400 <= answer.status_code < 500 and len(answer.content) < 5_000


@pytest.mark.parametrize("kind", ["containers", "orders", "secrets/x", "secrets"])
def test_an_href_that_is_no_secret(service: ciming.Ciming, member: Person, kind: str) -> None:
    """Of the right Barbican."""
    ref = f"{member.cloud.url('barbican')}/v1/{kind}/{uuid.uuid4()}"
    if kind == "secrets":
        ref = f"{ref}/payload"
    place = {"auth_url": "https://keystone.example.com", "region": "x"}
    body = {"name": "t", "provider": "openstack", "config": place, "credential_ref": ref}
    error = the_error(member.call("POST", "/v1/clouds", json=body), 400, "cloud.invalid_secret")
    assert error["field"] == "credential_ref"
