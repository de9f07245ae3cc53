"""Connecting for a pool, and checking connections that have idled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataSourceConnector,
    PluginError,
    PoolTimeoutError,
)
from tests.core.pool_fakes import (
    FakeConnector,
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


@in_virtual_time
async def test_failed_connect_is_tried_again_with_growing_pauses():
    world = World()
    world.connects = [ConnectError("one"), ConnectError("two"), ConnectError("three")]
    pool = pool_of(world.exclusive, connect_attempts=4)
    loop = asyncio.get_running_loop()
    started = loop.time()
    pool.release_nowait(await pool.acquire())
    assert 0.35 <= loop.time() - started <= 1.05  # 0.1 + 0.2 + 0.4, give or take half
    now = pool.statistics()
    assert (now.connects, now.connect_failures, now.in_use) == (1, 3, 0)
    assert len(world.live) == 1
    await pool.close()


@in_virtual_time
async def test_last_connect_error_reaches_the_waiter_as_it_is():
    world = World()
    error = ConnectError("the server is away", code="08001")
    world.connects = [ConnectError("first"), error]
    pool = pool_of(world.exclusive, connect_attempts=2)
    with pytest.raises(ConnectError) as caught:
        await pool.acquire()
    assert caught.value is error
    assert world.live == []
    await pool.close()


@pytest.mark.parametrize("error", [AuthenticationError("no"), ConnectorError("no"), OSError("no")])
@in_virtual_time
async def test_other_errors_of_connect_are_final_at_once(error: Exception):
    world = World()
    world.connects = [error]
    pool = pool_of(world.exclusive, connect_attempts=5, max_size=1)
    with pytest.raises(ConnectorError) as caught:
        await pool.acquire()
    assert error in {caught.value, caught.value.__cause__}
    pool.release_nowait(await pool.acquire(timeout=1))
    assert pool.statistics().connect_failures == 1
    await pool.close()


@in_virtual_time
async def test_hanging_connect_is_a_connect_error_naming_source_and_seconds():
    world = World()
    world.connects = [forever, forever]
    pool = pool_of(world.exclusive, connect_attempts=2, connect_timeout=3, max_size=1)
    with pytest.raises(ConnectError, match=r"'fake' did not connect within 3 s"):
        await pool.acquire()
    assert world.live == []
    pool.release_nowait(await pool.acquire(timeout=1))
    await pool.close()


@in_virtual_time
async def test_connect_that_ignores_cancellation_is_bounded_too():
    world = World()

    async def stubborn() -> bool:
        with pytest.raises(asyncio.CancelledError):
            await forever()
        await asyncio.sleep(30)
        return True

    world.connects = [stubborn]
    pool = pool_of(world.exclusive, connect_attempts=1, connect_timeout=3, max_size=1)
    with pytest.raises(ConnectError, match="within 3 s"):
        await pool.acquire()
    assert asyncio.get_running_loop().time() < 1000 + 5
    pool.release_nowait(await pool.acquire(timeout=1))
    await pool.close()
    await asyncio.sleep(60)  # the connector's own task, which nobody can end


@in_virtual_time
async def test_abandoned_connect_that_fails_later_is_not_complained_about():
    world = World()

    async def stubborn() -> bool:
        with pytest.raises(asyncio.CancelledError):
            await forever()
        await asyncio.sleep(30)
        raise RuntimeError("late")

    world.connects = [stubborn]
    pool = pool_of(world.exclusive, connect_attempts=1, connect_timeout=3)
    with pytest.raises(ConnectError, match="within 3 s"):
        await pool.acquire()
    await pool.close()
    await asyncio.sleep(60)  # in which it fails; `in_virtual_time` sees what the loop says of it


@in_virtual_time
async def test_connect_that_returns_false_did_not_connect():
    world = World()
    world.connects = [False, False]
    pool = pool_of(world.exclusive, connect_attempts=2, max_size=1)
    with pytest.raises(ConnectError, match=r"connect\(\) returned False"):
        await pool.acquire()
    pool.release_nowait(await pool.acquire(timeout=1))
    await pool.close()


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
@in_virtual_time
async def test_connector_that_exits_fails_its_waiter_only(error: BaseException):
    world = World()
    world.connects = [error]
    pool = pool_of(world.exclusive, max_size=1)
    with pytest.raises(PluginError, match=r"raised SystemExit|cancelled itself"):
        await pool.acquire()
    pool.release_nowait(await pool.acquire(timeout=1))
    await pool.close()
    assert world.live == []


@in_virtual_time
async def test_failing_factory_loses_no_place():
    world = World()
    steps = [RuntimeError("no secret"), SystemExit(1), True]

    async def factory() -> DataSourceConnector:
        await world.plan(steps)
        return world.exclusive()

    pool = pool_of(factory, max_size=1)
    with pytest.raises(RuntimeError, match="no secret"):
        await pool.acquire()
    with pytest.raises(PluginError, match="SystemExit"):
        await pool.acquire()
    pool.release_nowait(await pool.acquire(timeout=1))
    await pool.close()


@in_virtual_time
async def test_hanging_factory_is_bounded():
    pool = pool_of(forever, connect_timeout=2, connect_attempts=1)
    with pytest.raises(ConnectError, match="within 2 s"):
        await pool.acquire()
    await pool.close()


@in_virtual_time
async def test_failing_connect_fails_one_waiter_and_strands_none():
    world = World()
    world.connects = [after(1, ConnectError("bad"))]
    pool = pool_of(world.exclusive, max_size=1, connect_attempts=1)
    results = await outcomes(*(spawn(use_once(pool)) for _ in range(5)))
    assert [type(one) for one in results] == [ConnectError, *[type(None)] * 4]
    await pool.close()


@in_virtual_time
async def test_waiter_served_by_a_release_is_not_failed_by_the_connect_it_began():
    world = World()
    pool = pool_of(world.exclusive, max_size=2, connect_attempts=1)
    held = await pool.acquire()
    world.connects = [after(5, ConnectError("bad"))]
    waiter = spawn(pool.acquire())
    await wait_until(lambda: pool.statistics().opening)
    pool.release_nowait(held)
    assert await waiter is held
    await asyncio.sleep(10)
    assert pool.statistics().connect_failures == 1
    pool.release_nowait(held)
    await pool.close()


@in_virtual_time
async def test_failing_connect_spares_the_waiter_that_another_connect_will_serve():
    world = World()
    world.connects = [after(1, ConnectError("bad")), after(2)]
    pool = pool_of(world.exclusive, max_size=2, connect_attempts=1)
    first, second = spawn(pool.acquire()), spawn(pool.acquire())
    await wait_until(lambda: pool.statistics().opening == 2)
    first.cancel()
    assert await second is world.made[1]
    pool.release_nowait(world.made[1])
    await pool.close()


@in_virtual_time
async def test_cancelled_connect_may_clean_up_before_it_is_disconnected():
    world = World()

    async def tidy() -> bool:
        try:
            return await forever()
        finally:
            await asyncio.sleep(0.5)
            world.events.append("tidy")

    world.connects = [tidy]
    pool = pool_of(world.exclusive, connect_attempts=1, connect_timeout=3)
    with pytest.raises(ConnectError):
        await pool.acquire()
    assert world.events == ["connect 0", "tidy", "disconnect 0"]
    await pool.close()


@in_virtual_time
async def test_waiter_that_times_out_while_connecting_fails_gets_the_real_error():
    world = World()
    world.connects = [ConnectError("the server is away"), forever]
    pool = pool_of(world.exclusive, connect_timeout=60)
    with pytest.raises(ConnectError, match="the server is away"):
        await pool.acquire(timeout=5)
    await pool.close()


@in_virtual_time
async def test_timeout_with_connections_in_use_has_the_connect_error_as_its_cause():
    world = World()
    pool = pool_of(world.exclusive, connect_timeout=60)
    held = await pool.acquire()
    world.connects = [ConnectError("the server is away"), forever]
    with pytest.raises(PoolTimeoutError) as caught:
        await pool.acquire(timeout=5)
    assert str(caught.value.__cause__) == "the server is away"
    pool.release_nowait(held)
    await pool.close()


@in_virtual_time
async def test_connect_whose_waiter_has_gone_ends_up_idle():
    world = World()
    world.connects = [after(5)]
    pool = pool_of(world.exclusive)
    with pytest.raises(PoolTimeoutError, match="1 opening"):
        await pool.acquire(timeout=1)
    await asyncio.sleep(5)
    assert (pool.available_count, pool.statistics().connects) == (1, 1)
    await pool.close()


@in_virtual_time
async def test_cold_pool_connects_for_all_waiters_at_once():
    world = World()
    world.connects = [after(1)] * 4
    pool = pool_of(world.exclusive, max_size=4)
    held = await asyncio.gather(*(pool.acquire() for _ in range(4)))
    assert asyncio.get_running_loop().time() == pytest.approx(1001)
    for connector in held:
        pool.release_nowait(connector)
    await pool.close()


# Checks


@in_virtual_time
async def test_connection_is_checked_only_after_it_has_idled():
    world = World()
    pool = pool_of(world.exclusive)
    await use_once(pool)
    await asyncio.sleep(4.9)
    await use_once(pool)
    assert pool.statistics().checks == 0
    await asyncio.sleep(5)
    await use_once(pool)
    assert pool.statistics().checks == 1
    assert len(world.made) == 1
    await pool.close()


@pytest.mark.parametrize("answer", [False, OSError("reset"), SystemExit(1), forever])
@in_virtual_time
async def test_connection_that_fails_its_check_is_replaced(answer: Any):
    world = World()
    world.checks = [answer]
    pool = pool_of(world.exclusive, max_size=1)
    await use_once(pool)
    await asyncio.sleep(60)
    connector = await pool.acquire()
    assert connector is world.made[1]
    assert world.live == [connector]
    assert pool.statistics().check_failures == 1
    pool.release_nowait(connector)
    await pool.close()


@in_virtual_time
async def test_check_counts_as_use():
    world = World()
    world.checks = [after(1)]
    pool = pool_of(world.exclusive)
    await use_once(pool)
    await asyncio.sleep(60)
    with pytest.raises(PoolTimeoutError, match="1 opening"):
        await pool.acquire(timeout=0.5)
    await asyncio.sleep(1)
    await use_once(pool)
    assert pool.statistics().checks == 1
    await pool.close()


@in_virtual_time
async def test_failing_check_with_a_failing_connect_gives_the_real_error():
    world = World()
    world.checks, world.connects = [False], [True, AuthenticationError("expired")]
    pool = pool_of(world.exclusive, max_size=1)
    await use_once(pool)
    await asyncio.sleep(60)
    with pytest.raises(AuthenticationError, match="expired"):
        await pool.acquire()
    await pool.close()
    assert world.live == []


class SelfTestingFake(FakeConnector):
    """Tests itself in the manner of the documented example: connect, then disconnect."""

    open_count = 0

    async def connect(self) -> bool:
        self._connection = object()
        type(self).open_count += 1
        return await super().connect()

    async def disconnect(self) -> None:
        if self._connection:
            type(self).open_count -= 1
            self._connection = None
        await super().disconnect()

    async def test_connection(self) -> bool:
        try:
            await self.connect()
            return True
        except Exception:  # noqa: BLE001  as documented
            return False
        finally:
            await self.disconnect()


@in_virtual_time
async def test_check_that_disconnects_is_followed_by_connect():
    world = World()

    def factory() -> SelfTestingFake:
        world.made.append(connector := SelfTestingFake(world))
        return connector

    pool = pool_of(factory)
    for _ in range(4):
        async with pool.connection() as connector:
            assert isinstance(connector, SelfTestingFake)
            assert connector.connected
            assert connector._connection
        await asyncio.sleep(60)
    assert pool.statistics().checks == 3
    assert pool.statistics().check_failures == 0
    await pool.close()
    # The first check replaces what is open, as the example does; the pool learns from it.
    assert SelfTestingFake.open_count <= 1
