# SPDX-License-Identifier: Apache-2.0
"""What people do while the service dies: each returns the id of an Image whose Job ends, or has ended."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

from tests.functional import crash, faulty
from tests.person import ENDS
from tests.sandbox import sandbox

STALL_SECONDS = 7.0     # after eight, the service gives its client up
SLOW = 200_000          # bytes a second: what is sent there can be cancelled
LONG_IMPORT, SHORT_IMPORT = 120.0, 0.3      # seconds
MACHINE = {"architecture": "x86_64"}
AGAIN = {"connect_retries": 5}      # idle connections are kept, and Glance may have closed some by now


class Refusing(faulty.Proxy):
    """A Glance that takes no bytes; or none for `images`, where those are given."""

    images: set[str] | None = None

    def next_fault(self, method: str, path: str) -> faulty.Fault:
        refused = self.images is None or any(image in path for image in self.images)
        return "403" if method == "PUT" and refused else ""


class Zones:
    """Zones of all tempers, beside those that are fine."""

    def __init__(self, cloud: sandbox.Sandbox) -> None:
        self._cloud = cloud
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.refusing, self.moody = Refusing(self._upstream), Refusing(self._upstream)
        self.slow, self.raw = faulty.Proxy(self._upstream), faulty.Proxy(self._upstream)
        self.moody.images, self.slow.throttle = set(), SLOW
        for name in ("refusing", "moody", "slow", "raw"):
            proxy = self._stack.enter_context(getattr(self, name))
            self._stack.enter_context(proxy.as_zone(self._cloud, f"zone-{name}"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def refuse_once(self, image_id: str) -> None:
        """The moody zone takes no bytes for the image with this UUID; for its next try it has another."""
        assert self.moody.images is not None
        self.moody.images.add(image_id)

    @property
    def _upstream(self) -> str:
        return self._cloud.url("glance-b")


def created(user: crash.Survivor, name: str, data: bytes) -> str:
    """The main job."""
    image_id = user.create(name, size=len(data), disk_format="qcow2")
    assert user.send(image_id, data) in ("", "image.has_data")
    return image_id


def failing(user: crash.Survivor, name: str, data: bytes) -> str:
    """One Cloud refuses the bytes: what was begun there is withdrawn."""
    image_id = user.create(name, clouds=["zone-a", "zone-refusing"])
    assert user.send(image_id, data) in ("", "image.has_data")
    return image_id


def refused(user: crash.Survivor, name: str, data: bytes) -> str:
    """Too much for the staging area; then bytes of another length than announced; then bytes of no image."""
    body = {"name": name, "clouds": ["zone-a"], "size": crash.QUOTA + 1}
    assert user.ask(lambda: user.member.call("POST", "/v1/images", json=body), 507).status_code == 507
    image_id = user.create(name, disk_format="qcow2", size=1000)
    assert user.send(image_id, data, announced=False) == "upload.size_mismatch"
    assert user.send(image_id, b"x" * 1000) in ("", "image.has_data")
    return image_id


def stalled(user: crash.Survivor, name: str, data: bytes) -> str:
    """An upload in two requests; the second one stalls for so long that no engine follows any more."""
    image_id = user.create(name, size=len(data))
    user.resume(image_id, data[: len(data) // 2], lambda rest: iter([rest]))

    def slowly(rest: bytes) -> Iterator[bytes]:
        yield rest[: len(rest) // 2]
        end = time.monotonic() + STALL_SECONDS
        while time.monotonic() < end and not user.points.saw("after db.work.stop_following"):
            time.sleep(0.1)
        yield rest[len(rest) // 2 :]

    user.resume(image_id, data, slowly)
    return image_id


def terminated(user: crash.Survivor, name: str, data: bytes) -> str:
    """The user gives the upload up."""
    image_id = user.create(name, size=len(data))
    user.resume(image_id, data[: len(data) // 2], lambda rest: iter([rest]))
    user.give_up(image_id)
    return image_id


def expired(user: crash.Survivor, name: str, data: bytes) -> str:
    """Nobody goes on with the upload."""
    image_id = user.create(name, size=len(data))
    user.resume(image_id, data[: len(data) // 2], lambda rest: iter([rest]))
    user.execute(
        "UPDATE uploads SET expires_at = 0 WHERE job_id = (SELECT id FROM jobs WHERE image_id = :image)",
        image=image_id,
    )
    return image_id


def cancelled(user: crash.Survivor, name: str, data: bytes) -> str:
    """One Cloud has the image, the other one a part of it, when the user wants it no more."""
    image_id, before = user.create(name, clouds=["zone-a", "zone-slow"]), user.received()
    assert user.send(image_id, data) in ("", "image.has_data")

    def under_way() -> bool:
        there, _ = sorted(user.job(image_id)["targets"], key=lambda target: str(target["cloud"]))
        return there["status"] == "success" and user.received() > before

    user.until(under_way)
    user.act(image_id, "cancel", "job.has_ended")
    return image_id


def restored(user: crash.Survivor, name: str, data: bytes) -> str:
    """A Cloud refuses the bytes at first; when it is tried again, the staging area has lost them."""
    image_id = user.create(name, clouds=["zone-a", "zone-moody"])
    user.refuse_once(image_id)
    assert user.send(image_id, data) in ("", "image.has_data")
    if user.ended(image_id)["status"] == "partial":
        user.lose_bytes(image_id)
        user.act(image_id, "retry", "job.not_ended", "job.nothing_failed")
    return image_id


def moved(user: crash.Survivor, name: str, data: bytes) -> str:
    """What one zone has comes into another; it is forgotten there, linked again, and deleted."""
    glance = user.member.zone("zone-a").image
    body = {"name": name, "disk_format": "qcow2", "container_format": "bare"}
    there = glance.post("/images", json=body, **AGAIN).json()["id"]
    octets = {"Content-Type": "application/octet-stream"}
    glance.put(f"/images/{there}/file", data=data, headers=octets).raise_for_status()
    image_id = user.create(name, clouds=["zone-b"], source={"cloud": "zone-a", "image": there})
    assert user.ended(image_id)["status"] == "success"
    user.change(image_id, "DELETE", "/links/zone-b", "link.not_found")
    link = {"cloud": "zone-b", "image_ref": image_id}
    user.change(image_id, "POST", "/links", "image.busy", "image.already_linked", json=link)
    in_b = {"cloud": "zone-b"}
    user.change(image_id, "DELETE", "", "image.busy", "link.not_found", params=in_b)
    return image_id


def converted(user: crash.Survivor, name: str, data: bytes) -> str:
    """One Cloud takes the image as it is, the other one wants it as raw."""
    image_id = user.create(name, clouds=["zone-a", "zone-raw"])
    assert user.send(image_id, data) in ("", "image.has_data")
    return image_id


def brought_on(user: crash.Survivor, name: str, data: bytes) -> str:
    """The only Cloud that has the image wanted it as raw: another one gets what is there."""
    image_id = user.create(name, clouds=["zone-raw"])
    assert user.send(image_id, data) in ("", "image.has_data")
    assert user.ended(image_id)["status"] == "success"
    wanted = {"clouds": ["zone-a"]}
    user.change(image_id, "POST", "/clouds", "image.busy", "image.already_linked", json=wanted)
    return image_id


def resumed(user: crash.Survivor, name: str, data: bytes) -> str:
    """The user takes the trust back before the bytes come: the Job waits for the next one."""
    image_id = user.create(name, size=len(data), disk_format="qcow2")
    user.member.take_trusts_back()
    assert user.send(image_id, data) in ("", "image.has_data")
    user.until(lambda: user.job(image_id)["status"] in ("waiting-credentials", *ENDS))
    user.act(image_id, "resume", "job.not_waiting")
    return image_id


def spread(user: crash.Survivor, name: str, data: bytes) -> str:
    """To AWS by blocks, shared with somebody there; then deleted."""
    image_id = user.create(name, clouds=["virginia"], properties=MACHINE)
    assert user.send(image_id, data) in ("", "image.has_data")
    assert user.ended(image_id)["status"] == "success"
    there = {"cloud": "virginia"}
    user.change(image_id, "DELETE", "", "image.busy", "link.not_found", params=there)
    return image_id


def copied(user: crash.Survivor, name: str, data: bytes) -> str:
    """To AWS by blocks; then AWS brings it to another region."""
    image_id = user.create(name, clouds=["virginia"], properties=MACHINE)
    assert user.send(image_id, data) in ("", "image.has_data")
    assert user.ended(image_id)["status"] == "success"
    there = {"clouds": ["frankfurt"]}
    user.change(image_id, "POST", "/clouds", "image.busy", "image.already_linked", json=there)
    return image_id


def read_back(user: crash.Survivor, name: str, data: bytes) -> str:
    """To AWS; what it has there is brought to Google as an Image of its own."""
    there = user.create(name, clouds=["virginia"], properties=MACHINE)
    assert user.send(there, data) in ("", "image.has_data")
    assert user.ended(there)["status"] == "success"
    [link] = user.get(f"/v1/images/{there}")["links"]
    source = {"cloud": "virginia", "image": link["image_ref"]}
    return user.create(f"{name}-again", clouds=["google"], source=source, properties=MACHINE)


def imported(user: crash.Survivor, name: str, data: bytes) -> str:
    """To AWS by an object that is imported, and by blocks in another region."""
    image_id = user.create(name, clouds=["ireland", "virginia"], properties=MACHINE)
    assert user.send(image_id, data) in ("", "image.has_data")
    return image_id


def unregistered(user: crash.Survivor, name: str, data: bytes) -> str:
    """AWS refuses a part of the bytes here, and there what it could make of all of them."""
    image_id = user.create(name, clouds=["oregon", "portland"], properties=MACHINE)
    assert user.send(image_id, data) in ("", "image.has_data")
    return image_id


def abandoned(user: crash.Survivor, name: str, data: bytes) -> str:
    """AWS imports, and takes its time, when the user wants it no more."""
    user.aws.standin.settings(import_seconds=LONG_IMPORT)
    image_id = user.create(name, clouds=["ireland"], properties=MACHINE)
    assert user.send(image_id, data) in ("", "image.has_data")
    user.until(lambda: user.aws.imports(image_id))
    user.act(image_id, "cancel", "job.has_ended")
    user.ended(image_id)
    user.aws.standin.settings(import_seconds=SHORT_IMPORT)
    return image_id


def packed(user: crash.Survivor, name: str, data: bytes) -> str:
    """To Google, and shared with somebody there."""
    image_id = user.create(name, clouds=["google"], properties=MACHINE)
    assert user.send(image_id, data) in ("", "image.has_data")
    return image_id


def kept(user: crash.Survivor, name: str, data: bytes) -> str:
    """To Google, where the archive stays until the image is deleted."""
    image_id = user.create(name, clouds=["keeping"], properties=MACHINE)
    assert user.send(image_id, data) in ("", "image.has_data")
    assert user.ended(image_id)["status"] == "success"
    there = {"cloud": "keeping"}
    user.change(image_id, "DELETE", "", "image.busy", "link.not_found", params=there)
    return image_id


def unmade(user: crash.Survivor, name: str, data: bytes) -> str:
    """Google takes the archive, and makes no image of it."""
    with user.gcp.making_none():
        image_id = user.create(name, clouds=["google"], properties=MACHINE)
        assert user.send(image_id, data) in ("", "image.has_data")
        user.ended(image_id)
    return image_id


def unwanted(user: crash.Survivor, name: str, data: bytes) -> str:
    """Google makes an image, and takes its time, when the user wants it no more."""
    with user.gcp.stuck():
        image_id = user.create(name, clouds=["google"], properties=MACHINE)
        assert user.send(image_id, data) in ("", "image.has_data")
        user.until(lambda: user.gcp.images(image_id))
        user.act(image_id, "cancel", "job.has_ended")
        target_ids = [target["id"] for target in user.job(image_id)["targets"]]
        user.until(lambda: not user.gcp.objects(target_ids))
    return image_id


def renamed(user: crash.Survivor, name: str, data: bytes) -> str:
    """What is said of it changes in all kinds of Clouds, and back; then once more, when it is in none."""
    clouds = ["zone-a", "virginia", "google"]
    image_id = user.create(name, clouds=clouds, properties=MACHINE, tags=["old"])
    assert user.send(image_id, data) in ("", "image.has_data")
    assert user.ended(image_id)["status"] == "success"
    user.say(image_id, name=f"again-{name}", tags=["new"], hidden=True, deprecated=True)
    user.say(image_id, deprecated=False)
    for cloud in clouds:
        user.change(image_id, "DELETE", f"/links/{cloud}", "link.not_found")
    user.say(image_id, tags=["nowhere"])
    return image_id


def lined_up(user: crash.Survivor, name: str, data: bytes) -> str:
    """A zone gets an image that is shared, then what has changed of it, and loses what it alone has."""
    here, there = (user.member.zone(zone).image for zone in crash.ZONES)
    body = {"name": name, "disk_format": "qcow2", "container_format": "bare", "visibility": "shared"}
    source, _extra = (_filled(glance, body, data) for glance in (here, there))
    there.patch(f"/images/{_extra}", data=_renamed(f"{name}-extra"), headers=PATCH).raise_for_status()
    here.post(f"/images/{source}/members", json={"member": "a" * 32}, **AGAIN).raise_for_status()
    _sync(user, name, prune=True, max_delete=0)
    for member in ("b" * 32, "c" * 32):
        there.post(f"/images/{source}/members", json={"member": member}, **AGAIN).raise_for_status()
    there.delete(f"/images/{source}/members/{'a' * 32}").raise_for_status()
    here.patch(f"/images/{source}", data=_renamed(f"{name}-new"), headers=PATCH).raise_for_status()
    _sync(user, name, prune=True, members=True)
    return source


PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


def _renamed(name: str) -> str:
    return json.dumps([{"op": "replace", "path": "/name", "value": name}])


def _filled(glance: Any, body: dict[str, str], data: bytes) -> str:
    made = str(glance.post("/images", json=body, **AGAIN).json()["id"])
    octets = {"Content-Type": "application/octet-stream"}
    glance.put(f"/images/{made}/file", data=data, headers=octets).raise_for_status()
    return made


def _sync(user: crash.Survivor, name: str, **more: Any) -> None:
    """One that was begun, but not told of, is found."""
    zones = {"from": crash.ZONES[0], "to": [crash.ZONES[1]]}
    wanted = {**zones, "filters": {"name": [f"{name}*"]}, **more}
    answer = user.ask(lambda: user.member.call("POST", "/v1/zone-syncs", json=wanted))
    assert answer.status_code == 202 or answer.json()["errors"][0]["code"] == "zone_sync.busy", answer.text

    def ended() -> bool:
        return all(job["status"] in ENDS for job in user.get("/v1/jobs", kind="zone-sync")["jobs"])

    user.until(ended)


class Scenario(NamedTuple):
    """What is done, and how its Job ends."""

    act: Callable[[crash.Survivor, str, bytes], str]
    end: str


SCENARIOS = {
    "created": Scenario(created, "success"),
    "failing": Scenario(failing, "partial"),
    "refused": Scenario(refused, "error"),
    "stalled": Scenario(stalled, "success"),
    "terminated": Scenario(terminated, "cancelled"),
    "expired": Scenario(expired, "error"),
    "cancelled": Scenario(cancelled, "cancelled"),
    "restored": Scenario(restored, "success"),
    "converted": Scenario(converted, "success"),
    "brought_on": Scenario(brought_on, "success"),
    "moved": Scenario(moved, "success"),
    "lined_up": Scenario(lined_up, "success"),
    "resumed": Scenario(resumed, "success"),
    "spread": Scenario(spread, "success"),
    "copied": Scenario(copied, "success"),
    "read_back": Scenario(read_back, "success"),
    "imported": Scenario(imported, "success"),
    "unregistered": Scenario(unregistered, "error"),
    "abandoned": Scenario(abandoned, "cancelled"),
    "packed": Scenario(packed, "success"),
    "kept": Scenario(kept, "success"),
    "unmade": Scenario(unmade, "error"),
    "unwanted": Scenario(unwanted, "cancelled"),
    "renamed": Scenario(renamed, "success"),
}
assert {scenario.end for scenario in SCENARIOS.values()} == set(ENDS)
