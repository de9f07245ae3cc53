"""The operations on sources, narrowed to the grants and limits of one principal.

Each operation checks the grants before anything else: a source without a grant is refused without
a call to the store or to a connector, by the error of a source that does not exist.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, cast
from weakref import WeakValueDictionary

from datasources.connector import DataSourceConnector, abilities
from datasources.errors import (
    DataSourceError,
    ItemNotFoundError,
    OptionError,
)
from datasources.locks import ForkSafeLock
from datasources.models import (
    ColumnStatistics,
    DataItem,
    DataSourceConfig,
    DataSourceType,
    FetchReceipt,
    FetchRequest,
    FetchResult,
    Limits,
    Page,
    Preview,
)
from datasources.plugins import Plugins
from datasources.principals import Grant, Principal
from datasources.registry.authorization import (
    Authorization,
    has_all_items,
    is_visible,
    visible,
)
from datasources.registry.factory import ConnectorFactory
from datasources.registry.fetching import Fetcher
from datasources.registry.filtering import SourceFilter
from datasources.registry.gates import Gates
from datasources.registry.listing import ItemLister
from datasources.registry.paging import ItemPager
from datasources.registry.reading import ItemReader
from datasources.registry.records import SourceRecords
from datasources.registry.splitting import SplitPlanner, SplitRequest
from datasources.registry.streaming import StreamOpener, StreamRequest
from datasources.splits import Split, SplitPlan, SplitReader
from datasources.streams import ItemStream
from datasources.workspace import Progress, Quota, Workspace

_FEW = 100  # records that a store gives sooner than a thread starts


@dataclass
class Operations:
    """The parts of one registry that carry out operations, and what all objects of a principal share.

    That is a gate for each principal, and a quota for each directory.
    """

    records: SourceRecords
    factory: ConnectorFactory
    lister: ItemLister
    pager: ItemPager
    reader: ItemReader
    fetcher: Fetcher
    streams: StreamOpener
    planner: SplitPlanner
    plugins: Plugins
    registry: Any
    """The `DataSourceRegistry` itself, for hosts; this module is below its own."""
    gates: Gates = field(default_factory=Gates)
    _quotas: WeakValueDictionary[tuple[str, int], Quota] = field(
        default_factory=WeakValueDictionary
    )
    _lock: ForkSafeLock = field(default_factory=ForkSafeLock)

    def quota(self, path: str, max_bytes: int) -> Quota:
        """Return the quota of a directory; fetches into it at the same time share one."""
        with self._lock:  # threads that ask at once get one quota
            quota = self._quotas.get((path, max_bytes))
            if quota is None:
                quota = self._quotas[path, max_bytes] = Quota(path, max_bytes)
                return quota
        quota.recount()
        return quota


class GrantedOperations:
    """The operations that a principal may do.

    Args:
        operations: The parts of the registry.
        principal: The caller.
        limits: Of each fetch, in addition to the source's or the policy's: the smaller one counts.
        replaces: True to take `limits` instead of the source's or the policy's, not besides them.
        quota: Bytes that the files of each workspace may have together; None is no bound.
        concurrency: Fetches and streams of the principal at once; None is no bound.
        refusal: Makes the error for a source without a grant.
    """

    def __init__(
        self,
        operations: Operations,
        principal: Principal,
        *,
        limits: Limits | None = None,
        replaces: bool = False,
        quota: int | None = None,
        concurrency: int | None = None,
        refusal: Callable[[str], DataSourceError] | None = None,
    ) -> None:
        if concurrency is not None and concurrency < 1:
            raise OptionError(f"'concurrency' must be at least 1, not {concurrency}")
        if quota is not None and quota < 0:
            raise OptionError("'quota' must not be negative; None is no bound")
        self.principal = principal
        self._operations = operations
        self._limits = limits
        self._replaces = replaces
        self._quota = quota
        self._concurrency = concurrency
        self._authorization = Authorization(
            principal, operations.factory, operations.plugins, refusal
        )

    @property
    def registry(self) -> Any:
        """The `DataSourceRegistry` that the operations are those of."""
        return self._operations.registry

    def with_quota(self, quota: int | None) -> Self:
        """Return the same operations with a quota for each directory; the smaller one counts."""
        narrowed = copy.copy(self)
        bounds = [bound for bound in (quota, self._quota) if bound is not None]
        narrowed._quota = min(bounds, default=None)
        return narrowed

    async def list_sources(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        type: DataSourceType | str | None = None,
        q: str = "",
    ) -> list[DataSourceConfig]:
        """Return the sources that the principal has a grant for, by id, with secrets masked.

        The arguments are those of `DataSourceRegistry.list_data_sources`.
        """
        chosen = SourceFilter(after, limit, None if type is None else str(type), q)
        records, principal = self._operations.records, self.principal
        granted = None if principal.is_admin else {grant.source for grant in principal.grants}

        def load() -> list[DataSourceConfig]:
            return [records.masked_config(record) for record in records.list(chosen, granted)]

        looks_through_all = bool(q) or type is not None
        if looks_through_all if granted is None else len(granted) > _FEW:
            return await asyncio.to_thread(load)
        return load()

    async def get_source(self, source_id: str) -> DataSourceConfig:
        """Return the configuration of a source, with secrets masked."""
        self._authorization.require_grant("get_source", source_id)
        records = self._operations.records
        return records.config(records.get(source_id), decrypt=False, sanitize=True)

    async def list_abilities(self, source_id: str) -> frozenset[str]:
        """Return the names of the optional abilities of a source; no connection is made.

        Raises:
            PluginError: No usable plugin offers the type of the source.
        """
        self._authorization.require_grant("list_abilities", source_id)
        return abilities(await self._operations.factory.class_of(source_id))

    def limits(self, source_id: str) -> Limits:
        """Return the limits of the principal's fetches from a source."""
        self._authorization.require_grant("limits", source_id)
        return self._limits_of(source_id, None)

    async def list_items(self, source_id: str, path: str | None = None) -> list[DataItem]:
        """Return the items that the principal may read, as `DataSourceRegistry.list_items` does.

        Where a grant is narrowed to items, a path without any such item gives an empty list.
        """
        grants = self._authorization.require_right("list_items", source_id, "read", path=path)
        with self._authorization.named():
            try:
                items = await self._operations.lister.list_items(source_id, path)
            except ItemNotFoundError:
                if has_all_items(grants):
                    raise
                return []
        return visible(items, grants)

    async def iter_items(self, source_id: str, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield what `list_items` returns, page by page where the connector can."""
        grants = self._authorization.require_right("iter_items", source_id, "read", path=path)
        iterator = self._operations.lister.iter_items(source_id, path)
        is_empty = True
        async with aclosing(iterator) as items:
            while True:
                # The user is named for each step only, as the code that iterates runs in between.
                with self._authorization.named():
                    try:
                        item = await anext(items, None)
                    except ItemNotFoundError:
                        if has_all_items(grants) or not is_empty:
                            raise
                        return
                if item is None:
                    return
                if is_visible(item, grants):
                    is_empty = False
                    yield item

    async def list_page(
        self,
        source_id: str,
        path: str | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Return one page of what `list_items` returns, as `DataSourceRegistry.list_page` does.

        The cursor belongs to the principal. Where a grant is narrowed to items, the others are left
        out of each page, which may then be empty without being the last.
        """
        grants = self._authorization.require_right("list_page", source_id, "read", path=path)
        with self._authorization.named():
            try:
                page = await self._operations.pager.list_page(
                    self.principal.id, source_id, path, limit, cursor
                )
            except ItemNotFoundError:
                if has_all_items(grants):
                    raise
                return Page([], None)
        return Page(visible(page.items, grants), page.cursor)

    async def glob_items(self, source_id: str, pattern: str) -> list[DataItem]:
        """Return the items that match and that the principal may read."""
        grants = self._authorization.require_right("glob_items", source_id, "read", pattern=pattern)
        with self._authorization.named():
            return visible(await self._operations.lister.glob_items(source_id, pattern), grants)

    async def expand(self, source_id: str, path: str | None = None) -> list[DataItem]:
        """Return the items that `fetch_tree` fetches, as `DataSourceRegistry.expand` does."""
        grants = self._authorization.require_right("expand", source_id, "read", path=path)
        queries = any("query" in grant.rights for grant in grants)
        with self._authorization.named():
            try:
                items = await self._operations.lister.expand(source_id, path, queries=queries)
            except ItemNotFoundError:
                if has_all_items(grants):
                    raise
                items = []
        granted = [item for item in items if is_visible(item, grants)]
        if granted or has_all_items(grants):
            return granted
        raise ItemNotFoundError(
            f"source {source_id!r} has nothing at {path!r} that {self.principal.id!r} may read"
        )

    async def get_metadata(
        self, source_id: str, identifier: str, *, refresh: bool = False
    ) -> dict[str, Any]:
        """Describe one item, as `DataSourceRegistry.get_metadata` does."""
        await self._authorization.require_identifier("get_metadata", source_id, identifier)
        with self._authorization.named():
            return await self._operations.reader.get_metadata(
                source_id, identifier, refresh=refresh
            )

    async def preview(
        self,
        source_id: str,
        identifier: str,
        rows: int = 10,
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> Preview:
        """Return the first rows of an item, as `DataSourceRegistry.preview` does."""
        await self._authorization.require_identifier("preview", source_id, identifier)
        with self._authorization.named():
            return await self._operations.reader.preview(
                source_id,
                identifier,
                rows,
                self._limits_of(source_id, None),
                parameters=parameters,
            )

    async def statistics(
        self,
        source_id: str,
        identifier: str,
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, ColumnStatistics]:
        """Return figures of an item's columns, as `DataSourceRegistry.statistics` does."""
        await self._authorization.require_identifier("statistics", source_id, identifier)
        with self._authorization.named():
            return await self._operations.reader.statistics(
                source_id, identifier, parameters=parameters
            )

    async def upload(
        self, source_id: str, local_path: str, name: str | None = None, *, overwrite: bool = True
    ) -> DataItem:
        """Store a local file in a source, as `DataSourceRegistry.upload` does."""
        identifier = name or os.path.basename(local_path)
        await self.authorize_upload(source_id, identifier)
        with self._authorization.named():
            # The name that was checked, as the connector might choose another one by itself.
            return await self._operations.reader.upload(
                source_id, local_path, identifier, overwrite=overwrite
            )

    async def fetch(
        self,
        source_id: str,
        identifier: str,
        workspace: str | os.PathLike[str],
        *,
        format: str | None = None,
        limits: Limits | None = None,
        progress: Progress | None = None,
        parameters: Mapping[str, Any] | None = None,
        splits: int | None = None,
    ) -> FetchReceipt:
        """Fetch one item, as `DataSourceRegistry.fetch` does.

        The limits can only be narrower than those of the source and of the principal.
        """
        await self._authorization.require_identifier("fetch", source_id, identifier)
        async with self._gate():
            directory = await self._directory(workspace, authorized=splits is not None)
            with self._authorization.named():
                return await self._operations.fetcher.fetch(
                    source_id,
                    identifier,
                    directory,
                    format=format,
                    limits=self._limits_of(source_id, limits),
                    progress=progress,
                    parameters=parameters,
                    splits=splits,
                )

    async def fetch_many(
        self,
        requests: Sequence[FetchRequest | tuple[str, str]],
        workspace: str | os.PathLike[str],
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        progress: Mapping[int, Progress] | None = None,
    ) -> list[FetchResult]:
        """Fetch many items, as `DataSourceRegistry.fetch_many` does.

        Raises:
            DataSourceNotFoundError, PolicyError: One of the requests is not granted; nothing was
                fetched.
        """
        every_request = [
            request if isinstance(request, FetchRequest) else FetchRequest(*request)
            for request in requests
        ]
        for request in every_request:
            self._authorization.require_grant(
                "fetch", request.source_id, identifier=request.identifier
            )
        classes: dict[str, type[DataSourceConnector]] = {}
        for request in every_request:
            await self._authorization.require_identifier(
                "fetch", request.source_id, request.identifier, classes=classes
            )
        has_splits = any(request.splits is not None for request in every_request)
        directory = await self._directory(workspace, authorized=has_splits)
        with self._authorization.named():
            return await self._operations.fetcher.fetch_many(
                every_request,
                directory,
                concurrency=concurrency,
                limits=lambda source_id: self._limits_of(source_id, limits),
                progress=progress,
                gate=self._gate(),
            )

    async def fetch_tree(
        self,
        source_id: str,
        path: str | None,
        workspace: str | os.PathLike[str],
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        refresh: bool = False,
    ) -> list[FetchResult]:
        """Fetch what `expand` returns, as `DataSourceRegistry.fetch_tree` does.

        Raises:
            PolicyError: The connector does not tell items from queries, and the principal does not
                have the right `query`.
        """
        items = await self.expand(source_id, path)
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
        concurrency: int = 8,
        limits: Limits | None = None,
        refresh: bool = False,
    ) -> AsyncIterator[FetchResult]:
        """Yield what `fetch_tree` returns, as `DataSourceRegistry.iter_fetch_tree` does.

        An item that the principal may not fetch, as the connector does not tell items from queries,
        is a result with a `PolicyError`.
        """
        grants = self._authorization.require_right("expand", source_id, "read", path=path)
        fetcher = self._operations.fetcher
        directory = Workspace(await self._directory(workspace), authorize=self.authorize_fetch)
        results = fetcher.iter_fetch(
            source_id,
            self._iter_expand(source_id, path, grants),
            directory,
            concurrency=concurrency,
            limits=self._limits_of(source_id, limits),
            refresh=refresh,
            gate=self._gate(),
        )
        async with aclosing(results):
            while True:
                with self._authorization.named():
                    result = await anext(results, None)
                if result is None:
                    return
                yield result

    async def _iter_expand(
        self, source_id: str, path: str | None, grants: Sequence[Grant]
    ) -> AsyncGenerator[DataItem]:
        """Yield the items that `expand` returns."""
        queries = any("query" in grant.rights for grant in grants)
        is_empty = True
        items = self._operations.lister.iter_expand(source_id, path, queries=queries)
        async with aclosing(items):
            try:
                async for item in items:
                    if is_visible(item, grants):
                        is_empty = False
                        yield item
            except ItemNotFoundError:
                if has_all_items(grants) or not is_empty:
                    raise
        if is_empty and not has_all_items(grants):
            raise ItemNotFoundError(
                f"source {source_id!r} has nothing at {path!r} that {self.principal.id!r} may read"
            )

    @asynccontextmanager
    async def open_stream(
        self,
        source_id: str,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,
        start: int | None = None,
        end: int | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[ItemStream]:
        """Return a stream of an item's bytes, as `DataSourceRegistry.open_stream` does.

        The limits can only be narrower than those of the source and of the principal.
        """
        await self._authorization.require_identifier("open_stream", source_id, identifier)
        async with self._gate(), AsyncExitStack() as stack:
            # The user is named for the opening only: a generator must not change its caller's context.
            with self._authorization.named():
                request = StreamRequest(
                    source_id,
                    identifier,
                    format,
                    self._limits_of(source_id, limits),
                    start,
                    end,
                    parameters or {},
                )
                stream = await stack.enter_async_context(self._operations.streams.open(request))
            yield stream

    @asynccontextmanager
    async def plan(
        self,
        source_id: str,
        identifier: str,
        *,
        target_bytes: int = 128 << 20,
        max_splits: int = 64,
        key: str | None = None,
        consistent: bool = True,
        max_age: float = 3600.0,
    ) -> AsyncIterator[SplitPlan]:
        """Divide an item into splits for a block, as `DataSourceRegistry.plan` does."""
        await self._authorization.require_identifier("plan", source_id, identifier)
        request = SplitRequest(
            source_id, identifier, target_bytes, max_splits, key, consistent, max_age
        )
        async with AsyncExitStack() as stack:
            # The user is named for the opening only, as in `open_stream`.
            with self._authorization.named():
                plan = await stack.enter_async_context(self._operations.planner.plan(request))
            await self._require_items("plan", plan.splits)
            yield replace(plan, reader=partial(self._read_split, plan.read))

    def read_split(self, split: Split, columns: Sequence[str] | None = None) -> AsyncIterator[Any]:
        """Yield the rows of a split, as `DataSourceRegistry.read_split` does."""
        return self._read_split(self._operations.planner.read, split, columns)

    async def _read_split(
        self, read: SplitReader, split: Split, columns: Sequence[str] | None = None
    ) -> AsyncIterator[Any]:
        await self._authorization.require_identifier(
            "read_split", split.source_id, split.identifier
        )
        await self._require_items("read_split", [split])
        iterator = read(split, columns)
        # Annotated as an iterator, but a generator.
        async with self._gate(), aclosing(cast("AsyncGenerator[Any]", iterator)) as batches:
            while True:
                with self._authorization.named():
                    batch = await anext(batches, None)
                if batch is None:
                    return
                yield batch

    async def _require_items(self, operation: str, splits: Sequence[Split]) -> None:
        """Raise if splits of a folder or a pattern have an item that the principal may not read."""
        classes: dict[str, type[DataSourceConnector]] = {}
        for split in splits:
            for path in split.items:
                await self._authorization.require_identifier(
                    operation, split.source_id, path, classes=classes
                )

    async def authorize_upload(self, source_id: str, name: str) -> None:
        """Raise if the principal may not store a file under a name, as `upload` would."""
        await self._authorization.require_identifier("upload", source_id, name, "write")

    async def authorize_fetch(self, source_id: str, identifier: str) -> None:
        """Raise if the principal may not fetch an identifier; a `Workspace` takes it."""
        await self._authorization.require_identifier("fetch", source_id, identifier)

    def _limits_of(self, source_id: str, given: Limits | None) -> Limits:
        if self._replaces and self._limits is not None:
            base = self._limits
        else:
            base = _smaller(self._operations.fetcher.limits(source_id), self._limits)
        return _smaller(base, given)

    def _gate(self) -> AbstractAsyncContextManager[Any]:
        if self._concurrency is None:
            return nullcontext()
        return self._operations.gates.of(self.principal.id, self._concurrency)

    async def _directory(
        self, workspace: str | os.PathLike[str], *, authorized: bool = False
    ) -> str | os.PathLike[str]:
        """Return the workspace with its own quota or the principal's, whichever is smaller.

        With `authorized`, each item is checked once more when it is fetched: a folder or a pattern
        may stand for items that the principal may not have.
        """
        if authorized:
            workspace = Workspace(workspace, authorize=self.authorize_fetch)
        quota = workspace.quota if isinstance(workspace, Workspace) else None
        if self._quota is None or (quota is not None and quota.max_bytes <= self._quota):
            return workspace
        directory = Workspace(workspace)
        directory.quota = await asyncio.to_thread(
            self._operations.quota, str(directory), self._quota
        )
        return directory


def _smaller(limits: Limits, other: Limits | None) -> Limits:
    """Return the smaller of each limit; None is no limit."""
    if other is None:
        return limits

    def least(name: str) -> Any:
        values = [getattr(limits, name), getattr(other, name)]
        return min((value for value in values if value is not None), default=None)

    return Limits(least("max_bytes"), least("max_rows"), least("timeout"))
