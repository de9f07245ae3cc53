"""Plans of splits and their reading: what the registry promises whatever the connector."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pytest

from datasources import (
    ConflictError,
    ConnectorError,
    DataSourceNotFoundError,
    DataSourceRegistry,
    Grant,
    LimitExceededError,
    OptionError,
    PolicyError,
    PoolClosedError,
    PoolConfig,
    Principal,
    Split,
    SplitPlan,
    UnsupportedError,
    gather_splits,
)
from tests.core.fakes import AbleConnector, blocking_registry_of, registry_of, source
from tests.waiting import wait_until


class Splitting(AbleConnector):
    """Splits every item in its lines; a batch is one line."""

    open_plans: ClassVar[int] = 0
    reading: ClassVar[int] = 0
    most_reading: ClassVar[int] = 0

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:
        return "item"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        return identifier

    @asynccontextmanager
    async def plan_splits(
        self,
        identifier: str,
        *,
        target_bytes: int,
        max_splits: int,
        key: str | None = None,
        consistent: bool = True,
    ) -> AsyncIterator[SplitPlan]:
        lines = self._connection[identifier].splitlines()[:max_splits]
        Splitting.open_plans += 1
        try:
            yield SplitPlan(
                "schema",
                [
                    Split(self.config.id, identifier, index, len(lines), {"line": index}, "snap")
                    for index in range(len(lines))
                ],
                consistent,
            )
        finally:
            Splitting.open_plans -= 1

    async def read_split(
        self, split: Split, columns: Sequence[str] | None = None
    ) -> AsyncIterator[Any]:
        Splitting.reading += 1
        Splitting.most_reading = max(Splitting.most_reading, Splitting.reading)
        try:
            await asyncio.sleep(0)
            if columns == ["broken"]:
                raise ValueError("secret-of-the-driver")
            if columns == ["silent"]:
                await asyncio.Event().wait()
            yield self._connection[split.identifier].splitlines()[split.part["line"]]
        finally:
            Splitting.reading -= 1


class Alone(Splitting):
    shareable = False


@pytest.fixture(autouse=True)
def counters() -> None:
    Splitting.open_plans = Splitting.reading = Splitting.most_reading = 0


async def lines(batches: AsyncIterator[Any]) -> list[Any]:
    return [batch async for batch in batches]


async def registry_with(connector_class: Any = Splitting, **arguments: Any) -> DataSourceRegistry:
    registry = registry_of(connector_class, **arguments)
    await registry.register_data_source(source())
    return registry


@pytest.mark.parametrize("connector_class", [Splitting, Alone])
async def test_all_splits_together_are_the_item(connector_class: Any) -> None:
    async with (
        await registry_with(connector_class) as registry,
        registry.plan("s", "a.csv") as plan,
    ):
        assert (plan.schema, plan.consistent, Splitting.open_plans) == ("schema", True, 1)
        assert await gather_splits(plan, lambda _, batches: lines(batches)) == [
            [b"x,y"],
            [b"1,2"],
        ]
    assert Splitting.open_plans == 0


async def test_a_split_is_read_by_another_registry_of_the_same_store_and_key() -> None:
    registry = await registry_with()
    other = registry_of(Splitting, store=registry.store, credential_manager=registry.credentials)
    async with registry.plan("s", "a.csv") as plan:
        sent = json.dumps([split.to_dict() for split in plan.splits])
        received = [Split.from_dict(values) for values in json.loads(sent)]
        assert [await lines(other.read_split(split)) for split in received] == [
            [b"x,y"],
            [b"1,2"],
        ]
    await other.disconnect_all()
    await registry.close()


@pytest.mark.parametrize(
    "change",
    [
        {"identifier": "b.csv"},
        {"part": {"line": 0}},
        {"snapshot": "other"},
        {"fingerprint": ""},
        {"fingerprint": "0" * 64},
        {"fingerprint": "é"},
        {"index": 0},
    ],
    ids=["identifier", "part", "snapshot", "none", "wrong", "not-ascii", "index"],
)
async def test_a_split_that_was_changed_is_refused(change: dict[str, Any]) -> None:
    async with await registry_with() as registry, registry.plan("s", "a.csv") as plan:
        with pytest.raises(ConflictError, match="not planned for source 's' as it is configured"):
            await lines(registry.read_split(replace(plan.splits[1], **change)))


async def test_a_split_of_another_configuration_is_refused() -> None:
    async with await registry_with() as registry:
        async with registry.plan("s", "a.csv") as plan:
            split = plan.splits[0]
        await registry.register_data_source(source(password="another"), replace=True)
        with pytest.raises(ConflictError, match="plan again"):
            await lines(registry.read_split(split))
        await registry.unregister_data_source("s")
        with pytest.raises(DataSourceNotFoundError):
            await lines(registry.read_split(split))


async def replace_source(registry: DataSourceRegistry) -> asyncio.Task[Any]:
    """Give the source another configuration; return the task that closes its connections."""
    version = registry.get_config("s").version
    changed = source(password="another")
    replacing = asyncio.create_task(registry.register_data_source(changed, replace=True))
    await wait_until(lambda: registry.get_config("s").version != version)
    return replacing


async def test_a_plan_of_a_source_that_is_changed_meanwhile_is_refused() -> None:
    class Replaced(Splitting):
        @asynccontextmanager
        async def plan_splits(self, *arguments: Any, **more: Any) -> AsyncIterator[SplitPlan]:
            async with super().plan_splits(*arguments, **more) as plan:
                replacing.append(await replace_source(registry))
                yield plan

    replacing: list[asyncio.Task[Any]] = []
    async with await registry_with(Replaced) as registry:
        async with registry.plan("s", "a.csv") as plan:
            split = plan.splits[0]
        await replacing[0]
        with pytest.raises(ConflictError, match="plan again"):
            await lines(registry.read_split(split))


async def test_a_split_whose_source_is_changed_while_it_waits_for_a_connection_is_refused() -> None:
    pool = PoolConfig(max_size=1, acquire_timeout=30)
    async with await registry_with(Alone, pool_config=pool) as registry:
        async with registry.plan("s", "a.csv") as plan:
            reading = asyncio.create_task(lines(registry.read_split(plan.splits[0])))
            await wait_until(lambda: registry.get_pool_stats("s")["waiting"] == 1)
            replacing = await replace_source(registry)
        await replacing
        with pytest.raises(ConflictError, match="plan again"):
            await reading


@pytest.mark.parametrize("by_access", [False, True])
async def test_one_connection_of_a_shareable_connector_serves_plan_and_readers(
    by_access: bool,
) -> None:
    pool = PoolConfig(max_size=1, acquire_timeout=30)
    async with await registry_with(Splitting, pool_config=pool) as registry:
        access = registry.access(Principal("ann", grants=[Grant("s", {"read"})]))
        async with (access if by_access else registry).plan("s", "a.csv") as plan:
            assert await lines(plan.read(plan.splits[1])) == [b"1,2"]


async def test_no_more_splits_are_read_at_once_than_asked_for() -> None:
    async with await registry_with() as registry, registry.plan("s", "a.csv") as plan:
        many = replace(plan, splits=[*plan.splits] * 10)
        await gather_splits(many, lambda _, batches: lines(batches), concurrency=3)
        assert Splitting.most_reading == 3
        bounded = replace(many, concurrency=2)
        Splitting.most_reading = 0
        await gather_splits(bounded, lambda _, batches: lines(batches), concurrency=3)
        assert Splitting.most_reading == 2


async def test_the_first_error_ends_the_other_readers() -> None:
    async with await registry_with() as registry, registry.plan("s", "a.csv") as plan:

        async def consume(split: Split, _: AsyncIterator[Any]) -> None:
            columns = ["broken"] if split.index else ["silent"]
            await lines(plan.read(split, columns))

        with pytest.raises(ConnectorError, match="ValueError"):
            await gather_splits(plan, consume)
        assert Splitting.reading == 0


async def test_a_split_whose_consumer_fails_is_read_no_more() -> None:
    async with await registry_with() as registry, registry.plan("s", "a.csv") as plan:

        async def consume(_: Split, batches: AsyncIterator[Any]) -> None:
            async for _batch in batches:
                raise ValueError("of the consumer")

        with pytest.raises(ValueError, match="of the consumer") as caught:  # it keeps the frame
            await gather_splits(plan, consume, concurrency=1)
        assert Splitting.reading == 0
        del caught


async def test_cancelled_readers_of_splits_clean_up_before_the_caller_goes_on() -> None:
    started: list[int] = []
    ended: list[int] = []

    async def consume(split: Split, _: AsyncIterator[Any]) -> None:
        started.append(split.index)
        try:
            await asyncio.Event().wait()
        finally:
            for _turn in range(10 * split.index):
                await asyncio.sleep(0)
            ended.append(split.index)

    async with await registry_with() as registry, registry.plan("s", "a.csv") as plan:
        reading = asyncio.ensure_future(gather_splits(plan, consume))
        await wait_until(lambda: len(started) == len(plan.splits) > 1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert sorted(ended) == sorted(started)


async def test_a_reader_that_stops_early_ends_the_connectors_iterator() -> None:
    async with await registry_with() as registry, registry.plan("s", "a.csv") as plan:
        async with aclosing(registry.read_split(plan.splits[0])) as batches:  # type: ignore[type-var]
            await anext(batches)
            assert Splitting.reading == 1
        assert Splitting.reading == 0


async def test_a_plan_ends_at_its_age() -> None:
    async with await registry_with() as registry:
        with pytest.raises(LimitExceededError, match=r"plan of 'a.csv' of source 's' has ended"):
            async with registry.plan("s", "a.csv", max_age=0.01):
                await asyncio.Event().wait()
        assert Splitting.open_plans == 0


async def test_closing_the_source_ends_plans_and_readers() -> None:
    async with await registry_with() as registry:

        async def hold() -> None:
            async with registry.plan("s", "a.csv") as plan:
                await lines(plan.read(plan.splits[0], ["silent"]))

        holding = asyncio.ensure_future(hold())
        await wait_until(lambda: Splitting.reading)
        await registry.unregister_data_source("s", timeout=0)
        with pytest.raises(PoolClosedError):
            await holding
        assert (Splitting.open_plans, Splitting.reading) == (0, 0)


@pytest.mark.parametrize(
    "arguments",
    [{"target_bytes": 0}, {"max_splits": 0}, {"max_age": 0}, {"max_age": float("nan")}],
    ids=["bytes", "splits", "age", "nan"],
)
async def test_a_number_out_of_its_range_contacts_no_source(arguments: dict[str, Any]) -> None:
    async with await registry_with() as registry:
        with pytest.raises(OptionError, match=next(iter(arguments))):
            async with registry.plan("s", "a.csv", **arguments):
                pass
    assert Splitting.open_plans == 0


async def test_a_connector_without_splits_is_named() -> None:
    async with await registry_with(AbleConnector) as registry:
        with pytest.raises(UnsupportedError, match="type 'memory' cannot split items"):
            async with registry.plan("s", "a.csv"):
                pass


def test_a_registry_without_an_event_loop_plans_and_reads() -> None:
    with blocking_registry_of(Splitting) as registry:
        registry.register_data_source(source())
        with registry.plan("s", "a.csv") as plan:
            assert (plan.schema, plan.consistent, plan.concurrency) == ("schema", True, None)
            assert [list(plan.read(split)) for split in plan.splits] == [[b"x,y"], [b"1,2"]]
            assert list(registry.read_split(plan.splits[1])) == [b"1,2"]
            assert Splitting.open_plans == 1
        assert Splitting.open_plans == 0
        with pytest.raises(ZeroDivisionError), registry.plan("s", "a.csv"):
            raise ZeroDivisionError
        assert Splitting.open_plans == 0
        with pytest.raises(OptionError), registry.plan("s", "a.csv", max_splits=0):
            pass


async def test_a_principal_plans_and_reads_what_its_grants_admit() -> None:
    async with await registry_with() as registry:
        access = registry.access(Principal("ann", grants=[Grant("s", {"read"}, items=["a.*"])]))
        async with access.plan("s", "a.csv") as plan, registry.plan("s", "b.csv") as other:
            assert await lines(plan.read(plan.splits[0])) == [b"x,y"]
            with pytest.raises(PolicyError):
                await lines(access.read_split(other.splits[0]))
        with pytest.raises(PolicyError):
            async with access.plan("s", "b.csv"):
                pass
        nobody = registry.access(Principal("bob"))
        with pytest.raises(DataSourceNotFoundError):
            await lines(nobody.read_split(plan.splits[0]))
