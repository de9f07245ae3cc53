"""Find out how an item can be divided, and divide it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from psycopg import sql

from datasources import DataFetchError, OptionError
from datasources_postgresql.arrow import layout_of
from datasources_postgresql.guard import Statement
from datasources_postgresql.identifiers import TableName
from datasources_postgresql.options import PostgreSQLOptions
from datasources_postgresql.reading import Transaction
from datasources_postgresql.resolving import ReadQuery, resolve

# The tables below a relation, itself included. Rows are found by their block in tables of the access
# method heap only. A query of a leaf has the same rows as one of its parent if no policy of either
# filters them.
_TABLES = b"""
WITH RECURSIVE tree(oid, is_detaching) AS (
    SELECT %s::oid, false
  UNION
    SELECT i.inhrelid, i.inhdetachpending
    FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
SELECT c.oid, c.relkind::text, pg_catalog.pg_relation_filenode(c.oid),
    CASE WHEN am.amname = 'heap' THEN pg_catalog.pg_relation_size(c.oid)
        / pg_catalog.current_setting('block_size')::int8 END,
    c.reltuples,
    NOT tree.is_detaching AND NOT pg_catalog.row_security_active(c.oid)
        AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
        AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
FROM tree
JOIN pg_catalog.pg_class c ON c.oid = tree.oid
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
ORDER BY c.oid
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an item; `description` is `Split.part`, and empty for the whole item."""

    description: dict[str, Any]
    rows: int | None = None
    bytes: int | None = None


WHOLE = Part({})


@dataclass(frozen=True, slots=True)
class Table:
    """One table of an item, as the catalog has it."""

    oid: int
    kind: str
    file: int | None
    """The number of its file, which changes when the table is rewritten or truncated."""
    blocks: int | None
    """Blocks of its file; None if rows are not found by their block."""
    rows: float
    """The server's estimate; negative if it has none."""
    is_readable: bool
    """True if a query of the table itself has the rows that a query of its parent has of it."""


@dataclass(frozen=True, slots=True)
class Key:
    """The column whose ranges divide a query."""

    name: str
    type: str
    """Its type as SQL writes it."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The way in which an item can be divided: by blocks, by a key, or not at all."""

    query: ReadQuery
    schema: Any
    """`pyarrow.Schema` of the rows."""
    tables: Sequence[Table] = ()
    """The tables of an item that is divided by blocks."""
    key: Key | None = None
    """The key of an item that is divided by a key."""
    locks: Sequence[tuple[int, str, str, str, bool]] = ()
    """The relations that reading locks, as `Transaction.locks` gives them, but for the tables below
    a table."""

    @property
    def item(self) -> str:
        """A mark of the item, which a reader compares; see `item_mark`."""
        return item_mark(self.query, self.schema)

    @property
    def is_divisible(self) -> bool:
        """True if the item has more than one part."""
        return bool(self.tables) or self.key is not None

    def names(self) -> list[tuple[str, str]]:
        """Return schema and name of each relation that LOCK TABLE takes from this role."""
        return [
            (schema, name)
            for _, schema, name, kind, allowed in self.locks
            if allowed and kind != "m"
        ]

    def is_kept_by(self, locked: Iterable[int]) -> bool:
        """Return True if a transaction had locked all that is read, before its snapshot.

        LOCK TABLE takes no materialised view. None is needed: REFRESH writes rows that every
        snapshot sees, whatever its age, and the transaction has locked the view by now.

        Args:
            locked: Object ids of the relations that were locked before the snapshot.
        """
        needed = {oid for oid, _, _, kind, _ in self.locks if kind != "m"}
        needed |= {table.oid for table in self.tables if table.kind != "m"}
        return needed <= set(locked)


def item_mark(query: ReadQuery, schema: Any) -> str:
    """Return a text that differs for another table of the same name, and for other columns.

    Args:
        query: The query of the item.
        schema: `pyarrow.Schema` of all its columns.
    """
    columns = [(field.name, field.metadata) for field in schema]
    return hashlib.sha256(repr((query.oid, columns)).encode()).hexdigest()[:16]


async def outline_of(
    t: Transaction, target: TableName | Statement, options: PostgreSQLOptions, key: str | None
) -> Outline:
    """Return how an item can be divided, as this transaction sees it.

    Raises:
        DataFetchError: The item is no query, such as EXPLAIN.
        OptionError: There is no column `key`.
    """
    query, columns = await resolve(t, target, options)
    if query.kind != "select":
        raise DataFetchError("only what a SELECT returns has splits")
    schema = (await layout_of(t, (query.text, query.kind), columns)).schema
    column = next((column for column in columns if column.name == key), None)
    if key is not None and column is None:
        names = ", ".join(repr(column.name) for column in columns)
        raise OptionError(f"there is no column {key!r} to split by; the columns are {names}")
    if query.relkind in {"r", "p", "m"}:
        tables = [Table(*row) for row in await t.execute(_TABLES, [query.oid])]
        if _have_blocks(tables):
            locks = [lock for lock in await t.locks() if lock[0] == query.oid]
            return Outline(query, schema, tables, locks=locks)
    if column is not None:
        locks = await t.plan(query.text)
        # No lock that others respect keeps a materialised view or a foreign table as it is.
        if all(kind in {"r", "p", "v"} for *_, kind, _ in locks):
            (type_,) = await t.type_names([column])
            return Outline(query, schema, key=Key(column.name, type_), locks=locks)
    return Outline(query, schema)


def _have_blocks(tables: Sequence[Table]) -> bool:
    return all(table.is_readable for table in tables) and all(
        table.kind in {"r", "m"} and table.blocks is not None
        for table in tables
        if table.kind != "p"
    )


async def parts_of(
    t: Transaction, outline: Outline, target_bytes: int, max_splits: int
) -> list[Part]:
    """Return the parts of an item, which together are the item."""
    if outline.key is not None:
        return await _ranges_of_key(t, outline.query.text, outline.key, target_bytes, max_splits)
    if not outline.tables:
        return [WHOLE]
    ((size,),) = await t.execute(b"SELECT pg_catalog.current_setting('block_size')::int4")
    blocks = sum(table.blocks or 0 for table in outline.tables)
    limit = max(1, target_bytes // size, math.ceil(blocks / max_splits))
    parts = [_blocks_part(ranges, size) for ranges in _packed(outline.tables, limit)]
    return parts or [Part({"blocks": []}, 0, 0)]


def _packed(tables: Iterable[Table], limit: int) -> Iterator[list[tuple[Table, int, int | None]]]:
    """Yield lists of ranges of blocks that have `limit` blocks together; the last one may have less.

    A range is a table, its first block and the block after its last one; None is the end, wherever
    that is.
    """
    ranges: list[tuple[Table, int, int | None]] = []
    room = limit
    for table in tables:
        first, blocks = 0, table.blocks or 0
        while first < blocks:
            count = min(room, blocks - first)
            first += count
            room -= count
            ranges.append((table, first - count, first if first < blocks else None))
            if room == 0:
                yield ranges
                ranges, room = [], limit
    if ranges:
        yield ranges


def _blocks_part(ranges: Sequence[tuple[Table, int, int | None]], block_size: int) -> Part:
    blocks = rows = 0.0
    is_known = True
    for table, first, end in ranges:
        count = (end or table.blocks or 0) - first
        blocks += count
        is_known = is_known and table.rows >= 0
        rows += table.rows * count / max(1, table.blocks or 0)
    description = {"blocks": [[table.oid, table.file, first, end] for table, first, end in ranges]}
    return Part(description, round(rows) if is_known else None, round(blocks) * block_size)


async def _ranges_of_key(
    t: Transaction, text: str, key: Key, target_bytes: int, max_splits: int
) -> list[Part]:
    """Divide a query where its rows, in order of the key, have about as many bytes on each side."""
    shares = ", ".join(repr(number / max_splits) for number in range(1, max_splits))
    query = sql.SQL(
        "SELECT pg_catalog.count(*), pg_catalog.sum(pg_catalog.pg_column_size(q.*)),"
        " (pg_catalog.percentile_disc({shares}::pg_catalog.float8[])"
        " WITHIN GROUP (ORDER BY q.{key}))::pg_catalog.text[] FROM (\n{text}\n) AS q"
    ).format(shares=sql.Literal(f"{{{shares}}}"), key=sql.Identifier(key.name), text=sql.SQL(text))
    ((rows, size, bounds),) = await t.fetch_all(query.as_string(), jit=False)
    count = min(max_splits, math.ceil((size or 0) / target_bytes))
    chosen = [bounds[number * max_splits // count - 1] for number in range(1, count)]
    ends = [None, *dict.fromkeys(bound for bound in chosen if bound is not None), None]
    share = max(1, len(ends) - 1)
    return [
        Part(
            {"key": key.name, "type": key.type, "from": first, "to": end},
            rows // share,
            (size or 0) // share,
        )
        for first, end in pairwise(ends)
    ]
