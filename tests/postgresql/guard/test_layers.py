"""Each layer of read-only holds with the others off, over all corpora of statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from datasources import DataFetchError, DataSourceError, PolicyError
from datasources_postgresql import PostgreSQLConnector, libpq
from datasources_postgresql.guard import FunctionPolicy, Statement, parse_read
from datasources_postgresql.identifiers import table_name
from datasources_postgresql.reading import begin
from tests.postgresql.conftest import configured
from tests.postgresql.guard import hostile
from tests.postgresql.guard.conftest import Harmful
from tests.postgresql.guard.test_holes import REACHING
from tests.postgresql.guard.test_hostile import Hostile, plant
from tests.postgresql.statements import (
    DANGEROUS,
    LIARS,
    NOT_READS,
    OWN_FUNCTIONS,
    SERVER_FUNCTIONS,
    WRITING_INSIDE,
)
from tests.postgresql.test_read_only import Outside, _connection, outside, role_source
from tests.servers import PostgresServer

__all__ = ["outside", "role_source"]

# What READ ONLY does not stop, as docs/security.md says: it ends, holds up or reaches other sessions.
_OTHER_EFFECTS = ("terminate", "cancel", "sleep", "dblink", "lock", "notify", "switch_wal", "rotate",
                  "reload", "promote", "backup", "restore_point", "slot", "emit", "log_backend",
                  "stat_reset", "import_system", "origin", "binary_upgrade", "PROGRAM", "lo_", "lowrite",
                  "set_config", "xact", "txid")  # fmt: skip


def _as_query(statement: str) -> str:
    return statement if table_name(statement) is None else f"TABLE {statement}"


async def test_tree_alone_stops_what_writes_or_calls_something_harmful(
    role_source: tuple[str, PostgreSQLConnector], outside: Outside
) -> None:
    role, connector = role_source
    before = outside.state()
    for statement in DANGEROUS:
        if statement in LIARS or "PROGRAM" in statement or "\0" in statement or "$1" in statement:
            continue
        text = outside.fill(statement, role)
        if not await _refuses_without_text(connector, text):
            pytest.fail(f"the tree admits: {statement}")
    assert outside.state() == before


async def _refuses_without_text(connector: PostgreSQLConnector, statement: str) -> bool:
    """Return True if the tree, or the server while it analyses, refuses a text that nobody has read."""
    text = _as_query(statement)
    async with _connection(connector) as connection:
        transaction = await begin(connection, connector.options)
        unchecked = Statement(text, "select", text)
        try:
            await transaction._guard.check_before_parsing(unchecked)
            await transaction._guard.permit(unchecked, text)
        except (PolicyError, DataFetchError, psycopg.Error):
            return True
    return False


async def test_tree_alone_stops_what_reaches_a_planted_function(
    any_role: PostgreSQLConnector, harmful: Harmful
) -> None:
    # EXPLAIN is taken off by the text layer: the tree is that of the query inside.
    statements = [s for s in REACHING if not s.startswith("EXPLAIN")]
    assert [s for s in statements if not await _refuses_without_text(any_role, s)] == []


@pytest.fixture(scope="module")
def planted(pg_roles: PostgresServer) -> Iterator[Hostile]:
    yield from plant(pg_roles, "hostile_layers")


@pytest.mark.parametrize("role", ["reader", "owner"])
async def test_tree_alone_stops_the_newer_corpus(planted: Hostile, role: str) -> None:
    connector = configured(planted.database, user=role, search_path="z, public")
    await connector.connect()
    admitted = []
    for statement in (*hostile.STATEMENTS, *hostile.XML, *hostile.SERVER):
        if not statement.startswith("EXPLAIN") and not await _refuses_without_text(
            connector, statement
        ):
            admitted.append(statement)
        assert planted.file.stat().st_size == 0, statement
    await connector.disconnect()
    assert admitted == []


@pytest.mark.parametrize("statement", [s for s in hostile.SERVER if "MERGE" in s or "UPDATE" in s])
def test_text_alone_stops_the_writes_of_the_newer_corpus(statement: str) -> None:
    with pytest.raises(PolicyError, match="is not a read"):
        parse_read(statement)


async def test_transaction_alone_changes_no_row_by_the_newer_corpus(planted: Hostile) -> None:
    connector = configured(planted.database, search_path="z, public")
    await connector.connect()
    before = _contents(planted)
    for statement in (*hostile.STATEMENTS, *hostile.SERVER):
        if any(word in statement for word in _OTHER_EFFECTS):
            continue
        async with _connection(connector) as connection:
            await begin(connection, connector.options)
            with suppress(psycopg.Error, DataSourceError):
                await libpq.query(connection, _as_query(statement).encode())
    planted.file.write_text("")
    assert _contents(planted) == before
    await connector.disconnect()


def _contents(planted: Hostile) -> list[tuple[object, ...]]:
    return planted.admin.execute(
        "SELECT (SELECT string_agg(t::text, ',') FROM z.t), (SELECT count(*) FROM pg_class),"
        " (SELECT count(*) FROM pg_proc), (SELECT sum(relpages) FROM pg_class WHERE oid >= 16384)"
    ).fetchall()


@pytest.mark.parametrize("statement", [*NOT_READS, *WRITING_INSIDE])
def test_text_alone_stops_what_is_no_read(statement: str) -> None:
    if table_name(statement) is None:
        with pytest.raises((PolicyError, DataFetchError)):
            parse_read(statement)


def test_text_alone_stops_every_denied_name(outside: Outside, reader: PostgreSQLConnector) -> None:
    policy = FunctionPolicy(reader.options)
    for name in policy.denied_names:
        for call in (
            f"SELECT {name}(1)",
            f"SELECT 1 FROM s.{name}() f",
            f'SELECT "{name}"(x) OVER ()',
        ):
            with pytest.raises(PolicyError, match=f"the function {name} may not be called"):
                parse_read(call, policy.denied_names)


async def test_transaction_alone_lets_no_row_sequence_or_catalog_entry_change(
    role_source: tuple[str, PostgreSQLConnector], outside: Outside
) -> None:
    role, connector = role_source
    before = outside.state()
    for statement in (*WRITING_INSIDE, *SERVER_FUNCTIONS, *OWN_FUNCTIONS, *LIARS):
        if any(word in statement for word in _OTHER_EFFECTS):
            continue
        async with _connection(connector) as connection:
            await begin(connection, connector.options)
            with suppress(psycopg.Error, DataSourceError):
                text = outside.fill(_as_query(statement), role)
                await libpq.query(connection, text.encode())
        assert outside.state() == before, statement


def test_corpora_are_there() -> None:
    assert len(DANGEROUS) > 330
    assert len(REACHING) > 45
