"""Yield rows that a thread decodes, as the reader asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import wait
from typing import Any

_CANCEL_CHECK_INTERVAL = 0.1  # seconds between two checks of a waiting thread for cancellation


async def iterate_batches(
    read: Callable[[Callable[[Any], None]], Awaitable[None]],
) -> AsyncGenerator[Any]:
    """Yield the batches of the `pyarrow.Table` objects that `read` passes to its argument.

    `read` runs in a task of its own, and may call its argument in a thread, never on the event
    loop: the call waits until the reader wants the table. When the generator is closed, the task is
    cancelled. When the task is cancelled, the call returns.
    """
    loop = asyncio.get_running_loop()
    tables: asyncio.Queue[Any] = asyncio.Queue()
    room = asyncio.Semaphore(1)  # for a table that the reader has not asked for yet
    is_closed = False

    async def put(table: Any) -> None:
        if not is_closed:
            await room.acquire()
            tables.put_nowait(table)

    def add(table: Any) -> None:
        putting = asyncio.run_coroutine_threadsafe(put(table), loop)
        # Something within `read` may cancel the task and wait for this thread, though nobody reads.
        while not wait([putting], _CANCEL_CHECK_INTERVAL).done:
            if reading.cancelling():
                putting.cancel()
                return
        putting.result()

    async def run() -> None:
        try:
            await read(add)
        finally:
            tables.put_nowait(None)  # it waits for no reader: there may be none any more

    reading = asyncio.ensure_future(run())
    try:
        while (table := await tables.get()) is not None:
            room.release()
            for batch in table.to_batches():
                yield batch
        await reading
    finally:
        is_closed = True
        reading.cancel()
        room.release()  # a thread may wait for it, and the task for the thread
        await asyncio.gather(reading, return_exceptions=True)
