"""Servers like those that people have, and the PostgreSQL connector's fixtures on the first."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.conftest import _served
from tests.dask.conftest import environment, lake, registry, shop
from tests.postgresql.conftest import (
    PASSWORD,
    admin,
    pg_roles,
    readable,
    reader,
    report,
    source,
    workspace,
)
from tests.servers import Database, PostgresServer
from tests.servers.debian import GERMAN, DebianPostgresServer, StandbyServer
from tests.servers.pgbouncer import PgBouncerServer
from tests.servers.proxy import SilentProxy

__all__ = [
    "admin",
    "environment",
    "lake",
    "pg_roles",
    "reader",
    "registry",
    "report",
    "shop",
    "source",
    "workspace",
]

ROLES = {"reader": PASSWORD, "owner": PASSWORD}


@pytest.fixture(scope="session")
def field_postgres() -> Iterator[DebianPostgresServer]:
    """Debian's PostgreSQL 15 as delivered, with JIT."""
    yield from _served(DebianPostgresServer())


@pytest.fixture(scope="session")
def postgres(field_postgres: DebianPostgresServer) -> PostgresServer:
    """The server that the fixtures of `tests/postgresql` use."""
    return field_postgres


@pytest.fixture(scope="session")
def field_german() -> Iterator[DebianPostgresServer]:
    """The same on a German machine: a cluster, and messages, in the locale `de_DE.UTF-8`."""
    yield from _served(DebianPostgresServer(GERMAN))


@pytest.fixture(scope="session")
def field_pgbouncer(field_postgres: DebianPostgresServer) -> Iterator[PgBouncerServer]:
    """PgBouncer in transaction mode, with two sessions on `field_postgres` for each database."""
    yield from _served(PgBouncerServer(field_postgres, ROLES))


@pytest.fixture(scope="session")
def field_standby(field_postgres: DebianPostgresServer) -> Iterator[StandbyServer]:
    """A hot standby of `field_postgres`."""
    yield from _served(StandbyServer(field_postgres))


@pytest.fixture(scope="session")
def field_postgis(pg_roles: PostgresServer) -> Iterator[Database]:
    """A database of `field_postgres` with the extension PostGIS."""
    with new_database(pg_roles) as database:
        with psycopg.connect(database.dsn(), autocommit=True) as connection:
            readable(connection)
            connection.execute("CREATE EXTENSION postgis")
        yield database


@pytest.fixture
def silent_proxy(field_postgres: DebianPostgresServer) -> Iterator[SilentProxy]:
    """A proxy to `field_postgres` that passes everything on until it is silenced."""
    with SilentProxy(field_postgres.port) as proxy:
        yield proxy


@contextmanager
def new_database(server: PostgresServer, options: str = "") -> Iterator[Database]:
    """Yield a new database, made with the given options of CREATE DATABASE; drop it afterwards."""
    database = server.at(f"field_{secrets.token_hex(6)}")
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database.name}" {options}')
        yield database
        connection.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)')
