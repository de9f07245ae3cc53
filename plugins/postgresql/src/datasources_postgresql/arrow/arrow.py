"""Convert rows of a binary COPY to Arrow tables and Parquet files; needs pyarrow and numpy.

A `Layout` gives each column of a result its Arrow type and its decoder. psycopg decodes cell by
cell in Python, and `adbc_driver_postgresql` needs a connection of its own, which would lack what
makes a connection of this package safe: the check of the role, the read-only transaction, the
locks and the cancellation. So the rows are decoded here, from the one guarded connection. It takes
about as long as ADBC does; the table of measurements is in the README.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from psycopg import adapters

from datasources import DataFetchError, LimitExceededError, OptionError
from datasources_postgresql.arrow import binary
from datasources_postgresql.copying import Rows
from datasources_postgresql.reading import Column

_ROW_GROUP = 12 << 20  # bytes of Arrow data that fill a row group
_ROW_GROUP_ROWS = 1 << 20  # rows that fill a row group, however few bytes they have
_SAMPLE_ROWS = 10_000  # rows inspected for repeated values
_PIECE = 1 << 20  # bytes written to the workspace at once
_OFFSET_WITH_SECONDS = re.compile(r"[+-]\d\d:\d\d:\d\d$")  # of zones in the past
_MOST_ARRAYS = 8  # columns; of more, the server takes longer to make arrays than to send rows
_MAX_DIGITS = 76  # precision of a decimal256, the widest type of Arrow

_NUMBERS = {  # Arrow type, and numpy type of the bytes that the server sends
    "int2": (pa.int16(), ">i2"),
    "int4": (pa.int32(), ">i4"),
    "int8": (pa.int64(), ">i8"),
    "float4": (pa.float32(), ">f4"),
    "float8": (pa.float64(), ">f8"),
}
_TIMESTAMP, _TIMESTAMPTZ = pa.timestamp("us"), pa.timestamp("us", "UTC")
_SENT_AS_TEXT = ("text", "varchar", "bpchar", "json")  # their binary format is their text


@dataclass(frozen=True, slots=True)
class _ColumnCodec:
    """Tell how one column is queried and decoded."""

    arrow: Any
    """Arrow type of the column."""
    decode: binary.Decode
    """Decodes the column's binary COPY cells to an Arrow array."""
    width: int | None = None
    """Bytes of each value that is sent; None if they differ."""
    expression: Callable[[str], str] = str
    """Returns the SQL expression to select for the name of a column."""


_CODECS = {
    **{
        name: _ColumnCodec(type_, binary.plain(type_, wire_type), type_.bit_width // 8)
        for name, (type_, wire_type) in _NUMBERS.items()
    },
    "bool": _ColumnCodec(pa.bool_(), binary.booleans, 1),
    "date": _ColumnCodec(pa.date32(), binary.dates, 4),
    "time": _ColumnCodec(pa.time64("us"), binary.times, 8),
    "timestamp": _ColumnCodec(_TIMESTAMP, binary.timestamps(_TIMESTAMP), 8),
    # In UTC whatever the session's time zone, which the query may depend on.
    "timestamptz": _ColumnCodec(_TIMESTAMPTZ, binary.timestamps(_TIMESTAMPTZ), 8),
    "bytea": _ColumnCodec(pa.binary(), binary.blobs),
    **dict.fromkeys(_SENT_AS_TEXT, _ColumnCodec(pa.string(), binary.texts)),
}
_ELEMENT_TYPES = {
    **{name: codec.arrow for name, codec in _CODECS.items() if name not in {"bytea", "json"}},
    "uuid": pa.string(),
}


class Layout:
    """Map the columns of one result to a query for the server and to an Arrow schema.

    The second of two columns of one name is called `name_2`, because few readers of Parquet accept
    two columns of one name.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        types: Sequence[str],
        outputs: Sequence[str | None] | None = None,
    ) -> None:
        """Choose a codec for each column.

        Args:
            columns: The columns.
            types: Name of each column's type, for the metadata of the schema.
            outputs: Output function of each column's type; None if every column is text already.
        """
        if outputs is None:
            self._codecs = [_CODECS["text"]] * len(columns)
        else:
            self._codecs = [_codec(*pair) for pair in zip(columns, outputs, strict=True)]
        self._names = _unique_names(column.name for column in columns)
        self._types = types
        self._chosen = list(range(len(columns)))
        """Numbers of the columns to read, in their order."""
        self.schema = self._schema()

    def projected(self, names: Sequence[str]) -> Self:
        """Return a layout of some columns, in the order of their names.

        Raises:
            OptionError: There is no such column.
        """
        if unknown := [name for name in names if name not in self._names]:
            raise OptionError(
                f"there is no column {unknown[0]!r}; the columns are "
                f"{', '.join(map(repr, self._names))}"
            )
        layout = copy.copy(self)
        layout._chosen = [self._names.index(name) for name in names]
        layout.schema = layout._schema()
        return layout

    def _schema(self) -> Any:
        return pa.schema(
            pa.field(
                self._names[number],
                self._codecs[number].arrow,
                metadata={"postgresql_type": self._types[number]},
            )
            for number in self._chosen
        )

    def query(self, text: str) -> str:
        """Return the query whose rows `table` decodes.

        Args:
            text: A query that the server has parsed alone, as one statement.
        """
        names = [f"c{number}" for number in range(len(self._codecs))]
        columns = ", ".join(
            f"{self._codecs[number].expression(names[number])} AS {names[number]}"
            for number in self._chosen
        )
        return f"SELECT {columns} FROM (\n{text}\n) AS q({', '.join(names)})"  # noqa: S608

    @property
    def has_arrays(self) -> bool:
        """True if `array_query` reads the columns: few, whose values have a fixed number of bytes."""
        widths = [self._codecs[number].width for number in self._chosen]
        return 0 < len(widths) <= _MOST_ARRAYS and None not in widths

    def array_query(self, text: str) -> str:
        """Return the query whose one row `array_tables` decodes: an array of each column's values.

        Args:
            text: As for `query`.
        """
        names = [f"c{number}" for number in range(len(self._codecs))]
        columns = ", ".join(
            f"pg_catalog.array_agg({names[number]}) AS {names[number]}" for number in self._chosen
        )
        return f"SELECT {columns} FROM (\n{text}\n) AS q({', '.join(names)})"  # noqa: S608

    def array_tables(self, rows: Rows) -> Iterator[Any]:
        """Yield the `pyarrow.Table` of each row of arrays that has elements.

        Raises:
            DataFetchError: A value has no place in its column's type.
        """
        columns = binary.cells(rows, [None] * len(self._chosen))
        for row in range(len(columns[0]) if columns else 0):
            if columns[0].lengths[row]:
                arrays = [
                    self._decode(number, self._elements(number, column, row))
                    for number, column in zip(self._chosen, columns, strict=True)
                ]
                yield pa.Table.from_arrays(arrays, schema=self.schema)

    def _elements(self, number: int, column: binary.Cells, row: int) -> binary.Cells:
        width = self._codecs[number].width
        assert width is not None  # of columns that have arrays
        return binary.elements(column, row, width)

    def table(self, rows: Rows) -> Any:
        """Return rows as a `pyarrow.Table`.

        Raises:
            DataFetchError: A value has no place in its column's type.
        """
        cells = binary.cells(rows, [self._codecs[number].width for number in self._chosen])
        if not cells:
            return _concatenated([], self.schema)
        columns = [
            self._decode(number, column) for number, column in zip(self._chosen, cells, strict=True)
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def text_table(self, rows: Sequence[Sequence[bytes | None]]) -> Any:
        """Return rows of EXPLAIN or SHOW, which COPY does not take, as a `pyarrow.Table` of text."""
        columns = [
            pa.array([None if value is None else value.decode() for value in values], pa.string())
            for values in zip(*rows, strict=True)
        ]
        if not rows:
            return _concatenated([], self.schema)
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _decode(self, number: int, column: binary.Cells) -> Any:
        try:
            return self._codecs[number].decode(column)
        except (pa.ArrowInvalid, ValueError) as exc:
            raise self._value_error(number, exc) from exc

    def _value_error(self, number: int, exc: Exception) -> DataFetchError:
        match = re.search(r"(?:string|value) '(.{1,60}?)'", str(exc))
        value = f"the value {match[1]!r}" if match else "a value"
        return DataFetchError(
            f"the column {self._names[number]!r} has {value} that {self.schema.field(number).type} "
            "cannot hold; CSV can, and so can Parquet once the query casts the column to text"
        )


class ParquetEncoder:
    """Encode rows as a Parquet file; one thread at a time may use it.

    Args:
        layout: The columns.
        write: Called with each piece of the file, in order.
    """

    def __init__(self, layout: Layout, write: Callable[[bytes], object]) -> None:
        self._layout = layout
        self._schema = layout.schema
        self._write = write
        self._sink = _Sink()
        self._writer: Any = None
        self._tables: list[Any] = []
        self._size = self._rows = 0  # bytes and rows of `_tables`

    def add(self, rows: Rows) -> None:
        """Decode and add rows."""
        self.add_table(self._layout.table(rows))

    def add_table(self, table: Any) -> None:
        """Add rows that are decoded already."""
        self._tables.append(table)
        self._size += table.nbytes
        self._rows += table.num_rows
        if self._size >= _ROW_GROUP or self._rows >= _ROW_GROUP_ROWS:
            self._write_group()

    def finish(self) -> None:
        """Write the last row group and the footer."""
        self._write_group()
        self._writer.close()
        self._flush()

    def _write_group(self) -> None:
        group = _concatenated(self._tables, self._schema)
        self._tables.clear()
        self._size = self._rows = 0
        if self._writer is None:
            file = pa.PythonFile(self._sink, mode="w")
            self._writer = pq.ParquetWriter(
                file,
                self._schema,
                use_dictionary=_dictionary_columns(group),
                compression="zstd",
                memory_pool=binary.MEMORY,
            )
        if group.num_rows:
            self._writer.write_table(group)
        self._flush()

    def _flush(self) -> None:
        for piece in self._sink.take():
            self._write(piece)


def _dictionary_columns(table: Any) -> list[str]:
    """Return the names of the columns to encode with a dictionary, judged by the first rows.

    Building the dictionary of a column whose values do not repeat takes longer than all the rest.
    """
    sample = table.slice(0, _SAMPLE_ROWS)
    return [
        field.name
        for field, column in zip(sample.schema, sample.columns, strict=True)
        if not pa.types.is_nested(field.type) and len(column.unique()) * 4 <= len(column)
    ]


class TableBuilder:
    """Collect rows in one table; one thread at a time may use it."""

    def __init__(self, layout: Layout, max_bytes: int) -> None:
        self._layout = layout
        self._max_bytes = max_bytes
        self._tables: list[Any] = []
        self._size = 0

    def add(self, rows: Rows) -> None:
        """Decode and add rows.

        Raises:
            LimitExceededError: The table is larger than `max_bytes`.
        """
        self.add_table(self._layout.table(rows))

    def add_table(self, table: Any) -> None:
        """Add rows that are decoded already; raises the same."""
        self._tables.append(table)
        self._size += table.nbytes
        if self._size > self._max_bytes:
            raise LimitExceededError(
                f"the table has more than {self._max_bytes >> 20} MiB, too much to hold in memory; "
                "fetch it as a Parquet file"
            )

    def table(self) -> Any:
        """Return all rows as one table."""
        return _concatenated(self._tables, self._layout.schema)


def _concatenated(tables: Sequence[Any], schema: Any) -> Any:
    # Not `schema.empty_table()`, which imports pandas if there is one.
    return pa.concat_tables([pa.Table.from_batches([], schema), *tables])


class _Sink:
    """A file object for Arrow, which holds what is written until `take` returns it."""

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
        written = b"".join(self._written)
        self._written.clear()
        return (written[start : start + _PIECE] for start in range(0, len(written), _PIECE))


def _codec(column: Column, output: str | None) -> _ColumnCodec:
    info = adapters.types.get(column.type)
    if info is not None and column.type == info.oid:
        is_numeric = info.name == "numeric"
        codec = _numeric_codec(column.modifier) if is_numeric else _CODECS.get(info.name)
        if codec is not None:
            return codec
    elif info is not None:
        element = _element_type(info.name, column.modifier)
        if element is not None:
            return _ColumnCodec(pa.list_(element), _list_decoder(element), expression=_as_json)
    return _ColumnCodec(pa.string(), binary.texts, expression=_as_text(output))


def _as_json(name: str) -> str:
    return f"pg_catalog.array_to_json({name})"


def _as_text(output: str | None) -> Callable[[str], str]:
    """Return an expression for the text that the output function of a type writes.

    A cast to text may write something else. Where a query cannot call the output function,
    `concat` calls it; `concat` would return an empty string for NULL, hence the CASE.
    """
    if output is not None:
        return lambda name: f"pg_catalog.textin({output}({name}))"
    return lambda name: (
        f"CASE pg_catalog.num_nulls({name}) WHEN 0 THEN pg_catalog.concat({name}) END"
    )


def _numeric_codec(modifier: int) -> _ColumnCodec | None:
    type_ = _decimal_type(modifier)
    if pa.types.is_string(type_):
        return None
    if type_.precision <= binary.MAX_DIGITS:
        return _ColumnCodec(type_, binary.decimals(type_))
    as_text = _as_text("pg_catalog.numeric_out")
    return _ColumnCodec(type_, lambda cells: binary.texts(cells).cast(type_), expression=as_text)


def _element_type(name: str, modifier: int) -> Any:
    """Return the Arrow type of an array's elements; None where the array becomes text."""
    return _decimal_type(modifier) if name == "numeric" else _ELEMENT_TYPES.get(name)


def _decimal_type(modifier: int) -> Any:
    """Return the Arrow type of a numeric: a decimal, or text if no decimal holds all its values.

    The modifier packs precision and scale as numeric_typmod_precision and numeric_typmod_scale in
    src/backend/utils/adt/numeric.c unpack them; it is negative for a numeric without a precision.
    """
    if modifier < 0:
        return pa.string()
    precision, scale = modifier - 4 >> 16, ((modifier - 4 & 0x7FF) ^ 1024) - 1024
    digits, scale = max(precision, scale, precision - scale), max(scale, 0)
    if digits > _MAX_DIGITS:
        return pa.string()
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def _list_decoder(element: Any) -> binary.Decode:
    def lists(cells: binary.Cells) -> Any:
        starts: list[int | None] = []
        values: list[Any] = []
        for text in binary.texts(cells).to_pylist():
            starts.append(None if text is None else len(values))
            if text is not None:
                # Numbers stay text, so that no digit is lost.
                values += json.loads(text, parse_float=str, parse_int=str)
        starts.append(len(values))
        return pa.ListArray.from_arrays(
            pa.array(starts, pa.int32()), _element_array(values, element)
        )

    return lists


def _element_array(values: Sequence[Any], element: Any) -> Any:
    if any(isinstance(value, list) for value in values):
        raise ValueError("an array of several dimensions has the value '{{…}}'")
    if pa.types.is_string(element) or pa.types.is_boolean(element):
        return pa.array(values, element)
    if pa.types.is_decimal256(element):
        return pa.array(values, pa.string()).cast(element)
    if pa.types.is_timestamp(element) and element.tz is not None:
        values = [_in_utc(value) for value in values]
    lines = "".join("\n" if value is None else f'"{value}"\n' for value in values).encode()
    return _parse_elements(lines, element) if lines else pa.array([], element)


def _in_utc(value: str | None) -> str | None:
    """Convert a time whose offset has seconds, which Arrow does not parse, to UTC."""
    if value is None or not _OFFSET_WITH_SECONDS.search(value):
        return value
    try:
        return dt.datetime.fromisoformat(value).astimezone(dt.UTC).isoformat()
    except (ValueError, OverflowError):
        raise ValueError(f"value '{value}'") from None


def _parse_elements(lines: bytes, type_: Any) -> Any:
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


def _unique_names(names: Iterable[str]) -> list[str]:
    original_names = list(names)
    reserved = set(original_names)
    unique_names: list[str] = []
    for name in original_names:
        unique, number = name, 1
        while unique in unique_names or (number > 1 and unique in reserved):
            number += 1
            unique = f"{name}_{number}"
        unique_names.append(unique)
    return unique_names
