# SPDX-License-Identifier: Apache-2.0
import pytest
from openstack import exceptions

from cimingclient.sdk import _proxy
from tests.unit.cimingclient import stub as _stub


def test_the_service_is_found_in_the_catalog(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    assert [cloud.name for cloud in client.clouds()] == ["zone-a", "zone-b"]
    assert stub.calls == ["GET /", "GET /v1/clouds"]


def test_a_cloud_is_found_by_name_or_id(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.clouds.append(_stub.cloud("aws", id="11", provider="aws", zone=False))
    by_name, by_id = client.find_cloud("aws"), client.find_cloud("11")
    assert by_name is not None and by_id is not None
    assert (by_name.id, by_id.provider, by_id.zone) == ("11", "aws", False)
    assert client.find_cloud("gone") is None
    with pytest.raises(exceptions.NotFoundException, match="No Cloud found for gone"):
        client.find_cloud("gone", ignore_missing=False)


def test_an_id_goes_before_a_name(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.clouds += [_stub.cloud("zone-a", id="22")]
    found = client.find_cloud("zone-a")
    assert found is not None and found.id == "zone-a"


def test_lists_follow_the_links_to_the_last_page(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.images = [_stub.image(f"image {number}") for number in range(5)]
    assert [image.name for image in client.images()] == [f"image {number}" for number in range(5)]
    assert stub.calls.count("GET /v1/images") == 3


def test_filters_stay_on_every_page(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.images = [_stub.image("same") for _ in range(3)] + [_stub.image("other")]
    assert [image.name for image in client.images(name="same")] == ["same"] * 3


def test_filters_go_out_as_they_are_on_every_page(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.images = [_stub.image("same") for _ in range(3)]
    assert len(list(client.images(status="in:active,error", sort="name:desc"))) == 3
    wanted = {"status": "in:active,error", "sort": "name:desc"}
    assert stub.queries == [wanted, wanted]


def test_a_name_is_never_taken_for_an_operator(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.images = [_stub.image("in:a,b"), _stub.image("a")]
    found = client.find_image("in:a,b")
    assert found is not None and found.name == "in:a,b"


def test_an_ambiguous_name_is_an_error(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.images = [_stub.image("same"), _stub.image("other"), _stub.image("same")]
    with pytest.raises(exceptions.DuplicateResource) as caught:
        client.find_image("same")
    assert stub.images[0]["id"] in str(caught.value)
    assert stub.images[2]["id"] in str(caught.value)


def test_an_image_is_found_by_name_or_id(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.images = [_stub.image("a/b c?"), _stub.image("other")]
    by_name = client.find_image("a/b c?")
    by_id = client.find_image(stub.images[1]["id"])
    assert by_name is not None and by_id is not None
    assert (by_name.id, by_id.name) == (stub.images[0]["id"], "other")


def test_a_name_may_look_like_an_id(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    name = "6e4d1a30-5c8f-4c0c-9a55-6b6a3a6f9c11"
    stub.images = [_stub.image(name)]
    found = client.find_image(name)
    assert found is not None and found.id == stub.images[0]["id"]


def test_an_odd_id_stays_inside_its_path(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    with pytest.raises(exceptions.NotFoundException, match=r"No such thing: a/\.\./b\?c"):
        client.get_job("a/../b?c")


def test_create_answers_with_the_image_and_its_job(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    image, job = client.create_image(name="demo", clouds="all", properties={"a": "b"})
    assert (image.name, image.status, job.status) == ("demo", "uploading", "uploading")
    assert job.image_id == image.id
    assert stub.created == [{"name": "demo", "clouds": "all", "properties": {"a": "b"}}]


def test_a_refusal_carries_the_services_words(stub: _stub.Stub, client: _proxy.Proxy) -> None:
    stub.refuse("POST /v1/images", _stub.Refusal(400, "Unknown cloud 'x'", field="clouds"))
    with pytest.raises(exceptions.BadRequestException, match="Unknown cloud 'x'"):
        client.create_image(name="demo", clouds=["x"])
