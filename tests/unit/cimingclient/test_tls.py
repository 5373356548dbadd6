# SPDX-License-Identifier: Apache-2.0
"""Uploads over TLS, where an early refusal is harder to hear."""

import io
import pathlib
import ssl

import pytest
from openstack import exceptions

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


def test_a_stranger_is_not_trusted(certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with _stub.Stub(context) as stub, pytest.raises(Exception, match="SSL exception"):
        list(conftest.connect(stub).clouds())
