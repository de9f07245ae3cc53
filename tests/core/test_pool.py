"""Connection pools over fake connectors, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import math
import random
import re
import selectors
import statistics
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectionPool,
    ConnectionPoolManager,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    OptionError,
    PluginError,
    PoolClosedError,
    PoolConfig,
    PoolError,
    PoolTimeoutError,
)
from tests.waiting import wait_until

CONFIG = DataSourceConfig(id="fake", type="custom", name="Fake", config={})  # type: ignore[arg-type]


class Clockwork(asyncio.SelectorEventLoop):
    """An event loop whose clock moves when, and as far as, there is nothing else to do."""

    def __init__(self) -> None:
        self._now = 1000.0
        loop = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None):
                assert timeout is not None, "everybody waits for something that never comes"
                loop._now += max(0.0, timeout)
                return super().select(0)

        super().__init__(Selector())
        self.complaints: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self) -> float:
        return self._now


def in_virtual_time(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Run a test on a `Clockwork`, and see that it leaves no task and no complaint behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def body() -> None:
            await test(*args, **kwargs)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left"

        with asyncio.Runner(loop_factory=Clockwork) as runner:
            runner.run(body())
            loop = runner.get_loop()
            gc.collect(1)
            assert isinstance(loop, Clockwork)
            assert loop.complaints == []

    return run


class World:
    """What fake connectors meet, and what has happened to them.

    `connects`, `checks` and `disconnects` say what happens next: each call takes one from the
    left, an exception to raise, a value to return, or a coroutine function to await; when none
    is left all goes well.
    """

    def __init__(self) -> None:
        self.connects: list[Any] = []
        self.checks: list[Any] = []
        self.disconnects: list[Any] = []
        self.made: list[FakeConnector] = []
        self.events: list[str] = []

    @property
    def live(self) -> list[FakeConnector]:
        return [connector for connector in self.made if connector.live]

    def exclusive(self) -> FakeConnector:
        self.made.append(FakeConnector(self))
        return self.made[-1]

    def shareable(self) -> FakeConnector:
        self.made.append(ShareableFake(self))
        return self.made[-1]

    async def plan(self, plans: list[Any]) -> Any:
        step = plans.pop(0) if plans else True
        if isinstance(step, BaseException):
            raise step
        return await step() if callable(step) else step


class FakeConnector(DataSourceConnector):
    """Counts; `live` from a connect that began until a disconnect that ended."""

    def __init__(self, world: World) -> None:
        super().__init__(CONFIG)
        self.world = world
        self.live = False
        self.connected = False

    def note(self, event: str) -> None:
        self.world.events.append(f"{event} {self.world.made.index(self)}")

    async def connect(self) -> bool:
        self.note("connect")
        self.live = True
        result: bool = await self.world.plan(self.world.connects)
        self.connected = True
        return result

    async def disconnect(self) -> None:
        self.note("disconnect")
        self.connected = False
        try:
            await self.world.plan(self.world.disconnects)
        finally:
            self.live = False

    async def test_connection(self) -> bool:
        self.note("check")
        result: bool = await self.world.plan(self.world.checks)
        return result

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        return []

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        return ""

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        return {}


class ShareableFake(FakeConnector):
    shareable = True


async def forever() -> bool:
    await asyncio.get_running_loop().create_future()
    return True


def after(seconds: float, result: Any = True) -> Callable[[], Coroutine[Any, Any, Any]]:
    async def step() -> Any:
        await asyncio.sleep(seconds)
        if isinstance(result, BaseException):
            raise result
        return result

    return step


def pool_of(
    factory: Callable[[], Any], *, track_leases: bool = False, **config: Any
) -> ConnectionPool:
    clock = asyncio.get_running_loop().time
    return ConnectionPool(
        "fake", factory, PoolConfig(**config), clock=clock, track_leases=track_leases
    )


def spawn(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coroutine)


async def outcomes(*tasks: asyncio.Task[Any]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


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
    found = await outcomes(*tasks)
    assert [error for error in found if isinstance(error, Exception)] == []
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


# Connecting


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


@pytest.mark.parametrize("error", [AuthenticationError("no"), OSError("no"), ValueError("no")])
@in_virtual_time
async def test_other_errors_of_connect_are_final_at_once(error: Exception):
    world = World()
    world.connects = [error]
    pool = pool_of(world.exclusive, connect_attempts=5, max_size=1)
    with pytest.raises(type(error)) as caught:
        await pool.acquire()
    assert caught.value is error
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
    found = await outcomes(*(spawn(_use(pool)) for _ in range(5)))
    assert [type(one) for one in found] == [ConnectError, *[type(None)] * 4]
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


async def _use(pool: ConnectionPool) -> None:
    async with pool.connection():
        await asyncio.sleep(0.1)


# Checks


@in_virtual_time
async def test_connection_is_checked_only_after_it_has_idled():
    world = World()
    pool = pool_of(world.exclusive)
    await _use(pool)
    await asyncio.sleep(4.9)
    await _use(pool)
    assert pool.statistics().checks == 0
    await asyncio.sleep(5)
    await _use(pool)
    assert pool.statistics().checks == 1
    assert len(world.made) == 1
    await pool.close()


@pytest.mark.parametrize("answer", [False, OSError("reset"), SystemExit(1), forever])
@in_virtual_time
async def test_connection_that_fails_its_check_is_replaced(answer: Any):
    world = World()
    world.checks = [answer]
    pool = pool_of(world.exclusive, max_size=1)
    await _use(pool)
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
    await _use(pool)
    await asyncio.sleep(60)
    with pytest.raises(PoolTimeoutError, match="1 opening"):
        await pool.acquire(timeout=0.5)
    await asyncio.sleep(1)
    await _use(pool)
    assert pool.statistics().checks == 1
    await pool.close()


@in_virtual_time
async def test_failing_check_with_a_failing_connect_gives_the_real_error():
    world = World()
    world.checks, world.connects = [False], [True, AuthenticationError("expired")]
    pool = pool_of(world.exclusive, max_size=1)
    await _use(pool)
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


# Age


@in_virtual_time
async def test_idle_connections_over_min_size_are_closed_without_anybody_asking():
    world = World()
    pool = pool_of(world.exclusive, max_size=5, min_size=2, max_idle_time=100)
    await asyncio.gather(*(_use(pool) for _ in range(5)))
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
        await _use(pool)
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
    ages = [record.expires_at - record.created_at for record in pool._records.values()]
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
    await _use(pool)
    clock = 4.0
    await _use(pool)
    clock = 8.9
    await _use(pool)
    assert len(world.made) == 1
    clock = 11.1
    await _use(pool)
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
    await _use(pool)
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


# Shareable connectors


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
    found = await outcomes(*(spawn(_use(pool)) for _ in range(5)))
    assert {type(one) for one in found} == {AuthenticationError}
    await _use(pool)
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
    await _use(pool)
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
    await _use(pool)
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
    await _use(pool)
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
        await _use(pool)
        await pool.close()
    assert [record.getMessage() for record in caplog.records] == [
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
    users = [spawn(_use(pool)) for _ in range(6)]
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


# Closing


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
        PoolError, match=rf"2 .* never returned.*{here}:\d+ in forgetful.*{here}:\d+ in careless"
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
        await _use(pool)
        await asyncio.sleep(10)  # so that there is a check to interrupt
        waiter = spawn(pool.acquire())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing = spawn(pool.close())
        (found,) = await outcomes(waiter)
        if not isinstance(found, PoolClosedError):
            pool.release_nowait(found)
        await closing
        assert world.live == []


@in_virtual_time
async def test_errors_of_disconnect_are_raised_by_close_after_the_rest_is_closed():
    world = World()
    pool = pool_of(world.exclusive)
    await asyncio.gather(*(_use(pool) for _ in range(4)))
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


def test_forgotten_pool_warns_of_open_connections_and_of_nothing_else():
    async def forget() -> None:
        pool = ConnectionPool("fake", World().exclusive)
        async with pool.connection():
            pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget())
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert "'fake' was not closed and leaves 1 connections open" in str(caught[0].message)


def test_pool_without_open_connections_is_forgotten_silently():
    async def forget() -> None:
        pool = ConnectionPool("fake", World().exclusive)
        await pool.release(await pool.acquire(), discard=True)
        await asyncio.sleep(0.01)

    with warnings.catch_warnings():
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
    with pytest.warns(ResourceWarning, match="leaves 1 connections open"):
        pools.clear()


@pytest.mark.parametrize("idle", [False, True], ids=["connecting", "checking"])
def test_event_loop_closed_under_a_pool_causes_no_further_errors(
    idle: bool, monkeypatch: pytest.MonkeyPatch
):
    ignored: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda error: ignored.append(error.exc_value))
    world = World()
    loop = Clockwork()
    pool = ConnectionPool("fake", world.exclusive, clock=loop.time)
    if idle:
        loop.run_until_complete(_use(pool))
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
    await asyncio.gather(*(_use(pool) for _ in range(10)))
    assert len(world.made) == 2
    await pool.close()


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
        await _use(pool)
    (record,) = pool._records.values()
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
    await _use(pool)
    await asyncio.sleep(10_000)
    assert pool.available_count == 1
    await pool.close()


# The manager


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
        await _use(pool)
    await pools[1].acquire()
    with pytest.raises(ExceptionGroup) as caught:
        await manager.close_all(timeout=1)
    assert [type(error) for error in caught.value.exceptions] == [PoolError]
    assert world.live == []
    assert all(pool.closed for pool in pools)
