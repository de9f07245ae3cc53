"""The pool beside other pools, connections that do nothing, one run: `pytest tests/bench/pool.py`.

Two loads: one task that takes and returns a connection over and over, and 1,000 tasks over 10
connections, each holding one for a turn of the event loop.  In the second every task asks again
as soon as it has returned, so the order of service shows in the longest wait.  Time is the
process's own: whatever else runs on the machine does not count.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from datasources import ConnectionPool, PoolConfig

ROUNDS = 7
SIZE = 10
TASKS = 1000
TURNS = 10
ALONE = 20_000

Use = tuple[Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[Any]]]
"""How to take a connection, and how to return it."""


@dataclass
class Figures:
    """Medians of the rounds."""

    alone: float
    """Operations per second of one task."""
    crowded: float
    """Operations per second of 1,000 tasks."""
    longest: float
    """The longest wait over the median wait, 1,000 tasks."""


@asynccontextmanager
async def ours():
    class Null:
        async def connect(self):
            return True

        async def disconnect(self):
            pass

    null: Any = Null
    pool = ConnectionPool("null", null, PoolConfig(max_size=SIZE))
    yield pool.acquire, pool.release
    await pool.close()


@asynccontextmanager
async def ours_as_a_block():
    async with ours() as (acquire, _):
        pool = acquire.__self__
        leases: dict[Any, Any] = {}

        async def enter():
            lease = pool.connection()
            leases[connection := await lease.__aenter__()] = lease
            return connection

        async def leave(connection):
            await leases.pop(connection).__aexit__(None, None, None)

        yield enter, leave


@asynccontextmanager
async def direct_hand_off():
    """The floor: what any fair pool has to do, and nothing else."""
    free = deque(range(SIZE))
    waiters: deque[asyncio.Future[int]] = deque()
    loop = asyncio.get_running_loop()

    async def acquire():
        if free:
            return free.pop()
        waiters.append(waiter := loop.create_future())
        return await waiter

    async def release(connection):
        if waiters:
            waiters.popleft().set_result(connection)
        else:
            free.append(connection)

    yield acquire, release


@asynccontextmanager
async def semaphore():
    free = deque(range(SIZE))
    gate = asyncio.Semaphore(SIZE)

    async def acquire():
        await gate.acquire()
        return free.pop()

    async def release(connection):
        free.append(connection)
        gate.release()

    yield acquire, release


@asynccontextmanager
async def psycopg_pool():
    from psycopg import AsyncConnection
    from psycopg.pq import TransactionStatus
    from psycopg_pool import AsyncConnectionPool

    class Null(AsyncConnection):
        class pgconn:  # noqa: N801  as the driver has it
            transaction_status = TransactionStatus.IDLE

        closed = False
        connect = classmethod(lambda cls, *args, **kwargs: _made(cls()))

        def __init__(self) -> None:
            pass

        def __del__(self, *args: Any) -> None:
            pass

        async def close(self) -> None:
            pass

    async with AsyncConnectionPool(
        connection_class=Null, min_size=SIZE, max_size=SIZE, open=False
    ) as pool:
        await pool.wait()
        yield pool.getconn, pool.putconn


@asynccontextmanager
async def asyncpg_pool():
    import asyncpg

    class Nothing:
        class _protocol:  # noqa: N801  as the driver has it
            queries_count = 0
            _is_cancelling = staticmethod(lambda: False)

        _source_traceback = None
        _set_proxy = is_closed = terminate = _on_release = lambda self, *args: None

        def __init__(self) -> None:
            pass

        def __del__(self) -> None:
            pass

        async def _reset(self) -> None:
            pass

        async def reset(self, *, timeout=None) -> None:
            pass

        async def close(self, *, timeout=None) -> None:
            self._pool_holder()._release_on_close()  # type: ignore[attr-defined]

    null = type("Null", (Nothing, asyncpg.Connection), {})

    async def no_reset(connection):
        pass

    # With a `reset` of one's own the driver's query is off, as it is for all others here.
    pool = await asyncpg.create_pool(
        connection_class=null,
        connect=lambda *args, **kwargs: _made(null()),
        min_size=SIZE,
        max_size=SIZE,
        reset=no_reset,
    )
    yield pool.acquire, pool.release
    await pool.close()


async def _made(connection):
    return connection


async def use_alone(use: Use) -> float:
    """Return operations per second."""
    acquire, release = use
    started = time.process_time()
    for _ in range(ALONE):
        await release(await acquire())
    return ALONE / (time.process_time() - started)


async def use_crowded(use: Use) -> float:
    """Return operations per second."""
    acquire, release = use

    async def task():
        for _ in range(TURNS):
            connection = await acquire()
            await asyncio.sleep(0)
            await release(connection)

    started = time.process_time()
    await asyncio.gather(*(task() for _ in range(TASKS)))
    return TASKS * TURNS / (time.process_time() - started)


async def longest_wait(use: Use) -> float:
    """Return the longest wait over the median wait."""
    waits = []

    async def timed_acquire():
        asked = time.process_time()
        connection = await use[0]()
        waits.append(time.process_time() - asked)
        return connection

    await use_crowded((timed_acquire, use[1]))
    return max(waits) / statistics.median(waits)


async def measured(pool: Callable[[], AbstractAsyncContextManager[Use]]) -> tuple[float, ...]:
    async with pool() as use:
        await use_alone(use)
        gc.collect()
        gc.disable()  # its pauses would be somebody's longest wait
        try:
            return await use_alone(use), await use_crowded(use), await longest_wait(use)
        finally:
            gc.enable()


def compare() -> dict[str, Figures]:
    """Measure every pool in turn, round by round, so that all share the machine's moods."""
    pools = [ours, ours_as_a_block, psycopg_pool, asyncpg_pool, semaphore, direct_hand_off]
    rounds: dict[str, list[tuple[float, ...]]] = {pool.__name__: [] for pool in pools}
    for _ in range(ROUNDS):
        for pool in pools:
            rounds[pool.__name__].append(asyncio.run(measured(pool)))
    return {
        name: Figures(*map(statistics.median, zip(*figures, strict=True)))
        for name, figures in rounds.items()
    }


def report(results: dict[str, Figures]) -> None:
    own = results["ours"]
    print(
        f"\n{'pool':18}{'alone/s':>12}{'ours is':>9}{'crowded/s':>12}{'ours is':>9}{'longest':>9}"
    )
    for name, one in results.items():
        print(
            f"{name:18}{one.alone:12,.0f}{own.alone / one.alone:8.2f}x"
            f"{one.crowded:12,.0f}{own.crowded / one.crowded:8.2f}x{one.longest:8.2f}x"
        )


@pytest.mark.bench
def test_pool_is_fast_and_fair_beside_others():
    results = compare()
    report(results)
    own = results["ours"]
    assert own.alone >= 2 * results["psycopg_pool"].alone
    assert own.crowded >= 4 * results["psycopg_pool"].crowded
    assert own.crowded >= 2 * results["asyncpg_pool"].crowded
    assert own.crowded >= 0.4 * results["direct_hand_off"].crowded
    assert own.longest <= 1.5


if __name__ == "__main__":
    report(compare())
