"""Checks of listing page by page: with the ability `pages`, and without it through a registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from datasources import DataSourceConnector, ItemNotFoundError, OptionError, Page
from datasources.testing.base import Checks, registry_of
from datasources.testing.checks.abilities import _needs
from datasources.testing.stalls import assert_never_stalls
from datasources.testing.subject import Subject

_MOST_PAGES = 10_000

ListPage = Callable[..., Awaitable[Page]]


class PageChecks(Checks):
    """Pages together are the listing; a cursor goes on where its page ended."""

    async def test_pages_together_are_the_listing(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "pages")
        pager: Any = connector
        for path in (None, "/"):
            try:
                expected = sorted(item.path for item in await connector.list_items(path))
            except ItemNotFoundError:  # a source without folders
                continue
            for limit in (1, 2, 5_000):
                listed = await _all_pages(pager.list_page, path, limit)
                assert sorted(listed) == expected, f"the pages of {limit} items of {path!r}"

    async def test_pages_have_one_order(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "pages")
        pager: Any = connector
        orders = [await _all_pages(pager.list_page, None, limit) for limit in (1, 5_000)]
        assert orders[0] == orders[1], "pages of another size have another order"

    async def test_a_cursor_can_be_used_by_another_connector(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "pages")
        pager: Any = connector
        first = await pager.list_page(None, cursor=None, limit=1)
        assert first.cursor is not None, "there are more items, but no cursor"
        expected = await pager.list_page(None, cursor=first.cursor, limit=1)
        other: Any = subject.connector()
        await other.connect()
        try:
            page = await other.list_page(None, cursor=first.cursor, limit=1)
        finally:
            await other.disconnect()
        assert [i.path for i in page.items] == [i.path for i in expected.items]

    async def test_a_cursor_of_nothing_is_an_option_error(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "pages")
        pager: Any = connector
        try:
            await pager.list_page(None, cursor="../no cursor\0", limit=1)
        except OptionError:
            return
        raise AssertionError("a text that is no cursor was taken as one")

    async def test_pages_keep_the_loop_free(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "pages")
        pager: Any = connector
        await assert_never_stalls(
            lambda: pager.list_page(None, cursor=None, limit=100), "list_page"
        )

    async def test_pages_through_a_registry_are_the_listing(self, subject: Subject) -> None:
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config())
            expected = [item.path for item in await registry.list_items("subject")]

            async def list_page(path: str | None, *, cursor: str | None, limit: int) -> Page:
                return await registry.list_page("subject", path, limit=limit, cursor=cursor)

            assert sorted(await _all_pages(list_page, None, 2)) == sorted(expected)


async def _all_pages(list_page: ListPage, path: str | None, limit: int) -> list[str]:
    """Return the paths of all pages, in order."""
    paths: list[str] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await list_page(path, cursor=cursor, limit=limit)
        assert len(page.items) <= limit, f"a page of {len(page.items)} items, limit {limit}"
        paths += [item.path for item in page.items]
        if page.cursor is None:
            return paths
        assert page.cursor != cursor, "a page has its own cursor again"
        cursor = page.cursor
    raise AssertionError(f"there are more than {_MOST_PAGES} pages")
