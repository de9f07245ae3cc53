"""Splits of blobs: what is requested for them, and that each is of the version that was planned."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from datasources import (
    DataFetchError,
    DataSourceConfig,
    DataSourceRegistry,
    ItemNotFoundError,
    gather_splits,
)
from datasources_azure_blob import AzureBlobConnector
from tests.azure_blob.conftest import Connect
from tests.local_file.test_splits import parts_of, rows_of, table_of
from tests.parquet import parquet
from tests.servers import AzuriteServer
from tests.servers.blob_server import BlobService, Fault, Request
from tests.waiting import wait_until

pq: Any = pytest.importorskip("pyarrow.parquet")

GROUPS, ROWS = 10, 20_000  # row groups, and rows of each


@pytest.fixture(scope="module")
def wide() -> bytes:
    """A Parquet file of ten columns of the same size, which cannot be compressed well."""
    columns = {
        f"c{column}": [column * 1_000_003 + n * 7919 for n in range(GROUPS * ROWS)]
        for column in range(10)
    }
    return parquet(row_group_size=ROWS, **columns)


def requested(service: BlobService) -> list[tuple[int, int]]:
    """Return the ranges that were requested, each pinned to the ETag of its blob."""
    ranges = []
    for request in service.requests:
        if request.method == "GET" and "range" in request.headers:
            assert request.headers["if-match"] == service.blobs[request.blob].etag
            first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
            ranges.append((int(first), int(last) + 1))
    return ranges


def number_of(ranges: list[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in ranges)


async def test_a_split_of_parquet_reads_its_row_groups_and_columns_only(
    service: BlobService, local: AzureBlobConnector, wide: bytes
) -> None:
    service.put("wide.parquet", wide)
    async with local.plan_splits("wide.parquet", target_bytes=1, max_splits=5) as plan:
        assert number_of(requested(service)) <= 300_000  # the footer
        assert len(plan.splits) == 5
        service.requests.clear()
        rows = await rows_of(local.read_split(plan.splits[2], ["c7", "c3"]))
    first = 4 * ROWS
    assert rows[0] == (7_000_021 + first * 7919, 3_000_009 + first * 7919)
    assert len(rows) == 2 * ROWS
    metadata = pq.read_metadata(io.BytesIO(wide))
    needed = [
        (column.data_page_offset, column.total_compressed_size)
        for group in (4, 5)
        for column in (metadata.row_group(group).column(number) for number in (3, 7))
    ]
    footer = max(requested(service))
    read = [span for span in requested(service) if span != footer]
    assert number_of([footer]) <= 256 * 1024
    assert number_of(read) <= sum(size for _, size in needed) + 4 * 1024
    assert number_of(read) < len(wide) / 20


async def test_all_splits_of_text_read_each_byte_once(
    service: BlobService, local: AzureBlobConnector
) -> None:
    lines = b"".join(b'%d,"text\n%d"\n' % (n, n) for n in range(200_000))
    content = b"n,text\n" + lines
    service.put("a.csv", content)
    async with local.plan_splits("a.csv", target_bytes=1, max_splits=7) as plan:
        assert number_of(requested(service)) == len(content)
        service.requests.clear()
        parts = [await rows_of(local.read_split(split, ["n"])) for split in plan.splits]
    assert [row[0] for part in parts for row in part] == list(range(200_000))
    spans = sorted(requested(service))
    assert spans[0][0] == len(b"n,text\n")
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert spans[-1][1] == len(content)


async def test_many_small_blobs_are_listed_once_and_read_by_one_request_each(
    service: BlobService, local: AzureBlobConnector
) -> None:
    for number in range(300):
        service.put(f"small/{number:03}.csv", b"n,text\n%d,x\n" % number)
    plan, parts = await parts_of(local, "small/", ["n"], target_bytes=1, max_splits=4)
    assert len(plan.splits) == 4
    assert sorted(row[0] for part in parts for row in part) == list(range(300))
    counts = service.counts()
    # Nothing but the listing; the first blob is read for the plan, too.
    assert (counts.pop(""), counts.pop("small/000.csv"), set(counts.values())) == (1, 2, {1})


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
async def test_a_blob_that_changed_or_went_is_refused(
    connector: AzureBlobConnector, container: ContainerClient, name: str
) -> None:
    first = {"a.csv": b"n\n1\n2\n", "a.parquet": parquet(n=[1, 2])}[name]
    container.upload_blob(name, first)
    async with connector.plan_splits(name, target_bytes=1, max_splits=2) as plan:
        assert await rows_of(connector.read_split(plan.splits[0]))
        container.upload_blob(name, first, overwrite=True)  # the same bytes: another version
        for split in plan.splits:
            with pytest.raises(DataFetchError, match="changed"):
                await rows_of(connector.read_split(split))
        container.delete_blob(name)
        with pytest.raises(DataFetchError, match=r"changed|deleted since"):
            await rows_of(connector.read_split(plan.splits[0]))
    with pytest.raises(ItemNotFoundError):
        await parts_of(connector, name)


async def test_names_of_every_kind_have_splits(
    connector: AzureBlobConnector, container: ContainerClient
) -> None:
    names = ["a b.csv", "[1].csv", "*.csv", "50%25.csv", "é/ü.csv", "'q'.csv", "a?b#c.csv"]
    for number, name in enumerate(names):
        container.upload_blob(name, b"n\n%d\n" % number)
    for number, name in enumerate(names):
        assert await table_of(connector, name) == [(number,)]


async def test_a_version_of_a_blob_has_splits(
    connector: AzureBlobConnector, container: ContainerClient
) -> None:
    blob = container.upload_blob("a.csv", b"n\n1\n")
    blob.create_snapshot()
    container.upload_blob("a.csv", b"n\n2\n", overwrite=True)
    (version,) = [item.path for item in await connector.list_versions("a.csv")]
    assert await table_of(connector, version) == [(1,)]
    assert await table_of(connector, "a.csv") == [(2,)]


async def test_a_source_below_a_prefix_reads_its_own_blobs(
    connect: Connect, container: ContainerClient
) -> None:
    container.upload_blob("in/a.csv", b"n\n1\n")
    container.upload_blob("a.csv", b"n\n2\n")
    inner = await connect(prefix="in")
    assert await table_of(inner, "a.csv") == [(1,)]
    assert await table_of(inner, "*.csv") == [(1,)]


async def test_a_connection_that_breaks_is_resumed(
    service: BlobService, local: AzureBlobConnector
) -> None:
    content = b"n\n" + b"".join(b"%d\n" % n for n in range(100_000))
    service.put("a.csv", content)
    async with local.plan_splits("a.csv", target_bytes=1, max_splits=2) as plan:
        broken: list[Request] = []

        def breaking(request: Request) -> Fault:
            if request.method == "GET" and not broken:
                broken.append(request)
                return Fault(cut=70_000)
            return Fault()

        service.fault = breaking
        rows = [row[0] for split in plan.splits for row in await rows_of(local.read_split(split))]
    assert broken
    assert rows == list(range(100_000))


async def test_a_cancelled_reader_ends_its_request(
    service: BlobService, local: AzureBlobConnector
) -> None:
    content = b"n\n" + b"".join(b"%d\n" % n for n in range(100_000))
    service.put("a.csv", content)
    async with local.plan_splits("a.csv", target_bytes=1, max_splits=1) as plan:
        service.requests.clear()
        service.fault = lambda _: Fault(stall=1000)
        reading = asyncio.ensure_future(rows_of(local.read_split(plan.splits[0])))
        await wait_until(lambda: service.requests)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        service.fault = lambda _: Fault()
        assert len(await rows_of(local.read_split(plan.splits[0]))) == 100_000


async def test_a_registry_fetches_the_splits_of_blobs(
    azurite: AzuriteServer, container: ContainerClient, tmp_path: Path
) -> None:
    for number in range(20):
        container.upload_blob(f"t/{number}.parquet", parquet(n=[number], text=["x"]))
    options = {
        "connection_string": azurite.connection_string,
        "container": container.container_name,
    }
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(
            DataSourceConfig("blobs", "azure_blob", "Blobs", options)
        )
        receipt = await registry.fetch("blobs", "t/", tmp_path, splits=4)
        assert sorted(pq.read_table(receipt.path)["n"].to_pylist()) == list(range(20))
        assert receipt.path == str(tmp_path / "t%2F.dataset")
        async with registry.plan("blobs", "t/*.parquet", max_splits=3, target_bytes=1) as plan:
            numbers = await gather_splits(plan, _numbers, columns=["n"], concurrency=3)
        assert sorted(number for part in numbers for number in part) == list(range(20))


async def _numbers(_: Any, batches: AsyncIterator[Any]) -> list[int]:
    return [row[0] for row in await rows_of(batches)]
