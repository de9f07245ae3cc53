"""The records of a store in a PostgreSQL database."""

from __future__ import annotations

import builtins
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import psycopg

from datasources import ConflictError, Record, Records, StoreError
from datasources_postgresql.connecting import StoreConnection
from datasources_postgresql.store.schema import Row

_COLUMNS = "kind, id, owner, data, version, expires_at"
_CURRENT = "(expires_at IS NULL OR expires_at > %s)"
_GET = f"SELECT {_COLUMNS} FROM datasources.records WHERE kind = %s AND id = %s AND {_CURRENT}"  # noqa: S608  (constants)
_LIST = f"""
SELECT {_COLUMNS} FROM datasources.records
    WHERE kind = %s AND id > %s AND (%s::text IS NULL OR owner = %s) AND {_CURRENT}
    ORDER BY id LIMIT %s
"""  # noqa: S608
_NEXT = "pg_catalog.nextval('datasources.record_numbers')"
_INSERT = f"""
INSERT INTO datasources.records AS stored (kind, id, owner, data, version, expires_at)
    VALUES (%s, %s, %s, %s, {_NEXT}, %s)
    ON CONFLICT (kind, id) DO UPDATE SET owner = excluded.owner, data = excluded.data,
        version = excluded.version, expires_at = excluded.expires_at
"""  # noqa: S608
_PUT = f"{_INSERT} RETURNING version"
_PUT_NEW = f"{_INSERT} WHERE stored.expires_at <= %s RETURNING version"
_REPLACE = f"""
UPDATE datasources.records SET owner = %s, data = %s, version = {_NEXT}, expires_at = %s
    WHERE kind = %s AND id = %s AND version = %s AND {_CURRENT} RETURNING version
"""  # noqa: S608
_TAKE = f"DELETE FROM datasources.records WHERE kind = %s AND id = %s RETURNING {_COLUMNS}"  # noqa: S608
# The lock is held until the commit, so that the numbers of one kind and id become visible in order.
_APPEND = f"""
WITH locked AS MATERIALIZED (
    SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))
)
INSERT INTO datasources.entries (kind, id, number, expires_at, data)
    SELECT %s, %s, {_NEXT}, %s, added.data FROM locked,
        (SELECT data FROM pg_catalog.unnest(%s::text[]) WITH ORDINALITY t(data, place) ORDER BY place) added
    RETURNING number
"""  # noqa: S608
_READ = f"""
SELECT number, data FROM datasources.entries
    WHERE kind = %s AND id = %s AND number > %s AND number < %s AND {_CURRENT} ORDER BY number
"""  # noqa: S608
_MAX_NUMBER = 2**63 - 1  # of a bigint

Errors = Callable[[], AbstractContextManager[None]]


class PostgreSQLRecords(Records):
    """Keeps records in tables beside the sources, over a connection of its own.

    Args:
        check_usable: Raises StoreError if the store is closed, or of the parent of a fork.
        connect: Returns a connection, or raises why there can be none.
        errors: Translates the errors of the driver to StoreError.
    """

    def __init__(
        self,
        check_usable: Callable[[], None],
        connect: Callable[[], StoreConnection],
        errors: Errors,
    ) -> None:
        self._check_usable = check_usable
        self._connect = connect
        self._errors = errors
        self._connection: StoreConnection | None = None
        self._closed = False
        self._lock = threading.Lock()  # held by whoever uses _connection

    def get(self, kind: str, id: str) -> Record | None:
        rows, _ = self._execute(_GET, (kind, id, time.time()))
        return _record(rows[0]) if rows else None

    def list(
        self, kind: str, *, owner: str | None = None, after: str = "", limit: int = 100
    ) -> builtins.list[Record]:
        rows, _ = self._execute(_LIST, (kind, after, owner, owner, time.time(), limit))
        return list(map(_record, rows))

    def put(self, record: Record, *, expected: int | None = None) -> Record:
        data = json.dumps(record.data)
        now = time.time()
        values = (record.kind, record.id, record.owner, data, record.expires_at)
        if expected is None:
            rows, _ = self._execute(_PUT, values)
        elif expected == 0:
            rows, _ = self._execute(_PUT_NEW, (*values, now))
        else:
            changes = (record.owner, data, record.expires_at)
            rows, _ = self._execute(_REPLACE, (*changes, record.kind, record.id, expected, now))
        if not rows:
            raise ConflictError(
                f"the record of kind {record.kind!r} was changed or removed meanwhile"
            )
        return replace(record, data=json.loads(data), version=rows[0][0])

    def take(self, kind: str, id: str) -> Record | None:
        rows, _ = self._execute(_TAKE, (kind, id))
        record = _record(rows[0]) if rows else None
        if record is None or record.expires_at is None or record.expires_at > time.time():
            return record
        return None

    def remove(self, kind: str, id: str) -> bool:
        return self.take(kind, id) is not None

    def append(
        self, kind: str, id: str, data: Mapping[str, Any], expires_at: float | None = None
    ) -> int:
        lock = json.dumps(["datasources", kind, id])
        rows, _ = self._execute(_APPEND, (lock, kind, id, expires_at, [json.dumps(data)]))
        return int(rows[0][0])

    def append_many(
        self,
        kind: str,
        id: str,
        entries: Sequence[Mapping[str, Any]],
        expires_at: float | None = None,
    ) -> None:
        lock = json.dumps(["datasources", kind, id])
        self._execute(_APPEND, (lock, kind, id, expires_at, [json.dumps(data) for data in entries]))

    def read(
        self,
        kind: str,
        id: str,
        *,
        after: int = 0,
        before: int | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> builtins.list[tuple[int, dict[str, Any]]]:
        end = _MAX_NUMBER if before is None else before
        statement = f"{_READ} {'DESC' if newest_first else 'ASC'} LIMIT %s"
        rows, _ = self._execute(statement, (kind, id, after, end, time.time(), limit))
        return [(number, json.loads(data)) for number, data in rows]

    def delete_expired(self, now: float) -> int:
        statements = (
            f"DELETE FROM datasources.{table} WHERE expires_at <= %s"  # noqa: S608  (constants)
            for table in ("records", "entries")
        )
        return sum(self._execute(statement, (now,))[1] for statement in statements)

    def close(self, timeout: float) -> None:
        """Close the connection; a call that still runs after `timeout` seconds does so at its end."""
        self._closed = True
        if self._lock.acquire(timeout=timeout):
            try:
                self._disconnect()
            finally:
                self._lock.release()

    def _execute(self, statement: str, parameters: Sequence[Any]) -> tuple[builtins.list[Row], int]:
        """Execute a statement in a transaction; return its rows, and the number it has changed."""
        self._check_usable()
        with self._lock, self._errors(), self._translating_missing_tables():
            try:
                connection, cursor = self._begin(statement, parameters)
                rows = cursor.fetchall() if cursor.description else []
                connection.commit()
            except BaseException:
                self._disconnect()
                raise
            if self._closed:
                self._disconnect()
            return rows, cursor.rowcount

    def _begin(
        self, statement: str, parameters: Sequence[Any]
    ) -> tuple[StoreConnection, psycopg.Cursor[Row]]:
        """Execute a statement without a commit; return the connection and the cursor."""
        if self._connection is not None:
            try:
                return self._connection, self._connection.execute(statement, parameters)
            except psycopg.OperationalError as exc:
                if exc.sqlstate and not exc.sqlstate.startswith("57P"):  # shut down, terminated
                    raise
            # Lost while it was idle. Nothing was committed, so the statement may be repeated.
            self._disconnect()
        self._connection = self._connect()
        return self._connection, self._connection.execute(statement, parameters)

    @contextmanager
    def _translating_missing_tables(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.UndefinedTable as exc:
            raise StoreError(
                "the store has no tables of records, as they are those of an older version; a host "
                "whose role owns the tables upgrades them when it opens the store"
            ) from exc

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _record(row: Row) -> Record:
    kind, record_id, owner, data, version, expires_at = row
    return Record(kind, record_id, owner, json.loads(data), version, expires_at)
