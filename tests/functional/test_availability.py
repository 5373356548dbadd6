# SPDX-License-Identifier: Apache-2.0
"""Where Images are now, and what else is in their Clouds: five kinds of them, of which one may hang."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import openstack
import pytest

from tests.contract import on_gcp
from tests.contract.on_openstack import zone_at
from tests.functional import test_aws, test_gcp
from tests.functional.test_bad_input import the_error
from tests.functional.test_clouds import REGION, credential, delete, register, secret
from tests.person import JSON, Person
from tests.sandbox import aws, ciming, gcp, link, sandbox

DEADLINE = 3.0      # seconds
SLOW = "zone-slow"
EVERYWHERE = ("zone-a", "zone-b", SLOW, "other", "amazon", "google")
MACHINE = {"architecture": "x86_64"}


class World(NamedTuple):
    """A service with Clouds of five kinds, and whom it serves."""

    member: Person
    reader: Person
    network: link.Link      # to zone-slow
    amazon: aws.StandIn
    google: gcp.StandIn

    def glance(self, cloud: str) -> Any:
        """By the plain SDK."""
        name, region = ("other", REGION) if cloud == "other" else ("member", cloud)
        return Person(self.member.cloud, name).zone(region).image

    def cells(self, path: str, person: Person | None = None, **query: Any) -> dict[str, dict[str, JSON]]:
        """By the Image's name and the Cloud's."""
        answer = (person or self.member).get(f"/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return {
            each["image"]["name"]: {cell["cloud"]: cell for cell in each["clouds"]}
            for each in found.get("availability", [found])
        }

    def bring(self, name: str, data: pathlib.Path, *clouds: str) -> JSON:
        """A new Image there."""
        job = self.member.bring(data, name=name, clouds=list(clouds), properties=MACHINE, size=1 << 20)
        assert job["status"] == "success", job
        return self.member.image(job["image_id"])


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """With a second OpenStack."""
    with sandbox.Sandbox(tmp_path_factory.mktemp("clouds"), second=True) as made:
        yield made


@pytest.fixture(scope="module")
def service(
    cloud: sandbox.Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ciming.Ciming]:
    options = {("engine", "look_timeout"): f"{DEADLINE}", ("staging", "keep_free"): "0"}
    with ciming.Ciming(cloud, tmp_path_factory.mktemp("ciming"), options) as running:
        yield running


@pytest.fixture(scope="module")
def member(cloud: sandbox.Sandbox, service: ciming.Ciming) -> Person:
    return Person(cloud, "member", service.url)


@pytest.fixture(scope="module")
def world(
    cloud: sandbox.Sandbox,
    service: ciming.Ciming,
    member: Person,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    upstream = cloud.url("glance-b")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(link.Link(int(upstream.rpartition(":")[2].strip("/"))))
        stack.enter_context(zone_at(cloud, SLOW, network.url(upstream)))
        amazon = stack.enter_context(aws.start(tmp_path_factory.mktemp("aws")))
        port = cloud.port("google")
        google = stack.enter_context(gcp.start(tmp_path_factory.mktemp("gcp"), port=port))
        google.make_bucket(test_gcp.BUCKET)
        register(member, "other", credential_ref=secret(member, json.dumps(credential(cloud))))
        stack.enter_context(test_aws.registered(member, amazon, "amazon", "eu-west-1"))
        stack.enter_context(test_gcp.registered(member, google, "google"))
        yield World(member, Person(cloud, "reader", service.url), network, amazon, google)
        network.mend()


@pytest.fixture
def raw(tmp_path: pathlib.Path) -> pathlib.Path:
    """A small disk, which nobody else has."""
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(1 << 20))
    return path


def statuses(cells: dict[str, JSON]) -> dict[str, str]:
    return {name: cell["status"] for name, cell in cells.items()}


def differences(cell: JSON) -> list[str]:
    return [each["what"] for each in cell["differs"]]


def test_matrix(world: World, raw: pathlib.Path) -> None:
    """Each cell is right, and one Cloud that hangs delays nobody."""
    whole = world.bring("whole", raw, *EVERYWHERE)
    gone = world.bring("gone", raw, "zone-b", "amazon", "other")
    other = world.bring("replaced", raw, "zone-a", "google")
    waiting = world.member.create(name="waiting", clouds=["zone-b"], size=1 << 20)
    refs = {
        image["name"]: {each["cloud"]: each["image_ref"] for each in image["links"]}
        for image in (whole, gone, other)
    }

    found = world.cells("availability")
    assert statuses(found["whole"]) == dict.fromkeys(EVERYWHERE, "available")
    assert statuses(found["gone"]) == {
        **dict.fromkeys(EVERYWHERE, "missing"),
        **dict.fromkeys(("zone-b", "amazon", "other"), "available"),
    }
    assert found["waiting"]["zone-b"]["status"] == "pending"
    for name, cell in found["whole"].items():
        said = cell["metadata"]
        assert (said["name"], said["state"], cell["differs"], cell["error"]) == ("whole", "ready", [], None)
        assert cell["image_ref"] == refs["whole"][name]
    assert {found["whole"][name]["metadata"]["size"] for name in ("zone-a", "other")} == {1 << 20}
    assert found["whole"]["amazon"]["metadata"]["virtual_size"] == 1 << 30

    # What others do behind our back.
    world.glance("zone-b").delete_image(refs["gone"]["zone-b"])
    world.amazon.client("ec2", region="eu-west-1").deregister_image(ImageId=refs["gone"]["amazon"])
    zone_a = world.glance("zone-a")
    zone_a.delete_image(refs["replaced"]["zone-a"])
    successor = zone_a.create_image("replaced", data=b"x" * 512, disk_format="raw", container_format="bare")
    name = refs["replaced"]["google"].rpartition("/")[2]
    clients = world.google.images_client(), world.google.operations_client()
    project = world.google.accounts["owner"]["project_id"]
    operation = clients[0].delete_unary(project=project, image=name)
    clients[1].wait(project=project, operation=operation.name)
    storage = world.google.storage_client()
    on_gcp.make_empty(storage, *clients, project, test_gcp.BUCKET, name, {})
    storage.bucket(test_gcp.BUCKET).blob(f"{name}.tar.gz").delete()
    changed = refs["whole"]["zone-b"]
    theirs = {"name": "another", "min_disk": 3, "is_hidden": True, "architecture": "aarch64"}
    world.glance("zone-b").update_image(changed, **theirs)
    world.glance("other").deactivate_image(refs["whole"]["other"])
    world.network.silence()

    since = time.monotonic()
    found = world.cells("availability")
    assert DEADLINE <= time.monotonic() - since < DEADLINE + 1
    assert statuses(found["whole"]) == {
        **dict.fromkeys(EVERYWHERE, "available"),
        "zone-b": "drifted",
        "other": "drifted",
        SLOW: "unreachable",
    }, found["whole"]["other"]["error"]
    assert differences(found["whole"]["zone-b"]) == ["name", "hidden", "min_disk", "properties"]
    assert found["whole"]["zone-b"]["differs"][2] == {"what": "min_disk", "expected": "0", "found": "3"}
    assert differences(found["whole"]["other"]) == ["status"]
    assert found["whole"][SLOW]["error"]["code"] == "cloud.unreachable"
    assert f"did not answer within {DEADLINE:g} s" in found["whole"][SLOW]["error"]["message"]
    assert statuses(found["gone"]) == {**dict.fromkeys(EVERYWHERE, "missing"), "other": "available"}
    assert [found["gone"][each]["image_ref"] for each in ("zone-b", SLOW)] == [refs["gone"]["zone-b"], None]
    assert statuses(found["replaced"]) == {
        **dict.fromkeys(EVERYWHERE, "missing"),
        **dict.fromkeys(("zone-a", "google"), "drifted"),
    }
    assert found["replaced"]["zone-a"]["differs"] == [
        {"what": "replaced", "expected": refs["replaced"]["zone-a"], "found": successor.id}
    ]
    assert {"hash", "name"} == {*differences(found["replaced"]["google"])}

    # One Image, one Cloud: no other is asked.
    since = time.monotonic()
    one = world.cells(f"images/{whole['id']}/availability", cloud="in:zone-a,amazon")
    assert statuses(one["whole"]) == {"zone-a": "available", "amazon": "available"}
    assert time.monotonic() - since < DEADLINE

    # A reader may not read Barbican.
    found = world.cells("availability", world.reader, cloud=f"neq:{SLOW}", name="whole")
    assert statuses(found["whole"]) == {
        "zone-a": "available",
        "zone-b": "drifted",
        **dict.fromkeys(("other", "amazon", "google"), "forbidden"),
    }
    assert found["whole"]["amazon"]["error"]["code"] == "credential.not_readable"
    assert found["whole"]["amazon"]["metadata"] is None

    # Filters, by the command.
    fast = [option for name in EVERYWHERE if name != SLOW for option in ("--cloud", name)]
    drifted = rows(world, "--status", "drifted", *fast)
    assert {(each["Name"], each["Cloud"]) for each in drifted} == {
        ("whole", "zone-b"), ("whole", "other"), ("replaced", "zone-a"), ("replaced", "google"),
    }  # fmt: skip
    both = ("--available-in", "other", "--missing-in", "amazon", "--cloud", "other")
    assert [each["Name"] for each in rows(world, *both)] == ["gone"]
    machines = rows(world, "--architecture", "x86_64", "--image", "whole", "--cloud", "amazon")
    assert [each["Status"] for each in machines] == ["available"]
    [long] = rows(world, "--long", "--image", "whole", "--cloud", "zone-a")
    assert (long["Disk Format"], long["Hidden"]) == ("raw", False)
    assert long["Digests"]["sha512"] == whole["digests"]["sha512"]
    exported(world, fast, refs)

    world.network.mend()
    world.glance("other").reactivate_image(refs["whole"]["other"])
    zone_a.delete_image(successor.id)
    for image in (whole, gone, other):
        delete(world.member, image["id"])
    assert world.member.call("POST", f"/v1/jobs/{waiting['job']['id']}/cancel").status_code == 202
    assert world.member.wait(waiting["job"]["id"])["status"] == "cancelled"


def rows(world: World, *options: str) -> list[JSON]:
    answer = world.member.openstack("multicloud", "availability", "list", "-f", "json", *options)
    return list(json.loads(answer.stdout))


def exported(world: World, fast: list[str], refs: dict[str, dict[str, str]]) -> None:
    """What is available, for tools."""

    def export(kind: str) -> str:
        return world.member.openstack("multicloud", "availability", "export", "--format", kind, *fast).stdout

    (whole,) = (each for each in json.loads(export("json"))["images"] if each["name"] == "whole")
    assert {name: each["image_ref"] for name, each in whole["clouds"].items()} == {
        name: refs["whole"][name] for name in ("zone-a", "amazon", "google")
    }
    assert f'      "amazon" = "{refs["whole"]["amazon"]}"\n' in export("terraform")
    options = ("--format", "json", "--image", "whole", "--cloud", "zone-a")
    for more, there in (
        (("--cloud", SLOW, "--architecture", "x86_64"), [{"zone-a"}]),
        (("--available-in", SLOW), []),
    ):
        partly = world.member.openstack("multicloud", "availability", "export", *options, *more, ok=(3,))
        assert [{*each["clouds"]} for each in json.loads(partly.stdout)["images"]] == there
        assert f"{SLOW} was not seen" in partly.stderr
    file = world.member.cloud.folder / "exported.yaml"
    file.write_text(export("clouds-yaml"))
    loaded = openstack.config.OpenStackConfig(config_files=[str(file)], load_envvars=False)
    assert loaded.get_one("zone-a", validate=False).config["images"] == {"whole": refs["whole"]["zone-a"]}
    assert loaded.get_one("other", validate=False).get_auth_args()["auth_url"].startswith("http")


def test_what_is_in_a_cloud(world: World, raw: pathlib.Path) -> None:
    """Tracked or not, page by page; what is the same elsewhere becomes one Image."""
    mine = world.bring("mine", raw, "zone-a", "amazon")
    refs = {each["cloud"]: each["image_ref"] for each in mine["links"]}
    known = {"disk_format": "raw", "container_format": "bare"}
    there = {
        name: world.glance(name).create_image("by hand", data=b"y" * 1024, **known)
        for name in ("zone-a", "zone-b", "other")
    }
    same = world.glance("zone-b").create_image("also mine", data=raw.read_bytes(), **known)

    def listed(cloud: str, **query: Any) -> list[JSON]:
        answer = world.member.get(f"/v1/clouds/{cloud}/images", params=query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["images"])

    assert {each["image_ref"]: each["image_id"] for each in listed("zone-a")} == {
        refs["zone-a"]: mine["id"], there["zone-a"].id: None,
    }  # fmt: skip
    assert [each["image_id"] for each in listed("amazon")] == [mine["id"]]
    assert listed("google") == [] == listed("zone-a", name="in:by hand")
    assert [each["name"] for each in listed("zone-a", name="by hand", status="ACTIVE")] == ["by hand"]
    hides = world.glance("zone-a").create_image("hides", data=b"z" * 512, **known)
    world.glance("zone-a").update_image(hides.id, is_hidden=True)
    assert [each["image_ref"] for each in listed("zone-a", hidden="true")] == [hides.id]
    assert listed("amazon", hidden="true") == []
    world.glance("zone-a").delete_image(hides.id)
    paged = [each.image_ref for each in _sdk(world).cloud_images("zone-b", limit=1)]
    assert sorted(paged) == sorted([there["zone-b"].id, same.id])
    untracked = _sdk(world).cloud_images("zone-a", untracked=True, limit=1, candidates=True)
    (found,) = untracked
    others = [(each["cloud"], each["image_ref"]) for each in found.candidates]
    # zone-slow is another way to the Glance of zone-b
    at = {"zone-b": "zone-b", SLOW: "zone-b", "other": "other"}
    assert others == [(name, there[at[name]].id) for name in at]
    assert [each["candidates"] for each in listed("zone-b", name="also mine")] == [
        [{"image_id": mine["id"], "name": "mine", "cloud": None, "image_ref": None}]
    ]

    adopt = ("multicloud", "image", "adopt", "adopted", "--from", "zone-a:by hand", "--match-digest")
    adopted = json.loads(world.member.openstack(*adopt, "--wait", "-f", "json").stdout)
    assert {each["cloud"]: (each["image_ref"], each["proof"]) for each in adopted["links"]} == {
        name: (there[where].id, "bytes") for name, where in {**at, "zone-a": "zone-a"}.items()
    }
    assert (adopted["status"], adopted["size"]) == ("active", 1024)
    cells = world.cells(f"images/{adopted['id']}/availability", status="available")
    assert set(cells["adopted"]) == {"zone-a", "zone-b", SLOW, "other"}
    assert listed("zone-b", untracked="true")[0]["image_ref"] == same.id

    # What can not be.
    def refused(status: int, code: str, **wanted: Any) -> None:
        source = {"cloud": "zone-a", "image": "by hand"}
        body = {"name": "t", "clouds": [], "source": source, **wanted}
        the_error(world.member.call("POST", "/v1/images", json=body), status, code)

    refused(409, "image_ref.tracked")
    refused(400, "source.not_found", source={"cloud": "zone-a", "image": "no such image"})
    refused(400, "request.invalid", size=7)
    bare = world.amazon.client("ec2", region="eu-west-1").describe_images(Owners=["self"])["Images"]
    assert [each["ImageId"] for each in bare] == [refs["amazon"]]
    world.member.call("DELETE", f"/v1/images/{mine['id']}/links/amazon")
    refused(400, "source.no_digest", source={"cloud": "amazon", "image": refs["amazon"]}, match_digest=True)
    world.amazon.client("ec2", region="eu-west-1").deregister_image(ImageId=refs["amazon"])
    bad = world.member.get("/v1/clouds/zone-a/images", params={"marker": mine["id"][::-1]})
    the_error(bad, 400, "marker.not_found")
    the_error(world.reader.get("/v1/clouds/other/images"), 403, "credential.not_readable")
    the_error(world.member.get("/v1/availability", params={"missing_in": "x"}), 400, "cloud.unknown")

    world.member.call("DELETE", f"/v1/images/{adopted['id']}", params={"keep_remote": "true"})
    for name, image in [*there.items(), ("zone-b", same)]:
        world.glance(name).delete_image(image.id)
    delete(world.member, mine["id"])


def _sdk(world: World) -> Any:
    """The client's own proxy, as the member."""
    from cimingclient import sdk

    loader = openstack.config.OpenStackConfig(
        config_files=[str(world.member.cloud.clouds_file)], load_envvars=False
    )
    return sdk.add_to(openstack.connection.Connection(config=loader.get_one("member"))).multicloud
