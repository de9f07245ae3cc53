"""Figures of numeric columns, computed by the server in one scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from datasources import ColumnStatistics
from datasources_postgresql.reading import Column

_NUMERIC_TYPES = frozenset({20, 21, 23, 700, 701, 1700})
"""Object ids of int8, int2, int4, float4, float8, numeric: src/include/catalog/pg_type.dat."""

_SAMPLED_ROWS = 10_000_000  # a table with more rows than this is sampled
_SAMPLE_ROWS = 1_000_000  # rows of a sample, about


def sample_share(estimated_rows: int | None, relkind: str) -> float | None:
    """Return the percentage of a table to read, or None to read it all."""
    if estimated_rows is None or estimated_rows <= _SAMPLED_ROWS or relkind not in {"r", "p", "m"}:
        return None
    return 100 * _SAMPLE_ROWS / estimated_rows


def numeric_columns(columns: Iterable[Column]) -> list[str]:
    """Return the names of the numeric columns, each once."""
    return list(dict.fromkeys(c.name for c in columns if c.type in _NUMERIC_TYPES))


def query(text: str, columns: Sequence[Column], share: float | None) -> str:
    """Return the query for the figures of a query's numeric columns.

    Args:
        text: The query; with `share`, `SELECT * FROM` one table.
        columns: Its columns.
        share: Percentage of the table's pages to read.
    """
    position = {column.name: number for number, column in reversed(list(enumerate(columns)))}
    figures = ["pg_catalog.count(*)"]
    for name in numeric_columns(columns):
        column = f"c{position[name]}"
        figures += [f"pg_catalog.{figure}({column})" for figure in ("count", "min", "max", "avg")]
    # Columns are named anew, because a query may give two the same name.
    names = ", ".join(f"c{number}" for number in range(len(columns)))
    sample = "" if share is None else f" TABLESAMPLE SYSTEM ({share:f})"
    return f"SELECT {', '.join(figures)} FROM (\n{text}{sample}\n) AS q({names})"  # noqa: S608


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
            mean=None if mean is None else float(mean),
            sampled=sampled,
        )
    return by_column
