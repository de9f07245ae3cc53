"""`queries`, and stored queries in `items`, `preview` and `fetch`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("datasources_sqlite", reason="examples/sqlite is not installed")


@pytest.fixture
def shop(ok, tmp_path: Path) -> str:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE orders (id INTEGER, day TEXT)")
        connection.execute("INSERT INTO orders VALUES (1, '2026-01-01'), (2, '2026-02-01')")
    ok("add", "sqlite", "--id", "shop", "-o", f"path={path}")
    query = tmp_path / "since.sql"
    query.write_text("SELECT id FROM orders WHERE day >= :day ORDER BY id\n")
    ok("queries", "add", "shop", "since", "--file", str(query), "--parameter", "day:date")
    return "shop"


def test_a_stored_query_is_listed_and_fetched(ok, shop: str, tmp_path: Path) -> None:
    assert [item["path"] for item in ok("items", shop, "--json").json] == ["query:since", "orders"]
    assert "day:date" in ok("queries", "list", shop).out
    into = str(tmp_path / "w")
    ok("fetch", shop, "query:since", "-p", "day=2026-01-15", "--into", into)
    assert (tmp_path / "w" / "since.csv").read_text() == "id\n2\n"
    shown = ok("show", shop, "--json").json["queries"]
    assert shown["since"]["parameters"]["day"]["type"] == "date"
    assert "since  SELECT id FROM orders WHERE" in ok("show", shop).out
    preview = ok("preview", shop, "query:since", "-p", "day=2026-01-01", "--json").json
    assert preview["rows"] == [[1], [2]]


def test_parameters_that_do_not_fit_are_one_sentence(fails, shop: str, tmp_path: Path) -> None:
    into = ("--into", str(tmp_path / "w"))
    assert "must be a date" in fails("fetch", shop, "query:since", "-p", "day=soon", *into)
    assert "is required" in fails("fetch", shop, "query:since", *into)
    assert "no parameter 'n'" in fails("preview", shop, "query:since", "-p", "n=1")
    assert "NAME=VALUE" in fails("preview", shop, "query:since", "-p", "secret")
    assert "given twice" in fails("preview", shop, "query:since", "-p", "n=1", "-p", "n=2")


def test_statistics_take_parameters(fails, shop: str) -> None:
    for given, error in (
        ([], "is required"),
        (["-p", "day=2026-01-01"], "cannot compute statistics of stored queries"),
    ):
        assert error in fails("stats", shop, "query:since", *given)


def test_a_parameter_that_is_not_used_is_refused(fails, shop: str, tmp_path: Path) -> None:
    query = tmp_path / "all.sql"
    query.write_text("SELECT id FROM orders\n")
    arguments = ["queries", "add", shop, "all", "--file", str(query), "--parameter", "day:date"]
    assert "does not use its parameters day" in fails(*arguments)


def test_a_stored_query_is_replaced_only_after_it_was_removed(ok, fails, shop: str) -> None:
    assert "remove it first" in fails("queries", "add", shop, "since", "--file", __file__)
    ok("queries", "remove", shop, "since")
    assert ok("queries", "list", shop, "--json").json == {}
    assert "no stored query 'since'" in fails("queries", "remove", shop, "since")


def test_stored_queries_are_exported_and_imported(ok, shop: str, tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    file.write_text(ok("export", shop).out)
    before = ok("queries", "list", shop, "--json").json
    ok("remove", shop, "--yes")
    ok("import", str(file))
    assert ok("queries", "list", shop, "--json").json == before
