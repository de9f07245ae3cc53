from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from datasources import DataSourceError, ItemNotFoundError, Workspace
from datasources_postgresql.guard import parse_one
from datasources_postgresql.identifiers import KEYWORDS, TableName, listed_path, table_name
from tests.postgresql.conftest import Admin, Report, Source

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


@pytest.mark.soak
def test_a_hundred_thousand_identifiers_are_a_table_or_a_query(report: Report) -> None:
    chance = random.Random(4)
    pieces = ['"', '""', ".", " ", "a", "B", "ä", "1", "$", "_", "'", ";", "\0", "\ud800", "\n",
              "select", "表", "--", "\r", "\u2028", "/*", "%", "\\", "🎉"]  # fmt: skip
    tables = 0
    for _ in range(100_000):
        text = "".join(chance.choices(pieces, k=chance.randint(0, 9)))
        table = table_name(text)
        if table is None:
            continue
        tables += 1
        parts = [part for part in (table.schema, table.name) if part is not None]
        quoted = ".".join('"' + part.replace('"', '""') + '"' for part in parts)
        assert table_name(quoted) == table
        select, _ = parse_one(f"SELECT * FROM {quoted}")  # one table to the server's grammar too
        (found,) = select["SelectStmt"]["fromClause"]
        cut = [part.encode()[:63].decode(errors="ignore") for part in parts]
        named = found["RangeVar"]
        assert [named[key] for key in ("schemaname", "relname") if key in named] == cut
    report(f"100000 identifiers, {tables} of them tables")
    assert tables > 1000


async def test_any_identifier_is_an_answer_or_an_error_of_this_project(
    admin: Admin, source: Source
) -> None:
    connector = await source()
    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(PIECES).map("".join))
    def ask(text: str) -> None:
        for call in (connector.get_metadata, connector.list_items):
            asyncio.run_coroutine_threadsafe(_ask(call, text), loop).result(30)

    await asyncio.to_thread(ask)


async def _ask(call, text: str) -> None:
    with suppress(DataSourceError):
        await call(text)


async def test_every_listed_path_is_its_own_item_path(admin: Admin, source: Source) -> None:
    words = [word for (word,) in admin.execute("SELECT word FROM pg_get_keywords()")]
    admin.execute('CREATE SCHEMA "Odd one"; GRANT USAGE ON SCHEMA "Odd one" TO reader')
    for name in [
        *words,
        "größe",
        "dots.in",
        'quo"te',
        "Capital",
        "a$b",
        "1digit",
        "_x",
        "new\nline",
    ]:
        quoted = '"' + name.replace('"', '""') + '"'
        admin.execute(
            f'CREATE TABLE "Odd one".{quoted} (); GRANT SELECT ON "Odd one".{quoted} TO reader'
        )
    connector = await source()
    paths = [item.path for item in await connector.list_items() if "Odd one" in item.path]
    assert len(paths) > 400
    assert [path for path in paths if connector.item_path(path) != path] == []
    assert {connector.identifier_kind(path) for path in paths} == {"item"}


def test_the_keywords_are_those_that_the_server_quotes(admin: Admin) -> None:
    quoted = admin.execute("SELECT word FROM pg_get_keywords() WHERE catcode <> 'U'").fetchall()
    assert {word for (word,) in quoted} <= KEYWORDS


@pytest.mark.parametrize(
    ("identifier", "path"),
    [
        ("Sales.Orders", "sales.orders"),
        (' "Sales" . orders ', '"Sales".orders'),
        ("public.select", 'public."select"'),
        ('"a""b"."c"', '"a""b".c'),
        ('public."größe"', 'public."größe"'),
        ("public.größe", None),
        ("orders", None),
        ("select 1", None),
    ],
)
def test_the_path_of_a_table_is_told_without_a_connection(
    identifier: str, path: str | None
) -> None:
    assert listed_path(identifier) == path


async def test_a_table_outside_the_schemas_of_the_source_does_not_exist(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    admin.execute(
        "CREATE TABLE orders (x int); CREATE SCHEMA hr; CREATE TABLE hr.orders (x int);"
        "CREATE TABLE hr.salaries (x int); GRANT USAGE ON SCHEMA hr TO reader;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA public, hr TO reader"
    )
    connector = await source(schemas="public")
    assert await connector.get_metadata("orders")
    for call in (
        connector.get_metadata,
        connector.preview,
        connector.statistics,
        lambda identifier: connector.fetch_data(identifier, workspace),
    ):
        for hidden in ("hr.orders", "hr.salaries", "hr.missing", "pg_catalog.pg_class"):
            with pytest.raises(ItemNotFoundError, match="there is no table or view") as caught:
                await call(hidden)
            assert str(caught.value).count("hr.") == hidden.count("hr.")
            assert caught.value.code == "42P01"
