"""Clients of a real server process, over TCP, TLS and a Unix socket."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from datasources_client import Client
from tests.server.conftest import ApiServer, lake, new_id, server  # fixtures

__all__ = ["lake", "new_id", "server"]


@pytest.fixture
def client(server: ApiServer) -> Iterator[Client]:
    """A client with the token of an administrator."""
    with Client(f"http://127.0.0.1:{server.port}", token="root") as client:
        yield client


class TlsServer(ApiServer):
    """The server with a certificate of a private authority."""

    name = "api-tls"

    @property
    def authority(self) -> Path:
        return self.directory / "authority.pem"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        super()._prepare()
        make_certificates(self.directory)

    def _command(self) -> Sequence[str | Path]:
        certificate, key = self.directory / "server.pem", self.directory / "key.pem"
        return [*super()._command(), "--ssl-certfile", certificate, "--ssl-keyfile", key]


class SocketServer(ApiServer):
    """The server on a Unix socket."""

    name = "api-socket"

    @property
    def socket(self) -> str:
        return str(self.directory / "api.sock")

    def _command(self) -> Sequence[str | Path]:
        return [*super()._command(), "--uds", self.socket]

    def _ready(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.socket)
            return True
        return False


def make_certificates(directory: Path) -> None:
    """Write `authority.pem`, and `server.pem` and `key.pem` of a server on 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = dt.datetime.now(dt.UTC)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])

    def builder(name: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    authority = (
        builder(issuer, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        builder(subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "authority.pem").write_bytes(authority.public_bytes(pem))
    (directory / "server.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
