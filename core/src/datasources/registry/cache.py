"""A cache of metadata with a time to live, and the sharing of loads that run at once."""

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
    """Metadata of sources and of their items; safe under threads.

    It copies what is put and what is got, so that no caller changes the metadata of another.

    Args:
        ttl: Seconds after which an entry expires; with 0 or less, at once.
        clock: Returns seconds, and never less than before.

    Raises:
        OptionError: `ttl` is not a number.
    """

    def __init__(self, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not is_number(ttl):
            raise OptionError("'cache_ttl' must be a number of seconds")
        self._ttl = ttl
        self._clock = clock
        self._lock = ForkSafeLock()
        self._entries: dict[str, dict[str | None, tuple[float, int, Any]]] = {}
        self._last = 0  # number that was given to a reading or a clearing
        self.cleared = 0
        """The number of the last clearing."""

    def begin_reading(self) -> int:
        """Return a number for a reading that begins now; those of later readings are greater."""
        with self._lock:
            self._last += 1
            return self._last

    def put(
        self,
        source_id: str,
        metadata: dict[str, Any],
        item: str | None = None,
        *,
        reading: int | None = None,
    ) -> None:
        """Store the metadata of a source, or of one item of it.

        Args:
            source_id: The source.
            metadata: The metadata.
            item: The item; None for the source itself.
            reading: The number of the reading that has brought them; None if they are of now. They
                are not stored if the cache was cleared, or a later reading stored, since it began.
        """
        if reading is None:
            reading = self.begin_reading()
        copied = copy.deepcopy(metadata)
        with self._lock:
            _, stored, _ = self._entries.get(source_id, {}).get(item, (0.0, 0, None))
            if reading > max(stored, self.cleared):
                entry = (self._clock() + self._ttl, reading, copied)
                self._entries.setdefault(source_id, {})[item] = entry

    def get(self, source_id: str, item: str | None = None) -> Any:
        """Return the metadata of a source or an item; None if there is none or it has expired."""
        with self._lock:
            expires, _, metadata = self._entries.get(source_id, {}).get(item, (0.0, 0, None))
            if metadata is not None and expires <= self._clock():
                del self._entries[source_id][item]
                return None
        return copy.deepcopy(metadata)

    def clear(self, source_id: str | None = None) -> None:
        """Delete the metadata of one source, or of all."""
        with self._lock:
            self._last += 1
            self.cleared = self._last
            if source_id is None:
                self._entries.clear()
            else:
                self._entries.pop(source_id, None)


class SingleFlight:
    """Runs one load for all callers that ask for one key at the same time; caches no result.

    Instances are used from any event loop; a load is shared within one loop.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, _Load] = {}

    async def load(self, key: Hashable, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of `load`, which runs once for all callers of this loop and key.

        When the last of its callers has been cancelled, the load is cancelled too.
        """
        loop_and_key = (asyncio.get_running_loop(), key)
        running = self._running.get(loop_and_key)
        if running is None:
            running = self._running[loop_and_key] = _Load(asyncio.ensure_future(load()))
            running.task.add_done_callback(lambda _: self._forget(loop_and_key, running))
        running.callers += 1
        try:
            result: T = await asyncio.shield(running.task)
            return result
        finally:
            running.callers -= 1
            if not running.callers and not running.task.done():
                self._forget(loop_and_key, running)
                running.task.cancel()
                await asyncio.wait([running.task])

    def _forget(self, key: Hashable, load: _Load) -> None:
        if self._running.get(key) is load:  # and not the next one
            del self._running[key]


@dataclass(eq=False)
class _Load:
    task: asyncio.Future[Any]
    callers: int = 0
