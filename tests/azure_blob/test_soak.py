"""Many fetches through every kind of fault, counted: `pytest -m soak -s tests/azure_blob`."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest

from datasources import ConnectorError, Workspace
from datasources_azure_blob import AzureBlobConnector
from tests.azure_blob.test_faults import CHUNK, connected
from tests.servers.blob_server import BlobService, Fault, Request

TRIES = 300
AT_ONCE = 30
CHANCE = random.Random(4)

Maker = Callable[[], Fault]


def _cut() -> int:
    return CHANCE.randrange(CHUNK)


def _refusal(status: int, code: str, **headers: str) -> Maker:
    return lambda: Fault(status=status, code=code, headers=headers)


FAULTS: dict[str, tuple[float, Maker]] = {
    "cut": (0.3, lambda: Fault(cut=_cut())),
    "reset": (0.3, lambda: Fault(cut=_cut(), reset=True)),
    "reset at once": (0.3, lambda: Fault(reset=True)),
    "stalled": (0.05, lambda: Fault(stall=_cut())),
    "503 with Retry-After": (0.3, _refusal(503, "ServerBusy", **{"Retry-After": "0.2"})),
    "429 with Retry-After": (0.3, _refusal(429, "ServerBusy", **{"Retry-After": "0.2"})),
    "500": (0.3, _refusal(500, "InternalError")),
    "length too long": (0.1, lambda: Fault(cut=CHUNK, headers={"Content-Length": str(2 * CHUNK)})),
    "length too short": (0.1, lambda: Fault(headers={"Content-Length": "1000"})),
    "another range": (0.05, lambda: Fault(headers={"Content-Range": "bytes 7-65542/655360"})),
    "damaged": (0.05, lambda: Fault(damage=True)),
    "expired midway": (0.02, _refusal(403, "AuthenticationFailed")),
    "clock off": (
        0.02,
        lambda: Fault(
            status=403,
            code="AuthenticationFailed",
            headers={"Date": formatdate(time() - 7200, usegmt=True)},
        ),
    ),
    "container deleted": (0.02, _refusal(404, "ContainerNotFound")),
    "blob deleted": (0.02, _refusal(404, "BlobNotFound")),
    "changed": (0.02, _refusal(412, "ConditionNotMet")),
}
ALWAYS = {
    name
    for name, (chance, _) in FAULTS.items()
    if chance >= 0.3 or name in ("stalled", "length too long")
}


def _tasks() -> set[asyncio.Task[Any]]:
    """Return the tasks there are, but for those with which the service takes connections."""
    return {
        task
        for task in asyncio.all_tasks()
        if "_accept_connection" not in getattr(task.get_coro(), "__qualname__", "")
    }


@pytest.fixture
async def service() -> AsyncIterator[BlobService]:
    async with BlobService() as service:
        service.record = False
        yield service


@pytest.fixture
async def connector(service: BlobService) -> AsyncIterator[AzureBlobConnector]:
    connector = connected(service, read_timeout=0.3, retries=20)
    await connector.connect()
    yield connector
    await connector.disconnect()


@pytest.mark.soak
@pytest.mark.parametrize("kind", FAULTS)
async def test_every_fetch_ends_in_a_whole_file_or_a_clear_error(
    kind: str, service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    chance, make = FAULTS[kind]
    contents = {f"blob {n}": os.urandom(CHANCE.randrange(6 * CHUNK)) for n in range(TRIES)}
    for name, content in contents.items():
        service.put(name, content, md5=True)
    met: set[str] = set()

    def fault(request: Request) -> Fault | None:
        if CHANCE.random() > chance:
            return None
        met.add(request.blob)
        return make()

    service.fault = fault
    before = _tasks()
    gate = asyncio.Semaphore(AT_ONCE)
    outcome: Counter[str] = Counter()
    failed: dict[str, ConnectorError] = {}

    async def one(name: str) -> None:
        async with gate:
            try:
                path = await connector.fetch_data(name, str(tmp_path))
            except ConnectorError as exc:
                failed[name] = exc
                outcome[str(exc.code)] += 1
            else:
                assert Path(path).read_bytes() == contents[name]
                outcome["whole"] += 1

    await asyncio.gather(*map(one, contents))
    print(f"\n{kind}: {len(met)} of {TRIES} fetches met it, {dict(outcome)}")
    assert met
    assert all(repr(name) in str(exc) for name, exc in failed.items())
    assert _tasks() == before
    assert {path.name for path in tmp_path.iterdir()} == contents.keys() - failed.keys()
    assert outcome["whole"] >= (TRIES if kind in ALWAYS else TRIES - len(met))


@pytest.mark.soak
async def test_downloads_cancelled_at_random_leave_no_task_and_no_file(
    service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put("a", os.urandom(20 * CHUNK))
    before = _tasks()
    cancelled = 0
    for number in range(200):
        workspace = Workspace(tmp_path / str(number))
        task = asyncio.create_task(connector.fetch_data("a", workspace))
        for _ in range(CHANCE.randrange(150)):
            await asyncio.sleep(0)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert _tasks() == before
        if isinstance(result, asyncio.CancelledError):
            cancelled += 1
            assert list(Path(workspace).glob("*")) == []
        else:
            assert os.listdir(workspace) == ["a"]
    print(f"\n{cancelled} of 200 downloads cancelled, no task and no file left")
    assert cancelled >= 100
