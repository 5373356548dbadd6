# SPDX-License-Identifier: Apache-2.0
"""Clouds are registered, changed and deleted, and their credentials go into Barbican."""

import json
import pathlib
from typing import Any

import pytest
import requests
import yaml
from keystoneauth1 import exceptions as ksa_exceptions
from marshmallow import fields
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions

from ciming import configs
from cimingclient.osc import cloud, credential, text
from cimingclient.sdk import _proxy
from tests.unit.cimingclient import conftest
from tests.unit.cimingclient import stub as _stub

URL = "https://keystone.example.com/v3"
AUTH = {"application_credential_id": "some-id", "application_credential_secret": "swordfish"}
ENTRY = {"auth_type": "v3applicationcredential", "auth": AUTH}


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    """A clouds.yaml as one downloads it."""
    path = tmp_path / "clouds.yaml"
    entry = {**ENTRY, "region_name": "RegionOne", "interface": "public", "identity_api_version": 3}
    path.write_text(yaml.safe_dump({"clouds": {"openstack": entry}}))
    return path


def test_create(stub: _stub.Stub, run: conftest.Runner, tmp_path: pathlib.Path) -> None:
    (tmp_path / "ca.pem").write_text("a certificate")
    config = ("--config", f"auth_url={URL}", "--config", "formats=raw,qcow2")
    more = ("--config", f"cacert=@{tmp_path}/ca.pem", "--credential-ref", "https://keys/1", "--public")
    made = run(cloud.CreateCloud, "other", *config, *more, "-f", "json").json
    assert stub.said == [
        {
            "name": "other",
            "provider": "openstack",
            "config": {"auth_url": URL, "formats": ["raw", "qcow2"], "cacert": "a certificate"},
            "credential_ref": "https://keys/1",
            "visibility": "public",
        }
    ]
    assert (made["name"], made["zone"], made["config"]) == ("other", False, stub.said[0]["config"])
    assert run(cloud.ShowCloud, "other", "-f", "value", "-c", "credential_ref").stdout == "https://keys/1\n"
    run(cloud.CreateCloud, "another", "--provider", "floppy")
    assert stub.said[1] == {"name": "another", "provider": "floppy", "config": {}}


@pytest.mark.parametrize("provider", configs.names())
def test_all_lists_that_a_config_may_have_are_known(provider: str) -> None:
    """The command knows nothing else of what kinds of clouds there are."""
    schema = configs.load(provider)
    assert schema is not None
    lists = {name for name, field in schema.fields.items() if isinstance(field, fields.List)}
    assert lists <= {*cloud.LISTS}


def test_a_credential_is_stored_as_oneself(
    stub: _stub.Stub, run: conftest.Runner, file: pathlib.Path
) -> None:
    """Barbican gets it, and the service its href."""
    shown = run(cloud.CreateCloud, "other", "--credential", str(file), "--store")
    [(ref, secret)] = stub.secrets.items()
    assert json.loads(secret["payload"]) == ENTRY
    assert (secret["payload_content_type"], secret["name"]) == ("text/plain", "credential for other")
    assert stub.said[0]["credential_ref"] == ref
    assert "swordfish" not in shown.stdout + shown.stderr + json.dumps(stub.said)
    run(cloud.SetCloud, "other", "--credential", str(file), "--store")
    assert set(stub.secrets) == {ref, stub.said[1]["credential_ref"]}


def test_a_credential_of_no_use_is_not_left_behind(
    stub: _stub.Stub, run: conftest.Runner, file: pathlib.Path
) -> None:
    stub.refuse("POST /v1/clouds", _stub.Refusal(409, "There is a Cloud other already", field="name"))
    with pytest.raises(exceptions.CommandError, match="a Cloud other already"):
        run(cloud.CreateCloud, "other", "--credential", str(file), "--store")
    assert stub.secrets == {} and stub.calls[-1].startswith("DELETE /keys/v1/secrets/")


@pytest.mark.parametrize("lost", [_stub.LOSE_ANSWER, _stub.Refusal(504, "The gateway waited too long")])
def test_a_credential_that_a_cloud_may_have_by_now_stays(
    stub: _stub.Stub, run: conftest.Runner, file: pathlib.Path, lost: _stub.Refusal
) -> None:
    stub.refuse("POST /v1/clouds", lost)
    with pytest.raises(Exception, match=r"."):
        run(cloud.CreateCloud, "other", "--credential", str(file), "--store")
    [ref] = stub.secrets
    assert f"The credential stays in Barbican as {ref}" in run.stderr.getvalue()


def test_a_credential_that_cannot_be_taken_back_is_told(
    stub: _stub.Stub, run: conftest.Runner, file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise ksa_exceptions.ConnectFailure("It broke")

    monkeypatch.setattr(_proxy.Proxy, "forget_credential", lost)
    stub.refuse("POST /v1/clouds", _stub.Refusal(409, "There is a Cloud other already", field="name"))
    with pytest.raises(exceptions.CommandError, match="a Cloud other already"):
        run(cloud.CreateCloud, "other", "--credential", str(file), "--store")
    assert f"stays in Barbican as {next(iter(stub.secrets))}" in run.stderr.getvalue()


def test_barbican_says_why_it_takes_no_credential(
    stub: _stub.Stub, run: conftest.Runner, file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = {"code": 403, "title": "Forbidden", "description": "Secret creation\nattempt not allowed"}
    monkeypatch.setattr(_stub, "_error", lambda _refusal: why)
    stub.refuse("POST /keys/v1/secrets", _stub.Refusal(403, ""))
    with pytest.raises(exceptions.CommandError) as caught:
        run(cloud.CreateCloud, "other", "--credential", str(file), "--store")
    assert str(caught.value) == (
        "Barbican does not take the credential: Secret creation attempt not allowed (HTTP 403) "
        "(Request-ID: req-stub)"
    )
    assert stub.said == []


@pytest.mark.parametrize("options", [("--credential", "file"), ("--store",), ("--config", "nonsense")])
def test_what_does_not_go_together(
    stub: _stub.Stub, run: conftest.Runner, options: tuple[str, ...]
) -> None:
    with pytest.raises(exceptions.CommandError, match=r"go together|not <key>=<value>"):
        run(cloud.CreateCloud, "other", *options)
    assert stub.said == [] and stub.secrets == {}


def test_set(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.clouds.append(_stub.cloud("other", id="1234", zone=False))
    config = ("--config", "region=RegionTwo", "--no-config", "formats")
    changed = run(cloud.SetCloud, "other", "--name", "renamed", *config, "-f", "json")
    assert stub.said == [{"name": "renamed", "config": {"region": "RegionTwo", "formats": None}}]
    assert stub.calls[-1] == "PATCH /v1/clouds/1234"
    assert changed.json["name"] == "renamed"
    assert changed.stderr == "The credential was cleared.\n"
    run(cloud.SetCloud, "1234", "--no-credential")
    run(cloud.SetCloud, "1234", "--credential-ref", "https://keys/2")
    assert stub.said[1:] == [{"credential_ref": None}, {"credential_ref": "https://keys/2"}]


def test_set_needs_something_to_change(stub: _stub.Stub, run: conftest.Runner) -> None:
    with pytest.raises(exceptions.CommandError, match="nothing to change"):
        run(cloud.SetCloud, "zone-a")
    assert stub.said == []


def test_check(stub: _stub.Stub, run: conftest.Runner) -> None:
    fine = run(cloud.CheckCloud, "zone-a", "-f", "json")
    assert (fine.status, fine.json) == (0, [{"Check": "login", "Passed": True, "Message": "Logged in."}])
    broken = run(cloud.CheckCloud, "zone-b", "-f", "json")
    assert (broken.status, broken.json[1]["Message"]) == (1, "other: 403 Forbidden")
    assert stub.calls[-1] == "POST /v1/clouds/zone-b/check"


def test_delete_goes_on_and_tells(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.clouds += [_stub.cloud(name, id=f"id-{name}") for name in ("one", "two", "three")]
    stub.refuse("DELETE /v1/clouds/id-one", _stub.HANG_UP)
    stub.refuse("DELETE /v1/clouds/id-two", _stub.Refusal(409, "Cloud two has Images: 1234"))
    with pytest.raises(exceptions.CommandError, match="3 of 5 clouds failed"):
        run(cloud.DeleteCloud, "one", "two", "absent", "id-three", "one")
    assert [each["name"] for each in stub.clouds] == ["zone-a", "zone-b", "two"]
    said = run.stderr.getvalue()
    assert "Failed to delete two: Cloud two has Images: 1234 (HTTP 409)" in said
    assert "No Cloud found for absent" in said and said.startswith("Failed to delete one: ")
    assert run(cloud.DeleteCloud, "two").status == 0


def test_from_python(stub: _stub.Stub, client: Any) -> None:
    ref = client.store_credential("mine", ENTRY)
    made = client.create_cloud(name="other", provider="openstack", config={}, credential_ref=ref)
    assert client.update_cloud(made, name="renamed").note == "The credential was cleared."
    client.delete_cloud(made)
    client.delete_cloud(made)
    with pytest.raises(sdk_exceptions.NotFoundException):
        client.delete_cloud(made, ignore_missing=False)
    client.forget_credential(ref)
    assert stub.secrets == {}


KEYS = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "sword%fish=/+"}
AWS_KEYS = "\n".join(f"{name} = {value}" for name, value in KEYS.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(ENTRY), ENTRY),
        (json.dumps({"clouds": {"x": {"auth": AUTH}}}), {"auth_type": "password", "auth": AUTH}),
        (json.dumps({"clouds": {"x": {"auth": {}}, "other": ENTRY}}), ENTRY),
        (json.dumps({"access_key": "k", "secret_key": "s"}), {"access_key": "k", "secret_key": "s"}),
        ("[some]\naws_access_key_id=x\n[other]\n" + AWS_KEYS, KEYS),
        ("[some]\naws_access_key_id=x\n[default]\nregion = eu-west-1\n" + AWS_KEYS, KEYS),
        ("[only]\n" + AWS_KEYS, KEYS),
        (json.dumps({"clouds": {"x": {}, "other": ENTRY, "default": {}}}, indent="\t"), ENTRY),
    ],
)
def test_files_with_a_credential(tmp_path: pathlib.Path, text: str, said: dict[str, Any]) -> None:
    path = tmp_path / "credential"
    path.write_text(text)
    assert credential.read(str(path), "other") == said


def test_only_the_file_of_aws_has_a_default(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "clouds.yaml"
    path.write_text(yaml.safe_dump({"clouds": {"default": ENTRY, "prod": ENTRY}}))
    told = "has several clouds, and none of them is other: default, prod"
    with pytest.raises(exceptions.CommandError, match=told):
        credential.read(str(path), "other")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"swordfish",
        b"\xffswordfish",
        b"swordfish: [",
        b"- swordfish",
        b"[" * 10_000,
        b"clouds: {x: {password: swordfish}, y: {}}",
        b"clouds: {x: swordfish}",
        b"clouds: {x: {password: swordfish}, other: }",
        b"x: " + b"y" * 20_000,
        b"[a]\naws_access_key_id = swordfish\n[b]\naws_access_key_id = swordfish\n",
    ],
)
def test_files_without_one(tmp_path: pathlib.Path, data: bytes) -> None:
    path = tmp_path / "credential"
    path.write_bytes(data)
    with pytest.raises(exceptions.CommandError) as caught:
        credential.read(str(path), "other")
    assert "swordfish" not in str(caught.value)
    with pytest.raises(exceptions.CommandError, match="Cannot read"):
        credential.read(str(tmp_path / "absent"), "other")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"errors": ["Some\ntext"]}, "Some text (HTTP 400)"),
        ({"errors": [{"detail": "No", "field": "name"}]}, "name: No (HTTP 400)"),
        ({"code": 400, "title": "Bad Request"}, "Bad Request (HTTP 400)"),
        (["No"], "Refused (HTTP 400)"),
        ({"errors": None}, "Refused (HTTP 400)"),
    ],
)
def test_other_services_errors_are_explained(said: Any, told: str) -> None:
    response = requests.Response()
    response.status_code, response._content = 400, json.dumps(said).encode()
    assert text.explain(sdk_exceptions.HttpException("Refused", response=response)) == told
