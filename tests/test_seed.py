"""The examples of the first specification, as they were written, on real services.

`API.datasources` is read as `datasources`, and connectors come from their own distributions.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035  (as the examples spell them)

import pytest
from azure.storage.blob import BlobServiceClient

from datasources import (
    ConnectionPoolManager,
    CredentialManager,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceRegistry,
    DataSourceType,
    PoolConfig,
)
from datasources_azure_blob import AzureBlobConnector
from datasources_local_file import LocalFileConnector
from tests.servers import AzuriteServer


@pytest.fixture
def container(azurite: AzuriteServer) -> str:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        name = f"seed-{os.urandom(6).hex()}"
        service.create_container(name).upload_blob("data/sales.csv", b"a,b\n1,2\n")
    return name


@pytest.fixture
async def registry(azurite: AzuriteServer, container: str) -> AsyncIterator[DataSourceRegistry]:
    """Basic set-up, and the registration with a connection test."""
    credential_manager = CredentialManager()
    registry = DataSourceRegistry(credential_manager=credential_manager)
    registry.register_connector_class(DataSourceType.AZURE_BLOB, AzureBlobConnector)
    config = DataSourceConfig(
        id="my-azure-storage",
        type=DataSourceType.AZURE_BLOB,
        name="Production Azure Storage",
        config={"connection_string": azurite.connection_string, "container": container},
        metadata={"environment": "production", "owner": "data-team"},
    )
    await registry.register_data_source(config, test_connection=True)
    yield registry
    await registry.disconnect_all()


async def test_use_a_data_source(registry: DataSourceRegistry, tmp_path: Path) -> None:
    connector = await registry.get_connector("my-azure-storage")
    items = await connector.list_items()
    assert [f"{item.name}: {item.size} bytes" for item in items] == ["sales.csv: 8 bytes"]
    local_path = await connector.fetch_data(identifier="data/sales.csv", workspace=str(tmp_path))
    assert local_path == str(tmp_path / "data" / "sales.csv")
    assert Path(local_path).read_bytes() == b"a,b\n1,2\n"


async def test_manage_data_sources(registry: DataSourceRegistry, azurite: AzuriteServer) -> None:
    data_sources = registry.list_data_sources()
    lines = [f"{ds.name} ({ds.type.value})" for ds in data_sources]
    assert lines == ["Production Azure Storage (azure_blob)"]
    config = registry.get_config("my-azure-storage", sanitize=True)
    assert config.config["connection_string"] == "***REDACTED***"
    assert azurite.account_key not in str(config.config)
    is_connected = await registry.test_connection("my-azure-storage")
    assert is_connected is True
    await registry.unregister_data_source("my-azure-storage")
    assert not registry.exists("my-azure-storage")


async def test_metadata_caching() -> None:
    registry = DataSourceRegistry()
    metadata = {"tables": ["users", "orders", "products"]}
    registry.cache_metadata("my-database", metadata)
    assert registry.get_cached_metadata("my-database") == metadata
    registry.clear_cache("my-database")
    assert registry.get_cached_metadata("my-database") is None
    registry.cache_metadata("my-database", metadata)
    registry.clear_cache()
    assert registry.get_cached_metadata("my-database") is None


class Connection:
    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> str:
        return Path(self.path).read_text()

    def close(self) -> None:
        self.path = ""


def create_connection(options: Dict[str, Any]) -> Any:  # noqa: UP006
    return Connection(options["path"])


class MyCustomConnector(DataSourceConnector):
    """The custom connector: six methods and nothing else."""

    async def connect(self) -> bool:
        # Establish connection
        self._connection = create_connection(self.config.config)
        return True

    async def disconnect(self) -> None:
        # Close connection
        if self._connection:
            self._connection.close()
            self._connection = None

    async def test_connection(self) -> bool:
        # Test if connection works
        try:
            await self.connect()
            # Perform simple test operation
            return True
        except Exception:  # noqa: BLE001
            return False
        finally:
            await self.disconnect()

    async def list_items(self, path: Optional[str] = None) -> List[DataItem]:  # noqa: UP006, UP045
        # List available items
        items = [DataItem(name="data.csv", path="data.csv")]
        return items  # noqa: RET504

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        # Fetch data and save to workspace
        local_path = os.path.join(workspace, "data.csv")
        with open(local_path, "w", encoding="utf-8") as file:  # noqa: ASYNC230
            file.write(self._connection.read())
        return local_path

    async def get_metadata(self, identifier: str) -> Dict[str, Any]:  # noqa: UP006
        # Get metadata for item
        metadata = {"lines": 2}
        return metadata  # noqa: RET504


async def test_a_custom_connector_works_unchanged(tmp_path: Path) -> None:
    (tmp_path / "origin").write_text("x\n1\n")
    (tmp_path / "workspace").mkdir()
    async with DataSourceRegistry() as registry:
        registry.register_connector_class(DataSourceType.CUSTOM, MyCustomConnector)
        config = DataSourceConfig(
            id="mine",
            type=DataSourceType.CUSTOM,
            name="Mine",
            config={"path": str(tmp_path / "origin")},
        )
        await registry.register_data_source(config, test_connection=True)
        assert await registry.test_connection("mine") is True
        assert [item.name for item in await registry.list_items("mine")] == ["data.csv"]
        receipt = await registry.fetch("mine", "data.csv", tmp_path / "workspace")
        assert Path(receipt.path).read_text() == "x\n1\n"
        assert await registry.get_metadata("mine", "data.csv") == {"lines": 2}


async def test_connection_pooling(tmp_path: Path) -> None:
    (tmp_path / "query").write_text("rows")
    config = DataSourceConfig("my-database", DataSourceType.LOCAL_FILE, "", {"path": str(tmp_path)})
    manager = ConnectionPoolManager(default_config=PoolConfig(max_size=10, min_size=2))
    pool = await manager.get_pool(
        data_source_id="my-database", connector_factory=lambda: LocalFileConnector(config)
    )
    connector = await pool.acquire()
    try:
        data = await connector.fetch_data("query", str(tmp_path / "workspace"))
        assert Path(data).read_text() == "rows"
        stats = manager.get_pool_stats("my-database")
        assert f"Pool: {stats['in_use']}/{stats['total']}".startswith("Pool: 1/")
    finally:
        await pool.release(connector)
    await manager.close_all()
