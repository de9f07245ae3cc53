"""Bad connectors for the checks of splits."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from datasources import DataFetchError, Split, SplitPlan
from tests.testing.good import TOKEN, GoodConnector
from tests.testing.spoil import Bad, made


def _planning(change: Callable[[SplitPlan], SplitPlan]) -> Any:
    """Return a class whose plans are changed."""

    @asynccontextmanager
    async def plan_splits(self: Any, identifier: str, **given: Any) -> AsyncIterator[SplitPlan]:
        async with GoodConnector.plan_splits(self, identifier, **given) as plan:
            yield change(plan)

    return made(plan_splits=plan_splits)


def _with_the_token(plan: SplitPlan) -> SplitPlan:
    return dataclasses.replace(
        plan,
        splits=[
            dataclasses.replace(split, part={**split.part, "t": TOKEN}) for split in plan.splits
        ],
    )


@asynccontextmanager
async def _plan_anything(self: Any, identifier: str, **_: Any) -> AsyncIterator[SplitPlan]:
    yield SplitPlan(None, [])


async def _read_all_columns(
    self: Any, split: Split, columns: Sequence[str] | None = None
) -> AsyncIterator[Any]:
    async for batch in GoodConnector.read_split(self, split):
        yield batch


async def _read_once(
    self: Any, split: Split, columns: Sequence[str] | None = None
) -> AsyncIterator[Any]:
    if getattr(self, "_reading", False):
        raise DataFetchError("a split is being read already")
    self._reading = True
    async for batch in GoodConnector.read_split(self, split, columns):
        yield batch
    self._reading = False


async def _slow_rows(self: Any, identifier: str) -> Any:
    time.sleep(0.12)  # noqa: ASYNC251
    return await GoodConnector._rows(self, identifier)


SPLITS: dict[str, Bad] = {
    "test_splits_together_have_each_row_once": Bad(
        "rows of", _planning(lambda plan: dataclasses.replace(plan, splits=[]))
    ),
    "test_a_split_is_read_from_its_json_and_holds_no_secret": Bad(
        "a secret is in the split", _planning(_with_the_token)
    ),
    "test_splits_have_the_columns_asked_for": Bad(
        "the columns but", made(read_split=_read_all_columns)
    ),
    "test_a_plan_of_a_missing_item_is_item_not_found": Bad(
        "DID NOT RAISE", made(plan_splits=_plan_anything)
    ),
    "test_a_reader_of_a_split_can_stop_early": Bad(
        "a split is being read already", made(read_split=_read_once)
    ),
    "test_splits_keep_the_loop_free": Bad("read_split blocked", made(_rows=_slow_rows)),
}
