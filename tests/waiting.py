"""Wait for a state rather than for time, and let time be over."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

_TURNS = 100  # looks between which only other tasks run, so that a virtual clock stands still
_PAUSE = 0.01  # seconds between the later looks, in which threads have their turn


async def wait_until(condition: Callable[[], object], *, timeout: float = 30) -> None:
    """Let other tasks run until `condition()` is true.

    Raises:
        TimeoutError: It was false for `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    for turn in itertools.count():
        if condition():
            return
        _check(deadline, timeout)
        await asyncio.sleep(0 if turn < _TURNS else _PAUSE)


def wait_until_blocking(condition: Callable[[], object], *, timeout: float = 30) -> None:
    """Let other threads and processes run until `condition()` is true; as `wait_until`."""
    deadline = time.monotonic() + timeout
    while not condition():
        _check(deadline, timeout)
        time.sleep(_PAUSE)


@contextmanager
def clock_ahead(seconds: float) -> Iterator[None]:
    """Let the clock of the running event loop be ahead for a block, so that time limits are over."""
    loop = asyncio.get_running_loop()
    now = loop.time
    with patch.object(loop, "time", lambda: now() + seconds):
        yield


def _check(deadline: float, timeout: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"waited {timeout:g} s for a state that did not come")
