"""Bound how much one principal does at once, over all objects that act for it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary


class Gates:
    """The gates of principals, one for each principal on each event loop."""

    def __init__(self) -> None:
        # Gates are gone once nobody is inside or waits.
        self._gates: WeakKeyDictionary[
            asyncio.AbstractEventLoop, WeakValueDictionary[str, _Gate]
        ] = WeakKeyDictionary()

    def of(self, principal_id: str, places: int) -> GateEntry:
        """Return an entry to a principal's gate, for any number of `async with` blocks.

        A block begins once fewer than `places` blocks of the principal are running, whatever number
        of places those were given.
        """
        gates = self._gates.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        gate = gates.get(principal_id)
        if gate is None:
            gate = gates[principal_id] = _Gate()
        return GateEntry(gate, places)


@dataclass(frozen=True)
class GateEntry:
    """An asynchronous context manager, which may be entered by several tasks at once."""

    gate: _Gate
    places: int

    async def __aenter__(self) -> None:
        await self.gate.enter(self.places)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.gate.leave()


class _Waiter(NamedTuple):
    places: int
    admitted: asyncio.Future[None]


class _Gate:
    """Counts who is inside; who waits is admitted in order, except for those with too few places."""

    def __init__(self) -> None:
        self._inside = 0
        self._waiters: deque[_Waiter] = deque()

    async def enter(self, places: int) -> None:
        waiter = _Waiter(places, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._admit()
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            # A place that was given in the same turn of the loop goes to the next one.
            if waiter.admitted.done() and not waiter.admitted.cancelled():
                self.leave()
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def leave(self) -> None:
        self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        """Admit whom there is a place for. It awaits nothing, so the count is always right."""
        for waiter in list(self._waiters):
            if self._inside < waiter.places:
                self._waiters.remove(waiter)
                if not waiter.admitted.done():  # otherwise cancelled, and about to leave the queue
                    self._inside += 1
                    waiter.admitted.set_result(None)
