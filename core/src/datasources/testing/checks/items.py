"""Checks that listing, describing and fetching agree with the items and with each other."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from datasources import DataItem, DataSourceConnector, ItemNotFoundError, Workspace
from datasources.testing.base import Checks, Source
from datasources.testing.subject import Subject
from datasources.testing.watch import files

_MANY = 50  # listed items that are fetched


class ItemChecks(Checks):
    """Listed items can be fetched, and are as listed."""

    async def test_listing_is_a_list_of_items(self, source: Source) -> None:
        listed = await source.list_items()
        assert isinstance(listed, list)
        assert all(isinstance(item, DataItem) for item in listed)

    async def test_listed_items_have_names_and_paths(self, source: Source) -> None:
        for item in await source.list_items():
            assert isinstance(item.name, str), f"the name of {item.path!r} is not text"
            assert item.name, f"{item.path!r} is listed without a name"
            assert isinstance(item.path, str), f"the path of {item.name!r} is not text"
            assert item.path, f"{item.name!r} is listed without a path"

    async def test_listed_paths_are_distinct(self, source: Source) -> None:
        paths = [item.path for item in await source.list_items()]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        assert not twice, f"listed more than once: {', '.join(twice)}"

    async def test_listed_sizes_are_bytes_or_unknown(self, source: Source) -> None:
        for item in await source.list_items():
            size: object = item.size
            if size is not None:
                assert type(size) is int, f"the size of {item.path!r} is {size!r}"
                assert size >= 0, f"the size of {item.path!r} is {size}"

    async def test_listed_times_are_unix_seconds_or_unknown(self, source: Source) -> None:
        for item in await source.list_items():
            at: object = item.modified_at
            if at is not None:
                is_time = isinstance(at, (int, float)) and 0 <= at < time.time() + 86_400
                assert is_time, f"modified_at of {item.path!r} is {at!r}"

    async def test_listed_metadata_is_json(self, source: Source) -> None:
        for item in await source.list_items():
            _assert_json(item.metadata, f"the listing's metadata of {item.path!r}")

    async def test_known_items_are_listed(self, source: Source, subject: Subject) -> None:
        listed = {item.path for item in await source.list_items()}
        unlisted = sorted(set(subject.items) - listed)
        assert not unlisted, f"not listed: {', '.join(unlisted)}; listed: {sorted(listed)[:20]}"
        assert subject.missing not in listed

    async def test_listing_again_gives_the_same(self, source: Source) -> None:
        first, second = await source.list_items(), await source.list_items()
        assert {item.path for item in first} == {item.path for item in second}

    async def test_listing_below_a_folder_gives_what_lies_there(
        self, source: Source, subject: Subject
    ) -> None:
        for folder in _folders(subject):
            listed = {item.path for item in await source.list_items(folder)}
            expected = {path for path in subject.items if path.startswith(f"{folder}/")}
            assert expected <= listed, f"below {folder!r}, {sorted(expected - listed)} is missing"
            strange = sorted(path for path in listed if not path.startswith(f"{folder}/"))
            assert not strange, f"{', '.join(strange)} does not lie below {folder!r}"

    async def test_a_folders_listing_shows_its_direct_children(
        self, source: Source, subject: Subject
    ) -> None:
        _folders(subject)
        items = await source.list_items("/")
        shown = {item.path: item.metadata.get("kind") for item in items}
        for path in subject.items:
            first, slash, _ = path.partition("/")
            assert first + slash in shown, f"the topmost folder does not show {first + slash!r}"
            if slash:
                assert shown[first + slash] == "folder", f"{first!r} is not of the kind 'folder'"
        deeper = [path for path in shown if "/" in path.rstrip("/")]
        assert not deeper, f"the topmost folder shows {', '.join(deeper)}, which lies deeper"

    async def test_listing_below_nothing_is_empty_or_not_found(
        self, source: Source, subject: Subject
    ) -> None:
        with suppress(ItemNotFoundError):
            assert await source.list_items(subject.missing) == []

    async def test_fetched_bytes_are_the_items(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        for identifier, content in subject.items.items():
            file = await source.fetch(identifier, workspace)
            assert Path(file.path).read_bytes() == content, f"{identifier!r} came otherwise"

    async def test_fetching_returns_the_absolute_path_of_a_file_in_the_workspace(
        self, connector: DataSourceConnector, subject: Subject, workspace: Path
    ) -> None:
        for identifier in subject.items:
            path = await connector.fetch_data(identifier, str(workspace))
            assert isinstance(path, str)
            assert os.path.isabs(path), f"{path!r} is not absolute"
            inside = os.path.realpath(path).startswith(
                os.path.join(os.path.realpath(workspace), "")
            )
            assert inside, f"{path!r} is not in the workspace"
            assert os.path.isfile(path), f"there is no file {path!r}"

    async def test_fetching_writes_through_the_workspace(
        self, connector: DataSourceConnector, subject: Subject, workspace: Path
    ) -> None:
        target = Workspace(workspace)
        path = await connector.fetch_data(next(iter(subject.items)), target)
        assert os.path.realpath(path) in target.written, (
            "write with Workspace.of(workspace).create(name): it applies limits and leaves no half"
        )

    async def test_fetching_leaves_nothing_but_the_items_file(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        for identifier in subject.items:
            file = await source.fetch(identifier, workspace / "one")
            there = [str(workspace / "one" / name) for name in files(workspace / "one")]
            assert list(map(os.path.realpath, there)) == [file.path], f"{identifier!r} left more"
            os.unlink(file.path)

    async def test_distinct_items_are_distinct_files(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        paths = [(await source.fetch(identifier, workspace)).path for identifier in subject.items]
        assert len(set(paths)) == len(paths), f"items overwrite each other: {sorted(paths)}"

    async def test_fetching_again_replaces_the_file(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, content = subject.largest()
        first = await source.fetch(identifier, workspace)
        Path(first.path).write_bytes(b"an older content, longer or shorter" * 99)
        second = await source.fetch(identifier, workspace)
        assert second.path == first.path, "one item must be one file, however often it is fetched"
        assert Path(second.path).read_bytes() == content

    async def test_everything_listed_can_be_fetched(self, source: Source, workspace: Path) -> None:
        for item in (await source.list_items())[:_MANY]:
            if item.metadata.get("kind") != "folder":
                assert (await source.fetch(item.path, workspace)).path

    async def test_sizes_agree(self, source: Source, subject: Subject, workspace: Path) -> None:
        listed = {item.path: item.size for item in await source.list_items()}
        for identifier, content in subject.items.items():
            file = await source.fetch(identifier, workspace)
            listed_size = listed.get(identifier)
            assert listed_size in (None, file.size), (
                f"{identifier!r} is listed with {listed_size} bytes and fetched with {len(content)}; "
                "where the size of the file is not known, leave DataItem.size None"
            )

    async def test_versions_agree(self, source: Source, workspace: Path) -> None:
        listed = [item for item in await source.list_items() if item.version is not None]
        for item in listed[:_MANY]:
            version = (await source.fetch(item.path, workspace)).version
            assert version == item.version, (
                f"{item.path!r} is listed with the version {item.version!r} and fetched with "
                f"{version!r}; where the listing does not tell it, leave DataItem.version None"
            )

    async def test_rows_of_a_table_are_counted(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, rows = subject.a_table(counted=True)
        file = await source.fetch(identifier, workspace)
        assert file.rows == rows, f"set WorkspaceFile.rows: {rows} expected, not {file.rows}"
        assert file.truncated is False

    async def test_metadata_of_items_is_json(self, source: Source, subject: Subject) -> None:
        for identifier in subject.items:
            metadata = await source.get_metadata(identifier)
            assert isinstance(metadata, dict)
            _assert_json(metadata, f"the metadata of {identifier!r}")

    async def test_metadata_tells_items_apart_or_describes_them(
        self, source: Source, subject: Subject
    ) -> None:
        for identifier in subject.items:
            assert await source.get_metadata(identifier), f"nothing is told of {identifier!r}"

    async def test_everything_listed_can_be_described(self, source: Source) -> None:
        for item in (await source.list_items())[:_MANY]:
            if item.metadata.get("kind") != "folder":
                assert await source.get_metadata(item.path)


def _folders(subject: Subject) -> list[str]:
    """Return the folders that known items lie in; skip where none does."""
    folders = {path.rpartition("/")[0] for path in subject.items} - {""}
    if not folders:
        pytest.skip("not applicable: no item of the subject lies in a folder")
    return sorted(folders)


def _assert_json(value: object, what: str) -> None:
    try:
        again = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as exc:
        pytest.fail(f"{what} cannot be JSON: {exc}")
    assert again == value, f"{what} comes back otherwise from JSON: keys must be text, no tuples"
