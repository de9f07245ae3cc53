"""Sources in one SQLite file, shared safely by threads and processes."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypeVar

from datasources.errors import OptionError, StoreError
from datasources.models import DataSourceConfig, DataSourceType, Limits
from datasources.stores import StoredSource, check_new, check_unchanged

_APPLICATION = 0x44535243  # "DSRC", in the file's header: tells our files from others'
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE sources (
    id TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    metadata TEXT NOT NULL,
    limits TEXT,
    options TEXT,
    credentials TEXT NOT NULL,
    version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX sources_version ON sources (version);
-- Ids without a source, so that other processes learn of a removal and versions are never reused.
CREATE TABLE removed (id TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE UNIQUE INDEX removed_version ON removed (version);
"""
_PUT = """
REPLACE INTO sources
    (id, type, name, created_at, metadata, limits, options, credentials, version)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_CHANGED = """
SELECT id, type, name, created_at, metadata, limits, options, credentials, version
    FROM sources WHERE version > ?
"""
_REMOVED = "SELECT id, version FROM removed WHERE version > ?"
_LOCK_TIMEOUT = 10.0  # seconds to wait for another process's write

_BEFORE_ALL = -(2**63)  # less than any version, even one that damage made negative

T = TypeVar("T")
_Row = tuple[Any, ...]  # a damaged file may hold anything


class SQLiteStore:
    """Keeps records in a file of mode 600; what was acknowledged survives any crash.

    Reads come from memory and never wait for a write, of this process or another; one
    `PRAGMA data_version` tells whether there was one, and only what it changed is read.
    Deleted content is overwritten (`secure_delete`).  After a fork the child has connections of
    its own.

    Raises:
        StoreError: The file cannot be opened, is not such a store, or was written by a newer
            version of this package.
    """

    persistent = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._records: dict[str, StoredSource] = {}
        self._version = _BEFORE_ALL
        self._seen = -1
        self._closed = False
        self._forget_connections()
        with self._explained():
            self._prepare()
            self._current()
        _stores.add(self)

    def __repr__(self) -> str:
        return f"SQLiteStore({self.path!r})"

    def get(self, source_id: str) -> StoredSource | None:
        with self._reading() as known:
            return known.get(source_id)

    def list(self) -> list[StoredSource]:
        with self._reading() as known:
            return [record for _, record in sorted(known.items())]

    def add(self, *records: StoredSource) -> None:
        self._put(records, check_new)

    def update(self, *records: StoredSource) -> None:
        self._put(records, check_unchanged)

    def remove(self, source_id: str) -> bool:
        with self._writing() as (connection, version):
            if source_id not in self._records:
                return False
            connection.execute("DELETE FROM sources WHERE id = ?", (source_id,))
            connection.execute("REPLACE INTO removed VALUES (?, ?)", (source_id, version))
        self._remember(version, [], [source_id])
        return True

    def compact(self) -> None:
        """Rewrite the file and empty its log, so that nothing overwritten is left in either.

        Raises:
            StoreError: Another process reads just now, or the disk is full.
        """
        with self._write_lock, self._explained():
            connection = self._writer()
            connection.execute("VACUUM")
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreError(
                f"the store {self.path!r} is in use, so that what was overwritten is still in its "
                "log; compact it again"
            )

    def close(self) -> None:
        with self._write_lock, self._lock, self._explained():
            self._closed = True
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()

    def _put(
        self,
        records: tuple[StoredSource, ...],
        check: Callable[[Iterable[StoredSource], dict[str, StoredSource]], None],
    ) -> None:
        if not records:
            return
        with self._writing() as (connection, version):
            check(records, self._records)
            ids = [(record.id,) for record in records]
            connection.executemany("DELETE FROM removed WHERE id = ?", ids)
            versioned = [replace(r, version=version + n) for n, r in enumerate(records)]
            connection.executemany(_PUT, map(_row, versioned))
        self._remember(version, versioned, [])

    def _remember(self, version: int, records: Sequence[StoredSource], gone: Sequence[str]) -> None:
        """Take over what was committed, unless a reader has read it already."""
        with self._lock:
            if self._version == version - 1:
                self._records.update((record.id, record) for record in records)
                for source_id in gone:
                    self._records.pop(source_id, None)
                self._version += len(records) + len(gone)

    def _prepare(self) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        # Made before SQLite opens it: the log and its index take the mode of the file.
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"the store {self.path!r} cannot be used: it is not a file")
        if stat.S_IMODE(status.st_mode) != 0o600 and status.st_uid == os.geteuid():
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.chmod(self.path + suffix, 0o600)
        connection = self._writer()
        try:
            new = self._is_new(connection)
            _use_write_ahead_log(connection)
            if new:
                self._create(connection)
        except BaseException:
            self._connections.clear()
            connection.close()
            raise

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not (application or version or tables):
            return True
        if application != _APPLICATION:
            raise StoreError(
                f"the store {self.path!r} cannot be used: it is not one of datasources"
            )
        if version > _SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.path!r} was written by a newer version of datasources "
                f"(schema {version}; this one knows {_SCHEMA_VERSION})"
            )
        return False

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self._is_new(connection):  # nobody else was faster
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        # What a damaged file holds must not keep the rest from being read.
        connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        return connection

    def _reader(self) -> sqlite3.Connection:
        return self._connection("reader")

    def _writer(self) -> sqlite3.Connection:
        return self._connection("writer")

    def _connection(self, use: str) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"the store {self.path!r} is closed")
        if use not in self._connections:
            self._connections[use] = self._connect()
        return self._connections[use]

    def _forget_connections(self) -> None:
        self._lock = threading.Lock()  # of the records; held for moments
        self._write_lock = threading.Lock()
        self._connections: dict[str, sqlite3.Connection] = {}
        self._seen = -1

    @contextmanager
    def _reading(self) -> Iterator[dict[str, StoredSource]]:
        with self._lock, self._explained():
            yield self._current()

    def _current(self) -> dict[str, StoredSource]:
        """Return the records, with what was written since the last time; lock held."""
        connection = self._reader()
        (seen,) = connection.execute("PRAGMA data_version").fetchone()
        if seen != self._seen:
            since = (self._version,)
            # Both in one transaction, or a removal between them could be missed.
            connection.execute("BEGIN")
            try:
                rows = connection.execute(_CHANGED, since).fetchall()
                gone = connection.execute(_REMOVED, since).fetchall()
            finally:
                connection.execute("COMMIT")
            self._take(rows, gone)
            self._seen = seen
        return self._records

    def _take(self, rows: Sequence[_Row], gone: Sequence[tuple[str, int]]) -> None:
        for source_id, _ in gone:
            self._records.pop(source_id, None)
        for record in map(_record, rows):
            self._records[record.id] = record
        versions = [row[-1] for row in rows] + [version for _, version in gone]
        self._version = max([self._version, *(v for v in versions if isinstance(v, int))])

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """Hold the file against other writers; yield the connection and the next version."""
        with self._write_lock, self._explained():
            connection = self._writer()
            connection.execute("BEGIN IMMEDIATE")
            try:
                with self._lock:
                    self._current()
                    self._version = max(self._version, 0)
                    version = self._version + 1
                yield connection, version
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise StoreError(f"the store {self.path!r} cannot be used: {exc}") from exc
        except OSError as exc:
            raise StoreError(f"the store {self.path!r} cannot be used: {exc.strerror}") from exc
        except (ValueError, OverflowError) as exc:  # a NUL in the path, a number out of range
            raise StoreError(f"the store {self.path!r} cannot be used: {exc}") from exc


_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
_inherited: list[object] = []  # connections of the parent, which a child must not even close


def _after_fork() -> None:
    for store in _stores:
        _inherited.append(store._connections)
        store._forget_connections()


os.register_at_fork(after_in_child=_after_fork)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # SQLite's own lock timeout does not cover the switch, which two first users may race for.
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _row(record: StoredSource) -> _Row:
    return (
        record.id,
        record.type,
        record.name,
        record.created_at,
        json.dumps(record.metadata),
        None if record.limits is None else json.dumps(record.limits),
        None if record.options is None else json.dumps(record.options),
        record.credentials,
        record.version,
    )


def _record(row: _Row) -> StoredSource:
    source_id, kind, name, created_at, metadata, limits, options, credentials, version = row
    try:
        return StoredSource(
            DataSourceConfig(source_id, DataSourceType(kind), name, {}).id,
            kind,
            _expect(str, name),
            _expect(float, created_at),
            _expect(dict, json.loads(metadata)),
            None if limits is None else asdict(Limits(**json.loads(limits))),
            None if options is None else _expect(dict, json.loads(options)),
            _expect(str, credentials),
            _expect(int, version),
        )
    except (ValueError, TypeError, OptionError):
        return _damaged(source_id)


def _damaged(source_id: object) -> StoredSource:
    """Return what can be listed of a row that the file holds no longer as it was written."""
    shown = re.sub(r"[^A-Za-z0-9._-]", "_", str(source_id))[:100]
    if shown != source_id or not shown[0].isalnum():
        shown = f"damaged.{shown}"
    return StoredSource(shown, DataSourceType.CUSTOM.value, shown, 0.0, {}, None, None, "")


def _expect(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"not {kind.__name__}")
    return value
