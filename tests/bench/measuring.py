"""What one run costs its process: seconds, processor time, memory over its start, stalls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

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
