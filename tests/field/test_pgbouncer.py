"""Through a pooler that gives each transaction any session: nothing is left in one, nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from datasources import (
    ConnectError,
    DataSourceError,
    DataSourceRegistry,
    LimitExceededError,
    PoolConfig,
    Workspace,
)
from tests.conftest import _served
from tests.field.conftest import ROLES
from tests.field.operations import OPERATIONS, SMALL_TABLE
from tests.postgresql.conftest import (
    PASSWORD,
    Admin,
    Source,
    active,
    configured,
    number,
    rows_of,
    with_limits,
)
from tests.servers import Database
from tests.servers.debian import DebianPostgresServer
from tests.servers.pgbouncer import PgBouncerServer
from tests.waiting import wait_until

# What a session looks like to the next client: settings, prepared statements, locks, tables.
LEFTOVERS = """
SELECT (SELECT array_agg(name || '=' || setting ORDER BY name) FROM pg_settings
        WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding')),
    (SELECT count(*) FROM pg_prepared_statements),
    (SELECT count(*) FROM pg_cursors WHERE name <> ''),
    (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
    (SELECT count(*) FROM pg_listening_channels())
"""
NOTHING = (None, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def one_session(field_postgres: DebianPostgresServer) -> Iterator[PgBouncerServer]:
    """A pooler with one session on the server for each role, so that everybody shares it."""
    yield from _served(PgBouncerServer(field_postgres, ROLES, pool_size=1))


@pytest.fixture(scope="module")
def statement_mode(field_postgres: DebianPostgresServer) -> Iterator[PgBouncerServer]:
    """A pooler in statement mode, which refuses transactions."""
    yield from _served(PgBouncerServer(field_postgres, ROLES, pool_mode="statement"))


@pytest.fixture
def other_client(
    admin: Admin, pg_database: Database, one_session: PgBouncerServer
) -> Iterator[psycopg.Connection]:
    """Another client of the pooler, of the same role."""
    parameters: dict[str, Any] = {
        "host": pg_database.host,
        "port": one_session.port,
        "dbname": pg_database.name,
        "user": "reader",
        "password": PASSWORD,
    }
    with psycopg.connect(**parameters, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_leaves_nothing_in_the_session(
    admin: Admin,
    source: Source,
    one_session: PgBouncerServer,
    other_client: psycopg.Connection,
    workspace: Workspace,
    name: str,
) -> None:
    admin.execute(SMALL_TABLE)
    connector = await source(port=one_session.port, search_path="public", statement_timeout=77)
    await OPERATIONS[name](connector, workspace)
    assert other_client.execute(LEFTOVERS).fetchone() == NOTHING
    assert number(admin, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'") == 1


async def test_failed_and_cancelled_reads_leave_nothing_in_the_session(
    admin: Admin,
    source: Source,
    one_session: PgBouncerServer,
    other_client: psycopg.Connection,
    workspace: Workspace,
) -> None:
    connector = await source(port=one_session.port, allowed_functions="pg_sleep")
    with pytest.raises(DataSourceError):
        await connector.preview("SELECT 1 / 0")
    reading = asyncio.create_task(connector.fetch_data("SELECT pg_sleep(60)", workspace))
    await wait_until(lambda: active(admin, "pg_sleep"))
    reading.cancel()
    await asyncio.wait([reading])
    assert other_client.execute(LEFTOVERS).fetchone() == NOTHING


async def test_settings_that_others_left_do_not_change_the_values(
    admin: Admin,
    source: Source,
    one_session: PgBouncerServer,
    other_client: psycopg.Connection,
    workspace: Workspace,
) -> None:
    admin.execute("CREATE TABLE reading AS SELECT date '2024-02-01' AS d, 0.1::float8 + 0.2 AS f")
    query = "SELECT *, 'ab'::bytea AS b, interval '1 day 2 hours' AS i, 'a\\b' AS s FROM reading"
    connector = await source(port=one_session.port, search_path="public")
    before = rows_of(await connector.fetch_data(query, workspace))
    for setting in (
        "datestyle = 'German'",
        "extra_float_digits = 0",
        "bytea_output = 'escape'",
        "intervalstyle = 'iso_8601'",
        "standard_conforming_strings = off",
        "search_path = ''",
    ):
        other_client.execute(f"SET {setting}")
    assert rows_of(await connector.fetch_data(query, workspace)) == before


async def test_many_reads_share_two_sessions(
    admin: Admin,
    source: Source,
    field_pgbouncer: PgBouncerServer,
    tmp_path: Path,
) -> None:
    times = 12
    connector = await source(port=field_pgbouncer.port, pool=PoolConfig(max_size=times))
    query = "SELECT g, {} AS which FROM generate_series(1, 20000) g"
    folders = [Workspace(tmp_path / str(which)) for which in range(times)]
    unlimited = [with_limits(folder, max_rows=None) for folder in folders]
    paths = await asyncio.gather(
        *(connector.fetch_data(query.format(n), unlimited[n]) for n in range(times))
    )
    for which, path in enumerate(paths):
        assert rows_of(path)[1:] == [[str(n), str(which)] for n in range(1, 20_001)]
    assert number(admin, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'") == 2


async def test_cancelled_fetch_ends_on_the_server(
    admin: Admin, source: Source, field_pgbouncer: PgBouncerServer, workspace: Workspace
) -> None:
    connector = await source(port=field_pgbouncer.port, allowed_functions="pg_sleep")
    fetch = asyncio.create_task(connector.fetch_data("SELECT pg_sleep(600)", workspace))
    await wait_until(lambda: active(admin, "pg_sleep"))
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    await wait_until(lambda: not active(admin, "pg_sleep"))
    assert (await connector.preview("SELECT 1")).rows == [(1,)]


async def test_fetch_over_its_time_ends_on_the_server(
    admin: Admin, source: Source, field_pgbouncer: PgBouncerServer, workspace: Workspace
) -> None:
    connector = await source(port=field_pgbouncer.port, allowed_functions="pg_sleep")
    with pytest.raises(LimitExceededError, match=r"0\.3 seconds"):
        await connector.fetch_data("SELECT pg_sleep(600)", with_limits(workspace, timeout=0.3))
    await wait_until(lambda: not active(admin, "pg_sleep"))
    assert (await connector.preview("SELECT 1")).rows == [(1,)]


async def test_statement_over_the_options_time_is_a_limit(
    admin: Admin, source: Source, field_pgbouncer: PgBouncerServer
) -> None:
    connector = await source(
        port=field_pgbouncer.port, allowed_functions="pg_sleep", statement_timeout=0.2
    )
    with pytest.raises(LimitExceededError, match="statement timeout"):
        await connector.preview("SELECT pg_sleep(600)")
    assert (await connector.preview("SELECT 1")).rows == [(1,)]


async def test_sessions_that_the_server_ended_are_replaced(
    admin: Admin, source: Source, field_pgbouncer: PgBouncerServer
) -> None:
    connector = await source(port=field_pgbouncer.port)
    await connector.preview("SELECT 1")
    ended = admin.execute(
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"
    ).fetchall()
    assert ended != []
    ((pid,),) = (await connector.preview("SELECT pg_backend_pid()")).rows
    assert pid not in [ended_pid for ended_pid, _ in ended]


async def test_statement_mode_is_refused_in_the_poolers_words(
    admin: Admin, source: Source, statement_mode: PgBouncerServer
) -> None:
    with pytest.raises(ConnectError, match="not allowed in statement pooling mode"):
        await source(port=statement_mode.port, pool=PoolConfig(connect_attempts=1))


async def test_check_of_a_source_in_statement_mode_says_why(
    admin: Admin, pg_database: Database, statement_mode: PgBouncerServer
) -> None:
    async with DataSourceRegistry() as registry:
        connector = configured(pg_database, port=statement_mode.port)
        await registry.register_data_source(connector.config)
        check = await registry.check_connection("pg")
    assert "statement pooling mode" in str(check)


async def test_startup_options_that_the_pooler_refuses_are_named(
    pg_database: Database, source: Source, field_pgbouncer: PgBouncerServer
) -> None:
    dsn = f"postgresql://{pg_database.host}/{pg_database.name}?options=-c%20jit%3Doff"
    with pytest.raises(ConnectError, match="unsupported startup parameter"):
        await source(port=field_pgbouncer.port, dsn=dsn)
