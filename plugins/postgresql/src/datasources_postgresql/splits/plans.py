"""Plan the splits of an item in one snapshot, and read them in it.

A plan owns one connection, whose transaction exports the snapshot that all readers import:

1. A transaction of its own finds out how the item can be divided (`outline.py`): a table or a
   materialised view by ranges of its blocks, a partitioned table by those of its leaves, anything
   else by ranges of a key, or not at all. What cannot be divided needs no more than that: its one
   split is read as a fetch reads the item.
2. The plan's transaction begins with REPEATABLE READ. LOCK TABLE, which takes no snapshot, locks what
   is read; the snapshot is taken after that. A snapshot that is older than a lock sees no row of a
   table that was truncated, rewritten or swapped while the lock was waited for
   (https://www.postgresql.org/docs/current/mvcc-caveats.html). The item is looked at again; if
   reading needs a lock that the transaction does not have, the plan starts again.
3. The transaction stays open for the block of the plan, and its locks keep the tables as they are.
   A short query before each idle timeout of the session keeps it open; no timeout is lifted.

A reader imports the snapshot before its first query, and compares the number of each table's file:
without a snapshot, a table may be rewritten between plan and reader. With a pool of one
connection the readers use the plan's own transaction, one after the other.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import pq, sql

from datasources import (
    DataFetchError,
    LimitExceededError,
    OptionError,
    Split,
    SplitPlan,
)
from datasources_postgresql import libpq
from datasources_postgresql.arrow import import_arrow, iterate_batches
from datasources_postgresql.connections import LeasingPool
from datasources_postgresql.errors import mapped
from datasources_postgresql.guard import Statement
from datasources_postgresql.identifiers import TableName
from datasources_postgresql.libpq import Connection
from datasources_postgresql.options import PostgreSQLOptions
from datasources_postgresql.reading import Transaction, begin
from datasources_postgresql.resolving import parse_identifier
from datasources_postgresql.splits.outline import WHOLE, Outline, Part, outline_of, parts_of
from datasources_postgresql.splits.reading import read_part

T = TypeVar("T")

_ATTEMPTS = 5  # to lock tables that change meanwhile
_UNDO_TIMEOUT = 2.0  # seconds to undo what a reader has done before the connection is closed
_LONGEST_IDLE = 60.0  # seconds between the queries that keep a plan's transaction open
_SNAPSHOT_NAME = re.compile(r"[0-9A-F]+(?:-[0-9A-F]+)+")
_EXPORT = b"""
SELECT pg_catalog.pg_export_snapshot(),
    pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())::text,
    pg_catalog.date_part('epoch',
        pg_catalog.current_setting('idle_in_transaction_session_timeout')::pg_catalog.interval)
"""
_SERVER = b"SELECT pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())::text"
_ENDED = (
    "the plan of the split has ended, or the split is read on another server than the plan's, which "
    "needs a plan with consistent=False"
)
_NO_SNAPSHOT = (
    psycopg.errors.InvalidParameterValue,  # up to PostgreSQL 16
    psycopg.errors.UndefinedObject,  # since PostgreSQL 17
    # The plan's transaction has just ended: the server removes the file of a snapshot after that.
    psycopg.errors.ObjectNotInPrerequisiteState,
)


class ReadCallback(Protocol):
    """Runs a function in a transaction, again after a transient failure, and returns its result."""

    async def __call__(self, read: Callable[[Transaction], Awaitable[T]]) -> T: ...


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """A request for a plan; see `PostgreSQLConnector.plan_splits`."""

    source_id: str
    identifier: str
    target_bytes: int
    max_splits: int
    key: str | None
    consistent: bool


@dataclass(eq=False)
class _OpenPlan:
    """The transaction of a plan, which one task at a time uses."""

    connection: Connection
    transaction: Transaction
    snapshot: str
    server: str
    """The time at which the server was started, which tells it from others."""
    idle: float
    """Seconds that the transaction may be idle."""
    parts: list[Part]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_closed: bool = False
    reading: asyncio.Timeout | None = None
    """The timeout scope of the reader that uses the transaction, which `close` makes expire."""

    async def close(self) -> None:
        """End the readers of the transaction with an error.

        It waits until they have left the transaction, also if it is cancelled meanwhile: the
        connection must not be given to others before.
        """
        self.is_closed = True
        if self.reading is not None:
            self.reading.reschedule(asyncio.get_running_loop().time())
        await _to_the_end(self._wait_until_unused())

    async def _wait_until_unused(self) -> None:
        async with self.lock:
            pass

    async def keep_open(self) -> None:
        """Run a query before each idle timeout, until the connection fails."""
        with suppress(psycopg.Error):
            while True:
                await asyncio.sleep(self.idle)
                async with self.lock:
                    await self.transaction.execute(b"SELECT 1")

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Transaction]:
        """Lend the transaction for a block, and undo what the block has done to it."""
        async with self.lock:
            if self.is_closed or self.connection.closed:
                raise DataFetchError(_ENDED)
            try:
                async with asyncio.timeout(None) as scope:
                    self.reading = scope
                    yield self.transaction
            except TimeoutError:
                if not scope.expired():
                    raise
                raise DataFetchError(_ENDED) from None
            finally:
                self.reading = None
                await _to_the_end(self._undo())

    async def _undo(self) -> None:
        """Go back to the savepoint of the plan; close a connection that does not do so in time."""
        try:
            async with asyncio.timeout(_UNDO_TIMEOUT):
                if self.connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                    await libpq.cancel(self.connection)
                await self.transaction.rollback_to("split")
        except (TimeoutError, psycopg.Error):
            await self.connection.close()


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await a coroutine until it has ended, also if the caller is cancelled meanwhile."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    task.result()
    if cancelled is not None:
        raise cancelled


class SplitPlanner:
    """Plans and reads the splits of one connector's items.

    Args:
        connections: Of the connector; a plan's connection counts within its size.
        options: Of the source.
        read: Reads in a transaction of its own.
        max_size: Size of `connections`.
    """

    def __init__(
        self,
        connections: LeasingPool,
        options: PostgreSQLOptions,
        read: ReadCallback,
        max_size: int,
    ) -> None:
        self._connections = connections
        self._options = options
        self._read = read
        self._max_size = max_size
        self._open_plans: dict[str, _OpenPlan] = {}

    @asynccontextmanager
    async def plan(self, request: SplitRequest) -> AsyncIterator[SplitPlan]:
        """Plan the splits of an item for a block; see `PostgreSQLConnector.plan_splits`."""
        await import_arrow()
        target = await parse_identifier(request.identifier, self._options)
        outline = await self._read(lambda t: outline_of(t, target, self._options, request.key))
        if not outline.is_divisible:
            yield _plan(request, outline, [WHOLE])
        elif not request.consistent:
            yield _plan(request, outline, await self._read(lambda t: _parts(t, outline, request)))
        else:
            async with self._opened(target, outline, request) as opened:
                if opened is None:
                    yield _plan(request, outline, [WHOLE])
                else:
                    yield _plan(request, outline, opened.parts, opened, max(1, self._max_size - 1))

    @asynccontextmanager
    async def _opened(
        self, target: TableName | Statement, outline: Outline, request: SplitRequest
    ) -> AsyncIterator[_OpenPlan | None]:
        """Keep the transaction of a plan open for a block; None if a table cannot be locked."""
        async with AsyncExitStack() as stack:
            with mapped(self._options):
                opened = await self._open(stack, target, outline, request)
            if opened is None:
                yield None
                return
            keeping = asyncio.ensure_future(opened.keep_open())
            self._open_plans[opened.snapshot] = opened
            try:
                yield opened
            finally:
                del self._open_plans[opened.snapshot]
                keeping.cancel()
                try:
                    await opened.close()
                finally:
                    await asyncio.gather(keeping, return_exceptions=True)

    async def _open(
        self,
        stack: AsyncExitStack,
        target: TableName | Statement,
        outline: Outline,
        request: SplitRequest,
    ) -> _OpenPlan | None:
        """Return the transaction of a plan, entered in `stack`; None if not all can be locked."""
        for _ in range(_ATTEMPTS):
            async with AsyncExitStack() as attempt:
                connection = await attempt.enter_async_context(self._connections.lease())
                locked = _Locked(outline.names(), self._options.statement_timeout)
                t = await begin(connection, self._options, locked)
                relations = [oid for oid, *_ in await t.locks()]
                outline = await outline_of(t, target, self._options, request.key)
                if outline.is_divisible and outline.is_kept_by(relations):
                    parts = await _parts(t, outline, request)
                    ((snapshot, server, idle),) = await t.execute(_EXPORT)
                    if self._max_size == 1:  # readers use this transaction
                        await libpq.execute(connection, b"SAVEPOINT split")
                    stack.push_async_exit(attempt.pop_all())
                    seconds = min(_LONGEST_IDLE, idle / 3) if idle else _LONGEST_IDLE
                    return _OpenPlan(connection, t, snapshot, server, seconds, parts)
        return None

    def read(self, split: Split, columns: Sequence[str] | None) -> AsyncIterator[Any]:
        """Yield the rows of a split; see `PostgreSQLConnector.read_split`."""

        async def read(add: Callable[[Any], None]) -> None:
            await import_arrow()
            target = await parse_identifier(split.identifier, self._options)
            with mapped(self._options):
                async with self._transaction(split) as t:
                    await read_part(t, target, split.part, columns, self._options, add)

        return iterate_batches(read)

    @asynccontextmanager
    async def _transaction(self, split: Split) -> AsyncIterator[Transaction]:
        """Lend a transaction that has the snapshot of a split, if the split has one."""
        opened = self._open_plans.get(split.snapshot or "")
        if opened is not None and self._max_size == 1:
            async with opened.use() as t:
                yield t
            return
        snapshot = None if split.snapshot is None else _Imported(split.snapshot)
        async with self._connections.lease() as connection:
            t = await begin(connection, self._options, snapshot)
            if snapshot is not None and await t.execute(_SERVER) != [(split.part["server"],)]:
                raise DataFetchError(_ENDED)
            yield t


class _Locked:
    """The snapshot that a plan takes once it has locked its tables."""

    def __init__(self, names: Sequence[tuple[str, str]], timeout: float) -> None:
        self._names = [sql.Identifier(*name) for name in names]
        self._timeout = timeout

    async def begin(self, connection: Connection) -> None:
        """Begin a transaction and lock; LOCK TABLE locks what is below a table or view as well."""
        await libpq.execute(connection, b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if not self._names:
            return
        command = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(
            sql.SQL(", ").join(self._names)
        )
        connection.answer_timeout = math.inf
        try:
            async with asyncio.timeout(self._timeout):
                await libpq.execute(connection, command.as_bytes())
        except TimeoutError:  # the release of the connection cancels the command
            raise LimitExceededError(
                f"the tables were not free to be read within {self._timeout:g} seconds: another session "
                "changes them"
            ) from None


class _Imported:
    """The snapshot of a plan, for a reader on another connection."""

    def __init__(self, name: str) -> None:
        if not _SNAPSHOT_NAME.fullmatch(name):
            raise OptionError("the name of the split's snapshot is malformed")
        self._name = name

    async def begin(self, connection: Connection) -> None:
        """Begin a transaction that sees what the plan's transaction sees."""
        command = (
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
            f"SET TRANSACTION SNAPSHOT '{self._name}'"
        )
        try:
            await libpq.execute(connection, command.encode())
        except _NO_SNAPSHOT as exc:
            raise DataFetchError(_ENDED, code=exc.sqlstate) from None


async def _parts(t: Transaction, outline: Outline, request: SplitRequest) -> list[Part]:
    return await parts_of(t, outline, request.target_bytes, request.max_splits)


def _plan(
    request: SplitRequest,
    outline: Outline,
    parts: Sequence[Part],
    opened: _OpenPlan | None = None,
    concurrency: int | None = None,
) -> SplitPlan:
    """Return a plan of parts, which are read in the snapshot of `opened` if there is one."""
    splits = [
        Split(
            request.source_id,
            request.identifier,
            index,
            len(parts),
            part.description
            | {"item": outline.item}
            | ({} if opened is None else {"server": opened.server}),
            None if opened is None else opened.snapshot,
            part.rows,
            part.bytes,
        )
        for index, part in enumerate(parts)
    ]
    consistent = opened is not None or len(parts) == 1
    return SplitPlan(outline.schema, splits, consistent, concurrency)
