"""A database with a role that reads it, and connected sources on it."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from datasources import DataSourceConfig, DataSourceType, Limits, PoolConfig, Workspace
from datasources_postgresql import PostgreSQLConnector
from tests.servers import Database, PostgresServer

PASSWORD = "correct-horse-battery"

Admin = psycopg.Connection
Source = Callable[..., Awaitable[PostgreSQLConnector]]
Report = Callable[[str], None]


@pytest.fixture(scope="session")
def pg_roles(postgres: PostgresServer) -> PostgresServer:
    """Make the roles that tests log in as: one that reads, one that owns tables."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        for role in ("reader", "owner"):
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    return postgres


@pytest.fixture
def admin(pg_roles: PostgresServer, pg_database: Database) -> Iterator[Admin]:
    """The superuser's connection to the test's database, whose tables `reader` may read."""
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        readable(connection)
        yield connection


@pytest.fixture
async def source(pg_database: Database) -> AsyncIterator[Source]:
    """Connect sources on the test's database; they are disconnected afterwards."""
    opened: list[PostgreSQLConnector] = []

    async def connect(*, pool: PoolConfig | None = None, **options: Any) -> PostgreSQLConnector:
        connector = configured(pg_database, **options)
        opened.append(connector)
        if pool is not None:
            connector.pool_config = pool
        await connector.connect()
        return connector

    yield connect
    for connector in opened:
        await connector.disconnect()


@pytest.fixture
async def reader(admin: Admin, source: Source) -> PostgreSQLConnector:
    """A source of the role `reader`."""
    return await source()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line that is seen: what a soak test tried, and what survived."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n    {line}")

    return show


def readable(connection: Admin) -> None:
    connection.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader")
    connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO owner")
    connection.execute("ALTER DEFAULT PRIVILEGES FOR ROLE owner GRANT SELECT ON TABLES TO reader")


def configured(database: Database, /, **options: Any) -> PostgreSQLConnector:
    """Return an unconnected source of the role `reader`; an option of None is left out."""
    values = {
        "host": database.host,
        "port": database.port,
        "database": database.name,
        "user": "reader",
        "password": PASSWORD,
        **options,
    }
    values = {name: value for name, value in values.items() if value is not None}
    return PostgreSQLConnector(DataSourceConfig("pg", DataSourceType.POSTGRESQL, "Test", values))


def rows_of(path: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(Path(path).read_text(), newline="")))


def with_limits(workspace: Workspace, **limits: Any) -> Workspace:
    return Workspace(workspace, limits=Limits(**limits))


def active(admin: Admin, text: str) -> int:
    """Return how many sessions run a statement that contains `text`, or wait in a transaction."""
    return number(
        admin,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state <> 'idle' AND query LIKE %s AND pid <> pg_backend_pid()",
        f"%{text}%",
    )


def sessions(admin: Admin, user: str = "reader") -> int:
    """Return how many sessions a role has on the database; those of tests before may be ending."""
    query = "WHERE datname = current_database() AND usename = %s"
    return number(admin, f"SELECT count(*) FROM pg_stat_activity {query}", user)


def number(admin: Admin, query: str, *parameters: object) -> int:
    row = admin.execute(query, parameters).fetchone()
    assert row is not None
    return int(row[0])
