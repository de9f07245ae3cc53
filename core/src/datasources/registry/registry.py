"""The registry: sources by id, and every operation on them."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Self

from datasources.connector import (
    DataSourceConnector,
    SupportsPreview,
    SupportsStatistics,
    SupportsUpload,
    abilities,
    mask_connector_error,
)
from datasources.credentials import CredentialManager
from datasources.errors import ConnectError, DataSourceError, PluginError, RegistryError
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
from datasources.plugins import Plugins
from datasources.policy import Policy
from datasources.registry.cache import MetadataCache, SingleFlight
from datasources.registry.factory import ConnectorFactory
from datasources.registry.fetching import Fetcher, preview_by_fetching
from datasources.registry.listing import ItemLister
from datasources.registry.observing import observe, observe_each
from datasources.registry.opening import open_store
from datasources.registry.pools import SourcePools
from datasources.registry.records import SourceRecords
from datasources.registry.sessions import WorkspaceSession
from datasources.stores import MemoryStore, Store
from datasources.threads import call_in_daemon_thread
from datasources.workspace import Progress


class DataSourceRegistry:
    """Keeps sources in a store, connects to them on demand, and runs operations on them.

    One registry serves any number of threads and event loops; connections belong to the loop
    that opened them. The constructor opens the store, whose server may take seconds to answer: in
    a coroutine, `await` the class's `open`. Every method that takes a source id raises
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
        store: Store | str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        pool_config: PoolConfig | None = None,
        plugins: Plugins | None = None,
    ) -> None:
        self.plugins = plugins or Plugins()
        self.plugins.load_observers()
        self.policy = policy or Policy()
        self.credentials = credential_manager or CredentialManager()
        self.store: Store = (
            open_store(store, self.plugins)
            if isinstance(store, (str, os.PathLike))
            else store or MemoryStore()
        )
        self._pool_config = pool_config or PoolConfig()
        self._cache = MetadataCache(cache_ttl)
        self._loading = SingleFlight()
        self._records = SourceRecords(self.store, self.credentials, self.plugins)
        self._factory = ConnectorFactory(self._records, self.policy, self.plugins)
        self._pools = SourcePools(self._records, self._factory, self._pool_config)
        self._lister = ItemLister(self._pools, self.plugins)
        self._fetcher = Fetcher(self._records, self._pools, self.policy, self._lister, self.plugins)

    @classmethod
    async def open(
        cls,
        credential_manager: CredentialManager | None = None,
        cache_ttl: float = 300.0,
        *,
        store: Store | str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        pool_config: PoolConfig | None = None,
        plugins: Plugins | None = None,
    ) -> Self:
        """Return what the constructor does, without holding up the event loop.

        Importing plugins and reaching the server of a store can take seconds.
        """
        opening = call_in_daemon_thread(
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
            if isinstance(store, (str, os.PathLike)):  # nobody else will close it
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
        await self._register([config], replace=replace, test_connection=test_connection)

    async def register_data_sources(
        self, configs: Iterable[DataSourceConfig], *, replace: bool = False
    ) -> None:
        """Register all or none, in one write; raises as `register_data_source`."""
        await self._register(list(configs), replace=replace)

    async def unregister_data_source(self, source_id: str, *, timeout: float | None = None) -> None:
        """Remove a source and close its connections.

        Args:
            source_id: The source.
            timeout: Seconds to wait for operations under way; then they are cut off, and each ends
                with `PoolClosedError`. None is 30.

        Raises:
            DataSourceError: The source is removed, but something did not close well: what a host
                leased by `connection` and did not return was disconnected, a second later.
        """
        with observe(self.plugins, "unregister", source_id):
            if not await asyncio.to_thread(self.store.remove, source_id):
                self._records.get(source_id)  # raises that there is none
            self._cache.clear(source_id)
            await self._pools.close_pools(source_id, timeout)
        self.plugins.notify("datasources_source_unregistered", source_id=source_id)

    def exists(self, source_id: str) -> bool:
        """Return True if a source of that id is registered."""
        return self.store.get(source_id) is not None

    def get_config(
        self, source_id: str, decrypt: bool = False, sanitize: bool = True
    ) -> DataSourceConfig:
        """Return a copy of a source's configuration, with its secrets masked by default.

        Args:
            source_id: The source.
            decrypt: Give the options in clear; only with `sanitize=False`, which otherwise gives
                `{"encrypted": ciphertext}` in their place.
            sanitize: Give the options with their secrets masked, whatever `decrypt` is.

        Raises:
            DecryptionError: The options are needed, and none of the keys opens them.
        """
        record = self._records.get(source_id)
        return self._records.config(record, decrypt=decrypt, sanitize=sanitize)

    def list_data_sources(self) -> list[DataSourceConfig]:
        """Return all sources in order of their ids, secrets masked.

        A record that cannot be decrypted is listed with the options `{"error": reason}`.
        """
        return [self._records.masked_config(record) for record in self.store.list()]

    async def get_connector(self, source_id: str) -> DataSourceConnector:
        """Return the source's connector, connected, the same one for all callers of this loop.

        It takes one place of the pool until the source is unregistered or `disconnect_all` is
        called. A connector that is not `shareable` must not be used by two tasks at once: take
        `connection` there.
        """
        return await self._pools.connector(source_id)

    def connection(self, source_id: str) -> AbstractAsyncContextManager[DataSourceConnector]:
        """Return a pooled lease: `async with registry.connection(source_id) as connector`.

        Entering raises `PoolTimeoutError` when all stay in use, or what connecting raises.
        """
        return self._pools.lease(source_id)

    def get_pool_stats(self, source_id: str) -> dict[str, Any]:
        """Return the figures of the source's pool on this event loop: the fields of `PoolStatistics`.

        A source that has not been used on this loop has a new pool, whose figures are 0 but for
        `min_size` and `max_size`.
        """
        return self._pools.statistics(source_id).to_dict()

    async def test_connection(self, source_id: str) -> bool:
        """Return True if the source answers now."""
        return (await self.check_connection(source_id)).ok

    async def check_connection(self, source_id: str) -> ConnectionCheck:
        """Connect to the source outside its pool; return whether that worked, how long it took, and why not.

        Only a `DataSourceError` is returned as the check's `error`; other errors are raised.
        """
        record = self._records.get(source_id)
        with suppress(PluginError):  # reported below
            await self._factory.connector_class(record.type)  # it may have to migrate the options
        config = self._records.config(record, decrypt=True, sanitize=False)
        started = time.monotonic()
        error: DataSourceError | None = None
        try:
            with observe(self.plugins, "check_connection", source_id):
                await self._check_config(config)
        except DataSourceError as exc:
            error = exc
        return ConnectionCheck(error is None, time.monotonic() - started, error)

    async def discover(
        self, type: DataSourceType | str, options: Mapping[str, Any]
    ) -> dict[str, list[str]]:
        """Return what a source that does not exist yet could use, such as the databases of a server.

        Args:
            type: The type of the source.
            options: Those that are known so far; they may hold references.

        Returns:
            Values to choose from, by the name of the option.

        Raises:
            OptionError: An option is wrong, or one is missing without which nothing can be found.
            PolicyError: A host, network, directory, reference or identity is not allowed.
            ConnectorError: The system cannot be reached, or refuses to say.
            RegistryError: The connector cannot.
        """
        seconds = self._pool_config.connect_timeout
        return await self._factory.discover(DataSourceType(type).value, options, seconds)

    async def list_items(self, source_id: str, path: str | None = None) -> list[DataItem]:
        """Return the items that can be fetched: all, or those below `path`.

        A path that ends in `/` returns one folder with the folders in it, where the source has
        folders; see `DataSourceConnector.list_items`, which also decides the order.
        """
        return await self._lister.list_items(source_id, path)

    def iter_items(self, source_id: str, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield what `list_items` returns, page by page where the connector can."""
        return self._lister.iter_items(source_id, path)

    async def glob_items(self, source_id: str, pattern: str) -> list[DataItem]:
        """Return the items whose path matches: `*` within a segment, `**` across, `?`, `[a-z]`."""
        return await self._lister.glob_items(source_id, pattern)

    async def expand(self, source_id: str, path: str | None = None) -> list[DataItem]:
        """Return the items that `fetch_tree` fetches for a folder, a pattern or a name.

        Args:
            source_id: The source.
            path: None stands for everything; a path with wildcards for the item or folder of that
                name, or else for the items that match; another for all that lies below it, or for
                the item of that name.

        Raises:
            ItemNotFoundError: A pattern matches nothing, or there is nothing below the path.
        """
        return await self._lister.expand(source_id, path)

    async def get_metadata(
        self, source_id: str, identifier: str, *, refresh: bool = False
    ) -> dict[str, Any]:
        """Return the connector's description of one item; see `DataSourceConnector.get_metadata`.

        Args:
            source_id: The source.
            identifier: The item.
            refresh: Ask the connector although a description of the last `cache_ttl` seconds is
                cached.
        """
        # Another process may have replaced the source: metadata belong to the version they describe.
        key = f"{self._records.get(source_id).version}:{identifier}"
        cached: dict[str, Any] | None = self._cache.get(source_id, key)
        if cached is not None and not refresh:
            return cached

        async def load() -> dict[str, Any]:
            with observe(self.plugins, "get_metadata", source_id, identifier=identifier):
                async with self._pools.operation(source_id) as connector:
                    metadata = await connector.get_metadata(identifier)
            self._cache.put(source_id, metadata, key)
            return metadata

        return copy.deepcopy(await self._loading.load((source_id, key), load))

    async def preview(self, source_id: str, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of an item.

        Values are the connector's: Python values, or text; see `SupportsPreview.preview`. An item
        of a connector without previews is fetched into a temporary directory, within the source's
        limits, and read as text.

        Raises:
            DataFetchError: The item is not a table or text.
        """
        with observe(self.plugins, "preview", source_id, identifier=identifier) as outcome:
            async with self._pools.operation(source_id) as connector:
                if isinstance(connector, SupportsPreview):
                    return outcome.record(await connector.preview(identifier, rows))
                limits = self._fetcher.limits(source_id)
                preview = await preview_by_fetching(connector, identifier, rows, limits)
                return outcome.record(preview)

    async def statistics(self, source_id: str, identifier: str) -> dict[str, ColumnStatistics]:
        """Return figures of an item's numeric columns, by name.

        Raises:
            RegistryError: The connector cannot.
        """
        with observe(self.plugins, "statistics", source_id, identifier=identifier):
            async with self._pools.operation(source_id) as connector:
                if not isinstance(connector, SupportsStatistics):
                    raise _cannot(source_id, connector, "compute statistics")
                return await connector.statistics(identifier)

    async def upload(
        self, source_id: str, local_path: str, name: str | None = None, *, overwrite: bool = True
    ) -> DataItem:
        """Store a local file in the source under `name`, the file's own name by default.

        Returns the stored item. Whether a reader can see a part of the file while it is stored is
        the connector's; see `SupportsUpload.upload_file`.

        Raises:
            RegistryError: The connector cannot.
        """
        identifier = name or os.path.basename(local_path)
        with observe(self.plugins, "upload", source_id, identifier=identifier) as outcome:
            async with self._pools.operation(source_id) as connector:
                if not isinstance(connector, SupportsUpload):
                    raise _cannot(source_id, connector, "take files")
                return outcome.record(await connector.upload_file(local_path, name, overwrite))

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
            LimitExceededError: The limit of bytes or time ended it, and nothing was left in the
                workspace. Over the limit of rows the receipt is `truncated`.
            ConnectorError: The outside system failed; nothing was left in the workspace.
            PoolClosedError: The source was removed or closed meanwhile; nothing was left.
        """
        return await self._fetcher.fetch(
            source_id, identifier, workspace, format=format, limits=limits, progress=progress
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
        """Bring many items, `concurrency` at once; one result for each request, in their order.

        Of two different items that would be one file in the workspace, the one that comes first in
        `requests` has it, and the other is an error.

        Args:
            requests: Each a `FetchRequest`, or a pair of source id and identifier.
            workspace: Directory, made if missing.
            concurrency: How many at once.
            limits: In place of each source's or the policy's, for each request by itself.
            progress: By the request's index.

        Raises:
            OptionError: `concurrency` is not at least 1.
        """
        return await self._fetcher.fetch_many(
            requests, workspace, concurrency=concurrency, limits=limits, progress=progress
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
        """Bring all that lies below a path or matches a pattern, as `fetch_many` does.

        What the workspace has from an earlier fetch, unharmed and of the version that the source
        lists now, stays as it is: its receipt is `unchanged`.

        Args:
            source_id: The source.
            path: As `list_items` takes it, or with wildcards as `glob_items` does; if nothing
                matches, as the name of an item or a folder.
            workspace: Directory, made if missing.
            concurrency: How many at once.
            limits: In place of the source's or the policy's, for each item by itself.
            refresh: Fetch what is unchanged, too.

        Raises:
            ItemNotFoundError: There is nothing below the path, where the source can tell. A pattern
                that matches nothing is no error: the list is empty.
        """
        return await self._fetcher.fetch_tree(
            source_id, path, workspace, concurrency=concurrency, limits=limits, refresh=refresh
        )

    def limits(self, source_id: str) -> Limits:
        """Return the limits of a source's fetches: its own, or those of the policy."""
        return self._fetcher.limits(source_id)

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
        return WorkspaceSession(self._fetcher, workspace_id, root, sources, quota, limits)

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
        stopped and run again; afterwards the old key can go. Takes as long as that many writes:
        in a coroutine, `await asyncio.to_thread(registry.reencrypt)`.
        """
        return self._records.reencrypt()

    async def disconnect_all(self, *, timeout: float | None = None) -> None:
        """Close every connection on every event loop; sources stay and reconnect on demand.

        Args:
            timeout: As for `unregister_data_source`.

        Raises:
            DataSourceError: As `unregister_data_source`.
        """
        await self._pools.close_pools(timeout=timeout)

    async def close(self, *, timeout: float | None = None) -> None:
        """Close every connection, then the store; `timeout` and errors as `disconnect_all`.

        Operations that start later raise `RegistryError`.
        """
        try:
            await self._pools.close(timeout)
        finally:
            await asyncio.to_thread(self.store.close)

    async def _register(
        self, configs: Sequence[DataSourceConfig], *, replace: bool, test_connection: bool = False
    ) -> None:
        source_ids = [config.id for config in configs]
        async with observe_each(self.plugins, "register", source_ids):
            validated = []
            for config in configs:
                validated.append(await self._factory.validate(config))
                if test_connection:
                    await self._check_config(config)
                await asyncio.sleep(0)  # thousands must not hold up the event loop
            await asyncio.to_thread(self._records.save, validated, replace=replace)
        for source_id in source_ids:
            await asyncio.sleep(0)
            self._cache.clear(source_id)
            await self._pools.close_pools(source_id)
            if record := self.store.get(source_id):
                self.plugins.notify(
                    "datasources_source_registered", config=self._records.masked_config(record)
                )

    async def _check_config(self, config: DataSourceConfig) -> None:
        """Connect to a source outside its pool, and disconnect again.

        Raises:
            DataSourceError: It does not work.
        """
        connector = await self._factory.create(config, PoolConfig(max_size=1))
        seconds = self._pool_config.connect_timeout
        try:
            async with asyncio.timeout(seconds):
                await connector.connect()
                if not await connector.test_connection():
                    raise ConnectError(f"source {config.id!r} was reached but does not work")
        except TimeoutError as exc:
            reason = f"source {config.id!r} did not answer within {seconds:g} seconds"
            raise ConnectError(reason) from exc
        except Exception as exc:
            mask_connector_error(connector, exc)
            raise
        finally:
            await connector.disconnect()


def _close_unwanted(opening: Future[Any]) -> None:
    if opening.exception() is None:
        opening.result().store.close()


def _cannot(source_id: str, connector: DataSourceConnector, what: str) -> RegistryError:
    able = ", ".join(sorted(abilities(connector))) or "none"
    return RegistryError(
        f"source {source_id!r} of type {connector.config.type.value!r} cannot {what}; "
        f"its optional abilities: {able}"
    )
