"""File systems on a directory and on a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from datasources import DataSourceConfig
from datasources.blocking import DataSourceRegistry
from datasources_fsspec import DataSourceFileSystem
from tests.servers import Database

ORDERS = """
CREATE TABLE orders (id integer PRIMARY KEY, country text, amount double precision);
INSERT INTO orders SELECT n, (ARRAY['FR', 'JP', 'US'])[1 + n % 3], n * 1.5
    FROM generate_series(1, 12) AS n;
CREATE VIEW big AS SELECT * FROM orders WHERE amount > 10;
"""


@pytest.fixture
def registry() -> Iterator[DataSourceRegistry]:
    """A registry without sources."""
    with DataSourceRegistry() as registry:
        yield registry
    DataSourceFileSystem.clear_instance_cache()


@pytest.fixture
def lake(registry: DataSourceRegistry, tmp_path: Path) -> Path:
    """The directory of the source `lake`, which takes files."""
    folder = tmp_path / "lake"
    folder.mkdir()
    registry.register_data_source(
        DataSourceConfig("lake", "local_file", "", {"path": str(folder), "writable": True})
    )
    return folder


@pytest.fixture
def reports(lake: Path) -> Path:
    """A folder of the source `lake` with two files."""
    folder = lake / "reports"
    folder.mkdir()
    (folder / "2023.csv").write_bytes(b"x,y\n1,2\n")
    (folder / "2024.csv").write_bytes(b"x,y\n3,4\n5,6\n")
    return folder


@pytest.fixture
def shop(registry: DataSourceRegistry, pg_database: Database) -> Database:
    """The database of the source `shop`."""
    import psycopg

    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        connection.execute(ORDERS)
    registry.register_data_source(shop_config(pg_database))
    return pg_database


def shop_config(database: Database) -> DataSourceConfig:
    return DataSourceConfig(
        "shop",
        "postgresql",
        "",
        {
            "host": database.host,
            "port": database.port,
            "database": database.name,
            "user": database.user,
            "password": database.password,
            "allow_privileged_role": True,
        },
    )


@pytest.fixture
def fs(registry: DataSourceRegistry) -> DataSourceFileSystem:
    """A file system on the registry, for code without an event loop."""
    fs: DataSourceFileSystem = fsspec.filesystem("datasource", registry=registry)
    return fs
