"""Bad connectors for the checks of what one does once it is connected."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from datasources import (
    ColumnStatistics,
    ConnectError,
    DataFetchError,
    DataItem,
    ItemNotFoundError,
    Preview,
    Workspace,
)
from tests.testing.good import ABILITIES, STORE, GoodConnector
from tests.testing.spoil import (
    OPENED,
    Bad,
    after,
    before,
    busy,
    by_hand,
    connect_loudly,
    each,
    fetching,
    keeps_open,
    made,
    opener,
    options,
    rows,
    stalls,
    swallows,
    through,
    when_missing,
)


class _OneAtATime(GoodConnector):
    """Takes one connection and refuses others, as a licence may demand."""

    __module__ = "datasources_kit"
    open_ones = 0

    async def connect(self) -> bool:
        if not self._connection:
            if type(self).open_ones:
                raise ConnectError("there is a connection already")
            type(self).open_ones += 1
        return await super().connect()

    async def disconnect(self) -> None:
        type(self).open_ones -= self._connection is not None
        await super().disconnect()


class _Broken(GoodConnector):
    """Works no more once a call has failed or was cancelled."""

    __module__ = "datasources_kit"
    _broken = False

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        if self._broken:
            raise DataFetchError("the connection is in an unknown state")
        try:
            return await super().fetch_data(identifier, workspace)
        except BaseException:
            self._broken = True
            raise


async def _list_one_page(self: Any, path: str | None = None) -> Any:
    for item in (await self.list_items(path))[:1]:
        yield item


async def _list_once(self: Any, path: str | None = None) -> Any:
    found = await self.list_items(path)
    if getattr(self, "_listing", False):
        found = []
    self._listing = True
    for item in found:
        yield item


async def _list_below_anything(self: Any, path: str | None = None) -> list[DataItem]:
    return await GoodConnector.list_items(self)


async def _list_no_folders(self: Any, path: str | None = None) -> list[DataItem]:
    return await GoodConnector.list_items(self, None if path == "/" else path)


async def _list_unknown_fails(self: Any, path: str | None = None) -> list[DataItem]:
    found = await GoodConnector.list_items(self, path)
    if path and not found:
        raise DataFetchError("no such path")
    return found


async def _forget_each_other(self: Any, path: str | None = None) -> list[DataItem]:
    self._turn = not getattr(self, "_turn", False)
    type(self).turn = not type(self).turn
    return (await GoodConnector.list_items(self))[type(self).turn :]


async def _reads_files(self: Any, identifier: str) -> bytes:
    """Take identifiers for paths of this machine."""
    await self._all()
    for path in (identifier, identifier.removeprefix("file://"), "/" + identifier.lstrip("./")):
        if "\0" not in path and os.path.isabs(path) and os.path.isfile(path):
            return Path(path).read_bytes()
    return await GoodConnector._content(self, identifier)


async def _connect_slowly(self: Any) -> bool:
    if self.options.host == "nowhere":
        await asyncio.sleep(0.6)
    return await GoodConnector.connect(self)


async def _connect_anyhow(self: Any) -> bool:
    self._connection = os.open(os.devnull, os.O_RDONLY)
    return True


async def _refuse_in_two_lines(self: Any) -> bool:
    raise ConnectError("the server says:\nno")


async def _upload_nothing(
    self: Any, local_path: str, blob_name: str, overwrite: bool = True
) -> Any:
    return DataItem(blob_name, blob_name)


async def _upload_always(self: Any, local_path: str, blob_name: str, overwrite: bool = True) -> Any:
    return await GoodConnector.upload_file(self, local_path, blob_name)


async def _preview_anything(self: Any, identifier: str, rows: int = 10) -> Preview:
    return Preview((), (), truncated=False)


async def _statistics_of_anything(self: Any, identifier: str) -> dict[str, ColumnStatistics]:
    return {}


def _temporary_file(*_: Any) -> None:
    OPENED.append(tempfile.NamedTemporaryFile())  # noqa: SIM115  (that is the point)


def _thread(*_: Any) -> None:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def _junk_beside(self: Any, identifier: str, workspace: str) -> None:
    os.makedirs(workspace, exist_ok=True)
    Path(workspace, "download.log").write_text(identifier)


def _follow_link(_: Any, identifier: str, workspace: Workspace) -> str:
    path = Path(workspace, identifier)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(STORE[identifier])
    return str(path)


def _write_by_name(workspace: str, name: str) -> None:
    """Make a file of the item's name before asking whether there is one."""
    if name == "../outside":
        os.makedirs(workspace, exist_ok=True)
        Path(workspace, name).write_bytes(b"")


_STRANGE = DataItem("ghost", "ghost", 1)


_ghost = after("list_items", lambda items: [*items, _STRANGE] if items else items)


_key_error = when_missing(KeyError)


AT_WORK: dict[str, Bad] = {
    # Items.
    "test_listing_is_a_list_of_items": Bad("isinstance", after("list_items", tuple)),
    "test_listed_items_have_names_and_paths": Bad("without a name", each(name="")),
    "test_listed_paths_are_distinct": Bad(
        "more than once", after("list_items", lambda items: items * 2)
    ),
    "test_listed_sizes_are_bytes_or_unknown": Bad("the size of", each(size="3 KB")),
    "test_listed_times_are_unix_seconds_or_unknown": Bad("modified_at", each(modified_at=1e12)),
    "test_listed_metadata_is_json": Bad("cannot be JSON", each(metadata={"at": object()})),
    "test_known_items_are_listed": Bad("not listed: a.csv", after("list_items", lambda i: i[1:])),
    "test_listing_again_gives_the_same": Bad(
        "assert", made(list_items=_forget_each_other, turn=False)
    ),
    "test_listing_below_a_folder_gives_what_lies_there": Bad(
        "does not lie below", made(list_items=_list_below_anything)
    ),
    "test_a_folders_listing_shows_its_direct_children": Bad(
        "topmost folder", made(list_items=_list_no_folders)
    ),
    "test_listing_below_nothing_is_empty_or_not_found": Bad(
        "no such path", made(list_items=_list_unknown_fails)
    ),
    "test_fetched_bytes_are_the_items": Bad(
        "came otherwise", fetching(through(lambda content, _: content.replace(b"\n", b"\r\n")))
    ),
    "test_fetching_returns_the_absolute_path_of_a_file_in_the_workspace": Bad(
        "not absolute", after("fetch_data", os.path.basename)
    ),
    "test_fetching_writes_through_the_workspace": Bad(
        "write with Workspace.of", fetching(by_hand(str))
    ),
    "test_fetching_leaves_nothing_but_the_items_file": Bad(
        "left more", before("fetch_data", _junk_beside)
    ),
    "test_distinct_items_are_distinct_files": Bad(
        "overwrite each other", fetching(through(lambda c, _: c, lambda _: "download.csv"))
    ),
    "test_fetching_again_replaces_the_file": Bad(
        "one file", fetching(through(lambda c, _: c, lambda _: f"f{time.monotonic_ns()}.csv"))
    ),
    "test_everything_listed_can_be_fetched": Bad("there is no item 'ghost'", _ghost),
    "test_sizes_agree": Bad("is listed with 7 bytes", each(size=7)),
    "test_versions_agree": Bad("is listed with the version 'v1'", each(version="v1")),
    "test_rows_of_a_table_are_counted": Bad(
        "3 expected, not None", fetching(through(lambda content, _: content))
    ),
    "test_metadata_of_items_is_json": Bad(
        "comes back otherwise", after("get_metadata", lambda _: {"columns": ("x", "y")})
    ),
    "test_metadata_tells_items_apart_or_describes_them": Bad(
        "nothing is told", after("get_metadata", lambda _: {})
    ),
    "test_everything_listed_can_be_described": Bad("there is no item 'ghost'", _ghost),
    # Limits.
    "test_exactly_max_bytes_is_enough": Bad(
        "over the limit", fetching(through(lambda content, _: content + b"\n"))
    ),
    "test_one_byte_less_is_an_error": Bad(
        "DID NOT RAISE", fetching(through(lambda content, limits: content[: limits.max_bytes]))
    ),
    "test_over_max_bytes_nothing_is_left": Bad(
        "left 'download.log'", before("fetch_data", _junk_beside)
    ),
    "test_over_max_bytes_the_older_file_stays": Bad(
        "changed or removed",
        before("fetch_data", lambda _, name, place: Path(place, name).unlink(missing_ok=True)),
    ),
    "test_without_limits_everything_comes": Bad(
        "TypeError", fetching(through(lambda content, limits: content[: limits.max_bytes + 1]))
    ),
    "test_exactly_max_rows_is_not_truncated": Bad("assert", fetching(rows(lambda n: n - 1))),
    "test_one_row_less_cuts_exactly_one_and_says_so": Bad(
        "assert", fetching(rows(lambda n: n, truncated=False))
    ),
    "test_max_rows_of_none_at_all_is_a_table_without_rows": Bad(
        "assert", fetching(rows(lambda n: n or 99))
    ),
    "test_each_number_of_rows_is_a_longer_beginning": Bad(
        "assert", fetching(rows(lambda n: max(n, 2)))
    ),
    # Failures.
    "test_fetching_a_missing_item_is_item_not_found": Bad("KeyError", _key_error),
    "test_describing_a_missing_item_is_item_not_found": Bad(
        "DataFetchError", when_missing(lambda name: DataFetchError(f"no {name}"))
    ),
    "test_the_error_of_a_missing_item_names_it_in_one_sentence": Bad(
        "does not name the item", when_missing(lambda _: ItemNotFoundError("not found"))
    ),
    "test_a_missing_item_leaves_nothing_in_the_workspace": Bad(
        "left 'download.log'", before("fetch_data", _junk_beside)
    ),
    "test_the_source_works_on_after_an_error": Bad("unknown state", _Broken),
    "test_wrong_credentials_are_an_authentication_error": Bad(
        "AuthenticationError, not ConnectError", made(connect=connect_loudly)
    ),
    "test_an_unreachable_host_is_a_connect_error_in_time": Bad(
        "took 0.6 s to fail", made(connect=_connect_slowly)
    ),
    "test_a_failed_connect_leaves_nothing_open": Bad("left behind", opener(when="failed")),
    "test_testing_a_connection_that_failed_is_false": Bad(
        "must say False", after("test_connection", lambda _: True)
    ),
    "test_the_error_of_a_failed_connect_is_one_sentence": Bad(
        "one line", made(connect=_refuse_in_two_lines)
    ),
    "test_a_workspace_that_cannot_be_is_a_data_fetch_error": Bad(
        "NotADirectoryError|FileExistsError", fetching(by_hand(str))
    ),
    "test_a_format_it_cannot_write_is_refused": Bad(
        "another written", fetching(through(lambda content, _: content))
    ),
    "test_hostile_identifiers_never_leave_the_workspace": Bad(
        "wrote", before("fetch_data", lambda _, name, place: _write_by_name(place, name))
    ),
    "test_hostile_identifiers_bring_nothing_of_this_machine": Bad(
        "brought a file of this machine", made(_content=_reads_files, type="kit")
    ),
    "test_hostile_identifiers_are_described_or_refused": Bad("KeyError", _key_error),
    "test_hostile_paths_are_listed_or_refused": Bad(
        "must be refused with a DataSourceError",
        before("list_items", lambda _, path=None: (path or "").encode()),
    ),
    "test_planted_links_are_not_followed": Bad("wrote through a link", fetching(_follow_link)),
    # Many at once.
    "test_one_instance_serves_many_fetches_at_once": Bad("another call", busy("fetch_data")),
    "test_one_instance_serves_different_calls_at_once": Bad("another call", busy("_all")),
    "test_one_item_fetched_many_times_at_once_is_whole": Bad("there is a connection", _OneAtATime),
    "test_instances_work_side_by_side": Bad("there is a connection", _OneAtATime),
    "test_a_pool_serves_more_callers_than_it_has_connections": Bad(
        "another call", busy("fetch_data")
    ),
    "test_connecting_and_disconnecting_keep_the_loop_free": Bad(
        "disconnect blocked", stalls("connect")
    ),
    "test_a_failing_connect_keeps_the_loop_free": Bad("not answer blocked", stalls("connect")),
    "test_testing_keeps_the_loop_free": Bad("connection blocked", stalls("test_connection")),
    "test_listing_keeps_the_loop_free": Bad("list_items blocked", stalls("list_items")),
    "test_describing_keeps_the_loop_free": Bad("metadata blocked", stalls("get_metadata")),
    "test_fetching_keeps_the_loop_free": Bad("fetch_data blocked", stalls("fetch_data")),
    # Cancelled.
    "test_a_cancelled_fetch_leaves_no_half_file": Bad(
        "a cancelled fetch left", fetching(by_hand(str, 5))
    ),
    "test_a_cancelled_fetch_keeps_the_older_file": Bad(
        "changed or removed", fetching(by_hand(str, 5))
    ),
    "test_the_source_works_on_after_cancelled_fetches": Bad("unknown state", _Broken),
    "test_cancelled_calls_leave_nothing_open": Bad("left behind", opener(when="cancelled")),
    "test_a_cancelled_connect_leaves_nothing_open": Bad("left behind", opener(when="cancelled")),
    "test_cancelled_listings_and_descriptions_pass_it_on": Bad(
        "let asyncio.CancelledError pass", swallows("list_items")
    ),
    # For days.
    "test_200_cycles_of_connect_fetch_disconnect_leave_nothing": Bad(
        "descriptor", before("connect", keeps_open)
    ),
    "test_calls_on_one_connection_leave_nothing": Bad(
        "temporary file", before("fetch_data", _temporary_file)
    ),
    "test_a_registry_closes_what_it_opened": Bad("thread", before("connect", _thread)),
    # Abilities.
    "test_iter_items_yields_what_list_items_returns": Bad(
        "assert", made(iter_items=_list_one_page)
    ),
    "test_iter_items_can_be_left_early": Bad("assert", made(iter_items=_list_once)),
    "test_a_pattern_without_wildcards_is_the_item": Bad(
        r"found \[\]", after("glob_items", lambda _: [])
    ),
    "test_two_stars_are_everything_in_order": Bad(
        "in order", after("glob_items", lambda items: items[::-1])
    ),
    "test_a_pattern_that_matches_nothing_finds_nothing": Bad(
        "assert", after("glob_items", lambda items: items or [_STRANGE])
    ),
    "test_preview_shows_the_rows_of_a_table": Bad(
        "has columns", after("preview", lambda p: dataclasses.replace(p, columns=()))
    ),
    "test_preview_shows_no_more_rows_than_asked_for_and_says_so": Bad(
        "truncated", after("preview", lambda p: dataclasses.replace(p, truncated=False))
    ),
    "test_preview_of_a_missing_item_is_item_not_found": Bad(
        "DID NOT RAISE", made(preview=_preview_anything)
    ),
    "test_statistics_are_of_numeric_columns": Bad(
        "counts of 'x'",
        after("statistics", lambda s: {n: dataclasses.replace(f, count=1) for n, f in s.items()}),
    ),
    "test_statistics_of_a_missing_item_are_item_not_found": Bad(
        "DID NOT RAISE", made(statistics=_statistics_of_anything)
    ),
    "test_an_uploaded_file_is_listed_and_fetched": Bad("assert", made(upload_file=_upload_nothing)),
    "test_an_upload_overwrites_only_if_allowed": Bad(
        "DID NOT RAISE", made(upload_file=_upload_always)
    ),
    "test_read_table_has_the_tables_rows": Bad(
        "num_rows", after("read_table", lambda table: type(table)(["x"], []))
    ),
    "test_rights_are_sentences": Bad(
        "without a period", after("excess_rights", lambda _: ["It may."])
    ),
    "test_abilities_keep_the_loop_free": Bad("preview blocked", stalls("preview")),
    "test_abilities_that_are_not_claimed_are_refused_by_name": Bad(
        "DID NOT RAISE", changes={"abilities": sorted(ABILITIES - {"statistics"})}
    ),
    # In a registry.
    "test_a_source_is_registered_once_it_was_tried": Bad(
        "does not work", after("test_connection", lambda _: False)
    ),
    "test_a_source_that_does_not_answer_is_not_registered": Bad(
        "DID NOT RAISE", made(connect=_connect_anyhow)
    ),
    "test_a_source_of_wrong_options_is_not_registered": Bad(
        "DID NOT RAISE", options(model_config=ConfigDict(extra="allow"))
    ),
    "test_a_sources_check_says_that_it_works": Bad(
        "its check says", after("test_connection", lambda _: False)
    ),
    "test_a_sources_check_says_why_it_does_not_work": Bad(
        "assert not", made(connect=_connect_anyhow)
    ),
    "test_shown_configurations_hold_no_secret": Bad(
        "holds a secret", options(redact=classmethod(lambda cls, values: dict(values)))
    ),
    "test_a_receipt_tells_the_facts": Bad(
        "assert", fetching(through(lambda content, _: content + b"\n"))
    ),
    "test_many_are_fetched_with_a_result_for_each": Bad("assert", _key_error),
    "test_a_failed_fetch_returns_its_connection": Bad("KeyError", _key_error),
    "test_a_cancelled_fetch_returns_its_connection": Bad(
        "did not end|let asyncio.CancelledError pass", swallows("fetch_data")
    ),
    "test_the_time_limit_ends_a_fetch": Bad("interrupted", swallows("fetch_data")),
    "test_unregistering_lets_go_of_the_source": Bad("descriptor", before("connect", keeps_open)),
    "test_many_sources_of_the_type_live_side_by_side": Bad("there is a connection", _OneAtATime),
}
