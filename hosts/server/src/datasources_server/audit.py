"""The audit trail: entries of all workers in the records of the store, and the route to read them."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query
from fastapi.routing import APIRoute
from pydantic import BeforeValidator

from datasources import AuditObserver, Records, run_in_thread
from datasources.json_values import to_iso_time, to_json_value
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AdminCall
from datasources_server.cursors import open_cursor, seal_cursor
from datasources_server.documents import AuditPage
from datasources_server.problems import Problem, problem_of
from datasources_server.responses import ApiResponse

if TYPE_CHECKING:
    from datasources_server.calls import Api

_KIND, _ID = "audit", "all"
_WRITE_SECONDS = 0.5  # between two writes to the store
_MAX_WAITING = 10_000  # entries that wait for the store; more of them are lost
_MAX_STRANGERS = 100  # requests of nobody known in a minute, so that they cannot fill the store
_MINUTE = 60.0
_SCANNED = 10_000  # entries that one request reads
_BATCH = 500
_DAY = 86_400


def _check_moment(value: object) -> object:
    if re.match(r"\d{4}-\d\d-\d\d", str(value)) is None:  # Pydantic takes numbers, too
        raise ValueError("must be a time such as 2026-05-01T09:30:00Z")
    return value


_Moment = Annotated[datetime, BeforeValidator(_check_moment)]
_log = logging.getLogger("datasources.server")


class AuditTrail(AuditObserver):
    """Collects the entries of this worker, and writes them to the store from time to time.

    An entry is in the store within a second; those of the last half second are lost when the worker
    is killed. If the store fails, entries wait for it, up to a bound.

    Args:
        api: The parts that all requests share.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_MAX_WAITING)
        self._strangers: deque[float] = deque(maxlen=_MAX_STRANGERS)

    def write(self, entry: dict[str, Any]) -> None:
        self._waiting.append(to_json_value(entry))

    def note(self, operation: str, **fields: Any) -> None:
        """Add an entry about the server itself, such as a token that was made."""
        entry = make_entry(operation, **fields)
        self.write(entry)
        if self._api.audit_log is not None:
            self._api.audit_log.write(entry)

    def note_stranger(self, **fields: Any) -> None:
        """Add a refused request of nobody known; of many within a minute, the first ones only."""
        now = time.monotonic()
        if len(self._strangers) < _MAX_STRANGERS or self._strangers[0] < now - _MINUTE:
            self._strangers.append(now)
            self.note("refused", **fields)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Write entries while the block runs, and the rest at its end."""
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
        if self._waiting:
            try:
                # If it is cancelled, it ends before the entries are written once more.
                await run_in_thread(self._append)
            except Problem:
                self._waiting.clear()  # the store keeps no records
            except Exception as exc:  # noqa: BLE001  (logged; the next attempt may succeed)
                _log.warning("the audit trail cannot be written: %s", problem_of(exc).slug)

    def _append(self) -> None:
        records = self._api.records()
        while self._waiting:
            entries = list(islice(self._waiting, _BATCH))
            append_entries(records, entries, self._api.settings.audit_days)
            for entry in entries:
                if self._waiting and self._waiting[0] is entry:  # not pushed out meanwhile
                    self._waiting.popleft()


def make_entry(operation: str, **fields: Any) -> dict[str, Any]:
    """Return an entry of this time, without the fields that are None."""
    entry = {"time": to_iso_time(time.time()), "operation": operation, **fields}
    return {key: value for key, value in entry.items() if value is not None}


def append_entries(records: Records, entries: Sequence[dict[str, Any]], days: int) -> None:
    """Add entries to the audit trail, which are kept for some days; raises StoreError."""
    records.append_many(_KIND, _ID, entries, time.time() + days * _DAY)


def audit_routes(route_class: type[APIRoute]) -> ApiRouter:
    """Return the route of the audit trail."""
    routes = ApiRouter(tags=["audit"], route_class=route_class)
    routes.get("/audit", response_model=AuditPage)(list_audit)
    return routes


async def list_audit(
    call: AdminCall,
    since: _Moment | None = None,
    until: _Moment | None = None,
    user: str | None = None,
    source: str | None = None,
    operation: str | None = None,
    outcome: str | None = None,
    cursor: Annotated[str | None, Query(min_length=1)] = None,
    limit: Annotated[int | None, Query(ge=1)] = None,
) -> ApiResponse:
    """List the entries of the audit trail, the newest first, one page at a time.

    A page may have fewer entries than `limit`, or none, and still not be the last one.
    """
    size = call.page_size(limit)
    since, until = _aware(since), _aware(until)
    given = {"user": user, "source": source, "operation": operation, "outcome": outcome}
    fields = {name: value for name, value in given.items() if value is not None}
    times = [None if moment is None else moment.isoformat() for moment in (since, until)]
    binding = [call.principal.id, *times, *given.values()]
    before = None if cursor is None else int(open_cursor(call, "audit", binding, cursor))
    items: list[dict[str, Any]] = []
    records, scanned = call.api.records(), 0
    while len(items) < size and scanned < _SCANNED:
        entries = await asyncio.to_thread(
            records.read, _KIND, _ID, before=before, newest_first=True, limit=_BATCH
        )
        for number, entry in entries:
            scanned, before = scanned + 1, number
            if _matches(entry, since, until, fields):
                items.append(entry)
                if len(items) == size:
                    break
        else:
            if len(entries) < _BATCH:
                return ApiResponse({"items": items, "next_cursor": None})
    return ApiResponse(
        {"items": items, "next_cursor": seal_cursor(call, "audit", binding, str(before))}
    )


def _aware(moment: datetime | None) -> datetime | None:
    """Return a moment with its zone, UTC if it has none."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _matches(
    entry: dict[str, Any],
    since: datetime | None,
    until: datetime | None,
    fields: dict[str, str],
) -> bool:
    if any(entry.get(name) != value for name, value in fields.items()):
        return False
    moment = datetime.fromisoformat(entry["time"])
    return (since is None or moment >= since) and (until is None or moment < until)
