"""One fetch: a lease, the connector's own work, and the receipt of what it left."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

from datasources.connector import DataSourceConnector
from datasources.errors import LimitExceededError
from datasources.models import FetchReceipt, Limits, Preview
from datasources.tabular import preview_text
from datasources.workspace import Workspace

_PREVIEW_BYTES = 1_000_000  # of a file fetched for a preview that its connector cannot make


async def fetch(
    lease: AbstractAsyncContextManager[DataSourceConnector],
    source_id: str,
    identifier: str,
    target: Workspace,
) -> FetchReceipt:
    """Bring one item into `target` within its limits, waiting for the lease included.

    Raises:
        LimitExceededError: The time limit ended it.
    """
    started = time.monotonic()
    seconds = target.limits.timeout
    path: str | None = None
    try:
        async with asyncio.timeout(seconds) as timer:
            async with lease as connector:
                path = await connector.fetch_data(identifier, target)
    except TimeoutError as exc:
        if not timer.expired():
            raise
        # A file that is in place was done in time: only the tidying up after it was cut off.
        path = path or next(iter(target.written), None)
        if path is None:
            raise LimitExceededError(
                f"fetching {identifier!r} from source {source_id!r} was not done within the limit "
                f"of {seconds:g} seconds"
            ) from exc
    file = await asyncio.to_thread(target.adopt, path)
    return FetchReceipt(
        source_id=source_id,
        identifier=identifier,
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        rows=file.rows,
        truncated=file.truncated,
        version=file.version,
        fetched_at=datetime.now(UTC),
        duration=time.monotonic() - started,
    )


async def preview_by_fetching(
    connector: DataSourceConnector, identifier: str, rows: int, limits: Limits
) -> Preview:
    """Return the first rows of an item of a connector that has no preview of its own."""
    with tempfile.TemporaryDirectory() as folder:
        target = Workspace(folder, limits=limits)
        path = await connector.fetch_data(identifier, target)
        head = await asyncio.to_thread(_head, target.adopt(path).path)
        return preview_text(path, head[:_PREVIEW_BYTES], rows, complete=len(head) <= _PREVIEW_BYTES)


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_PREVIEW_BYTES + 1)
