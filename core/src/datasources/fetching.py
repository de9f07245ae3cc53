"""One fetch: a lease, the connector's own work, and the receipt of what it left."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

from datasources.connector import DataSourceConnector
from datasources.errors import LimitExceededError
from datasources.models import FetchReceipt, FetchRequest, Limits, Preview
from datasources.preview import preview_file
from datasources.receipts import Receipts
from datasources.threads import run_in_thread
from datasources.workspace import Workspace


async def fetch(
    lease: AbstractAsyncContextManager[DataSourceConnector],
    request: FetchRequest,
    target: Workspace,
    receipts: Receipts | None = None,
) -> FetchReceipt:
    """Bring one item into `target` within its limits, waiting for the lease included.

    Args:
        lease: Of the request's source.
        request: With a version, a file of it that the workspace has already is left as it is.
        target: Where to.
        receipts: Those of the workspace, where several fetches share them.

    Raises:
        LimitExceededError: The time limit ended it.
    """
    receipts = receipts or Receipts(target)
    if request.version is not None:
        known = await asyncio.to_thread(receipts.unchanged, request, target.limits.max_bytes)
        if known is not None:
            target.claim(known.path, request.identifier)
            return known
    started = time.monotonic()
    path = await _bring(lease, request, target)

    def account() -> FetchReceipt:
        file = target.adopt(path)
        receipt = FetchReceipt(
            source_id=request.source_id,
            identifier=request.identifier,
            path=file.path,
            size=file.size,
            sha256=file.sha256,
            rows=file.rows,
            truncated=file.truncated,
            version=file.version,
            fetched_at=datetime.now(UTC),
            duration=time.monotonic() - started,
        )
        if request.version is not None:
            receipts.keep(request, receipt)
        return receipt

    return await run_in_thread(account)


async def _bring(
    lease: AbstractAsyncContextManager[DataSourceConnector],
    request: FetchRequest,
    target: Workspace,
) -> str:
    seconds = target.limits.timeout
    path: str | None = None
    try:
        async with asyncio.timeout(seconds) as timer:
            async with lease as connector:
                path = await connector.fetch_data(request.identifier, target)
    except TimeoutError as exc:
        if not timer.expired():
            raise
        # A file that is in place was done in time: only the tidying up after it was cut off.
        path = path or next(iter(target.written), None)
        if path is None:
            raise LimitExceededError(
                f"fetching {request.identifier!r} from source {request.source_id!r} was not done "
                f"within the limit of {seconds:g} seconds"
            ) from exc
    return path


async def preview_by_fetching(
    connector: DataSourceConnector, identifier: str, rows: int, limits: Limits
) -> Preview:
    """Return the first rows of an item of a connector that has no preview of its own."""
    with tempfile.TemporaryDirectory() as folder:
        target = Workspace(folder, limits=limits)
        path = await connector.fetch_data(identifier, target)
        return await asyncio.to_thread(_preview_file, target.adopt(path).path, rows)


def _preview_file(path: str, rows: int) -> Preview:
    with open(path, "rb") as file:
        return preview_file(file, path, rows)
