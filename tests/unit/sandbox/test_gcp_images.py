# SPDX-License-Identifier: Apache-2.0
"""The stand-in of Google Cloud: images, their archives, labels, families, policies; operations; lists."""

import gzip
import io
import itertools
import pathlib
import tarfile
import time
import uuid
from typing import Any

import isal.igzip
import pytest
from google.cloud import compute_v1

from tests.sandbox import gcp
from tests.unit.sandbox.calls import eventually
from tests.unit.sandbox.gcp_calls import (
    BLOCK,
    GIB,
    archive,
    begin,
    bucket,
    fresh,
    image,
    images,
    operations,
    project,
    put,
    refused,
    session,
    source,
    spec,
    tar,
    url,
    wait,
)


def post(cloud: gcp.StandIn, path: str, body: Any, **more: Any) -> Any:
    target = f"{cloud.url}/compute/v1/projects/{project(cloud)}/global/{path}"
    return session(cloud).post(target, json=body, timeout=10, **more)


def body(cloud: gcp.StandIn, **more: Any) -> dict[str, Any]:
    return {"name": fresh("image"), "rawDisk": {"source": source(cloud)}} | more


# Insert


def test_an_image(cloud: gcp.StandIn) -> None:
    cloud.settings(image_seconds=1, pending_seconds=1)
    packed = archive(data=b"\x42" * BLOCK, at=[0, GIB // 2], size=2 * GIB)
    blob = put(bucket(cloud, location="EU"), packed, "some folder/disk.tar.gz")
    wanted = spec(
        cloud,
        raw_disk={"source": url(blob).replace(" ", "%20")},
        labels={"ciming-id": "x_1"},
        family="a-family",
        description="A description",
        architecture="ARM64",
        guest_os_features=[{"type_": "UEFI_COMPATIBLE"}, {"type_": "GVNIC"}],
        status="READY",
        id=7,
    )
    operation = begin(cloud, wanted)
    assert operation.status == compute_v1.Operation.Status.PENDING
    assert (operation.operation_type, operation.progress, bool(operation.start_time)) == ("insert", 0, False)
    client, here = images(cloud), project(cloud)
    assert client.get(project=here, image=wanted.name).status == "PENDING"
    with refused(400, "resourceNotReady"):
        client.delete_unary(project=here, image=wanted.name)
    with refused(
        409, "alreadyExists", f"The resource 'projects/{here}/global/images/{wanted.name}' already exists"
    ):
        begin(cloud, wanted)
    asked = {"project": here, "operation": operation.name}
    eventually(lambda: operations(cloud).get(**asked).start_time)
    running = operations(cloud).get(**asked)
    assert (running.status, running.end_time) == (compute_v1.Operation.Status.RUNNING, "")
    done = wait(cloud, operation)
    assert (done.status, done.progress, done.http_error_status_code) == (
        compute_v1.Operation.Status.DONE,
        100,
        0,
    )
    assert done.insert_time <= done.start_time <= done.end_time
    made = client.get(project=here, image=wanted.name)
    link = f"https://www.googleapis.com/compute/v1/projects/{here}/global/images/{wanted.name}"
    assert (made.self_link, done.target_link, done.target_id) == (link, link, made.id)
    assert (made.status, made.source_type, made.disk_size_gb) == ("READY", "RAW", 2)
    assert made.archive_size_bytes == len(packed)
    assert (made.id > 10**17, made.creation_timestamp[:2], list(made.storage_locations)) == (
        True,
        "20",
        ["eu"],
    )
    assert (dict(made.labels), made.family, made.architecture) == ({"ciming-id": "x_1"}, "a-family", "ARM64")
    assert [one.type_ for one in made.guest_os_features] == ["UEFI_COMPATIBLE", "GVNIC"]
    assert cloud.read_image(wanted.name, 0, 513) == b"\x42" * BLOCK + b"\0"
    assert cloud.read_image(wanted.name, GIB // 2 - 1, 514) == b"\0" + b"\x42" * BLOCK + b"\0"
    (known,) = (one for one in cloud.images() if one["name"] == wanted.name)
    file = pathlib.Path(known["file"])
    assert (file.stat().st_size, file.stat().st_blocks * 512 < 1 << 20) == (2 * GIB, True)
    wait(cloud, client.delete_unary(project=here, image=wanted.name))
    with refused(
        404, "notFound", f"The resource 'projects/{here}/global/images/{wanted.name}' was not found"
    ):
        client.get(project=here, image=wanted.name)
    assert not file.exists()


@pytest.mark.parametrize(
    ("wrong", "code", "text"),
    [
        ({"name": ""}, 400, "resource.name"),
        ({"name": "Image"}, 400, "resource.name"),
        ({"name": "image-"}, 400, "resource.name"),
        ({"name": "1image"}, 400, "resource.name"),
        ({"name": "im.age"}, 400, "resource.name"),
        ({"name": "i" * 64}, 400, "resource.name"),
        ({"family": "A"}, 400, "resource.family"),
        ({"family": "f" * 64}, 400, "resource.family"),
        ({"description": "d" * 2049}, 400, "resource.description"),
        ({"labels": {"Key": "a"}}, 400, "Label key 'Key' violates format constraints."),
        ({"labels": {"1key": "a"}}, 400, "Label key"),
        ({"labels": {"k" * 64: "a"}}, 400, "Label key"),
        ({"labels": {"key": "A"}}, 400, "Label value 'A' violates format constraints."),
        ({"labels": {"key": "v" * 64}}, 400, "Label value"),
        ({"labels": {f"k{index}": "" for index in range(65)}}, 400, "labels"),
        ({"architecture": "x86_64"}, 400, "resource.architecture"),
        ({"guestOsFeatures": [{"type": "MOON"}]}, 400, "guestOsFeatures[0].type"),
        ({"guestOsFeatures": [{"type": "UNDEFINED_TYPE"}]}, 400, "guestOsFeatures"),
        ({"guestOsFeatures": [{}]}, 400, "guestOsFeatures"),
        ({"guestOsFeatures": [{"type": "GVNIC"}] * 2}, 400, "guestOsFeatures"),
        ({"storageLocations": ["moon"]}, 400, "storageLocations"),
        ({"storageLocations": ["eu", "us"]}, 400, "storageLocations"),
        ({"imageEncryptionKey": {"kmsKeyName": "key"}}, 400, "kmsKeyName"),
        ({"imageEncryptionKey": {"rawKey": "QQ=="}}, 501, "key"),
        ({"licenses": ["moon"]}, 400, "licenses[0]"),
        ({"shieldedInstanceInitialState": {"pk": {"fileType": "X509"}}}, 501, "shielded"),
        (
            {"rawDisk": {"source": "https://storage.googleapis.com/a/b.tar.gz", "sha1Checksum": "a"}},
            501,
            "SHA-1",
        ),
        ({"licenseCodes": ["1"]}, 501, "license_codes"),
        ({"rawDisk": None}, 400, "Must specify exactly one source"),
        ({"sourceImage": "projects/p/global/images/i"}, 400, "Must specify exactly one source"),
        ({"rawDisk": None, "sourceImage": "projects/p/global/images/i"}, 501, "archive"),
        ({"moon": 1}, 400, "moon"),
        ({"diskSizeGb": "many"}, 400, "diskSizeGb"),
    ],
)
def test_images_that_can_not_be(cloud: gcp.StandIn, wrong: dict[str, Any], code: int, text: str) -> None:
    before = len(cloud.images())
    response = post(cloud, "images", body(cloud) | wrong)
    assert response.status_code == response.json()["error"]["code"] == code
    assert text in response.json()["error"]["message"]
    assert len(cloud.images()) == before


def test_the_most_that_can_be(cloud: gcp.StandIn) -> None:
    key = "projects/ciming-images-1/locations/eu/keyRings/r/cryptoKeys/k"
    wanted = spec(
        cloud,
        name=f"i{uuid.uuid4().hex}".ljust(63, "x"),
        family="f" * 63,
        description="d" * 2048,
        labels={"k" * 63: "v" * 63} | {f"k{index}": "" for index in range(63)},
        storage_locations=["europe-west4"],
        image_encryption_key={"kms_key_name": key},
    )
    done = wait(cloud, begin(cloud, wanted, force_create=True))
    assert not done.error.errors
    made = images(cloud).get(project=project(cloud), image=wanted.name)
    assert list(made.storage_locations) == ["europe-west4"]
    assert made.image_encryption_key.kms_key_name.startswith(f"{key}/cryptoKeyVersions/")


def test_sources_that_can_not_be(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    good = url(put(where, archive(), "good.tar.gz"))
    base = f"https://storage.googleapis.com/{where.name}"
    for wrong in (
        good.replace("https", "http"), good.replace("https://storage.googleapis.com", "gs:/"),
        good.replace("storage.googleapis", "storage.example"), f"{good}?generation=1", "moon", "",
        f"{base}/disk.raw", "https://storage.googleapis.com/", base,
    ):  # fmt: skip
        with refused(400, "invalid", "rawDisk.source"):
            begin(cloud, spec(cloud, raw_disk={"source": wrong}))
    with refused(400, "invalid", "containerType"):
        begin(cloud, spec(cloud, raw_disk={"source": good, "container_type": "ZIP"}))
    for missing in (f"{base}/none.tar.gz", "https://storage.googleapis.com/there-is-none/a.tar.gz"):
        with refused(404, "notFound", missing):
            begin(cloud, spec(cloud, raw_disk={"source": missing}))
    theirs = url(put(bucket(cloud, "stranger"), archive(), "theirs.tar.gz"))
    with refused(403, "forbidden", "Required 'read' permission for 'rawDisk.source'"):
        begin(cloud, spec(cloud, raw_disk={"source": theirs}))
    cloud.allow("owner", "compute.*", "storage.objects.list")
    with refused(403, "forbidden", "rawDisk.source"):
        begin(cloud, spec(cloud, raw_disk={"source": good}))
    cloud.allow("owner", "compute.*", "storage.objects.get")
    with refused(403, "forbidden", "rawDisk.source"):
        begin(cloud, spec(cloud, raw_disk={"source": f"{base}/none.tar.gz"}))
    wait(cloud, begin(cloud, spec(cloud, raw_disk={"source": good})))


def test_labels_need_a_permission(cloud: gcp.StandIn) -> None:
    cloud.allow("owner", "storage.*", "compute.images.create", "compute.globalOperations.get")
    wait(cloud, begin(cloud, spec(cloud)))
    with refused(403, "forbidden", "Required 'compute.images.setLabels' permission for"):
        begin(cloud, spec(cloud, labels={"a": "b"}))


def test_request_ids(cloud: gcp.StandIn) -> None:
    wanted, number = spec(cloud), str(uuid.uuid4())
    first = begin(cloud, wanted, request_id=number)
    assert first.client_operation_id == number
    assert begin(cloud, wanted, request_id=number.upper()).name == first.name
    wait(cloud, first)
    again = begin(cloud, wanted, request_id=number)
    assert (again.name, again.status) == (first.name, compute_v1.Operation.Status.DONE)
    with refused(400, "invalid", "requestId"):
        begin(cloud, spec(cloud), request_id=number)
    for wrong in ("1", "00000000-0000-0000-0000-000000000000", number.replace("-", "")):
        with refused(400, "invalid", "requestId"):
            begin(cloud, spec(cloud), request_id=wrong)
    gone = {"project": project(cloud), "image": wanted.name, "request_id": str(uuid.uuid4())}
    deletion = images(cloud).delete_unary(request=gone)
    wait(cloud, deletion)
    with refused(404, "notFound"):
        images(cloud).delete_unary(project=project(cloud), image=wanted.name)


def test_parameters_that_are_none(cloud: gcp.StandIn) -> None:
    response = post(cloud, "images", body(cloud), params={"moon": "1"})
    assert response.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert post(cloud, "images", body(cloud), params={"forceCreate": "perhaps"}).status_code == 400
    assert post(cloud, "images", body(cloud), params={"forceCreate": "true"}).status_code == 200
    assert post(cloud, "disks", {}).status_code == 501
    assert post(cloud, "images", None, data=b"\xff").status_code == 400
    with refused(404, "notFound", "projects/nobody"):
        list(images(cloud).list(project="nobody"))


# Archives


def many() -> list[int]:
    """More places than fit in a header, and in one block behind it."""
    return [index * (1 << 20) for index in range(60)]


def pack(format: Any) -> bytes:
    """The header that Python's own tarfile makes."""
    member = tarfile.TarInfo("disk.raw")
    member.size = GIB
    member.pax_headers = {"comment": "only pax can say so"}
    return member.tobuf(format)


BAD: dict[str, bytes] = {
    "not gzip": tar(),
    "no tar": gzip.compress(b"moon" * 1024),
    "empty": gzip.compress(b""),
    "nothing": b"",
    "cut": archive()[:-40],
    "cut trailer": archive()[:-2],
    "cut tar": gzip.compress(tar(tail=b"")),
    "wrong sum of gzip": archive()[:-8] + b"\0\0\0\0" + archive()[-4:],
    "ustar": archive(magic=b"ustar\x0000"),
    "v7": archive(magic=bytes(8)),
    "pax": gzip.compress(pack(tarfile.PAX_FORMAT) + bytes(2 * BLOCK)),
    "wrong checksum": archive(checksum=1),
    "folder": archive(kind=b"5"),
    "link": archive(kind=b"2"),
    "not whole": archive(size=GIB + BLOCK),
    "no size": archive(size=0, at=(), data=b""),
    "out of order": archive(at=(BLOCK, 0)),
    "overlapping": archive(at=(0, BLOCK // 2)),
    "past the end": archive(at=(GIB - 1,)),
    "wrong stored size": archive(stored=BLOCK + 1),
    "another member": archive(tail=tar() + bytes(2 * BLOCK)),
    "something behind it": archive(tail=bytes(4 * BLOCK) + b"x"),
}


@pytest.mark.parametrize("kind", BAD)
def test_archives_that_are_no_images(cloud: gcp.StandIn, kind: str) -> None:
    blob = put(bucket(cloud), BAD[kind], "disk.tar.gz")
    wanted = spec(cloud, raw_disk={"source": url(blob)})
    done = wait(cloud, begin(cloud, wanted))
    (error,) = done.error.errors
    assert (error.code, error.message) == ("INVALID_IMAGE_TAR", "The tar archive is not a valid image.")
    assert (done.http_error_status_code, done.http_error_message) == (400, "BAD REQUEST")
    assert images(cloud).get(project=project(cloud), image=wanted.name).status == "FAILED"
    with refused(409, "alreadyExists"):
        begin(cloud, wanted)


@pytest.mark.parametrize("name", [b"./disk.raw", b"tmp/output.img", b"disk.raw.old", b"Disk.raw"])
def test_other_names(cloud: gcp.StandIn, name: bytes) -> None:
    cloud.settings(failed_images_stay=False)
    blob = put(bucket(cloud), archive(name=name), "disk.tar.gz")
    wanted = spec(cloud, raw_disk={"source": url(blob)})
    (error,) = wait(cloud, begin(cloud, wanted)).error.errors
    assert f"was named ''{name.decode()}''. It should be named ''disk.raw''." in error.message
    with refused(404, "notFound"):
        images(cloud).get(project=project(cloud), image=wanted.name)


def test_an_archive_that_goes_away(cloud: gcp.StandIn) -> None:
    cloud.settings(pending_seconds=0.3)
    blob = put(bucket(cloud), archive(), "disk.tar.gz")
    operation = begin(cloud, spec(cloud, raw_disk={"source": url(blob)}))
    blob.delete()
    assert wait(cloud, operation).error.errors


def test_many_holes(cloud: gcp.StandIn, tmp_path: pathlib.Path) -> None:
    blob = put(bucket(cloud), archive(at=many()), "disk.tar.gz")
    made = image(cloud, raw_disk={"source": url(blob)})
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        for place in many():
            file.seek(place)
            file.write(b"\x42" * BLOCK)
    assert cloud.holds(made.name, disk)
    with disk.open("r+b") as file:
        file.write(b"\x41")
    assert not cloud.holds(made.name, disk)


def test_no_holes_in_large_numbers(cloud: gcp.StandIn) -> None:
    member = tarfile.TarInfo("disk.raw")
    member.size = GIB
    packed = io.BytesIO()
    with isal.igzip.IGzipFile(fileobj=packed, mode="wb", compresslevel=0) as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.write(b"begin")
        zeros = bytes(16 << 20)
        for _ in range(GIB // len(zeros) - 1):
            file.write(zeros)
        file.write(zeros[:-8] + b"end" + bytes(1024))
    blob = put(bucket(cloud), packed.getvalue(), "disk.tar.gz")
    made = image(cloud, raw_disk={"source": url(blob)})
    assert cloud.read_image(made.name, 0, 6) == b"begin\0"
    assert cloud.read_image(made.name, GIB - 4) == b"\0end"


# Labels, families, deprecation


def test_set_labels(cloud: gcp.StandIn) -> None:
    made, client, here = image(cloud), images(cloud), project(cloud)
    assert made.label_fingerprint == "42WmSpB8rSM="

    def change(labels: dict[str, str], fingerprint: str) -> Any:
        wanted = {"labels": labels, "label_fingerprint": fingerprint}
        return client.set_labels_unary(
            project=here, resource=made.name, global_set_labels_request_resource=wanted
        )

    done = wait(cloud, change({"a": "b"}, made.label_fingerprint))
    assert done.operation_type == "setLabels"
    changed = client.get(project=here, image=made.name)
    assert (dict(changed.labels), changed.label_fingerprint != made.label_fingerprint) == ({"a": "b"}, True)
    for wrong in (made.label_fingerprint, ""):
        with refused(
            412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed"
        ):
            change({"c": "d"}, wrong)
    with refused(400, "invalid"):
        change({"C": "d"}, changed.label_fingerprint)
    wait(cloud, change({}, changed.label_fingerprint))
    assert client.get(project=here, image=made.name).label_fingerprint == "42WmSpB8rSM="


def test_patch(cloud: gcp.StandIn) -> None:
    made, client, here = image(cloud, description="before"), images(cloud), project(cloud)

    def patch(**wanted: Any) -> Any:
        return wait(cloud, client.patch_unary(project=here, image=made.name, image_resource=wanted))

    done = patch(description="after", deprecated={"state": "DEPRECATED"})
    assert done.operation_type == "patch"
    found = client.get(project=here, image=made.name)
    assert (found.description, found.deprecated.state) == ("after", "DEPRECATED")
    patch(family="ours")
    found = client.get(project=here, image=made.name)
    assert (found.description, found.family) == ("after", "ours")
    wrong: list[dict[str, Any]] = [
        {"name": "another"},
        {"labels": {"a": "b"}},
        {"family": "Ours"},
        {"description": "x" * 2049},
        {"deprecated": {"state": "MOON"}},
    ]
    for each in wrong:
        with refused(400, "invalid"):
            patch(**each)


def test_families_and_deprecation(cloud: gcp.StandIn) -> None:
    family, client, here = fresh("family"), images(cloud), project(cloud)
    with refused(404, "notFound", f"projects/{here}/global/images/family/{family}"):
        client.get_from_family(project=here, family=family)
    old, new = image(cloud, family=family), image(cloud, family=family)
    assert client.get_from_family(project=here, family=family).name == new.name

    def deprecate(**status: Any) -> Any:
        operation = client.deprecate_unary(project=here, image=new.name, deprecation_status_resource=status)
        return wait(cloud, operation)

    replacement = old.self_link
    done = deprecate(state="DEPRECATED", replacement=replacement, deleted="2030-01-01T00:00:00Z")
    assert done.operation_type == "deprecate"
    found = client.get(project=here, image=new.name).deprecated
    assert (found.state, found.replacement) == ("DEPRECATED", replacement)
    assert client.get_from_family(project=here, family=family).name == old.name
    for wrong in (
        {"state": "MOON"},
        {"deleted": "2030"},
        {"obsolete": "2030-01-01T00:00:00"},
        {"replacement": "x"},
    ):
        with refused(400, "invalid"):
            deprecate(**wrong)
    deprecate(state="ACTIVE")
    assert not client.get(project=here, image=new.name).deprecated.state
    assert client.get_from_family(project=here, family=family).name == new.name


# Policies


def test_sharing(cloud: gcp.StandIn) -> None:
    made, here, mine, theirs = (
        image(cloud, family=fresh("f")),
        project(cloud),
        images(cloud),
        images(cloud, "stranger"),
    )
    with refused(403, "forbidden", "Required 'compute.images.get' permission for"):
        theirs.get(project=here, image=made.name)
    assert not theirs.test_iam_permissions(
        project=here, resource=made.name,
        test_permissions_request_resource={"permissions": ["compute.images.useReadOnly"]},
    ).permissions  # fmt: skip
    policy = mine.get_iam_policy(project=here, resource=made.name)
    assert policy.etag
    member = f"serviceAccount:{cloud.accounts['stranger']['client_email']}"

    def share(etag: str | None = None, role: str = "roles/compute.imageUser", *members: str) -> Any:
        wanted: dict[str, Any] = {"bindings": [{"role": role, "members": list(members or (member,))}]}
        wanted |= {} if etag is None else {"etag": etag}
        return mine.set_iam_policy(
            project=here, resource=made.name, global_set_policy_request_resource={"policy": wanted}
        )

    changed = share(policy.etag)
    assert (changed.etag != policy.etag, changed.bindings[0].members) == (True, [member])
    with refused(409, "aborted", "concurrent policy changes"):
        share(policy.etag)
    assert share().etag not in (policy.etag, changed.etag)
    assert theirs.get(project=here, image=made.name).id == made.id
    assert theirs.get_from_family(project=here, family=made.family).id == made.id
    assert theirs.test_iam_permissions(
        project=here, resource=made.name,
        test_permissions_request_resource={
            "permissions": ["compute.images.useReadOnly", "compute.images.delete"]
        },
    ).permissions == ["compute.images.useReadOnly"]  # fmt: skip
    with refused(403, "forbidden", "compute.images.delete"):
        theirs.delete_unary(project=here, image=made.name)
    with refused(403, "forbidden", "compute.images.getIamPolicy"):
        theirs.get_iam_policy(project=here, resource=made.name)
    for role, who in (
        ("roles/moon", member), ("roles/compute.imageUser", "allUsers"), ("roles/compute.imageUser", "moon"),
        ("roles/compute.imageUser", "serviceAccount:nobody@nowhere.iam.gserviceaccount.com"),
    ):  # fmt: skip
        with refused(400, "badRequest"):
            share(None, role, who)
    whole = {"title": "a", "expression": "true"}
    for version, condition, who in (
        (2, whole, member), (1, whole, member), (3, {"title": "a"}, member), (3, {"expression": "a"}, member),
        (3, whole, "allAuthenticatedUsers"),
    ):  # fmt: skip
        binding = {"role": "roles/compute.viewer", "members": [who], "condition": condition}
        more = {"version": version, "bindings": [binding]}
        with refused(400, "badRequest"):
            mine.set_iam_policy(
                project=here, resource=made.name, global_set_policy_request_resource={"policy": more}
            )
    share(None, "roles/compute.viewer", member)
    theirs.get_iam_policy(project=here, resource=made.name)
    share(
        None, "roles/compute.imageUser", "allAuthenticatedUsers", "user:a@example.org", "domain:example.org"
    )
    assert theirs.get(project=here, image=made.name).id == made.id
    with refused(403, "forbidden", "compute.images.setIamPolicy"):
        images(cloud, "reader").set_iam_policy(
            project=here, resource=made.name, global_set_policy_request_resource={"policy": {}}
        )
    with refused(400, "invalid", "not valid for this resource"):
        mine.test_iam_permissions(
            project=here, resource=made.name, test_permissions_request_resource={"permissions": ["a.b.c"]}
        )


# Operations


def test_wait_is_not_for_ever(cloud: gcp.StandIn) -> None:
    cloud.settings(wait_seconds=0.1, image_seconds=0.5, pending_seconds=0)
    operation = begin(cloud, spec(cloud))
    assert wait(cloud, operation).status != compute_v1.Operation.Status.DONE
    cloud.settings(wait_seconds=10)
    assert wait(cloud, operation).status == compute_v1.Operation.Status.DONE


def test_operations(cloud: gcp.StandIn) -> None:
    operation, client, here = begin(cloud, spec(cloud)), operations(cloud), project(cloud)
    wait(cloud, operation)
    assert client.get(project=here, operation=operation.name).id == operation.id
    assert operation.name in [one["name"] for one in cloud.operations()]
    text = f'(operationType="insert") (name="{operation.name}")'
    assert [one.id for one in client.list(request={"project": here, "filter": text})] == [operation.id]
    with refused(403, "forbidden", "compute.globalOperations.delete"):
        operations(cloud, "reader").delete(project=here, operation=operation.name)
    client.delete(project=here, operation=operation.name)
    for call in (client.get, client.wait, client.delete):
        with refused(404, "notFound"):
            call(project=here, operation=operation.name)
    for call in (operations(cloud, "stranger").get, operations(cloud, "stranger").wait):
        with refused(403, "forbidden", "compute.globalOperations.get"):
            call(project=here, operation=operation.name)


# Lists


@pytest.fixture
def three(cloud: gcp.StandIn) -> list[str]:
    """Three images with a label that only they have: its value is the first one's name."""
    mark = fresh("mark")
    names = [fresh(f"list-{letter}") for letter in "cab"]
    for name, family in zip(names, ("x", "x", "y"), strict=True):
        image(cloud, name=name, labels={"mark": mark, "name": name}, family=family, description='say "hi"')
        time.sleep(0.002)
    return [mark, *names]


def listed(cloud: gcp.StandIn, **more: Any) -> list[str]:
    return [one.name for one in images(cloud).list(request={"project": project(cloud)} | more)]


def test_filters(cloud: gcp.StandIn, three: list[str]) -> None:
    mark, c, a, b = three
    for text, expected in {
        f"labels.mark={mark}": [a, b, c],
        f"labels.mark = {mark}": [a, b, c],
        f'labels.mark="{mark}" AND family=x': [a, c],
        f"(labels.mark={mark}) AND (family=y)": [b],
        f"(labels.mark={mark}) (family=y)": [b],
        f"((name='{a}'))": [a],
        f"labels.mark={mark} AND status=READY AND diskSizeGb=1 AND labels.name={c}": [c],
        f'(labels.mark={mark}) (description="say \\"hi\\"")': [a, b, c],
        f"name eq {a}": [a],
        f"name eq '(?:{a}|{b})'": [a, b],
        f'labels.mark eq "{mark}"': [a, b, c],
        f"name eq .*{a[5:]}": [a],
        f"name eq {a[:6]}": [],
        f"labels.moon={mark}": [],
    }.items():
        assert listed(cloud, filter=text) == expected, text


@pytest.mark.parametrize(
    "text",
    [
        "name", "name=", "=a", "name=a b", "name=a OR name=b", "name!=a", "name:a", "labels.a:*", "moon=1",
        "(name=a", "name=a)", "name=a AND", "AND name=a", "(name=a) family=b", "name eq a family eq b",
        "(name eq a) (family eq b)", "(name eq a) (family=b)", "name eq (", 'name="a', "name>a", "NOT name=a",
        "()", "name eq '('", "a..b=c", "(name=a) AND AND (family=b)",
    ],
)  # fmt: skip
def test_filters_that_are_refused(cloud: gcp.StandIn, text: str) -> None:
    with refused(400, "invalid", "Invalid list filter expression."):
        listed(cloud, filter=text)


def test_pages_and_orders(cloud: gcp.StandIn, three: list[str]) -> None:
    mark, c, a, b = three
    text = f"labels.mark={mark}"
    assert listed(cloud, filter=text, order_by="name") == [a, b, c]
    assert listed(cloud, filter=text, order_by="creationTimestamp desc") == [b, a, c]
    assert listed(cloud, filter=text, max_results=2) == [a, b, c]
    pages = images(cloud).list(request={"project": project(cloud), "filter": text, "max_results": 2}).pages
    assert [len(page.items) for page in itertools.islice(pages, 3)] == [2, 1]
    cloud.settings(page_size=1)
    assert listed(cloud, filter=text, max_results=500) == [a, b, c]
    for wrong in ({"order_by": "moon"}, {"order_by": "name desc"}, {"max_results": 501}, {"page_token": "!"}):
        with refused(400, "invalid"):
            listed(cloud, **wrong)
    assert mark
