"""Many items are listed page by page, with one call for each page and memory for one page."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Awaitable, Callable
from typing import ClassVar

import pytest

from datasources import DataItem, DataSourceRegistry, Grant, Page, Principal
from tests.core.fakes import SeedConnector, registry_of, source

LIMIT = 10_000  # the most that a page may have
FOLDERS = 10


class Many(SeedConnector):
    count: ClassVar[int] = 400_000
    calls: ClassVar[int] = 0

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        raise AssertionError("pages are asked for")

    async def list_page(
        self, path: str | None = None, *, cursor: str | None = None, limit: int
    ) -> Page:
        type(self).calls += 1
        count = self.count
        first = int(cursor or 0)
        end = min(first + limit, count)
        paths = (f"{number * FOLDERS // count}/{number:07}" for number in range(first, end))
        return Page([DataItem(path, path) for path in paths], str(end) if end < count else None)


NextPage = Callable[[str | None], Awaitable[Page]]
WAYS: dict[
    str, tuple[Callable[[DataSourceRegistry], NextPage], int]
] = {  # and in how many parts a way shows one
    "registry": (
        lambda registry: lambda cursor: registry.list_page("s", limit=LIMIT, cursor=cursor),
        1,
    ),
    "access to one folder": (
        lambda registry: (
            lambda cursor: registry.access(
                Principal("ann", grants=[Grant("s", {"read"}, items=["3/*"])])
            ).list_page("s", limit=LIMIT, cursor=cursor)
        ),
        FOLDERS,
    ),
}


@pytest.mark.parametrize("count", [400_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("way", WAYS)
async def test_many_items_take_one_call_for_each_page_and_memory_for_one(
    way: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_through, parts = WAYS[way]
    monkeypatch.setattr(Many, "count", count)
    Many.calls = 0
    items, pages, cursor = 0, 0, None
    last = ""
    async with registry_of(Many) as registry:
        await registry.register_data_source(source())
        next_page = list_through(registry)
        while True:
            if pages == 30:  # a few pages tell of all, and tracing is slow
                tracemalloc.start()
            page = await next_page(cursor)
            pages += 1
            items += len(page.items)
            assert all(item.path > last for item in page.items[:1])
            last = page.items[-1].path if page.items else last
            cursor = page.cursor
            if pages == 35:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
            if cursor is None:
                break
            assert len(cursor) < 1000
    assert (items, pages, Many.calls) == (count // parts, count // LIMIT, count // LIMIT)
    # Two pages at most: the one before is let go while the next is made.
    assert peak < 2 * LIMIT * 700


async def test_iterating_over_items_holds_none_of_them() -> None:
    alive: weakref.WeakSet[DataItem] = weakref.WeakSet()
    most = 0

    class Item(DataItem):
        __hash__ = object.__hash__  # a set of weak references needs one

    class Iterated(Many):
        async def iter_items(self, path: str | None = None):
            for number in range(10_000):
                item = Item("n", f"{number:07}")
                alive.add(item)
                yield item

    async with registry_of(Iterated) as registry:
        await registry.register_data_source(source())
        count = 0
        async for _ in registry.iter_items("s"):
            most = max(most, len(alive))
            count += 1
    assert count == 10_000
    assert most <= 3
