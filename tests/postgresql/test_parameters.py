"""Stored queries of PostgreSQL: the server gets values apart from the text, and they stay values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    BoundQuery,
    DataFetchError,
    DataSourceConfig,
    DataSourceRegistry,
    OptionError,
    PolicyError,
    QueryParameter,
    StoredQuery,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.parameters import bound_text
from tests.postgresql.conftest import Admin, with_limits


@pytest.fixture
async def registered(reader: PostgreSQLConnector) -> AsyncIterator[DataSourceRegistry]:
    """A registry with the source of `reader` under the id `db`."""
    async with DataSourceRegistry() as registry:
        options = dict(reader.config.config)
        await registry.register_data_source(DataSourceConfig("db", "postgresql", "Db", options))
        yield registry


_TYPES = {
    "text": ("x'; SELECT 1; --", "x'; SELECT 1; --", "text"),
    "integer": (-(2**63), -(2**63), "bigint"),
    "number": ("1.50", Decimal("1.50"), "numeric"),
    "boolean": (False, False, "boolean"),
    "date": ("2026-01-31", date(2026, 1, 31), "date"),
    "timestamp": (
        "2026-01-31T12:00:00Z",
        datetime(2026, 1, 31, 12, tzinfo=UTC),
        "timestamp with time zone",
    ),
}


def _bound(text: str, types: dict[str, str], **values: Any) -> BoundQuery:
    parameters = {name: QueryParameter(type_, required=False) for name, type_ in types.items()}
    return StoredQuery(text, parameters).bind("stored", values)


@pytest.mark.parametrize("type_", _TYPES)
async def test_a_value_has_the_type_of_its_parameter(
    reader: PostgreSQLConnector, type_: str
) -> None:
    given, value, name = _TYPES[type_]
    text = "SELECT :x AS value, pg_typeof(:x)::text AS type"
    preview = await reader.preview_query(_bound(text, {"x": type_}, x=given))
    assert list(preview.rows) == [(value, name)]
    empty = await reader.preview_query(_bound("SELECT :x AS value", {"x": type_}))
    assert list(empty.rows) == [(None,)]


@pytest.mark.parametrize(
    "text", ["'", "''", "\\", "$1", ":x", "/*", "--", "$$", "a\nb", "", "NULL"]
)
async def test_a_text_changes_no_statement(reader: PostgreSQLConnector, text: str) -> None:
    query = _bound("SELECT :x AS value WHERE :x = :x", {"x": "text"}, x=text)
    assert list((await reader.preview_query(query)).rows) == [(text,)]
    other = _bound(query.text, {"x": "text"}, x="other")
    assert bound_text(query) == bound_text(other)


async def test_a_file_is_that_of_the_same_query_with_literals(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    text = "SELECT n, {} AS label, n * {} AS price FROM generate_series(1, {}) AS n ORDER BY n"
    types = {"label": "text", "price": "number", "count": "integer"}
    query = _bound(
        text.format(":label", ":price", ":count"), types, label='a,"b"', price="2.50", count=1000
    )
    for file_format in ("csv", "parquet"):
        target = Workspace(workspace, file_format=file_format)
        stored = Path(await reader.fetch_query(query, target))
        literal = text.format("'a,\"b\"'", "2.50", "1000::int8")
        same = Path(await reader.fetch_data(literal, target))
        assert stored.name == f"stored.{file_format}"
        assert stored.read_bytes() == same.read_bytes()


async def test_limits_hold_for_stored_queries(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    query = _bound("SELECT generate_series(1, :n) AS n", {"n": "integer"}, n=10)
    target = with_limits(workspace, max_rows=2)
    path = await reader.fetch_query(query, target)
    assert Path(path).read_text() == "n\n1\n2\n"
    assert target.adopt(path).truncated


@pytest.mark.parametrize(
    "text", ["DELETE FROM orders WHERE id = :x", "SELECT pg_sleep(1), set_config('a.b', :x, true)"]
)
async def test_a_stored_query_is_guarded_like_every_query(
    reader: PostgreSQLConnector, text: str
) -> None:
    with pytest.raises(PolicyError):
        await reader.preview_query(_bound(text, {"x": "text"}, x="1"))


async def test_a_value_does_not_outlive_its_transaction(reader: PostgreSQLConnector) -> None:
    await reader.preview_query(_bound("SELECT :x AS x", {"x": "text"}, x="a value"))
    left = "SELECT current_setting('datasources.x', true) AS x"
    assert ("a value",) not in list((await reader.preview(left)).rows)


async def test_a_table_name_is_no_stored_query(reader: PostgreSQLConnector) -> None:
    with pytest.raises(DataFetchError, match="is a name, and no query"):
        await reader.preview_query(_bound("orders", {}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT ':x', :x", "SELECT ':x', X"),
        ("SELECT 'a'':x', :x", "SELECT 'a'':x', X"),
        (r"SELECT E'\':x', :x", r"SELECT E'\':x', X"),
        ('SELECT ":x", :x', 'SELECT ":x", X'),
        ("SELECT $$:x$$, $a$:x$$:x$a$, :x", "SELECT $$:x$$, $a$:x$$:x$a$, X"),
        ("SELECT 1 -- :x\n, :x", "SELECT 1 -- :x\n, X"),
        ("SELECT /* :x /* :x */ :x */ :x", "SELECT /* :x /* :x */ :x */ X"),
        ("SELECT a::x, b::text, :x::text", "SELECT a::x, b::text, X::text"),
        ("SELECT a[1:n], :y, :x", "SELECT a[1:n], :y, X"),
        ("SELECT 1 /* :x", "SELECT 1 /* :x"),
    ],
)
def test_a_parameter_stands_outside_strings_names_and_comments(text: str, expected: str) -> None:
    query = _bound(text, {"x": "text"}, x="value")
    expression = "(pg_catalog.current_setting('datasources.x')::pg_catalog.text)"
    assert bound_text(query) == expected.replace("X", expression)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SELECT ':x', \":x\", $$:x$$, a::x /* :x */ -- :x", []),
        ("SELECT E'\\':x', :y, :x, :y::date", ["y", "x"]),
        ("SELECT a[1:n], a[:m], :y", ["y"]),
        ("SELECT a[1:declared], b[c[1]:n], :y", ["declared", "y"]),
    ],
)
def test_names_of_parameters_are_found_in_the_text(text: str, names: list[str]) -> None:
    query = StoredQuery(text, {"declared": QueryParameter("integer")})
    assert PostgreSQLConnector.query_parameters(query) == names


@pytest.mark.parametrize(
    ("text", "declared", "reason"),
    [
        ("SELECT :citty", ["city"], "has :citty without a declaration; its parameters: city"),
        ("SELECT :a, :b", [], "has :a, :b without a declaration; its parameters: none"),
        ("SELECT ':a'", ["a"], "does not use its parameters a; write :a, or remove them"),
    ],
)
async def test_query_with_other_parameters_than_it_declares_is_not_stored(
    registered: DataSourceRegistry, text: str, declared: list[str], reason: str
) -> None:
    query = StoredQuery(text, {name: QueryParameter() for name in declared}).to_dict()
    with pytest.raises(OptionError) as caught:
        await registered.update_data_source("db", {"queries": {"stored": query}})
    assert str(caught.value) == f"source 'db': the text of query 'stored' {reason}"
    described = caught.value.to_dict()
    assert (described["part"], described["fields"]) == ("queries", {"/stored/text": reason})
    same = OptionError.from_dict(described)
    assert same.to_dict() == described
    assert registered.get_config("db").queries == {}


async def test_the_result_of_a_stored_query_is_described_and_measured(
    admin: Admin, registered: DataSourceRegistry
) -> None:
    text = "SELECT n AS number, :label AS label, :day AS day FROM generate_series(1, :count) AS n"
    types = {"label": "text", "day": "timestamp", "count": "integer"}
    parameters = {name: QueryParameter(type_) for name, type_ in types.items()}
    query = StoredQuery(text, parameters, "Numbers").to_dict()
    await registered.update_data_source("db", {"queries": {"numbers": query}})
    described = await registered.get_metadata("db", "query:numbers")
    assert described["columns"] == [
        {"name": "number", "type": "bigint"},
        {"name": "label", "type": "text"},
        {"name": "day", "type": "timestamp without time zone"},
    ]
    assert (described["kind"], described["comment"]) == ("stored query", "Numbers")
    assert set(described["parameters"]) == set(types)
    values = {"label": "x", "day": "2026-01-31T12:00:00", "count": 4}
    figures = await registered.statistics("db", "query:numbers", parameters=values)
    assert list(figures) == ["number"]
    assert (figures["number"].count, figures["number"].max) == (4, 4)
    assert [c["name"] for c in described["columns"]] == list(
        (await registered.preview("db", "query:numbers", parameters=values)).columns
    )


async def test_a_stored_query_that_is_refused_is_not_described(
    registered: DataSourceRegistry,
) -> None:
    await registered.update_data_source("db", {"queries": {"a": {"text": "DELETE FROM orders"}}})
    with pytest.raises(PolicyError):
        await registered.get_metadata("db", "query:a")
