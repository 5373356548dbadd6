# SPDX-License-Identifier: Apache-2.0
"""What is read of a registered Cloud's secret; the functional tests read it from a real Barbican."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from keystoneauth1 import access, plugin
from keystoneauth1 import exceptions as ks_exceptions
from keystoneauth1 import session as ks_session
from oslo_config import cfg

from ciming import credentials, exceptions, trusts
from ciming.db import clouds, models, session
from tests.unit import rows
from tests.unit.configs.test_openstack import BY_ID, PASSWORD
from tests.unit.db.test_clouds import into, register

SECRET = "67ba1d7e-0000-4000-8000-00000000000a"
SAID = {"auth_type": "v3applicationcredential", "auth": BY_ID}
LOADED = {"auth_type": "v3applicationcredential", **BY_ID}


class Barbican(http.server.ThreadingHTTPServer):
    """Answers as it is told: what comes over the wire, which no real one can be made to say."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.payload, self.kind = 200, json.dumps(SAID).encode(), "text/plain"
        self.asked: list[str] = []
        self.slowness = 0.0     # seconds before it answers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Barbican

    def do_GET(self) -> None:
        barbican = self.server
        barbican.asked.append(self.path)
        time.sleep(barbican.slowness)
        wrong = self.headers["Accept"] != barbican.kind
        self.send_response(406 if wrong else barbican.status)
        self.send_header("Location", f"{barbican.url}/elsewhere")
        payload = b"" if wrong else barbican.payload
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        with contextlib.suppress(OSError):      # it may not want to read all of it
            self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Login(plugin.BaseAuthPlugin):
    """Is logged in, and has a catalog; or can not."""

    def __init__(self, name: str, *endpoints: Mapping[str, str], error: Exception | None = None) -> None:
        super().__init__()
        self.name = name
        self.error = error
        named = [{**each, "region_id": each["region"], "id": each["url"]} for each in endpoints]
        self.token = {"catalog": [{"type": "key-manager", "id": "keys", "endpoints": named}]}

    def get_access(self, _session: Any) -> access.AccessInfoV3:
        if self.error:
            raise self.error
        return access.AccessInfoV3({"token": self.token}, self.name)

    def get_token(self, _session: Any) -> str:
        return self.name


@pytest.fixture
def barbican() -> Iterator[Barbican]:
    with Barbican() as running:
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield running
        running.shutdown()


class World:
    """A project's trust and the service user, each of whom can log in."""

    def __init__(self, barbican: Barbican) -> None:
        self.barbican = barbican
        near = {"interface": "public", "url": barbican.url, "region": "zone-a"}
        self.logins: dict[str, Login] = {"user": Login("user", near), "service": Login("service", near)}
        self.used: list[str] = []

    def session(self, who: str) -> ks_session.Session:
        self.used.append(who)
        return ks_session.Session(self.logins[who], timeout=20)

    @property
    def ref(self) -> str:
        return f"{self.barbican.url}/v1/secrets/{SECRET}"

    def target(self, **values: Any) -> tuple[models.Job, models.Target]:
        """In a new Cloud with this secret."""
        job = into(register(**{"credential_ref": self.ref, **values}))
        return job, job.targets[0]


@pytest.fixture
def world(database: rows.Database, barbican: Barbican, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(barbican)
    monkeypatch.setattr(trusts, "session", lambda _trust_id, **_: made.session("user"))
    monkeypatch.setattr(trusts, "service_session", lambda: made.session("service"))
    return made


def refused(job: models.Job, target: models.Target, code: str) -> exceptions.ProviderError:
    with pytest.raises(exceptions.ProviderError) as caught:
        credentials.of_place(job, target)
    error = caught.value
    assert error.code == code, error.detail
    assert target.cloud in error.detail and "swordfish" not in error.detail
    # What a log would show of it.
    assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)
    return error


def test_a_zone_is_reached_under_the_trust(world: World, conf: cfg.ConfigOpts) -> None:
    job = rows.make_job(zones=["zone-a"])
    place, credential = credentials.of_place(job, job.targets[0])
    assert place["region"] == "zone-a" and place["interface"] == "public"
    assert isinstance(credential, ks_session.Session) and world.used == ["user"]
    assert world.barbican.asked == []


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(SAID),
        json.dumps(SAID, indent="\t"),
        json.dumps(LOADED),
        "auth_type: v3applicationcredential\nauth:\n  application_credential_id: some-id\n"
        "  application_credential_secret: swordfish\nregion_name: RegionOne\n",
    ],
    ids=["json", "tabs", "flat", "yaml"],
)
def test_a_secret_is_read_under_the_trust(world: World, payload: str) -> None:
    world.barbican.payload = payload.encode()
    job, target = world.target()
    place, credential = credentials.of_place(job, target)
    assert credential == LOADED and world.used == ["user"]
    assert world.barbican.asked == [f"/v1/secrets/{SECRET}/payload"]
    assert (place["region"], place["cloud"], place.get("tenant")) == ("RegionOne", "other", None)
    assert place["auth_url"] == "https://keystone.example.com/v3"


def test_it_may_be_stored_as_bytes(world: World) -> None:
    world.barbican.kind = "application/octet-stream"
    assert credentials.of_place(*world.target())[1] == LOADED


def test_a_public_clouds_secret_is_read_by_the_service(world: World) -> None:
    """And each project gets its own images only."""
    job, target = world.target(project="operators", visibility="public")
    place, credential = credentials.of_place(job, target)
    assert credential == LOADED and world.used == ["service"]
    assert place["tenant"] == job.project_id == "studio"


def test_by_the_interface_that_the_engine_uses(world: World, conf: cfg.ConfigOpts) -> None:
    """The href has the address that users see."""
    near = {"interface": "internal", "url": f"{world.barbican.url}/v1/", "region": "zone-a"}
    far = {"interface": "public", "url": "https://keys.example.org", "region": "zone-a"}
    elsewhere = {"interface": "internal", "url": "http://127.0.0.1:1", "region": "zone-b"}
    world.logins["user"] = Login("user", elsewhere, far, near)
    conf.set_override("interface", "internal", group="openstack")
    try:
        job, target = world.target(credential_ref=f"https://keys.example.org/v1/secrets/{SECRET}")
        assert credentials.of_place(job, target)[1] == LOADED
    finally:
        conf.clear_override("interface", group="openstack")


def test_of_no_other_barbican(world: World) -> None:
    """Also where the href came into the row some other way."""
    for ref in (f"http://localhost:{world.barbican.server_port}/v1/secrets/{SECRET}", "nonsense"):
        refused(*world.target(credential_ref=ref, name=models.new_id()), "credential.not_readable")
    assert world.barbican.asked == []


def test_without_a_trust_row_or_secret_there_is_none(world: World) -> None:
    job, target = world.target(credential_ref=None)
    assert "set its credential_ref" in refused(job, target, "credential.missing").detail
    job.trust_id = None
    refused(job, target, "credential.missing")
    job, target = world.target(name="deleted")
    with session.writer() as writing:
        writing.delete(writing.get_one(models.Cloud, target.cloud_key))
    refused(job, target, "credential.missing")
    assert world.barbican.asked == []


def test_of_no_other_project(world: World) -> None:
    """A row that names another project's Cloud gets nothing of it."""
    job, target = world.target(project="elsewhere")
    assert clouds.find(target.cloud_key, "elsewhere") is not None
    refused(job, target, "credential.missing")
    assert world.used == [] and world.barbican.asked == []


@pytest.mark.parametrize(
    ("status", "code", "passing"),
    [
        (401, "credential.not_readable", False),
        (403, "credential.not_readable", False),
        (404, "credential.missing", False),
        (302, "credential.not_readable", False),
        (500, "credential.unavailable", True),
        (503, "credential.unavailable", True),
    ],
)
def test_what_barbican_may_say(world: World, status: int, code: str, passing: bool) -> None:
    world.barbican.status = status
    error = refused(*world.target(), code)
    assert isinstance(error, exceptions.TransientProviderError) == passing
    assert len(world.barbican.asked) == 1       # not where a redirect leads


@pytest.mark.parametrize(
    ("error", "code", "passing"),
    [
        (ks_exceptions.Unauthorized("swordfish"), "credential.needed", False),
        (ks_exceptions.ServiceUnavailable("swordfish"), "credential.unavailable", True),
        (ks_exceptions.ConnectFailure("swordfish"), "credential.unavailable", True),
    ],
)
def test_what_keystone_may_say(world: World, error: Exception, code: str, passing: bool) -> None:
    world.logins["user"] = Login("user", error=error)
    raised = refused(*world.target(), code)
    assert isinstance(raised, exceptions.TransientProviderError) == passing


def test_who_waits_for_it_waits_no_longer_than_wanted(world: World) -> None:
    """Neither for Barbican, nor for the zone and its Keystone."""
    job, target = world.target()
    world.barbican.slowness = 5.0
    since = time.monotonic()
    with pytest.raises(exceptions.TransientProviderError) as caught:
        credentials.of_place(job, target, 0.2)
    assert caught.value.code == "credential.unavailable" and time.monotonic() - since < 3
    job = rows.make_job(zones=["zone-a"])
    for patience, timeout in ((0.2, 0.2), (300.0, 20.0), (None, 20.0)):
        _there, session = credentials.of_place(job, job.targets[0], patience)
        assert session.timeout == timeout


def test_barbican_is_away(world: World) -> None:
    world.barbican.shutdown()
    world.barbican.server_close()
    assert isinstance(refused(*world.target(), "credential.unavailable"), exceptions.TransientProviderError)


def _laughs() -> str:
    lines = ["a0: &a0 {swordfish: x}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 20)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"swordfish",
        b"swordfish: {",
        b"\xff\xfeswordfish",
        b"[" * 19_000,
        b"{" * 19_000,
        b'{"a":' * 3_900,
        json.dumps([SAID]).encode(),
        json.dumps({**SAID, "swordfish": "x"}).encode(),
        json.dumps({**PASSWORD, "cacert": "/etc/swordfish"}).encode(),
        json.dumps({**PASSWORD, "password": ["swordfish"]}).encode(),
        json.dumps({"auth_type": "swordfish.Plugin", **PASSWORD}).encode(),
        b"!!python/object/apply:os.system [swordfish]",
        b"password: !!binary c3dvcmRmaXNo",
        b"password: !!bool swordfish",
        b"password: !!int ''",
        b"password: !!timestamp swordfish",
        _laughs().encode(),
        json.dumps(SAID).encode() + b" " * 20_001,
    ],
    ids=range(19),
)
def test_what_is_no_credential(world: World, payload: bytes) -> None:
    world.barbican.payload = payload
    error = refused(*world.target(), "credential.invalid")
    assert "other" in error.detail and len(error.detail) < 1000
    assert error.__suppress_context__ or error.__context__ is None      # for who logs it


def test_another_provider_has_another_schema(world: World) -> None:
    job, target = world.target(provider="floppy")
    refused(job, target, "provider.not_installed")
