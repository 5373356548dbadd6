# SPDX-License-Identifier: Apache-2.0
"""What stands before the application: cors, http_proxy_to_wsgi, request id, healthcheck, authtoken."""

import functools
import ipaddress
import re
import urllib.parse
from typing import Any

import oslo_middleware
from keystoneauth1 import exceptions as ks_exceptions
from keystonemiddleware import auth_token
from oslo_config import cfg
from oslo_utils import netutils

from ciming import context

UNKNOWN = "Unknown"     # identity status, where Keystone could not be asked
A_TOKEN = re.compile(r"[!-~]+")
VERSION_HEADER = "OpenStack-API-Version"


class Cors(oslo_middleware.CORS):
    """oslo's, for pages that ask OPTIONS themselves as well: what an upload can do is said there."""

    def process_response(self, response: Any, request: Any = None) -> Any:
        """Add what the browser wants to see before it shows an answer to the page."""
        preflight = "Access-Control-Request-Method" in request.headers
        if request.method == "OPTIONS" and not preflight:
            self._apply_cors_request_headers(request=request, response=response)
            return response
        return super().process_response(response, request)


def _cors(inner: Any, conf: cfg.ConfigOpts) -> Any:
    """CORS for requests out of a page; it would turn any failed OPTIONS into a 200."""
    if not conf.cors.allowed_origin:
        return inner
    with_cors = Cors(inner, conf)

    def chosen(environ: Any, start_response: Any) -> Any:
        return (with_cors if "HTTP_ORIGIN" in environ else inner)(environ, start_response)

    return chosen


LISTED = ("HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")


def _first_proxy(inner: Any, conf: cfg.ConfigOpts) -> Any:
    """Headers of proxies as oslo's HTTPProxyToWSGI reads them: without lists and quotes.

    Each proxy adds to the end, so the first is what the client asked for. RFC 7239 has what holds a colon
    quoted, as hosts with a port do.
    """
    if not conf.oslo_middleware.enable_proxy_headers_parsing:
        return inner

    def asked(environ: Any, start_response: Any) -> Any:
        for name in LISTED:
            if name in environ:
                environ[name] = environ[name].partition(",")[0].strip()
        if "HTTP_FORWARDED" in environ:
            environ["HTTP_FORWARDED"] = environ["HTTP_FORWARDED"].replace('"', "")
        return inner(environ, start_response)

    return asked


def _logged(inner: Any, _conf: cfg.ConfigOpts) -> Any:
    """Log lines carry this request's id from here on, and not what the thread did before."""

    def asked(environ: Any, start_response: Any) -> Any:
        context.begin_request(environ)
        return inner(environ, start_response)

    return asked


def _health(inner: Any, conf: cfg.ConfigOpts) -> Any:
    """Who may not know how we are is told by the application that there is nothing."""
    health = oslo_middleware.Healthcheck(inner, conf)

    def asked(environ: Any, start_response: Any) -> Any:
        if environ.get("PATH_INFO") != "/healthcheck":
            return inner(environ, start_response)
        return health({**environ, "REMOTE_ADDR": _first_address(environ)}, start_response)

    return asked


def _first_address(environ: Any) -> str:
    """Who asks, where proxies name each other too, and ports; nothing, where they name no address."""
    said = environ.get("REMOTE_ADDR", "").partition(",")[0].strip()
    try:
        address, _port = netutils.parse_host_port(said)
        return str(ipaddress.ip_address(address or ""))
    except ValueError:
        return ""


class KeystoneAway(Exception):
    """Nobody can say whether a token is good."""


class AuthToken(auth_token.AuthProtocol):  # type: ignore[misc]  # keystonemiddleware is untyped
    """keystonemiddleware's; but a Keystone that does not answer is no fault of the token."""

    def fetch_token(self, token: str, allow_expired: bool = False) -> Any:
        """:raises KeystoneAway: Keystone does not answer, or does not take our own login"""
        if not A_TOKEN.fullmatch(token):        # no header can have it, so an error would quote it
            raise auth_token.InvalidToken("This is no token.")
        try:
            return super().fetch_token(token, allow_expired)
        except auth_token.InvalidToken as error:
            cause = error.__context__
            if isinstance(cause, AWAY) and getattr(cause.__context__, "http_status", 0) not in REFUSED:
                raise KeystoneAway from None
            raise


AWAY = (
    ks_exceptions.ConnectFailure,
    ks_exceptions.DiscoveryFailure,
    ks_exceptions.RequestTimeout,
    auth_token.ServiceError,
)
REFUSED = (400, 404, 413, 414, 431)     # Keystone, or its web server, on a token that is none: too long, say


def _authtoken(inner: Any, conf: cfg.ConfigOpts) -> Any:
    protected = AuthToken(inner, {"oslo_config_config": conf, "delay_auth_decision": True})

    def asked(environ: Any, start_response: Any) -> Any:
        try:
            return protected(environ, start_response)
        except KeystoneAway:
            environ["HTTP_X_IDENTITY_STATUS"] = UNKNOWN
            return inner(environ, start_response)

    return asked


def _method_of_tus(inner: Any, _conf: cfg.ConfigOpts) -> Any:
    """tus' X-HTTP-Method-Override: for clients that can send nothing but POST."""

    def overridden(environ: Any, start_response: Any) -> Any:
        said = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", "").upper()
        is_upload = environ["REQUEST_METHOD"] == "POST" and environ.get("PATH_INFO", "").endswith("/file")
        if is_upload and said in ("PATCH", "DELETE", "HEAD"):
            environ["REQUEST_METHOD"] = said
        if is_upload and said == "HEAD":
            return inner(environ, functools.partial(_start_empty, start_response))
        return inner(environ, start_response)

    return overridden


def _start_empty(start_response: Any, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
    """The answer to a HEAD has no body, and who sent a POST would wait for that which is announced."""
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    return start_response(status, [*kept, ("Content-Length", "0")], *exc_info)


def _finished(inner: Any, conf: cfg.ConfigOpts) -> Any:
    """Headers as they have to leave, whatever the middleware made of them.

    WebOb makes Location absolute, with the host of an unproxied request. And CORS overwrites Vary,
    or leaves Origin out of it where the answer does not depend on it *this* time.
    """
    varies = [VERSION_HEADER, *(["Origin"] if conf.cors.allowed_origin else [])]

    def finish(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        vary = {name.lower(): name for name in varies}
        kept = []
        for name, value in headers:
            if name.lower() == "vary":
                vary |= {each.strip().lower(): each.strip() for each in value.split(",")}
            elif name.lower() == "location":
                kept.append((name, urllib.parse.urlparse(value)._replace(scheme="", netloc="").geturl()))
            else:
                kept.append((name, value))
        return [*kept, ("Vary", ", ".join(vary.values()))]

    def wrapped(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, finish(headers), *exc_info)

        return inner(environ, start)

    return wrapped


PIPELINE = (
    _finished,
    _cors,
    _first_proxy,
    oslo_middleware.HTTPProxyToWSGI,
    oslo_middleware.RequestId,
    _logged,
    _health,
    _authtoken,
    _method_of_tus,
)
"""From the outermost to the innermost."""


def wrap(app: Any, conf: cfg.ConfigOpts) -> Any:
    """The application behind all of it."""
    for layer in reversed(PIPELINE):
        app = layer(app, conf)
    return app
