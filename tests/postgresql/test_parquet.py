from __future__ import annotations

import asyncio
import datetime as dt
import math
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Context, Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from datasources import (
    DataFetchError,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    PolicyError,
    PoolConfig,
    SupportsReadTable,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.arrow import parquet
from tests.postgresql.conftest import (
    Admin,
    Source,
    active,
    rows_of,
    sessions,
    with_limits,
)
from tests.postgresql.test_fetch import VALUES
from tests.waiting import wait_until

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

UTC = dt.UTC
ZONE = ZoneInfo("UTC")  # as pyarrow gives it
NOON = dt.datetime.fromisoformat("2024-02-29T12:34:56.789012")

# What is selected, the type it becomes, the value it has then.
EXACT = [
    ("true", pa.bool_(), True),
    ("false", pa.bool_(), False),
    ("(-32768)::int2", pa.int16(), -32768),
    ("2147483647", pa.int32(), 2147483647),
    ("(-9223372036854775808)::bigint", pa.int64(), -9223372036854775808),
    ("0.1::float8 + 0.2", pa.float64(), 0.1 + 0.2),
    ("1e-320::float8", pa.float64(), 1e-320),
    ("'-infinity'::float8", pa.float64(), -math.inf),
    ("'infinity'::float4", pa.float32(), math.inf),
    ("0.1::float4", pa.float32(), 0.10000000149011612),
    ("123.45::numeric(5, 2)", pa.decimal128(5, 2), Decimal("123.45")),
    ("(-0.01)::numeric(5, 2)", pa.decimal128(5, 2), Decimal("-0.01")),
    ("7::numeric(12)", pa.decimal128(12, 0), Decimal(7)),
    (
        f"{'9' * 36}.99::numeric(38, 2)",
        pa.decimal128(38, 2),
        Decimal("9" * 36 + ".99"),
    ),
    (
        f"{'9' * 70}.123456::numeric(76, 6)",
        pa.decimal256(76, 6),
        Decimal("9" * 70 + ".123456"),
    ),
    ("12345::numeric(3, -2)", pa.decimal128(5, 0), Decimal(12300)),
    ("0.00123::numeric(3, 5)", pa.decimal128(5, 5), Decimal("0.00123")),
    ("99999999.9999999999::numeric(18, 10)", pa.decimal128(18, 10), Decimal("99999999.9999999999")),
    ("(-1e-18)::numeric(18, 18)", pa.decimal128(18, 18), Decimal("-1E-18")),
    (f"(-{'9' * 18})::numeric(18)", pa.decimal128(18, 0), Decimal("-" + "9" * 18)),
    ("120000000::numeric(13, 3)", pa.decimal128(13, 3), Decimal("120000000.000")),
    ("0.0001::numeric(5, 5)", pa.decimal128(5, 5), Decimal("0.00010")),
    ("0::numeric(4, 4)", pa.decimal128(4, 4), Decimal("0.0000")),
    ("(-1e-19)::numeric(19, 19)", pa.decimal128(19, 19), Decimal("-1E-19")),
    ("date '2024-02-29'", pa.date32(), dt.date(2024, 2, 29)),
    ("date '0001-01-01'", pa.date32(), dt.date(1, 1, 1)),
    ("date '9999-12-31'", pa.date32(), dt.date(9999, 12, 31)),
    ("time '23:59:59.999999'", pa.time64("us"), dt.time(23, 59, 59, 999999)),
    ("time '04:05:06.7'", pa.time64("us"), dt.time(4, 5, 6, 700000)),
    ("timestamp '2024-02-29 12:34:56.789012'", pa.timestamp("us"), NOON),
    ("timestamp '1583-10-10'", pa.timestamp("us"), dt.datetime.fromisoformat("1583-10-10")),
    (
        "timestamptz '2024-02-29 18:04:56.789012+05:30'",
        pa.timestamp("us", "UTC"),
        NOON.replace(tzinfo=UTC),
    ),
    (
        "timestamptz '1890-01-01 00:00:00 UTC'",
        pa.timestamp("us", "UTC"),
        dt.datetime(1890, 1, 1, tzinfo=UTC),
    ),
    (r"'\x00ff0a0d22'::bytea", pa.binary(), b'\x00\xff\n\r"'),
    (r"'\x'::bytea", pa.binary(), b""),
    ("''", pa.string(), ""),
    ("'NULL'", pa.string(), "NULL"),
    ("'nan'", pa.string(), "nan"),
    ("'a '::char(4)", pa.string(), "a   "),
    ("inet '10.0.0.1'", pa.string(), "10.0.0.1"),
    ("cidr '10.0.0.0/8'", pa.string(), "10.0.0.0/8"),
    ("'t'::\"char\"", pa.string(), "t"),
    ("'pg_class'::name", pa.string(), "pg_class"),
    ("'pg_class'::regclass", pa.string(), "pg_class"),
    ("""'{"b":  1}'::json""", pa.string(), '{"b":  1}'),
    ("""'{"b":  1}'::jsonb""", pa.string(), '{"b": 1}'),
    ("ROW(NULL, NULL)", pa.string(), "(,)"),
    ("ARRAY[ROW(1, 'a b')]", pa.string(), '{"(1,\\"a b\\")"}'),
    ("E'line\\r\\nbreak, \"quoted\"'", pa.string(), 'line\r\nbreak, "quoted"'),
    ("'größe 表 🎉'", pa.string(), "größe 表 🎉"),
    ("repeat('x', 3000000)", pa.string(), "x" * 3_000_000),
    ("ARRAY[1, NULL, 3]", pa.list_(pa.int32()), [1, None, 3]),
    ("'[0:1]={4,5}'::bigint[]", pa.list_(pa.int64()), [4, 5]),
    ("'{}'::int[]", pa.list_(pa.int32()), []),
    ("ARRAY[true, NULL, false]", pa.list_(pa.bool_()), [True, None, False]),
    (
        "ARRAY['a,b', '\"', '', NULL, 'NULL', E'\\n\\\\', '表']",
        pa.list_(pa.string()),
        ["a,b", '"', "", None, "NULL", "\n\\", "表"],
    ),
    (
        "ARRAY[1e-320, 0.1, '-Infinity']::float8[]",
        pa.list_(pa.float64()),
        [1e-320, 0.1, -math.inf],
    ),
    (
        "'{1.10,NULL}'::numeric(12, 2)[]",
        pa.list_(pa.decimal128(12, 2)),
        [Decimal("1.10"), None],
    ),
    (
        "'{1.10,-2}'::numeric(50, 2)[]",
        pa.list_(pa.decimal256(50, 2)),
        [Decimal("1.10"), Decimal("-2.00")],
    ),
    ("'{1.10,NaN}'::numeric[]", pa.list_(pa.string()), ["1.10", "NaN"]),
    ("ARRAY[date '2024-02-29']", pa.list_(pa.date32()), [dt.date(2024, 2, 29)]),
    ("ARRAY[time '01:02:03']", pa.list_(pa.time64("us")), [dt.time(1, 2, 3)]),
    ("ARRAY[timestamp '2024-02-29 12:34:56.789012']", pa.list_(pa.timestamp("us")), [NOON]),
    (
        "ARRAY[timestamptz '2024-02-29 12:34:56.789012 UTC']",
        pa.list_(pa.timestamp("us", "UTC")),
        [NOON.replace(tzinfo=UTC)],
    ),
    (
        f"ARRAY['{UUID(int=1)}'::uuid]",
        pa.list_(pa.string()),
        [str(UUID(int=1))],
    ),
]
NO_PLACE = [  # in the type that the column becomes
    ("date 'infinity'", "'infinity'"),
    ("date '0044-03-15 BC'", "'0044-03-15 BC'"),
    ("date '10000-01-01'", "'10000-01-01'"),
    ("time '24:00:00'", "'24:00:00'"),
    ("timestamp '-infinity'", "'-infinity'"),
    ("timestamp '0400-12-31 23:59:10.500 BC'", r"'0400-12-31 23:59:10\.5 BC'"),
    ("timestamp '294276-12-31 23:59:59'", "'294276-12-31 23:59:59'"),
    ("timestamptz 'infinity'", "'infinity'"),
    ("timestamptz '0044-03-15 00:00:00 UTC BC'", "'0044-03-15 00:00:00 BC'"),
    ("'NaN'::numeric(5, 2)", "'NaN'"),
    ("date '-infinity'", "'-infinity'"),
    ("'NaN'::numeric(50, 2)", "value"),
    ("ARRAY[date 'infinity']", "'infinity'"),
    ("ARRAY['NaN'::numeric(5, 2)]::numeric(5, 2)[]", "'NaN'"),
    ("ARRAY[[1, 2], [3, 4]]", "several dimensions|value"),
]
TEXT = [value for value in VALUES if not re.match("date |time |timestamp|ARRAY|NULL", value)]


def as_parquet(workspace: Workspace, **limits: Any) -> Workspace:
    return Workspace(workspace, file_format="parquet", limits=Limits(**limits))


@pytest.fixture
def files(workspace: Workspace) -> Workspace:
    return as_parquet(workspace)


@pytest.mark.parametrize(("value", "type_", "expected"), EXACT)
async def test_value_keeps_its_type_and_itself(
    reader: PostgreSQLConnector, files: Workspace, value: str, type_: Any, expected: object
) -> None:
    query = (
        f"SELECT v FROM generate_series(1, 3) g LEFT JOIN (SELECT {value} AS v) t ON g <> 2"
        " ORDER BY g"
    )
    path = await reader.fetch_data(query, files)
    assert path.endswith(".parquet")
    column = pq.read_table(path).column("v")
    assert column.type == type_
    assert column.to_pylist() == [expected, None, expected]
    assert (await reader.read_table(query)).column("v").equals(column)


async def test_what_has_no_type_in_arrow_is_the_servers_text(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    values = ", ".join(f"({value}) AS v{n}" for n, value in enumerate(TEXT))
    texts = ", ".join(f"({value})::text, pg_typeof({value})::text" for value in TEXT)
    table = await reader.read_table(f"SELECT {values}")
    row = admin.execute(f"SELECT {texts}").fetchone()
    assert row is not None
    others = set()
    for number, (text, type_) in enumerate(zip(row[::2], row[1::2], strict=True)):
        field, column = table.schema.field(number), table.column(number)
        if pa.types.is_string(field.type):
            assert column.to_pylist() == [text]
        else:
            others.add(type_)
        named = field.metadata[b"postgresql_type"].decode()
        assert named.strip('"') == type_.replace("unknown", "text").strip('"')
    assert others == {"bytea", "double precision", "real", "bigint"}


async def test_value_without_a_place_in_its_type_is_an_error_that_names_the_column(
    reader: PostgreSQLConnector, files: Workspace
) -> None:
    for value, named in NO_PLACE:
        with pytest.raises(DataFetchError, match=f"column 'odd' has .*({named}).* cannot hold"):
            await reader.fetch_data(f"SELECT 1 AS a, {value} AS odd", files)
        assert os.listdir(files) == []
        table = await reader.read_table(f"SELECT ({value})::text AS odd")
        assert table.num_rows == 1


async def test_time_zone_of_the_role_changes_no_instant(
    admin: Admin, source: Source, files: Workspace
) -> None:
    admin.execute("ALTER ROLE reader SET timezone = 'Asia/Kolkata'")
    try:
        connector = await source()
        query = (
            "SELECT timestamptz '2024-02-29 12:34:56.789012+00' AS a,"
            " timestamptz '1800-01-01 00:00:00+00' AS b,"
            " (timestamptz '2024-02-29 23:00:00+00')::date AS its_day,"
            " ARRAY[timestamptz '2024-02-29 12:34:56.789012+00'] AS c"
        )
        (row,) = (await connector.read_table(query)).to_pylist()
    finally:
        admin.execute("ALTER ROLE reader RESET ALL")
    assert row == {
        "a": NOON.replace(tzinfo=UTC),
        "b": dt.datetime(1800, 1, 1, tzinfo=UTC),
        "its_day": dt.date(2024, 3, 1),
        "c": [NOON.replace(tzinfo=UTC)],
    }


async def test_a_table_of_many_row_groups_is_the_same_as_its_csv(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    admin.execute(
        "CREATE TABLE t AS SELECT g::bigint AS id, CASE WHEN g % 3 = 0 THEN NULL WHEN g % 3 = 1"
        " THEN '' ELSE E'a\\n\"b\",' || g END AS note, (g * 1.37)::numeric(12, 2) AS amount,"
        " decode(CASE WHEN g % 5 > 0 THEN md5(g::text) ELSE '' END, 'hex') AS raw,"
        " ARRAY[g, NULL, -g] AS several, repeat(md5(g::text), 10) AS wide"
        " FROM generate_series(1, 60000) g"
    )
    path = await reader.fetch_data("t", as_parquet(workspace, max_rows=None))
    assert path.endswith("/public.t.parquet")
    file = pq.ParquetFile(path)
    assert file.num_row_groups > 1
    found = file.read().to_pylist()
    expected = admin.execute("SELECT * FROM t").fetchall()
    assert [tuple(row.values()) for row in found] == expected


KINDS: dict[str, list[Any]] = {
    "bool": [True, False],
    "int2": [-32768, 0, 32767],
    "int4": [-(2**31), 0, 2**31 - 1],
    "int8": [-(2**63), 0, 2**63 - 1],
    "float4": [-0.0, 0.5, math.inf, math.nan],
    "float8": [-0.0, 1e-320, -math.inf, 0.1, math.nan],
    "numeric(18, 4)": [*map(Decimal, ("-0.0001", "0", "99999999999999.9999", "10000"))],
    "numeric(7, 7)": [Decimal("0.0000001"), Decimal("-0.1234567")],
    "numeric(9)": [Decimal(-1), Decimal(100000000)],
    "numeric(30, 2)": [Decimal("-123456789012345678901234567.89"), Decimal("0.01")],
    "numeric(50, 2)": [Decimal("1" * 40), Decimal("-0.01")],
    "date": [dt.date.min, dt.date(1999, 12, 31), dt.date.max],
    "time": [dt.time.min, dt.time.max],
    "timestamp": [NOON, *map(dt.datetime.fromisoformat, ("0001-01-01", "9999-12-31T23:59:59.9"))],
    "timestamptz": [NOON.replace(tzinfo=ZONE), dt.datetime(1, 1, 1, tzinfo=ZONE)],
    "text": ["", "NULL", "größe 表 🎉", 'a,b\n"\r\t\\', "x" * 700],
    "varchar(9)": ["", " padded "],
    "bytea": [b"", b"\x00\xff\n", b"z" * 300],
    "int4[]": [[], [1, None, -3]],
    "text[]": [["", None, "NULL", 'say "hi", {x}'], []],
    "positive": [1, 2**31 - 1],
    "mood": ["good", "so so"],
}


@pytest.mark.parametrize("seed", range(12))
async def test_random_rows_are_what_was_written(
    admin: Admin, reader: PostgreSQLConnector, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = Random(seed)
    monkeypatch.setattr(parquet, "_BLOCK", random.choice([1, 1000, 1 << 20]))
    kinds = random.choices(list(KINDS), k=(1, 2, 61)[seed % 3])
    nulls = random.choice([0, 0.1, 0.9])
    rows = [
        [None if at > 50 and random.random() < nulls else random.choice(KINDS[k]) for k in kinds]
        for at in range(200)
    ]
    admin.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    admin.execute("CREATE TYPE mood AS ENUM ('good', 'so so')")
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(kinds))
    admin.execute(f"CREATE TABLE t ({columns}, place serial)")
    places = ", ".join(["%s"] * len(kinds))
    admin.cursor().executemany(f"INSERT INTO t VALUES ({places})", rows)
    table = await reader.read_table("SELECT * FROM t ORDER BY place")
    found = table.columns[:-1]
    for kind, column, written in zip(kinds, found, zip(*rows, strict=True), strict=True):
        values = [_quantized(kind, value) for value in written]
        assert str(column.to_pylist()) == str(values), kind  # where NaN is NaN, and -0.0 is not 0.0


def _quantized(kind: str, value: Any) -> Any:
    if not kind.startswith("numeric(") or value is None:
        return value
    _, _, scale = kind.rstrip(")").partition(", ")
    return value.quantize(Decimal(1).scaleb(-int(scale or 0)), context=Context(prec=60))


async def test_text_of_odd_types_is_what_csv_has(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    admin.execute("CREATE TABLE t AS SELECT 1 AS a, inet '10.0.0.1' AS b; ANALYZE t")
    admin.execute("CREATE DOMAIN span AS int4range; CREATE DOMAIN host AS inet")
    admin.execute("CREATE FUNCTION nothing() RETURNS void IMMUTABLE LANGUAGE sql AS 'SELECT 1'")
    everything = with_limits(workspace, max_rows=None)
    for query in (
        "SELECT t, t.b, ctid, xmin, tableoid::regclass, nothing(), 'x'::cstring FROM t",
        "SELECT '[1,5)'::span, '10.0.0.1'::host, '{[1,3)}'::int4multirange, '{10.0.0.1}'::inet[]",
        "TABLE pg_stats",  # its anyarray
        "TABLE pg_type",
        "SELECT * FROM pg_proc LIMIT 100",
        "TABLE pg_class",
    ):
        rows = rows_of(await reader.fetch_data(query, everything))[1:]
        table = await reader.read_table(query)
        texts = [n for n, type_ in enumerate(table.schema.types) if pa.types.is_string(type_)]
        assert texts, query
        for number in texts:
            found = [value or "" for value in table.column(number).to_pylist()]
            assert found == [row[number] for row in rows], (query, table.schema.names[number])


async def test_null_comes_late_in_rows_that_are_alike(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    query = (
        "SELECT g AS a, CASE g WHEN 99999 THEN NULL ELSE g::bigint END AS b"
        " FROM generate_series(1, 100000) g"
    )
    table = await reader.read_table(query)
    expected = list(range(1, 100_001))
    assert table.column("a").to_pylist() == expected
    expected[99_998] = None  # type: ignore[call-overload]
    assert table.column("b").to_pylist() == expected


async def test_type_of_a_schema_closed_to_the_role_is_the_text_of_its_output_function(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE SCHEMA closed; CREATE TYPE closed.word;"
        " CREATE FUNCTION closed.in_(cstring) RETURNS closed.word IMMUTABLE STRICT"
        " LANGUAGE internal AS 'textin';"
        ' CREATE FUNCTION closed."out {}"(closed.word) RETURNS cstring IMMUTABLE STRICT'
        " LANGUAGE internal AS 'textout';"
        ' CREATE TYPE closed.word (INPUT = closed.in_, OUTPUT = closed."out {}", LIKE = text);'
        " CREATE FUNCTION closed.loud(closed.word) RETURNS text IMMUTABLE"
        " RETURN 'cast';"
        " CREATE CAST (closed.word AS text) WITH FUNCTION closed.loud(closed.word);"
        " CREATE TABLE t AS SELECT v::closed.word AS v FROM (VALUES ('a'), (''), (NULL)) r(v)"
    )
    for _ in range(2):
        assert (await reader.read_table("t")).column("v").to_pylist() == ["a", "", None]
        admin.execute("GRANT USAGE ON SCHEMA closed TO reader")


async def test_rows_longer_than_a_block_keep_their_order(
    reader: PostgreSQLConnector, files: Workspace
) -> None:
    query = (
        "SELECT g, CASE WHEN g % 3 = 0 THEN repeat(chr(64 + g % 20), 2500000) ELSE '' END AS v"
        " FROM generate_series(1, 20) g"
    )
    path = await reader.fetch_data(query, files)
    expected = [(g, chr(64 + g % 20) * 2_500_000 if g % 3 == 0 else "") for g in range(1, 21)]
    assert [tuple(row.values()) for row in pq.read_table(path).to_pylist()] == expected


async def test_null_is_apart_from_the_empty_string(reader: PostgreSQLConnector) -> None:
    for query in ("SELECT '' AS a UNION ALL SELECT NULL", "VALUES (''), (NULL)"):
        table = await reader.read_table(query)
        assert table.column(0).to_pylist() == ["", None]


async def test_empty_result_keeps_its_schema(
    admin: Admin, reader: PostgreSQLConnector, files: Workspace
) -> None:
    admin.execute('CREATE TABLE t (id int, "Größe, \n" numeric(5, 1), tags text[])')
    path = await reader.fetch_data("t", files)
    table = pq.read_table(path)
    assert table.num_rows == 0
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == {
        "id": pa.int32(),
        "Größe, \n": pa.decimal128(5, 1),
        "tags": pa.list_(pa.string()),
    }
    assert table.schema.equals((await reader.read_table("t")).schema)
    assert (files.written[path].rows, files.written[path].truncated) == (0, False)


async def test_second_column_of_a_name_is_numbered(
    reader: PostgreSQLConnector, files: Workspace
) -> None:
    path = await reader.fetch_data('SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a, 5 AS "A"', files)
    assert pq.read_table(path).to_pylist() == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4, "A": 5}]


@pytest.mark.parametrize(
    ("rows", "limit", "truncated"),
    [(5, 5, False), (6, 5, True), (4, 5, False), (0, 0, False), (1, 0, True), (9000, 8999, True)],
)
async def test_row_limit_is_exact(
    reader: PostgreSQLConnector, workspace: Workspace, rows: int, limit: int, truncated: bool
) -> None:
    limited = as_parquet(workspace, max_rows=limit)
    query = f"SELECT g, 'x' || g FROM generate_series(1, {rows}) g -- end"
    path = await reader.fetch_data(query, limited)
    assert pq.read_metadata(path).num_rows == min(rows, limit)
    written = limited.written[path]
    assert (written.rows, written.truncated) == (min(rows, limit), truncated)
    assert (await reader.read_table(query, max_rows=limit)).num_rows == min(rows, limit)


async def test_explain_and_show_become_text(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    limited = as_parquet(workspace, max_rows=1)
    for query in ("EXPLAIN (VERBOSE) SELECT count(*) FROM pg_class", "SHOW ALL"):
        path = await reader.fetch_data(query, limited)
        table = pq.read_table(path)
        assert set(table.schema.types) == {pa.string()}
        assert (table.num_rows, limited.written[path].truncated) == (1, True)


async def test_byte_limit_counts_the_file_ends_the_query_and_leaves_nothing(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    small = as_parquet(workspace, max_bytes=1_000_000, max_rows=None)
    await reader.fetch_data("SELECT repeat('x', 100000) FROM generate_series(1, 100)", small)
    (name,) = os.listdir(small)
    with pytest.raises(LimitExceededError, match="over the limit of 1000000 bytes"):
        await reader.fetch_data("SELECT md5(generate_series(1, 1e9)::text)", small)
    assert os.listdir(small) == [name]
    await wait_until(lambda: not active(admin, "1e9"))
    huge = "SELECT repeat('x', n) FROM generate_series(300000000, 300000000) n"
    with pytest.raises(LimitExceededError, match="one row has 1000000 bytes or more"):
        await reader.fetch_data(huge, small)
    with pytest.raises(LimitExceededError, match="one row has 5000 bytes or more"):
        await reader.fetch_data("SELECT repeat('x', 6000)", as_parquet(workspace, max_bytes=5000))
    assert await reader.test_connection()


async def test_deadline_ends_the_query_and_leaves_nothing(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    limited = as_parquet(workspace, timeout=1, max_rows=None, max_bytes=None)
    query = "SELECT repeat('x', 100), generate_series(1, 1e9)"
    with pytest.raises(LimitExceededError, match="longer than the limit of 1 seconds"):
        await reader.fetch_data(query, limited)
    await wait_until(lambda: not active(admin, "1e9"))
    assert os.listdir(limited) == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT repeat('x', 100), generate_series(1, 1e9)",
        "SELECT count(*) FROM generate_series(1, 1e9) a, generate_series(1, 1e9) b",
        "SELECT repeat('x', 9999) UNION ALL SELECT count(*)::text FROM generate_series(1, 1e9)",
    ],
    ids=["sending rows", "before the first row", "between rows"],
)
async def test_cancelled_fetch_ends_its_query_and_leaves_nothing(
    admin: Admin, source: Source, workspace: Workspace, query: str
) -> None:
    connector = await source(pool=PoolConfig(max_size=1))
    limited = as_parquet(workspace, max_rows=None, max_bytes=None)
    await connector.fetch_data("SELECT 1", limited)  # pyarrow is imported
    (name,) = os.listdir(limited)
    for wait in (0.0, 0.05, 0.3):
        task = asyncio.create_task(connector.fetch_data(query, limited))
        await wait_until(lambda: active(admin, query))
        await asyncio.sleep(wait)
        task.cancel()
        await wait_until(lambda: not active(admin, query))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert os.listdir(limited) == [name]
    assert await connector.test_connection()
    await wait_until(lambda: sessions(admin) == 1)


async def test_numerics_of_every_precision_and_scale_are_exact(
    admin: Admin, reader: PostgreSQLConnector, files: Workspace
) -> None:
    random = Random(3)
    shapes = [(precision, scale) for precision in range(1, 21) for scale in range(precision + 1)]
    columns = []
    for precision, scale in shapes:
        most = 10**precision - 1
        few = [random.randrange(10 ** random.randint(1, precision)) for _ in range(20)]
        round_ = [number * 10 ** random.randrange(precision) % (most + 1) for number in few]
        numbers = [0, 1, -1, most, -most, *few, *(-number for number in round_)]
        columns.append([None, *(Decimal(number).scaleb(-scale) for number in numbers)])
    types = ", ".join(f"c{n} numeric({p}, {s})" for n, (p, s) in enumerate(shapes))
    admin.execute(f"CREATE TABLE numbers ({types}, line serial)")
    with admin.cursor() as cursor:
        places = ", ".join(["%s"] * len(shapes))
        cursor.executemany(
            f"INSERT INTO numbers VALUES ({places})", list(zip(*columns, strict=True))
        )
    admin.execute("GRANT SELECT ON numbers TO reader")
    table = pq.read_table(await reader.fetch_data("SELECT * FROM numbers ORDER BY line", files))
    for shape, column, expected in zip(shapes, table.columns[:-1], columns, strict=True):
        assert column.to_pylist() == expected, shape


async def test_long_fetch_leaves_the_threads_that_all_share_to_others(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    limited = as_parquet(workspace, max_rows=None, max_bytes=None)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    query = "SELECT repeat('x', 100), generate_series(1, 1e9)"
    task = asyncio.create_task(reader.fetch_data(query, limited))
    written = Path(limited).glob
    await wait_until(lambda: any(file.stat().st_size for file in written("*")))
    assert await asyncio.wait_for(asyncio.to_thread(int), 60) == 0
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_read_only_holds(admin: Admin, reader: PostgreSQLConnector, files: Workspace) -> None:
    admin.execute("CREATE TABLE t (id int)")
    for query in (
        "SELECT 1 AS a) AS q(a)) TO STDOUT; SELECT (1",
        "WITH w AS (DELETE FROM t RETURNING id) SELECT * FROM w",
        "SELECT pg_sleep(0)",
    ):
        with pytest.raises((PolicyError, DataFetchError)):
            await reader.fetch_data(query, files)
        with pytest.raises((PolicyError, DataFetchError)):
            await reader.read_table(query)


async def test_what_a_writing_statement_returns_is_csv_only(
    admin: Admin, source: Source, files: Workspace
) -> None:
    admin.execute("CREATE TABLE t AS SELECT 1 AS id; GRANT DELETE ON t TO reader")
    writer = await source(read_only=False)
    with pytest.raises(DataFetchError, match="only what a SELECT returns"):
        await writer.fetch_data("DELETE FROM t RETURNING id", files)
    assert admin.execute("SELECT count(*) FROM t").fetchone() == (1,)


async def test_result_without_columns_is_refused(
    reader: PostgreSQLConnector, files: Workspace
) -> None:
    with pytest.raises(DataFetchError, match="without columns"):
        await reader.fetch_data("SELECT FROM generate_series(1, 3)", files)


async def test_missing_table_is_not_found(reader: PostgreSQLConnector, files: Workspace) -> None:
    assert isinstance(reader, SupportsReadTable)
    with pytest.raises(ItemNotFoundError):
        await reader.fetch_data("public.missing", files)
    with pytest.raises(ItemNotFoundError):
        await reader.read_table("public.missing")


async def test_table_over_the_bound_of_memory_is_refused(
    admin: Admin, reader: PostgreSQLConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_IN_MEMORY", 8 << 20)
    query = "SELECT md5(generate_series(1, 1e9)::text)"
    with pytest.raises(LimitExceededError, match=r"more than 8 MiB.*fetch it as a Parquet file"):
        await reader.read_table(query)
    await wait_until(lambda: not active(admin, "1e9"))


async def test_without_pyarrow_the_error_names_the_extra_and_csv_works(
    reader: PostgreSQLConnector,
    files: Workspace,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "datasources_postgresql.arrow.arrow", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataFetchError, match=r"'datasources-postgresql\[arrow\]'"):
        await reader.fetch_data("SELECT 1", files)
    with pytest.raises(DataFetchError, match=r"'datasources-postgresql\[arrow\]'"):
        await reader.read_table("SELECT 1")
    assert list(Path(files).glob("*")) == []
    assert Path(await reader.fetch_data("SELECT 1 AS a", workspace)).read_text() == "a\n1\n"


async def test_event_loop_goes_on_while_parquet_is_written(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    limited = as_parquet(workspace, max_rows=None)
    await reader.fetch_data("SELECT 1", limited)  # pyarrow is imported
    written: list[int] = []
    limited.progress = lambda done, _: written.append(done)
    fetch = asyncio.create_task(
        reader.fetch_data(
            "SELECT g, md5(g::text) AS a, g * 1.5 AS b FROM generate_series(1, 500000) g", limited
        )
    )
    turns = 0
    while not fetch.done():
        await asyncio.sleep(0)
        if written:  # from the first piece on
            turns += 1
    await fetch
    assert turns > 1000
