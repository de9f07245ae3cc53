"""A pool beside a model of it, driven by hypothesis through whatever may come, in virtual time.

What holds after every step: no exclusive connection has two holders or is handed out closed or
after it has long been dead, no more are open than the pool may have, places taken and free add
up, nobody is served before somebody who came earlier, one failure fails one waiter.  What holds
when all goes well again: whoever can wait is served, every place can be used, the pool keeps its
sizes; closing it leaves no connection, task or complaint.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectionPool,
    DataSourceConnector,
    PluginError,
    PoolClosedError,
    PoolConfig,
    PoolError,
    PoolTimeoutError,
)
from datasources.pool.state import CHECK_AFTER_IDLE
from tests.core.pool_fakes import Clockwork, FakeConnector, World, after, forever

PATIENCE = 1000.0
"""Seconds that a user waits who is to be served in any case."""
RECOVERY = 60.0
"""Seconds in which what has begun to fail or hang has ended: attempts, checks, disconnects."""

SOAK_SEEDS = range(10)
"""Each makes 10,000 steps, the same ones every time."""


async def reluctant() -> bool:
    """Do not end when cancelled, but soon after."""
    try:
        return await forever()
    except asyncio.CancelledError:
        await asyncio.sleep(0.5)
        raise


def failing(kind: type[BaseException]) -> Callable[[], Any]:
    async def step() -> bool:
        raise kind("as planned")

    return step


CONNECTS = {
    "good": True,
    "slow": after(3),
    "unreachable": failing(ConnectError),
    "unreachable after a while": after(2, ConnectError("as planned")),
    "refused": failing(AuthenticationError),
    "false": False,
    "exits": failing(SystemExit),
    "hangs": forever,
    "hangs and is reluctant": reluctant,
}
CHECKS = {
    "good": True,
    "slow": after(2),
    "false": False,
    "raises": failing(OSError),
    "hangs": forever,
    "exits": failing(SystemExit),
}
DISCONNECTS = {
    "good": True,
    "slow": after(1),
    "raises": failing(OSError),
    "hangs": forever,
    "hangs and is reluctant": reluctant,
}
EXPECTED = (ConnectError, AuthenticationError, PluginError, PoolTimeoutError, PoolClosedError)


class MortalConnector(FakeConnector):
    """Dies when its server restarts, which only a check finds out."""

    dead = False
    used_at = math.inf

    async def test_connection(self) -> bool:
        answer = await super().test_connection()
        self.used_at = asyncio.get_running_loop().time()
        return answer and not self.dead


class ShareableConnector(MortalConnector):
    shareable = True


class ModelWorld(World):
    """Counts what is open, and forgets what is closed."""

    limit = 0

    def make(self, kind: type[MortalConnector]) -> MortalConnector:
        self.made = [one for one in self.made if one.live]
        # The new one is about to connect.
        assert len(self.made) < self.limit, "more connections than max_size"
        self.made.append(connector := kind(self))
        return connector


@dataclass(eq=False)
class User:
    """Somebody who takes a connection and returns it when told to."""

    leave: asyncio.Future[bool]
    task: asyncio.Task[None] = field(init=False)
    patient: bool
    asked: int | None = None
    connector: MortalConnector | None = None

    @property
    def waits(self) -> bool:
        """True from the request until a connection or an error has been assigned."""
        if self.asked is None or self.connector or self.task.done():
            return False
        future: asyncio.Future[Any] | None = self.task._fut_waiter  # type: ignore[attr-defined]
        return future is not None and not future.done()

    @property
    def assigned(self) -> bool:
        """True from the assignment of a connection or an error until it is noticed."""
        return not (self.asked is None or self.connector or self.task.done() or self.waits)


class PoolMachine(RuleBasedStateMachine):
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clockwork()
        self.world = ModelWorld()
        self.users: list[User] = []
        self.others: list[asyncio.Task[Any]] = []
        self.order = itertools.count()

    @initialize(
        shareable=st.booleans(),
        asynchronous=st.booleans(),
        sizes=st.tuples(st.integers(0, 4), st.integers(1, 4)).map(sorted),
        config=st.fixed_dictionaries(
            {
                "max_idle_time": st.sampled_from([4.0, 50.0, 300.0]),
                "max_lifetime": st.sampled_from([10.0, 100.0, 3600.0]),
                "connect_attempts": st.integers(1, 3),
                "connect_timeout": st.just(2.5),
                "acquire_timeout": st.sampled_from([1.0, PATIENCE]),
            }
        ),
        track_leases=st.booleans(),
    )
    def begin(self, shareable, asynchronous, sizes, config, track_leases):
        self.shareable = shareable
        kind = ShareableConnector if shareable else MortalConnector

        async def slowly() -> DataSourceConnector:
            await asyncio.sleep(0.1)
            return self.world.make(kind)

        self.factory = slowly if asynchronous else lambda: self.world.make(kind)
        self.track_leases = track_leases
        self.config = PoolConfig(min_size=sizes[0], max_size=max(1, sizes[1]), **config)
        self.new_pool()

    def new_pool(self) -> None:
        self.pool = ConnectionPool(
            "fake",
            self.factory,
            self.config,
            clock=self.loop.time,
            track_leases=self.track_leases,
        )
        self.world.limit = self.limit_of(self.config.max_size)
        self.kept = False
        self.failures = 0

    def limit_of(self, max_size: int) -> int:
        # Shared ones that have been replaced stay open while somebody uses them.
        return 1000 if self.shareable else max_size

    # What users do.

    async def use(self, user: User, timeout: float | None, discard: bool, block: bool) -> None:
        user.asked = next(self.order)
        if block:
            async with self.pool.connection(timeout) as connector:
                self.served(user, connector)
                try:
                    if await user.leave:
                        raise ConnectError("as planned")
                finally:
                    self.left(user)
            return
        connector = await self.pool.acquire(timeout)
        try:
            self.served(user, connector)
            await user.leave
        finally:
            self.left(user)
            self.pool.release_nowait(connector, discard=discard)

    def served(self, user: User, connector: DataSourceConnector) -> None:
        assert isinstance(connector, MortalConnector)
        assert connector.connected, "handed out closed"
        if not self.shareable:
            assert all(one.connector is not connector for one in self.users), "held twice"
            idle = self.loop.time() - connector.used_at
            if connector.dead:
                assert idle < CHECK_AFTER_IDLE, "handed out dead"
        before = [one for one in self.users if one.waits and one.asked < user.asked]  # type: ignore[operator]
        assert not before, "served before somebody who came earlier"
        user.connector = connector

    def left(self, user: User) -> None:
        assert user.connector
        user.connector.used_at = self.loop.time()
        user.connector = None

    @rule(
        count=st.integers(1, 4),
        timeout=st.sampled_from([None, 0, 0.5, 3, PATIENCE, PATIENCE]),
        discard=st.sampled_from([False, False, True]),
        block=st.booleans(),
    )
    def come(self, count, timeout, discard, block):
        for _ in range(count):
            patient = (self.config.acquire_timeout if timeout is None else timeout) == PATIENCE
            user = User(self.loop.create_future(), patient)
            user.task = self.loop.create_task(self.use(user, timeout, discard, block))
            self.users.append(user)

    @precondition(lambda self: self.holders)
    @rule(number=st.integers(0, 100), broken=st.sampled_from([False, False, True]))
    def return_one(self, number, broken):
        user = self.holders[number % len(self.holders)]
        if not user.leave.done():
            user.leave.set_result(broken)

    @precondition(lambda self: self.users)
    @rule(number=st.integers(0, 100))
    def cancel(self, number):
        self.users[number % len(self.users)].task.cancel()

    @precondition(lambda self: any(user.waits for user in self.users))
    @rule(turns=st.integers(1, 30))
    def cancel_between_assignment_and_notice(self, turns):
        for user in self.holders[:1]:
            user.leave.set_result(False)
        for _ in range(turns):
            self.turn(1)
            for user in self.users:
                if user.assigned:
                    user.task.cancel()
                    return

    @rule()
    def return_what_is_not_leased(self):
        idle = {record.connector for record in self.pool._idle if not record.leases}
        for connector in (MortalConnector(self.world), *idle):
            with pytest.raises(PoolError):
                self.pool.release_nowait(connector)

    # What the world does.

    @rule(turns=st.integers(1, 4))
    def turn(self, turns):
        """Let the loop go round: everything else happens between two rounds."""
        for _ in range(turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    @rule()
    def settle(self):
        while self.loop._ready:  # type: ignore[attr-defined]
            self.turn(1)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.1, 6.0, 20.0, 60.0, 400.0, 4000.0]))
    def time_passes(self, seconds):
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run_forever()

    @rule(
        connects=st.lists(st.sampled_from(sorted(CONNECTS)), max_size=4),
        checks=st.lists(st.sampled_from(sorted(CHECKS)), max_size=3),
        disconnects=st.lists(st.sampled_from(sorted(DISCONNECTS)), max_size=2),
    )
    def next_calls_are(self, connects, checks, disconnects):
        self.world.connects = [CONNECTS[kind] for kind in connects]
        self.world.checks = [CHECKS[kind] for kind in checks]
        self.world.disconnects = [DISCONNECTS[kind] for kind in disconnects]

    @rule()
    def server_restarts(self):
        for connector in self.world.made:
            connector.dead = True  # type: ignore[attr-defined]

    # What the owner does.

    @rule()
    def initialize(self):
        self.kept = True
        self.others.append(self.loop.create_task(self.pool.initialize()))

    @rule(sizes=st.tuples(st.integers(0, 4), st.integers(1, 5)).map(sorted))
    def resize(self, sizes):
        # While more are open than the new size allows, none is opened: see `counts_add_up`.
        self.world.limit = max(self.world.limit, self.limit_of(max(1, sizes[1])))
        self.pool.resize(min_size=sizes[0], max_size=max(1, sizes[1]))

    @precondition(lambda self: self.loop.time() % 7 < 1)  # not all the time
    @rule(timeout=st.sampled_from([0, 2, 100]))
    def close_and_begin_again(self, timeout):
        closing = self.loop.create_task(self.pool.close(timeout))
        for _ in range(100):
            self.time_passes(5)
            if closing.done():
                break
        assert closing.done()
        error = closing.exception()
        assert isinstance(error, (PoolError, OSError, ExceptionGroup, type(None))), error
        assert self.world.live == [], "a closed pool leaves a connection open"
        assert not [user for user in self.users if user.waits]
        self.all_return()
        assert self.pool.in_use_count == self.pool.size == 0
        self.new_pool()

    @rule()
    def all_goes_well_again(self):
        self.world.connects, self.world.checks, self.world.disconnects = [], [], []
        # A crowd is served one by one.
        end = self.loop.time() + RECOVERY + 10 * len(self.users)
        while self.loop.time() < end:
            self.all_return()
            self.time_passes(5)
        self.all_return()
        self.users_end_as_they_should()
        assert not [user for user in self.users if user.patient], "somebody waits for nothing"
        now = self.pool.statistics()
        assert now.total <= now.max_size
        if self.kept and not self.shareable:
            # One may be on its way in place of another that has just expired.
            assert now.total + now.opening + now.closing >= now.min_size
        self.time_passes(2 * self.config.max_idle_time + 1)
        now = self.pool.statistics()
        if not self.shareable:
            assert now.total <= now.min_size, "kept open though idle"
        assert len(self.world.live) <= now.total + now.opening + now.closing, "leaked"

    # What always holds.

    def all_return(self) -> None:
        self.settle()
        while self.holders:
            for user in self.holders:
                user.leave.set_result(False)
            self.settle()

    @property
    def holders(self) -> list[User]:
        return [user for user in self.users if user.connector and not user.leave.done()]

    @invariant()
    def users_end_as_they_should(self):
        PoolMachine.steps += 1
        for task in [*(user.task for user in self.users), *self.others]:
            if task.done() and not task.cancelled() and task.exception():
                error = task.exception()
                assert isinstance(error, EXPECTED), error
        for user in self.users:
            if user.task.done() and not user.task.cancelled() and (why := user.task.exception()):
                self.failures += not (user.leave.done() or isinstance(why, PoolError))
        if not self.shareable and hasattr(self, "pool"):
            now = self.pool.statistics()
            assert self.failures <= now.connect_failures + now.timeouts, "one failure, two errors"
        self.users = [user for user in self.users if not user.task.done()]
        self.others = [task for task in self.others if not task.done()]

    @invariant()
    def counts_add_up(self):
        if not hasattr(self, "pool"):
            return
        pool, now = self.pool, self.pool.statistics()
        records = list(pool._connections.values())
        assert now.in_use == sum(record.leases for record in records)
        assert now.in_use >= len([user for user in self.users if user.connector])
        if self.shareable:
            if now.available:
                assert now.total <= now.max_size
            assert len(set(map(id, pool._idle))) <= 1
        else:
            assert all(record.leases <= 1 for record in records)
            assert now.total == len(records)
            assert not any(record.leases for record in pool._idle)
            if len(records) + now.opening + now.closing <= now.max_size:
                self.world.limit = now.max_size
            assert len(self.world.live) <= self.world.limit
        assert now.waiting >= len([user for user in self.users if user.waits])
        if pool._idle:
            waiting = [future for future, *_ in pool._waiters if not future.done()]
            assert len(waiting) <= now.opening, "somebody waits beside an idle connection"

    def teardown(self):
        if hasattr(self, "pool"):
            self.all_goes_well_again()
            self.time_passes(PATIENCE)
            self.users_end_as_they_should()
            assert not self.users, "somebody waits for ever"
            assert not self.others
            self.every_place_can_be_used()
            self.loop.run_until_complete(self.pool.close())
            assert self.world.live == []
            self.settle()
            assert not asyncio.all_tasks(self.loop)
            assert self.loop.complaints == []
        self.loop.close()

    def every_place_can_be_used(self):
        assert self.pool.in_use_count == 0
        count = self.pool.config.max_size
        self.come(count, PATIENCE, False, False)
        self.time_passes(5)
        assert len(self.holders) == self.pool.in_use_count == count, "a place is lost"
        self.all_return()
        self.users_end_as_they_should()
        self.counts_add_up()


COMMON = settings(
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def test_pool_keeps_its_promises_whatever_comes():
    run_state_machine_as_test(
        PoolMachine, settings=settings(COMMON, max_examples=40, stateful_step_count=50)
    )


@pytest.mark.soak
@pytest.mark.parametrize("number", SOAK_SEEDS)
def test_pool_keeps_its_promises_for_a_hundred_thousand_steps(number: int):
    """Take more seeds, or other ones, from `POOL_SOAK_SEED`, added to each."""
    chosen = number + int(os.environ.get("POOL_SOAK_SEED", "0"))
    before = PoolMachine.steps
    while PoolMachine.steps - before < 10_000:
        run_state_machine_as_test(
            seed(chosen)(type("Seeded", (PoolMachine,), {})),
            settings=settings(COMMON, derandomize=False, max_examples=250, stateful_step_count=80),
        )
        chosen += len(SOAK_SEEDS)
