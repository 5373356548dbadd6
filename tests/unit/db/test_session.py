# SPDX-License-Identifier: Apache-2.0
"""Connections to a server, and to a file."""

import contextlib
import socket
import sqlite3
import time

import pytest
import sqlalchemy as sa
from oslo_db import exception as oslo_db_exception

from ciming import exceptions
from ciming.db import models, session, work
from tests.unit.db.test_work import at_once
from tests.unit.rows import Database, make_job, take


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


def test_who_falls_silent_in_a_transaction_holds_its_rows_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine that takes the Job over need not wait until the server notices that nobody is there."""
    if session.engine().dialect.name == "sqlite":
        pytest.skip("a file: who dies lets it go")
    job = make_job()
    monkeypatch.setattr(session, "IDLE_SECONDS", 1)
    session.forget_connections()
    change = sa.update(models.Job).where(models.Job.id == job.id)
    with session.writing_engine().connect() as silent:
        silent.execute(change.values(generation=7))
        with session.writer() as other:
            other.execute(change.values(generation=8))
        with pytest.raises(oslo_db_exception.DBConnectionError):
            silent.execute(change.values(generation=9))
    with session.reader() as after:
        assert after.scalar(sa.select(models.Job.generation)) == 8


def test_a_server_that_takes_no_writes_is_away(database: Database) -> None:
    """Its connections are not used again: after a failover the next one is to another server."""
    read_only = {
        "postgresql": "SET default_transaction_read_only = on",
        "mysql": "SET SESSION TRANSACTION READ ONLY",
    }
    if session.engine().dialect.name not in read_only:
        pytest.skip("a file")
    held = take(make_job().id)
    session.forget_connections()
    with session.engine().connect() as demoted:
        demoted.exec_driver_sql(read_only[demoted.dialect.name])
        demoted.commit()
    with pytest.raises(exceptions.Interrupted, match=r"read-only|READ ONLY"):
        work.check(held)
    work.check(held)


@pytest.mark.sqlite
def test_writers_of_a_file_queue(database: Database) -> None:
    job = make_job()

    def add(_number: int) -> None:
        with session.writer() as writing:
            row = writing.get_one(models.Job, job.id)
            row.generation += 1

    assert at_once(8, add) == [None] * 8
    with session.reader() as after:
        assert after.scalar(sa.select(models.Job.generation)) == 8


@pytest.mark.sqlite
def test_who_waits_for_another_process_does_not_hold_up_the_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gives up in its own time."""
    job, ends = make_job(), []
    monkeypatch.setattr(session, "BUSY_SECONDS", 2)
    session.forget_connections()

    def add(_number: int) -> None:
        began = time.monotonic()
        try:
            with session.writer() as writing:
                writing.get_one(models.Job, job.id).generation += 1
        finally:
            ends.append(time.monotonic() - began)

    with contextlib.closing(sqlite3.connect(str(database.where))) as other:
        other.execute("BEGIN IMMEDIATE")
        failed = at_once(8, add)
    assert all(isinstance(each, work.AWAY) for each in failed), failed
    assert max(ends) < 8 * 2, "one after the other"
    add(0)
