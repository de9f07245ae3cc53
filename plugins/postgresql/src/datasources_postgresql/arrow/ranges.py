"""Read the rows of a table as arrays: of each range of its blocks, an array of each column.

psycopg hands a COPY over row by row, which takes longer than all the rest where rows are short. A row
of arrays has the values of thousands. Only tables whose columns have few bytes are read in this way:
of text, the server takes longer to make arrays than this saves.

One statement reads all ranges, so they are of one snapshot. A range bounds what the server and this
process hold of a table at once: a block has at most some hundred rows, however short they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from datasources_postgresql.copying import Rows
from datasources_postgresql.reading import Column, Transaction

_BLOCKS = 128  # of a range: more rows than pay for the row of arrays, few enough for the cache
_FEWEST_BLOCKS = 512  # of a table that is read as arrays
_LAST_BLOCK = (1 << 32) - 1  # that a table can have
# Rows are found by their block since PostgreSQL 14, in tables of the access method heap. A policy
# would be applied to each row before its block is looked at.
_TABLE = b"""
SELECT n.nspname, c.relname, pg_catalog.pg_relation_size(c.oid)
    / pg_catalog.current_setting('block_size')::int8
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_am am ON am.oid = c.relam
WHERE c.oid = %s AND c.relkind IN ('r', 'm') AND am.amname = 'heap'
    AND NOT pg_catalog.row_security_active(c.oid)
    AND pg_catalog.current_setting('server_version_num')::int4 >= 140000
    AND NOT (%s AND c.relhassubclass)
"""


@dataclass(frozen=True, slots=True)
class BlockRange:
    """Blocks of one table."""

    schema: str
    name: str
    first: int
    blocks: int
    """Number of blocks."""
    is_open: bool
    """True if the range has what was added to the end of the table since, too."""

    def query(self, columns: Sequence[Column], layout: Any) -> str:
        """Return the query of the range that has a row of arrays for each part of it."""
        end = self.first + self.blocks
        part = sql.SQL(
            "SELECT {columns} FROM ONLY {table} AS t"
            " WHERE t.ctid OPERATOR(pg_catalog.>=) pg_catalog.format('(%s,0)', r.first)::pg_catalog.tid"
            " AND t.ctid OPERATOR(pg_catalog.<) pg_catalog.format('(%s,0)', CASE"
            " WHEN r.first OPERATOR(pg_catalog.<) {last} THEN r.first OPERATOR(pg_catalog.+) {step}"
            " ELSE {end} END)::pg_catalog.tid"
        ).format(
            columns=sql.SQL(", ").join(sql.Identifier("t", column.name) for column in columns),
            table=sql.Identifier(self.schema, self.name),
            last=sql.Literal(end - _BLOCKS),
            step=sql.Literal(_BLOCKS),
            end=sql.Literal(_LAST_BLOCK if self.is_open else end),
        )
        return (
            f"SELECT a.* FROM pg_catalog.generate_series({self.first}::pg_catalog.int8, {end - 1},"  # noqa: S608
            f" {_BLOCKS}) AS r(first) CROSS JOIN LATERAL (\n"
            f"{layout.array_query(part.as_string())}\n) AS a"
        )


async def whole_table(t: Transaction, oid: int) -> BlockRange | None:
    """Return all blocks of a table; None if it is small, or not to be read by its blocks."""
    return await block_range(t, oid, 0, None, only=False)


async def block_range(
    t: Transaction, oid: int, first: int, end: int | None, *, only: bool = True
) -> BlockRange | None:
    """Return blocks of a table; None if they are few, or not to be read by their numbers.

    Args:
        t: A transaction that has locked the table.
        oid: Object id of the table; 0 is none.
        first: The first block.
        end: The block after the last one; None is the end of the table.
        only: False if the rows of the tables that inherit from this one are to be read as well.
    """
    rows = await t.execute(_TABLE, [oid, not only]) if oid else []
    if not rows:
        return None
    schema, name, size = rows[0]
    blocks = (size if end is None else end) - first
    if blocks < _FEWEST_BLOCKS:
        return None
    return BlockRange(schema, name, first, blocks, end is None)


async def copy_range(
    t: Transaction,
    blocks: BlockRange,
    columns: Sequence[Column],
    layout: Any,
    add: Callable[[Any], None],
) -> int:
    """Pass the rows of a range to `add`, as `pyarrow.Table`, in a worker thread; return their number.

    Args:
        t: The transaction, which has authorized a query of the table.
        blocks: The range.
        columns: All columns of the table.
        layout: The `Layout` of these columns, which has arrays.
        add: Called with a table for each part of the range that has rows.
    """
    count = 0

    def add_rows(rows: Rows) -> None:
        nonlocal count
        for table in layout.array_tables(rows):
            count += table.num_rows
            add(table)

    await t.copy_arrays(blocks.query(columns, layout), add_rows)
    return count
