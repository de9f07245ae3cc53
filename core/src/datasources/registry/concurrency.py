"""Run a coroutine for each of many items, in memory for those that are under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


async def run_concurrently(
    items: AsyncIterator[S], work: Callable[[S], Coroutine[Any, Any, T]], concurrency: int
) -> AsyncGenerator[T]:
    """Yield what `work` returns for each item, in the order in which the calls end.

    The next item is asked for when fewer calls than `concurrency` are under way. An error of an item
    or a call, and closing the generator, cancels the calls and waits for their end.
    """
    running: set[asyncio.Task[T]] = set()
    ended: asyncio.Queue[asyncio.Task[T]] = asyncio.Queue()

    async def next_result() -> T:
        task = await ended.get()
        running.discard(task)
        return task.result()

    try:
        async for item in items:
            task = asyncio.create_task(work(item))
            task.add_done_callback(ended.put_nowait)
            running.add(task)
            if len(running) >= concurrency:
                yield await next_result()
        while running:
            yield await next_result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
