# SPDX-License-Identifier: Apache-2.0
"""Another OpenStack that is not as it should be: it leads elsewhere, talks nonsense, or never ends.

Keystone and Glance are real ones, behind a proxy that answers some calls itself. Whatever it says becomes an
error of the Cloud, by its name, and with nothing of the credential.
"""

import contextlib
import http.server
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ciming import cmd, config, connections, exceptions, staging
from ciming.providers.openstack import provider as door
from tests.contract.on_openstack import ZONE, zone_at
from tests.contract.subjects import Transfer, new_key, new_spec
from tests.functional import faulty
from tests.sandbox import sandbox

assert cmd  # imported first, as the processes do: it settles how they are concurrent

AWAY_ZONE = "zone-away"
LINK_LOCAL = "http://169.254.169.254/"
JSON_TYPE = {"Content-Type": "application/json"}
Answer = tuple[int, dict[str, str], bytes]


def said(what: Any, status: int = 200, **headers: str) -> Answer:
    return status, JSON_TYPE | headers, what if isinstance(what, bytes) else json.dumps(what).encode()


class Strange(faulty.Proxy):
    """Answers of its own, by method and pattern of the path; the first one that fits."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.answers: list[tuple[str, str, Answer]] = []
        self.pause = 0.0        # after each byte
        self.asked: list[str] = []

    def forward(self, client: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(client.path)
        for method, path, (status, headers, body) in self.answers:
            if client.command == method and re.search(path, client.path):
                client.rfile.read(int(client.headers.get("Content-Length") or 0))
                with contextlib.suppress(OSError):      # it need not want to hear all of it
                    self._say(client, status, headers, body)
                return
        super().forward(client)

    def _say(
        self, client: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        if not self.pause:
            self._answer(client, status, body, headers)
            return
        client.close_connection = True
        lines = [f"HTTP/1.1 {status} Slow", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        for byte in itertools.chain("\r\n".join(lines).encode(), body, itertools.repeat(32)):
            client.wfile.write(bytes([byte]))
            if faulty.ended(client).wait(self.pause):
                return


class World:
    """Both proxies, and the provider of a Cloud behind them."""

    def __init__(self, cloud: sandbox.Sandbox, keystone: Strange, glance: Strange) -> None:
        self._cloud = cloud
        self.keystone = keystone
        self.glance = glance
        self.secret: str = cloud.clouds["member"]["auth"]["password"]

    def provider(self, region: str = AWAY_ZONE, timeout: float = 20.0) -> door.OpenStack:
        """Logged in anew."""
        login = {"auth_type": "v3password", **self._cloud.clouds["member"]["auth"]}
        login["auth_url"] = self.keystone.url
        place = {"auth_url": self.keystone.url, "region": region, "cloud": "elsewhere", "timeout": timeout}
        return door.OpenStack(place, login)

    def refused(self, call: Callable[[door.OpenStack], Any], **place: Any) -> exceptions.ProviderError:
        with pytest.raises(exceptions.ProviderError) as caught:
            call(self.provider(**place))
        error = caught.value
        assert "elsewhere" in error.detail and self.secret not in error.detail
        assert len(error.detail) < 3000 and error.detail.isprintable()
        assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)
        return error


@pytest.fixture(scope="module")
def started(cloud: sandbox.Sandbox) -> Iterator[World]:
    config.register()
    config.CONF([], project="ciming", default_config_files=[], default_config_dirs=[])
    with contextlib.ExitStack() as stack:
        for option in ("allow_http", "allow_loopback"):
            config.CONF.set_override(option, True, group="egress")
            stack.callback(config.CONF.clear_override, option, group="egress")
        names = ("keystone", "glance-a")
        keystone, glance = (stack.enter_context(Strange(cloud.url(name))) for name in names)
        stack.enter_context(glance.as_zone(cloud, AWAY_ZONE))
        yield World(cloud, keystone, glance)


@pytest.fixture
def world(started: World) -> World:
    """All is as it should be, until a test says otherwise."""
    for strange in (started.keystone, started.glance):
        strange.answers, strange.asked, strange.pause = [], [], 0.0
    return started


def check(provider: door.OpenStack) -> Any:
    return provider.check(staging.StagedFile("", "raw", 0, 0, {}))


# It leads elsewhere


def test_as_it_should_be(world: World) -> None:
    """So that what follows is not true of everything."""
    check(world.provider())
    assert world.provider().describe("no such image") is None
    assert [each.check for each in world.provider().probe() if not each.passed] == []


@pytest.mark.parametrize("url", [LINK_LOCAL, "http://[fe80::1]:9292/", "http://0.0.0.0/"])
def test_a_catalog_that_leads_elsewhere(world: World, cloud: sandbox.Sandbox, url: str) -> None:
    with zone_at(cloud, "zone-beyond", url):
        assert world.refused(check, region="zone-beyond").code == "egress.refused"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("who", ["keystone", "glance"])
def test_a_redirect_that_leads_elsewhere(world: World, who: str, status: int) -> None:
    strange: Strange = getattr(world, who)
    method, path = ("POST", "/auth/tokens") if who == "keystone" else ("GET", "/schemas/image")
    strange.answers = [(method, path, said(b"", status, Location=f"{LINK_LOCAL}v3/auth/tokens"))]
    error = world.refused(check)
    assert error.code == "egress.refused" and "169.254.169.254" in error.detail


def test_a_redirect_without_end(world: World) -> None:
    location = f"{world.glance.url}/v2/schemas/image"
    world.glance.answers = [("GET", "/schemas/image", said(b"", 302, Location=location))]
    world.refused(check)
    assert len(world.glance.asked) < 100


# It talks nonsense

TOKEN = {"X-Subject-Token": "t"}
SCOPED = {
    "methods": ["password"],
    "expires_at": "2100-01-01T00:00:00.000000Z",
    "issued_at": "2026-01-01T00:00:00.000000Z",
    "project": {"id": "p", "name": "p", "domain": {"id": "d", "name": "d"}},
    "user": {"id": "u", "name": "u", "domain": {"id": "d", "name": "d"}},
}
LOGINS: dict[str, Answer] = {
    "html": (200, {"Content-Type": "text/html"}, b"<html>Down for maintenance</html>"),
    "nothing": said(b""),
    "binary": said(bytes(range(256))),
    "half": said(b'{"token": {'),
    "deep": said(b"[" * 100_000),
    "number": said(5),
    "list": said([]),
    "object": said({}, 201, **TOKEN),
    "token-null": said({"token": None}, 201, **TOKEN),
    "token-list": said({"token": []}, 201, **TOKEN),
    "token-empty": said({"token": {}}, 201, **TOKEN),
    "no-header": said({"token": SCOPED}, 201),
    "no-catalog": said({"token": SCOPED}, 201, **TOKEN),
    "catalog-number": said({"token": {**SCOPED, "catalog": 5}}, 201, **TOKEN),
    "catalog-numbers": said({"token": {**SCOPED, "catalog": [5]}}, 201, **TOKEN),
    "catalog-empty": said({"token": {**SCOPED, "catalog": [{}]}}, 201, **TOKEN),
    "endpoints": said({"token": {**SCOPED, "catalog": [{"type": "image", "endpoints": 5}]}}, 201, **TOKEN),
    "endpoint": said(
        {
            "token": {
                **SCOPED,
                "catalog": [
                    {
                        "type": "image",
                        "endpoints": [{"region": AWAY_ZONE, "interface": "public", "url": 5}],
                    }
                ],
            }
        },
        201,
        **TOKEN,
    ),
    "expires": said({"token": {**SCOPED, "expires_at": "tomorrow"}}, 201, **TOKEN),
    "expires-number": said({"token": {**SCOPED, "expires_at": 5}}, 201, **TOKEN),
    "no-project": said({"token": {**SCOPED, "project": None}}, 201, **TOKEN),
    "project": said({"token": {**SCOPED, "project": 5}}, 201, **TOKEN),
    "error-list": said({"error": [1]}, 500),
    "error-deep": said(b"[" * 100_000, 401),
    "error-long": said({"error": {"message": "x\n\0" * 100_000, "code": 400}}, 400),
    "teapot": said({"error": "teapot"}, 418),
    "no-content": said(b"", 204),
    "multiple": said({"choices": []}, 300),
}


@pytest.mark.parametrize("login", LOGINS)
def test_a_keystone_that_talks_nonsense(world: World, login: str) -> None:
    world.keystone.answers = [("POST", "/auth/tokens", LOGINS[login])]
    calls: list[Callable[[door.OpenStack], Any]] = [
        check,
        lambda provider: provider.describe("x"),
        lambda provider: provider.discard(new_key()),
        lambda provider: [*provider.download("x", 0)],
    ]
    for call in calls:
        world.refused(call)
    verdicts = list(world.provider().probe())
    assert verdicts[-1].passed is False and "elsewhere" in verdicts[-1].message


def test_a_keystone_that_says_the_password(world: World) -> None:
    error = {"error": {"message": f"Wrong: {world.secret}", "code": 401}}
    world.keystone.answers = [("POST", "/auth/tokens", said(error, 401))]
    assert "Wrong" in world.refused(check).detail


REF = "1f3a5c7e-0000-4000-8000-000000000001"
IMAGE = {"id": REF, "status": "active", "disk_format": "raw", "size": 1, "owner": "o", "name": "n"}
IMAGES: dict[str, Any] = {
    "number": 5,
    "list": [],
    "empty": {},
    "no-id": {"status": "active"},
    "id": {**IMAGE, "id": 5},
    "id-long": {**IMAGE, "id": "x" * 2000},
    "id-nul": {**IMAGE, "id": "a\0b"},
    "status": {**IMAGE, "status": ["active"]},
    "size-text": {**IMAGE, "size": "1"},
    "size-float": {**IMAGE, "size": 1.5},
    "size-true": {**IMAGE, "size": True},
    "size-huge": {**IMAGE, "size": 2**70},
    "size-below": {**IMAGE, "size": -1},
    "format": {**IMAGE, "disk_format": ["raw"]},
    "tags": {**IMAGE, "tags": 5},
    "tags-numbers": {**IMAGE, "tags": [5]},
    "min-disk": {**IMAGE, "min_disk": "much"},
    "min-ram": {**IMAGE, "min_ram": 2**40},
    "hash": {**IMAGE, "os_hash_algo": ["md5"], "os_hash_value": "x"},
    "protected": {**IMAGE, "protected": "no"},
    "much": {**IMAGE, "os_note": "x" * (2 << 20)},
}


@pytest.mark.parametrize("image", IMAGES)
def test_a_glance_that_talks_nonsense(world: World, image: str) -> None:
    """Of an image: what is shown, listed, and said to have been made."""
    answers = IMAGES[image]
    world.glance.answers = [
        ("GET", r"/images\?", said({"images": [answers]})),
        ("GET", "/images/", said(answers)),
        ("POST", "/images", said(answers, 201)),
    ]
    staged = staging.StagedFile("", "raw", 1, 1, {"sha512": "x"})
    calls: list[Callable[[door.OpenStack], Any]] = [
        lambda provider: provider.describe(REF),
        lambda provider: provider.describe("n"),
        lambda provider: provider.verify(REF, staged),
        lambda provider: provider.register(REF, new_spec(), new_key()),
        lambda provider: provider.upload(staged, new_spec(), new_key(), Transfer()),
        lambda provider: provider.discard(new_key()),
    ]
    for call in calls:
        assert world.refused(call).code == "cloud.bad_answer"
    made = [each for each in world.provider().probe() if each.check == "create"]
    assert [each.passed for each in made] == [False] and "elsewhere" in made[0].message


@pytest.mark.parametrize(
    "page",
    [{"images": 5}, {"images": None}, {"images": {"id": 1}}, {"images": [5]}, {"images": [], "next": 5}],
    ids=str,
)
def test_a_list_that_is_none(world: World, page: Any) -> None:
    world.glance.answers = [("GET", r"/images\?", said(page))]
    assert world.refused(lambda provider: provider.describe("n")).code == "cloud.bad_answer"


def test_a_list_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MOST_PAGES", 5)
    page = {"images": [{**IMAGE, "name": "other"}], "next": "/v2/images?marker=x"}
    world.glance.answers = [("GET", r"/images\?", said(page))]
    assert world.refused(lambda provider: provider.describe("n")).code == "cloud.bad_answer"
    assert sum("/images?" in path for path in world.glance.asked) == 5


@pytest.mark.parametrize(
    "schema",
    [{"properties": 5}, {"properties": {"disk_format": []}}, {"properties": {"disk_format": {"enum": 5}}}],
    ids=str,
)
def test_formats_that_are_none(world: World, schema: Any) -> None:
    world.glance.answers = [("GET", "/schemas/image", said(schema))]
    assert world.refused(check).code == "cloud.bad_answer"
    found = [each for each in world.provider().probe() if each.check == "formats"]
    assert [each.passed for each in found] == [False]


@pytest.mark.parametrize("usage", [5, {"x": 5}, {"x": {"usage": 1}}, {"x": {"usage": "1", "limit": 2}}])
def test_a_quota_that_is_none(world: World, usage: Any) -> None:
    world.glance.answers = [("GET", "/info/usage", said({"usage": usage}))]
    found = [each for each in world.provider().probe() if each.check == "quota"]
    assert [each.passed for each in found] == [False] and "elsewhere" in found[0].message


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 01 Jan 0001 00:00:00 -0000", "Mon, 99 Jan 2026 9:9"])
def test_a_clock_that_is_none(world: World, date: str) -> None:
    world.glance.answers = [("GET", "/schemas/image", said({"properties": {}}, Date=date))]
    found = [each for each in world.provider().probe() if each.check == "clock"]
    assert len(found) == 1


# It never ends


@pytest.mark.parametrize("who", ["keystone", "glance"])
def test_an_answer_that_is_too_long(world: World, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    monkeypatch.setattr(connections, "LONGEST", 1 << 20)
    strange: Strange = getattr(world, who)
    method, path = ("POST", "/auth/tokens") if who == "keystone" else ("GET", "/schemas/image")
    strange.answers = [(method, path, said(b" " * (2 << 20)))]
    assert "longer than" in world.refused(check).detail


@pytest.mark.parametrize("part", ["headers", "body"])
@pytest.mark.parametrize("who", ["keystone", "glance"])
def test_an_answer_that_comes_drop_by_drop(world: World, who: str, part: str) -> None:
    """There is always another byte in time."""
    strange: Strange = getattr(world, who)
    method, path = ("POST", "/auth/tokens") if who == "keystone" else ("GET", "/schemas/image")
    long = "x" * 10_000 if part == "headers" else ""
    strange.answers = [(method, path, (200, {**JSON_TYPE, "X-Long": long}, b"{}"))]
    strange.pause = 0.02 if part == "headers" else 0.005
    since = time.monotonic()
    error = world.refused(check, timeout=2.0)
    assert isinstance(error, exceptions.TransientProviderError) and error.code == "cloud.unreachable"
    assert "timed out" in error.detail
    assert time.monotonic() - since < 20


def test_a_keystone_that_says_nothing(world: World) -> None:
    world.keystone.answers = [("POST", "/auth/tokens", said(b"{}"))]
    world.keystone.pause = 60
    assert "timed out" in world.refused(check, timeout=1.0).detail


def test_one_that_speaks_no_tls(world: World) -> None:
    plain = world.keystone.url
    provider = door.OpenStack(
        {"auth_url": plain.replace("http:", "https:"), "region": ZONE, "cloud": "elsewhere", "timeout": 5.0},
        {"auth_type": "v3password", "username": "x", "password": "x", "project_id": "x"},
    )
    with pytest.raises(exceptions.TransientProviderError, match="elsewhere"):
        check(provider)
