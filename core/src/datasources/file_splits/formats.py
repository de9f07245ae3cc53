"""Outline and read tables of either format; this module needs pyarrow."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from datasources.errors import DataFetchError, OptionError
from datasources.file_splits.files import (
    PARQUET,
    TEXT,
    Piece,
    PinnedFile,
    SplitFile,
    format_of,
    other_columns,
    other_types,
    reading,
)
from datasources.file_splits.parquet import outline_parquet, read_groups
from datasources.file_splits.text import RecordParser, TextFormat, TextSource, file_blocks
from datasources.file_splits.types import ColumnTypes, keeps_values
from datasources.preview import is_parquet
from datasources.threads import is_cancelled

_TEXT = "delimited text"


class Outline:
    """The format and columns of the tables of one plan, as its files are outlined one by one."""

    def __init__(self) -> None:
        self.format: str | None = None
        self.delimiter: str | None = None
        self._schema: Any = None
        self._types: ColumnTypes | None = None

    @property
    def schema(self) -> Any:
        """The schema of the files that have been outlined."""
        return self._types.schema() if self._types else self._schema

    def add(self, file: PinnedFile, split_file: SplitFile, step: int) -> list[Piece]:
        """Return the pieces of a file, each of about `step` bytes where it can be divided.

        Text is read to its end. This blocks; call it in a thread.

        Raises:
            UnsupportedError: It is no table.
            DataFetchError: It cannot be read, or has other columns than the files before.
        """
        path = split_file.path
        if self.format is None:
            self.format = format_of(path)
        if self.format is None:
            file.seek(0)
            self.format = PARQUET if is_parquet("", file.read(4)) else TEXT
            file.seek(0)
        if self.format == PARQUET:
            schema, pieces = outline_parquet(file, path)
            if self._schema is not None and set(self._schema.names) != set(schema.names):
                raise other_columns(path)
            self._schema = self._schema or schema
            return pieces
        with reading(path, _TEXT):
            return self._add_text(file, split_file, step)

    def _add_text(self, file: PinnedFile, split_file: SplitFile, step: int) -> list[Piece]:
        path, size = split_file.path, split_file.size
        source = TextSource(file, path, size, self.delimiter)
        self.delimiter = source.format.delimiter
        if self._types is None:
            self._types = ColumnTypes(source.columns)
        elif self._types.names != source.columns:
            raise other_columns(path)
        if not source.columns:
            return []
        parser = RecordParser(path, source.format, source.columns, source.columns)
        pieces, position = [], source.start
        for length, table in parser.tables(source.blocks, step):
            if is_cancelled():
                raise DataFetchError(f"the plan of {path!r} was cancelled")
            self._types.refine(table)
            place = {"bytes": [position, position + length], "encoding": source.format.encoding}
            pieces.append(Piece(length, table.num_rows, place))
            position += length
        if source.is_divisible:
            return pieces
        return [Piece(size, sum(piece.rows or 0 for piece in pieces), {})]

    def to_part(self) -> dict[str, Any]:
        """Return what the splits have in common, as values that JSON can hold."""
        schema = b64encode(self.schema.serialize().to_pybytes()).decode()
        return {"format": self.format, "delimiter": self.delimiter, "schema": schema}


def schema_of(part: dict[str, Any], columns: Sequence[str] | None) -> tuple[Any, Any]:
    """Return the schema of all columns of a part, and that of the wanted ones.

    Raises:
        OptionError: There is no such column.
    """
    schema = pa.ipc.read_schema(pa.py_buffer(b64decode(part["schema"])))
    if columns is None:
        return schema, schema
    if not columns:
        raise OptionError("'columns' must name a column at least")
    if unknown := [name for name in columns if name not in schema.names]:
        names = ", ".join(map(repr, schema.names))
        raise OptionError(f"there is no column {unknown[0]!r}; the columns are {names}")
    return schema, pa.schema([schema.field(name) for name in columns])


def read_piece(
    file: PinnedFile,
    split_file: SplitFile,
    part: dict[str, Any],
    place: dict[str, Any],
    columns: Sequence[str] | None,
) -> Iterator[Any]:
    """Yield the rows of a piece of a file as `pyarrow.RecordBatch`; call `next` in a thread.

    Args:
        file: The file.
        split_file: Its description.
        part: That of `Outline.to_part`.
        place: `Piece.description`.
        columns: The columns; None for all.
    """
    schema, wanted = schema_of(part, columns)
    path = split_file.path
    if part["format"] == PARQUET:
        yield from read_groups(file, path, place.get("groups"), wanted, schema.names)
        return
    with reading(path, _TEXT):
        if "bytes" in place:
            text_format = TextFormat(place["encoding"], part["delimiter"])
            blocks = file_blocks(file, path, *place["bytes"])
        else:
            source = TextSource(file, path, split_file.size, part["delimiter"])
            text_format, blocks = source.format, source.blocks
            if source.columns != schema.names:
                raise other_columns(path)
        parser = RecordParser(path, text_format, schema.names, wanted.names)
        for _, table in parser.tables(blocks):
            # The plan has found the types of a range from all its values.
            if "bytes" not in place and not keeps_values(table, wanted):
                raise other_types(path)
            yield from _typed(table, wanted, path)


def _typed(table: Any, schema: Any, path: str) -> Iterator[Any]:
    try:
        yield from table.cast(schema).to_batches()
    except pa.ArrowInvalid as exc:
        raise other_types(path) from exc
