# SPDX-License-Identifier: Apache-2.0
"""What may be said of another OpenStack, and what a credential for it may say."""

import pathlib
from typing import Any

import marshmallow as ma
import pytest
from oslo_config import cfg

from ciming import configs
from ciming.configs import openstack
from tests.unit import certificates

URL = "https://keystone.example.com/v3"
CONFIG = {"auth_url": URL, "region": "RegionOne"}
BY_ID = {"application_credential_id": "some-id", "application_credential_secret": "swordfish"}
BY_NAME = {
    "application_credential_name": "ciming",
    "application_credential_secret": "swordfish",
    "username": "alice",
    "user_domain_id": "default",
}
PASSWORD = {
    "username": "alice",
    "user_domain_name": "Default",
    "password": "swordfish",
    "project_name": "studio",
    "project_domain_name": "Default",
}
GOOD = [("v3applicationcredential", BY_ID), ("v3applicationcredential", BY_NAME), ("v3password", PASSWORD)]


@pytest.fixture(autouse=True)
def _options(conf: cfg.ConfigOpts) -> None:
    """With their defaults."""


def test_schemas_are_found_by_the_providers_name() -> None:
    assert "openstack" in configs.names()
    assert isinstance(configs.load("openstack"), openstack.OpenStack)
    assert configs.load("floppy") is None


def test_a_config(tmp_path: pathlib.Path) -> None:
    schema = openstack.OpenStack()
    assert schema.load(CONFIG) == CONFIG
    bundle = certificates.make(tmp_path / "one", "one.example") + certificates.make(tmp_path / "two", "two")
    whole = {**CONFIG, "interface": "internal", "formats": ["raw", "qcow2"], "cacert": bundle}
    assert schema.load(whole) == whole


@pytest.mark.parametrize(
    "wrong",
    [
        {"auth_url": None},
        {"auth_url": 1},
        {"auth_url": "https://" + "x" * 1024},
        {"region": ""},
        {"formats": "raw"},
        {"formats": ["raw", "raw"]},
        {"cacert": ""},
        {"cacert": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"cacert": "é"},
        {"verify": False},
        {"auth": {}},
    ],
)
def test_what_a_config_may_not_say(wrong: dict[str, Any]) -> None:
    with pytest.raises(ma.ValidationError) as caught:
        openstack.OpenStack().load({**CONFIG, **wrong})
    assert {str(field) for field in caught.value.messages} == set(wrong)


def test_where_a_cloud_is() -> None:
    """All that does not say so is known."""
    schema = openstack.OpenStack()
    assert not configs.moved(schema, CONFIG, {**CONFIG, "formats": ["raw"]})
    for field in set(schema.fields) - {"formats"}:
        assert configs.moved(schema, CONFIG, {**CONFIG, field: "another"})
        assert configs.moved(schema, {**CONFIG, field: "another"}, CONFIG)


def loaded(said: Any) -> dict[str, Any]:
    found: dict[str, Any] = openstack.Credential().load(said)
    return found


@pytest.mark.parametrize(("kind", "auth"), GOOD)
def test_a_credential(kind: str, auth: dict[str, str]) -> None:
    wanted = {"auth_type": kind, **auth}
    assert loaded(wanted) == wanted
    with_url = {**auth, "auth_url": URL}
    entry = {"auth_type": kind, "auth": with_url, "region_name": "RegionOne", "identity_api_version": 3}
    assert loaded(entry) == {**wanted, "auth_url": URL}


def test_without_a_kind_it_is_a_password_as_in_clouds_yaml() -> None:
    assert loaded({"auth": PASSWORD}) == loaded({"auth_type": "password", **PASSWORD})
    assert loaded(PASSWORD)["auth_type"] == "v3password"


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"auth_type": "v3password"},
        {"auth_type": "v3applicationcredential", **PASSWORD},
        {"auth_type": "v3applicationcredential", "application_credential_secret": "swordfish"},
        {"auth_type": "v3password", **BY_ID},
        {"auth_type": "v3password", **PASSWORD, **BY_ID},
        {"auth_type": "v3token", "token": "swordfish", "project_id": "x"},
        {"auth_type": "v3oidcaccesstokenfile", "access_token_file": "/etc/swordfish"},
        {"auth_type": "swordfish.plugin:Plugin", **PASSWORD},
        {"auth_type": ["v3password"], **PASSWORD},
        {"auth_type": None, **PASSWORD},
        {**PASSWORD, "cert": "/etc/swordfish.pem"},
        {**PASSWORD, "verify": False},
        {"auth": {**PASSWORD, "swordfish": "x"}},
        {"auth": "swordfish"},
        {"auth": [PASSWORD]},
        {"auth": PASSWORD, "password": "swordfish"},
        {**PASSWORD, "password": 12345},
        {**PASSWORD, "password": "half of a \ud83d character"},
        {**PASSWORD, "password": "sword\0fish"},
        {**PASSWORD, "password": None},
        {**PASSWORD, "password": {"file": "/etc/swordfish"}},
        {"clouds": {"other": {"auth": PASSWORD}}},
    ],
)
def test_what_is_no_credential(said: dict[str, Any]) -> None:
    with pytest.raises(ma.ValidationError):
        loaded(said)
