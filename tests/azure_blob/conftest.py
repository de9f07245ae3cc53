"""A container of one's own in Azurite, and connectors to it that are closed afterwards."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from datasources import DataSourceConfig, DataSourceType, PoolConfig
from datasources_azure_blob import AzureBlobConnector
from tests.servers import AzuriteServer
from tests.servers.blob_server import BlobService

Connect = Callable[..., Awaitable[AzureBlobConnector]]


def make(options: dict[str, Any], *, max_size: int = 10) -> AzureBlobConnector:
    """Return a connector, not connected."""
    connector = AzureBlobConnector(
        DataSourceConfig("blobs", DataSourceType.AZURE_BLOB, "Blobs", options)
    )
    connector.pool_config = PoolConfig(max_size=max_size)
    return connector


@pytest.fixture
def account(azurite: AzuriteServer) -> Iterator[BlobServiceClient]:
    """The SDK's client of the account, to prepare and to compare with."""
    with BlobServiceClient.from_connection_string(azurite.connection_string) as client:
        yield client


@pytest.fixture
def container(account: BlobServiceClient) -> Iterator[ContainerClient]:
    """A new, empty container, as the SDK sees it."""
    client = account.create_container(f"test-{secrets.token_hex(6)}")
    yield client
    client.delete_container()


@pytest.fixture
async def connect(azurite: AzuriteServer, container: ContainerClient) -> AsyncIterator[Connect]:
    """Connect to the container, by default with the connection string."""
    opened: list[AzureBlobConnector] = []

    async def connect(**options: Any) -> AzureBlobConnector:
        if not {"account_url", "connection_string"} & set(options):
            options["connection_string"] = azurite.connection_string
        connector = make({"container": container.container_name, **options})
        opened.append(connector)
        await connector.connect()
        return connector

    yield connect
    for connector in opened:
        await connector.disconnect()


@pytest.fixture
async def connector(connect: Connect) -> AzureBlobConnector:
    return await connect()


@pytest.fixture
async def service() -> AsyncIterator[BlobService]:
    """A server of our own, which counts requests and fails when told to."""
    async with BlobService() as service:
        yield service


@pytest.fixture
async def local(service: BlobService) -> AsyncIterator[AzureBlobConnector]:
    """A connector of that server."""
    connector = make({"account_url": service.url, "container": "data", "credential": "anonymous"})
    await connector.connect()
    service.requests.clear()
    yield connector
    await connector.disconnect()
