"""Closing a source ends what still uses its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from datasources import DataItem, DataSourceRegistry, PoolClosedError, PoolError
from datasources.models import ColumnStatistics, Preview
from tests.core.fakes import AbleConnector, MemoryConnector, fresh, registry_of, source
from tests.waiting import wait_until


class Slow(AbleConnector):
    """Has every ability, none of which ends by itself."""

    shareable = False
    started: asyncio.Event
    waiting = 0

    async def _wait(self) -> None:
        self.started.set()
        type(self).waiting += 1
        await asyncio.Event().wait()

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        await self._wait()
        return []

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        yield DataItem("a", "a")
        await self._wait()

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        await self._wait()
        return ""

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        await self._wait()
        return {}

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        await self._wait()
        return Preview((), [], truncated=False)

    async def statistics(self, identifier: str) -> dict[str, ColumnStatistics]:
        await self._wait()
        return {}

    async def glob_items(self, pattern: str) -> list[DataItem]:
        await self._wait()
        return []

    async def upload_file(
        self, local_path: str, blob_name: str | None = None, overwrite: bool = True
    ) -> DataItem:
        await self._wait()
        return DataItem("a", "a")


def slow(base: type[Slow] = Slow) -> type[Slow]:
    class Fresh(base):  # type: ignore[valid-type, misc]  # a class with an event of its own
        started = asyncio.Event()

    return Fresh


async def _drain(items: AsyncIterator[DataItem]) -> None:
    async for _ in items:
        pass


OPERATIONS: dict[str, Callable[[DataSourceRegistry, Path], Awaitable[object]]] = {
    "list_items": lambda registry, _: registry.list_items("s"),
    "iter_items": lambda registry, _: _drain(registry.iter_items("s")),
    "glob_items": lambda registry, _: registry.glob_items("s", "*"),
    "get_metadata": lambda registry, _: registry.get_metadata("s", "a"),
    "preview": lambda registry, _: registry.preview("s", "a"),
    "statistics": lambda registry, _: registry.statistics("s", "a"),
    "upload": lambda registry, path: registry.upload("s", str(path / "a")),
    "fetch": lambda registry, path: registry.fetch("s", "a", path),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_unregistering_cuts_off_every_operation(operation: str, tmp_path: Path) -> None:
    cls = slow()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        running = asyncio.ensure_future(OPERATIONS[operation](registry, tmp_path))
        await cls.started.wait()
        await registry.unregister_data_source("s", timeout=0.01)
        assert running.done()
        with pytest.raises(PoolClosedError, match="'s' was closed while it was in use"):
            await running
        assert cls.live == 0


async def test_closing_goes_on_though_one_of_its_callers_is_cancelled() -> None:
    cls = slow()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        running = asyncio.ensure_future(registry.list_items("s"))
        await cls.started.wait()
        pool = registry._pools.source_pool("s").pool
        callers = [asyncio.ensure_future(registry.disconnect_all(timeout=0.05)) for _ in range(2)]
        await wait_until(lambda: pool.closed)
        callers[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await callers[0]
        await callers[1]
        assert running.done()
        with pytest.raises(PoolClosedError, match="'s' was closed while it was in use"):
            await running
        assert cls.live == 0


async def test_fetches_of_many_are_cut_off_one_by_one(tmp_path: Path) -> None:
    cls = slow()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        running = asyncio.create_task(registry.fetch_many([("s", "a"), ("s", "b")], tmp_path))
        await wait_until(lambda: cls.waiting == 2)
        await registry.unregister_data_source("s", timeout=0.01)
        assert [type(result.error) for result in await running] == [PoolClosedError] * 2


async def test_operation_that_ends_in_time_is_not_cut_off() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    class Waits(MemoryConnector):
        async def list_items(self, path: str | None = None) -> list[DataItem]:
            started.set()
            await release.wait()
            return await super().list_items(path)

    async with registry_of(fresh(Waits)) as registry:
        await registry.register_data_source(source())
        listing = asyncio.create_task(registry.list_items("s"))
        await started.wait()
        closing = asyncio.create_task(registry.disconnect_all())
        await asyncio.sleep(0.01)
        release.set()
        assert [item.name for item in await listing] == ["a.csv", "b.csv"]
        await closing


async def test_code_that_iterates_is_not_cancelled_by_closing() -> None:
    cls = slow()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        items = registry.iter_items("s")
        await anext(items)
        closing = asyncio.create_task(registry.unregister_data_source("s", timeout=0.01))
        await asyncio.wait({closing})  # in the body of a loop over `items`
        with pytest.raises(PoolError, match="1 connection to source 's' was never returned"):
            closing.result()
        with pytest.raises(PoolClosedError):
            await anext(items)
        assert cls.live == 0


async def test_connector_that_ignores_its_cancellation_is_disconnected_under_its_holder() -> None:
    class Stubborn(Slow):
        async def _wait(self) -> None:
            self.started.set()
            while self._connection is not None:  # until it is disconnected
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue

    cls = slow(Stubborn)
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        running = asyncio.create_task(registry.list_items("s"))
        await cls.started.wait()
        with pytest.raises(PoolError, match="never returned"):
            await registry.unregister_data_source("s", timeout=0.01)
        assert await running == []
        assert cls.live == 0


async def test_cancelled_by_its_own_caller_an_operation_is_cancelled() -> None:
    cls = slow()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        running = asyncio.create_task(registry.list_items("s"))
        await cls.started.wait()
        closing = asyncio.create_task(registry.disconnect_all(timeout=0.01))
        running.cancel()
        await asyncio.wait({running, closing})
        assert running.cancelled()
        await closing


async def test_file_that_is_complete_is_fetched_though_its_source_is_closed(
    tmp_path: Path,
) -> None:
    written = asyncio.Event()

    class Lingering(MemoryConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            path = await super().fetch_data(identifier, workspace)
            written.set()
            await asyncio.Event().wait()
            return path

    async with registry_of(fresh(Lingering)) as registry:
        await registry.register_data_source(source())
        running = asyncio.create_task(registry.fetch("s", "a.csv", tmp_path))
        await written.wait()
        await registry.unregister_data_source("s", timeout=0.01)
        assert (await running).path == str(tmp_path / "a.csv")
