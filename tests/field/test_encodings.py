"""Databases that are not in UTF-8: what has a meaning arrives in UTF-8, what has none is an error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from datasources import DataFetchError, Workspace
from datasources_postgresql import PostgreSQLConnector
from tests.field.conftest import new_database
from tests.field.operations import OPERATIONS, SMALL_TABLE
from tests.postgresql.conftest import configured, readable
from tests.servers import Database, PostgresServer

OPTIONS = "TEMPLATE template0 ENCODING '{}' LC_COLLATE 'C' LC_CTYPE 'C'"
BROKEN = "E'caf\\351'"  # é in LATIN1, which is no UTF-8


def _database(server: PostgresServer, encoding: str) -> Iterator[Database]:
    with new_database(server, OPTIONS.format(encoding)) as database:
        with psycopg.connect(database.dsn(), autocommit=True) as connection:
            readable(connection)
        yield database


@pytest.fixture
def latin1(pg_roles: PostgresServer) -> Iterator[Database]:
    yield from _database(pg_roles, "LATIN1")


@pytest.fixture
def sql_ascii(pg_roles: PostgresServer) -> Iterator[Database]:
    yield from _database(pg_roles, "SQL_ASCII")


@pytest.fixture
async def latin1_reader(latin1: Database) -> AsyncIterator[PostgreSQLConnector]:
    connector = configured(latin1)
    await connector.connect()
    yield connector
    await connector.disconnect()


@pytest.fixture
async def ascii_reader(sql_ascii: Database) -> AsyncIterator[PostgreSQLConnector]:
    connector = configured(sql_ascii)
    await connector.connect()
    yield connector
    await connector.disconnect()


def execute(database: Database, *statements: str | bytes) -> None:
    """Run statements; bytes are sent, and kept by a database without encoding, as they are."""
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_works_in_latin1(
    latin1: Database, latin1_reader: PostgreSQLConnector, workspace: Workspace, name: str
) -> None:
    execute(latin1, SMALL_TABLE)
    assert await OPERATIONS[name](latin1_reader, workspace)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_works_in_sql_ascii(
    sql_ascii: Database, ascii_reader: PostgreSQLConnector, workspace: Workspace, name: str
) -> None:
    execute(sql_ascii, SMALL_TABLE)
    assert await OPERATIONS[name](ascii_reader, workspace)


async def test_names_and_values_of_latin1_arrive_in_utf8(
    latin1: Database, latin1_reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    execute(latin1, 'CREATE TABLE "Größe" AS SELECT \'café\'::text AS "Maß"')
    assert [item.path for item in await latin1_reader.list_items()] == ['public."Größe"']
    (column,) = (await latin1_reader.get_metadata('"Größe"'))["columns"]
    assert column["name"] == "Maß"
    path = await latin1_reader.fetch_data('"Größe"', workspace)
    assert Path(path).read_bytes() == "Maß\ncafé\n".encode()
    preview = await latin1_reader.preview('SELECT * FROM "Größe" WHERE "Maß" = \'café\'')
    assert preview.rows == [("café",)]


async def test_character_that_latin1_lacks_is_named(latin1_reader: PostgreSQLConnector) -> None:
    with pytest.raises(DataFetchError, match='no equivalent in encoding "LATIN1"') as raised:
        await latin1_reader.preview("SELECT '5 €' AS price")
    assert raised.value.code == "22P05"


async def test_utf8_bytes_of_sql_ascii_arrive_as_they_are(
    sql_ascii: Database, ascii_reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    execute(sql_ascii, 'CREATE TABLE "Größe" AS SELECT \'café\'::text AS "Maß"'.encode())
    assert [item.path for item in await ascii_reader.list_items()] == ['public."Größe"']
    path = await ascii_reader.fetch_data('"Größe"', workspace)
    assert Path(path).read_bytes() == "Maß\ncafé\n".encode()


async def test_bytes_of_sql_ascii_that_are_no_utf8_are_an_error_and_no_file(
    sql_ascii: Database, ascii_reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    execute(sql_ascii, f"CREATE TABLE words AS SELECT {BROKEN}::text AS word")
    for read in (ascii_reader.preview("words"), ascii_reader.fetch_data("words", workspace)):
        with pytest.raises(DataFetchError, match="invalid byte sequence") as raised:
            await read
        assert raised.value.code == "22021"
    assert [path for path in Path(workspace).rglob("*") if path.is_file()] == []
    query = "SELECT convert_from(convert(word::bytea, 'LATIN1', 'UTF8'), 'UTF8') FROM words"
    assert (await ascii_reader.preview(query)).rows == [("café",)]


async def test_name_that_is_no_utf8_does_not_hide_the_other_tables(
    sql_ascii: Database, ascii_reader: PostgreSQLConnector
) -> None:
    execute(sql_ascii, b"CREATE TABLE good (n int)", b'CREATE TABLE "caf\xe9" (n int)')
    assert "public.good" in [item.path for item in await ascii_reader.list_items()]
