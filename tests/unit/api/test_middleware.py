# SPDX-License-Identifier: Apache-2.0
"""What stands before the application."""

from typing import Any
from wsgiref import util

import oslo_middleware
import pytest
from keystonemiddleware import auth_token
from oslo_config import cfg

from ciming.api import middleware


@pytest.mark.parametrize(
    "token", ["", "x\r\n swordfish", " swordfish", "sword fish", "swordfish\0", "swördfish"]
)
def test_what_can_be_no_token_is_not_sent_to_keystone(token: str) -> None:
    """The error that it is no header's value would quote it."""
    unasked = middleware.AuthToken.__new__(middleware.AuthToken)
    with pytest.raises(auth_token.InvalidToken) as caught:
        unasked.fetch_token(token)
    assert "sword" not in str(caught.value)


def seen(conf: cfg.ConfigOpts, headers: dict[str, str]) -> str:
    """Where the application thinks that it is asked."""
    found: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        found.append(util.application_uri(environ))
        return []

    behind = oslo_middleware.HTTPProxyToWSGI(app, conf)
    environ = {"HTTP_HOST": "127.0.0.1:8790", "SCRIPT_NAME": "", "PATH_INFO": "/", "REQUEST_METHOD": "GET"}
    util.setup_testing_defaults(environ)
    for name, value in headers.items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    middleware._first_proxy(behind, conf)(environ, lambda *_: None)
    return found[0]


HEADERS = [
    ({"Forwarded": 'for=192.0.2.1;proto=https;host="a.example:8443"'}, "https://a.example:8443/"),
    ({"Forwarded": 'host="a.example:8443"; proto="https", host=b;proto=http'}, "https://a.example:8443/"),
    ({"Forwarded": 'for="[2001:db8::1]:4711";host=a.example;proto=https'}, "https://a.example/"),
    ({"X-Forwarded-Host": "a.example, b", "X-Forwarded-Proto": "https,http"}, "https://a.example/"),
    ({"X-Forwarded-Host": "a.example:8443 ,b", "X-Forwarded-Proto": "https"}, "https://a.example:8443/"),
    ({"X-Forwarded-Host": "", "X-Forwarded-Proto": " "}, "http://127.0.0.1:8790/"),
]


@pytest.mark.parametrize(("headers", "where"), HEADERS)
def test_the_first_proxy_says_where_we_are(conf: cfg.ConfigOpts, headers: dict[str, str], where: str) -> None:
    assert seen(conf, headers) == "http://127.0.0.1:8790/"
    conf.set_override("enable_proxy_headers_parsing", True, group="oslo_middleware")
    try:
        assert seen(conf, headers) == where
    finally:
        conf.clear_override("enable_proxy_headers_parsing", group="oslo_middleware")


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7", ""),
        ("192.0.2.7:_port", ""),
        ("_hidden", ""),
        ("", ""),
    ],
)
def test_whose_address_is_the_first(said: str, address: str) -> None:
    assert middleware._first_address({"REMOTE_ADDR": said}) == address
