"""Read the cells of a workbook with python-calamine."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

_EXACT = 2.0**53  # above it, a float does not hold each whole number
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_SAMPLE = 1024 * 1024  # bytes of each sheet that are searched
# A formula without a value; the one of a text may be empty.
_UNSET = re.compile(
    rb'<(?:\w+:)?c\b(?![^>]*t="str")[^>]*>\s*<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)\s*'
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
_ERROR = re.compile(rb'<(?:\w+:)?c\b[^>]*\bt="e"')

Row = list[Any]


@dataclass
class Sheets:
    """The sheets of a workbook that have cells, and the table in the first one that is visible."""

    names: list[str] = field(default_factory=list)
    """The one that was read first."""
    hidden: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    unset_formulas: bool = False
    """True if values of formulas are missing, as programs that do not calculate leave them."""
    errors: bool = False
    """True if cells have errors such as `#DIV/0!`, which are read as empty ones."""


def read(content: bytes, rows: int | None) -> Sheets:
    """Return the sheets of a workbook, and at most so many rows of the first one.

    Raises:
        Exception: Any, or a panic of Rust code, if it cannot be read.
    """
    from python_calamine import CalamineWorkbook, PasswordError, SheetVisibleEnum

    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
    except PasswordError:
        raise ValueError("it is protected by a password") from None
    except Exception:
        if _ENCRYPTED in content:
            raise ValueError("it is protected by a password") from None
        raise
    visible = {
        sheet.name: sheet.visible is SheetVisibleEnum.Visible for sheet in workbook.sheets_metadata
    }
    sheets = [
        sheet for sheet in map(workbook.get_sheet_by_name, workbook.sheet_names) if sheet.height
    ]
    sheets.sort(key=lambda sheet: not visible.get(sheet.name, True))
    result = Sheets(
        [sheet.name for sheet in sheets],
        [sheet.name for sheet in sheets if not visible.get(sheet.name, True)],
        unset_formulas=_has_cell(content, _UNSET),
        errors=_has_cell(content, _ERROR),
    )
    if sheets:
        records = _records(sheets[0])
        result.columns = ["" if value is None else str(value) for value in next(records, [])]
        result.rows = list(islice(records, rows))
    return result


def _records(sheet: CalamineSheet) -> Iterator[Row]:
    """Yield the rows that are not empty."""
    rows = (row for row in sheet.iter_rows() if any(value != "" for value in row))
    return ([_value(value) for value in row] for row in rows)


def _value(value: Any) -> Any:
    """Return a cell's value: an empty one is None, and a whole number is an int."""
    if value == "":
        return None
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT
    return int(value) if is_whole else value


def _has_cell(content: bytes, pattern: re.Pattern[bytes]) -> bool:
    """Return True if a cell at the beginning of a sheet in XML matches."""
    if not content.startswith(b"PK"):
        return False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.endswith(".xml") and "sheet" in name:
                with archive.open(name) as part:
                    if pattern.search(part.read(_SAMPLE)):
                        return True
    return False
