"""Run calls at once, and read all splits of a plan in this process."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from typing import Any, TypeVar, cast

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
        consume: Called for each split with the iterator of its `pyarrow.RecordBatch`, which is
            closed when the call ends.
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
            # Annotated as an iterator, but a generator.
            batches = cast("AsyncGenerator[Any]", plan.read(split, columns))
            async with aclosing(batches):
                return await consume(split, batches)

    return await gather([read(split) for split in plan.splits])


async def gather(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run calls at once and return their results; the first error ends all of them.

    A caller that is cancelled waits until all of them have ended, other than with `asyncio.gather`.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]
