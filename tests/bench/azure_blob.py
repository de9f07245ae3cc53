"""The Azure Blob connector beside other clients, one run: `pytest tests/bench/azure_blob.py`.

Every client talks to the project's own loopback service, which costs less than any of them, and
writes into the same memory-backed directory.  Each measurement is a process of its own, so that
its peak memory is its own; rounds go through all clients, so that all share the machine's moods.

Jobs: one blob of 512 MiB to a file, and the same where the service tells its MD5; 2,000 blobs of
16 KiB to files, 10 at once; a listing of 50,000 blobs, and one of 5,000 whose names have 1,000
characters.
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
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bench.measuring import measured
from tests.servers.blob_server import BlobServerProcess

LARGE = 512  # MiB
SMALL = 2000
LISTED = 50_000
LONG = 5_000
AT_ONCE = 10
ROUNDS = {"large": 5, "small": 5, "list": 3, "long": 3}
KEY = "a2V5IG9mIGEgc2VydmVyIHRoYXQgYXNrcyBmb3Igbm9uZQ=="
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Client:
    """What each contestant can do."""

    fetch: Callable[[str, Path], Awaitable[Any]]
    """Bring one blob to a file."""
    names: Callable[[str], AsyncIterator[tuple[str, int]]]
    """Yield name and size of each blob below a folder."""


@asynccontextmanager
async def ours(url: str):
    from datasources import DataSourceConfig, DataSourceType, Limits, PoolConfig, Workspace
    from datasources_azure_blob import AzureBlobConnector

    options = {"account_url": url, "account_key": KEY, "account_name": "account"}
    config = DataSourceConfig(
        "bench", DataSourceType.AZURE_BLOB, "", {**options, "container": "data"}
    )
    connector = AzureBlobConnector(config)
    connector.pool_config = PoolConfig(max_size=AT_ONCE)
    await connector.connect()

    async def fetch(name: str, path: Path):
        root = str(path).removesuffix(name)
        await connector.fetch_data(name, Workspace(root, limits=Limits(max_bytes=None)))

    async def names(folder: str):
        async for item in connector.iter_items(folder):
            yield item.path, item.size

    yield Client(fetch, names)
    await connector.disconnect()


@asynccontextmanager
async def with_md5(url: str):
    """Ours, where the service tells the MD5; the others check none."""
    async with ours(url) as client:

        async def fetch(name: str, path: Path):
            name = {"large": "large-md5"}.get(name, name)
            await client.fetch(name, path.parent / name.rpartition("/")[2])

        yield Client(fetch, client.names)


@asynccontextmanager
async def obstore(url: str):
    import obstore
    from obstore.store import AzureStore

    store = AzureStore(
        "data",
        account_name="account",
        account_key=KEY,
        endpoint=url,
        client_options={"allow_http": True},
    )

    async def fetch(name: str, path: Path):
        answer = await obstore.get_async(store, name)
        with path.open("wb") as file:
            async for piece in answer.stream(min_chunk_size=1 << 20):
                file.write(piece)

    async def names(folder: str):
        async for batch in obstore.list(store, f"{folder}/"):
            for item in batch:
                yield item["path"], item["size"]

    yield Client(fetch, names)


@asynccontextmanager
async def sdk(url: str):
    from azure.storage.blob.aio import ContainerClient

    credential = {"account_name": "account", "account_key": KEY}
    async with ContainerClient(url, "data", credential=credential) as container:

        async def fetch(name: str, path: Path):
            answer = await container.download_blob(name, max_concurrency=4)
            with path.open("wb") as file:
                await answer.readinto(file)

        async def names(folder: str):
            async for item in container.list_blobs(f"{folder}/"):
                yield item.name, item.size

        yield Client(fetch, names)


@asynccontextmanager
async def adlfs(url: str):
    from adlfs import AzureBlobFileSystem

    text = f"DefaultEndpointsProtocol=http;AccountName=account;AccountKey={KEY};BlobEndpoint={url};"
    system = AzureBlobFileSystem(connection_string=text, asynchronous=True)

    async def fetch(name: str, path: Path):
        await system._get_file(f"data/{name}", str(path))

    async def names(folder: str):
        for name, facts in (await system._find(f"data/{folder}", detail=True)).items():
            yield name, facts["size"]

    yield Client(fetch, names)


CLIENTS = {client.__name__: client for client in (ours, obstore, sdk, adlfs, with_md5)}
PEERS = ["ours", "obstore", "sdk", "adlfs"]
CONTESTANTS = {"large": [*PEERS, "with_md5"], "small": PEERS, "list": PEERS, "long": ["ours"]}


async def run(client: Client, job: str, folder: Path) -> float:
    """Do a job; return the seconds until the first item or file."""
    started = time.perf_counter()
    first = 0.0
    if job == "large":
        await client.fetch("large", folder / "large")
        (file,) = folder.iterdir()
        assert file.stat().st_size == LARGE << 20
    elif job == "small":
        (folder / "small").mkdir()
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(name: str):
            async with gate:
                await client.fetch(name, folder / name)

        await asyncio.gather(*(one(f"small/{number:05}") for number in range(SMALL)))
        assert len(list((folder / "small").iterdir())) == SMALL
    else:
        count = 0
        async for _ in client.names("listed" if job == "list" else job):
            first = first or time.perf_counter() - started
            count += 1
        assert count == (LISTED if job == "list" else LONG)
    return first


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
    """Return the median figures, by job and client."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with BlobServerProcess(large=LARGE, small=SMALL, listed=LISTED, long=LONG) as server:
        for job, rounds in jobs.items():
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS[job]}
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
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench.azure_blob"]
    command += [name, job, url, f"{folder}/work"]
    Path(folder, "work").mkdir()
    # Clients that leave their sessions open say so at length.
    done = subprocess.run(command, check=False, cwd=REPOSITORY, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr.decode()}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def report(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print seconds, ours as a multiple of theirs, memory over start and the longest stall.

    On a busy machine look at the processor's time: it says what a client costs, not what it got.
    """
    for job, clients in results.items():
        per = {"small": SMALL, "list": LISTED, "long": LONG}.get(job, 1)
        heads = ("s", "ours is", "per s", "CPU s", "MiB", "stall ms", "first s")
        print(f"\n{job:9}" + "".join(f"{head:>10}" for head in heads))
        for name, one in clients.items():
            ratio = clients["ours"]["seconds"] / one["seconds"]
            print(
                f"{name:9}{one['seconds']:10.2f}{ratio:9.2f}x{per / one['seconds']:10,.0f}"
                f"{one['cpu']:10.2f}{one['memory'] / 2**20:10.0f}"
                f"{one['stall'] * 1000:10.0f}{one['first']:10.2f}"
            )


@pytest.mark.bench
def test_blobs_move_as_fast_as_with_the_rust_client():
    results = compare(ROUNDS)
    report(results)
    large, small, listing = results["large"], results["small"], results["list"]
    assert large["ours"]["seconds"] <= 1.1 * large["obstore"]["seconds"]
    assert small["ours"]["seconds"] <= small["obstore"]["seconds"] / 0.8
    assert small["ours"]["seconds"] <= small["adlfs"]["seconds"] / 5
    assert listing["ours"]["seconds"] <= 0.12 * listing["sdk"]["seconds"]
    assert large["with_md5"]["seconds"] <= 2 * large["ours"]["seconds"]
    for job in results.values():
        assert job["ours"]["memory"] <= 32 * 2**20
        assert job["ours"]["stall"] <= 0.05


if __name__ == "__main__":
    if len(sys.argv) == 5:
        client, job, url, folder = sys.argv[1:]
        print(json.dumps(asyncio.run(measure(client, job, url, Path(folder)))), flush=True)
        os._exit(0)  # the threads of some clients do not survive an orderly end
    else:
        report(compare(ROUNDS))
