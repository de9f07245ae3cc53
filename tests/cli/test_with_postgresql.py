"""The command line on a real database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

psycopg = pytest.importorskip("psycopg")

SCRIPT = """
CREATE TABLE sales_eu (id int PRIMARY KEY, amount numeric);
CREATE TABLE sales_us (id int PRIMARY KEY, amount numeric);
INSERT INTO sales_eu SELECT n, n * 1.5 FROM generate_series(1, 20) n;
CREATE ROLE {reader} LOGIN PASSWORD '{password}';
GRANT SELECT ON sales_eu, sales_us TO {reader};
"""


@pytest.fixture
def database(pg_database, ok: Callable):
    """A stored source `db` that reads two tables; return its password."""
    reader, password = f"reader_{pg_database.name}", "m4rker-p/ss#w@rd"
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        connection.execute(SCRIPT.format(reader=reader, password=password))
    options = {"database": pg_database.name, "user": reader}
    options |= {"host": pg_database.host, "port": pg_database.port}
    pairs = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    ok("add", "postgresql", "--id", "db", *pairs, "-s", "password", pipe=f"{password}\n")
    yield password
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {reader}; DROP ROLE {reader}")


def test_a_query_with_a_star_is_a_query_and_a_pattern_is_a_pattern(ok, database, tmp_path) -> None:
    into = ["--into", str(tmp_path / "ws"), "--json"]
    (receipt,) = ok("fetch", "db", "select * from sales_eu order by id", *into).json
    assert receipt["rows"] == 20
    assert Path(receipt["path"]).read_text().startswith("id,amount\n1,1.5\n")
    tables = ok("fetch", "db", "public.sales_*", *into).json
    assert [table["identifier"] for table in tables] == ["public.sales_eu", "public.sales_us"]


def test_limits_preview_info_and_statistics(ok, database, tmp_path) -> None:
    into = ["--into", str(tmp_path / "ws")]
    done = ok("fetch", "db", "public.sales_eu", "--max-rows", "5", *into)
    assert "has more than the 5 rows fetched" in done.err
    preview = ok("preview", "db", "public.sales_eu", "-n", "2").out
    assert preview.split() == ["id", "amount", "1", "1.5", "2", "3.0"]
    assert "amount" in ok("info", "db", "public.sales_eu").out
    assert ok("stats", "db", "public.sales_eu", "--json").json["id"]["max"] == 20


def test_a_mistake_in_a_query_is_the_servers_own_sentence(fails, database, tmp_path) -> None:
    into = ["--into", str(tmp_path / "ws")]
    assert "syntax error" in fails("fetch", "db", "select * frm sales_eu", *into)
    assert 'relation "nothing" does not exist' in fails(
        "fetch", "db", "select * from nothing", *into
    )
    message = fails("fetch", "db", "public.nothing*", *into)
    assert message.startswith("no item of source 'db' matches 'public.nothing*'; taken as it is: ")


def test_a_wrong_password_is_told_and_nothing_is_stored(ok, fails, database) -> None:
    options = ok("show", "db", "--json").json["options"]
    pairs = [f"{name}={options[name]}" for name in ("host", "port", "database", "user")]
    message = fails(
        "add",
        "postgresql",
        "--id",
        "other",
        "-s",
        "password",
        *[part for pair in pairs for part in ("-o", pair)],
        pipe=f"{database}x\n",
    )
    assert "password authentication failed" in message
    assert database not in message
    assert [row["id"] for row in ok("list", "--json").json] == ["db"]
