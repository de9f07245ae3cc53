"""Leases of a pool over fake connectors, in virtual time: order, errors, figures."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from typing import Any

import pytest

from datasources import (
    ConnectError,
    ConnectionPool,
    PoolError,
    PoolTimeoutError,
)
from tests.core.pool_fakes import (
    World,
    after,
    in_virtual_time,
    outcomes,
    pool_of,
    spawn,
    use_once,
)
from tests.waiting import wait_until

# Leases


@in_virtual_time
async def test_released_connection_is_used_again():
    world = World()
    pool = pool_of(world.exclusive)
    first = await pool.acquire()
    assert world.made[0].connected
    await pool.release(first)
    assert await pool.acquire() is first
    assert world.events == ["connect 0"]
    await pool.release(first)
    await pool.close()
    assert world.events == ["connect 0", "disconnect 0"]


@in_virtual_time
async def test_leases_are_exclusive_and_bounded():
    world = World()
    pool = pool_of(world.exclusive, max_size=3)
    held = [await pool.acquire() for _ in range(3)]
    assert len({id(connector) for connector in held}) == 3
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=1)
    assert (pool.size, pool.in_use_count, pool.available_count) == (3, 3, 0)
    for connector in held:
        pool.release_nowait(connector)
    assert (pool.size, pool.in_use_count, pool.available_count) == (3, 0, 3)
    await pool.close()


@in_virtual_time
async def test_waiters_are_served_first_come_first_served():
    world = World()
    pool = pool_of(world.exclusive, max_size=2)
    served = []

    async def use(number: int) -> None:
        async with pool.connection():
            served.append(number)
            await asyncio.sleep(random.random())

    await asyncio.gather(*(use(number) for number in range(50)))
    assert served == list(range(50))
    assert len(world.made) == 2
    await pool.close()


@in_virtual_time
async def test_newcomer_does_not_overtake_a_waiter():
    pool = pool_of(World().exclusive, max_size=1)
    held = await pool.acquire()
    waiter = spawn(pool.acquire())
    await wait_until(lambda: pool.statistics().waiting == 1)
    pool.release_nowait(held)
    newcomer = spawn(pool.acquire())
    assert await waiter is held
    assert not newcomer.done()
    pool.release_nowait(held)
    pool.release_nowait(await newcomer)
    await pool.close()


@in_virtual_time
async def test_connection_is_in_use_from_its_assignment():
    pool = pool_of(World().exclusive, max_size=1)
    held = await pool.acquire()
    waiter = spawn(pool.acquire())
    await wait_until(lambda: pool.statistics().waiting == 1)
    pool.release_nowait(held)
    assert not waiter.done()
    assert (pool.in_use_count, pool.available_count, pool.statistics().waiting) == (1, 0, 0)
    pool.release_nowait(await waiter)
    await pool.close()


@in_virtual_time
async def test_cancelled_waiter_hands_its_connection_on():
    pool = pool_of(World().exclusive, max_size=1)
    held = await pool.acquire()
    first, second = spawn(pool.acquire()), spawn(pool.acquire())
    await wait_until(lambda: pool.statistics().waiting == 2)
    pool.release_nowait(held)
    first.cancel()
    assert await second is held
    assert first.cancelled()
    pool.release_nowait(held)
    await pool.close()


@in_virtual_time
async def test_cancelled_waiter_without_a_successor_leaves_its_connection_idle():
    pool = pool_of(World().exclusive, max_size=1)
    held = await pool.acquire()
    waiter = spawn(pool.acquire())
    await wait_until(lambda: pool.statistics().waiting == 1)
    pool.release_nowait(held)
    waiter.cancel()
    await outcomes(waiter)
    assert (pool.in_use_count, pool.available_count) == (0, 1)
    await pool.close()


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("idle", [None, 0, 60], ids=["cold", "fresh", "to be checked"])
@in_virtual_time
async def test_acquire_cancelled_at_any_await_loses_nothing(turns: int, idle: float | None):
    world = World()
    pool = pool_of(world.exclusive, max_size=1)
    if idle is not None:
        pool.release_nowait(await pool.acquire())
        await asyncio.sleep(idle)

    async def use() -> None:
        async with pool.connection():
            await asyncio.sleep(0)

    task = spawn(use())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await outcomes(task)
    async with pool.connection(timeout=1):
        assert len(world.live) == 1
    await pool.close()
    assert world.live == []


@in_virtual_time
async def test_waiting_coroutine_that_is_closed_leaves_the_queue():
    pool = pool_of(World().exclusive, max_size=1)
    held = await pool.acquire()
    waiting = pool.acquire()
    waiting.send(None)
    waiting.close()
    assert pool.statistics().waiting == 0
    pool.release_nowait(held)
    assert pool.available_count == 1
    await pool.close()


@in_virtual_time
async def test_nothing_is_lost_when_forty_of_a_hundred_users_are_cancelled():
    world = World()
    pool = pool_of(world.exclusive, max_size=4)
    dice = random.Random(5)
    together = 0

    async def use() -> None:
        nonlocal together
        async with pool.connection():
            together += 1
            assert together <= 4
            try:
                await asyncio.sleep(dice.random() * 0.01)
            finally:
                together -= 1

    tasks = [spawn(use()) for _ in range(400)]
    for task in dice.sample(tasks, 160):
        asyncio.get_running_loop().call_later(dice.random(), task.cancel)
    results = await outcomes(*tasks)
    assert [error for error in results if isinstance(error, Exception)] == []
    assert (pool.in_use_count, pool.available_count) == (0, 4)
    assert pool.statistics().waiting == 0
    await pool.close()
    assert world.live == []


@in_virtual_time
async def test_longest_wait_stays_near_the_median():
    pool = pool_of(World().exclusive, max_size=10)
    loop = asyncio.get_running_loop()
    waits = []

    async def use() -> None:
        for _ in range(10):
            asked = loop.time()
            async with pool.connection():
                waits.append(loop.time() - asked)
                await asyncio.sleep(0.01)

    await asyncio.gather(*(use() for _ in range(200)))
    assert max(waits) <= 1.5 * statistics.median(waits)
    await pool.close()


# Errors of use


@in_virtual_time
async def test_timeout_says_who_uses_and_who_waits_and_for_how_long():
    pool = pool_of(World().exclusive, max_size=2, acquire_timeout=7)
    held = [await pool.acquire() for _ in range(2)]
    started = asyncio.get_running_loop().time()
    with pytest.raises(PoolTimeoutError, match=r"'fake'.* 7 s: 2 of 2 in use, 0 .* 1 waiting"):
        await pool.acquire()
    assert asyncio.get_running_loop().time() - started == pytest.approx(7, abs=0.02)
    assert pool.statistics().timeouts == 1
    for connector in held:
        pool.release_nowait(connector)
    await pool.close()


@in_virtual_time
async def test_each_waiter_has_its_own_timeout():
    pool = pool_of(World().exclusive, max_size=1)
    held = await pool.acquire()
    loop = asyncio.get_running_loop()
    started = loop.time()
    ended = {}

    async def wait(seconds: float) -> None:
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=seconds)
        ended[seconds] = loop.time() - started

    await asyncio.gather(*map(wait, [5, 1, 3, 0, 1.001]))
    assert ended == {seconds: pytest.approx(seconds, abs=0.02) for seconds in ended}
    pool.release_nowait(held)
    await pool.close()


@in_virtual_time
async def test_waiter_cancelled_at_its_deadline_is_cancelled():
    pool = pool_of(World().exclusive, max_size=1)
    held = await pool.acquire()
    waiters: list[asyncio.Task[Any]] = []

    def cancel_the_first() -> None:
        waiters[0].cancel()

    asyncio.get_running_loop().call_later(1, cancel_the_first)
    waiters += [spawn(pool.acquire(timeout=1)) for _ in range(2)]
    await asyncio.sleep(2)
    assert waiters[0].cancelled()
    assert isinstance(waiters[1].exception(), PoolTimeoutError)
    pool.release_nowait(held)
    await pool.close()


@in_virtual_time
async def test_releasing_twice_is_an_error():
    pool = pool_of(World().exclusive)
    connector = await pool.acquire()
    await pool.release(connector)
    with pytest.raises(PoolError, match="released already"):
        await pool.release(connector)
    assert pool.available_count == 1
    await pool.close()


@in_virtual_time
async def test_releasing_a_stranger_is_an_error():
    world = World()
    pool = pool_of(world.exclusive)
    with pytest.raises(PoolError, match=r"'fake'.* comes from elsewhere"):
        await pool.release(world.exclusive())
    await pool.close()


@in_virtual_time
async def test_factory_that_repeats_itself_is_an_error():
    connector = World().exclusive()
    pool = pool_of(lambda: connector, max_size=2)
    first, second = spawn(pool.acquire()), spawn(pool.acquire())
    assert await first is connector
    with pytest.raises(PoolError, match="returned before"):
        await second
    with pytest.raises(PoolError, match="returned before"):
        await pool.acquire()
    assert connector.connected
    pool.release_nowait(connector)
    await pool.close()


def test_pool_belongs_to_one_event_loop():
    pool = ConnectionPool("fake", World().exclusive)

    async def use() -> None:
        pool.release_nowait(await pool.acquire())

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(use())
        for call in (use, pool.close, pool.initialize):
            with pytest.raises(PoolError, match="belongs to another event loop"):
                second.run(call())
        first.run(pool.close())


# Figures


@in_virtual_time
async def test_statistics_count_what_happened():
    world = World()
    world.connects = [ConnectError("no"), True, after(1)]
    pool = pool_of(world.exclusive, max_size=3, min_size=1)
    held = await pool.acquire()
    waiter = spawn(pool.acquire())
    await asyncio.sleep(0.5)
    figures = pool.statistics().to_dict()
    assert figures == {
        "total": 1,
        "available": 0,
        "in_use": 1,
        "max_size": 3,
        "min_size": 1,
        "opening": 1,
        "closing": 0,
        "waiting": 1,
        "acquires": 1,
        "waits": 2,
        "timeouts": 0,
        "connects": 1,
        "connect_failures": 1,
        "checks": 0,
        "check_failures": 0,
        "disconnects": 1,
        "disconnect_failures": 0,
    }
    assert repr(pool) == (
        "<ConnectionPool 'fake': 1 of 3 in use, 0 available, 1 opening, 0 closing, 1 waiting>"
    )
    pool.release_nowait(held)
    pool.release_nowait(await waiter)
    await pool.close()
    assert "closed" in repr(pool)


@in_virtual_time
async def test_record_of_a_connection_counts_its_uses():
    pool = pool_of(World().exclusive)
    for _ in range(3):
        await use_once(pool)
    (record,) = pool._connections.values()
    now = asyncio.get_running_loop().time()
    assert (record.use_count, record.leases) == (3, 0)
    assert record.created_at == 1000
    assert record.last_used_at == now
    await pool.close()


@in_virtual_time
async def test_infinite_times_are_accepted():
    pool = pool_of(
        World().exclusive,
        max_idle_time=math.inf,
        max_lifetime=math.inf,
        acquire_timeout=math.inf,
    )
    await use_once(pool)
    await asyncio.sleep(10_000)
    assert pool.available_count == 1
    await pool.close()
