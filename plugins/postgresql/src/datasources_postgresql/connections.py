"""Connections to one server: psycopg's pool, with its failures brought to whoever waits.

psycopg_pool connects in the background, logs what fails and leaves its clients waiting. Here the
error of a failed attempt reaches everyone who waits for a connection that nobody else will return.
"""

from __future__ import annotations

import asyncio
import random
import select
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, cast

import psycopg
from psycopg import AsyncConnection, pq
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from datasources import (
    ConnectError,
    DataSourceError,
    PolicyError,
    PoolClosedError,
    PoolConfig,
    PoolTimeoutError,
)
from datasources_postgresql.errors import mapped
from datasources_postgresql.libpq import cancel
from datasources_postgresql.options import PostgreSQLOptions

Connection: TypeAlias = "AsyncConnection[tuple[Any, ...]]"

_OLDEST = 140000  # the catalog keeps the trees of SQL functions since then
_CLEAN_UP = 2.0  # seconds to bring a connection back to idle before it is given up
_BACK_OFF = 0.1  # seconds before the second attempt; doubles
_PRIVILEGED_ROLES = [
    *("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"),
    "pg_signal_backend",
]
_PRIVILEGES = """
SELECT r.rolname, r.rolname = current_user AND r.rolsuper
FROM pg_catalog.pg_roles r
WHERE (r.rolsuper OR r.rolname = ANY (%s)) AND pg_catalog.pg_has_role(r.oid, 'MEMBER')
ORDER BY r.rolname <> current_user, 1
LIMIT 1
"""


class Connections:
    """A psycopg pool sized by `pool_config`, and leases of clean connections from it."""

    def __init__(self, options: PostgreSQLOptions, pool_config: PoolConfig) -> None:
        self._options = options
        self._config = pool_config
        parameters = options.conninfo()
        self._timeout = float(parameters.get("connect_timeout") or pool_config.connect_timeout)
        # libpq's is for each host, in whole seconds, 2 at least.
        each = self._timeout / max(1, len(list(options.hosts())))
        parameters["connect_timeout"] = str(max(2, int(each)))
        self._conninfo = make_conninfo("", **parameters)
        self._first: Connection | None = None
        self._waiters: dict[asyncio.Future[Any], float] = {}
        """Who waits, and since when."""
        self._leased = 0
        self._scopes: set[asyncio.Timeout] = set()
        """One for each lease; `close` ends them."""
        self._cleaning: set[asyncio.Task[None]] = set()
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            # The pool calls `connect` on it and nothing else.
            connection_class=cast("type[Connection]", _Opener(self)),
            min_size=pool_config.min_size,
            max_size=pool_config.max_size,
            timeout=pool_config.acquire_timeout,
            max_idle=pool_config.max_idle_time,
            max_lifetime=pool_config.max_lifetime,
            # One more attempt in the background; `lease` starts the others.
            reconnect_timeout=0.0,
            num_workers=min(8, pool_config.max_size),
            open=False,
        )

    async def open(self) -> None:
        """Connect once, so that what is wrong is raised here, then open the pool."""
        self._first = await self.connect()
        try:
            await self._pool.open()
            # Not `getconn` itself: psycopg_pool's wait loses a cancellation on Python 3.11.
            await self._pool.putconn(await self._wait(self._timeout))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the statements under way, then close the pool."""
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now)
        await self._pool.close()
        if self._cleaning:
            await asyncio.wait(self._cleaning)
        if self._first is not None:
            await self._first.close()

    async def connect(self) -> Connection:
        """Return a new connection of a role that may be used.

        Raises:
            ConnectError: The server cannot be reached, or does not answer in time.
            AuthenticationError: It refuses the credentials.
            PolicyError: The role can do more than the options admit.
        """
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            async with asyncio.timeout(self._timeout):
                with mapped(self._options):
                    return await self._new()
        except TimeoutError:
            where = ", ".join(self._options.hosts())
            raise ConnectError(
                f"no answer from the server at {where!r} within {self._timeout:g} seconds",
                code="08001",
            ) from None

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Connection]:
        """Lend a connection that works; it goes back clean, or is closed.

        Raises:
            ConnectError: No connection can be had, after the attempts the pool's rules allow; or
                `close` has cancelled the block.
            PoolTimeoutError: All are in use, and none came back in time.
        """
        connection = await self._acquire()
        self._leased += 1
        try:
            async with asyncio.timeout(None) as scope:
                self._scopes.add(scope)
                yield connection
        except TimeoutError:
            if not scope.expired():
                raise
            raise ConnectError(
                "the source was disconnected while a statement ran", code="08003"
            ) from None
        finally:
            self._scopes.discard(scope)
            await asyncio.shield(self._in_background(self._give_back(connection)))

    def fail_waiters(self, error: DataSourceError, began: float) -> None:
        """Tell those who wait that no connection will come, unless one in use may.

        Who came after the failed attempt began is to ask again: what was wrong may be mended.
        """
        if self._leased == 0:
            for waiter, since in self._waiters.items():
                if not waiter.done():
                    waiter.set_exception(error if since <= began else _AskAgainError())

    async def _new(self) -> Connection:
        connection = await AsyncConnection.connect(
            self._conninfo, autocommit=True, prepare_threshold=None
        )
        try:
            await self._check(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _check(self, connection: Connection) -> None:
        version = connection.info.server_version
        if version < _OLDEST:
            raise ConnectError(f"the server is PostgreSQL {version // 10000}; 14 or newer works")
        if self._options.allow_privileged_role:
            return
        cursor = await connection.execute(_PRIVILEGES, [_PRIVILEGED_ROLES])
        if (row := await cursor.fetchone()) is not None:
            what = "is a superuser" if row[1] else f"may act as {row[0]!r}"
            raise PolicyError(
                f"the role {connection.info.user!r} {what}, which can do what no rule stops; "
                "use one that can only read, for which `datasources template postgresql --role` prints "
                "the SQL, or set the option 'allow_privileged_role'"
            )

    async def _acquire(self) -> Connection:
        deadline = asyncio.get_running_loop().time() + self._config.acquire_timeout
        waits = back_off(self._config.connect_attempts)
        while True:
            try:
                connection = await self._wait(deadline - asyncio.get_running_loop().time())
            except ConnectError:
                if (wait := next(waits)) is None:
                    raise
                await asyncio.sleep(wait)
                continue
            except _AskAgainError:
                continue
            if _alive(connection):
                return connection
            await connection.close()
            self._in_background(self._pool.putconn(connection))

    async def _wait(self, timeout: float) -> Connection:
        """Wait for the pool, or for news that it cannot serve."""
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiters[failed] = asyncio.get_running_loop().time()
        getting: asyncio.Future[Any] = asyncio.ensure_future(
            self._pool.getconn(max(timeout, 0.001))
        )
        served = False
        try:
            await asyncio.wait({getting, failed}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                failed.result()  # raises
            connection = cast("Connection", getting.result())
            served = True
            return connection
        except PoolTimeout:
            raise PoolTimeoutError(
                f"all {self._config.max_size} connections of the source are in use, and none came "
                f"free within {self._config.acquire_timeout:g} seconds"
            ) from None
        except PoolClosed:
            raise PoolClosedError("the source's connections are closed") from None
        finally:
            del self._waiters[failed]
            if failed.done():
                failed.exception()  # looked at, or asyncio would complain
            if not served:
                getting.cancel()
                getting.add_done_callback(self._return_unwanted)

    def _return_unwanted(self, getting: asyncio.Future[Any]) -> None:
        if not getting.cancelled() and getting.exception() is None:
            self._in_background(self._pool.putconn(getting.result()))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)
        return task

    async def _give_back(self, connection: Connection) -> None:
        clean = False
        try:
            async with asyncio.timeout(_CLEAN_UP):
                await _clean(connection)
            clean = True
        except (psycopg.Error, TimeoutError):
            pass  # what went wrong with it was the business of its user
        finally:
            if not clean:
                await connection.close()
            self._leased -= 1
            await self._pool.putconn(connection)


class _Opener:
    """Stands where the pool expects a connection class: connects, and tells who waits."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def connect(self, _conninfo: str = "", **_kwargs: Any) -> Connection:
        began = asyncio.get_running_loop().time()
        try:
            return await self._connections.connect()
        except DataSourceError as exc:
            self._connections.fail_waiters(exc, began)
            raise


class _AskAgainError(Exception):
    """The pool gave up on behalf of others."""


def back_off(attempts: int) -> Iterator[float | None]:
    """Yield the seconds to wait after each attempt, None after the last."""
    for attempt in range(attempts - 1):
        yield _BACK_OFF * 2**attempt * random.uniform(0.5, 1)  # noqa: S311
    yield None


def _alive(connection: Connection) -> bool:
    """Tell, without a round trip, whether an idle connection is as it was left.

    A server that ends a session says so before it hangs up; nothing else is said to an idle one
    but news of a changed setting, for which a good connection may be lost.
    """
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


async def _clean(connection: Connection) -> None:
    """End what runs and reset the session to what it was when it began."""
    if connection.closed:
        return
    if connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
        await cancel(connection)
    if connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
        await connection.execute("ROLLBACK")
    await connection.execute("DISCARD ALL")
