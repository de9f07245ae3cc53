"""The contract, kept by the connector of PostgreSQL on a real server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import ClassVar

import psycopg
import pytest

from datasources.testing import ConnectorContract, Subject
from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import PASSWORD, readable
from tests.servers import Database, PostgresServer
from tests.servers.process import free_port

ROWS = 9_000
SEED = f"""
CREATE TABLE orders (id int PRIMARY KEY, note text, price numeric);
INSERT INTO orders VALUES (1, 'one', 9.5), (2, '', NULL), (3, NULL, 7);
CREATE TABLE "Odd Name" (x int);
CREATE TABLE numbers AS SELECT n, 'row ' || n AS text FROM generate_series(1, {ROWS}) n;
"""
ITEMS = {
    "public.orders": b'id,note,price\n1,one,9.5\n2,"",\n3,,7\n',
    'public."Odd Name"': b"x\n",
    "public.numbers": b"n,text\n" + b"".join(b"%d,row %d\n" % (n, n) for n in range(1, ROWS + 1)),
}


@pytest.fixture(scope="module")
def database(pg_roles: PostgresServer) -> Iterator[Database]:
    """A database for the whole contract, which changes nothing in it."""
    database = pg_roles.at(f"contract_{secrets.token_hex(6)}")
    with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database.name}"')
        with psycopg.connect(database.dsn(), autocommit=True) as inside:
            readable(inside)
            inside.execute(SEED)
        yield database
        connection.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)')


class TestContract(ConnectorContract):
    waived: ClassVar = {
        "test_options_that_could_be_secrets_are_declared_so": "'sslkey' is the path of a file",
    }

    @pytest.fixture
    def subject(self, database: Database) -> Subject:
        options = {
            "host": database.host,
            "port": database.port,
            "database": database.name,
            "user": "reader",
            "password": PASSWORD,
        }
        return Subject(
            connector_class=PostgreSQLConnector,
            type="postgresql",
            options=options,
            items=ITEMS,
            missing="public.nothing",
            tables={"public.orders": 3},
            abilities={"discover", "glob", "preview", "read_table", "statistics"},
            wrong_credentials={**options, "password": "not-the-password"},
            unreachable={**options, "port": free_port()},
        )
