"""Measure for how long a call blocks the event loop, and find out where.

A task of the loop beats every few milliseconds. The time between two beats is how long the loop
was blocked, less the time in which its thread was ready to run and other programs had the
processors: so the result is the same on a busy machine. A second thread looks at the stack of the
loop's thread while a beat is overdue.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import FrameType
from typing import Any

Call = Callable[[], Coroutine[Any, Any, Any]]

STALL = 0.1
"""Seconds for which a call may block the event loop; one that does not block takes about 1 ms."""
WARN = 0.03
"""Seconds of blocking from which a check warns: a hundred such calls at once take 3 s."""
_TICK = 0.005  # seconds between two beats
_OVERDUE = 3 * _TICK  # seconds without a beat, after which the stack is looked at
_FRAMES = 12  # shown of a stack, the innermost


class StallWarning(UserWarning):
    """A call blocks the event loop for `WARN` seconds or more, but for less than `STALL`."""


@dataclass(frozen=True)
class Stall:
    """The longest time for which a call blocked the event loop."""

    seconds: float = 0.0
    stack: str = ""
    """The innermost frames of the loop's thread meanwhile; empty if nothing was seen."""


async def assert_never_stalls(call: Call, what: str, *, attempts: int = 4) -> None:
    """Fail if every attempt blocks the loop for `STALL` seconds; warn if for `WARN` seconds.

    A single attempt may do so for other reasons, as the import of a driver.
    """
    stalls: list[Stall] = []
    for _ in range(attempts):
        stalls.append(await longest_stall(call))
        if stalls[-1].seconds < WARN:
            return
    stall = min(stalls, key=lambda stall: stall.seconds)
    message = (
        f"{what} blocked the event loop for {stall.seconds:.2f} s: await it, or use "
        f"datasources.run_in_thread\n{stall.stack}"
    )
    if stall.seconds >= STALL:
        raise AssertionError(message)
    # Without the times of waiting for a processor, so little may be the machine's fault.
    if _seconds_without_processor() is not None:
        warnings.warn(message, StallWarning, stacklevel=2)


async def longest_stall(call: Call) -> Stall:
    """Return the longest time for which the event loop was blocked by `call`, and where."""
    longest = Stall()
    watcher = _Watcher(threading.get_ident())
    watcher.start()

    async def beat() -> None:
        nonlocal longest
        while True:
            seconds, stack = watcher.beat()
            if seconds > longest.seconds:
                longest = Stall(seconds, stack)
            await asyncio.sleep(_TICK)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(_TICK)
    try:
        await call()
        await asyncio.sleep(2 * _TICK)
    finally:
        beating.cancel()
        watcher.stop()
    return longest


class _Watcher(threading.Thread):
    """Looks at the stack of the event loop's thread while its beat is overdue."""

    def __init__(self, watched: int) -> None:
        super().__init__(name="datasources-stalls", daemon=True)
        self._watched = watched
        self._ended = threading.Event()
        self._last = time.monotonic()
        self._without_processor = _seconds_without_processor() or 0.0
        self._stack = ""

    def beat(self) -> tuple[float, str]:
        """Return for how many seconds the loop was blocked since the last beat, and its stack.

        To be called in the loop's thread.
        """
        now, without_processor = time.monotonic(), _seconds_without_processor() or 0.0
        blocked = (now - self._last) - (without_processor - self._without_processor)
        stack, self._stack = self._stack, ""
        self._last, self._without_processor = now, without_processor
        return blocked, stack

    def run(self) -> None:
        while not self._ended.wait(_TICK):
            last = self._last
            if time.monotonic() - last > _OVERDUE:
                stack = _stack_of(sys._current_frames().get(self._watched))
                if stack and self._last == last:  # else the loop went on meanwhile
                    self._stack = stack

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _seconds_without_processor() -> float | None:
    """Return for how long this thread was ready to run and did not, or `None` if not known.

    Linux counts that in nanoseconds, in the second field of a thread's `schedstat`.
    """
    try:
        with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def _stack_of(frame: FrameType | None) -> str:
    """Return the innermost frames of a call as text, without those of the loop and of this module.

    The text is empty if the innermost frame is of this module, if there is none, or if the loop is
    between two calls: once a call has ended, its stack must not be replaced before the next beat.
    """
    frames = traceback.StackSummary.extract(traceback.walk_stack(frame))
    frames.reverse()
    if frames and frames[-1].filename == __file__:
        return ""
    for number in reversed(range(len(frames))):
        if frames[number].name == "_run_once":
            return ""
        is_loop = frames[number].name == "_run" and frames[number].filename.endswith("events.py")
        if is_loop or frames[number].filename == __file__:
            del frames[: number + 1]
            break
    return "".join(traceback.format_list(frames[-_FRAMES:]))
