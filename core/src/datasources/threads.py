"""Blocking calls in threads beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class _Call:
    """A call of `run_in_thread`, as the called function sees it."""

    __slots__ = ("is_cancelled",)

    def __init__(self) -> None:
        self.is_cancelled = False


_current_call: ContextVar[_Call | None] = ContextVar("_current_call", default=None)


def is_cancelled() -> bool:
    """Return True if the caller of the `run_in_thread` that this code runs in was cancelled."""
    call = _current_call.get()
    return call is not None and call.is_cancelled


async def run_in_thread(
    function: Callable[..., T],
    *arguments: object,
    on_cancel: Callable[[], object] | None = None,
    own_thread: bool = False,
) -> T:
    """Call a blocking function in a worker thread and return its result.

    A caller that is cancelled waits until the function has ended, other than with
    `asyncio.to_thread`: so nothing that the function uses, such as a file, is closed before.
    Context variables are those of the caller.

    Args:
        function: A function that blocks: for a short time, or until `on_cancel` stops it.
        arguments: Its positional arguments.
        on_cancel: Called once on the event loop when the caller is cancelled, to make the function
            end, such as the `set` of a `threading.Event`.
        own_thread: True for long calls, which get a new thread. The loop's worker threads are few,
            and looking up the address of a host needs one of them.
    """
    state = _Call()
    context = copy_context()
    context.run(_current_call.set, state)
    in_context = partial(context.run, function, *arguments)
    call: asyncio.Future[T]
    if own_thread:
        call = asyncio.wrap_future(call_in_daemon_thread("run_in_thread", in_context))
    else:
        call = asyncio.get_running_loop().run_in_executor(None, in_context)
    try:
        # `wait` leaves `call` alone when the caller is cancelled. A task for the call and a shield
        # around it would do so, too, but take twice as many callbacks of the event loop.
        await asyncio.wait([call])
    except asyncio.CancelledError:
        state.is_cancelled = True
        if on_cancel is not None and not call.done():
            on_cancel()
        while not call.done():
            # A second cancellation does not end the wait; the first one is raised below.
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError:
                continue
        if not call.cancelled():
            call.exception()  # so that asyncio does not report it as never retrieved
        raise
    return call.result()


class ThreadWorker:
    """Runs the calls of a blocking client that serves one call at a time, each in a thread.

    The methods belong to one event loop; `stopping` may be called in any thread. A caller that is
    cancelled waits until its call has ended, so long calls look at `stopping` and end early.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._busy = asyncio.Lock()
        self._stops = 0

    def stopping(self) -> bool:
        """Return True if the current call should end: it was cancelled, or `stop` was called."""
        return self._stop.is_set()

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a thread, after the current call and those that wait before it."""
        stops = self._stops
        async with self._busy:
            if stops == self._stops:
                self._stop.clear()
            return await run_in_thread(function, *arguments, on_cancel=self._stop.set)

    async def stop(self) -> None:
        """Ask the current call and those that wait to end, and wait until they have ended."""
        self._stops += 1
        self._stop.set()
        async with self._busy:
            pass


def call_in_daemon_thread(name: str, function: Callable[[], T]) -> Future[T]:
    """Call a function in a new daemon thread named `name`; return the future of its result.

    A function that hangs blocks neither the loop's worker threads nor the exit of the interpreter.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from here on it cannot be cancelled

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as exc:  # noqa: BLE001  (raised again by the future)
            future.set_exception(exc)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
