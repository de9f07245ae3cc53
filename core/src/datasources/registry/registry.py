"""The class `DataSourceRegistry`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

from datasources.connector import DataSourceConnector
from datasources.credentials import CredentialManager
from datasources.errors import OptionError, PluginError, PolicyError
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
    Page,
    PoolConfig,
    Preview,
    Rotation,
)
from datasources.plugins import Plugins
from datasources.policy import Policy
from datasources.pool import PoolStatistics
from datasources.principals import ADMIN, RIGHTS, Grant, Principal
from datasources.registry.access import Access
from datasources.registry.cache import MetadataCache
from datasources.registry.checking import ConnectionTester, checked
from datasources.registry.factory import ConnectorFactory
from datasources.registry.fetching import Fetcher
from datasources.registry.filtering import SourceFilter
from datasources.registry.granted import Operations
from datasources.registry.listing import ItemLister
from datasources.registry.observing import SOURCES_PER_TURN, observe, observe_each
from datasources.registry.opening import open_store
from datasources.registry.paging import ItemPager
from datasources.registry.pools import SourcePools
from datasources.registry.reading import ItemReader
from datasources.registry.records import SourceRecords
from datasources.registry.sessions import WorkspaceSession
from datasources.registry.splitting import SplitPlanner, SplitRequest
from datasources.registry.streaming import StreamOpener, StreamRequest
from datasources.registry.sweeping import sweep_workspaces
from datasources.registry.updates import SourceUpdates
from datasources.splits import Split, SplitPlan
from datasources.stores import MemoryStore, Store
from datasources.streams import ItemStream
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
        self._records = SourceRecords(self.store, self.credentials, self.plugins)
        self._factory = ConnectorFactory(self._records, self.policy, self.plugins)
        self._tester = ConnectionTester(self._factory, self._pool_config)
        self._updates = SourceUpdates(self._records, self._factory, self.policy)
        self._pools = SourcePools(self._records, self._factory, self._pool_config)
        self._lister = ItemLister(self._records, self._pools, self.plugins)
        self._planner = SplitPlanner(self._records, self._pools, self.credentials, self.plugins)
        self._fetcher = Fetcher(
            self._records, self._pools, self.policy, self._lister, self._planner, self.plugins
        )
        self._reader = ItemReader(
            self._records, self._pools, self._fetcher, self._cache, self.plugins
        )
        self._pager = ItemPager(self._records, self._pools, self.credentials, self.plugins)
        self._streams = StreamOpener(self._pools, self._fetcher, self.plugins)
        self._operations = Operations(
            self._records,
            self._factory,
            self._lister,
            self._pager,
            self._reader,
            self._fetcher,
            self._streams,
            self._planner,
            self.plugins,
            self,
        )

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
        """Return a new registry, as the constructor does, without holding up the event loop.

        Importing plugins and reaching the server of a store can take seconds, which pass in a
        thread. If the call is cancelled, a store that it opened is closed.

        Raises:
            DataSourceError: As the constructor: the store or a key cannot be used.
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
        """Serve a type with a class of the host's own; it wins over installed plugins.

        Raises:
            OptionError: `type` is malformed.
            PluginError: It is no connector class, lacks methods, or was written for another version.
        """
        self.plugins.register(DataSourceType(type), connector_class)

    async def register_data_source(
        self,
        config: DataSourceConfig,
        test_connection: bool = False,
        *,
        replace: bool = False,
        expected: int | None = None,
        by_administrator: bool = True,
    ) -> None:
        """Validate a source and store it encrypted; nothing is stored on any error.

        Args:
            config: Its options may hold references such as `${env:NAME}`, resolved at connect.
            test_connection: Connect once first, and raise what that raises.
            replace: Overwrite a source of that id; its connections are closed once returned. A
                source that is paused stays so.
            expected: Of `replace`, the version of the source to overwrite, as `get_config` gave it.
            by_administrator: False refuses references that the policy does not bind to hosts.

        Raises:
            DataSourceExistsError: The id is taken.
            ConflictError: The source to overwrite is not of the expected version.
            OptionError: An option is unknown, missing or ill-typed; or a version is expected, and
                nothing is to be overwritten.
            PolicyError: The policy does not allow a host, directory or reference.
            MissingKeyError: The store outlives the process, but no key was given; or the key is
                none of those that the stored sources are encrypted with.
        """
        await self._register(
            [config],
            replace=replace,
            expected=expected,
            test_connection=test_connection,
            by_administrator=by_administrator,
        )

    async def register_data_sources(
        self,
        configs: Iterable[DataSourceConfig],
        *,
        replace: bool = False,
        by_administrator: bool = True,
    ) -> None:
        """Register all or none, in one write; raises as `register_data_source`."""
        await self._register(list(configs), replace=replace, by_administrator=by_administrator)

    async def update_data_source(
        self,
        source_id: str,
        changes: Mapping[str, Any],
        *,
        expected: int | None = None,
        test_connection: bool = False,
        by_administrator: bool = True,
    ) -> DataSourceConfig:
        """Change a stored source, and return its new configuration with secrets masked.

        `changes` is a JSON merge patch (RFC 7396) of a document with `name`, `config`, which holds
        the options, `metadata` and `limits`: what it leaves out stays as it is, also what another
        host changes at the same time; None removes; nested mappings are merged, and lists
        replaced. A limit that is removed is no limit.

        A change of the destination, as `ConnectorOptions.destination` defines it, must give every
        secret that stays set again, references included.

        Args:
            source_id: The source.
            changes: The changes.
            expected: The version that they are made for, as `get_config` gave it.
            test_connection: Connect once with the changes first, and raise what that raises.
            by_administrator: False refuses references that the policy does not bind to hosts. If
                the destination changes, references that are not given again are then removed.

        Raises:
            ConflictError: The source is not of the expected version.
            SecretRequiredError: The destination changes, and a secret was not given again; or a
                reference that was removed is needed.
            OptionError: The changes have another form, come from a masked copy, or lead to options
                that are unknown, missing or ill-typed.
            PolicyError: The policy does not allow a host, directory or reference.
        """
        with observe(self.plugins, "update", source_id):
            await self._updates.update(
                source_id,
                changes,
                expected=expected,
                test=self._tester.test if test_connection else None,
                by_administrator=by_administrator,
            )
        self._cache.clear(source_id)
        await self._pools.close_pools(source_id)
        config = self._records.masked_config(self._records.get(source_id))
        self.plugins.notify("datasources_source_registered", config=config)
        return config

    async def pause(self, source_id: str, reason: str, *, expected: int | None = None) -> None:
        """Have every host refuse operations on a source until `resume` is called.

        They raise `SourcePausedError` with the reason; those under way end normally. A source that
        is paused can be updated and unregistered, and its configuration be read.

        Args:
            source_id: The source.
            reason: A text for people, which is no secret; on a paused source it replaces the other.
            expected: The version of the source to pause, as `get_config` gave it; None is any.

        Raises:
            ConflictError: The source is not of the expected version.
            OptionError: The reason is empty.
            StoreError: The store cannot hold that a source is paused.
        """
        if not reason.strip():
            raise OptionError("'reason' must be a text that is not empty")
        with observe(self.plugins, "pause", source_id, reason=reason):
            await self._updates.set_paused(source_id, reason, expected)
        self._pools.read_records_again()

    async def resume(self, source_id: str, *, expected: int | None = None) -> None:
        """Serve a source again that was paused; otherwise nothing happens.

        Raises:
            ConflictError: The source is not of the expected version, if one is given.
        """
        with observe(self.plugins, "resume", source_id):
            await self._updates.set_paused(source_id, None, expected)
        self._pools.read_records_again()

    async def unregister_data_source(
        self, source_id: str, *, timeout: float | None = None, expected: int | None = None
    ) -> None:
        """Remove a source and close its connections.

        Args:
            source_id: The source.
            timeout: Seconds to wait for operations under way; then they are cut off, and each ends
                with `PoolClosedError`. None is 30.
            expected: The version of the source to remove, as `get_config` gave it; None is any.

        Raises:
            ConflictError: The source is not of the expected version.
            DataSourceError: The source is removed, but something did not close well: what a host
                leased by `connection` and did not return was disconnected, a second later.
        """
        with observe(self.plugins, "unregister", source_id):
            await self._updates.remove(source_id, expected)
            self._cache.clear(source_id)
            await self._pools.close_pools(source_id, timeout)
        self.plugins.notify("datasources_source_unregistered", source_id=source_id)

    def exists(self, source_id: str) -> bool:
        """Return True if a source of that id is registered."""
        return self._records.store.get(source_id) is not None

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

    def list_data_sources(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        type: DataSourceType | str | None = None,
        q: str = "",
    ) -> list[DataSourceConfig]:
        """Return sources in order of their ids, secrets masked; by default all.

        A record that cannot be decrypted is listed with the options `{"error": reason}`.

        Args:
            after: The id of the last source of the page before; the list begins behind it.
            limit: The most sources; None is no bound.
            type: That of the sources to list.
            q: A part of the id or the name, in any case.

        Raises:
            OptionError: `limit` is not at least 1.
        """
        chosen = SourceFilter(after, limit, None if type is None else str(type), q)
        return [self._records.masked_config(record) for record in self._records.list(chosen)]

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
        """Return the figures of the source's pool on this loop: the fields of `PoolStatistics`.

        A source that has not been used on this loop has a new pool, whose figures are 0 but for
        `min_size` and `max_size`.
        """
        return self._pools.statistics(source_id).to_dict()

    def pool_statistics(self) -> dict[str, PoolStatistics]:
        """Return the figures of the pools of this event loop, by source.

        Sources that have not been used on this loop are left out, and so are those whose pool was
        closed.
        """
        return self._pools.all_statistics()

    async def test_connection(self, source_id: str) -> bool:
        """Return True if the source answers now."""
        return (await self.check_connection(source_id)).ok

    async def check_connection(self, source_id: str) -> ConnectionCheck:
        """Connect to the source outside its pool; return the outcome, its duration and its error.

        Only a `DataSourceError` is returned as the check's `error`; other errors are raised.
        """

        async def test() -> tuple[str, ...]:
            with observe(self.plugins, "check_connection", source_id):
                self._records.check_not_paused(source_id)
                return await self._tester.test(config)

        record = self._records.get(source_id)
        with suppress(PluginError):  # reported below
            await self._factory.connector_class(record.type)  # it may have to migrate the options
        config = self._records.config(record, decrypt=True, sanitize=False)
        return await checked(test)

    async def validate_config(
        self, config: DataSourceConfig, *, by_administrator: bool = True
    ) -> None:
        """Check that a source could be registered; nothing is contacted and nothing stored.

        Args:
            config: The source. Whether its id is taken is not checked.
            by_administrator: As for `register_data_source`.

        Raises:
            PluginError, OptionError, PolicyError: As `register_data_source`.
        """
        self._records.check_open()
        await self._factory.validate(config, by_administrator=by_administrator)

    async def check_config(
        self, config: DataSourceConfig, *, by_administrator: bool = True
    ) -> ConnectionCheck:
        """Connect to a source that is not stored; return as `check_connection` does.

        Whatever the connector raises is returned as the check's `error`.

        Raises:
            PluginError, OptionError, PolicyError: As `register_data_source`; nothing was contacted.
        """
        self._records.check_open()
        await self._factory.validate(config, by_administrator=by_administrator)

        async def test() -> tuple[str, ...]:
            with observe(self.plugins, "check_config", config.id):
                return await self._tester.test(config)

        return await checked(test)

    async def check_update(
        self, source_id: str, changes: Mapping[str, Any], *, by_administrator: bool = True
    ) -> ConnectionCheck:
        """Connect to a source as it would be after an update, paused or not; nothing is stored.

        Whatever the connector raises is returned as the check's `error`.

        Raises:
            OptionError, PolicyError, SecretRequiredError: As `update_data_source`; nothing was
                contacted.
        """
        config, _ = await self._updates.apply(
            self._records.get(source_id), changes, by_administrator=by_administrator
        )

        async def test() -> tuple[str, ...]:
            with observe(self.plugins, "check_update", source_id):
                return await self._tester.test(config)

        return await checked(test)

    async def discover(
        self,
        type: DataSourceType | str,
        options: Mapping[str, Any],
        *,
        by_administrator: bool = True,
    ) -> dict[str, list[str]]:
        """Return what a source that does not exist yet could use, such as the databases of a server.

        Args:
            type: The type of the source.
            options: Those that are known so far; they may hold references.
            by_administrator: As for `register_data_source`.

        Returns:
            Values to choose from, by the name of the option.

        Raises:
            OptionError: An option is wrong, or one is missing without which nothing can be found.
            PolicyError: A host, network, directory, reference or identity is not allowed.
            ConnectorError: The system cannot be reached, or refuses to say.
            UnsupportedError: The connector cannot.
        """
        self._records.check_open()
        seconds = self._pool_config.connect_timeout
        type_name = DataSourceType(type).value
        with observe(self.plugins, "discover", type_name):  # there is no source id yet
            return await self._factory.discover(
                type_name, options, seconds, by_administrator=by_administrator
            )

    async def list_items(self, source_id: str, path: str | None = None) -> list[DataItem]:
        """Return the items that can be fetched: all, or those below `path`.

        A path that ends in `/` returns one folder with the folders in it, where the source has
        folders; see `DataSourceConnector.list_items`, which also decides the order.
        """
        return await self._lister.list_items(source_id, path)

    def iter_items(self, source_id: str, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield the items that `list_items` returns, page by page where the connector can."""
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
            ItemNotFoundError: A pattern matches nothing, or there is nothing below the path, where
                the source can tell.
        """
        return await self._lister.expand(source_id, path)

    async def list_page(
        self,
        source_id: str,
        path: str | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Return one page of what `list_items` returns, and the cursor of the next one.

        A connector with the ability `pages` begins where the page before ended. For one without,
        everything is listed anew for each page, and what comes or goes meanwhile moves items from
        one page to another.

        Args:
            source_id: The source.
            path: As for `list_items`.
            limit: The most items of the page, 10,000 at most; there may be fewer.
            cursor: That of the page before; None for the first page. It can be used for an hour,
                with the same source and path, in every process that has the same keys. Changes of
                the source's options leave it valid; a source that was removed and registered anew
                has other cursors.

        Raises:
            CursorError: The cursor is forged, too old, or of another listing.
            OptionError: The limit is out of its range.
            ItemNotFoundError: There is nothing at `path`, where the source can tell.
        """
        return await self._pager.list_page("", source_id, path, limit, cursor)

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
        return await self._reader.get_metadata(source_id, identifier, refresh=refresh)

    async def preview(
        self,
        source_id: str,
        identifier: str,
        rows: int = 10,
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> Preview:
        """Return the first rows of an item.

        Values are the connector's: Python values, or text; see `SupportsPreview.preview`. An item
        of a connector without previews is fetched into a temporary directory, within the source's
        limits, and read as text. `parameters` are those of `fetch`.

        Raises:
            DataFetchError: The item is not a table or text.
        """
        return await self._reader.preview(source_id, identifier, rows, parameters=parameters)

    async def statistics(
        self,
        source_id: str,
        identifier: str,
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, ColumnStatistics]:
        """Return figures of an item's numeric columns, by name; `parameters` are those of `fetch`.

        Raises:
            UnsupportedError: The connector cannot.
        """
        return await self._reader.statistics(source_id, identifier, parameters=parameters)

    async def upload(
        self, source_id: str, local_path: str, name: str | None = None, *, overwrite: bool = True
    ) -> DataItem:
        """Store a local file in the source under `name`, the file's own name by default.

        Returns the stored item. Whether a reader can see a part of the file while it is stored is
        the connector's; see `SupportsUpload.upload_file`.

        Raises:
            UnsupportedError: The connector cannot.
        """
        return await self._reader.upload(source_id, local_path, name, overwrite=overwrite)

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
        """Bring one item into a workspace directory.

        Args:
            source_id: The source.
            identifier: An item's path, or whatever else the connector takes, such as a query.
            workspace: Directory, made if missing.
            format: Such as `csv` or `parquet`; None is the connector's own.
            limits: In place of the source's or the policy's.
            progress: Called on this event loop with the bytes so far and the total, None where
                unknown. An error that it raises ends the fetch.
            parameters: The values of a stored query's parameters, by name: Python values, or those
                of JSON. Only an identifier `query:NAME` takes some.
            splits: Divide the item as `plan` does, into so many splits at most, and write each as
                one Parquet file of a directory, `IDENTIFIER.dataset`, with a manifest. The
                directory appears as a whole or not at all; one of an earlier fetch is replaced.
                The limits hold for all files together, and rows over their limit are an error.

        Raises:
            OptionError: The connector cannot write the format; a parameter is unknown, missing or
                malformed; or `splits` is below 1, or comes with another format than Parquet or
                with parameters.
            UnsupportedError: `splits` is given, and the connector or the item has none.
            LimitExceededError: The limit of bytes or time ended it, and nothing was left in the
                workspace. Over the limit of rows the receipt is `truncated`.
            ConnectorError: The outside system failed; nothing was left in the workspace.
            PoolClosedError: The source was removed or closed meanwhile; nothing was left.
        """
        return await self._fetcher.fetch(
            source_id,
            identifier,
            workspace,
            format=format,
            limits=limits,
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
        """Bring many items, `concurrency` at once; one result for each request, in their order.

        Of two different items that would be one file in the workspace, the one that comes first in
        `requests` has it, and the other is an error.

        Args:
            requests: Each a `FetchRequest`, or a pair of source id and identifier.
            workspace: Directory, made if missing.
            concurrency: How many at once.
            limits: In place of each source's or the policy's, for each request by itself.
            progress: As `fetch` takes it, by the request's index.

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
        """Bring all items that lie below a path or match a pattern, as `fetch_many` does.

        What the workspace has from an earlier fetch, unharmed and of the version that the source
        lists now, stays as it is: its receipt is `unchanged`.

        Args:
            source_id: The source.
            path: As `expand` takes it.
            workspace: Directory, made if missing.
            concurrency: How many at once.
            limits: In place of the source's or the policy's, for each item by itself.
            refresh: Fetch what is unchanged, too.

        Raises:
            ItemNotFoundError: A pattern matches nothing, or there is nothing below the path, where
                the source can tell. A source or a folder that is empty gives an empty list.
        """
        return await self._fetcher.fetch_tree(
            source_id, path, workspace, concurrency=concurrency, limits=limits, refresh=refresh
        )

    def iter_fetch_tree(
        self,
        source_id: str,
        path: str | None,
        workspace: str | os.PathLike[str],
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        refresh: bool = False,
    ) -> AsyncIterator[FetchResult]:
        """Yield what `fetch_tree` returns, as it comes, in memory for one page of the listing.

        All items of a connector without the ability `pages` are in memory. Results come in the order in which the fetches
        end. Of two different items that would be one file in the workspace, the one that begins to
        write first has it, and the other is an error. Closing the iterator cancels the fetches that
        are under way; files that are in place stay.

        Args:
            source_id: The source.
            path: As `expand` takes it.
            workspace: Directory, made if missing.
            concurrency: How many at once, also between two results.
            limits: In place of the source's or the policy's, for each item by itself.
            refresh: Fetch what is unchanged, too.

        Raises:
            ItemNotFoundError: As `fetch_tree`; also after results, if listing fails then.
        """
        return self._fetcher.iter_fetch_tree(
            source_id, path, workspace, concurrency=concurrency, limits=limits, refresh=refresh
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
        """Return a stream of an item's bytes, for an `async with` block that holds a connection.

        What a connector cannot stream is fetched into a temporary workspace first. The stream ends
        with all bytes and a receipt, or raises an error.

        Args:
            source_id: The source.
            identifier: As for `fetch`.
            format: Such as `csv` or `parquet`; None is the connector's own.
            limits: In place of the source's or the policy's. The time is that from the opening to
                the last byte, in which the host's own reading counts, too.
            start: The first byte, from 0; None is the beginning.
            end: The byte after the last one; None, or more than there are, is the end.
            parameters: As for `fetch`.

        Raises:
            LimitExceededError: On entering or in the stream, a limit of bytes or time is reached.
            OptionError: The range begins after the end of the content, or ends before it begins.
            ConnectorError: As `fetch`, also in the stream.
        """
        limits = limits or self._fetcher.limits(source_id)
        request = StreamRequest(source_id, identifier, format, limits, start, end, parameters or {})
        async with self._streams.open(request) as stream:
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
        """Divide an item into splits for an `async with` block, in which readers may read them.

        All splits together are the item as it was on entering. What holds that state at the source,
        such as an open transaction, ends with the block; a split that is read later is an error.

        Args:
            source_id: The source.
            identifier: As for `fetch`; stored queries have no splits.
            target_bytes: Bytes that a split should have, as far as they can be estimated.
            max_splits: The most splits.
            key: A column whose ranges divide what cannot be divided otherwise: a query, a view.
            consistent: False to accept splits of different states of the source, where its readers
                cannot have one, such as those of several servers.
            max_age: Seconds after which the block ends with LimitExceededError.

        Raises:
            UnsupportedError: The connector has no splits.
            OptionError: A number is out of its range, or there is no column `key`.
            ConnectorError: The outside system failed.
        """
        request = SplitRequest(
            source_id, identifier, target_bytes, max_splits, key, consistent, max_age
        )
        async with self._planner.plan(request) as plan:
            yield plan

    def read_split(self, split: Split, columns: Sequence[str] | None = None) -> AsyncIterator[Any]:
        """Yield the rows of a split as `pyarrow.RecordBatch`, of a plan of this or another process.

        Close the iterator, or read it to its end: it holds a connection.

        Args:
            split: A split of a plan whose block has not ended.
            columns: The columns to read, in this order; None is all.

        Raises:
            ConflictError: The source has another configuration now, or the split was changed.
            OptionError: There is no such column.
            ConnectorError: The plan has ended, or the outside system failed.
        """
        return self._planner.read(split, columns)

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
        keep: bool = False,
    ) -> WorkspaceSession:
        """Return a workspace that is deleted when its `async with` block ends, unless it is kept.

        A kept one has its files when a workspace of the same id is opened later, also by another
        process; `sweep_workspaces` deletes those that nobody has opened for long.

        Args:
            workspace_id: The host's name for it: letters, digits, `.`, `_`, `-`.
            root: The directory that holds it under that name; None takes a temporary one.
            sources: The ids of the sources that may be fetched from; None grants all.
            quota: Bytes that its files may have together; None is no bound.
            limits: Of each fetch, in place of the source's or the policy's.
            keep: Leave the directory with its files in `root`.

        Raises:
            OptionError: `workspace_id` is malformed, or `keep` is given without `root`.
            RegistryError: On entering, that a workspace of that id is open in `root`; on leaving,
                that not everything could be deleted.
        """
        self._records.check_open()

        def refusal(source_id: str) -> PolicyError:
            granted = ", ".join(sorted(sources or ())) or "none"
            return PolicyError(
                f"source {source_id!r} is not granted to workspace {workspace_id!r}; "
                f"granted: {granted}"
            )

        principal = Principal(
            f"workspace {workspace_id}",
            roles={ADMIN} if sources is None else (),
            grants=[Grant(source_id, RIGHTS) for source_id in sources or ()],
        )
        access = Access(self._operations, principal, limits=limits, replaces=True, refusal=refusal)
        return access.workspace(workspace_id, root=root, quota=quota, keep=keep)

    def sweep_workspaces(self, root: str | os.PathLike[str], older_than: float) -> list[str]:
        """Delete the workspaces in a directory that no process has open and nobody used for long.

        Those are kept ones, and what killed hosts have left. Whatever else is in the directory
        stays as it is, and links are not followed. It takes as long as deleting the files does: in
        a coroutine, `await asyncio.to_thread(registry.sweep_workspaces, root, older_than)`.

        Args:
            root: The directory that was given to `workspace`.
            older_than: Seconds without any change in a workspace.

        Returns:
            The names of the directories that were deleted, in order.

        Raises:
            OptionError: `older_than` is negative.
            RegistryError: The directory cannot be read.
        """
        self._records.check_open()
        return sweep_workspaces(root, older_than)

    def access(
        self,
        principal: Principal,
        *,
        limits: Limits | None = None,
        quota: int | None = None,
        concurrency: int | None = 4,
    ) -> Access:
        """Return the registry's operations on data, narrowed to what a principal may do.

        Args:
            principal: The caller that the host acts for.
            limits: Of each fetch, in addition to the source's or the policy's: the smaller counts.
            quota: Bytes that the files of each workspace may have together; None is no bound.
            concurrency: Fetches and streams at once of all objects for principals of the same id,
                whatever bounds those objects have; more wait. None is no bound, and not counted.

        Raises:
            OptionError: `quota` is negative, or `concurrency` not at least 1.
        """
        self._records.check_open()
        return Access(
            self._operations, principal, limits=limits, quota=quota, concurrency=concurrency
        )

    def cache_metadata(self, source_id: str, metadata: dict[str, Any]) -> None:
        """Keep the host's own metadata of a source for `cache_ttl` seconds."""
        self._cache.put(source_id, metadata)

    def get_cached_metadata(self, source_id: str) -> dict[str, Any] | None:
        """Return a copy of the metadata that `cache_metadata` keeps, or None."""
        metadata: dict[str, Any] | None = self._cache.get(source_id)
        return metadata

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

        Operations that start later raise `RegistryError`, with every store.
        """
        self._records.close()
        try:
            await self._pools.close_pools(timeout=timeout)
        finally:
            await asyncio.to_thread(self.store.close)

    async def _register(
        self,
        configs: Sequence[DataSourceConfig],
        *,
        replace: bool,
        expected: int | None = None,
        test_connection: bool = False,
        by_administrator: bool,
    ) -> None:
        self._records.check_open()
        if expected is not None and not replace:
            raise OptionError("'expected' is the version of a source that is replaced")
        source_ids = [config.id for config in configs]
        async with observe_each(self.plugins, "register", source_ids):
            validated = []
            for config in configs:
                validated.append(
                    await self._factory.validate(config, by_administrator=by_administrator)
                )
                if test_connection:
                    await self._tester.test(config)
                await asyncio.sleep(0)  # thousands must not hold up the event loop
            if expected is not None:
                await self._updates.expected_record(configs[0].id, expected)
            await asyncio.to_thread(
                self._records.save, validated, replace=replace, expected=expected
            )
        for index, source_id in enumerate(source_ids):
            if index % SOURCES_PER_TURN == 0:
                await asyncio.sleep(0)
            self._cache.clear(source_id)
            await self._pools.close_pools(source_id)
            if record := self._records.store.get(source_id):
                self.plugins.notify(
                    "datasources_source_registered", config=self._records.masked_config(record)
                )


def _close_unwanted(opening: Future[Any]) -> None:
    if opening.exception() is None:
        opening.result().store.close()
