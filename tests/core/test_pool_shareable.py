"""Pools of connectors that serve many leases at once."""

from __future__ import annotations

import asyncio

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
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


@in_virtual_time
async def test_shareable_connector_is_connected_once_and_leased_max_size_times():
    world = World()
    world.connects = [after(1)]
    pool = pool_of(world.shareable, max_size=4)
    held = await asyncio.gather(*(pool.acquire() for _ in range(4)))
    assert len(set(map(id, held))) == len(world.made) == 1
    assert world.made[0].pool_config is pool.config
    assert (pool.size, pool.in_use_count, pool.available_count) == (4, 4, 0)
    waiter = spawn(pool.acquire())
    with pytest.raises(PoolTimeoutError, match="4 of 4 in use"):
        await pool.acquire(timeout=1)
    pool.release_nowait(held.pop())
    held.append(await waiter)
    for connector in held:
        pool.release_nowait(connector)
    with pytest.raises(PoolError, match="released already"):
        pool.release_nowait(held[0])
    await pool.close()


@in_virtual_time
async def test_failing_shareable_connect_fails_all_who_wait_for_it():
    world = World()
    world.connects = [after(1, AuthenticationError("no"))]
    pool = pool_of(world.shareable, max_size=2)
    results = await outcomes(*(spawn(use_once(pool)) for _ in range(5)))
    assert {type(one) for one in results} == {AuthenticationError}
    await use_once(pool)
    await pool.close()


@in_virtual_time
async def test_shared_connection_outlives_a_block_that_fails():
    world = World()
    pool = pool_of(world.shareable)
    async with pool.connection() as other:
        with pytest.raises(ConnectError):
            async with pool.connection():
                raise ConnectError("the server went away")
        assert other in world.live
    await use_once(pool)
    assert len(world.made) == 1
    await pool.close()


@in_virtual_time
async def test_discarded_shared_connection_is_replaced_and_closed_when_its_last_lease_is_back():
    world = World()
    pool = pool_of(world.shareable, max_size=3)
    held = [await pool.acquire() for _ in range(3)]
    pool.release_nowait(held.pop(), discard=True)
    fresh = await pool.acquire()
    assert fresh is world.made[1]
    assert len(world.live) == 2
    with pytest.raises(PoolTimeoutError, match="3 of 3 in use"):
        await pool.acquire(timeout=1)
    waiter = spawn(pool.acquire())
    await asyncio.sleep(0)
    pool.release_nowait(held.pop())
    assert await waiter is fresh
    pool.release_nowait(held.pop())
    await wait_until(lambda: not pool.statistics().closing)
    assert world.live == [fresh]
    assert (pool.in_use_count, pool.available_count) == (2, 1)
    pool.release_nowait(fresh)
    pool.release_nowait(fresh)
    await pool.close()


@in_virtual_time
async def test_shared_connection_nobody_uses_is_closed_when_idle():
    world = World()
    pool = pool_of(world.shareable, max_idle_time=100)
    held = await pool.acquire()
    await asyncio.sleep(1000)
    assert world.live == [held]
    pool.release_nowait(held)
    await asyncio.sleep(99)
    assert world.live == [held]
    await asyncio.sleep(102)
    assert world.live == []
    await use_once(pool)
    await pool.close()


@in_virtual_time
async def test_min_size_of_a_shareable_connector_is_one_connection_opened_and_kept():
    world = World()
    pool = pool_of(world.shareable, min_size=2, max_size=4, max_idle_time=100)
    await pool.initialize()
    assert len(world.live) == 1
    assert pool.available_count == 4
    await asyncio.sleep(1000)
    assert len(world.made) == len(world.live) == 1
    await pool.release(await pool.acquire(), discard=True)
    await asyncio.sleep(1)
    assert world.live == world.made[1:]
    await pool.close()


@in_virtual_time
async def test_refused_shared_connector_is_replaced_once_and_keeps_its_other_leases():
    world = World()
    pool = pool_of(world.shareable, max_size=3)
    async with pool.connection() as held:
        refused = [pool.connection(), pool.connection()]
        for lease in refused:
            await lease.__aenter__()
        for lease in refused:
            await lease.__aexit__(AuthenticationError, AuthenticationError("revoked"), None)
        async with pool.connection() as connector:
            assert connector is world.made[1]
        assert held is world.made[0]
        assert set(world.live) == {held, connector}, "a lease lost its connector"
    await asyncio.sleep(1)  # of virtual time: it is disconnected in a task
    assert world.live == [world.made[1]]
    await pool.close()


@pytest.mark.parametrize("error", [ConnectError("gone"), asyncio.CancelledError()])
@in_virtual_time
async def test_shared_connector_is_kept_after_errors_that_its_driver_mends(error: BaseException):
    world = World()
    pool = pool_of(world.shareable)
    with pytest.raises(type(error)):
        async with pool.connection():
            raise error
    await use_once(pool)
    assert len(world.made) == 1
    await pool.close()
