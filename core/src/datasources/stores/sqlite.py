"""Sources in one SQLite file, shared safely by threads and processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from datasources.errors import StoreError
from datasources.retrying import backoff
from datasources.stores import Store, StoredSource, check_write
from datasources.stores.read_only import FileState, connect_read_only, file_state

_APPLICATION = 0x44535243  # "DSRC", in the file's header: tells our files from others'
# The schema of a new file, and what brings it from each version to the next one.
_MIGRATIONS = (
    """
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
""",
)
_PUT = """
REPLACE INTO sources
    (id, type, name, created_at, metadata, limits, options, credentials, version)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Without a condition, so that a row which lost its version is read too.
_ALL = """
SELECT id, type, name, created_at, metadata, limits, options, credentials, version FROM sources
"""
_CHANGED = f"{_ALL} WHERE version > ?"
_REMOVED = "SELECT id, version FROM removed WHERE version > ?"
# What a damaged file holds must not keep the rest from being read.
_text = partial(str, encoding="utf-8", errors="replace")
_LOCK_TIMEOUT = 10.0  # seconds to wait for another process's write

_BEFORE_ALL = -(2**63)  # less than any version, even one that damage made negative

_Row = tuple[Any, ...]  # a damaged file may hold anything


class SQLiteStore(Store):
    """Keeps records in a file of mode 600; what was acknowledged survives any crash.

    Reads come from memory and never wait for a write, of this process or another; one
    `PRAGMA data_version` tells whether there was one, and only what it changed is read.
    Deleted content is overwritten (`secure_delete`).  After a fork the child has connections of
    its own.  Where the file or the disk cannot be written, records can be read, and writing says
    why not.

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
        self._read_only = False
        self._unlocked: FileState | None = None
        self._forget_connections()
        try:
            with self._explained():
                self._open()
        except BaseException:
            self._disconnect()
            raise
        _stores.add(self)

    def __repr__(self) -> str:
        return f"SQLiteStore({self.path!r})"

    def get(self, source_id: str) -> StoredSource | None:
        with self._reading() as known:
            return known.get(source_id)

    def list(self) -> list[StoredSource]:
        with self._reading() as known:
            return [record for _, record in sorted(known.items())]

    def write(
        self, *, add: Sequence[StoredSource] = (), update: Sequence[StoredSource] = ()
    ) -> None:
        if not (add or update):
            return
        with self._writing() as (connection, version):
            check_write(self._records, add, update)
            records = [replace(r, version=version + n) for n, r in enumerate((*add, *update))]
            ids = [(record.id,) for record in records]
            connection.executemany("DELETE FROM removed WHERE id = ?", ids)
            connection.executemany(_PUT, map(StoredSource.to_row, records))
        self._remember(version, records, [])

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
            self._disconnect()

    def _remember(self, version: int, records: Sequence[StoredSource], gone: Sequence[str]) -> None:
        """Take over what was committed, unless a reader has read it already."""
        with self._lock:
            if self._version == version - 1:
                self._records.update((record.id, record) for record in records)
                for source_id in gone:
                    self._records.pop(source_id, None)
                self._version += len(records) + len(gone)

    def _open(self) -> None:
        try:
            self._prepare()
        except (OSError, sqlite3.OperationalError) as exc:
            self._read_only = True
            self._check_readable(exc)
        self._current()

    def _disconnect(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

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
        self._inode = status.st_ino
        if stat.S_IMODE(status.st_mode) != 0o600 and status.st_uid == os.geteuid():
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.chmod(self.path + suffix, 0o600)
        connection = self._connect()
        try:
            version = self._schema_version(connection)
            _use_write_ahead_log(connection)
            if version < len(_MIGRATIONS):
                self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        self._connections["writer"] = connection

    def _check_readable(self, reason: Exception) -> None:
        """Raise why the file cannot be written unless it is a store that can be read."""
        try:
            if not os.path.isfile(self.path):
                raise reason
            if self._schema_version(self._reader()) < len(_MIGRATIONS):
                raise reason
        except sqlite3.Error:
            raise reason from None

    def _schema_version(self, connection: sqlite3.Connection) -> int:
        """Return the version of the schema, 0 for a new file."""
        # In this order: somebody else may make the store in between.
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if not (application or version or tables):
            return 0
        if application != _APPLICATION:
            raise StoreError(
                f"the store {self.path!r} cannot be used: it is not one of datasources"
            )
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"the store {self.path!r} was written by a newer version of datasources "
                f"(schema {version}; this one knows {len(_MIGRATIONS)})"
            )
        return int(version)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Read again: somebody else may have been faster.
            for script in _MIGRATIONS[self._schema_version(connection) :]:
                for statement in script.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _reader(self) -> sqlite3.Connection:
        """Return the connection that reads; lock held."""
        self._check_open()
        if self._unlocked is not None and self._unlocked != file_state(self.path):
            self._forget_reader()
        if "reader" not in self._connections:
            if self._read_only:
                self._connections["reader"], self._unlocked = connect_read_only(self.path)
            else:
                self._connections["reader"] = self._connect()
            self._connections["reader"].text_factory = _text
        return self._connections["reader"]

    def _forget_reader(self) -> None:
        if reader := self._connections.pop("reader", None):
            reader.close()
        self._unlocked, self._seen = None, -1

    def _writer(self) -> sqlite3.Connection:
        """Return the connection that writes; write lock held."""
        self._check_open()
        if "writer" not in self._connections:
            try:
                self._prepare()
            except (OSError, sqlite3.OperationalError) as exc:
                text = exc.strerror if isinstance(exc, OSError) else exc
                raise StoreError(
                    f"the store {self.path!r} can be read, but not written: {text}"
                ) from exc
            with self._lock:
                self._read_only = False
                self._forget_reader()
        if os.stat(self.path).st_ino != self._inode:  # SQLite would write to the one that is gone
            raise StoreError(f"the store {self.path!r} was replaced since it was opened")
        return self._connections["writer"]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self.path!r} is closed")

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
                if self._version == _BEFORE_ALL:
                    rows = connection.execute(_ALL).fetchall()
                else:
                    rows = connection.execute(_CHANGED, since).fetchall()
                gone = connection.execute(_REMOVED, since).fetchall()
            finally:
                connection.execute("COMMIT")
            if self._unlocked is not None and self._unlocked != file_state(self.path):
                return self._current()  # somebody wrote while it was read
            self._take(rows, gone)
            self._seen = seen
        return self._records

    def _take(self, rows: Sequence[_Row], gone: Sequence[tuple[str, int]]) -> None:
        for source_id, _ in gone:
            self._records.pop(source_id, None)
        for record in map(StoredSource.from_row, rows):
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
    for pause in backoff(first=0.01, maximum=0.2):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
