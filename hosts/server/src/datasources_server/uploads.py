"""The route that stores a file in a source, whose body is streamed and may have any size.

The body is written to a file of the server first, so that nothing of it is in the source if the
client breaks off, and so that a limit is known before the source is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO
from uuid import uuid4

from fastapi import Header, Query, Request
from fastapi.routing import APIRoute

from datasources import DataItem, LimitExceededError, UnsupportedError, abilities, run_in_thread
from datasources_server.api_router import ApiRouter
from datasources_server.bodies import announced_size
from datasources_server.calls import AnyCall, Call, SourceId
from datasources_server.documents import UploadDocument
from datasources_server.problems import Problem, invalid
from datasources_server.responses import ApiResponse
from datasources_server.types import load_connector_class

_BLOCK = 1 << 20  # bytes that are written at once

_BODY = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


def upload_routes(route_class: type[APIRoute]) -> ApiRouter:
    """Return the route below `/sources/{source_id}` that stores a file."""
    routes = ApiRouter(tags=["data"], route_class=route_class)
    routes.post(
        "/sources/{source_id}/upload",
        status_code=201,
        response_model=UploadDocument,
        openapi_extra={"requestBody": _BODY},
    )(upload_item)
    return routes


async def upload_item(
    request: Request,
    call: AnyCall,
    source_id: SourceId,
    item: Annotated[str, Query(min_length=1)],
    if_none_match: Annotated[str | None, Header()] = None,
) -> ApiResponse:
    """Store the body as an item, and return its receipt.

    An older item of that path is replaced, unless the request has `If-None-Match: *`.
    """
    if if_none_match not in (None, "*"):
        raise invalid("If-None-Match", "must be `*`")
    await call.access.authorize_upload(source_id, item)
    await _require_ability(call, source_id)
    # The place is given up before the response, with which the client may send the next file.
    with call.api.count_running("uploads", call.principal.id):
        limits = await asyncio.to_thread(call.access.limits, source_id)
        _check_size(announced_size(request.headers), limits.max_bytes)
        async with call.access.workspace(str(uuid4())) as session:
            path = os.path.join(session.path, "upload")
            size, sha256 = await _save(request.stream(), path, limits.max_bytes)
            stored = await _store(
                call, source_id, path, item, limits.timeout, overwrite=if_none_match is None
            )
    return ApiResponse({"item": stored, "size": size, "sha256": sha256}, 201)


async def _store(
    call: Call, source_id: str, path: str, item: str, timeout: float | None, *, overwrite: bool
) -> DataItem:
    try:
        async with asyncio.timeout(timeout):
            return await call.access.upload(source_id, path, item, overwrite=overwrite)
    except TimeoutError:
        raise Problem(504, "too-slow", f"the upload took more than {timeout:g} seconds") from None


async def _require_ability(call: Call, source_id: str) -> None:
    """Raise UnsupportedError before the body is read if the source takes no files."""
    config = await call.access.get_source(source_id)
    connector_class = await load_connector_class(call.registry, config.type)
    if "upload" not in abilities(connector_class):
        raise UnsupportedError(f"source {source_id!r} of type {str(config.type)!r} takes no files")


async def _save(parts: AsyncIterator[bytes], path: str, max_bytes: int | None) -> tuple[int, str]:
    """Write a body to a file; return its size and its SHA-256 in hexadecimal.

    Raises:
        LimitExceededError: It has more bytes than allowed.
        Problem: The disk is full.
    """
    size, digest, pending = 0, hashlib.sha256(), bytearray()
    file = open(path, "xb", buffering=0)  # noqa: ASYNC230, SIM115  (a new file; closed below)

    def write() -> None:
        _write_all(file, pending)
        digest.update(pending)
        pending.clear()

    try:
        async for part in parts:
            size += len(part)
            _check_size(size, max_bytes)
            pending += part
            if len(pending) >= _BLOCK:
                await run_in_thread(write)
        await run_in_thread(write)
    except BaseException:
        os.unlink(path)  # before the client is answered
        raise
    finally:
        file.close()
    return size, digest.hexdigest()


def _check_size(size: int | None, max_bytes: int | None) -> None:
    if size is not None and max_bytes is not None and size > max_bytes:
        raise LimitExceededError(f"the upload has more than {max_bytes} bytes, the source's limit")


def _write_all(file: BinaryIO, block: bytearray) -> None:
    """Write all bytes of a block; raises Problem if the disk is full."""
    written = 0
    try:
        while written < len(block):
            written += file.write(memoryview(block)[written:])
    except OSError as exc:
        raise Problem(
            507, "disk-full", f"the server cannot keep the upload: {exc.strerror}"
        ) from exc
