"""A registry with a database, a container of blobs and a directory, for one principal."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from datasources import (
    Access,
    CredentialManager,
    DataSourceConfig,
    DataSourceRegistry,
    Grant,
    Principal,
)
from tests.servers import AzuriteServer, Database

# Takes minutes, and is told from other queries by its comment.
SLOW = "SELECT count(*) FROM generate_series(1, 300000) a, generate_series(1, 300000) b /* slow */"
ORDERS = "id,total\n1,9.5\n2,20\n3,7\n"
ANN = Principal(
    "ann",
    grants=[Grant("shop", {"read", "query"}), Grant("blobs", {"read"}), Grant("lake", {"read"})],
)


def running(database: Database) -> int:
    """Return how many slow queries run on the database's server."""
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'active' AND query LIKE '%/* slow */%' AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row
    return int(row[0])


@dataclass
class House:
    """The registry, and what its sources are made of."""

    registry: DataSourceRegistry
    database: Database
    container: ContainerClient
    lake: Path

    def access(self, principal: Principal = ANN) -> Access:
        return self.registry.access(principal)


@pytest.fixture
def shop(pg_database: Database) -> Database:
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int, total float8, day date, name text)")
        connection.execute(
            "INSERT INTO orders SELECT n, n / 2.0, date '2026-01-01' + n, 'n' || n"
            " FROM generate_series(1, 5) n"
        )
    return pg_database


@pytest.fixture
def container(azurite: AzuriteServer) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as client:
        container = client.create_container(f"test-{secrets.token_hex(6)}")
        container.upload_blob("2026/orders.csv", ORDERS)
        yield container
        container.delete_container()


@pytest.fixture
async def house(
    shop: Database, azurite: AzuriteServer, container: ContainerClient, tmp_path: Path
) -> AsyncIterator[House]:
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "orders.csv").write_text(ORDERS)
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "shop": ("postgresql", {"dsn": shop.dsn(), "allow_privileged_role": True}),
        "blobs": (
            "azure_blob",
            {
                "connection_string": azurite.connection_string,
                "container": container.container_name,
            },
        ),
        "lake": ("local_file", {"path": str(lake)}),
        "secret": ("local_file", {"path": str(lake)}),
    }
    key = CredentialManager(CredentialManager.generate_key())
    async with DataSourceRegistry(key, store=f"{tmp_path}/sources.db") as registry:
        for source_id, (type_, values) in options.items():
            await registry.register_data_source(DataSourceConfig(source_id, type_, "", values))
        yield House(registry, shop, container, lake)


@pytest.fixture
async def start(house: House, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start gateways, each with an upstream of its own unless one is given."""
    from tests.agents.gateways import gateways  # which imports this module

    async with gateways(house, tmp_path) as start:
        yield start
