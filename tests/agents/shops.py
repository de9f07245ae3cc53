"""A registry with a database, a container of blobs and a directory, for tests of tools."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from azure.storage.blob import ContainerClient

from datasources import (
    Access,
    DataSourceConfig,
    DataSourceRegistry,
    Grant,
    Principal,
    QueryParameter,
    StoredQuery,
)
from tests.servers import AzuriteServer, Database

SLOW = "SELECT pg_sleep(60), 'slow' AS marker"
ORDERS = 25
QUERIES = {
    "by-city": StoredQuery(
        "SELECT * FROM orders WHERE city = :city ORDER BY id",
        {"city": QueryParameter("text", description="A city")},
        "The orders of a city",
    )
}


@dataclass
class Shop:
    """A registry, the database behind its source `shop`, and the options of that source."""

    registry: DataSourceRegistry
    admin: psycopg.Connection[Any]
    options: dict[str, Any]
    canaries: list[str] = field(default_factory=list)
    """Secrets of its sources."""

    def access(self, *grants: Grant, name: str = "ann", **arguments: Any) -> Access:
        return self.registry.access(Principal(name, grants=grants), **arguments)

    def running(self, text: str = "slow") -> int:
        """Return how many statements with a text the server runs, for the sources of this shop."""
        row = self.admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND usename = %s"
            " AND query LIKE %s",
            [self.options["user"], f"%{text}%"],
        ).fetchone()
        assert row is not None
        return int(row[0])

    async def add(self, source_id: str, type: str, **options: Any) -> None:
        await self.registry.register_data_source(
            DataSourceConfig(source_id, type, source_id.title(), options)
        )


@asynccontextmanager
async def open_shop(database: Database, directory: Path) -> AsyncIterator[Shop]:
    """Open a registry with the sources `shop`, a database, and `lake`, a directory."""
    role, password = f"agent_{secrets.token_hex(4)}", f"canary-{secrets.token_hex(8)}"
    (directory / "lake/2026").mkdir(parents=True)
    (directory / "lake/notes.csv").write_text("id,note\n1,first\n2,second\n", "utf-8")
    (directory / "lake/2026/jan.csv").write_text("id\n1\n", "utf-8")
    with psycopg.connect(database.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        admin.execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}")
        admin.execute("CREATE TABLE orders (id int PRIMARY KEY, city text, total numeric)")
        admin.execute(
            "INSERT INTO orders SELECT n, CASE WHEN n % 2 = 0 THEN 'Oslo' ELSE 'Bern' END, n * 1.5"
            f" FROM generate_series(1, {ORDERS}) AS n"
        )
        admin.execute("COMMENT ON COLUMN orders.total IS 'In euros'")
        admin.execute("ANALYZE orders")
        options = {
            "host": database.host,
            "port": database.port,
            "database": database.name,
            "user": role,
            "password": password,
            "allowed_functions": "pg_sleep",
        }
        async with DataSourceRegistry() as registry:
            shop = Shop(registry, admin, options, [password])
            await registry.register_data_source(
                DataSourceConfig("shop", "postgresql", "Shop", options, queries=QUERIES)
            )
            await shop.add("lake", "local_file", path=str(directory / "lake"))
            yield shop
        admin.execute(f"DROP OWNED BY {role}")
        admin.execute(f"DROP ROLE {role}")


async def add_blobs(shop: Shop, azurite: AzuriteServer) -> ContainerClient:
    """Add the source `blobs`, a new container; return the SDK's client of it."""
    connection = azurite.connection_string
    name = f"agents-{secrets.token_hex(6)}"
    container = ContainerClient.from_connection_string(connection, name)
    container.create_container()
    await shop.add("blobs", "azure_blob", connection_string=connection, container=name)
    shop.canaries.append(azurite.account_key)
    return container
