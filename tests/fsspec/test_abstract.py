"""The tests that fsspec has for every file system, on a directory that takes files.

What does not hold here is replaced, or left out:

- Nothing is deleted from a source, but many tests do so in between. `Deleting` deletes in the
  directory of the source, behind the back of the file system.
- Folders without files are not there (`supports_empty_directories`).
- `AbstractMvTests`, which moves files, is left out for the first reason.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.tests.abstract import (
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

from datasources import DataSourceConfig
from datasources.blocking import DataSourceRegistry
from datasources_fsspec import DataSourceFileSystem, paths


class Deleting(DataSourceFileSystem):
    """Deletes files and folders below the directory of a source."""

    root: Path

    async def _rm_file(self, path: str, **_: Any) -> None:
        target = self.root / paths.split(path)[1]
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the source `lake`."""
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def deleting_fs(root: Path) -> Iterator[Deleting]:
    with DataSourceRegistry() as registry:
        registry.register_data_source(
            DataSourceConfig("lake", "local_file", "", {"path": str(root), "writable": True})
        )
        fs = Deleting(registry=registry, skip_instance_cache=True)
        fs.root = root
        yield fs


class Fixtures(AbstractFixtures):
    """A folder of the source for each test."""

    @pytest.fixture
    def fs(self, deleting_fs: Deleting) -> Deleting:
        return deleting_fs

    @pytest.fixture
    def fs_path(self) -> str:
        return f"lake/{secrets.token_hex(6)}"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestGet(Fixtures, AbstractGetTests):
    """Files are copied from a source."""


class TestPut(Fixtures, AbstractPutTests):
    """Files are copied to a source."""


class TestCopy(Fixtures, AbstractCopyTests):
    """Files are copied within a source."""


class TestPipe(Fixtures, AbstractPipeTests):
    """Bytes are stored in a source."""


class TestOpen(Fixtures, AbstractOpenTests):
    """Files are opened exclusively."""
