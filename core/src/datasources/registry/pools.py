"""The pools of every source, one for each event loop that uses it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType

from datasources.connector import DataSourceConnector
from datasources.errors import (
    DataSourceError,
    DataSourceNotFoundError,
    PoolClosedError,
    PoolError,
)
from datasources.models import PoolConfig
from datasources.pool import CANCEL_GRACE, ConnectionPool, PoolStatistics
from datasources.stores import StoredSource

_RECHECK_AFTER = 1.0  # seconds until a change made by another process is seen at the latest
_CLOSE_TIMEOUT = 30.0  # seconds to wait for leases where the caller does not say
_END_TIMEOUT = 5.0  # seconds to wait for leases when the event loop ends
_POLL = 0.1  # seconds between looks at whether another thread's loop still runs

Read = Callable[[str], StoredSource]
Build = Callable[[StoredSource, PoolConfig], Awaitable[DataSourceConnector]]


@dataclass(eq=False)
class _Source:
    """One source on one event loop."""

    record: StoredSource
    pool: ConnectionPool
    generation: int
    checked_at: float
    connector: DataSourceConnector | None = None
    """The lease that `connector` holds for its callers."""
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    operations: set[asyncio.Timeout] = field(default_factory=set)
    """The scopes of the registry's operations that use a connection now."""
    closed: bool = False
    cut_off: bool = False
    """True once closing has waited long enough for operations."""

    async def lend(self) -> None:
        """Take the lease for `connector`, unless another task has."""
        async with self.connecting:
            if self.connector is None:
                connector = await self.pool.acquire()
                if self.closed:  # meanwhile: nobody would return it
                    await self.pool.release(connector)
                    raise PoolClosedError(f"the pool of source {self.record.id!r} was closed")
                self.connector = connector

    async def close(self, timeout: float) -> None:
        self.closed = True
        if self.connector is not None:
            connector, self.connector = self.connector, None
            await self.pool.release(connector)
        timer = asyncio.get_running_loop().call_later(timeout, self._cut_off)
        try:
            # Operations that were cut off need a moment to return their leases.
            await self.pool.close(timeout + CANCEL_GRACE)
        finally:
            timer.cancel()

    def _cut_off(self) -> None:
        """Cancel the operations under way; each ends with `PoolClosedError`."""
        self.cut_off = True
        now = asyncio.get_running_loop().time()
        for operation in self.operations:
            operation.reschedule(now)


class _Loop:
    """The sources of one event loop; all of it happens on that loop."""

    def __init__(self) -> None:
        self.ended = False
        self.sources: dict[str, _Source] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def close_at_end(self) -> None:
        """Have everything closed when the loop ends, as `asyncio.run` ends it.

        It then closes the asynchronous generators it has seen; this one waits for that.
        """

        async def until_the_end() -> AsyncIterator[None]:
            try:
                yield
            finally:
                await self.close(None, _END_TIMEOUT)
                self.ended = True

        self._end = until_the_end()
        with suppress(StopIteration):
            anext(self._end).__await__().__next__()  # up to the yield, where nothing is awaited

    def retire(self, source_id: str, timeout: float) -> None:
        """Start to close a source's pool, if it has one."""
        if source := self.sources.pop(source_id, None):
            task = asyncio.ensure_future(source.close(timeout))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self, source_id: str | None, timeout: float) -> list[BaseException]:
        """Close one source's pool, or all; return what that raised once nothing is closing."""
        for known in [source_id] if source_id else list(self.sources):
            self.retire(known, timeout)
        outcomes = await asyncio.gather(*self._closing, return_exceptions=True)
        return [outcome for outcome in outcomes if outcome is not None]


class Connections:
    """Opens pools on demand and replaces those whose source has changed.

    Connectors belong to the event loop they were connected on, so each loop has its own pools;
    the object itself may be used from any of them.

    Args:
        read: Returns a source's record, or raises DataSourceNotFoundError.
        build: Makes a connector, not yet connected, from a record.
        config: Of every pool.
    """

    def __init__(self, read: Read, build: Build, config: PoolConfig) -> None:
        self._read = read
        self._build = build
        self._config = config
        self._lock = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
        self._generation = 0

    def lease(self, source_id: str) -> Lease:
        """Return a lease of the source's pool, as a context manager."""
        return Lease(self, source_id)

    def operation(self, source_id: str) -> AbstractAsyncContextManager[DataSourceConnector]:
        """Return a lease whose block is cancelled when closing the source has waited long enough.

        The block must enter and leave in one task, and nothing else may run in it: an
        asynchronous generator does not yield inside.

        Raises:
            PoolClosedError: On leaving: the block was cut off.
        """
        return _Operation(self, source_id)

    async def connector(self, source_id: str) -> DataSourceConnector:
        """Return the one connector that all callers of this loop share, until `forget`."""
        while True:
            source = self.source(source_id)
            if source.connector is not None:
                return source.connector
            try:
                await source.lend()
            except PoolClosedError:
                if self.source(source_id) is source:
                    raise

    def statistics(self, source_id: str) -> PoolStatistics:
        """Return the figures of the source's pool on this loop."""
        return self.source(source_id).pool.statistics()

    async def forget(self, source_id: str | None = None, timeout: float | None = None) -> None:
        """Close a source's pools, or all, on every loop; they open again on demand.

        Args:
            source_id: The source; None is all.
            timeout: Seconds to wait for operations under way, 30 by default; then they are cut off,
                and what a host has leased is disconnected a second later.

        Raises:
            DataSourceError: Something did not close well; everything is closed all the same.
        """
        seconds = _CLOSE_TIMEOUT if timeout is None else timeout
        with self._lock:
            self._generation += 1
            loops = list(self._loops.items())
        outcomes = await asyncio.gather(
            *(_close_on(loop, known, source_id, seconds) for loop, known in loops)
        )
        failed = [error for errors in outcomes for error in errors if isinstance(error, Exception)]
        if len(failed) == 1 and isinstance(failed[0], DataSourceError):
            raise failed[0]
        if failed:
            reasons = "; ".join(
                dict.fromkeys(str(error) or type(error).__name__ for error in failed)
            )
            message = f"some connections did not close well: {reasons}"
            raise PoolError(message) from ExceptionGroup(message, failed)

    def source(self, source_id: str) -> _Source:
        """Return a source as it is now in the store, with its pool on this loop."""
        loop = asyncio.get_running_loop()
        known = self._loops.get(loop) or self._add(loop)
        source = known.sources.get(source_id)
        now = time.monotonic()
        generation = self._generation
        if (
            source is not None
            and source.generation == generation
            and now < source.checked_at + _RECHECK_AFTER
        ):
            return source
        try:
            record = self._read(source_id)
        except DataSourceNotFoundError:
            known.retire(source_id, _CLOSE_TIMEOUT)
            raise
        if source is not None and source.record == record:
            source.generation, source.checked_at = generation, now
            return source
        known.retire(source_id, _CLOSE_TIMEOUT)
        pool = ConnectionPool(source_id, lambda: self._build(record, self._config), self._config)
        known.sources[source_id] = source = _Source(record, pool, generation, now)
        return source

    def _add(self, loop: asyncio.AbstractEventLoop) -> _Loop:
        known = _Loop()
        known.close_at_end()
        with self._lock:
            # One that ended closed what it had; one that was closed at once leaves it to be freed.
            self._loops = {each: k for each, k in self._loops.items() if not each.is_closed()}
            self._loops[loop] = known
        return known


class Lease:
    """A lease that is not disturbed by a source being replaced before it begins."""

    def __init__(self, connections: Connections, source_id: str) -> None:
        self._connections = connections
        self._source_id = source_id

    async def __aenter__(self) -> DataSourceConnector:
        while True:
            self._source = self._connections.source(self._source_id)
            self._lease = self._source.pool.connection()
            try:
                return await self._lease.__aenter__()
            except PoolClosedError:
                if self._connections.source(self._source_id) is self._source:
                    raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._lease.__aexit__(exc_type, exc, traceback)

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """Let closing the source cancel the block, which runs in one task.

        Raises:
            PoolClosedError: On leaving: the block was cut off.
        """
        closed = PoolClosedError(f"source {self._source_id!r} was closed while it was in use")
        if self._source.cut_off:
            raise closed
        try:
            async with asyncio.timeout(None) as scope:
                self._source.operations.add(scope)
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise closed from None
        finally:
            self._source.operations.discard(scope)


class _Operation:
    """A lease and its interruptible block in one."""

    def __init__(self, connections: Connections, source_id: str) -> None:
        self._lease = Lease(connections, source_id)

    async def __aenter__(self) -> DataSourceConnector:
        connector = await self._lease.__aenter__()
        self._scope = self._lease.interruptible()
        await self._scope.__aenter__()
        return connector

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        await self._lease.__aexit__(exc_type, exc, traceback)
        return await self._scope.__aexit__(exc_type, exc, traceback)


async def _close_on(
    loop: asyncio.AbstractEventLoop, known: _Loop, source_id: str | None, timeout: float
) -> list[BaseException]:
    """Run `close` on its loop; one that no longer runs can close nothing."""
    if loop is asyncio.get_running_loop():
        return await known.close(source_id, timeout)
    outcome: Future[list[BaseException]] = Future()

    def start() -> None:
        if known.ended:  # everything is closed, and no task would run any more
            outcome.set_result([])
            return
        task = loop.create_task(known.close(source_id, timeout))
        task.add_done_callback(
            lambda _: outcome.set_result([] if task.cancelled() else task.result())
        )

    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(start)
    waiting = asyncio.wrap_future(outcome)
    # A loop that ends takes no notice of what it was still asked to do.
    while not waiting.done() and loop.is_running():
        await asyncio.wait([waiting], timeout=_POLL)
    return waiting.result() if waiting.done() else []
