"""Blocking calls off the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from datasources import ThreadWorker, run_in_thread
from datasources.threads import is_cancelled


@pytest.mark.parametrize("own", [False, True])
async def test_the_result_or_the_error_of_the_call_is_the_callers(own: bool) -> None:
    assert await run_in_thread(int, "7", own_thread=own) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await run_in_thread(int, "x", own_thread=own)


@pytest.mark.parametrize("own", [False, True])
async def test_a_call_sees_the_context_of_its_caller(own: bool) -> None:
    variable: ContextVar[int] = ContextVar("variable")
    variable.set(7)
    assert await run_in_thread(variable.get, own_thread=own) == 7


async def test_long_calls_in_their_own_threads_leave_the_shared_ones_to_others() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    release = threading.Event()
    long = [asyncio.create_task(run_in_thread(release.wait, 60, own_thread=True)) for _ in range(9)]
    await asyncio.sleep(0)
    assert await run_in_thread(int, "7") == 7
    assert not any(task.done() for task in long)
    release.set()
    assert await asyncio.gather(*long) == [True] * 9


@pytest.mark.parametrize("own", [False, True])
async def test_a_cancelled_caller_ends_after_its_call(own: bool) -> None:
    started, release = threading.Event(), threading.Event()
    ended: list[bool] = []

    def call() -> None:
        started.set()
        release.wait(60)
        ended.append(True)
        raise RuntimeError("nobody hears it")

    task = asyncio.create_task(run_in_thread(call, own_thread=own))
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


async def test_a_cancelled_caller_tells_its_call_to_end_and_waits_for_it() -> None:
    started, stop = threading.Event(), threading.Event()
    ended: list[bool] = []

    def call() -> None:
        started.set()
        ended.append(stop.wait(60))

    task = asyncio.create_task(run_in_thread(call, on_cancel=stop.set))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_a_call_sees_that_its_own_caller_was_cancelled() -> None:
    begun = threading.Event()

    def work() -> None:
        begun.set()
        while not is_cancelled():
            time.sleep(0.001)

    assert not is_cancelled()
    task = asyncio.create_task(run_in_thread(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await run_in_thread(is_cancelled)


async def test_a_call_that_ends_by_itself_is_not_told_to() -> None:
    told: list[bool] = []
    assert await run_in_thread(int, "7", on_cancel=lambda: told.append(True)) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await run_in_thread(int, "x", on_cancel=lambda: told.append(True))
    assert told == []


async def test_a_worker_makes_one_call_at_a_time() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    worker, release = ThreadWorker(), threading.Event()
    begun: list[int] = []

    def call(number: int) -> int:
        begun.append(number)
        release.wait(60)
        return number

    calls = [asyncio.create_task(worker.run(call, number)) for number in range(3)]
    await asyncio.sleep(0)
    # A second call under way would hold the thread that this one needs.
    other = asyncio.create_task(run_in_thread(int, "7"))
    await asyncio.wait([other], timeout=30)
    second_thread_was_free = other.done()
    release.set()
    assert await asyncio.gather(*calls, other) == [0, 1, 2, 7]
    assert second_thread_was_free
    assert begun == [0, 1, 2]


async def test_a_worker_that_is_stopped_waits_for_its_call_and_works_on() -> None:
    worker, started = ThreadWorker(), threading.Event()
    ended: list[bool] = []

    def call() -> None:
        started.set()
        while not worker.stopping():
            pass
        ended.append(True)

    task = asyncio.create_task(worker.run(call))
    await asyncio.to_thread(started.wait)
    await worker.stop()
    assert ended == [True]
    await task
    assert await worker.run(worker.stopping) is False
    await worker.stop()


async def test_a_worker_that_is_stopped_ends_the_calls_that_wait_too() -> None:
    worker = ThreadWorker()

    def call() -> None:
        while not worker.stopping():
            pass

    tasks = [asyncio.create_task(worker.run(call)) for _ in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await worker.stop()
        await asyncio.gather(*tasks)
    assert await worker.run(worker.stopping) is False


async def test_a_workers_cancelled_caller_ends_its_call() -> None:
    worker, started = ThreadWorker(), threading.Event()

    def call() -> None:
        started.set()
        while not worker.stopping():
            pass

    task = asyncio.create_task(worker.run(call))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await worker.run(int, "7") == 7
