"""The pools of every source, one for each event loop that uses the source.

Connectors belong to the event loop they were connected on. So every loop has pools of its own,
made when a source is first used there. All work on the pools of a loop happens on that loop; other
threads only look up whether a source has a pool, and ask for the rest by `call_soon_threadsafe`.
Threads share the table of loops and the generation, which changes whenever a source may have
changed.

A pool is replaced when the record of its source has changed, other than by a pause. A change made
through the same registry is seen at the next use, by the generation; any other one within
`_RECHECK_AFTER`.

A loop that ends closes its pools: `asyncio.run` closes all asynchronous generators at its end; one
is started on each loop, and its `finally` closes the pools of the loop. A forked process forgets
the loops of its parent, whose connections are the parent's to close.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType

from datasources.connector import DataSourceConnector
from datasources.connector_errors import ConnectorErrors, mask_connector_error, raise_masked
from datasources.errors import (
    DataSourceError,
    DataSourceNotFoundError,
    PoolClosedError,
    PoolError,
)
from datasources.models import PoolConfig
from datasources.pool import CANCEL_GRACE, DISCONNECT_TIMEOUT, ConnectionPool, PoolStatistics
from datasources.registry.factory import ConnectorFactory
from datasources.registry.records import SourceRecords, paused_error
from datasources.stores import StoredSource

_RECHECK_AFTER = 1.0  # seconds after which a record is read again, for changes by other processes
_CLOSE_TIMEOUT = 30.0  # seconds to wait for leases where the caller does not say
_END_TIMEOUT = 5.0  # seconds to wait for leases when the event loop ends
_POLL = 0.1  # seconds between looks at whether another thread's loop still runs


@dataclass(eq=False)
class _SourcePool:
    """The pool of one source on one event loop."""

    record: StoredSource
    pool: ConnectionPool
    generation: int
    checked_at: float
    connector: DataSourceConnector | None = None
    """The connector that `SourcePools.connector` gives to all its callers; one lease."""
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    scopes: set[asyncio.Timeout] = field(default_factory=set)
    """The scopes of the registry's operations that use a connection now."""
    paused: str | None = None
    """The reason why the source is paused now; the pool then gives no new lease."""
    closed: bool = False
    cut_off: bool = False
    """True once closing has waited long enough for operations."""

    async def acquire_connector(self) -> None:
        """Take the lease of `connector`, unless another task has taken it meanwhile."""
        async with self.connecting:
            if self.connector is None:
                connector = await self.pool.acquire()
                if self.closed:  # while this waited: no caller would return the lease
                    self.pool.release_nowait(connector)
                    raise PoolClosedError(f"the pool of source {self.record.id!r} was closed")
                self.connector = connector

    async def close(self, timeout: float) -> None:
        """Close the pool; after `timeout` seconds, cancel the operations that still use it."""
        self.closed = True
        if self.connector is not None:
            self.pool.release_nowait(self.connector)
            self.connector = None
        timer = asyncio.get_running_loop().call_later(timeout, self._cancel_operations)
        try:
            # Operations that were cancelled need a moment to return their leases.
            await self.pool.close(timeout + CANCEL_GRACE)
        finally:
            timer.cancel()

    def check_not_paused(self) -> None:
        """Raise SourcePausedError if the source is paused."""
        if self.paused is not None:
            raise paused_error(self.record.id, self.paused)

    def _cancel_operations(self) -> None:
        self.cut_off = True
        now = asyncio.get_running_loop().time()
        for scope in self.scopes:
            scope.reschedule(now)


class _LoopPools:
    """The pools of one event loop; every method runs on that loop."""

    def __init__(self) -> None:
        self.ended = False
        self.by_source: dict[str, _SourcePool] = {}
        self._closing: dict[asyncio.Task[None], str] = {}
        """The tasks that close pools, each with its source."""

    def close_at_end_of_loop(self) -> None:
        """Have everything closed when the event loop ends; see the module."""

        async def wait_for_end() -> AsyncIterator[None]:
            try:
                yield
            finally:
                await self.close(None, _END_TIMEOUT)
                self.ended = True

        self._end = wait_for_end()
        # Run it up to the `yield`, as no coroutine is at hand that could await its first item.
        with suppress(StopIteration):
            anext(self._end).__await__().__next__()

    def start_closing(self, source_id: str, timeout: float) -> None:
        """Start to close a source's pool, if the loop has one; `close` waits for that."""
        if source_pool := self.by_source.pop(source_id, None):
            task = asyncio.ensure_future(source_pool.close(timeout))
            self._closing[task] = source_id
            task.add_done_callback(self._closing.pop)

    async def close(self, source_id: str | None, timeout: float) -> list[BaseException]:
        """Close one source's pool, or all; return the errors once none of them is closing.

        A pool is closed to the end though the caller is cancelled.
        """
        for closed_id in [source_id] if source_id else list(self.by_source):
            self.start_closing(closed_id, timeout)
        tasks = [
            task for task, closed_id in self._closing.items() if source_id in (None, closed_id)
        ]
        if tasks:
            await asyncio.wait(tasks)
        errors = [task.exception() for task in tasks if not task.cancelled()]
        return [error for error in errors if error is not None]


class SourcePools:
    """Makes pools on demand, and replaces those whose source has changed.

    It may be used from any thread and event loop.

    Args:
        records: Where sources are read.
        factory: Makes their connectors.
        config: The configuration of every pool.
    """

    def __init__(
        self, records: SourceRecords, factory: ConnectorFactory, config: PoolConfig
    ) -> None:
        self._records = records
        self._factory = factory
        self._config = config
        self._lock = threading.Lock()  # held while `_loops` or `_generation` changes
        self._loops: dict[asyncio.AbstractEventLoop, _LoopPools] = {}
        self._inherited: list[dict[asyncio.AbstractEventLoop, _LoopPools]] = []
        self._generation = 0
        _instances.add(self)

    def lease(self, source_id: str) -> SourceLease:
        """Return a lease of the source's pool, as a context manager."""
        return SourceLease(self, source_id)

    @asynccontextmanager
    async def operation(self, source_id: str) -> AsyncIterator[DataSourceConnector]:
        """Lease a connector for a block; closing the source waits for the block, then cancels it.

        The block must begin and end in one task, so an asynchronous generator must not yield in it.

        Raises:
            PoolClosedError: On leaving: the block was cancelled.
            ConnectorError: The connector raised something else than a `DataSourceError`.
        """
        lease = SourceLease(self, source_id)
        async with lease as connector, lease.cancelled_by_close():
            with ConnectorErrors(connector):
                yield connector

    async def connector(self, source_id: str) -> DataSourceConnector:
        """Return the one connector that all callers of this loop share, until the pool closes."""
        while True:
            source_pool = self.source_pool(source_id)
            source_pool.check_not_paused()
            if source_pool.connector is not None:
                return source_pool.connector
            try:
                await source_pool.acquire_connector()
            except PoolClosedError:
                if self.source_pool(source_id) is source_pool:
                    raise

    def version(self, source_id: str) -> int:
        """Return the version of the source that the connectors of its pool on this loop have."""
        return self.source_pool(source_id).record.version

    def statistics(self, source_id: str) -> PoolStatistics:
        """Return the figures of the source's pool on this loop."""
        return self.source_pool(source_id).pool.statistics()

    def all_statistics(self) -> dict[str, PoolStatistics]:
        """Return the figures of the pools that this loop has, by source."""
        with self._lock:
            pools = self._loops.get(asyncio.get_running_loop())
        return (
            {}
            if pools is None
            else {
                source_id: source_pool.pool.statistics()
                for source_id, source_pool in pools.by_source.items()
            }
        )

    async def close_pools(self, source_id: str | None = None, timeout: float | None = None) -> None:
        """Close a source's pools, or all, on every loop; they are made again on demand.

        Args:
            source_id: The source; None is all.
            timeout: Seconds to wait for operations under way, 30 by default. Then they are
                cancelled, and what a host has leased is disconnected a second later.

        Raises:
            DataSourceError: Something did not close well; all that can be closed is closed.
        """
        seconds = _CLOSE_TIMEOUT if timeout is None else timeout
        with self._lock:
            self._generation += 1
            loops = list(self._loops.items())
        outcomes = await asyncio.gather(
            *(_close_on_loop(loop, pools, source_id, seconds) for loop, pools in loops)
        )
        _raise_closing_errors([error for errors in outcomes for error in errors])

    def read_records_again(self) -> None:
        """Have every pool compare its source with the store at its next use."""
        with self._lock:
            self._generation += 1

    def source_pool(self, source_id: str) -> _SourcePool:
        """Return the pool on this loop of a source as it is in the store.

        Raises:
            DataSourceNotFoundError: There is no such source.
            RegistryError: The registry is closed.
        """
        loop = asyncio.get_running_loop()
        loop_pools = self._loops.get(loop)
        if loop_pools is None:
            loop_pools = self._add_loop(loop)
        source_pool = loop_pools.by_source.get(source_id)
        now = time.monotonic()
        generation = self._generation
        if (
            source_pool is not None
            and source_pool.generation == generation
            and now < source_pool.checked_at + _RECHECK_AFTER
        ):
            return source_pool
        try:
            record = self._records.get(source_id)
        except DataSourceNotFoundError:
            loop_pools.start_closing(source_id, _CLOSE_TIMEOUT)
            raise
        # A pool outlasts a pause, so that operations under way end normally.
        unchanged = source_pool and _without_state(source_pool.record) == _without_state(record)
        if source_pool is not None and unchanged:
            source_pool.record, source_pool.paused = record, record.paused
            source_pool.generation, source_pool.checked_at = generation, now
            return source_pool
        loop_pools.start_closing(source_id, _CLOSE_TIMEOUT)
        pool = ConnectionPool(
            source_id,
            lambda: self._factory.create_from_record(record, self._config),
            self._config,
        )
        source_pool = _SourcePool(record, pool, generation, now, paused=record.paused)
        loop_pools.by_source[source_id] = source_pool
        return source_pool

    def _add_loop(self, loop: asyncio.AbstractEventLoop) -> _LoopPools:
        pools = _LoopPools()
        pools.close_at_end_of_loop()
        with self._lock:
            # A loop that ended as it should has closed its pools; the others are left to be freed.
            self._loops = {other: p for other, p in self._loops.items() if not other.is_closed()}
            self._loops[loop] = pools
        return pools

    def forget_parent(self) -> None:
        """Leave the loops and pools of the parent alone, in the child of a fork."""
        self._lock = threading.Lock()  # the parent's may have been held at the fork
        # Kept, and never used: to free a pool would warn of connections that are not ours.
        self._inherited.append(self._loops)
        self._loops = {}


_instances: weakref.WeakSet[SourcePools] = weakref.WeakSet()


def _after_fork() -> None:
    for pools in _instances:
        pools.forget_parent()


os.register_at_fork(after_in_child=_after_fork)


class SourceLease:
    """One lease of a source's pool, for an `async with` block.

    If the source is replaced before the lease begins, the lease is taken from the new pool; if the
    source is removed, entering raises DataSourceNotFoundError. In an error that leaves the block the
    secrets of the source are masked.
    """

    def __init__(self, pools: SourcePools, source_id: str) -> None:
        self._pools = pools
        self._source_id = source_id

    async def __aenter__(self) -> DataSourceConnector:
        while True:
            source_pool = self._pools.source_pool(self._source_id)
            source_pool.check_not_paused()
            try:
                connector = await source_pool.pool.acquire()
            except PoolClosedError:
                if self._pools.source_pool(self._source_id) is source_pool:
                    raise
            else:
                self._source_pool, self._connector = source_pool, connector
                return connector

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._source_pool.pool.release_after(self._connector, exc)
        if isinstance(exc, Exception):
            masked = mask_connector_error(self._connector, exc)
            if masked is not exc:
                del exc  # tools that report errors show the local variables of frames
                raise_masked(masked)

    @asynccontextmanager
    async def cancelled_by_close(self) -> AsyncIterator[None]:
        """Let the closing of the source cancel the block, which runs in one task, once it has waited.

        Raises:
            PoolClosedError: On leaving: the block was cancelled.
        """
        closed = PoolClosedError(f"source {self._source_id!r} was closed while it was in use")
        if self._source_pool.cut_off:
            raise closed
        try:
            async with asyncio.timeout(None) as scope:
                self._source_pool.scopes.add(scope)
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise closed from None
        finally:
            self._source_pool.scopes.discard(scope)


def _without_state(record: StoredSource) -> StoredSource:
    """Return a record without what a connection does not depend on."""
    return replace(record, version=0, paused=None, queries={})


async def _close_on_loop(
    loop: asyncio.AbstractEventLoop, pools: _LoopPools, source_id: str | None, timeout: float
) -> list[BaseException]:
    """Close pools on the loop that they belong to, from whichever loop; return the errors."""
    if loop is asyncio.get_running_loop():
        return await pools.close(source_id, timeout)
    if source_id is not None and source_id not in pools.by_source:
        return []
    outcome: Future[list[BaseException]] = Future()
    started = threading.Event()

    def start() -> None:
        started.set()
        if pools.ended:  # everything is closed, and the loop runs no more tasks
            outcome.set_result([])
            return
        task = loop.create_task(pools.close(source_id, timeout))
        task.add_done_callback(
            lambda _: outcome.set_result([] if task.cancelled() else task.result())
        )

    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(start)
    waiting = asyncio.wrap_future(outcome)
    # A loop that has stopped ignores what it was asked to do; one that is blocked does it later.
    deadline = time.monotonic() + max(timeout, CANCEL_GRACE)
    while not waiting.done() and loop.is_running():
        grace = CANCEL_GRACE + DISCONNECT_TIMEOUT if started.is_set() else 0.0
        if time.monotonic() > deadline + grace:
            subject = "all sources" if source_id is None else f"source {source_id!r}"
            return [PoolError(f"another event loop, which is blocked, has not closed {subject}")]
        await asyncio.wait([waiting], timeout=_POLL)
    return waiting.result() if waiting.done() else []


def _raise_closing_errors(outcomes: list[BaseException]) -> None:
    """Raise the errors of closing, if there are any, as one that hosts expect."""
    errors = [error for error in outcomes if isinstance(error, Exception)]
    if not errors:
        return
    if len(errors) == 1 and isinstance(errors[0], DataSourceError):
        raise errors[0]
    reasons = "; ".join(dict.fromkeys(str(error) or type(error).__name__ for error in errors))
    message = f"some connections did not close well: {reasons}"
    raise PoolError(message) from ExceptionGroup(message, errors)
