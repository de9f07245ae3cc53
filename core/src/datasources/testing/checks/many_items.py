"""Checks of listings that a service delivers in several pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import pytest_asyncio

from datasources import DataItem
from datasources.testing.base import Checks
from datasources.testing.subject import Subject


class ManyItemsChecks(Checks):
    """A folder of more items than a page has is listed completely, each item once."""

    @pytest_asyncio.fixture
    async def paged(self, subject: Subject) -> AsyncIterator[Any]:
        """A connector of the source with many items, as `Any`: it is checked by calls."""
        subject.given("many")
        connector = subject.connector(subject.many_options)
        await connector.connect()
        yield connector
        await connector.disconnect()

    async def test_a_listing_of_many_pages_is_complete(self, paged: Any, subject: Subject) -> None:
        folder = _folder(subject)
        _assert_complete(await paged.list_items(folder), subject, f"list_items({folder!r})")
        if folder:
            _assert_complete(await paged.list_items(), subject, "list_items()")

    async def test_iterating_over_many_pages_is_complete(
        self, paged: Any, subject: Subject
    ) -> None:
        _needs(subject, "iter_items")
        folder = _folder(subject)
        items = [item async for item in paged.iter_items(folder)]
        _assert_complete(items, subject, f"iter_items({folder!r})")

    async def test_a_pattern_over_many_pages_is_complete(
        self, paged: Any, subject: Subject
    ) -> None:
        _needs(subject, "glob")
        folder = _folder(subject)
        for pattern in (f"{folder}/*", f"{folder}/**") if folder else ("*",):
            _assert_complete(await paged.glob_items(pattern), subject, f"glob_items({pattern!r})")


def _folder(subject: Subject) -> str | None:
    """Return the folder that the many items lie in, or `None` if they lie in none."""
    folders = {path.rpartition("/")[0] for path in subject.many}
    assert len(folders) == 1, f"Subject.many must lie in one folder, not in {sorted(folders)[:5]}"
    return folders.pop() or None


def _assert_complete(items: Iterable[DataItem], subject: Subject, call: str) -> None:
    paths = [item.path for item in items]
    missing = sorted(set(subject.many) - set(paths))
    assert not missing, (
        f"{call} lacks {len(missing)} of {len(subject.many)} items, as {missing[0]!r}: ask for all "
        "pages"
    )
    more = len(paths) - len(set(paths))
    assert not more, f"{call} shows {more} items more than once"


def _needs(subject: Subject, ability: str) -> None:
    if ability not in subject.abilities:
        pytest.skip(f"not applicable: the subject does not claim the ability {ability!r}")
