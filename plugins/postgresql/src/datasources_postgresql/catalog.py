"""Queries of the system catalog about tables, views and schemas, one round trip each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasources import DataItem

_RELATION_KINDS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}

# Rows as the server estimates them, None if it does not know. Of a table with inheritance children,
# which a query of it reads too, those of all; an empty table that was never analysed has none.
_ESTIMATED_ROWS = b"""CASE WHEN c.relkind = 'r' AND c.relhassubclass THEN (
        WITH RECURSIVE tree(oid) AS (
            SELECT c.oid
          UNION
            SELECT i.inhrelid
            FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
        SELECT CASE WHEN pg_catalog.bool_and(part.rows IS NOT NULL)
            THEN pg_catalog.sum(part.rows)::bigint END
        FROM (
            SELECT CASE WHEN r.reltuples >= 0 THEN r.reltuples
                WHEN pg_catalog.pg_relation_size(r.oid) = 0 THEN 0 END
            FROM tree JOIN pg_catalog.pg_class r ON r.oid = tree.oid) AS part(rows))
    ELSE nullif(c.reltuples, -1)::bigint END"""

# Whether the server writes a name with its schema depends on the search path. This one-time filter,
# of a query whose own names have been looked up, sets the caller's path before any row is read.
_CALLERS_PATH = b"(SELECT pg_catalog.set_config('search_path', %s, true)) IS NOT NULL"

# All relations that the role may select from, in schemas that it may use.
TABLES = (
    b"""
SELECT n.nspname, c.relname, pg_catalog.format('%%I.%%I', n.nspname, c.relname),
    c.relkind::text, c.relispartition, """
    + _ESTIMATED_ROWS
    + b""",
    pg_catalog.obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND CASE WHEN %s::text[] = '{}'
        THEN n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        ELSE n.nspname = ANY (%s) END
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND (pg_catalog.has_table_privilege(c.oid, 'SELECT')
        OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT'))
ORDER BY n.nspname, c.relname
"""
)

SCHEMA = b"SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s"

# A relation by its name, in the first of some schemas that has one, as in a query.
RESOLVE = (
    b"""
SELECT c.oid, c.nspname, c.relname, pg_catalog.format('%%I.%%I', c.nspname, c.relname),
    c.relkind::text, """
    + _ESTIMATED_ROWS
    + b""", pg_catalog.has_table_privilege(c.oid, 'SELECT')
FROM (
    SELECT c.oid, c.relname, c.relkind, c.reltuples, c.relhassubclass, n.nspname
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = %s AND n.nspname = ANY (%s::text[])
    ORDER BY pg_catalog.array_position(%s::text[], n.nspname::text)
    LIMIT 1) AS c
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
)

# An identifier as the server folds it: in an encoding of one byte a character, also letters beyond
# ASCII.
FOLD = b"SELECT pg_catalog.parse_ident(%s)"

# The columns that the role may select, of a table that it may not select as a whole.
READABLE_COLUMNS = b"""
SELECT pg_catalog.quote_ident(attname)
FROM pg_catalog.pg_attribute
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
    AND pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT')
ORDER BY attnum
"""

# Relations whose names differ in case or schema alone, to suggest in an error.
SIMILAR = b"""
SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_catalog.lower(c.relname) = pg_catalog.lower(%s)
    AND n.nspname !~ '^pg_' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1
LIMIT 3
"""

METADATA = (
    b"""
SELECT pg_catalog.jsonb_build_object(
    'schema', n.nspname,
    'name', c.relname,
    'kind', c.relkind,
    'partition', c.relispartition,
    'comment', pg_catalog.obj_description(c.oid, 'pg_class'),
    'estimated_rows', """
    + _ESTIMATED_ROWS
    + b""",
    'size', CASE c.relkind
        WHEN 'p' THEN (
            SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(t.relid))
            FROM pg_catalog.pg_partition_tree(c.oid) t)
        WHEN 'r' THEN pg_catalog.pg_total_relation_size(c.oid)
        WHEN 'm' THEN pg_catalog.pg_total_relation_size(c.oid) END,
    'partition_key', pg_catalog.pg_get_partkeydef(c.oid),
    'partition_of', (
        SELECT pg_catalog.format('%%I.%%I', pn.nspname, p.relname)
        FROM pg_catalog.pg_inherits i
        JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
        JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
        WHERE c.relispartition AND i.inhrelid = c.oid),
    'columns', (
        SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', a.attname,
            'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
            'nullable', NOT a.attnotnull,
            'default', CASE WHEN a.attgenerated = ''
                THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
            'generated', CASE WHEN a.attgenerated <> ''
                THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
            'identity', a.attidentity <> '',
            'readable', pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
            'comment', pg_catalog.col_description(a.attrelid, a.attnum)
            ) ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute a
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'constraints', (
        SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', k.conname,
            'type', k.contype,
            'columns', (
                SELECT pg_catalog.jsonb_agg(a.attname ORDER BY u.position)
                FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u(number, position)
                JOIN pg_catalog.pg_attribute a
                    ON a.attrelid = k.conrelid AND a.attnum = u.number),
            'table', CASE WHEN k.contype = 'f' THEN (
                SELECT pg_catalog.format('%%I.%%I', fn.nspname, f.relname)
                FROM pg_catalog.pg_class f
                JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
                WHERE f.oid = CASE WHEN k.conrelid = c.oid AND NOT own.back
                    THEN k.confrelid ELSE k.conrelid END) END,
            'referenced_columns', (
                SELECT pg_catalog.jsonb_agg(a.attname ORDER BY u.position)
                FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS u(number, position)
                JOIN pg_catalog.pg_attribute a
                    ON a.attrelid = k.confrelid AND a.attnum = u.number),
            'back', own.back,
            'expression', CASE WHEN k.contype = 'c'
                THEN pg_catalog.pg_get_expr(k.conbin, k.conrelid) END
            ) ORDER BY k.conname), '[]')
        FROM (VALUES (false), (true)) AS own(back)
        JOIN pg_catalog.pg_constraint k
            ON CASE WHEN own.back THEN k.confrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0
                ELSE k.conrelid = c.oid END),
    'indexes', (
        SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', ic.relname,
            'unique', i.indisunique,
            'primary', i.indisprimary,
            'definition', pg_catalog.pg_get_indexdef(i.indexrelid)
            ) ORDER BY ic.relname), '[]')
        FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
        WHERE i.indrelid = c.oid))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %s AND """
    + _CALLERS_PATH
)

TYPE_NAMES = (
    b"""
SELECT pg_catalog.format_type(t.type, t.modifier)
FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.oid[]), pg_catalog.unnest(%s::int[]))
    WITH ORDINALITY AS t(type, modifier, position)
WHERE """
    + _CALLERS_PATH
    + b"""
ORDER BY t.position
"""
)


def relation_kind(relkind: str, *, partition: bool = False) -> str:
    """Return the name of a relation's kind, such as `materialized view`."""
    return "partition" if partition else _RELATION_KINDS[relkind]


def data_item(row: Sequence[Any]) -> DataItem:
    """Return the item of a listing for a row of `TABLES`."""
    schema, name, path, relkind, partition, rows, comment = row
    metadata = {"kind": relation_kind(relkind, partition=partition), "schema": schema}
    if relkind not in {"v", "f"}:
        metadata["estimated_rows"] = rows
    if comment is not None:
        metadata["comment"] = comment
    return DataItem(name=name, path=path, metadata=metadata)


def metadata(path: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a relation from the answer of `METADATA`."""
    constraints = answer["constraints"]
    keys = [c for c in constraints if c["type"] in {"p", "u"}]
    return {
        "identifier": path,
        "schema": answer["schema"],
        "name": answer["name"],
        "kind": relation_kind(answer["kind"], partition=answer["partition"]),
        "comment": answer["comment"],
        "columns": [_column(column) for column in answer["columns"]],
        "primary_key": next((c["columns"] for c in keys if c["type"] == "p"), None),
        "unique": [c["columns"] for c in keys if c["type"] == "u"],
        "foreign_keys": [_foreign_key(c) for c in constraints if _is_foreign_key(c, back=False)],
        "referenced_by": [_foreign_key(c) for c in constraints if _is_foreign_key(c, back=True)],
        "checks": [
            {"name": c["name"], "expression": c["expression"]}
            for c in constraints
            if c["type"] == "c"
        ],
        "indexes": answer["indexes"],
        "partition_key": answer["partition_key"],
        "partition_of": answer["partition_of"],
        "estimated_rows": answer["estimated_rows"],
        "rows": None,
        "size": answer["size"],
    }


def _column(column: Mapping[str, Any]) -> dict[str, Any]:
    """Return a column's metadata; `readable` is there, and False, if the role may not read it."""
    return {name: value for name, value in column.items() if name != "readable" or not value}


def _is_foreign_key(constraint: Mapping[str, Any], *, back: bool) -> bool:
    return constraint["type"] == "f" and constraint["back"] is back


def _foreign_key(constraint: Mapping[str, Any]) -> dict[str, Any]:
    names = ("name", "columns", "table", "referenced_columns")
    return {name: constraint[name] for name in names}
