"""Open streams of items: the connector's own, or those of a file that was fetched for it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from datasources.connector import SupportsStream
from datasources.connector_errors import ConnectorErrors
from datasources.errors import DataFetchError, LimitExceededError, UnsupportedError
from datasources.media_types import guess_media_type
from datasources.models import FetchReceipt, Limits
from datasources.plugins import Plugins
from datasources.registry.fetching import Fetcher
from datasources.registry.observing import observe
from datasources.registry.pools import SourcePools
from datasources.registry.queries import check_no_parameters, is_query_path
from datasources.streams import ItemStream, byte_range
from datasources.threads import run_in_thread

_CHUNK = 1 << 20  # bytes read of a file at once
_LARGE = 128 * 1024  # bytes of a piece that is hashed in a thread


@dataclass(frozen=True)
class StreamRequest:
    """A request for a stream."""

    source_id: str
    identifier: str
    format: str | None
    limits: Limits
    start: int | None
    end: int | None
    parameters: Mapping[str, Any] = field(default_factory=dict)


class StreamOpener:
    """Opens streams; every one is an operation that observers see, from its opening to its end."""

    def __init__(self, pools: SourcePools, fetcher: Fetcher, plugins: Plugins) -> None:
        self._pools = pools
        self._fetcher = fetcher
        self._plugins = plugins

    @asynccontextmanager
    async def open(self, request: StreamRequest) -> AsyncIterator[ItemStream]:
        """Open a stream for a block; see `DataSourceRegistry.open_stream`."""
        byte_range(sys.maxsize, request.start, request.end)  # a bad range contacts no source
        with observe(
            self._plugins, "open_stream", request.source_id, identifier=request.identifier
        ) as outcome:
            async with AsyncExitStack() as stack:
                stream = await self._open_native(stack, request)
                if stream is None:
                    await stack.aclose()  # the fetch takes a lease of its own
                    stream = await self._open_fetched(stack, request)
                yield stream
                if stream.receipt is not None:
                    outcome.record(stream.receipt)

    async def _open_native(
        self, stack: AsyncExitStack, request: StreamRequest
    ) -> ItemStream | None:
        """Open the connector's own stream; None if it has none of this format."""
        deadline = _Deadline(request)
        lease = self._pools.lease(request.source_id)
        async with deadline.within():
            connector = await stack.enter_async_context(lease)
            if is_query_path(connector, request.identifier):
                return None
            check_no_parameters(request.source_id, request.parameters)
            if not isinstance(connector, SupportsStream):
                return None
            try:
                async with lease.cancelled_by_close():
                    with ConnectorErrors(connector):
                        stream = await connector.open_stream(
                            request.identifier,
                            format=request.format,
                            limits=request.limits,
                            start=request.start,
                            end=request.end,
                        )
            except UnsupportedError:
                return None

        async def close() -> None:
            with ConnectorErrors(connector):
                await stream.aclose()

        stack.push_async_callback(close)
        errors = partial(ConnectorErrors, connector)
        return _checked(stream, request, deadline, lease.cancelled_by_close, errors, close)

    async def _open_fetched(self, stack: AsyncExitStack, request: StreamRequest) -> ItemStream:
        """Fetch the item into a temporary workspace, and open a stream of the file."""
        # Filled in the threads: a caller who is cancelled meanwhile gets no result to close.
        opened = ExitStack()
        stack.push_async_callback(run_in_thread, opened.close)
        folder = await run_in_thread(
            lambda: opened.enter_context(
                TemporaryDirectory(prefix="datasources-stream-", ignore_cleanup_errors=True)
            )
        )
        deadline = _Deadline(request)
        receipt = await self._fetcher.fetch(
            request.source_id,
            request.identifier,
            folder,
            format=request.format,
            limits=request.limits,
            parameters=request.parameters,
        )
        start, stop = byte_range(receipt.size, request.start, request.end)
        file = await run_in_thread(
            lambda: opened.enter_context(open(receipt.path, "rb"))  # noqa: SIM115  (this closes it)
        )
        stream = ItemStream(
            _read(file, start, stop),
            size=stop - start,
            etag=receipt.version,
            media_type=guess_media_type(os.path.basename(receipt.path)),
        )
        return _checked(
            stream,
            request,
            deadline,
            nullcontext,
            nullcontext,
            stream.aclose,
            rows=receipt.rows,
            truncated=receipt.truncated,
        )


class _Deadline:
    """The time limit of a stream, which holds from its opening to its last byte."""

    def __init__(self, request: StreamRequest) -> None:
        self._request = request
        seconds = request.limits.timeout
        self._at = None if seconds is None else asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def within(self) -> AsyncIterator[None]:
        """End a block at the deadline; raise LimitExceededError, also if it has passed before."""
        # A block that never waits is not ended by `timeout_at`.
        if self._at is not None and asyncio.get_running_loop().time() >= self._at:
            raise self._error()
        try:
            async with asyncio.timeout_at(self._at) as scope:
                yield
        except TimeoutError as exc:
            if not scope.expired():
                raise
            raise self._error() from exc

    def _error(self) -> LimitExceededError:
        return LimitExceededError(
            f"the stream of {self._request.identifier!r} of source {self._request.source_id!r} did "
            f"not end within the limit of {self._request.limits.timeout:g} seconds"
        )


def _checked(
    stream: ItemStream,
    request: StreamRequest,
    deadline: _Deadline,
    guarded: Callable[[], AbstractAsyncContextManager[Any]],
    errors: Callable[[], AbstractContextManager[Any]],
    close: Callable[[], Awaitable[None]],
    *,
    rows: int | None = None,
    truncated: bool = False,
) -> ItemStream:
    """Return a stream that keeps to the limits, ends whole or in an error, and has a receipt.

    Args:
        stream: The bytes.
        request: The request.
        deadline: When the stream has to have ended.
        guarded: Entered for each piece, to end it when the source is closed.
        errors: Entered for each piece, to raise errors of the connector as hosts expect them.
        close: Closes `stream`.
        rows: For the receipt.
        truncated: For the receipt.
    """
    started, max_bytes = time.monotonic(), request.limits.max_bytes
    subject = f"{request.identifier!r} of source {request.source_id!r}"

    def check_size(size: int | None) -> None:
        if size is not None and max_bytes is not None and size > max_bytes:
            raise LimitExceededError(
                f"{subject} has {size} bytes or more, over the limit of {max_bytes} bytes a stream"
            )

    check_size(stream.size)

    async def chunks() -> AsyncIterator[bytes]:
        size, digest, loop = 0, hashlib.sha256(), asyncio.get_running_loop()
        while True:
            with errors():
                async with deadline.within(), guarded():
                    chunk = await anext(stream, None)
            if chunk is None:
                break
            size += len(chunk)
            check_size(size)
            # In a thread, while the caller has the piece, unless the switch takes longer.
            hashing = (
                loop.run_in_executor(None, digest.update, chunk) if len(chunk) >= _LARGE else None
            )
            if hashing is None:
                digest.update(chunk)
            yield chunk
            if hashing is not None:
                await hashing
        if stream.size is not None and size != stream.size:
            raise DataFetchError(f"{subject} ended after {size} of {stream.size} bytes")
        checked.receipt = FetchReceipt(
            source_id=request.source_id,
            identifier=request.identifier,
            path="",
            size=size,
            sha256=digest.hexdigest(),
            rows=rows,
            truncated=truncated,
            version=stream.etag,
            fetched_at=datetime.now(UTC),
            duration=time.monotonic() - started,
        )

    checked = ItemStream(
        chunks(),
        size=stream.size,
        etag=stream.etag,
        media_type=stream.media_type,
        close=close,
    )
    return checked


async def _read(file: BinaryIO, start: int, stop: int) -> AsyncIterator[bytes]:
    await run_in_thread(file.seek, start)
    while start < stop and (chunk := await run_in_thread(file.read, min(_CHUNK, stop - start))):
        start += len(chunk)
        yield chunk
