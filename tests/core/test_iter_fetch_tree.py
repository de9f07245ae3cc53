"""Trees whose results come one by one: what `fetch_tree` brings, in bounded memory."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from datasources import (
    DataFetchError,
    DataItem,
    DataSourceConnector,
    DataSourceRegistry,
    FetchReceipt,
    FetchRequest,
    FetchResult,
    Grant,
    ItemNotFoundError,
    OptionError,
    Page,
    PoolConfig,
    Principal,
    Workspace,
    blocking,
)
from tests.core.fakes import registry_of, source
from tests.waiting import wait_until

HELD = (DataItem, FetchReceipt, FetchRequest, FetchResult, Workspace)


class Many(DataSourceConnector):
    """Lists `count` items by tens; each is `N.csv`, and holds its number."""

    type = "memory"
    count: ClassVar[int] = 0
    listed: ClassVar[int] = 0
    blocked: ClassVar[asyncio.Event | None] = None
    """Holds up the fetches until it is set."""
    started: ClassVar[int] = 0
    gone_at: ClassVar[int | None] = None
    """The number of the item from which on the folder is not found any more."""
    file_names: ClassVar[dict[str, str]] = {}
    """The names of files by item, where they differ."""

    async def connect(self) -> bool:
        return True

    async def disconnect(self) -> None:
        pass

    async def test_connection(self) -> bool:
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        items, cursor = await self.list_page(path, limit=10)
        while cursor:
            page, cursor = await self.list_page(path, cursor=cursor, limit=10)
            items += page
        return items

    async def list_page(
        self, path: str | None = None, *, cursor: str | None = None, limit: int
    ) -> Page:
        if path is not None:
            raise ItemNotFoundError(f"no folder {path!r}")
        first = int(cursor or 0)
        if self.gone_at is not None and first >= self.gone_at:
            raise ItemNotFoundError("the folder is gone")
        numbers = range(first, min(first + 10, self.count))
        type(self).listed += len(numbers)
        items = [DataItem(f"{number}.csv", f"{number}.csv", version="v1") for number in numbers]
        return Page(items, str(first + 10) if first + 10 < self.count else None)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        type(self).started += 1
        if self.blocked is not None:
            await self.blocked.wait()
        if identifier == "broken.csv":
            raise DataFetchError("broken")
        name = self.file_names.get(identifier, identifier)
        with Workspace.of(workspace).create(name) as file:
            file.write(identifier.encode())
            file.version = "v1"
        return file.path

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        raise ItemNotFoundError(f"no item {identifier!r}")


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    Many.count, Many.listed, Many.started = 0, 0, 0
    Many.blocked, Many.file_names = None, {}
    async with registry_of(Many) as registry:
        await registry.register_data_source(source())
        yield registry


def results_of(
    registry: DataSourceRegistry, workspace: Path, path: str | None = None, **options: Any
) -> AsyncGenerator[FetchResult]:
    results = registry.iter_fetch_tree("s", path, workspace, **options)
    return cast("AsyncGenerator[FetchResult]", results)


def held() -> int:
    """Return how many items, requests, results and workspaces there are in memory."""
    gc.collect()  # what is lost in cycles goes at any moment
    return sum(type(each) in HELD for each in gc.get_objects())


async def test_items_are_listed_as_their_results_are_taken(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    Many.count = 200
    taken = 0
    async with aclosing(results_of(registry, tmp_path, concurrency=4)) as results:
        async for _ in results:
            taken += 1
            assert Many.listed - taken <= 4 + 10
    assert taken == len(os.listdir(tmp_path)) - 1 == 200  # besides the receipts


async def take(iterator: AsyncIterator[object], taken: list[object]) -> None:
    async for each in iterator:
        taken.append(each)  # noqa: PERF401  (those before an error count)


async def test_folder_that_goes_away_while_it_is_listed_is_an_error(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Many, "gone_at", 10)
    Many.count = 20
    ann = Principal("ann", grants=[Grant("s", {"read"}, ["*.csv"])])
    for operations in (registry, registry.access(ann)):
        tree = operations.iter_fetch_tree("s", None, tmp_path, refresh=True, concurrency=1)
        for iterator, least in ((operations.iter_items("s"), 10), (tree, 1)):
            taken: list[object] = []
            with pytest.raises(ItemNotFoundError, match="the folder is gone"):
                await take(iterator, taken)
            assert least <= len(taken) <= 10


async def test_listing_holds_no_connection_that_a_fetch_needs(tmp_path: Path) -> None:
    Many.count, Many.blocked, Many.file_names = 25, None, {}
    pool = PoolConfig(max_size=1, acquire_timeout=20)
    async with DataSourceRegistry(pool_config=pool) as registry:
        registry.register_connector_class("memory", Many)
        await registry.register_data_source(source())
        results = [result async for result in results_of(registry, tmp_path)]
    assert [result.error for result in results] == [None] * 25


@pytest.mark.parametrize("passes", [1, 2])
async def test_memory_does_not_grow_with_the_number_of_items(
    registry: DataSourceRegistry, tmp_path: Path, passes: int
) -> None:
    Many.count = 400
    for _ in range(passes - 1):
        [None async for _ in results_of(registry, tmp_path)]
    counts, unchanged, results = [], 0, 0
    async for result in results_of(registry, tmp_path):
        assert result.receipt
        unchanged += result.receipt.unchanged
        results += 1
        if results in {50, 390}:
            counts.append(held())
    assert unchanged == (400 if passes == 2 else 0)
    early, late = counts
    assert late - early < 20


async def test_closing_the_iterator_cancels_what_is_under_way(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    Many.count, Many.blocked = 20, asyncio.Event()
    results = results_of(registry, tmp_path, concurrency=4)
    waiting = asyncio.create_task(anext(results))
    await wait_until(lambda: Many.started == 4, timeout=30)
    assert registry.get_pool_stats("s")["in_use"] == 4
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await results.aclose()
    assert registry.get_pool_stats("s")["in_use"] == 0
    assert (Many.started, os.listdir(tmp_path)) == (4, [])


async def test_an_item_that_fails_is_a_result_with_its_error(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    Many.count = 3
    (tmp_path / "1.csv").mkdir()
    results = {r.request.identifier: r async for r in results_of(registry, tmp_path)}
    assert [name for name, result in sorted(results.items()) if result.error] == ["1.csv"]


async def test_of_two_items_that_would_be_one_file_the_second_is_an_error(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    Many.count, Many.file_names = 3, {"2.csv": "0.csv"}
    results = [r async for r in results_of(registry, tmp_path, concurrency=1)]
    (failed,) = [result for result in results if result.error]
    assert failed.request.identifier == "2.csv"
    assert "would overwrite what '0.csv'" in str(failed.error)
    assert (tmp_path / "0.csv").read_text() == "0.csv"


@pytest.mark.parametrize("path", ["9*.csv", "nothing.csv", "folder/"])
async def test_what_is_not_there_is_an_error(
    registry: DataSourceRegistry, tmp_path: Path, path: str
) -> None:
    Many.count = 3
    with pytest.raises(ItemNotFoundError):
        await anext(results_of(registry, tmp_path, path))


async def test_concurrency_must_be_positive(registry: DataSourceRegistry, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'concurrency' must be at least 1"):
        await anext(results_of(registry, tmp_path, concurrency=0))


async def test_a_principal_gets_what_is_granted(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    Many.count = 12
    access = registry.access(Principal("ann", grants=[Grant("s", {"read", "query"})]))
    assert len([r async for r in access.iter_fetch_tree("s", "1*.csv", tmp_path)]) == 3
    narrow = registry.access(Principal("bob", grants=[Grant("s", {"read"}, items=["2.csv"])]))
    (result,) = [r async for r in narrow.iter_fetch_tree("s", None, tmp_path)]
    assert result.request.identifier == "2.csv"
    with pytest.raises(ItemNotFoundError, match="that 'bob' may read"):
        [None async for _ in narrow.iter_fetch_tree("s", "1*.csv", tmp_path)]


def test_code_without_an_event_loop_iterates(tmp_path: Path) -> None:
    Many.count, Many.blocked, Many.file_names = 30, None, {}
    with blocking.DataSourceRegistry() as registry:
        registry.register_connector_class("memory", Many)
        registry.register_data_source(source())
        results = list(registry.iter_fetch_tree("s", None, tmp_path))
        assert len([result.receipt for result in results if result.receipt]) == 30
        access = registry.access(Principal("ann", roles={"admin"}))
        unchanged = [r.receipt for r in access.iter_fetch_tree("s", None, tmp_path) if r.receipt]
        assert [receipt.unchanged for receipt in unchanged] == [True] * 30
        stopped = registry.iter_fetch_tree("s", None, tmp_path, refresh=True)
        with closing(cast("Generator[FetchResult]", stopped)) as first:
            assert next(first).receipt
