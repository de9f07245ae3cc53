"""Read workbooks of spreadsheets: show their first rows, and convert a sheet to CSV or Parquet."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from datasources.errors import DataFetchError
from datasources.models import Preview
from datasources.preview.delimited import header_doubt
from datasources.preview.sheet_process import interpreter, read_apart
from datasources.preview.sheets import Row, Sheets, read

MAX_WORKBOOK = 64 * 1024 * 1024
"""Bytes of a workbook that is read: all of it is in memory, as its sheets share their texts."""
_MAX_CONTENT = 1024 * 1024 * 1024  # bytes of its parts, decompressed
_EXTENSIONS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


def is_workbook(name: str) -> bool:
    """Return True if a file is a workbook by its extension."""
    return name.lower().endswith(_EXTENSIONS)


def preview_workbook(content: bytes, name: str, rows: int = 10) -> Preview:
    """Return the first rows of the first visible sheet that has cells.

    The first row that is not empty gives the columns. `Preview.notes` names the sheets that are not
    shown, and tells of formulas whose values are not stored, errors such as `#DIV/0!`, and a header
    that may be none. The workbook is read in a process of its own, as a small one may need more
    memory than there is, or be made to take over its reader: that process has no variables of the
    host, can open nothing, and is killed after 3 minutes or when the caller of `run_in_thread` is
    cancelled. This blocks; call it in a thread.

    Raises:
        DataFetchError: It is no workbook, is damaged or too large, or python-calamine is not
            installed.
    """
    sheets = _read(content, name, rows + 1)
    notes = []
    if len(sheets.names) > 1 or sheets.hidden:
        titles = [_title(sheets, sheet) for sheet in sheets.names]
        others = f"; others are {', '.join(titles[1:])}" if titles[1:] else ""
        notes.append(f"this is the sheet {titles[0]}{others}")
    if sheets.unset_formulas:
        notes.append("formulas whose values are not stored are shown as empty cells")
    if sheets.errors:
        notes.append("errors such as #DIV/0! are shown as empty cells")
    texts = [["" if value is None else str(value) for value in row] for row in sheets.rows]
    if doubt := header_doubt([sheets.columns, *texts]):
        notes.append(doubt)
    return Preview(
        tuple(sheets.columns),
        [tuple(row) for row in sheets.rows[:rows]],
        truncated=len(sheets.rows) > rows,
        notes=tuple(notes),
    )


def read_sheet(content: bytes, name: str) -> tuple[list[str], list[Row]]:
    """Return columns and rows of the one visible sheet that has cells.

    If none is visible, it is the one that is hidden. This blocks; call it in a thread.

    Raises:
        DataFetchError: As `preview_workbook`, several sheets have cells, or values of formulas are
            not stored.
    """
    sheets = _read(content, name, None)
    visible = [sheet for sheet in sheets.names if sheet not in sheets.hidden] or sheets.names
    reason = ""
    if len(visible) > 1:
        reason = f"several sheets with cells, {', '.join(map(repr, visible))}"
    elif sheets.unset_formulas:
        reason = "formulas whose values are not stored"
    if reason:
        raise DataFetchError(f"{name!r} has {reason}: it can be fetched only as it is")
    return sheets.columns, sheets.rows


def _title(sheets: Sheets, sheet: str) -> str:
    return f"{sheet!r} (hidden)" if sheet in sheets.hidden else repr(sheet)


def _read(content: bytes, name: str, rows: int | None) -> Sheets:
    """Return the sheets of a workbook, read in a process of its own where Python can start one."""
    if find_spec("python_calamine") is None:
        raise DataFetchError(
            f"reading {name!r} needs python-calamine; pip install 'datasources[excel]'"
        )
    _require_size(content, name)
    python = interpreter()
    answer = _read_here(content, rows) if python is None else read_apart(python, content, rows)
    if isinstance(answer, Sheets):
        return answer
    reason = answer.partition("\n")[0]
    raise DataFetchError(f"{name!r} cannot be read as a workbook: {reason}")


def _read_here(content: bytes, rows: int | None) -> Sheets | str:
    try:
        return read(content, rows)
    except BaseException as exc:
        # A panic of Rust code is no Exception, but a failure of the file like any other.
        if isinstance(exc, Exception) or type(exc).__name__ == "PanicException":
            return str(exc)
        raise


def _require_size(content: bytes, name: str) -> None:
    """Refuse a workbook that is too large for memory; its ZIP archive tells the sizes."""
    size = len(content)
    if content.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                size = max(size, sum(part.file_size for part in archive.infolist()))
        except Exception as exc:  # BadZipFile, NotImplementedError and others
            raise DataFetchError(f"{name!r} cannot be read as a workbook: {exc}") from exc
    if len(content) > MAX_WORKBOOK or size > _MAX_CONTENT:
        raise DataFetchError(
            f"{name!r} is too large to be read as a workbook: "
            f"{MAX_WORKBOOK} bytes are possible, {_MAX_CONTENT} decompressed"
        )


def as_columns(columns: Sequence[str], rows: Sequence[Row]) -> list[list[Any]]:
    """Return the values by column, those of a column with several types as text."""
    values = []
    for index in range(len(columns)):
        column = [row[index] if index < len(row) else None for row in rows]
        types = {type(value) for value in column if value is not None}
        if types == {int, float}:
            column = [None if value is None else float(value) for value in column]
        elif len(types) > 1:
            column = [None if value is None else str(value) for value in column]
        values.append(column)
    return values
