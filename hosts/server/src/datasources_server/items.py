"""Routes about the items of sources, and their content."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Header, Query, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from datasources import Preview, guess_media_type
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AnyCall, Call, ExitStack, SourceId
from datasources_server.cursors import open_cursor, seal_cursor
from datasources_server.documents import (
    ItemPage,
    MetadataDocument,
    PreviewDocument,
    StatisticsDocument,
)
from datasources_server.problems import Problem, invalid
from datasources_server.receipts import public_receipt, record_receipt
from datasources_server.responses import (
    ApiResponse,
    ContentResponse,
    content_headers,
    read_file,
    select_part,
)

CONTENT: dict[str, Any] = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
"""The description of content in the OpenAPI document."""


class ItemBody(BaseModel):
    """The identifier of an item, which may be a query."""

    model_config = ConfigDict(extra="forbid")

    item: str


class DescribeBody(ItemBody):
    """An item to describe; `refresh` asks the source although a description is cached."""

    refresh: bool = False


class ParametersBody(ItemBody):
    """An item, and the values of the parameters if it is a stored query, `query:NAME`."""

    parameters: dict[str, Any] = {}


class PreviewBody(ParametersBody):
    """An item to preview."""

    rows: Annotated[int | None, Field(ge=1)] = None


class ContentBody(ParametersBody):
    """An item to fetch, and its format, such as `csv` or `parquet`."""

    format: str | None = None


def item_routes(route_class: type[APIRoute]) -> ApiRouter:
    """Return the routes below `/sources/{source_id}` that read data."""
    routes = ApiRouter(tags=["data"], prefix="/sources/{source_id}", route_class=route_class)
    routes.get("/items", response_model=ItemPage)(list_items)
    routes.post("/describe", response_model=MetadataDocument)(describe_item)
    routes.post("/preview", response_model=PreviewDocument)(preview_item)
    routes.post("/statistics", response_model=StatisticsDocument)(item_statistics)
    routes.post("/content", response_class=Response, responses={200: CONTENT, 206: CONTENT})(
        item_content
    )
    return routes


async def list_items(
    call: AnyCall,
    source_id: SourceId,
    path: str | None = None,
    pattern: str | None = None,
    cursor: Annotated[str | None, Query(min_length=1)] = None,
    limit: Annotated[int | None, Query(ge=1)] = None,
) -> ApiResponse:
    """List the items of a source, below `path` or by `pattern`, one page at a time."""
    size = call.page_size(limit)
    if pattern is None:
        page = await call.access.list_page(source_id, path, limit=size, cursor=cursor)
        return ApiResponse({"items": page.items, "next_cursor": page.cursor})
    if path is not None:
        raise invalid("pattern", "cannot be given together with 'path'")
    binding = [call.principal.id, source_id, pattern]
    first = 0 if cursor is None else int(open_cursor(call, "patterns", binding, cursor))
    items = await call.access.glob_items(source_id, pattern)
    end = first + size
    following = seal_cursor(call, "patterns", binding, str(end)) if end < len(items) else None
    return ApiResponse({"items": items[first:end], "next_cursor": following})


async def describe_item(call: AnyCall, source_id: SourceId, body: DescribeBody) -> ApiResponse:
    """Describe an item, as its connector does."""
    metadata = await call.access.get_metadata(source_id, body.item, refresh=body.refresh)
    return ApiResponse({"metadata": metadata})


async def preview_item(call: AnyCall, source_id: SourceId, body: PreviewBody) -> ApiResponse:
    """Return the first rows of an item."""
    rows = body.rows or min(10, call.settings.preview_rows)
    if rows > call.settings.preview_rows:
        raise invalid("#/rows", f"must be at most {call.settings.preview_rows}")
    async with _time_limit("preview", call.settings.preview_timeout):
        preview = await call.access.preview(source_id, body.item, rows, parameters=body.parameters)
    return ApiResponse(_bounded(preview, call.settings.preview_bytes))


async def item_statistics(call: AnyCall, source_id: SourceId, body: ParametersBody) -> ApiResponse:
    """Return figures of an item's numeric columns."""
    async with _time_limit("statistics", call.settings.statistics_timeout):
        columns = await call.access.statistics(source_id, body.item, parameters=body.parameters)
    return ApiResponse({"columns": columns})


async def item_content(
    call: AnyCall,
    stack: ExitStack,
    source_id: SourceId,
    body: ContentBody,
    stream: bool = False,
    range: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """Return the content of an item.

    It is fetched completely first, within the limits, so that an error is a problem document. The
    header `Datasources-Receipt` has the receipt. With `stream` it is sent as it arrives, without
    ranges; a stream that fails ends without its last chunk, and `/receipts` has its outcome.
    """
    if stream:
        return await _stream(call, stack, source_id, body)
    return await send_content(call, stack, source_id, body, range, if_range)


async def send_content(
    call: Call,
    stack: AsyncExitStack,
    source_id: str,
    body: ContentBody,
    range: str | None = None,
    if_range: str | None = None,
) -> Response:
    """Fetch an item completely, and return the response that sends it."""
    session = await stack.enter_async_context(call.access.workspace(str(uuid4())))
    receipt = await session.fetch(
        source_id, body.item, format=body.format, parameters=body.parameters
    )
    headers = content_headers(
        guess_media_type(receipt.path), receipt.sha256, os.path.basename(receipt.path)
    )
    headers["Datasources-Receipt"] = json.dumps(public_receipt(receipt))
    status, first, end = select_part(headers, receipt.size, range, if_range)
    file = stack.enter_context(open(receipt.path, "rb"))  # noqa: ASYNC230, SIM115  (a new file; closed at the end)
    return ContentResponse(read_file(file, first, end), status, headers)


async def _stream(call: Call, stack: AsyncExitStack, source_id: str, body: ContentBody) -> Response:
    stream = await stack.enter_async_context(
        call.access.open_stream(
            source_id, body.item, format=body.format, parameters=body.parameters
        )
    )
    # Read before the response begins, so that an early error is a problem document.
    first = await anext(stream, None)
    headers = content_headers(stream.media_type, None, None)
    del headers["Accept-Ranges"]
    chunks = record_receipt(call, stream, with_first(first, stream))
    return ContentResponse(chunks, 200, headers)


async def with_first(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a chunk that was read before the response begins, and the others; None if there is none."""
    if first is not None:
        yield first
        async for chunk in rest:
            yield chunk


def _bounded(preview: Preview, max_bytes: int) -> dict[str, Any]:
    """Return a preview as JSON values, with the rows that have room in `max_bytes`."""
    described = preview.to_dict()
    rows, size = described["rows"], 0
    for number, row in enumerate(rows):
        size += len(json.dumps(row))
        if size > max_bytes:
            described["rows"] = rows[:number]
            described["truncated"] = True
            described["notes"] = [
                *described["notes"],
                f"Rows from number {number + 1} on are left out: a preview has {max_bytes} bytes.",
            ]
            break
    return described


@asynccontextmanager
async def _time_limit(name: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Problem(
            504, "too-slow", f"the {name} took more than {seconds:g} seconds", retryable=True
        ) from None
