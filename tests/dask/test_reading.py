"""Dataframes of sources: their rows, their types, and what the server is asked for them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from dask.base import compute
from dask.datasets import timeseries
from distributed import Client

from datasources import (
    CredentialManager,
    DataSourceConfig,
    MissingKeyError,
    OptionError,
    PoolTimeoutError,
)
from datasources.blocking import DataSourceRegistry
from datasources.credentials import write_key_file
from datasources_dask import open_registry, read_source, splits_of
from tests.dask.conftest import Environment, Shop, clustered, rows_of
from tests.waiting import wait_until_blocking

SIX: dict[str, Any] = {"target_bytes": 1, "max_splits": 6}
pytestmark = pytest.mark.usefixtures("cluster")


def pending_leases(client: Client) -> int:
    """Return how many tasks and plans wait for a connection."""

    def count(dask_scheduler: Any) -> int:
        return sum(dask_scheduler.extensions["semaphores"].metrics["pending"].values())

    return client.run_on_scheduler(count)


def test_the_partitions_are_the_table_as_it_was_planned(shop: Shop) -> None:
    rows = shop.fill("t")
    with read_source(shop.id, "t", **SIX) as frame:
        shop.admin.execute("INSERT INTO t SELECT * FROM t; DELETE FROM t WHERE i % 2 = 0")
        assert frame.npartitions == 6
        assert rows_of(frame.compute()) == rows
    wait_until_blocking(lambda: shop.connections() == 0)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_reads_the_table(
    environment: Environment, shop: Shop, workers: int
) -> None:
    rows = shop.fill("t")
    with (
        clustered(environment, workers) as client,
        read_source(shop.id, "t", **SIX, client=client) as frame,
    ):
        assert rows_of(client.compute(frame).result()) == rows


def test_a_query_is_divided_by_its_key(shop: Shop) -> None:
    rows = shop.fill("t")
    with read_source(shop.id, "SELECT * FROM t", **SIX, key="i") as frame:
        assert frame.npartitions == 6
        assert rows_of(frame.compute()) == rows


def test_columns_have_the_types_of_arrow(shop: Shop) -> None:
    shop.admin.execute(
        "CREATE TABLE t AS SELECT 1::int2 AS small, NULL::int8 AS big, 0.1::float4 AS real, true AS flag,"
        " 1.50::numeric(9, 2) AS price, 'é' AS text, '\\x00'::bytea AS bytes, '{1}'::int4[] AS list,"
        " date '0001-01-01' AS day, time '23:59' AS at, timestamptz '9999-12-31 00:00Z' AS seen"
    )
    types = {
        "small": pa.int16(),
        "big": pa.int64(),
        "real": pa.float32(),
        "flag": pa.bool_(),
        "price": pa.decimal128(9, 2),
        "text": pa.string(),
        "bytes": pa.binary(),
        "list": pa.list_(pa.int32()),
        "day": pa.date32(),
        "at": pa.time64("us"),
        "seen": pa.timestamp("us", "UTC"),
    }
    with read_source(shop.id, "t") as frame:
        planned, read = frame.dtypes, frame.compute()
    assert planned.to_dict() == {name: pd.ArrowDtype(type_) for name, type_ in types.items()}
    assert read.dtypes.to_dict() == planned.to_dict()
    assert read.big.isna().all()
    assert read.day[0] == dt.date(1, 1, 1)
    assert read.seen[0].year == 9999


def test_a_table_without_rows_has_its_columns(shop: Shop) -> None:
    shop.admin.execute("CREATE TABLE t (i int, day date)")
    with read_source(shop.id, "t", **SIX) as frame:
        read = frame.compute()
    assert len(read) == 0
    assert read.dtypes.to_dict() == frame.dtypes.to_dict()


def test_sums_and_bounds_of_decimals_and_dates_are_computed(shop: Shop) -> None:
    shop.admin.execute(
        "CREATE TABLE t AS SELECT i::numeric(9, 2) AS price, date '2000-01-01' + i AS day,"
        " time '00:00' + i * interval '1 second' AS at FROM generate_series(1, 3000) i"
    )
    with read_source(shop.id, "t", **SIX) as frame:
        computed = compute(frame.price.sum(), frame.price.max(), frame.day.max(), frame["at"].max())
    total, highest = Decimal(4501500), Decimal(3000)
    assert computed == (total, highest, dt.date(2008, 3, 19), dt.time(0, 50))


def test_the_server_is_asked_for_the_columns_of_the_computation_only(shop: Shop) -> None:
    shop.fill("t")
    with read_source(shop.id, "t", **SIX) as frame:
        shop.gate.asked.clear()
        assert frame.amount.sum().compute() == Decimal("1125375.00")
    asked = [part for part in bytes(shop.gate.asked).split(b"\0") if b"COPY" in part]
    assert len(asked) == 6
    # The query of all columns is the inner one; `c2` is the third column.
    assert {part.partition(b" FROM ")[0].split(b"SELECT ")[1] for part in asked} == {b"c2 AS c2"}


def test_no_column_is_as_long_as_the_table(shop: Shop) -> None:
    rows = shop.fill("t")
    with read_source(shop.id, "t", **SIX) as frame:
        assert len(frame[[]]) == rows.total()


def test_given_columns_are_those_of_the_dataframe_in_their_order(shop: Shop) -> None:
    shop.fill("t")
    with read_source(shop.id, "t", columns=["amount", "i"]) as frame:
        assert list(frame.columns) == ["amount", "i"]
        assert list(frame.compute().columns) == ["amount", "i"]


def test_an_unknown_column_is_an_error_that_names_the_columns(shop: Shop) -> None:
    shop.fill("t")
    with (
        pytest.raises(
            OptionError, match=r"^there is no column 'x'; the columns are 'i', 'text', 'a"
        ),
        read_source(shop.id, "t", columns=["x"]),
    ):
        pass
    wait_until_blocking(lambda: shop.connections() == 0)


def test_odd_names_of_columns_are_read(shop: Shop) -> None:
    query = """SELECT 1 AS "a""b", 2 AS "columns", 3 AS "é %s", 4 AS x, 5 AS x"""
    with read_source(shop.id, query) as frame:
        assert frame.compute().iloc[0].to_dict() == {
            'a"b': 1,
            "columns": 2,
            "é %s": 3,
            "x": 4,
            "x_2": 5,
        }
        assert frame["columns"].compute().tolist() == [2]


def test_partitions_tell_what_the_plan_estimates(shop: Shop) -> None:
    shop.fill("t")
    shop.admin.execute("ANALYZE t")
    with read_source(shop.id, "t", **SIX) as frame:
        splits = splits_of(frame)
        assert [split.index for split in splits] == list(range(6))
        assert abs(sum(split.estimated_rows or 0 for split in splits) - 3000) < 10
        assert all(split.estimated_bytes for split in splits)
        assert splits_of(frame[["i"]].partitions[2:4]) == splits[2:4]
    with pytest.raises(OptionError, match="is not read from one item"):
        splits_of(timeseries())


def test_the_cluster_has_no_more_connections_than_the_pool(cluster: Client, shop: Shop) -> None:
    rows = shop.fill("t")
    with read_source(shop.id, "t", **SIX) as frame:
        shop.gate.close_after(50_000)
        future = cluster.compute(frame)
        wait_until_blocking(lambda: shop.gate.held == 2 and pending_leases(cluster), timeout=60)
        assert shop.connections() == 3  # that of the plan, and two of four threads
        shop.gate.open()
        assert rows_of(future.result()) == rows


def test_two_plans_of_one_source_are_joined(cluster: Client, shop: Shop) -> None:
    shop.fill("t")
    with (
        read_source(shop.id, "t", **SIX, columns=["i"]) as left,
        read_source(shop.id, "t", **SIX, columns=["i", "amount"]) as right,
    ):
        assert shop.connections() == 2
        assert len(left.merge(right, on="i")) == 3000


def test_plans_leave_a_connection_to_readers(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.fill("t", 1)
    config = tmp_path / "config.toml"
    config.write_text("[pool]\nmax_size = 2\n")
    monkeypatch.setenv("DATASOURCES_CONFIG", str(config))
    full = pytest.raises(PoolTimeoutError, match=r"all 2 connections .* with at most 1 plans")
    with read_source(shop.id, "t") as frame:
        config.write_text("[pool]\nmax_size = 2\nacquire_timeout = 0.1\n")
        with full, read_source(shop.id, "t"):
            pass
        assert len(frame) == 1


def test_one_connection_is_too_few(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("[pool]\nmax_size = 1\n")
    monkeypatch.setenv("DATASOURCES_CONFIG", str(tmp_path / "config.toml"))
    with pytest.raises(OptionError, match="may have one connection"), read_source(shop.id, "t"):
        pass


def test_a_later_plan_does_not_have_the_results_of_an_earlier_one(shop: Shop) -> None:
    shop.admin.execute("CREATE TABLE t AS SELECT 1 AS i; CREATE VIEW v AS SELECT * FROM t")
    with read_source(shop.id, "v") as frame:
        kept = frame.persist()
        assert len(kept) == 1
        shop.admin.execute("INSERT INTO t VALUES (2)")
        with read_source(shop.id, "v") as later:
            assert len(later) == 2
        assert len(kept) == 1


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("DATASOURCES_STORE", "DATASOURCES_STORE must name"),
        ("DATASOURCE_ENCRYPTION_KEY", "must give the key"),
    ],
)
def test_a_process_without_store_or_key_says_what_it_needs(
    registry: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch, variable: str, message: str
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(Exception, match=message):
        open_registry()


def test_the_key_beside_the_store_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATASOURCES_CONFIG", "DATASOURCE_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATASOURCES_STORE", "~/sources.db")
    with pytest.raises(MissingKeyError, match="a file beside the store must give the key"):
        open_registry()
    assert list(tmp_path.iterdir()) == []
    write_key_file(tmp_path / "key", [CredentialManager.generate_key()])
    options = {"path": str(tmp_path)}
    with open_registry() as registry:
        registry.register_data_source(DataSourceConfig("lake", "local_file", "", options))
    with open_registry() as registry:
        assert "key" in [item.path for item in registry.list_items("lake")]


def test_a_worker_of_another_engine_does_not_import_dask() -> None:
    code = """
import sys
from datasources_dask import open_registry

print({"dask", "distributed", "pandas", "pyarrow"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
