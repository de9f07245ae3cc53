"""Checks that a fetch brings what the source holds now, and skips only what is unchanged."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from datasources import DataSourceConnector, DataSourceError, DataSourceRegistry, Workspace
from datasources.models import FetchReceipt
from datasources.testing.base import Checks, registry_of
from datasources.testing.subject import Subject
from datasources.testing.watch import assert_unchanged

_PARTS = 4  # the item is changed after this many of its parts, one after the other
_BLOCKED = 2.0  # seconds that a fetch waits for a change, which a lock of its own may hold up


class FreshnessChecks(Checks):
    """A changed item comes anew, an unchanged one is skipped, and no fetch mixes versions."""

    async def test_a_changed_item_is_fetched_anew(self, subject: Subject, workspace: Path) -> None:
        change = subject.given("change")
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config())
            for _ in range(3):
                identifier, content = await asyncio.to_thread(change)
                receipt = await _fetched(registry, identifier, workspace)
                assert Path(receipt.path).read_bytes() == content, (
                    f"{identifier!r} was changed, but fetched as it was: DataItem.version must "
                    "change with the content"
                )

    async def test_an_unchanged_item_is_not_fetched_anew(
        self, subject: Subject, workspace: Path
    ) -> None:
        identifier, _ = await asyncio.to_thread(subject.given("change"))
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config())
            items = {item.path: item for item in await registry.list_items("subject")}
            if items[identifier].version is None:
                pytest.skip("not applicable: the listing has no versions")
            for unchanged in (False, True):
                receipt = await _fetched(registry, identifier, workspace)
                assert receipt.unchanged is unchanged, (
                    f"{identifier!r} is as it was, and must not be fetched anew: DataItem.version "
                    "may change only with the content"
                )

    async def test_an_item_changed_during_a_fetch_is_an_error_or_whole(
        self, connector: DataSourceConnector, subject: Subject, tmp_path: Path
    ) -> None:
        change = subject.given("change")
        identifier, content = await asyncio.to_thread(change)
        contents = {content}
        for part in range(1, _PARTS + 1):
            changing = _ChangeOnArrival(change, part)
            place = tmp_path / str(part)
            path = None
            try:
                path = await connector.fetch_data(identifier, Workspace(place, progress=changing))
            except DataSourceError:
                assert_unchanged(place, {}, "a fetch of an item that was changed meanwhile")
            contents |= await asyncio.to_thread(changing.result)
            if path is not None:
                assert Path(path).read_bytes() in contents, (
                    f"{identifier!r} was changed during a fetch, which brought neither the former "
                    "nor the later content: ask for the version that the first part had"
                )


class _ChangeOnArrival:
    """Changes the item when a part of it arrives, as the progress of a workspace."""

    def __init__(self, change: Callable[[], tuple[str, bytes]], part: int) -> None:
        self._left = part
        self._contents: set[bytes] = set()
        self._thread = threading.Thread(target=lambda: self._contents.add(change()[1]))

    def __call__(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._thread.start()
            self._thread.join(_BLOCKED)

    def result(self) -> set[bytes]:
        """Return the new content, if the item was changed."""
        if self._thread.ident is not None:
            self._thread.join()
        return self._contents


async def _fetched(registry: DataSourceRegistry, identifier: str, workspace: Path) -> FetchReceipt:
    (result,) = await registry.fetch_tree("subject", identifier, workspace)
    if result.error is not None:
        raise result.error
    assert result.receipt is not None
    return result.receipt
