"""Files are stored below a directory that is writable, complete or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    DataFetchError,
    DataSourceConfig,
    DataSourceType,
    ItemExistsError,
    UnsupportedError,
)
from datasources_local_file import LocalFileConnector
from datasources_local_file.uploads import store_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    (tmp_path / "local.csv").write_bytes(b"n\n1\n")
    return tmp_path / "local.csv"


def connector_of(root: Path, **options: Any) -> LocalFileConnector:
    config = {"path": str(root), **options}
    return LocalFileConnector(DataSourceConfig("files", DataSourceType.LOCAL_FILE, "", config))


@pytest.fixture
async def connector(root: Path) -> AsyncIterator[LocalFileConnector]:
    connector = connector_of(root, writable=True)
    await connector.connect()
    yield connector
    await connector.disconnect()


async def test_upload_makes_folders_and_is_the_item_that_is_listed(
    connector: LocalFileConnector, root: Path, local: Path
) -> None:
    item = await connector.upload_file(str(local), "2026/may/new.csv")
    assert (root / "2026/may/new.csv").read_bytes() == b"n\n1\n"
    assert [item] == await connector.list_items()


async def test_a_file_that_is_being_stored_is_not_listed(root: Path, local: Path) -> None:
    connector = connector_of(root, writable=True, hidden=True)
    await connector.connect()
    (root / ".hidden").touch()
    during: list[list[str]] = []

    def is_stopped() -> bool:
        during.append(sorted(os.listdir(root)))
        return False

    store_file(str(local), str(root), str(root / "new.csv"), "new.csv", is_stopped, overwrite=True)
    ((part, _hidden),) = during
    (root / part).touch()  # as after a kill
    listed = [item.path for item in await connector.list_items()]
    assert listed == [".hidden", "new.csv"]
    page, _ = await connector.list_page(limit=10)
    assert [item.path for item in page] == listed


async def test_source_that_is_not_writable_takes_no_file(root: Path, local: Path) -> None:
    connector = connector_of(root)
    await connector.connect()
    with pytest.raises(UnsupportedError, match="'writable' admits them"):
        await connector.upload_file(str(local))
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../out.csv", "link/out.csv", "a//b", "a/", ".hidden", "a\0b", "a/../../out.csv"]
)
async def test_upload_leads_nowhere_else(
    connector: LocalFileConnector, root: Path, local: Path, name: str
) -> None:
    (root / "link").symlink_to(root.parent)
    with pytest.raises(DataFetchError, match="is no path of a file"):
        await connector.upload_file(str(local), name)
    assert sorted(os.listdir(root)) == ["link"]
    assert sorted(os.listdir(root.parent)) == ["local.csv", "source"]


async def test_upload_does_not_follow_a_link_that_takes_the_place_of_a_folder_meanwhile(
    connector: LocalFileConnector, root: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "folder").mkdir()
    resolve = connector._real

    def resolve_and_replace(path: str) -> str | None:
        real = resolve(path)
        (root / "folder").rename(root / "moved")
        (root / "folder").symlink_to(root.parent)
        return real

    monkeypatch.setattr(connector, "_real", resolve_and_replace)
    with pytest.raises(DataFetchError, match=r"'folder/new.csv' cannot be stored"):
        await connector.upload_file(str(local), "folder/new.csv")
    assert sorted(os.listdir(root.parent)) == ["local.csv", "source"]


@pytest.mark.parametrize("name", ["folder", "folder/file/new.csv"])
async def test_upload_that_cannot_be_put_in_place_leaves_nothing(
    connector: LocalFileConnector, root: Path, local: Path, name: str
) -> None:
    (root / "folder").mkdir()
    (root / "folder/file").write_bytes(b"old")
    for overwrite in (True, False):
        with pytest.raises(DataFetchError):
            await connector.upload_file(str(local), name, overwrite)
    assert sorted(path.name for path in root.rglob("*")) == ["file", "folder"]
    assert (root / "folder/file").read_bytes() == b"old"


def test_of_two_uploads_that_may_not_overwrite_one_fails(root: Path, local: Path) -> None:
    both = threading.Barrier(2)
    errors: list[ItemExistsError] = []

    def wait_for_the_other() -> bool:
        both.wait(30)
        return False

    def store() -> None:
        arguments = str(local), str(root), str(root / "new.csv"), "new.csv"
        try:
            store_file(*arguments, wait_for_the_other, overwrite=False)
        except ItemExistsError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=store) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(errors) == 1
    assert os.listdir(root) == ["new.csv"]


def test_upload_that_is_stopped_leaves_nothing(root: Path, local: Path) -> None:
    with pytest.raises(DataFetchError, match="was stopped"):
        store_file(
            str(local), str(root), str(root / "new.csv"), "new.csv", lambda: True, overwrite=True
        )
    assert os.listdir(root) == []
