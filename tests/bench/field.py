"""Every operation on a small table of Debian's PostgreSQL: `pytest -s tests/bench/field.py`.

The server is as delivered, with JIT, and the table has 100 rows, so that all that counts is what
an operation adds to its query. Beside each operation run `psql -c` with a query for the same, with
the start of its process and its connection, and psycopg with that query on an open connection.
The connector's pool is warm. Rounds go through all three, and ratios are taken within a round.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from datasources import Workspace
from datasources_postgresql import PostgreSQLConnector
from tests.conftest import _served
from tests.field.operations import OPERATIONS, QUERY, SMALL_TABLE
from tests.postgresql.conftest import PASSWORD, configured, readable
from tests.servers import Database
from tests.servers.debian import INSTALL, DebianPostgresServer
from tests.servers.proxy import SilentProxy

ROUNDS = 15
MOST_RATIO = 3.0  # to psql
MOST_SECONDS = 0.05  # in the fastest round: a median doubles where others use the machine
TITLES = ["ours", "psql", "ratio", "psycopg", "added", "trips"]


def _figures(*columns: str) -> str:
    figures = [f"count({name}), min({name}), max({name}), avg({name})" for name in columns]
    return f"SELECT {', '.join(figures)} FROM "


_LIST = "SELECT table_schema, table_name, table_type FROM information_schema.tables"
_COLUMNS = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{}'"
SAME: dict[str, str] = {
    "test_connection": "SELECT 1",
    "list_items": _LIST,
    "list_items of a schema": f"{_LIST} WHERE table_schema = 'public'",
    "glob_items": f"{_LIST} WHERE table_schema = 'public'",
    "get_metadata": _COLUMNS.format("orders"),
    "get_metadata, exact rows": "SELECT count(*) FROM orders",
    "get_metadata of a view": _COLUMNS.format("recent"),
    "get_metadata of a query": f"EXPLAIN VERBOSE {QUERY}",
    "preview": "SELECT * FROM orders LIMIT 11",
    "preview of a view": "SELECT * FROM recent LIMIT 11",
    "preview of a query": QUERY,
    "statistics": _figures("id", "customer", "amount") + "orders",
    "statistics of a query": _figures("customer", "total") + f"({QUERY}) AS q",
    "fetch_data": "SELECT * FROM orders",
    "fetch_data of a view": "SELECT * FROM recent",
    "fetch_data of a query": QUERY,
    "fetch_data, Parquet": "SELECT * FROM orders",
    "read_table": "SELECT * FROM orders",
}
"""By operation, a query that asks for about the same."""


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    for server in _served(DebianPostgresServer()):
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for role in ("reader", "owner"):
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
            readable(connection)
            connection.execute(SMALL_TABLE)
        yield server.at(server.database)


@pytest.fixture
async def connector(database: Database) -> AsyncIterator[PostgreSQLConnector]:
    connector = configured(database)
    await connector.connect()
    yield connector
    await connector.disconnect()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


async def seconds_of(connector: PostgreSQLConnector, name: str, workspace: Workspace) -> float:
    started = time.perf_counter()
    await OPERATIONS[name](connector, workspace)
    return time.perf_counter() - started


def seconds_of_psql(conninfo: str, query: str) -> float:
    command = [str(INSTALL / "bin" / "psql"), "-Xqc", query, conninfo]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def seconds_of_psycopg(connection: psycopg.Connection, query: str) -> float:
    started = time.perf_counter()
    connection.execute(query.encode()).fetchall()
    return time.perf_counter() - started


async def round_trips(database: Database, workspace: Workspace) -> dict[str, int]:
    """Return how often each operation, with a warm pool, waits for the server."""
    round_trips = {}
    with SilentProxy(database.port) as proxy:
        connector = configured(proxy.in_front_of(database))
        await connector.connect()
        for name, operation in OPERATIONS.items():
            await operation(connector, workspace)
            before = proxy.round_trips
            await operation(connector, workspace)
            round_trips[name] = proxy.round_trips - before
        await connector.disconnect()
    return round_trips


@pytest.mark.bench
async def test_operations_on_a_small_table_take_little_more_than_their_query(
    database: Database, connector: PostgreSQLConnector, workspace: Workspace
) -> None:
    trips = await round_trips(database, workspace)
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in OPERATIONS}
    conninfo = replace(database, user="reader", password=PASSWORD).dsn()
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for number in range(ROUNDS + 1):
            for name, query in SAME.items():
                figures = (
                    await seconds_of(connector, name, workspace),
                    seconds_of_psql(conninfo, query),
                    seconds_of_psycopg(connection, query),
                )
                if number > 0:  # the first round imports modules and fills caches
                    taken[name].append(figures)

    columns = "".join(f"{title:>9}" for title in TITLES)
    print(f"\n{'medians, ms':26}{columns}")
    ratios, fastest = {}, {}
    for name, rounds in taken.items():
        ours, psql, open_connection = (
            statistics.median(one[which] for one in rounds) for which in range(3)
        )
        ratios[name] = statistics.median(one[0] / one[1] for one in rounds)
        fastest[name] = min(one[0] for one in rounds)
        print(
            f"{name:26}{ours * 1e3:9.1f}{psql * 1e3:9.1f}{ratios[name]:9.2f}"
            f"{open_connection * 1e3:9.1f}{(ours - open_connection) * 1e3:9.1f}{trips[name]:9}"
        )
    assert {name: ratio for name, ratio in ratios.items() if ratio > MOST_RATIO} == {}
    assert {name: seconds for name, seconds in fastest.items() if seconds > MOST_SECONDS} == {}
