"""Read a statement's rows as a Parquet file or an Arrow table; pyarrow is imported on first use."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from datasources import DataFetchError, Limits, WorkspaceFile, run_in_thread
from datasources_postgresql.arrow.ranges import copy_range, whole_table
from datasources_postgresql.copying import Rows
from datasources_postgresql.reading import Column, Transaction, limited
from datasources_postgresql.resolving import ReadQuery

_BLOCK = 1 << 20  # bytes of rows that are decoded at once
_IN_MEMORY = 1 << 30  # bytes of Arrow data that `load_table` holds at most


class _RowConsumer(Protocol):
    """Receives rows in a worker thread: `ParquetEncoder` or `TableBuilder`."""

    def add(self, rows: Rows) -> None: ...

    def add_table(self, table: Any) -> None: ...


async def import_arrow() -> Any:
    """Import the module that needs pyarrow, in a thread because it takes long, and return it.

    Raises:
        DataFetchError: pyarrow or numpy is not installed.
    """
    try:
        return await run_in_thread(import_module, "datasources_postgresql.arrow.arrow")
    except ImportError as exc:
        raise DataFetchError(
            "Parquet and Arrow need pyarrow and numpy; pip install 'datasources-postgresql[arrow]'"
        ) from exc


async def write_parquet(
    t: Transaction,
    query: ReadQuery,
    columns: Sequence[Column],
    file: WorkspaceFile,
    limits: Limits,
) -> None:
    """Write the rows of a table or a statement to a Parquet file.

    Args:
        t: The transaction that has authorized the query.
        query: The query.
        columns: Its columns.
        file: The file to write; its `rows` and `truncated` are set.
        limits: `max_rows` is the number of rows to write, `max_bytes` the most that one row may
        have.
    """
    arrow = await import_arrow()
    layout = await layout_of(t, (query.text, query.kind), columns)
    loop = asyncio.get_running_loop()

    async def put(piece: bytes) -> None:
        file.write(piece)

    def write(piece: bytes) -> None:
        asyncio.run_coroutine_threadsafe(put(piece), loop).result()

    encoder = await run_in_thread(arrow.ParquetEncoder, layout, write)
    file.rows, file.truncated = await _feed(
        t, query, columns, layout, encoder, limits.max_rows, limits.max_bytes
    )
    await run_in_thread(encoder.finish)


async def load_table(
    t: Transaction, query: ReadQuery, columns: Sequence[Column], max_rows: int | None
) -> Any:
    """Return the rows of a table or a statement, or the first `max_rows`, as a `pyarrow.Table`.

    Raises:
        LimitExceededError: The table has more than 1 GiB.
    """
    arrow = await import_arrow()
    layout = await layout_of(t, (query.text, query.kind), columns)
    builder = arrow.TableBuilder(layout, _IN_MEMORY)
    await _feed(t, query, columns, layout, builder, max_rows, _IN_MEMORY)
    return builder.table()


async def layout_of(t: Transaction, statement: tuple[str, str], columns: Sequence[Column]) -> Any:
    """Return the `Layout` of a statement's rows, given its text and kind, and its columns.

    Raises:
        DataFetchError: The rows have no form in Arrow, or pyarrow is missing.
    """
    arrow = await import_arrow()
    _, kind = statement
    if kind == "other":
        raise DataFetchError("only what a SELECT returns can be Parquet or Arrow; possible: csv")
    if not columns:
        raise DataFetchError("a result without columns cannot be Parquet or Arrow")
    types = await t.type_names(columns)
    if kind != "select":
        return arrow.Layout(columns, types)
    return arrow.Layout(columns, types, await t.output_functions(columns))


async def _feed(
    t: Transaction,
    query: ReadQuery,
    columns: Sequence[Column],
    layout: Any,
    consumer: _RowConsumer,
    max_rows: int | None,
    max_row: int | None,
) -> tuple[int, bool]:
    """Pass the rows of a query to `consumer`; return their number, and True if there were more."""
    if query.kind != "select":  # EXPLAIN and SHOW
        (_, *rows), truncated = await t.fetch_texts(query.text, max_rows)
        await run_in_thread(lambda: consumer.add_table(layout.text_table(rows)))
        return len(rows), truncated
    if max_rows is None and layout.has_arrays and (blocks := await whole_table(t, query.oid)):
        return await copy_range(t, blocks, columns, layout, consumer.add_table), False
    text = query.text if max_rows is None else limited(query.text, max_rows + 1)
    return await t.copy_rows(layout.query(text), consumer.add, _BLOCK, max_rows, max_row)
