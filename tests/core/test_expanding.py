"""One meaning of folders, patterns and names, for hosts and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datasources import (
    DataItem,
    DataSourceConnector,
    ItemNotFoundError,
    Workspace,
    glob_regex,
)
from tests.core.fakes import registry_of, source

NAMES = ["a.csv", "a1.csv", "a[1].csv", "b[2].csv", "folder/c.csv", "folder/deep/d.csv"]


class Names(DataSourceConnector):
    """Serves items of awkward names; it cannot expand patterns by itself."""

    async def connect(self) -> bool:
        return True

    async def disconnect(self) -> None:
        pass

    async def test_connection(self) -> bool:
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        items = [
            DataItem(name, name, version="v1")
            for name in NAMES
            if path is None or name.startswith(f"{path}/")
        ]
        if path is not None and not items:
            raise ItemNotFoundError(f"there is nothing below {path!r}")
        return items

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        with Workspace.of(workspace).create(identifier) as file:
            file.write(b"x")
        return file.path

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        if identifier not in NAMES:
            raise ItemNotFoundError(f"there is no {identifier!r}")
        return {}


class Globbing(Names):
    async def glob_items(self, pattern: str) -> list[DataItem]:
        regex = glob_regex(pattern)
        return [item for item in await self.list_items() if regex.fullmatch(item.path)]


class Quiet(Names):
    """Lists nothing below an item, where others raise an error."""

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        try:
            return await super().list_items(path)
        except ItemNotFoundError:
            if path in NAMES:
                return []
            raise


@pytest.mark.parametrize("connector", [Names, Globbing, Quiet])
@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        (None, NAMES),
        ("folder/", ["folder/c.csv", "folder/deep/d.csv"]),
        ("folder", ["folder/c.csv", "folder/deep/d.csv"]),
        ("folder/c.csv", ["folder/c.csv"]),
        ("*.csv", ["a.csv", "a1.csv", "a[1].csv", "b[2].csv"]),
        ("**/*.csv", NAMES),
        ("folder/*", ["folder/c.csv"]),
        ("a[1].csv", ["a[1].csv"]),
        ("b[2].csv", ["b[2].csv"]),
    ],
)
async def test_connectors_with_and_without_patterns_expand_alike(
    connector: type[DataSourceConnector], path: str | None, expanded: list[str], tmp_path: Path
) -> None:
    async with registry_of(connector) as registry:
        await registry.register_data_source(source())
        assert [item.path for item in await registry.expand("s", path)] == expanded
        results = await registry.fetch_tree("s", path, tmp_path)
        assert [result.request.identifier for result in results] == expanded
        assert all(result.receipt for result in results)


@pytest.mark.parametrize("connector", [Names, Globbing])
@pytest.mark.parametrize("path", ["*.txt", "c[3].csv", "nothing/", "nothing"])
async def test_what_stands_for_nothing_is_not_found(
    connector: type[DataSourceConnector], path: str, tmp_path: Path
) -> None:
    async with registry_of(connector) as registry:
        await registry.register_data_source(source())
        with pytest.raises(ItemNotFoundError, match=r"matches|nothing below"):
            await registry.expand("s", path)
        with pytest.raises(ItemNotFoundError, match=r"matches|nothing below"):
            await registry.fetch_tree("s", path, tmp_path)


async def test_tree_of_a_pattern_without_matches_names_source_and_pattern(tmp_path: Path) -> None:
    async with registry_of(Names) as registry:
        await registry.register_data_source(source())
        with pytest.raises(ItemNotFoundError, match=r"^no item of source 's' matches '\*\.txt'"):
            await registry.fetch_tree("s", "*.txt", tmp_path)
