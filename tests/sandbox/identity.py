# SPDX-License-Identifier: Apache-2.0
"""A small Keystone client: what seeding and the tests need of the Identity API, and no more."""

from collections.abc import Mapping
from typing import Any

from keystoneauth1 import session as keystone_session
from keystoneauth1.identity import v3

JSON = dict[str, Any]


class Identity:
    """Keystone's v3 API as one user; a token that runs out is replaced by itself."""

    def __init__(self, url: str, username: str, password: str, project: str) -> None:
        self.url = url
        auth = v3.Password(
            auth_url=url,
            username=username,
            password=password,
            project_name=project,
            user_domain_id="default",
            project_domain_id="default",
        )
        self.session = keystone_session.Session(auth=auth, timeout=30)
        self.catalogs = 1
        """Which catalog it is by now: one more with every change."""

    @property
    def user_id(self) -> str:
        """Id of the user whose client this is."""
        return str(self.session.get_user_id())

    def call(self, method: str, path: str, body: JSON | None = None) -> JSON:
        """Send a request and return its answer; a refusal raises keystoneauth's exception."""
        response = self.session.request(self.url + path, method, json=body)
        return dict(response.json()) if response.content else {}

    def list(self, kind: str) -> list[JSON]:
        """Return every project, user, role, service, endpoint or region."""
        return list(self.call("GET", f"/{kind}s")[f"{kind}s"])

    def ids(self, kind: str) -> dict[str, str]:
        """Return the id of every project, user, role or service by name."""
        return {item["name"]: item["id"] for item in self.list(kind)}

    def ensure(self, kind: str, wanted: Mapping[str, JSON]) -> dict[str, str]:
        """Make the projects, users or services (by name) that are absent; return all ids."""
        ids = self.ids(kind)
        for name in wanted.keys() - ids.keys():
            created = self.call("POST", f"/{kind}s", {kind: {"name": name, **wanted[name]}})
            ids[name] = created[kind]["id"]
        return ids

    def grant(self, role: str, user: str, project: str) -> None:
        """Give a user a role on a project, all by id."""
        self.call("PUT", f"/projects/{project}/users/{user}/roles/{role}")

    def set_endpoints(self, service: str, urls: Mapping[str, str]) -> None:
        """Set the public endpoint of a service (by name) in regions, which are made if absent."""
        service_id = self.ids("service")[service]
        for region in urls.keys() - {region["id"] for region in self.list("region")}:
            self.call("POST", "/regions", {"region": {"id": region}})
        known = {
            endpoint["region_id"]: endpoint
            for endpoint in self.list("endpoint")
            if endpoint["service_id"] == service_id and endpoint["interface"] == "public"
        }
        for region, url in urls.items():
            body = {"service_id": service_id, "region_id": region, "interface": "public"}
            if region not in known:
                self.call("POST", "/endpoints", {"endpoint": {**body, "url": url}})
            elif known[region]["url"] != url:
                path = f"/endpoints/{known[region]['id']}"
                self.call("PATCH", path, {"endpoint": {"url": url}})
        self.catalogs += 1

    def remove_region(self, region: str) -> None:
        """Remove a region with its endpoints."""
        for known in self.list("endpoint"):
            if known["region_id"] == region:
                self.call("DELETE", f"/endpoints/{known['id']}")
        self.call("DELETE", f"/regions/{region}")
        self.catalogs += 1
