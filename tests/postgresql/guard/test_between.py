"""What was analysed is what runs: a change in between is an error, and nothing is delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from datasources import DataFetchError, DataSourceError, Workspace
from datasources_postgresql import PostgreSQLConnector, libpq
from datasources_postgresql.reading import Transaction
from tests.postgresql.conftest import Admin

SETUP = """
CREATE FUNCTION harm(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'HARM REACHED'; END $$;
CREATE FUNCTION fine(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
CREATE FUNCTION over(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql
    AS $$ BEGIN RETURN true; END $$;
CREATE DOMAIN checked AS int CHECK (VALUE > 0);
CREATE TABLE items (id int); INSERT INTO items VALUES (1), (2);
CREATE VIEW plain AS SELECT id FROM items;
CREATE OPERATOR ==> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = int8eq);
CREATE TYPE odd AS (v int);
CREATE CAST (int AS odd) WITH INOUT;
"""
SPY = "RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'HARM REACHED'; END $$"
CHANGES = [
    ("SELECT fine(id) FROM items", f"CREATE OR REPLACE FUNCTION fine(int) {SPY}"),
    ("SELECT over(id) FROM items", f"CREATE FUNCTION over(int) {SPY}"),
    ("SELECT id::checked FROM items", "ALTER DOMAIN checked ADD CHECK (harm(VALUE)) NOT VALID"),
    (
        "SELECT id ==> 1 FROM items",
        f"""CREATE FUNCTION pair(int, int) {SPY};
        CREATE OPERATOR ==> (LEFTARG = int, RIGHTARG = int, FUNCTION = pair)""",
    ),
    (
        "SELECT id::float8::text FROM items",
        """CREATE FUNCTION spy(float8) RETURNS text LANGUAGE sql AS 'SELECT 1';
        CREATE CAST (float8 AS text) WITH FUNCTION spy(float8)""",
    ),
    (
        "SELECT count(*) FROM items",
        """CREATE SCHEMA reader; CREATE VIEW reader.items AS SELECT harm(1);
        GRANT USAGE ON SCHEMA reader TO reader; GRANT SELECT ON reader.items TO reader""",
    ),
]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Call something between the analysis of a statement and its run."""

    def arrange(act: Callable[[], Awaitable[None]]) -> None:
        lock = Transaction._lock_relations

        async def then_act(self: Transaction, text: str) -> None:
            await act()
            await lock(self, text)

        monkeypatch.setattr(Transaction, "_lock_relations", then_act)

    return arrange


@pytest.mark.parametrize(("query", "change"), CHANGES)
async def test_change_between_analysis_and_run_is_an_error(
    admin: Admin,
    reader: PostgreSQLConnector,
    workspace: Workspace,
    between: Callable,
    query: str,
    change: str,
) -> None:
    admin.execute(SETUP)
    await reader.fetch_data(query, workspace)

    async def act() -> None:
        admin.execute(change)

    between(act)
    with pytest.raises(DataSourceError) as caught:
        await reader.fetch_data(query + " -- again", workspace)
    assert "HARM" not in str(caught.value)
    assert "meanwhile" in str(caught.value)
    assert len(list(Path(workspace).glob("*.csv"))) == 1


async def test_view_is_not_replaced_between_analysis_and_run(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace, between: Callable
) -> None:
    admin.execute(SETUP)
    waited = asyncio.Event()

    async def act() -> None:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            admin.execute(
                "BEGIN; SET LOCAL lock_timeout = '100ms';"
                "CREATE OR REPLACE VIEW plain AS SELECT id FROM items WHERE harm(id)"
            )
        admin.execute("ROLLBACK")
        waited.set()

    between(act)
    path = await reader.fetch_data("SELECT * FROM plain", workspace)
    assert waited.is_set()
    assert Path(path).read_text() == "id\n1\n2\n"


async def test_change_while_a_statement_runs_delivers_nothing(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.execute(SETUP)
    copy_out = libpq.copy_out

    async def change_after(*arguments: Any) -> tuple[int, bool]:
        received = await copy_out(*arguments)
        admin.execute("ALTER FUNCTION fine(int) STABLE")
        return received

    monkeypatch.setattr(libpq, "copy_out", change_after)
    with pytest.raises(DataFetchError, match="meanwhile"):
        await reader.fetch_data("SELECT fine(id) FROM items", workspace)
    assert list(Path(workspace).glob("*")) == []
