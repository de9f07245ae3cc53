"""The state of a pool, and every change of it.

There is no `await` in this module: nothing comes between the steps of a change, and no lock is
needed.  Connecting, checking and disconnecting happen in tasks started here; their outcome comes
back through `_opened` and `_gone`.
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
    Opening,
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
_LEAST_DELAY = 0.1  # seconds; the timer must not spin on the rounding of clocks
_TIMEOUT_STEP = 0.01  # seconds; by so much a timeout may be late, and deadlines share a timer
_MOST_DELAY = 3600.0  # seconds; no loop need understand infinity

Waiter = tuple[Future[PooledConnection], float, float]
"""What it waits for, until when on the loop's clock, and how many seconds that was."""


class PoolState:
    """What `ConnectionPool` knows and decides."""

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
        self._shareable: bool | None = None  # unknown until there is a connector

        # Each record, opening and closing takes one of the `max_size` places.
        self._records: dict[int, PooledConnection] = {}  # by id() of the connector
        self._openings: list[Opening] = []
        self._closing: dict[Task[None], PooledConnection] = {}

        self._shared: PooledConnection | None = None  # what leases of a shareable are taken on
        self._idle: deque[PooledConnection] = deque()  # last used is right; shared: once per lease
        self._waiters: deque[Waiter] = deque()  # first come is left
        self._deadline = math.inf  # the earliest, or an earlier one
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._in_use = 0
        self._all_returned = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    # Leases and waiters.

    def _take_idle(self) -> PooledConnection | None:
        """Lease an idle connection that is good as it is, or start to check one."""
        while self._idle:
            record = self._idle.pop()
            now = self._clock()
            fresh = record.shared or now - record.last_used_at < CHECK_AFTER_IDLE
            if fresh and now < record.expires_at:
                self._start_lease(record)
                return record
            self._idle.append(record)
            if not self._close_idle(now):
                self._open(self._idle.pop())
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
            self._watch(deadline)
        return waiter

    def _leave_queue(self, waiter: Waiter) -> None:
        """End a wait that was cut short; what was assigned meanwhile goes to the next."""
        future = waiter[0]
        if not future.done() or future.cancelled():
            with suppress(ValueError):
                self._waiters.remove(waiter)
        elif future.exception() is None:
            self._end_lease(future.result())

    def _watch(self, deadline: float) -> None:
        """Set the one timer of all waiters: one for each would cost more than all the rest."""
        assert self._loop
        if self._deadline_timer:
            self._deadline_timer.cancel()
        self._deadline = deadline
        self._deadline_timer = self._loop.call_at(
            deadline, _call, weakref.WeakMethod(self._time_out)
        )

    def _time_out(self) -> None:
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
            self._watch(max(now + _TIMEOUT_STEP, min(waiter[1] for waiter in self._waiters)))

    def _timeout_error(self, seconds: float) -> BaseException:
        cause = next((o.error for o in self._openings if o.error), None)
        if cause and not self._in_use:
            return cause  # there is no other reason to wait than that connecting fails
        error = PoolTimeoutError(
            f"no connection to source {self.data_source_id!r} came free within {seconds:g} s: "
            f"{self._in_use} of {self.config.max_size} in use, {len(self._openings)} opening, "
            f"{len(self._waiters)} waiting"
        )
        error.__cause__ = cause
        return error

    def _offer(self, record: PooledConnection) -> None:
        """Give a free place to the first waiter, in use from here on, or keep it for the next."""
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()[0]
            if not waiter.done():
                self._start_lease(record)
                waiter.set_result(record)
                return
        self._idle.append(record)
        if self._timer is None:
            self._schedule()

    def _start_lease(self, record: PooledConnection) -> None:
        record.leases += 1
        record.use_count += 1
        self._in_use += 1

    def _end_lease(self, record: PooledConnection) -> None:
        record.leases -= 1
        if record.abandoned:
            return  # by `close`, which has counted and reported it
        self._in_use -= 1
        record.last_used_at = now = self._clock()
        if now < record.expires_at:
            self._offer(record)
        else:
            self._withdraw(record)

    # Opening.

    def _open_more(self, *, refill: bool = False) -> None:
        """Open as many as waiters, or with `refill` `min_size`, ask for and there is room for."""
        wanted = len(self._waiters) - len(self._openings)
        if refill:
            wanted = max(wanted, self._lacking())
        if wanted > 0 and not self._closed:
            for _ in range(min(wanted, self._room())):
                self._open()

    def _room(self) -> int:
        if self._shareable is None:
            return 0 if self._openings else 1
        if self._shareable:
            return 0 if self._shared or self._openings else 1
        return self.config.max_size - len(self._records) - len(self._openings) - len(self._closing)

    def _lacking(self) -> int:
        """Return how many connections `min_size` asks for and nobody is opening."""
        return -self._spare() - len(self._openings) if self._keep_min_size else 0

    def _spare(self) -> int:
        """Return how many connections there are beyond `min_size`."""
        if self._shareable:
            return (self._shared is not None) - min(1, self.config.min_size)
        return len(self._records) - self.config.min_size

    def _open(self, checked: PooledConnection | None = None) -> None:
        """Open a connection, or make sure of one that has idled."""
        assert self._loop
        opening = Opening(checked)
        self._openings.append(opening)  # before the task, which an eager loop would begin at once
        if checked:
            del self._records[id(checked.connector)]
        task = self._loop.create_task(self._calls.make_ready(opening, self.config, self._made))
        opening.task = task
        task.add_done_callback(partial(self._opened, opening))

    def _made(self, connector: DataSourceConnector) -> None:
        """Learn from a new connector what kind its class is, before it connects."""
        held: list[PooledConnection | Opening]
        held = [*self._records.values(), *self._closing.values(), *self._openings]
        if any(one.connector is connector for one in held):
            raise PoolError(
                f"the connector factory of source {self.data_source_id!r} returned a connector "
                "that it had returned before; it must make a new one each time"
            )
        self._shareable = is_shareable(connector)
        if self._shareable:
            connector.pool_config = self.config
        else:
            self._open_more(refill=True)

    def _opened(self, opening: Opening, task: Task[PooledConnection]) -> None:
        self._openings.remove(opening)
        if opening.checked:
            self._close(opening.checked)
        if task.cancelled():
            # By `_stop`, or with all other tasks of an event loop that is about to end.
            self._open_failed(opening, self._closed_error())
        elif error := task.exception():
            self._open_failed(opening, error)
        else:
            self._admit(task.result())

    def _open_failed(self, opening: Opening, error: BaseException) -> None:
        """Deliver the error to the waiter that this connection would have gone to."""
        opening.error = error
        while len(self._waiters) > len(self._openings):
            waiter = self._waiters.popleft()[0]
            if not waiter.done():
                waiter.set_exception(error)
                if not self._shareable:
                    break
        self._open_more()
        self._schedule()

    def _admit(self, record: PooledConnection) -> None:
        if self._closed or (not record.shared and self._room() < 1):
            self._close(record)
            return
        record.last_used_at = self._clock()
        self._records[id(record.connector)] = record
        if record.shared:
            self._shared = record
        places = self.config.max_size - self._in_use if record.shared else 1
        for _ in range(places):
            self._offer(record)
        self._open_more(refill=True)

    # Closing.

    def _retire(self, record: PooledConnection) -> None:
        """Close a connection now if it is idle, else when its leases are back."""
        record.expires_at = -math.inf
        with suppress(ValueError):
            self._idle.remove(record)
        self._withdraw(record)

    def _withdraw(self, record: PooledConnection) -> None:
        """Take a connection, neither idle nor to be leased again, out of the pool."""
        if record is self._shared:
            self._shared = None
            self._idle.clear()
        if not record.leases:
            del self._records[id(record.connector)]
            self._close(record)
        if self._closed and not self._in_use:
            self._all_returned.set()
        if self._shared and self._in_use + len(self._idle) < self.config.max_size:
            self._offer(self._shared)
        self._open_more(refill=True)

    def _close(self, record: PooledConnection) -> None:
        assert self._loop
        if self._loop.is_closed():
            return
        task = self._loop.create_task(self._calls.disconnect(record.connector))
        self._closing[task] = record
        task.add_done_callback(self._gone)

    def _gone(self, task: Task[None]) -> None:
        del self._closing[task]
        self._open_more(refill=True)

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> PoolClosedError:
        return PoolClosedError(f"the pool of source {self.data_source_id!r} is closed")

    def _stop(self) -> None:
        """Refuse new work, and close what is not in use."""
        if self._closed:
            return
        self._closed = True
        self._calls.errors = []
        for timer in (self._timer, self._deadline_timer):
            if timer:
                timer.cancel()
        while self._waiters:
            waiter = self._waiters.popleft()[0]
            if not waiter.done():
                waiter.set_exception(self._closed_error())
        for opening in self._openings:
            if opening.task:
                opening.task.cancel()
        for record in list(self._records.values()):
            self._retire(record)

    def _abandon_leases(self) -> list[PoolError]:
        """Disconnect what was not returned; return the error that says so, if any was."""
        if not self._in_use:
            return []
        leaked = [record for record in self._records.values() if record.leases]
        places = [f"{place} (task {task!r})" for record in leaked for task, place in record.taken]
        error = PoolError(
            f"{self._in_use} connections to source {self.data_source_id!r} were never returned"
            + (": taken at " + ", ".join(places) if places else "; track_leases shows where taken")
        )
        self._in_use = 0
        self._all_returned.set()
        for record in leaked:
            record.abandoned = True
            self._close(record)
        return [error]

    def _close_idle(self, now: float) -> bool:
        """Close what has idled or lived for too long; tell whether there was any."""
        closed = False
        for record in list(dict.fromkeys(self._idle)):  # longest idle first
            idle_for = 0 if record.leases else now - record.last_used_at
            if now >= record.expires_at or (
                self._spare() > 0 and idle_for >= self.config.max_idle_time
            ):
                self._retire(record)
                closed = True
        return closed

    def _schedule(self) -> None:
        """Set the timer for the next connection to be closed or opened, if there will be one."""
        now = self._clock()
        due = [record.expires_at for record in self._idle]
        if self._idle:
            oldest = self._idle[0]
            idle_since = oldest.last_used_at if self._spare() > 0 and not oldest.leases else now
            due.append(idle_since + self.config.max_idle_time)
        if self._lacking() > 0:
            due.append(now + REFILL_INTERVAL)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if due and self._loop and not self._closed and not self._loop.is_closed():
            delay = min(max(min(due) - now, _LEAST_DELAY), _MOST_DELAY)
            # By weak reference: a pool that nobody holds is not kept alive by its timer.
            self._timer = self._loop.call_later(delay, _call, weakref.WeakMethod(self._tick))

    def _tick(self) -> None:
        self._close_idle(self._clock())
        self._open_more(refill=True)
        self._schedule()


def _call(reference: weakref.WeakMethod[Callable[[], None]]) -> None:
    if method := reference():
        method()
