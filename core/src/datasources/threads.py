"""Blocking calls off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(
    function: Callable[..., T],
    *arguments: object,
    on_cancel: Callable[[], object] | None = None,
    own_thread: bool = False,
) -> T:
    """Call a blocking function in a worker thread.

    Unlike with `asyncio.to_thread`, a caller that is cancelled ends only when the function has:
    nothing that it uses, such as a file, is closed under it.  Keep the pieces short, or stop
    the function.

    Args:
        function: What blocks.
        arguments: Its own.
        on_cancel: Called on the event loop when the caller is cancelled, to tell the function to
            end, as `threading.Event.set` may.
        own_thread: For what takes long: the threads that all share are few, and looking up a
            host's address needs one of them.
    """
    if own_thread:
        called = partial(copy_context().run, function, *arguments)
        call = asyncio.wrap_future(in_own_thread("run_in_thread", called))
    else:
        call = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        if on_cancel is not None and not call.done():
            on_cancel()
        while not call.done():
            # Cancelled again while waiting: the first time is enough.
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError:
                continue
        if not call.cancelled():
            call.exception()  # retrieved: nobody else will
        raise


class ThreadWorker:
    """Runs the calls of a client that blocks and serves one at a time, each in a thread.

    A call is told to end when its caller is cancelled, or by `stop`: long ones look at
    `stopping`.  The caller gets its result only when it has ended.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._busy = asyncio.Lock()
        self._stops = 0

    def stopping(self) -> bool:
        """Tell whether the call under way should end; callable from its thread."""
        return self._stop.is_set()

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a thread, after those that are under way."""
        stops = self._stops
        async with self._busy:
            if stops == self._stops:
                self._stop.clear()
            return await run_in_thread(function, *arguments, on_cancel=self._stop.set)

    async def stop(self) -> None:
        """Tell the call under way, and those that wait, to end; wait until they have."""
        self._stops += 1
        self._stop.set()
        async with self._busy:
            pass


def in_own_thread(name: str, function: Callable[[], T]) -> Future[T]:
    """Call in a thread that a call which never ends may keep, and the process need not wait for."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as exc:  # noqa: BLE001  (kept whole in the outcome)
            outcome.set_exception(exc)

    threading.Thread(target=run, name=name, daemon=True).start()
    return outcome
