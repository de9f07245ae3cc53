"""Splits of files: together they are exactly the table, in the version that was planned."""

from __future__ import annotations

import asyncio
import bz2
import csv
import datetime as dt
import gzip
import io
import json
import lzma
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from pyarrow import parquet as pq

from datasources import (
    DataFetchError,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceType,
    ItemNotFoundError,
    OptionError,
    Split,
    SplitPlan,
    UnsupportedError,
    gather_splits,
)
from datasources.file_splits import reading, text
from datasources.file_splits.files import PinnedFile, SplitFile
from datasources_local_file import LocalFileConnector
from tests.parquet import parquet

Rows = list[tuple[Any, ...]]
TIME = dt.datetime.fromisoformat("2024-01-02 03:04:05")
SMALL: dict[str, Any] = {"target_bytes": 1, "max_splits": 8}


def connector_of(root: Path) -> LocalFileConnector:
    return LocalFileConnector(
        DataSourceConfig("files", DataSourceType.LOCAL_FILE, "", {"path": str(root)})
    )


@pytest.fixture
async def files(tmp_path: Path) -> LocalFileConnector:
    connector = connector_of(tmp_path)
    await connector.connect()
    return connector


async def rows_of(batches: AsyncIterator[Any]) -> Rows:
    return [tuple(row.values()) async for batch in batches for row in batch.to_pylist()]


async def parts_of(
    connector: DataSourceConnector, identifier: str, columns: list[str] | None = None, **given: Any
) -> tuple[SplitPlan, list[Rows]]:
    """Return a plan, and the rows of each of its splits, which are read from their JSON."""
    able: Any = connector
    async with able.plan_splits(identifier, **{**SMALL, **given}) as plan:
        sent = json.loads(json.dumps([split.to_dict() for split in plan.splits]))
        return plan, [
            await rows_of(able.read_split(Split.from_dict(values), columns)) for values in sent
        ]


async def table_of(
    connector: DataSourceConnector, identifier: str, columns: list[str] | None = None, **given: Any
) -> Rows:
    _, parts = await parts_of(connector, identifier, columns, **given)
    return [row for part in parts for row in part]


async def test_splits_of_a_parquet_file_are_its_row_groups_joined(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    content = parquet(n=range(100), text=[f"row {n}" for n in range(100)], row_group_size=10)
    (tmp_path / "a.parquet").write_bytes(content)
    plan, parts = await parts_of(files, "a.parquet", max_splits=4)
    assert [row for part in parts for row in part] == [(n, f"row {n}") for n in range(100)]
    assert len(parts) == 4
    assert all(len(part) in (20, 30) for part in parts)
    assert [split.estimated_rows for split in plan.splits] == [len(part) for part in parts]
    assert plan.schema == pa.schema([("n", pa.int64()), ("text", pa.string())])
    plan, _ = await parts_of(files, "a.parquet", target_bytes=1 << 20)
    assert len(plan.splits) == 1


async def test_splits_of_text_end_between_its_records(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    lines = [f'{n},"line {n}\n""quoted"", with commas",{n / 4}' for n in range(1000)]
    (tmp_path / "a.csv").write_text("\n".join(["n,text,x", *lines]))
    plan, parts = await parts_of(files, "a.csv")
    assert len(parts) == 8
    assert all(len(part) > 50 for part in parts)
    assert [len(part) for part in parts] == [split.estimated_rows for split in plan.splits]
    expected = [(n, f'line {n}\n"quoted", with commas', n / 4) for n in range(1000)]
    assert [row for part in parts for row in part] == expected


TEXTS: dict[str, tuple[bytes, Rows]] = {
    "no-rows": (b"a,b\n", []),
    "no-line-break": (b"a,b", []),
    "nothing": (b"", []),
    "one-row": (b"a,b\n1,x", [(1, "x")]),
    "crlf": (b"a,b\r\n1,x\r\n2,y\r\n", [(1, "x"), (2, "y")]),
    "cr": (b"a,b\r1,x\r2,y\r", [(1, "x"), (2, "y")]),
    "mixed-ends": (b"a,b\n1,x\r\n2,y\r3,z", [(1, "x"), (2, "y"), (3, "z")]),
    "bom": ("\ufeffa,b\n1,é\n".encode(), [(1, "é")]),
    "utf-16": ("a,b\n1,é\n2,ü\n".encode("utf-16"), [(1, "é"), (2, "ü")]),
    "cp1252": ("a,b\n1,Müller\n2,Größe\n".encode("cp1252"), [(1, "Müller"), (2, "Größe")]),
    "semicolons": (b"a;b\n1;x\n2;y,z\n", [(1, "x"), (2, "y,z")]),
    "separator-line": (b"sep=|\na|b\n1|x\n", [(1, "x")]),
    "blank-lines": (b"\n\na,b\n\n1,x\n  \n2,y\n\n", [(1, "x"), (2, "y")]),
    "quoted-line-breaks": (b'a,b\n1,"x\r\ny"\n2,"\n"\n', [(1, "x\r\ny"), (2, "\n")]),
    "quoted-last-line-break": (b'a,b\n1,"x\n"\n2,y\n', [(1, "x\n"), (2, "y")]),
    "inner-quotes": (b'a,b\n1,5" pipe\n2,"6"" pipe"\n', [(1, '5" pipe'), (2, '6" pipe')]),
    "rest-after-quotes": (b'a,b\n1,"x"y"\n2,z\n', [(1, 'xy"'), (2, "z")]),
    "quoted-header": (b'"a\nb","c"",d"\n1,x\n', [(1, "x")]),
    "null-and-empty": (b'a,b\n,""\n2,\n', [(None, ""), (2, None)]),
    "dos-end": (b"a,b\r\n1,x\r\n\x1a", [(1, "x")]),
}


@pytest.mark.parametrize("name", TEXTS)
async def test_texts_of_every_kind_have_their_rows(
    files: LocalFileConnector, tmp_path: Path, name: str
) -> None:
    content, rows = TEXTS[name]
    (tmp_path / "a.csv").write_bytes(content)
    assert await table_of(files, "a.csv") == rows


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
async def test_compressed_text_is_one_split(
    files: LocalFileConnector, tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    content = b"n\n" + b"".join(b"%d\n" % n for n in range(1000))
    (tmp_path / f"a.csv{suffix}").write_bytes(compress(content[:900]) + compress(content[900:]))
    plan, parts = await parts_of(files, f"a.csv{suffix}")
    assert parts == [[(n,) for n in range(1000)]]
    assert plan.splits[0].estimated_rows == 1000
    (tmp_path / f"a.csv{suffix}").write_bytes(compress(content)[:-9])
    with pytest.raises(DataFetchError, match="cannot be read as delimited text"):
        await parts_of(files, f"a.csv{suffix}")


TYPES: dict[str, tuple[list[str], Any, list[Any]]] = {
    "integers": (["1", "-20", "0"], pa.int64(), [1, -20, 0]),
    "leading-zeros": (["1", "007"], pa.string(), ["1", "007"]),
    "large-integers": (["1", "9" * 20], pa.string(), ["1", "9" * 20]),
    "numbers": (["1", ".5", "1e3", "NaN"], pa.float64(), [1.0, 0.5, 1000.0, None]),
    "booleans": (["true", "False"], pa.bool_(), [True, False]),
    "bits": (["1", "true"], pa.string(), ["1", "true"]),
    "dates": (["2024-02-29"], pa.date32(), [dt.date(2024, 2, 29)]),
    "no-dates": (["2024-02-29", "2023-02-29"], pa.string(), ["2024-02-29", "2023-02-29"]),
    "times": (
        ["2024-01-02 03:04:05", "2024-01-02T03:04:05.678901"],
        pa.timestamp("us"),
        [
            dt.datetime.fromisoformat("2024-01-02 03:04:05"),
            dt.datetime.fromisoformat("2024-01-02 03:04:05.678901"),
        ],
    ),
    "times-with-zone": (
        ["2024-01-02T03:04:05Z", "2024-01-02 03:04:05+02:00"],
        pa.timestamp("us", "UTC"),
        [
            dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
            dt.datetime(2024, 1, 2, 1, 4, 5, tzinfo=dt.UTC),
        ],
    ),
    "nanoseconds": (
        ["2024-01-02T03:04:05.678901234"],
        pa.string(),
        ["2024-01-02T03:04:05.678901234"],
    ),
    "blanks": ([" 1", "2"], pa.string(), [" 1", "2"]),
}


@pytest.mark.parametrize("name", TYPES)
async def test_types_of_text_lose_nothing_and_are_those_of_all_its_rows(
    files: LocalFileConnector, tmp_path: Path, name: str
) -> None:
    values, type_, expected = TYPES[name]
    rows = [f"{value},x" for value in values]
    (tmp_path / "a.csv").write_text("\n".join(["v,t", *rows]))
    plan, parts = await parts_of(files, "a.csv")
    assert plan.schema.field("v").type == type_
    found = [row[0] for part in parts for row in part]
    assert [None if v != v else v for v in found] == expected  # noqa: PLR0124  (NaN)


async def test_the_last_row_decides_on_a_type_as_the_first_does(
    files: LocalFileConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_CHUNK", 100)
    (tmp_path / "a.csv").write_text("n\n" + "1\n" * 1000 + "none\n")
    plan, parts = await parts_of(files, "a.csv")
    assert plan.schema.field("n").type == pa.string()
    assert [row for part in parts for row in part] == [("1",)] * 1000 + [("none",)]


FIELDS = st.text(st.sampled_from('ab1.," \r\n\u00e9\u2028'), max_size=8) | st.integers().map(str)


def written(rows: list[list[str]], end: str, quoted: bool) -> bytes:
    """Return rows as text; the csv module leaves out quotes that others need."""

    def field(value: str) -> str:
        needed = quoted or not value or set(value) & set('",\r\n')
        return f'"{value.replace(chr(34), chr(34) * 2)}"' if needed else value

    return "".join(",".join(map(field, row)) + end for row in rows).encode()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(FIELDS, min_size=3, max_size=3), min_size=1, max_size=30),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 40),
    st.booleans(),
)
def test_splits_of_any_text_are_its_rows(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    end: str,
    splits: int,
    quoted: bool,
) -> None:
    root = tmp_path_factory.mktemp("random")
    content = written([["first", "second", "third"], *rows], end, quoted)
    (root / "a.csv").write_bytes(content)
    assert list(csv.reader(io.StringIO(content.decode(), newline="")))[1:] == rows

    async def read(most: int) -> Rows:
        connector = connector_of(root)
        await connector.connect()
        return await table_of(connector, "a.csv", max_splits=most)

    many = asyncio.run(read(splits))
    assert many == asyncio.run(read(1))
    assert len(many) == len(rows)
    for values, row in zip(many, rows, strict=True):
        for value, cell in zip(values, row, strict=True):
            assert cell == value if isinstance(value, str) else float(cell) == float(value)


async def test_columns_are_read_in_the_order_asked_for(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b,c\n1,x,2.5\n")
    (tmp_path / "a.parquet").write_bytes(parquet(a=[1], b=["x"], c=[2.5]))
    for name in ("a.csv", "a.parquet"):
        assert await table_of(files, name, ["c", "a"]) == [(2.5, 1)]
        with pytest.raises(OptionError, match="no column 'e'; the columns are 'a', 'b', 'c'"):
            await table_of(files, name, ["e"])
        with pytest.raises(OptionError, match="a column at least"):
            await table_of(files, name, [])


async def test_names_of_columns_are_made_distinct(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,a,,a_2\n1,2,3,4\n")
    plan, parts = await parts_of(files, "a.csv")
    assert plan.schema.names == ["a", "a_3", "column_3", "a_2"]
    assert parts == [[(1, 2, 3, 4)]]
    (tmp_path / "wide.csv").write_text(",".join(["n"] * 20_000) + "\n")
    plan, _ = await parts_of(files, "wide.csv")
    assert len(set(plan.schema.names)) == 20_000


async def test_hostile_names_of_parquet_columns_are_those_asked_for(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    columns: dict[str, Any] = {"a": [{"b": 1}], "a.b": [2], "": [3], "é\n\"'": [4], "a.": [5]}
    (tmp_path / "a.parquet").write_bytes(parquet(**columns))
    for name, values in columns.items():
        assert await table_of(files, "a.parquet", [name]) == [tuple(values)]
    assert await table_of(files, "a.parquet") == [tuple(v[0] for v in columns.values())]
    twice = pa.table([[1], [2]], ["a", "a"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataFetchError, match="several columns of one name"):
        await parts_of(files, "twice.parquet")


async def test_small_files_of_a_folder_are_put_together(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    (tmp_path / "f" / "sub").mkdir(parents=True)
    for number in range(20):
        folder = "f/sub" if number % 2 else "f"
        content = f"n,text\n{number},{'x' * 100}\n"
        (tmp_path / folder / f"{number:02}.csv").write_text(content)
    for extra in ("f/_SUCCESS", "f/sub/_metadata.csv", "f/empty.csv"):
        (tmp_path / extra).write_text("" if "empty" in extra else "other")
    plan, parts = await parts_of(files, "f/", max_splits=4)
    assert [len(part) for part in parts] == [5, 5, 5, 5]
    assert sorted(row[0] for part in parts for row in part) == list(range(20))
    assert [len(split.items) for split in plan.splits] == [5, 5, 5, 5]
    even = await table_of(files, "f/*[02468].csv", ["n"])
    assert sorted(even) == [(n,) for n in range(0, 20, 2)]
    with pytest.raises(ItemNotFoundError):
        await parts_of(files, "f/*.parquet")
    with pytest.raises(ItemNotFoundError):
        await parts_of(files, "nothing/")


async def test_large_files_of_a_folder_are_divided(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "b.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(10_000)))
    (tmp_path / "c.csv").write_text("n\n2\n")
    plan, parts = await parts_of(files, "*.csv", max_splits=4)
    assert len(parts) == 4
    assert plan.splits[0].items == ("a.csv", "b.csv")
    rows = [row[0] for part in parts for row in part]
    assert rows == [1, *range(10_000), 2]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (b"n,m\n1,2\n", b"n\n1\n", "'b.csv' has other columns"),
        (b"n\n1\n", b"n\nx\n", "'b.csv' has values that are not of the types"),
        (b"n\n1\n", b"n\n007\n", "'b.csv' has values that are not of the types"),
        (b"n\ntrue\n", b"n\n1\n", "'b.csv' has values that are not of the types"),
        (b"n,m\n1,2\n", b"n,m\n1\n", "'b.csv' is no table: a row has 1 values, and the header 2"),
    ],
    ids=["columns", "types", "leading-zeros", "bits", "ragged"],
)
async def test_files_of_a_folder_that_differ_are_an_error(
    files: LocalFileConnector, tmp_path: Path, first: bytes, second: bytes, reason: str
) -> None:
    (tmp_path / "a.csv").write_bytes(first)
    (tmp_path / "b.csv").write_bytes(second)
    with pytest.raises(DataFetchError, match=reason):
        await parts_of(files, "*.csv", max_splits=1)


async def test_parquet_files_of_a_folder_get_the_schema_of_the_first(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet(n=[1], text=["x"]))
    pq.write_table(pa.table({"text": ["y"], "n": pa.array([2], pa.int8())}), tmp_path / "b.parquet")
    plan, parts = await parts_of(files, "*.parquet", max_splits=1)
    assert parts == [[(1, "x"), (2, "y")]]
    assert plan.schema == pa.schema([("n", pa.int64()), ("text", pa.string())])
    (tmp_path / "b.parquet").write_bytes(parquet(n=["no number"], text=["y"]))
    with pytest.raises(DataFetchError, match=r"'b.parquet' has values that are not of the types"):
        await parts_of(files, "*.parquet", max_splits=1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([7]), pa.array(["007"])),
        (pa.array([True]), pa.array([5])),
        (pa.array([0.5], pa.float32()), pa.array([0.1])),
        (pa.array([dt.date(2024, 1, 2)]), pa.array([TIME])),
        (pa.array([TIME]), pa.array([TIME.replace(tzinfo=dt.UTC)])),
    ],
    ids=["leading-zeros", "bits", "floats", "times", "zones"],
)
async def test_parquet_values_that_a_type_does_not_hold_are_an_error(
    files: LocalFileConnector, tmp_path: Path, first: pa.Array, second: pa.Array
) -> None:
    pq.write_table(pa.table({"v": first}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"v": second}), tmp_path / "b.parquet")
    with pytest.raises(DataFetchError, match=r"'b.parquet' has values that are not of the types"):
        await parts_of(files, "*.parquet", max_splits=1)


async def test_parquet_values_that_a_type_holds_are_converted(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"n": [1], "x": [0.5]}), tmp_path / "a.parquet")
    values = {"n": pa.array([2.0, None]), "x": pa.array([float("nan"), 1.5], pa.float32())}
    pq.write_table(pa.table(values), tmp_path / "b.parquet")
    rows = await table_of(files, "*.parquet", max_splits=1)
    assert str(rows) == "[(1, 0.5), (2, nan), (None, 1.5)]"


@pytest.mark.parametrize("columns", [None, ["n"]])
async def test_parquet_files_of_a_folder_with_other_columns_are_an_error(
    files: LocalFileConnector, tmp_path: Path, columns: list[str] | None
) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet(n=[1] * 100))
    (tmp_path / "b.parquet").write_bytes(parquet(n=[2], more=[3]))
    with pytest.raises(DataFetchError, match=r"'b.parquet' has other columns"):
        await parts_of(files, "*.parquet", columns, max_splits=1)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"only a line\n", "only Parquet files and delimited text"),
        ("a.json", b'{"a": 1}\n', "only Parquet files and delimited text"),
        ("a.csv", b"<html><body>", "HTML or XML"),
    ],
)
async def test_what_is_no_table_has_no_splits(
    files: LocalFileConnector, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "b.csv").write_bytes(b"a\n1\n")
    with pytest.raises(UnsupportedError, match=reason):
        await parts_of(files, name)
    if not name.endswith(".csv"):
        with pytest.raises(UnsupportedError, match=f"'{name}' has no splits"):
            await parts_of(files, "*")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a,b\n1\n", "a row has 1 values, and the header 2"),
        (b'a,b\n1,"x\n2,y\n', "a quotation mark is not closed"),
        (b"a,b\n1,\xff\n2,\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\n", "bytes that are not utf-8"),
        (b"PK\x03\x04", "ZIP archive"),
    ],
    ids=["ragged", "open-quote", "encoding", "archive"],
)
async def test_damaged_text_is_an_error_of_the_plan(
    files: LocalFileConnector, tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataFetchError, match=reason):
        await parts_of(files, "a.csv")


async def test_a_row_that_is_too_long_is_an_error(
    files: LocalFileConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_MAX_RECORD", 10_000)
    (tmp_path / "a.csv").write_text('a\n"' + "x\n" * 20_000 + '"\n')
    with pytest.raises(DataFetchError, match="longer than 10000 bytes"):
        await parts_of(files, "a.csv")


async def test_a_header_behind_the_first_block_is_an_error_and_a_blank_file_an_empty_table(
    files: LocalFileConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_BLOCK", 100)
    (tmp_path / "a.csv").write_text("\n" * 250 + "a,b\n1,2\n")
    with pytest.raises(DataFetchError, match=r"header of 'a.csv' is not among its first"):
        await parts_of(files, "a.csv")
    (tmp_path / "a.csv").write_text(f"a,{'b' * 200}\n1,2\n")
    with pytest.raises(DataFetchError, match=r"header of 'a.csv' is not among its first"):
        await parts_of(files, "a.csv")
    (tmp_path / "a.csv").write_text("\n" * 250)
    assert await table_of(files, "a.csv") == []


async def test_rows_of_parquet_that_grow_when_they_are_read_are_in_small_batches(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    text = "x" * 10_000
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), [text])
    pq.write_table(
        pa.table({"text": once.cast(pa.string())}), tmp_path / "a.parquet", row_group_size=10_000
    )
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    rows = 0
    async with files.plan_splits("a.parquet", target_bytes=1 << 30, max_splits=1) as plan:
        async for batch in files.read_split(plan.splits[0]):
            assert batch.nbytes < 5 << 20
            rows += batch.num_rows
    assert rows == 20_000


async def test_a_long_row_is_scanned_a_few_times(
    files: LocalFileConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[int] = []
    end_of_records = text.RecordParser._end_of_records

    def count(self: text.RecordParser, data: bytes) -> int:
        scanned.append(len(data))
        return end_of_records(self, data)

    monkeypatch.setattr(text.RecordParser, "_end_of_records", count)
    monkeypatch.setattr(text, "_CHUNK", 100)
    (tmp_path / "a.csv").write_text(f"n,text\n1,{'x' * 20_000}\n2,y\n")
    assert await table_of(files, "a.csv", max_splits=500) == [(1, "x" * 20_000), (2, "y")]
    assert 20_000 < sum(scanned) < 200_000


def _rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))


def _replace_by_a_copy(path: Path) -> None:
    """Replace a file by another of the same size and time."""
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"1,2\n")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
@pytest.mark.parametrize("change", [_rewrite, _replace_by_a_copy, _truncate, _append, Path.unlink])
async def test_a_file_that_changed_since_the_plan_is_refused(
    files: LocalFileConnector, tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n" + b"1,1\n" * 10)
    (tmp_path / "a.parquet").write_bytes(parquet(a=[1] * 10, b=[1] * 10, row_group_size=5))
    os.utime(tmp_path / name, ns=(0, 0))
    async with files.plan_splits(name, **SMALL) as plan:
        change(tmp_path / name)
        for split in plan.splits:
            with pytest.raises(DataFetchError, match="since; plan again"):
                await rows_of(files.read_split(split))


async def test_a_file_that_changes_while_it_is_read_is_refused(
    files: LocalFileConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_BLOCK", 100)
    monkeypatch.setattr(reading, "_SMALL", 0)  # it would be read whole before it changes
    (tmp_path / "a.csv").write_bytes(b"a,b\n" + b"1,1\n" * 1000)
    os.utime(tmp_path / "a.csv", ns=(0, 0))
    async with files.plan_splits("a.csv", target_bytes=1 << 20, max_splits=1) as plan:
        batches: Any = files.read_split(plan.splits[0])
        assert (await anext(batches)).to_pylist()[0] == {"a": 1, "b": 1}
        _rewrite(tmp_path / "a.csv")
        with pytest.raises(DataFetchError, match="since; plan again"):
            await rows_of(batches)


async def test_readers_of_many_splits_read_at_once(
    files: LocalFileConnector, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(20_000)))
    async with files.plan_splits("a.csv", target_bytes=1, max_splits=16) as plan:
        parts = await gather_splits(
            replace(plan, reader=files.read_split),
            lambda _, batches: rows_of(batches),
            concurrency=8,
        )
    assert [row for part in parts for row in part] == [(n,) for n in range(20_000)]


@pytest.mark.parametrize("format_", ["csv", "parquet"])
async def test_a_large_file_is_never_in_memory_as_a_whole(
    files: LocalFileConnector, tmp_path: Path, format_: str
) -> None:
    rows = 300_000
    table = pa.table({"n": range(rows), "text": [f"{n:0100}" for n in range(rows)]})
    path = tmp_path / f"a.{format_}"
    if format_ == "csv":
        with path.open("w") as file:
            file.write("n,text\n")
            file.writelines(f"{n},x{n:0100}\n" for n in range(rows))
    else:
        pq.write_table(table, path, compression="none", use_dictionary=False)
    del table
    size = path.stat().st_size
    assert size > 30_000_000
    before, most = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    try:
        async with files.plan_splits(path.name, target_bytes=1 << 30, max_splits=1) as plan:
            async for batch in files.read_split(plan.splits[0]):
                rows -= batch.num_rows
                most = max(most, pa.total_allocated_bytes() - before)
        most += tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 0
    assert most < size * 0.8


async def test_a_few_small_texts_are_open_at_once_and_their_rows_are_in_order(
    files: LocalFileConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        text = f"a\n{number}\n" if number != 20 else "a\n" + "20\n" * 200_000
        (tmp_path / f"{number:02}.csv").write_text(text)
    names: list[str] = []
    most = 0
    open_file = files.open_file

    @asynccontextmanager
    async def counted(file: SplitFile) -> AsyncIterator[PinnedFile]:
        nonlocal most
        async with open_file(file) as opened:
            names.append(file.path)
            most = max(most, len(names))
            try:
                yield opened
            finally:
                names.remove(file.path)

    async with files.plan_splits("*.csv", target_bytes=1 << 30, max_splits=1) as plan:
        monkeypatch.setattr(files, "open_file", counted)
        (split,) = plan.splits
        read = [row for (row,) in await rows_of(files.read_split(split))]
        assert list(dict.fromkeys(read)) == list(range(40))
        assert len(read) == 39 + 200_000
        assert 1 < most <= 9
        batches: Any = files.read_split(split)
        assert (await anext(batches)).num_rows == 1
        await batches.aclose()
        assert names == []
        (tmp_path / "05.csv").unlink()
        with pytest.raises(DataFetchError, match=r"'05\.csv' was deleted since"):
            await rows_of(files.read_split(split))
        assert names == []
