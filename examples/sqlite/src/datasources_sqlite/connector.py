"""Read tables, views and queries of one SQLite database file."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from datasources import (
    BoundQuery,
    ConnectError,
    ConnectorOptions,
    DataFetchError,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceError,
    ItemNotFoundError,
    PolicyError,
    Preview,
    QueryValue,
    ThreadWorker,
    csv_file,
    query_name,
)
from pydantic import Field

T = TypeVar("T")

_BATCH = 200  # rows read before the thread checks whether to stop
_PROGRESS_STEPS = 10_000  # instructions of SQLite's virtual machine between two such checks
_MAX_VALUE = 64 * 1024 * 1024  # bytes of one value or row; SQLite's own limit is 1 GB
_QUERY = re.compile(r"\s*(SELECT|WITH|VALUES)\b", re.IGNORECASE)
_TABLES = "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name"
_NO_VALUES: Mapping[str, int | float | str | None] = {}
_READ_ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}


class SQLiteOptions(ConnectorOptions):
    """The database file."""

    path: str = Field(
        min_length=1,
        description="The database file; '~' is the home directory.",
        examples=["/srv/data/sales.db"],
    )

    sample_identifiers = (
        ("orders", "a table or view, whole"),
        ("SELECT status, count(*) FROM orders GROUP BY status", "the result of a query"),
    )

    def paths(self) -> list[str]:
        """Return the database file, for the host's policy."""
        return [os.path.expanduser(self.path)]


class SQLiteConnector(DataSourceConnector):
    """Calls SQLite in a worker thread; one connector serves one caller at a time."""

    type = "sqlite"
    api_version = 1
    options_class = SQLiteOptions
    options: SQLiteOptions

    def __init__(self, config: DataSourceConfig) -> None:
        super().__init__(config)
        self._worker = ThreadWorker()

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:
        return "query" if _QUERY.match(identifier) else "item"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        return None if _QUERY.match(identifier) else identifier

    async def connect(self) -> bool:
        if self._connection is None:
            try:
                await self._worker.run(_map_errors, self._open)
            except BaseException:
                await self.disconnect()
                raise
        return True

    async def disconnect(self) -> None:
        await self._worker.stop()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def test_connection(self) -> bool:
        try:
            await self.list_items()
        except DataSourceError:
            return False
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        if path not in (None, "/"):
            raise ItemNotFoundError(f"{path!r}: the tables of a database are in no folders")
        tables = await self._worker.run(_map_errors, lambda: self._execute(_TABLES).fetchall())
        return [DataItem(name, name, metadata={"kind": kind}) for name, kind in tables]

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        return await self._worker.run(_map_errors, lambda: self._export(identifier, workspace))

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        return {"columns": list((await self.preview(identifier, 0)).columns)}

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of a table or query."""

        def read() -> Preview:
            with closing(self._select(identifier)) as cursor:
                return _first_rows(cursor, rows)

        return await self._worker.run(_map_errors, read)

    async def fetch_query(self, query: BoundQuery, workspace: str) -> str:
        def export() -> str:
            with closing(self._select_bound(query)) as cursor:
                return self._write(cursor, workspace, query.name)

        return await self._worker.run(_map_errors, export)

    async def preview_query(self, query: BoundQuery, rows: int = 10) -> Preview:
        def read() -> Preview:
            with closing(self._select_bound(query)) as cursor:
                return _first_rows(cursor, rows)

        return await self._worker.run(_map_errors, read)

    def _open(self) -> None:
        uri = f"file:{quote(os.path.abspath(self.options.paths()[0]))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.execute(_TABLES).close()
        connection.text_factory = lambda data: data.decode(errors="surrogateescape")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(self._worker.stopping, _PROGRESS_STEPS)

    def _execute(
        self, statement: str, values: Mapping[str, int | float | str | None] = _NO_VALUES
    ) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.require_connection().execute(statement, values)
        return cursor

    def _select(self, identifier: str) -> sqlite3.Cursor:
        """Execute the query of a table or view, or the query that the identifier is."""
        if any(name == identifier for name, _ in self._execute(_TABLES).fetchall()):
            quoted = identifier.replace('"', '""')
            return self._execute(f'SELECT * FROM "{quoted}"')  # noqa: S608
        if _QUERY.match(identifier):
            return self._execute(identifier)
        raise ItemNotFoundError(f"there is no table or view {identifier!r}")

    def _select_bound(self, query: BoundQuery) -> sqlite3.Cursor:
        """Execute a stored query; SQLite binds the values to `:name` by itself."""
        if not _QUERY.match(query.text):
            raise PolicyError(f"the stored query {query.name!r} would do something else than read")
        return self._execute(
            query.text, {name: _sqlite_value(value) for name, value in query.values.items()}
        )

    def _export(self, identifier: str, workspace: str) -> str:
        with closing(self._select(identifier)) as cursor:
            name = query_name(identifier) if _QUERY.match(identifier) else identifier
            return self._write(cursor, workspace, name)

    def _write(self, cursor: sqlite3.Cursor, workspace: str, name: str) -> str:
        with csv_file(workspace, name, _columns(cursor)) as file:
            while not file.truncated and (rows := cursor.fetchmany(_BATCH)):
                file.write_rows(rows)
                if self._worker.stopping():
                    raise DataFetchError(f"the fetch of {name!r} was stopped")
        return file.path


def _map_errors(function: Callable[[], T]) -> T:
    """Call a function, with the errors of SQLite mapped to those of `datasources`."""
    try:
        return function()
    # ValueError: a statement with a NUL character or a lone surrogate.
    except (sqlite3.Error, sqlite3.Warning, ValueError) as exc:
        if getattr(exc, "sqlite_errorname", None) in {"SQLITE_CANTOPEN", "SQLITE_NOTADB"}:
            raise ConnectError(f"the database cannot be opened: {exc}") from exc
        if "not authorized" in str(exc) or "prohibited" in str(exc):
            raise PolicyError(f"the query would do something else than read: {exc}") from exc
        raise DataFetchError(f"SQLite cannot do this: {exc}") from exc


def _authorize(action: int, _: str | None, name: str | None, *__: str | None) -> int:
    """Allow reads and functions but `load_extension`; SQLite calls this for each action of a query.

    https://www.sqlite.org/c3ref/c_alter_table.html
    """
    is_function = action == sqlite3.SQLITE_FUNCTION and name != "load_extension"
    return sqlite3.SQLITE_OK if is_function or action in _READ_ACTIONS else sqlite3.SQLITE_DENY


def _first_rows(cursor: sqlite3.Cursor, rows: int) -> Preview:
    first_rows = cursor.fetchmany(rows + 1)
    return Preview(_columns(cursor), first_rows[:rows], len(first_rows) > rows)


def _sqlite_value(value: QueryValue) -> int | float | str | None:
    """Return a value of a type that SQLite has: times are ISO 8601 texts, as its functions give."""
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value


def _columns(cursor: sqlite3.Cursor) -> tuple[str, ...]:
    return tuple(column[0] for column in cursor.description)
