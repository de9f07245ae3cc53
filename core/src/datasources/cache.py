"""Metadata kept for a while, and loaded once however many ask: copies in, copies out."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from datasources.errors import OptionError
from datasources.locks import ForkSafeLock
from datasources.models import is_number

T = TypeVar("T")


class MetadataCache:
    """What is known of each source, and of each of its items; safe under threads.

    Args:
        ttl: Seconds that an entry lives; 0 or less is no time at all.
        clock: Returns seconds that never go back.

    Raises:
        OptionError: `ttl` is not a number.
    """

    def __init__(self, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not is_number(ttl):
            raise OptionError("'cache_ttl' must be a number of seconds")
        self._ttl = ttl
        self._clock = clock
        self._lock = ForkSafeLock()
        self._entries: dict[str, dict[str | None, tuple[float, Any]]] = {}

    def put(self, source_id: str, metadata: dict[str, Any], item: str | None = None) -> None:
        """Keep a copy for a source, or for one item of it."""
        entry = (self._clock() + self._ttl, copy.deepcopy(metadata))
        with self._lock:
            self._entries.setdefault(source_id, {})[item] = entry

    def get(self, source_id: str, item: str | None = None) -> Any:
        """Return a copy of the metadata, or None if there is none or it has expired."""
        with self._lock:
            expires, metadata = self._entries.get(source_id, {}).get(item, (0.0, None))
            if metadata is not None and expires <= self._clock():
                del self._entries[source_id][item]
                return None
        return copy.deepcopy(metadata)

    def clear(self, source_id: str | None = None) -> None:
        """Forget one source, or everything."""
        with self._lock:
            if source_id is None:
                self._entries.clear()
            else:
                self._entries.pop(source_id, None)


class SingleFlight:
    """Lets callers that want the same at once share one load; nothing is kept afterwards."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}

    async def load(self, key: Hashable, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `load` returns, called once for all callers of this loop and key.

        It is cancelled when its last caller is.
        """
        place = (asyncio.get_running_loop(), key)
        flight = self._flights.get(place)
        if flight is None:
            flight = self._flights[place] = _Flight(asyncio.ensure_future(load()))
            flight.task.add_done_callback(lambda _: self._flights.pop(place, None))
        flight.callers += 1
        try:
            result: T = await asyncio.shield(flight.task)
            return result
        finally:
            flight.callers -= 1
            if not flight.callers and not flight.task.done():
                self._flights.pop(place, None)
                flight.task.cancel()
                await asyncio.wait([flight.task])


@dataclass(eq=False)
class _Flight:
    task: asyncio.Future[Any]
    callers: int = 0
