"""The connector: tables, views and queries of one PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal, TypeVar

from datasources import (
    BoundQuery,
    ColumnStatistics,
    ConnectError,
    DataFetchError,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceError,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    Page,
    Preview,
    QueryValue,
    Split,
    SplitPlan,
    StoredQuery,
    Workspace,
    WorkspaceFile,
    glob_regex,
    query_name,
)
from datasources_postgresql import catalog, pages, parameters, statistics
from datasources_postgresql.arrow import import_arrow, load_table, write_parquet
from datasources_postgresql.connections import LeasingPool, retry_pauses
from datasources_postgresql.copying import ServerSilentError
from datasources_postgresql.discovering import discover
from datasources_postgresql.errors import mapped
from datasources_postgresql.guard import Statement
from datasources_postgresql.identifiers import TableName, listed_path, schema_name, table_name
from datasources_postgresql.options import PostgreSQLOptions
from datasources_postgresql.reading import Column, Transaction, begin, counted, limited
from datasources_postgresql.resolving import ReadQuery, parse_identifier, resolve
from datasources_postgresql.rights import excess_rights
from datasources_postgresql.role import ROLE
from datasources_postgresql.splits import SplitPlanner, SplitRequest

T = TypeVar("T")

# serialization_failure and deadlock_detected: in a transaction that only reads, a standby has to
# apply a change of the primary that the read is in the way of. The next attempt sees the change.
_TRANSIENT = frozenset({"40001", "40P01"})
_NONE: Mapping[str, QueryValue] = {}


class PostgreSQLConnector(DataSourceConnector):
    """Reads a database through a pool of its own; one instance serves many callers.

    An identifier is a table or view (`orders`, `sales.orders`, `"Odd Name"`), or a query. Queries
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
        self._connections: LeasingPool | None = None
        self._splits: SplitPlanner | None = None
        self._connect_lock = asyncio.Lock()

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:
        """Return `item` for the name of a table or view, `query` for anything else."""
        return "query" if table_name(identifier) is None else "item"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        """Return the path of a table, `schema.name`; None for a name without a schema."""
        return listed_path(identifier)

    @classmethod
    def query_parameters(cls, query: StoredQuery) -> list[str]:
        """Return the names that stand as `:name` in the text, outside strings and comments."""
        return parameters.parameter_names(query)

    @classmethod
    async def discover(
        cls, options: Mapping[str, Any], *, check_address: Callable[[str], None]
    ) -> dict[str, list[str]]:
        """Return the databases of the server, and the schemas of the database if it is given.

        Raises:
            ConnectError, AuthenticationError, PolicyError: As `connect`.
        """
        stand_in = PostgreSQLOptions.discover_defaults["database"]
        loaded = PostgreSQLOptions.load(options)
        return await discover(loaded, check_address, schemas=loaded.database != stand_in)

    async def connect(self) -> bool:
        """Open a pool of connections and make its first connection.

        Raises:
            ConnectError: The server cannot be reached, has no such database, or is a pooler that
                admits no transactions.
            AuthenticationError: It refuses the credentials.
            PermissionDeniedError: It refuses what every read needs.
            PolicyError: The role can do more than the options admit.
        """
        async with self._connect_lock:
            if self._connections is None:
                connections = LeasingPool(
                    self.options, self.pool_config, self.check_address, self.secret
                )
                await connections.open()
                try:
                    # A server that refuses what every read needs says why here; `test_connection`
                    # can say no more than False.
                    with mapped(self.options):
                        async with connections.lease() as connection:
                            await begin(connection, self.options)
                except BaseException:
                    await connections.close()
                    raise
                self._connections = connections
                self._splits = SplitPlanner(
                    connections, self.options, self._read, self.pool_config.max_size
                )
        return True

    async def disconnect(self) -> None:
        """Close the connections; statements under way are cancelled and end with ConnectError."""
        connections, self._connections, self._splits = self._connections, None, None
        if connections is not None:
            await connections.close()

    async def test_connection(self) -> bool:
        """Return True if the server answers a query now."""
        if self._connections is None:
            return False
        try:
            await self._read(lambda t: t.execute(b"SELECT 1"))
        except DataSourceError:
            return False
        return True

    async def excess_rights(self) -> list[str]:
        """Return a sentence for each kind of right that the role has besides reading."""
        return await self._read(lambda t: excess_rights(t.execute))

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        """List tables, views, partitions, foreign tables; `path` is a schema.

        Raises:
            ItemNotFoundError: There is no such schema.
        """
        schemas = self._schemas(path)

        async def read_tables(t: Transaction) -> list[DataItem]:
            rows = await t.execute(catalog.TABLES, [schemas, schemas])
            if path is not None and not rows and not await t.execute(catalog.SCHEMA, schemas):
                raise ItemNotFoundError(f"there is no schema {path!r}")
            # A name that is no UTF-8, in a database without encoding, cannot be asked for.
            return [item for item in map(catalog.data_item, rows) if "\ufffd" not in item.path]

        return await self._read(read_tables)

    async def list_page(
        self, path: str | None = None, *, cursor: str | None = None, limit: int
    ) -> Page:
        """Return the next items of `list_items`; the server lists from after the last one."""
        schemas = self._schemas(path)
        after = pages.after(cursor)

        async def read_page(t: Transaction) -> Page:
            rows = await t.execute(pages.TABLES_AFTER, [schemas, schemas, *after, limit + 1])
            if path is not None and not rows and not await t.execute(catalog.SCHEMA, schemas):
                raise ItemNotFoundError(f"there is no schema {path!r}")
            items = [catalog.data_item(row) for row in rows]
            next_cursor = pages.cursor_of(items[limit - 1]) if len(items) > limit else None
            shown = [item for item in items[:limit] if "\ufffd" not in item.path]
            return Page(shown, next_cursor)

        return await self._read(read_page)

    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the items whose path, such as `sales.orders`, matches."""
        regex = glob_regex(pattern)
        return [item for item in await self.list_items() if regex.fullmatch(item.path)]

    async def get_metadata(self, identifier: str, *, exact_rows: bool = False) -> dict[str, Any]:
        """Describe a table: columns, keys, indexes, checks, estimated rows, bytes on disk.

        For a query: its columns and their types, without running it. A column that the role may
        not read is marked by `"readable": False`.

        Args:
            identifier: A table or a query.
            exact_rows: Count the rows, which reads them all; otherwise `rows` is None.
        """
        target = await parse_identifier(identifier, self.options)

        async def read_metadata(t: Transaction) -> dict[str, Any]:
            query, columns = await resolve(t, target, self.options, reads_rows=exact_rows)
            if query.path is None:
                metadata = await _describe_query(t, columns)
            else:
                ((answer,),) = await t.execute_with_callers_names(catalog.METADATA, [query.oid])
                metadata = catalog.metadata(query.path, answer)
            if exact_rows and query.kind == "select":
                ((metadata["rows"],),) = await t.fetch_all(counted(query.text), jit=False)
            return metadata

        return await self._read(read_metadata)

    async def describe_query(self, query: BoundQuery) -> dict[str, Any]:
        """Describe the columns of a stored query and their types, without running it."""
        target = await self._parse_query(query)

        async def read_columns(t: Transaction) -> dict[str, Any]:
            await parameters.set_values(t, query.values)
            _, columns = await resolve(t, target, self.options)
            return await _describe_query(t, columns)

        return await self._read(read_columns)

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows as Python values; text where Python has no such value.

        JSON null, which is not NULL, and intervals of months are such text.
        """
        return await self._preview(await parse_identifier(identifier, self.options), rows)

    async def preview_query(self, query: BoundQuery, rows: int = 10) -> Preview:
        """Return the first rows of a stored query, as `preview` does."""
        return await self._preview(await self._parse_query(query), rows, query.values)

    async def _preview(
        self,
        target: TableName | Statement,
        rows: int,
        bound_values: Mapping[str, QueryValue] = _NONE,
    ) -> Preview:
        async def read_preview(t: Transaction) -> Preview:
            await parameters.set_values(t, bound_values)
            query, columns = await resolve(t, target, self.options)
            select = query.kind == "select"
            text = limited(query.text, rows + 1) if select else query.text
            values = await t.fetch_all(text)
            names = tuple(column.name for column in columns)
            return Preview(names, values[:rows], truncated=len(values) > rows)

        return await self._read(read_preview)

    async def get_table_preview(self, table_name: str, limit: int = 10) -> Preview:
        """Return the first rows of a table."""
        return await self.preview(table_name, limit)

    async def statistics(self, identifier: str) -> dict[str, ColumnStatistics]:
        """Compute figures of the numeric columns, 400 columns in one scan.

        A mean that no float can hold is a `Decimal`. Of a table with more than 10 million rows, by
        the server's estimate, a sample of about a million rows is read; the figures are marked as
        sampled.
        """
        return await self._statistics(await parse_identifier(identifier, self.options))

    async def query_statistics(self, query: BoundQuery) -> dict[str, ColumnStatistics]:
        """Compute figures of a stored query's result, as `statistics` does."""
        return await self._statistics(await self._parse_query(query), query.values)

    async def _statistics(
        self, target: TableName | Statement, bound_values: Mapping[str, QueryValue] = _NONE
    ) -> dict[str, ColumnStatistics]:
        async def compute(t: Transaction) -> dict[str, ColumnStatistics]:
            await parameters.set_values(t, bound_values)
            query, columns = await resolve(t, target, self.options)
            if query.kind != "select":
                return {}
            share = statistics.sample_share(query.estimated_rows, query.relkind)
            figures: dict[str, ColumnStatistics] = {}
            for names in statistics.batches(list(statistics.numeric_columns(columns))):
                text, exact = (
                    statistics.query(query.text, columns, names, share, exact_mean=exact_mean)
                    for exact_mean in (False, True)
                )
                row = await t.fetch_figures(text, exact)
                figures |= statistics.figures(names, row, sampled=share is not None)
            return figures

        return await self._read(compute)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        """Write a table to `<schema.table>.csv`, or a query's result to `query-<hash>.csv`.

        The file has a header, NULL is an empty field and an empty string is `""`. With the
        format `parquet` the types are kept; what has no exact type in Arrow becomes text.

        Raises:
            ItemNotFoundError: There is no such table.
            PolicyError: The query would do something other than read.
            LimitExceededError: A limit or the statement timeout ended the fetch.
            DataFetchError: The server refused the query, or the file cannot be written.
        """
        return await self._fetch(
            await parse_identifier(identifier, self.options), identifier, workspace
        )

    async def fetch_query(self, query: BoundQuery, workspace: str) -> str:
        """Write the result of a stored query to `<name>.csv` or `.parquet`, as `fetch_data` does.

        The server gets the values as parameters of its protocol; see `parameters`.
        """
        target = await self._parse_query(query)
        return await self._fetch(target, query.text, workspace, query.name, query.values)

    async def _fetch(
        self,
        target: TableName | Statement,
        identifier: str,
        workspace: str,
        file_name: str | None = None,
        values: Mapping[str, QueryValue] = _NONE,
    ) -> str:
        directory = Workspace.of(workspace)
        directory.require_format("csv", "parquet")
        format_ = directory.file_format or "csv"
        if format_ == "parquet":
            await import_arrow()

        async def write_file(t: Transaction) -> str:
            await parameters.set_values(t, values)
            query, columns = await resolve(t, target, self.options)
            name = f"{file_name or query.path or query_name(identifier)}.{format_}"
            with directory.create(name, flat=True) as file:
                if format_ == "parquet":
                    await write_parquet(t, query, columns, file, directory.limits)
                else:
                    await _write_csv(t, query, file, directory.limits)
                if not self.options.read_only:
                    await t.commit()
            return file.path

        # A registry's limit also covers the wait for a connector; this one serves other hosts.
        async with _deadline(directory.limits.timeout, identifier):
            return await self._read(write_file)

    async def read_table(self, identifier: str, max_rows: int | None = None) -> Any:
        """Return a table or a query's result as a `pyarrow.Table`, with the types of Parquet.

        The limits of workspaces do not apply: the result may have 1 GiB of Arrow data, and the
        statement timeout holds.

        Args:
            identifier: A table or a query.
            max_rows: Return the first rows only.

        Raises:
            LimitExceededError: The result is larger.
            DataFetchError: The type of a column cannot hold a value, or pyarrow is missing.
        """
        target = await parse_identifier(identifier, self.options)
        await import_arrow()

        async def read_rows(t: Transaction) -> Any:
            query, columns = await resolve(t, target, self.options)
            return await load_table(t, query, columns, max_rows)

        return await self._read(read_rows)

    @asynccontextmanager
    async def plan_splits(
        self,
        identifier: str,
        *,
        target_bytes: int,
        max_splits: int,
        key: str | None = None,
        consistent: bool = True,
    ) -> AsyncIterator[SplitPlan]:
        """Divide a table by ranges of its blocks, a partitioned one by those of its leaves.

        The plan holds a connection, and locks the tables against changes of their definition, until
        its block ends. Its snapshot also keeps the server from removing rows that were deleted
        since. A view or a query is one split, or several ranges of `key`, which reads it once more;
        values such as `now()` then differ between its splits. What a row security policy filters,
        and what the role may read through its parent only, is one split.

        Raises:
            OptionError: There is no column `key`.
            LimitExceededError: The tables were locked by others for the statement timeout.
            DataFetchError: pyarrow is missing; or the server has too few locks for the partitions.
        """
        request = SplitRequest(
            self.config.id, identifier, target_bytes, max_splits, key, consistent
        )
        async with self._planner().plan(request) as plan:
            yield plan

    def read_split(self, split: Split, columns: Sequence[str] | None = None) -> AsyncIterator[Any]:
        """Yield the rows of a split, with the types of Parquet, in the snapshot of its plan.

        The statement timeout holds.

        Raises:
            OptionError: There is no such column.
            DataFetchError: The plan has ended, or the server is not that of the plan; or the type of
                a column cannot hold a value.
        """
        return self._planner().read(split, columns)

    def _planner(self) -> SplitPlanner:
        if self._splits is None:
            raise ConnectError(f"source {self.config.id!r} is not connected")
        return self._splits

    def _schemas(self, path: str | None) -> list[str]:
        """Return the schemas to list for a path; none for all.

        Raises:
            ItemNotFoundError: The path is no schema of this source.
        """
        schemas = list(self.options.schemas)
        if path is None:
            return schemas
        schema = schema_name(path)
        if schema is None or (schemas and schema not in schemas):
            raise ItemNotFoundError(f"{path!r} is not a schema of this source")
        return [schema]

    async def _parse_query(self, query: BoundQuery) -> Statement:
        """Return the statement of a stored query, checked as every query of a caller is."""
        target = await parse_identifier(parameters.bound_text(query), self.options)
        if isinstance(target, TableName):
            raise DataFetchError(f"the stored query {query.name!r} is a name, and no query")
        return target

    async def _read(self, read: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `read` in a transaction; repeat it after a broken connection or a recovery conflict.

        A read may be repeated because nothing of it is visible before it is complete.
        """
        pauses = retry_pauses(self.pool_config)
        while True:
            connections = self._connections  # None again if `disconnect` ended an attempt
            if connections is None:
                raise ConnectError(f"source {self.config.id!r} is not connected")
            leased = begun = False
            try:
                with mapped(self.options):
                    async with connections.lease() as connection:
                        leased = True
                        transaction = await begin(connection, self.options)
                        begun = True
                        return await read(transaction)
            except (ConnectError, DataFetchError) as exc:
                if isinstance(exc, DataFetchError) and exc.code not in _TRANSIENT:
                    raise
                disconnected = self._connections is not connections
                # A statement without an answer is not repeated: it has had its time. One that
                # begins a transaction had an idle connection, and a new one may work.
                silent = begun and isinstance(exc.__cause__, ServerSilentError)
                if not leased or disconnected or silent or not self.options.read_only:
                    raise
                if (pause := next(pauses, None)) is None:
                    raise
                await asyncio.sleep(pause)


async def _write_csv(t: Transaction, query: ReadQuery, file: WorkspaceFile, limits: Limits) -> None:
    rows = limits.max_rows
    if query.kind in {"explain", "show"}:
        await t.write_csv(query.text, file, rows)
        return
    text = query.text
    if query.kind == "select" and rows is not None:
        text = limited(text, rows + 1)  # the row after the limit shows that there are more
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
