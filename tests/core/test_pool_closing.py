"""Closing a pool, and pools that nobody closes."""

from __future__ import annotations

import asyncio
import gc
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from datasources import (
    ConnectionPool,
    DataSourceConnector,
    PoolClosedError,
    PoolError,
)
from tests.core.pool_fakes import (
    Clockwork,
    World,
    forever,
    in_virtual_time,
    outcomes,
    pool_of,
    spawn,
    use_once,
)
from tests.waiting import wait_until


@in_virtual_time
async def test_close_waits_for_leases_and_turns_waiters_away():
    world = World()
    pool = pool_of(world.exclusive, max_size=1)
    held = await pool.acquire()
    waiter = spawn(pool.acquire())
    await asyncio.sleep(0)
    closing = spawn(pool.close())
    with pytest.raises(PoolClosedError, match="'fake' is closed"):
        await waiter
    with pytest.raises(PoolClosedError):
        await pool.acquire()
    await asyncio.sleep(20)
    assert not closing.done()
    pool.release_nowait(held)
    await closing
    assert asyncio.get_running_loop().time() == pytest.approx(1020)
    await pool.close()
    assert world.live == []
    assert pool.closed


@in_virtual_time
async def test_close_says_which_leases_were_never_returned_and_where_taken():
    world = World()
    pool = pool_of(world.exclusive, track_leases=True)

    async def forgetful() -> DataSourceConnector:
        return await pool.acquire()

    async def careless() -> DataSourceConnector:
        return await pool.connection().__aenter__()

    async with pool.connection():
        pass
    late = await forgetful()
    await careless()
    here = re.escape(__file__)
    with pytest.raises(
        PoolError,
        match=rf"2 connections to .* were never returned.*{here}:\d+ in forgetful.*{here}:\d+ in careless",
    ):
        await pool.close(timeout=3)
    assert asyncio.get_running_loop().time() == pytest.approx(1003)
    assert world.live == []
    assert pool.in_use_count == 0
    pool.release_nowait(late)  # by then in somebody's `finally`
    with pytest.raises(PoolError, match="released already"):
        pool.release_nowait(late)
    await pool.close()


@in_virtual_time
async def test_tracked_leases_of_a_shared_connector_are_told_apart():
    pool = pool_of(World().shareable, track_leases=True)

    async def borrow() -> None:
        await pool.acquire()

    async def use() -> None:
        async with pool.connection():
            await asyncio.sleep(1)

    await asyncio.gather(use(), borrow(), use())
    with pytest.raises(PoolError, match=r"1 .* never returned: taken at [^,]* in borrow[^,]*$"):
        await pool.close(timeout=1)


@in_virtual_time
async def test_close_ends_a_connect_under_way():
    world = World()
    world.connects = [forever]
    pool = pool_of(world.exclusive, min_size=1, connect_timeout=60)
    opening = spawn(pool.initialize())
    await wait_until(lambda: world.made)
    await pool.close()
    with pytest.raises(PoolClosedError):
        await opening
    assert world.live == []
    assert asyncio.get_running_loop().time() == 1000


@in_virtual_time
async def test_close_right_after_acquire_began_leaves_nothing():
    for turns in range(8):
        world = World()
        pool = pool_of(world.exclusive)
        await use_once(pool)
        await asyncio.sleep(10)  # so that there is a check to interrupt
        waiter = spawn(pool.acquire())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing = spawn(pool.close())
        (result,) = await outcomes(waiter)
        if not isinstance(result, PoolClosedError):
            pool.release_nowait(result)
        await closing
        assert world.live == []


@in_virtual_time
async def test_errors_of_disconnect_are_raised_by_close_after_the_rest_is_closed():
    world = World()
    pool = pool_of(world.exclusive)
    await asyncio.gather(*(use_once(pool) for _ in range(4)))
    world.disconnects = [OSError("one"), True, ValueError("two")]
    with pytest.raises(ExceptionGroup, match="'fake'") as caught:
        await pool.close()
    assert [str(error) for error in caught.value.exceptions] == ["one", "two"]
    assert len([event for event in world.events if event.startswith("disconnect")]) == 4
    await pool.close()


@in_virtual_time
async def test_cancelled_close_can_be_called_again():
    world = World()
    pool = pool_of(world.exclusive)
    held = await pool.acquire()
    closing = spawn(pool.close())
    await asyncio.sleep(1)
    closing.cancel()
    await outcomes(closing)
    again = spawn(pool.close())
    pool.release_nowait(held)
    await again
    assert world.live == []


@contextmanager
def collected_from_here() -> Iterator[None]:
    """Keep the garbage collector from what tests before have lost, and what that may say."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def test_forgotten_pool_warns_of_open_connections_and_of_nothing_else():
    async def forget() -> None:
        pool = ConnectionPool("fake", World().exclusive)
        async with pool.connection():
            pass

    with collected_from_here(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget())
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert "'fake' was not closed and leaves 1 connection open" in str(caught[0].message)


def test_pool_without_open_connections_is_forgotten_silently():
    async def forget() -> None:
        pool = ConnectionPool("fake", World().exclusive)
        await pool.release(await pool.acquire(), discard=True)
        await asyncio.sleep(0.01)

    with collected_from_here(), warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(forget())
        ConnectionPool("unused", World().exclusive)
        gc.collect()


def test_release_after_the_event_loop_has_ended_is_quiet():
    world = World()
    pool = ConnectionPool("fake", world.exclusive)
    with asyncio.Runner() as runner:
        held = [runner.run(pool.acquire()) for _ in range(2)]
    pool.release_nowait(held[0])
    pool.release_nowait(held[1], discard=True)
    assert pool.size == 1
    pools = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="leaves 1 connection open"):
        pools.clear()


@pytest.mark.parametrize("idle", [False, True], ids=["connecting", "checking"])
def test_event_loop_closed_under_a_pool_causes_no_further_errors(
    idle: bool, monkeypatch: pytest.MonkeyPatch
):
    ignored: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda error: ignored.append(error.exc_value))
    with collected_from_here():
        world = World()
        loop = Clockwork()
        pool = ConnectionPool("fake", world.exclusive, clock=loop.time)
        if idle:
            loop.run_until_complete(use_once(pool))
            loop.run_until_complete(asyncio.sleep(60))
        world.connects = world.checks = [forever]
        waiter = loop.create_task(pool.acquire())
        loop.run_until_complete(asyncio.sleep(1))
        assert not waiter.done()
        loop.close()
        del waiter, pool, world
        gc.collect()
    # What asyncio says of any task that its loop leaves behind.
    assert {one["message"] for one in loop.complaints} == {"Task was destroyed but it is pending!"}
    assert ignored == []


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="from Python 3.12 on")
@in_virtual_time
async def test_eager_tasks_do_not_overfill_the_pool():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    world = World()
    pool = pool_of(world.exclusive, max_size=2, min_size=1)
    await pool.initialize()
    await asyncio.gather(*(use_once(pool) for _ in range(10)))
    assert len(world.made) == 2
    await pool.close()
