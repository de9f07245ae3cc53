"""Bad connectors for the checks of pages and of identifiers."""

from __future__ import annotations

from typing import Any

from datasources import OptionError, Page
from tests.testing.good import GoodConnector
from tests.testing.spoil import Bad, after, made, stalls


async def _order_by_limit(
    self: Any, path: str | None = None, *, cursor: str | None = None, limit: int
) -> Page:
    page = await GoodConnector.list_page(self, path, cursor=cursor, limit=limit)
    return Page(page.items[::-1] if limit > 1 else page.items, page.cursor)


async def _remember_cursors(
    self: Any, path: str | None = None, *, cursor: str | None = None, limit: int
) -> Page:
    cursors = self.__dict__.setdefault("_cursors", {None})
    if cursor not in cursors:
        raise OptionError("the cursor is another connector's")
    page = await GoodConnector.list_page(self, path, cursor=cursor, limit=limit)
    cursors.add(page.cursor)
    return page


async def _take_any_cursor(
    self: Any, path: str | None = None, *, cursor: str | None = None, limit: int
) -> Page:
    try:
        return await GoodConnector.list_page(self, path, cursor=cursor, limit=limit)
    except OptionError:
        return await GoodConnector.list_page(self, path, cursor=None, limit=limit)


async def _ignore_limit(
    self: Any, path: str | None = None, *, cursor: str | None = None, limit: int
) -> Page:
    return Page(await self.list_items(path), None)


def _fails(cls: type, identifier: str) -> Any:
    raise ValueError(identifier)


LISTED: dict[str, Bad] = {
    "test_pages_together_are_the_listing": Bad(
        "the pages of", after("list_page", lambda page: Page(page.items[:-1], page.cursor))
    ),
    "test_pages_have_one_order": Bad("another order", made(list_page=_order_by_limit)),
    "test_a_cursor_can_be_used_by_another_connector": Bad(
        "another connector's", made(list_page=_remember_cursors)
    ),
    "test_a_cursor_of_nothing_is_an_option_error": Bad(
        "was taken as one", made(list_page=_take_any_cursor)
    ),
    "test_pages_keep_the_loop_free": Bad("list_page", stalls("list_page")),
    "test_pages_through_a_registry_are_the_listing": Bad(
        "a page of 3 items, limit 2", made(list_page=_ignore_limit)
    ),
    "test_listed_items_are_classified_as_items": Bad(
        "not call these listed paths items",
        made(
            identifier_kind=classmethod(
                lambda cls, identifier: "query" if "/" in identifier else "item"
            )
        ),
    ),
    "test_a_listed_path_is_its_own_item_path": Bad(
        "changes these listed paths",
        made(item_path=classmethod(lambda cls, identifier: identifier.upper())),
    ),
    "test_any_text_is_classified_without_a_connection": Bad(
        "ValueError", made(item_path=classmethod(_fails))
    ),
}
