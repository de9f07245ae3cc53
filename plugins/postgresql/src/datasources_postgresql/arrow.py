"""Text of a COPY as Arrow: what each type of the server becomes, and how.  Needs pyarrow."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from psycopg import adapters

from datasources import DataFetchError, LimitExceededError
from datasources_postgresql.reading import Column

_ROW_GROUP = 8 << 20  # bytes of Arrow written as one row group
_ROWS = 1 << 20  # rows of one at most
_SAMPLE = 10_000  # rows that tell whether a column repeats itself
_PIECE = 1 << 20  # bytes written to the workspace at once
_MOST_DIGITS = 76  # of a decimal256

_EXACT = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
_TEXTS = ("text", "varchar", "bpchar", "uuid")  # elements of a list; alone, all else is text too

Finish = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Form:
    """How one column travels."""

    arrow: Any
    """The type it becomes."""
    parsed: Any
    """The type the CSV reader makes."""
    expression: str = "{}"
    """What the server is asked for."""
    finish: Finish | None = None
    """What makes `arrow` of `parsed`."""


_TEXT = _Form(pa.string(), pa.string())


class Layout:
    """The columns of one result: what to ask the server for, and how to read its answer.

    Of two columns of one name, the second is `name_2`: few readers of Parquet take such twins.
    """

    def __init__(
        self, columns: Sequence[Column], types: Sequence[str], *, texts: bool = False
    ) -> None:
        self._forms = [_TEXT if texts else _form(column) for column in columns]
        self._names = _distinct(column.name for column in columns)
        self.schema = pa.schema(
            pa.field(name, form.arrow, metadata={"postgresql_type": type_})
            for name, form, type_ in zip(self._names, self._forms, types, strict=True)
        )

    def query(self, text: str) -> str:
        """Return the query whose CSV `table` reads, for a query that has been parsed alone."""
        names = [f"c{number}" for number in range(len(self._forms))]
        columns = ", ".join(
            f"{form.expression.format(name)} AS {name}"
            for form, name in zip(self._forms, names, strict=True)
        )
        return f"SELECT {columns} FROM (\n{text}\n) AS q({', '.join(names)})"  # noqa: S608

    def table(self, block: bytes | memoryview) -> Any:
        """Return whole lines of CSV, without a header, as a `pyarrow.Table`.

        Raises:
            DataFetchError: A value has no place in its column's type.
        """
        try:
            parsed = _parse(block, [form.parsed for form in self._forms])
        except pa.ArrowInvalid as exc:
            found = re.search(r"In CSV column #(\d+)", str(exc))
            raise self._unfit(int(found[1]) if found else 0, exc) from exc
        columns = [self._finished(number, column) for number, column in enumerate(parsed.columns)]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def text_table(self, rows: Sequence[Sequence[bytes | None]]) -> Any:
        """Return rows that did not come as CSV as a `pyarrow.Table` of text."""
        columns = [
            pa.array([None if value is None else value.decode() for value in values], pa.string())
            for values in zip(*rows, strict=True)
        ]
        return (
            pa.Table.from_arrays(columns, schema=self.schema) if rows else self.schema.empty_table()
        )

    def _finished(self, number: int, column: Any) -> Any:
        finish = self._forms[number].finish
        if finish is None:
            return column
        try:
            return finish(column.combine_chunks())
        except (pa.ArrowInvalid, ValueError) as exc:
            raise self._unfit(number, exc) from exc

    def _unfit(self, number: int, exc: Exception) -> DataFetchError:
        found = re.search(r"(?:string|value) '(.{1,60}?)'", str(exc))
        value = f"the value {found[1]!r}" if found else "a value"
        return DataFetchError(
            f"the column {self._names[number]!r} has {value} that {self.schema.field(number).type} "
            "cannot hold; CSV can, and so can Parquet once the query casts the column to text"
        )


class _Rows:
    """Turns blocks of CSV, the first of which begins with a header, into tables."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._header = True

    def table(self, block: bytes) -> Any:
        view = memoryview(block)
        if self._header:
            view = view[block.index(b"\n") + 1 :]
            self._header = False
        return self._layout.table(view)


class ParquetEncoder:
    """Turns blocks of CSV into pieces of a Parquet file.  One thread at a time may use it."""

    def __init__(self, layout: Layout) -> None:
        self._rows = _Rows(layout)
        self._schema = layout.schema
        self._sink = _Sink()
        self._writer: Any = None
        self._tables: list[Any] = []

    def add(self, block: bytes) -> Iterator[bytes]:
        """Take rows; return what is to be written now."""
        return self.add_table(self._rows.table(block))

    def add_table(self, table: Any) -> Iterator[bytes]:
        """Take rows; return what is to be written now."""
        self._tables.append(table)
        if (
            sum(table.nbytes for table in self._tables) >= _ROW_GROUP
            or sum(table.num_rows for table in self._tables) >= _ROWS
        ):
            self._write_group()
        return self._sink.take()

    def finish(self) -> Iterator[bytes]:
        """Return the last pieces."""
        self._write_group()
        self._writer.close()
        return self._sink.take()

    def _write_group(self) -> None:
        group = pa.concat_tables([self._schema.empty_table(), *self._tables])
        self._tables.clear()
        if self._writer is None:
            file = pa.PythonFile(self._sink, mode="w")
            self._writer = pq.ParquetWriter(file, self._schema, use_dictionary=_repeating(group))
        if group.num_rows:
            self._writer.write_table(group)


def _repeating(table: Any) -> list[str]:
    """Return the columns that a dictionary makes smaller, by the first rows.

    Building the dictionary of a column without repetitions takes longer than all the rest.
    """
    sample = table.slice(0, _SAMPLE)
    return [
        field.name
        for field, column in zip(sample.schema, sample.columns, strict=True)
        if not pa.types.is_nested(field.type) and len(column.unique()) * 4 <= len(column)
    ]


class TableBuilder:
    """Gathers blocks of CSV into one table.  One thread at a time may use it."""

    def __init__(self, layout: Layout, max_bytes: int) -> None:
        self._layout = layout
        self._rows = _Rows(layout)
        self._max_bytes = max_bytes
        self._tables: list[Any] = []
        self._size = 0

    def add(self, block: bytes) -> Iterator[bytes]:
        """Take rows.

        Raises:
            LimitExceededError: The table is larger than `max_bytes`.
        """
        return self.add_table(self._rows.table(block))

    def add_table(self, table: Any) -> Iterator[bytes]:
        """Do the same for rows that are a table."""
        self._tables.append(table)
        self._size += table.nbytes
        if self._size > self._max_bytes:
            raise LimitExceededError(
                f"the table has more than {self._max_bytes >> 20} MiB, too much to hold in memory; "
                "fetch it as a Parquet file"
            )
        return iter(())

    def table(self) -> Any:
        """Return all of them."""
        return pa.concat_tables([self._layout.schema.empty_table(), *self._tables])


class _Sink:
    """A file as Arrow wants it; keeps what is written until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._written.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self) -> Iterator[bytes]:
        whole = b"".join(self._written)
        self._written.clear()
        return (whole[start : start + _PIECE] for start in range(0, len(whole), _PIECE))


def _form(column: Column) -> _Form:
    info = adapters.types.get(column.type)
    if info is None:
        return _TEXT
    if column.type == info.oid:
        return _alone(info.name, column.modifier)
    element = _element(info.name, column.modifier)
    if element is None:
        return _TEXT
    return _Form(pa.list_(element), pa.string(), "pg_catalog.array_to_json({})", _lists_of(element))


def _alone(name: str, modifier: int) -> _Form:
    if name == "bytea":
        return _Form(pa.binary(), pa.string(), "pg_catalog.encode({}, 'hex')", _unhexed)
    if name == "timestamptz":
        # In UTC whatever the session's time zone, which the query may depend on.
        naive, aware = _EXACT["timestamp"], _EXACT["timestamptz"]
        return _Form(aware, naive, "{} AT TIME ZONE interval '0'", lambda a: a.view(aware))
    type_ = _decimal(modifier) if name == "numeric" else _EXACT.get(name, pa.string())
    if pa.types.is_decimal256(type_):
        return _Form(type_, pa.string(), finish=lambda a: a.cast(type_))
    return _Form(type_, type_)


def _element(name: str, modifier: int) -> Any:
    """Return what an element of an array becomes; None where the array becomes text."""
    if name == "numeric":
        return _decimal(modifier)
    return pa.string() if name in _TEXTS else _EXACT.get(name)


def _decimal(modifier: int) -> Any:
    """Return the decimal of a `numeric(precision, scale)`; text without them, or of more digits."""
    if modifier < 0:
        return pa.string()
    precision, scale = modifier - 4 >> 16, ((modifier - 4 & 0x7FF) ^ 1024) - 1024
    digits, scale = max(precision, scale, precision - scale), max(scale, 0)
    if digits > _MOST_DIGITS:
        return pa.string()
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def _parse(block: bytes | memoryview, types: Sequence[Any]) -> Any:
    names = [str(number) for number in range(len(types))]
    column_types = dict(zip(names, types, strict=True))
    if not block:
        return pa.schema(column_types.items()).empty_table()
    return pa_csv.read_csv(
        pa.py_buffer(block),
        # One block: the lines are whole, and may hold line breaks.
        pa_csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
        pa_csv.ParseOptions(ignore_empty_lines=False),
        pa_csv.ConvertOptions(
            column_types=column_types,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )


def _unhexed(texts: Any) -> Any:
    """Return an array of hexadecimal text as the bytes, all of them decoded at once."""
    validity, offsets, data = texts.buffers()
    ends = pa.Array.from_buffers(pa.int32(), len(texts) + 1, [None, offsets])
    used = memoryview(data)[: ends[-1].as_py()] if data else b""
    halves = pc.shift_right(ends, pa.scalar(1, pa.int32())).buffers()[1]
    raw = pa.py_buffer(binascii.unhexlify(used))
    return pa.Array.from_buffers(pa.binary(), len(texts), [validity, halves, raw])


def _lists_of(element: Any) -> Finish:
    def lists(texts: Any) -> Any:
        starts: list[int | None] = []
        values: list[Any] = []
        for text in texts.to_pylist():
            starts.append(None if text is None else len(values))
            if text is not None:
                # Numbers stay text, so that no digit is lost.
                values += json.loads(text, parse_float=str, parse_int=str)
        starts.append(len(values))
        return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), _array(values, element))

    return lists


def _array(values: Sequence[Any], element: Any) -> Any:
    if any(isinstance(value, list) for value in values):
        raise ValueError("an array of several dimensions has the value '{{…}}'")
    if pa.types.is_string(element) or pa.types.is_boolean(element):
        return pa.array(values, element)
    if pa.types.is_decimal256(element):
        return pa.array(values, pa.string()).cast(element)
    lines = "".join("\n" if value is None else f'"{value}"\n' for value in values)
    return _parse(lines.encode(), [element]).column(0).combine_chunks()


def _distinct(names: Iterable[str]) -> list[str]:
    wanted = list(names)
    taken = set(wanted)
    found: list[str] = []
    for name in wanted:
        distinct, number = name, 1
        while distinct in found or (number > 1 and distinct in taken):
            number += 1
            distinct = f"{name}_{number}"
        found.append(distinct)
    return found
