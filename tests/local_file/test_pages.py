"""Pages of a directory: in the order of the listing, resumed after any path, in bounded memory."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from datasources import DataSourceConfig, ItemNotFoundError, OptionError
from datasources_local_file import LocalFileConnector, pages

SEGMENTS = st.sampled_from(["a", "b", "a.csv", "a b", "ä", "A", "a-", "b.d", "~"])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)


async def connected(root: Path) -> LocalFileConnector:
    connector = LocalFileConnector(DataSourceConfig("s", "local_file", "S", {"path": str(root)}))
    await connector.connect()
    return connector


async def all_paths(connector: LocalFileConnector, path: str | None, limit: int) -> list[str]:
    paths: list[str] = []
    cursor = None
    while True:
        page = await connector.list_page(path, cursor=cursor, limit=limit)
        paths += [item.path for item in page.items]
        cursor = page.cursor
        if cursor is None:
            return paths


@settings(max_examples=60, deadline=None)
@given(st.sets(PATHS, min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 5))
async def test_pages_are_the_listing_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], limit: int, batch: int
) -> None:
    root = tmp_path_factory.mktemp("source")
    for name in sorted(names):
        path = root / name
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    connector = await connected(root)
    old, pages._BATCH = pages._BATCH, batch
    try:
        for path_of in (None, "/", "a", "a/", "b.d/"):
            if path_of and path_of != "/" and not (root / path_of).is_dir():
                continue
            listed = [item.path for item in await connector.list_items(path_of)]
            assert await all_paths(connector, path_of, limit) == listed
    finally:
        pages._BATCH = old
        shutil.rmtree(root)


async def test_a_page_goes_on_where_its_file_and_folder_are_gone(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/1", "c/1", "z"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    connector = await connected(tmp_path)
    first = await connector.list_page(limit=3)
    assert [item.path for item in first.items] == ["z", "a/1", "a/2"]
    shutil.rmtree(tmp_path / "a")
    rest = await connector.list_page(limit=9, cursor=first.cursor)
    assert [item.path for item in rest.items] == ["b/1", "c/1"]


@pytest.mark.parametrize("cursor", ["../a", "/etc/passwd", "b/1", "a/../b", "a\0", "a//1"])
async def test_a_cursor_leads_nowhere_else(tmp_path: Path, cursor: str) -> None:
    (tmp_path / "a").mkdir()
    connector = await connected(tmp_path)
    with pytest.raises(OptionError):
        await connector.list_page("a", cursor=cursor, limit=1)


async def test_a_page_of_a_missing_folder_is_item_not_found(tmp_path: Path) -> None:
    connector = await connected(tmp_path)
    for path in ("missing", "missing/", "..", "../"):
        with pytest.raises(ItemNotFoundError):
            await connector.list_page(path, limit=1)


async def test_a_page_of_a_large_folder_takes_little_memory(tmp_path: Path) -> None:
    for number in range(20_000):
        os.close(os.open(tmp_path / f"{number:05}", os.O_CREAT))
    connector = await connected(tmp_path)
    page = await connector.list_page(limit=100)
    tracemalloc.start()
    try:
        page = await connector.list_page(limit=100, cursor=page.cursor)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [item.path for item in page.items] == [f"{number:05}" for number in range(100, 200)]
    assert peak < 2_000_000  # bytes: 1,000 entries at once, where 20,000 take more than 4 MB
