"""Blocking calls off the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from datasources import run_in_thread


async def test_the_result_or_the_error_of_the_call_is_the_callers() -> None:
    assert await run_in_thread(int, "7") == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await run_in_thread(int, "x")


async def test_a_cancelled_caller_ends_after_its_call() -> None:
    started, release = threading.Event(), threading.Event()
    ended: list[bool] = []

    def call() -> None:
        started.set()
        release.wait(60)
        ended.append(True)
        raise RuntimeError("nobody hears it")

    task = asyncio.create_task(run_in_thread(call))
    await asyncio.to_thread(started.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
