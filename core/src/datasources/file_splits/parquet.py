"""Read row groups of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from datasources.errors import DataFetchError
from datasources.file_splits.files import (
    Piece,
    PinnedFile,
    other_columns,
    other_types,
    reading,
)

_BATCH = 4 << 20  # bytes of a batch of rows, as far as the footer and the batch before tell them
_FIRST_ROWS, _MAX_ROWS = 256, 64 * 1024  # of a batch
_GROWTH = 8  # times as many rows, at most, as in the batch before
_MIN_BUFFER, _MAX_BUFFER = 64 << 10, 4 << 20  # bytes read at once of each column
_BUFFERS = 32 << 20  # bytes of the buffers of all columns


def outline_parquet(file: PinnedFile, path: str) -> tuple[Any, list[Piece]]:
    """Return the schema in a footer, and a piece for each row group.

    Raises:
        DataFetchError: It is no Parquet, or two columns have one name.
    """
    with reading(path, "Parquet"):
        source = parquet.ParquetFile(file, pre_buffer=False)
        metadata, schema = source.metadata, source.schema_arrow.remove_metadata()
        if len(set(schema.names)) < len(schema.names):
            raise DataFetchError(f"{path!r} has several columns of one name, and so no splits")
        pieces = []
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            size = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
            pieces.append(Piece(size, group.num_rows, {"groups": [number, number + 1]}))
    return schema, pieces


def read_groups(
    file: PinnedFile,
    path: str,
    groups: Sequence[int] | None,
    schema: Any,
    names: Sequence[str],
) -> Iterator[Any]:
    """Yield the rows of row groups as batches of a schema; only its columns are read.

    Args:
        file: The file.
        path: Its name.
        groups: The first row group, and the one after the last; None for all.
        schema: Columns of the file.
        names: All columns of the file.

    Raises:
        DataFetchError: It is no Parquet, does not have these columns, or has values that their types
            do not hold.
    """
    with reading(path, "Parquet"):
        metadata = parquet.read_metadata(file)
        first, end = groups or (0, metadata.num_row_groups)
        buffer = _BUFFERS // max(1, len(schema.names))
        source = parquet.ParquetFile(
            file,
            metadata=metadata,
            pre_buffer=False,
            buffer_size=max(_MIN_BUFFER, min(_MAX_BUFFER, buffer)),
        )
        if set(names) != set(source.schema_arrow.names):
            raise other_columns(path)
        rows = _FIRST_ROWS
        for number in range(first, end):
            group = metadata.row_group(number)
            width = max(1, group.total_byte_size // max(1, group.num_rows))
            rows = max(1, min(rows, _BATCH // width))
            batches = source.iter_batches(rows, [number], schema.names, use_threads=False)
            for batch in batches:
                yield from _as(schema, batch, path)
                rows = _rows_after(batch, rows)
                source.reader.set_batch_size(rows)  # holds from the next batch on


def _rows_after(batch: Any, rows: int) -> int:
    """Return the rows to read after a batch of as many, by the bytes that they have in memory.

    The footer tells the bytes in the file: of values that are often repeated, these are far fewer.
    """
    width: int = max(1, batch.nbytes // max(1, batch.num_rows))
    return max(1, min(_MAX_ROWS, _GROWTH * rows, _BATCH // width))


def _as(schema: Any, batch: Any, path: str) -> Iterator[Any]:
    chosen = batch.select(schema.names)
    if chosen.schema == schema:
        yield chosen
        return
    table = pa.Table.from_batches([chosen])
    try:
        converted = table.cast(schema)
        kept = all(map(_keeps_values, table.columns, converted.columns))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise other_types(path) from exc
    if not kept:
        raise other_types(path)
    yield from converted.to_batches()


def _keeps_values(column: Any, converted: Any) -> bool:
    """Return True if a column is the same again when it is converted back.

    pyarrow converts `007` to 7, every number but 0 to true, and a time to its date.
    """
    if column.type == converted.type:
        return True
    if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(converted.type):
        return (column.type.tz is None) == (converted.type.tz is None)
    back = converted.cast(column.type)
    if pa.types.is_floating(column.type):  # NaN is not equal to itself
        column, back = (pc.if_else(pc.is_nan(each), None, each) for each in (column, back))
    return bool(back.equals(column))
