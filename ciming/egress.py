# SPDX-License-Identifier: Apache-2.0
"""The one address check for every URL that came from outside: where may CIMinG be sent?

Each request passes check_url(), redirects and endpoints of a foreign catalog too. Each connection is made to
an address that addresses() gave, so that a name can not mean another one between the check and its use.
"""

import functools
import ipaddress
import socket
import urllib.parse
from collections.abc import Sequence

from oslo_config import cfg

from ciming import exceptions

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Where clouds give credentials, or secrets of the machine, to whoever asks from inside (AWS, Google, Alibaba,
# Azure's WireServer, Oracle); the others are link-local.
METADATA = tuple(
    map(
        ipaddress.ip_address,
        (
            *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "168.63.129.16"),
            "192.0.0.192",
        ),
    )
)
SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")     # deprecated (RFC 3879), and routed all the same
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SCHEMES = ("http", "https")


class Refused(exceptions.ProviderError):
    """CIMinG does not go there."""

    status = 400
    code = "egress.refused"
    title = "Address refused"


def check_url(url: str) -> None:
    """Is this a URL that may be asked, as far as can be seen without looking its host up?

    :raises Refused: no
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise Refused("This is no URL.") from None
    if not url.isprintable() or " " in url or "\\" in url:
        raise Refused("A URL has no spaces, backslashes or control characters.")
    if parts.scheme not in SCHEMES or not host:
        raise Refused("A URL that begins with https:// and a host is needed.")
    if parts.scheme == "http" and not cfg.CONF.egress.allow_http:
        raise Refused(f"{_shown(parts)} is not encrypted, and the operator allows only https:// addresses.")
    if parts.username is not None or parts.password is not None:
        raise Refused("There may be no user or password in the URL.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return      # a name: its addresses are looked at when one is connected to
    check_address(address)


def check_address(address: Address) -> None:
    """:raises Refused: nothing is to be sent there"""
    written = _forbidden(address) if address in NAT64 else ""       # as well as what it means
    why = written or next(filter(None, map(_why_not, _meant(address))), "")
    if why:
        raise Refused(f"The address {address} is {why}.")


def addresses(host: str, port: int) -> Sequence[str]:
    """Addresses of a host that may be connected to, best first.

    :raises OSError: it has none
    :raises Refused: none of those it has is allowed
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    allowed: list[str] = []
    refused: Refused | None = None
    for address in dict.fromkeys(str(info[4][0]) for info in found):
        try:
            check_address(ipaddress.ip_address(address))
        except Refused as error:
            refused = error
        else:
            allowed.append(address)
    if refused and not allowed:
        raise Refused(f"{host} can not be used: {refused.detail}")
    return allowed


def _why_not(address: Address) -> str:
    """What is wrong with an address; nothing: ''."""
    options = cfg.CONF.egress
    if address.is_link_local or address in METADATA:
        return "link-local, or that of a metadata service"
    if address.is_unspecified or address.is_multicast or (address.is_reserved and not address.is_loopback):
        return "no address of a host"
    if address.is_loopback:
        return "" if options.allow_loopback else "the service's own host, which the operator does not allow"
    is_private = not address.is_global or address in SITE_LOCAL
    if is_private and not options.allow_private:
        return "in a private network, which the operator does not allow"
    return _forbidden(address)


def _forbidden(address: Address) -> str:
    for network in _networks(tuple(cfg.CONF.egress.forbidden)):
        if address.version == network.version and address in network:
            return f"in {network}, which the operator does not allow"
    return ""


def _meant(address: Address) -> list[Address]:
    """The address, and the IPv4 address that is wrapped in it."""
    if not isinstance(address, ipaddress.IPv6Address):
        return [address]
    if address.ipv4_mapped:     # the same, written otherwise
        return [address.ipv4_mapped]
    if address in NAT64:        # the same by way of a gateway
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    found: list[Address] = [address, *(address.teredo or ())]
    if address.sixtofour:
        found.append(address.sixtofour)
    return found


@functools.cache
def _networks(texts: tuple[str, ...]) -> Sequence[Network]:
    return [ipaddress.ip_network(text) for text in texts]


def _shown(parts: urllib.parse.SplitResult) -> str:
    """A URL without what may be secret in it."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2][:255]}"
