"""Statistics of Parquet files from their footers."""

from __future__ import annotations

import io
from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from datasources import ColumnStatistics, DataFetchError, parquet_statistics
from tests.parquet import parquet


def test_figures_of_all_row_groups_are_put_together() -> None:
    content = parquet(n=[5, None, 1, 9], t=["a", "b", "c", "d"], row_group_size=2)
    assert parquet_statistics(io.BytesIO(content), "a") == {"n": ColumnStatistics(3, 1, 1, 9, None)}


def test_column_of_nulls_has_no_least_value() -> None:
    content = parquet(n=pa.array([None, None], pa.int64()))
    assert parquet_statistics(io.BytesIO(content), "a")["n"] == ColumnStatistics(
        0, 2, None, None, None
    )


def test_decimals_keep_their_type() -> None:
    content = parquet(d=[Decimal("1.10"), Decimal("-2.00")])
    figures = parquet_statistics(io.BytesIO(content), "a")["d"]
    assert (figures.min, figures.max) == (Decimal("-2.00"), Decimal("1.10"))


def test_times_texts_and_columns_within_columns_have_none() -> None:
    content = parquet(
        day=pa.array([1, 2], pa.date32()), text=["a", "b"], nested=[{"n": 1}, {"n": 2}]
    )
    assert parquet_statistics(io.BytesIO(content), "a") == {}


def test_column_whose_writer_left_no_figures_is_missing() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"n": [1], "m": [2]}), file, write_statistics=["m"])
    assert set(parquet_statistics(file, "a")) == {"m"}


def test_file_without_rows_has_counts_of_zero() -> None:
    content = parquet(n=pa.array([], pa.int64()))
    assert parquet_statistics(io.BytesIO(content), "a")["n"].count == 0


def test_damaged_file_is_an_error() -> None:
    with pytest.raises(DataFetchError, match="'a' cannot be read as Parquet"):
        parquet_statistics(io.BytesIO(b"PAR1 nonsense"), "a")
