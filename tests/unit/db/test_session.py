# SPDX-License-Identifier: Apache-2.0
"""Connections to a server."""

import socket

import pytest

from ciming.db import session
from tests.unit.rows import Database


def test_a_server_that_the_network_hides_is_given_up(database: Database) -> None:
    """The kernel does it, as it is told for each connection."""
    with session.engine().connect() as connection:
        if connection.dialect.name == "sqlite":
            pytest.skip("a file")
        raw = connection.connection.dbapi_connection
        number = raw.fileno() if hasattr(raw, "fileno") else raw._sock.fileno()  # type: ignore[attr-defined, union-attr]
        same = socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM)
        with same:
            assert same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            silent = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            idle = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    assert 0 < silent <= 60_000 and idle <= 60
