"""Items as resources."""

from __future__ import annotations

from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from datasources import Access, Limits, SourceURI, guess_media_type
from datasources_agents.tools import describe_failure

TEMPLATE = "datasource://{source}/{+item}{?format}"
"""The URIs of items; `SourceURI` parses and writes them."""

_MAX_BYTES = 1 << 20  # of a resource, which a client may hand to a model as a whole
_TIMEOUT = 60.0  # seconds
_ANY_BYTES = "application/octet-stream"
_NOT_FOUND = {"source-not-found", "item-not-found", "option-invalid"}


async def read_item(access: Access, uri: str) -> ReadResourceContents:
    """Return the content of the item that a URI names, text if it is.

    Raises:
        ResourceError: The item cannot be read, or has more than 1 MiB; the message is one sentence.
    """
    try:
        return await _read(access, SourceURI.parse(uri))
    except Exception as exc:
        failure = describe_failure(exc)
        kind = ResourceNotFoundError if failure["slug"] in _NOT_FOUND else ResourceError
        message = failure["message"]
        if failure["slug"] == "limit-exceeded":
            message += "; fetch_item writes larger items to files"
        raise kind(message) from exc


async def _read(access: Access, uri: SourceURI) -> ReadResourceContents:
    limits = Limits(max_bytes=_MAX_BYTES, max_rows=None, timeout=_TIMEOUT)
    async with access.open_stream(uri.source, uri.item, format=uri.format, limits=limits) as stream:
        content = b"".join([chunk async for chunk in stream])
    receipt = stream.receipt
    meta = None
    if receipt is not None and receipt.truncated:
        meta = {"truncated": True, "rows": receipt.rows}
    media_type = stream.media_type
    if media_type in (None, _ANY_BYTES):  # as a blob has it whose type nobody has given
        media_type = guess_media_type(uri.item)
    try:
        return ReadResourceContents(content.decode(), media_type or "text/plain", meta)
    except UnicodeDecodeError:
        return ReadResourceContents(content, media_type or _ANY_BYTES, meta)
