"""How soon: after a restart, a cancellation, another host's change; and of very many tables.

What must come at all is for the other tests; here is how long it takes, in one run on this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psycopg
import pytest

from datasources import ConnectorError, Limits, StoredSource, Workspace
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.store import PostgreSQLStore
from tests.azure_blob.conftest import make
from tests.bench.measuring import measured
from tests.postgresql.conftest import active, configured
from tests.servers import AzuriteServer, Database, PostgresServer
from tests.waiting import wait_until, wait_until_blocking

pytestmark = pytest.mark.bench

ROUNDS = 5


def show(what: str, seconds: list[float]) -> float:
    """Print and return the longest of the rounds."""
    print(f"\n{what:48}{max(seconds) * 1000:10.0f} ms at most of {len(seconds)}")
    return max(seconds)


async def until_success(attempt: Callable[[], Awaitable[object]]) -> float:
    """Return the seconds until an attempt succeeds."""
    started = time.monotonic()
    while True:
        try:
            await attempt()
        except ConnectorError:
            await asyncio.sleep(0.01)
        else:
            return time.monotonic() - started


@pytest.fixture
async def reader(pg_database: Database) -> AsyncIterator[PostgreSQLConnector]:
    connector = configured(
        pg_database,
        user=pg_database.user,
        password=pg_database.password,
        allow_privileged_role=True,
        allowed_functions="pg_sleep",
    )
    await connector.connect()
    yield connector
    await connector.disconnect()


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_postgresql_is_read_again_once_it_is_back(
    postgres: PostgresServer, reader: PostgreSQLConnector, how: str
) -> None:
    seconds = []
    for _ in range(ROUNDS):
        await asyncio.gather(*(reader.list_items() for _ in range(5)))
        await asyncio.to_thread(getattr(postgres, how))
        await asyncio.to_thread(postgres.start)
        seconds.append(await until_success(reader.list_items))
    assert show(f"first answer of PostgreSQL after a {how}", seconds) < 2


async def test_azure_blob_is_read_again_once_it_is_back(
    azurite: AzuriteServer, tmp_path: Path
) -> None:
    with AzuriteServer(persistent=True, cache=azurite._cache) as server:
        from azure.storage.blob import ContainerClient

        with ContainerClient.from_connection_string(server.connection_string, "data") as client:
            client.create_container()
            client.upload_blob("blob", b"content")
        server.restart()  # it writes down what it has when it ends in good order
        options = {"connection_string": server.connection_string, "container": "data"}
        connector = make(options)
        await connector.connect()
        seconds = []
        for _ in range(ROUNDS):
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            seconds.append(await until_success(lambda: connector.fetch_data("blob", str(tmp_path))))
        await connector.disconnect()
    assert show("first blob after a kill", seconds) < 2


@pytest.mark.parametrize("query", ["SELECT pg_sleep(60)", "SELECT generate_series(1, 1e9)"])
async def test_query_of_a_cancelled_fetch_ends(
    reader: PostgreSQLConnector, pg_database: Database, tmp_path: Path, query: str
) -> None:
    workspace = Workspace(tmp_path, limits=Limits(max_rows=None, max_bytes=None))
    seconds = []
    with psycopg.connect(pg_database.dsn(), autocommit=True) as admin:
        for _ in range(ROUNDS):
            fetch = asyncio.create_task(reader.fetch_data(query, workspace))
            await wait_until(lambda: active(admin, query))
            started = time.monotonic()
            fetch.cancel()
            await wait_until(lambda: not active(admin, query))
            seconds.append(time.monotonic() - started)
            await asyncio.wait([fetch])
    assert show(f"end of a cancelled {query}", seconds) < 1


def test_change_of_another_host_is_seen(pg_database: Database) -> None:
    mine, theirs = PostgreSQLStore(pg_database.dsn()), PostgreSQLStore(pg_database.dsn())
    seconds = []
    for number in range(ROUNDS):
        mine.add(StoredSource(f"s{number}", "custom", "x", 1.0, {}, None, None, ""))
        started = time.monotonic()
        wait_until_blocking(lambda: theirs.list() == mine.list())
        seconds.append(time.monotonic() - started)
    for store in (mine, theirs):
        store.close()
    assert show("change of a store, at another host", seconds) < 1


async def test_five_thousand_tables_are_listed(
    reader: PostgreSQLConnector, pg_database: Database
) -> None:
    with psycopg.connect(pg_database.dsn(), autocommit=True) as admin:
        for start in range(0, 5000, 50):  # each batch of locks fits the server's lock table
            admin.execute(
                ";".join(f"CREATE TABLE t{n} (id int, name text)" for n in range(start, start + 50))
            )
    seconds = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        assert len(await reader.list_items()) == 5000
        seconds.append(time.monotonic() - started)
    assert show("listing of 5000 tables", seconds) < 1


async def test_one_wide_row_does_not_stall_the_event_loop(
    reader: PostgreSQLConnector, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path, limits=Limits(max_rows=None, max_bytes=None))
    stalls = []
    for _ in range(ROUNDS):
        _, figures = await measured(
            lambda: reader.fetch_data(
                "SELECT repeat('x', n) FROM generate_series(10000000, 10000000) n", workspace
            )
        )
        stalls.append(figures["stall"])
    assert show("stall while a row of 10 MB arrives", stalls) < 0.05
