"""Workbooks: their first rows, and a sheet as CSV or Parquet."""

from __future__ import annotations

import csv
import datetime as dt
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    DataFetchError,
    Limits,
    OptionError,
    Workspace,
    convert_workbook,
    preview_file,
    preview_workbook,
)
from datasources.preview.sheet_process import interpreter
from tests.core.workbooks import altered, xlsx

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


def test_every_damaged_byte_gives_rows_or_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)  # no process for each of them
    for position in range(0, len(WORKBOOK), 3):
        damaged = bytearray(WORKBOOK)
        damaged[position] ^= 0xFF
        try:
            preview_workbook(bytes(damaged), "a.xlsx")
        except DataFetchError as exc:
            assert "'a.xlsx'" in str(exc)  # noqa: PT017  (most damage is not noticed)


def test_cells_far_apart_do_not_end_the_process(tmp_path: Path) -> None:
    far = '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
    workbook = altered(xlsx(Data=[["a"], [1]]), "xl/sheet1.xml", "</sheetData>", far)
    with pytest.raises(
        DataFetchError, match=r"'a\.xlsx' cannot be read as a workbook: it takes more"
    ):
        preview_workbook(workbook, "a.xlsx")
    with pytest.raises(DataFetchError, match="it takes more than 2147483648 bytes of memory"):
        convert_workbook(workbook, Workspace(tmp_path, file_format="csv"), "a.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_workbook_is_read_where_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for executable in ("", "/usr/sbin/uwsgi"):
        monkeypatch.setattr(sys, "executable", executable)
        monkeypatch.setattr(sys, "exec_prefix", "/missing")
        assert interpreter() is None
        assert preview_workbook(WORKBOOK, "a.xlsx").columns[:2] == ("id", "name")
    monkeypatch.setattr(sys, "executable", "/missing/python")
    with pytest.raises(DataFetchError, match="no process can be started for it: No such file"):
        preview_workbook(WORKBOOK, "a.xlsx")


def test_program_that_embeds_python_reads_with_the_interpreter_of_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = Path(sys.exec_prefix, "bin", "python{}.{}".format(*sys.version_info))
    if not expected.exists():
        pytest.skip(f"there is no {expected}")
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    assert interpreter() == str(expected)
    assert preview_workbook(WORKBOOK, "a.xlsx").columns[:2] == ("id", "name")


def test_hidden_sheets_are_named_and_the_visible_one_is_read(tmp_path: Path) -> None:
    workbook = xlsx(Old=[["old"], [1]], New=[["new"], [2]])
    hidden = altered(workbook, "xl/workbook.xml", 'name="Old"', 'name="Old" state="veryHidden"')
    preview = preview_workbook(hidden, "a.xlsx")
    assert (preview.columns, list(preview.rows)) == (("new",), [(2,)])
    assert preview.notes == ("this is the sheet 'New'; others are 'Old' (hidden)",)
    path = convert_workbook(hidden, Workspace(tmp_path, file_format="csv"), "a.xlsx")
    assert Path(path).read_text() == "new\n2\n"
    alone = altered(
        xlsx(Old=[["old"], [1]]), "xl/workbook.xml", 'name="Old"', 'name="Old" state="hidden"'
    )
    assert preview_workbook(alone, "a.xlsx").notes == ("this is the sheet 'Old' (hidden)",)
    assert preview_workbook(alone, "a.xlsx").columns == ("old",)


@pytest.mark.parametrize("formula", ["<f>A2+1</f><v/>", "<f>A2+1</f>", "<f t='x'/><v></v>"])
def test_formulas_without_values_are_told_and_not_converted(tmp_path: Path, formula: str) -> None:
    cell = f'<c r="B2">{formula}</c></row></sheetData>'
    workbook = altered(xlsx(Data=[["a", "b"], [1]]), "xl/sheet1.xml", "</row></sheetData>", cell)
    assert preview_workbook(workbook, "a.xlsx").notes == (
        "formulas whose values are not stored are shown as empty cells",
    )
    with pytest.raises(DataFetchError, match="has formulas whose values are not stored"):
        convert_workbook(workbook, Workspace(tmp_path, file_format="csv"), "a.xlsx")


@pytest.mark.parametrize("cell", ['<c r="B2"><f>A2</f><v>1</v>', '<c t="str"><f>""</f><v></v>'])
def test_formulas_with_values_are_read(cell: str) -> None:
    workbook = altered(
        xlsx(Data=[["a", "b"], [1]]),
        "xl/sheet1.xml",
        "</row></sheetData>",
        f"{cell}</c></row></sheetData>",
    )
    assert preview_workbook(workbook, "a.xlsx").notes == ()


def test_errors_in_cells_are_told() -> None:
    cell = '<c r="B2" t="e"><v>#DIV/0!</v></c></row></sheetData>'
    workbook = altered(xlsx(Data=[["a", "b"], ["x"]]), "xl/sheet1.xml", "</row></sheetData>", cell)
    preview = preview_workbook(workbook, "a.xlsx")
    assert list(preview.rows) == [("x", None)]
    assert preview.notes == ("errors such as #DIV/0! are shown as empty cells",)


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ([["Report 2024"], [], ["id", "name", "v"], [1, "x", 2]], "it may be a title"),
        ([[1, 2.5], [3, 4.5]], "the file may have no header"),
    ],
)
def test_header_that_may_be_none_is_told(rows: list[list[Any]], note: str) -> None:
    (told,) = preview_workbook(xlsx(Data=rows), "a.xlsx").notes
    assert note in told


def test_workbook_with_a_password_is_a_clear_error() -> None:
    content = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000) + "EncryptedPackage".encode("utf-16-le")
    )
    with pytest.raises(DataFetchError, match="as a workbook: it is protected by a password"):
        preview_workbook(content, "a.xlsx")


def test_large_numbers_are_converted(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    workbook = xlsx(Data=[["n", "m"], [1e300, 2.0**53], [3, 4]])
    path = convert_workbook(workbook, Workspace(tmp_path, file_format="parquet"), "a.xlsx")
    assert pq.read_table(path).to_pydict() == {"n": [1e300, 3.0], "m": [2**53, 4]}


def test_columns_of_one_name_are_distinct_in_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    workbook = xlsx(Data=[["a", "a", None, "a_2", None, "a"], [1, 2, 3, 4, 5, 6]])
    path = convert_workbook(workbook, Workspace(tmp_path, file_format="parquet"), "a.xlsx")
    names = ["a", "a_3", "column_3", "a_2", "column_5", "a_4"]
    assert pq.read_table(path).to_pylist() == [dict(zip(names, range(1, 7), strict=True))]


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
    with pytest.raises(OptionError, match="possible: csv, parquet"):
        convert_workbook(WORKBOOK, Workspace(tmp_path, file_format="orc"), "a.xlsx")
