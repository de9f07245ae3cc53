"""Previews of Parquet blobs, and how much of a blob they read."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from datasources import ConnectorError, DataFetchError, ItemNotFoundError
from datasources_azure_blob import AzureBlobConnector
from tests.azure_blob.conftest import make
from tests.servers.blob_server import BlobService, Fault

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
async def connector(service: BlobService) -> AsyncIterator[AzureBlobConnector]:
    connector = make(
        {
            "account_url": service.url,
            "container": "data",
            "credential": "anonymous",
            "retries": 1,
        }
    )
    await connector.connect()
    service.requests.clear()
    yield connector
    await connector.disconnect()


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=100_000, compression="none")
    return file.getvalue()


async def test_first_rows_keep_their_types(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    day = dt.date(2024, 2, 29)
    service.put("a.parquet", parquet(n=[1, None, 3], day=[day] * 3, text=["a", "", "é"]))
    preview = await connector.preview("a.parquet", 2)
    assert preview.columns == ("n", "day", "text")
    assert list(preview.rows) == [(1, day, "a"), (None, day, "")]
    assert preview.truncated
    complete = await connector.preview("a.parquet", 3)
    assert (len(complete.rows), complete.truncated) == (3, False)


async def test_preview_reads_a_small_part_of_a_large_blob(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    content = parquet(a=list(range(1_000_000)), b=[f"{n:030}" for n in range(1_000_000)])
    service.put("large.parquet", content)
    preview = await connector.preview("large.parquet")
    assert preview.rows[9] == (9, f"{9:030}")
    asked = 0
    for request in service.requests:
        if request.method == "GET":
            first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
            asked += int(last) - int(first) + 1
            assert request.headers["if-match"] == service.blobs["large.parquet"].etag
    assert len(content) > 30_000_000
    assert asked < 3_000_000  # the footer, and a page or two of each column


async def test_empty_table_has_columns_and_no_rows(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("a.parquet", parquet(n=pa.array([], pa.int64())))
    preview = await connector.preview("a.parquet")
    assert (preview.columns, list(preview.rows), preview.truncated) == (("n",), [], False)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x,y\n" * 100_000])
async def test_blob_that_is_no_parquet_is_a_clear_error(
    content: bytes, service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("a.parquet", content)
    with pytest.raises(DataFetchError, match=r"'a\.parquet' cannot be read as Parquet"):
        await connector.preview("a.parquet")


async def test_missing_blob_is_an_error(connector: AzureBlobConnector) -> None:
    with pytest.raises(ItemNotFoundError):
        await connector.preview("a.parquet")


async def test_failing_read_is_the_connectors_own_error(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("a.parquet", parquet(n=[1]))
    service.fault = lambda request: (
        Fault(status=403, code="AuthorizationPermissionMismatch")
        if request.method == "GET"
        else None
    )
    with pytest.raises(ConnectorError, match=r"blob 'a\.parquet'") as caught:
        await connector.preview("a.parquet")
    assert caught.value.code == "AuthorizationPermissionMismatch"


@pytest.mark.parametrize("requests", [1, 2], ids=["of the footer", "of the thread"])
async def test_cancelled_preview_ends_after_its_reading_task(
    service: BlobService, connector: AzureBlobConnector, requests: int
) -> None:
    # Larger than the part that is read with the footer, so that the thread requests more.
    service.put("a.parquet", parquet(n=list(range(100_000))))
    asked = asyncio.Event()
    remaining = requests

    def stall(request: Any) -> Fault | None:
        nonlocal remaining
        if request.method == "GET":
            remaining -= 1
        if remaining > 0 or request.method == "HEAD":
            return None
        asked.set()
        return Fault(stall=0)

    service.fault = stall
    before = asyncio.all_tasks()
    task = asyncio.create_task(connector.preview("a.parquet"))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() <= before


async def test_without_pyarrow_it_says_what_to_install(
    service: BlobService, connector: AzureBlobConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.put("a.parquet", parquet(n=[1]))
    real = importlib.import_module

    def without_pyarrow(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr("datasources.objects.parquet.import_module", without_pyarrow)
    with pytest.raises(DataFetchError, match=r"pip install 'datasources-azure-blob\[parquet\]'"):
        await connector.preview("a.parquet")


async def test_parquet_without_its_extension_is_shown(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("data", parquet(n=list(range(100_000))))
    preview = await connector.preview("data", 2)
    assert (preview.columns, list(preview.rows)) == (("n",), [(0,), (1,)])


@pytest.mark.parametrize("columns", [50, 1_000, 3_000])
async def test_many_columns_take_few_requests(
    columns: int, service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("wide.parquet", parquet(**{f"c{n}": range(25) for n in range(columns)}))
    preview = await connector.preview("wide.parquet", 1)
    assert preview.rows == [(0,) * columns]
    assert service.counts()["wide.parquet"] <= 6


async def test_large_columns_are_read_together(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    rows = 50_000
    service.put("large.parquet", parquet(**{f"c{n}": range(n, n + rows) for n in range(40)}))
    service.requests.clear()
    together = 0

    def count(request: Any) -> None:
        nonlocal together
        together = max(together, len(service.connections))

    service.fault = count
    preview = await connector.preview("large.parquet", 1)
    assert preview.rows == [tuple(range(40))]
    assert together >= 5
