"""A database without an encoding: what is UTF-8 is read, what is not hides nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from datasources import DataFetchError, Workspace
from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import configured, readable
from tests.servers import Database, PostgresServer

SETUP = [
    b"CREATE TABLE good AS SELECT 1 AS n",
    "CREATE TABLE grüße AS SELECT 'Maß'::text AS länge".encode(),
    "COMMENT ON TABLE good IS 'gut für alle'".encode(),
    b'CREATE TABLE "caf\xe9" (n int)',
    b"CREATE TABLE commented (n int)",
    b"COMMENT ON TABLE commented IS 'caf\xe9'",
    b"COMMENT ON COLUMN commented.n IS 'tr\xe8s'",
    b"CREATE TABLE words AS SELECT E'caf\\351'::text AS word, 'plain'::text AS other",
    b'CREATE SCHEMA "sch\xe9ma"; CREATE TABLE "sch\xe9ma".t (n int)',
    b'CREATE TABLE odd (n int, "pr\xe9nom" int)',
]


@pytest.fixture
def database(pg_roles: PostgresServer) -> Iterator[Database]:
    database = pg_roles.at("without_encoding")
    with psycopg.connect(pg_roles.dsn(), autocommit=True) as server:
        server.execute(
            "CREATE DATABASE without_encoding TEMPLATE template0 ENCODING 'SQL_ASCII'"
            " LOCALE_PROVIDER libc LOCALE 'C'"
        )
        try:
            with psycopg.connect(database.dsn(), autocommit=True) as admin:
                readable(admin)
                for statement in SETUP:
                    admin.execute(statement)
            yield database
        finally:
            server.execute("DROP DATABASE without_encoding WITH (FORCE)")


@pytest.fixture
async def source(database: Database) -> AsyncIterator[PostgreSQLConnector]:
    connector = configured(database)
    await connector.connect()
    yield connector
    await connector.disconnect()


async def test_listing_leaves_out_the_names_that_are_no_utf8(source: PostgreSQLConnector) -> None:
    items = {item.path: item.metadata.get("comment") for item in await source.list_items()}
    assert set(items) == {
        "public.commented",
        "public.good",
        'public."grüße"',
        "public.odd",
        "public.words",
    }
    assert items["public.good"] == "gut für alle"
    assert items["public.commented"] == "caf\ufffd"
    assert [item.path for item in await source.glob_items("public.g*d")] == ["public.good"]


async def test_metadata_replaces_what_is_no_utf8(source: PostgreSQLConnector) -> None:
    metadata = await source.get_metadata("commented")
    assert metadata["comment"] == "caf\ufffd"
    assert metadata["columns"][0]["comment"] == "tr\ufffds"
    columns = (await source.get_metadata("odd"))["columns"]
    assert [column["name"] for column in columns] == ["n", "pr\ufffdnom"]
    assert (await source.get_metadata("SELECT n FROM odd"))["columns"][0]["type"] == "integer"


async def test_utf8_arrives_as_it_is(source: PostgreSQLConnector, workspace: Workspace) -> None:
    preview = await source.preview("SELECT other FROM words")
    assert preview.rows == [("plain",)]
    path = await source.fetch_data("SELECT 'Maß'::text AS a", workspace)
    assert Path(path).read_bytes() == "a\nMaß\n".encode()
    assert (await source.statistics("good"))["n"].mean == 1.0


@pytest.mark.parametrize("identifier", ["words", "SELECT word FROM words"])
async def test_value_that_is_no_utf8_is_an_error_with_the_way_to_read_it(
    source: PostgreSQLConnector, workspace: Workspace, identifier: str
) -> None:
    for read in (source.preview(identifier), source.fetch_data(identifier, workspace)):
        with pytest.raises(DataFetchError, match="has no encoding") as raised:
            await read
        assert raised.value.code == "22021"
    way = str(raised.value).partition("by ")[2].removesuffix(" [22021]").replace("column", "word")
    assert (await source.preview(f"SELECT {way} FROM words")).rows == [("café",)]
