"""Receipts: what clients get of them, and those of streams, which are asked for afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi.routing import APIRoute

from datasources import DataSourceError, FetchReceipt, ItemStream, Record
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AnyCall, Call
from datasources_server.documents import OutcomeDocument
from datasources_server.problems import Problem, problem_of
from datasources_server.responses import ApiResponse

_KIND = "receipt"
_SECONDS = 3600.0  # for which the outcome of a stream can be asked for

_log = logging.getLogger("datasources.server")


def receipt_routes(route_class: type[APIRoute]) -> ApiRouter:
    """Return the route below `/receipts`."""
    routes = ApiRouter(tags=["data"], route_class=route_class)
    routes.get("/receipts/{request_id}", response_model=OutcomeDocument)(get_receipt)
    return routes


async def get_receipt(call: AnyCall, request_id: str) -> ApiResponse:
    """Return the receipt of a stream of the same principal, or the problem that has ended it.

    It is there for an hour after the end of the stream, whose `X-Request-Id` names it.
    """
    record = await asyncio.to_thread(call.api.records().get, _KIND, request_id)
    if record is None or record.owner != call.principal.id:
        raise Problem(
            404,
            "receipt-not-found",
            "no stream of yours with this request id has ended within the last hour",
        )
    return ApiResponse(record.data)


async def record_receipt(
    call: Call, stream: ItemStream, chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield the chunks of a stream, and record its receipt, or the problem that ends it."""
    try:
        async for chunk in chunks:
            yield chunk
    except Exception as exc:
        problem = problem_of(exc, is_admin=call.principal.is_admin)
        await _record(call, {"problem": problem.to_dict(call.request_id)})
        raise
    if stream.receipt is not None:
        await _record(call, {"receipt": public_receipt(stream.receipt)})


async def _record(call: Call, outcome: dict[str, Any]) -> None:
    expires_at = time.time() + _SECONDS
    record = Record(_KIND, call.request_id, call.principal.id, outcome, expires_at=expires_at)
    try:
        await asyncio.to_thread(call.api.records().put, record)
    except Problem:
        pass  # the store has no records, and `/receipts` says so
    except DataSourceError as exc:  # the content is complete all the same
        _log.warning("the receipt of request %s is not recorded: %s", call.request_id, exc.slug)


def public_receipt(receipt: FetchReceipt) -> dict[str, Any]:
    """Return a receipt without what the client has sent, and without paths of the server."""
    values = receipt.to_dict()
    for name in ("source_id", "identifier", "path", "unchanged"):
        del values[name]
    return values
