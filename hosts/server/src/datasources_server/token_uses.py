"""The last use of each token, as records of the store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from datasources import Record, Records, run_in_thread
from datasources_server.problems import Problem, problem_of

_KIND = "token-use"
_INTERVAL = 60.0  # seconds between two records of the use of one token
_WRITE_SECONDS = 1.0  # between two writes to the store
_BATCH = 1000  # records that are read at once

_log = logging.getLogger("datasources.server")


class TokenUses:
    """Records the use of tokens, of each at most once a minute in each process.

    Args:
        open_records: Returns the records of the store; raises Problem if it has none.
    """

    def __init__(self, open_records: Callable[[], Records]) -> None:
        self._open_records = open_records
        self._noted: dict[str, float] = {}  # monotonic seconds, by name
        self._waiting: dict[str, float] = {}  # Unix seconds, by name

    def note(self, name: str) -> None:
        """Note that a token is used now; called on the event loop."""
        now = time.monotonic()
        if name not in self._noted or now >= self._noted[name] + _INTERVAL:
            self._noted[name] = now
            self._waiting[name] = time.time()

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Write what was noted while the block runs, and the rest at its end."""
        writer = asyncio.create_task(self._write_all())
        try:
            yield
        finally:
            writer.cancel()
            await asyncio.wait([writer])
            await self._flush()

    async def _write_all(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            await self._flush()

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        if waiting:
            try:
                # If it is cancelled, it ends before the store may be closed.
                await run_in_thread(self._put, waiting)
            except Problem:
                pass  # the store keeps no records
            except Exception as exc:  # noqa: BLE001  (logged; the next attempt may succeed)
                self._waiting = waiting | self._waiting
                _log.warning("the last use of tokens cannot be written: %s", problem_of(exc).slug)

    def _put(self, uses: dict[str, float]) -> None:
        records = self._open_records()
        for name, used_at in uses.items():
            records.put(Record(_KIND, name, name, {"used_at": used_at}))


def read_uses(records: Records) -> dict[str, float]:
    """Return the Unix seconds of the last use by the name of the token; raises StoreError."""
    uses: dict[str, float] = {}
    after = ""
    while batch := records.list(_KIND, after=after, limit=_BATCH):
        uses |= {record.id: record.data["used_at"] for record in batch}
        after = batch[-1].id
    return uses
