# SPDX-License-Identifier: Apache-2.0
"""A zone that takes one format only gets the same disk in that format, proven by its guest digest."""

import hashlib
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from ciming import disk_image
from tests import corpus
from tests.functional import crash
from tests.functional.conftest import soon
from tests.functional.test_overlap import Sender, follows
from tests.person import JSON, Person
from tests.sandbox import ciming

Another = Callable[..., tuple[ciming.Ciming, Person]]
pytestmark = pytest.mark.usefixtures("service")
RAW = {("openstack", "zone_formats"): "zone-b:raw"}
WANTED = (
    *("raw-mbr", "qcow2-v3", "qcow2-compressed", "vmdk-sparse", "vmdk-stream", "vmdk-stream-footer"),
    *("vhd-dynamic", "vhd-fixed", "vhdx-dynamic", "vdi-dynamic"),
)
"""All of one disk."""


def targets(job: JSON) -> dict[str, JSON]:
    return {target["cloud"]: target for target in job["targets"]}


def links(member: Person, job: JSON) -> dict[str, JSON]:
    return {link["cloud"]: link for link in member.image(job["image_id"])["links"]}


def content(member: Person, zone: str, link: JSON) -> bytes:
    return bytes(member.zone(zone).image.download_image(link["image_ref"]).content)


@pytest.fixture
def nested(tmp_path: pathlib.Path) -> pathlib.Path:
    """A disk that begins as a qcow2 does."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", inner, "1M"], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", inner, outer], check=True)
    return outer


def test_each_format_becomes_raw_where_that_is_wanted(another: Another, tmp_path: pathlib.Path) -> None:
    service, member = another(RAW)
    cases = {case.name: case for case in corpus.good(tmp_path / "corpus")}
    disk = cases["raw-mbr"].path
    guest = disk_image.guest_digest(disk, disk_image.Inspection("raw", disk.stat().st_size))
    for name in WANTED:
        case = cases[name]
        # A Glance that looks takes no fixed VHD: it begins as the disk does.
        zones = ["zone-b"] if name == "vhd-fixed" else ["zone-a", "zone-b"]
        job = member.bring(case.path, name=name, clouds=zones)
        assert job["status"] == "success", (name, [target["error"] for target in job["targets"]])
        assert job["progress"]["bytes_done"] == job["progress"]["bytes_total"], name
        image, found = member.image(job["image_id"]), links(member, job)
        if "zone-a" in zones:
            assert content(member, "zone-a", found["zone-a"]) == case.path.read_bytes()
            assert found["zone-a"]["proof"] == "bytes"
        raw = content(member, "zone-b", found["zone-b"])
        assert raw.rstrip(b"\0") == disk.read_bytes().rstrip(b"\0"), name
        assert len(raw) == image["virtual_size"] == targets(job)["zone-b"]["bytes_total"]
        there = member.zone("zone-b").image.get_image(found["zone-b"]["image_ref"])
        assert (there.disk_format, there.hash_value) == ("raw", hashlib.sha512(raw).hexdigest())
        assert image["disk_format"] == case.disk_format
        as_it_is = case.disk_format == "raw"
        assert image["digests"]["guest"] == (None if as_it_is else guest), name
        assert found["zone-b"]["proof"] == ("bytes" if as_it_is else "guest")
        assert not (service.staging_dir / job["id"]).exists()


def test_what_a_zone_takes_needs_no_conversion(another: Another, qcow2: pathlib.Path) -> None:
    _service, member = another({("openstack", "zone_formats"): "zone-b:raw qcow2,zone-a:qcow2"})
    job = member.bring(qcow2, clouds=["zone-a", "zone-b"])
    assert job["status"] == "success", job
    assert {link["proof"] for link in links(member, job).values()} == {"bytes"}
    assert member.image(job["image_id"])["digests"]["guest"] is None


def test_the_upload_that_needs_none_does_not_wait(
    another: Another, data: bytes, tmp_path: pathlib.Path
) -> None:
    """One zone gets the image while it still comes, the other when all of it has come and is converted."""
    raw, packed = tmp_path / "raw", tmp_path / "packed"
    raw.write_bytes(data)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, packed], check=True)
    _service, member = another(RAW)
    with Sender(member, packed.read_bytes(), disk_format="qcow2") as sender:
        found = targets(follows(member, sender.job_id))
        assert found["zone-a"]["bytes_done"] and found["zone-a"]["step"] == "upload"
        assert (found["zone-b"]["bytes_done"], found["zone-b"]["step"]) == (0, "convert")
    job = member.wait(sender.job_id)
    assert job["status"] == "success", job
    assert content(member, "zone-b", links(member, job)["zone-b"]) == data


def test_a_disk_that_is_something_else_as_raw(another: Another, nested: pathlib.Path) -> None:
    service, member = another(RAW)
    job = member.bring(nested, clouds=["zone-a", "zone-b"])
    assert job["status"] == "partial", job
    target = targets(job)["zone-b"]
    assert (target["error"]["code"], target["step"]) == ("image.unsafe", "withdraw")
    assert "it is qcow2" in target["error"]["message"]
    again = member.call("POST", f"/v1/jobs/{job['id']}/retry")
    assert again.status_code == 202
    assert member.wait(job["id"])["status"] == "partial"
    kept = {path.name.partition(".")[0] for path in (service.staging_dir / job["id"]).iterdir()}
    assert kept == {"upload"}
    ours = {"ciming_image": job["image_id"]}
    assert not member.zone("zone-b").image.get("/images", params=ours).json()["images"]


def test_an_iso_is_not_converted(another: Another, tmp_path: pathlib.Path) -> None:
    _service, member = another(RAW)
    iso = next(case.path for case in corpus.good(tmp_path / "corpus") if case.disk_format == "iso")
    job = member.bring(iso, clouds=["zone-a", "zone-b"])
    assert job["status"] == "partial"
    assert targets(job)["zone-b"]["error"]["code"] == "image.format_not_taken"


def test_without_room_the_others_have_it(another: Another, qcow2: pathlib.Path) -> None:
    quota = qcow2.stat().st_size + 100_000
    options = {("staging", "quota"): str(quota), ("engine", "max_attempts"): "2"}
    _service, member = another({**RAW, **options, ("engine", "retry_delay"): "0.1"})
    job = member.bring(qcow2, clouds=["zone-a", "zone-b"])
    assert job["status"] == "partial", job
    target = targets(job)["zone-b"]
    assert (target["error"]["code"], target["attempts"]) == ("staging.full", 2)
    assert targets(job)["zone-a"]["status"] == "success"


def test_the_disk_goes_on_from_where_it_was_converted(
    another: Another, qcow2: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Also where the engine dies when it has it: the next one knows which file that is."""
    where = crash.Points(tmp_path / "points")
    (tmp_path / "points").mkdir()
    service, member = another({**crash.OPTIONS, **RAW}, environment=where.environment)
    job = member.bring(qcow2, clouds=["zone-b"])
    assert job["status"] == "success", job
    before = member.image(job["image_id"])
    raw = content(member, "zone-b", before["links"][0])
    where.arm("noted fetch Inspect execute")
    answer = member.call("POST", f"/v1/images/{job['image_id']}/clouds", json={"clouds": ["zone-a"]})
    assert answer.status_code == 202, answer.text
    soon(lambda: where.killed)
    service.stop()
    service.start()
    job = member.wait(answer.json()["job"]["id"])
    assert job["status"] == "success", job
    assert targets(job)["zone-a"]["bytes_total"] == len(raw) == before["virtual_size"]
    assert targets(job)["zone-a"]["remarks"] == ["It is the disk as zone-b has it: in another file."]
    link = links(member, job)["zone-a"]
    assert link["proof"] == "guest" and content(member, "zone-a", link) == raw
    after = member.image(job["image_id"])
    assert {name: after[name] for name in ("disk_format", "size", "digests")} == {
        name: before[name] for name in ("disk_format", "size", "digests")
    }
    assert not (service.staging_dir / job["id"]).exists()


def test_an_image_comes_from_another_zone_and_is_converted(another: Another, qcow2: pathlib.Path) -> None:
    _service, member = another(RAW)
    job = member.bring(qcow2, clouds=["zone-a"])
    url = f"/v1/images/{job['image_id']}/clouds"
    answer = member.call("POST", url, json={"clouds": ["zone-b"]})
    assert answer.status_code == 202, answer.text
    job = member.wait(answer.json()["job"]["id"])
    assert job["status"] == "success", job
    assert links(member, job)["zone-b"]["proof"] == "guest"
    assert links(member, job)["zone-a"]["proof"] == "bytes"
