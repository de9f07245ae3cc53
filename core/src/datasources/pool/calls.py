"""What a pool knows of a connection, and how it opens, checks and closes one.

Connectors are other people's code: they may hang, ignore cancellation or raise `SystemExit`, and
the pool must go on.  Nothing here knows the state of a pool.
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
from datasources.errors import ConnectError, PluginError
from datasources.models import PoolConfig

T = TypeVar("T")
ConnectorFactory = Callable[[], DataSourceConnector | Awaitable[DataSourceConnector]]
Made = Callable[[DataSourceConnector], None]

FIRST_BACK_OFF = 0.1
"""Seconds, give or take half, before the second attempt to connect; doubled for each further."""
MAX_BACK_OFF = 5.0
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
    """Task and place of each lease, where the pool tracks them."""

    def forget_taken(self, task: str) -> None:
        """Drop the note of one lease, that of `task` if there is one."""
        if self.taken:
            own = (at for at, (name, _) in enumerate(self.taken) if name == task)
            self.taken.pop(next(own, 0))


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A pool at one moment, and what has happened since it was made.

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
    """What has happened to a pool since it was made; see `PoolStatistics`."""

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
class Opening:
    """A connection on its way into the pool; it holds a place there."""

    checked: PooledConnection | None
    """An idle connection to make sure of, until a task does and answers for it."""
    connector: DataSourceConnector | None = None
    """The new one, from before it connects until it is closed or in the pool."""
    task: asyncio.Task[PooledConnection] | None = None
    error: BaseException | None = None
    """Of the latest attempt to connect; None again after a good one."""


class TookTooLongError(Exception):
    """Raised by `bounded` alone, so that a connector's own `TimeoutError` is not mistaken for it."""


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
        """Where errors of `disconnect` go while somebody waits for them; else they are logged."""
        self._check_disconnects = False
        self._reported = False

    async def make_ready(
        self, opening: Opening, config: PoolConfig, made: Made
    ) -> PooledConnection:
        """Return the connection to be checked if it works, or else a new one.

        Args:
            opening: Told why an attempt failed that is followed by another.
            config: Times, and the number of attempts.
            made: Called with each new connector before it connects; may refuse it by raising.
        """
        record, opening.checked = opening.checked, None
        if record and await self.check(record.connector, config.connect_timeout):
            return record
        connector = await self._open(opening, config, made)
        opening.error = None
        now = self._clock()
        lifetime = config.max_lifetime * random.uniform(0.9, 1.1)  # noqa: S311  (no secret)
        # Inside a shareable connector it is the driver that renews its connections.
        expires_at = math.inf if is_shareable(connector) else now + lifetime
        return PooledConnection(connector, now, now, expires_at, shared=is_shareable(connector))

    async def _open(self, opening: Opening, config: PoolConfig, made: Made) -> DataSourceConnector:
        delay = FIRST_BACK_OFF
        attempt = 1
        while True:
            try:
                return await self._attempt(opening, config.connect_timeout, made)
            except ConnectError as exc:
                if attempt >= config.connect_attempts:
                    raise
                opening.error = exc
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311  (no secret)
            delay = min(delay * 2, MAX_BACK_OFF)
            attempt += 1

    async def check(self, connector: DataSourceConnector, seconds: float) -> bool:
        """Tell whether a connection still works: if so it is connected, else disconnected."""
        self._counters.checks += 1
        try:
            if await bounded(lambda: self._check(connector), seconds):
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
        """Disconnect; what goes wrong is counted, and collected or logged, never raised."""
        self._counters.disconnects += 1
        try:
            await bounded(connector.disconnect, DISCONNECT_TIMEOUT)
        except TookTooLongError:
            self._counters.disconnect_failures += 1
            self._report(f"took longer than {DISCONNECT_TIMEOUT:g} s and was abandoned")
        except Exception as exc:  # noqa: BLE001  kept for whoever closes the pool
            self._counters.disconnect_failures += 1
            if self.errors is not None:
                self.errors.append(exc)
            else:
                self._report(f"raised {type(exc).__name__}")

    async def _attempt(self, opening: Opening, seconds: float, made: Made) -> DataSourceConnector:
        try:
            connector = await bounded(lambda: self._connect(opening, made), seconds)
        except (Exception, CancelledError) as exc:
            self._counters.connect_failures += isinstance(exc, Exception)
            if opening.connector is not None:
                await self.disconnect(opening.connector)
                opening.connector = None
            if isinstance(exc, TookTooLongError):
                raise ConnectError(
                    f"source {self._source_id!r} did not connect within {seconds:g} s"
                ) from None
            raise
        self._counters.connects += 1
        return connector

    async def _connect(self, opening: Opening, made: Made) -> DataSourceConnector:
        new = self._factory()
        connector: DataSourceConnector = await new if inspect.isawaitable(new) else new
        made(connector)
        opening.connector = connector
        connected = await connector.connect()
        if not connected:
            raise ConnectError(
                f"source {self._source_id!r} did not connect: connect() returned {connected!r}"
            )
        return connector

    async def _check(self, connector: DataSourceConnector) -> bool:
        """Test the connection, and connect again if the test itself closed it.

        A `test_connection` in the manner of the documented example opens a connection in place
        of the present one and closes it at the end.  Once a test was seen to do that, connections
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
    """Tell whether one instance of the connector's class serves many leases at once."""
    return getattr(type(connector), "shareable", False) is True


async def bounded(call: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Await a connector's method for at most `seconds`, even one that ignores cancellation.

    Raises:
        TookTooLongError: It did not end in time, and has been cancelled.
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
        raise TookTooLongError
    if task.cancelled():
        raise PluginError("a connector cancelled itself")
    return task.result()


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
