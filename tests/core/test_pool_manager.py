"""The pools of several sources."""

from __future__ import annotations

import asyncio

import pytest

from datasources import (
    AuthenticationError,
    ConnectionPoolManager,
    PoolConfig,
    PoolError,
)
from tests.core.pool_fakes import (
    World,
    after,
    in_virtual_time,
    use_once,
)


@in_virtual_time
async def test_the_documented_example_works():
    world = World()
    manager = ConnectionPoolManager(default_config=PoolConfig(max_size=10, min_size=2))
    pool = await manager.get_pool(data_source_id="my-database", connector_factory=world.exclusive)
    connector = await pool.acquire()
    try:
        await connector.fetch_data("query", "/workspace")
    finally:
        await pool.release(connector)
    stats = manager.get_pool_stats("my-database")
    seed_keys = ("total", "available", "in_use", "max_size", "min_size")
    assert [stats[key] for key in seed_keys] == [2, 2, 0, 10, 2]
    assert manager.list_pools() == ["my-database"]
    await manager.close_all()
    assert manager.list_pools() == []
    assert world.live == []


@in_virtual_time
async def test_two_callers_get_one_pool():
    world = World()
    world.connects = [after(1)]
    manager = ConnectionPoolManager(PoolConfig(min_size=1))
    first, second = await asyncio.gather(
        manager.get_pool("a", world.exclusive), manager.get_pool("a", world.exclusive)
    )
    assert first is second
    assert len(world.made) == 1
    await manager.close_pool("a")
    await manager.close_pool("a")
    third = await manager.get_pool("a", world.exclusive, PoolConfig(max_size=3))
    assert third is not first
    assert third.config.max_size == 3
    await manager.close_all()


@in_virtual_time
async def test_pool_that_cannot_open_its_minimum_is_gone_again():
    world = World()
    world.connects = [AuthenticationError("no")]
    manager = ConnectionPoolManager(PoolConfig(min_size=1))
    with pytest.raises(AuthenticationError):
        await manager.get_pool("a", world.exclusive)
    assert manager.list_pools() == []
    await manager.get_pool("a", world.exclusive)
    await manager.close_all()


@in_virtual_time
async def test_statistics_of_an_unknown_source_name_the_known_ones():
    manager = ConnectionPoolManager()
    await manager.get_pool("a", World().exclusive)
    with pytest.raises(PoolError, match="'b' has no pool; pools: a"):
        manager.get_pool_stats("b")
    await manager.close_all()


@in_virtual_time
async def test_close_all_closes_the_rest_when_one_fails_then_says_so():
    world = World()
    manager = ConnectionPoolManager(track_leases=True)
    pools = [await manager.get_pool(name, world.exclusive) for name in "abc"]
    for pool in pools:
        await use_once(pool)
    await pools[1].acquire()
    with pytest.raises(ExceptionGroup) as caught:
        await manager.close_all(timeout=1)
    assert [type(error) for error in caught.value.exceptions] == [PoolError]
    assert world.live == []
    assert all(pool.closed for pool in pools)
