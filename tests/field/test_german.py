"""Errors of a server that speaks German are those of any server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    DataFetchError,
    DataSourceError,
    DataSourceRegistry,
    ItemNotFoundError,
    LimitExceededError,
    PermissionDeniedError,
    PolicyError,
)
from datasources_postgresql import PostgreSQLConnector
from tests.field.conftest import new_database
from tests.postgresql.conftest import PASSWORD, configured, number, readable
from tests.servers import Database
from tests.servers.debian import DebianPostgresServer
from tests.waiting import wait_until

SEED = [
    f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'",
    f"CREATE ROLE owner LOGIN PASSWORD '{PASSWORD}'",
    f"CREATE ROLE sleeper NOLOGIN PASSWORD '{PASSWORD}'",
    f"CREATE ROLE limited LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 0",
    "CREATE DATABASE closed",
    "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
]


@pytest.fixture(scope="module")
def german(field_german: DebianPostgresServer) -> Iterator[Database]:
    with psycopg.connect(field_german.dsn(), autocommit=True) as connection:
        for statement in SEED:
            with suppress(psycopg.errors.DuplicateObject):  # other tests make the reader, too
                connection.execute(statement)
    with new_database(field_german) as database:
        with psycopg.connect(database.dsn(), autocommit=True) as connection:
            readable(connection)
            connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")
            connection.execute("CREATE TABLE secret AS SELECT 1 AS n")
            connection.execute("REVOKE SELECT ON secret FROM reader")
        yield database


def test_the_server_speaks_german(german: Database) -> None:
    with (
        psycopg.connect(german.dsn()) as connection,
        pytest.raises(psycopg.errors.UndefinedTable, match="Relation »nothing« existiert nicht"),
    ):
        connection.execute("TABLE nothing")


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"password": "wrong-password"}, AuthenticationError, "28P01"),
        ({"user": "nobody"}, AuthenticationError, "28P01"),
        ({"user": "sleeper"}, AuthenticationError, "28000"),
        ({"database": "nothing"}, ConnectError, "3D000"),
        ({"database": "closed"}, PermissionDeniedError, "42501"),
        ({"user": "limited"}, ConnectError, "53300"),
    ],
    ids=["password", "no role", "role may not log in", "no database", "no right", "role is full"],
)
async def test_refused_connection_is_its_error(
    german: Database, options: dict[str, Any], error: type[DataSourceError], code: str
) -> None:
    connector = configured(german, **options)
    with pytest.raises(error) as raised:
        await connector.connect()
    assert getattr(raised.value, "code", None) == code


@pytest.fixture
async def german_reader(german: Database) -> AsyncIterator[PostgreSQLConnector]:
    connector = configured(german, allowed_functions="pg_sleep")
    await connector.connect()
    yield connector
    await connector.disconnect()


@pytest.mark.parametrize(
    ("identifier", "error", "code"),
    [
        ("nothing", ItemNotFoundError, "42P01"),
        ("SELECT * FROM nothing", DataFetchError, "42P01"),
        ("secret", PermissionDeniedError, "42501"),
        ("SELECT 1 / 0", DataFetchError, "22012"),
        ("SELECT 'x'::int", DataFetchError, "22P02"),
        ("SELECT none FROM numbers", DataFetchError, "42703"),
        ("DELETE FROM numbers", PolicyError, None),
    ],
)
async def test_refused_read_is_its_error(
    german_reader: PostgreSQLConnector,
    identifier: str,
    error: type[DataSourceError],
    code: str | None,
) -> None:
    with pytest.raises(DataSourceError) as raised:
        await german_reader.preview(identifier)
    assert type(raised.value) is error
    assert getattr(raised.value, "code", None) == code


async def test_statement_over_its_time_is_a_limit(german: Database) -> None:
    connector = configured(german, allowed_functions="pg_sleep", statement_timeout=0.1)
    await connector.connect()
    try:
        with pytest.raises(LimitExceededError):
            await connector.preview("SELECT pg_sleep(60)")
    finally:
        await connector.disconnect()


async def test_statement_cancelled_by_somebody_else_is_no_limit(
    german: Database, german_reader: PostgreSQLConnector
) -> None:
    with psycopg.connect(german.dsn(), autocommit=True) as admin:
        reading = asyncio.create_task(german_reader.preview("SELECT pg_sleep(60)"))
        # The statement is analysed first, when there is nothing to cancel.
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await wait_until(lambda: number(admin, asleep))
        admin.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"
        )
        with pytest.raises(DataFetchError) as raised:
            await reading
    assert raised.value.code == "57014"


async def test_refused_password_is_tried_once(
    german: Database, field_german: DebianPostgresServer
) -> None:
    log = field_german.directory / "log"
    start = log.stat().st_size
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(configured(german, password="wrong-password").config)
        with pytest.raises(DataSourceError):
            await registry.preview("pg", "numbers")
    with log.open("rb") as file:
        file.seek(start)
        assert file.read().decode().count("FATAL:") == 1


async def test_values_and_names_are_those_of_the_german_database(
    german: Database, german_reader: PostgreSQLConnector
) -> None:
    with psycopg.connect(german.dsn(), autocommit=True) as admin:
        admin.execute('CREATE TABLE "Größe" AS SELECT \'Maß\'::text AS "Länge", 1.5 AS zahl')
    preview = await german_reader.preview('"Größe"')
    assert preview.columns == ("Länge", "zahl")
    assert [str(value) for value in preview.rows[0]] == ["Maß", "1.5"]
    assert 'public."Größe"' in [item.path for item in await german_reader.list_items()]
