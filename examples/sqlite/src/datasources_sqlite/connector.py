"""Tables, views and read-only queries of one SQLite database file."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import quote

from datasources import (
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
    ThreadWorker,
    csv_file,
    query_name,
)
from pydantic import Field

T = TypeVar("T")

_BATCH = 200  # rows read at once
_STEPS = 10_000  # of SQLite's machine between two looks at whether to stop
_LONGEST = 64 << 20  # bytes of one value or row
_QUERY = re.compile(r"\s*(SELECT|WITH|VALUES)\b", re.IGNORECASE)
_TABLES = "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name"
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}


class SQLiteOptions(ConnectorOptions):
    """Which database."""

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
        return [os.path.expanduser(self.path)]


class SQLiteConnector(DataSourceConnector):
    """Reads in worker threads; one connection serves one caller at a time."""

    type = "sqlite"
    api_version = 1
    options_class = SQLiteOptions
    options: SQLiteOptions

    def __init__(self, config: DataSourceConfig) -> None:
        super().__init__(config)
        self._worker = ThreadWorker()

    async def connect(self) -> bool:
        if self._connection is None:
            try:
                await self._worker.run(_mapped, self._open)
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
        found = await self._worker.run(_mapped, lambda: self._execute(_TABLES).fetchall())
        return [DataItem(name, name, metadata={"kind": kind}) for name, kind in found]

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        return await self._worker.run(_mapped, lambda: self._export(identifier, workspace))

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        return {"columns": list((await self.preview(identifier, 0)).columns)}

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of a table or query."""

        def read() -> Preview:
            with closing(self._select(identifier)) as cursor:
                found = cursor.fetchmany(rows + 1)
                return Preview(_columns(cursor), found[:rows], truncated=len(found) > rows)

        return await self._worker.run(_mapped, read)

    def _open(self) -> None:
        uri = f"file:{quote(os.path.abspath(self.options.paths()[0]))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.execute(_TABLES).close()
        connection.text_factory = lambda data: data.decode(errors="surrogateescape")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(self._worker.stopping, _STEPS)

    def _execute(self, statement: str) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.require_connection().execute(statement)
        return cursor

    def _select(self, identifier: str) -> sqlite3.Cursor:
        if any(name == identifier for name, _ in self._execute(_TABLES).fetchall()):
            quoted = identifier.replace('"', '""')
            return self._execute(f'SELECT * FROM "{quoted}"')  # noqa: S608
        if _QUERY.match(identifier):
            return self._execute(identifier)
        raise ItemNotFoundError(f"there is no table or view {identifier!r}")

    def _export(self, identifier: str, workspace: str) -> str:
        with closing(self._select(identifier)) as cursor:
            name = query_name(identifier) if _QUERY.match(identifier) else identifier
            with csv_file(workspace, name, _columns(cursor)) as file:
                while not file.truncated and (rows := cursor.fetchmany(_BATCH)):
                    file.write_rows(rows)
                    if self._worker.stopping():
                        raise DataFetchError(f"the fetch of {identifier!r} was stopped")
        return file.path


def _mapped(work: Callable[[], T]) -> T:
    """Do work, with the errors of SQLite raised as those of this project."""
    try:
        return work()
    except (sqlite3.Error, sqlite3.Warning, ValueError) as exc:  # also NUL, and no Unicode
        if getattr(exc, "sqlite_errorname", None) in {"SQLITE_CANTOPEN", "SQLITE_NOTADB"}:
            raise ConnectError(f"the database cannot be opened: {exc}") from exc
        if "not authorized" in str(exc) or "prohibited" in str(exc):
            raise PolicyError(f"the query would do something else than read: {exc}") from exc
        raise DataFetchError(f"SQLite cannot do this: {exc}") from exc


def _authorize(action: int, _: str | None, name: str | None, *__: str | None) -> int:
    harmless = action == sqlite3.SQLITE_FUNCTION and name not in {"load_extension"}
    return sqlite3.SQLITE_OK if harmless or action in _READING else sqlite3.SQLITE_DENY


def _columns(cursor: sqlite3.Cursor) -> tuple[str, ...]:
    return tuple(column[0] for column in cursor.description)
