# SPDX-License-Identifier: Apache-2.0
"""Google Cloud through the whole service, a stand-in plays it: an image goes there, and comes back."""

import contextlib
import json
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.functional import test_aws
from tests.functional.conftest import soon
from tests.functional.test_clouds import created, delete, error_in, secret
from tests.person import JSON, Person
from tests.sandbox import aws, ciming, gcp

pytestmark = pytest.mark.usefixtures("service")
GIB = 1 << 30
BUCKET = "images"
PATIENCE = 200.0
MACHINE = {"architecture": "x86_64", "hw_machine_type": "q35"}


@pytest.fixture(scope="module")
def standin(
    service: ciming.Ciming, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[gcp.StandIn]:
    port = service.sandbox.port("google")       # the one that the service may exchange keys at
    with gcp.start(tmp_path_factory.mktemp("gcp"), port=port) as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture(autouse=True)
def _all_well(standin: gcp.StandIn) -> Iterator[None]:
    """Afterwards nothing goes wrong any more, and nothing is left over there."""
    yield
    standin.reset()
    left = standin.images(), standin.objects(BUCKET)
    if any(left):
        standin.clear()
        standin.make_bucket(BUCKET)
    assert left == ([], [])


def config(standin: gcp.StandIn, **more: Any) -> JSON:
    project = standin.accounts["owner"]["project_id"]
    return {"project_id": project, "bucket": BUCKET, "endpoint_url": standin.url, **more}


@contextlib.contextmanager
def registered(
    member: Person, standin: gcp.StandIn, name: str, payload: str | None = None, **more: Any
) -> Iterator[JSON]:
    """A Cloud whose key is in Barbican.

    :param payload: of the secret, where it is not the owner's key
    """
    ref = secret(member, payload or json.dumps(standin.accounts["owner"]))
    body = {"name": name, "provider": "gcp", "config": config(standin, **more), "credential_ref": ref}
    made = member.call("POST", "/v1/clouds", json=body)
    assert made.status_code == 201, made.text
    yield made.json()
    gone = member.call("DELETE", f"/v1/clouds/{made.json()['id']}")
    assert gone.status_code == 204, gone.text


@pytest.fixture
def google(member: Person, standin: gcp.StandIn) -> Iterator[JSON]:
    with registered(member, standin, "google") as cloud:
        yield cloud


@pytest.fixture
def keeping(member: Person, standin: gcp.StandIn) -> Iterator[JSON]:
    """A Cloud where archives stay."""
    with registered(member, standin, "keeping", keep_archive=True) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def raw(qcow2: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What a guest sees."""
    made = tmp_path_factory.mktemp("raw") / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", qcow2, made], check=True)
    return made


def links_of(image: JSON) -> dict[str, JSON]:
    return {link["cloud"]: link for link in image["links"]}


def forget(member: Person, *images: str) -> None:
    """Images that are in no Cloud any more, or never were."""
    for image_id in images:
        answer = member.call("DELETE", f"/v1/images/{image_id}", params={"keep_remote": "true"})
        assert answer.status_code in (204, 404), answer.text


def came(member: Person, source: JSON, *clouds: str) -> JSON:
    """The Image that was brought from a Cloud into others."""
    made = member.create(name="back", clouds=list(clouds), source=source)
    job = member.wait(made["job"]["id"], seconds=PATIENCE)
    assert job["status"] == "success", job
    return member.image(made["image"]["id"])


def same_disk(member: Person, standin: gcp.StandIn, zone: str, ref: str, name: str, to: pathlib.Path) -> bool:
    """Has an image in a zone, which is raw, the disk of one of Google's?"""
    found = member.zone(zone).image.get_image(ref)
    assert (found.size, found.disk_format) == (GIB, "raw")
    with to.open("wb") as file:
        for block in member.zone(zone).image.download_image(ref, stream=True).iter_content(1 << 20):
            file.write(block)
    return to.stat().st_size == GIB and standin.holds(name, to)


def test_check(member: Person, standin: gcp.StandIn, google: JSON) -> None:
    checks = member.call("POST", f"/v1/clouds/{google['id']}/check").json()["checks"]
    assert [each["check"] for each in checks] == [
        "credential", "login", "clock", "read", "bucket", "create",
    ]  # fmt: skip
    assert not [each for each in checks if each["passed"] is not True], checks
    standin.allow("owner", "storage.buckets.get", "storage.objects.[gl]*", "compute.*.list")
    refused = member.call("POST", f"/v1/clouds/{google['id']}/check").json()["checks"]
    said = {each["check"]: each["message"] for each in refused if each["passed"] is False}
    assert "storage.objects.create, storage.objects.delete" in said.pop("bucket")
    assert "compute.images.create" in said.pop("create")
    assert said == {}


def test_into_zone_and_project(
    service: ciming.Ciming,
    member: Person,
    standin: gcp.StandIn,
    google: JSON,
    qcow2: pathlib.Path,
    raw: pathlib.Path,
) -> None:
    machine = [f"--property={name}={value}" for name, value in MACHINE.items()]
    where = ("--file", str(qcow2), "--cloud", "zone-a", "--cloud", "google")
    image = created(member, "Travels far", *where, *machine)
    links = links_of(image)
    assert {name: link["proof"] for name, link in links.items()} == {"zone-a": "bytes", "google": "guest"}
    (there,) = standin.images()
    assert links["google"]["image_ref"] == f"projects/{there['project']}/global/images/{there['name']}"
    assert there["name"].startswith("travels-far-") and there["architecture"] == "X86_64"
    assert standin.holds(there["name"], raw)
    assert standin.objects(BUCKET) == []
    (job,) = member.get("/v1/jobs", params={"image_id": image["id"]}).json()["jobs"]
    (target,) = (each for each in member.job(job["id"])["targets"] if each["cloud"] == "google")
    assert any("hw_machine_type" in each for each in target["remarks"])
    assert any("grown by zeros" in each for each in target["remarks"])
    assert not (service.staging_dir / job["id"]).exists()

    # Its archive is gone, and Google gives nothing else: that is said, with what helps.
    source = {"cloud": "google", "image": there["name"]}
    made = member.create(name="stays there", clouds=["zone-b"], source=source)
    ended = member.wait(made["job"]["id"])
    assert (ended["status"], ended["error"]["code"]) == ("error", "source.not_exportable")
    assert f"gcloud compute images export --image {there['name']}" in ended["error"]["message"]
    forget(member, made["image"]["id"])
    delete(member, image["id"])
    assert standin.images() == []


def test_back_by_what_was_kept(
    service: ciming.Ciming,
    member: Person,
    standin: gcp.StandIn,
    keeping: JSON,
    qcow2: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    job = member.bring(qcow2, name="kept", clouds=["keeping"], properties={"architecture": "x86_64"})
    assert job["status"] == "success", job
    (there,) = standin.images()
    (archive,) = standin.objects(BUCKET)
    for number, source in enumerate((there["name"], f"gs://{BUCKET}/{archive['name']}")):
        image = came(member, {"cloud": "keeping", "image": source}, "zone-b")
        ref = links_of(image)["zone-b"]["image_ref"]
        assert same_disk(member, standin, "zone-b", ref, there["name"], tmp_path / str(number))
        if not number:
            assert member.zone("zone-b").image.get_image(ref).architecture == "x86_64"
            assert links_of(image)["keeping"]["image_ref"].endswith(there["name"])
        assert member.call("DELETE", f"/v1/images/{image['id']}", params={"cloud": "zone-b"}).ok
        last, *_ = member.get("/v1/jobs", params={"image_id": image["id"]}).json()["jobs"]
        assert member.wait(last["id"])["status"] == "success"
        forget(member, image["id"])
        assert not (service.staging_dir / last["id"]).exists()
    delete(member, job["image_id"])     # the archive with it


def test_from_an_archive_that_others_made(
    member: Person,
    standin: gcp.StandIn,
    google: JSON,
    keeping: JSON,
    raw: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """As Google's documents say how, by tar itself: into a zone, and as an image into a project."""
    disk = tmp_path / "disk.raw"
    subprocess.run(["cp", "--sparse=always", raw, disk], check=True)
    subprocess.run(["truncate", "-s", "1G", disk], check=True)
    packed = tmp_path / "disk.tar.gz"
    subprocess.run(["tar", "--format=oldgnu", "-Sczf", packed, "-C", tmp_path, "disk.raw"], check=True)
    bucket = standin.storage_client().bucket(BUCKET)
    bucket.blob("by hand.tar.gz").upload_from_filename(str(packed))
    source = {"cloud": "google", "image": f"gs://{BUCKET}/by hand.tar.gz"}
    image = came(member, source, "zone-a", "keeping")
    (there,) = standin.images()
    links = links_of(image)
    assert links["keeping"]["image_ref"].endswith(there["name"])
    assert standin.holds(there["name"], disk)
    ref = links["zone-a"]["image_ref"]
    assert same_disk(member, standin, "zone-a", ref, there["name"], tmp_path / "there")
    answer = member.call("DELETE", f"/v1/images/{image['id']}")
    job = member.wait(answer.json()["job"]["id"])
    told = {each["cloud"]: (each["error"] or {}).get("code") for each in job["targets"]}
    assert told == {"google": "image_ref.not_ours", "keeping": None, "zone-a": None}
    (stays,) = standin.objects(BUCKET)      # what others made is not ours
    bucket.blob(stays["name"]).delete()
    assert member.call("DELETE", f"/v1/images/{image['id']}/links/google").status_code == 204
    delete(member, image["id"])


@pytest.fixture
def amazon(member: Person, tmp_path: pathlib.Path) -> Iterator[aws.StandIn]:
    """Two regions of AWS."""
    with aws.start(tmp_path / "aws") as running:
        region = test_aws.registered
        with region(member, running, "amazon", "eu-west-1"), region(member, running, "virginia", "us-east-1"):
            yield running


def test_from_aws_and_back(
    member: Person,
    standin: gcp.StandIn,
    keeping: JSON,
    amazon: aws.StandIn,
    qcow2: pathlib.Path,
    raw: pathlib.Path,
) -> None:
    job = member.bring(qcow2, name="first", clouds=["amazon"], properties=MACHINE)
    assert job["status"] == "success", job
    (first,) = amazon.images()
    there = came(member, {"cloud": "amazon", "image": first["id"]}, "keeping")
    (image,) = standin.images()
    assert links_of(there)["keeping"]["proof"] == "guest" and standin.holds(image["name"], raw)
    assert image["architecture"] == "X86_64"
    back = came(member, {"cloud": "keeping", "image": image["name"]}, "virginia")
    (second,) = (each for each in amazon.images() if each["region"] == "us-east-1")
    assert amazon.holds(second["snapshots"][0], raw)
    assert second["id"] == links_of(back)["virginia"]["image_ref"]
    for image_id in (back["id"], there["id"], job["image_id"]):
        delete(member, image_id)
        forget(member, image_id)
    assert amazon.images() == []


def test_by_the_command_line(
    member: Person, standin: gcp.StandIn, qcow2: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """With lists, and keys as Google's console gives them: one is stored, one only for the Job."""
    cloud = ("multicloud", "cloud")
    told = {
        **config(standin),
        "labels": "env=prod,team=images",
        "share_with": "group:everybody@example.com,user:somebody@example.com",
        "guest_os_features": "GVNIC,SEV_CAPABLE",
        "keep_archive": "true",
        "family": "ours",
    }
    options = [f"--config={name}={value}" for name, value in told.items()]
    file = tmp_path / "ciming-images-1-0123456789ab.json"
    file.write_text(json.dumps(standin.accounts["owner"], indent=2))
    for name, store in (("stored", ("--credential", str(file), "--store")), ("given", ())):
        create = (*cloud, "create", name, "--provider", "gcp", *options, *store, "-f", "json")
        made = json.loads(member.openstack(*create).stdout)
        assert made["config"]["labels"] == ["env=prod", "team=images"]
        assert made["config"]["keep_archive"] is True
        assert bool(made["credential_ref"]) == bool(store)
    checks = json.loads(member.openstack(*cloud, "check", "stored", "-f", "json").stdout)
    assert not [each for each in checks if not each["Passed"]], checks
    where = ("--cloud", "stored", "--cloud", "given", "--credential", f"given={file}")
    image = created(member, "twice", "--file", str(qcow2), *where)
    assert links_of(image).keys() == {"stored", "given"}
    assert len(standin.images()) == 2       # in one project: both have a name
    for there in standin.images():
        assert there["labels"].items() >= {"env": "prod", "team": "images"}.items()
        (binding,) = there["policy"]["bindings"]
        assert sorted(binding["members"]) == told["share_with"].split(",")
        assert [each["type"] for each in there["guestOsFeatures"]] == ["GVNIC", "SEV_CAPABLE"]
        assert there["family"] == "ours"
    change = (*cloud, "set", "stored", "--no-config", "labels", "-f", "json")
    changed = json.loads(member.openstack(*change).stdout)
    assert "labels" not in changed["config"] and changed["credential_ref"]
    job = member.call("DELETE", f"/v1/images/{image['id']}").json()["job"]
    assert member.wait(job["id"])["status"] == "partial"
    member.openstack("multicloud", "job", "retry", job["id"], "--credential", f"given={file}", "--wait")
    member.openstack(*cloud, "delete", "stored", "given")


# What is no good


class Bad(NamedTuple):
    """What is wrong, and what the Target's error says of it."""

    code: str
    says: str
    break_it: Callable[[gcp.StandIn], object] = lambda standin: None
    config: JSON = {}
    payload: Callable[[gcp.StandIn], str] | None = None


def revoked(standin: gcp.StandIn) -> str:
    key = standin.add_key("reader")
    standin.revoke("reader")
    return json.dumps(key)


def without(standin: gcp.StandIn, *names: str, **more: Any) -> str:
    key = {name: value for name, value in standin.accounts["owner"].items() if name not in names}
    return json.dumps({**key, **more})


def lets(*permissions: str) -> Callable[[gcp.StandIn], object]:
    return lambda standin: standin.allow("owner", *permissions)


def fault(kind: str, action: str) -> Callable[[gcp.StandIn], object]:
    return lambda standin: standin.fault(kind, action, times=9)


SWORDFISH = "swordfish" * 9
BAD = {
    "revoked key": Bad("cloud.auth_failed", "Invalid JWT Signature", payload=revoked),
    "no key": Bad("credential.invalid", "neither a JSON object", payload=lambda _: SWORDFISH),
    "another's kind": Bad(
        "credential.invalid", "no key of a service account", payload=lambda _: '{"type": "authorized_user"}'
    ),
    "half a key": Bad(
        "credential.invalid", "private_key: It is needed", payload=lambda key: without(key, "private_key")
    ),
    "no PEM": Bad(
        "credential.invalid", "no key of a service account",
        payload=lambda key: without(key, private_key=SWORDFISH),
    ),
    "exchanged elsewhere": Bad(
        "credential.invalid", "token_uri that is neither Google's",
        payload=lambda key: without(key, token_uri="http://127.0.0.1:1/token"),
    ),
    "no such bucket": Bad("cloud.not_found", "bucket absent is not there", config={"bucket": "absent"}),
    "another's project": Bad(
        "cloud.forbidden", "projects/somebody-else-2", config={"project_id": "somebody-else-2"}
    ),
    "may not write": Bad(
        "cloud.forbidden", "storage.objects.create", lets("storage.*.[gl]*", "compute.*", "storage.*.delete")
    ),
    "may not make images": Bad(
        "cloud.forbidden", "compute.images.create", lets("storage.*", "compute.*.[gl]*")
    ),
    "quota of images": Bad(
        "cloud.quota_exceeded", "Quota 'IMAGES' exceeded", fault("quota", "compute.images.insert")
    ),
    "quota of storage": Bad(
        "cloud.quota_exceeded", "quota of stored bytes", fault("quota", "storage.objects.insert")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_told_by_its_name(
    member: Person, standin: gcp.StandIn, qcow2: pathlib.Path, name: str
) -> None:
    """And a zone beside it has the image all the same."""
    bad = BAD[name]
    payload = bad.payload(standin) if bad.payload else None
    bad.break_it(standin)
    with registered(member, standin, "bad", payload, **bad.config):
        job = member.bring(qcow2, name="nowhere", clouds=["bad", "zone-a"])
        error = error_in(job, "bad")
        assert error["code"] == bad.code and bad.says in error["message"], error
        assert SWORDFISH not in json.dumps(job) and "PRIVATE KEY" not in json.dumps(job)
        assert job["status"] == "partial", job
        delete(member, job["image_id"])


def test_refused_at_once(member: Person, standin: gcp.StandIn) -> None:
    """What no Cloud can be told is said for each field, before anything is stored."""
    for wrong in (
        {"project_id": "My Project"},
        {"bucket": "../x"},
        {"endpoint_url": "http://169.254.169.254/"},
        {"labels": ["Env=prod"]},
        {"share_with": ["allUsers"]},
        {"guest_os_features": ["SWORDFISH"]},
        {"region": "europe-west1"},
    ):
        body = {"name": "bad", "provider": "gcp", "config": config(standin, **wrong)}
        answer = member.call("POST", "/v1/clouds", json=body)
        assert answer.status_code == 400, answer.text
        assert next(iter(wrong)) in answer.json()["errors"][0]["field"], answer.text


def test_resumed_with_another_key(
    member: Person, standin: gcp.StandIn, google: JSON, qcow2: pathlib.Path, raw: pathlib.Path
) -> None:
    """The key is revoked when its bytes are there: the Job waits, and goes on."""
    standin.fault("auth", "compute.images.insert", times=2)     # Google's client asks once more by itself
    made = member.create(name="waits", clouds=["google"])
    assert member.put(made["image"]["id"], qcow2.read_bytes()).status_code == 204
    waiting = member.wait(made["job"]["id"], "waiting-credentials", "error", "success")
    assert waiting["status"] == "waiting-credentials", waiting
    before = standin.counters()["bytes"]
    ref = secret(member, json.dumps(standin.add_key("owner")))
    change = member.call("PATCH", f"/v1/clouds/{google['id']}", json={"credential_ref": ref})
    assert change.status_code == 200, change.text
    assert member.call("POST", f"/v1/jobs/{waiting['id']}/resume").status_code == 202
    job = member.wait(waiting["id"], seconds=PATIENCE)
    assert job["status"] == "success", job
    assert standin.counters()["bytes"] == before        # nothing is sent again
    (image,) = standin.images()
    assert standin.holds(image["name"], raw) and standin.objects(BUCKET) == []
    delete(member, job["image_id"])
    member.take_trusts_back()       # that of before it was resumed, which housekeeping would, later


def test_cancelled_while_google_does_not_end(
    member: Person, standin: gcp.StandIn, google: JSON, qcow2: pathlib.Path
) -> None:
    """Google deletes no image that it is making: it goes as soon as that ends, its archive at once."""
    standin.fault("stuck", "compute.images.insert")
    made = member.create(name="stuck", clouds=["google"])
    assert member.put(made["image"]["id"], qcow2.read_bytes()).status_code == 204
    soon(standin.images, 60)
    member.openstack("multicloud", "job", "cancel", made["job"]["id"])
    soon(lambda: standin.objects(BUCKET) == [], 60)
    (image,) = standin.images()
    assert image["status"] == "PENDING"
    assert member.job(made["job"]["id"])["targets"][0]["step"] == "withdraw"
    standin.reset()
    job = member.wait(made["job"]["id"], seconds=PATIENCE)
    assert job["status"] == job["targets"][0]["status"] == "cancelled", job
    assert standin.images() == []
    forget(member, job["image_id"])
