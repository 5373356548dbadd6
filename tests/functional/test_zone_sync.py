# SPDX-License-Identifier: Apache-2.0
"""Zones are brought in line: planned, by a Job for each image, again and again, and through a crash."""

import contextlib
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest
import requests

from tests.functional import faulty
from tests.functional.conftest import soon
from tests.person import ENDS, JSON, WAITS, Person
from tests.sandbox import ciming, sandbox

ALL = "CIMING_TEST_ALL" in os.environ
OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
A, B = "zone-a", "zone-b"
KEPT = ("name", "owner", "visibility", "protected", "os_hidden", "min_disk", "min_ram", "os_hash_value")
SOMEBODY = "f" * 32     # a project, as far as Glance cares
ROLE = "image_sync"
GLANCE_SAYS = {"context_is_admin": f"role:admin or role:{ROLE}"}
Change = tuple[str, Any]
Another = Callable[..., tuple[ciming.Ciming, Person]]


class Glance:
    """The images of one zone whose names begin alike."""

    def __init__(self, person: Person, zone: str, prefix: str) -> None:
        self._sdk = person.zone(zone).image
        self._prefix = prefix

    def put(self, name: str, data: bytes, **said: Any) -> JSON:
        body = {"name": f"{self._prefix}{name}", "disk_format": "raw", "container_format": "bare", **said}
        made = self._ok(self._sdk.post("/images", json=body)).json()
        self._ok(self._sdk.put(f"/images/{made['id']}/file", data=data, headers=OCTETS))
        return dict(self._sdk.get(f"/images/{made['id']}").json())

    def share(self, image_id: str, member: str) -> None:
        self._ok(self._sdk.post(f"/images/{image_id}/members", json={"member": member}))

    def members(self, image_id: str) -> list[str]:
        found = self._ok(self._sdk.get(f"/images/{image_id}/members")).json()["members"]
        return sorted(each["member_id"] for each in found)

    def change(self, image_id: str, *changes: Change) -> None:
        said = [{"op": "add", "path": f"/{name}", "value": value} for name, value in changes]
        self._ok(self._sdk.patch(f"/images/{image_id}", data=json.dumps(said), headers=PATCH))

    def deactivate(self, image_id: str) -> None:
        self._ok(self._sdk.post(f"/images/{image_id}/actions/deactivate"))

    def delete(self, image_id: str) -> None:
        self._ok(self._sdk.delete(f"/images/{image_id}"))

    def all(self) -> list[JSON]:
        """Hidden ones too, by their names."""
        found = []
        for hidden in ("false", "true"):
            wanted = {"os_hidden": hidden, "visibility": "all", "limit": "1000", "sort_key": "name"}
            found += self._ok(self._sdk.get("/images", params=wanted)).json()["images"]
        mine = [image for image in found if image["name"].startswith(self._prefix)]
        return sorted(mine, key=lambda image: (image["name"], image["os_hidden"]))

    def clear(self) -> None:
        for image in self.all():
            if image["protected"]:
                self.change(image["id"], ("protected", False))
            self.delete(image["id"])

    @staticmethod
    def _ok(answer: requests.Response) -> requests.Response:
        assert answer.ok, answer.text
        return answer


class World:
    """Some images in one zone, under a name that nobody else uses; and who syncs them."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.prefix = f"{uuid.uuid4()}-"
        self.a, self.b = Glance(person, A, self.prefix), Glance(person, B, self.prefix)

    def wanted(self, **more: Any) -> JSON:
        return {"from": A, "to": [B], "filters": {"name": [f"{self.prefix}*"]}, **more}

    def post(self, **more: Any) -> requests.Response:
        return self.person.call("POST", "/v1/zone-syncs", json=self.wanted(**more))

    def plan(self, **more: Any) -> JSON:
        answer = self.post(dry_run=True, **more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def symbols(self, **more: Any) -> dict[str, str]:
        """What a plan says of each image, by the end of its name."""
        plan = self.plan(**more)
        return {entry["name"].removeprefix(self.prefix): entry["symbol"] for entry in plan["entries"]}

    def begin(self, **more: Any) -> str:
        answer = self.post(**more)
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"] == f"/v1/jobs/{answer.json()['job']['id']}"
        return str(answer.json()["job"]["id"])

    def sync(self, **more: Any) -> JSON:
        return self.person.wait(self.begin(**more), seconds=240)

    def children(self, job_id: str) -> list[JSON]:
        return list(self.person.get("/v1/jobs", params={"parent": job_id, "limit": 1000}).json()["jobs"])


def counts(job: JSON) -> dict[str, int]:
    """Of its report, what there is any of."""
    return {
        name: value for name, value in job["report"].items() if isinstance(value, int) and value
    }


def error(answer: requests.Response) -> tuple[int, str, str | None]:
    found = answer.json()["errors"][0]
    return answer.status_code, found["code"], found.get("field")


@pytest.fixture
def world(service: ciming.Ciming, admin: Person) -> Iterator[World]:
    made = World(admin)
    yield made
    made.a.clear()
    made.b.clear()


@pytest.fixture
def own(service: ciming.Ciming, member: Person) -> Iterator[World]:
    made = World(member)
    yield made
    made.a.clear()
    made.b.clear()


# All at once


def fill(world: World, stranger: Person, count: int) -> None:
    """Images of two owners, of all visibilities; some are there, or of other content, some can not be had."""
    member = world.person
    owners = (member.project_id, stranger.project_id)

    def one(number: int) -> None:
        said: JSON = {
            "visibility": ("private", "shared", "community", "public")[number % 4],
            "owner": owners[number % 2],
            "tags": [f"tag {number % 3}"],
            "min_disk": number % 5,
            "protected": number % 7 == 3,
            "os_hidden": number % 11 == 5 and number % 12 != 7,     # hidden, it would be no other by its name
            "os_distro": "debian",
            "hw_disk_bus": "virtio",
            "note": "of this zone",
        }
        data = f"{number} {world.prefix}".encode() * (10 + number)
        if number % 8 == 6:
            said["container_format"] = "ova"        # nothing that CIMinG can carry
        image = world.a.put(f"{number}", data, **said)
        if number % 4 == 1:
            world.a.share(image["id"], SOMEBODY)
        if number % 6 == 0 and number % 8 != 6:
            world.b.put(f"{number}", data, **said)
        if number % 12 == 7:
            world.b.put(f"{number}", b"other" * 99, **said)
        if number % 12 == 8:
            world.b.put(f"{number}", data, **{**said, "tags": ["old"], "os_distro": "fedora"})

    with futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))


def expected(world: World) -> dict[str, JSON]:
    """What the target is to have of each image that can be brought."""
    found = {}
    for image in world.a.all():
        if image["container_format"] == "bare":
            found[image["name"]] = {
                **{name: image[name] for name in KEPT},
                "tags": sorted(image["tags"]),
                "os_distro": image["os_distro"],
                "members": world.a.members(image["id"]) if image["visibility"] == "shared" else [],
            }
    return found


def there(world: World) -> dict[str, list[JSON]]:
    """What the target has, by name."""
    found: dict[str, list[JSON]] = {}
    for image in world.b.all():
        told = {
            **{name: image[name] for name in KEPT},
            "tags": sorted(image["tags"]),
            "os_distro": image["os_distro"],
            "members": world.b.members(image["id"]) if image["visibility"] == "shared" else [],
        }
        found.setdefault(image["name"], []).append(told)
    return found


def test_a_zone_comes_in_line_though_the_service_is_killed_half_way(
    service: ciming.Ciming, world: World, stranger: Person
) -> None:
    count = 300 if ALL else 24
    fill(world, stranger, count)
    numbers = range(count)
    cannot = [number for number in numbers if number % 8 == 6]
    same = [number for number in numbers if number % 6 == 0 and number not in cannot]
    other = [number for number in numbers if number % 12 == 7]
    stale = [number for number in numbers if number % 12 == 8]
    planned = world.symbols()
    assert {number: planned[str(number)] for number in numbers} == {
        **dict.fromkeys(numbers, "+"),
        **dict.fromkeys(same, "="),
        **dict.fromkeys(other, "*"),
        **dict.fromkeys(stale, "~"),
        **dict.fromkeys(cannot, "!"),
    }
    wanted = expected(world)
    job_id = world.begin(replace=True)
    soon(lambda: counts_done(world, job_id) >= count // 8, 120)
    service.kill()
    service.start()
    job = world.person.wait(job_id, seconds=60 + 3 * count)
    created = count - len([*same, *other, *stale, *cannot])
    assert job["status"] == "partial", job
    assert counts(job) == {
        "same": len(same),
        "created": created,
        "replaced": len(other),
        "updated": len(stale),
        "cannot": len(cannot),
    }
    assert job["progress"]["images_done"] == job["progress"]["images_total"]
    assert job["progress"]["bytes_done"] == job["progress"]["bytes_total"]
    assert {failure["code"] for failure in job["report"]["failures"]} == {"zone_sync.cannot"}
    found = there(world)
    replaced = {f"{world.prefix}{number}" for number in other}
    for name, image in wanted.items():
        shown = [each for each in found[name] if each["os_hash_value"] == image["os_hash_value"]]
        assert shown == [image], name
        former = [each for each in found[name] if each not in shown]
        assert [each["os_hidden"] for each in former] == ([True] if name in replaced else [])
    assert not found.keys() - wanted.keys()
    ids = {image["name"]: image["id"] for image in world.a.all()}
    for image in world.b.all():
        number = int(image["name"].removeprefix(world.prefix))
        if number not in (*same, *other, *stale):
            assert image["id"] == ids[image["name"]]      # the same UUID, where nobody has that
    children = world.children(job_id)
    assert len(children) == created + len(other) + len(stale)
    assert {(child["kind"], child["status"], child["parent"]) for child in children} == {
        ("sync", "success", job_id)
    }
    again = world.sync(replace=True)
    assert counts(again) == {
        "same": count - len(cannot), "cannot": len(cannot), "only_there": len(other)
    }
    assert not world.children(again["id"]) and there(world) == found


def counts_done(world: World, job_id: str) -> int:
    with contextlib.suppress(KeyError):
        return int(world.person.job(job_id)["progress"]["images_done"])
    return 0


# What a member may


def test_a_member_syncs_what_is_their_own(own: World, stranger: Person, member: Person) -> None:
    own.a.put("mine", b"mine" * 99)
    theirs = Glance(stranger, A, own.prefix)
    community = theirs.put("theirs", b"theirs" * 99, visibility="community")
    try:
        assert own.symbols() == {"mine": "+"}
        job = own.sync()
        assert (job["status"], counts(job)) == ("success", {"created": 1})
        assert [image["owner"] for image in own.b.all()] == [member.project_id]
        answer = own.post(filters={"owner": [stranger.project_id]})
        assert error(answer) == (403, "policy.forbidden", None)
        assert stranger.get(f"/v1/jobs/{job['id']}").status_code == 404
    finally:
        theirs.delete(community["id"])


@pytest.fixture
def operates_b(cloud: sandbox.Sandbox, stranger: Person) -> Iterator[Person]:
    """Somebody with a role that means something to one zone's Glance only."""
    keystone = cloud.admin
    role = keystone.ensure("role", {ROLE: {}})[ROLE]
    keystone.grant(role, stranger.user_id, stranger.project_id)
    stranger.log_in_again()
    with cloud.policy("glance-b", GLANCE_SAYS):
        yield stranger
    keystone.call("DELETE", f"/roles/{role}")
    stranger.log_in_again()


@pytest.fixture
def olga(cloud: sandbox.Sandbox, operates_b: Person) -> Iterator[Person]:
    """An operator of both zones, as the guide describes it."""
    with cloud.policy("glance-a", GLANCE_SAYS):
        yield operates_b


def operating(
    another: Another, cloud: sandbox.Sandbox, name: str, folder: pathlib.Path, roles: str = ROLE
) -> Person:
    """Somebody with that role, for whom a CIMinG of their own works with these."""
    policy = folder / "policy.yaml"
    policy.write_text(f'"ciming:zone_sync:everything": "role:admin or role:{ROLE}"\n')
    options = {("zone_sync", "roles"): roles, ("oslo_policy", "policy_file"): str(policy)}
    service, _member = another(options)
    return Person(cloud, name, service.url)


def test_who_operates_the_target_only_prunes_nothing_of_others(
    own: World, operates_b: Person, another: Another, cloud: sandbox.Sandbox, tmp_path: pathlib.Path
) -> None:
    """The source shows one image of theirs, and says nothing of those that it leaves out."""
    operator = operating(another, cloud, operates_b.name, tmp_path, f"{ROLE},member")
    own.a.put("community", b"community" * 99, visibility="community")
    own.a.put("private", b"private" * 99, visibility="private")
    own.b.put("private", b"private" * 99, visibility="private")
    wanted = own.wanted(prune=True)
    for entry in operator.call("POST", "/v1/zone-syncs", json={**wanted, "dry_run": True}).json()["entries"]:
        assert (entry["symbol"], bool(entry["why"])) in (("+", False), ("-", True)), entry
    job = operator.wait(operator.call("POST", "/v1/zone-syncs", json=wanted).json()["job"]["id"], seconds=120)
    assert (job["status"], counts(job)) == ("success", {"created": 1, "only_there": 1}), job
    with cloud.policy("glance-a", GLANCE_SAYS):
        answer = operator.call("POST", "/v1/zone-syncs", json={**wanted, "dry_run": True})
        assert {entry["symbol"] for entry in answer.json()["entries"]} == {"="}
        own.b.put("only there", b"only there" * 99, visibility="private")
        answer = operator.call("POST", "/v1/zone-syncs", json={**wanted, "dry_run": True})
        assert [entry["why"] for entry in answer.json()["entries"] if entry["symbol"] == "-"] == [None]


def test_a_role_of_its_own(
    own: World,
    olga: Person,
    slow: faulty.Proxy,
    another: Another,
    cloud: sandbox.Sandbox,
    tmp_path: pathlib.Path,
) -> None:
    """What others own is brought as theirs; the trust for it delegates that role, and nothing else."""
    operator = operating(another, cloud, olga.name, tmp_path)
    image = own.a.put("theirs", os.urandom(200_000), os_distro="debian")
    answer = operator.call("POST", "/v1/zone-syncs", json=own.wanted(to=["zone-slow"]))
    assert answer.status_code == 202, answer.text
    [trust] = operator.trusts()
    roles = cloud.admin.call("GET", f"/OS-TRUST/trusts/{trust['id']}/roles")["roles"]
    assert [role["name"] for role in roles] == [ROLE]
    slow.throttle = None
    job = operator.wait(answer.json()["job"]["id"], seconds=240)
    assert (job["status"], counts(job)) == ("success", {"created": 1})
    [there] = own.b.all()
    assert (there["owner"], there["os_hash_value"]) == (image["owner"], image["os_hash_value"])
    assert image["owner"] != operator.project_id and there["os_distro"] == "debian"
    soon(lambda: not operator.trusts())


def test_what_a_token_without_roles_may_not(
    own: World, reader: Person, cloud: sandbox.Sandbox
) -> None:
    assert reader.call("POST", "/v1/zone-syncs", json=own.wanted(dry_run=True)).status_code == 403
    user = {"name": "admin", "domain": {"id": "default"}, "password": cloud.state.passwords["admin"]}
    identity = {"methods": ["password"], "password": {"user": user}}
    system = requests.post(
        f"{cloud.url('keystone')}/v3/auth/tokens",
        json={"auth": {"identity": identity, "scope": {"system": {"all": True}}}},
        timeout=30,
    )
    assert system.status_code == 201, system.text
    token = {"X-Auth-Token": system.headers["X-Subject-Token"]}
    answer = own.person.call("POST", "/v1/zone-syncs", json=own.wanted(), headers=token)
    assert answer.status_code == 403 and "scoped to a project" in answer.json()["message"]


# Plans


def test_a_plan_is_done_as_it_is_or_not_at_all(own: World) -> None:
    first = own.a.put("first", b"first" * 99)
    plan = own.plan()
    edited = json.loads(json.dumps(plan).replace('"+"', '"="'))
    answer = own.person.call("POST", "/v1/zone-syncs", json={"plan": edited})
    assert error(answer) == (400, "zone_sync.plan_edited", "plan")
    beside = own.person.call("POST", "/v1/zone-syncs", json={"plan": plan, "replace": True})
    assert error(beside)[::2] == (400, "plan")
    second = own.a.put("second", b"second" * 99)
    answer = own.person.call("POST", "/v1/zone-syncs", json={"plan": plan})
    assert error(answer) == (409, "zone_sync.plan_outdated", None)
    assert f"'{own.prefix}second' in {B}: nothing to +" in answer.json()["message"]
    own.a.delete(second["id"])
    answer = own.person.call("POST", "/v1/zone-syncs", json={"plan": plan})
    assert answer.status_code == 202, answer.text
    job = own.person.wait(answer.json()["job"]["id"])
    assert (job["status"], job["report"]["digest"]) == ("success", plan["digest"])
    assert [image["id"] for image in own.b.all()] == [first["id"]]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"to": [A]}, "to"),
        ({"to": ["nowhere"]}, "to"),
        ({"from": "nowhere"}, "from"),
        ({"to": []}, "to"),
        ({"max_delete": 1}, "max_delete"),
        ({"filters": {"size_below": 0}}, "filters.size_below"),
        ({"filters": {"newer_than": "2999-01-01T00:00:00Z"}}, "filters.newer_than"),
        ({"filters": {"newer_than": "0001-01-01T00:00:00+05:00"}}, "filters.newer_than"),
        ({"filters": {"visibility": ["secret"]}}, "filters.visibility.0"),
        ({"filters": {"colour": "red"}}, "filters.colour"),
        ({"replace": "yes"}, "replace"),
        ({"when_busy": "perhaps"}, "when_busy"),
        ({"plan": {}}, "plan.request"),
        ({"map_project": {"a": ""}}, "map_project.a"),
    ],
)
def test_what_can_not_be_is_refused(own: World, said: JSON, field: str) -> None:
    answer = own.post(**said)
    assert error(answer)[::2] == (400, field), answer.text


def test_a_plan_of_nonsense_is_refused(own: World) -> None:
    """Also one whose digest is right: whoever writes that may write anything."""
    from ciming import zone_plans

    for request in ({}, {"from": A}, {"from": A, "to": [B], "filters": {"x": 1}}, own.plan()["request"]):
        plan: JSON = {"request": request, "entries": [{"x": 1}], "summary": {}}
        plan["digest"] = zone_plans.digest(plan)
        answer = own.person.call("POST", "/v1/zone-syncs", json={"plan": plan})
        assert error(answer)[0] in (400, 409), answer.text


def test_a_plan_with_half_a_character_is_refused(own: World) -> None:
    plan = {"request": {}, "entries": [{"name": "\ud800"}], "summary": {}, "digest": "x"}
    answer = own.person.call("POST", "/v1/zone-syncs", json={"plan": plan})
    assert error(answer) == (400, "zone_sync.plan_edited", "plan")


def test_nobody_gives_images_to_another_project(own: World, stranger: Person) -> None:
    mine, theirs = own.person.project_id, stranger.project_id
    for mapped in ({mine: theirs}, {theirs: mine}):
        assert error(own.post(map_project=mapped))[0] == 403


def test_globs_that_match_nothing_are_fine(own: World) -> None:
    job = own.sync()
    assert (job["status"], counts(job)) == ("success", {})
    ran = own.person.openstack(
        *("multicloud", "zone", "sync", "--from", A, "--to", B, "--name", f"{own.prefix}*", "--dry-run")
    )
    assert "No image matches." in ran.stderr


# Content and leftovers


def test_nothing_is_overwritten_and_prune_knows_its_bounds(own: World, member: Person) -> None:
    source = own.a.put("changed", b"new" * 99)
    former = own.b.put("changed", b"old" * 99)
    kept = own.b.put("kept", b"kept" * 99, protected=True)
    extra = [own.b.put(f"extra {number}", b"extra" * 99)["id"] for number in range(2)]
    job = own.sync(prune=True, max_delete=1)
    assert (job["status"], job["error"]["code"]) == ("partial", "zone_sync.too_many_to_delete")
    assert counts(job) == {"left": 1, "only_there": 3} and len(own.b.all()) == 4
    job = own.sync(prune=True, max_delete=2, replace=True)
    assert (job["status"], counts(job)) == ("success", {"replaced": 1, "pruned": 2, "only_there": 3})
    found = {image["id"]: image for image in own.b.all()}
    assert not found.keys() & set(extra) and kept["id"] in found
    assert found[former["id"]]["os_hidden"] and not found[source["id"]]["os_hidden"]
    [child] = own.children(job["id"])
    assert former["id"] in child["targets"][0]["remarks"][0]


def test_nothing_is_pruned_after_an_error(own: World) -> None:
    own.a.put("broken", b"x" * 99, container_format="ova")
    extra = own.b.put("extra", b"extra" * 99)
    job = own.sync(prune=True)
    assert counts(job) == {"cannot": 1, "only_there": 1}
    assert (job["status"], "Nothing was pruned" in job["report"]["not_pruned"]) == ("error", True)
    assert [image["id"] for image in own.b.all()] == [extra["id"]]


def test_owners_are_mapped_and_an_owner_without_images_here_keeps_theirs(
    world: World, stranger: Person, member: Person
) -> None:
    world.a.put("one", b"one" * 99, owner=member.project_id)
    foreign = world.b.put("foreign", b"foreign" * 99, owner=SOMEBODY)
    job = world.sync(map_project={member.project_id: stranger.project_id}, prune=True)
    assert (job["status"], counts(job)) == ("success", {"created": 1, "only_there": 1})
    found = {image["name"].removeprefix(world.prefix): image["owner"] for image in world.b.all()}
    assert found == {"one": stranger.project_id, "foreign": SOMEBODY} and foreign


def test_what_another_project_brought_there_is_not_pruned(world: World, member: Person) -> None:
    """An operator takes away what nobody has linked, and nothing that a member has."""
    world.a.put("here", b"here" * 99, owner=member.project_id)
    theirs = Glance(member, B, world.prefix)
    linked, loose = (theirs.put(name, name.encode() * 99) for name in ("linked", "loose"))
    made = member.create(name="linked", clouds=[], source={"cloud": B, "image": linked["id"]})
    assert member.wait(made["job"]["id"])["status"] == "success"
    assert {entry["name"]: bool(entry["why"]) for entry in world.plan()["entries"]} == {
        f"{world.prefix}here": False, linked["name"]: True, loose["name"]: False
    }
    job = world.sync(prune=True)
    assert (job["status"], job["report"]["pruned"]) == ("success", 1)
    assert linked["id"] in {image["id"] for image in world.b.all()}
    assert loose["id"] not in {image["id"] for image in world.b.all()}
    member.call("DELETE", f"/v1/images/{made['image']['id']}", params={"keep_remote": "true"})


def test_what_is_anothers_there_is_left_alone(world: World, stranger: Person, member: Person) -> None:
    """It has the id, the mark, the name or the bytes of one that is to come, and is somebody else's."""
    one, two, three = (world.a.put(name, name.encode() * 99, owner=member.project_id) for name in "123")
    mine = {"owner": stranger.project_id}
    world.b.put("1", b"other" * 99, id=one["id"], **mine)
    world.b.put("theirs", b"2" * 99, ciming_image=two["id"], **mine)
    world.b.put("3", b"3" * 99, **mine)
    before = {image["id"]: image for image in world.b.all()}
    job = world.sync(members=True)
    assert (job["status"], counts(job)) == ("success", {"created": 3, "only_there": 3})
    after = {image["id"]: image for image in world.b.all()}
    assert {image_id: after.pop(image_id) for image_id in before} == before
    assert {image["owner"] for image in after.values()} == {member.project_id}
    assert {image["os_hash_value"] for image in after.values()} == {
        image["os_hash_value"] for image in (one, two, three)
    }


def test_one_that_is_not_shared_any_more(own: World) -> None:
    image = own.a.put("one", b"one" * 99, visibility="shared")
    own.a.share(image["id"], SOMEBODY)
    assert own.sync(members=True)["status"] == "success"
    assert own.b.members(image["id"]) == [SOMEBODY]
    own.a.change(image["id"], ("visibility", "private"))
    job = own.sync(members=True)
    assert (job["status"], counts(job)) == ("success", {"updated": 1})
    assert [image["visibility"] for image in own.b.all()] == ["private"]


# What happens meanwhile


@pytest.fixture
def slow(cloud: sandbox.Sandbox) -> Iterator[faulty.Proxy]:
    """A zone to which all goes slowly."""
    with faulty.Proxy(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-slow"):
        proxy.throttle = 40_000
        yield proxy


def test_two_at_once(slow: faulty.Proxy, own: World, admin: Person) -> None:
    own.a.put("large", os.urandom(200_000))
    first = own.begin(to=["zone-slow"])
    answer = own.post(to=["zone-slow", B])
    assert error(answer) == (409, "zone_sync.busy", None) and first in answer.json()["message"]
    second = own.begin(to=["zone-slow"], when_busy="wait")
    time.sleep(1)
    assert own.person.job(second)["status"] in ("queued", "running")
    assert own.person.wait(first, seconds=120)["status"] == "success"
    job = own.person.wait(second, seconds=120)
    assert (job["status"], counts(job)) == ("success", {"same": 1})


def test_so_many_of_one_project(slow: faulty.Proxy, own: World, another: Another) -> None:
    """And who is refused leaves no trust behind."""
    _service, member = another({("zone_sync", "max_per_project"): "1"})
    own.a.put("large", os.urandom(200_000))
    wanted = own.wanted(to=["zone-slow"], when_busy="wait")
    first = member.call("POST", "/v1/zone-syncs", json=wanted).json()["job"]["id"]
    assert error(member.call("POST", "/v1/zone-syncs", json=wanted))[:2] == (413, "limit.exceeded")
    slow.throttle = None
    assert member.wait(first, seconds=120)["status"] == "success"
    second = member.call("POST", "/v1/zone-syncs", json=wanted).json()["job"]["id"]
    job = member.wait(second, seconds=120)
    assert (job["status"], counts(job)) == ("success", {"same": 1})
    soon(lambda: not member.trusts())


def test_cancel_ends_all_of_it(slow: faulty.Proxy, own: World) -> None:
    for number in range(12):
        own.a.put(f"{number}", os.urandom(150_000 + number))
    job_id = own.begin(to=["zone-slow"])
    soon(lambda: any(child["targets"][0]["bytes_done"] for child in own.children(job_id)), 60)
    [*_, child] = own.children(job_id)
    refused = own.person.call("POST", f"/v1/jobs/{child['id']}/retry")
    assert error(refused) == (409, "job.is_part", None)
    assert own.person.call("POST", f"/v1/jobs/{job_id}/cancel").status_code == 202
    job = own.person.wait(job_id, seconds=60)
    assert job["status"] == "cancelled"
    children = own.children(job_id)
    assert {child["status"] for child in children} <= {"cancelled", "success"}
    assert len(own.b.all()) == len([child for child in children if child["status"] == "success"])
    retry = own.person.call("POST", f"/v1/jobs/{job_id}/retry")
    assert error(retry) == (409, "job.not_kept", None)


def test_a_zone_that_can_not_be_read_holds_up_no_other(slow: faulty.Proxy, own: World) -> None:
    own.a.put("one", b"one" * 99)
    slow.faults = [("GET", "/v2/images", "403")]
    plan = own.plan(to=[B, "zone-slow"])
    assert {entry["zone"]: entry["symbol"] for entry in plan["entries"]} == {B: "+", "zone-slow": "!"}
    slow.faults = [("GET", "/v2/images", "503"), ("GET", "/v2/images", "403")]
    job = own.sync(to=[B, "zone-slow"])
    assert (job["status"], counts(job)) == ("partial", {"created": 1, "cannot": 1})
    [failure] = job["report"]["failures"]
    assert (failure["zone"], failure["image"]) == ("zone-slow", None) and "403" in failure["message"]
    slow.faults = [("GET", "/v2/images", "403")]
    assert own.sync(to=["zone-slow"])["status"] == "error"


def test_cancel_while_a_zone_hangs(slow: faulty.Proxy, own: World) -> None:
    own.a.put("one", b"one" * 99)
    slow.faults = [("GET", "/v2/images", "stall")]
    job_id = own.begin(to=["zone-slow"])
    soon(lambda: not slow.faults)
    assert own.person.call("POST", f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert own.person.wait(job_id, seconds=30)["status"] == "cancelled"     # [openstack] timeout is 300


class Filling(faulty.Proxy):
    """A Glance that has room for some images, and then for none."""

    room = 2

    def next_fault(self, method: str, path: str) -> faulty.Fault:
        if method != "PUT":
            return ""
        self.room -= 1
        return "413" if self.room < 0 else ""


def test_a_zone_that_fills_up(cloud: sandbox.Sandbox, own: World) -> None:
    """The rest is brought where it can be."""
    for number in range(5):
        own.a.put(f"{number}", os.urandom(1000 + number))
    with Filling(cloud.url("glance-b")) as proxy, proxy.as_zone(cloud, "zone-full"):
        job = own.sync(to=["zone-full", B])
    assert (job["status"], counts(job)) == ("partial", {"created": 2 + 5, "failed": 3})
    assert {(failure["zone"], failure["code"]) for failure in job["report"]["failures"]} == {
        ("zone-full", "cloud.quota_exceeded")
    }
    assert len(own.b.all()) == 2 + 5


def test_a_sync_waits_for_its_user(own: World, slow: faulty.Proxy, another: Another) -> None:
    """An application credential gives no trust: with the engine goes the token, and a new one goes on."""
    service, member = another({("engine", "housekeeping_interval"): "0.5"})
    for number in range(6):
        own.a.put(f"{number}", os.urandom(100_000))
    token = {"X-Auth-Token": member.application_credential_token()}
    answer = member.call("POST", "/v1/zone-syncs", json=own.wanted(to=["zone-slow"]), headers=token)
    job_id = answer.json()["job"]["id"]
    assert answer.status_code == 202 and not member.trusts()
    soon(slow.received.total)
    service.kill()
    slow.throttle = None
    service.start()
    job = member.wait(job_id, WAITS)
    assert not counts(job) or job["report"]["created"] < 6
    assert member.call("POST", f"/v1/jobs/{job_id}/resume").status_code == 202
    job = member.wait(job_id, seconds=120)
    assert (job["status"], counts(job)) == ("success", {"created": 6})
    assert sorted(image["os_hash_value"] for image in own.a.all()) == sorted(
        image["os_hash_value"] for image in own.b.all()
    )
    soon(lambda: not member.trusts())


def test_what_comes_into_the_source_meanwhile_is_not_pruned(slow: faulty.Proxy, own: World) -> None:
    own.a.put("large", os.urandom(200_000))
    own.b.put("extra", b"extra" * 99)
    own.b.put("more", b"more" * 99)
    job_id = own.begin(to=["zone-slow"], prune=True)
    soon(slow.received.total)
    own.a.put("extra", b"extra" * 99)
    job = own.person.wait(job_id, seconds=120)
    assert (job["status"], counts(job)) == ("success", {"created": 1, "pruned": 1, "only_there": 2})
    assert "1 images were not pruned" in job["report"]["not_pruned"]
    assert [image["name"].removeprefix(own.prefix) for image in own.b.all()] == ["extra", "large"]


GOES = [(Glance.delete, "source.not_found"), (Glance.deactivate, "source.not_readable")]


@pytest.mark.parametrize(("meanwhile", "code"), GOES if ALL else GOES[:1])
def test_a_source_that_goes_meanwhile(
    slow: faulty.Proxy, own: World, meanwhile: Callable[[Glance, str], None], code: str
) -> None:
    """It is the last of many, so that it is still to come when it goes."""
    for number in range(10):
        own.a.put(f"{number}", os.urandom(60_000))
    last = own.a.put("last", os.urandom(90_000))
    job_id = own.begin(to=["zone-slow"])
    soon(lambda: own.children(job_id), 30)
    meanwhile(own.a, last["id"])
    job = own.person.wait(job_id, seconds=180)
    assert (job["status"], counts(job)) == ("partial", {"created": 10, "failed": 1})
    assert [failure["code"] for failure in job["report"]["failures"]] == [code]


# By the command line


def test_the_command(own: World, tmp_path: pathlib.Path) -> None:
    sync = ("multicloud", "zone", "sync")
    which = ("--from", A, "--to", B, "--name", f"{own.prefix}*")
    own.a.put("one", b"one" * 99, tags=["x"])
    own.a.put("two", b"two" * 99)
    file = tmp_path / "plan.json"
    save = ("--tag", "x", "--dry-run", "--save-plan", str(file))
    dry = own.person.openstack(*sync, *which, *save, "-f", "json")
    [entry] = json.loads(dry.stdout)
    assert (entry["Symbol"], entry["Name"], entry["Zone"]) == ("+", f"{own.prefix}one", B)
    done = own.person.openstack(*sync, "--plan", str(file), "--wait", "-f", "json")
    [row] = json.loads(done.stdout)
    assert (row["Status"], row["Created"], row["Failed"]) == ("success", 1, 0)
    file.write_text(file.read_text().replace(f"{own.prefix}one", "another"))
    assert "edited" in own.person.openstack(*sync, "--plan", str(file), ok=(1,)).stderr
    own.a.put("broken", b"x" * 99, container_format="ova")
    partial = own.person.openstack(*sync, *which, "--wait", ok=(3,))
    assert f"{own.prefix}broken" in partial.stderr and "container" in partial.stderr
    both = own.person.openstack(*sync, *which, "--plan", str(file), ok=(1,))
    assert "leave --from, --to, --name out" in both.stderr


def test_every_job_has_ended(own: World) -> None:
    jobs = own.person.get("/v1/jobs", params={"kind": "zone-sync", "limit": 1000}).json()["jobs"]
    assert not [job for job in jobs if job["status"] not in ENDS]
