# SPDX-License-Identifier: Apache-2.0
"""Uploads over TLS, where an early refusal is harder to hear."""

import datetime
import io
import ipaddress
import pathlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from openstack import exceptions

from tests.unit.cimingclient import conftest
from tests.unit.cimingclient import stub as _stub


@pytest.fixture
def certificate(tmp_path: pathlib.Path) -> str:
    """A file with a key and its own certificate, for this host's address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "certificate"
    path.write_bytes(private + certificate.public_bytes(pem))
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
