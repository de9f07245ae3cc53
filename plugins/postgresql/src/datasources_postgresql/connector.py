"""Tables, views and queries of one PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg import sql

from datasources import (
    ColumnStatistics,
    ConnectError,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceError,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    Preview,
    Workspace,
    WorkspaceFile,
    glob_regex,
    query_name,
)
from datasources_postgresql import catalog, statistics
from datasources_postgresql.connections import Connections, back_off
from datasources_postgresql.errors import mapped
from datasources_postgresql.grammar import Statement, parse_one, parse_read, plain_select
from datasources_postgresql.identifiers import TableName, schema_name, table_name
from datasources_postgresql.options import PostgreSQLOptions
from datasources_postgresql.parquet import import_arrow, load_table, write_parquet
from datasources_postgresql.reading import Column, Transaction, begin, counted, limited
from datasources_postgresql.role import ROLE

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Source:
    """What an identifier stands for, as a query."""

    text: str
    path: str | None = None
    """The canonical name of a table; None for a query."""
    oid: int = 0
    kind: str = "select"
    relkind: str = ""
    estimated_rows: int | None = None


class PostgreSQLConnector(DataSourceConnector):
    """Reads a database through a pool of its own; one instance serves many callers.

    An identifier is a table or view (`orders`, `sales.orders`, `"Odd Name"`), or a query.  Queries
    can only read, unless the option `read_only` is off.
    """

    type = "postgresql"
    api_version = 1
    options_class = PostgreSQLOptions
    options: PostgreSQLOptions
    shareable = True
    template_extras: ClassVar[Mapping[str, str]] = {"role": ROLE}

    def __init__(self, config: DataSourceConfig) -> None:
        super().__init__(config)
        self._connections: Connections | None = None
        self._connecting = asyncio.Lock()

    async def connect(self) -> bool:
        """Open a pool of connections, the first of them now.

        Raises:
            ConnectError: The server cannot be reached, or has no such database.
            AuthenticationError: It refuses the credentials.
            PolicyError: The role can do more than the options admit.
        """
        async with self._connecting:
            if self._connections is None:
                connections = Connections(self.options, self.pool_config)
                await connections.open()
                self._connections = connections
        return True

    async def disconnect(self) -> None:
        """Close the connections; statements under way are cancelled and end with ConnectError."""
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.close()

    async def test_connection(self) -> bool:
        """Tell whether the server answers a query now."""
        if self._connections is None:
            return False
        try:
            await self._read(lambda t: t.ask(b"SELECT 1"))
        except DataSourceError:
            return False
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        """List tables, views, partitions, foreign tables; `path` is a schema.

        Raises:
            ItemNotFoundError: There is no such schema.
        """
        schemas = list(self.options.schemas)
        if path is not None:
            schema = schema_name(path)
            if schema is None or (schemas and schema not in schemas):
                raise ItemNotFoundError(f"{path!r} is not a schema of this source")
            schemas = [schema]

        async def work(t: Transaction) -> list[DataItem]:
            rows = await t.ask(catalog.TABLES, [schemas, schemas])
            if path is not None and not rows and not await t.ask(catalog.SCHEMA, schemas):
                raise ItemNotFoundError(f"there is no schema {path!r}")
            return [catalog.item(row) for row in rows]

        return await self._read(work)

    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the items whose path, such as `sales.orders`, matches."""
        regex = glob_regex(pattern)
        return [item for item in await self.list_items() if regex.fullmatch(item.path)]

    async def get_metadata(self, identifier: str, *, exact_rows: bool = False) -> dict[str, Any]:
        """Describe a table: columns, keys, indexes, checks, estimated rows, bytes on disk.

        For a query: its columns and their types, without running it.

        Args:
            identifier: A table or a query.
            exact_rows: Count the rows, which reads them all; otherwise `rows` is None.
        """
        target = self._target(identifier)

        async def work(t: Transaction) -> dict[str, Any]:
            source, columns = await self._source(t, target)
            if source.path is None:
                found = await _describe_query(t, columns)
            else:
                ((answer,),) = await t.ask(catalog.METADATA, [source.oid])
                found = catalog.metadata(source.path, answer)
            if exact_rows and source.kind == "select":
                ((found["rows"],),) = await t.load(counted(source.text), jit=False)
            return found

        return await self._read(work)

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows as Python values; text where Python has no such value."""
        target = self._target(identifier)

        async def work(t: Transaction) -> Preview:
            source, columns = await self._source(t, target)
            select = source.kind == "select"
            text = limited(source.text, rows + 1) if select else source.text
            found = await t.load(text, select=select)
            names = tuple(column.name for column in columns)
            return Preview(names, found[:rows], truncated=len(found) > rows)

        return await self._read(work)

    async def get_table_preview(self, table_name: str, limit: int = 10) -> Preview:
        """Return the first rows of a table."""
        return await self.preview(table_name, limit)

    async def statistics(self, identifier: str) -> dict[str, ColumnStatistics]:
        """Return figures of the numeric columns, in one scan.

        Of a table over 10 million rows, by the server's estimate, a sample of about a million is
        read; the figures say so.
        """
        target = self._target(identifier)

        async def work(t: Transaction) -> dict[str, ColumnStatistics]:
            source, columns = await self._source(t, target)
            if source.kind != "select":
                return {}
            share = statistics.sample_share(source.estimated_rows, source.relkind)
            numeric = statistics.numeric(columns)
            if not numeric:
                return {}
            query = statistics.query(source.text, columns, share)
            (row,) = await t.load(query, jit=False)
            return statistics.figures(numeric, row, sampled=share is not None)

        return await self._read(work)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        """Write a table to `<schema.table>.csv`, or a query's result to `query-<hash>.csv`.

        The file has a header, NULL is an empty field and an empty string is `""`.  With the
        format `parquet` the types are kept; what has no exact type in Arrow becomes text.

        Raises:
            ItemNotFoundError: There is no such table.
            PolicyError: The query would do something else than read.
            LimitExceededError: A limit or the statement timeout ended it.
            DataFetchError: The server refused the query, or the file cannot be written.
        """
        target = self._target(identifier)
        directory = Workspace.of(workspace)
        directory.require_format("csv", "parquet")
        format_ = directory.file_format or "csv"
        if format_ == "parquet":
            await import_arrow()

        async def work(t: Transaction) -> str:
            source, columns = await self._source(t, target)
            name = f"{source.path or query_name(identifier)}.{format_}"
            with directory.create(name, flat=True) as file:
                if format_ == "parquet":
                    statement = source.text, source.kind
                    await write_parquet(t, statement, columns, file, directory.limits)
                else:
                    await _write(t, source, file, directory.limits)
                if not self.options.read_only:
                    await t.commit()
            return file.path

        async with _deadline(directory.limits.timeout, identifier):
            return await self._read(work)

    async def read_table(self, identifier: str, max_rows: int | None = None) -> Any:
        """Return a table or a query's result as a `pyarrow.Table`, with the types of Parquet.

        No workspace sets limits here: the result may have 1 GiB, and the statement timeout holds.

        Args:
            identifier: A table or a query.
            max_rows: Return the first rows only.

        Raises:
            LimitExceededError: The result is larger.
            DataFetchError: A value has no place in its column's type, or pyarrow is missing.
        """
        target = self._target(identifier)
        await import_arrow()

        async def work(t: Transaction) -> Any:
            source, columns = await self._source(t, target)
            return await load_table(t, (source.text, source.kind), columns, max_rows)

        return await self._read(work)

    def _target(self, identifier: str) -> TableName | Statement:
        """Take an identifier apart, before any connection is asked for."""
        if (table := table_name(identifier)) is not None:
            return table
        if self.options.read_only:
            return parse_read(identifier)
        tree, text = parse_one(identifier)
        return Statement(text, "select" if plain_select(tree) else "other")

    async def _source(
        self, t: Transaction, target: TableName | Statement
    ) -> tuple[_Source, list[Column]]:
        if isinstance(target, Statement):
            columns = await t.admit(target)
            return _Source(target.text, kind=target.kind), columns
        while True:
            found = await t.ask(catalog.RESOLVE, [target.name, target.schema, target.schema])
            if not found:
                raise await _missing(t, target)
            oid, schema, name, path, relkind, rows = found[0]
            text = sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, name)).as_string()
            try:
                columns = await t.describe(text)
            except psycopg.errors.UndefinedTable:  # dropped since; the transaction can ask no more
                raise ItemNotFoundError(f"{path} was dropped meanwhile", code="42P01") from None
            # While the lock was waited for, another table may have been given the name.
            if all(column.table == oid for column in columns):
                break
        if self.options.read_only and relkind in {"v", "r", "p"}:
            await t.check_functions(parse_read(text))
        return _Source(text, path, oid, "select", relkind, rows), columns

    async def _read(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Do one read, and again if the connection breaks: nothing of it is visible yet."""
        for wait in back_off(self.pool_config.connect_attempts):
            connections = self._connections  # None again if `disconnect` ended an attempt
            if connections is None:
                raise ConnectError(f"source {self.config.id!r} is not connected")
            leased = False
            try:
                with mapped(self.options):
                    async with connections.lease() as connection:
                        leased = True
                        return await work(await begin(connection, self.options))
            except ConnectError:
                disconnected = self._connections is not connections
                if not leased or wait is None or disconnected or not self.options.read_only:
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


async def _write(t: Transaction, source: _Source, file: WorkspaceFile, limits: Limits) -> None:
    rows = limits.max_rows
    if source.kind in {"explain", "show"}:
        await t.write_csv(source.text, file, rows)
        return
    text = source.text
    if source.kind == "select" and rows is not None:
        text = limited(text, rows + 1)  # one more than wanted tells whether there are more
    await t.copy_csv(text, file, rows, limits.max_bytes)


async def _describe_query(t: Transaction, columns: list[Column]) -> dict[str, Any]:
    types = await t.type_names(columns)
    return {
        "kind": "query",
        "columns": [
            {"name": column.name, "type": name} for column, name in zip(columns, types, strict=True)
        ],
        "rows": None,
    }


async def _missing(t: Transaction, table: TableName) -> ItemNotFoundError:
    similar = [path for (path,) in await t.ask(catalog.SIMILAR, [table.name])]
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    name = f"{table.schema}.{table.name}" if table.schema else table.name
    return ItemNotFoundError(f"there is no table or view {name!r}{hint}", code="42P01")


@asynccontextmanager
async def _deadline(timeout: float | None, identifier: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        what = identifier if table_name(identifier) else "the query"
        raise LimitExceededError(
            f"fetching {what} took longer than the limit of {timeout:g} seconds"
        ) from None
