# SPDX-License-Identifier: Apache-2.0
"""OpenStack under the contract: a real Glance of the sandbox, as its member."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from keystoneauth1 import session as ks_session
from keystoneauth1.identity import v3

from ciming import cmd, config
from ciming.providers import base
from ciming.providers.openstack import provider as door
from tests.contract import subjects
from tests.person import Person
from tests.sandbox import sandbox

assert cmd  # imported first, as the processes do: it settles how they are concurrent

ZONE, DEAD_ZONE = "zone-a", "zone-dead"
NOBODY = "http://127.0.0.1:1"


def session_of(cloud: sandbox.Sandbox, name: str, **other: str) -> ks_session.Session:
    """A new login of a person of the sandbox."""
    auth = v3.Password(**{**cloud.clouds[name]["auth"], **other})
    return ks_session.Session(auth=auth, timeout=30)


@contextlib.contextmanager
def zone_at(cloud: sandbox.Sandbox, region: str, url: str) -> Iterator[None]:
    """A zone whose Glance is said to be at a URL."""
    cloud.admin.set_endpoints("glance", {region: url})
    try:
        yield
    finally:
        cloud.admin.remove_region(region)


class OpenStack(subjects.Subject):
    name = "openstack"
    proof = "bytes"
    foreign_format = "floppy"
    renames = True
    carries = frozenset({"hidden"})

    def __init__(self, cloud: sandbox.Sandbox, stack: contextlib.ExitStack) -> None:
        self._cloud = cloud
        self._member = Person(cloud, "member")
        self._admin = Person(cloud, "admin")
        self._sessions: list[ks_session.Session] = []
        self._squats: list[str] = []
        stack.enter_context(zone_at(cloud, DEAD_ZONE, NOBODY))
        stack.callback(self._leave)

    def provider(self) -> door.OpenStack:
        return self._as("member", ZONE)

    def forbidden(self) -> door.OpenStack:
        return self._as("reader", ZONE)

    def unreachable(self) -> door.OpenStack:
        return self._as("member", DEAD_ZONE)

    def _as(self, name: str, region: str) -> door.OpenStack:
        made = self._made(name, {"region": region, "interface": "public"})
        self._sessions.append(made._account.session)
        return made

    def _made(self, name: str, place: Mapping[str, Any]) -> door.OpenStack:
        return door.OpenStack(place, session_of(self._cloud, name))

    def refs(self, key: str) -> set[str]:
        marks = {"ciming_target": key, "owner": self._member.project_id}
        answer = self._member.zone(ZONE).image.get("/images", params=marks)
        return {image["id"] for image in answer.json()["images"]}

    def read(self, image_ref: str) -> bytes:
        return bytes(self._member.zone(ZONE).image.get(f"/images/{image_ref}/file").content)

    def squat(self, spec: base.ImageSpec, key: str) -> str:
        body = {
            "id": spec.image_id,
            "name": "squat",
            "visibility": "public",
            "disk_format": "raw",
            "container_format": "bare",
            "ciming_image": spec.image_id,
            "ciming_target": key,
        }
        self._admin.zone(ZONE).image.post("/images", json=body).raise_for_status()
        self._squats.append(spec.image_id)
        return spec.image_id

    def squatted(self, image_ref: str) -> bool:
        image = self._admin.zone(ZONE).image.get_image(image_ref)
        return (image.status, image.name) == ("queued", "squat")

    def secrets(self) -> list[str]:
        tokens = [str(session.get_token()) for session in self._sessions]
        return [*tokens, *(self._cloud.clouds[name]["auth"]["password"] for name in ("member", "reader"))]

    def _leave(self) -> None:
        for image_id in self._squats:
            self._admin.zone(ZONE).image.delete_image(image_id)


class Registered(OpenStack):
    """Not as a zone: by a login of its own, through the address check, for one of several projects."""

    def __init__(self, cloud: sandbox.Sandbox, stack: contextlib.ExitStack) -> None:
        config.register()
        config.CONF([], project="ciming", default_config_files=[], default_config_dirs=[])
        for option in ("allow_http", "allow_loopback"):
            config.CONF.set_override(option, True, group="egress")
            stack.callback(config.CONF.clear_override, option, group="egress")
        super().__init__(cloud, stack)

    def _made(self, name: str, place: Mapping[str, Any]) -> door.OpenStack:
        login = {"auth_type": "v3password", **self._cloud.clouds[name]["auth"]}
        url = self._cloud.url("keystone")
        more = {"auth_url": url, "cloud": "registered", "timeout": 30.0, "tenant": "one-of-several"}
        return door.OpenStack({**place, **more}, login)
