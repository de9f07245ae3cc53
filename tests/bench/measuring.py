"""What one run costs its processes: seconds, processor time, memory, stalls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

_BEAT = 0.005  # seconds between heartbeats


async def measured(run: Callable[[], Awaitable[T]]) -> tuple[T, dict[str, float]]:
    """Return what a run returns, and its figures: `seconds`, `cpu`, `memory` (bytes), `stall`."""
    beating = asyncio.create_task(_longest_stall())
    await asyncio.sleep(4 * _BEAT)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before, cpu = _memory("VmRSS"), time.process_time()
    started = time.perf_counter()
    result = await run()
    figures = {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "memory": _memory("VmHWM") - before,
    }
    beating.cancel()
    (stall,) = await asyncio.gather(beating)
    return result, {**figures, "stall": stall}


def measured_processes(run: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Return what a run returns, and its figures: `seconds`, `cpu`, `memory` (bytes).

    They are those of this process and its children. Memory is the most that all had together, with
    what they share counted in each.
    """
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], sum(one.memory_info().rss for one in _processes()))

    thread = threading.Thread(target=watch)
    thread.start()
    before, started = _processor_time(), time.perf_counter()
    result = run()
    figures = {"seconds": time.perf_counter() - started, "cpu": _processor_time() - before}
    ended.set()
    thread.join()
    return result, {**figures, "memory": peak[0]}


def _processes() -> list[psutil.Process]:
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def _processor_time() -> float:
    return sum(sum(one.cpu_times()[:2]) for one in _processes())


async def _longest_stall() -> float:
    longest = 0.0
    try:
        while True:
            due = time.perf_counter() + _BEAT
            await asyncio.sleep(_BEAT)
            longest = max(longest, time.perf_counter() - due)
    except asyncio.CancelledError:
        return longest


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
