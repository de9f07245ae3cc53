"""The number of connections of a pool: age, broken connections, changed bounds."""

from __future__ import annotations

import asyncio
import logging

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectionPool,
    OptionError,
    PoolConfig,
)
from tests.core.pool_fakes import (
    World,
    after,
    forever,
    in_virtual_time,
    outcomes,
    pool_of,
    spawn,
    use_once,
)
from tests.waiting import wait_until

# Age


@in_virtual_time
async def test_idle_connections_over_min_size_are_closed_without_anybody_asking():
    world = World()
    pool = pool_of(world.exclusive, max_size=5, min_size=2, max_idle_time=100)
    await asyncio.gather(*(use_once(pool) for _ in range(5)))
    await asyncio.sleep(99)
    assert len(world.live) == 5
    await asyncio.sleep(2)
    assert len(world.live) == pool.available_count == 2
    await asyncio.sleep(500)
    assert len(world.live) == 2
    await pool.close()


@in_virtual_time
async def test_connection_used_meanwhile_is_not_idle():
    world = World()
    pool = pool_of(world.exclusive, max_idle_time=100)
    for _ in range(5):
        await use_once(pool)
        await asyncio.sleep(80)
    assert len(world.made) == 1
    await asyncio.sleep(30)
    assert world.live == []
    await pool.close()


@in_virtual_time
async def test_old_connection_is_replaced_after_its_lifetime_give_or_take_a_tenth():
    world = World()
    pool = pool_of(world.exclusive, max_size=50, max_lifetime=1000)
    held = await asyncio.gather(*(pool.acquire() for _ in range(50)))
    ages = [record.expires_at - record.created_at for record in pool._connections.values()]
    assert all(900 <= age <= 1100 for age in ages)
    assert max(ages) - min(ages) > 50
    await asyncio.sleep(1101)
    for connector in held:
        pool.release_nowait(connector)
    await wait_until(lambda: not pool.statistics().closing)
    assert world.live == []
    await pool.close()


@in_virtual_time
async def test_expired_connection_is_not_handed_out():
    world = World()
    clock = 0.0  # of connections only: the timer does not know yet
    config = PoolConfig(max_size=1, max_lifetime=10, max_idle_time=1000)
    pool = ConnectionPool("fake", world.exclusive, config, clock=lambda: clock)
    await use_once(pool)
    clock = 4.0
    await use_once(pool)
    clock = 8.9
    await use_once(pool)
    assert len(world.made) == 1
    clock = 11.1
    await use_once(pool)
    assert len(world.made) == 2
    assert len(world.live) == 1
    await pool.close()


@in_virtual_time
async def test_min_size_is_opened_and_kept():
    world = World()
    pool = pool_of(world.exclusive, min_size=3, max_size=5, max_lifetime=100)
    await pool.initialize()
    assert (pool.size, pool.available_count) == (3, 3)
    await asyncio.sleep(1000)
    assert len(world.made) > 20
    assert len(world.live) == pool.available_count == 3
    async with pool.connection() as connector:
        pass
    await pool.release(await pool.acquire(), discard=True)
    await asyncio.sleep(1)
    assert (pool.available_count, connector in world.live) == (3, False)
    await pool.close()


@in_virtual_time
async def test_initialize_raises_the_real_error_and_the_pool_still_works():
    world = World()
    world.connects = [True, AuthenticationError("no")]
    pool = pool_of(world.exclusive, min_size=2)
    with pytest.raises(AuthenticationError, match="no"):
        await pool.initialize()
    await use_once(pool)
    await asyncio.sleep(31)
    assert pool.available_count == 2
    await pool.close()


@in_virtual_time
async def test_initialize_survives_a_connect_that_succeeds_at_the_second_attempt():
    world = World()
    world.connects = [ConnectError("first")]
    pool = pool_of(world.exclusive, min_size=1)
    await asyncio.gather(pool.initialize(), pool.initialize())
    assert pool.available_count == len(world.live) == 1
    await pool.close()


# Broken connections


@pytest.mark.parametrize(
    "error", [ConnectError("gone"), AuthenticationError("revoked"), asyncio.CancelledError()]
)
@in_virtual_time
async def test_block_that_ends_with_a_broken_connection_discards_it(error: BaseException):
    world = World()
    pool = pool_of(world.exclusive, max_size=1)
    with pytest.raises(type(error)):
        async with pool.connection():
            raise error
    async with pool.connection() as connector:
        assert connector is world.made[1]
        assert world.live == [connector]
    await pool.close()


@in_virtual_time
async def test_block_that_ends_with_another_error_keeps_its_connection():
    world = World()
    pool = pool_of(world.exclusive)
    with pytest.raises(ZeroDivisionError):
        async with pool.connection():
            raise ZeroDivisionError
    await use_once(pool)
    assert len(world.made) == 1
    await pool.close()


@in_virtual_time
async def test_discarded_connection_keeps_its_place_until_it_is_closed():
    world = World()
    world.disconnects = [after(2)]
    pool = pool_of(world.exclusive, max_size=1)
    await pool.release(await pool.acquire(), discard=True)
    connector = await pool.acquire()
    assert asyncio.get_running_loop().time() == pytest.approx(1002)
    assert world.events == ["connect 0", "disconnect 0", "connect 1"]
    pool.release_nowait(connector)
    await pool.close()


@in_virtual_time
async def test_hanging_disconnect_is_bounded_and_reported_once(caplog: pytest.LogCaptureFixture):
    world = World()
    world.disconnects = [forever, forever]
    pool = pool_of(world.exclusive, max_size=1)
    with caplog.at_level(logging.DEBUG, logger="datasources"):
        for _ in range(2):
            await pool.release(await pool.acquire(), discard=True)
        await use_once(pool)
        await pool.close()
    logged = [r for r in caplog.records if r.name.startswith("datasources")]
    assert [record.getMessage() for record in logged] == [
        "disconnecting from source 'fake' took longer than 5 s and was abandoned"
    ]
    assert pool.statistics().disconnect_failures == 2
    assert asyncio.get_running_loop().time() < 1000 + 15


# Sizes


@in_virtual_time
async def test_growing_serves_those_who_wait():
    pool = pool_of(World().exclusive, max_size=1)
    held = await pool.acquire()
    waiter = spawn(pool.acquire())
    await asyncio.sleep(1)
    pool.resize(max_size=2)
    pool.release_nowait(await waiter)
    pool.release_nowait(held)
    assert pool.size == 2
    await pool.close()


@in_virtual_time
async def test_shrinking_closes_idle_connections_first_and_others_on_release():
    world = World()
    pool = pool_of(world.exclusive, max_size=4)
    held = [await pool.acquire() for _ in range(4)]
    pool.release_nowait(held.pop())
    pool.resize(max_size=2)
    await wait_until(lambda: not pool.statistics().closing)
    assert len(world.live) == 3
    for connector in held:
        pool.release_nowait(connector)
    await wait_until(lambda: not pool.statistics().closing)
    assert len(world.live) == pool.size == 2
    with pytest.raises(OptionError):
        pool.resize(max_size=0)
    await pool.close()


@in_virtual_time
async def test_shrinking_holds_for_connections_being_opened():
    world = World()
    world.connects = [after(1)] * 3
    pool = pool_of(world.exclusive, max_size=3)
    users = [spawn(use_once(pool)) for _ in range(6)]
    await wait_until(lambda: pool.statistics().opening == 3)
    pool.resize(max_size=1)
    await outcomes(*users)
    await wait_until(lambda: not pool.statistics().closing)
    assert len(world.live) == pool.size == 1
    await pool.close()


@in_virtual_time
async def test_resized_shareable_connector_is_replaced():
    world = World()
    pool = pool_of(world.shareable, max_size=1)
    held = await pool.acquire()
    pool.resize(max_size=3)
    other = await pool.acquire()
    assert other.pool_config.max_size == 3
    assert other is not held
    pool.release_nowait(held)
    pool.release_nowait(other)
    await wait_until(lambda: not pool.statistics().closing)
    assert world.live == [other]
    assert pool.size == 3
    await pool.close()
