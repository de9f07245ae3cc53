"""Small files: what each costs the event loop, and what it keeps of the guarantees of large ones."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    DataFetchError,
    DataSourceConfig,
    DataSourceRegistry,
    Workspace,
    copy_file,
)

FILES = 200


@pytest.fixture
def callbacks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Count the callbacks of the running event loop from the call on."""

    def count() -> list[str]:
        loop, scheduled = asyncio.get_running_loop(), []

        def counted(schedule: Callable[..., Any]) -> Callable[..., Any]:
            def call(callback: Callable[..., Any], *args: Any, **options: Any) -> Any:
                scheduled.append(repr(callback))
                return schedule(callback, *args, **options)

            return call

        for name in ("call_soon", "call_soon_threadsafe"):
            monkeypatch.setattr(loop, name, counted(getattr(loop, name)))
        return scheduled

    return count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:03}.txt").write_text(f"file {number}\n" * number)
    return folder


async def registry_of(folder: Path) -> DataSourceRegistry:
    registry = DataSourceRegistry()
    await registry.register_data_source(
        DataSourceConfig("files", "local_file", "Files", {"path": str(folder)})
    )
    return registry


async def test_a_small_file_of_a_batch_takes_nine_callbacks_at_most(
    folder: Path, tmp_path: Path, callbacks: Callable[[], list[str]]
) -> None:
    async with await registry_of(folder) as registry:
        await registry.fetch("files", "000.txt", tmp_path / "warm")
        scheduled = callbacks()
        requests = [("files", f"{number:03}.txt") for number in range(FILES)]
        results = await registry.fetch_many(requests, tmp_path / "workspace")
        count = len(scheduled)
    assert all(result.receipt for result in results)
    # 5 each: the end of one call in a thread takes 4, and one gives other tasks their turn.
    assert count <= 9 * FILES


async def test_a_small_file_of_a_tree_takes_ten_callbacks_at_most_and_an_unchanged_one_six(
    folder: Path, tmp_path: Path, callbacks: Callable[[], list[str]]
) -> None:
    async with await registry_of(folder) as registry:
        await registry.fetch("files", "000.txt", tmp_path / "warm")
        scheduled = callbacks()
        assert all(r.receipt for r in await registry.fetch_tree("files", None, tmp_path / "ws"))
        assert len(scheduled) <= 10 * FILES
        scheduled.clear()
        results = await registry.fetch_tree("files", None, tmp_path / "ws")
        assert all(result.receipt and result.receipt.unchanged for result in results)
        assert len(scheduled) <= 6 * FILES


async def test_small_files_arrive_as_they_are(folder: Path, tmp_path: Path) -> None:
    async with await registry_of(folder) as registry:
        for result in await registry.fetch_tree("files", None, tmp_path / "workspace"):
            assert result.receipt
            content = (folder / result.request.identifier).read_bytes()
            assert Path(result.receipt.path).read_bytes() == content
            assert result.receipt.size == len(content)
            assert result.receipt.sha256 == hashlib.sha256(content).hexdigest()


class Waiting:
    """An opener of a file that lets a test act while it waits, in a worker thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.opened = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> Any:
        self.file = self._path.open("rb", buffering=0)
        self.opened.set()
        assert self.go_on.wait(60)
        return self.file


@pytest.mark.parametrize("size", [100, 3 << 20])
async def test_a_cancelled_copy_leaves_no_file_and_no_open_one(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(b"x" * size)
    opener, workspace = Waiting(tmp_path / "a"), Workspace(tmp_path / "workspace")
    copying = asyncio.create_task(copy_file(opener, workspace, "a"))
    await asyncio.to_thread(opener.opened.wait)
    copying.cancel()
    await asyncio.sleep(0)
    assert not copying.done()  # it waits for its thread
    opener.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert opener.file.closed
    assert list(tmp_path.glob("workspace/*")) == []


async def test_a_small_file_that_changes_during_its_copy_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old content")

    def rewrite(done: int, total: int | None) -> None:
        path.write_bytes(b"new content, longer")

    workspace = Workspace(tmp_path / "workspace", progress=rewrite)
    with pytest.raises(DataFetchError, match="'a' changed while it was copied; fetch it again"):
        await copy_file(lambda: path.open("rb", buffering=0), workspace, "a")
    assert list(tmp_path.glob("workspace/*")) == []
