"""Streams of the bytes of one item."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable

from datasources.errors import OptionError
from datasources.models import FetchReceipt, is_whole


class ItemStream:
    """The bytes of one item, or of a range of it, in pieces as they arrive.

    A connector returns one from `open_stream`; a host gets one from `DataSourceRegistry.open_stream`.
    It is iterated once, by one task at a time.

    Args:
        chunks: Yields the bytes, no empty pieces; an asynchronous generator is closed by `aclose`.
        size: How many bytes there will be; None where unknown.
        etag: The version of the content, as a receipt of a fetch has it.
        media_type: Such as `text/csv`.
        close: Releases what the chunks are read from; called once, also if none was read. What it
            returns is awaited if it can be.
    """

    size: int | None
    """Bytes that the stream brings, which are those of the range; None where unknown."""
    etag: str | None
    """The version of the content; None where the source has none."""
    media_type: str | None
    """The media type of the content; None where unknown."""
    receipt: FetchReceipt | None
    """The receipt of what has arrived, after the end of a stream of a registry; its `path` is empty.
    None before, and if the stream ended in an error or was left early."""

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        size: int | None = None,
        etag: str | None = None,
        media_type: str | None = None,
        close: Callable[[], object] | None = None,
    ) -> None:
        self.size = size
        self.etag = etag
        self.media_type = media_type
        self.receipt = None
        self._chunks = chunks
        self._close = close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Release what the stream is read from; it brings no bytes any more."""
        close, self._close = self._close, None
        try:
            if aclose := getattr(self._chunks, "aclose", None):
                await aclose()
        finally:
            closing = close() if close else None
            if inspect.isawaitable(closing):
                await closing


def byte_range(size: int, start: int | None, end: int | None) -> tuple[int, int]:
    """Return the first byte of a range, and the one after its last, within a content of `size`.

    Args:
        size: Bytes of the content.
        start: The first byte, from 0; None is the beginning.
        end: The byte after the last one; None, or more than there are, is the end.

    Raises:
        OptionError: The range begins after the end of the content, or ends before it begins.
    """
    first = 0 if start is None else start
    stop = size if end is None else end
    if not (is_whole(first, 0) and is_whole(stop, first)):
        raise OptionError("'start' of a range must be at least 0, and 'end' not before 'start'")
    if first > size:
        raise OptionError(f"the range begins at byte {first} of a content of {size} bytes")
    return first, min(stop, size)
