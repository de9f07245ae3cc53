"""Results as Arrow and Parquet: what each type of the server becomes.  Needs pyarrow, numpy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from psycopg import adapters

from datasources import DataFetchError, LimitExceededError
from datasources_postgresql.arrow import binary
from datasources_postgresql.copying import Rows
from datasources_postgresql.reading import Column

_ROW_GROUP = 12 << 20  # bytes of Arrow written as one row group
_ROWS = 1 << 20  # rows of one at most
_SAMPLE = 10_000  # rows that tell whether a column repeats itself
_PIECE = 1 << 20  # bytes written to the workspace at once
_MOST_DIGITS = 76  # of a decimal256

_NUMBERS = {  # as Arrow has them, and as the server sends them
    "int2": (pa.int16(), ">i2"),
    "int4": (pa.int32(), ">i4"),
    "int8": (pa.int64(), ">i8"),
    "float4": (pa.float32(), ">f4"),
    "float8": (pa.float64(), ">f8"),
}
_TIMESTAMP, _TIMESTAMPTZ = pa.timestamp("us"), pa.timestamp("us", "UTC")
_TEXTS = ("text", "varchar", "bpchar", "json")  # sent as the text they are


@dataclass(frozen=True, slots=True)
class _Form:
    """How one column travels."""

    arrow: Any
    """The type it becomes."""
    decode: binary.Decode
    """What makes it of what is sent."""
    width: int | None = None
    """Bytes of each value sent; None if they differ."""
    expression: Callable[[str], str] = str
    """What the server is asked for."""


_EXACT = {
    **{
        name: _Form(type_, binary.plain(type_, kind), type_.bit_width // 8)
        for name, (type_, kind) in _NUMBERS.items()
    },
    "bool": _Form(pa.bool_(), binary.booleans, 1),
    "date": _Form(pa.date32(), binary.dates, 4),
    "time": _Form(pa.time64("us"), binary.times, 8),
    "timestamp": _Form(_TIMESTAMP, binary.timestamps(_TIMESTAMP), 8),
    # In UTC whatever the session's time zone, which the query may depend on.
    "timestamptz": _Form(_TIMESTAMPTZ, binary.timestamps(_TIMESTAMPTZ), 8),
    "bytea": _Form(pa.binary(), binary.blobs),
    **dict.fromkeys(_TEXTS, _Form(pa.string(), binary.texts)),
}
_ELEMENTS = {
    **{name: form.arrow for name, form in _EXACT.items() if name not in {"bytea", "json"}},
    "uuid": pa.string(),
}


class Layout:
    """The columns of one result: what to ask the server for, and how to read its answer.

    Of two columns of one name, the second is `name_2`: few readers of Parquet take such twins.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        types: Sequence[str],
        outputs: Sequence[str | None] | None = None,
    ) -> None:
        """Take columns, their types' names and output functions; without those, all is text."""
        if outputs is None:
            self._forms = [_EXACT["text"]] * len(columns)
        else:
            self._forms = [_form(*pair) for pair in zip(columns, outputs, strict=True)]
        self._names = _distinct(column.name for column in columns)
        self.schema = pa.schema(
            pa.field(name, form.arrow, metadata={"postgresql_type": type_})
            for name, form, type_ in zip(self._names, self._forms, types, strict=True)
        )

    def query(self, text: str) -> str:
        """Return the query whose rows `table` reads, for a query that has been parsed alone."""
        names = [f"c{number}" for number in range(len(self._forms))]
        columns = ", ".join(
            f"{form.expression(name)} AS {name}"
            for form, name in zip(self._forms, names, strict=True)
        )
        return f"SELECT {columns} FROM (\n{text}\n) AS q({', '.join(names)})"  # noqa: S608

    def table(self, rows: Rows) -> Any:
        """Return rows as a `pyarrow.Table`.

        Raises:
            DataFetchError: A value has no place in its column's type.
        """
        cells = binary.cells(rows, [form.width for form in self._forms])
        if not cells:
            return _joined([], self.schema)
        columns = [self._decoded(number, column) for number, column in enumerate(cells)]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def text_table(self, rows: Sequence[Sequence[bytes | None]]) -> Any:
        """Return rows that no COPY brought as a `pyarrow.Table` of text."""
        columns = [
            pa.array([None if value is None else value.decode() for value in values], pa.string())
            for values in zip(*rows, strict=True)
        ]
        if not rows:
            return _joined([], self.schema)
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _decoded(self, number: int, column: binary.Cells) -> Any:
        try:
            return self._forms[number].decode(column)
        except (pa.ArrowInvalid, ValueError) as exc:
            raise self._unfit(number, exc) from exc

    def _unfit(self, number: int, exc: Exception) -> DataFetchError:
        found = re.search(r"(?:string|value) '(.{1,60}?)'", str(exc))
        value = f"the value {found[1]!r}" if found else "a value"
        return DataFetchError(
            f"the column {self._names[number]!r} has {value} that {self.schema.field(number).type} "
            "cannot hold; CSV can, and so can Parquet once the query casts the column to text"
        )


class ParquetEncoder:
    """Turns rows into pieces of a Parquet file.  One thread at a time may use it.

    Args:
        layout: The columns.
        write: Takes each piece.
    """

    def __init__(self, layout: Layout, write: Callable[[bytes], object]) -> None:
        self._layout = layout
        self._schema = layout.schema
        self._write = write
        self._sink = _Sink()
        self._writer: Any = None
        self._tables: list[Any] = []
        self._size = self._rows = 0  # of those

    def add(self, rows: Rows) -> None:
        """Take rows."""
        self.add_table(self._layout.table(rows))

    def add_table(self, table: Any) -> None:
        """Take rows that are a table."""
        self._tables.append(table)
        self._size += table.nbytes
        self._rows += table.num_rows
        if self._size >= _ROW_GROUP or self._rows >= _ROWS:
            self._write_group()

    def finish(self) -> None:
        """Write the last pieces."""
        self._write_group()
        self._writer.close()
        self._flush()

    def _write_group(self) -> None:
        group = _joined(self._tables, self._schema)
        self._tables.clear()
        self._size = self._rows = 0
        if self._writer is None:
            file = pa.PythonFile(self._sink, mode="w")
            self._writer = pq.ParquetWriter(
                file,
                self._schema,
                use_dictionary=_repeating(group),
                compression="zstd",
                memory_pool=binary.MEMORY,
            )
        if group.num_rows:
            self._writer.write_table(group)
        self._flush()

    def _flush(self) -> None:
        for piece in self._sink.take():
            self._write(piece)


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
    """Gathers rows into one table.  One thread at a time may use it."""

    def __init__(self, layout: Layout, max_bytes: int) -> None:
        self._layout = layout
        self._max_bytes = max_bytes
        self._tables: list[Any] = []
        self._size = 0

    def add(self, rows: Rows) -> None:
        """Take rows.

        Raises:
            LimitExceededError: The table is larger than `max_bytes`.
        """
        self.add_table(self._layout.table(rows))

    def add_table(self, table: Any) -> None:
        """Do the same for rows that are a table."""
        self._tables.append(table)
        self._size += table.nbytes
        if self._size > self._max_bytes:
            raise LimitExceededError(
                f"the table has more than {self._max_bytes >> 20} MiB, too much to hold in memory; "
                "fetch it as a Parquet file"
            )

    def table(self) -> Any:
        """Return all of them."""
        return _joined(self._tables, self._layout.schema)


def _joined(tables: Sequence[Any], schema: Any) -> Any:
    # Not `schema.empty_table()`, which imports pandas if there is one.
    return pa.concat_tables([pa.Table.from_batches([], schema), *tables])


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


def _form(column: Column, output: str | None) -> _Form:
    info = adapters.types.get(column.type)
    if info is not None and column.type == info.oid:
        known = _numeric(column.modifier) if info.name == "numeric" else _EXACT.get(info.name)
        if known is not None:
            return known
    elif info is not None:
        element = _element(info.name, column.modifier)
        if element is not None:
            return _Form(pa.list_(element), _lists_of(element), expression=_as_json)
    return _Form(pa.string(), binary.texts, expression=_as_text(output))


def _as_json(name: str) -> str:
    return f"pg_catalog.array_to_json({name})"


def _as_text(output: str | None) -> Callable[[str], str]:
    """Ask for what the output function of a type writes: a cast to text may write something else.

    Where the role may not call it, `concat` does; NULL is nothing to that.
    """
    if output is not None:
        return lambda name: f"pg_catalog.textin({output}({name}))"
    return lambda name: (
        f"CASE pg_catalog.num_nulls({name}) WHEN 0 THEN pg_catalog.concat({name}) END"
    )


def _numeric(modifier: int) -> _Form | None:
    type_ = _decimal(modifier)
    if pa.types.is_string(type_):
        return None
    if type_.precision <= binary.MOST_DIGITS:
        return _Form(type_, binary.decimals(type_))
    as_text = _as_text("pg_catalog.numeric_out")
    return _Form(type_, lambda cells: binary.texts(cells).cast(type_), expression=as_text)


def _element(name: str, modifier: int) -> Any:
    """Return what an element of an array becomes; None where the array becomes text."""
    return _decimal(modifier) if name == "numeric" else _ELEMENTS.get(name)


def _decimal(modifier: int) -> Any:
    """Return the decimal of a `numeric(precision, scale)`; text without them, or of more digits."""
    if modifier < 0:
        return pa.string()
    precision, scale = modifier - 4 >> 16, ((modifier - 4 & 0x7FF) ^ 1024) - 1024
    digits, scale = max(precision, scale, precision - scale), max(scale, 0)
    if digits > _MOST_DIGITS:
        return pa.string()
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def _lists_of(element: Any) -> binary.Decode:
    def lists(cells: binary.Cells) -> Any:
        starts: list[int | None] = []
        values: list[Any] = []
        for text in binary.texts(cells).to_pylist():
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
    lines = "".join("\n" if value is None else f'"{value}"\n' for value in values).encode()
    return _parsed(lines, element) if lines else pa.array([], element)


def _parsed(lines: bytes, type_: Any) -> Any:
    table = pa_csv.read_csv(
        pa.py_buffer(lines),
        pa_csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=["value"]),
        pa_csv.ParseOptions(ignore_empty_lines=False),
        pa_csv.ConvertOptions(
            column_types={"value": type_},
            null_values=[""],
            quoted_strings_can_be_null=False,
        ),
    )
    return table.column(0).combine_chunks()


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
