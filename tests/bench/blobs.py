"""Many small CSV blobs read as one table, one run: `pytest -m bench -s tests/bench/blobs.py`.

A plan packs the blobs into splits, which one process or two workers read; beside them, obstore
lists and gets the blobs and PyArrow parses them, in one process. All ask the loopback service of
`object_store.py`, which has one process and so half of a machine of two cores. Each measurement is a
process of its own with its children, warm. Rounds go through all ways, and ratios are to one process
in the same round. Processor time is that of the way's processes; memory is the most that they had
together, with what they share counted in each.

The figures are of `BLOBS=100000`, on an idle machine; by default there are 2,000.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import pytest

from tests.bench.azure_blob import AT_ONCE, REPOSITORY
from tests.bench.measuring import measured_processes
from tests.bench.object_store import KEYS, s3_store
from tests.servers.blob_server import ROWS_OF_A_TABLE, BlobServerProcess

BLOBS, ROUNDS, WORKERS = int(os.environ.get("BLOBS", "2000")), 3, 2
ITEM = "tables/*.csv"
SPLITS: dict[str, Any] = {"target_bytes": 32 << 20, "max_splits": 10_000}

Run = Callable[[], int]


@contextmanager
def one_process(url: str) -> Iterator[Run]:
    from datasources import DataSourceRegistry, Split, gather_splits

    async def count(_: Split, batches: AsyncIterator[Any]) -> int:
        return sum([batch.num_rows async for batch in batches])

    async def read() -> int:
        async with (
            DataSourceRegistry(store=os.environ["DATASOURCES_STORE"]) as registry,
            registry.plan("bench", ITEM, **SPLITS) as plan,
        ):
            return sum(await gather_splits(plan, count, concurrency=WORKERS))

    _warm(0)
    yield lambda: asyncio.run(read())


@contextmanager
def two_workers(url: str) -> Iterator[Run]:
    from datasources.blocking import DataSourceRegistry

    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as workers:

        def run() -> int:
            with (
                DataSourceRegistry(store=os.environ["DATASOURCES_STORE"]) as registry,
                registry.plan("bench", ITEM, **SPLITS) as plan,
            ):
                return sum(workers.map(count_rows, plan.splits))

        list(workers.map(_warm, range(WORKERS)))
        yield run


def count_rows(split: Any) -> int:
    """Return the number of rows of a split, read by a registry of this process."""
    from datasources.blocking import DataSourceRegistry

    with DataSourceRegistry(store=os.environ["DATASOURCES_STORE"]) as registry:
        return sum(batch.num_rows for batch in registry.read_split(split))


def _warm(number: int) -> None:

    import datasources_object_store  # noqa: F401

    time.sleep(1)  # so that each worker has one of these


@contextmanager
def obstore(url: str) -> Iterator[Run]:
    import obstore
    import pyarrow as pa
    from pyarrow.csv import read_csv

    store = s3_store(url)

    async def read() -> int:
        places = asyncio.Semaphore(AT_ONCE)

        async def count(name: str) -> int:
            async with places:
                answer = await obstore.get_async(store, name)
                content = await answer.bytes_async()
            return int(read_csv(pa.BufferReader(bytes(content))).num_rows)

        rows = 0
        async for batch in obstore.list(store, "tables/"):
            rows += sum(await asyncio.gather(*(count(item["path"]) for item in batch)))
        return rows

    yield lambda: asyncio.run(read())


WAYS = {"one process": one_process, "two workers": two_workers, "obstore": obstore}


def measure(way: str, url: str) -> dict[str, float]:
    """Return the figures of one way: seconds, processor time, bytes of memory."""
    with WAYS[way](url) as run:
        rows, figures = measured_processes(run)
    assert rows == BLOBS * ROWS_OF_A_TABLE
    return figures


def compare(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Return the median figures by way; `ratio` is to one process in the same round."""
    from datasources import CredentialManager, DataSourceConfig
    from datasources.blocking import DataSourceRegistry

    taken: dict[str, list[dict[str, float]]] = {}
    with (
        BlobServerProcess(tables=BLOBS, s3=True) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        store, key = f"{folder}/sources.db", CredentialManager.generate_key()
        options = {"endpoint": server.url, "bucket": "data", **KEYS}
        with DataSourceRegistry(CredentialManager(key), store=store) as registry:
            registry.register_data_source(DataSourceConfig("bench", "s3", "", options))
        environment = {"DATASOURCES_STORE": store, "DATASOURCE_ENCRYPTION_KEY": key}
        for _ in range(rounds):
            first = 0.0
            for way in WAYS:
                command = [sys.executable, "-m", "tests.bench.blobs", way, server.url]
                done = subprocess.run(
                    command,
                    cwd=REPOSITORY,
                    env=os.environ | environment,
                    check=True,
                    stdout=subprocess.PIPE,
                )
                figures = json.loads(done.stdout.splitlines()[-1])
                first = first or figures["seconds"]
                taken.setdefault(way, []).append({**figures, "ratio": figures["seconds"] / first})
    return {
        way: {name: statistics.median(one[name] for one in all_) for name in all_[0]}
        for way, all_ in taken.items()
    }


@pytest.mark.bench
def test_readers_side_by_side() -> None:
    medians = compare()
    print(f"\n{BLOBS:,} blobs of 16 KiB of CSV, medians of {ROUNDS} rounds")
    for way, one in medians.items():
        print(
            f"{way:12} {one['ratio']:5.2f} of one process, {one['seconds']:7.2f} s, processor"
            f" {one['cpu']:7.2f} s, {one['memory'] / 2**20:6.0f} MiB"
        )


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
