"""Every way in that Azurite knows, and every way it can fail."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import (
    BlobServiceClient,
    ContainerClient,
    ContainerSasPermissions,
    generate_account_sas,
    generate_container_sas,
)

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    ItemNotFoundError,
    PermissionDeniedError,
)
from datasources_azure_blob import AzureBlobConnector
from tests.azure_blob.conftest import Connect, make
from tests.servers import AzuriteServer, free_port
from tests.servers.blob_server import BlobService, Fault

WRONG_KEY = "d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXk="


def container_sas(
    azurite: AzuriteServer, container: ContainerClient, permission: str, *, hours: float = 1
) -> str:
    return str(
        generate_container_sas(
            azurite.account_name,
            container.container_name,
            azurite.account_key,
            permission=ContainerSasPermissions.from_string(permission),
            start=datetime.now(UTC) - timedelta(days=1),
            expiry=datetime.now(UTC) + timedelta(hours=hours),
        )
    )


def account_sas(azurite: AzuriteServer) -> str:
    return str(
        generate_account_sas(
            azurite.account_name,
            azurite.account_key,
            resource_types="sco",
            permission="rwlct",
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
    )


WAYS: dict[str, Callable[[AzuriteServer, ContainerClient], dict[str, Any]]] = {
    "connection string with key": lambda a, c: {"connection_string": a.connection_string},
    "connection string with SAS": lambda a, c: {
        "connection_string": f"BlobEndpoint={a.blob_endpoint}/;"
        f"SharedAccessSignature={container_sas(a, c, 'rwlc')}"
    },
    "URL and key": lambda a, c: {"account_url": a.blob_endpoint, "account_key": a.account_key},
    "URL and account SAS": lambda a, c: {
        "account_url": a.blob_endpoint,
        "sas_token": account_sas(a),
    },
    "URL and container SAS": lambda a, c: {
        "account_url": a.blob_endpoint,
        "sas_token": "?" + container_sas(a, c, "rwlc"),
    },
    "URL that carries a SAS": lambda a, c: {
        "account_url": f"{a.blob_endpoint}?{container_sas(a, c, 'rwlc')}"
    },
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_credential_does_everything(
    way: str, azurite: AzuriteServer, container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    blob = container.upload_blob("a/ünï %41 b.txt", b"content", metadata={"k": "v"})
    blob.create_snapshot()
    connector = await connect(**WAYS[way](azurite, container))
    # Azurite computes the signature of a container's SAS as if it were the snapshot's.
    snapshots = "container" not in way and "SAS" not in way.replace("account SAS", "")
    await read_everything(connector, "a/ünï %41 b.txt", tmp_path, snapshots=snapshots)
    for size, overwrite in ((4, True), (4, False), (2_000_000, True), (2_000_000, False)):
        (tmp_path / "up").write_bytes(bytes(size))
        name = f"b/ünï %41 {size} {overwrite}.txt"
        await connector.upload_file(str(tmp_path / "up"), name, overwrite=overwrite)
        assert container.download_blob(name).readall() == bytes(size)


async def read_everything(
    connector: AzureBlobConnector, name: str, folder: Path, *, snapshots: bool = True
) -> None:
    """Call identifier method that reads; the blob is alone, has the metadata k=v and a snapshot."""
    assert await connector.test_connection()
    assert [item.path for item in await connector.list_items()] == [name]
    assert [item.path for item in await connector.glob_items("**")] == [name]
    assert [item.path for item in (await connector.list_page(limit=1))[0]] == [name]
    assert (await connector.list_items("/"))[0].metadata["kind"] == "folder"
    (snapshot,) = await connector.list_versions(name)
    assert (await connector.get_metadata(name))["metadata"] == {"k": "v"}
    for identifier in (name, snapshot.path) if snapshots else (name,):
        assert len((await connector.preview(identifier)).rows) == 1
        assert Path(await connector.fetch_data(identifier, str(folder))).read_bytes() == b"content"


async def test_sas_that_may_only_read_and_list_is_enough(
    azurite: AzuriteServer, container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    container.upload_blob("a.txt", b"content", tags={"x": "y"})
    connector = await connect(
        account_url=azurite.blob_endpoint, sas_token=container_sas(azurite, container, "rl")
    )
    assert await connector.test_connection()
    assert len(await connector.list_items()) == 1
    await connector.fetch_data("a.txt", str(tmp_path))
    assert (await connector.get_metadata("a.txt"))["size"] == 7
    (tmp_path / "up").write_bytes(b"back")
    with pytest.raises(PermissionDeniedError, match=r"blob 'up' of container 'test-") as caught:
        await connector.upload_file(str(tmp_path / "up"))
    assert caught.value.code == "AuthorizationPermissionMismatch"


async def test_sas_that_may_only_read_connects_but_does_not_list(
    azurite: AzuriteServer, container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    container.upload_blob("a.txt", b"content")
    connector = await connect(
        account_url=azurite.blob_endpoint, sas_token=container_sas(azurite, container, "r")
    )
    await connector.fetch_data("a.txt", str(tmp_path))
    with pytest.raises(PermissionDeniedError, match="container 'test-"):
        await connector.list_items()


async def test_sas_that_may_only_write_connects_and_uploads(
    azurite: AzuriteServer, container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    connector = await connect(
        account_url=azurite.blob_endpoint, sas_token=container_sas(azurite, container, "cw")
    )
    (tmp_path / "up").write_bytes(b"back")
    await connector.upload_file(str(tmp_path / "up"))
    with pytest.raises(PermissionDeniedError, match="blob 'up' of container"):
        await connector.get_metadata("up")


@pytest.mark.parametrize("access", ["container", "blob"])
async def test_public_container_needs_no_credential(
    access: str,
    azurite: AzuriteServer,
    container: ContainerClient,
    connect: Connect,
    tmp_path: Path,
) -> None:
    blob = container.upload_blob("f/a.txt", b"content", metadata={"k": "v"})
    blob.create_snapshot()
    container.set_container_access_policy({}, public_access=access)
    connector = await connect(account_url=azurite.blob_endpoint, credential="anonymous")
    path = await connector.fetch_data("f/a.txt", str(tmp_path))
    assert Path(path).read_bytes() == b"content"
    assert (await connector.get_metadata("f/a.txt"))["metadata"] == {"k": "v"}
    assert len((await connector.preview("f/a.txt")).rows) == 1
    if access == "container":
        await read_everything(connector, "f/a.txt", tmp_path)


async def test_private_container_refuses_no_credential(
    azurite: AzuriteServer, connect: Connect
) -> None:
    with pytest.raises(AuthenticationError, match=r"^container 'test-"):
        await connect(account_url=azurite.blob_endpoint, credential="anonymous")


async def test_private_container_that_the_service_hides_is_an_error(connect: Connect) -> None:
    async with BlobService() as service:
        service.fault = lambda request: Fault(status=404, code="ResourceNotFound")
        with pytest.raises(ConnectError, match=r"^container 'test-.* or is not public"):
            await connect(account_url=service.url, credential="anonymous")


async def test_missing_container_is_named_also_where_listing_is_not_allowed(
    azurite: AzuriteServer, account: BlobServiceClient, connect: Connect
) -> None:
    gone = account.get_container_client("no-such-one")
    with pytest.raises(ConnectError, match=r"^container 'no-such-one': the container does not"):
        await connect(
            account_url=azurite.blob_endpoint,
            sas_token=container_sas(azurite, gone, "r"),
            container="no-such-one",
        )


async def test_wrong_key_is_an_authentication_error(
    azurite: AzuriteServer, container: ContainerClient
) -> None:
    connector = make(
        {
            "account_url": azurite.blob_endpoint,
            "account_key": WRONG_KEY,
            "container": container.container_name,
        }
    )
    with pytest.raises(AuthenticationError, match=r"container 'test-.*refuses the credentials"):
        await connector.connect()
    assert not await connector.test_connection()


async def test_expired_sas_is_an_authentication_error(
    azurite: AzuriteServer, container: ContainerClient, connect: Connect
) -> None:
    with pytest.raises(AuthenticationError, match=r"refuses the credentials; it says: [A-Z]"):
        await connect(
            account_url=azurite.blob_endpoint,
            sas_token=container_sas(azurite, container, "rl", hours=-1),
        )


@pytest.mark.parametrize("way", ["connection string with key", "URL and account SAS"])
async def test_missing_container_is_named(
    way: str, azurite: AzuriteServer, container: ContainerClient, connect: Connect
) -> None:
    with pytest.raises(ConnectError, match=r"^container 'no-such-one': the container") as caught:
        await connect(**{**WAYS[way](azurite, container), "container": "no-such-one"})
    assert caught.value.code == "ContainerNotFound"


async def test_closed_port_is_an_error_that_names_it(connect: Connect) -> None:
    port = free_port()
    with pytest.raises(ConnectError, match=f"cannot connect to 127.0.0.1:{port}"):
        await connect(account_url=f"http://127.0.0.1:{port}/a", credential="anonymous")


async def test_silent_server_is_an_error_within_the_connect_timeout(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ConnectError, match=r"no answer within 0\.5 s"):
            await connect(
                account_url=f"http://127.0.0.1:{port}/a",
                credential="anonymous",
                connect_timeout=0.5,
            )


async def test_unknown_host_is_an_error(connect: Connect) -> None:
    with pytest.raises(ConnectError, match=r"no-such-host\.invalid cannot be resolved"):
        await connect(account_url="http://no-such-host.invalid", credential="anonymous")


async def test_port_of_another_service_is_an_error(connect: Connect) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectError, match="does not answer as a Blob service does"):
            await connect(account_url=f"http://127.0.0.1:{port}/a", credential="anonymous")


async def test_proxy_of_the_environment_is_used(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with BlobService() as proxy:
        proxy.put("a", b"content")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/account"))
        options = {"account_url": "http://blobs.invalid/account", "credential": "anonymous"}
        connector = await connect(**options)
        await connector.fetch_data("a", str(tmp_path))
        await connector.disconnect()
        assert {request.headers["host"] for request in proxy.requests} == {"blobs.invalid"}
        monkeypatch.setenv("no_proxy", "127.0.0.1,blobs.invalid")
        with pytest.raises(ConnectError, match="cannot be resolved"):
            await connect(**options)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(ConnectError, match="the proxy does not lead to blobs"):
            await connect(**options)
        monkeypatch.setenv("http_proxy", proxy.url.split("/")[2])  # without a scheme, as some do
        assert await (await connect(**options)).test_connection()


async def test_connecting_twice_keeps_the_first_session(connector: AzureBlobConnector) -> None:
    session = connector._service.session
    assert await connector.connect()
    assert connector._service.session is session


async def test_disconnected_connector_says_so(connector: AzureBlobConnector) -> None:
    await connector.disconnect()
    await connector.disconnect()
    assert not await connector.test_connection()
    with pytest.raises(ConnectError, match="source 'blobs' is not connected"):
        await connector.list_items()
    assert await connector.connect()
    assert await connector.list_items() == []


async def test_session_keeps_to_the_size_of_the_pool(
    container: ContainerClient, connector: AzureBlobConnector, azurite: AzuriteServer
) -> None:
    small = make(
        {"connection_string": azurite.connection_string, "container": container.container_name},
        max_size=2,
    )
    await small.connect()
    try:
        assert small._service.session.connector is not None
        assert small._service.session.connector.limit == 2
    finally:
        await small.disconnect()


async def _use_everything(connector: AzureBlobConnector, folder: Path) -> None:
    """Call every method, and some of them in vain."""
    await connector.list_items()
    _, continuation = await connector.list_page(limit=1)
    logging.getLogger("test").error("%s", continuation)
    await connector.list_versions("a.txt")
    await connector.get_metadata("a.txt")
    await connector.preview("a.txt")
    await connector.fetch_data("a.txt", str(folder))
    await connector.upload_file(str(folder / "a.txt"), "b.txt")
    failing: list[Awaitable[Any]] = [
        connector.fetch_data("missing", str(folder)),
        connector.get_metadata("missing"),
        connector.upload_file(str(folder / "a.txt"), "b.txt", overwrite=False),
        connector.upload_file(str(folder / "missing")),
    ]
    for call in failing:
        with pytest.raises((ItemNotFoundError, DataFetchError)) as caught:
            await call
        logging.getLogger("test").error("%s", "".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("way", WAYS)
async def test_no_secret_is_logged_or_raised_with_every_library_at_debug(
    way: str,
    azurite: AzuriteServer,
    container: ContainerClient,
    connect: Connect,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    container.upload_blob("a.txt", b"content")
    options = WAYS[way](azurite, container)
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    connector = await connect(**options)
    await _use_everything(connector, tmp_path)
    with pytest.raises(ConnectorError) as caught:
        await connect(**{**options, "container": "no-such-one"})
    logging.getLogger("test").error("%s", "".join(traceback.format_exception(caught.value)))
    logging.getLogger("test").error("%r %r %s", connector, connector.options, connector.config)
    for secret in [azurite.account_key, *connector.options.secret_values()]:
        assert secret not in caplog.text
    assert "sig=" not in caplog.text.replace("sig=***", "").replace("sig=REDACTED", "")


async def test_account_that_another_key_signs_for_is_refused_by_name(
    account: BlobServiceClient, azurite: AzuriteServer, connect: Connect
) -> None:
    with pytest.raises(ConnectorError):
        await connect(account_url=azurite.blob_endpoint + "x", account_key=azurite.account_key)
