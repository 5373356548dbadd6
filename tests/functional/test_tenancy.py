# SPDX-License-Identifier: Apache-2.0
"""Every call, by whom, on whose: what another project has is not there, whichever way one comes to it."""

import functools
import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import openstack
import pytest
import requests
import sqlalchemy as sa
from keystoneauth1 import session as ks_session
from keystoneauth1.identity import v3
from oslo_config import cfg

from ciming import config
from ciming.api import app
from tests.functional.conftest import soon
from tests.functional.test_clouds import allow, secret
from tests.person import ENDS, JSON, Person
from tests.sandbox import ciming, processes, sandbox

OURS, THEIRS = "tenancy-ours", "tenancy-theirs"
ACCOUNT = "tenancy-account"     # user and project, of which a public Cloud has the credential
DATA = b"x" * 512
NOBODYS = ("nobody", "unscoped", "auditor", "service")
SOMEBODYS = ("reader", "member", "admin")
"""No token, one without a project, a role that no policy knows, and that of services; and those of people."""

OPTIONS = {
    ("engine", "housekeeping_interval"): "1",
    ("engine", "retry_delay"): "0.1",
    ("engine", "max_attempts"): "2",
    ("staging", "keep_free"): "0",
}


class At(NamedTuple):
    """What a call is about: ids, and the names that go with them."""

    image: str
    job: str
    cloud: str
    name: str = ""
    cloud_name: str = ""
    request: str = ""
    visibility: str = "private"

    @property
    def names(self) -> set[str]:
        """What nobody else gets to read."""
        return {each for each in self[:-1] if each}


ABSENT = At(
    image=str(uuid.UUID(int=1)),
    job=str(uuid.UUID(int=2)),
    cloud=str(uuid.UUID(int=3)),
    name=f"tenancy image {uuid.UUID(int=4)}",
    cloud_name=f"tenancy-{uuid.UUID(int=5)}",
    request=f"req-{uuid.UUID(int=6)}",
)


class Call(NamedTuple):
    """What a call gets: the statuses of a reader, a member and an administrator.

    One status: of everybody, with or without a token. `on` is what it needs there, `more` what is sent.
    """

    own: str
    other: str = ""
    public: str = ""
    on: str = "active"
    more: Callable[[At], JSON] = lambda _at: {}


OCTETS = {"Content-Type": "application/octet-stream"}
TUS = {"Tus-Resumable": "1.0.0"}
PART = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
NOTHING = {"name": ["tenancy-nothing-is-called-so"]}
PLACE = {"auth_url": "https://keystone.example.com/v3", "region": "RegionOne"}


def _cloud(at: At) -> JSON:
    wanted = {"name": at.cloud_name, "provider": "openstack", "config": PLACE, "visibility": at.visibility}
    return {"json": wanted}


TABLE: dict[str, Call] = {
    # operation             own            another's      public
    "list_versions": Call("200"),
    "show_version": Call("200"),
    "list_clouds": Call("200 200 200", "200 200 200", "200 200 200"),
    "show_cloud": Call("200 200 200", "404 404 404", "200 200 200"),
    "create_cloud": Call("403 201 201", "403 201 201", on="no cloud", more=_cloud),
    "update_cloud": Call(
        "403 200 200", "403 404 404", "403 403 200", on="cloud", more=lambda _: {"json": {"config": {}}}
    ),
    "delete_cloud": Call("403 204 204", "403 404 404", "403 403 204", on="cloud"),
    "check_cloud": Call("403 200 200", "403 404 404", "403 200 200"),
    "list_cloud_images": Call("403 403 403", "404 404 404"),        # its secret is somebody else's
    "list_availability": Call("200 200 200", "200 200 200"),
    "show_availability": Call("200 200 200", "404 404 404"),
    "list_images": Call("200 200 200", "200 200 200"),
    "create_image": Call(
        *("403 202 202", "403 400 400", "403 202 202"),
        more=lambda at: {"json": {"name": "t", "clouds": [at.cloud]}},
    ),
    "show_image": Call("200 200 200", "404 404 200"),
    "update_image": Call("403 202 202", "403 404 404", more=lambda _: {"json": {"tags": ["seen"]}}),
    "delete_image": Call("403 204 204", "403 404 404", more=lambda _: {"params": {"keep_remote": "true"}}),
    "sync_image": Call("403 202 202", "403 404 404", more=lambda _: {"json": {"clouds": ["zone-b"]}}),
    "link_image": Call(
        "403 202 202", "403 404 404", more=lambda _: {"json": {"cloud": "zone-b", "image_ref": "x"}}
    ),
    "unlink_image": Call("403 204 204", "403 404 404", on="linked"),
    "upload_image": Call(
        "403 204 204", "403 404 404", on="waiting", more=lambda _: {"data": DATA, "headers": OCTETS}
    ),
    "show_upload_options": Call("204", on="waiting"),
    "show_upload": Call("403 200 200", "403 404 404", on="waiting", more=lambda _: {"headers": TUS}),
    "continue_upload": Call(
        "403 204 204", "403 404 404", on="waiting", more=lambda _: {"data": DATA, "headers": PART}
    ),
    "terminate_upload": Call("403 204 204", "403 404 404", on="waiting", more=lambda _: {"headers": TUS}),
    # Zones are nobody's: what a sync is about are the images of the caller's own project.
    "sync_zones": Call(
        "403 202 202", more=lambda _: {"json": {"from": "zone-a", "to": ["zone-b"], "filters": NOTHING}}
    ),
    "list_jobs": Call("200 200 200", "200 200 200"),
    "show_job": Call("200 200 200", "404 404 200"),
    "cancel_job": Call("403 202 202", "403 404 404", on="waiting"),
    "resume_job": Call("403 409 409", "403 404 404"),      # it waits for nothing
    "retry_job": Call("403 202 202", "403 404 404", on="failed"),
}
"""By operationId. An administrator sees the Images and Jobs of all, and changes those of one project."""

NOT_IN_THE_DOCUMENT = {"/v1/openapi.json", "/v1/docs", "/v1/docs/assets/<path:name>"}


class Case(NamedTuple):
    operation: str
    owner: str
    role: str
    status: int

    @property
    def project(self) -> str:
        """Of whoever calls."""
        return OURS if self.owner == "own" else THEIRS

    @property
    def changes(self) -> bool:
        return self.status < 300 and not self.operation.startswith(("list_", "show_"))


def cases() -> Iterator[Case]:
    for operation, call in TABLE.items():
        for owner in ("own", "other", "public"):
            said = getattr(call, owner).split()
            if len(said) == 1:
                said = [*said * (len(NOBODYS) + len(SOMEBODYS))]
            elif said:
                said = ["401", *["403"] * (len(NOBODYS) - 1), *said]
            for role, status in zip([*NOBODYS, *SOMEBODYS], said, strict=False):
                yield Case(operation, owner, role, int(status))


class Somebody(Person):
    """One role in one project; without a project: a token that is good for nothing."""

    def __init__(self, cloud: sandbox.Sandbox, url: str, role: str, project: str | None) -> None:
        super().__init__(cloud, role, url)
        scope = {"project_name": project, "project_domain_id": "default"} if project else {}
        login: JSON = {"username": user(role), "user_domain_id": "default", "password": role, **scope}
        self._login = v3.Password(f"{cloud.url('keystone')}/v3", **login)

    @functools.cached_property
    def _connection(self) -> openstack.connection.Connection:
        session = ks_session.Session(self._login, timeout=30)
        return openstack.connection.Connection(session=session, region_name="zone-a")


def user(role: str) -> str:
    return ACCOUNT if role == "account" else f"tenancy-{role}"


def people(cloud: sandbox.Sandbox) -> None:
    """In Keystone: one for each role, who has it in both projects, and the account."""
    keystone, domain = cloud.admin, {"domain_id": "default"}
    named = ("auditor", "service", "reader", "member", "admin")
    roles = keystone.ensure("role", {"auditor": {}})
    projects = keystone.ensure("project", dict.fromkeys((OURS, THEIRS, ACCOUNT), domain))
    wanted = {user(role): {**domain, "password": role} for role in (*named, "unscoped", "account")}
    users = keystone.ensure("user", wanted)
    for project in (OURS, THEIRS):
        for role in named:
            keystone.grant(roles[role], users[user(role)], projects[project])
    keystone.grant(roles["member"], users[ACCOUNT], projects[ACCOUNT])
    keystone.grant(roles["admin"], users[user("admin")], projects[ACCOUNT])


class World:
    """A service with all that one project has in it, and another project beside it."""

    def __init__(self, cloud: sandbox.Sandbox, service: ciming.Ciming) -> None:
        self.service = service
        self.people: dict[tuple[str, str], Somebody] = {
            (role, project): Somebody(cloud, service.url, role, None if role == "unscoped" else project)
            for role in ("unscoped", "auditor", "service", *SOMEBODYS)
            for project in (OURS, THEIRS)
        }
        self.operator = Somebody(cloud, service.url, "admin", ACCOUNT)
        self.cloud = cloud
        self.operations: dict[str, tuple[str, str]] = {}
        document = requests.get(f"{service.url}/v1/openapi.json", timeout=30).json()
        for path, methods in document["paths"].items():
            for method in methods.keys() - {"parameters"}:
                self.operations[methods[method]["operationId"]] = (method.upper(), path)
        self._kept: dict[tuple[str, str], At] = {}
        self.before: list[tuple[str, int, str]] = []
        self.ours = {self.people["reader", OURS].project_id}
        self.shared = self._shared()

    @property
    def url(self) -> str:
        return self.service.url

    def person(self, role: str, project: str) -> Somebody | None:
        return self.people.get((role, project))

    def _shared(self) -> At:
        """The public Cloud, in which the project has an image."""
        login = {"auth_type": "v3password", "username": ACCOUNT, "password": "account"}
        login |= {"project_name": ACCOUNT, "user_domain_id": "default", "project_domain_id": "default"}
        ref = secret(self.operator, json.dumps(login))
        allow(self.cloud, self.operator, ref)
        place = {"auth_url": self.cloud.url("keystone"), "region": "zone-b"}
        wanted = {"config": place, "credential_ref": ref, "visibility": "public"}
        made = self.register(self.operator, name="tenancy-shared", **wanted)
        image = self.active("tenancy image in the public cloud", "tenancy-shared")
        return image._replace(cloud=made["id"], cloud_name=made["name"])

    def register(self, who: Person, **wanted: Any) -> JSON:
        answer = who.call("POST", "/v1/clouds", json={"provider": "openstack", "config": PLACE, **wanted})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    # What a call may be about

    def kept(self, on: str, owner: str) -> At:
        """One that stays as it is."""
        where = "public" if owner == "public" else "ours"
        if (on, where) not in self._kept:
            self._kept[on, where] = made = self.made(on, owner)
            self.before += self._views(made)
        return self._kept[on, where]

    def made(self, on: str, owner: str) -> At:
        """A new one of the project's, in a state in which what is to be called can succeed."""
        if on == "no cloud":
            there = self.kept("cloud", owner)
            visibility = "public" if owner == "public" else "private"
            new = there._replace(cloud_name=f"tenancy-{uuid.uuid4()}", visibility=visibility)
            return there if owner == "other" else new
        if owner == "public":
            return self._public() if on == "cloud" else self.shared
        if on == "cloud":
            return self._with_cloud(ABSENT)
        made: At = getattr(self, on)(f"tenancy image {uuid.uuid4()}")
        return made if on == "linked" else self._with_cloud(made)

    def _with_cloud(self, at: At) -> At:
        """And a Cloud of the project's; its secret is somebody else's, and so of no use."""
        member = self.people["member", OURS]
        ref = f"{self.cloud.url('barbican')}/v1/secrets/{uuid.uuid4()}"
        made = self.register(member, name=f"tenancy-{uuid.uuid4()}", credential_ref=ref)
        self.ours |= {made["id"], made["name"], ref}
        return at._replace(cloud=made["id"], cloud_name=made["name"])

    def _public(self) -> At:
        made = self.register(self.operator, name=f"tenancy-{uuid.uuid4()}", visibility="public")
        return ABSENT._replace(cloud=made["id"], cloud_name=made["name"])

    def waiting(self, name: str) -> At:
        """An Image whose data is still to come."""
        return self._begun(self.people["member", OURS].create(name=name, size=len(DATA)))

    def active(self, name: str, cloud: str = "zone-a") -> At:
        """An Image with one Link."""
        return self._begun(bring(self.people["member", OURS], name=name, clouds=[cloud]))

    def linked(self, name: str) -> At:
        """The same, and the Cloud is that of its Link."""
        return self.active(name)._replace(cloud="zone-a", cloud_name="zone-a")

    def failed(self, name: str) -> At:
        """An Image that could not be brought, and its Job."""
        member = self.people["member", OURS]
        source = {"cloud": "zone-a", "image": str(uuid.uuid4())}
        at = self._begun(member.create(name=name, clouds=["zone-b"], source=source))
        assert member.wait(at.job)["status"] == "error"
        return at

    def _begun(self, made: JSON) -> At:
        image, job = made["image"], made["job"]
        self.ours |= {image["id"], image["name"], job["id"], job["request_id"]}
        self.ours |= {target["id"] for target in job["targets"]}
        request, name = job["request_id"], image["name"]
        return ABSENT._replace(image=image["id"], job=job["id"], name=name, request=request)

    # What is asked, and answered

    def ask(self, who: Person | None, operation: str, at: At) -> requests.Response:
        method, path = self.operations[operation]
        return send(who, method, self.service.url, path.format(**at._asdict()), **TABLE[operation].more(at))

    def _views(self, at: At) -> list[tuple[str, int, str]]:
        """All of it, as its project sees it."""
        paths = (f"/v1/images/{at.image}", f"/v1/jobs/{at.job}", f"/v1/clouds/{at.cloud}")
        answers = [(path, self.people["reader", OURS].get(path)) for path in paths]
        return [(path, answer.status_code, told(answer, ABSENT)[2]) for path, answer in answers]

    @property
    def now(self) -> list[tuple[str, int, str]]:
        """What is kept, as `before` has it of when it was made."""
        return [view for at in self._kept.values() for view in self._views(at)]

    def leave(self) -> None:
        """End all there is, and see that no trust is left of anybody, also of what was refused."""
        admins = [self.people["admin", project] for project in (OURS, THEIRS)]
        for admin in admins:
            for job in admin.get("/v1/jobs", params={"status": "uploading", "limit": 1000}).json()["jobs"]:
                admin.call("POST", f"/v1/jobs/{job['id']}/cancel")
        running = {"status": f"nin:{','.join(ENDS)}"}
        for admin in admins:
            soon(lambda who=admin: not who.get("/v1/jobs", params=running).json()["jobs"], 30)
        for role in ("member", "admin"):        # of both projects
            soon(lambda who=self.people[role, OURS]: not who.trusts())


def bring(who: Person, **wanted: Any) -> JSON:
    """An Image that is where it shall be, and its Job."""
    made = who.create(size=len(DATA), **wanted)
    assert who.put(made["image"]["id"], DATA).status_code == 204
    job = who.wait(made["job"]["id"])
    assert job["status"] == "success", job
    return made


def send(who: Person | None, method: str, url: str, path: str, **more: Any) -> requests.Response:
    if who is None:
        return requests.request(method, url + path, timeout=30, **more)
    return who.call(method, path, **more)


@pytest.fixture(scope="module")
def world(cloud: sandbox.Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    people(cloud)
    folder = tmp_path_factory.mktemp("tenancy")
    with ciming.Ciming(cloud, folder, OPTIONS, port=processes.free_block(str(folder))) as service:
        made = World(cloud, service)
        yield made
        made.leave()


def told(answer: requests.Response, at: At) -> tuple[int, JSON, str]:
    """An answer without what was asked for, and without its own id."""
    text = answer.text
    for name, value in at._asdict().items():
        if value:
            text = text.replace(value, f"<{name}>")
    own = answer.headers["X-Openstack-Request-Id"]
    headers = {name.lower(): value for name, value in answer.headers.items()}
    for name in ("x-openstack-request-id", "date"):
        del headers[name]
    return answer.status_code, headers, text.replace(own, "<request id>")


# The table


def test_every_call_is_in_the_table(world: World) -> None:
    assert world.operations.keys() == TABLE.keys()
    config.register(cfg.CONF)
    rules = {rule.rule.rstrip("/") or "/" for rule in app.create_flask_app().url_map.iter_rules()}
    documented = {re.sub(r"{(\w+)}", r"<string:\1>", path) for _, path in world.operations.values()}
    assert rules == documented | NOT_IN_THE_DOCUMENT


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: "-".join(case[:3]))
def test_who_may_what_of_whose(world: World, case: Case) -> None:
    call, who = TABLE[case.operation], world.person(case.role, case.project)
    at = (world.made if case.changes else world.kept)(call.on, case.owner)
    answer = world.ask(who, case.operation, at)
    assert answer.status_code == case.status, answer.text
    if case.owner == "other" and case.status >= 400:
        assert told(answer, at) == told(world.ask(who, case.operation, ABSENT), ABSENT)
    seen_by_id = case.role == "admin" and case.operation in ("show_image", "show_job")
    if case.owner == "other" and not seen_by_id:
        named = "{" in world.operations[case.operation][1]
        unasked = world.ours - (at.names if named or not case.operation.startswith("list_") else set())
        assert not [each for each in unasked if each in answer.text]
    if case.operation == "show_cloud" and case.owner == "public" and answer.status_code == 200:
        assert bool(answer.json()["credential_ref"]) == (case.role == "admin")
    if answer.status_code == 201:       # or it would be in the way of names
        assert who and who.call("DELETE", f"/v1/clouds/{answer.json()['id']}").status_code == 204


def test_an_upload_by_another_method(world: World) -> None:
    """tus' way for clients that can send nothing but POST."""
    at, member = world.kept("waiting", "other"), world.person("member", THEIRS)
    for method in ("HEAD", "PATCH", "DELETE"):
        said = {**PART, "X-HTTP-Method-Override": method}
        answers = [
            send(member, "POST", world.url, f"/v1/images/{each.image}/file", headers=said, data=b"x")
            for each in (at, ABSENT)
        ]
        assert answers[0].status_code == 404
        assert told(answers[0], at) == told(answers[1], ABSENT)


# Lists

FILTERS = [
    ("images", "id", "image"),
    ("images", "name", "name"),
    ("images", "cloud", "cloud_name"),
    ("availability", "id", "image"),
    ("availability", "name", "name"),
    ("jobs", "id", "job"),
    ("jobs", "image_id", "image"),
    ("jobs", "parent", "job"),
    ("jobs", "request_id", "request"),
    ("jobs", "cloud", "cloud_name"),
    ("clouds", "name", "cloud_name"),
]
"""List, parameter, and which of At it is about."""


@pytest.fixture(scope="module")
def listed(world: World) -> At:
    """An Image in a Cloud, with a Job that has a child, as the rows of a zone-sync are."""
    at = world.made("active", "own")
    child = world.active("tenancy image of a child")
    with sa.create_engine(world.service.database_url, poolclass=sa.NullPool).begin() as connection:
        rows = (
            ("UPDATE jobs SET parent_id = :job WHERE id = :child"),
            ("UPDATE links SET cloud = :cloud_name WHERE image_id = :image"),
            ("UPDATE targets SET cloud = :cloud_name WHERE job_id = :job"),
        )
        for row in rows:
            connection.execute(sa.text(row), {**at._asdict(), "child": child.job})
    return at


@pytest.mark.parametrize(("noun", "name", "value"), FILTERS, ids=str)
def test_filters(world: World, listed: At, noun: str, name: str, value: str) -> None:
    """By whatever is another project's: the list is empty, as for what is nobody's."""
    path = f"/v1/{noun}"
    for how in ("", "in:"):
        theirs, nobodys = ({name: how + getattr(at, value)} for at in (listed, ABSENT))
        assert len(world.people["reader", OURS].get(path, params=theirs).json()[noun]) == 1
        for role in SOMEBODYS:
            who = world.people[role, THEIRS]
            answer = who.get(path, params=theirs)
            assert (answer.status_code, answer.json()[noun]) == (200, [])
            assert answer.json() == who.get(path, params=nobodys).json()
    for role in SOMEBODYS:
        all_but = {name: f"neq:{getattr(ABSENT, value)}", "limit": "1000"}
        answer = world.people[role, THEIRS].get(path, params=all_but if noun != "clouds" else {})
        assert not [each for each in world.ours if each in answer.text]


@pytest.mark.parametrize("noun", ["images", "jobs"])
def test_markers(world: World, listed: At, noun: str) -> None:
    key = "image" if noun == "images" else "job"
    path, theirs, nobodys = f"/v1/{noun}", getattr(listed, key), getattr(ABSENT, key)
    assert world.people["reader", OURS].get(path, params={"marker": theirs}).status_code == 200
    for role in SOMEBODYS:
        who = world.people[role, THEIRS]
        answer = who.get(path, params={"marker": theirs, "limit": "1"})
        assert answer.status_code == 400
        assert told(answer, listed) == told(who.get(path, params={"marker": nobodys, "limit": "1"}), ABSENT)


@pytest.mark.parametrize("noun", ["images", "jobs"])
def test_all_projects(world: World, listed: At, noun: str) -> None:
    for role, status in zip(SOMEBODYS, (403, 403, 200), strict=True):
        answer = world.people[role, THEIRS].get(f"/v1/{noun}", params={"all_projects": "true", "limit": 1000})
        assert answer.status_code == status
        assert (listed.image in answer.text) == (status == 200)


# What a request may name

BODIES: dict[str, tuple[str, int, Callable[[str], JSON]]] = {
    "clouds": ("create_image", 400, lambda cloud: {"json": {"name": "t", "clouds": [cloud]}}),
    "source.cloud": (
        *("create_image", 400),
        lambda cloud: {
            "json": {"name": "t", "clouds": ["zone-b"], "source": {"cloud": cloud, "image": "x"}}
        },
    ),
    "sync": ("sync_image", 400, lambda cloud: {"json": {"clouds": ["zone-b", cloud]}}),
    "link": ("link_image", 400, lambda cloud: {"json": {"cloud": cloud, "image_ref": "x"}}),
    "delete": ("delete_image", 404, lambda cloud: {"params": {"cloud": cloud}}),
    "forget": ("delete_image", 404, lambda cloud: {"params": {"cloud": cloud, "keep_remote": "true"}}),
    "name": ("show_cloud", 404, lambda _: {}),
    "unlink": ("unlink_image", 404, lambda _: {}),
}
"""Where there is a Cloud in them."""


@pytest.fixture(scope="module")
def their_image(world: World) -> str:
    return str(bring(world.people["member", THEIRS])["image"]["id"])


@pytest.mark.parametrize("key", ["cloud", "cloud_name"])
@pytest.mark.parametrize("place", BODIES)
def test_another_projects_cloud(world: World, their_image: str, place: str, key: str) -> None:
    """Under its name, too, it is not there; for one's own image either."""
    operation, status, more = BODIES[place]
    method, path = world.operations[operation]
    ours = world.kept("active", "other")

    def ask(who: Person, at: At) -> requests.Response:
        cloud = getattr(at, key)
        where = path.format(image=their_image, cloud=cloud)
        return who.call(method, where, **more(cloud))

    for role in ("member", "admin"):
        who = world.people[role, THEIRS]
        answer = ask(who, ours)
        assert answer.status_code == status, answer.text
        assert told(answer, ours) == told(ask(who, ABSENT), ABSENT)


# On a public Cloud, where all use one account


def by_hand(world: World) -> JSON:
    """What the account's user has put there without CIMinG."""
    glance = Somebody(world.cloud, world.url, "account", ACCOUNT).zone("zone-b").image
    wanted = {"name": f"operators-{uuid.uuid4()}", "disk_format": "raw", "container_format": "bare"}
    made: JSON = glance.post("/images", json=wanted).json()
    glance.put(f"/images/{made['id']}/file", data=DATA, headers=OCTETS).raise_for_status()
    return made


@pytest.mark.parametrize("way", ["source", "link"])
def test_images_of_others_on_a_public_cloud(world: World, their_image: str, way: str) -> None:
    """By id and by name: as what is not there; also what its operator has put there by hand."""
    shared, member = world.shared, world.people["member", THEIRS]
    operators = by_hand(world)

    def ended(image: str) -> JSON:
        if way == "source":
            made = member.create(clouds=["zone-a"], source={"cloud": shared.cloud, "image": image})
        else:
            body = {"cloud": shared.cloud, "image_ref": image}
            made = member.call("POST", f"/v1/images/{their_image}/links", json=body).json()
        job = member.wait(made["job"]["id"])
        assert job["status"] == "error", job
        error = job["targets"][0]["error"]
        return {**error, "message": error["message"].replace(image, "<image>"), "cloud_request_id": None}

    nobodys = ended(ABSENT.image)
    assert nobodys["code"] in ("source.not_found", "image_ref.not_found")
    for image in (shared.image, shared.name, operators["id"], operators["name"]):
        assert ended(image) == nobodys
    assert [link["cloud"] for link in member.image(their_image)["links"]] == ["zone-a"]


def test_its_owner_has_it(world: World) -> None:
    """The image that the others do not find."""
    shared, member = world.shared, world.people["member", OURS]
    source = {"cloud": shared.cloud, "image": shared.name}
    made = member.create(name="tenancy image of its owner", clouds=["zone-a"], source=source)
    assert member.wait(made["job"]["id"])["status"] == "success"


def test_nothing_was_done_to_what_is_ours(world: World) -> None:
    assert world.kept("active", "own") and world.now == world.before
