"""No analytical statement is refused, whatever awkward objects the database has."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from datasources import DataFetchError, PolicyError
from tests.postgresql.conftest import configured, readable
from tests.postgresql.guard.analytical import LANGUAGE, TOOLS
from tests.postgresql.guard.legitimate import AWKWARD, GENERATED
from tests.postgresql.statements import LEGITIMATE, SETUP
from tests.servers import Database, PostgresServer


@pytest.fixture(scope="module")
def awkward(pg_roles: PostgresServer) -> Iterator[Database]:
    """A database with all extensions, and with a domain, a cast and a CHECK of each awkward kind."""
    database = pg_roles.at("awkward")
    with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE awkward")
    try:
        with psycopg.connect(database.dsn(), autocommit=True) as admin:
            readable(admin)
            admin.execute(SETUP)
            admin.execute(AWKWARD)
            installed = 0
            for (name,) in admin.execute("SELECT name FROM pg_available_extensions").fetchall():
                try:
                    admin.execute(f'CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE')
                    installed += 1
                except psycopg.Error:  # one of a language that is not there
                    pass
            assert installed > 30
            admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        yield database
    finally:
        with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
            connection.execute("DROP DATABASE awkward WITH (FORCE)")


@pytest.mark.parametrize("both_modes", [False, pytest.param(True, marks=pytest.mark.soak)])
@pytest.mark.parametrize("mode", ["server", "names-first"])
async def test_no_legitimate_statement_is_refused(
    awkward: Database, mode: str, both_modes: bool
) -> None:
    """Try each statement in both modes, or each other statement in one mode."""
    connector = configured(awkward, guard=mode)
    await connector.connect()
    statements = [*LEGITIMATE, *GENERATED, *TOOLS, *LANGUAGE]
    assert len(set(statements)) >= 390
    refused, failed = [], []
    for statement in statements if both_modes else statements[mode == "server" :: 2]:
        try:
            await connector.preview(statement)
        except PolicyError as exc:
            refused.append((statement, str(exc)))
        except DataFetchError as exc:
            if "shared_preload_libraries" not in str(exc):  # of pg_stat_statements
                failed.append((statement, str(exc)))
    assert refused == []
    assert failed == []
    await connector.disconnect()


async def test_names_alone_admit_queries_of_plain_tables(awkward: Database) -> None:
    connector = configured(awkward, guard="names")
    await connector.connect()
    for statement in (
        "SELECT count(*), quantity FROM sales WHERE quantity > 5 GROUP BY quantity",
        "SELECT s.product, rank() OVER (ORDER BY s.quantity) FROM sales s",
        "sales",
    ):
        await connector.preview(statement)
    for statement in (
        "SELECT pg_sleep(1)",
        "SELECT (1).pg_sleep",
        "SELECT * FROM plain",
        "SELECT '(1)'::odd",
    ):
        with pytest.raises(PolicyError, match="'guard' is 'names'"):
            await connector.preview(statement)
    await connector.disconnect()
