"""Read one part of an item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from psycopg import sql

from datasources import DataFetchError
from datasources_postgresql.arrow import block_range, copy_range, layout_of
from datasources_postgresql.copying import Rows
from datasources_postgresql.guard import FunctionPolicy, Statement, parse_read, parse_statement
from datasources_postgresql.identifiers import TableName
from datasources_postgresql.options import PostgreSQLOptions
from datasources_postgresql.reading import Column, Transaction
from datasources_postgresql.resolving import resolve
from datasources_postgresql.splits.outline import item_mark

_BLOCK = 1 << 20  # bytes of rows that are decoded at once
# A table of an item, if it still belongs to it.
_TABLE = b"""
WITH RECURSIVE above(oid) AS (
    SELECT %s::oid
  UNION
    SELECT i.inhparent FROM above JOIN pg_catalog.pg_inherits i ON i.inhrelid = above.oid)
SELECT n.nspname, c.relname, pg_catalog.pg_relation_filenode(c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %s AND %s IN (SELECT oid FROM above)
"""


async def read_part(
    t: Transaction,
    target: TableName | Statement,
    part: dict[str, Any],
    columns: Sequence[str] | None,
    options: PostgreSQLOptions,
    add: Callable[[Any], None],
) -> None:
    """Pass the rows of a part to `add`, as `pyarrow.Table`, in a worker thread.

    Raises:
        OptionError: There is no such column.
        DataFetchError: The item or a table of it is not the one any more that was divided.
    """
    query, every_column = await resolve(t, target, options)
    layout = await layout_of(t, (query.text, query.kind), every_column)
    if item_mark(query, layout.schema) != part.get("item"):
        raise DataFetchError("the item is another table or has other columns since; plan again")
    if columns is not None:
        layout = layout.projected(columns)

    def add_rows(rows: Rows) -> None:
        add(layout.table(rows))

    async def copy(text: str) -> None:
        await t.copy_rows(layout.query(text), add_rows, _BLOCK, None, None)

    if "blocks" in part:
        for oid, file, first, end in part["blocks"]:
            planned = (query.oid, oid, file, first, end)
            text = await _authorized_range(t, planned, every_column)
            blocks = await block_range(t, oid, first, end) if layout.has_arrays else None
            if blocks is None:
                await copy(text)
            else:
                await copy_range(t, blocks, every_column, layout, add)
    elif "key" in part:
        text = _key_range(query.text, part)
        await t.authorize(await parse_statement(text, FunctionPolicy(options)))
        await copy(text)
    else:
        await copy(query.text)


async def _authorized_range(
    t: Transaction, planned: Sequence[Any], columns: Sequence[Column]
) -> str:
    """Return the query for a range of a table's blocks, which the transaction has authorized."""
    item, oid, file, first, end = planned
    rows = await t.execute(_TABLE, [oid, oid, item])
    changed = DataFetchError("a table of the split was rewritten or dropped since; plan again")
    if not rows or rows[0][2] != file:
        raise changed
    schema, name, _ = rows[0]
    text = (
        sql.SQL("SELECT {} FROM ONLY {}")
        .format(
            sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
            sql.Identifier(schema, name),
        )
        .as_string()
    )
    conditions = list(_conditions(first, end))
    if conditions:
        text += f" WHERE {' AND '.join(conditions)}"
    # The schema may have been renamed: no lock on the table prevents that.
    if any(column.table != oid for column in await t.authorize(parse_read(text), qualified=True)):
        raise changed
    return text


def _conditions(first: int, end: int | None) -> Iterator[str]:
    if first > 0:
        yield f"ctid OPERATOR(pg_catalog.>=) '({int(first)},0)'::pg_catalog.tid"
    if end is not None:
        yield f"ctid OPERATOR(pg_catalog.<) '({int(end)},0)'::pg_catalog.tid"


def _key_range(text: str, part: dict[str, Any]) -> str:
    """Return the query for the rows of a range of the key; the first range has those without one."""
    key = sql.Identifier("q", part["key"])

    def compared(operator: str, bound: str) -> sql.Composed:
        return sql.SQL("{} {} {}::{}").format(
            key, sql.SQL(operator), sql.Literal(bound), sql.SQL(part["type"])
        )

    first, end = part["from"], part["to"]
    conditions = []
    if first is not None:
        conditions.append(compared(">=", first))
    if end is not None:
        conditions.append(compared("<", end))
    where = sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true")
    if first is None and end is not None:
        where = sql.SQL("{} OR {} IS NULL").format(where, key)
    return sql.SQL("SELECT * FROM (\n{}\n) AS q WHERE {}").format(sql.SQL(text), where).as_string()
