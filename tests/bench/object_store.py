"""The S3 connector beside other clients, one run: `pytest tests/bench/object_store.py`.

The jobs and the loopback service are those of `tests/bench/azure_blob.py`, in the protocol of S3; the
service checks no signature, which costs it less than any of the clients takes to make one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench.azure_blob import AT_ONCE, LARGE, LISTED, REPOSITORY, SMALL, Client, run
from tests.bench.measuring import measured
from tests.servers.blob_server import BlobServerProcess

ROUNDS = {"large": 5, "small": 5, "list": 3}
KEYS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "secret"}


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Client]:
    from datasources import DataSourceConfig, Limits, PoolConfig, Workspace
    from datasources_object_store import S3Connector

    options = {"endpoint": url, "bucket": "data", **KEYS}
    connector = S3Connector(DataSourceConfig("bench", "s3", "", options))
    connector.pool_config = PoolConfig(max_size=AT_ONCE)
    await connector.connect()

    async def fetch(name: str, path: Path) -> None:
        root = str(path).removesuffix(name)
        await connector.fetch_data(name, Workspace(root, limits=Limits(max_bytes=None)))

    async def names(folder: str) -> AsyncIterator[tuple[str, int]]:
        async for item in connector.iter_items(folder):
            yield item.path, item.size or 0

    yield Client(fetch, names)
    await connector.disconnect()


def s3_store(url: str) -> Any:
    """Return the bucket as obstore reads it."""
    from obstore.store import S3Store

    return S3Store(
        "data",
        endpoint=url,
        region="us-east-1",
        client_options={"allow_http": True},
        access_key_id=KEYS["access_key_id"],
        secret_access_key=KEYS["secret_access_key"],
    )


@asynccontextmanager
async def obstore(url: str) -> AsyncIterator[Client]:
    import obstore

    store = s3_store(url)

    async def fetch(name: str, path: Path) -> None:
        answer = await obstore.get_async(store, name)
        with path.open("wb") as file:
            async for piece in answer.stream(min_chunk_size=1 << 20):
                file.write(piece)

    async def names(folder: str) -> AsyncIterator[tuple[str, int]]:
        async for batch in obstore.list(store, f"{folder}/"):
            for item in batch:
                yield item["path"], item["size"]

    yield Client(fetch, names)


@asynccontextmanager
async def boto3(url: str) -> AsyncIterator[Client]:
    import boto3
    from botocore.config import Config

    config = Config(max_pool_connections=AT_ONCE, s3={"addressing_style": "path"})
    client: Any = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEYS["access_key_id"],
        aws_secret_access_key=KEYS["secret_access_key"],
        config=config,
    )

    async def fetch(name: str, path: Path) -> None:
        await asyncio.to_thread(client.download_file, "data", name, str(path))

    async def names(folder: str) -> AsyncIterator[tuple[str, int]]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="data", Prefix=f"{folder}/")
        for page in pages:
            for item in page.get("Contents", ()):
                yield item["Key"], item["Size"]

    yield Client(fetch, names)


@asynccontextmanager
async def s3fs(url: str) -> AsyncIterator[Client]:
    from s3fs import S3FileSystem

    system: Any = S3FileSystem(
        key=KEYS["access_key_id"],
        secret=KEYS["secret_access_key"],
        endpoint_url=url,
        asynchronous=True,
    )
    session = await system.set_session()

    async def fetch(name: str, path: Path) -> None:
        await system._get_file(f"data/{name}", str(path))

    async def names(folder: str) -> AsyncIterator[tuple[str, int]]:
        for name, facts in (await system._find(f"data/{folder}", detail=True)).items():
            yield name, facts["size"]

    yield Client(fetch, names)
    await session.close()


CLIENTS = {client.__name__: client for client in (ours, obstore, boto3, s3fs)}


async def measure(name: str, job: str, url: str, folder: Path) -> dict[str, float]:
    """Return the figures of one job, warm: modules imported, one request made."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(CLIENTS[name](url))
        await client.fetch("small/00000", folder / "warm")
        shutil.rmtree(folder)
        folder.mkdir()
        first, figures = await measured(lambda: run(client, job, folder))
    return {**figures, "first": first}


def compare(jobs: dict[str, int]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the median figures, by job and client; rounds go through all clients."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with BlobServerProcess(large=LARGE, small=SMALL, listed=LISTED, s3=True) as server:
        for job, rounds in jobs.items():
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
            for _ in range(rounds):
                for name, figures in taken.items():
                    with tempfile.TemporaryDirectory(dir=base) as folder:
                        figures.append(_in_a_process(name, job, server.url, folder))
            results[job] = {
                name: {key: statistics.median(one[key] for one in all_) for key in all_[0]}
                for name, all_ in taken.items()
            }
    return results


def _in_a_process(name: str, job: str, url: str, folder: str) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench.object_store"]
    command += [name, job, url, f"{folder}/work"]
    Path(folder, "work").mkdir()
    done = subprocess.run(command, check=False, cwd=REPOSITORY, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr.decode()}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def report(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print seconds, ours as a multiple of theirs, processor seconds, memory and stalls."""
    for job, clients in results.items():
        heads = ("s", "ours is", "CPU s", "MiB", "stall ms")
        print(f"\n{job:9}" + "".join(f"{head:>10}" for head in heads))
        for name, one in clients.items():
            ratio = clients["ours"]["seconds"] / one["seconds"]
            print(
                f"{name:9}{one['seconds']:10.2f}{ratio:9.2f}x{one['cpu']:10.2f}"
                f"{one['memory'] / 2**20:10.0f}{one['stall'] * 1000:10.0f}"
            )


@pytest.mark.bench
def test_objects_cost_little_more_than_with_the_rust_client():
    results = compare(ROUNDS)
    report(results)
    large, small, listing = results["large"], results["small"], results["list"]
    # A SHA-256 of every file is part of ours.
    assert large["ours"]["cpu"] <= 2 * large["obstore"]["cpu"]
    assert small["ours"]["cpu"] <= 1.15 * small["obstore"]["cpu"]
    assert small["ours"]["cpu"] <= small["s3fs"]["cpu"] / 3
    assert listing["ours"]["cpu"] <= 2 * listing["obstore"]["cpu"]
    assert listing["ours"]["cpu"] <= listing["boto3"]["cpu"] / 5
    for job in results.values():
        assert job["ours"]["memory"] <= 32 * 2**20


if __name__ == "__main__":
    client, job, url, folder = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(client, job, url, Path(folder)))), flush=True)
    os._exit(0)  # the threads of some clients do not survive an orderly end
