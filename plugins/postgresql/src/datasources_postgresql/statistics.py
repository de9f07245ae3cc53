"""Figures of numeric columns, computed by the server in one scan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from datasources import ColumnStatistics
from datasources_postgresql.reading import Column

_NUMERIC_TYPES = frozenset({20, 21, 23, 700, 701, 1700})
"""Object ids of int8, int2, int4, float4, float8, numeric: src/include/catalog/pg_type.dat."""

_FLOAT_TYPES = frozenset({700, 701})
_BATCH = 400  # columns of one query: a result has 1,664 at most, and each column has four figures
_SAMPLED_ROWS = 10_000_000  # a table with more rows than this is sampled
_SAMPLE_ROWS = 1_000_000  # rows of a sample, about


def sample_share(estimated_rows: int | None, relkind: str) -> float | None:
    """Return the percentage of a table to read, or None to read it all."""
    if estimated_rows is None or estimated_rows <= _SAMPLED_ROWS or relkind not in {"r", "p", "m"}:
        return None
    return 100 * _SAMPLE_ROWS / estimated_rows


def numeric_columns(columns: Iterable[Column]) -> dict[str, int]:
    """Return the positions of the numeric columns by name; of two of one name, the first."""
    positions: dict[str, int] = {}
    for number, column in enumerate(columns):
        if column.type in _NUMERIC_TYPES:
            positions.setdefault(column.name, number)
    return positions


def batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split the names of numeric columns into those of one query each."""
    return (names[start : start + _BATCH] for start in range(0, len(names), _BATCH))


def query(
    text: str,
    columns: Sequence[Column],
    names: Iterable[str],
    share: float | None,
    *,
    exact_mean: bool = False,
) -> str:
    """Return the query for the figures of some of a query's numeric columns.

    Args:
        text: The query; with `share`, `SELECT * FROM` one table.
        columns: Its columns.
        names: The numeric columns to compute.
        share: Percentage of the table's pages to read.
        exact_mean: Add the values of floating point up as numeric. It takes longer, but the sum of
            floats, and that of their squares which the server adds up too, may exceed a float.
    """
    positions = numeric_columns(columns)
    figures = ["pg_catalog.count(*)"]
    for name in names:
        column = f"c{positions[name]}"
        summand = column
        if exact_mean and columns[positions[name]].type in _FLOAT_TYPES:
            summand = f"{column}::pg_catalog.numeric"
        figures += [f"pg_catalog.{figure}({column})" for figure in ("count", "min", "max")]
        figures.append(f"pg_catalog.avg({summand})")
    # Columns are named anew, because a query may give two the same name.
    new_names = ", ".join(f"c{number}" for number in range(len(columns)))
    sample = "" if share is None else f" TABLESAMPLE SYSTEM ({share:f})"
    return f"SELECT {', '.join(figures)} FROM (\n{text}{sample}\n) AS q({new_names})"  # noqa: S608


def figures(
    names: Sequence[str], row: Sequence[Any], *, sampled: bool
) -> dict[str, ColumnStatistics]:
    """Return the answer of `query` by column."""
    total, rest = row[0], row[1:]
    by_column = {}
    for number, name in enumerate(names):
        count, low, high, mean = rest[4 * number : 4 * number + 4]
        by_column[name] = ColumnStatistics(
            count=count,
            nulls=total - count,
            min=low,
            max=high,
            mean=_mean(mean),
            sampled=sampled,
        )
    return by_column


def _mean(mean: float | Decimal | None) -> Any:
    """Return the mean as a float, or as it is if no float is as large or as small."""
    if mean is None:
        return None
    number = float(mean)
    if isinstance(mean, Decimal) and mean.is_finite():
        too_large = math.isinf(number)
        too_small = number == 0 and mean != 0
        return mean if too_large or too_small else number
    return number
