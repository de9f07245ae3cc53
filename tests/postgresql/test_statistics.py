"""Figures of wide tables, and of values that a floating point number cannot hold."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from datasources import DataFetchError
from tests.postgresql.conftest import Admin, Source


@pytest.mark.parametrize("width", [400, 415, 416, 801, 1600])
async def test_table_of_any_width_has_figures(admin: Admin, source: Source, width: int) -> None:
    columns = ",".join(f"c{number} int2" for number in range(width))
    admin.execute(f"CREATE TABLE wide ({columns})")
    admin.execute(f"INSERT INTO wide SELECT {','.join(map(str, range(width)))}")
    admin.execute("INSERT INTO wide (c0) VALUES (2)")
    figures = await (await source()).statistics("wide")
    assert list(figures) == [f"c{number}" for number in range(width)]
    assert (figures["c0"].count, figures["c0"].nulls, figures["c0"].mean) == (2, 0, 1.0)
    last = figures[f"c{width - 1}"]
    assert (last.count, last.nulls, last.min, last.mean) == (1, 1, width - 1, width - 1)


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ("(1e308), (1e308)", 1e308),  # the sum overflows
        ("(1e200), (3e200)", 2e200),  # the sum of squares does
        ("(-1.5e308), (1.5e308), (0)", 0.0),
        ("(1.5), (2.5)", 2.0),
        ("('Infinity'), (1)", math.inf),
    ],
)
async def test_mean_of_floats_does_not_overflow(
    admin: Admin, source: Source, values: str, mean: float
) -> None:
    admin.execute("CREATE TABLE t (f float8, g float4 DEFAULT 1, n int DEFAULT 7)")
    admin.execute(f"INSERT INTO t VALUES {values}")
    figures = await (await source()).statistics("t")
    assert figures["f"].mean == pytest.approx(mean)
    assert (figures["g"].mean, figures["n"].mean, figures["n"].max) == (1.0, 7.0, 7)


@pytest.mark.parametrize("value", ["1e400", "-1e400", "1e-400"])
async def test_mean_that_no_float_holds_is_a_decimal(
    admin: Admin, source: Source, value: str
) -> None:
    figures = await (await source()).statistics(f"SELECT '{value}'::numeric AS a, 2 AS b")
    assert figures["a"].mean == Decimal(value)
    assert figures["b"].mean == 2.0


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
async def test_mean_of_special_numerics_is_a_float(
    admin: Admin, source: Source, value: str
) -> None:
    mean = (await (await source()).statistics(f"SELECT '{value}'::numeric AS a"))["a"].mean
    assert isinstance(mean, float)
    assert str(mean) == str(float(value))


async def test_numeric_column_is_found_beside_a_text_of_its_name(
    admin: Admin, source: Source
) -> None:
    figures = await (await source()).statistics("SELECT 'x'::text AS a, 5 AS a")
    assert figures["a"].mean == 5.0


async def test_query_that_overflows_itself_is_an_error(admin: Admin, source: Source) -> None:
    admin.execute("CREATE TABLE t AS SELECT 1e308::float8 AS f")
    with pytest.raises(DataFetchError, match="out of range") as raised:
        await (await source()).statistics("SELECT f * 10 AS f FROM t")
    assert raised.value.code == "22003"
