"""The records of a store in a SQLite file."""

from __future__ import annotations

import builtins
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from datasources.stores.records import Record, Records, conflict

SCHEMA = """
CREATE TABLE records (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    data TEXT NOT NULL,
    version INTEGER NOT NULL,
    expires_at REAL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX records_owner ON records (kind, owner, id);
CREATE INDEX records_expires_at ON records (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE entries (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    number INTEGER NOT NULL,
    data TEXT NOT NULL,
    expires_at REAL,
    PRIMARY KEY (kind, id, number)
) WITHOUT ROWID;
CREATE INDEX entries_expires_at ON entries (expires_at) WHERE expires_at IS NOT NULL;
-- The last version of a record and number of an entry, so that none is used twice.
CREATE TABLE record_numbers (last INTEGER NOT NULL);
INSERT INTO record_numbers VALUES (0);
"""
_COLUMNS = "kind, id, owner, data, version, expires_at"
_CURRENT = "(expires_at IS NULL OR expires_at > ?)"
_GET = f"SELECT {_COLUMNS} FROM records WHERE kind = ? AND id = ? AND {_CURRENT}"  # noqa: S608  (constants)
_LIST = f"""
SELECT {_COLUMNS} FROM records
    WHERE kind = ? AND id > ? AND (? IS NULL OR owner = ?) AND {_CURRENT} ORDER BY id LIMIT ?
"""  # noqa: S608
_READ = f"""
SELECT number, data FROM entries
    WHERE kind = ? AND id = ? AND number > ? AND number < ? AND {_CURRENT} ORDER BY number
"""  # noqa: S608
_APPEND = "INSERT INTO entries VALUES (?, ?, ?, ?, ?)"
_MAX_NUMBER = 2**63 - 1

Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]


class SQLiteRecords(Records):
    """Holds records in the tables of a store.

    Args:
        transaction: Yields a connection in a transaction that locks out other writers, and commits
            it at the end of the block, or rolls it back if the block raises.
        reading: Yields a connection for statements that only read.
    """

    def __init__(self, transaction: Transaction, reading: Transaction) -> None:
        self._transaction = transaction
        self._reading = reading

    def get(self, kind: str, id: str) -> Record | None:
        with self._reading() as connection:
            return _get(connection, kind, id)

    def list(
        self, kind: str, *, owner: str | None = None, after: str = "", limit: int = 100
    ) -> builtins.list[Record]:
        parameters = (kind, after, owner, owner, time.time(), limit)
        with self._reading() as connection:
            return [_record(row) for row in connection.execute(_LIST, parameters)]

    def put(self, record: Record, *, expected: int | None = None) -> Record:
        data = json.dumps(record.data)
        with self._transaction() as connection:
            current = _get(connection, record.kind, record.id)
            if expected not in (None, 0 if current is None else current.version):
                raise conflict(record)
            version = _next_number(connection)
            connection.execute(
                "REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)",
                (record.kind, record.id, record.owner, data, version, record.expires_at),
            )
        return replace(record, data=json.loads(data), version=version)

    def take(self, kind: str, id: str) -> Record | None:
        if self.get(kind, id) is None:  # a wrong guess locks out no writer
            return None
        with self._transaction() as connection:
            record = _get(connection, kind, id)
            connection.execute("DELETE FROM records WHERE kind = ? AND id = ?", (kind, id))
        return record

    def remove(self, kind: str, id: str) -> bool:
        return self.take(kind, id) is not None

    def append(
        self, kind: str, id: str, data: Mapping[str, Any], expires_at: float | None = None
    ) -> int:
        text = json.dumps(data)
        with self._transaction() as connection:
            number = _next_number(connection)
            connection.execute(_APPEND, (kind, id, number, text, expires_at))
        return number

    def append_many(
        self,
        kind: str,
        id: str,
        entries: Sequence[Mapping[str, Any]],
        expires_at: float | None = None,
    ) -> None:
        texts = [json.dumps(data) for data in entries]
        with self._transaction() as connection:
            for text in texts:
                row = (kind, id, _next_number(connection), text, expires_at)
                connection.execute(_APPEND, row)

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
        select = f"{_READ} {'DESC' if newest_first else 'ASC'} LIMIT ?"
        with self._reading() as connection:
            rows = connection.execute(select, (kind, id, after, end, time.time(), limit))
            return [(number, json.loads(data)) for number, data in rows]

    def delete_expired(self, now: float) -> int:
        with self._transaction() as connection:
            return sum(
                connection.execute(f"DELETE FROM {table} WHERE expires_at <= ?", (now,)).rowcount  # noqa: S608
                for table in ("records", "entries")
            )


def _get(connection: sqlite3.Connection, kind: str, id: str) -> Record | None:
    row = connection.execute(_GET, (kind, id, time.time())).fetchone()
    return None if row is None else _record(row)


def _record(row: tuple[Any, ...]) -> Record:
    kind, record_id, owner, data, version, expires_at = row
    return Record(kind, record_id, owner, json.loads(data), version, expires_at)


def _next_number(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE record_numbers SET last = last + 1")
    (number,) = connection.execute("SELECT last FROM record_numbers").fetchone()
    return int(number)
