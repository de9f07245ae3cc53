"""Jobs whose events somebody reads: the worker looks at each of them once a second, for all readers."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from datasources import Record

_LOOK_SECONDS = 1.0  # between two looks at a job
_KEPT = 1000  # events that are kept for readers; older ones are read from the store again


class Look(NamedTuple):
    """A job at one moment."""

    job: Record | None
    """None if there is none any more."""
    newest: int
    """The number of its latest event; 0 if it has none."""


ReadEvents = Callable[[int], Awaitable[list[tuple[int, dict[str, Any]]]]]
"""Returns the next events after a number, 100 at most."""


class JobWatch:
    """Looks at one job from time to time, and wakes its readers when it has changed.

    Args:
        look: Returns the job as it is now.
        read: Returns events of the job.
    """

    def __init__(self, look: Callable[[], Awaitable[Look]], read: ReadEvents) -> None:
        self.readers = 0
        self._look = look
        self._read = read
        self._latest: Look | None = None
        self._error: Exception | None = None
        self._events: deque[tuple[int, bytes]] = deque()
        self._known = 0  # all events after this number are in `_events`
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        """True if it looks no more, as a look has failed."""
        return self._task.done()

    def stop(self) -> None:
        """Look no more."""
        self._task.cancel()

    async def wait(self, seen: Look | None, timeout: float) -> Look | None:
        """Return the job once it differs from `seen`; None if it does not within `timeout` seconds.

        Raises:
            Exception: What a look has raised.
        """
        if self._latest in (None, seen) and self._error is None:
            await asyncio.wait([self._changed], timeout=timeout)
        if self._error is not None:
            raise self._error
        return None if self._latest == seen else self._latest

    async def events(self, after: int, newest: int) -> list[tuple[int, bytes]]:
        """Return the events from after one number up to another, as they are sent."""
        events: list[tuple[int, bytes]] = []
        while after < min(self._known, newest):
            batch = await self._read(after)
            events += [(number, encode_event(number, event)) for number, event in batch]
            after = batch[-1][0] if batch else newest
        return events + [event for event in self._events if after < event[0] <= newest]

    async def _run(self) -> None:
        try:
            while True:
                await self._look_again()
                await asyncio.sleep(_LOOK_SECONDS)
        except Exception as exc:  # noqa: BLE001  (raised to all readers)
            self._error = exc
            self._wake()

    async def _look_again(self) -> None:
        # The job before its events, so that none is missed of one that has ended.
        look = await self._look()
        if self._latest is None:
            self._known = last = look.newest
        else:
            last = self._events[-1][0] if self._events else self._known
        while last < look.newest and (batch := await self._read(last)):
            self._events += [(number, encode_event(number, event)) for number, event in batch]
            last = batch[-1][0]
        while len(self._events) > _KEPT:
            self._known = self._events.popleft()[0]
        if look != self._latest:
            self._latest = look
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)


class JobWatches:
    """The jobs that this worker looks at.

    Args:
        look: Returns a job as it is now.
        read: Returns the events of a job after a number.
    """

    def __init__(
        self,
        look: Callable[[str], Awaitable[Look]],
        read: Callable[[str, int], Awaitable[list[tuple[int, dict[str, Any]]]]],
    ) -> None:
        self._look = look
        self._read = read
        self._watches: dict[str, JobWatch] = {}

    @asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[JobWatch]:
        """Look at a job while the block runs."""
        watch = self._watches.get(job_id)
        if watch is None or watch.is_over:
            watch = self._watches[job_id] = JobWatch(
                lambda: self._look(job_id), lambda after: self._read(job_id, after)
            )
        watch.readers += 1
        try:
            yield watch
        finally:
            watch.readers -= 1
            if not watch.readers:
                watch.stop()
                if self._watches.get(job_id) is watch:
                    del self._watches[job_id]


def encode_event(number: int | None, event: dict[str, Any]) -> bytes:
    """Return an event as it is sent; its data is on one line, as JSON escapes line ends."""
    identifier = "" if number is None else f"id: {number}\n"
    return f"{identifier}event: {event['event']}\ndata: {json.dumps(event['data'])}\n\n".encode()
