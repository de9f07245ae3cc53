"""Bad connectors for the checks that need more of a system: queries, pages, changes, rotation."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from typing import Any

from datasources import (
    AuthenticationError,
    ConnectError,
    DataFetchError,
    DataItem,
    ItemNotFoundError,
    LimitExceededError,
    Workspace,
)
from tests.testing.good import RUNNING, STORE, GoodConnector
from tests.testing.spoil import (
    CONTENTS,
    Bad,
    after,
    before,
    by_hand,
    fetching,
    made,
    raising,
    through,
)


class _Leftover(GoodConnector):
    """Leaves the rest of a result that was cut short in its connection."""

    __module__ = "datasources_kit"
    _rest = b""

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        try:
            return await super().fetch_data(identifier, workspace)
        except LimitExceededError:
            self._rest = b"the rest\n"
            raise

    async def _content(self, identifier: str) -> bytes:
        rest, self._rest = self._rest, b""
        return rest + await super()._content(identifier)


async def _try_again(self: Any, identifier: str, workspace: Workspace) -> str:
    for _ in range(3):
        for _ in range(6):
            await asyncio.sleep(0)
        if self._connection is not None:
            with workspace.create(identifier) as file:
                file.write(CONTENTS[identifier])
            return file.path
        await asyncio.sleep(0.03)
    raise ConnectError("not connected after 3 attempts")


async def _disconnect_and_go_on(self: Any) -> None:
    opened, self._connection = self._connection, None
    if opened is not None:
        os.close(opened)


async def _abandon(self: Any, identifier: str, target: Workspace) -> str:
    """End here, while the system works on."""
    try:
        return await GoodConnector._fetch_heavy(self, identifier, target)
    except asyncio.CancelledError:
        RUNNING.append("abandoned")
        raise


async def _first_page(self: Any, path: str | None = None) -> Any:
    for item in (await self.list_items(path))[:10]:
        yield item


async def _mix(_: Any, identifier: str, workspace: Workspace) -> str:
    with workspace.create(identifier) as file:
        for start in range(0, len(STORE[identifier]), 5):
            file.write(STORE[identifier][start : start + 5])
            await asyncio.sleep(0)
    return file.path


def _execute(identifier: str) -> bool:
    """Do what a statement says; return False if it is none."""
    action, _, name = identifier.partition(" ")
    if action == "drop":
        STORE.pop(name, None)
    return action == "drop"


async def _content_after_executing(self: Any, identifier: str) -> bytes:
    return b"" if _execute(identifier) else await GoodConnector._content(self, identifier)


async def _content_or_error_after_executing(self: Any, identifier: str) -> bytes:
    if _execute(identifier):
        raise ItemNotFoundError("a statement has no result")
    return await GoodConnector._content(self, identifier)


async def _upload_first_part(
    self: Any, local_path: str, blob_name: str, overwrite: bool = True
) -> DataItem:
    STORE[blob_name] = Path(local_path).read_bytes()[:512]
    return DataItem(blob_name, blob_name)


def _refuse_as_other_error(connector: Any) -> None:
    try:
        connector._admit()
    except AuthenticationError:
        raise DataFetchError("something is wrong") from None


_versions = itertools.count()

_abandoning = made(_fetch_heavy=_abandon)

AT_SYSTEM: dict[str, Bad] = {
    # Queries.
    "test_a_query_brings_exactly_its_bytes": Bad(
        "came otherwise", after("_content", lambda content: content + b"\n")
    ),
    "test_distinct_queries_are_distinct_files": Bad(
        "overwrite each other", fetching(through(lambda c, _: c, lambda _: "result.csv"))
    ),
    "test_a_query_over_max_bytes_leaves_nothing": Bad(
        "DID NOT RAISE", fetching(through(lambda content, limits: content[: limits.max_bytes]))
    ),
    "test_a_query_is_cut_after_max_rows": Bad("assert", fetching(through(lambda c, _: c))),
    "test_a_cancelled_query_leaves_no_half_file": Bad(
        "a cancelled query left", fetching(by_hand(str, 5))
    ),
    "test_disconnecting_during_a_query_ends_it": Bad(
        "do not try again after disconnect", fetching(_try_again)
    ),
    # Under way.
    "test_disconnecting_ends_fetches_under_way": Bad(
        "went on for", made(disconnect=_disconnect_and_go_on)
    ),
    "test_cancelling_ends_fetches_under_way": Bad("the system works on", _abandoning),
    "test_unregistering_ends_fetches_under_way": Bad("the system works on", _abandoning),
    "test_the_time_limit_ends_fetches_under_way": Bad("the system works on", _abandoning),
    "test_a_fetch_cut_short_does_not_spoil_the_next": Bad("came otherwise", _Leftover),
    # Pages.
    "test_a_listing_of_many_pages_is_complete": Bad(
        "lacks 15 of 25", after("list_items", lambda items: items[:10])
    ),
    "test_iterating_over_many_pages_is_complete": Bad("lacks 15", made(iter_items=_first_page)),
    "test_a_pattern_over_many_pages_is_complete": Bad(
        "shows 1 items more than once", after("glob_items", lambda items: items + items[-1:])
    ),
    # Freshness.
    "test_a_changed_item_is_fetched_anew": Bad(
        "but fetched as it was", made(_version=lambda *_: "v1")
    ),
    "test_an_unchanged_item_is_not_fetched_anew": Bad(
        "must not be fetched anew", made(_version=lambda *_: f"v{next(_versions)}")
    ),
    "test_an_item_changed_during_a_fetch_is_an_error_or_whole": Bad(
        "neither the former", fetching(_mix)
    ),
    # Only reading.
    "test_statements_that_write_are_refused": Bad(
        "was not refused", made(_content=_content_after_executing)
    ),
    "test_refused_statements_change_nothing": Bad(
        "changed the listing", made(_content=_content_or_error_after_executing)
    ),
    # Rotation.
    "test_a_rotated_secret_is_an_authentication_error": Bad(
        "ConnectError", made(_admit=raising(ConnectError("no")))
    ),
    "test_a_rotated_secret_is_read_again_after_one_refusal": Bad(
        "one refusal is enough", before("_all", _refuse_as_other_error)
    ),
    # Uploads.
    "test_an_upload_of_many_parts_is_whole": Bad(
        "came back otherwise", made(upload_file=_upload_first_part)
    ),
}
