"""Show the first rows of a Parquet file, with values as Python has them or as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from datasources.errors import ConnectorError, DataFetchError
from datasources.models import Preview

_MAGIC = (b"PAR1", b"PARE")  # the second one has an encrypted footer
_EXTENSIONS = (".parquet", ".pq", ".parq")
_BUFFER = 64 * 1024  # bytes read at once of each column
_MAX_PREFETCH = 64 * 1024 * 1024  # bytes of all columns
_MAX_GAP = 64 * 1024  # bytes between two ranges that are read together

Ranges = Sequence[tuple[int, int]]


def is_parquet(name: str, head: bytes = b"") -> bool:
    """Return True if a file is Parquet by its extension, or by its first four bytes."""
    return name.lower().endswith(_EXTENSIONS) or head.startswith(_MAGIC)


def preview_parquet(
    file: BinaryIO, name: str, rows: int = 10, *, prefetch: Callable[[Ranges], None] | None = None
) -> Preview:
    """Return the first rows of a Parquet file. This blocks; call it in a thread.

    Values have the types that `pyarrow` gives them. One that Python has no type for, such as a time
    with nanoseconds or a date after the year 9999, is text.

    Args:
        file: A file that can seek.
        name: Its name, for messages.
        rows: Rows at most.
        prefetch: Called once with the ranges of bytes, start and stop, that are read next, in
            order. A file whose reads are slow can read them at once.

    Raises:
        DataFetchError: It is not Parquet, is damaged or encrypted, or pyarrow is not installed.
        ConnectorError: As reading the file raises it.
    """
    try:
        from pyarrow import parquet
    except ImportError as exc:
        raise DataFetchError(
            f"a preview of {name!r} needs pyarrow; pip install 'datasources[parquet]'"
        ) from exc
    try:
        source = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
        if prefetch is not None:
            prefetch(_first_ranges(source.metadata))
        return _first_rows(source, rows)
    except ConnectorError:
        raise
    except Exception as exc:  # pyarrow raises OSError, ValueError and others for damaged files
        reason = str(exc).partition("\n")[0] or type(exc).__name__
        raise DataFetchError(f"{name!r} cannot be read as Parquet: {reason}") from exc


def _first_rows(source: Any, rows: int) -> Preview:
    columns = tuple(source.schema_arrow.names)
    values: list[tuple[Any, ...]] = []
    for batch in source.iter_batches(batch_size=rows + 1, use_threads=False):
        first_rows = batch.slice(0, rows - len(values))
        values += zip(*(_python_values(column) for column in first_rows.columns), strict=True)
        if len(values) >= rows:
            break
    return Preview(columns, values, truncated=source.metadata.num_rows > rows)


def _first_ranges(metadata: Any) -> Ranges:
    """Return the ranges of the first bytes of each column of the first row group with rows."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows:
            break
    else:
        return []
    size = min(_BUFFER, _MAX_PREFETCH // max(group.num_columns, 1))
    ranges: list[tuple[int, int]] = []
    for column in sorted(map(group.column, range(group.num_columns)), key=_start):
        start = _start(column)
        stop = start + min(size, column.total_compressed_size)
        if ranges and start - ranges[-1][1] <= _MAX_GAP:
            ranges[-1] = (ranges[-1][0], max(stop, ranges[-1][1]))
        else:
            ranges.append((start, stop))
    return ranges


def _start(column: Any) -> int:
    return int(min(filter(None, (column.dictionary_page_offset, column.data_page_offset))))


def _python_values(column: Any) -> list[Any]:
    """Return the values of a column, of one type if it is a column of times."""
    import pyarrow as pa

    unit = getattr(column.type, "unit", None)
    if unit == "ns":  # pyarrow gives them in types of pandas, or refuses them
        try:
            return list(column.cast(_in_microseconds(column.type)).to_pylist())
        except (pa.ArrowException, ValueError, OverflowError):
            return [_text(scalar) for scalar in column]
    try:
        return list(column.to_pylist())
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return [_value(scalar) for scalar in column]


def _in_microseconds(type_: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", type_.tz)
    return pa.duration("us") if pa.types.is_duration(type_) else pa.time64("us")


def _value(scalar: Any) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        pass
    if isinstance(scalar, pa.StructScalar):
        return {key: _value(value) for key, value in scalar.items()}
    if isinstance(scalar, (pa.ListScalar, pa.LargeListScalar, pa.FixedSizeListScalar)):
        return [_value(value) for value in scalar.values]
    if isinstance(scalar, (pa.DictionaryScalar, pa.ExtensionScalar)):
        return _value(scalar.value)
    return _text(scalar)


def _text(scalar: Any) -> str | None:
    """Return a scalar as text; bytes that are not UTF-8 are replaced."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    try:
        if pa.types.is_string(scalar.type) or pa.types.is_large_string(scalar.type):
            return bytes(scalar.as_buffer()).decode(errors="replace")
        text: str = scalar.cast(pa.string()).as_py()
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return f"<{scalar.type}>"
    return text
