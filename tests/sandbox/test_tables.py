"""`ds.table` reads items with the library that is installed."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datasources_client as ds
from datasources import WorkspaceSession
from datasources_client import tables
from datasources_server import WorkspaceEndpoint

ROWS = [{"id": 1, "total": 9.5}, {"id": 2, "total": 20.0}, {"id": 3, "total": 7.0}]


@pytest.fixture(autouse=True)
def environment(
    session: WorkspaceSession,
    endpoint: WorkspaceEndpoint,
    lake: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variables of code in a sandbox, and the rows as a Parquet file."""
    monkeypatch.setenv("DATASOURCES_SOCKET", endpoint.socket)
    monkeypatch.setenv("DATASOURCES_WORKSPACE", str(session.path))
    pq.write_table(pa.Table.from_pylist(ROWS), lake / "orders.parquet")


def install_only(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    """Hide the libraries of tables but for some."""
    monkeypatch.setattr(tables, "find_spec", lambda name: name in libraries and find_spec(name))


async def read(item: str, **options: Any) -> Any:
    return await asyncio.to_thread(ds.table, "lake", item, **options)


@pytest.mark.parametrize("item", ["public/orders.csv", "orders.parquet"])
async def test_table_is_one_of_pyarrow_where_that_is_installed(item: str) -> None:
    table = await read(item)
    assert isinstance(table, pa.Table)
    assert table.to_pylist() == ROWS


@pytest.mark.parametrize("item", ["public/orders.csv", "orders.parquet"])
async def test_table_is_one_of_pandas_where_pyarrow_is_not_installed(
    item: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = pytest.importorskip("pandas")
    install_only(monkeypatch, "pandas")
    frame = await read(item)
    assert isinstance(frame, pandas.DataFrame)
    assert frame.to_dict("records") == ROWS


async def test_parquet_that_pandas_cannot_read_alone_is_an_error_that_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pandas")
    install_only(monkeypatch, "pandas")
    for library in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ds.OptionError, match=r"'orders.parquet' is Parquet, and pyarrow"):
        await read("orders.parquet")


async def test_table_without_a_library_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_only(monkeypatch)
    with pytest.raises(ds.OptionError) as caught:
        await read("public/orders.csv")
    assert str(caught.value) == (
        "a table needs pyarrow or pandas, and neither is installed here; `fetch` gives a file, and "
        "`preview` the first rows"
    )


async def test_file_that_is_no_table_is_refused() -> None:
    with pytest.raises(ds.OptionError, match="'parquet' is not a format of this source"):
        await read("big.bin")
