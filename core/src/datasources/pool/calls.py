"""The connections of a pool, and the calls that open, check and close them.

Connectors are third-party code: they may hang, ignore cancellation or raise `SystemExit`, and the
pool must go on working. So every call runs in a task of its own, with a deadline; a task that does
not end after it was cancelled is abandoned. Nothing here knows the state of a pool.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import random
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from datasources.connector import DataSourceConnector
from datasources.connector_errors import as_connector_error, mask_connector_error, raise_masked
from datasources.errors import ConnectError, PluginError
from datasources.models import PoolConfig
from datasources.retrying import backoff

T = TypeVar("T")
ConnectorFactory = Callable[[], DataSourceConnector | Awaitable[DataSourceConnector]]
OnCreated = Callable[[DataSourceConnector], None]

FIRST_BACK_OFF = 0.1
"""Seconds, at most, before the second attempt to connect; doubled for each further."""
MAX_BACK_OFF = 5.0
"""Seconds, at most, between two attempts to connect."""
DISCONNECT_TIMEOUT = 5.0
"""Seconds that `disconnect` may take; a connection that is still open then is abandoned."""
CANCEL_GRACE = 1.0
"""Seconds that a connector has to end after it was cancelled."""

_log = logging.getLogger("datasources.pool")


@dataclass(slots=True, eq=False)
class PooledConnection:
    """One connection of a pool; times are those of the pool's clock, in seconds."""

    connector: DataSourceConnector
    created_at: float
    last_used_at: float
    expires_at: float
    """From then on it is closed rather than handed out; `-inf` once it is to be retired."""
    shared: bool = False
    """True if it serves many leases at once."""
    use_count: int = 0
    leases: int = 0
    """Leases now out: at most 1 unless shared."""
    abandoned: bool = False
    """True if the pool closed before its leases were returned."""
    taken: list[tuple[str, str]] = field(default_factory=list)
    """Task name and code position of each lease, if the pool tracks leases."""

    def forget_taken(self, task: str) -> None:
        """Remove the entry of one lease: one that this task took, or else any."""
        if self.taken:
            own = (at for at, (name, _) in enumerate(self.taken) if name == task)
            self.taken.pop(next(own, 0))


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """The figures of a pool at one moment, and counts of events since it was made.

    With a shareable connector the first three count leases, since there is one connection.
    """

    total: int
    """`available` and `in_use`."""
    available: int
    in_use: int
    max_size: int
    min_size: int
    opening: int
    """Being connected or checked."""
    closing: int
    waiting: int
    """Callers of `acquire` that have nothing yet."""
    acquires: int
    waits: int
    """Acquires that were not served at once."""
    timeouts: int
    connects: int
    connect_failures: int
    """Attempts that failed, repeated ones included."""
    checks: int
    check_failures: int
    disconnects: int
    disconnect_failures: int

    def to_dict(self) -> dict[str, int]:
        """Return the figures by name."""
        return asdict(self)


@dataclass(slots=True)
class Counters:
    """Counts of events since the pool was made; see `PoolStatistics`."""

    acquires: int = 0
    waits: int = 0
    timeouts: int = 0
    connects: int = 0
    connect_failures: int = 0
    checks: int = 0
    check_failures: int = 0
    disconnects: int = 0
    disconnect_failures: int = 0


@dataclass(slots=True, eq=False)
class PendingConnection:
    """A connection that is being opened or checked; it takes one of the pool's places."""

    to_check: PooledConnection | None
    """The idle connection to check; None once the task has begun, which returns or disconnects it."""
    connector: DataSourceConnector | None = None
    """The new connector, from before it connects until it is closed or in the pool."""
    task: asyncio.Task[PooledConnection] | None = None
    error: BaseException | None = None
    """The error of the latest attempt to connect; None again after one that succeeded."""


class DeadlineExceededError(Exception):
    """A call of a connector took too long.

    Only `run_with_deadline` raises this, as a connector may raise a `TimeoutError` of its own.
    """


class ConnectorCalls:
    """The calls to the connectors of one source."""

    def __init__(
        self,
        source_id: str,
        factory: ConnectorFactory,
        clock: Callable[[], float],
        counters: Counters,
    ) -> None:
        self._source_id = source_id
        self._factory = factory
        self._clock = clock
        self._counters = counters
        self.errors: list[Exception] | None = None
        """Exceptions of `disconnect` while the pool closes; None before that.

        An error that is not collected is logged, and a timeout always is; one message for a pool.
        """
        self._check_disconnects = False
        self._reported = False

    async def open_or_check(
        self, pending: PendingConnection, config: PoolConfig, on_created: OnCreated
    ) -> PooledConnection:
        """Return the idle connection that is to be checked if it works, or else a new one.

        Args:
            pending: Holds what is under way, and the error of an attempt that another follows.
            config: Times, and the number of attempts.
            on_created: Called with each new connector before it connects; may refuse it by raising.
        """
        connection, pending.to_check = pending.to_check, None
        if connection and await self.check(connection.connector, config.connect_timeout):
            return connection
        connector = await self._connect(pending, config, on_created)
        pending.error = None
        now = self._clock()
        lifetime = config.max_lifetime * random.uniform(0.9, 1.1)  # noqa: S311  (no secret)
        # A shareable connector's driver has connections of its own, and renews them by itself.
        expires_at = math.inf if is_shareable(connector) else now + lifetime
        return PooledConnection(connector, now, now, expires_at, shared=is_shareable(connector))

    async def _connect(
        self, pending: PendingConnection, config: PoolConfig, on_created: OnCreated
    ) -> DataSourceConnector:
        """Create a connector and connect it; after `ConnectError`, try again as `config` says."""

        async def create_and_connect() -> DataSourceConnector:
            created = self._factory()
            connector = await created if inspect.isawaitable(created) else created
            on_created(connector)
            pending.connector = connector
            if not (connected := await connector.connect()):
                raise ConnectError(
                    f"source {self._source_id!r} did not connect: connect() returned {connected!r}"
                )
            return connector

        pauses = backoff(
            first=FIRST_BACK_OFF, maximum=MAX_BACK_OFF, attempts=config.connect_attempts
        )
        while True:
            try:
                connector = await run_with_deadline(create_and_connect, config.connect_timeout)
            except (Exception, CancelledError) as exc:  # noqa: BLE001  kept whole, as the cause
                error = await self._connect_error(pending, exc, config.connect_timeout)
                pause = next(pauses, None) if isinstance(error, ConnectError) else None
                if pause is None:
                    raise_masked(error)
                pending.error = error
            else:
                self._counters.connects += 1
                return connector
            await asyncio.sleep(pause)

    async def _connect_error(
        self, pending: PendingConnection, error: BaseException, seconds: float
    ) -> Exception:
        """Disconnect after a failed attempt to connect, and return the error for the host.

        Raises:
            CancelledError: That was the error.
        """
        if isinstance(error, DeadlineExceededError):
            error = ConnectError(f"source {self._source_id!r} did not connect within {seconds:g} s")
        if (connector := pending.connector) is not None:
            if isinstance(error, Exception):
                error = as_connector_error(connector, error)
            else:
                mask_connector_error(connector, error)
            await self.disconnect(connector)
            pending.connector = None
        if not isinstance(error, Exception):
            raise error
        self._counters.connect_failures += 1
        return error

    async def check(self, connector: DataSourceConnector, seconds: float) -> bool:
        """Return True if a connection works, and is connected; disconnect it otherwise."""
        self._counters.checks += 1
        try:
            if await run_with_deadline(lambda: self._check(connector), seconds):
                return True
        except CancelledError:
            await self.disconnect(connector)
            raise
        except Exception:  # noqa: BLE001, S110  a new connection follows, and tells more than this
            pass
        self._counters.check_failures += 1
        await self.disconnect(connector)
        return False

    async def disconnect(self, connector: DataSourceConnector) -> None:
        """Disconnect a connector and raise nothing; see `errors`."""
        self._counters.disconnects += 1
        try:
            await run_with_deadline(connector.disconnect, DISCONNECT_TIMEOUT)
        except DeadlineExceededError:
            self._counters.disconnect_failures += 1
            self._report(f"took longer than {DISCONNECT_TIMEOUT:g} s and was abandoned")
        except Exception as exc:  # noqa: BLE001  kept for whoever closes the pool
            self._counters.disconnect_failures += 1
            if self.errors is not None:
                self.errors.append(exc)
            else:
                self._report(f"raised {type(exc).__name__}")

    async def _check(self, connector: DataSourceConnector) -> bool:
        """Test the connection, and connect again if the test itself closed it.

        A `test_connection` in the manner of the documented example opens a connection in place
        of the present one and closes it at the end. Once a test was seen to do that, connections
        are opened anew instead: no such test does more, and this drops none that is open.
        """
        if self._check_disconnects:
            await connector.disconnect()
            return await connector.connect()
        was_open = getattr(connector, "_connection", None) is not None
        if not await connector.test_connection():
            return False
        if getattr(connector, "_connection", None) is not None:
            return True
        self._check_disconnects = was_open
        return await connector.connect()  # does nothing, by contract, to one still connected

    def _report(self, what: str) -> None:
        if not self._reported:
            self._reported = True
            _log.warning("disconnecting from source %r %s", self._source_id, what)


def is_shareable(connector: DataSourceConnector) -> bool:
    """Return True if one instance of the connector's class serves many leases at a time."""
    return getattr(type(connector), "shareable", False) is True


async def run_with_deadline(call: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Await a connector's method for at most `seconds`, even one that ignores cancellation.

    Raises:
        DeadlineExceededError: It did not end in time, and has been cancelled.
        PluginError: It raised what is no `Exception`, such as `SystemExit`.
    """
    task = asyncio.create_task(_contained(call))
    task.add_done_callback(_retrieve)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except CancelledError:
        await _end(task)
        raise
    if not task.done():
        await _end(task)
        raise DeadlineExceededError
    if task.cancelled():
        raise PluginError("a connector cancelled itself")
    try:
        return task.result()
    finally:
        del task  # its `repr` has the error; tools that report errors show the variables of frames


async def _end(task: asyncio.Task[T]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=CANCEL_GRACE)


async def _contained(call: Callable[[], Awaitable[T]]) -> T:
    try:
        return await call()
    except (Exception, CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        # Out of a task it would end the event loop, and with it everybody else's work.
        raise PluginError(f"a connector raised {type(exc).__name__}") from exc


def _retrieve(task: asyncio.Task[T]) -> None:
    """Keep asyncio from reporting the outcome of a task that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
