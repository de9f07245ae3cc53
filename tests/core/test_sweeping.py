"""Workspaces that outlive their block, and the sweeping of those that nobody uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datasources import DataSourceRegistry, LimitExceededError, OptionError, RegistryError
from datasources.registry import sweeping
from datasources.workspace.paths import TEMPORARY
from tests.core.fakes import AbleConnector, fresh, registry_of, source
from tests.core.subprocesses import environment

MARKS = ".datasources-sessions"


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    async with registry_of(fresh(AbleConnector)) as registry:
        await registry.register_data_source(source())
        yield registry


async def keep(registry: DataSourceRegistry, root: Path, *workspace_ids: str) -> None:
    for workspace_id in workspace_ids:
        async with registry.workspace(workspace_id, root=root, keep=True) as workspace:
            await workspace.fetch("s", "a.csv")


def names(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root) if name != MARKS)


async def test_kept_workspace_goes_on_with_its_files(registry: DataSourceRegistry, tmp_path: Path):
    async with registry.workspace("chat-1", root=tmp_path, keep=True) as workspace:
        first = await workspace.fetch("s", "a.csv")
        Path(workspace.path, TEMPORARY.format("0" * 16)).touch()  # as a fetch that was cut off
    assert names(tmp_path) == ["chat-1"]
    assert os.listdir(tmp_path / "chat-1") == ["a.csv"]
    async with registry.workspace("chat-1", root=tmp_path, keep=True, quota=9) as workspace:
        assert Path(first.path).read_bytes() == b"x,y\n1,2\n"
        with pytest.raises(LimitExceededError):  # what is there counts
            await workspace.fetch("s", "b.csv")
    async with registry.workspace("chat-1", root=tmp_path):
        pass
    assert os.listdir(tmp_path) == []


async def test_kept_workspace_needs_a_root(registry: DataSourceRegistry):
    with pytest.raises(OptionError, match="needs a 'root'"):
        registry.workspace("chat-1", keep=True)


async def test_kept_workspace_may_be_removed_by_its_host(
    registry: DataSourceRegistry, tmp_path: Path
):
    root = tmp_path / "root"
    async with registry.workspace("chat-1", root=root, keep=True):
        shutil.rmtree(root)
    assert not root.exists()


async def test_abandoned_workspaces_are_swept(registry: DataSourceRegistry, tmp_path: Path):
    await keep(registry, tmp_path, "b", "a")
    assert registry.sweep_workspaces(tmp_path, 3600) == []
    assert names(tmp_path) == ["a", "b"]
    assert registry.sweep_workspaces(tmp_path, 0) == ["a", "b"]
    assert os.listdir(tmp_path) == []
    assert registry.sweep_workspaces(tmp_path, 0) == []


async def test_workspace_in_use_is_not_swept(registry: DataSourceRegistry, tmp_path: Path):
    async with registry.workspace("chat-1", root=tmp_path) as workspace:
        await workspace.fetch("s", "a.csv")
        assert registry.sweep_workspaces(tmp_path, 0) == []
        assert os.listdir(workspace.path) == ["a.csv"]


async def test_folder_of_marks_may_be_deleted_while_a_session_opens(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mkdir = os.mkdir
    gone = iter([True])

    def find_and_delete(path: str, *args: Any, **kwargs: Any) -> None:
        if path.endswith(MARKS) and next(gone, False):  # another session has ended since
            raise FileExistsError
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", find_and_delete)
    async with registry.workspace("chat-1", root=tmp_path):
        assert names(tmp_path) == ["chat-1"]
    assert next(gone, None) is None


async def test_link_in_place_of_the_folder_of_marks_is_refused(
    registry: DataSourceRegistry, tmp_path: Path
):
    (tmp_path / MARKS).symlink_to(tmp_path / "missing")
    with pytest.raises(RegistryError, match="cannot be opened"):
        await registry.workspace("chat-1", root=tmp_path).__aenter__()


def test_what_a_killed_host_left_is_swept(tmp_path: Path):
    script = (
        "import os, signal, sys\n"
        "from datasources.blocking import DataSourceRegistry\n"
        "from datasources.plugins import Plugins\n"
        "registry = DataSourceRegistry(plugins=Plugins(index=[]))\n"
        "with registry.workspace('chat-1', root=sys.argv[1]):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment(), check=False, timeout=60
    )
    assert names(tmp_path) == ["chat-1"]
    assert sweeping.sweep_workspaces(tmp_path, 0) == ["chat-1"]


async def test_nothing_but_workspaces_is_swept(registry: DataSourceRegistry, tmp_path: Path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    await keep(registry, root, "link", "again", "kept")
    (root / "folder").mkdir()
    (root / "file").touch()
    for name in ("link", "again"):
        shutil.rmtree(root / name)
    (root / "link").symlink_to(outside)
    (root / "kept" / "out").symlink_to(outside)
    (root / "again").mkdir()  # a directory of the user's own, under the name of a workspace
    mark = root / MARKS / f"again.{(root / 'again').stat().st_ino}"
    if mark.exists():  # the file system gave it the same inode
        mark.unlink()
    assert registry.sweep_workspaces(root, 0) == ["kept"]
    assert names(root) == ["again", "file", "folder", "link"]
    assert os.listdir(outside) == ["file"]


async def test_change_anywhere_in_a_workspace_is_a_use(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await keep(registry, tmp_path, "chat-1")
    used = (tmp_path / "chat-1" / "a.csv").stat().st_ctime
    folder = tmp_path / "chat-1" / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / "file").touch()
    os.utime(folder / "file", (0, 0))  # a time that a program sets says nothing
    last = (folder / "file").stat().st_ctime
    assert last >= used
    for now, swept in ((last + 9.9, []), (last + 10.1, ["chat-1"])):
        monkeypatch.setattr("datasources.registry.sweeping.time.time", lambda now=now: now)
        assert registry.sweep_workspaces(tmp_path, 10) == swept


async def test_workspace_that_is_opened_while_it_is_swept_stays(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await keep(registry, tmp_path, "chat-1")
    (mark,) = (tmp_path / MARKS).iterdir()
    before = max(mark.stat().st_ctime, (tmp_path / "chat-1").stat().st_ctime)
    is_abandoned = sweeping._is_abandoned

    def used_meanwhile(path: str, descriptor: int, deadline: float) -> bool:
        if os.path.basename(path) == MARKS:
            return False
        monkeypatch.setattr(sweeping, "_is_abandoned", is_abandoned)
        assert is_abandoned(path, descriptor, deadline)
        while os.stat(path).st_ctime <= before:  # the clock of the file system ticks in steps
            Path(path, "new").touch()
            Path(path, "new").unlink()
        return True

    monkeypatch.setattr(sweeping, "_is_abandoned", used_meanwhile)
    monkeypatch.setattr("datasources.registry.sweeping.time.time", lambda: before)
    assert registry.sweep_workspaces(tmp_path, 0) == []
    assert names(tmp_path) == ["chat-1"]


async def test_sweeping_needs_a_directory_and_an_age(registry: DataSourceRegistry, tmp_path: Path):
    with pytest.raises(RegistryError, match="cannot be swept: No such file"):
        registry.sweep_workspaces(tmp_path / "none", 0)
    with pytest.raises(OptionError, match="'older_than' must be"):
        registry.sweep_workspaces(tmp_path, -1)
