from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from datasources import DataSourceError
from datasources_postgresql.identifiers import TableName, query_file, table_name
from tests.postgresql.conftest import Admin, Source

PIECES = st.sampled_from(
    [
        '"',
        '""',
        ".",
        " ",
        "a",
        "A",
        "ä",
        "1",
        "$",
        "_",
        "'",
        ";",
        "\0",
        "\ud800",
        "\n",
        "select",
        "表",
    ]
)


@pytest.mark.parametrize(
    ("identifier", "table"),
    [
        ("orders", TableName(None, "orders")),
        ("Sales.Orders", TableName("sales", "orders")),
        ('"Sales"."Or""ders"', TableName("Sales", 'Or"ders')),
        (' sales . "a.b" ', TableName("sales", "a.b")),
        ("größe", TableName(None, "größe")),
        ("ÄB", TableName(None, "Äb")),
        ("_1$", TableName(None, "_1$")),
    ],
)
def test_sql_name_is_a_table(identifier: str, table: TableName) -> None:
    assert table_name(identifier) == table


@pytest.mark.parametrize(
    "identifier",
    ["", " ", "1a", "a b", "a.b.c", '"', '""', '"a', "a.", ".a", "a;", "a--", '"a\0"', '"\ud800"'],
)
def test_anything_else_is_a_query(identifier: str) -> None:
    assert table_name(identifier) is None


@given(st.lists(PIECES, min_size=1).map("".join))
def test_quoted_name_is_itself(name: str) -> None:
    if "\0" not in name and "\ud800" not in name:
        quoted = '"' + name.replace('"', '""') + '"'
        assert table_name(quoted) == TableName(None, name)


def test_queries_that_differ_have_files_that_differ() -> None:
    assert query_file("SELECT 1", "csv") != query_file("SELECT  1", "csv")
    assert query_file("SELECT 1", "csv") == query_file("SELECT 1", "csv")


async def test_any_identifier_is_an_answer_or_an_error_of_this_project(
    admin: Admin, source: Source
) -> None:
    connector = await source()
    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(PIECES).map("".join))
    def ask(text: str) -> None:
        for call in (connector.get_metadata, connector.list_items):
            asyncio.run_coroutine_threadsafe(_ask(call, text), loop).result(10)

    await asyncio.to_thread(ask)


async def _ask(call, text: str) -> None:
    with suppress(DataSourceError):
        await call(text)
