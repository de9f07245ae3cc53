"""Sources in one PostgreSQL database, shared by hosts that see each other's changes."""

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
from datasources_postgresql.errors import mapped
from datasources_postgresql.options import PostgreSQLOptions
from datasources_postgresql.store.notifications import Follower
from datasources_postgresql.store.schema import (
    ANNOUNCE,
    CHANGED,
    CHANNEL,
    PUT,
    Connection,
    Row,
    is_removal,
    prepare,
)

# So that a host which hangs in the middle of a write holds up the others for seconds only.
_SET_TIMEOUTS = """
SET lock_timeout = '10s';
SET idle_in_transaction_session_timeout = '15s';
SET statement_timeout = '30s';
"""
_DEFAULTS = {  # unless the URL says otherwise
    "connect_timeout": "10",  # seconds
    "tcp_user_timeout": "10000",  # milliseconds without an acknowledgement
}
_END_TIMEOUT = 2.0  # seconds that `close` waits for what is under way
_BEFORE_ALL = -1  # less than any version


class PostgreSQLStore(Store):
    """Keeps records in the schema `datasources` of a database.

    Reads come from memory, also while the server is away.  A thread listens for what other hosts
    announce, reads what they changed, and reads everything again after the connection was lost.
    Writes wait for one another by a row lock of the server.

    A child of a fork cannot use the store of its parent and must open one of its own.

    Raises:
        StoreError: The URL is wrong, the server cannot be reached or refuses, or the tables were
            made by a newer version of this package.
    """

    persistent = True

    def __init__(self, url: str) -> None:
        self._options = _parsed(url)
        self._conninfo = {**_DEFAULTS, **self._options.conninfo()}
        host = self._conninfo.get("host") or self._conninfo["hostaddr"]
        self._place = f"postgresql://{host}:{self._conninfo['port']}/{self._conninfo['dbname']}"
        self._pid = os.getpid()
        self._closed = False
        self._records: dict[str, StoredSource] = {}
        self._version = _BEFORE_ALL
        self._lock = threading.Lock()  # of the records while they are replaced; held for moments
        self._write_lock = threading.Lock()  # of the connection, and of who changes the records
        self._connection: Connection | None = None
        with self._explained():
            connection = self._connect()
            try:
                prepare(connection, self._place)
                self._catch_up(connection)
                connection.rollback()  # an open transaction would hold up `compact`
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        self._follower = Follower(self._follow)

    def __repr__(self) -> str:
        return f"PostgreSQLStore({self._place!r})"

    def get(self, source_id: str) -> StoredSource | None:
        self._check_usable()
        with self._lock:
            return self._records.get(source_id)

    def list(self) -> list[StoredSource]:
        self._check_usable()
        with self._lock:
            return [record for _, record in sorted(self._records.items())]

    def write(
        self, *, add: Sequence[StoredSource] = (), update: Sequence[StoredSource] = ()
    ) -> None:
        def rows(version: int) -> Sequence[Row]:
            check_write(self._records, add, update)
            records = enumerate((*add, *update), version)
            return [replace(record, version=number).to_row() for number, record in records]

        if add or update:
            self._change(rows)

    def remove(self, source_id: str) -> bool:
        def removal(version: int) -> Sequence[Row]:
            known = source_id in self._records
            return [(source_id, *[None] * 7, version)] if known else []

        return self._change(removal)

    def compact(self) -> None:
        """Rewrite the table, so that nothing overwritten is left in its file.

        What the server's log, its backups and its replicas hold is not reached.

        Raises:
            StoreError: The table belongs to another role, or is in use for too long.
        """
        self._check_usable()
        warnings: list[str] = []
        with self._write_lock, self._explained(), closing(self._connect()) as connection:
            connection.autocommit = True
            connection.add_notice_handler(lambda note: warnings.append(note.message_primary or ""))
            connection.execute("VACUUM (FULL) datasources.sources")
        if warnings:
            raise StoreError(f"the store {self._place!r} was not compacted: {warnings[0]}")

    def close(self) -> None:
        if self._pid != os.getpid():
            return  # the connections are the parent's
        self._closed = True
        self._follower.stop(_END_TIMEOUT)
        # A write that is under way, perhaps to a server that does not answer, ends by itself.
        if self._write_lock.acquire(timeout=_END_TIMEOUT):
            try:
                self._disconnect()
            finally:
                self._write_lock.release()

    # Writing.

    def _change(self, change: Callable[[int], Sequence[Row]]) -> bool:
        """Store the rows that `change` makes of the next version; return whether there were any."""
        self._check_usable()
        with self._write_lock, self._explained():
            connection = self._locked()
            try:
                self._catch_up(connection)
                since = self._version
                if rows := change(since + 1):
                    connection.cursor().executemany(PUT, rows)
                    connection.execute(ANNOUNCE, [since + len(rows)])
                    self._commit(connection)
                    self._take(since, since + len(rows), rows)
            finally:
                self._end(connection)
        return bool(rows)

    def _locked(self) -> Connection:
        """Return a connection that holds the store against other writers."""
        self._check_usable()
        if self._connection is not None:
            try:
                return _hold(self._connection)
            except psycopg.OperationalError as exc:
                if exc.sqlstate and not exc.sqlstate.startswith("57P"):  # shut down, terminated
                    raise
            self._disconnect()  # it was lost while idle, and nothing was written yet
        self._connection = self._connect()
        return _hold(self._connection)

    def _end(self, connection: Connection) -> None:
        """End what is left of a transaction."""
        with suppress(psycopg.Error):  # what lost the connection is on its way up already
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
                f"the store {self._place!r} was lost while it committed: the change may have been "
                "stored or not; read it again"
            ) from exc

    # Reading; who changes the records holds the write lock.

    def _catch_up(self, connection: Connection, *, everything: bool = False) -> None:
        """Take over what was committed since the last time, in one snapshot."""
        since = _BEFORE_ALL if everything else self._version
        version, rows = self._changes(connection, since)
        if version < since:  # the database is an older one, restored
            since = _BEFORE_ALL
            version, rows = self._changes(connection, since)
        self._take(since, version, rows)

    def _changes(self, connection: Connection, since: int) -> tuple[int, Sequence[Row]]:
        found = connection.execute(CHANGED, [since]).fetchall()
        if not found:
            raise StoreError(f"the store {self._place!r} is damaged: datasources.store is empty")
        return int(found[0][0]), [row[1:] for row in found if row[1] is not None]

    def _take(self, since: int, version: int, rows: Sequence[Row]) -> None:
        changed = {row[0]: None if is_removal(row) else StoredSource.from_row(row) for row in rows}
        with self._lock:
            if since == _BEFORE_ALL:
                self._records = {}
            for source_id, record in changed.items():
                self._records.pop(source_id, None)
                if record is not None:
                    self._records[record.id] = record
            self._version = version

    def _follow(self, follower: Follower) -> None:
        """Take over other hosts' changes until the connection is lost."""
        with self._explained(), closing(self._connect()) as connection:
            connection.autocommit = True
            connection.add_notify_handler(lambda _: follower.notice())
            connection.execute(f"LISTEN {CHANNEL}")
            everything = follower.was_lost
            while not self._closed:
                follower.noticed = False
                with self._write_lock:
                    self._catch_up(connection, everything=everything)
                everything = follower.was_lost = False
                follower.wait_for_notice(connection)

    # Connecting.

    def _connect(self) -> Connection:
        connection = psycopg.connect(**self._conninfo)  # type: ignore[arg-type]
        try:
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
            raise StoreError(f"the store {self._place!r} is closed")
        if self._pid != os.getpid():
            raise StoreError(
                f"the store {self._place!r} was opened before a fork; open one in the child"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with mapped(self._options):
                yield
        except (StoreError, DataSourceExistsError):
            raise
        except DataSourceError as exc:
            # The cause is the driver's error, left out where it repeats a secret.
            cause = exc.__cause__
            raise StoreError(f"the store {self._place!r} cannot be used: {exc}") from cause
        except (ValueError, OSError) as exc:  # text that UTF-8 cannot hold; no descriptor left
            raise StoreError(f"the store {self._place!r} cannot be used: {exc}") from exc


def _parsed(url: str) -> PostgreSQLOptions:
    try:
        return PostgreSQLOptions.load({"dsn": url})
    except OptionError as exc:
        raise StoreError(f"the URL of the PostgreSQL store cannot be used: {exc}") from None


def _hold(connection: Connection) -> Connection:
    connection.execute("SELECT FROM datasources.store FOR UPDATE")
    return connection
