"""Names of a database in LATIN1 are folded as the server folds them."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import configured, readable
from tests.servers import Database

pytest.importorskip("tests.servers.debian")

LATIN1 = "de_DE.ISO-8859-1"


@pytest.fixture
def latin1(field_german: Any) -> Iterator[Database]:
    """A database whose locale knows the upper case of letters beyond ASCII in one byte."""
    folder = field_german.directory / "locales" / LATIN1
    subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder], check=True)
    database = field_german.at("field_latin1")
    with psycopg.connect(field_german.dsn(), autocommit=True) as server:
        if not server.execute("SELECT FROM pg_roles WHERE rolname = 'reader'").rowcount:
            server.execute("CREATE ROLE reader LOGIN PASSWORD 'correct-horse-battery'")
        if not server.execute("SELECT FROM pg_roles WHERE rolname = 'owner'").rowcount:
            server.execute("CREATE ROLE owner")
        server.execute(
            f"CREATE DATABASE field_latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE '{LATIN1}'"
        )
        with psycopg.connect(database.dsn(), autocommit=True) as admin:
            readable(admin)
            admin.execute("CREATE TABLE ÉTÉ (n int)")
            admin.execute('CREATE TABLE "Été" (n int)')
        yield database
        server.execute("DROP DATABASE field_latin1 WITH (FORCE)")


@pytest.fixture
async def latin1_reader(latin1: Database) -> AsyncIterator[PostgreSQLConnector]:
    connector = configured(latin1)
    await connector.connect()
    yield connector
    await connector.disconnect()


@pytest.mark.parametrize(
    ("identifier", "path"),
    [
        ("ÉTÉ", 'public."été"'),
        ("été", 'public."été"'),
        ("Public.Été", 'public."été"'),
        ('"Été"', 'public."Été"'),
    ],
)
async def test_name_is_folded_as_in_a_query(
    latin1_reader: PostgreSQLConnector, identifier: str, path: str
) -> None:
    assert (await latin1_reader.get_metadata(identifier))["identifier"] == path
