"""List page by page, with cursors that only their principal can use."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import NamedTuple

from datasources.connector import DataSourceConnector, SupportsPages, SupportsParameters
from datasources.credentials import CredentialManager
from datasources.errors import CursorError, OptionError
from datasources.models import DataItem, Page, is_whole
from datasources.plugins import Plugins
from datasources.registry.listing import iterate
from datasources.registry.observing import observe
from datasources.registry.pools import SourcePools
from datasources.registry.queries import query_items
from datasources.registry.records import SourceRecords

_PURPOSE = "cursors"
_MAX_AGE = 3600  # seconds that a cursor can be used: reading a page and asking for the next
_MAX_LIMIT = 10_000  # items of a page, which is in memory as a whole
_MAX_LENGTH = 64 * 1024  # characters of a cursor that are looked at


class ItemPager:
    """Lists one page; every call is one operation that observers see."""

    def __init__(
        self,
        records: SourceRecords,
        pools: SourcePools,
        credentials: CredentialManager,
        plugins: Plugins,
    ) -> None:
        self._records = records
        self._pools = pools
        self._credentials = credentials
        self._plugins = plugins

    async def list_page(
        self, principal_id: str, source_id: str, path: str | None, limit: int, cursor: str | None
    ) -> Page:
        """Return a page; see `DataSourceRegistry.list_page`.

        A cursor of ours is an encrypted token that holds the principal, the source, the path, the
        source's identity and the connector's cursor. Stored queries come first: among them, the cursor is the number of
        those before the page.
        """
        if not (is_whole(limit, 1) and limit <= _MAX_LIMIT):
            raise OptionError(f"'limit' must be between 1 and {_MAX_LIMIT}")
        with observe(self._plugins, "list_page", source_id, path=path) as outcome:
            binding = [principal_id, source_id, path, self._identity(source_id)]
            inner = None if cursor is None else self._open(cursor, binding)
            async with self._pools.operation(source_id) as connector:
                # The source may have been removed, and registered again, while this waited.
                if cursor is not None and self._identity(source_id) != binding[-1]:
                    raise _cursor_error()
                page = await self._page(connector, path, inner, limit)
            outcome.items = len(page.items)
            if page.cursor is None:
                return Page(page.items, None)
            content = json.dumps([*binding, page.cursor]).encode()
            return Page(page.items, self._credentials.seal(_PURPOSE, content))

    async def _page(
        self, connector: DataSourceConnector, path: str | None, cursor: str | int | None, limit: int
    ) -> _Page:
        """Return a page of the stored queries and the connector's items after them."""
        if isinstance(cursor, str):
            return _Page(*await _list_page(connector, path, cursor, limit))
        queries: list[DataItem] = []
        if path is None and isinstance(connector, SupportsParameters):
            queries = query_items(self._records, connector.config.id)
        start = cursor or 0
        items = queries[start : start + limit]
        if len(items) == limit:
            return _Page(items, start + limit)
        page = await _list_page(connector, path, None, limit - len(items))
        return _Page([*items, *page.items], page.cursor)

    def _identity(self, source_id: str) -> float | None:
        """Return what tells a source from one that was registered under its id before or after it.

        That is the time of its creation, which updates of its options leave as it is. Processes
        that register the same sources in memory, as from files, under one key have no common time:
        their cursors are bound to none, so that they can be used in all of them.
        """
        record = self._records.get(source_id)
        if self._records.store.persistent or self._credentials.generated:
            return record.created_at
        return None

    def _open(self, cursor: object, binding: list[str | float | None]) -> str | int:
        """Return the connector's cursor.

        Raises:
            CursorError: The token is forged or too old, or of another principal, path or source,
                which may have had the same id.
        """
        content = None
        if isinstance(cursor, str) and len(cursor) <= _MAX_LENGTH:
            content = self._credentials.unseal(_PURPOSE, cursor, max_age=_MAX_AGE)
        if content is not None:
            *bound, inner = json.loads(content)
            if bound == binding and isinstance(inner, (str, int)):
                return inner
        raise _cursor_error()


def _cursor_error() -> CursorError:
    return CursorError(
        "the cursor is not one of this listing, or is more than an hour old; list from the first "
        "page again"
    )


class _Page(NamedTuple):
    """A page before its cursor is encrypted."""

    items: list[DataItem]
    cursor: str | int | None
    """The connector's own; or the number of stored queries that came before, as long as nothing
    of the connector has."""


async def _list_page(
    connector: DataSourceConnector, path: str | None, cursor: str | None, limit: int
) -> Page:
    if isinstance(connector, SupportsPages):
        return await connector.list_page(path, cursor=cursor, limit=limit)
    # Without the ability everything is listed anew, and the cursor is the number of items to skip.
    try:
        skipped = int(cursor or 0)
    except ValueError:  # of a connector that had the ability, before it was replaced by another
        raise _cursor_error() from None
    items: list[DataItem] = []
    async with aclosing(iterate(connector, path)) as listing:
        number = 0
        async for item in listing:
            if number >= skipped + limit:
                return Page(items, str(number))
            if number >= skipped:
                items.append(item)
            number += 1
    return Page(items, None)
