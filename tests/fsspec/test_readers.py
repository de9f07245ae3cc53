"""Libraries of data frames read files and tables through the file system."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest

from datasources.blocking import DataSourceRegistry
from datasources_fsspec import DataSourceFileSystem
from tests.servers import Database

CSV = "datasource://lake/reports/2024.csv"
TABLE = "shop/public.orders.parquet"


def test_pandas_reads_and_writes_files(registry: DataSourceRegistry, reports: Path) -> None:
    options = {"registry": registry}
    frame = pd.read_csv(CSV, storage_options=options)
    assert frame.to_dict("list") == {"x": [3, 5], "y": [4, 6]}
    frame.to_parquet("datasource://lake/copy.parquet", storage_options=options)
    copied = pd.read_parquet("datasource://lake/copy.parquet", storage_options=options)
    assert copied.equals(frame)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_pandas_reads_a_table(registry: DataSourceRegistry, shop: Database, ending: str) -> None:
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[ending]
    url = f"datasource://shop/public.orders.{ending}"
    frame = read(url, storage_options={"registry": registry})
    assert (len(frame), frame["amount"].sum()) == (12, 117.0)


def test_polars_reads_files_and_tables(
    fs: DataSourceFileSystem, reports: Path, shop: Database
) -> None:
    with fs.open(CSV) as file:
        assert pl.read_csv(file).rows() == [(3, 4), (5, 6)]
    with fs.open(TABLE) as file:
        assert pl.read_parquet(file)["amount"].sum() == 117.0
    dataset = ds.dataset("lake/reports", filesystem=fs, format="csv")
    assert pl.scan_pyarrow_dataset(dataset).select("x").sum().collect().item() == 9


def test_pyarrow_reads_datasets_of_files_and_tables(
    fs: DataSourceFileSystem, reports: Path, shop: Database
) -> None:
    files = ds.dataset("lake/reports", filesystem=fs, format="csv")
    assert files.to_table().to_pydict() == {"x": [1, 3, 5], "y": [2, 4, 6]}
    orders = ds.dataset([TABLE], filesystem=fs, format="parquet")
    assert orders.count_rows(filter=ds.field("country") == "JP") == 4


def test_duckdb_reads_files_by_a_pattern_and_tables(
    fs: DataSourceFileSystem, reports: Path, shop: Database
) -> None:
    with duckdb.connect() as connection:
        connection.register_filesystem(fs)
        files = "read_csv('datasource://lake/reports/*.csv')"
        assert connection.sql(f"SELECT sum(x), sum(y) FROM {files}").fetchall() == [(9, 12)]
        for reader in (
            "read_parquet('datasource://shop/public.orders.parquet')",
            "read_csv('datasource://shop/public.orders.csv')",
        ):
            assert connection.sql(f"SELECT count(*), sum(amount) FROM {reader}").fetchall() == [
                (12, 117.0)
            ]
