"""Tokens of azure-identity, against Azurite over TLS and an authority of our own."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from datasources import AuthenticationError, ConnectError, ConnectorError, Workspace
from tests.azure_blob.conftest import make
from tests.servers import AzuriteServer, ServerError
from tests.servers.certificates import self_signed

SECRET = "the-secret-of-the-principal"


class TlsAzurite(AzuriteServer):
    """Azurite with a certificate, which is what it takes tokens with."""

    def __init__(self, certificate: Path, key: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tls = ["--oauth", "basic", "--cert", str(certificate), "--key", str(key)]

    @property
    def blob_endpoint(self) -> str:
        return super().blob_endpoint.replace("http:", "https:")

    @property
    def connection_string(self) -> str:
        return super().connection_string.replace("Protocol=http;", "Protocol=https;")

    def _command(self) -> Sequence[str | Path]:
        return [*super()._command(), *self._tls]


class Authority:
    """Gives tokens to whoever has the secret; counts them."""

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self.secret = SECRET
        self.given = 0

    async def serve(self, certificate: Path, key: Path) -> asyncio.Server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=context)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        good = self.secret.encode() in await reader.readexactly(length)
        body = json.dumps(self._token() if good else {"error": "invalid_client"}).encode()
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (200 if good else 401, len(body), body)
        )
        await writer.drain()
        writer.close()

    def _token(self) -> dict[str, Any]:
        self.given += 1
        now = int(time.time())
        claims = {
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/tenant/",
            "nbf": now - 60,
            "iat": now - 60,
            "exp": now + 3600,
        }
        parts = ({"alg": "none", "typ": "JWT"}, claims)
        encoded = [
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts
        ]
        token = b".".join([*encoded, b"c2ln"]).decode()
        return {"token_type": "Bearer", "expires_in": self.lifetime, "access_token": token}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for the loopback address, its own issuer, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def azurite_tls(azurite: AzuriteServer, certificate: tuple[Path, Path]) -> Iterator[TlsAzurite]:
    try:
        server = TlsAzurite(*certificate, cache=azurite._cache).start()
    except ServerError as exc:
        pytest.skip(str(exc))
    with server:
        with BlobServiceClient.from_connection_string(
            server.connection_string, connection_verify=str(certificate[0])
        ) as client:
            container = client.create_container("data")
            container.upload_blob("a.txt", b"content")
            container.upload_blob("large", bytes(20 * 64 * 1024))
        yield server


@pytest.fixture
async def authority(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Authority]:
    authority = Authority(lifetime=3600)
    server = await authority.serve(*certificate)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://127.0.0.1:{port}")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with server:
        yield authority


def options(server: TlsAzurite, **changed: Any) -> dict[str, Any]:
    return {
        "account_url": server.blob_endpoint,
        "container": "data",
        "tenant_id": "tenant",
        "client_id": "client",
        "client_secret": SECRET,
        **changed,
    }


async def test_service_principal_lists_fetches_and_uploads_with_one_token(
    azurite_tls: TlsAzurite, authority: Authority, tmp_path: Path
) -> None:
    connector = make(options(azurite_tls))
    await connector.connect()
    try:
        assert "a.txt" in [item.path for item in await connector.list_items()]
        assert [item.path for item in await connector.glob_items("a.*")] == ["a.txt"]
        assert (await connector.list_page(limit=1))[1] is not None
        assert await connector.list_versions("a.txt") == []
        assert len((await connector.preview("a.txt")).rows) == 1
        await connector.fetch_data("a.txt", str(tmp_path))
        assert (tmp_path / "a.txt").read_bytes() == b"content"
        await connector.upload_file(str(tmp_path / "a.txt"), "b.txt")
        assert (await connector.get_metadata("b.txt"))["size"] == 7
        (tmp_path / "large").write_bytes(bytes(2_000_000))
        await connector.upload_file(str(tmp_path / "large"), "c.bin", overwrite=False)
    finally:
        await connector.disconnect()
    assert authority.given <= 2  # the SDK asks for one of its own


async def test_default_credential_is_found_in_the_environment(
    azurite_tls: TlsAzurite,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in {"TENANT_ID": "tenant", "CLIENT_ID": "c", "CLIENT_SECRET": SECRET}.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    connector = make(
        {"account_url": azurite_tls.blob_endpoint, "container": "data", "credential": "default"}
    )
    await connector.connect()
    try:
        await connector.fetch_data("a.txt", str(tmp_path))
    finally:
        await connector.disconnect()
    assert authority.given == 1


async def test_token_is_renewed_during_a_long_download(
    azurite_tls: TlsAzurite, authority: Authority, tmp_path: Path
) -> None:
    authority.lifetime = 1
    connector = make(options(azurite_tls, chunk_size=64 * 1024, concurrency=1))
    await connector.connect()
    given = authority.given

    def wait_once(done: int, total: int | None) -> None:
        if done == 10 * 64 * 1024:
            time.sleep(1)

    try:
        await connector.fetch_data("large", Workspace(tmp_path, progress=wait_once))
    finally:
        await connector.disconnect()
    assert authority.given > given
    assert (tmp_path / "large").stat().st_size == 20 * 64 * 1024


async def test_wrong_secret_is_an_authentication_error_and_not_shown(
    azurite_tls: TlsAzurite, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "not-this-one"
    connector = make(options(azurite_tls, client_secret=wrong))
    with pytest.raises(
        AuthenticationError, match=r"azure-identity could not authenticate: .*invalid_client"
    ) as caught:
        await connector.connect()
    assert wrong not in str(caught.value)
    assert wrong not in caplog.text


async def test_silent_authority_is_a_connect_error(
    azurite_tls: TlsAzurite, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")
    connector = make(options(azurite_tls, connect_timeout=2))
    with pytest.raises(ConnectError, match="container 'data'"):
        await connector.connect()


async def test_untrusted_certificate_is_a_connect_error(
    azurite_tls: TlsAzurite, azurite: AzuriteServer
) -> None:
    connector = make(
        {
            "account_url": azurite_tls.blob_endpoint,
            "account_key": azurite_tls.account_key,
            "container": "data",
        }
    )
    with pytest.raises(
        ConnectError, match=r"no trusted TLS connection to 127.*SSL_CERT_FILE can name a file"
    ):
        await connector.connect()


async def test_client_id_names_the_managed_identity_of_the_default_credential(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import azure.identity.aio

    given: list[str | None] = []

    class Recording(azure.identity.aio.DefaultAzureCredential):
        def __init__(self, **kwargs: Any) -> None:
            given.append(kwargs.get("managed_identity_client_id"))
            super().__init__(**kwargs)

    monkeypatch.setattr(azure.identity.aio, "DefaultAzureCredential", Recording)
    for chosen in ({"client_id": "identity-1"}, {}):
        connector = make(
            {
                "account_url": "https://127.0.0.1:1/a",
                "container": "data",
                "credential": "default",
                "connect_timeout": 0.1,
                **chosen,
            }
        )
        with pytest.raises(ConnectorError):
            await connector.connect()
    assert given == ["identity-1", None]
