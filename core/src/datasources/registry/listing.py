"""List the items of a source, and expand folders and patterns to items."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from datasources.connector import (
    DataSourceConnector,
    SupportsGlob,
    SupportsIterItems,
    SupportsPages,
    SupportsParameters,
)
from datasources.connector_errors import ConnectorErrors
from datasources.errors import DataFetchError, DataSourceError, ItemNotFoundError
from datasources.models import DataItem, Page
from datasources.plugins import Plugins
from datasources.registry.observing import observe
from datasources.registry.pools import SourcePools
from datasources.registry.queries import STORED_QUERY, query_items
from datasources.registry.records import SourceRecords
from datasources.stored_queries import QUERY_PREFIX
from datasources.tabular import WILDCARDS, glob_escape, glob_prefix, glob_regex

_PAGE = 10_000  # items that `iter_expand` asks for at once; a page may read a whole folder anew


class ItemLister:
    """Lists items; every method is one operation that observers see."""

    def __init__(self, records: SourceRecords, pools: SourcePools, plugins: Plugins) -> None:
        self._records = records
        self._pools = pools
        self._plugins = plugins

    async def list_items(self, source_id: str, path: str | None) -> list[DataItem]:
        """Return all items, or those below `path`."""
        with observe(self._plugins, "list_items", source_id, path=path) as outcome:
            async with self._pools.operation(source_id) as connector:
                items = await connector.list_items(path)
                return outcome.record([*self._queries(connector, path), *items])

    async def iter_items(self, source_id: str, path: str | None) -> AsyncGenerator[DataItem]:
        """Yield the items that `list_items` returns, page by page where the connector can."""
        with observe(self._plugins, "iter_items", source_id, path=path) as outcome:
            outcome.items = 0
            lease = self._pools.lease(source_id)
            async with lease as connector, aclosing(iterate(connector, path)) as items:
                for query in self._queries(connector, path):
                    outcome.items += 1
                    yield query
                while True:
                    # Closing the source may cancel the connector, but not the code that iterates.
                    async with lease.cancelled_by_close():
                        with ConnectorErrors(connector):
                            item = await anext(items, None)
                    if item is None:
                        return
                    outcome.items += 1
                    yield item

    async def glob_items(self, source_id: str, pattern: str) -> list[DataItem]:
        """Return the items whose path matches a pattern."""
        with observe(self._plugins, "glob_items", source_id, pattern=pattern) as outcome:
            async with self._pools.operation(source_id) as connector:
                matches = glob_regex(pattern).fullmatch
                queries = [item for item in self._queries(connector, None) if matches(item.path)]
                if pattern.startswith(QUERY_PREFIX) and hasattr(connector, "fetch_query"):
                    return outcome.record(queries)
                return outcome.record([*queries, *await _glob(connector, pattern)])

    def _queries(self, connector: DataSourceConnector, path: str | None) -> list[DataItem]:
        """Return the stored queries that stand in the list of a path: only in that of all items."""
        if path is not None or not isinstance(connector, SupportsParameters):
            return []
        return query_items(self._records, connector.config.id)

    async def expand(
        self, source_id: str, path: str | None, *, queries: bool = True
    ) -> list[DataItem]:
        """Return the items that a folder, a pattern or a name stands for.

        Stored queries are among them only if the path begins with `query:`.

        Args:
            source_id: The source.
            path: The folder, pattern or name.
            queries: False to describe no pattern that matches nothing, as it may be a query.

        Raises:
            ItemNotFoundError: A pattern matches nothing, and is not the name of an item or a folder
                either; or there is nothing below the path, where the source can tell.
        """
        is_query = path is not None and path.startswith(QUERY_PREFIX)
        if path and is_query and (items := await self.glob_items(source_id, path)):
            return items
        items = await self._expand(source_id, path, queries=queries)
        return [item for item in items if item.metadata.get("kind") != STORED_QUERY]

    async def iter_expand(
        self, source_id: str, path: str | None, *, queries: bool = True
    ) -> AsyncGenerator[DataItem]:
        """Yield the items that `expand` returns, in memory for a page where the connector has pages.

        The order is that of the connector, also for a pattern.

        Raises:
            ItemNotFoundError: As `expand`.
        """
        is_empty = True
        if not (path or "").startswith(QUERY_PREFIX):
            async with aclosing(self._iter_below(source_id, path or "")) as items:
                try:
                    async for item in items:
                        if item.metadata.get("kind") != STORED_QUERY:
                            is_empty = False
                            yield item
                except ItemNotFoundError:
                    if not is_empty:  # the folder was removed while it was listed
                        raise
        if is_empty:  # a name, a query, or nothing
            for item in await self.expand(source_id, path, queries=queries):
                yield item

    async def _iter_below(self, source_id: str, path: str) -> AsyncGenerator[DataItem]:
        """Yield the items below a folder, or those that a path with wildcards names or matches."""
        folder, pattern = path.rstrip("/"), None
        if not WILDCARDS.isdisjoint(path):
            async with self._pools.operation(source_id) as connector:
                named = await _items_named(connector, path)
            for item in named:
                yield item
            if named:
                return
            folder, pattern = glob_prefix(path).rpartition("/")[0], glob_regex(path)
        async with aclosing(self._iter_pages(source_id, folder or None)) as items:
            async for item in items:
                if pattern is None or pattern.fullmatch(item.path):
                    yield item

    async def _iter_pages(self, source_id: str, path: str | None) -> AsyncGenerator[DataItem]:
        """Yield the items below a path; no connection is held while an item is yielded.

        A fetch of the item may need the only one of the pool.
        """
        cursor = None
        while True:
            with observe(self._plugins, "list_page", source_id, path=path) as outcome:
                async with self._pools.operation(source_id) as connector:
                    page = outcome.record(await _list_page(connector, path, cursor))
            for item in page.items:
                yield item
            cursor = page.cursor
            if cursor is None:
                return

    async def _expand(self, source_id: str, path: str | None, *, queries: bool) -> list[DataItem]:
        if path and not WILDCARDS.isdisjoint(path):
            return await self._expand_pattern(source_id, path, queries=queries)
        if not path or path.endswith("/"):
            return await self.list_items(source_id, (path or "").rstrip("/") or None)
        try:
            below = await self.list_items(source_id, path)
        except ItemNotFoundError:
            if exact := await self.glob_items(source_id, path):
                return exact
            raise
        return below or await self.glob_items(source_id, path)

    async def _expand_pattern(
        self, source_id: str, pattern: str, *, queries: bool
    ) -> list[DataItem]:
        """Expand a path with wildcards, which may also be the name of an item or a folder.

        The name goes first: for `report[1].csv` the item of that name, not `report1.csv`.
        """
        async with self._pools.operation(source_id) as connector:
            named = await _items_named(connector, pattern)
        if items := named or await self.glob_items(source_id, pattern):
            return items
        unmatched = f"no item of source {source_id!r} matches {pattern!r}"
        if not queries:
            raise ItemNotFoundError(unmatched)
        try:
            # `select * from t` is an item that no listing has.
            async with self._pools.operation(source_id) as connector:
                await connector.get_metadata(pattern)
        except ItemNotFoundError as exc:
            raise ItemNotFoundError(unmatched) from exc
        except DataFetchError as exc:
            raise ItemNotFoundError(f"{unmatched}; taken as it is: {exc}") from exc
        return [DataItem(pattern, pattern)]


async def _list_page(connector: DataSourceConnector, path: str | None, cursor: str | None) -> Page:
    """Return the next items below a path; all of a connector without pages."""
    if isinstance(connector, SupportsPages):
        return await connector.list_page(path, cursor=cursor, limit=_PAGE)
    return Page(await connector.list_items(path), None)


async def _glob(connector: DataSourceConnector, pattern: str) -> list[DataItem]:
    """Return the items whose path matches a pattern, also from a connector without patterns."""
    if isinstance(connector, SupportsGlob):
        return await connector.glob_items(pattern)
    matches, folder = glob_regex(pattern).fullmatch, glob_prefix(pattern).rpartition("/")[0]
    return [item for item in await connector.list_items(folder or None) if matches(item.path)]


async def _items_named(connector: DataSourceConnector, path: str) -> list[DataItem]:
    """Return the item that a path with wildcards names literally, or the items of such a folder.

    A path that ends in `/` names a folder only. The list is empty if the source has no such item
    or folder, or cannot list it.
    """
    folder = path.rstrip("/")
    try:
        if folder == path and (items := await _glob(connector, glob_escape(path))):
            return items
        below = await connector.list_items(folder)
    except DataSourceError:
        return []
    return [item for item in below if item.path.startswith(f"{folder}/")]


async def iterate(connector: DataSourceConnector, path: str | None) -> AsyncGenerator[DataItem]:
    """Yield the items of a connector, one by one or page by page if it can list them so."""
    if isinstance(connector, SupportsIterItems):
        async for item in connector.iter_items(path):
            yield item
        return
    cursor = None
    while True:
        page = await _list_page(connector, path, cursor)
        for item in page.items:
            yield item
        cursor = page.cursor
        if cursor is None:
            return
