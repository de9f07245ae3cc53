"""What hosts hold: sources by id, and every operation on them."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

from datasources import connector as contract
from datasources.cache import MetadataCache, SingleFlight
from datasources.connections import Connections
from datasources.connector import DataSourceConnector
from datasources.credentials import CredentialManager
from datasources.errors import (
    ConnectError,
    DataSourceError,
    ItemNotFoundError,
    OptionError,
    RegistryError,
)
from datasources.expanding import literal_items
from datasources.fetching import fetch, preview_by_fetching
from datasources.models import (
    ColumnStatistics,
    ConnectionCheck,
    DataItem,
    DataSourceConfig,
    DataSourceType,
    FetchReceipt,
    FetchRequest,
    FetchResult,
    Limits,
    PoolConfig,
    Preview,
    Rotation,
)
from datasources.operations import observed
from datasources.plugins import Plugins
from datasources.policy import Policy
from datasources.receipts import Receipts
from datasources.sessions import WorkspaceSession
from datasources.sources import Sources, open_store
from datasources.stores import MemoryStore, Store, StoredSource
from datasources.tabular import WILDCARDS, glob_prefix, glob_regex
from datasources.threads import in_own_thread
from datasources.workspace import Progress, Workspace


class DataSourceRegistry:
    """Keeps sources in a store, connects to them on demand, and runs operations on them.

    One registry serves any number of threads and event loops; connections belong to the loop
    that opened them.  The constructor opens the store, whose server may take seconds to answer: in
    a coroutine, `await` the class's `open`.  Every method that takes a source id raises
    `DataSourceNotFoundError` for an unknown one, and what `Plugins`, `Policy`, the credentials and
    the connector raise.

    Args:
        credential_manager: Holds the keys; by default one that finds them in the environment.
        cache_ttl: Seconds that metadata is kept.
        store: Where sources are kept; by default in memory, or a URL as `open_store` takes.
        policy: What sources may use, and the limits of fetches.
        pool_config: Of each source's pool.
        plugins: Which plugins there are; by default all that are installed.
    """

    def __init__(
        self,
        credential_manager: CredentialManager | None = None,
        cache_ttl: float = 300.0,
        *,
        store: Store | str | None = None,
        policy: Policy | None = None,
        pool_config: PoolConfig | None = None,
        plugins: Plugins | None = None,
    ) -> None:
        self.plugins = plugins or Plugins()
        self.plugins.load_observers()
        self.policy = policy or Policy()
        self.credentials = credential_manager or CredentialManager()
        self.store: Store = (
            open_store(store, self.plugins) if isinstance(store, str) else store or MemoryStore()
        )
        self._pool_config = pool_config or PoolConfig()
        self._sources = Sources(self.store, self.credentials, self.policy, self.plugins)
        self._cache = MetadataCache(cache_ttl)
        self._loading = SingleFlight()
        self._connections = Connections(self._sources.get, self._build, self._pool_config)

    @classmethod
    async def open(
        cls,
        credential_manager: CredentialManager | None = None,
        cache_ttl: float = 300.0,
        *,
        store: Store | str | None = None,
        policy: Policy | None = None,
        pool_config: PoolConfig | None = None,
        plugins: Plugins | None = None,
    ) -> Self:
        """Return what the constructor does, without holding up the event loop.

        Importing plugins and reaching the server of a store can take seconds.
        """
        opening = in_own_thread(
            "datasources-open",
            lambda: cls(
                credential_manager,
                cache_ttl,
                store=store,
                policy=policy,
                pool_config=pool_config,
                plugins=plugins,
            ),
        )
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            if isinstance(store, str):  # nobody else will close it
                opening.add_done_callback(_close_unwanted)
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def register_connector_class(
        self, type: DataSourceType | str, connector_class: type[DataSourceConnector]
    ) -> None:
        """Serve a type with a class of the host's own; it wins over installed plugins."""
        self.plugins.register(DataSourceType(type), connector_class)

    async def register_data_source(
        self, config: DataSourceConfig, test_connection: bool = False, *, replace: bool = False
    ) -> None:
        """Validate a source and store it encrypted; nothing is stored on any error.

        Args:
            config: Its options may hold references such as `${env:NAME}`, resolved at connect.
            test_connection: Connect once first, and raise what that raises.
            replace: Overwrite a source of that id; its connections are closed once returned.

        Raises:
            DataSourceExistsError: The id is taken.
            OptionError: An option is unknown, missing or ill-typed.
            MissingKeyError: The store outlives the process, but no key was given; or the key is
                none of those that the stored sources are encrypted with.
        """
        with observed(self.plugins, "register", config.id):
            validated = await self._sources.validate(config)
            if test_connection:
                await self._try(config)
            await asyncio.to_thread(self._sources.keep, [validated], replace=replace)
        await self._registered([config.id])

    async def register_data_sources(
        self, configs: Iterable[DataSourceConfig], *, replace: bool = False
    ) -> None:
        """Register all or none, in one write; raises as `register_data_source`."""
        validated = []
        for config in configs:
            validated.append(await self._sources.validate(config))
            await asyncio.sleep(0)  # thousands must not hold up the event loop
        await asyncio.to_thread(self._sources.keep, validated, replace=replace)
        await self._registered([config.id for config, _ in validated])

    async def unregister_data_source(self, source_id: str, *, timeout: float | None = None) -> None:
        """Remove a source and close its connections.

        Args:
            source_id: The source.
            timeout: Seconds to wait for operations under way before they are cut off; None takes
                the pool's default.
        """
        with observed(self.plugins, "unregister", source_id):
            if not await asyncio.to_thread(self.store.remove, source_id):
                self._sources.get(source_id)  # says that there is none
            self._cache.clear(source_id)
            await self._connections.forget(source_id, timeout)
        self.plugins.notify("datasources_source_unregistered", source_id=source_id)

    def exists(self, source_id: str) -> bool:
        """Tell whether a source of that id is registered."""
        return self.store.get(source_id) is not None

    def get_config(
        self, source_id: str, decrypt: bool = False, sanitize: bool = True
    ) -> DataSourceConfig:
        """Return a copy of a source's configuration.

        Secrets are masked unless `sanitize` is false; then `decrypt` chooses between clear text
        and `{"encrypted": ciphertext}`.
        """
        record = self._sources.get(source_id)
        return self._sources.config(record, decrypt=decrypt, sanitize=sanitize)

    def list_data_sources(self) -> list[DataSourceConfig]:
        """Return all sources in order of their ids, secrets masked.

        A record that cannot be decrypted is listed with the options `{"error": reason}`.
        """
        return [self._sources.shown(record) for record in self.store.list()]

    async def get_connector(self, source_id: str) -> DataSourceConnector:
        """Return the source's connector, connected, the same one for all callers of this loop.

        It takes one place of the pool until the source is unregistered or `disconnect_all` is
        called.  A connector that is not `shareable` must not be used by two tasks at once: take
        `connection` there.
        """
        return await self._connections.connector(source_id)

    def connection(self, source_id: str) -> AbstractAsyncContextManager[DataSourceConnector]:
        """Return a pooled lease: `async with registry.connection(source_id) as connector`.

        Entering raises `PoolTimeoutError` when all stay in use, or what connecting raises.
        """
        return self._connections.lease(source_id)

    def get_pool_stats(self, source_id: str) -> dict[str, Any]:
        """Return the figures of the source's pool on this event loop."""
        return self._connections.statistics(source_id).to_dict()

    async def test_connection(self, source_id: str) -> bool:
        """Tell whether the source answers now."""
        return (await self.check_connection(source_id)).ok

    async def check_connection(self, source_id: str) -> ConnectionCheck:
        """Connect anew, outside the pool, and tell whether that worked, or why not."""
        config = self._sources.config(self._sources.get(source_id), decrypt=True, sanitize=False)
        started = time.monotonic()
        error: DataSourceError | None = None
        try:
            with observed(self.plugins, "check_connection", source_id):
                await self._try(config)
        except DataSourceError as exc:
            error = exc
        return ConnectionCheck(error is None, time.monotonic() - started, error)

    async def list_items(self, source_id: str, path: str | None = None) -> list[DataItem]:
        """Return what can be fetched, below `path` if one is given."""
        with observed(self.plugins, "list_items", source_id, path=path) as outcome:
            async with self.connection(source_id) as connector:
                return outcome.of(await connector.list_items(path))

    async def iter_items(self, source_id: str, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield what `list_items` returns, page by page where the connector can."""
        with observed(self.plugins, "iter_items", source_id, path=path) as outcome:
            outcome.items = 0
            async with self.connection(source_id) as connector:
                if isinstance(connector, contract.SupportsIterItems):
                    async for item in connector.iter_items(path):
                        outcome.items += 1
                        yield item
                else:
                    for item in await connector.list_items(path):
                        outcome.items += 1
                        yield item

    async def glob_items(self, source_id: str, pattern: str) -> list[DataItem]:
        """Return the items whose path matches: `*` within a segment, `**` across, `?`, `[a-z]`."""
        with observed(self.plugins, "glob_items", source_id, pattern=pattern) as outcome:
            async with self.connection(source_id) as connector:
                if isinstance(connector, contract.SupportsGlob):
                    return outcome.of(await connector.glob_items(pattern))
                matches, prefix = glob_regex(pattern).fullmatch, glob_prefix(pattern)
                folder = prefix.rpartition("/")[0] or None
                items = await connector.list_items(folder)
                return outcome.of([item for item in items if matches(item.path)])

    async def get_metadata(
        self, source_id: str, identifier: str, *, refresh: bool = False
    ) -> dict[str, Any]:
        """Describe one item; the answer is kept for `cache_ttl` seconds unless `refresh`."""
        self._sources.get(source_id)
        known: dict[str, Any] | None = self._cache.get(source_id, identifier)
        if known is not None and not refresh:
            return known
        key = (source_id, identifier)
        loaded = await self._loading.load(key, lambda: self._load_metadata(*key))
        return copy.deepcopy(loaded)

    async def preview(self, source_id: str, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of an item, fetching it only if the connector has no other way."""
        with observed(self.plugins, "preview", source_id, identifier=identifier) as outcome:
            async with self.connection(source_id) as connector:
                if isinstance(connector, contract.SupportsPreview):
                    return outcome.of(await connector.preview(identifier, rows))
                limits = self._limits(self._sources.get(source_id))
                shown = await preview_by_fetching(connector, identifier, rows, limits)
                return outcome.of(shown)

    async def statistics(self, source_id: str, identifier: str) -> dict[str, ColumnStatistics]:
        """Return figures of an item's numeric columns, by name.

        Raises:
            RegistryError: The connector cannot.
        """
        with observed(self.plugins, "statistics", source_id, identifier=identifier):
            async with self.connection(source_id) as connector:
                if not isinstance(connector, contract.SupportsStatistics):
                    raise _cannot(source_id, connector, "compute statistics")
                return await connector.statistics(identifier)

    async def upload(
        self, source_id: str, local_path: str, name: str | None = None, *, overwrite: bool = True
    ) -> DataItem:
        """Store a local file in the source under `name`, the file's own name by default.

        Raises:
            RegistryError: The connector cannot.
        """
        identifier = name or os.path.basename(local_path)
        with observed(self.plugins, "upload", source_id, identifier=identifier) as outcome:
            async with self.connection(source_id) as connector:
                if not isinstance(connector, contract.SupportsUpload):
                    raise _cannot(source_id, connector, "take files")
                return outcome.of(await connector.upload_file(local_path, name, overwrite))

    async def fetch(
        self,
        source_id: str,
        identifier: str,
        workspace: str | os.PathLike[str],
        *,
        format: str | None = None,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> FetchReceipt:
        """Bring one item into a workspace directory.

        Args:
            source_id: The source.
            identifier: An item's path, or whatever else the connector takes, such as a query.
            workspace: Directory, made if missing.
            format: Such as `csv` or `parquet`; None is the connector's own.
            limits: In place of the source's or the policy's.
            progress: Called with the bytes so far and the total, None where unknown.

        Raises:
            LimitExceededError: A limit ended it; nothing was left in the workspace.
            ConnectorError: What else went wrong outside; likewise.
        """
        target = Workspace(
            workspace,
            limits=limits or self._limits(self._sources.get(source_id)),
            file_format=format,
            progress=progress,
        )
        return await self._fetch(FetchRequest(source_id, identifier, format), target)

    async def fetch_many(
        self,
        requests: Sequence[FetchRequest | tuple[str, str]],
        workspace: str | os.PathLike[str],
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        progress: Mapping[int, Progress] | None = None,
    ) -> list[FetchResult]:
        """Bring many items, `concurrency` at once; one result for each request, in their order.

        Two different items that would be one file in the workspace are an error of the second.

        Args:
            requests: Each a `FetchRequest`, or a pair of source id and identifier.
            workspace: Directory, made if missing.
            concurrency: How many at once.
            limits: In place of each source's or the policy's, for each request by itself.
            progress: By the request's index.

        Raises:
            OptionError: `concurrency` is not at least 1.
        """
        if concurrency < 1:
            raise OptionError(f"'concurrency' must be at least 1, not {concurrency}")
        places = asyncio.Semaphore(concurrency)
        owners: dict[str, str] = {}
        receipts = Receipts(workspace)

        async def one(index: int, request: FetchRequest) -> FetchResult:
            async with places:
                try:
                    record = self._sources.get(request.source_id)
                    target = Workspace(
                        workspace,
                        limits=limits or self._limits(record),
                        file_format=request.format,
                        progress=(progress or {}).get(index),
                        owner=f"{request.identifier!r} of source {request.source_id!r}",
                        owners=owners,
                    )
                    receipt = await self._fetch(request, target, receipts)
                except Exception as exc:  # noqa: BLE001  (kept whole in the result)
                    return FetchResult(request, error=exc)
                return FetchResult(request, receipt)

        wanted = [r if isinstance(r, FetchRequest) else FetchRequest(*r) for r in requests]
        return await asyncio.gather(*(one(i, request) for i, request in enumerate(wanted)))

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
        """Bring all that lies below a path or matches a pattern, as `fetch_many` does.

        What the workspace has from an earlier fetch, unharmed and of the version that the source
        lists now, stays as it is: its receipt is `unchanged`.

        Args:
            source_id: The source.
            path: As `list_items` takes it, or with wildcards as `glob_items` does. A name with
                brackets, `*` or `?` is taken as it is, if the source has such an item or folder.
            workspace: Directory, made if missing.
            concurrency: How many at once.
            limits: In place of the source's or the policy's, for each item by itself.
            refresh: Fetch what is unchanged, too.

        Raises:
            ItemNotFoundError: Nothing matches the pattern, or there is no such path.
        """
        if path is not None and not WILDCARDS.isdisjoint(path):
            async with self.connection(source_id) as connector:
                items = await literal_items(connector, path)
            items = items or await self.glob_items(source_id, path)
            if not items:
                raise ItemNotFoundError(f"no item of source {source_id!r} matches {path!r}")
        else:
            items = await self.list_items(source_id, (path or "").rstrip("/") or None)
        requests = [
            FetchRequest(source_id, item.path, version=None if refresh else item.version)
            for item in items
        ]
        return await self.fetch_many(requests, workspace, concurrency=concurrency, limits=limits)

    def workspace(
        self,
        workspace_id: str,
        *,
        root: str | os.PathLike[str] | None = None,
        sources: Collection[str] | None = None,
        quota: int | None = None,
        limits: Limits | None = None,
    ) -> WorkspaceSession:
        """Return a workspace that is deleted when its `async with` block ends.

        Args:
            workspace_id: The host's name for it: letters, digits, `.`, `_`, `-`.
            root: The directory that holds it under that name; None takes a temporary one.
            sources: The ids of the sources that may be fetched from; None grants all.
            quota: Bytes that its files may have together; None is no bound.
            limits: Of each fetch, in place of the source's or the policy's.

        Raises:
            OptionError: `workspace_id` is malformed.
            RegistryError: On entering, that a workspace of that id is open in `root`; on leaving,
                that not everything could be deleted.
        """
        return WorkspaceSession(self, workspace_id, root, sources, quota, limits)

    def cache_metadata(self, source_id: str, metadata: dict[str, Any]) -> None:
        """Keep the host's own metadata of a source for `cache_ttl` seconds."""
        self._cache.put(source_id, metadata)

    def get_cached_metadata(self, source_id: str) -> dict[str, Any] | None:
        """Return a copy of what `cache_metadata` kept, or None."""
        known: dict[str, Any] | None = self._cache.get(source_id)
        return known

    def clear_cache(self, source_id: str | None = None) -> None:
        """Forget the metadata of one source, or of all."""
        self._cache.clear(source_id)

    def reencrypt(self) -> Rotation:
        """Bring every source under the first key of the credential manager.

        Each source is readable with the old and the new key together at any point, so it can be
        stopped and run again; afterwards the old key can go.  Takes as long as that many writes:
        in a coroutine, `await asyncio.to_thread(registry.reencrypt)`.
        """
        return self._sources.reencrypt()

    async def disconnect_all(self, *, timeout: float | None = None) -> None:
        """Close every connection on every event loop; sources stay and reconnect on demand.

        Raises:
            ExceptionGroup: Of what closing raised; everything is closed all the same.
        """
        await self._connections.forget(timeout=timeout)

    async def close(self) -> None:
        """Close every connection, then the store; raises as `disconnect_all`."""
        try:
            await self.disconnect_all()
        finally:
            await asyncio.to_thread(self.store.close)

    async def _fetch(
        self, request: FetchRequest, target: Workspace, receipts: Receipts | None = None
    ) -> FetchReceipt:
        source_id, identifier = request.source_id, request.identifier
        with observed(self.plugins, "fetch", source_id, identifier=identifier) as outcome:
            lease = self.connection(source_id)
            return outcome.of(await fetch(lease, request, target, receipts))

    async def _load_metadata(self, source_id: str, identifier: str) -> dict[str, Any]:
        with observed(self.plugins, "get_metadata", source_id, identifier=identifier):
            async with self.connection(source_id) as connector:
                metadata = await connector.get_metadata(identifier)
        self._cache.put(source_id, metadata, identifier)
        return metadata

    async def _try(self, config: DataSourceConfig) -> None:
        connector = await self._sources.build(config, PoolConfig(max_size=1))
        seconds = self._pool_config.connect_timeout
        try:
            async with asyncio.timeout(seconds):
                await connector.connect()
                if not await connector.test_connection():
                    raise ConnectError(f"source {config.id!r} was reached but does not work")
        except TimeoutError as exc:
            reason = f"source {config.id!r} did not answer within {seconds:g} seconds"
            raise ConnectError(reason) from exc
        finally:
            await connector.disconnect()

    async def _registered(self, source_ids: list[str]) -> None:
        for source_id in source_ids:
            await asyncio.sleep(0)  # for the event loop's sake, as when they were validated
            self._cache.clear(source_id)
            await self._connections.forget(source_id)
            if record := self.store.get(source_id):
                self.plugins.notify(
                    "datasources_source_registered", config=self._sources.shown(record)
                )

    def _limits(self, record: StoredSource) -> Limits:
        return Limits(**record.limits) if record.limits else self.policy.limits

    async def _build(self, record: StoredSource, pool_config: PoolConfig) -> DataSourceConnector:
        config = self._sources.config(record, decrypt=True, sanitize=False)
        return await self._sources.build(config, pool_config)


def _close_unwanted(opening: Future[Any]) -> None:
    if opening.exception() is None:
        opening.result().store.close()


def _cannot(source_id: str, connector: DataSourceConnector, what: str) -> RegistryError:
    able = ", ".join(sorted(contract.abilities(connector))) or "none"
    return RegistryError(
        f"source {source_id!r} of type {connector.config.type.value!r} cannot {what}; "
        f"its optional abilities: {able}"
    )
