"""A cluster of processes, a store that its workers share, and sources on databases of their own."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString

import dask
import pandas as pd
import psycopg
import pytest
from distributed import Client, LocalCluster
from psycopg import sql

from datasources import CredentialManager, DataSourceConfig
from datasources.blocking import DataSourceRegistry
from tests.dask.gate import Gate
from tests.servers import Database

KEY = CredentialManager.generate_key()
CONFIG = "[pool]\nmax_size = 3\nacquire_timeout = 60\n"
SETTINGS = {
    # A worker that is only slow keeps its leases; `take_back_leases` ends those of a killed one.
    "distributed.scheduler.locks.lease-timeout": "10 minutes",
    "distributed.scheduler.locks.lease-validation-interval": "1s",
    # A killed worker is started again, which takes longer on a busy machine than a cluster waits.
    "distributed.deploy.lost-worker-timeout": "5 minutes",
}

Environment = Mapping[str, str]
Rows = Counter[tuple[Any, ...]]


@dataclass
class Shop:
    """A source on a database behind a gate, and the superuser's connection to the database."""

    id: str
    admin: psycopg.Connection
    gate: Gate
    database: Database
    role: str
    password: str

    def connections(self) -> int:
        """Return how many connections the source's role has."""
        return self._count("usename = %s")

    def transactions(self) -> int:
        """Return how many transactions of the source's role are open."""
        return self._count("usename = %s AND xact_start IS NOT NULL")

    def _count(self, condition: LiteralString) -> int:
        query = f"SELECT count(*) FROM pg_stat_activity WHERE {condition}"
        row = self.admin.execute(query, [self.role]).fetchone()
        assert row is not None
        return int(row[0])

    def fill(self, name: str, rows: int = 3000) -> Rows:
        """Make a table of six splits, of which each has about 160 kB, and return its rows."""
        self.admin.execute(
            f"CREATE TABLE {name} AS SELECT i, repeat('x', 300) AS text, (i / 4.0)::numeric(9, 2)"
            f" AS amount FROM generate_series(1, {rows}) AS i".encode()
        )
        return Counter((i, "x" * 300, Decimal(25 * i) / 100) for i in range(1, rows + 1))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The variables by which every process finds the store that all share."""
    directory = tmp_path_factory.mktemp("dask")
    (directory / "config.toml").write_text(CONFIG)
    return {
        "DATASOURCES_STORE": str(directory / "sources.db"),
        "DATASOURCES_CONFIG": str(directory / "config.toml"),
        "DATASOURCE_ENCRYPTION_KEY": KEY,
    }


@contextmanager
def clustered(environment: Environment, workers: int) -> Iterator[Client]:
    """Start a cluster of processes for a block; its client is not the current one."""
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=2,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # other processes have clusters, too
            env=dict(environment),
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def take_back_leases(client: Client) -> None:
    """Have the scheduler take back what workers have leased so far, at once or when they get it.

    A killed worker can still get a lease that it was waiting for.
    """

    def shorten(dask_scheduler: Any) -> None:
        timeouts = dask_scheduler.extensions["semaphores"].lease_timeouts
        timeouts.update(dict.fromkeys(timeouts, 1.0))

    client.run_on_scheduler(shorten)


@pytest.fixture(scope="session")
def shared_cluster(environment: Environment) -> Iterator[Client]:
    """A cluster of two processes for the whole session."""
    with clustered(environment, 2) as client:
        yield client


@pytest.fixture
def cluster(shared_cluster: Client) -> Iterator[Client]:
    """The shared cluster, whose client is the current one for a test and not for those of others."""
    with shared_cluster.as_current():
        yield shared_cluster


@pytest.fixture
def registry(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DataSourceRegistry]:
    """The store that all share, which this process finds as well."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with DataSourceRegistry(store=os.environ["DATASOURCES_STORE"]) as registry:
        yield registry


@pytest.fixture
def shop(registry: DataSourceRegistry, pg_database: Database) -> Iterator[Shop]:
    """A source on a database, whose tables a role of its own reads."""

    def register(source_id: str, options: dict[str, Any]) -> None:
        registry.register_data_source(DataSourceConfig(source_id, "postgresql", "Shop", options))

    with made_shop(pg_database, register) as shop:
        yield shop


@contextmanager
def made_shop(
    database: Database, register: Callable[[str, dict[str, Any]], object]
) -> Iterator[Shop]:
    """Make a role on a database, and register a source by its id and options, for a block."""
    role, password = f"reader_{secrets.token_hex(4)}", f"planted-{secrets.token_hex(8)}"
    name = sql.Identifier(role)
    with (
        Gate(database.port) as gate,
        psycopg.connect(database.dsn(), autocommit=True) as admin,
    ):
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, password))
        admin.execute(sql.SQL("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {}").format(name))
        shop = Shop(f"shop-{secrets.token_hex(4)}", admin, gate, database, role, password)
        options = {
            "host": database.host,
            "port": gate.port,
            "database": database.name,
            "user": role,
            "password": password,
        }
        register(shop.id, options)
        yield shop
    with psycopg.connect(database.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP OWNED BY {}").format(name))
        admin.execute(sql.SQL("DROP ROLE {}").format(name))


@pytest.fixture
def lake(registry: DataSourceRegistry, tmp_path: Path) -> tuple[str, Path]:
    """The id of a source that takes uploads, and its directory."""
    path = tmp_path / "lake"
    path.mkdir()
    source_id = f"lake-{secrets.token_hex(4)}"
    config = {"path": str(path), "writable": True}
    registry.register_data_source(DataSourceConfig(source_id, "local_file", "Lake", config))
    return source_id, path


def rows_of(frame: pd.DataFrame) -> Rows:
    """Return the rows of a frame, each as often as it has it."""
    return Counter(frame.itertuples(index=False, name=None))
