"""The connector of local directories."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    ConnectError,
    DataFetchError,
    DataItem,
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    OptionError,
    PermissionDeniedError,
    Policy,
    PolicyError,
    UnsupportedError,
    Workspace,
    abilities,
)
from datasources_local_file import LocalFileConnector
from datasources_local_file.connector import _SourceFile
from tests.core.workbooks import xlsx
from tests.descriptors import descriptors_below

FILES = {
    "a.csv": b"x,y\n1,2\n3,4\n",
    "reports/2024.csv": b"x\n",
    "reports/old/2023.csv": b"x\n",
    "notes.txt": b"one\ntwo\n",
    "binary": b"\0\1",
    ".hidden": b"secret",
    ".git/config": b"secret",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "source"


def connector_of(root: Path, **options: Any) -> LocalFileConnector:
    return LocalFileConnector(
        DataSourceConfig("files", DataSourceType.LOCAL_FILE, "", {"path": str(root), **options})
    )


@pytest.fixture
async def connector(root: Path) -> AsyncIterator[LocalFileConnector]:
    connector = connector_of(root)
    await connector.connect()
    yield connector
    await connector.disconnect()


def paths(items: list[DataItem]) -> list[str]:
    return sorted(item.path for item in items)


async def test_everything_below_the_directory_is_listed_with_size_and_date(
    connector: LocalFileConnector, root: Path
) -> None:
    items = await connector.list_items()
    assert paths(items) == [
        "a.csv",
        "binary",
        "notes.txt",
        "reports/2024.csv",
        "reports/old/2023.csv",
    ]
    item = next(item for item in items if item.path == "reports/2024.csv")
    assert (item.name, item.size) == ("2024.csv", 2)
    assert item.modified_at == (root / "reports/2024.csv").stat().st_mtime


async def test_a_path_narrows_the_list(connector: LocalFileConnector) -> None:
    assert paths(await connector.list_items("reports/old")) == ["reports/old/2023.csv"]


async def test_a_folder_is_shown_with_its_direct_children(connector: LocalFileConnector) -> None:
    assert paths(await connector.list_items("reports/")) == ["reports/2024.csv", "reports/old/"]
    top = await connector.list_items("/")
    assert paths(top) == ["a.csv", "binary", "notes.txt", "reports/"]
    assert [item.metadata for item in top if item.path == "reports/"] == [{"kind": "folder"}]


async def test_hidden_files_are_items_only_if_asked_for(
    connector: LocalFileConnector, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(ItemNotFoundError):
        await connector.get_metadata(".hidden")
    with pytest.raises(ItemNotFoundError):
        await connector.fetch_data(".git/config", str(tmp_path / "workspace"))
    showing = connector_of(root, hidden=True)
    await showing.connect()
    assert paths(await showing.list_items()) == sorted(FILES)
    assert (await showing.get_metadata(".hidden"))["size"] == 6


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["a.csv"]),
        ("reports/*.csv", ["reports/2024.csv"]),
        ("**/*.csv", ["a.csv", "reports/2024.csv", "reports/old/2023.csv"]),
        ("reports/**", ["reports/2024.csv", "reports/old/2023.csv"]),
        ("notes.tx?", ["notes.txt"]),
        ("missing/*", []),
        ("../*", []),
    ],
)
async def test_a_pattern_gives_the_matching_items(
    connector: LocalFileConnector, pattern: str, expected: list[str]
) -> None:
    assert paths(await connector.glob_items(pattern)) == expected


async def test_a_fetched_file_keeps_its_path_and_bytes(
    connector: LocalFileConnector, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    path = await connector.fetch_data("reports/2024.csv", str(workspace))
    assert path == str(workspace / "reports/2024.csv")
    assert Path(path).read_bytes() == FILES["reports/2024.csv"]


async def test_a_file_over_the_limit_is_refused(
    connector: LocalFileConnector, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "workspace", limits=Limits(max_bytes=3))
    with pytest.raises(LimitExceededError, match=r"'a\.csv' has 12 bytes"):
        await connector.fetch_data("a.csv", workspace)


async def test_a_format_is_refused_as_files_come_as_they_are(
    connector: LocalFileConnector, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "workspace", file_format="parquet")
    with pytest.raises(OptionError, match="'parquet' is not a format of this source"):
        await connector.fetch_data("a.csv", workspace)


OUTSIDE = ["../outside", "/etc/passwd", "reports/../../outside", "link", "linked/outside", "a\0b"]


@pytest.mark.parametrize("identifier", [*OUTSIDE, "missing", "reports", "", ".", "a.csv/x", "pipe"])
async def test_what_is_no_file_below_the_directory_is_not_found(
    connector: LocalFileConnector, root: Path, tmp_path: Path, identifier: str
) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    calls: list[Callable[[], Any]] = [
        lambda: connector.fetch_data(identifier, str(tmp_path / "workspace")),
        lambda: connector.get_metadata(identifier),
        lambda: connector.preview(identifier),
    ]
    for call in calls:
        with pytest.raises(ItemNotFoundError, match="source 'files' has no file"):
            await call()
    assert not any(item.path in {"link", "pipe"} for item in await connector.list_items())
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("path", ["missing", "..", "/etc", "a.csv", "linked"])
async def test_a_folder_that_is_none_is_not_found(
    connector: LocalFileConnector, root: Path, tmp_path: Path, path: str
) -> None:
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(ItemNotFoundError, match="has no folder"):
        await connector.list_items(path)


async def test_a_link_that_stays_inside_is_an_item(
    connector: LocalFileConnector, root: Path, tmp_path: Path
) -> None:
    (root / "link.csv").symlink_to(root / "a.csv")
    assert "link.csv" in paths(await connector.list_items())
    path = await connector.fetch_data("link.csv", str(tmp_path / "workspace"))
    assert Path(path).read_bytes() == FILES["a.csv"]


async def test_a_link_that_takes_the_place_of_a_folder_meanwhile_is_not_followed(
    connector: LocalFileConnector, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "2024.csv").write_bytes(b"secret")
    resolve = connector._real

    def resolve_and_replace(path: str) -> str | None:
        real = resolve(path)
        (root / "reports").rename(root / "moved")
        (root / "reports").symlink_to(tmp_path)
        return real

    monkeypatch.setattr(connector, "_real", resolve_and_replace)
    with pytest.raises(ItemNotFoundError, match=r"has no file 'reports/2024.csv'"):
        await connector.fetch_data("reports/2024.csv", str(tmp_path / "workspace"))


async def test_links_in_a_circle_are_not_followed(
    connector: LocalFileConnector, root: Path
) -> None:
    (root / "circle").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    assert "circle/a.csv" not in paths(await connector.list_items())


async def test_a_preview_shows_columns_and_first_rows(connector: LocalFileConnector) -> None:
    preview = await connector.preview("a.csv", rows=1)
    assert (preview.columns, list(preview.rows), preview.truncated) == (
        ("x", "y"),
        [("1", "2")],
        True,
    )
    text = await connector.preview("notes.txt")
    assert (text.columns, list(text.rows)) == (("line",), [("one",), ("two",)])


async def test_a_binary_file_has_no_preview(connector: LocalFileConnector) -> None:
    with pytest.raises(DataFetchError, match="'binary' is not a text file"):
        await connector.preview("binary")


async def test_a_parquet_file_is_previewed(connector: LocalFileConnector, root: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"n": [1, 2, 3]}), root / "n.parquet")
    preview = await connector.preview("n.parquet", 2)
    assert (preview.columns, list(preview.rows), preview.truncated) == (("n",), [(1,), (2,)], True)


async def test_a_workbook_that_changes_while_it_is_read_is_not_converted(
    connector: LocalFileConnector, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "book.xlsx").write_bytes(xlsx(Data=[["n"], [1]]))
    read = _SourceFile.read

    def read_and_replace(self: _SourceFile, size: int | None = -1, /) -> bytes:
        content = read(self, size)
        (root / "book.xlsx").write_bytes(b"another")
        return content

    monkeypatch.setattr(_SourceFile, "read", read_and_replace)
    with pytest.raises(DataFetchError, match=r"'book.xlsx' changed while it was read"):
        await connector.fetch_data("book.xlsx", Workspace(tmp_path / "w", file_format="csv"))


async def test_a_workbook_is_previewed_and_converted(
    connector: LocalFileConnector, root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("python_calamine")
    (root / "a.xlsx").write_bytes(xlsx(Data=[["x", "y"], [1, "é"]]))
    preview = await connector.preview("a.xlsx")
    assert (preview.columns, list(preview.rows)) == (("x", "y"), [(1, "é")])
    workspace = Workspace(tmp_path / "workspace", file_format="csv")
    path = await connector.fetch_data("a.xlsx", workspace)
    assert Path(path).read_text("utf-8") == "x,y\n1,é\n"
    assert workspace.written[path].version is not None
    as_it_is = await connector.fetch_data("a.xlsx", str(tmp_path / "workspace"))
    assert Path(as_it_is).read_bytes() == (root / "a.xlsx").read_bytes()


async def test_a_table_of_another_country_is_previewed_and_the_guess_is_told(
    connector: LocalFileConnector, root: Path
) -> None:
    (root / "de.csv").write_bytes("id;name\n1;Müller\n".encode("cp1252"))
    preview = await connector.preview("de.csv")
    assert (preview.columns, list(preview.rows)) == (("id", "name"), [("1", "Müller")])
    assert preview.format is not None
    assert preview.format.guessed == ("encoding", "delimiter")
    assert len(preview.notes) == 2


async def test_metadata_tells_size_date_and_type(connector: LocalFileConnector, root: Path) -> None:
    metadata = await connector.get_metadata("a.csv")
    assert metadata["size"] == 12
    assert metadata["content_type"] == "text/csv"
    async with aclosing(await connector.open_stream("a.csv")) as stream:
        assert metadata["etag"] == stream.etag
    (root / "a.csv.gz").write_bytes(b"x")
    assert (await connector.get_metadata("a.csv.gz"))["content_type"] == "application/gzip"


async def test_a_missing_directory_is_a_connect_error(tmp_path: Path) -> None:
    connector = connector_of(tmp_path / "missing")
    with pytest.raises(ConnectError, match="is not a directory"):
        await connector.connect()
    assert await connector.test_connection() is False


async def test_a_directory_that_went_away_fails_the_test(
    connector: LocalFileConnector, root: Path
) -> None:
    assert await connector.test_connection() is True
    root.rename(root.with_name("moved"))
    assert await connector.test_connection() is False


async def test_without_connect_every_call_says_so(root: Path) -> None:
    with pytest.raises(ConnectError, match="source 'files' is not connected"):
        await connector_of(root).list_items()


def test_an_unknown_option_is_named_with_what_is_accepted(root: Path) -> None:
    with pytest.raises(OptionError, match="unknown option 'pfad'; options: path, hidden, writable"):
        connector_of(root, pfad="x")


def test_abilities_are_seen_without_connecting() -> None:
    assert abilities(LocalFileConnector) == {
        "discover",
        "iter_items",
        "pages",
        "glob",
        "preview",
        "splits",
        "statistics",
        "stream",
        "upload",
    }


@pytest.fixture
def locked(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder of the mode asked for, beside `a.csv`; the user is one whom modes concern."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "a.csv").write_bytes(b"x")
        locked = root / "lost+found"
        locked.mkdir()
        (locked / "x").write_bytes(b"x")
        locked.chmod(request.param)
        user = os.geteuid()
        os.seteuid(65534 if user == 0 else user)
        yield locked
        os.seteuid(user)
        locked.chmod(0o755)


@pytest.mark.parametrize("locked", [0o000, 0o444], indirect=True)
async def test_a_folder_that_may_not_be_read_is_left_out_and_told(
    locked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connector = connector_of(locked.parent)
    await connector.connect()
    assert paths(await connector.list_items()) == ["a.csv"]
    assert paths(await connector.glob_items("**")) == ["a.csv"]
    assert paths(await connector.list_items("/")) == ["a.csv", "lost+found/"]
    assert "lost+found', which may not be read" in caplog.text
    for path in ("lost+found", "lost+found/"):
        with pytest.raises(PermissionDeniedError, match=r"folder 'lost\+found' of source 'files'"):
            await connector.list_items(path)


async def test_a_folder_deleted_during_the_listing_is_left_out(
    connector: LocalFileConnector, root: Path
) -> None:
    listed = []
    async for item in connector.iter_items():
        listed.append(item.path)
        shutil.rmtree(root / "reports", ignore_errors=True)
    assert listed == ["a.csv", "binary", "notes.txt"]


async def test_a_directory_that_went_away_is_a_connect_error(
    connector: LocalFileConnector, root: Path, tmp_path: Path
) -> None:
    root.rename(root.with_name("moved"))
    calls: list[Callable[[], Any]] = [
        connector.list_items,
        lambda: connector.list_items("/"),
        lambda: connector.list_items("reports"),
        lambda: connector.glob_items("**"),
        lambda: connector.fetch_data("a.csv", str(tmp_path / "workspace")),
        lambda: connector.get_metadata("a.csv"),
    ]
    for call in calls:
        with pytest.raises(ConnectError, match="the directory of the source, is not there any"):
            await call()


class Changing:
    """Changes a file after so many bytes of its copy."""

    def __init__(self, change: Callable[[], object], after: int) -> None:
        self._change, self._after = change, after

    def __call__(self, done: int, total: int | None) -> None:
        if done >= self._after:
            self._change()
            self._after = sys.maxsize


MIB = 1024 * 1024


async def test_a_file_rewritten_during_its_copy_is_an_error_never_a_mixture(
    connector: LocalFileConnector, root: Path, tmp_path: Path
) -> None:
    path = root / "big"

    def rewrite(size: int) -> Callable[[], object]:
        def write() -> None:
            with path.open("r+b") as file:
                file.write(b"n" * size)
                file.truncate()

        return write

    for size in (3 * MIB, 4 * MIB, 2 * MIB, 10):
        path.write_bytes(b"o" * 3 * MIB)
        workspace = Workspace(tmp_path / "workspace", progress=Changing(rewrite(size), MIB))
        with pytest.raises(DataFetchError, match="'big' changed while it was copied; fetch it aga"):
            await connector.fetch_data("big", workspace)
        assert list((tmp_path / "workspace").iterdir()) == []


async def test_a_log_that_grows_during_its_copy_is_copied_up_to_its_size_at_the_start(
    connector: LocalFileConnector, root: Path, tmp_path: Path
) -> None:
    path = root / "app.log"
    path.write_bytes(b"line\n" * MIB)

    def append() -> None:
        with path.open("ab") as file:
            file.write(b"more\n" * 100)

    workspace = Workspace(tmp_path / "workspace", progress=Changing(append, MIB))
    copy = Path(await connector.fetch_data("app.log", workspace))
    assert copy.read_bytes() == b"line\n" * MIB


async def test_a_file_replaced_during_its_copy_is_the_old_one(
    connector: LocalFileConnector, root: Path, tmp_path: Path
) -> None:
    path = root / "a"
    path.write_bytes(b"o" * 3 * MIB)

    def replace() -> None:
        (root / "b").write_bytes(b"new")
        (root / "b").rename(path)

    workspace = Workspace(tmp_path / "workspace", progress=Changing(replace, MIB))
    assert Path(await connector.fetch_data("a", workspace)).read_bytes() == b"o" * 3 * MIB


@pytest.mark.parametrize("folder", ["workspace", "."])
async def test_a_file_of_a_workspace_below_the_source_is_not_copied_into_it(
    folder: str, connector: LocalFileConnector, root: Path
) -> None:
    workspace = root / folder
    (root / "workspace").mkdir()
    (root / "workspace" / "mine.csv").write_bytes(b"x")
    with pytest.raises(DataFetchError, match="lies in the workspace that it would be copied to"):
        await connector.fetch_data("workspace/mine.csv", str(workspace))


async def test_a_source_below_the_workspace_is_copied(
    connector: LocalFileConnector, root: Path
) -> None:
    copy = Path(await connector.fetch_data("reports/2024.csv", str(root.parent)))
    assert copy == root.parent / "reports/2024.csv"


async def test_a_file_that_changes_ends_its_stream_with_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(4_000_000))
    connector = LocalFileConnector(
        DataSourceConfig("s", "local_file", "S", {"path": str(tmp_path)})
    )
    await connector.connect()
    stream = await connector.open_stream("a.bin")
    assert len(await anext(aiter(stream))) < 4_000_000
    file.write_bytes(bytes(5_000_000))
    with pytest.raises(DataFetchError, match=r"'a\.bin' changed while it was read"):
        async for _ in stream:
            pass
    assert descriptors_below(tmp_path) == [str(file)]
    await stream.aclose()
    assert descriptors_below(tmp_path) == []
    with pytest.raises(UnsupportedError):
        await connector.open_stream("a.bin", format="csv")


async def test_folders_can_be_chosen_before_a_source_exists(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    registry = DataSourceRegistry(policy=Policy(allowed_roots=(str(tmp_path),)))
    folders = {"path": [str(tmp_path / "a"), str(tmp_path / "b")]}
    assert await registry.discover("local_file", {"path": str(tmp_path)}) == folders
    with pytest.raises(PolicyError):
        await registry.discover("local_file", {"path": "/"})
    with pytest.raises(ConnectError, match="cannot be read"):
        await registry.discover("local_file", {"path": str(tmp_path / "gone")})
