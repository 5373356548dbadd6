# SPDX-License-Identifier: Apache-2.0
"""AWS through the whole service, a stand-in plays it: an image goes there, comes back, and is deleted."""

import contextlib
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from ciming.providers import pace
from tests.contract.on_aws import keys
from tests.functional import crash
from tests.functional.conftest import soon
from tests.functional.test_bad_input import Another
from tests.functional.test_clouds import secret
from tests.person import JSON, Person
from tests.sandbox import aws, ciming

pytestmark = pytest.mark.usefixtures("service")
GIB, BLOCK = 1 << 30, 512 * 1024
MANY = 160          # blocks, of which a fifth may be on their way
MACHINE = {"architecture": "x86_64", "hw_machine_type": "q35"}


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aws.StandIn]:
    with aws.start(tmp_path_factory.mktemp("aws")) as running:
        yield running


@contextlib.contextmanager
def registered(member: Person, standin: aws.StandIn, name: str, region: str) -> Iterator[JSON]:
    """A Cloud whose keys are in Barbican."""
    config = {"region": region, "endpoint_url": standin.url}
    ref = secret(member, json.dumps(keys(standin, "owner")))
    body = {"name": name, "provider": "aws", "config": config, "credential_ref": ref}
    made = member.call("POST", "/v1/clouds", json=body)
    assert made.status_code == 201, made.text
    yield made.json()
    assert member.call("DELETE", f"/v1/clouds/{made.json()['id']}").status_code == 204


@pytest.fixture
def amazon(service: ciming.Ciming, member: Person, standin: aws.StandIn) -> Iterator[JSON]:
    with registered(member, standin, "amazon", "eu-west-1") as cloud:
        yield cloud


@pytest.fixture
def virginia(service: ciming.Ciming, member: Person, standin: aws.StandIn) -> Iterator[JSON]:
    with registered(member, standin, "virginia", "us-east-1") as cloud:
        yield cloud


@pytest.fixture
def there(
    member: Person, standin: aws.StandIn, amazon: JSON, virginia: JSON, qcow2: pathlib.Path
) -> Iterator[str]:
    """The id of an Image that is in one region; in the end it is nowhere."""
    job = member.bring(qcow2, name="spreads", clouds=["amazon"], properties=MACHINE)
    assert job["status"] == "success", job
    yield job["image_id"]
    for query in ({}, {"keep_remote": "true"}):
        if member.call("DELETE", f"/v1/images/{job['image_id']}", params=query).status_code == 202:
            last, *_ = member.get("/v1/jobs", params={"image_id": job["image_id"]}).json()["jobs"]
            assert member.wait(last["id"], seconds=200)["status"] == "success"
    assert standin.images() == standin.snapshots() == []


def synced(member: Person, image_id: str, *clouds: str) -> JSON:
    """The ended Job that brought an Image there."""
    answer = member.call("POST", f"/v1/images/{image_id}/clouds", json={"clouds": list(clouds)})
    assert answer.status_code == 202, answer.text
    return member.wait(answer.json()["job"]["id"], seconds=200)


def test_there_and_back(
    member: Person, standin: aws.StandIn, amazon: JSON, qcow2: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", qcow2, raw], check=True)
    job = member.bring(qcow2, name="travels", clouds=["zone-a", "amazon"], properties=MACHINE)
    assert job["status"] == "success", job
    target = next(each for each in job["targets"] if each["cloud"] == "amazon")
    assert any("hw_machine_type" in each for each in target["remarks"])
    assert any("grown by zeros" in each for each in target["remarks"])
    links = {link["cloud"]: link for link in member.image(job["image_id"])["links"]}
    assert links["amazon"]["proof"] == "guest"
    (image,) = standin.images()
    assert (image["id"], image["region"]) == (links["amazon"]["image_ref"], "eu-west-1")
    assert standin.holds(image["snapshots"][0], raw)

    source = {"cloud": "amazon", "image": image["id"]}
    back = member.create(name="back", clouds=["zone-b"], source=source)
    ended = member.wait(back["job"]["id"], seconds=400)
    assert ended["status"] == "success", ended
    links = {link["cloud"]: link for link in member.image(back["image"]["id"])["links"]}
    found = member.zone("zone-b").image.get_image(links["zone-b"]["image_ref"])
    assert (found.size, found.disk_format, found.architecture) == (GIB, "raw", "x86_64")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        for block in member.zone("zone-b").image.download_image(found.id, stream=True).iter_content(1 << 20):
            file.write(block)
    assert disk.stat().st_size == GIB and standin.holds(image["snapshots"][0], disk)

    first, second = job["image_id"], back["image"]["id"]
    for image_id, clouds in ((second, {"cloud": "zone-b"}), (first, {}), (second, {})):
        assert len(standin.images()) == 1       # both are it, and it is deleted with the last
        gone = member.call("DELETE", f"/v1/images/{image_id}", params=clouds)
        assert gone.status_code == 202, gone.text
        last, *_ = member.get("/v1/jobs", params={"image_id": image_id}).json()["jobs"]
        assert member.wait(last["id"], seconds=200)["status"] == "success"
    assert standin.images() == standin.snapshots() == []
    for image_id in (second, first):
        member.call("DELETE", f"/v1/images/{image_id}", params={"keep_remote": "true"})


def test_what_anothers_credential_does_not_see_is_not_gone(
    member: Person, standin: aws.StandIn, amazon: JSON, qcow2: pathlib.Path
) -> None:
    """It was given with the request, and is of another account than that of the Cloud."""
    given = {"amazon": keys(standin, "stranger")}
    job = member.bring(qcow2, name="theirs", clouds=["amazon"], properties=MACHINE, credentials=given)
    assert job["status"] == "success", job
    answer = member.call("DELETE", f"/v1/images/{job['image_id']}")
    deleting = member.wait(answer.json()["job"]["id"])
    [target] = deleting["targets"]
    assert (target["status"], target["error"]["code"]) == ("error", "credential.of_another")
    assert len(standin.images()) == 1 and member.image(job["image_id"])["links"]
    again = member.call("POST", f"/v1/jobs/{deleting['id']}/retry", json={"credentials": given})
    assert again.status_code == 202, again.text
    assert member.wait(deleting["id"])["status"] == "success"
    assert standin.images() == standin.snapshots() == []


def test_killed_among_the_blocks(another: Another, standin: aws.StandIn) -> None:
    """Whoever goes on puts no more of them again than were on their way: which are there is in a journal."""
    service, member = another(crash.OPTIONS)
    disk = os.urandom(MANY * BLOCK)
    standin.settings(puts_per_second=MANY // 4)
    began = standin.counters()["puts"]
    with registered(member, standin, "slow", "eu-west-1"):
        made = member.create(clouds=["slow"], size=len(disk), disk_format="raw", properties=MACHINE)
        assert member.put(made["image"]["id"], disk).status_code == 204
        soon(lambda: standin.counters()["puts"] - began > MANY // 2)
        for part in service.parts:
            part.kill()
        before = standin.counters()["puts"] - began
        standin.settings(puts_per_second=0)
        service.start()
        job = member.wait(made["job"]["id"], seconds=200)
        assert job["status"] == "success", job
        assert MANY // 2 < before < MANY <= standin.counters()["puts"] - began <= MANY + pace.MOST
        answer = member.call("DELETE", f"/v1/images/{made['image']['id']}")
        assert member.wait(answer.json()["job"]["id"])["status"] == "success"
    assert standin.images() == standin.snapshots() == []


def test_what_aws_has_to_be_told(
    member: Person, standin: aws.StandIn, amazon: JSON, qcow2: pathlib.Path
) -> None:
    job = member.bring(qcow2, name="of nothing known", clouds=["amazon"])
    assert job["status"] == "error"
    assert job["targets"][0]["error"]["code"] == "image.architecture_unknown"
    assert "--property architecture=" in job["targets"][0]["error"]["message"]
    assert standin.snapshots() == []
    member.call("DELETE", f"/v1/images/{job['image_id']}", params={"keep_remote": "true"})


def test_check(member: Person, standin: aws.StandIn, amazon: JSON) -> None:
    checks = member.call("POST", f"/v1/clouds/{amazon['id']}/check").json()["checks"]
    assert len(checks) > 4 and not [each for each in checks if each["passed"] is False], checks
    standin.allow("owner", "ec2:Describe*", "sts:*")
    refused = member.call("POST", f"/v1/clouds/{amazon['id']}/check").json()["checks"]
    standin.reset()
    assert "ebs:StartSnapshot" in next(each for each in refused if each["check"] == "create")["message"]
    assert standin.snapshots() == []


def test_from_region_to_region(
    member: Person, standin: aws.StandIn, service: ciming.Ciming, there: str
) -> None:
    """AWS does it: no byte of a disk that came as qcow2, which no Cloud has, is needed for it."""
    before = standin.counters()
    job = synced(member, there, "virginia")
    assert job["status"] == "success", job
    assert standin.counters()["puts"] == before["puts"]
    assert standin.counters()["calls"]["ec2:CopyImage"] == 1
    (target,) = job["targets"]
    assert target["bytes_done"] == target["bytes_total"] == 0
    assert job["progress"] == {"bytes_done": 0, "bytes_total": 0}
    assert not (service.staging_dir / job["id"]).exists()
    links = {link["cloud"]: link for link in member.image(there)["links"]}
    assert (links["virginia"]["proof"], links["virginia"]["region"]) == ("guest", "us-east-1")
    images = {image["region"]: image for image in standin.images()}
    assert images["us-east-1"]["id"] == links["virginia"]["image_ref"]
    original, copy = (images[region]["snapshots"][0] for region in ("eu-west-1", "us-east-1"))
    assert standin.block_digests(original) == standin.block_digests(copy)
    assert not member.trusts()

    # From the next one, where somebody has removed the first.
    client = standin.client("ec2", region="eu-west-1")
    client.deregister_image(ImageId=images["eu-west-1"]["id"], DeleteAssociatedSnapshots=True)
    with registered(member, standin, "oregon", "us-west-2"):
        job = synced(member, there, "oregon")
        assert job["status"] == "success", job
        assert standin.counters()["puts"] == before["puts"]
        assert standin.counters()["calls"]["ec2:CopyImage"] == 2
        assert member.call("DELETE", f"/v1/images/{there}", params={"cloud": "oregon"}).status_code == 202
        member.wait(member.get("/v1/jobs", params={"image_id": there}).json()["jobs"][0]["id"])


def test_copy_beside_a_zone_that_needs_the_bytes(
    member: Person, standin: aws.StandIn, there: str, tmp_path: pathlib.Path
) -> None:
    """The file that came is in no Cloud: the zone gets the disk as AWS has it, under one identity."""
    before = member.image(there)
    assert before["disk_format"] == "qcow2"
    copies = standin.counters()["calls"].get("ec2:CopyImage", 0)
    job = synced(member, there, "virginia", "zone-b")
    assert job["status"] == "success", job
    assert standin.counters()["calls"]["ec2:CopyImage"] == copies + 1
    zone = next(target for target in job["targets"] if target["cloud"] == "zone-b")
    assert zone["bytes_done"] == zone["bytes_total"] == GIB
    grown = GIB - before["virtual_size"]
    assert any("as amazon has it" in remark and f"{grown} bytes of" in remark for remark in zone["remarks"])
    after = member.image(there)
    for name in ("id", "name", "disk_format", "size", "virtual_size", "digests", "tags"):
        assert after[name] == before[name]
    links = {link["cloud"]: link for link in after["links"]}
    assert {link["proof"] for link in links.values()} == {"guest"}
    found = member.zone("zone-b").image.get_image(links["zone-b"]["image_ref"])
    assert (found.id, found.size, found.disk_format, found.architecture) == (there, GIB, "raw", "x86_64")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        for block in member.zone("zone-b").image.download_image(found.id, stream=True).iter_content(1 << 20):
            file.write(block)
    assert all(standin.holds(image["snapshots"][0], disk) for image in standin.images())
    seen = member.get(f"/v1/images/{there}/availability").json()["clouds"]
    cells = {cell["cloud"]: cell["status"] for cell in seen}
    assert {cells[cloud] for cloud in ("amazon", "virginia", "zone-b")} == {"available"}, seen


def test_copy_that_aws_does_not_make(
    member: Person,
    standin: aws.StandIn,
    amazon: JSON,
    virginia: JSON,
    qcow2: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """Its bytes are fetched from a zone, then; another zone needs them anyway."""
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", qcow2, raw], check=True)
    job = member.bring(qcow2, name="denied", clouds=["amazon", "zone-a"], properties=MACHINE)
    assert job["status"] == "success", job
    standin.allow("owner", "ebs:*", "ec2:[!C]*", "ec2:CreateTags", "sts:*", "kms:*")
    job = synced(member, job["image_id"], "virginia", "zone-b")
    standin.reset()
    assert job["status"] == "success", job
    (sent,) = (target for target in job["targets"] if target["cloud"] == "virginia")
    assert any("ec2:CopyImage was refused" in remark for remark in sent["remarks"])
    assert sent["bytes_done"] == sent["bytes_total"] > 0
    links = {link["cloud"]: link for link in member.image(job["image_id"])["links"]}
    assert {cloud: link["proof"] for cloud, link in links.items()} == {
        "amazon": "guest", "virginia": "guest", "zone-a": "bytes", "zone-b": "bytes",
    }  # fmt: skip
    regions = {image["region"] for image in standin.images() if standin.holds(image["snapshots"][0], raw)}
    assert regions == {"eu-west-1", "us-east-1"}
    gone = member.call("DELETE", f"/v1/images/{job['image_id']}")
    assert member.wait(gone.json()["job"]["id"], seconds=200)["status"] == "success"
    member.call("DELETE", f"/v1/images/{job['image_id']}", params={"keep_remote": "true"})
    assert standin.images() == standin.snapshots() == []
