"""Read all splits of a plan in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from datasources.errors import OptionError
from datasources.splits import Split, SplitPlan

T = TypeVar("T")


async def gather_splits(
    plan: SplitPlan,
    consume: Callable[[Split, AsyncIterator[Any]], Awaitable[T]],
    *,
    columns: Sequence[str] | None = None,
    concurrency: int = 4,
) -> list[T]:
    """Read all splits of a plan in this process, and return what `consume` returns for each.

    Memory is that of `concurrency` readers. The first error ends the other readers and is raised.

    Args:
        plan: A plan whose block has not ended.
        consume: Called for each split with the iterator of its `pyarrow.RecordBatch`.
        columns: The columns to read; None is all.
        concurrency: Splits that are read at once; fewer where the plan has a lower bound.

    Returns:
        The results in the order of the splits.

    Raises:
        OptionError: `concurrency` is not at least 1.
    """
    if concurrency < 1:
        raise OptionError(f"'concurrency' must be at least 1, not {concurrency}")
    places = asyncio.Semaphore(min(concurrency, plan.concurrency or concurrency))

    async def read(split: Split) -> T:
        async with places:
            return await consume(split, plan.read(split, columns))

    tasks = [asyncio.ensure_future(read(split)) for split in plan.splits]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
