# SPDX-License-Identifier: Apache-2.0
"""No credential comes to rest, whichever way it came in and however its Job ends; the search would find it.

To add a way: one line in WAYS, or in wrong_places().
"""

import base64
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import amqp
import pytest
import requests
import sqlalchemy as sa
import yaml

from tests.functional import canaries as birds
from tests.functional import tus
from tests.functional.conftest import soon
from tests.functional.test_clouds import allow, config, secret
from tests.person import ENDS, JSON, WAITS
from tests.sandbox import aws, ciming, gcp, processes, sandbox, seed, servers
from tests.shapes import Shape

SMALL = bytes(range(256)) * 4096
LARGE = SMALL * 6
PIECE = 8 << 10      # so small that the whole takes minutes
AMAZON, GOOGLE = "for AWS: the", "for Google: the"
BUCKET = "images"
NOTIFICATIONS = ("oslo_messaging_notifications", "driver")


@pytest.fixture(scope="module")
def canaries() -> birds.Canaries:
    return birds.Canaries()


@pytest.fixture(scope="module")
def cloud(
    canaries: birds.Canaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sandbox.Sandbox]:
    """With a second OpenStack; the passwords of users are canaries."""
    made = sandbox.Sandbox(tmp_path_factory.mktemp("clouds"), second=True)
    made.state.passwords |= {
        user: canaries.new(f"the password of {user}") for user in (seed.MEMBER, seed.OTHER, "admin")
    }
    made.state.passwords |= {user: canaries.new(birds.OURS, signs=False) for user in ("ciming", seed.ENGINE)}
    with made:
        yield made


@pytest.fixture(scope="module")
def _cores() -> Iterator[None]:
    """Processes may leave core files, unless they do something about it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.fixture(scope="module")
def service(
    request: pytest.FixtureRequest,
    cloud: sandbox.Sandbox,
    shape: Shape,
    _cores: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ciming.Ciming]:
    alone = shape is ciming.Ciming
    options = {
        ("engine", "retry_delay"): "0.2",
        ("engine", "max_attempts"): "2",
        ("engine", "housekeeping_interval"): "1",
        ("api", "threads"): "48",               # all ways are taken at once, and twice
        ("api", "max_uploads"): "32",
        ("api", "max_project_uploads"): "24",
        ("engine", "max_stages"): "32",
        ("engine", "max_transfers"): "32",
        ("engine", "max_transfers_per_cloud"): "32",
        ("engine", "max_transfers_per_project"): "32",
        ("staging", "keep_free"): "0",
        ("openstack", "zone_formats"): "zone-b:raw",
        NOTIFICATIONS: "log" if alone else "messagingv2",
        ("DEFAULT", "default_log_levels"): "keystoneauth.session=DEBUG",    # and so every other one, too
    }
    own = {} if alone else {"broker": request.getfixturevalue("own_broker")}
    folder = tmp_path_factory.mktemp("ciming")
    scratch = folder / "scratch"
    scratch.mkdir()
    elsewhere = {"TMPDIR": str(scratch), "HOME": str(scratch)}      # what is written there is looked at
    with shape(cloud, folder, options, environment=elsewhere, **own) as running:
        yield running


@dataclasses.dataclass
class World:
    """All that a way in needs; and what was seen from outside."""

    canaries: birds.Canaries
    cloud: sandbox.Sandbox
    service: ciming.Ciming
    member: birds.Answers
    admin: birds.Answers
    taps: list[birds.Tap]
    processes: birds.Processes
    mirror: birds.Mirror
    amazon: aws.StandIn
    google: gcp.StandIn
    keys: int = 0
    sent: set[bytes] = dataclasses.field(default_factory=set)
    of_keys: dict[str, set[bytes]] = dataclasses.field(default_factory=dict)

    def password(self) -> JSON:
        """Of the other cloud's user: the password itself is a canary."""
        return {
            "auth_type": "password",
            "username": seed.OTHER,
            "password": self.cloud.state.passwords[seed.OTHER],
            "project_name": seed.SECOND_USERS[seed.OTHER][0],
            "user_domain_id": "default",
            "project_domain_id": "default",
        }

    def key(self) -> JSON:
        """A new application credential there, whose secret is a canary."""
        there = seed.login(self.cloud.state, seed.OTHER, seed.SECOND_USERS[seed.OTHER][0], "keystone2")
        wanted = {"name": str(uuid.uuid4()), "secret": self.canaries.new("an application credential")}
        path = f"/users/{there.user_id}/application_credentials"
        made = there.call("POST", path, {"application_credential": wanted})["application_credential"]
        auth = {"application_credential_id": made["id"], "application_credential_secret": wanted["secret"]}
        return {"auth_type": "v3applicationcredential", "auth": auth}

    def s3(self) -> JSON:
        """Keys as of S3: no Cloud here takes them, and what they are called is no secret's name."""
        return {"access_key": self.canaries.new("an access key"), "secret_key": self.canaries.new("a key")}

    def access_key(self, account: str = "owner", *, token: bool = False) -> JSON:
        """A new key for AWS; with a token, as of a session."""
        names = ["access_key_id", "secret_access_key", *(["session_token"] if token else [])]
        said = {name: self.canaries.new(f"{AMAZON} {name}", signs=False) for name in names}
        self.amazon.add_credential(account, *said.values())
        self.of_keys[said["access_key_id"]] = self.canaries.numbers(json.dumps(said).encode())
        return said

    def stale(self) -> JSON:
        """A key for AWS, with a secret that is not its own."""
        return {**self.access_key(), "secret_access_key": self.canaries.new("a stale key", signs=False)}

    def session(self) -> JSON:
        return self.access_key(token=True)

    def role(self) -> JSON:
        """Keys that may do nothing but assume a role; secrets of its sessions are canaries, too."""
        self.amazon.settings(session_mark=self.canaries.new(f"{AMAZON} session of a role", signs=False))
        self.amazon.trust(f"ciming-{self.member.project_id}")
        return {**self.access_key("broker"), "role_arn": self.amazon.role.arn}

    def service_key(self) -> JSON:
        """A new key for Google, as its console gives it."""
        said = self.google.add_key("owner")
        # But for the first ones, which all keys have, and the last.
        self.canaries.plant(f"{GOOGLE} key", *said["private_key"].splitlines()[2:-1])
        self.of_keys[said["private_key_id"]] = self.canaries.numbers(json.dumps(said).encode())
        return said

    def deleted(self) -> JSON:
        """A key for Google that is no key any more."""
        return {**self.service_key(), "private_key_id": uuid.uuid4().hex}

    def wrong(self) -> JSON:
        return {**self.password(), "password": self.canaries.new("a wrong password")}

    def file(self, said: JSON) -> str:
        """A clouds.yaml of a user, and so in no folder of ours."""
        self.keys += 1
        file = self.cloud.folder / f"credential-{self.keys}.yaml"
        file.write_text(yaml.safe_dump({"clouds": {"openstack": said}}, allow_unicode=True))
        return str(file)

    def note(self, said: JSON) -> JSON:
        """That this is to be used."""
        self.sent |= self.canaries.numbers(json.dumps(said).encode())
        return said

    def stored(self, person: birds.Answers, said: JSON) -> str:
        """The href of a secret that is to be used."""
        return secret(person, json.dumps(self.note(said)))

    def given(self, way: "Way") -> JSON:
        """What is to be added to a request."""
        return {"credentials": {way.cloud: self.note(way.given(self))}} if way.given else {}

    def unused(self) -> list[str]:
        """Of what was sent, that with which nobody has tried to log in: it proves nothing."""
        return self.canaries.names(self.sent - self.told())

    def told(self) -> set[bytes]:
        """Of what somebody has logged in with."""
        callers = self.amazon.callers() | self.google.callers()
        return self.mirror.told.union(*(self.of_keys.get(key, set()) for key in callers))

    def everything(self) -> list[birds.Hit]:
        """What is found of canaries anywhere now; our own password is in the configuration."""
        self.processes.look()
        ours = {birds.Hit(birds.OURS, str(file)) for file in self.service.config_files}
        return [hit for hit in self.canaries.search(self._places()) if hit not in ours]

    def _places(self) -> Iterator[tuple[str, bytes]]:
        yield from birds.at_rest(self.service)
        yield from self.processes.seen()
        for person in (self.member, self.admin):
            yield from person.heard
        for tap in self.taps:
            yield from tap.messages()


@pytest.fixture(scope="module")
def member(cloud: sandbox.Sandbox, service: ciming.Ciming) -> birds.Answers:
    return birds.Answers(cloud, "member", service.url)


@pytest.fixture(scope="module")
def world(
    canaries: birds.Canaries, cloud: sandbox.Sandbox, service: ciming.Ciming, member: birds.Answers
) -> Iterator[World]:
    admin = birds.Answers(cloud, "admin", service.url)
    with contextlib.ExitStack() as stack:
        taps = [stack.enter_context(birds.Tap(broker)) for broker in birds.brokers(service)]
        seen = stack.enter_context(birds.Processes(service))
        mirror = stack.enter_context(birds.Mirror(canaries, cloud.url("keystone2"), cloud.url("glance2")))
        amazon = stack.enter_context(aws.start(cloud.folder / "aws"))
        google = stack.enter_context(gcp.start(cloud.folder / "gcp", port=cloud.port("google")))
        google.make_bucket(BUCKET)
        google.settings(token_mark=canaries.new(f"{GOOGLE} token", signs=False))
        made = World(canaries, cloud, service, member, admin, taps, seen, mirror, amazon, google)
        _register(made)
        yield made


def _register(world: World) -> None:
    """The Clouds that WAYS and OF_NO_USE name, with their secrets."""
    member, admin, mirror = world.member, world.admin, world.mirror

    def register(name: str, *, person: birds.Answers = member, place: str = mirror.url, **more: Any) -> None:
        told = config(world.cloud, auth_url=place) | more.pop("config", {})
        body = {"name": name, "provider": "openstack", "config": told, **more}
        assert person.call("POST", "/v1/clouds", json=body).status_code == 201

    for name, said in (("by-password", world.password()), ("by-key", world.key()), ("wrong", world.wrong())):
        register(name, credential_ref=world.stored(member, said))
    # No login can be made of these.
    register("s3", credential_ref=secret(member, json.dumps(world.s3())))
    register("payload", credential_ref=secret(member, world.canaries.new("a payload that is no object")))
    register("nowhere", config={"region": "Nowhere"}, credential_ref=world.stored(member, world.key()))
    for how in birds.REPEATS:
        for who in ("keystone", "glance"):
            ref = world.stored(member, world.key())
            register(f"{who}-{how}", place=mirror.place(who, how), credential_ref=ref)
    place = mirror.place("keystone", "body")
    register("password-body", place=place, credential_ref=world.stored(member, world.password()))
    options = [f"--config={key}={value}" for key, value in config(world.cloud, auth_url=mirror.url).items()]
    file = ("--credential", world.file(world.note(world.key())), "--store")
    member.openstack("--debug", "multicloud", "cloud", "create", "stored", *options, *file)
    ref = world.stored(admin, world.key())
    register("shared", person=admin, visibility="public", credential_ref=ref)
    allow(world.cloud, admin, ref)
    register("bare")
    ref = world.stored(member, world.access_key())
    for name, more in (
        ("by-access-key", {"credential_ref": ref}),
        ("by-role", {"credential_ref": world.stored(member, world.role())}),
        ("wrong-keys", {"credential_ref": secret(member, json.dumps(world.stale()))}),
        ("region", {}),
    ):
        where = {"region": "eu-west-1", "endpoint_url": world.amazon.url}
        body = {"name": name, "provider": "aws", "config": where, **more}
        assert member.call("POST", "/v1/clouds", json=body).status_code == 201
    key = world.note(world.service_key())
    for name, more in (
        ("by-service-key", {"credential_ref": secret(member, json.dumps(key, indent=2))}),
        ("deleted-key", {"credential_ref": secret(member, json.dumps(world.deleted()))}),
        ("bucket", {}),
    ):
        where = {"project_id": key["project_id"], "bucket": BUCKET, "endpoint_url": world.google.url}
        body = {"name": name, "provider": "gcp", "config": where, **more}
        assert member.call("POST", "/v1/clouds", json=body).status_code == 201


class Way(NamedTuple):
    """A way in which a credential comes.

    :param cloud: into which the Job brings the image, beside a zone
    :param token: of the caller, if it is not that of their password
    :param given: credential for the Cloud in the request
    :param waits: is it gone with the engine that had it?
    :param error: what it leads to, where it is of no use
    :param follows: does the Cloud take bytes that are still on their way?
    """

    name: str
    cloud: str = "by-key"
    token: Callable[[World], str] | None = None
    given: Callable[[World], JSON] | None = None
    waits: bool = False
    error: str = ""
    follows: bool = True


WAYS = (
    Way("a password's token, a password in Barbican", "by-password"),
    Way("a key in Barbican", "by-key"),
    Way("a key that the command stored", "stored"),
    Way("an operator's key", "shared"),
    Way("a token that can not delegate", token=lambda world: key_token(world), waits=True),
    Way("an access key in Barbican", "by-access-key", follows=False),
    Way("a role of AWS", "by-role", follows=False),
    Way("a session of AWS given", "region", given=World.session, waits=True, follows=False),
    Way("a key of Google's in Barbican", "by-service-key", follows=False),
    Way("a key of Google's given", "bucket", given=World.service_key, waits=True, follows=False),
    Way("a password given", "bare", given=World.password, waits=True),
    Way("a key given", "bare", given=World.key, waits=True),
)
OF_NO_USE = (
    Way("a wrong password", "wrong", error="cloud.auth_failed"),
    Way("keys of another kind", "s3", error="credential.invalid"),
    Way("a payload that is no object", "payload", error="credential.invalid"),
    Way("a key where there is no such region", "nowhere", error="cloud.no_endpoint"),
    Way("a stale access key", "wrong-keys", error="cloud.auth_failed", follows=False),
    Way("a key that Google has no more", "deleted-key", error="cloud.auth_failed", follows=False),
    Way("a wrong password given", "bare", given=World.wrong, error="cloud.auth_failed"),
    Way("a Keystone that repeats a password", "password-body", error="cloud."),
    *(
        Way(f"a {who.title()} that repeats what it heard: {how}", f"{who}-{how}", error="cloud.")
        for who in ("keystone", "glance")
        for how in birds.REPEATS
    ),
)


def key_token(world: World) -> str:
    """A token of a new application credential of the user's own."""
    member = world.member
    own = seed.login(world.cloud.state, seed.MEMBER, seed.FIRST_USERS[seed.MEMBER][0])
    said = world.canaries.new("the user's application credential")
    body = {"application_credential": {"name": str(uuid.uuid4()), "secret": said}}
    made = own.call("POST", f"/users/{member.user_id}/application_credentials", body)
    login = {"id": made["application_credential"]["id"], "secret": said}
    identity = {"methods": ["application_credential"], "application_credential": login}
    url = f"{world.cloud.url('keystone')}/v3/auth/tokens"
    return requests.post(url, json={"auth": {"identity": identity}}, timeout=30).headers["X-Subject-Token"]


class Begun(NamedTuple):
    """A Job of a way, and the caller's token where it is not the usual one."""

    way: Way
    image_id: str
    job_id: str
    headers: dict[str, str]


def begin(world: World, way: Way, **wanted: Any) -> Begun:
    headers = {"X-Auth-Token": way.token(world)} if way.token else {}
    said = {"name": way.name, "clouds": ["zone-a", way.cloud], "properties": {"architecture": "x86_64"}}
    body = {**said, **world.given(way), **wanted}
    answer = world.member.call("POST", "/v1/images", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    made = answer.json()
    return Begun(way, made["image"]["id"], made["job"]["id"], headers)


def halfway(world: World, way: Way, **wanted: Any) -> Begun:
    """With some of its bytes on the way into each Cloud."""
    begun = begin(world, way, size=len(LARGE), **wanted)

    def trickle() -> Iterator[bytes]:
        """Until each Cloud has some of it: that takes until the service notes how much came.

        Who asks for that may wait for an answer for longer than a client may fall silent.
        """
        with futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(targets, world, begun)
            for at in range(0, len(LARGE) - PIECE, PIECE):
                yield LARGE[at : at + PIECE]
                if asked.done():
                    following = [t for t in asked.result() if way.follows or t["cloud"] != way.cloud]
                    if all(each["bytes_done"] for each in following):
                        return
                    asked = pool.submit(targets, world, begun)
                time.sleep(0.4)
        raise AssertionError(targets(world, begun))

    assert tus.patch(world.member, begun.image_id, 0, trickle(), **begun.headers).status_code == 204
    return begun


def targets(world: World, begun: Begun) -> list[JSON]:
    return list(world.member.job(begun.job_id)["targets"])


def taken(world: World) -> tuple[Way, ...]:
    """All ways; with a broker only that which goes through it, unless all is to be tested."""
    return WAYS if not world.taps or "CIMING_TEST_ALL" in os.environ else WAYS[-1:]


def all_of(work: Callable[[Way], Begun], ways: tuple[Way, ...] = WAYS) -> list[Begun]:
    """Side by side."""
    with futures.ThreadPoolExecutor(len(ways)) as pool:
        return list(pool.map(work, ways))


def send_the_rest(world: World, begun: Begun) -> requests.Response:
    at = tus.offset(world.member, begun.image_id)
    return tus.patch(world.member, begun.image_id, at, LARGE[at:], **begun.headers)


def finish(world: World, begun: Begun) -> JSON:
    """Send what is missing, and wait for its end."""
    assert send_the_rest(world, begun).status_code == 204
    return ended(world, begun)


def ended(world: World, begun: Begun) -> JSON:
    """If its credential is gone, bring another one."""
    member, way = world.member, begun.way
    job = member.wait(begun.job_id, WAITS, *ENDS, seconds=300)
    assert (job["status"] == WAITS) == way.waits, job
    if job["status"] == WAITS:
        if way.given:
            file = world.file(world.note(way.given(world)))
            resume = ("--debug", "multicloud", "job", "resume", begun.job_id)
            member.openstack(*resume, "--credential", f"{way.cloud}={file}")
        else:
            answer = member.call("POST", f"/v1/jobs/{begun.job_id}/resume", headers=begun.headers)
            assert answer.status_code == 202, answer.text
        job = member.wait(begun.job_id, seconds=300)
    return job


def statuses(world: World, begun: list[Begun]) -> dict[str, str]:
    return {each.way.name: world.member.wait(each.job_id, seconds=300)["status"] for each in begun}


def expected(status: str, ways: tuple[Way, ...] = WAYS) -> dict[str, str]:
    return {way.name: status for way in ways}


def test_success(world: World, qcow2: pathlib.Path) -> None:
    """Beside each other, and once by the command; with a conversion, for qemu-img to be looked at."""

    def bring(way: Way) -> Begun:
        begun = begin(world, way)
        assert world.member.put(begun.image_id, SMALL, headers=begun.headers).status_code == 204
        return begun

    assert statuses(world, all_of(bring)) == expected("success")
    told = world.member.openstack(
        *("--debug", "multicloud", "image", "create", "given", "--file", str(qcow2), "--wait"),
        *("--cloud", "zone-b", "--cloud", "bare"),
        *("--credential", f"bare={world.file(world.note(world.key()))}"),
    )
    assert "active" in told.stdout
    sync_and_link(world)
    convert(world)
    good = ("zone-a", "by-key", "shared", "by-role", "by-service-key")
    for name in (*good, *(way.cloud for way in OF_NO_USE)):
        assert world.member.call("POST", f"/v1/clouds/{name}/check").status_code == 200
    assert world.everything() == []
    assert world.unused() == []
    told_of(world)


def convert(world: World) -> None:
    """So much that the process that does it lives long enough to be seen."""
    raw, packed = (world.cloud.folder / name for name in ("disk.raw", "disk.qcow2"))
    with raw.open("wb") as file:
        file.writelines(SMALL for _ in range(256))
    command = ("qemu-img", "convert", "-c", "-m", "4", "-f", "raw", "-O", "qcow2", str(raw), str(packed))
    subprocess.run(command, check=True)
    made = world.member.create(clouds=["zone-b"])
    assert world.member.put(made["image"]["id"], packed.read_bytes()).status_code == 204
    assert world.member.wait(made["job"]["id"], seconds=300)["status"] == "success"
    raw.unlink()
    packed.unlink()
    soon(lambda: any(b"qemu-img" in arguments for _, arguments in world.processes.seen()))


def sync_and_link(world: World) -> None:
    """With a key that is given, each time another one."""
    member, [way] = world.member, [way for way in WAYS if way.given == World.key]
    image = _brought(world)
    wanted = {"clouds": ["bare"], **world.given(way)}
    job = member.call("POST", f"/v1/images/{image}/clouds", json=wanted).json()["job"]
    assert member.wait(job["id"])["status"] == "success"
    [ref] = [link["image_ref"] for link in member.image(image)["links"] if link["cloud"] == "bare"]
    assert member.call("DELETE", f"/v1/images/{image}/links/bare").status_code == 204
    wanted = {"cloud": "bare", "image_ref": ref, **world.given(way)}
    job = member.call("POST", f"/v1/images/{image}/links", json=wanted).json()["job"]
    assert member.wait(job["id"])["status"] == "success"


def _brought(world: World) -> str:
    """An Image in a zone."""
    made = world.member.create(clouds=["zone-a"])
    assert world.member.put(made["image"]["id"], SMALL).status_code == 204
    assert world.member.wait(made["job"]["id"])["status"] == "success"
    return str(made["image"]["id"])


def told_of(world: World) -> None:
    """What was looked through has what it should have: a search in empty places finds nothing, either."""
    written = b"".join(text for where, text in birds.at_rest(world.service) if where.endswith(".log"))
    for name in (b"taskflow", b"stevedore", b"keystonemiddleware"):
        assert b" DEBUG " + name in written, name
    passed = b"".join(text for tap in world.taps for _, text in tap.messages())
    assert b"job.end" in (passed if world.taps else written)
    assert not world.taps or b"sealed" in passed
    seen = b"".join(text for _, text in world.processes.seen())
    assert b"qemu-img" in seen
    assert birds.has_token(world.member.token().encode())


@pytest.mark.with_all
def test_failure_and_cancel(world: World) -> None:
    """When each Cloud has got a part of it: one way fails, the next is cancelled, or both ways do both."""
    every = "CIMING_TEST_ALL" in os.environ
    wrong: JSON = {"checksum": f"sha256:{'0' * 64}"}
    fail, cancel = (WAYS, WAYS) if every else (WAYS[::2], WAYS[1::2])
    with futures.ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(all_of, functools.partial(halfway, world, **wanted), ways)
            for wanted, ways in ((wrong, fail), (JSON(), cancel))
        ]
    failing, cancelled = (each.result() for each in both)
    assert not [name for name in world.unused() if not name.startswith((AMAZON, GOOGLE))]
    assert world.everything() == []
    for each in failing:
        assert send_the_rest(world, each).status_code in (204, 400, 460)
    for each in cancelled:
        assert world.member.call("POST", f"/v1/jobs/{each.job_id}/cancel").status_code == 202
    assert statuses(world, failing) == expected("error", fail)
    assert statuses(world, cancelled) == expected("cancelled", cancel)
    world.sent &= world.told()      # AWS and Google were not asked: they take no bytes before all are there
    assert world.everything() == []


def test_of_no_use(world: World) -> None:
    """Refused, or told again in the refusal."""

    def bring(way: Way) -> Begun:
        begun = begin(world, way)
        assert world.member.put(begun.image_id, SMALL).status_code == 204
        return begun

    begun = all_of(bring, OF_NO_USE)
    assert statuses(world, begun) == expected("partial", OF_NO_USE)
    for each in begun:
        [error] = [target["error"] for target in targets(world, each) if target["error"]]
        assert error["code"].startswith(each.way.error), (each.way.name, error)
    places = {f"{who}/{how}" for who in ("keystone", "glance") for how in birds.REPEATS}
    assert world.mirror.repeated.keys() == places
    [retried] = [each for each in begun if each.way.given]
    given = {"credentials": {"bare": world.note(world.key())}}
    assert world.member.call("POST", f"/v1/jobs/{retried.job_id}/retry", json=given).status_code == 202
    assert statuses(world, [retried]) == {retried.way.name: "success"}
    assert world.everything() == []
    assert world.unused() == []


@pytest.mark.every_shape
def test_crash_and_resume(world: World) -> None:
    """Killed in the middle of it, looked at as it lies there, and started again."""
    begun = all_of(lambda way: halfway(world, way), taken(world))
    world.sent &= world.told()      # as above
    world.service.kill()
    found, rows = world.everything(), rows_of_taskflow(world)
    world.service.start()
    assert found == [] and rows
    with futures.ThreadPoolExecutor(len(begun)) as pool:
        jobs = list(pool.map(lambda each: finish(world, each), begun))
    assert {job["status"] for job in jobs} == {"success"}, jobs
    soon(lambda: not world.member.trusts())     # those of Jobs that have another one now
    assert world.everything() == []
    assert taken(world) != WAYS or world.unused() == []


def test_killed_when_aws_and_google_have_let_us_in(world: World) -> None:
    """They are asked for the end of what has all its bytes, and take their time."""
    ways = tuple(way for way in WAYS if not way.follows)

    def bring(way: Way) -> Begun:
        begun = begin(world, way)
        assert world.member.put(begun.image_id, SMALL, headers=begun.headers).status_code == 204
        return begun

    def asked() -> int:
        calls = {**world.amazon.counters()["calls"], **world.google.counters()["calls"]}
        return sum(int(calls.get(name, 0)) for name in ("ebs:CompleteSnapshot", "compute.images.insert"))

    before = asked()
    world.amazon.fault("slow", "CompleteSnapshot", seconds=5, times=len(ways))
    world.google.fault("slow", "compute.images.insert", seconds=5, times=len(ways))
    begun = all_of(bring, ways)
    soon(lambda: asked() == before + len(ways), 60)
    world.service.kill()
    for standin in (world.amazon, world.google):
        standin.clear_faults()
    found = world.everything()
    world.service.start()
    assert found == [] and world.unused() == []
    with futures.ThreadPoolExecutor(len(begun)) as pool:
        jobs = list(pool.map(lambda each: ended(world, each), begun))
    assert {job["status"] for job in jobs} == {"success"}, jobs
    soon(lambda: not world.member.trusts())
    assert world.everything() == []
    assert world.unused() == []


def rows_of_taskflow(world: World) -> int:
    with sa.create_engine(world.service.database_url, poolclass=sa.NullPool).connect() as connection:
        return int(connection.scalar(sa.text("SELECT COUNT(*) FROM atomdetails")) or 0)


def test_no_core_file(world: World, tmp_path: pathlib.Path) -> None:
    """Also none of a process that does wrong, where others leave one."""
    victim = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    victim.send_signal(signal.SIGSEGV)
    victim.wait()
    if not list(tmp_path.glob("core*")):
        pytest.skip("the host has another place for core files, or allows none")
    begun = begin(world, WAYS[-1], size=len(LARGE))      # an engine holds its key from now on
    world.processes.crash()
    soon(lambda: not world.service.pids)
    cores, found = list(world.service.folder.rglob("core*")), world.everything()
    world.service.start()
    assert cores == [] and found == []
    assert world.processes.settled() >= len(world.service.parts)
    assert world.processes.with_core == set()
    assert finish(world, begun)["status"] == "success"
    soon(lambda: not world.member.trusts())


def test_wrong_places(world: World) -> None:
    """What is refused is told to nobody: no secret in a place that is not for secrets."""
    for number, (method, path, said) in enumerate(wrong_places(world)):
        answer = world.member.call(method, path, **said)
        assert 400 <= answer.status_code < 500, (number, answer.status_code, answer.text)
    for sent in broken_requests(world):
        with socket.create_connection((processes.HOST, world.service.port), timeout=30) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            told = _all(connection)
        assert not told or told.split()[1][:1] in (b"4", b"5"), told
        world.member.heard.append(("an answer to a broken request", told))
    assert world.everything() == []


def _all(connection: socket.socket) -> bytes:
    told = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            told += part
    return told


def wrong_places(world: World) -> Iterator[tuple[str, str, JSON]]:
    """Requests that are refused, with a secret where none belongs."""
    new = world.canaries.new
    image = {"name": "x", "clouds": ["zone-a"]}
    there = {"name": "y", "provider": "openstack", "config": config(world.cloud)}
    for field_name in ("password", "auth", "credential"):
        yield "POST", "/v1/images", {"json": {**image, field_name: new("an unknown field")}}
        yield "POST", "/v1/clouds", {"json": {**there, field_name: {"a": [new("an unknown field")]}}}
    for wrong in ({"password": new("config")}, {"formats": [new("config")]}, {"interface": new("config")}):
        yield "POST", "/v1/clouds", {"json": {**there, "config": config(world.cloud, **wrong)}}
    for url in (f"https://u:{new('a URL', signs=False)}@keys.example.org/v3", f"http://[{new('a URL')}"):
        yield "POST", "/v1/clouds", {"json": {**there, "config": config(world.cloud) | {"auth_url": url}}}
    yield "POST", "/v1/clouds", {"json": {**there, "credential_ref": new("a ref")}}
    yield "POST", "/v1/clouds", {"json": {**there, "credential_ref": world.key()}}
    yield "POST", "/v1/clouds", {"json": {**there, "config": {**config(world.cloud), "cacert": new("PEM")}}}
    yield "POST", "/v1/clouds", {"json": {**there, "name": new("a name")}}
    yield "POST", "/v1/clouds", {"json": {**there, "visibility": new("visibility")}}
    yield "PATCH", "/v1/clouds/bare", {"json": {"credential": world.key()}}
    yield "PATCH", "/v1/clouds/bare", {"json": {"credential_ref": f"https://x/{new('a ref', signs=False)}"}}
    bad: tuple[JSON, ...] = (
        world.s3(),
        {new("the name of a key"): "x"},
        {**world.key(), "token": new("a token")},
        {**world.password(), "auth_type": new("a kind")},
        {"auth_type": "password", "auth": new("no object")},
        {**world.password(), "password": [new("no text")]},
        {**world.password(), "password": new("too long") * 100},
    )
    for said in bad:
        yield "POST", "/v1/images", {"json": {**image, "clouds": ["bare"], "credentials": {"bare": said}}}
    for given in (
        {"zone-a": world.key()},
        {"elsewhere": world.key()},
        {"bare": new("no object")},
        {new("the name of a Cloud"): world.key()},
        new("no object"),
    ):
        yield "POST", "/v1/images", {"json": {**image, "credentials": given}}
    yield "POST", f"/v1/jobs/{uuid.uuid4()}/resume", {"json": {"credentials": {"bare": world.key()}}}
    yield "POST", "/v1/images", {"json": {**image, "name": f"\0{new('a name')}"}}
    yield "POST", "/v1/images", {"json": {**image, "properties": {"password": [new("a property")]}}}
    yield "POST", "/v1/images", {"json": {**image, "checksum": new("a checksum")}}
    json_type = {"Content-Type": "application/json"}
    half = f'{{"password": "{new("no JSON", signs=False)}"'
    yield "POST", "/v1/images", {"data": half, "headers": json_type}
    yield "POST", "/v1/images", {"data": {"password": new("a form")}}
    yield "POST", "/v1/images", {"files": {"password": ("x", new("a form"))}}
    for path in ("/v1/images", "/v1/clouds", "/v1/jobs", "/v1/nowhere"):
        for name in ("password", "token", "X-Auth-Token"):
            yield "GET", path, {"params": {name: new("a query")}}
    for name in ("X-Auth-Token", "X-Service-Token", "Authorization", "Cookie"):
        bad_token = {"X-Auth-Token": "none", name: new("a header", signs=False)}
        yield "GET", "/v1/images", {"headers": bad_token}
    # As long as Keystone's own.
    yield "GET", "/v1/images", {"headers": {"X-Auth-Token": f"gAAAAAB{new('a token', signs=False) * 6}"}}
    yield "POST", "/v1/images", {"headers": {"X-Auth-Token": "none"}, "json": {"credentials": world.key()}}
    for name in ("Upload-Metadata", "Upload-Checksum", "Upload-Offset", "Upload-Length", "Tus-Resumable"):
        sent = {**tus.TUS, **tus.PART, name: new("a header", signs=False)}
        yield "PATCH", f"/v1/images/{uuid.uuid4()}/file", {"headers": sent, "data": b"x"}


def broken_requests(world: World) -> Iterator[bytes]:
    """What is no HTTP."""

    def new() -> str:
        return world.canaries.new("a broken request", signs=False)

    host = "Host: x\r\n"
    yield f"GET /v1/images?token={new()} HTTP/9\r\n{host}\r\n".encode()
    yield f"GET {new()}\r\n\r\n".encode()
    yield f"{new()} /v1/images HTTP/1.1\r\n{host}\r\n".encode()
    yield f"GET /v1/images HTTP/1.1\r\n{host}X-Auth-Token {new()}\r\n\r\n".encode()
    yield f"GET /v1/images HTTP/1.1\r\n{host}X-Auth-Token {new()}: x\r\n\r\n".encode()
    yield f"GET /v1/images HTTP/1.1\r\n{host}X-Auth-Token: x\r\n {new()}\r\n\r\n".encode()
    yield f"GET /v1/images HTTP/1.1\r\n{host}X-Auth-Token: {new()}\0\r\n\r\n".encode()
    yield f"GET /v1/images HTTP/1.1\r\n{host}X-Auth-Token: {new()}ü\r\n\r\n".encode()
    yield f"GET /v1/images HTTP/1.1\r\n{host}Transfer-Encoding: {new()}\r\n\r\n".encode()
    yield f"GET /v1/images HTTP/1.1\r\n{host}Content-Length: {new()}\r\n\r\n".encode()
    yield f"GET /v1/images HTTP/1.1\r\n{host}Expect: {new()}\r\n\r\n".encode()
    token = f"X-Auth-Token: {world.member.token()}\r\nContent-Type: application/json\r\n"
    chunked = f"POST /v1/images HTTP/1.1\r\n{host}{token}Transfer-Encoding: chunked\r\n\r\n"
    yield f'{chunked}{{"password": "{new()}"}}\r\n\r\n'.encode()
    yield f"{chunked}2\r\n{new()}\r\n0\r\n\r\n".encode()
    yield f"{chunked}2;{new()}=\0\r\n{{}}\r\n0\r\n\r\n".encode()


# The search


@pytest.mark.parametrize("encoding", birds.ENCODINGS)
def test_it_is_found_in_each_encoding(encoding: str, tmp_path: pathlib.Path) -> None:
    planted = birds.Canaries()
    for signs in (True, False):
        said = planted.new("this one", signs=signs).encode()
        for noise in (b"", b"-", b"--", b"x\x9c\x1f\x8b\x08" * 2_000):
            inside = birds.ENCODINGS[encoding](b"what stands before: " + said + b" and after")
            assert planted.search(iter([("here", noise + inside + noise)])), (noise[:9], inside)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(birds.ENCODINGS[encoding](said))
    assert {hit.where.partition(",")[0] for hit in planted.search(birds.files(tmp_path))} == {
        str(tmp_path / "folder/file")
    }
    assert birds.Canaries().search(birds.files(tmp_path)) == []


@pytest.mark.parametrize("encoding", birds.ENCODINGS)
def test_a_token_is_found_whoever_made_it(encoding: str) -> None:
    signed = birds.JWT + b"CJhbGciOiAi.eyJpc3MiOiAi." + b"Q2Fu_-1z" * 43
    for token in (b"gAAAAABm" + b"Q2Fu_-1z" * 20, signed):
        inside = birds.ENCODINGS[encoding](b"X-Auth-Token: " + token)
        assert birds.Canaries().search(iter([("here", inside)])), token


@pytest.mark.parametrize("encoding", birds.ENCODINGS)
def test_a_key_is_found_and_each_line_of_it(encoding: str) -> None:
    always_the_same = random.Random(24)     # of other lines, one in 8,000 has nothing that is long enough
    lines = [base64.b64encode(always_the_same.randbytes(48)).decode() for _ in range(24)]
    planted = birds.Canaries()
    planted.plant("the key", *lines)
    inside = birds.ENCODINGS[encoding]("\n".join(["-----BEGIN PRIVATE KEY-----", *lines]).encode())
    assert {hit.what for hit in planted.search(iter([("here", inside)]))} == {"the key"}
    assert all(planted.numbers(line.encode()) for line in lines)
    assert not planted.numbers(base64.b64encode(always_the_same.randbytes(1 << 16)))


def test_it_is_found_in_each_place(world: World) -> None:
    """Planted in each kind of place; what is in the database is also in its dump."""
    planted, service = birds.Canaries(), world.service
    seen = dataclasses.replace(world, canaries=planted)
    with contextlib.ExitStack() as undo:
        wanted = places(world, planted)
        for plant in wanted.values():
            undo.enter_context(plant)
        hits: list[birds.Hit] = []

        def found() -> set[str]:
            hits[:] = seen.everything()
            return {hit.what for hit in hits}

        soon(lambda: found() == wanted.keys(), 30)
        for name in ("a row", "a flow"):
            where = {hit.where for hit in hits if hit.what == name}
            assert {each.startswith("the dump of") for each in where} == {True, False}, where
        service.stop()
        assert {"a row", "a staged file", "a log"} <= {hit.what for hit in seen.everything()}
        service.start()


Plant = contextlib.AbstractContextManager[Any]


def places(world: World, planted: birds.Canaries) -> dict[str, Plant]:
    service = world.service

    def new(what: str, *, signs: bool = True) -> str:
        return planted.new(what, signs=signs)

    found: dict[str, Plant] = {
        "a row": _in_database(service, "INSERT INTO planted VALUES (:said)", new("a row")),
        "a flow": _in_database(service, A_FLOW, new("a flow")),
        "a staged file": _file(service.staging_dir / "planted", new("a staged file")),
        "a file's name": _file(service.staging_dir / new("a file's name", signs=False), ""),
        "a log": _file(service.log_dir / "planted.log", new("a log")),
        "an argument": _process(new("an argument")),
        "an environment": _started_with(service, new("an environment")),
        "an answer": _answer(world, new("an answer", signs=False)),
    }
    for broker in birds.brokers(service):
        found["a message"] = _message(broker, new("a message"), kept=False)
        found["a queue"] = _message(broker, new("a queue"), kept=True)
    return found


A_FLOW = "INSERT INTO logbooks (uuid, name) VALUES ('00000000-0000-4000-8000-000000000000', :said)"


@contextlib.contextmanager
def _in_database(service: ciming.Ciming, statement: str, said: str) -> Iterator[None]:
    engine = sa.create_engine(service.database_url, poolclass=sa.NullPool)

    def execute(*statements: str) -> None:
        with engine.begin() as connection:
            for each in statements:
                connection.execute(sa.text(each), {"said": said} if ":said" in each else {})

    execute("CREATE TABLE IF NOT EXISTS planted (said TEXT)", statement)
    yield
    execute("DROP TABLE IF EXISTS planted", "DELETE FROM logbooks WHERE name = :said")


@contextlib.contextmanager
def _file(path: pathlib.Path, said: str) -> Iterator[None]:
    path.write_text(said)
    yield
    path.unlink()


@contextlib.contextmanager
def _process(said: str) -> Iterator[None]:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", said]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as running:
        yield
        running.communicate()


@contextlib.contextmanager
def _started_with(service: ciming.Ciming, said: str) -> Iterator[None]:
    service.stop()
    service.environment["PLANTED"] = said
    service.start()
    yield
    del service.environment["PLANTED"]


@contextlib.contextmanager
def _answer(world: World, said: str) -> Iterator[None]:
    """The name of an Image is no secret, and told to who asks."""
    made = world.member.create(name=said)
    yield
    assert world.member.call("POST", f"/v1/jobs/{made['job']['id']}/cancel").status_code == 202
    world.member.wait(made["job"]["id"])


@contextlib.contextmanager
def _message(broker: servers.RabbitMQ, said: str, *, kept: bool) -> Iterator[None]:
    """One that passes, or that lies in a queue that is kept, for nobody."""
    address = f"{processes.HOST}:{broker.port}"
    with amqp.Connection(address, servers.USER, broker.password) as connection:
        channel = connection.channel()
        queue = channel.queue_declare(durable=kept, exclusive=not kept, auto_delete=False).queue
        message = amqp.Message(said, delivery_mode=2 if kept else 1)
        channel.basic_publish(message, routing_key=queue)
        yield
        channel.queue_delete(queue)
