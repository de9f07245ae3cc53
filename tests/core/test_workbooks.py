"""Workbooks: their first rows, and a sheet as CSV or Parquet."""

from __future__ import annotations

import csv
import datetime as dt
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    DataFetchError,
    Limits,
    Workspace,
    convert_workbook,
    preview_file,
    preview_workbook,
)
from tests.core.workbooks import xlsx

pytest.importorskip("python_calamine")

DAY = dt.date(2024, 2, 29)
ROWS: list[list[Any]] = [
    [],
    ["id", "name", "price", "day", "ok"],
    [1, "Müller", 1.5, DAY, True],
    [],
    [2, None, 2, DAY, False],
]
WORKBOOK = xlsx(Empty=[], Data=ROWS)


def test_first_rows_have_their_types_and_blank_rows_are_left_out() -> None:
    preview = preview_workbook(WORKBOOK, "a.xlsx")
    assert preview.columns == ("id", "name", "price", "day", "ok")
    assert list(preview.rows) == [(1, "Müller", 1.5, DAY, True), (2, None, 2, DAY, False)]
    assert (preview.truncated, preview.notes) == (False, ())
    first = preview_file(io.BytesIO(WORKBOOK), "a.XLSX", 1)
    assert (len(first.rows), first.truncated) == (1, True)


def test_other_sheets_are_told() -> None:
    preview = preview_workbook(xlsx(A=[["x"], [1]], B=[["y"]], C=[["z"]]), "a.xlsx")
    assert preview.columns == ("x",)
    assert preview.notes == ("this is the sheet 'A'; others are 'B', 'C'",)


def test_workbook_without_cells_has_no_columns() -> None:
    preview = preview_workbook(xlsx(Empty=[]), "a.xlsx")
    assert (preview.columns, list(preview.rows)) == ((), [])


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"PK\x03\x04damaged", WORKBOOK[:-30], WORKBOOK[:200]]
)
def test_file_that_is_no_workbook_is_a_clear_error(content: bytes) -> None:
    with pytest.raises(DataFetchError, match=r"'a\.xlsx' cannot be read as a workbook"):
        preview_workbook(content, "a.xlsx")


def test_every_damaged_byte_gives_rows_or_a_clear_error() -> None:
    for position in range(0, len(WORKBOOK), 3):
        damaged = bytearray(WORKBOOK)
        damaged[position] ^= 0xFF
        try:
            preview_workbook(bytes(damaged), "a.xlsx")
        except DataFetchError as exc:
            assert "'a.xlsx'" in str(exc)  # noqa: PT017  (most damage is not noticed)


def test_workbook_that_would_not_fit_into_memory_is_refused() -> None:
    file = io.BytesIO(WORKBOOK)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("x", b"")
        archive.infolist()[-1].file_size = 2**31
    with pytest.raises(DataFetchError, match="too large to be read as a workbook"):
        preview_workbook(file.getvalue(), "a.xlsx")


def test_sheet_is_converted_to_csv(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, file_format="csv")
    path = convert_workbook(WORKBOOK, workspace, "a.xlsx", version="v")
    assert path == str(tmp_path / "a.xlsx.csv")
    with open(path, encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "name", "price", "day", "ok"],
            ["1", "Müller", "1.5", "2024-02-29", "True"],
            ["2", "", "2", "2024-02-29", "False"],
        ]
    written = workspace.written[path]
    assert (written.rows, written.truncated, written.version) == (2, False, "v")


def test_sheet_is_converted_to_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    workspace = Workspace(tmp_path, file_format="parquet", limits=Limits(max_rows=1))
    path = convert_workbook(WORKBOOK, workspace, "a.xlsx")
    assert pq.read_table(path).to_pylist() == [
        {"id": 1, "name": "Müller", "price": 1.5, "day": DAY, "ok": True}
    ]
    assert (workspace.written[path].rows, workspace.written[path].truncated) == (1, True)
    mixed = xlsx(Data=[["n", "m"], [1, 1], [2.5, "x"], [None, "y"]])
    path = convert_workbook(mixed, Workspace(tmp_path, file_format="parquet"), "b.xlsx")
    assert pq.read_table(path).to_pydict() == {"n": [1, 2.5, None], "m": ["1", "x", "y"]}


def test_workbook_of_several_sheets_is_not_converted(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, file_format="csv")
    with pytest.raises(DataFetchError, match="several sheets with cells, 'A', 'B'"):
        convert_workbook(xlsx(A=[["x"]], B=[["y"]]), workspace, "a.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFetchError, match="possible: csv, parquet"):
        convert_workbook(WORKBOOK, Workspace(tmp_path, file_format="orc"), "a.xlsx")
