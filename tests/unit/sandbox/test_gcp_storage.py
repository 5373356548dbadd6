# SPDX-License-Identifier: Apache-2.0
"""The stand-in of Google Cloud: buckets, objects, preconditions, compositions, lists."""

from collections.abc import Callable
from typing import Any

import google.api_core.exceptions
import pytest
import requests

from tests.sandbox import gcp
from tests.unit.sandbox.gcp_calls import bucket, fresh, project, put, refused, session, storage

NOT_MET: list[dict[str, Any]] = [
    {"if_generation_match": 0},
    {"if_generation_match": 1},
    {"if_metageneration_match": 2},
    {"if_metageneration_not_match": 1},
]


def ask(cloud: gcp.StandIn, method: str, path: str, **more: Any) -> Any:
    return session(cloud).request(method, f"{cloud.url}{path}", timeout=10, **more)


def reason(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["errors"][0]["reason"]


# Buckets


def test_a_bucket(cloud: gcp.StandIn) -> None:
    client, name = storage(cloud), fresh("bucket")
    wanted = client.bucket(name)
    wanted.storage_class = "NEARLINE"
    made = client.create_bucket(wanted, location="europe-west4")
    assert (made.location, made.storage_class) == ("EUROPE-WEST4", "NEARLINE")
    found = client.get_bucket(name)
    assert (found.location, found.location_type, found.storage_class) == (
        "EUROPE-WEST4",
        "region",
        "NEARLINE",
    )
    assert name in [one.name for one in client.list_buckets()]
    assert name not in [one.name for one in storage(cloud, "stranger").list_buckets()]
    assert found.exists()
    assert not client.bucket("there-is-none").exists()


@pytest.mark.parametrize(
    "name", ["A-bucket", "ab", "a" * 64, "-bucket", "my.domain.org", "goog-bucket", "a-google-b"]
)
def test_names_that_buckets_can_not_have(cloud: gcp.StandIn, name: str) -> None:
    response = ask(cloud, "POST", f"/storage/v1/b?project={project(cloud)}", json={"name": name})
    assert reason(response) == (400, "invalid")


def test_buckets_that_can_not_be(cloud: gcp.StandIn) -> None:
    taken = bucket(cloud, "stranger").name
    with refused(409, "conflict", "not available"):
        storage(cloud).create_bucket(taken)
    with refused(409, "conflict", "already own it"):
        storage(cloud, "stranger").create_bucket(taken)
    with refused(400, "invalid", "location"):
        storage(cloud).create_bucket(fresh("bucket"), location="moon-east1")
    target = f"/storage/v1/b?project={project(cloud)}"
    assert reason(ask(cloud, "POST", target, json={"name": fresh("b"), "storageClass": "HOT"})) == (
        400,
        "invalid",
    )
    assert reason(ask(cloud, "POST", target, data=b"{")) == (400, "parseError")
    assert reason(ask(cloud, "POST", target, json={"name": fresh("b"), "moon": 1}))[0] == 501
    versions = {"name": fresh("b"), "versioning": {"enabled": True}}
    assert reason(ask(cloud, "POST", target, json=versions))[0] == 501
    assert reason(ask(cloud, "GET", "/storage/v1/b")) == (400, "required")


# Objects


def test_an_object(cloud: gcp.StandIn) -> None:
    where = bucket(cloud, location="EU")
    blob = where.blob("folder/näme ?#%.bin")
    blob.metadata = {"owner": "ciming", "Key": "Välue"}
    blob.cache_control = "no-store"
    before = cloud.counters()["bytes"]
    blob.upload_from_string(b"hello world", content_type="application/gzip", if_generation_match=0)
    assert cloud.counters()["bytes"] == before + 11
    found = where.get_blob("folder/näme ?#%.bin")
    assert (found.size, found.crc32c, found.md5_hash) == (11, "yZRlqg==", "XrY7u+Ae7tCTyyK7j1rNww==")
    assert found.metadata == {"owner": "ciming", "Key": "Välue"}
    assert (found.content_type, found.cache_control) == ("application/gzip", "no-store")
    assert (found.metageneration, found.component_count, found.storage_class) == (1, None, "STANDARD")
    assert found.media_link.startswith(cloud.url)
    assert found.download_as_bytes() == b"hello world"
    again = put(where, b"other", found.name)
    assert again.generation > found.generation
    assert [one["size"] for one in cloud.objects(where.name)] == ["5"]
    with pytest.raises(google.api_core.exceptions.NotFound):
        found.reload()  # of a generation that is not there any more
    again.delete()
    with pytest.raises(google.api_core.exceptions.NotFound):
        again.delete()
    assert cloud.objects(where.name) == []


def test_names_that_are_alike(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    names = ["a", "a/", "a//b", "a/b", "/a/b", "../a", "a\\b", "a/./b"]
    for name in names:
        put(where, name.encode(), name)
    for name in names:
        assert where.blob(name).download_as_bytes() == name.encode()


@pytest.mark.parametrize("name", ["ä" * 513, ".", "..", "a\nb", "a\rb", ".well-known/acme-challenge/a"])
def test_names_that_objects_can_not_have(cloud: gcp.StandIn, name: str) -> None:
    where = bucket(cloud)
    with refused(400, "invalid"):
        put(where, b"a", name)
    assert cloud.objects(where.name) == []
    put(where, b"a", "ä" * 512)


def test_what_is_not_there(cloud: gcp.StandIn) -> None:
    with refused(404, "notFound", "The specified bucket does not exist."):
        storage(cloud).get_bucket("there-is-none")
    with refused(404, "notFound", "The specified bucket does not exist."):
        put(storage(cloud).bucket("there-is-none"), b"a")
    where = bucket(cloud)
    with refused(404, "notFound", f"No such object: {where.name}/none"):
        where.blob("none").reload()
    for path in ("/storage/v2/b", "/storage/v1/b/a/b/c", "/", "/discovery"):
        assert reason(ask(cloud, "GET", path)) == (501, "notImplemented")
    assert reason(ask(cloud, "PATCH", f"/storage/v1/b/{where.name}")) == (501, "notImplemented")


def test_ranges(cloud: gcp.StandIn) -> None:
    blob = put(bucket(cloud), b"0123456789")
    assert blob.download_as_bytes(start=2, end=4) == b"234"
    assert blob.download_as_bytes(start=8) == b"89"
    assert blob.download_as_bytes(start=8, end=100) == b"89"
    path = f"/download/storage/v1/b/{blob.bucket.name}/o/{blob.name}?alt=media"
    response = ask(cloud, "GET", path, headers={"Range": "bytes=-3"})
    assert (response.status_code, response.content) == (206, b"789")
    assert response.headers["Content-Range"] == "bytes 7-9/10"
    assert response.headers["X-Goog-Hash"] == f"crc32c={blob.crc32c},md5={blob.md5_hash}"
    for span in ("bytes=10-", "bytes=5-4", "bytes=-0"):
        assert reason(ask(cloud, "GET", path, headers={"Range": span})) == (
            416,
            "requestedRangeNotSatisfiable",
        )
    assert put(bucket(cloud), b"").download_as_bytes() == b""


def test_who_reads_goes_on_with_what_was_there(cloud: gcp.StandIn) -> None:
    blob = put(bucket(cloud), b"a" * (16 << 20))
    path = f"/storage/v1/b/{blob.bucket.name}/o/{blob.name}?alt=media"
    response = ask(cloud, "GET", path, stream=True)
    blob.delete()
    assert response.content == b"a" * (16 << 20)


@pytest.mark.parametrize("condition", NOT_MET)
def test_conditions_that_are_not_met(cloud: gcp.StandIn, condition: dict[str, Any]) -> None:
    blob = put(bucket(cloud), b"a")
    plain = blob.bucket.blob(blob.name)
    calls: list[Callable[[], Any]] = [lambda: plain.delete(**condition)]
    if "if_metageneration_not_match" not in condition:  # compose has it not, and the client spells it wrong
        calls.append(lambda: plain.upload_from_string(b"b", retry=None, **condition))
        calls.append(lambda: blob.bucket.blob(blob.name).compose([blob], **condition))
    for call in calls:
        with refused(412, "conditionNotMet"):
            call()
    if "if_metageneration_not_match" in condition:
        with pytest.raises(google.api_core.exceptions.NotModified):
            plain.reload(**condition)
    else:
        with refused(412, "conditionNotMet"):
            plain.reload(**condition)
        with refused(412, "conditionNotMet"):
            plain.download_as_bytes(**condition)
    assert plain.download_as_bytes() == b"a"


def test_conditions_that_are_met(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    blob = put(where, b"a", if_generation_match=0)
    plain = where.blob(blob.name)
    plain.reload(if_generation_match=blob.generation, if_metageneration_match=1)
    with refused(412, "conditionNotMet"):
        put(where, b"b", blob.name, if_generation_not_match=blob.generation)
    again = put(where, b"b", blob.name, if_generation_match=blob.generation)
    with refused(412, "conditionNotMet"):
        where.blob(blob.name).delete(if_generation_match=blob.generation)
    where.blob(blob.name).delete(if_generation_match=again.generation)
    with refused(412, "conditionNotMet"):
        put(where, b"b", blob.name, if_generation_match=again.generation)
    path = f"/storage/v1/b/{where.name}/o/{blob.name}"
    assert reason(ask(cloud, "GET", f"{path}?generation=x")) == (404, "notFound")
    put(where, b"c", blob.name)
    assert reason(ask(cloud, "GET", f"{path}?ifGenerationMatch=x")) == (400, "invalid")


# Compositions


def test_compose(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    first, second = put(where, b"hello "), put(where, b"world")
    whole = where.blob("whole")
    whole.metadata = {"a": "b"}
    whole.content_type = "application/gzip"
    whole.compose([first, second], if_generation_match=0)
    found = where.get_blob("whole")
    assert (found.component_count, found.size, found.crc32c, found.md5_hash) == (2, 11, "yZRlqg==", None)
    assert (found.metadata, found.content_type) == ({"a": "b"}, "application/gzip")
    assert found.download_as_bytes() == b"hello world"
    whole.compose([whole, first])
    assert (whole.component_count, whole.download_as_bytes()) == (3, b"hello worldhello ")
    plain = where.blob("plain")
    plain.compose([first])
    assert plain.content_type == first.content_type


def compose(cloud: gcp.StandIn, where: Any, *sources: Any, **more: Any) -> Any:
    body = {"sourceObjects": list(sources), "destination": {}} | more
    return ask(cloud, "POST", f"/storage/v1/b/{where.name}/o/whole/compose", json=body)


def test_what_can_not_be_composed(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    blob = put(where, b"a")
    one = {"name": blob.name}
    assert reason(compose(cloud, where)) == (400, "invalid")
    assert reason(compose(cloud, where, *[one] * 33)) == (400, "invalid")
    assert reason(compose(cloud, where, one, {"name": "none"})) == (404, "notFound")
    assert reason(compose(cloud, where, one | {"generation": "1"})) == (404, "notFound")
    assert reason(compose(cloud, where, {})) == (400, "required")
    wrong = one | {"objectPreconditions": {"ifGenerationMatch": "1"}}
    assert reason(compose(cloud, where, one, wrong)) == (412, "conditionNotMet")
    assert reason(compose(cloud, where, one, moon=1)) == (501, "notImplemented")
    cold = where.blob("cold")
    cold.storage_class = "COLDLINE"
    cold.upload_from_string(b"c")
    assert reason(compose(cloud, where, one, {"name": "cold"})) == (400, "invalid")
    assert {item["name"] for item in cloud.objects(where.name)} == {blob.name, "cold"}
    right = one | {
        "generation": str(blob.generation),
        "objectPreconditions": {"ifGenerationMatch": blob.generation},
    }
    assert compose(cloud, where, *[right] * 32).status_code == 200
    assert where.blob("whole").download_as_bytes() == b"a" * 32


# Lists


def test_lists(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    names = [f"a/{index:02}" for index in range(7)] + ["b", "c/d"]
    for name in reversed(names):
        put(where, b"x", name)
    assert [one.name for one in where.list_blobs()] == names
    assert [one.name for one in where.list_blobs(prefix="a/")] == names[:7]
    assert [one.name for one in where.list_blobs(page_size=2)] == names
    cloud.settings(page_size=3)
    assert [one.name for one in where.list_blobs(max_results=5)] == names[:5]
    assert [len(list(page)) for page in where.list_blobs(page_size=4).pages] == [3, 3, 3]
    cloud.settings(page_size=0)
    folders = where.list_blobs(delimiter="/")
    assert [one.name for one in folders] == ["b"]
    assert folders.prefixes == {"a/", "c/"}
    only = next(iter(where.list_blobs(fields="items(name,size),nextPageToken")))
    assert (only.name, only.size, only.generation) == (names[0], 1, None)
    path = f"/storage/v1/b/{where.name}/o"
    assert reason(ask(cloud, "GET", f"{path}?pageToken=!")) == (400, "invalid")
    assert reason(ask(cloud, "GET", f"{path}?maxResults=-1")) == (400, "invalid")
    assert reason(ask(cloud, "GET", f"{path}?versions=true")) == (501, "notImplemented")
    with refused(404, "notFound"):
        list(storage(cloud).list_blobs("there-is-none"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind", {"kind": "storage#objects"}),
        ("items/name", {"items": [{"name": "a"}]}),
        ("items/metadata/x,kind", {"kind": "storage#objects", "items": [{"metadata": {"x": "1"}}]}),
        ("items(name,metadata(x))", {"items": [{"name": "a", "metadata": {"x": "1"}}]}),
        ("items/metadata(x)", {"items": [{"metadata": {"x": "1"}}]}),
        ("items(metadata/*,size)", {"items": [{"metadata": {"x": "1", "y": "2"}, "size": "1"}]}),
        ("moon", {}),
        ("items(", None),
        ("items(name", None),
        ("a,,b", None),
        ("a b", None),
        ("a)", None),
        ("a/", None),
    ],
)
def test_partial_answers(cloud: gcp.StandIn, text: str, expected: Any) -> None:
    where = bucket(cloud)
    blob = where.blob("a")
    blob.metadata = {"x": "1", "y": "2"}
    blob.upload_from_string(b"a")
    response = ask(cloud, "GET", f"/storage/v1/b/{where.name}/o", params={"fields": text})
    if expected is None:
        assert reason(response) == (400, "invalidParameter")
    else:
        assert response.json() == expected
