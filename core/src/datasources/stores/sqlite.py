"""The store of sources in a SQLite file, shared by threads and processes.

There are two connections: the writer, used under `_write_lock`, and the reader, used under `_lock`.
Reads come from `_records`, a copy in memory. `PRAGMA data_version` of the reader differs when
another connection has committed, and then `_current` reads the rows whose version is over
`_version`. A write holds `_write_lock` for its transaction and `_lock` only where it touches the
copy, so that reads never wait for the disk.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

from datasources.errors import StoreError
from datasources.files import make_private_directory
from datasources.locks import ForkSafeLock
from datasources.retrying import backoff
from datasources.stores import Store, StoredSource, check_write
from datasources.stores.read_only import FileState, connect_read_only, file_state
from datasources.stores.records import Records
from datasources.stores.sqlite_records import SCHEMA as _RECORDS_SCHEMA, SQLiteRecords

_APPLICATION = 0x44535243  # "DSRC" in the header of the file, by which SQLite files are told apart
# Scripts that bring the schema from each version to the next; the first one makes a new file.
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
    "ALTER TABLE sources ADD COLUMN paused TEXT;",
    _RECORDS_SCHEMA,
)
_PUT = """
REPLACE INTO sources
    (id, type, name, created_at, metadata, limits, options, credentials, version, paused)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Without a condition, so that a row which lost its version is read too.
_ALL = """
SELECT id, type, name, created_at, metadata, limits, options, credentials, version, paused
    FROM sources
"""
_CHANGED = f"{_ALL} WHERE version > ?"
_VERSION = 8  # position of the column `version`
_REMOVED = "SELECT id, version FROM removed WHERE version > ?"
# Damaged text is replaced, so that the other records of the file can be read.
_text = partial(str, encoding="utf-8", errors="replace")
_LOCK_TIMEOUT = 10.0  # seconds to wait for another process's write
_EFFECTIVE_IDS = os.access in os.supports_effective_ids  # not on every system

_BEFORE_ALL = -(2**63)  # less than any version, even one that damage made negative

_Row = tuple[Any, ...]  # a damaged file may hold anything


class SQLiteStore(Store):
    """Holds records in a file of mode 600; a write that has returned survives any crash.

    Reads come from memory and never wait for a write, of this process or another. What other
    processes wrote is noticed at the next read, and only what has changed is read. Deleted content
    is overwritten (`secure_delete`). After a fork the child opens connections of its own. If the
    file or the disk cannot be written, records can be read, and a write raises the reason.

    Args:
        path: The file, made if missing, as are the directories above it.

    Raises:
        StoreError: The file cannot be opened, is not such a store, or was written by a newer
            version of this package.
    """

    persistent = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._records: dict[str, StoredSource] = {}
        self._sorted: list[StoredSource] | None = None  # the records, until one changes
        self._version = _BEFORE_ALL
        self._data_version = -1
        self._closed = False
        self._read_only = False
        self._unlocked: FileState | None = None  # of the files, if the reader takes no locks
        self._reset_connections()
        try:
            with self._translating_errors():
                self._open()
        except BaseException:
            self._disconnect()
            raise
        _stores.add(self)

    def __repr__(self) -> str:
        return f"SQLiteStore({self.path!r})"

    def get(self, source_id: str) -> StoredSource | None:
        with self._reading() as records:
            return records.get(source_id)

    def get_many(self, source_ids: Iterable[str]) -> Sequence[StoredSource]:
        with self._reading() as records:
            return [records[source_id] for source_id in source_ids if source_id in records]

    def list(self) -> list[StoredSource]:
        with self._reading() as records:
            if self._sorted is None:
                self._sorted = sorted(records.values(), key=attrgetter("id"))
            return self._sorted.copy()

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
            connection.executemany(_PUT, [(*r.to_row(), r.paused) for r in records])
        self._remember(version, records, [])

    def remove(self, source_id: str) -> bool:
        return self._remove(source_id)

    def remove_unchanged(self, record: StoredSource) -> None:
        self._remove(record.id, record)

    def _remove(self, source_id: str, unchanged: StoredSource | None = None) -> bool:
        with self._writing() as (connection, version):
            if unchanged is not None:
                check_write(self._records, (), [unchanged])
            if source_id not in self._records:
                return False
            connection.execute("DELETE FROM sources WHERE id = ?", (source_id,))
            connection.execute("REPLACE INTO removed VALUES (?, ?)", (source_id, version))
        self._remember(version, [], [source_id])
        return True

    def compact(self) -> None:
        """Rewrite the file and empty its log, which erases overwritten content from both.

        Raises:
            StoreError: Another process is reading, or the disk is full.
        """
        with self._write_lock, self._translating_errors():
            connection = self._writer()
            connection.execute("VACUUM")
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreError(
                f"the store {self.path!r} is in use, so that its log still has overwritten "
                "content; compact it again"
            )

    def revision(self) -> int:
        with self._reading():
            return self._version

    def records(self) -> Records:
        return SQLiteRecords(self._transaction, self._writing_connection)

    def close(self) -> None:
        with self._write_lock, self._lock, self._translating_errors():
            self._closed = True
            self._disconnect()

    def _remember(
        self, version: int, records: Sequence[StoredSource], removed: Sequence[str]
    ) -> None:
        """Update the copy in memory after a commit, unless `_current` has read the commit."""
        with self._lock:
            if self._version == version - 1:
                self._sorted = None
                self._records.update((record.id, record) for record in records)
                for source_id in removed:
                    self._records.pop(source_id, None)
                self._version += len(records) + len(removed)

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
        make_private_directory(os.path.dirname(self.path))
        # Before SQLite opens the file: it gives its log and index the mode that the file has.
        _create_file(self.path)
        status = os.stat(self.path)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"the store {self.path!r} cannot be used: it is not a file")
        # SQLite would open a file that cannot be written without an error, for reading alone.
        if not os.access(self.path, os.R_OK | os.W_OK, effective_ids=_EFFECTIVE_IDS):
            read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
            raise OSError(code, os.strerror(code))
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
        """Raise `reason`, for which the file cannot be written, unless it can be read."""
        try:
            if not os.path.isfile(self.path):
                raise reason
            # A file of an older schema is read as it is, unless it is the migration that is wrong.
            is_wrong = getattr(reason, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
            if is_wrong or self._schema_version(self._reader()) == 0:
                raise reason
        except sqlite3.Error:
            raise reason from None

    def _schema_version(self, connection: sqlite3.Connection) -> int:
        """Return the version of the schema, 0 for a new file."""
        # The tables first, as another process may create the store between these statements.
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
            # The version again, as another process may have migrated the file meanwhile.
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
        """Return the connection that reads; the caller holds `_lock`."""
        self._check_open()
        if self._unlocked is not None and self._unlocked != file_state(self.path):
            self._close_reader()
        if "reader" not in self._connections:
            if self._read_only:
                self._connections["reader"], self._unlocked = connect_read_only(self.path)
            else:
                self._connections["reader"] = self._connect()
            self._connections["reader"].text_factory = _text
        return self._connections["reader"]

    def _close_reader(self) -> None:
        if reader := self._connections.pop("reader", None):
            reader.close()
        self._unlocked, self._data_version = None, -1

    def _writer(self) -> sqlite3.Connection:
        """Return the connection that writes; the caller holds `_write_lock`."""
        self._check_open()
        if "writer" not in self._connections:
            try:
                self._prepare()
            except (OSError, sqlite3.OperationalError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else exc
                raise StoreError(
                    f"the store {self.path!r} can be read, but not written: {reason}"
                ) from exc
            with self._lock:
                self._read_only = False
                self._close_reader()
        if os.stat(self.path).st_ino != self._inode:  # SQLite would go on in the deleted file
            raise StoreError(f"the store {self.path!r} was replaced since it was opened")
        return self._connections["writer"]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self.path!r} is closed")

    def _reset_connections(self) -> None:
        self._lock = threading.Lock()  # guards the reader and the copy; held for moments
        self._write_lock = threading.Lock()  # guards the writer; taken before `_lock`
        self._connections: dict[str, sqlite3.Connection] = {}
        self._data_version = -1

    @contextmanager
    def _reading(self) -> Iterator[dict[str, StoredSource]]:
        with self._lock, self._translating_errors():
            yield self._current()

    def _current(self) -> dict[str, StoredSource]:
        """Return the records with the changes since the last call; the caller holds `_lock`."""
        connection = self._reader()
        (data_version,) = connection.execute("PRAGMA data_version").fetchone()
        if data_version != self._data_version:
            since = (self._version,)
            # In one transaction: a removal between the two statements would be missed.
            connection.execute("BEGIN")
            try:
                # A file that cannot be written, and so not migrated, may have an older schema.
                (schema,) = connection.execute("PRAGMA user_version").fetchone()
                everything = self._version == _BEFORE_ALL
                select = _ALL if everything else _CHANGED
                if schema == 1:
                    select = select.replace("paused", "NULL")
                rows = connection.execute(select, () if everything else since).fetchall()
                removed = connection.execute(_REMOVED, since).fetchall()
            finally:
                connection.execute("COMMIT")
            if self._unlocked is not None and self._unlocked != file_state(self.path):
                return self._current()  # read while it was written
            self._apply(rows, removed)
            self._data_version = data_version
        return self._records

    def _apply(self, rows: Sequence[_Row], removed: Sequence[tuple[str, int]]) -> None:
        self._sorted = None
        for source_id, _ in removed:
            self._records.pop(source_id, None)
        for record in map(StoredSource.from_row, rows):
            self._records[record.id] = record
        versions = [row[_VERSION] for row in rows] + [version for _, version in removed]
        self._version = max([self._version, *(v for v in versions if isinstance(v, int))])

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """Begin a transaction of sources; yield the connection and the next version."""
        with self._transaction() as connection:
            with self._lock:
                self._current()
                self._version = max(self._version, 0)
                version = self._version + 1
            yield connection, version

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction that locks out other writers, and commit it after the block."""
        with self._writing_connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _writing_connection(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection that writes."""
        with self._write_lock, self._translating_errors():
            yield self._writer()

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise StoreError(f"the store {self.path!r} cannot be used: {exc}") from exc
        except OSError as exc:
            raise StoreError(f"the store {self.path!r} cannot be used: {exc.strerror}") from exc
        except (ValueError, OverflowError) as exc:  # a NUL in the path, a number out of range
            raise StoreError(f"the store {self.path!r} cannot be used: {exc}") from exc


_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
# Connections of the parent. SQLite forbids using them in a child, and closing is a use.
_inherited: list[object] = []


def _after_fork() -> None:
    for store in _stores:
        _inherited.append(store._connections)
        store._reset_connections()


os.register_at_fork(after_in_child=_after_fork)


def _create_file(path: str) -> None:
    """Create a file of mode 600 unless it is there; never open one that is.

    The system drops the locks that a process has on a file as soon as the process closes any
    descriptor of that file. Another connection of this process would lose the lock by which it holds
    the write-ahead log, and the next process to close the store would delete the log that this one
    goes on writing (https://www.sqlite.org/howtocorrupt.html, section 2.2). The lock keeps others
    of this process from opening the new file before its descriptor is closed.
    """
    with _creating, suppress(FileExistsError):
        descriptor = os.open(
            os.path.realpath(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask has taken
        finally:
            os.close(descriptor)


_creating = ForkSafeLock()


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # SQLite does not apply its lock timeout to the switch, which two processes may attempt at once.
    deadline = time.monotonic() + _LOCK_TIMEOUT
    for pause in backoff(first=0.01, maximum=0.2):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
