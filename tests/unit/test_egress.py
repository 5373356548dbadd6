# SPDX-License-Identifier: Apache-2.0
"""Where CIMinG may be sent, however the address is written."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from ciming import egress


@pytest.fixture(autouse=True)
def options(conf: cfg.ConfigOpts) -> Iterator[cfg.ConfigOpts]:
    yield conf
    for option in ("allow_http", "allow_loopback", "allow_private", "forbidden"):
        conf.clear_override(option, group="egress")


ALWAYS = [
    "https://169.254.169.254/latest",
    "https://169.254.0.1",
    "https://[fe80::1]",
    "https://[fe80::1%25eth0]",
    "https://[::ffff:169.254.169.254]",
    "https://[fd00:ec2::254]",
    "https://100.100.100.200",
    "https://168.63.129.16",
    "https://192.0.0.192",
    "https://[64:ff9b::a9fe:a9fe]",
    "https://[fd00:ec2::23]",
    "https://[2002:a9fe:a9fe::1]",
    "https://0.0.0.0",
    "https://[::]",
    "https://224.0.0.1",
    "https://[ff02::1]",
    "https://255.255.255.255",
]
LOOPBACK = [
    *("https://127.0.0.1:5000/v3", "https://127.9.9.9", "https://[::1]", "https://[::ffff:127.0.0.1]"),
    "https://[64:ff9b::7f00:1]",
]
PRIVATE = ["https://10.0.0.1", "https://192.168.1.1", "https://172.16.0.1", "https://[fd12::1]", "https://[fec0::1]"]
PUBLIC = [
    *("https://93.184.216.34", "https://[2606:2800:220:1::1]:5000/v3", "https://keystone.example.com/v3"),
    "https://[64:ff9b::808:808]",       # an IPv4 host, for one that speaks only IPv6
]


def allowed(url: str) -> bool:
    try:
        egress.check_url(url)
    except egress.Refused as error:
        assert error.code == "egress.refused" and error.status == 400
        return False
    return True


@pytest.mark.parametrize("url", ALWAYS)
def test_never(options: cfg.ConfigOpts, url: str) -> None:
    options.set_override("allow_loopback", True, group="egress")
    assert not allowed(url)


def test_what_the_operator_forbids_as_it_is_written(options: cfg.ConfigOpts) -> None:
    """Also of addresses that mean others."""
    url = "https://[64:ff9b::808:808]"
    assert allowed(url)
    for network in ("64:ff9b::/96", "::/0", "8.0.0.0/8"):
        options.set_override("forbidden", [network], group="egress")
        assert not allowed(url)


@pytest.mark.parametrize("url", LOOPBACK)
def test_the_services_own_host(options: cfg.ConfigOpts, url: str) -> None:
    assert not allowed(url)
    options.set_override("allow_loopback", True, group="egress")
    options.set_override("allow_private", False, group="egress")    # is another matter
    assert allowed(url)


@pytest.mark.parametrize("url", PRIVATE)
def test_private_networks(options: cfg.ConfigOpts, url: str) -> None:
    assert allowed(url)
    options.set_override("allow_private", False, group="egress")
    assert not allowed(url)


@pytest.mark.parametrize("url", PUBLIC)
def test_public_addresses(options: cfg.ConfigOpts, url: str) -> None:
    options.set_override("allow_private", False, group="egress")
    assert allowed(url)


def test_networks_that_the_operator_names(options: cfg.ConfigOpts) -> None:
    options.set_override("forbidden", ["10.1.0.0/16", "2606:2800::/32"], group="egress")
    assert [allowed(url) for url in ("https://10.1.2.3", "https://10.2.2.3")] == [False, True]
    assert [allowed(f"https://[{host}]") for host in ("2606:2800::1", "::ffff:10.1.2.3")] == [False, False]


def test_a_network_that_is_none(options: cfg.ConfigOpts) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        options.set_override("forbidden", ["10.0.0.1/8"], group="egress")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "keystone.example.com",
        "//keystone.example.com",
        "ftp://keystone.example.com",
        "file:///etc/passwd",
        "gopher://keystone.example.com",
        "https://",
        "https:///v3",
        "https://user@keystone.example.com",
        "https://user:swordfish@keystone.example.com",
        "https://:@keystone.example.com",
        "https://keystone.example.com:99999",
        "https://keystone.example.com:x",
        "https://[::1",
        "https://keystone.example.com\\@127.0.0.1",
        "https://keystone.example.com /",
        "https://keystone.example.com/\r\nX: y",
        "https://keystone.example.com/\0",
    ],
)
def test_what_is_no_url_of_a_cloud(url: str) -> None:
    with pytest.raises(egress.Refused) as caught:
        egress.check_url(url)
    assert "swordfish" not in str(caught.value)


def test_without_tls_only_where_that_is_allowed(options: cfg.ConfigOpts) -> None:
    with pytest.raises(egress.Refused, match="is not encrypted") as caught:
        egress.check_url("http://me:swordfish@keystone.example.com:5000/v3")
    assert "swordfish" not in str(caught.value)
    options.set_override("allow_http", True, group="egress")
    assert allowed("http://keystone.example.com:5000/v3")
    assert not allowed("http://169.254.169.254/")


# What a name means is looked at when it is connected to


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost"])
def test_odd_ways_to_write_ones_own_host(options: cfg.ConfigOpts, host: str) -> None:
    with pytest.raises(egress.Refused, match="own host"):
        egress.addresses(host, 443)
    options.set_override("allow_loopback", True, group="egress")
    assert set(egress.addresses(host, 443)) <= {"127.0.0.1", "::1"}


def test_a_name_without_address() -> None:
    with pytest.raises(socket.gaierror):
        egress.addresses("no-such-host.invalid", 443)


def test_of_several_addresses_those_that_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are resolved once, and what is refused is not connected to."""
    named = ["169.254.169.254", "93.184.216.34", "127.0.0.1", "93.184.216.34", "2606:2800:220:1::1"]

    def getaddrinfo(*_args: Any, **_kwargs: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, 443)) for address in named]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert egress.addresses("mixed.example.com", 443) == ["93.184.216.34", "2606:2800:220:1::1"]


@pytest.mark.parametrize("text", ["2001:0:4136:e378:8000:63bf:5601:5601", "64:ff9b::7f00:1"])
def test_addresses_within_addresses(text: str) -> None:
    """Teredo and NAT64 of 169.254.169.254 and 127.0.0.1."""
    with pytest.raises(egress.Refused):
        egress.check_address(ipaddress.ip_address(text))
