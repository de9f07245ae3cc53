"""Tables written as CSV: exactly within the limits, NULL apart from the empty text."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from datasources import (
    ConnectError,
    DataFetchError,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceType,
    LimitExceededError,
    Limits,
    OptionError,
    Workspace,
    csv_file,
    glob_regex,
    items_below,
    query_name,
)


def write(workspace: str, rows: list[list[object]], columns: tuple[str, ...] = ("a", "b")) -> str:
    with csv_file(workspace, "table", columns) as file:
        file.write_rows(rows)
    return file.path


def test_null_empty_text_bytes_and_what_needs_quotes_are_told_apart(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        [None, ""],
        [b"\x00\xff", bytearray()],
        ['say "x"', "a,b"],
        ["two\nlines", "cr\r"],
        [Decimal("1.50"), "née"],
        [float("nan"), True],
    ]
    assert Path(write(str(tmp_path), rows)).read_bytes() == (
        b'a,b\n,""\n\\x00ff,\\x\n"say ""x""","a,b"\n"two\nlines","cr\r"\n1.50,n\xc3\xa9e\nnan,True\n'
    )


@given(rows=st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2)))
def test_every_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[object]]
) -> None:
    path = write(str(tmp_path_factory.getbasetemp() / "texts"), rows)
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["a", "b"], *rows]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("most", [None, 0, 1, 5, 6, 7])
def test_the_limit_on_rows_is_exact_however_they_come(
    tmp_path: Path, most: int | None, size: int
) -> None:
    workspace = Workspace(tmp_path, limits=Limits(max_rows=most))
    taken = 0

    def batches() -> Iterator[list[list[object]]]:
        nonlocal taken
        for start in range(0, 6, size):
            taken = start
            yield [[n] for n in range(start, min(start + size, 6))]

    with csv_file(workspace, "table", ["n"]) as file:
        for batch in batches():
            file.write_rows(batch)
            if file.truncated:
                break
        file.write_rows([])
    expected = 6 if most is None else min(most, 6)
    assert Path(file.path).read_text() == "n\n" + "".join(f"{n}\n" for n in range(expected))
    written = workspace.written[file.path]
    assert (written.rows, written.truncated) == (expected, expected < 6)
    assert taken <= expected, "it went on after the limit"


def test_rows_after_the_limit_are_left_out(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, limits=Limits(max_rows=1))
    with csv_file(workspace, "table", ["n"]) as file:
        file.write_rows([[1], [2]])
        file.write_rows([[3]])
    assert Path(file.path).read_text() == "n\n1\n"


def test_the_limit_on_bytes_is_exact_and_leaves_nothing(tmp_path: Path) -> None:
    size = len("a,b\n1,2\n")
    assert write(Workspace(tmp_path / "enough", limits=Limits(max_bytes=size)), [[1, 2]])
    with pytest.raises(LimitExceededError):
        write(Workspace(tmp_path / "less", limits=Limits(max_bytes=size - 1)), [[1, 2]])
    assert list((tmp_path / "less").iterdir()) == []


def test_a_large_table_is_not_kept_in_memory_to_its_end(tmp_path: Path) -> None:
    row = ["x" * 10_000, None]
    with csv_file(str(tmp_path), "table", ["a", "b"]) as file:
        file.write_rows([row] * 100)
        (growing,) = tmp_path.iterdir()
        assert growing.stat().st_size > 900_000


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Iterator[list[object]]:
        yield [1]
        raise ValueError("the driver's")

    with pytest.raises(ValueError, match="driver"), csv_file(str(tmp_path), "table", ["a"]) as file:
        file.write_rows(rows())
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_is_no_unicode_is_a_data_fetch_error(tmp_path: Path) -> None:
    for good in (0, 3):
        with pytest.raises(DataFetchError, match=f"row {good} holds a text that is no Unicode"):
            write(str(tmp_path), [*[["a", 1]] * good, ["\ud800", 1]])
    assert Path(write(str(tmp_path), [["\udcff", 1]])).read_bytes() == b"a,b\n\xff,1\n"


def test_another_format_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, file_format="parquet")
    with pytest.raises(
        OptionError, match="'parquet' is not a format of this source; possible: csv"
    ):
        write(workspace, [])
    assert write(Workspace(tmp_path, file_format="csv"), [])


def test_a_tables_version_is_in_the_workspaces_facts(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with csv_file(workspace, "orders", ["x"], version="v7") as file:
        file.write_rows([[1]])
    assert workspace.written[file.path].version == "v7"


def test_a_tables_name_is_one_file_in_the_workspace(tmp_path: Path) -> None:
    with csv_file(str(tmp_path), "../a/b", ["n"]) as file:
        pass
    assert Path(file.path).parent == tmp_path


def test_a_query_is_named_by_its_digest() -> None:
    digest = hashlib.sha256(b"select 1").hexdigest()
    assert query_name("select 1") == f"query-{digest[:12]}"
    assert query_name("\ud800") != query_name("\ud801")


PATHS = ["a.csv", "a/b.csv", "a/c/d.csv", "a/c/e.csv", "ab/x", "/odd"]


@pytest.mark.parametrize(
    ("path", "listed"),
    [
        (None, PATHS),
        ("", PATHS),
        ("a", ["a/b.csv", "a/c/d.csv", "a/c/e.csv"]),
        ("a/c", ["a/c/d.csv", "a/c/e.csv"]),
        ("a/", ["a/b.csv", "a/c/"]),
        ("/a/c/", ["a/c/d.csv", "a/c/e.csv"]),
        ("nothing", []),
        ("nothing/", []),
        ("a.csv", []),
    ],
)
def test_slashes_in_paths_make_folders(path: str | None, listed: list[str]) -> None:
    items = [DataItem(name.rpartition("/")[2], name, 1) for name in PATHS]
    below = items_below(items, path)
    assert [item.path for item in below] == listed
    for item in below:
        folder = item.path.endswith("/")
        assert item.metadata == ({"kind": "folder"} if folder else {})
        assert item.size is (None if folder else 1)
        assert item.name == item.path.rstrip("/").rpartition("/")[2]


def test_the_topmost_folder_shows_each_name_once() -> None:
    items = [DataItem(path, path) for path in PATHS[:-1]]
    assert [item.path for item in items_below(items, "/")] == ["a.csv", "a/", "ab/"]


class Shelf(DataSourceConnector):
    async def connect(self) -> bool:
        self._connection = "open"
        return True

    async def disconnect(self) -> None: ...

    async def test_connection(self) -> bool:
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        return []

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        return ""

    async def get_metadata(self, identifier: str) -> dict[str, object]:
        return {}


async def test_what_connect_opened_is_given_or_a_clear_error() -> None:
    shelf = Shelf(DataSourceConfig("books", DataSourceType("shelf"), "Books", {}))
    with pytest.raises(ConnectError, match="source 'books' is not connected"):
        shelf.require_connection()
    await shelf.connect()
    assert shelf.require_connection() == "open"


@given(
    pattern=st.text("ab[]!-^\\?*&|~#", max_size=8).filter(lambda text: "**" not in text),
    path=st.text("ab[]!-^\\&|~#", max_size=5),
)
def test_a_pattern_within_one_segment_means_what_it_does_to_the_shell(
    pattern: str, path: str
) -> None:
    assert bool(glob_regex(pattern).fullmatch(path)) == fnmatchcase(path, pattern)


def matches(pattern: str, path: str) -> bool:
    """Match by trying every place for every wildcard; knows no sets."""
    if pattern.startswith("**/"):
        segments = [n + 1 for n, character in enumerate(path) if character == "/"]
        return any(matches(pattern[3:], path[start:]) for start in [0, *segments])
    if pattern.startswith("**"):
        return any(matches(pattern[2:], path[start:]) for start in range(len(path) + 1))
    if pattern.startswith("*"):
        segment = len(path.partition("/")[0])
        return any(matches(pattern[1:], path[start:]) for start in range(segment + 1))
    if not pattern or not path:
        return pattern == path
    same = pattern[0] == path[0] or (pattern[0] == "?" and path[0] != "/")
    return same and matches(pattern[1:], path[1:])


@settings(max_examples=1000)
@given(
    pattern=st.lists(st.sampled_from(["a", "b", "/", "?", "*", "**", "**/"]), max_size=7),
    path=st.text("ab/", max_size=7),
)
def test_wildcards_match_where_trying_every_place_finds_a_match(
    pattern: list[str], path: str
) -> None:
    text = "".join(pattern)
    assert bool(glob_regex(text).fullmatch(path)) == matches(text, path)


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 8 + "*b",
        "**a" * 8 + "**b",
        "**a*" * 6 + "b",
        "**a*b" * 5 + "c",
        "**/a/" * 6 + "**/b",
        "**/*a*" * 5 + "/b",
        "**/" * 12 + "b",
        "*/**/*" * 6 + "b",
    ],
)
def test_a_pattern_of_many_wildcards_takes_no_longer_than_others(pattern: str) -> None:
    for path in ("a" * 1024, "a/" * 512, "ab" * 511 + "d"):
        # Were every place tried for every wildcard, this would take hours.
        assert not glob_regex(pattern).fullmatch(path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("**/*.csv", "a//b.csv"),
        ("a/**/b", "a/b"),
        ("a*b/**/c**d", "aab/x/y/ccdd"),
        ("**a*b*", "abab"),
    ],
)
def test_a_wildcard_takes_in_what_is_left(pattern: str, path: str) -> None:
    assert glob_regex(pattern).fullmatch(path)
