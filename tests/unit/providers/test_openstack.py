# SPDX-License-Identifier: Apache-2.0
"""How another OpenStack is logged in to; all else is tested on real ones in tests/contract."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from keystoneauth1 import access
from keystoneauth1 import session as ks_session
from keystoneauth1.identity import v3
from oslo_config import cfg

from ciming import connections, exceptions
from ciming.providers.openstack import provider as door
from ciming.providers.openstack import records
from ciming.providers.openstack.account import Account
from tests.unit import certificates, sites
from tests.unit.configs.test_openstack import BY_ID, BY_NAME, PASSWORD

URL = "https://keystone.example.com/identity"
PLACE = {"auth_url": URL, "region": "RegionOne", "cloud": "other", "timeout": 20.0}


def login(credential: dict[str, str], **place: Any) -> ks_session.Session:
    return Account({**PLACE, **place}, credential).session


@pytest.mark.parametrize(
    ("kind", "auth", "plugin"),
    [
        ("v3applicationcredential", BY_ID, v3.ApplicationCredential),
        ("v3applicationcredential", BY_NAME, v3.ApplicationCredential),
        ("v3password", PASSWORD, v3.Password),
    ],
)
@pytest.mark.parametrize("auth_url", [URL, f"{URL}/", f"{URL}/v3", f"{URL}/v3/"])
def test_a_login(kind: str, auth: dict[str, str], plugin: type[v3.Auth], auth_url: str) -> None:
    for named in ({}, {"auth_url": f"{URL}/v3"}, {"auth_url": URL}):
        made = login({"auth_type": kind, **auth, **named}, auth_url=auth_url)
        assert isinstance(made.auth, plugin) and made.auth.auth_url == f"{URL}/v3"
        assert made.timeout == 20.0
        assert all(isinstance(each, connections.Adapter) for each in made.session.adapters.values())
        assert not made.session.trust_env


def test_a_credential_for_another_keystone() -> None:
    said = {"auth_type": "v3password", **PASSWORD, "auth_url": "https://elsewhere.example.com/v3"}
    with pytest.raises(exceptions.ProviderError, match="Cloud other is for another Keystone") as caught:
        login(said)
    assert caught.value.code == "credential.invalid" and "swordfish" not in caught.value.detail


def test_a_keystone_where_nobody_may_go(conf: cfg.ConfigOpts) -> None:
    provider = door.OpenStack(
        {**PLACE, "auth_url": "https://127.0.0.1:1"}, {"auth_type": "v3password", **PASSWORD}
    )
    with pytest.raises(exceptions.ProviderError, match=r"other: .*own host") as caught:
        provider.show("1234")
    assert caught.value.code == "egress.refused" and "swordfish" not in caught.value.detail


def test_a_keystone_that_nobody_vouches_for(conf: cfg.ConfigOpts, tmp_path: pathlib.Path) -> None:
    """That does not pass: it is not tried again."""
    conf.set_override("allow_loopback", True, group="egress")
    certificates.make(tmp_path / "one")
    with sites.serving(tmp_path / "one") as site:
        place = {**PLACE, "auth_url": site.url(), "cacert": certificates.make(tmp_path / "another")}
        provider = door.OpenStack(place, {"auth_type": "v3password", **PASSWORD})
        with pytest.raises(exceptions.ProviderError, match=r"other: .*certificate") as caught:
            provider.show("1234")
    conf.clear_override("allow_loopback", group="egress")
    assert not isinstance(caught.value, exceptions.TransientProviderError)
    assert caught.value.code == "cloud.tls_failed" and "swordfish" not in caught.value.detail
    assert site.asked == []


@pytest.fixture
def repeating(conf: cfg.ConfigOpts) -> Iterator[sites.Site]:
    """A cloud that says again in its errors what it was told, as some proxies do; no real one is so."""
    for name in ("allow_loopback", "allow_http"):
        conf.set_override(name, True, group="egress")
    with sites.serving() as site:
        yield site
    for name in ("allow_loopback", "allow_http"):
        conf.clear_override(name, group="egress")


@pytest.mark.parametrize("password", ["swordfish", 'sword"fish\\ü'])
def test_a_keystone_that_repeats_a_password(repeating: sites.Site, password: str) -> None:
    said = {"auth_type": "v3password", **PASSWORD, "password": password}
    provider = door.OpenStack({**PLACE, "auth_url": repeating.url()}, said)
    with pytest.raises(exceptions.ProviderError, match="other: ") as caught:
        provider.show("1234")
    told = f"{caught.value.detail} {caught.value.cloud_request_id}"
    assert "***" in caught.value.detail and "fish" not in told, told


def test_a_glance_that_repeats_a_token(repeating: sites.Site) -> None:
    account = Account(PLACE, {"auth_type": "v3password", **PASSWORD})
    assert isinstance(account.session.auth, v3.Auth)
    account.session.auth.auth_ref = access.AccessInfoV3({"token": {}}, "gAAAAA-a-token")
    answer = requests.post(repeating.url(), headers={"X-Auth-Token": "gAAAAA-a-token"}, json={}, timeout=10)
    assert "a-token" in answer.text
    error = account._error(answer)
    assert "Can not do {} with ***" in error.detail and error.cloud_request_id == "req of ***"


@pytest.mark.parametrize(
    "status", ["queued", "saving", "uploading", "importing", "killed", "deactivated", "deleted"]
)
def test_only_what_is_active_has_data(status: str) -> None:
    fine = {"id": "x", "status": "active", "container_format": "bare", "disk_format": "raw", "size": 7}
    assert records.described(records.record(fine), "zone-a").unreadable is None
    told = records.described(records.record(fine | {"status": status}), "zone-a").unreadable
    assert told is not None and f"x in zone-a is {status}" in told
