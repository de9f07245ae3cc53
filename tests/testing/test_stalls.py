"""The check of stalls sees what blocks the event loop, and says where."""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from datasources.testing import StallWarning, stalls
from datasources.testing.stalls import assert_never_stalls
from tests.waiting import wait_until_blocking

WATCHER = "datasources-stalls"


def block(seconds: float) -> None:
    """Block the event loop, at least until the check has looked at its stack."""
    (watcher,) = (thread for thread in threading.enumerate() if thread.name == WATCHER)
    time.sleep(seconds)
    wait_until_blocking(lambda: cast("stalls._Watcher", watcher)._stack)


async def test_blocking_the_loop_fails_with_the_stack_of_where_it_was() -> None:
    async def call() -> None:
        block(0.15)

    with pytest.raises(
        AssertionError, match=r"fetching blocked the event loop for \d+\.\d+ s"
    ) as e:
        await assert_never_stalls(call, "fetching")
    assert "in block" in str(e.value)
    assert "in call" in str(e.value)
    assert "run_forever" not in str(e.value)


async def test_computing_on_the_loop_fails() -> None:
    async def call() -> None:
        (watcher,) = (thread for thread in threading.enumerate() if thread.name == WATCHER)
        until = time.thread_time() + 0.15
        while time.thread_time() < until or not cast("stalls._Watcher", watcher)._stack:
            pass

    with pytest.raises(AssertionError, match="in call"):
        await assert_never_stalls(call, "fetching")


def test_loop_that_waits_for_its_next_call_has_no_stack() -> None:
    stacks: list[str] = []

    class Selector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            stacks.append(stalls._stack_of(sys._getframe()))
            return super().select(timeout)

    loop = asyncio.SelectorEventLoop(Selector())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert set(stacks) == {""}


async def test_short_stalls_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "STALL", 60)
    monkeypatch.setattr(stalls, "_seconds_without_processor", lambda: 0.0)

    async def call() -> None:
        block(0.05)

    with pytest.warns(StallWarning, match="in block"):
        await assert_never_stalls(call, "fetching")


async def test_one_attempt_without_a_stall_is_enough() -> None:
    attempts = 0

    async def call() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            block(0.15)

    await assert_never_stalls(call, "fetching", attempts=10)
    assert attempts >= 3


async def test_time_without_a_processor_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    now = waited = 0.0
    monkeypatch.setattr(stalls, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(stalls, "_seconds_without_processor", lambda: waited)

    async def call() -> None:
        nonlocal now, waited
        now += 0.5
        waited += 0.5

    await assert_never_stalls(call, "fetching", attempts=1)


async def test_threads_of_the_check_end_with_it() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  (its own)
        await assert_never_stalls(fail, "fetching")
    assert WATCHER not in {thread.name for thread in threading.enumerate()}
