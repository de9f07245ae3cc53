"""A store of sources in a PostgreSQL database, shared by hosts that see each other's changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import psycopg

from datasources import (
    DataSourceError,
    DataSourceExistsError,
    OptionError,
    Store,
    StoredSource,
    StoreError,
    check_write,
)
from datasources_postgresql.connecting import StoreConnection
from datasources_postgresql.errors import mapped
from datasources_postgresql.options import PostgreSQLOptions
from datasources_postgresql.store.notifications import NotificationListener
from datasources_postgresql.store.records import PostgreSQLRecords
from datasources_postgresql.store.schema import (
    ANNOUNCE,
    CHANGED,
    CHANNEL,
    LOCK,
    Connection,
    Row,
    is_removal,
    prepare,
    put_statement,
    removal_row,
    row_of,
)

# A host that hangs in the middle of a write blocks the writes of others for these times at most.
# The connection is closed if an answer takes `_GRACE` longer: then the path to the server is dead.
_LOCK_TIMEOUT, _STATEMENT_TIMEOUT, _GRACE = 10, 30, 2  # seconds
_SET_TIMEOUTS = f"""
SET lock_timeout = '{_LOCK_TIMEOUT}s';
SET idle_in_transaction_session_timeout = '15s';
SET statement_timeout = '{_STATEMENT_TIMEOUT}s';
"""
_DEFAULTS = {  # connection parameters that the URL overrides
    "connect_timeout": "10",  # seconds
    "tcp_user_timeout": "10000",  # milliseconds without an acknowledgement
}
_CLOSE_TIMEOUT = 2.0  # seconds that `close` waits, first for the thread, then for a write
_NO_VERSION = -1  # less than any version; changes since then are all records


class PostgreSQLStore(Store):
    """Keeps records in the schema `datasources` of a database.

    Records are read from memory, also while the server is away. A thread receives the
    notifications of other hosts, reads what they changed, and reads everything again after its
    connection was lost. A row lock of the server serializes writes.

    A child of a fork cannot use the store of its parent and must open one of its own.

    Raises:
        StoreError: The URL is wrong, the server cannot be reached or refuses, or the tables were
            made by a newer version of this package.
    """

    persistent = True

    def __init__(self, url: str) -> None:
        self._options = _parse_url(url)
        self._conninfo = {**_DEFAULTS, **self._options.conninfo()}
        host = self._conninfo.get("host") or self._conninfo["hostaddr"]
        self._display_url = (
            f"postgresql://{host}:{self._conninfo['port']}/{self._conninfo['dbname']}"
        )
        self._pid = os.getpid()
        self._closed = False
        self._records: dict[str, StoredSource] = {}
        self._sorted: list[StoredSource] | None = None  # the records, until one changes
        self._version = _NO_VERSION
        # Guards these three while they are replaced; held without I/O.
        self._lock = threading.Lock()
        # Held by whoever uses _connection or changes _records, also during I/O; taken before _lock.
        self._write_lock = threading.Lock()
        self._connection: StoreConnection | None = None
        self._host_records = PostgreSQLRecords(
            self._check_usable, self._connect, self._store_errors
        )
        with self._store_errors():
            connection = self._connect()
            try:
                prepare(connection, self._display_url)
                self._catch_up(connection)
                connection.rollback()  # an open transaction would block `compact`
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        self._listener = NotificationListener(self._follow_changes)

    def __repr__(self) -> str:
        return f"PostgreSQLStore({self._display_url!r})"

    def get(self, source_id: str) -> StoredSource | None:
        self._check_usable()
        with self._lock:
            return self._records.get(source_id)

    def list(self) -> list[StoredSource]:
        self._check_usable()
        with self._lock:
            if self._sorted is None:
                self._sorted = [record for _, record in sorted(self._records.items())]
            return self._sorted.copy()

    def write(
        self, *, add: Sequence[StoredSource] = (), update: Sequence[StoredSource] = ()
    ) -> None:
        def rows(version: int, schema_version: int) -> Sequence[Row]:
            check_write(self._records, add, update)
            records = enumerate((*add, *update), version)
            return [row_of(replace(record, version=n), schema_version) for n, record in records]

        if add or update:
            self._write_changes(rows)

    def remove(self, source_id: str) -> bool:
        def removal(version: int, schema_version: int) -> Sequence[Row]:
            is_stored = source_id in self._records
            return [removal_row(source_id, version, schema_version)] if is_stored else []

        return self._write_changes(removal)

    def remove_unchanged(self, record: StoredSource) -> None:
        def removal(version: int, schema_version: int) -> Sequence[Row]:
            check_write(self._records, (), [record])
            return [removal_row(record.id, version, schema_version)]

        self._write_changes(removal)

    def compact(self) -> None:
        """Rewrite the table, so that its file holds no record that was overwritten.

        The server's log, its backups and its replicas still hold them.

        Raises:
            StoreError: The table belongs to another role, or is in use for too long.
        """
        self._check_usable()
        warnings: list[str] = []
        with self._write_lock, self._store_errors(), closing(self._connect()) as connection:
            connection.autocommit = True
            connection.add_notice_handler(lambda note: warnings.append(note.message_primary or ""))
            connection.execute("VACUUM (FULL) datasources.sources")
        if warnings:
            raise StoreError(f"the store {self._display_url!r} was not compacted: {warnings[0]}")

    def revision(self) -> int:
        self._check_usable()
        return self._version

    def records(self) -> PostgreSQLRecords:
        return self._host_records

    def close(self) -> None:
        if self._pid != os.getpid():
            return  # the connections are the parent's
        self._closed = True
        self._listener.stop(_CLOSE_TIMEOUT)
        # A write to a server that does not answer ends by its own timeouts, after this returns.
        if self._write_lock.acquire(timeout=_CLOSE_TIMEOUT):
            try:
                self._disconnect()
            finally:
                self._write_lock.release()
        self._host_records.close(_CLOSE_TIMEOUT)

    # Writing.

    def _write_changes(self, change: Callable[[int, int], Sequence[Row]]) -> bool:
        """Store the rows that `change` returns; return True if there are any.

        `change` is called with the next version and the schema version of the tables.
        """
        self._check_usable()
        with self._write_lock, self._store_errors():
            connection, schema_version = self._locked_connection()
            try:
                self._catch_up(connection)
                since = self._version
                if rows := change(since + 1, schema_version):
                    connection.cursor().executemany(put_statement(schema_version), rows)
                    connection.execute(ANNOUNCE, [since + len(rows)])
                    self._commit(connection)
                    self._apply(since, since + len(rows), rows)
            finally:
                self._end_transaction(connection)
        return bool(rows)

    def _locked_connection(self) -> tuple[StoreConnection, int]:
        """Return a connection in a transaction that locks out other writers, and the schema version."""
        self._check_usable()
        if self._connection is not None:
            try:
                return self._connection, _lock_store(self._connection)
            except psycopg.OperationalError as exc:
                if exc.sqlstate and not exc.sqlstate.startswith("57P"):  # shut down, terminated
                    raise
            self._disconnect()  # lost while it was idle; nothing was written yet
        self._connection = self._connect()
        return self._connection, _lock_store(self._connection)

    def _end_transaction(self, connection: Connection) -> None:
        """Roll back a transaction that was not committed."""
        with suppress(psycopg.Error):  # the caller is raising the error that broke the connection
            connection.rollback()
        if self._closed:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _commit(self, connection: Connection) -> None:
        try:
            connection.commit()
        except psycopg.OperationalError as exc:
            if not connection.closed:
                raise
            raise StoreError(
                f"the store {self._display_url!r} was lost while it committed: the change may have been "
                "stored or not; read it again"
            ) from exc

    # Reading; `_catch_up` and `_apply` are called with the write lock held.

    def _catch_up(self, connection: Connection, *, everything: bool = False) -> None:
        """Apply what was committed since this store's version, in one snapshot."""
        since = _NO_VERSION if everything else self._version
        version, rows = self._read_changes(connection, since)
        if version < since:  # the database is an older one, restored
            since = _NO_VERSION
            version, rows = self._read_changes(connection, since)
        self._apply(since, version, rows)

    def _read_changes(self, connection: Connection, since: int) -> tuple[int, Sequence[Row]]:
        rows = connection.execute(CHANGED, [since]).fetchall()
        if not rows:
            raise StoreError(
                f"the store {self._display_url!r} is damaged: datasources.store is empty"
            )
        return int(rows[0][0]), [row[1:] for row in rows if row[1] is not None]

    def _apply(self, since: int, version: int, rows: Sequence[Row]) -> None:
        changed = {row[0]: None if is_removal(row) else StoredSource.from_row(row) for row in rows}
        with self._lock:
            self._sorted = None
            if since == _NO_VERSION:
                self._records = {}
            for source_id, record in changed.items():
                self._records.pop(source_id, None)
                if record is not None:
                    self._records[record.id] = record
            self._version = version

    def _follow_changes(self, listener: NotificationListener) -> None:
        """Apply the changes of other hosts until the connection is lost."""
        with self._store_errors(), closing(self._connect()) as connection:
            connection.autocommit = True
            connection.add_notify_handler(lambda _: listener.mark_pending())
            connection.execute(f"LISTEN {CHANNEL}")
            everything = listener.missed_changes
            while not self._closed:
                listener.pending = False
                with self._write_lock:
                    self._catch_up(connection, everything=everything)
                everything = listener.missed_changes = False
                listener.wait_for_notice(connection)

    # Connecting.

    def _connect(self) -> StoreConnection:
        connection = StoreConnection.connect(**self._conninfo)  # type: ignore[arg-type]
        try:
            connection.answer_timeout = _STATEMENT_TIMEOUT + _GRACE
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.read_only = False
            connection.execute(_SET_TIMEOUTS)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self._display_url!r} is closed")
        if self._pid != os.getpid():
            raise StoreError(
                f"the store {self._display_url!r} was opened before a fork; open one in the child"
            )

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            with mapped(self._options):
                yield
        except (StoreError, DataSourceExistsError):
            raise
        except DataSourceError as exc:
            # The cause is the driver's error, left out where it repeats a secret.
            cause = exc.__cause__
            raise StoreError(f"the store {self._display_url!r} cannot be used: {exc}") from cause
        except (ValueError, OSError) as exc:  # text that UTF-8 cannot hold; no descriptor left
            raise StoreError(f"the store {self._display_url!r} cannot be used: {exc}") from exc


def _parse_url(url: str) -> PostgreSQLOptions:
    try:
        return PostgreSQLOptions.load({"dsn": url})
    except OptionError as exc:
        raise StoreError(f"the URL of the PostgreSQL store cannot be used: {exc}") from None


def _lock_store(connection: StoreConnection) -> int:
    """Lock the store against other writers; return the schema version of its tables."""
    connection.answer_timeout = _LOCK_TIMEOUT + _GRACE
    row = connection.execute(LOCK).fetchone()
    connection.answer_timeout = _STATEMENT_TIMEOUT + _GRACE
    return int(row[0]) if row else 1  # `_read_changes` reports an empty table
