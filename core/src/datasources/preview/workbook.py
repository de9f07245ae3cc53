"""Read workbooks of spreadsheets: show their first rows, and convert a sheet to CSV or Parquet."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from datasources.errors import DataFetchError
from datasources.models import Preview

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

MAX_WORKBOOK = 64 * 1024 * 1024
"""Bytes of a workbook that is read: all of it is in memory, as its sheets share their texts."""
_MAX_CONTENT = 1024 * 1024 * 1024  # bytes of its parts, decompressed
_EXTENSIONS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")

Row = list[Any]


def is_workbook(name: str) -> bool:
    """Return True if a file is a workbook by its extension."""
    return name.lower().endswith(_EXTENSIONS)


def preview_workbook(content: bytes, name: str, rows: int = 10) -> Preview:
    """Return the first rows of the first sheet that has cells. This blocks; call it in a thread.

    The first row that is not empty gives the columns. `Preview.notes` names the sheets that are not
    shown.

    Raises:
        DataFetchError: It is no workbook, is damaged or too large, or python-calamine is not
            installed.
    """
    with _Workbook(content, name) as workbook:
        sheets = workbook.sheets()
        if not sheets:
            return Preview((), [], truncated=False)
        columns, records = workbook.table(sheets[0])
        first_rows = list(islice(records, rows + 1))
        notes = []
        if len(sheets) > 1:
            others = ", ".join(repr(sheet.name) for sheet in sheets[1:])
            notes.append(f"this is the sheet {sheets[0].name!r}; others are {others}")
    return Preview(
        tuple(columns),
        [tuple(record) for record in first_rows[:rows]],
        truncated=len(first_rows) > rows,
        notes=tuple(notes),
    )


def read_sheet(content: bytes, name: str) -> tuple[list[str], list[Row]]:
    """Return columns and rows of the one sheet that has cells. This blocks; call it in a thread.

    Raises:
        DataFetchError: As `preview_workbook`, or several sheets have cells.
    """
    with _Workbook(content, name) as workbook:
        sheets = workbook.sheets()
        if len(sheets) > 1:
            names = ", ".join(repr(sheet.name) for sheet in sheets)
            raise DataFetchError(
                f"{name!r} has several sheets with cells, {names}: it can be fetched only as it is"
            )
        if not sheets:
            return [], []
        columns, records = workbook.table(sheets[0])
        return columns, list(records)


class _Workbook:
    """An open workbook; a failure of reading it in the `with` block becomes DataFetchError."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self._name = name
        self._workbook: CalamineWorkbook | None = None

    def __enter__(self) -> _Workbook:
        try:
            from python_calamine import CalamineWorkbook
        except ImportError as exc:
            raise DataFetchError(
                f"reading {self._name!r} needs python-calamine; pip install 'datasources[excel]'"
            ) from exc
        self._require_size()
        try:
            self._workbook = CalamineWorkbook.from_filelike(io.BytesIO(self._content))
        except BaseException as exc:
            raise self._error(exc) from exc
        return self

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        if exc is not None and not isinstance(exc, DataFetchError):
            raise self._error(exc) from exc

    def sheets(self) -> list[CalamineSheet]:
        """Return the sheets that have cells."""
        assert self._workbook is not None
        sheets = map(self._workbook.get_sheet_by_name, self._workbook.sheet_names)
        return [sheet for sheet in sheets if sheet.height]

    def table(self, sheet: CalamineSheet) -> tuple[list[str], Iterator[Row]]:
        """Return the columns of a sheet, and its rows that are not empty."""
        rows = (row for row in sheet.iter_rows() if any(value != "" for value in row))
        columns = ["" if value == "" else str(_value(value)) for value in next(rows, [])]
        return columns, ([_value(value) for value in row] for row in rows)

    def _require_size(self) -> None:
        """Refuse a workbook that is too large for memory; its ZIP archive tells the sizes."""
        size = len(self._content)
        if self._content.startswith(b"PK"):
            try:
                with zipfile.ZipFile(io.BytesIO(self._content)) as archive:
                    size = max(size, sum(part.file_size for part in archive.infolist()))
            except Exception as exc:  # BadZipFile, NotImplementedError and others
                raise self._error(exc) from exc
        if len(self._content) > MAX_WORKBOOK or size > _MAX_CONTENT:
            raise DataFetchError(
                f"{self._name!r} is too large to be read as a workbook: "
                f"{MAX_WORKBOOK} bytes are possible, {_MAX_CONTENT} decompressed"
            )

    def _error(self, exc: BaseException) -> BaseException:
        # A panic of Rust code is no Exception, but a failure of the file like any other.
        if isinstance(exc, Exception) or type(exc).__name__ == "PanicException":
            reason = str(exc).partition("\n")[0]
            return DataFetchError(f"{self._name!r} cannot be read as a workbook: {reason}")
        return exc


def _value(value: Any) -> Any:
    """Return a cell's value: an empty one is None, and a whole number is an int."""
    if value == "":
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


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
