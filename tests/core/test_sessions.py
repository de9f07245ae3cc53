"""Workspaces that end: granted sources, a quota, nothing left."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    DataSourceRegistry,
    FetchReceipt,
    FetchRequest,
    LimitExceededError,
    Limits,
    OptionError,
    PolicyError,
    RegistryError,
    Workspace,
    blocking,
)
from datasources.workspace.paths import TEMPORARY
from datasources.workspace.quota import Quota
from tests.core.fakes import AbleConnector, SeedConnector, fresh, registry_of, source
from tests.descriptors import descriptors_below
from tests.waiting import wait_until


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    async with registry_of(fresh(AbleConnector)) as registry:
        await registry.register_data_source(source())
        await registry.register_data_source(source("other"))
        yield registry


async def test_a_workspace_is_gone_when_its_block_ends(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    async with registry.workspace("chat-1", root=tmp_path / "all") as workspace:
        assert os.stat(workspace.path).st_mode & 0o777 == 0o700
        receipt = await workspace.fetch("s", "a.csv")
        assert receipt.path == str(tmp_path / "all" / "chat-1" / "a.csv")
        assert [r.error for r in await workspace.fetch_many([("s", "a.csv"), ("s", "b.csv")])] == [
            None,
            None,
        ]
        assert len(await workspace.fetch_tree("s")) == 2
        Path(workspace.path, "made-by-the-model").write_text("x")
    assert os.listdir(tmp_path / "all") == []


async def test_a_workspace_without_a_root_is_a_temporary_directory(
    registry: DataSourceRegistry,
) -> None:
    async with registry.workspace("chat-1") as workspace:
        assert os.path.dirname(workspace.path) == os.path.realpath(tempfile.gettempdir())
        assert "chat-1" in os.path.basename(workspace.path)
        await workspace.fetch("s", "a.csv")
    assert not os.path.exists(workspace.path)


async def test_a_workspace_without_a_root_that_cannot_be_opened_leaves_no_directory(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(workspace: Workspace) -> list[str]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Workspace, "clean", fail)
    with pytest.raises(RegistryError, match="'chat-1' cannot be opened: Input/output error"):
        async with registry.workspace("chat-1"):
            pass
    assert os.listdir(tmp_path) == []


async def test_a_workspace_is_gone_too_when_its_block_fails(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with registry.workspace("chat-1", root=tmp_path):
            raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


async def test_a_workspace_whose_closer_is_cancelled_is_gone_and_its_fetches_have_ended(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    closing = asyncio.Event()

    async def close() -> None:
        closing.set()
        await asyncio.Event().wait()

    async def work() -> None:
        async with registry.workspace("chat-1", root=tmp_path) as workspace:
            workspace.call_at_close(close)
            fetches.append(asyncio.create_task(workspace.fetch("s", "slow")))
            await wait_until(lambda: registry.get_pool_stats("s")["in_use"] == 1)

    fetches: list[asyncio.Task[FetchReceipt]] = []
    working = asyncio.create_task(work())
    await closing.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert os.listdir(tmp_path) == []
    with pytest.raises(RegistryError, match="was closed"):
        await fetches[0]


async def test_what_a_killed_host_left_is_taken_over_and_deleted(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    (tmp_path / "chat-1").mkdir()
    (tmp_path / "chat-1" / "old").touch()
    half = tmp_path / "chat-1" / TEMPORARY.format("0" * 16)
    half.touch()
    os.utime(half, (0, 0))
    async with registry.workspace("chat-1", root=tmp_path) as workspace:
        assert os.listdir(workspace.path) == ["old"]
    assert os.listdir(tmp_path) == []


async def test_a_workspace_whose_opening_is_cancelled_is_gone(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    opening = asyncio.create_task(registry.workspace("chat-1", root=tmp_path).__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert os.listdir(tmp_path) == []
    async with registry.workspace("chat-1", root=tmp_path):
        pass


async def test_a_workspace_is_gone_once_it_is_left_whenever_its_host_is_cancelled(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    async def work() -> None:
        async with registry.workspace("chat-1", root=tmp_path, quota=100) as workspace:
            await workspace.fetch_tree("s")
            await workspace.fetch("s", "a.csv")

    for turns in range(40):
        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await task
        assert os.listdir(tmp_path) == []


async def test_a_workspace_that_its_host_removed_is_gone(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    async with registry.workspace("chat-1", root=tmp_path) as workspace:
        os.rmdir(workspace.path)


async def test_what_cannot_be_deleted_is_told(registry: DataSourceRegistry, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    workspace = await registry.workspace("chat-1", root=tmp_path).__aenter__()
    os.rename(workspace.path, tmp_path / "moved")
    os.symlink("elsewhere", workspace.path)
    with pytest.raises(RegistryError, match=r"what is left is in '.*/chat-1': Cannot call rmtree"):
        await workspace.__aexit__(None, None, None)
    assert (tmp_path / "elsewhere").exists()


async def test_folders_in_a_thousand_folders_are_counted(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with registry.workspace("chat-1", root=tmp_path, quota=10) as workspace:
        monkeypatch.chdir(workspace.path)
        try:
            for _ in range(1_000):
                os.mkdir("d")
                os.chdir("d")
            Path("own").write_bytes(bytes(5))
            with pytest.raises(LimitExceededError):
                await workspace.fetch("s", "a.csv")
        finally:  # older Pythons cannot
            subprocess.run(["rm", "-r", f"{workspace.path}/d"], check=True)  # noqa: ASYNC221


async def test_folders_too_deep_to_be_deleted_are_told(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(path: str) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    workspace = await registry.workspace("chat-1", root=tmp_path).__aenter__()
    monkeypatch.setattr(shutil, "rmtree", too_deep)
    with pytest.raises(RegistryError, match=r"could not be deleted whole; .*: maximum"):
        await workspace.__aexit__(None, None, None)


async def test_one_workspace_is_not_entered_twice(registry: DataSourceRegistry) -> None:
    workspace = registry.workspace("chat-1")
    with pytest.raises(RegistryError, match=r"'chat-1' is closed"):
        await workspace.fetch("s", "a.csv")
    async with workspace:
        with pytest.raises(RegistryError, match=r"'chat-1' is open already"):
            await workspace.__aenter__()
        await workspace.fetch("s", "a.csv")
    assert not os.path.exists(workspace.path)


def test_whoever_finds_a_workspace_closing_has_it_or_is_told_that_it_is_open(
    tmp_path: Path,
) -> None:
    def use(_: int) -> str:
        with blocking.DataSourceRegistry() as registry:
            for _ in range(200):
                try:
                    with registry.workspace("chat-1", root=tmp_path):
                        pass
                except RegistryError as exc:
                    if "is open already" not in str(exc):
                        return str(exc)
        return ""

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(use, range(3))) == [""] * 3


async def test_a_workspace_is_open_once(registry: DataSourceRegistry, tmp_path: Path) -> None:
    async with registry.workspace("chat-1", root=tmp_path):
        with pytest.raises(RegistryError, match=r"'chat-1' is open already"):
            await registry.workspace("chat-1", root=tmp_path).__aenter__()
        async with registry.workspace("chat-2", root=tmp_path):
            pass
        assert os.path.isdir(tmp_path / "chat-1")
        assert not os.path.lexists(tmp_path / "chat-2")
    async with registry.workspace("chat-1", root=tmp_path):
        pass


async def test_a_workspace_that_was_refused_holds_nothing_and_opens_later(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    refused = registry.workspace("chat-1", root=tmp_path)
    async with registry.workspace("chat-1", root=tmp_path):
        opened = descriptors_below(tmp_path)
        for _ in range(2):
            with pytest.raises(RegistryError, match=r"'chat-1' is open already"):
                await refused.__aenter__()
        assert descriptors_below(tmp_path) == opened
    async with refused:
        await refused.fetch("s", "a.csv")
    assert os.listdir(tmp_path) == []


async def test_a_workspace_that_cannot_be_cleaned_holds_nothing_and_opens_later(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clean(workspace: Workspace) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    workspace = registry.workspace("chat-1", root=tmp_path)
    opened = descriptors_below(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "clean", clean)
        with pytest.raises(RegistryError, match=r"'chat-1' cannot be opened: Permission denied"):
            await workspace.__aenter__()
    assert descriptors_below(tmp_path) == opened
    async with workspace:
        await workspace.fetch("s", "a.csv")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("bad", ["", "..", "a/b", ".hidden", "x" * 129, "nul\0", "new\nline"])
async def test_an_id_that_could_lead_elsewhere_is_refused(
    registry: DataSourceRegistry, bad: str
) -> None:
    with pytest.raises(OptionError, match="is not a workspace id"):
        registry.workspace(bad)


async def test_a_planted_link_is_not_a_workspace(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (tmp_path / "chat-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RegistryError, match=r"'chat-1' cannot be opened"):
        await registry.workspace("chat-1", root=tmp_path).__aenter__()
    async with registry.workspace("chat-2", root=tmp_path) as workspace:
        os.symlink(tmp_path / "elsewhere", os.path.join(workspace.path, "link"))
    assert (tmp_path / "elsewhere" / "precious").exists()


async def test_only_granted_sources_can_be_fetched_from(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    async with registry.workspace("chat-1", root=tmp_path, sources=["s"]) as workspace:
        await workspace.fetch("s", "a.csv")
        for attempt in (
            workspace.fetch("other", "a.csv"),
            workspace.fetch_many([("s", "b.csv"), FetchRequest("other", "a.csv")]),
            workspace.fetch_tree("other"),
        ):
            with pytest.raises(PolicyError, match=r"'other' is not granted .*; granted: s$"):
                await attempt
        assert os.listdir(workspace.path) == ["a.csv"]


async def test_the_end_cuts_off_what_is_under_way_and_returns_its_connection(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    before = asyncio.all_tasks()
    async with registry.workspace("chat-1", root=tmp_path) as workspace:
        slow = asyncio.create_task(workspace.fetch("s", "slow"))
        many = asyncio.create_task(workspace.fetch_many([("s", "slow")] * 3))
        await wait_until(lambda: registry.get_pool_stats("s")["in_use"] == 4)
    for task in (slow, many):
        with pytest.raises(RegistryError, match=r"'chat-1' was closed in mid-fetch"):
            await task
    assert registry.get_pool_stats("s")["in_use"] == 0
    assert asyncio.all_tasks() == before
    assert os.listdir(tmp_path) == []
    with pytest.raises(RegistryError, match=r"'chat-1' is closed"):
        await workspace.fetch("s", "a.csv")


async def test_a_cancelled_caller_is_cancelled_and_the_workspace_goes_on(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    async with registry.workspace("chat-1", root=tmp_path) as workspace:
        slow = asyncio.create_task(workspace.fetch("s", "slow"))
        await wait_until(lambda: registry.get_pool_stats("s")["in_use"] == 1)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert registry.get_pool_stats("s")["in_use"] == 0
        await workspace.fetch("s", "a.csv")


async def test_limits_hold_for_every_fetch_of_a_workspace(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    limits = Limits(max_bytes=3)
    async with registry.workspace("chat-1", root=tmp_path, limits=limits) as workspace:
        with pytest.raises(LimitExceededError):
            await workspace.fetch("s", "a.csv")
        await workspace.fetch("s", "b.csv")


def test_a_quota_is_not_negative(registry: DataSourceRegistry) -> None:
    with pytest.raises(OptionError, match="'quota' must not be negative"):
        registry.workspace("chat-1", quota=-1)


async def test_a_quota_bounds_all_files_together_exactly(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    async with registry.workspace("chat-1", root=tmp_path, quota=10) as workspace:  # 8 and 2
        await workspace.fetch("s", "a.csv")
        await workspace.fetch("s", "b.csv")
    async with registry.workspace("chat-1", root=tmp_path, quota=9) as workspace:
        await workspace.fetch("s", "a.csv")
        with pytest.raises(
            LimitExceededError, match=r"'b.csv' does not fit: .* 8 bytes, and may have 9"
        ):
            await workspace.fetch("s", "b.csv")
        assert os.listdir(workspace.path) == ["a.csv"]


async def test_what_the_workspace_itself_writes_and_deletes_counts_at_the_next_fetch(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    async with registry.workspace("chat-1", root=tmp_path, quota=10) as workspace:
        own = Path(workspace.path, "folder", "own")
        own.parent.mkdir()
        own.write_bytes(bytes(5))
        with pytest.raises(LimitExceededError):
            await workspace.fetch("s", "a.csv")
        own.unlink()
        await workspace.fetch("s", "a.csv")


async def test_a_file_in_place_of_another_needs_room_beside_it_until_it_is_whole(
    tmp_path: Path,
) -> None:
    quota = Quota(str(tmp_path), 10)
    workspace = Workspace(tmp_path, quota=quota)
    for size in (6, 4, 6):
        with workspace.create("x") as file:
            file.write(bytes(size))
        assert quota.used == size
    with pytest.raises(LimitExceededError), workspace.create("x") as file:
        file.write(bytes(6))
    assert quota.used == 6
    assert (tmp_path / "x").stat().st_size == 6


def test_a_quota_counts_links_and_not_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "large").write_bytes(bytes(1000))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "own").write_bytes(bytes(5))
    links = {"folder": "../elsewhere", "file": "../elsewhere/large", "loop": ".", "gone": "x"}
    for name, target in links.items():
        (workspace / name).symlink_to(target)
    assert Quota(str(workspace), 100).used == 5 + sum(map(len, links.values()))


async def test_a_failed_fetch_gives_its_bytes_back(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    quota = Quota(str(tmp_path), 10)
    workspace = Workspace(tmp_path, quota=quota)
    for _ in range(3):
        with suppress(ZeroDivisionError), workspace.create("x") as file:
            file.write(bytes(8))
            raise ZeroDivisionError
    assert quota.used == 0
    with workspace.create("x") as file:
        file.write(bytes(8))
    assert quota.used == 8


async def test_a_quota_holds_for_connectors_that_write_their_files_themselves(
    tmp_path: Path,
) -> None:
    async with registry_of(SeedConnector) as registry:
        await registry.register_data_source(source())
        async with registry.workspace("chat-1", root=tmp_path, quota=9) as workspace:
            await workspace.fetch("s", "a.csv")
            with pytest.raises(LimitExceededError):
                await workspace.fetch("s", "b.csv")
            assert os.listdir(workspace.path) == ["a.csv"]


async def test_many_fetches_at_once_never_have_more_than_the_quota(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    async with registry.workspace("chat-1", root=tmp_path, quota=9) as workspace:
        attempts: list[Any] = [workspace.fetch("s", name) for name in ["a.csv", "b.csv"] * 10]
        found = await asyncio.gather(*attempts, return_exceptions=True)
        assert {type(each) for each in found if isinstance(each, Exception)} <= {LimitExceededError}
        sizes = [Path(workspace.path, name).stat().st_size for name in os.listdir(workspace.path)]
        assert sum(sizes) <= 9


def test_a_blocking_workspace_does_the_same(tmp_path: Path) -> None:
    with blocking.DataSourceRegistry() as registry:
        registry.register_connector_class("memory", AbleConnector)
        registry.register_data_source(source())
        with registry.workspace("chat-1", root=tmp_path, sources=["s"], quota=100) as workspace:
            assert workspace.fetch("s", "a.csv").path.startswith(workspace.path)
            assert len(workspace.fetch_many([("s", "b.csv")])) == 1
            assert len(workspace.fetch_tree("s")) == 2
            with pytest.raises(PolicyError):
                workspace.fetch("other", "a.csv")
        assert len(registry.fetch_tree("s", None, tmp_path / "tree")) == 2
        assert os.listdir(tmp_path) == ["tree"]


def test_a_blocking_workspace_is_gone_even_if_its_registry_was_closed(tmp_path: Path) -> None:
    with (
        blocking.DataSourceRegistry() as registry,
        registry.workspace("chat-1", root=tmp_path) as workspace,
    ):
        registry.close()
        with pytest.raises(RegistryError, match="closed"):
            workspace.fetch("s", "a.csv")
    assert os.listdir(tmp_path) == []


async def test_leaving_the_block_in_a_forked_child_deletes_nothing_of_the_parent(
    tmp_path: Path,
) -> None:
    async with registry_of(fresh()) as registry:
        session = registry.workspace("w", root=tmp_path)
        async with session:
            (tmp_path / "w" / "kept").write_text("x")
            session._process = -1  # as in a child, whose process id is another one
            await session.__aexit__(None, None, None)
            assert (tmp_path / "w" / "kept").exists()
            session._process = os.getpid()
        assert not (tmp_path / "w").exists()


async def test_session_opens_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        async with registry.workspace("w", root=tmp_path) as session:
            assert (await session.fetch("s", "a.csv")).size == 8
