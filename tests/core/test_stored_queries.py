"""Stored queries: validated, stored, listed, granted, and bound for the connector."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    CredentialManager,
    DataSourceConfig,
    DataSourceRegistry,
    FetchRequest,
    Grant,
    ItemNotFoundError,
    OptionError,
    PolicyError,
    Principal,
    QueryParameter,
    SQLiteStore,
    StoredQuery,
    UnsupportedError,
)
from datasources.redaction import MARK

_HOSTILE = "x'; DROP TABLE orders; --"
_BY_NAME = StoredQuery(
    "SELECT id, name FROM orders WHERE name = :name ORDER BY id", {"name": QueryParameter()}
)


@pytest.mark.parametrize(
    ("type_", "given", "value"),
    [
        ("text", _HOSTILE, _HOSTILE),
        ("integer", "-12", -12),
        ("integer", 2**63 - 1, 2**63 - 1),
        ("number", "1.50", Decimal("1.50")),
        ("number", 0.1, Decimal("0.1")),
        ("boolean", "true", True),
        ("boolean", False, False),
        ("date", "2026-01-31", date(2026, 1, 31)),
        ("timestamp", "2026-01-31T12:00:00", datetime.fromisoformat("2026-01-31T12:00:00")),
        ("timestamp", "2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_a_value_becomes_one_of_its_type(type_: str, given: Any, value: Any) -> None:
    converted = QueryParameter(type_).convert(given, "x")
    assert (converted, type(converted)) == (value, type(value))


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        ("text", 1),
        ("text", "a\0b"),
        ("integer", "1.0"),
        ("integer", True),
        ("integer", 2**63),
        ("integer", "\uff11"),
        ("number", "nan"),
        ("number", float("inf")),
        ("boolean", "yes"),
        ("boolean", 1),
        ("date", "2026-02-30"),
        ("date", datetime(2026, 1, 1, tzinfo=UTC)),
        ("timestamp", "2026-01-30"),
        ("integer", None),
    ],
)
def test_a_value_of_another_type_is_refused_without_being_repeated(type_: str, given: Any) -> None:
    query = StoredQuery("SELECT :secret", {"secret": QueryParameter(type_)})
    with pytest.raises(OptionError, match="parameter 'secret' of query 'q'") as caught:
        query.bind("q", {"secret": given})
    if isinstance(given, str):
        assert given not in str(caught.value)


def test_a_missing_parameter_and_an_unknown_one_are_refused() -> None:
    with pytest.raises(OptionError, match="'name' of query 'q' is required"):
        _BY_NAME.bind("q", {})
    with pytest.raises(OptionError, match="no parameter 'other'; its parameters: name"):
        _BY_NAME.bind("q", {"name": "a", "other": 1})


def test_a_parameter_that_is_left_out_has_its_default() -> None:
    parameters = {
        "day": QueryParameter("date", required=False, default="2026-01-31"),
        "any": QueryParameter("text", required=False),
    }
    bound = StoredQuery("SELECT :day, :any", parameters).bind("q", {})
    assert bound.values == {"day": date(2026, 1, 31), "any": None}


def test_a_value_that_is_no_choice_is_refused() -> None:
    parameter = QueryParameter("text", choices=("open", "paid"))
    assert parameter.convert("paid", "x") == "paid"
    with pytest.raises(OptionError, match="x must be one of open, paid"):
        parameter.convert("lost", "x")


@pytest.mark.parametrize("text", ["", "SELECT '${env:KEY}'", f"SELECT '{MARK}'", "SELECT\0"])
def test_a_query_with_a_reference_or_a_mask_or_no_text_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        StoredQuery(text)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    pytest.importorskip("datasources_sqlite")
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE orders (id INTEGER, name TEXT)")
        rows = [(1, "a"), (2, _HOSTILE), (3, "a")]
        connection.executemany("INSERT INTO orders VALUES (?, ?)", rows)
    return path


def _config(database: Path, **queries: StoredQuery) -> DataSourceConfig:
    return DataSourceConfig(
        "shop", "sqlite", "Shop", {"path": str(database)}, queries=queries or {"by-name": _BY_NAME}
    )


async def test_a_stored_query_is_fetched_and_previewed_with_values(
    database: Path, tmp_path: Path
) -> None:
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(_config(database))
        parameters = {"name": _HOSTILE}
        receipt = await registry.fetch(
            "shop", "query:by-name", tmp_path / "w", parameters=parameters
        )
        assert (Path(receipt.path).name, receipt.rows) == ("by-name.csv", 1)
        preview = await registry.preview("shop", "query:by-name", parameters={"name": "a"})
        assert list(preview.rows) == [(1, "a"), (3, "a")]
        async with registry.open_stream("shop", "query:by-name", parameters=parameters) as stream:
            content = b"".join([chunk async for chunk in stream])
        assert content == Path(receipt.path).read_bytes()
        (result,) = await registry.fetch_many(
            [FetchRequest("shop", "query:by-name", parameters={"name": "a"})], tmp_path / "v"
        )
        assert result.receipt is not None
        assert result.receipt.rows == 2


async def test_results_for_other_values_do_not_share_a_file(database: Path, tmp_path: Path) -> None:
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(_config(database))
        requests = [
            FetchRequest("shop", "query:by-name", parameters={"name": name})
            for name in ("a", _HOSTILE)
        ]
        first, second = await registry.fetch_many(requests, tmp_path / "w")
        assert first.error is None
        assert second.error is not None


async def test_stored_queries_are_listed_and_described(database: Path) -> None:
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(_config(database, a=_BY_NAME, b=_BY_NAME))
        paths = ["query:a", "query:b", "orders"]
        assert [item.path for item in await registry.list_items("shop")] == paths
        assert [item.path async for item in registry.iter_items("shop")] == paths
        for limit in (1, 2, 3):
            listed, cursor = [], None
            while True:
                page = await registry.list_page("shop", limit=limit, cursor=cursor)
                listed += [item.path for item in page.items]
                if (cursor := page.cursor) is None:
                    break
            assert listed == paths
        assert [i.path for i in await registry.glob_items("shop", "query:*")] == paths[:2]
        assert [i.path for i in await registry.expand("shop", None)] == ["orders"]
        metadata = await registry.get_metadata("shop", "query:a")
        assert metadata["kind"] == "stored query"
        assert metadata["parameters"]["name"]["type"] == "text"
        with pytest.raises(ItemNotFoundError, match=r"no stored query 'c'; .*: a, b"):
            await registry.preview("shop", "query:c")
        with pytest.raises(OptionError, match="only stored queries"):
            await registry.preview("shop", "orders", parameters={"name": "a"})
        with pytest.raises(UnsupportedError, match="compute statistics of stored queries"):
            await registry.statistics("shop", "query:a", parameters={"name": "a"})
        with pytest.raises(OptionError, match="'name' of query 'a' is required"):
            await registry.statistics("shop", "query:a")


async def test_a_grant_to_read_admits_stored_queries_and_no_others(
    database: Path, tmp_path: Path
) -> None:
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(_config(database, a=_BY_NAME, b=_BY_NAME))
        reader = registry.access(
            Principal("ann", grants=[Grant("shop", {"read"}, items=("query:a",))])
        )
        assert [item.path for item in await reader.list_items("shop")] == ["query:a"]
        parameters = {"name": "a"}
        receipt = await reader.fetch("shop", "query:a", tmp_path / "w", parameters=parameters)
        assert receipt.rows == 2
        for identifier in ("query:b", "SELECT 1", "orders"):
            with pytest.raises(PolicyError):
                await reader.preview("shop", identifier)


async def test_a_store_holds_stored_queries_and_updates_merge_them(
    database: Path, tmp_path: Path
) -> None:
    path = str(tmp_path / "store.db")
    manager = CredentialManager(CredentialManager.generate_key())
    async with DataSourceRegistry(manager, store=SQLiteStore(path)) as registry:
        await registry.register_data_source(_config(database))
    async with DataSourceRegistry(manager, store=SQLiteStore(path)) as registry:
        config = registry.get_config("shop")
        assert config.queries == {"by-name": _BY_NAME}
        assert config.metadata == {}
        changes = {"queries": {"by-name": {"description": "Orders"}, "all": {"text": "SELECT 1"}}}
        await registry.update_data_source("shop", changes)
        queries = registry.get_config("shop").queries
        assert queries["by-name"].description == "Orders"
        assert queries["by-name"].text == _BY_NAME.text
        await registry.update_data_source("shop", {"queries": {"by-name": None}})
        assert list(registry.get_config("shop").queries) == ["all"]
        with pytest.raises(OptionError, match=r"query 'all': .*'text' of a stored query"):
            await registry.update_data_source("shop", {"queries": {"all": {"text": ""}}})


@pytest.mark.parametrize(
    "text", ["SELECT 1", "SELECT x::name", "SELECT :names", "SELECT :name_of", "SELECT name"]
)
async def test_a_parameter_that_the_text_does_not_use_is_refused_when_it_is_stored(
    database: Path, text: str
) -> None:
    unused = StoredQuery(text, {"name": QueryParameter()})
    async with DataSourceRegistry() as registry:
        refusal = "text of query 'a' does not use its parameters name; write :name, or remove them"
        with pytest.raises(OptionError, match=refusal):
            await registry.register_data_source(_config(database, a=unused))
        with pytest.raises(OptionError, match=refusal):
            await registry.check_config(_config(database, a=unused))
        await registry.register_data_source(_config(database))
        with pytest.raises(OptionError, match=refusal):
            await registry.update_data_source("shop", {"queries": {"a": unused.to_dict()}})
        for used in ("SELECT :name", "SELECT a[1:name]", "SELECT (:name)::text, ':x'"):
            query = StoredQuery(used, {"name": QueryParameter()}).to_dict()
            await registry.update_data_source("shop", {"queries": {"a": query}})


async def test_a_connector_without_parameters_has_no_stored_queries(tmp_path: Path) -> None:
    config = DataSourceConfig(
        "files", "local_file", "Files", {"path": str(tmp_path)}, queries={"a": _BY_NAME}
    )
    async with DataSourceRegistry() as registry:
        with pytest.raises(OptionError, match="takes no parameters"):
            await registry.register_data_source(config)
