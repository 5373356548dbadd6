# SPDX-License-Identifier: Apache-2.0
"""Users, roles and endpoints of a sandbox, made through Keystone's public API."""

import hashlib
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any

from tests.sandbox import identity, processes, services
from tests.sandbox import state as sandbox_state

MEMBER, READER, STRANGER, OTHER = "alice", "rita", "sam", "carol"
ENGINE = "ciming-engine"
"""The service user of an engine that is not in the API's process."""
FIRST_USERS = {
    MEMBER: ("studio", "member"),
    READER: ("studio", "reader"),
    STRANGER: ("elsewhere", "member"),
    "glance": ("service", "service"),
    "barbican": ("service", "service"),
    "ciming": ("service", "service"),
    ENGINE: ("service", "service"),
}
"""User: project and role there."""
SECOND_USERS = {OTHER: ("shop", "member"), "glance": ("service", "service")}
SERVICE_TYPES = {
    "keystone": "identity",
    "glance": "image",
    "barbican": "key-manager",
    "ciming": "multicloud",
}
USERS = {"admin", *FIRST_USERS, *SECOND_USERS}


def login(
    state: sandbox_state.State, user: str, project: str, keystone: str = "keystone"
) -> identity.Identity:
    """Return a client of Keystone as that user."""
    url = f"{services.url(state, keystone)}/v3"
    return identity.Identity(url, user, state.passwords[user], project)


def first_cloud(state: sandbox_state.State) -> None:
    """Fill the first cloud: two zones, the project's users, CIMinG's endpoint in each zone."""
    admin = login(state, "admin", "admin")
    _users(admin, state, FIRST_USERS)
    zones = services.ZONES
    _endpoints(admin, state, "keystone", dict.fromkeys(zones, "keystone"))
    _endpoints(admin, state, "glance", zones)
    _endpoints(admin, state, "ciming", dict.fromkeys(zones, "ciming"))
    if state.barbican:
        _endpoints(admin, state, "barbican", dict.fromkeys(zones, "barbican"))


def second_cloud(state: sandbox_state.State) -> None:
    """Fill the second cloud: one region, and a user with an application credential."""
    admin = login(state, "admin", "admin", "keystone2")
    _users(admin, state, SECOND_USERS)
    region = services.SECOND_REGION
    _endpoints(admin, state, "keystone", {region: "keystone2"})
    _endpoints(admin, state, "glance", {region: "glance2"})
    state.application_credential = _application_credential(state)


def _users(
    admin: identity.Identity, state: sandbox_state.State, users: Mapping[str, tuple[str, str]]
) -> None:
    domain = {"domain_id": "default"}
    projects = admin.ensure("project", {project: domain for project, _ in users.values()})
    passwords = {user: {**domain, "password": state.passwords[user]} for user in users}
    ids = admin.ensure("user", passwords)
    roles = admin.ids("role")
    for user, (project, role) in users.items():
        admin.grant(roles[role], ids[user], projects[project])
    admin.ensure("service", {name: {"type": kind} for name, kind in SERVICE_TYPES.items()})


def _endpoints(
    admin: identity.Identity,
    state: sandbox_state.State,
    service: str,
    regions: Mapping[str, str],
) -> None:
    """Set the endpoints of a service: in which region is which of the sandbox's services."""
    suffix = "/v3" if service == "keystone" else ""
    urls = {region: services.url(state, name) + suffix for region, name in regions.items()}
    admin.set_endpoints(service, urls)


def _application_credential(state: sandbox_state.State) -> dict[str, str]:
    user, (project, _) = OTHER, SECOND_USERS[OTHER]
    client = login(state, user, project, "keystone2")
    path = f"/users/{client.user_id}/application_credentials"
    known = {item["id"] for item in client.call("GET", path)["application_credentials"]}
    if state.application_credential.get("id") in known:
        return state.application_credential
    name = f"sandbox-{secrets.token_hex(3)}"
    created = client.call("POST", path, {"application_credential": {"name": name}})
    return {key: created["application_credential"][key] for key in ("id", "secret")}


def clouds(state: sandbox_state.State) -> dict[str, Any]:
    """Return clouds.yaml: every user under the name of what it is."""
    users = {
        "admin": ("admin", "admin"),
        "member": (MEMBER, FIRST_USERS[MEMBER][0]),
        "reader": (READER, FIRST_USERS[READER][0]),
        "stranger": (STRANGER, FIRST_USERS[STRANGER][0]),
        "service": ("ciming", FIRST_USERS["ciming"][0]),
    }
    found = {name: _password_cloud(state, *user) for name, user in users.items()}
    if state.second:
        found["other"] = _other_cloud(state)
    return {"clouds": found}


def _password_cloud(state: sandbox_state.State, user: str, project: str) -> dict[str, Any]:
    return {
        "auth_type": "v3password",
        "auth": {
            "auth_url": f"{services.url(state, 'keystone')}/v3",
            "username": user,
            "password": state.passwords[user],
            "project_name": project,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
        "regions": list(services.ZONES),  # the first is the default
        "interface": "public",
        "identity_api_version": "3",
    }


def _other_cloud(state: sandbox_state.State) -> dict[str, Any]:
    return {
        "auth_type": "v3applicationcredential",
        "auth": {
            "auth_url": f"{services.url(state, 'keystone2')}/v3",
            "application_credential_id": state.application_credential["id"],
            "application_credential_secret": state.application_credential["secret"],
        },
        "region_name": services.SECOND_REGION,
        "interface": "public",
        "identity_api_version": "3",
    }


def probe(state: sandbox_state.State, keystone: str) -> None:
    """Read from every service of a cloud as its ordinary user: up is not yet working.

    A service's health check answers 200 on a broken database too.
    """
    user, users = (MEMBER, FIRST_USERS) if keystone == "keystone" else (OTHER, SECOND_USERS)
    client = login(state, user, users[user][0], keystone)
    for service in services.services(state):
        if service.keystone == keystone:
            path = services.PROBES[service.kind][1]
            client.session.get(f"http://{processes.HOST}:{service.port}{path}")


def fingerprint(state: sandbox_state.State) -> str:
    """Return what changes when a cloud has to be filled again: this file, ports, Barbican."""
    source = pathlib.Path(__file__).read_bytes()
    return hashlib.sha256(source + f"{state.port_base} {state.barbican}".encode()).hexdigest()
