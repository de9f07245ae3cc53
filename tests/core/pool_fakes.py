"""Fake connectors and an event loop in virtual time, for tests of pools."""

from __future__ import annotations

import asyncio
import functools
import gc
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from datasources import (
    ConnectionPool,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    PoolConfig,
)

CONFIG = DataSourceConfig(id="fake", type="custom", name="Fake", config={})


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


async def use_once(pool: ConnectionPool) -> None:
    async with pool.connection():
        await asyncio.sleep(0.1)
