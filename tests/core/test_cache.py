"""Metadata kept for a while, and one load shared by all who ask at once."""

from __future__ import annotations

import asyncio

import pytest

from datasources.registry.cache import MetadataCache, SingleFlight


def test_an_entry_lives_as_long_as_it_was_given() -> None:
    now = 0.0
    cache = MetadataCache(10.0, lambda: now)
    cache.put("s", {"a": 1})
    cache.put("s", {"b": 2}, "item")
    now = 9.9
    assert (cache.get("s"), cache.get("s", "item")) == ({"a": 1}, {"b": 2})
    now = 10.0
    assert (cache.get("s"), cache.get("s", "item"), cache.get("unknown")) == (None, None, None)


def test_clearing_forgets_one_source_or_all() -> None:
    cache = MetadataCache(10.0)
    for source_id in ("a", "b"):
        cache.put(source_id, {})
    cache.clear("a")
    assert (cache.get("a"), cache.get("b")) == (None, {})
    cache.clear()
    assert cache.get("b") is None


class Loads:
    def __init__(self) -> None:
        self.started = self.cancelled = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> str:
        self.started += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "loaded"


async def waiting(flights: SingleFlight, loads: Loads, count: int) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(flights.load("key", loads)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_all_who_ask_at_once_share_one_load_and_the_next_loads_anew() -> None:
    flights, loads = SingleFlight(), Loads()
    tasks = await waiting(flights, loads, 5)
    loads.gate.set()
    assert await asyncio.gather(*tasks) == ["loaded"] * 5
    await flights.load("key", loads)
    assert loads.started == 2


async def test_a_failure_reaches_all_and_is_not_kept() -> None:
    flights, loads = SingleFlight(), Loads()

    async def failing() -> str:
        await loads()
        raise KeyError

    tasks = [asyncio.create_task(flights.load("key", failing)) for _ in range(3)]
    await asyncio.sleep(0)
    loads.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [KeyError] * 3
    assert await flights.load("key", loads) == "loaded"


async def test_one_cancelled_caller_leaves_the_load_to_the_others() -> None:
    flights, loads = SingleFlight(), Loads()
    first, second = await waiting(flights, loads, 2)
    first.cancel()
    await asyncio.wait([first])
    loads.gate.set()
    assert await second == "loaded"
    assert first.cancelled()
    assert loads.cancelled == 0


async def test_the_load_ends_with_its_last_caller() -> None:
    flights, loads = SingleFlight(), Loads()
    (only,) = await waiting(flights, loads, 1)
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    assert (loads.started, loads.cancelled) == (1, 1)
    assert len(asyncio.all_tasks()) == 1


async def test_a_cancelled_load_that_ends_late_leaves_the_next_one_shared() -> None:
    flights, loads, may_end = SingleFlight(), Loads(), asyncio.Event()

    async def end_late() -> str:
        try:
            return await loads()
        finally:
            await may_end.wait()

    first = asyncio.create_task(flights.load("key", end_late))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    (second,) = await waiting(flights, loads, 1)
    may_end.set()
    await asyncio.wait([first])
    (third,) = await waiting(flights, loads, 1)
    loads.gate.set()
    assert [await second, await third] == ["loaded"] * 2
    assert loads.started == 2
