"""The example of SQLite databases keeps the contract on real files."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from datasources import (
    DataFetchError,
    DataSourceConfig,
    DataSourceType,
    ItemNotFoundError,
    PolicyError,
)
from datasources.testing import ConnectorContract, Subject
from tests.conftest import IN_CI

if not IN_CI:
    pytest.importorskip("datasources_sqlite", reason="examples/sqlite is not installed")
from datasources_sqlite.connector import SQLiteConnector

ROWS = 9_000
SEED = f"""
CREATE TABLE orders (id integer PRIMARY KEY, note text NOT NULL, price);
INSERT INTO orders VALUES (1, 'one', 9.5), (2, '', NULL), (3, 'a, "b"', x'00ff');
CREATE TABLE "Odd ""Name" (x);
CREATE TABLE numbers (n, text);
WITH RECURSIVE seq(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM seq WHERE n < {ROWS})
INSERT INTO numbers SELECT n, 'row ' || n FROM seq;
CREATE TABLE changing AS SELECT 0 AS n, 'row' AS text FROM numbers;
"""
ITEMS = {
    "orders": b'id,note,price\n1,one,9.5\n2,"",\n3,"a, ""b""",\\x00ff\n',
    'Odd "Name': b"x\n",
    "numbers": b"n,text\n" + b"".join(b"%d,row %d\n" % (n, n) for n in range(1, ROWS + 1)),
}
WRITES = [
    "WITH x AS (SELECT 1) INSERT INTO orders SELECT 9, 'x', 1 FROM x",
    "WITH x AS (SELECT 1) DELETE FROM orders",
    "WITH x AS (SELECT 1) UPDATE orders SET note = 'x'",
    "DROP TABLE orders",
    "SELECT 1; DROP TABLE orders",
    "ATTACH 'other.db' AS other",
]
ENDLESS = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT max(n) FROM s"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("databases") / "shop #1?.db"
    connection = sqlite3.connect(path)
    connection.executescript(SEED)
    connection.close()
    return path


def change(database: Path) -> tuple[str, bytes]:
    """Change every row of a table."""
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.execute("UPDATE changing SET n = n + 1")
        (number,) = connection.execute("SELECT max(n) FROM changing").fetchone()
    return "changing", b"n,text\n" + b"%d,row\n" % number * ROWS


class TestContract(ConnectorContract):
    connector_class = SQLiteConnector

    @pytest.fixture
    def subject(self, database: Path) -> Subject:
        return Subject(
            connector_class=SQLiteConnector,
            type="sqlite",
            options={"path": str(database)},
            items=ITEMS,
            missing="nothing",
            tables={"orders": 3, 'Odd "Name': 0},
            abilities={"preview", "parameters"},
            echo="SELECT :value AS value",
            unreachable={"path": str(database.parent / "missing.db")},
            queries={
                "SELECT id FROM orders ORDER BY id": b"id\n1\n2\n3\n",
                "SELECT 1 AS n WHERE 0": b"n\n",
            },
            writes=WRITES,
            slow=ENDLESS,
            large="SELECT a.n, b.text FROM numbers a, numbers b",
            change=lambda: change(database),
        )


@pytest.fixture
async def connector(database: Path) -> AsyncIterator[SQLiteConnector]:
    options = {"path": str(database)}
    connector = SQLiteConnector(DataSourceConfig("s", DataSourceType("sqlite"), "", options))
    await connector.connect()
    yield connector
    await connector.disconnect()


async def test_a_query_is_fetched(connector: SQLiteConnector, tmp_path: Path) -> None:
    path = await connector.fetch_data("select count(*) as n from numbers", str(tmp_path))
    assert Path(path).read_bytes() == b"n\n%d\n" % ROWS


@pytest.mark.parametrize(
    "statement",
    [
        "WITH x AS (SELECT 1) INSERT INTO orders SELECT 9, 'x', 1 FROM x",
        "SELECT load_extension('x')",
        "WITH x AS (SELECT 1) DELETE FROM orders",
        "WITH x AS (SELECT 1) UPDATE orders SET note = 'x'",
    ],
)
async def test_a_query_only_reads(
    connector: SQLiteConnector, database: Path, tmp_path: Path, statement: str
) -> None:
    before = database.read_bytes()
    with pytest.raises(PolicyError):
        await connector.fetch_data(statement, str(tmp_path))
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("ATTACH 'other.db' AS other", ItemNotFoundError),
        ("PRAGMA journal_mode = DELETE", ItemNotFoundError),
        ("DROP TABLE orders", ItemNotFoundError),
        ("SELECT 1; DROP TABLE orders", DataFetchError),
        ("SELECT * FROM nothing", DataFetchError),
        ("SELECT '\ud800'", DataFetchError),
    ],
)
async def test_other_statements_are_refused(
    connector: SQLiteConnector, tmp_path: Path, statement: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await connector.fetch_data(statement, str(tmp_path))


async def test_an_endless_query_ends_when_it_is_cancelled(
    connector: SQLiteConnector, tmp_path: Path
) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connector.fetch_data(ENDLESS, str(tmp_path))
    assert await connector.test_connection()
