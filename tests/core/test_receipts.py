"""A tree that is fetched again: what is unchanged is not moved, whatever the workspace claims."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from datasources import (
    DataFetchError,
    DataItem,
    DataSourceConnector,
    DataSourceRegistry,
    FetchRequest,
    FetchResult,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    Workspace,
)
from datasources.workspace.paths import RECEIPTS
from tests.core.fakes import registry_of, source
from tests.descriptors import descriptors_below


class Versioned(DataSourceConnector):
    """Serves `contents`; an item's version is the number of its writes."""

    contents: ClassVar[dict[str, tuple[bytes, str | None]]] = {}
    fetched: ClassVar[list[str]] = []

    async def connect(self) -> bool:
        return True

    async def disconnect(self) -> None:
        pass

    async def test_connection(self) -> bool:
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        prefix = f"{path}/" if path else ""
        return [
            DataItem(name, name, len(data), version=version)
            for name, (data, version) in self.contents.items()
            if name.startswith(prefix)
        ]

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        if identifier not in self.contents:
            raise ItemNotFoundError(f"no item {identifier!r}")
        self.fetched.append(identifier)
        data, version = self.contents[identifier]
        with Workspace.of(workspace).create(identifier) as file:
            file.write(data)
            file.version = version
        return file.path

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        if identifier not in self.contents:
            raise ItemNotFoundError(f"no item {identifier!r}")
        return {}


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    Versioned.contents = {
        "a/one.csv": (b"1", "v1"),
        "a/two.csv": (b"22", "v1"),
        "b/three.csv": (b"333", "v1"),
    }
    Versioned.fetched = []
    async with registry_of(Versioned) as registry:
        await registry.register_data_source(source())
        yield registry


def outcome(results: list[FetchResult]) -> dict[str, bool | None]:
    """Return by item whether it was unchanged, None where it failed."""
    return {r.request.identifier: getattr(r.receipt, "unchanged", None) for r in results}


def moved() -> list[str]:
    """Return what was fetched since the last call."""
    identifiers = sorted(Versioned.fetched)
    Versioned.fetched.clear()
    return identifiers


async def test_a_second_tree_moves_only_what_changed_or_is_new(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    first = await registry.fetch_tree("s", None, tmp_path)
    assert outcome(first) == {"a/one.csv": False, "a/two.csv": False, "b/three.csv": False}
    moved()
    Versioned.contents |= {"a/two.csv": (b"zwei", "v2"), "c.csv": (b"4", "v1")}
    second = await registry.fetch_tree("s", None, tmp_path)
    assert moved() == ["a/two.csv", "c.csv"]
    assert outcome(second) == {
        "a/one.csv": True,
        "a/two.csv": False,
        "b/three.csv": True,
        "c.csv": False,
    }
    earlier, again = first[0].receipt, second[0].receipt
    assert earlier
    assert again
    assert (again.path, again.sha256, again.version) == (
        earlier.path,
        earlier.sha256,
        earlier.version,
    )
    assert again.fetched_at == earlier.fetched_at
    assert (tmp_path / "a" / "two.csv").read_bytes() == b"zwei"


@pytest.mark.parametrize(
    ("path", "brought"),
    [
        ("a", ["a/one.csv", "a/two.csv"]),
        ("a/", ["a/one.csv", "a/two.csv"]),
        ("/", ["a/one.csv", "a/two.csv", "b/three.csv"]),
        ("*/t*.csv", ["a/two.csv", "b/three.csv"]),
        ("**/one.csv", ["a/one.csv"]),
    ],
)
async def test_a_tree_is_a_path_or_a_pattern(
    registry: DataSourceRegistry, tmp_path: Path, path: str, brought: list[str]
) -> None:
    assert list(outcome(await registry.fetch_tree("s", path, tmp_path))) == brought
    assert moved() == brought


async def test_refresh_moves_what_is_unchanged_too(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    await registry.fetch_tree("s", "a", tmp_path)
    moved()
    await registry.fetch_tree("s", "a", tmp_path, refresh=True)
    assert moved() == ["a/one.csv", "a/two.csv"]


async def test_items_without_versions_are_always_moved(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    Versioned.contents = {"x": (b"1", None)}
    for _ in range(2):
        await registry.fetch_tree("s", None, tmp_path)
        assert moved() == ["x"]
    assert os.listdir(tmp_path) == ["x"]


async def test_a_fetch_by_name_keeps_no_receipt(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    await registry.fetch("s", "a/one.csv", tmp_path)
    assert os.listdir(tmp_path) == ["a"]


async def test_a_file_that_was_harmed_is_fetched_again(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    def same_size(path: Path) -> None:
        path.write_bytes(bytes(path.stat().st_size))

    def link(path: Path) -> None:
        os.link(path, tmp_path / "twin")
        path.unlink()
        path.symlink_to(tmp_path / "twin")

    def pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    for harm in (Path.unlink, same_size, lambda path: path.write_bytes(b""), link, pipe):
        await registry.fetch_tree("s", "a", tmp_path)
        moved()
        harm(tmp_path / "a" / "one.csv")
        results = await registry.fetch_tree("s", "a", tmp_path)
        assert outcome(results) == {"a/one.csv": False, "a/two.csv": True}
        assert moved() == ["a/one.csv"]
        assert (tmp_path / "a" / "one.csv").read_bytes() == b"1"
        assert not (tmp_path / "a" / "one.csv").is_symlink()
        (tmp_path / "twin").unlink(missing_ok=True)


FORGED: dict[str, Any] = {
    "outside": {"path": "../outside"},
    "absolute": {"path": "/etc/hostname"},
    "no path": {"path": None},
    "a list": {"path": ["a"]},
    "nul": {"path": "a\0"},
    "another size": {"size": 7},
    "a size of text": {"size": "1"},
    "another checksum": {"sha256": "0" * 64},
    "no time": {"fetched_at": "soon"},
    "rows of text": {"rows": "many"},
    "rows without end": {"rows": float("inf")},
    "a duration beyond all": {"duration": 10**400},
    "a folder": {"path": "a"},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
async def test_a_forged_receipt_is_not_believed(
    registry: DataSourceRegistry, tmp_path: Path, change: dict[str, Any]
) -> None:
    workspace = tmp_path / "ws"
    (tmp_path / "outside").write_bytes(b"1")
    await registry.fetch_tree("s", "a/one*", workspace)
    line = json.loads((workspace / RECEIPTS).read_text())
    (workspace / RECEIPTS).write_text(json.dumps(line | change) + "\n")
    moved()
    (result,) = await registry.fetch_tree("s", "a/one*", workspace)
    assert result.receipt
    assert not result.receipt.unchanged
    assert result.receipt.path == str(workspace / "a" / "one.csv")
    assert moved() == ["a/one.csv"]


@pytest.mark.parametrize(
    "junk",
    [b"", b"\0\xff\n", b"[" * 100_000, b"[]\nnull\n1\n{}\n", b'{"source_id": [], "identifier": 1}'],
    ids=["empty", "binary", "deep", "no objects", "unhashable"],
)
async def test_receipts_that_cannot_be_read_cost_a_fetch(
    registry: DataSourceRegistry, tmp_path: Path, junk: bytes
) -> None:
    (tmp_path / RECEIPTS).write_bytes(junk + b"\n")
    await registry.fetch_tree("s", "a", tmp_path)
    assert outcome(await registry.fetch_tree("s", "a", tmp_path)) == {
        "a/one.csv": True,
        "a/two.csv": True,
    }


@pytest.mark.parametrize("plant", [os.mkdir, os.mkfifo, lambda path: os.symlink("away", path)])
async def test_receipts_that_cannot_be_kept_cost_a_fetch(
    registry: DataSourceRegistry, tmp_path: Path, plant: Any
) -> None:
    plant(tmp_path / RECEIPTS)
    opened = descriptors_below(tmp_path)
    for _ in range(2):
        assert outcome(await registry.fetch_tree("s", "b", tmp_path)) == {"b/three.csv": False}
    assert descriptors_below(tmp_path) == opened
    assert not (tmp_path / "away").exists()


async def test_receipts_are_not_written_to_a_file_that_is_elsewhere_too(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    (tmp_path / "precious").touch()
    (tmp_path / "ws").mkdir()
    os.link(tmp_path / "precious", tmp_path / "ws" / RECEIPTS)
    assert outcome(await registry.fetch_tree("s", "b", tmp_path / "ws")) == {"b/three.csv": False}
    assert (tmp_path / "precious").read_bytes() == b""


async def test_a_version_that_json_cannot_hold_costs_a_fetch(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    version: Any = b"etag"
    Versioned.contents = {"c.csv": (b"4", version)}
    for _ in range(2):
        assert outcome(await registry.fetch_tree("s", None, tmp_path)) == {"c.csv": False}


async def test_an_item_named_as_the_receipts_does_not_overwrite_them(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    Versioned.contents = {RECEIPTS: (b"mine", "v1")}
    for unchanged in (False, True):
        (result,) = await registry.fetch_tree("s", None, tmp_path)
        assert result.receipt
        assert result.receipt.unchanged is unchanged
        assert Path(result.receipt.path).read_bytes() == b"mine"
        assert os.path.basename(result.receipt.path) != RECEIPTS


async def test_a_file_over_a_limit_that_came_later_is_not_passed_off_as_fetched(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    await registry.fetch_tree("s", "b", tmp_path)
    (result,) = await registry.fetch_tree("s", "b", tmp_path, limits=Limits(max_bytes=2))
    assert isinstance(result.error, LimitExceededError)


async def test_an_unchanged_file_is_not_overwritten_by_another_item_of_the_batch(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    await registry.register_data_source(source("t"))
    await registry.fetch_tree("s", "b", tmp_path)
    results = await registry.fetch_many(
        [FetchRequest("s", "b/three.csv", version="v1"), FetchRequest("t", "b/three.csv")],
        tmp_path,
        concurrency=1,
    )
    assert results[0].receipt
    assert results[0].receipt.unchanged
    assert isinstance(results[1].error, DataFetchError)


async def test_sources_and_formats_are_told_apart(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    await registry.register_data_source(source("t"))
    await registry.fetch_tree("s", "b", tmp_path)
    moved()
    for request in (
        FetchRequest("t", "b/three.csv", version="v1"),
        FetchRequest("s", "b/three.csv", "parquet", version="v1"),
    ):
        (result,) = await registry.fetch_many([request], tmp_path)
        assert result.receipt
        assert not result.receipt.unchanged


async def test_too_many_receipts_are_begun_anew(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    await registry.fetch_tree("s", "b", tmp_path)
    with (tmp_path / RECEIPTS).open("ab") as file:
        file.truncate(513 << 20)
    assert outcome(await registry.fetch_tree("s", "b", tmp_path)) == {"b/three.csv": False}
    assert (tmp_path / RECEIPTS).stat().st_size < 1_000
    assert outcome(await registry.fetch_tree("s", "b", tmp_path)) == {"b/three.csv": True}


async def test_receipts_that_are_deleted_while_they_are_written_are_begun_anew(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    Versioned.contents = {str(number): (b"x", "v1") for number in range(6)}
    async for _ in registry.iter_fetch_tree("s", None, tmp_path, concurrency=1):
        (tmp_path / RECEIPTS).unlink(missing_ok=True)
    kept = outcome(await registry.fetch_tree("s", None, tmp_path))
    assert kept == dict.fromkeys(kept, False)
    again = outcome(await registry.fetch_tree("s", None, tmp_path))
    assert again == dict.fromkeys(kept, True)
