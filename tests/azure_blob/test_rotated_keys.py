"""A key, SAS or client secret that was replaced is used as soon as the service refuses the old one."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from datasources import AuthenticationError, DataSourceConfig, DataSourceRegistry, DataSourceType
from tests.azure_blob.conftest import make
from tests.azure_blob.test_connecting import account_sas
from tests.azure_blob.test_identity import (  # noqa: F401  (fixtures)
    Authority,
    TlsAzurite,
    authority,
    azurite_tls,
    certificate,
    options,
)
from tests.servers import AzuriteServer, ServerError

LARGE = 1024 * 1024 + 1  # bytes: an upload in blocks


class RotatingAzurite(AzuriteServer):
    """Azurite with one account, whose key is replaced by starting it again."""

    container = ""

    def rotate(self) -> None:
        self.account_key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.restart()

    def secret(self, option: str) -> str:
        """Return what the option holds with the present key."""
        return account_sas(self) if option == "sas_token" else self.account_key


@pytest.fixture(scope="module")
def server(azurite: AzuriteServer) -> Iterator[RotatingAzurite]:
    try:
        server = RotatingAzurite(persistent=True, cache=azurite._cache).start()
    except ServerError as exc:
        pytest.skip(str(exc))
    with server:
        yield server


@pytest.fixture
def rotating(server: RotatingAzurite) -> RotatingAzurite:
    """The server, with a new container that has one blob."""
    server.container = f"data-{secrets.token_hex(6)}"
    with BlobServiceClient.from_connection_string(server.connection_string) as client:
        client.create_container(server.container).upload_blob("a.csv", b"x\n")
    return server


def options_of(server: RotatingAzurite, option: str) -> dict[str, Any]:
    if option == "connection_string":
        text = server.connection_string.replace(server.account_key, "${env:ROTATING}")
        return {"container": server.container, "connection_string": text}
    return {
        "container": server.container,
        "account_url": server.blob_endpoint,
        option: "${env:ROTATING}",
    }


CALLS = ("list", "upload at once", "upload in blocks", "fetch")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "calls"),
    [
        ("account_key", ("list", "upload in blocks")),
        ("connection_string", ("fetch",)),
        ("sas_token", ("upload at once",)),
        *(
            pytest.param(option, CALLS, marks=pytest.mark.soak)
            for option in ("account_key", "connection_string", "sas_token")
        ),
    ],
)
async def test_no_call_fails_when_the_key_of_the_account_is_replaced(
    rotating: RotatingAzurite,
    option: str,
    calls: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Replace the key before each call. Every run has each option and each call once."""
    (tmp_path / "small").write_bytes(b"content")
    (tmp_path / "large").write_bytes(bytes(LARGE))
    monkeypatch.setenv("ROTATING", rotating.secret(option))
    async with DataSourceRegistry() as registry:
        config = DataSourceConfig("s", DataSourceType.AZURE_BLOB, "S", options_of(rotating, option))
        await registry.register_data_source(config)

        assert [item.path for item in await registry.list_items("s")] == ["a.csv"]
        for call in calls:
            rotating.rotate()
            monkeypatch.setenv("ROTATING", rotating.secret(option))
            if call == "list":
                assert [item.path for item in await registry.list_items("s")] == ["a.csv"]
            elif call == "fetch":
                assert (await registry.fetch("s", "a.csv", tmp_path / "ws")).size == 2
            else:
                name, size = ("small", 7) if call == "upload at once" else ("large", LARGE)
                assert (await registry.upload("s", str(tmp_path / name))).size == size
        assert registry.get_pool_stats("s")["connects"] == 1


async def test_key_that_was_not_replaced_is_refused_at_once(
    rotating: RotatingAzurite, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"content")
    refused = rotating.account_key
    connector = make(options_of(rotating, "account_key") | {"account_key": refused})
    await connector.connect()
    try:
        rotating.rotate()
        for call in (
            connector.list_items,
            lambda: connector.upload_file(str(tmp_path / "small")),
        ):
            with pytest.raises(AuthenticationError) as caught:
                await call()
            assert refused not in str(caught.value)
    finally:
        await connector.disconnect()


async def test_connection_string_with_another_account_is_not_used_on_an_open_connection(
    rotating: RotatingAzurite, azurite: AzuriteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROTATING", rotating.connection_string)
    async with DataSourceRegistry() as registry:
        config = DataSourceConfig(
            "s",
            DataSourceType.AZURE_BLOB,
            "S",
            {"container": rotating.container, "connection_string": "${env:ROTATING}"},
        )
        await registry.register_data_source(config)
        await registry.list_items("s")
        rotating.rotate()
        monkeypatch.setenv("ROTATING", azurite.connection_string)
        with pytest.raises(AuthenticationError):
            await registry.list_items("s")


async def test_client_secret_that_was_replaced_gives_the_next_token(
    azurite_tls: TlsAzurite,  # noqa: F811
    authority: Authority,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "small").write_bytes(b"content")
    authority.lifetime = 0  # so that each request needs another token
    monkeypatch.setenv("ROTATING", authority.secret)
    async with DataSourceRegistry() as registry:
        config = DataSourceConfig(
            "s",
            DataSourceType.AZURE_BLOB,
            "S",
            options(azurite_tls, client_secret="${env:ROTATING}"),
        )
        await registry.register_data_source(config)
        assert await registry.list_items("s")
        for call in (
            lambda: registry.list_items("s"),
            lambda: registry.upload("s", str(tmp_path / "small")),
        ):
            authority.secret = secrets.token_hex(16)
            monkeypatch.setenv("ROTATING", authority.secret)
            assert await call()
        assert registry.get_pool_stats("s")["connects"] == 1
        refused = authority.secret
        authority.secret = "another"
        with pytest.raises(AuthenticationError, match="could not authenticate") as caught:
            await registry.list_items("s")
        assert refused not in str(caught.value)
