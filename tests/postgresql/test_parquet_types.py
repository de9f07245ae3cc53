"""Types that Parquet files hold as text or as lists, where the server writes them its own way."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from datasources import DataFetchError
from tests.postgresql.conftest import Admin, Source
from tests.servers import Database


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("'c'::refcursor", "c"),
        ("NULL::refcursor", None),
        ("ARRAY['c', NULL]::refcursor[]", "{c,NULL}"),
        ("'a'::name", "a"),
        ("'1 2'::int2vector", "1 2"),
        ("'[1,3)'::int4range", "[1,3)"),
        ("'x'::mood", "x"),
        ("'x'::label", "x"),
        ("ROW(1, 'a b')", '(1,"a b")'),
    ],
)
async def test_type_becomes_the_text_of_its_output_function(
    admin: Admin, source: Source, expression: str, text: str | None
) -> None:
    admin.execute("CREATE TYPE mood AS ENUM ('x'); CREATE DOMAIN label AS refcursor")
    table = await (await source()).read_table(f"SELECT {expression} AS a")
    assert table.column("a").to_pylist() == [text]


ZONES = ["UTC", "Africa/Monrovia", "Europe/Amsterdam", "Asia/Tokyo", "America/New_York"]
TIMES = [
    "1971-06-01 12:00:00",
    "1850-01-01 00:00:00.123456",
    "2020-07-01 10:30:00.5",
    "0001-01-03 00:00:00",
]


@pytest.mark.parametrize("zone", ZONES)
async def test_array_of_times_holds_the_instants_of_the_plain_column(
    admin: Admin, pg_database: Database, source: Source, zone: str
) -> None:
    admin.execute(f"ALTER ROLE reader IN DATABASE {pg_database.name} SET timezone = '{zone}'")
    values = ", ".join(f"'{time}'::timestamptz" for time in TIMES)
    connector = await source()
    arrays = await connector.read_table(f"SELECT ARRAY[{values}, NULL] AS a")
    plain = await connector.read_table(f"SELECT unnest(ARRAY[{values}, NULL]) AS a")
    (instants,) = arrays.column("a").to_pylist()
    assert instants == plain.column("a").to_pylist()
    assert instants[0].utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize("value", ["infinity", "0044-03-15 00:00:00 BC", "294276-01-01"])
async def test_time_in_an_array_that_arrow_cannot_hold_is_named(
    admin: Admin, pg_database: Database, source: Source, value: Any
) -> None:
    admin.execute(
        f"ALTER ROLE reader IN DATABASE {pg_database.name} SET timezone = 'Africa/Monrovia'"
    )
    with pytest.raises(DataFetchError, match="the column 'a' has the value"):
        await (await source()).read_table(f"SELECT ARRAY['{value}']::timestamptz[] AS a")
