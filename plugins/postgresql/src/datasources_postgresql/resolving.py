"""Resolve an identifier: the table or the statement that it names, and the query that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from datasources import DataFetchError, ItemNotFoundError, PermissionDeniedError
from datasources_postgresql import catalog
from datasources_postgresql.guard import (
    FunctionPolicy,
    Statement,
    parse_one,
    parse_read,
    parse_statement,
    plain_select,
)
from datasources_postgresql.identifiers import TableName, table_name
from datasources_postgresql.options import PostgreSQLOptions
from datasources_postgresql.reading import Column, Transaction

_ATTEMPTS = 10  # to find the table that a name means, while others give the name away


@dataclass(frozen=True, slots=True)
class ReadQuery:
    """The query that reads an identifier, which is a relation or a query itself."""

    text: str
    path: str | None = None
    """Canonical name of the table; None if the identifier is a query."""
    oid: int = 0
    kind: str = "select"
    relkind: str = ""
    estimated_rows: int | None = None


async def parse_identifier(identifier: str, options: PostgreSQLOptions) -> TableName | Statement:
    """Return the table name or the statement of an identifier; needs no connection."""
    if (table := table_name(identifier)) is not None:
        return table
    if options.read_only:
        return await parse_statement(identifier, FunctionPolicy(options))
    tree, text = parse_one(identifier)
    return Statement(text, "select" if plain_select(tree) else "other")


async def resolve(
    t: Transaction,
    target: TableName | Statement,
    options: PostgreSQLOptions,
    *,
    reads_rows: bool = True,
) -> tuple[ReadQuery, list[Column]]:
    """Lock and authorize `target`; return the query that reads it, and its columns."""
    if isinstance(target, Statement):
        columns = await t.authorize(target)
        return ReadQuery(target.text, kind=target.kind), columns
    if not target.text.isascii():
        ((parts,),) = await t.execute(catalog.FOLD, [target.text.strip()])
        target = TableName(parts[-2] if len(parts) > 1 else None, parts[-1])
    for _ in range(_ATTEMPTS):
        searched = t.schemas if target.schema is None else [target.schema]
        relations = await t.execute(catalog.RESOLVE, [target.name, searched, searched])
        schemas = options.schemas
        # A table of another schema than those of the source does not exist for its users.
        if not relations or (schemas and relations[0][1] not in schemas):
            raise await _not_found_error(t, target, schemas)
        oid, schema, name, path, relkind, rows, is_readable = relations[0]
        if reads_rows and not is_readable:
            await _check_columns(t, oid, path)
        text = sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, name)).as_string()
        try:
            columns = await t.authorize(parse_read(text), qualified=True)
        except psycopg.errors.LockNotAvailable as exc:
            exc.add_note(f"the table is {path}")
            raise
        except psycopg.errors.UndefinedTable:  # the failed transaction runs no more queries
            raise ItemNotFoundError(f"{path} was dropped meanwhile", code="42P01") from None
        # Another table may have been given the name while the lock was waited for.
        if all(column.table == oid for column in columns):
            return ReadQuery(text, path, oid, "select", relkind, rows), columns
    # A transaction with one snapshot for all of its queries sees the old name each time.
    raise DataFetchError(f"another table has the name {path} now; read it again")


async def _check_columns(t: Transaction, oid: int, path: str) -> None:
    """Raise PermissionDeniedError if the role may read some columns of a table, but not all.

    If it may read none, the server refuses the query itself.
    """
    columns = [name for (name,) in await t.execute(catalog.READABLE_COLUMNS, [oid])]
    if columns:
        possible = f"SELECT {', '.join(columns)} FROM {path}"  # noqa: S608  # a message
        raise PermissionDeniedError(
            f"the role may read some columns of {path} only; possible: {possible}", code="42501"
        )


async def _not_found_error(
    t: Transaction, table: TableName, schemas: Sequence[str]
) -> ItemNotFoundError:
    paths = [path for (path,) in await t.execute(catalog.SIMILAR, [table.name])]
    similar = [path for path in paths if not schemas or _schema_of(path) in schemas]
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    name = f"{table.schema}.{table.name}" if table.schema else table.name
    return ItemNotFoundError(f"there is no table or view {name!r}{hint}", code="42P01")


def _schema_of(path: str) -> str | None:
    table = table_name(path)
    return table.schema if table else None
