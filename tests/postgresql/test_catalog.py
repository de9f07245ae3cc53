from __future__ import annotations

import json
from decimal import Decimal

import psycopg
import pytest

from datasources import (
    ItemNotFoundError,
    PermissionDeniedError,
    Workspace,
    abilities,
)
from datasources_postgresql import PostgreSQLConnector, libpq
from tests.postgresql.conftest import Admin, Source, rows_of
from tests.servers import Database

SHOP = """
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL DEFAULT 'nobody' CHECK (name <> ''),
    area numeric(10, 2),
    doubled numeric GENERATED ALWAYS AS (area * 2) STORED,
    UNIQUE (name, area)
);
COMMENT ON TABLE customers IS 'Who buys';
COMMENT ON COLUMN customers.area IS 'in square metres';
CREATE TABLE orders (
    id int PRIMARY KEY,
    customer bigint NOT NULL REFERENCES customers,
    parent int REFERENCES orders
);
CREATE INDEX by_customer ON orders (customer);
CREATE VIEW latest AS SELECT * FROM orders ORDER BY id DESC LIMIT 10;
CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) AS orders FROM orders GROUP BY 1;
CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO customers (name, area) SELECT 'c' || g, g / 2.0 FROM generate_series(1, 9) g;
INSERT INTO orders SELECT g, 1 + g % 9, NULL FROM generate_series(1, 100) g;
INSERT INTO events SELECT '2024-05-01'::date + g, 'e' FROM generate_series(1, 5) g;
ANALYZE;
"""

ODD_NAMES = [
    "dots.in.name",
    'quote"inside',
    "Capitals",
    "größe ünïcode 表",
    "slash/in/name",
    "back\\slash",
    "update",
    "with space",
    "'single'",
    "per%cent %41",
    "semi;colon--",
    "..",
    "new\nline",
    "$dollar",
    "1digit",
]


@pytest.fixture
async def shop(admin: Admin, reader: PostgreSQLConnector) -> PostgreSQLConnector:
    admin.execute(SHOP)
    return reader


async def test_every_kind_is_listed_with_its_canonical_name(shop: PostgreSQLConnector) -> None:
    items = await shop.list_items()
    assert {item.path: item.metadata["kind"] for item in items} == {
        "public.customers": "table",
        "public.events": "partitioned table",
        "public.events_2024": "partition",
        "public.latest": "view",
        "public.orders": "table",
        "public.totals": "materialized view",
    }
    by_name = {item.name: item for item in items}
    assert by_name["orders"].metadata["estimated_rows"] == 100
    assert by_name["orders"].size is None
    assert by_name["customers"].metadata["comment"] == "Who buys"


async def test_foreign_table_is_listed(admin: Admin, reader: PostgreSQLConnector) -> None:
    admin.execute(
        "CREATE EXTENSION postgres_fdw;"
        "CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE FOREIGN TABLE far (id int) SERVER other"
    )
    (item,) = await reader.list_items()
    assert (item.path, item.metadata["kind"]) == ("public.far", "foreign table")


async def test_listing_leaves_out_what_the_role_may_not_read(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    admin.execute(
        "CREATE TABLE hidden (id int); REVOKE ALL ON hidden FROM reader;"
        "CREATE TABLE partly (id int, secret text); REVOKE ALL ON partly FROM reader;"
        "GRANT SELECT (id) ON partly TO reader;"
        "CREATE SCHEMA closed; CREATE TABLE closed.inside (id int)"
    )
    assert [item.path for item in await reader.list_items()] == ["public.partly"]
    with pytest.raises(PermissionDeniedError, match="permission denied for table hidden") as caught:
        await reader.fetch_data("hidden", workspace)
    assert caught.value.code == "42501"


async def test_schema_is_a_path_and_an_option(admin: Admin, source: Source) -> None:
    admin.execute(
        'CREATE SCHEMA "Odd.Schema"; CREATE TABLE "Odd.Schema".t (id int);'
        "CREATE SCHEMA empty; CREATE TABLE u (id int);"
        'GRANT USAGE ON SCHEMA "Odd.Schema", empty TO reader'
    )
    every = await source()
    assert [i.path for i in await every.list_items('"Odd.Schema"')] == ['"Odd.Schema".t']
    assert await every.list_items("empty") == []
    with pytest.raises(ItemNotFoundError, match="no schema 'missing'"):
        await every.list_items("missing")
    with pytest.raises(ItemNotFoundError):
        await every.list_items("a.b")
    some = await source(schemas="public, empty")
    assert [i.path for i in await some.list_items()] == ["public.u"]
    with pytest.raises(ItemNotFoundError):
        await some.list_items('"Odd.Schema"')


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_odd_name_is_listed_described_previewed_and_fetched(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace, name: str
) -> None:
    table = psycopg.sql.Identifier(name)
    admin.execute(psycopg.sql.SQL('CREATE TABLE {} ("delete" int, {} text)').format(table, table))
    admin.execute(psycopg.sql.SQL("INSERT INTO {} VALUES (1, 'x')").format(table))
    (item,) = await reader.list_items()
    assert item.name == name
    found = await reader.get_metadata(item.path)
    assert [column["name"] for column in found["columns"]] == ["delete", name]
    assert (await reader.preview(item.path)).rows == [(1, "x")]
    path = await reader.fetch_data(item.path, workspace)
    assert rows_of(path) == [["delete", name], ["1", "x"]]
    assert path.startswith(str(workspace) + "/")


async def test_distinct_tables_give_distinct_files(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    admin.execute(
        'CREATE SCHEMA "a.b"; CREATE SCHEMA a; CREATE TABLE "a.b".c (id int);'
        'CREATE TABLE a."b.c" (id int); CREATE TABLE a."b/c" (id int); CREATE TABLE a."B" (id int);'
        'CREATE TABLE a.b (id int); GRANT USAGE ON SCHEMA a, "a.b" TO reader'
    )
    paths = [await reader.fetch_data(i.path, workspace) for i in await reader.list_items()]
    assert len(set(paths)) == 5


async def test_glob_finds_tables_by_their_paths(shop: PostgreSQLConnector) -> None:
    found = await shop.glob_items("public.[eo]*s")
    assert [item.path for item in found] == ["public.events", "public.orders"]


async def test_names_fold_as_in_a_query(shop: PostgreSQLConnector, workspace: Workspace) -> None:
    for identifier in ("orders", "ORDERS", " public . Orders ", '"orders"', 'public."orders"'):
        path = await shop.fetch_data(identifier, workspace)
        assert path == f"{workspace}/public.orders.csv"
    with pytest.raises(ItemNotFoundError, match=r"'Orders'; did you mean public\.orders\?"):
        await shop.fetch_data('"Orders"', workspace)


async def test_a_schema_may_have_any_name_on_the_search_path(admin: Admin, source: Source) -> None:
    admin.execute(
        "CREATE SCHEMA snapshot; CREATE TABLE snapshot.t AS SELECT 7 AS i;"
        "GRANT USAGE ON SCHEMA snapshot TO reader; GRANT SELECT ON snapshot.t TO reader"
    )
    connector = await source(search_path=["snapshot"])
    assert (await connector.preview("SELECT i FROM t", 5)).rows == [(7,)]


async def test_search_path_decides_where_unqualified_names_are(
    admin: Admin, source: Source
) -> None:
    admin.execute(
        'CREATE SCHEMA "Other"; GRANT USAGE ON SCHEMA "Other" TO reader;'
        'CREATE TABLE public.t AS SELECT 1 AS id; CREATE TABLE "Other".t AS SELECT 2 AS id'
    )
    assert (await (await source()).preview("t")).rows == [(1,)]
    other = await source(search_path=["Other", "public"])
    assert (await other.preview("t")).rows == [(2,)]
    assert (await other.preview("SELECT * FROM t")).rows == [(2,)]


async def test_metadata_tells_columns_keys_and_references(shop: PostgreSQLConnector) -> None:
    found = await shop.get_metadata("customers")
    json.dumps(found)
    assert found["comment"] == "Who buys"
    assert found["primary_key"] == ["id"]
    assert found["unique"] == [["name", "area"]]
    assert found["checks"] == [{"name": "customers_name_check", "expression": "(name <> ''::text)"}]
    assert found["estimated_rows"] == 9
    assert found["rows"] is None
    assert found["size"] > 0
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["id"]["identity"] is True
    assert columns["name"]["nullable"] is False
    assert columns["name"]["default"] == "'nobody'::text"
    assert columns["area"]["type"] == "numeric(10,2)"
    assert columns["area"]["comment"] == "in square metres"
    assert columns["doubled"]["generated"] is not None
    assert columns["doubled"]["default"] is None
    assert found["referenced_by"] == [
        {
            "name": "orders_customer_fkey",
            "columns": ["customer"],
            "table": "public.orders",
            "referenced_columns": ["id"],
        }
    ]


async def test_metadata_tells_foreign_keys_both_ways_of_a_table_to_itself(
    shop: PostgreSQLConnector,
) -> None:
    found = await shop.get_metadata("orders")
    itself = {
        "name": "orders_parent_fkey",
        "columns": ["parent"],
        "table": "public.orders",
        "referenced_columns": ["id"],
    }
    assert found["referenced_by"] == [itself]
    assert itself in found["foreign_keys"]
    assert {key["table"] for key in found["foreign_keys"]} == {"public.customers", "public.orders"}
    assert {index["name"] for index in found["indexes"]} == {"by_customer", "orders_pkey"}


async def test_metadata_of_partitions(shop: PostgreSQLConnector) -> None:
    parent = await shop.get_metadata("events")
    assert parent["kind"] == "partitioned table"
    assert parent["partition_key"] == "RANGE (at)"
    assert parent["size"] > 0
    child = await shop.get_metadata("events_2024")
    assert child["partition_of"] == "public.events"
    assert child["kind"] == "partition"


async def test_metadata_of_every_kind(admin: Admin, shop: PostgreSQLConnector) -> None:
    admin.execute(
        "CREATE EXTENSION postgres_fdw;"
        "CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE FOREIGN TABLE far (id int NOT NULL, note text DEFAULT 'x') SERVER other;"
        "REFRESH MATERIALIZED VIEW totals; ANALYZE totals;"
        "COMMENT ON VIEW latest IS 'The newest ten'; COMMENT ON FOREIGN TABLE far IS 'Elsewhere'"
    )
    view = await shop.get_metadata("latest")
    assert (view["kind"], view["comment"], view["size"]) == ("view", "The newest ten", None)
    assert [column["name"] for column in view["columns"]] == ["id", "customer", "parent"]
    stored = await shop.get_metadata("totals")
    assert (stored["kind"], stored["estimated_rows"]) == ("materialized view", 9)
    assert stored["size"] > 0
    far = await shop.get_metadata("far")
    assert (far["kind"], far["comment"], far["size"]) == ("foreign table", "Elsewhere", None)
    assert [(c["type"], c["nullable"], c["default"]) for c in far["columns"]] == [
        ("integer", False, None),
        ("text", True, "'x'::text"),
    ]


async def test_listing_and_metadata_ask_as_often_however_many_tables(
    admin: Admin, shop: PostgreSQLConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    start = libpq._note_start

    def counted(connection):
        asked.append(connection)
        start(connection)

    monkeypatch.setattr(libpq, "_note_start", counted)

    async def count(call) -> int:
        asked.clear()
        await call
        return len(asked)

    few = await count(shop.list_items()), await count(shop.get_metadata("orders"))
    admin.execute(";".join(f"CREATE TABLE t{n} (id int REFERENCES orders)" for n in range(200)))
    many = await count(shop.list_items()), await count(shop.get_metadata("orders"))
    assert len(await shop.list_items()) > 200
    assert many == few
    # BEGIN, the question, ROLLBACK, DISCARD ALL; a table is looked up, parsed and described first,
    # and its functions are looked up.
    assert few == (4, 8)


async def test_rows_are_counted_on_request(admin: Admin, shop: PostgreSQLConnector) -> None:
    admin.execute("DELETE FROM orders WHERE id > 42")
    found = await shop.get_metadata("orders", exact_rows=True)
    assert (found["estimated_rows"], found["rows"]) == (100, 42)
    query = await shop.get_metadata("SELECT 1 FROM orders", exact_rows=True)
    assert query["rows"] == 42


async def test_never_analysed_table_has_unknown_rows(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE fresh (id int)")
    assert (await reader.get_metadata("fresh"))["estimated_rows"] is None


async def test_metadata_of_a_query_does_not_run_it(reader: PostgreSQLConnector) -> None:
    found = await reader.get_metadata(
        "SELECT 1 AS a, 1.5::numeric(9,3) AS a, '{}'::int[] AS c, 1/0 AS boom"
    )
    assert found["kind"] == "query"
    assert found["columns"] == [
        {"name": "a", "type": "integer"},
        {"name": "a", "type": "numeric(9,3)"},
        {"name": "c", "type": "integer[]"},
        {"name": "boom", "type": "integer"},
    ]


async def test_missing_table_is_not_found_and_suggests(shop: PostgreSQLConnector) -> None:
    for call in (shop.get_metadata, shop.preview, shop.statistics):
        with pytest.raises(ItemNotFoundError, match="no table or view 'nowhere'") as caught:
            await call("nowhere")
        assert caught.value.code == "42P01"


async def test_preview_gives_typed_rows_and_says_if_there_are_more(
    shop: PostgreSQLConnector,
) -> None:
    shown = await shop.preview("customers", 2)
    assert shown.columns == ("id", "name", "area", "doubled")
    assert shown.rows == [
        (1, "c1", Decimal("0.50"), Decimal("1.00")),
        (2, "c2", Decimal("1.00"), Decimal("2.00")),
    ]
    assert shown.truncated
    assert not (await shop.preview("customers", 9)).truncated
    assert len((await shop.get_table_preview("orders")).rows) == 10
    assert len((await shop.get_table_preview("orders", limit=3)).rows) == 3


async def test_preview_keeps_duplicate_names_and_values_python_has_not(
    reader: PostgreSQLConnector,
) -> None:
    shown = await reader.preview(
        "SELECT 1 AS a, 2 AS a, '24:00:00'::time, 'infinity'::timestamptz, '0044-03-15 BC'::date,"
        " '178000000 years'::interval AS long, NULL, ''"
    )
    assert shown.columns[:2] == ("a", "a")
    assert shown.rows[0][2:] == (
        "24:00:00",
        "infinity",
        "0044-03-15 BC",
        "178000000 years",
        None,
        "",
    )


async def test_preview_of_explain(shop: PostgreSQLConnector) -> None:
    assert (await shop.preview("EXPLAIN SELECT * FROM orders")).columns == ("QUERY PLAN",)


async def test_statistics_of_numeric_columns(admin: Admin, reader: PostgreSQLConnector) -> None:
    admin.execute(
        "CREATE TABLE n (i int, f float8, d numeric, t text);"
        "INSERT INTO n VALUES (1, 1.5, 'NaN', 'x'), (3, NULL, 2, 'y'), (NULL, NULL, NULL, 'z')"
    )
    found = await reader.statistics("n")
    assert set(found) == {"i", "f", "d"}
    assert (found["i"].count, found["i"].nulls, found["i"].min, found["i"].max) == (2, 1, 1, 3)
    assert found["i"].mean == 2.0
    assert found["f"].mean == 1.5
    assert found["d"].max.is_nan()
    assert not found["i"].sampled
    empty = await reader.statistics("SELECT * FROM n WHERE false")
    assert (empty["i"].count, empty["i"].min, empty["i"].mean) == (0, None, None)
    assert await reader.statistics("SELECT 'x' AS t") == {}
    assert (await reader.statistics("SELECT 1 AS a, 2 AS a, 'x' AS b"))["a"].max == 1


async def test_statistics_of_a_big_table_come_from_a_sample_and_say_so(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE TABLE big AS SELECT g AS i FROM generate_series(1, 100000) g;"
        "UPDATE pg_class SET reltuples = 20000000 WHERE relname = 'big'"
    )
    found = await reader.statistics("big")
    assert found["i"].sampled
    assert 0 < found["i"].count < 100_000


async def test_abilities_can_be_seen() -> None:
    assert {"glob", "preview", "statistics"} <= abilities(PostgreSQLConnector)


@pytest.mark.slow
async def test_five_thousand_tables_are_listed(
    admin: Admin, reader: PostgreSQLConnector, pg_database: Database
) -> None:
    for start in range(0, 5000, 500):  # each batch of locks fits the server's lock table
        for number in range(start, start + 500, 50):
            admin.execute(
                ";".join(
                    f"CREATE TABLE t{n} (id int, name text)" for n in range(number, number + 50)
                )
            )
    assert len(await reader.list_items()) == 5000
