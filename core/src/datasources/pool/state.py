"""The state of a pool, and every change of it.

A connection is always in one of these states, and in these sets of `PoolState`:

    pending    being opened or checked by a task                       `_pending`
    idle       connected, and not leased                               `_connections`, `_idle`
    leased     given to a caller of `acquire`                          `_connections`
    closing    being disconnected by a task                            `_closing`

                 opened, good            acquired
    (new) -> pending ------------> idle <---------> leased
                |  ^                |    released      |
         failed |  | idle for long: |                  | released, but expired or discarded
                v  +--- check ------+ expired          v
             (gone)                 +-----------> closing -> (gone)

    new -> pending        `_start_opening`: a caller waits, or, once `initialize` was called, fewer
                          than `min_size` are open
    pending -> idle       `_on_opened`, `_add`; `_hand_out` leases it at once if a caller waits
    pending -> gone       `_on_open_failed`: a pending connection belongs to no waiter. If more wait
                          now than are pending, the first in the queue gets the error; if the
                          connector is shareable, every waiter does, as nothing else is pending.
                          A check that fails is no such failure: its task disconnects, and opens
                          a new connection
    pending -> closing    `_add`: the pool was closed or shrank meanwhile; `_on_opened`: a check was
                          cancelled before it began
    idle -> leased        `_take_idle`, `_start_lease`
    idle -> pending       `_take_idle`: idle for `CHECK_AFTER_IDLE`, so it is checked first
    idle -> closing       `_retire`: expired, idle for `max_idle_time`, or the pool shrinks or
                          closes
    leased -> idle        `_end_lease`, `_hand_out`
    leased -> closing     `_end_lease`, `_remove`: it expired meanwhile or is discarded;
                          `_abandon_leases`: the pool closed, and waited long enough. It stays
                          in `_connections`, so that a late release is no error
    closing -> gone       `_on_closed`

No connection is opened while pending, idle, leased and closing ones together have `max_size`. After
`resize` to fewer there are more, until they are released. Until the first connector is created only
one is being opened, since only a connector tells whether its class is shareable (`_on_created`).

A shareable connector differs: there is one connection, `_shared`, which stands in `_idle` once for
each lease that is free, and `max_size` bounds its leases. It is never checked, and no lifetime
ends it: its driver sees to that. A shared connection that is discarded while it has leases is in
`_connections` only, until the last of them is returned; a new one may be opened meanwhile. Leases
of the discarded one still count against `max_size`, so the new one has that many fewer places until
they are returned.

Callers of `acquire` wait in `_waiters`, first come, first served: whoever finds no idle connection
joins the queue, and `_hand_out` serves its head, so nobody overtakes. A waiter is served by setting
its future; the connection is leased from that moment on, and a waiter that was cancelled in the
same moment gives it back (`_leave_queue`). A waiter that is cancelled earlier leaves the queue; the
connection that is being opened for the queue goes on and becomes idle.

Nothing in this module awaits. A change of state is a plain method that runs to its end before any
other task of the event loop, so the sets always agree with each other and no lock is needed.
Connecting, checking and disconnecting take time: they run in tasks started here, and their
callbacks `_on_opened` and `_on_closed` bring the results back; `_on_created` is called from within
such a task, before it connects.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from asyncio import Future, Task
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from datasources.connector import DataSourceConnector
from datasources.errors import PoolClosedError, PoolError, PoolTimeoutError
from datasources.models import PoolConfig
from datasources.pool.calls import (
    ConnectorCalls,
    ConnectorFactory,
    Counters,
    PendingConnection,
    PooledConnection,
    is_shareable,
)

CHECK_AFTER_IDLE = 5.0
"""Seconds without use after which a connection is checked before it is handed out.

A server takes seconds to restart, so what worked within the last few almost surely still does;
after them one round trip is cheap beside handing out a dead connection.
"""
REFILL_INTERVAL = 30.0
"""Seconds until `min_size` is tried again after a failure that nobody waited for."""
_LEAST_DELAY = 0.1  # seconds; rounding of clocks must not make the timer fire again and again
_TIMEOUT_STEP = 0.01  # seconds by which a timeout may be late, so that waiters share one timer
_MOST_DELAY = 3600.0  # seconds; event loops refuse an infinite delay

Waiter = tuple[Future[PooledConnection], float, float]
"""A waiting `acquire`: its future, its deadline in loop time, its timeout in seconds."""


class PoolState:
    """The connections of a pool, its waiting callers, and every change of their state."""

    def __init__(
        self,
        data_source_id: str,
        connector_factory: ConnectorFactory,
        config: PoolConfig | None,
        clock: Callable[[], float],
    ) -> None:
        self.data_source_id = data_source_id
        self.config = config or PoolConfig()
        self._clock = clock
        self._counters = Counters()
        self._calls = ConnectorCalls(data_source_id, connector_factory, clock, self._counters)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._keep_min_size = False
        self._shareable: bool | None = None  # unknown until a connector was created

        self._connections: dict[int, PooledConnection] = {}  # by id() of the connector
        self._pending: list[PendingConnection] = []
        self._closing: dict[Task[None], PooledConnection] = {}

        self._shared: PooledConnection | None = None
        self._idle: deque[PooledConnection] = deque()  # the last used is at the right end
        self._waiters: deque[Waiter] = deque()  # the first to come is at the left end
        self._deadline = math.inf  # of `_deadline_timer`: no waiter has an earlier one
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._in_use = 0
        self._all_returned = asyncio.Event()
        self._maintenance_timer: asyncio.TimerHandle | None = None

    # Leases and waiters.

    def _take_idle(self) -> PooledConnection | None:
        """Lease an idle connection that needs no check, or start to check one."""
        while self._idle:
            connection = self._idle.pop()
            now = self._clock()
            fresh = connection.shared or now - connection.last_used_at < CHECK_AFTER_IDLE
            if fresh and now < connection.expires_at:
                self._start_lease(connection)
                return connection
            self._idle.append(connection)
            if not self._close_expired(now):
                self._start_opening(self._idle.pop())
                break
        return None

    def _join_queue(self, timeout: float | None) -> Waiter:
        self._check_open()
        assert self._loop
        seconds = self.config.acquire_timeout if timeout is None else timeout
        deadline = self._loop.time() + seconds
        waiter: Waiter = (self._loop.create_future(), deadline, seconds)
        self._waiters.append(waiter)
        self._counters.waits += 1
        self._open_more()
        if deadline < self._deadline:
            self._set_deadline_timer(deadline)
        return waiter

    def _leave_queue(self, waiter: Waiter) -> None:
        """End a wait that was cancelled; a connection that was assigned meanwhile is given back."""
        future = waiter[0]
        if not future.done() or future.cancelled():
            with suppress(ValueError):
                self._waiters.remove(waiter)
        elif future.exception() is None:
            self._end_lease(future.result())

    def _set_deadline_timer(self, deadline: float) -> None:
        """Set the one timer of all waiters: a timer for each would cost more than its lease."""
        assert self._loop
        if self._deadline_timer:
            self._deadline_timer.cancel()
        self._deadline = deadline
        self._deadline_timer = self._loop.call_at(
            deadline, _call_weakly, weakref.WeakMethod(self._expire_waiters)
        )

    def _expire_waiters(self) -> None:
        assert self._loop
        now = self._loop.time()
        late = [waiter for waiter in self._waiters if waiter[1] < now + _TIMEOUT_STEP / 10]
        for waiter in late:
            if not waiter[0].done():
                waiter[0].set_exception(self._timeout_error(waiter[2]))
                self._counters.timeouts += 1
            self._waiters.remove(waiter)
        self._deadline = math.inf
        if self._waiters:
            self._set_deadline_timer(
                max(now + _TIMEOUT_STEP, min(waiter[1] for waiter in self._waiters))
            )

    def _timeout_error(self, seconds: float) -> BaseException:
        cause = next((o.error for o in self._pending if o.error), None)
        if cause and not self._in_use:
            return cause  # nothing is in use, so the wait was for attempts that fail with this
        error = PoolTimeoutError(
            f"no connection to source {self.data_source_id!r} came free within {seconds:g} s: "
            f"{self._in_use} of {self.config.max_size} in use, {len(self._pending)} opening, "
            f"{len(self._waiters)} waiting"
        )
        error.__cause__ = cause
        return error

    def _hand_out(self, connection: PooledConnection) -> None:
        """Lease a free connection to the first waiter; without waiters it becomes idle."""
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()[0]
            if not waiter.done():
                self._start_lease(connection)
                waiter.set_result(connection)
                return
        self._idle.append(connection)
        if self._maintenance_timer is None:
            self._schedule_maintenance()

    def _start_lease(self, connection: PooledConnection) -> None:
        connection.leases += 1
        connection.use_count += 1
        self._in_use += 1

    def _end_lease(self, connection: PooledConnection) -> None:
        connection.leases -= 1
        if connection.abandoned:
            return  # `close` has counted and reported it
        self._in_use -= 1
        connection.last_used_at = now = self._clock()
        if now < connection.expires_at:
            self._hand_out(connection)
        else:
            self._remove(connection)

    # Opening.

    def _open_more(self, *, refill: bool = False) -> None:
        """Start to open connections for waiters, with `refill` also for `min_size`."""
        count = len(self._waiters) - len(self._pending)
        if refill:
            count = max(count, self._deficit())
        if count > 0 and not self._closed:
            for _ in range(min(count, self._capacity())):
                self._start_opening()

    def _capacity(self) -> int:
        """Return how many more connections may be opened."""
        if self._shareable is None:
            return 0 if self._pending else 1
        if self._shareable:
            return 0 if self._shared or self._pending else 1
        return (
            self.config.max_size - len(self._connections) - len(self._pending) - len(self._closing)
        )

    def _deficit(self) -> int:
        """Return how many connections `min_size` requires beyond the open and the pending ones."""
        return -self._surplus() - len(self._pending) if self._keep_min_size else 0

    def _surplus(self) -> int:
        """Return how many connections there are beyond `min_size`; negative if there are fewer."""
        if self._shareable:
            return (1 if self._shared else 0) - min(1, self.config.min_size)
        return len(self._connections) - self.config.min_size

    def _start_opening(self, to_check: PooledConnection | None = None) -> None:
        """Start to open a connection, or to check one that was idle for long."""
        assert self._loop
        pending = PendingConnection(to_check)
        self._pending.append(pending)  # before the task, which an eager loop would begin at once
        if to_check:
            del self._connections[id(to_check.connector)]
        task = self._loop.create_task(
            self._calls.open_or_check(pending, self.config, self._on_created)
        )
        pending.task = task
        task.add_done_callback(partial(self._on_opened, pending))

    def _on_created(self, connector: DataSourceConnector) -> None:
        """Learn from a new connector, before it connects, whether its class is shareable."""
        alive: list[PooledConnection | PendingConnection]
        alive = [*self._connections.values(), *self._closing.values(), *self._pending]
        if any(one.connector is connector for one in alive):
            raise PoolError(
                f"the connector factory of source {self.data_source_id!r} returned a connector "
                "that it had returned before; it must make a new one each time"
            )
        self._shareable = is_shareable(connector)
        if self._shareable:
            connector.pool_config = self.config
        else:
            self._open_more(refill=True)

    def _on_opened(self, pending: PendingConnection, task: Task[PooledConnection]) -> None:
        self._pending.remove(pending)
        if pending.to_check:
            self._start_closing(pending.to_check)
        if task.cancelled():
            # By `_stop`, or by an event loop that ends and cancels all tasks.
            self._on_open_failed(pending, self._closed_error())
        elif error := task.exception():
            self._on_open_failed(pending, error)
        else:
            self._add(task.result())

    def _on_open_failed(self, pending: PendingConnection, error: BaseException) -> None:
        """Give the error to the first waiter for whom no other connection is being opened."""
        pending.error = error
        while len(self._waiters) > len(self._pending):
            waiter = self._waiters.popleft()[0]
            if not waiter.done():
                waiter.set_exception(error)
                if not self._shareable:
                    break
        self._open_more()
        self._schedule_maintenance()

    def _add(self, connection: PooledConnection) -> None:
        """Take a connection that was opened or checked into the pool, unless it is too many."""
        if self._closed or (not connection.shared and self._capacity() < 1):
            self._start_closing(connection)
            return
        connection.last_used_at = self._clock()
        self._connections[id(connection.connector)] = connection
        if connection.shared:
            self._shared = connection
        places = self.config.max_size - self._in_use if connection.shared else 1
        for _ in range(places):
            self._hand_out(connection)
        self._open_more(refill=True)

    # Closing.

    def _retire(self, connection: PooledConnection) -> None:
        """Close a connection now if it is idle, else when its leases are back."""
        connection.expires_at = -math.inf
        with suppress(ValueError):
            self._idle.remove(connection)
        self._remove(connection)

    def _remove(self, connection: PooledConnection) -> None:
        """Remove a connection that is not to be leased again; close it unless it is leased.

        An exclusive one was taken out of `_idle` before; of a shared one, the free places are
        removed here.
        """
        if connection is self._shared:
            self._shared = None
            self._idle.clear()
        if not connection.leases:
            del self._connections[id(connection.connector)]
            self._start_closing(connection)
        if self._closed and not self._in_use:
            self._all_returned.set()
        # A lease of a discarded shared connection was returned: the new one has a free place more.
        if self._shared and self._in_use + len(self._idle) < self.config.max_size:
            self._hand_out(self._shared)
        self._open_more(refill=True)

    def _start_closing(self, connection: PooledConnection) -> None:
        assert self._loop
        if self._loop.is_closed():
            return
        task = self._loop.create_task(self._calls.disconnect(connection.connector))
        self._closing[task] = connection
        task.add_done_callback(self._on_closed)

    def _on_closed(self, task: Task[None]) -> None:
        del self._closing[task]
        self._open_more(refill=True)

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> PoolClosedError:
        return PoolClosedError(f"the pool of source {self.data_source_id!r} is closed")

    def _stop(self) -> None:
        """Refuse new leases, and close every connection that is not leased."""
        if self._closed:
            return
        self._closed = True
        self._calls.errors = []
        for timer in (self._maintenance_timer, self._deadline_timer):
            if timer:
                timer.cancel()
        while self._waiters:
            waiter = self._waiters.popleft()[0]
            if not waiter.done():
                waiter.set_exception(self._closed_error())
        for pending in self._pending:
            if pending.task:
                pending.task.cancel()
        for connection in list(self._connections.values()):
            self._retire(connection)

    def _abandon_leases(self) -> list[PoolError]:
        """Disconnect leased connections under their holders; return the error that reports them."""
        if not self._in_use:
            return []
        leaked = [connection for connection in self._connections.values() if connection.leases]
        places = [
            f"{place} (task {task!r})" for connection in leaked for task, place in connection.taken
        ]
        source = f"source {self.data_source_id!r}"
        error = PoolError(
            (
                f"1 connection to {source} was never returned"
                if self._in_use == 1
                else f"{self._in_use} connections to {source} were never returned"
            )
            + (": taken at " + ", ".join(places) if places else "; track_leases shows where taken")
        )
        self._in_use = 0
        self._all_returned.set()
        for connection in leaked:
            connection.abandoned = True
            self._start_closing(connection)
        return [error]

    def _close_expired(self, now: float) -> bool:
        """Close idle connections that expired or were idle for too long; return True if any was."""
        closed = False
        for connection in list(dict.fromkeys(self._idle)):  # longest idle first
            idle_for = 0 if connection.leases else now - connection.last_used_at
            if now >= connection.expires_at or (
                self._surplus() > 0 and idle_for >= self.config.max_idle_time
            ):
                self._retire(connection)
                closed = True
        return closed

    def _schedule_maintenance(self) -> None:
        """Set the timer for the next moment at which a connection is to be closed or opened."""
        now = self._clock()
        due = [connection.expires_at for connection in self._idle]
        if self._idle:
            oldest = self._idle[0]
            idle_since = oldest.last_used_at if self._surplus() > 0 and not oldest.leases else now
            due.append(idle_since + self.config.max_idle_time)
        if self._deficit() > 0:
            due.append(now + REFILL_INTERVAL)
        if self._maintenance_timer:
            self._maintenance_timer.cancel()
            self._maintenance_timer = None
        if due and self._loop and not self._closed and not self._loop.is_closed():
            delay = min(max(min(due) - now, _LEAST_DELAY), _MOST_DELAY)
            # By weak reference, so that its timer does not keep a forgotten pool alive.
            self._maintenance_timer = self._loop.call_later(
                delay, _call_weakly, weakref.WeakMethod(self._maintain)
            )

    def _maintain(self) -> None:
        self._close_expired(self._clock())
        self._open_more(refill=True)
        self._schedule_maintenance()


def _call_weakly(reference: weakref.WeakMethod[Callable[[], None]]) -> None:
    if method := reference():
        method()
