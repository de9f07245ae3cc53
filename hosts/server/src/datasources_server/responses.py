"""Responses of JSON and of content."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from datasources import DataFetchError, DataSourceError, run_in_thread
from datasources.json_values import to_json_value
from datasources_server.problems import Problem

_log = logging.getLogger("datasources.server")
_CHUNK = 512 * 1024  # bytes read of a file at once; each slow client has two of these in memory
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class ApiResponse(Response):
    """A response of JSON, in ASCII, as names from sources may hold halves of surrogate pairs."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encode_json(content)


def encode_json(content: Any) -> bytes:
    """Return a value as JSON in ASCII."""
    return json.dumps(to_json_value(content), allow_nan=False).encode()


class ContentResponse(Response):
    """A response of bytes as they arrive.

    An error of the source ends it without its last part, so that the server closes the connection,
    and a client knows that the content is not complete.
    """

    def __init__(
        self, chunks: AsyncIterator[bytes], status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        del self.headers["content-length"]  # the empty body's
        if "Content-Length" in headers:
            self.headers["content-length"] = headers["Content-Length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI)
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        try:
            async for chunk in self._chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except DataSourceError as exc:
            _log.warning("a stream ended early: %s", exc.slug)
            return  # the server closes the connection, as the response is not complete
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def content_headers(
    media_type: str | None, etag: str | None, filename: str | None
) -> dict[str, str]:
    """Return the headers of content from a source, which no browser may open as a page."""
    headers = {
        "Content-Type": media_type or "application/octet-stream",
        "Content-Disposition": "attachment",
        "Content-Security-Policy": "sandbox",
        "Accept-Ranges": "bytes",
    }
    if etag is not None:
        headers["ETag"] = f'"{etag}"'
    if filename is not None:
        headers["Content-Disposition"] += f"; filename*=UTF-8''{_encode(filename)}"
    return headers


def parse_range(value: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte of a range and the byte after its last (RFC 9110, 14.1.2).

    Args:
        value: The header `Range`. A malformed one, and several ranges, are ignored.
        size: Bytes of the content.

    Returns:
        None for all bytes; a range that begins at `size` if none of it is in the content.
    """
    match = None if value is None else _RANGE.fullmatch(value.replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        length = min(int(last), size)
        return size - length, size
    if last and int(last) < int(first):
        return None
    return min(int(first), size), min(int(last) + 1, size) if last else size


def select_part(
    headers: dict[str, str], size: int, range: str | None, if_range: str | None
) -> tuple[int, int, int]:
    """Return the status of a response, the first byte of its content, and the byte after its last.

    Args:
        headers: Of the whole content, with its `ETag`; those of its length and range are added.
        size: Bytes of the whole content.
        range: The header `Range` of the request.
        if_range: The header `If-Range` of the request.

    Raises:
        Problem: 416, the range begins after the end.
    """
    part = parse_range(range, size) if if_range in (None, headers["ETag"]) else None
    first, end = part or (0, size)
    if part is not None and first >= end:
        raise Problem(
            416,
            "range-not-satisfiable",
            "the range begins after the end of the content",
            headers={"Content-Range": f"bytes */{size}"},
        )
    if part is not None:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - first)
    return (200 if part is None else 206), first, end


async def read_file(file: BinaryIO, first: int, end: int) -> AsyncIterator[bytes]:
    """Yield the bytes of a file from `first` to before `end`; the caller closes the file.

    Raises:
        DataFetchError: The file has become shorter meanwhile.
    """
    while first < end:
        chunk = await _read_part(file.fileno(), min(_CHUNK, end - first), first)
        if not chunk:
            raise DataFetchError("the file became shorter while it was sent")
        first += len(chunk)
        yield chunk


async def _read_part(descriptor: int, size: int, first: int) -> bytes:
    """Return bytes of a file; a thread reads them unless they are in memory, as of a new file."""
    buffer = bytearray(size)
    try:
        read = os.preadv(descriptor, [buffer], first, os.RWF_NOWAIT)
    except (OSError, AttributeError):  # not in memory; or the system cannot tell
        return await run_in_thread(os.pread, descriptor, size, first)
    return bytes(memoryview(buffer)[:read])


def _encode(filename: str) -> str:
    from urllib.parse import quote

    return quote(filename.encode("utf-8", "replace"), safe="")
