"""Show the first rows of a Parquet file, with values as Python has them or as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar

from datasources.errors import ConnectorError, DataFetchError
from datasources.models import ColumnStatistics, Preview

_MAGIC = (b"PAR1", b"PARE")  # the second one has an encrypted footer
_EXTENSIONS = (".parquet", ".pq", ".parq")
_BUFFER = 64 * 1024  # bytes read at once of each column
_MAX_PREFETCH = 64 * 1024 * 1024  # bytes of all columns
_MAX_GAP = 64 * 1024  # bytes between two ranges that are read together

T = TypeVar("T")

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

    def show(source: Any) -> Preview:
        if prefetch is not None:
            prefetch(_first_ranges(source.metadata))
        return _first_rows(source, rows)

    return _read(file, name, "a preview", show)


def parquet_statistics(file: BinaryIO, name: str) -> dict[str, ColumnStatistics]:
    """Return the figures of a Parquet file's numeric columns from its footer, by column.

    A column whose writer left no figures is missing. The mean is unknown, as no footer has one.
    This blocks; call it in a thread.

    Args:
        file: A file that can seek; the end of it is read.
        name: Its name, for messages.

    Raises:
        DataFetchError: It is not Parquet, is damaged or encrypted, or pyarrow is not installed.
        ConnectorError: As reading the file raises it.
    """
    return _read(file, name, "a statistic", _footer_statistics)


def _read(file: BinaryIO, name: str, what: str, read: Callable[[Any], T]) -> T:
    """Call `read` with an open `pyarrow.parquet.ParquetFile`."""
    try:
        from pyarrow import parquet
    except ImportError as exc:
        raise DataFetchError(
            f"{what} of {name!r} needs pyarrow; pip install 'datasources[parquet]'"
        ) from exc
    try:
        return read(parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False))
    except ConnectorError:
        raise
    except Exception as exc:  # pyarrow raises OSError, ValueError and others for damaged files
        reason = str(exc).partition("\n")[0] or type(exc).__name__
        raise DataFetchError(f"{name!r} cannot be read as Parquet: {reason}") from exc


def _footer_statistics(source: Any) -> dict[str, ColumnStatistics]:
    metadata = source.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    numeric = {field.name for field in source.schema_arrow if _is_numeric(field.type)}
    results: dict[str, ColumnStatistics] = {}
    for number in range(metadata.num_columns):
        name = metadata.schema.column(number).path  # of a nested one, with dots
        chunks = [group.column(number).statistics for group in groups if group.num_rows]
        if name in numeric and (figures := _column_statistics(metadata.num_rows, chunks)):
            results[name] = figures
    return results


def _column_statistics(rows: int, chunks: Sequence[Any]) -> ColumnStatistics | None:
    """Return the figures of a column from those of its row groups; None if one has none."""
    if any(chunk is None or not chunk.has_null_count for chunk in chunks):
        return None
    if any(not chunk.has_min_max and chunk.num_values for chunk in chunks):
        return None
    nulls = sum(chunk.null_count for chunk in chunks)
    ranges = [(chunk.min, chunk.max) for chunk in chunks if chunk.has_min_max]
    least = min((low for low, _ in ranges), default=None)
    greatest = max((high for _, high in ranges), default=None)
    return ColumnStatistics(rows - nulls, nulls, least, greatest, None)


def _is_numeric(type_: Any) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(is_type(type_) for is_type in checks)


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

    if getattr(column.type, "unit", None) == "ns":
        try:
            return list(column.cast(_in_microseconds(column.type)).to_pylist())
        except (pa.ArrowException, ValueError, OverflowError):
            return [_text(scalar) for scalar in column]
    if _has_nanoseconds(column.type):
        return [_value(scalar) for scalar in column]
    try:
        return list(column.to_pylist())
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return [_value(scalar) for scalar in column]


def _has_nanoseconds(type_: Any) -> bool:
    """Return True if values have times that pyarrow gives in types of pandas, or refuses to give."""
    inner = [type_.field(number).type for number in range(type_.num_fields)]
    inner += [
        getattr(type_, name) for name in ("value_type", "storage_type") if hasattr(type_, name)
    ]
    return getattr(type_, "unit", None) == "ns" or any(map(_has_nanoseconds, inner))


def _in_microseconds(type_: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", type_.tz)
    return pa.duration("us") if pa.types.is_duration(type_) else pa.time64("us")


def _value(scalar: Any) -> Any:
    import pyarrow as pa

    if getattr(scalar.type, "unit", None) == "ns":
        try:
            return scalar.cast(_in_microseconds(scalar.type)).as_py()
        except (pa.ArrowException, ValueError, OverflowError):
            return _text(scalar)
    if not (scalar.is_valid and _has_nanoseconds(scalar.type)):
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
