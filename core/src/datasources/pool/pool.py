"""Connections shared among tasks: bounded, reused, handed out first come, first served."""

from __future__ import annotations

import asyncio
import math
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict, replace
from types import TracebackType

from datasources.connector import DataSourceConnector
from datasources.errors import AuthenticationError, ConnectError, PoolError
from datasources.models import PoolConfig
from datasources.pool.calls import ConnectorFactory, PooledConnection, PoolStatistics
from datasources.pool.state import PoolState

__all__ = ["ConnectionPool", "ConnectionPoolManager", "PoolStatistics", "PooledConnection"]

CLOSE_TIMEOUT = 30.0
"""Seconds that `close` waits for leases by default, as long as `acquire` waits for one."""


class ConnectionPool(PoolState):
    """The connections of one source.

    A pool belongs to the event loop it is first used on. A connector whose class is `shareable`
    is connected once and leased up to `max_size` times at a time; any other has one holder at a
    time.

    Args:
        data_source_id: Names the source in messages.
        connector_factory: Returns a new connector, not yet connected; may be a coroutine function.
        config: Sizes and times.
        clock: Tells when connections have idled or lived for too long.
        track_leases: Note where each lease is taken, for `close` to report; for debugging.
    """

    def __init__(
        self,
        data_source_id: str,
        connector_factory: ConnectorFactory,
        config: PoolConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        track_leases: bool = False,
    ) -> None:
        super().__init__(data_source_id, connector_factory, config, clock)
        self._track_leases = track_leases

    @property
    def size(self) -> int:
        """Connections, available or in use; with a shareable connector, leases."""
        return len(self._idle) + self._in_use

    @property
    def available_count(self) -> int:
        """Connections, or leases, that can be had at once."""
        return len(self._idle)

    @property
    def in_use_count(self) -> int:
        """Leases that are out."""
        return self._in_use

    @property
    def closed(self) -> bool:
        """True from the first call of `close` on."""
        return self._closed

    def statistics(self) -> PoolStatistics:
        """Return the pool's figures at this moment."""
        return PoolStatistics(
            total=self.size,
            available=len(self._idle),
            in_use=self._in_use,
            max_size=self.config.max_size,
            min_size=self.config.min_size,
            opening=len(self._pending),
            closing=len(self._closing),
            waiting=len(self._waiters),
            **asdict(self._counters),
        )

    def __repr__(self) -> str:
        return (
            f"<ConnectionPool {self.data_source_id!r}: {'closed, ' if self._closed else ''}"
            f"{self._in_use} of {self.config.max_size} in use, {len(self._idle)} available, "
            f"{len(self._pending)} opening, {len(self._closing)} closing, "
            f"{len(self._waiters)} waiting>"
        )

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self._connections:
            count = len(self._connections)
            warnings.warn(
                f"the pool of source {self.data_source_id!r} was not closed and leaves "
                f"{count} {'connection' if count == 1 else 'connections'} open",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    async def initialize(self) -> None:
        """Open `min_size` connections, and keep as many open from now on.

        Raises:
            ConnectorError: As the connector raised it; the pool can be used all the same.
        """
        self._check_loop()
        self._check_open()
        self._keep_min_size = True
        self._open_more(refill=True)
        while self._pending and self._surplus() < 0:
            openings = {opening.task: opening for opening in self._pending if opening.task}
            done, _ = await asyncio.wait(openings, return_when=asyncio.FIRST_COMPLETED)
            for error in (openings[task].error for task in done):
                if error:
                    raise error

    async def acquire(self, timeout: float | None = None) -> DataSourceConnector:
        """Lease a connected connector; every lease is to be released, once.

        Args:
            timeout: Seconds; None is the config's `acquire_timeout`.

        Raises:
            PoolTimeoutError: None came free in time.
            ConnectorError: What `connect` raised, if a connection had to be opened.
            PoolClosedError: The pool is closed, or was closed meanwhile.
        """
        if asyncio.get_running_loop() is not self._loop:
            self._check_loop()
        connection = self._take_idle()
        if connection is None:
            waiter = self._join_queue(timeout)
            try:
                connection = await waiter[0]
            except BaseException:
                self._leave_queue(waiter)
                raise
        self._counters.acquires += 1
        if self._track_leases:
            connection.taken.append((_task_name(), _caller()))
        return connection.connector

    def connection(
        self, timeout: float | None = None
    ) -> AbstractAsyncContextManager[DataSourceConnector]:
        """Lease a connector for an `async with` block.

        A block that is cancelled, or ends with `ConnectError` or `AuthenticationError`, discards
        its connection. A shared one is discarded after `AuthenticationError` only: its driver
        reconnects by itself, but always with the credentials that it was given.
        """
        return _Connection(self, timeout)

    async def release(self, connector: DataSourceConnector, *, discard: bool = False) -> None:
        """Return a lease, as `release_nowait` does; it never waits."""
        self.release_nowait(connector, discard=discard)

    def release_nowait(self, connector: DataSourceConnector, *, discard: bool = False) -> None:
        """Return a lease; the first waiter has it before this ends.

        Args:
            connector: What `acquire` returned.
            discard: It is broken: close it instead of handing it on. A shared one gets no new
                leases, and is closed when the last of its present ones is back.

        Raises:
            PoolError: It is not leased from this pool, or was released already.
        """
        connection = self._connections.get(id(connector))
        if connection is None or not connection.leases:
            raise PoolError(
                f"this connector is not leased from the pool of source {self.data_source_id!r}: "
                "it was released already, or comes from elsewhere"
            )
        if self._track_leases:
            connection.forget_taken(_task_name())
        if discard:
            connection.expires_at = -math.inf
        self._end_lease(connection)

    def release_after(self, connector: DataSourceConnector, error: BaseException | None) -> None:
        """Return a lease whose block ended with `error`, which decides whether it is discarded.

        See `connection`.
        """
        breaking = _BREAKING_SHARED if self._shareable else _BREAKING
        self.release_nowait(connector, discard=isinstance(error, breaking))

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change the sizes; connections in use above `max_size` are closed when they are released.

        A shareable connector is replaced: its driver learnt the size when it connected.

        Raises:
            OptionError: A size is out of its range.
        """
        self.config = replace(
            self.config,
            min_size=self.config.min_size if min_size is None else min_size,
            max_size=self.config.max_size if max_size is None else max_size,
        )
        if self._shared:
            self._retire(self._shared)
        elif not self._shareable:
            alive = [c for c in self._connections.values() if c.expires_at != -math.inf]
            alive.sort(key=lambda connection: connection.leases)  # idle first
            for connection in alive[: max(0, len(alive) - self.config.max_size)]:
                self._retire(connection)
        self._open_more(refill=True)

    async def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Close every connection; waiters and later callers get `PoolClosedError`.

        Args:
            timeout: Seconds to wait for leases to be returned; None is as long as it takes.
                What is not returned by then is disconnected under its holder.

        Raises:
            PoolError: Leases were not returned; the pool is closed nevertheless.
            Exception: The one error that `disconnect` raised.
            ExceptionGroup: Several things went wrong, errors of `disconnect` among them.
        """
        self._check_loop()
        self._stop()
        if self._in_use:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_returned.wait(), timeout)
        problems: list[Exception] = [*self._abandon_leases()]
        while tasks := [*(o.task for o in self._pending if o.task), *self._closing]:
            await asyncio.wait(tasks)
        problems += self._calls.errors or []
        self._calls.errors = []
        if len(problems) == 1:
            raise problems[0]
        if problems:
            raise ExceptionGroup(f"closing the pool of source {self.data_source_id!r}", problems)

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif loop is not self._loop:
            raise PoolError(
                f"the pool of source {self.data_source_id!r} belongs to another event loop; "
                "each loop needs a pool of its own"
            )


# Errors after which an exclusive connection is discarded: if it was cut off, the rest of an answer
# may still arrive on it.
_BREAKING = (ConnectError, AuthenticationError, asyncio.CancelledError)
# The same for a shared connection; see `ConnectionPool.connection`.
_BREAKING_SHARED = AuthenticationError


class _Connection(AbstractAsyncContextManager[DataSourceConnector]):
    """One lease; a class because a generator would cost as much as the lease itself."""

    __slots__ = ("_connector", "_pool", "_timeout")

    def __init__(self, pool: ConnectionPool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    async def __aenter__(self) -> DataSourceConnector:
        self._connector = await self._pool.acquire(self._timeout)
        return self._connector

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.release_after(self._connector, error)


def _task_name() -> str:
    task = asyncio.current_task()
    return task.get_name() if task else ""


def _caller() -> str:
    """Return the place in the code that asked this module for a lease."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


class ConnectionPoolManager:
    """The pools of many sources.

    Args:
        default_config: For pools that are asked for without a config.
        clock: As for `ConnectionPool`.
        track_leases: As for `ConnectionPool`.
    """

    def __init__(
        self,
        default_config: PoolConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        track_leases: bool = False,
    ) -> None:
        self.default_config = default_config or PoolConfig()
        self._clock = clock
        self._track_leases = track_leases
        self._pools: dict[str, ConnectionPool] = {}

    async def get_pool(
        self,
        data_source_id: str,
        connector_factory: ConnectorFactory,
        config: PoolConfig | None = None,
    ) -> ConnectionPool:
        """Return the source's pool, `min_size` connections open; make it if there is none.

        The other arguments matter to a new pool only.

        Raises:
            ConnectorError: Connecting failed; a pool with nothing in it is gone again.
        """
        pool = self._pools.get(data_source_id)
        if pool is None or pool.closed:
            pool = self._pools[data_source_id] = ConnectionPool(
                data_source_id,
                connector_factory,
                config or self.default_config,
                clock=self._clock,
                track_leases=self._track_leases,
            )
        try:
            await pool.initialize()
        except Exception:
            now = pool.statistics()
            if self._pools.get(data_source_id) is pool and not now.total + now.waiting:
                await self.close_pool(data_source_id)
            raise
        return pool

    def get_pool_stats(self, data_source_id: str) -> dict[str, int]:
        """Return `PoolStatistics` as a dictionary.

        Raises:
            PoolError: The source has no pool.
        """
        pool = self._pools.get(data_source_id)
        if pool is None:
            raise PoolError(
                f"source {data_source_id!r} has no pool; "
                f"pools: {', '.join(self.list_pools()) or 'none'}"
            )
        return pool.statistics().to_dict()

    def list_pools(self) -> list[str]:
        """Return the ids of the sources that have a pool."""
        return list(self._pools)

    async def close_pool(self, data_source_id: str, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Close the source's pool, if it has one; errors as `ConnectionPool.close`."""
        pool = self._pools.pop(data_source_id, None)
        if pool:
            await pool.close(timeout)

    async def close_all(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Close every pool, at the same time.

        Raises:
            ExceptionGroup: What closing raised; the others are closed.
        """
        closing = [self.close_pool(source_id, timeout) for source_id in self.list_pools()]
        results = await asyncio.gather(*closing, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            raise BaseExceptionGroup("closing connection pools", errors)
