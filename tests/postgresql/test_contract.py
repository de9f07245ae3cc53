"""The contract, kept by the connector of PostgreSQL on a real server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, ClassVar

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
CREATE TABLE changing AS SELECT 0 AS n, repeat('x', 100) AS text FROM generate_series(1, {ROWS});
CREATE SEQUENCE ids;
"""
ITEMS = {
    "public.orders": b'id,note,price\n1,one,9.5\n2,"",\n3,,7\n',
    'public."Odd Name"': b"x\n",
    "public.numbers": b"n,text\n" + b"".join(b"%d,row %d\n" % (n, n) for n in range(1, ROWS + 1)),
}
QUERIES = {
    "SELECT n FROM numbers ORDER BY n LIMIT 2000": b"n\n"
    + b"".join(b"%d\n" % n for n in range(1, 2001)),
    "SELECT id, note FROM orders WHERE false": b"id,note\n",
}
WRITES = [
    "DROP TABLE orders",
    "DELETE FROM orders",
    "WITH gone AS (DELETE FROM orders RETURNING id) SELECT id FROM gone",
    "SELECT id FROM orders; DROP TABLE orders",
    "SELECT nextval('ids')",
    "SELECT id INTO copied FROM orders",
    "EXPLAIN ANALYZE DELETE FROM orders",
]


@pytest.fixture(scope="module")
def contract_database(pg_roles: PostgresServer) -> Iterator[Database]:
    """A database for the whole contract, as the superuser reaches it."""
    database = pg_roles.at(f"contract_{secrets.token_hex(6)}")
    with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database.name}"')
        with psycopg.connect(database.dsn(), autocommit=True) as inside:
            readable(inside)
            inside.execute(SEED)
        connection.execute("CREATE ROLE rotating LOGIN IN ROLE reader")
        yield database
        connection.execute("DROP ROLE rotating")
        connection.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)')


class System:
    """The superuser's view of the database, and changes by the superuser."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._number = 0

    def running(self) -> int:
        """Return the number of statements that run."""
        row = self._execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()"
        )
        return int(row[0])

    def change(self) -> tuple[str, bytes]:
        self._number += 1
        self._execute(
            "WITH done AS (UPDATE changing SET n = %s RETURNING n) SELECT count(n) FROM done",
            self._number,
        )
        return "public.changing", b"n,text\n" + b"%d,%b\n" % (self._number, b"x" * 100) * ROWS

    def rotate(self) -> dict[str, str]:
        """Give the role another password, and end its sessions."""
        self._number += 1
        password = f"{PASSWORD}-{self._number}"
        self._execute(f"ALTER ROLE rotating PASSWORD '{password}'; SELECT 1")
        self._execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'rotating'"
        )
        return {"user": "rotating", "password": password}

    def _execute(self, statement: str, *parameters: object) -> tuple[Any, ...]:
        with psycopg.connect(self._database.dsn(), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            while cursor.nextset():
                pass
            row = cursor.fetchone()
        assert row is not None
        return row


class TestContract(ConnectorContract):
    connector_class = PostgreSQLConnector
    waived: ClassVar = {
        "test_options_that_could_be_secrets_are_declared_so": "'sslkey' is the path of a file",
    }

    is_direct: ClassVar = True
    """False behind a pooler: it has passwords of its own, and few sessions at a time."""

    @pytest.fixture
    def database(self, contract_database: Database) -> Database:
        """The database as the connector reaches it."""
        return contract_database

    @pytest.fixture
    def subject(self, database: Database, contract_database: Database) -> Subject:
        options = {
            "host": database.host,
            "port": database.port,
            "database": database.name,
            "user": "reader",
            "password": PASSWORD,
            "allowed_functions": "pg_sleep",  # it is volatile, so that a source refuses it
        }
        system = System(contract_database)
        return Subject(
            connector_class=PostgreSQLConnector,
            type="postgresql",
            options=options,
            items=ITEMS,
            missing="public.nothing",
            tables={"public.orders": 3},
            abilities={
                "discover",
                "query_metadata",
                "query_statistics",
                "pages",
                "parameters",
                "glob",
                "preview",
                "read_table",
                "splits",
                "rights",
                "statistics",
            },
            echo="SELECT :value AS value",
            wrong_credentials={**options, "password": "not-the-password"},
            unreachable={**options, "port": free_port()},
            queries=QUERIES,
            writes=WRITES,
            slow="SELECT pg_sleep(60)" if self.is_direct else None,
            large="SELECT a.n, b.text FROM numbers a, numbers b" if self.is_direct else None,
            running=system.running,
            change=system.change,
            rotate=(lambda: {**options, **system.rotate()}) if self.is_direct else None,
        )
