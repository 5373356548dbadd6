# SPDX-License-Identifier: Apache-2.0
"""Connections to a Cloud that somebody named: checked, pinned, and nobody else's."""

import contextlib
import http.server
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest
from keystoneauth1 import exceptions as ks_exceptions
from keystoneauth1 import session as ks_session
from oslo_config import cfg

from ciming import connections, egress
from tests.unit import certificates
from tests.unit.sites import Site, serving

NAME = "keystone.cloud.example"
getaddrinfo = socket.getaddrinfo


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def options(conf: cfg.ConfigOpts) -> Iterator[cfg.ConfigOpts]:
    """Everything is allowed that can be."""
    for option in ("allow_http", "allow_loopback"):
        conf.set_override(option, True, group="egress")
    yield conf
    for option in ("allow_http", "allow_loopback", "forbidden"):
        conf.clear_override(option, group="egress")


class Names:
    """A name server that says something else each time."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    def __call__(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != NAME:
            return getaddrinfo(host, *args, **kwargs)
        addresses = self.answers.pop(0)
        return [found for each in addresses for found in getaddrinfo(each, *args, **kwargs)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


def session(**kwargs: Any) -> ks_session.Session:
    made = ks_session.Session(timeout=20)
    connections.equip(made, outside=True, **kwargs)
    return made


def test_the_address_that_was_checked_is_connected_to(
    options: cfg.ConfigOpts, site: Site, names: Names
) -> None:
    """Whoever is asked twice could answer otherwise: the name is looked up once."""
    names.answers = [["127.0.0.1"], ["169.254.169.254"]]
    assert session().get(site.url(NAME)).status_code == 200
    assert site.asked == [("/", f"{NAME}:{site.server_port}")]
    with pytest.raises(egress.Refused, match=r"169\.254\.169\.254"):
        session().get(site.url(NAME))
    assert names.answers == []


def test_an_address_that_does_not_answer_is_passed_over(
    options: cfg.ConfigOpts, site: Site, names: Names
) -> None:
    names.answers = [["127.0.0.9", "127.0.0.1"], ["127.0.0.9"]]     # nobody listens on the first one
    assert session().get(site.url(NAME)).status_code == 200
    with pytest.raises(ks_exceptions.ConnectFailure):
        session().get(site.url(NAME))


def test_a_name_that_there_is_not(options: cfg.ConfigOpts) -> None:
    with pytest.raises(ks_exceptions.ConnectFailure):
        session().get("http://no-such-host.invalid/")


def test_what_is_refused_is_not_connected_to(conf: cfg.ConfigOpts, site: Site, names: Names) -> None:
    conf.set_override("allow_http", True, group="egress")
    names.answers = [["127.0.0.1"]]
    for host in ("127.0.0.1", "2130706433", "localhost", NAME):
        with pytest.raises(egress.Refused, match="own host"):
            session().get(site.url(host))
    assert site.asked == []
    conf.clear_override("allow_http", group="egress")
    with pytest.raises(egress.Refused, match="not encrypted"):
        session().get(site.url())


@pytest.mark.parametrize("away", ["http://169.254.169.254/", "http://[fe80::1]/"])
def test_each_hop_is_checked(options: cfg.ConfigOpts, site: Site, away: str) -> None:
    site.away = away
    with pytest.raises(egress.Refused):
        session().get(site.url(path="/away"))


def test_a_hop_that_is_allowed(options: cfg.ConfigOpts, site: Site) -> None:
    with serving() as another:
        site.away = another.url(path="/here")
        assert session().get(site.url(path="/away")).status_code == 200
        assert [path for path, _host in another.asked] == ["/here"]
        options.set_override("forbidden", ["127.0.0.0/8"], group="egress")
        assert session().get(site.url(path="/away")).status_code == 200     # another matter than loopback
        assert len(another.asked) == 2


def test_the_environment_names_no_proxy(
    options: cfg.ConfigOpts, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert session().get(site.url()).status_code == 200


# TLS


@pytest.fixture
def certified(tmp_path: pathlib.Path) -> Iterator[tuple[Site, str]]:
    """A site with a certificate for its name, and that."""
    path = tmp_path / "certificate"
    certificate = certificates.make(path, NAME)
    with serving(path) as running:
        yield running, certificate


def test_a_certificate_is_for_the_name(
    options: cfg.ConfigOpts, certified: tuple[Site, str], names: Names
) -> None:
    site, certificate = certified
    names.answers = [["127.0.0.1"]] * 2
    assert session(cacert=certificate).get(site.url(NAME)).status_code == 200
    assert site.names == [NAME]
    with pytest.raises(ks_exceptions.SSLError):
        session(cacert=certificate).get(site.url("127.0.0.1"))
    with pytest.raises(ks_exceptions.SSLError):
        session().get(site.url(NAME))
    assert len(site.asked) == 1


def test_a_bundle_is_trusted_alone(
    options: cfg.ConfigOpts, certified: tuple[Site, str], names: Names, tmp_path: pathlib.Path
) -> None:
    site, _certificate = certified
    names.answers = [["127.0.0.1"]]
    with pytest.raises(ks_exceptions.SSLError):
        session(cacert=certificates.make(tmp_path / "another", NAME)).get(site.url(NAME))


def test_who_says_nothing_when_connected_to_is_given_up(
    options: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as there is no connection it can not be ended; a handshake is a part of that."""
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(ks_exceptions.ConnectTimeout, match="timed out"):
            session().get(url, connect_retries=0)       # whose timeout is 20 s
        silent.settimeout(20)
        silent.accept()[0].close()


def test_who_reads_slowly_is_waited_for(
    options: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Glance whose store is busy takes no bytes for a while: that is not the time for a connection."""
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.3)
    body = bytes(32 << 20)

    def read() -> None:
        with slow.accept()[0] as connection:
            time.sleep(1)
            left = len(body)
            while left > 0 and (data := connection.recv(1 << 20)):
                left -= len(data)
            connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as slow:
        reading = threading.Thread(target=read)
        reading.start()
        url = f"http://127.0.0.1:{slow.getsockname()[1]}/"
        assert session().put(url, data=body, connect_retries=0).status_code == 204
        reading.join(20)


def test_both_families_of_addresses_are_tried(options: cfg.ConfigOpts, site: Site, names: Names) -> None:
    names.answers = [[*(f"::{number}" for number in range(2, 9)), "127.0.0.1"]]
    assert session().get(site.url(NAME)).status_code == 200


def test_not_all_addresses_of_a_name_are_tried(
    options: cfg.ConfigOpts, site: Site, names: Names
) -> None:
    names.answers = [[*(f"127.0.0.{number}" for number in range(9, 20)), "127.0.0.1"]]
    with pytest.raises(ks_exceptions.ConnectFailure):
        session().get(site.url(NAME))


def test_calls_can_be_ended(options: cfg.ConfigOpts) -> None:
    """As those to one's own zones can."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = session()
        ended: list[BaseException] = []

        def ask() -> None:
            try:
                made.get(f"http://127.0.0.1:{silent.getsockname()[1]}/", connect_retries=0)
            except ks_exceptions.ClientException as error:
                ended.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        connection, _address = silent.accept()
        with connection:
            assert connection.recv(10)
            connections.hang_up(made.session)
            asking.join(20)
        assert len(ended) == 1


class _Slow(http.server.BaseHTTPRequestHandler):
    """`/endless` is answered bit by bit, `/slow` after a while."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(2.0 if self.path == "/slow" else 0.0)
        self.send_response(200)
        self.send_header("Content-Length", "1000" if self.path == "/endless" else "0")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000 if self.path == "/endless" else 0):
                self.wfile.write(b".")
                time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_one_that_is_late_ends_no_other(options: cfg.ConfigOpts) -> None:
    """Over the same adapter; the late one goes over a connection that another thread has made."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url, asking = f"http://127.0.0.1:{server.server_port}", session()
        assert asking.get(f"{url}/").status_code == 200
        with futures.ThreadPoolExecutor(2) as pool:
            late = pool.submit(asking.get, f"{url}/endless", timeout=1.0)
            time.sleep(0.3)
            slow = pool.submit(asking.get, f"{url}/slow")
            with pytest.raises(ks_exceptions.ConnectTimeout):
                late.result(10)
            assert slow.result(10).status_code == 200
        server.shutdown()
