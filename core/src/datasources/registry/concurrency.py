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
    try:
        async for item in items:
            running.add(asyncio.create_task(work(item)))
            if len(running) >= concurrency:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
