"""Tables read as arrays of ranges of blocks: the same Arrow data as by COPY."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from datasources import DataFetchError, LimitExceededError, Workspace
from datasources_postgresql import PostgreSQLConnector, libpq
from datasources_postgresql.arrow import ranges
from tests.postgresql.conftest import Admin, Source, active
from tests.postgresql.test_parquet import as_parquet
from tests.waiting import wait_until

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
arrow = pytest.importorskip("datasources_postgresql.arrow.arrow")

DAYS = st.integers(-730_119, 2_921_939)
MICROSECONDS = st.integers(-63_082_281_600_000_000, 252_455_615_999_999_999)
COLUMNS = {
    "int2": ("%s", st.integers(-(1 << 15), (1 << 15) - 1)),
    "int4": ("%s", st.integers(-(1 << 31), (1 << 31) - 1)),
    "int8": ("%s", st.integers(-(1 << 63), (1 << 63) - 1)),
    "float4": ("%s", st.floats(width=32)),
    "float8": ("%s", st.floats()),
    "bool": ("%s", st.booleans()),
    "whole": ("%s", st.integers(0, 9)),
    "date": ("date '2000-01-01' + %s::int4", DAYS),
    "time": ("time '0:00' + (%s || ' us')::interval", st.integers(0, 86_399_999_999)),
    "timestamp": ("timestamp '2000-01-01' + (%s || ' us')::interval", MICROSECONDS),
    "timestamptz": ("timestamptz '2000-01-01 0:00Z' + (%s || ' us')::interval", MICROSECONDS),
}
"""By type: the SQL of a value, and its parameter. `whole` is a domain."""
ROWS = st.lists(st.tuples(*(st.none() | values for _, values in COLUMNS.values())), max_size=60)
THOUSAND = "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i;"


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read any table as arrays, of two blocks each, whatever the number of its columns."""
    monkeypatch.setattr(ranges, "_FEWEST_BLOCKS", 1)
    monkeypatch.setattr(ranges, "_BLOCKS", 2)
    monkeypatch.setattr(arrow, "_MOST_ARRAYS", 100)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements of COPY that are sent, in their order."""
    sent: list[str] = []
    copy_rows = libpq.copy_rows

    async def record(connection: Any, command: bytes, *arguments: Any) -> Any:
        sent.append(command.decode())
        return await copy_rows(connection, command, *arguments)

    monkeypatch.setattr(libpq, "copy_rows", record)
    return sent


def are_arrays(statements: list[str]) -> list[bool]:
    return ["array_agg" in statement for statement in statements]


async def by_copy(connector: PostgreSQLConnector, identifier: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow, "_MOST_ARRAYS", 0)
        return await connector.read_table(identifier)


def bits(table: Any) -> list[Any]:
    """Return the columns of a table, floats as integers: NaN is not equal to itself."""
    columns = [column.combine_chunks() for column in table.columns]
    views = {pa.float32(): pa.int32(), pa.float64(): pa.int64()}
    return [column.view(views.get(column.type, column.type)) for column in columns]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
async def test_arrays_of_every_type_give_the_table_that_copy_gives(
    admin: Admin, reader: PostgreSQLConnector, statements: list[str], rows: list[tuple[Any, ...]]
) -> None:
    admin.execute(
        "DROP TABLE IF EXISTS t; DROP DOMAIN IF EXISTS whole; CREATE DOMAIN whole AS int8;"
        "CREATE TABLE t (gone text, "
        + ", ".join(f'"{number} {type_}" {type_}' for number, type_ in enumerate(COLUMNS))
        + ")"
    )
    values = ", ".join(sql for sql, _ in COLUMNS.values())
    with admin.cursor() as cursor:
        cursor.executemany(f"INSERT INTO t VALUES (repeat('x', 900), {values})", rows)
    admin.execute("ALTER TABLE t DROP COLUMN gone")
    statements.clear()
    table = await reader.read_table("t")
    copied = await by_copy(reader, "t")
    assert are_arrays(statements) == ([True, False] if rows else [False, False])
    assert table.num_rows == len(rows)
    assert table.schema.equals(copied.schema, check_metadata=True)
    assert bits(table) == bits(copied)


@pytest.mark.parametrize(
    "value",
    [
        "date 'infinity'",
        "date '-infinity'",
        "date '4714-11-24 BC'",
        "date '5874897-12-31'",
        "time '24:00'",
        "timestamp 'infinity'",
        "timestamp '0044-03-15 12:00 BC'",
        "timestamptz '-infinity'",
        "timestamptz '294276-12-31 23:59:59.999999+00'",
    ],
)
async def test_values_that_arrow_cannot_hold_are_refused_as_by_copy(
    admin: Admin, reader: PostgreSQLConnector, statements: list[str], value: str
) -> None:
    admin.execute(
        f"CREATE TABLE t AS SELECT CASE i WHEN 2 THEN {value} END AS v FROM generate_series(1, 3) i"
    )
    with pytest.raises(DataFetchError) as by_arrays:
        await reader.read_table("t")
    with pytest.raises(DataFetchError) as copied:
        await by_copy(reader, "t")
    assert are_arrays(statements) == [True, False]
    assert str(by_arrays.value) == str(copied.value)


async def test_floats_have_the_bits_that_the_server_holds(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE TABLE t AS SELECT v::float8 AS v FROM"
        " unnest('{NaN,Infinity,-Infinity,-0,NULL,5e-324,1.7976931348623157e308}'::text[]) v"
    )
    table = await reader.read_table("t")
    assert list(map(str, table["v"].to_pylist())) == [
        "nan", "inf", "-inf", "-0.0", "None", "5e-324", "1.7976931348623157e+308"
    ]  # fmt: skip


@pytest.mark.parametrize("nulls", ["i % 3 = 0", "i > 3000", "true"])
async def test_nulls_are_found_in_arrays_of_thousands(
    admin: Admin,
    reader: PostgreSQLConnector,
    statements: list[str],
    monkeypatch: pytest.MonkeyPatch,
    nulls: str,
) -> None:
    monkeypatch.setattr(ranges, "_BLOCKS", 1000)
    admin.execute(
        f"CREATE TABLE t AS SELECT i, CASE WHEN NOT ({nulls}) THEN i END AS a,"
        f" CASE WHEN NOT ({nulls}) THEN i % 2 = 0 END AS b FROM generate_series(1, 5000) i"
    )
    assert (await reader.read_table("t")).equals(await by_copy(reader, "t"))
    assert are_arrays(statements) == [True, False]


@pytest.mark.parametrize(
    "table",
    [
        f"{THOUSAND} CREATE TABLE child () INHERITS (t); INSERT INTO child VALUES (1001)",
        "CREATE TABLE t (i int) PARTITION BY LIST (i); CREATE TABLE leaf PARTITION OF t DEFAULT",
        f"{THOUSAND} CREATE POLICY p ON t USING (i <= 9); ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE TABLE base AS SELECT 1 AS i; CREATE VIEW t AS SELECT i FROM base",
        "CREATE TABLE t AS SELECT 1 AS i, 'x' AS text",
    ],
    ids=["children", "partitions", "policies", "view", "text"],
)
async def test_what_is_no_plain_table_of_short_values_is_copied(
    admin: Admin, reader: PostgreSQLConnector, statements: list[str], table: str
) -> None:
    admin.execute(table)
    rows = (await reader.read_table("t"))["i"].to_pylist()
    assert are_arrays(statements) == [False]
    admin.execute("SET ROLE reader")
    assert sorted(rows) == [i for (i,) in admin.execute("SELECT i FROM t ORDER BY i")]


@pytest.mark.parametrize("name", ["r", "t", "a", "q", 'Odd "name" (%s)'])
async def test_names_of_tables_and_columns_do_not_meet_those_of_the_query(
    admin: Admin, reader: PostgreSQLConnector, statements: list[str], name: str
) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    admin.execute(f'CREATE TABLE {quoted} (first int, c1 int, r int, t int, {quoted[:-1]}2" int)')
    admin.execute(f"INSERT INTO {quoted} SELECT 1, i, 3, 4 FROM generate_series(1, 1000) i")
    table = await reader.read_table(quoted)
    assert are_arrays(statements) == [True]
    assert table["c1"].to_pylist() == list(range(1, 1001))
    assert set(table["first"].to_pylist()) == {1}


async def test_a_parquet_file_has_the_rows_of_a_materialised_view(
    admin: Admin, reader: PostgreSQLConnector, statements: list[str], workspace: Workspace
) -> None:
    admin.execute(THOUSAND + "CREATE MATERIALIZED VIEW m AS SELECT i FROM t")
    everything = as_parquet(workspace, max_rows=None)
    path = await reader.fetch_data("m", everything)
    assert pq.read_table(path)["i"].to_pylist() == list(range(1, 1001))
    assert everything.written[path].rows == 1000
    assert are_arrays(statements) == [True]


async def test_the_limit_of_bytes_holds_for_the_file_not_for_an_array(
    admin: Admin, reader: PostgreSQLConnector, statements: list[str], workspace: Workspace
) -> None:
    admin.execute("CREATE TABLE t AS SELECT 7 AS i FROM generate_series(1, 100000)")
    await reader.fetch_data("t", as_parquet(workspace, max_rows=None, max_bytes=2000))
    with pytest.raises(LimitExceededError, match="100 bytes"):
        await reader.fetch_data("t", as_parquet(workspace, max_rows=None, max_bytes=100))
    assert are_arrays(statements) == [True, True]


async def test_a_cancelled_read_of_arrays_ends_on_the_server(
    admin: Admin, reader: PostgreSQLConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 500000) i")
    received, cancelled = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(*_: Any) -> None:
        loop.call_soon_threadsafe(received.set)
        assert cancelled.wait(30)

    await reader.read_table("SELECT 1")  # pyarrow is imported
    monkeypatch.setattr(arrow.TableBuilder, "add_table", hold)
    reading = asyncio.ensure_future(reader.read_table("t"))
    await received.wait()
    reading.cancel()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await wait_until(lambda: not active(admin, "array_agg"))


async def test_a_range_is_found_by_its_blocks_where_the_role_prefers_not(
    admin: Admin, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.execute(THOUSAND)
    plans: list[str] = []
    copy_rows = libpq.copy_rows

    async def explain(connection: Any, command: bytes, *arguments: Any) -> Any:
        query = command.removeprefix(b"COPY (").rpartition(b") TO")[0]
        rows = await libpq.execute(connection, b"EXPLAIN " + query)
        plans.extend(line for (line,) in rows)
        return await copy_rows(connection, command, *arguments)

    monkeypatch.setattr(libpq, "copy_rows", explain)
    reader = await source(dsn="options='-c enable_tidscan=off'")
    assert (await reader.read_table("t")).num_rows == 1000
    assert any("Tid Range Scan on t" in line for line in plans)
    assert not any("Seq Scan" in line for line in plans)


@pytest.mark.parametrize("columns", [["b", "a"], ["b", "c"]], ids=["arrays", "copied"])
async def test_splits_are_read_as_arrays_where_the_chosen_columns_are_short(
    admin: Admin, reader: PostgreSQLConnector, statements: list[str], columns: list[str]
) -> None:
    admin.execute(
        "CREATE TABLE t (a int, gone int, b float8, c text); ALTER TABLE t DROP COLUMN gone;"
        "INSERT INTO t SELECT i, i / 2.0, repeat('x', 200) FROM generate_series(1, 1000) i"
    )
    rows: list[Any] = []
    async with reader.plan_splits("t", target_bytes=8 * 8192, max_splits=64) as plan:
        admin.execute("INSERT INTO t SELECT 1 FROM generate_series(1, 1000)")
        for split in plan.splits:
            async for batch in reader.read_split(split, columns):
                rows += batch.to_pylist()
    assert len(plan.splits) > 3
    assert are_arrays(statements) == [columns[1] == "a"] * len(plan.splits)
    expected = {"a": list(range(1, 1001)), "b": [i / 2 for i in range(1, 1001)]}
    for name in set(columns) & set(expected):
        assert [row[name] for row in rows] == expected[name]
