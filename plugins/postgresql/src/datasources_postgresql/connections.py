"""Lease connections of psycopg's pool, and raise the errors of its attempts to connect.

psycopg_pool connects in background tasks, logs what fails and lets its clients wait for the whole
timeout. `LeasingPool` raises the error of a failed attempt in each `lease` that waits, unless a
leased connection may still be returned to it.

A connection is in one of these states:

- *new*: `connect` opens it, within `connect_timeout`, and checks the server's version and the role.
  psycopg_pool calls `connect` through `_ConnectionFactory`, from a worker task of its own.
- *idle*: psycopg_pool owns it, in autocommit mode, outside of a transaction.
- *leased*: the body of `lease` owns it. `lease` makes it idle again, however the body ends, in a
  background task that is shielded from cancellation (`_release`): a running statement is cancelled,
  the transaction rolled back and the session reset, within `_RESET_TIMEOUT`.
- *closed*: by the server; by the wait that had no answer within `answer_timeout`; by `libpq`, if a
  row or an answer is too long; by `_release`, if it cannot be reset; or by `_acquire`, if the
  server has ended it while it was idle, or if a wait on another connection had no answer after this
  one was last used (`_silence`). It is returned to psycopg_pool nevertheless, which replaces it.

No wait for the server is without a limit: while a connection is new or about to begin a
transaction, it is `connect_timeout`; then `ServerConnection.answer_timeout`, the statement timeout
and a grace; while it is released, `_RESET_TIMEOUT`, of which the caller waits `_RELEASE_WAIT`. A
caller that is cancelled during a binary COPY first waits for the turn of its thread.

Whoever takes a connection from psycopg_pool returns it: `_release` a leased one,
`_return_unwanted` one that arrives after its `lease` has ended, `_acquire` a closed one.

`close` ends the bodies of all leases, which raise ConnectError, and then the pool; it waits for the
tasks that release.

The first connection is made outside of psycopg_pool, by `open`: the pool would log its error and
try again, but `open` has to raise it. The connection is then given to the pool by its first call
of `connect`, so that it is not wasted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from datasources import (
    ConnectError,
    DataSourceError,
    PolicyError,
    PoolClosedError,
    PoolConfig,
    PoolTimeoutError,
    backoff,
)
from datasources_postgresql.connecting import ServerConnection
from datasources_postgresql.copying import ServerSilentError
from datasources_postgresql.errors import mapped
from datasources_postgresql.libpq import (
    Connection,
    cancel,
    execute,
    execute_query,
)
from datasources_postgresql.options import PostgreSQLOptions

_MINIMUM_VERSION = 140000  # since then the catalog holds the parse trees of SQL functions
_RESET_TIMEOUT = 2.0  # seconds to make a connection idle again before it is closed
_RELEASE_WAIT = 0.5  # seconds of these that the caller waits
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts, as in the core's pool
_PRIVILEGED_ROLES = [
    "pg_execute_server_program",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_signal_backend",
]
# Of the role that logged in too: it may have become another one by an option `-c role=…`, and RESET
# makes it the first one again.
# The operators are named with their schema: the search path is still that of the role.
_PRIVILEGES = b"""
SELECT r.rolname, r.is_own AND r.rolsuper
FROM (
    SELECT oid, rolname, rolsuper, rolname OPERATOR(pg_catalog.=) current_user
        OR rolname OPERATOR(pg_catalog.=) session_user
    FROM pg_catalog.pg_roles) AS r(oid, rolname, rolsuper, is_own)
WHERE (r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) ANY (%s))
    AND (pg_catalog.pg_has_role(r.oid, 'MEMBER')
        OR pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER'))
ORDER BY NOT r.is_own, 1
LIMIT 1
"""


# psycopg_pool warns of each connection that the server has ended, which is replaced unnoticed here.
# Without a handler, Python would print that in a program that has not set up logging.
logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())


class LeasingPool:
    """A pool of connections to one server; `lease` gives a connection with a clean session.

    Args:
        options: The server, the role and what the role may be.
        pool_config: Size of the pool and its time limits.
        check_address: Raises PolicyError if the policy does not allow an address.
        secret: Returns a secret option by its name, as it is now; asked for each new connection.
    """

    def __init__(
        self,
        options: PostgreSQLOptions,
        pool_config: PoolConfig,
        check_address: Callable[[str], None],
        secret: Callable[[str], Awaitable[str]],
    ) -> None:
        self._options = options
        self._connection_class: type[ServerConnection] = type(
            "ServerConnection",
            (ServerConnection,),
            {"check_address": staticmethod(check_address)},
        )
        self._secret = secret
        self._config = pool_config
        parameters = options.conninfo()
        self._connect_timeout = float(
            parameters.get("connect_timeout") or pool_config.connect_timeout
        )
        # libpq applies its own timeout to each host, in whole seconds, at least 2.
        seconds_per_host = self._connect_timeout / max(1, len(list(options.hosts())))
        parameters["connect_timeout"] = str(max(2, int(seconds_per_host)))
        self._parameters = parameters
        self._first_connection: Connection | None = None
        self._waiters: dict[asyncio.Future[Any], float] = {}
        """For each waiting `lease`: the future to fail, and the loop time when it began to wait."""
        self._leased_count = 0
        self._scopes: set[asyncio.Timeout] = set()
        """The timeout scope of each lease, which `close` makes expire."""
        self._background_tasks: set[asyncio.Task[None]] = set()
        self._silence = 0.0
        """Time of `time.monotonic` when a leased connection had no answer from the server.

        Idle connections whose last answer is older are closed: the path to the server may have
        dropped them all.
        """
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            # psycopg_pool calls its method `connect` and nothing else.
            connection_class=cast("type[Connection]", _ConnectionFactory(self)),
            min_size=pool_config.min_size,
            max_size=pool_config.max_size,
            timeout=pool_config.acquire_timeout,
            max_idle=pool_config.max_idle_time,
            max_lifetime=pool_config.max_lifetime,
            # One more attempt in the background; `_acquire` makes the others.
            reconnect_timeout=0.0,
            num_workers=min(8, pool_config.max_size),
            open=False,
        )

    async def open(self) -> None:
        """Make the first connection, then open the pool.

        Raises:
            ConnectError, AuthenticationError, PolicyError: As `connect`.
        """
        self._first_connection = await self.connect()
        try:
            await self._pool.open()
            # Wait until the pool has taken the first connection. Not by `getconn` itself, which may
            # ignore a cancellation on Python 3.11.
            await self._pool.putconn(await self._get_connection(self._connect_timeout))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the statements under way, then close the pool."""
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now)
        await self._pool.close()
        if self._background_tasks:
            await asyncio.wait(self._background_tasks)
        if self._first_connection is not None:
            await self._first_connection.close()

    async def connect(self) -> Connection:
        """Return a new connection of a role that may be used.

        Raises:
            ConnectError: The server cannot be reached, or does not answer in time.
            AuthenticationError: It refuses the credentials.
            PolicyError: The role can do more than the options admit.
        """
        if self._first_connection is not None:
            first, self._first_connection = self._first_connection, None
            return first
        try:
            async with asyncio.timeout(self._connect_timeout):
                with mapped(self._options):
                    return await self._connect()
        except TimeoutError:
            where = ", ".join(self._options.hosts())
            raise ConnectError(
                f"no answer from the server at {where!r} within {self._connect_timeout:g} seconds",
                code="08001",
            ) from None

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Connection]:
        """Yield a connection with a clean session; reset or close the connection at the end.

        Raises:
            ConnectError: Connecting failed `connect_attempts` times; or `close` has ended the body.
            PoolTimeoutError: All connections are in use, and none was returned in time.
        """
        connection = await self._acquire()
        self._leased_count += 1
        try:
            async with asyncio.timeout(None) as scope:
                self._scopes.add(scope)
                yield connection
        except ServerSilentError:
            self._silence = time.monotonic()
            raise
        except TimeoutError:
            if not scope.expired():
                raise
            raise ConnectError(
                "the source was disconnected while a statement ran", code="08003"
            ) from None
        finally:
            self._scopes.discard(scope)
            release = self._in_background(self._release(connection))
            await asyncio.wait([release], timeout=_RELEASE_WAIT)
            if release.done():
                release.result()

    def fail_waiters(self, error: DataSourceError, began: float) -> None:
        """Raise the error of a failed attempt in each waiting `lease`, if no connection is leased.

        A `lease` that began after the attempt waits again: the cause may have been mended.

        Args:
            error: The error of the attempt.
            began: Loop time when the attempt began.
        """
        if self._leased_count == 0:
            for waiter, since in self._waiters.items():
                if not waiter.done():
                    waiter.set_exception(error if since <= began else _AcquireAgainError())

    async def _connect(self) -> Connection:
        name = "password" if self._options.password is not None else "dsn"
        if getattr(self._options, name) is not None:
            current = self._options.password_in(name, await self._secret(name))
            self._parameters["password"] = current or self._parameters["password"]
        connection = await self._connection_class.connect(
            make_conninfo("", **self._parameters), autocommit=True, prepare_threshold=None
        )
        self._reset_limits(connection)
        try:
            await self._check_server_and_role(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    def _reset_limits(self, connection: Connection) -> None:
        """Set the time limits of a connection whose next statement is one of this package.

        Such a statement waits for no lock, so it has an answer as soon as a new connection has.
        """
        connection.statement_timeout = math.inf
        connection.answer_timeout = self._connect_timeout
        connection.idle_since = time.monotonic()

    async def _check_server_and_role(self, connection: Connection) -> None:
        version = connection.info.server_version
        if version < _MINIMUM_VERSION:
            raise ConnectError(f"the server is PostgreSQL {version // 10000}; 14 or newer works")
        if self._options.allow_privileged_role:
            return
        rows = await execute_query(connection, _PRIVILEGES, [_PRIVILEGED_ROLES])
        for name, is_superuser in rows:
            what = "is a superuser" if is_superuser else f"may act as {name!r}"
            raise PolicyError(
                f"the role {connection.info.user!r} {what}, which can do what no rule stops; "
                "use one that can only read, for which `datasources template postgresql --role` prints "
                "the SQL, or set the option 'allow_privileged_role'"
            )

    async def _acquire(self) -> Connection:
        deadline = asyncio.get_running_loop().time() + self._config.acquire_timeout
        pauses = retry_pauses(self._config)
        while True:
            try:
                connection = await self._get_connection(
                    deadline - asyncio.get_running_loop().time()
                )
            except ConnectError:
                if (pause := next(pauses, None)) is None:
                    raise
                await asyncio.sleep(pause)
                continue
            except _AcquireAgainError:
                continue
            if _is_usable(connection) and connection.idle_since >= self._silence:
                return connection
            await connection.close()
            self._in_background(self._pool.putconn(connection))

    async def _get_connection(self, timeout: float) -> Connection:
        """Return a connection of the pool, or raise the error that `fail_waiters` was given."""
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
                failed.exception()  # retrieved, or asyncio would log that it never was
            if not served:
                getting.cancel()
                getting.add_done_callback(self._return_unwanted)

    def _return_unwanted(self, getting: asyncio.Future[Any]) -> None:
        if not getting.cancelled() and getting.exception() is None:
            self._in_background(self._pool.putconn(getting.result()))

    def _in_background(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)
        return task

    async def _release(self, connection: Connection) -> None:
        """Reset a leased connection, or close it if that fails, and return it to the pool."""
        is_reset = False
        try:
            async with asyncio.timeout(_RESET_TIMEOUT):
                await _reset_session(connection)
            self._reset_limits(connection)
            is_reset = True
        except TimeoutError:
            self._silence = time.monotonic()
        except psycopg.Error:
            pass  # the connection is closed below; its user has seen what went wrong
        finally:
            if not is_reset:
                await connection.close()
            self._leased_count -= 1
            await self._pool.putconn(connection)


class _ConnectionFactory:
    """Stands in for the connection class that psycopg_pool calls to open a connection."""

    def __init__(self, connections: LeasingPool) -> None:
        self._connections = connections

    async def connect(self, _conninfo: str = "", **_kwargs: Any) -> Connection:
        began = asyncio.get_running_loop().time()
        try:
            return await self._connections.connect()
        except DataSourceError as exc:
            self._connections.fail_waiters(exc, began)
            raise


class _AcquireAgainError(Exception):
    """An attempt failed that began before this `lease`: wait again."""


def retry_pauses(config: PoolConfig) -> Iterator[float]:
    """Yield the seconds to wait after each failed attempt but the last one."""
    return backoff(first=_FIRST_PAUSE, maximum=_LONGEST_PAUSE, attempts=config.connect_attempts)


def _is_usable(connection: Connection) -> bool:
    """Return True if the server has sent nothing to an idle connection; needs no round trip.

    A server that ends a session sends a message before it closes the socket. It sends an idle
    session nothing else but the new value of a setting after its configuration was reloaded; then a
    working connection is replaced for no need.
    """
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


async def _reset_session(connection: Connection) -> None:
    """Cancel a running statement, roll back, and reset the session to its state after log-in."""
    if connection.closed:
        return
    if connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
        await cancel(connection)
    if connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
        await execute(connection, b"ROLLBACK")
    await execute(connection, b"DISCARD ALL")
