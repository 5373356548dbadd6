# SPDX-License-Identifier: Apache-2.0
"""What is true of Glance only, against a real one; odd answers come from a proxy in front of it."""

import contextlib
import dataclasses
import http.server
import itertools
import socket
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from keystoneauth1.identity import v3

from ciming import exceptions, staging
from ciming.api import kinds
from ciming.providers import base
from ciming.providers.openstack import provider as door
from ciming.providers.openstack import records
from tests.contract import on_openstack
from tests.contract.on_openstack import ZONE, session_of, zone_at
from tests.contract.subjects import Transfer, new_key, new_spec, persistently
from tests.functional import faulty
from tests.person import Person
from tests.sandbox import sandbox

ODD_ZONE = "zone-odd"


@pytest.fixture
def provider(cloud: sandbox.Sandbox) -> door.OpenStack:
    return in_zone(cloud, ZONE)


@pytest.fixture
def glance(member: Person) -> Any:
    """The zone's Glance, by the plain SDK."""
    return member.zone(ZONE).image


@pytest.fixture
def key(provider: door.OpenStack) -> Iterator[str]:
    made = new_key()
    yield made
    provider.discard(made)


def in_zone(cloud: sandbox.Sandbox, region: str) -> door.OpenStack:
    return door.OpenStack({"region": region}, session_of(cloud, "member"))


def upload(
    provider: base.Provider, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> str:
    blob = provider.upload(staged, spec, key, Transfer())
    assert provider.register(blob, spec, key) == blob
    assert provider.verify(blob, staged) == "bytes"
    return blob


# Formats


def test_only_the_formats_that_its_operator_wants(
    cloud: sandbox.Sandbox, staged: staging.StagedFile, provider: door.OpenStack
) -> None:
    assert provider.formats == records.FORMATS
    wanted = {"region": ZONE, "formats": ["raw", "floppy", "qcow2"]}
    limited = door.OpenStack(wanted, session_of(cloud, "member"))
    assert limited.formats == ("raw", "qcow2")
    limited.check(staged)
    with pytest.raises(exceptions.ProviderError, match="only raw, qcow2") as caught:
        limited.check(dataclasses.replace(staged, disk_format="vmdk"))
    assert caught.value.code == "image.format_not_taken"


# Properties


def test_as_many_properties_as_an_image_may_have(
    cloud: sandbox.Sandbox, staged: staging.StagedFile, key: str
) -> None:
    """With all that we mark it with, a Glance that is set up as it comes takes them."""
    shared = door.OpenStack({"region": ZONE, "tenant": "somebody"}, session_of(cloud, "member"))
    many = {f"p{number}": "x" for number in range(kinds.MOST_PROPERTIES)}
    upload(shared, staged, new_spec(properties=many), key)


# The UUID


def test_the_images_own_uuid(
    provider: door.OpenStack, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> None:
    assert upload(provider, staged, spec, key) == spec.image_id


def test_another_uuid_where_ours_is_taken(
    provider: door.OpenStack, glance: Any, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> None:
    """By an image of the same project, that a person made: not ours either."""
    taken = {"id": spec.image_id, "name": "by hand", "disk_format": "raw", "container_format": "bare"}
    glance.post("/images", json=taken).raise_for_status()
    image_ref = upload(provider, staged, spec, key)
    assert image_ref != spec.image_id
    assert upload(provider, staged, spec, key) == image_ref
    provider.discard(key)
    assert glance.get_image(spec.image_id).status == "queued"
    glance.delete_image(spec.image_id)


def test_another_uuid_where_ours_is_burned(
    provider: door.OpenStack, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> None:
    assert upload(provider, staged, spec, key) == spec.image_id
    provider.discard(key)
    image_ref = upload(provider, staged, spec, key)
    assert image_ref != spec.image_id
    assert upload(provider, staged, spec, key) == image_ref


# Left in "saving" by a crash


@contextlib.contextmanager
def held_open(url: str, token: str, size: int) -> Iterator[None]:
    """An upload that goes neither on nor away: its Glance believes that it is under way."""
    where = urllib.parse.urlparse(url)
    with socket.create_connection((str(where.hostname), int(where.port or 80))) as connection:
        lines = (
            f"PUT {where.path} HTTP/1.1",
            f"Host: {where.netloc}",
            f"X-Auth-Token: {token}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {size}",
            "",
            "",
        )
        connection.sendall("\r\n".join(lines).encode() + b"x")
        yield


@pytest.fixture
def saving(
    cloud: sandbox.Sandbox,
    member: Person,
    provider: door.OpenStack,
    glance: Any,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
    key: str,
) -> Iterator[contextlib.ExitStack]:
    """The image's record, as an earlier upload left it; leaving the stack ends that upload."""
    marks = {"ciming_image": spec.image_id, "ciming_target": key}
    body = {"id": spec.image_id, "disk_format": "raw", "container_format": "bare", **marks}
    glance.post("/images", json=body).raise_for_status()
    url = f"{cloud.url('glance-a')}/v2/images/{spec.image_id}/file"
    with contextlib.ExitStack() as stack:
        stack.enter_context(held_open(url, member.token(), staged.size))
        end = time.monotonic() + 10
        while glance.get_image(spec.image_id).status != "saving":
            assert time.monotonic() < end
            time.sleep(0.05)
        yield stack


@pytest.mark.parametrize("patience", ["CUT_PATIENCE", "SAVING_PATIENCE"])
def test_an_upload_that_hangs_is_given_up(
    saving: contextlib.ExitStack,
    provider: door.OpenStack,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
    key: str,
    patience: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sooner where it can not become whole any more."""
    for name in ("CUT_PATIENCE", "SAVING_PATIENCE"):
        monkeypatch.setattr(door, name, 1 if name == patience else 100_000)
    sent = {"image": spec.image_id, "sent": True} if patience == "SAVING_PATIENCE" else None
    image_ref = provider.upload(staged, spec, key, Transfer(checkpoint=sent))
    assert image_ref != spec.image_id       # only deleting helped, and that burned it
    assert provider.show(spec.image_id) is None
    assert [image["id"] for image in provider._marked(key)] == [image_ref]


def test_only_with_its_last_block_an_upload_may_become_whole(
    provider: door.OpenStack, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> None:
    transfer = Transfer(stop_at=2 + staged.size // staging.BLOCK)
    with pytest.raises(exceptions.Interrupted):
        provider.upload(staged, spec, key, transfer)
    assert transfer.checkpoint == {"image": spec.image_id}
    again = Transfer(checkpoint={"image": spec.image_id, "sent": True})
    image_ref = persistently(lambda: provider.upload(staged, spec, key, again))
    assert again.checkpoint == {"image": image_ref, "sent": True}


def test_an_upload_that_ends_is_waited_for(
    saving: contextlib.ExitStack,
    provider: door.OpenStack,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
    key: str,
) -> None:
    end = threading.Timer(1, saving.close)
    end.start()
    assert upload(provider, staged, spec, key) == spec.image_id
    end.join()


def test_waiting_for_it_can_be_interrupted(
    saving: contextlib.ExitStack,
    provider: door.OpenStack,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
    key: str,
) -> None:
    since = time.monotonic()
    with pytest.raises(exceptions.Interrupted):
        provider.upload(staged, spec, key, Transfer(stop_at=2))
    assert time.monotonic() - since < 10
    shown = provider.show(spec.image_id)
    assert shown and (shown.status, shown.state) == ("saving", "pending")


# What is said about the image


def test_what_a_person_said_arrives(
    provider: door.OpenStack, member: Person, staged: staging.StagedFile, key: str
) -> None:
    properties = {"os_distro": "debian", "hw_machine_type": "q35", "größe": "groß"}
    spec = new_spec(
        name="Größe 1", properties=properties, min_disk=2, min_ram=3, tags=("golden", "a b")
    )
    image = provider._show(upload(provider, staged, spec, key)) or {}
    said = {
        **properties,
        "name": spec.name,
        "min_disk": 2,
        "min_ram": 3,
        "disk_format": "raw",
        "container_format": "bare",
        "owner": member.project_id,
        "ciming_image": spec.image_id,
        "ciming_target": key,
    }
    assert said.items() <= {name: image[name] for name in said}.items()
    assert set(image["tags"]) == set(spec.tags)


def test_marks_can_not_be_forged(
    provider: door.OpenStack, glance: Any, staged: staging.StagedFile, key: str
) -> None:
    spec = new_spec(properties={"ciming_target": new_key(), "ciming_image": "x", "name": "forged"})
    image = glance.get_image(upload(provider, staged, spec, key))
    assert (image.name, image.properties["ciming_target"]) == (spec.name, key)


@pytest.mark.parametrize("visibility", ["private", "shared", "community"])
def test_it_is_found_again_whoever_sees_it(
    provider: door.OpenStack, glance: Any, staged: staging.StagedFile, key: str, visibility: str
) -> None:
    spec = new_spec(visibility=visibility)
    image_ref = upload(provider, staged, spec, key)
    assert glance.get_image(image_ref).visibility == visibility
    assert provider.upload(staged, spec, key, Transfer()) == image_ref
    provider.discard(key)
    assert provider.show(image_ref) is None


def test_a_member_makes_no_public_image(
    provider: door.OpenStack, staged: staging.StagedFile, key: str
) -> None:
    with pytest.raises(exceptions.ProviderError) as caught:
        provider.upload(staged, new_spec(visibility="public"), key, Transfer())
    assert (caught.value.code, type(caught.value)) == ("cloud.forbidden", exceptions.ProviderError)
    assert not list(provider._marked(key))


def test_a_protected_image_is_not_discarded_and_that_is_said(
    provider: door.OpenStack, glance: Any, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> None:
    image_ref = upload(provider, staged, spec, key)
    glance.update_image(image_ref, is_protected=True)
    with pytest.raises(exceptions.ProviderError, match="protected"):
        provider.discard(key)
    glance.update_image(image_ref, is_protected=False)


def test_list_has_all_pages(
    provider: door.OpenStack, glance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PAGE", 7)
    name = f"many {uuid.uuid4()}"
    body = {"name": name, "disk_format": "raw", "container_format": "bare"}
    made = [glance.post("/images", json=body).json()["id"] for _ in range(30)]
    listed = [image.image_ref for image in provider.list({"name": name})]
    assert sorted(listed) == sorted(made)
    for image_id in made:
        provider.delete(image_id)


@pytest.mark.parametrize("name", ["debian:12", "in:a,b", "eq:x", "neq:", ":"])
def test_name_that_could_be_an_operator(provider: door.OpenStack, glance: Any, name: str) -> None:
    body = {"name": name, "disk_format": "raw", "container_format": "bare"}
    made = glance.post("/images", json=body).json()["id"]
    found = provider.describe(name)
    assert found and (found.image_ref, found.name) == (made, name)
    assert [each.image_ref for each in provider.list({"name": name})] == [made]
    provider.delete(made)


def test_list_goes_on_behind_a_marker(
    provider: door.OpenStack, glance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"in:{uuid.uuid4()}"
    body = {"name": name, "disk_format": "raw", "container_format": "bare"}
    made = {glance.post("/images", json=body).json()["id"] for _ in range(5)}
    monkeypatch.setattr(door, "PAGE", 2)
    first = list(provider.list({"name": name}, most=3))
    rest = list(provider.list({"name": name}, first[-1].image_ref))
    assert len(first) == 3 and {each.image_ref for each in first + rest} == made
    assert {each.state for each in first} == {"pending"}
    glance.update_image(first[0].image_ref, is_hidden=True)     # no list shows it
    assert {each.image_ref for each in provider.look(made)} == made
    for image_id in made:
        provider.delete(image_id)
    with pytest.raises(exceptions.ProviderError) as caught:
        list(provider.list({}, first[0].image_ref))
    assert caught.value.code == "marker.not_found"


def test_an_image_that_somebody_deletes_meanwhile(
    provider: door.OpenStack, glance: Any, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> None:
    class Deleting(Transfer):
        def alive(self) -> None:
            super().alive()
            if self.asked == 3:
                glance.delete_image(spec.image_id)

    with pytest.raises(exceptions.ProviderError) as caught:
        provider.upload(staged, spec, key, Deleting())
    assert len(caught.value.detail) > 20
    persistently(lambda: provider.discard(key))     # Glance may drop the connection that it does not read


# The hash


class OtherGlance(door.OpenStack):
    """One whose Glance describes its images in another way."""

    changes: Mapping[str, Any] = {}

    def _show(self, image_ref: str) -> Mapping[str, Any] | None:
        return {**(super()._show(image_ref) or {}), **self.changes}


@pytest.fixture
def other(cloud: sandbox.Sandbox) -> OtherGlance:
    return OtherGlance({"region": ZONE}, session_of(cloud, "member"))


def test_a_glance_that_knows_md5_only(
    other: OtherGlance, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> None:
    other.changes = {"os_hash_algo": None, "os_hash_value": None}
    image_ref = upload(other, staged, spec, key)
    other.changes = {**other.changes, "checksum": "0" * 32}
    with pytest.raises(exceptions.ProviderError) as caught:
        other.verify(image_ref, staged)
    assert caught.value.code == "image.hash_mismatch"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"os_hash_algo": "whirlpool9"}, "image.hash_unknown"),
        ({"os_hash_value": "0" * 128}, "image.hash_mismatch"),
        ({"os_hash_algo": None, "os_hash_value": None, "checksum": None}, "image.hash_mismatch"),
        ({"size": 1}, "image.hash_mismatch"),
    ],
)
def test_a_hash_that_proves_nothing(
    other: OtherGlance,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
    key: str,
    changes: Mapping[str, Any],
    code: str,
) -> None:
    image_ref = upload(other, staged, spec, key)
    other.changes = changes
    with pytest.raises(exceptions.ProviderError) as caught:
        other.verify(image_ref, staged)
    assert (caught.value.code, type(caught.value)) == (code, exceptions.ProviderError)


def test_a_glance_that_hears_of_it_late(
    other: OtherGlance,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind one address there may be several: one look does not end what all bytes were sent for."""
    image_ref = upload(other, staged, spec, key)
    there, late = other._show(image_ref), {"id": image_ref, "status": "saving"}
    looks = itertools.cycle((None, late, there))
    monkeypatch.setattr(other, "_show", lambda _: next(looks))
    assert other.register(image_ref, spec, key) == image_ref
    assert other.verify(image_ref, staged) == "bytes"


@pytest.mark.parametrize("status", ["queued", "saving", "deactivated", "killed"])
def test_an_image_that_is_not_active_is_no_image(
    other: OtherGlance,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
    key: str,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "SEEN_SECONDS", 1)
    image_ref = upload(other, staged, spec, key)
    other.changes = {"status": status}
    with pytest.raises(exceptions.ProviderError) as caught:
        other.register(image_ref, spec, key)
    assert caught.value.code == "image.not_active"


# Odd answers


class Odd(faulty.Proxy):
    """Notes the headers of all requests; gives an answer of its own once there is one."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.headers: list[tuple[str, dict[str, str]]] = []
        self.answer: tuple[int, str, bytes] | None = None

    def forward(self, client: http.server.BaseHTTPRequestHandler) -> None:
        self.headers.append((client.command, {k.lower(): v for k, v in client.headers.items()}))
        if self.answer is None:
            super().forward(client)
            return
        status, kind, body = self.answer
        headers = {"Content-Type": kind, "x-openstack-request-id": "req-odd"}
        self._answer(client, status, body, headers)


@pytest.fixture
def odd(cloud: sandbox.Sandbox) -> Iterator[Odd]:
    with Odd(cloud.url("glance-a")) as proxy, proxy.as_zone(cloud, ODD_ZONE):
        yield proxy


def test_the_size_is_announced(
    cloud: sandbox.Sandbox, odd: Odd, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> None:
    upload(in_zone(cloud, ODD_ZONE), staged, spec, key)
    [put] = [headers for method, headers in odd.headers if method == "PUT"]
    assert put["x-openstack-image-size"] == put["content-length"] == str(staged.size)
    assert put["content-type"] == "application/octet-stream"
    assert "transfer-encoding" not in put


@pytest.mark.parametrize(
    ("status", "code", "transient"),
    [
        (400, "cloud.error", False),
        (403, "cloud.forbidden", False),
        (404, "cloud.not_found", False),
        (413, "cloud.quota_exceeded", False),
        (415, "image.format_not_taken", False),
        (408, "cloud.unavailable", True),
        (409, "cloud.unavailable", True),
        (429, "cloud.unavailable", True),
        (500, "cloud.unavailable", True),
        (502, "cloud.unavailable", True),
        (503, "cloud.unavailable", True),
        (504, "cloud.unavailable", True),
    ],
)
def test_what_an_answer_means(
    cloud: sandbox.Sandbox,
    odd: Odd,
    staged: staging.StagedFile,
    status: int,
    code: str,
    transient: bool,
) -> None:
    provider = in_zone(cloud, ODD_ZONE)
    provider.check(staged)
    odd.headers.clear()
    odd.answer = (status, "text/html", b"<html><title>why</title><body>because</body></html>")
    with pytest.raises(exceptions.ProviderError) as caught:
        next(provider.list({}))
    error = caught.value
    assert (error.code, error.cloud_request_id) == (code, "req-odd")
    assert isinstance(error, exceptions.TransientProviderError) == transient
    assert ODD_ZONE in error.detail and str(status) in error.detail and "<" not in error.detail
    assert len(odd.headers) == 1            # asked once: the Target's attempts are the only retries


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<html>Down for maintenance</html>"),
        (200, "application/json", b"{"),
        (200, "application/json", b"[]"),
        (200, "application/json", b"{}"),
        (302, "text/html", b""),
    ],
)
def test_an_answer_that_is_none(
    cloud: sandbox.Sandbox, odd: Odd, staged: staging.StagedFile, answer: tuple[int, str, bytes]
) -> None:
    """A mirror's or a proxy's page is the cloud's fault, not CIMinG's."""
    provider = in_zone(cloud, ODD_ZONE)
    provider.check(staged)
    odd.answer = answer
    calls: list[Callable[[], Any]] = [lambda: provider.show(new_key()), lambda: next(provider.list({}))]
    for call in calls:
        with pytest.raises(exceptions.ProviderError) as caught:
            call()
        assert ODD_ZONE in caught.value.detail


@pytest.mark.parametrize("fault", ["reset", "503", "lose-answer"])
def test_a_put_that_fails_is_repeated_on_the_same_record(
    cloud: sandbox.Sandbox,
    odd: Odd,
    staged: staging.StagedFile,
    spec: base.ImageSpec,
    key: str,
    fault: faulty.Fault,
) -> None:
    provider = in_zone(cloud, ODD_ZONE)
    odd.faults = [("PUT", "/file", fault)]
    with pytest.raises(exceptions.TransientProviderError):
        provider.upload(staged, spec, key, Transfer())
    assert persistently(lambda: upload(provider, staged, spec, key)) == spec.image_id


# Logging in


def test_keystone_does_not_answer(cloud: sandbox.Sandbox, staged: staging.StagedFile) -> None:
    session = session_of(cloud, "member", auth_url=f"{on_openstack.NOBODY}/v3")
    with pytest.raises(exceptions.TransientProviderError) as caught:
        door.OpenStack({"region": ZONE}, session).check(staged)
    assert caught.value.code == "cloud.unreachable"


def test_keystone_refuses(cloud: sandbox.Sandbox, staged: staging.StagedFile) -> None:
    session = session_of(cloud, "member", password="swordfish")
    provider = door.OpenStack({"region": ZONE}, session)
    for call in (partial(provider.check, staged), partial(provider.discard, new_key())):
        with pytest.raises(exceptions.ProviderError) as caught:
            call()
        error = caught.value
        assert (error.code, type(error)) == ("cloud.auth_failed", exceptions.CredentialNeeded)
        assert error.cloud_request_id
        assert "swordfish" not in error.detail


def test_a_zone_without_images(cloud: sandbox.Sandbox, staged: staging.StagedFile) -> None:
    with pytest.raises(exceptions.ProviderError) as caught:
        in_zone(cloud, "zone-nowhere").check(staged)
    assert caught.value.code == "cloud.no_endpoint", caught.value.detail
    assert not isinstance(caught.value, exceptions.TransientProviderError)
    assert "zone-nowhere" in caught.value.detail


@pytest.mark.parametrize("url", ["http://name.invalid", "https://127.0.0.1:1", "file:///etc/passwd"])
def test_a_bad_endpoint(cloud: sandbox.Sandbox, staged: staging.StagedFile, url: str) -> None:
    with zone_at(cloud, ODD_ZONE, url), pytest.raises(exceptions.ProviderError) as caught:
        in_zone(cloud, ODD_ZONE).check(staged)
    assert ODD_ZONE in caught.value.detail


def test_a_token_that_ends_meanwhile(
    cloud: sandbox.Sandbox, staged: staging.StagedFile, spec: base.ImageSpec, key: str
) -> None:
    """Glance says 401 to a token that Keystone gave: log in again, and send all again."""
    session = session_of(cloud, "member")
    provider = door.OpenStack({"region": ZONE}, session)
    provider.check(staged)
    assert isinstance(session.auth, v3.Password)
    session.auth.get_access(session)._auth_token = "ended"
    assert upload(provider, staged, spec, key) == spec.image_id


