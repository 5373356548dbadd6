# SPDX-License-Identifier: Apache-2.0
"""Uploads over TLS, where an early refusal is harder to hear."""

import io
import pathlib
import socket
import ssl
from typing import Any

import pytest
from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import session
from openstack import exceptions

from cimingclient.sdk import _waiting
from tests.unit import certificates
from tests.unit.cimingclient import conftest
from tests.unit.cimingclient import stub as _stub


@pytest.fixture
def certificate(tmp_path: pathlib.Path) -> str:
    """A file with a key and its own certificate, for this host's address."""
    path = tmp_path / "certificate"
    certificates.make(path)
    return str(path)


def test_an_early_refusal_is_heard(certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with _stub.Stub(context) as stub:
        client = conftest.connect(stub, cacert=certificate)
        stub.refuse_files.append(_stub.Refusal(507, "No room in the staging area", read=False))
        with pytest.raises(exceptions.HttpException, match="No room in the staging area"):
            client.upload_image("i", io.BytesIO(bytes(32 << 20)))
        client.upload_image("i", io.BytesIO(b"less"))
        assert [got.size for got in stub.received] == [4]


def test_a_handshake_that_is_cut_is_tried_again(certificate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with _stub.Stub(context) as stub:
        stub.jobs["j"] = [_stub.job("success", identity="j")]
        client = conftest.connect(stub, cacert=certificate)
        assert client.get_job("j").status == "success"  # it has logged in
        listening, accept = stub._server.socket, stub._server.get_request

        def cut() -> Any:
            socket.socket.accept(listening)[0].close()  # before TLS begins
            monkeypatch.setattr(stub._server, "get_request", accept)
            raise ConnectionAbortedError

        for ask in (
            lambda: client.wait_for_job("j").status == "success",
            lambda: client.resume_upload("i", io.BytesIO(b"less")),
        ):
            client.session.session.close()
            monkeypatch.setattr(stub._server, "get_request", cut)
            assert ask()


def test_a_stranger_is_not_waited_for(certificate: str, tmp_path: pathlib.Path) -> None:
    certificates.make(tmp_path / "other", "other.example.com")
    for stranger in (certificate, str(tmp_path / "other")):  # whom nobody knows, or of another name
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(stranger)
        with _stub.Stub(context) as stub:
            with pytest.raises(ksa_exceptions.SSLError) as caught:
                session.Session(verify=str(tmp_path / "other")).get(stub.url)
            assert not _waiting.passes(caught.value)


def test_a_stranger_is_not_trusted(certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with _stub.Stub(context) as stub, pytest.raises(Exception, match="SSL exception"):
        list(conftest.connect(stub).clouds())
