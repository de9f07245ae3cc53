"""Fetch items into workspaces, for the registry and for its workspace sessions."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Any

from datasources.connector import DataSourceConnector
from datasources.errors import (
    ConnectorError,
    DataFetchError,
    LimitExceededError,
    OptionError,
    PoolClosedError,
)
from datasources.gathering import gather
from datasources.models import (
    DataItem,
    FetchReceipt,
    FetchRequest,
    FetchResult,
    Limits,
    Preview,
)
from datasources.plugins import Plugins
from datasources.policy import Policy
from datasources.registry.concurrency import run_concurrently
from datasources.registry.datasets import fetch_dataset
from datasources.registry.listing import ItemLister
from datasources.registry.observing import observe
from datasources.registry.pools import SourcePools
from datasources.registry.progress import LoopProgress
from datasources.registry.queries import bound_query
from datasources.registry.records import SourceRecords
from datasources.registry.splitting import SplitPlanner
from datasources.threads import run_in_thread
from datasources.workspace import Progress, Receipts, RequestOrder, TextTable, Workspace

LimitsOf = Callable[[str], Limits]
"""Returns the limits of fetches from a source."""


class Fetcher:
    """Fetches items; every item is one operation that observers see."""

    def __init__(
        self,
        records: SourceRecords,
        pools: SourcePools,
        policy: Policy,
        lister: ItemLister,
        planner: SplitPlanner,
        plugins: Plugins,
    ) -> None:
        self._records = records
        self._pools = pools
        self._policy = policy
        self._plugins = plugins
        self._lister = lister
        self._planner = planner

    def limits(self, source_id: str) -> Limits:
        """Return the limits of a source's fetches: its own, or those of the policy."""
        record = self._records.get(source_id)
        return Limits(**record.limits) if record.limits else self._policy.limits

    async def fetch(
        self,
        source_id: str,
        identifier: str,
        workspace: str | os.PathLike[str],
        *,
        format: str | None,
        limits: Limits | None,
        progress: Progress | None = None,
        parameters: Mapping[str, Any] | None = None,
        splits: int | None = None,
    ) -> FetchReceipt:
        """Fetch one item; see `DataSourceRegistry.fetch`."""
        await _authorize(workspace, source_id, identifier)
        target = Workspace(
            workspace,
            limits=limits or self.limits(source_id),
            file_format=format,
            progress=progress and LoopProgress(progress),
        )
        request = FetchRequest(
            source_id, identifier, format, parameters=parameters or {}, splits=splits
        )
        return await self._fetch(request, target)

    async def fetch_many(
        self,
        requests: Sequence[FetchRequest | tuple[str, str]],
        workspace: str | os.PathLike[str],
        *,
        concurrency: int,
        limits: Limits | LimitsOf | None,
        progress: Mapping[int, Progress] | None = None,
        gate: AbstractAsyncContextManager[Any] | None = None,
    ) -> list[FetchResult]:
        """Fetch many items at a time; see `DataSourceRegistry.fetch_many`.

        Args:
            requests: The items.
            workspace: The directory.
            concurrency: How many at once.
            limits: Of each fetch, or a function that returns those of a source.
            progress: By the request's index.
            gate: Entered for each fetch, such as a semaphore that other calls share.
        """
        _check_concurrency(concurrency)
        all_requests = [
            request if isinstance(request, FetchRequest) else FetchRequest(*request)
            for request in requests
        ]
        labels = [f"{r.identifier!r} of source {r.source_id!r}" for r in all_requests]
        # The same query with other parameters has another result.
        labels = [
            f"{label}, request {index}" if request.parameters else label
            for index, (label, request) in enumerate(zip(labels, all_requests, strict=True), 1)
        ]
        owners: dict[str, str] = {}
        order = RequestOrder(labels)
        root = Workspace(workspace)
        receipts = Receipts(root) if any(r.version is not None for r in all_requests) else None
        if receipts:
            await run_in_thread(receipts.load)
        targets: dict[int, Workspace] = {}
        outcomes: dict[int, FetchResult] = {}

        def make_target(index: int, request: FetchRequest) -> Workspace:
            reported = (progress or {}).get(index)
            targets[index] = target = Workspace(
                root,
                limits=(
                    limits(request.source_id)
                    if callable(limits)
                    else limits or self.limits(request.source_id)
                ),
                file_format=request.format,
                progress=reported and LoopProgress(reported),
                owner=labels[index],
                owners=owners,
                order=order,
            )
            return target

        remaining = iter(enumerate(all_requests))

        async def fetch_remaining() -> None:
            for index, request in remaining:
                async with gate or nullcontext():
                    outcomes[index] = await self._try_fetch(
                        request, workspace, partial(make_target, index), receipts
                    )
                await asyncio.sleep(0)  # a connector that never waits must not hold up the loop

        # As many tasks as fetches at a time, not one for each item, of which there may be millions.
        try:
            await gather(fetch_remaining() for _ in all_requests[:concurrency])
        finally:
            if receipts:
                receipts.close()
        results = [outcomes[index] for index in range(len(all_requests))]
        for index, result in enumerate(results):
            if result.receipt is None:
                continue
            try:  # an earlier item may have taken the path after this one was done
                targets[index].claim(result.receipt.path, result.request.identifier)
            except DataFetchError as exc:
                results[index] = FetchResult(result.request, error=exc)
        return results

    async def fetch_tree(
        self,
        source_id: str,
        path: str | None,
        workspace: str | os.PathLike[str],
        *,
        concurrency: int,
        limits: Limits | None,
        refresh: bool = False,
    ) -> list[FetchResult]:
        """Fetch the items of a folder, pattern or name; see `DataSourceRegistry.fetch_tree`."""
        items = await self._lister.expand(source_id, path)
        requests = [
            FetchRequest(source_id, item.path, version=None if refresh else item.version)
            for item in items
        ]
        return await self.fetch_many(requests, workspace, concurrency=concurrency, limits=limits)

    async def iter_fetch_tree(
        self,
        source_id: str,
        path: str | None,
        workspace: str | os.PathLike[str],
        *,
        concurrency: int,
        limits: Limits | None,
        refresh: bool = False,
    ) -> AsyncIterator[FetchResult]:
        """Yield the results of `fetch_tree`; see `DataSourceRegistry.iter_fetch_tree`."""
        results = self.iter_fetch(
            source_id,
            self._lister.iter_expand(source_id, path),
            workspace,
            concurrency=concurrency,
            limits=limits or self.limits(source_id),
            refresh=refresh,
        )
        async with aclosing(results):
            async for result in results:
                yield result

    async def iter_fetch(
        self,
        source_id: str,
        items: AsyncGenerator[DataItem],
        workspace: str | os.PathLike[str],
        *,
        concurrency: int,
        limits: Limits,
        refresh: bool,
        gate: AbstractAsyncContextManager[Any] | None = None,
    ) -> AsyncGenerator[FetchResult]:
        """Fetch items of a source as they are listed, and yield the results as they come.

        Args:
            source_id: The source.
            items: The items; closed at the end.
            workspace: The directory.
            concurrency: How many at once, also while no result is asked for.
            limits: Of each fetch.
            refresh: Fetch what is unchanged, too.
            gate: As for `fetch_many`.
        """
        _check_concurrency(concurrency)
        root, owners, order = Workspace(workspace), TextTable(), RequestOrder()
        receipts = None if refresh else Receipts(root)

        def make_target(request: FetchRequest) -> Workspace:
            owner = f"{request.identifier!r} of source {source_id!r}"
            return Workspace(root, limits=limits, owner=owner, owners=owners, order=order)

        async def fetch_one(item: DataItem) -> FetchResult:
            request = FetchRequest(source_id, item.path, version=None if refresh else item.version)
            async with gate or nullcontext():
                return await self._try_fetch(request, workspace, make_target, receipts)

        try:
            if receipts:
                await run_in_thread(receipts.load)
            results = run_concurrently(items, fetch_one, concurrency)
            async with aclosing(items), aclosing(results):
                async for result in results:
                    yield result
        finally:
            owners.close()
            if receipts:
                receipts.close()

    async def _try_fetch(
        self,
        request: FetchRequest,
        workspace: str | os.PathLike[str],
        make_target: Callable[[FetchRequest], Workspace],
        receipts: Receipts | None,
    ) -> FetchResult:
        """Fetch one item of many; an error is returned in the result.

        Args:
            request: The item.
            workspace: The directory, which may refuse the item.
            make_target: Called for an item that is not refused.
            receipts: As for `_fetch`.
        """
        try:
            await _authorize(workspace, request.source_id, request.identifier)
            return FetchResult(request, await self._fetch(request, make_target(request), receipts))
        except Exception as exc:  # noqa: BLE001  (the caller gets it in the result)
            return FetchResult(request, error=exc)

    async def _fetch(
        self, request: FetchRequest, target: Workspace, receipts: Receipts | None = None
    ) -> FetchReceipt:
        """Fetch one item within the limits of `target`.

        Files are read and hashed in a worker thread; a file that the connector wrote through the
        workspace needs neither.

        Args:
            request: The item. Only a request with a version, as `fetch_tree` makes it, uses
                `receipts`: those of earlier fetches may show the item unchanged, and its own is
                saved.
            target: Where the file is written.
            receipts: Those of the workspace, loaded; None if no request has a version.
        """
        source_id, identifier = request.source_id, request.identifier
        with observe(self._plugins, "fetch", source_id, identifier=identifier) as outcome:
            if request.splits is not None:
                return outcome.record(await self._fetch_splits(request, target))
            if request.parameters:  # receipts know the item, not the values of its parameters
                receipts = None
            if receipts and receipts.has(request):
                self._records.check_not_paused(source_id)  # as a lease does, which this has none of
                max_bytes = target.limits.max_bytes
                unchanged = await asyncio.to_thread(receipts.unchanged, request, max_bytes)
                if unchanged is not None:
                    target.claim(unchanged.path, identifier)
                    return outcome.record(unchanged)
            started = time.monotonic()
            path = await self._fetch_data(request, target)

            def account() -> FetchReceipt:
                file = target.adopt(path)
                receipt = FetchReceipt(
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
                if receipts and request.version is not None:
                    receipts.save(request, receipt)
                return receipt

            written = isinstance(path, str) and path in target.written
            if written and (receipts is None or request.version is None or receipts.is_writing):
                return outcome.record(account())
            return outcome.record(await run_in_thread(account))

    async def _fetch_splits(self, request: FetchRequest, target: Workspace) -> FetchReceipt:
        """Fetch the splits of an item within the time limit of `target`."""
        seconds = target.limits.timeout
        try:
            async with asyncio.timeout(seconds) as timer:
                return await fetch_dataset(self._planner, request, target)
        except TimeoutError as exc:
            if seconds is None or not timer.expired():
                raise
            raise _not_in_time(request, seconds) from exc

    async def _fetch_data(self, request: FetchRequest, target: Workspace) -> object:
        """Have the connector fetch the item; return what it returns, the path of the file.

        The time limit includes the wait for a connection, and ends when the lease is released. A
        file that the connector wrote by itself is hashed after that.
        """
        seconds = target.limits.timeout
        report = target.progress if isinstance(target.progress, LoopProgress) else None
        path: object = None
        try:
            async with asyncio.timeout(seconds) as timer:
                async with self._pools.operation(request.source_id) as connector:
                    bound = bound_query(
                        self._records, connector, request.identifier, request.parameters
                    )
                    if bound is None:
                        path = await connector.fetch_data(request.identifier, target)
                    else:
                        able, query = bound
                        path = await able.fetch_query(query, target)
                    if report:
                        report.raise_error()
        except ConnectorError:
            if report:
                report.raise_error()  # the host's own, whatever the connector has made of it
            raise
        except (TimeoutError, PoolClosedError) as exc:
            if isinstance(exc, TimeoutError) and not timer.expired():
                raise
            # A file that is in place was done in time: only what followed it was cut off.
            path = path or next(iter(target.written), None)
            if path is None and isinstance(exc, PoolClosedError):
                raise
            if path is None:
                raise _not_in_time(request, seconds) from exc
        return path


def _not_in_time(request: FetchRequest, seconds: float | None) -> LimitExceededError:
    return LimitExceededError(
        f"fetching {request.identifier!r} from source {request.source_id!r} was not done within the "
        f"limit of {seconds:g} seconds"
    )


def _check_concurrency(concurrency: int) -> None:
    if concurrency < 1:
        raise OptionError(f"'concurrency' must be at least 1, not {concurrency}")


async def _authorize(workspace: str | os.PathLike[str], source_id: str, identifier: str) -> None:
    """Raise if a workspace of a principal may not have the item."""
    if isinstance(workspace, Workspace) and workspace.authorize is not None:
        await workspace.authorize(source_id, identifier)


async def preview_by_fetching(
    connector: DataSourceConnector, identifier: str, rows: int, limits: Limits
) -> Preview:
    """Return the first rows of an item of a connector that has no preview of its own."""
    with tempfile.TemporaryDirectory() as folder:
        target = Workspace(folder, limits=limits)
        path = await connector.fetch_data(identifier, target)
        file = (await run_in_thread(target.adopt, path)).path
        try:
            return await run_in_thread(_preview_file, file, target, rows)
        except DataFetchError as exc:  # names the file, which may have another name than the item
            source_id = connector.config.id
            raise DataFetchError(f"item {identifier!r} of source {source_id!r}: {exc}") from exc


def _preview_file(path: str, folder: str, rows: int) -> Preview:
    from datasources.preview import preview_file  # with its readers of workbooks and archives

    with open(path, "rb") as file:
        return preview_file(file, os.path.relpath(path, folder), rows)
