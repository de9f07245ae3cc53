"""Azurite killed and started under load."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from datasources import ConnectorError
from tests.azure_blob.conftest import make
from tests.servers import AzuriteServer
from tests.waiting import wait_until


@pytest.fixture
def restartable(azurite: AzuriteServer) -> Iterator[AzuriteServer]:
    """An Azurite of one's own that keeps its blobs on disk."""
    with AzuriteServer(persistent=True, cache=azurite._cache) as server:
        yield server


@pytest.mark.parametrize(
    ("clients", "kills"),
    [
        pytest.param(20, 3, marks=pytest.mark.slow),
        pytest.param(50, 10, marks=pytest.mark.soak),
    ],
)
async def test_fetches_outlive_a_killed_service_or_fail_clearly(
    clients: int, kills: int, restartable: AzuriteServer, tmp_path: Path
) -> None:
    content = os.urandom(600_000)
    with ContainerClient.from_connection_string(restartable.connection_string, "data") as client:
        client.create_container()
        client.upload_blob("folder/blob", content)
    restartable.restart()  # it writes down what it has when it ends in good order
    connector = make(
        {
            "connection_string": restartable.connection_string,
            "container": "data",
            "chunk_size": 64 * 1024,
            "read_timeout": 30,
        },
        max_size=clients,
    )
    await connector.connect()
    stop = False
    up = 1  # how often the service was started; 0 while it is down
    success = asyncio.Event()
    fetched = 0
    failed: list[ConnectorError] = []
    failed_while_up: list[ConnectorError] = []

    async def fetch_again(number: int) -> None:
        nonlocal fetched
        count = 0
        while not stop:
            count += 1
            up_at_first = up
            folder = tmp_path / f"{number}-{count}"
            try:
                path = await connector.fetch_data("folder/blob", str(folder))
            except ConnectorError as exc:
                failed.append(exc)
                if up_at_first and up_at_first == up:
                    failed_while_up.append(exc)
                assert list(folder.glob("*")) == []
            else:
                assert await asyncio.to_thread(Path(path).read_bytes) == content
                fetched += 1
                success.set()

    tasks = [asyncio.create_task(fetch_again(number)) for number in range(clients)]
    for number in range(kills):
        await asyncio.sleep(0.5)
        up = 0
        await asyncio.to_thread(restartable.kill)
        success.clear()
        await asyncio.to_thread(restartable.start)
        up = number + 2
        async with asyncio.timeout(60):
            await success.wait()
    await wait_until(lambda: fetched > clients, timeout=60)
    stop = True
    await asyncio.gather(*tasks)
    await connector.disconnect()
    assert failed_while_up == []
    assert all("folder/blob" in str(exc) for exc in failed)
    reasons = dict(Counter(str(exc).partition(": ")[2] for exc in failed))
    print(f"\n{kills} kills under {clients} clients: {fetched} fetched, {len(failed)} failed")
    print(f"failures: {reasons}")
