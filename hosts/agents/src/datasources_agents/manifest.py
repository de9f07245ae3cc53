"""Describe the files that were fetched for a request, for programs and for a model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from datasources import DataFetchError, Preview, open_below, preview_file
from datasources.json_models import JsonModel
from datasources.json_values import to_json_value
from datasources_agents.fence import Fence, shorten

MANIFEST = ".datasources/manifest.json"
"""The path of the whole manifest in a workspace."""
_ROWS = 3
_TYPED_ROWS = 100  # that types are guessed from
_CELL = 1000  # bytes of a cell or a name in the whole manifest
# For the prompt, the first of these that fits: columns, rows, and bytes of each name and cell.
_DETAILS = ((100, 3, 200), (50, 3, 60), (30, 2, 40), (15, 1, 40), (0, 0, 40))
_INTRODUCTION = (
    "Files in the working directory, fetched for this question. The file "
    f"{MANIFEST} describes them in full."
)

_TEXT_TYPES = (
    ("integer", re.compile(r"[+-]?(0|[1-9]\d{0,17})")),
    ("number", re.compile(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})([eE][+-]?\d{1,3})?")),
    ("date", re.compile(r"\d{4}-\d\d-\d\d")),
    ("timestamp", re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d{1,9})?\S{0,6}")),
    ("boolean", re.compile(r"true|false", re.IGNORECASE)),
)
_LEADING_ZERO = re.compile(r"[+-]?0\d")  # a number of an account or a place, and none to add up
_TYPES: tuple[tuple[type[Any] | tuple[type[Any], ...], str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    ((float, Decimal), "number"),
    (datetime, "timestamp"),
    (date, "date"),
    (time, "time"),
    ((bytes, bytearray, memoryview), "binary"),
    ((list, tuple, dict), "json"),
)


@dataclass(frozen=True, slots=True)
class Column(JsonModel):
    """A column of a file."""

    name: str
    type: str
    """`integer`, `number`, `boolean`, `date`, `timestamp`, `time`, `text`, `binary`, `json`, or
    `unknown` if there are no values. Of a file of text it is guessed from the first rows."""


@dataclass(frozen=True, slots=True)
class FetchedFile(JsonModel):
    """A file in a workspace, and the item that it was fetched from."""

    path: str
    """The path in the workspace, with `/` between its parts."""
    source: str
    """The id of the source."""
    item: str
    """The identifier, which may be a query."""
    format: str | None
    """The format that was asked for; None if the connector chose it."""
    rows: int | None
    """Data rows, without the header; None where the connector does not count them."""
    truncated: bool
    """True if the source has more rows."""
    bytes: int
    """Bytes of the file."""
    sha256: str
    """The SHA-256 of the file's bytes, in hexadecimal."""
    version: str | None = None
    """The version of the item, such as an ETag; None where the source has none."""
    columns: Sequence[Column] = ()
    """The columns, none if the file has no table."""
    first_rows: Sequence[Any] = ()
    """The first rows, three at most, as lists of values that JSON can hold. Long texts are cut, and
    end in `[cut]`."""
    notes: Sequence[str] = ()
    """Sentences about what was guessed, or about why nothing is shown."""

    @property
    def key(self) -> tuple[str, str, str | None]:
        """The source, the item and the format."""
        return self.source, self.item, self.format


@dataclass(frozen=True, slots=True)
class Manifest(JsonModel):
    """The files that were fetched for a request, in the order of its references."""

    files: Sequence[FetchedFile] = ()

    def with_paths(self, paths: Mapping[str, str]) -> Manifest:
        """Return a manifest with other paths, by the present ones."""
        files = [replace(file, path=paths.get(file.path, file.path)) for file in self.files]
        return Manifest(files)

    def prompt(
        self,
        fence: Fence | None = None,
        *,
        introduction: str = _INTRODUCTION,
        max_bytes: int = 8192,
    ) -> str:
        """Return what a model is told about the files; empty if there are none.

        Everything that comes from outside is inside the fence: names, columns and cells. Where it
        is too much, there are fewer columns and rows, and then fewer files.

        Args:
            fence: The fence of the request; by default a new one.
            introduction: Sentences for the model, before those about the fence.
            max_bytes: Bytes of the fenced text.
        """
        if not self.files:
            return ""
        fence = fence or Fence()
        for columns, rows, size in _DETAILS:
            text = self._lines(columns, rows, size)
            fenced = fence.wrap(text, None)
            if len(fenced.encode()) - len(fence.wrap("").encode()) <= max_bytes:
                break
        else:
            fenced = fence.wrap(text, max_bytes)
        return f"{introduction} {fence.notice}\n{fenced}"

    def _lines(self, columns: int, rows: int, size: int) -> str:
        """Return one line of JSON for each file, with so many columns and rows of so many bytes."""
        return "\n".join(
            json.dumps(_outline(file, columns, rows, size), ensure_ascii=False)
            for file in self.files
        )


def describe(file: FetchedFile, directory: str) -> FetchedFile:
    """Return a file of a workspace with its columns and first rows. This blocks.

    A file that shows no table, such as a picture, has a note instead.

    Args:
        file: The file.
        directory: The workspace. Links in it are not followed.
    """
    try:
        with os.fdopen(open_below(directory, file.path), "rb") as opened:
            preview = preview_file(opened, file.path, _TYPED_ROWS)
    except DataFetchError as exc:
        preview = Preview((), (), False, notes=(str(exc),))
    except (OSError, ValueError):
        preview = Preview((), (), False, notes=("the file cannot be read any more",))
    values = zip(*preview.rows, strict=True) if preview.rows else ((),) * len(preview.columns)
    return replace(
        file,
        columns=[
            Column(shorten(name, _CELL), column_type(column))
            for name, column in zip(preview.columns, values, strict=True)
        ],
        first_rows=[[_cell(value, _CELL) for value in row] for row in preview.rows[:_ROWS]],
        notes=[shorten(note, _CELL) for note in preview.notes],
    )


def column_type(values: Iterable[Any]) -> str:
    """Return the type of a column, as `Column.type` names it."""
    types = {_type_of(value) for value in values if value not in (None, "")}
    if len(types) == 1:
        return types.pop()
    if types and types <= {"integer", "number"}:
        return "number"
    if types and types <= {"date", "timestamp"}:
        return "timestamp"
    return "text" if types else "unknown"


def _type_of(value: Any) -> str:
    if isinstance(value, str):
        if _LEADING_ZERO.match(value) and not value.lstrip("+-0").startswith("."):
            return "text"
        return next((name for name, form in _TEXT_TYPES if form.fullmatch(value)), "text")
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "text")


def _cell(value: Any, max_bytes: int) -> Any:
    """Return a value that JSON can hold, of so many bytes at most; a nested one as a text."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value[:max_bytes])  # their digits are twice as many, and cut below
    value = to_json_value(value)
    if isinstance(value, (dict, list)):
        value = json.dumps(value, ensure_ascii=False)
    return shorten(value, max_bytes) if isinstance(value, str) else value


def _outline(file: FetchedFile, columns: int, rows: int, size: int) -> dict[str, Any]:
    """Return what a prompt tells about one file."""
    outline: dict[str, Any] = {
        "path": shorten(file.path, 300),
        "source": file.source,
        "item": shorten(file.item, max(size, 100)),
        "rows": file.rows,
        "truncated": file.truncated,
        "bytes": file.bytes,
    }
    if not columns:
        return outline
    outline["columns"] = {
        "names": [shorten(column.name, size) for column in file.columns[:columns]],
        "types": [column.type for column in file.columns[:columns]],
    }
    outline["first_rows"] = [
        [_cell(value, size) for value in row[:columns]] for row in file.first_rows[:rows]
    ]
    if len(file.columns) > columns:
        outline["more_columns"] = len(file.columns) - columns
    if file.notes:
        outline["notes"] = [shorten(note, size) for note in file.notes[:3]]
    return outline
