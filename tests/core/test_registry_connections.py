"""Connections of a registry's sources, on one event loop or on several."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from datasources import (
    ConnectError,
    CredentialManager,
    DataSourceExistsError,
    DataSourceNotFoundError,
    MemoryStore,
    PoolConfig,
    PoolError,
    PoolTimeoutError,
    SQLiteStore,
)
from tests.core.fakes import (
    MemoryConnector,
    fresh,
    registry_of,
    source,
)
from tests.core.subprocesses import run_python
from tests.waiting import clock_ahead, wait_until


async def test_all_callers_get_the_same_connector_connected_once() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        got = await asyncio.gather(*(registry.get_connector("s") for _ in range(20)))
        assert len(set(map(id, got))) == 1
        assert cls.connects == 1
        await registry.disconnect_all()
        assert cls.live == 0
        assert await registry.get_connector("s") is not got[0]


async def test_a_connector_asked_for_while_its_source_is_disconnected_leaks_no_lease() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        # In one of these turns the lease is given, but whoever asked has not woken up yet.
        for turns in range(20):
            connects = cls.connects
            asking = asyncio.create_task(registry.get_connector("s"))
            while cls.connects == connects:  # noqa: ASYNC110  (turns are counted from then on)
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            await registry.disconnect_all(timeout=60)
            await asking
            await registry.disconnect_all(timeout=60)
            assert cls.live == 0


async def test_leases_are_exclusive_and_bounded() -> None:
    cls = fresh()
    config = PoolConfig(max_size=2, acquire_timeout=60)
    async with registry_of(cls, pool_config=config) as registry:
        await registry.register_data_source(source())
        async with registry.connection("s") as one, registry.connection("s") as two:
            assert one is not two
            third = asyncio.ensure_future(registry.connection("s").__aenter__())
            await wait_until(lambda: registry.get_pool_stats("s")["waiting"])
            with clock_ahead(60), pytest.raises(PoolTimeoutError, match="2 of 2 in use"):
                await third
            stats = registry.get_pool_stats("s")
            assert {k: stats[k] for k in ("total", "in_use", "available", "max_size")} == {
                "total": 2,
                "in_use": 2,
                "available": 0,
                "max_size": 2,
            }
        async with registry.connection("s") as again:
            assert again in {one, two}
    assert cls.live == 0


async def test_a_check_tells_why_and_leaves_no_connection() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_sources([source("good"), source("bad", host="unreachable")])
        good, bad = await registry.check_connection("good"), await registry.check_connection("bad")
        assert (good.ok, good.error) == (True, None)
        assert not bad
        assert str(bad.error) == "nobody listens at 'unreachable'"
        assert await registry.test_connection("bad") is False
        assert cls.live == 0


async def test_a_source_that_never_answers_fails_its_check_in_time() -> None:
    class Hanging(MemoryConnector):
        async def connect(self) -> bool:
            await asyncio.Event().wait()
            return True

    config = PoolConfig(connect_timeout=0.5)
    async with registry_of(Hanging, pool_config=config) as registry:
        await registry.register_data_source(source())
        check = await registry.check_connection("s")
        assert str(check.error) == "source 's' did not answer within 0.5 seconds"


async def test_among_a_thousand_sources_a_hanging_one_delays_only_its_own_callers() -> None:
    slow = asyncio.Event()

    class Uneven(MemoryConnector):
        async def connect(self) -> bool:
            if self.options.host == "hanging":
                await asyncio.Event().wait()
            if self.options.host == "slow":
                await slow.wait()
            return await super().connect()

    cls = fresh(Uneven)
    hosts = {0: "hanging", 1: "slow", 2: "unreachable"}
    configs = [source(f"s{i}", host=hosts.get(i, "ok")) for i in range(1000)]
    pool_config = PoolConfig(connect_timeout=60, connect_attempts=1)
    async with registry_of(cls, pool_config=pool_config) as registry:
        await registry.register_data_sources(configs)
        callers = [asyncio.create_task(registry.get_connector(config.id)) for config in configs]
        await asyncio.wait(callers[3:], timeout=30)
        assert all(caller.done() for caller in callers[3:])
        await registry.register_data_source(source("new"))
        await registry.unregister_data_source("s999")
        assert registry.get_config("s0").config == {"host": "hanging"}
        with pytest.raises(ConnectError):
            await callers[2]
        assert not callers[0].done()
        assert not callers[1].done()
        slow.set()
        assert await callers[1] is await registry.get_connector("s1")
        await registry.unregister_data_source("s0")
        with pytest.raises(DataSourceNotFoundError):
            await callers[0]
        assert cls.connects == 998
    assert cls.live == 0


async def test_unregistering_waits_for_a_lease_that_comes_back() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        async with registry.connection("s") as connector:
            going = asyncio.create_task(registry.unregister_data_source("s"))
            await wait_until(lambda: not registry.exists("s"))
            await asyncio.sleep(0.01)
            assert not going.done()
            assert await connector.list_items()
        await going
        assert cls.live == 0


async def test_unregistering_cuts_off_a_lease_that_does_not_come_back() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        async with registry.connection("s"):
            with pytest.raises(PoolError, match="1 connection to source 's' was never returned"):
                await registry.unregister_data_source("s", timeout=0.01)
            assert cls.live == 0
        assert not registry.exists("s")


async def test_unregistering_does_not_wait_for_another_source_that_is_closing() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_sources([source("a"), source("b")])
        await registry.get_connector("a")
        async with registry.connection("b"):
            pool = registry._pools.source_pool("b").pool
            going = asyncio.create_task(registry.unregister_data_source("b"))
            await wait_until(lambda: pool.closed)
            await registry.unregister_data_source("a")
            assert not going.done()
        await going
        assert cls.live == 0


async def test_event_loops_have_connections_of_their_own_and_all_are_closed() -> None:
    cls = fresh()
    registry = registry_of(cls)
    await registry.register_data_source(source())
    seen: list[int] = []
    ready, done = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        seen.append(id(await registry.get_connector("s")))
        ready.set()
        await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await asyncio.to_thread(ready.wait)
    seen.append(id(await registry.get_connector("s")))
    assert len(set(seen)) == 2
    assert cls.live == 2
    await registry.close()
    assert cls.live == 0
    done.set()
    await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("on_disk", [False, True])
def test_threads_registering_using_and_removing_one_id_end_consistently(
    tmp_path: Path, on_disk: bool
) -> None:
    cls = fresh()
    keys = CredentialManager(CredentialManager.generate_key())
    store = SQLiteStore(tmp_path / "s.db") if on_disk else MemoryStore()
    registry = registry_of(cls, store=store, credential_manager=keys)
    unexpected: list[BaseException] = []

    async def churn(number: int) -> None:
        workspace = tmp_path / str(number)
        for round_ in range(20):
            for call in (
                lambda: registry.register_data_source(source()),
                lambda: registry.get_connector("s"),
                lambda: registry.register_data_source(source(port=number), replace=True),
                lambda: registry.fetch("s", "a.csv", workspace),
                lambda: registry.unregister_data_source("s"),
            ):
                try:
                    await call()
                except (DataSourceExistsError, DataSourceNotFoundError):
                    pass
                except Exception as exc:  # noqa: BLE001  (kept)
                    unexpected.append(exc)
            if round_ % 5 == number:
                await registry.disconnect_all()
        await registry.disconnect_all()

    def run(number: int) -> None:
        asyncio.run(churn(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert unexpected == []
    assert cls.live == 0
    asyncio.run(registry.close())


async def test_closing_finishes_the_rest_when_one_fails() -> None:
    class Stubborn(MemoryConnector):
        async def disconnect(self) -> None:
            await super().disconnect()
            if self.options.port == 13:
                raise RuntimeError("will not go")

    cls = fresh(Stubborn)
    registry = registry_of(cls)
    await registry.register_data_sources([source("a"), source("b", port=13), source("c")])
    for source_id in "abc":
        await registry.get_connector(source_id)
    with pytest.raises(PoolError, match="did not close well: will not go") as caught:
        await registry.disconnect_all()
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert [type(error) for error in caught.value.__cause__.exceptions] == [RuntimeError]
    assert cls.live == 0
    await registry.close()


def test_connections_are_closed_with_the_event_loop_they_belong_to(tmp_path: Path) -> None:
    cls = fresh()
    registry = registry_of(cls)
    asyncio.run(registry.register_data_source(source()))
    for _ in range(5):
        asyncio.run(registry.get_connector("s"))
        assert cls.live == 0
        asyncio.run(registry.fetch("s", "a.csv", tmp_path))
        assert cls.live == 0
    assert cls.connects == 10
    asyncio.run(registry.close())
    assert len(registry._pools._loops) <= 1


def test_an_event_loop_that_has_ended_is_given_nothing_to_do() -> None:
    cls = fresh()
    registry = registry_of(cls)
    ending = asyncio.new_event_loop()
    ending.run_until_complete(registry.register_data_source(source()))
    ending.run_until_complete(registry.get_connector("s"))
    ending.run_until_complete(ending.shutdown_asyncgens())  # what `asyncio.run` does at its end
    assert cls.live == 0
    asyncio.run(registry.disconnect_all())  # another loop, which asks every loop there is
    ending.call_soon(ending.stop)
    ending.run_forever()  # once more, as a loop may turn before it is closed
    assert asyncio.all_tasks(ending) == set()
    ending.close()
    asyncio.run(registry.close())


def test_a_child_of_a_fork_has_pools_of_its_own_and_leaves_those_of_its_parent() -> None:
    script = (
        "import asyncio, os, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # of forks beside threads
        "from tests.core.fakes import fresh, registry_of, source\n"
        "cls = fresh()\n"
        "async def use_in_child(registry):\n"
        "    await registry.disconnect_all(timeout=0)\n"
        "    print(cls.live, flush=True)\n"  # of the parent, which it must not disconnect
        "    await registry.get_connector('s')\n"
        "    print(cls.live, flush=True)\n"
        "async def main():\n"
        "    async with registry_of(cls) as registry:\n"
        "        await registry.register_data_source(source())\n"
        "        await registry.get_connector('s')\n"
        "        child = os.fork()\n"
        "        if not child:\n"
        "            asyncio.run(use_in_child(registry))\n"
        "            os._exit(0)\n"
        "        print(os.waitpid(child, 0)[1], cls.live)\n"
        "asyncio.run(main())\n"
    )
    assert run_python(script).split("\n") == ["1", "2", "0 1", ""]


def test_an_event_loop_that_is_blocked_is_waited_for_no_longer_than_asked() -> None:
    registry = registry_of(MemoryConnector)
    blocked, unblock = threading.Event(), threading.Event()

    async def block() -> None:
        await registry.register_data_source(source("a"))
        await registry.list_items("a")
        blocked.set()
        unblock.wait()  # the event loop of this thread stands still

    async def close() -> None:
        # A source that the other loop does not use is not waited for.
        await registry.register_data_source(source("b"))
        await registry.list_items("b")
        await registry.unregister_data_source("b")
        with pytest.raises(PoolError, match="is blocked, has not closed source 'a'"):
            await registry.unregister_data_source("a", timeout=0)
        assert not unblock.is_set()
        with pytest.raises(PoolError, match="is blocked, has not closed all sources"):
            await registry.close(timeout=0)

    thread = threading.Thread(target=lambda: asyncio.run(block()))
    thread.start()
    blocked.wait()
    try:
        asyncio.run(close())
    finally:
        unblock.set()
        thread.join()


FORK_WHERE_A_LOOP_RUNS = """
import asyncio, os, sys, threading
sys.path.insert(0, sys.argv[1])
from datasources import DataSourceConfig, DataSourceRegistry
from tests.core.fakes import MemoryConnector

def source(id):
    return DataSourceConfig(id, "memory", id, {})

async def use(registry):  # in the child, where the copied loop of the parent seems to run
    await registry.register_data_source(source("child"))
    await registry.register_data_source(source("s"), replace=True)
    await registry.list_items("s")
    await registry.unregister_data_source("s")
    await registry.disconnect_all()
    await registry.close()

async def main():
    registry = DataSourceRegistry()
    registry.register_connector_class("memory", MemoryConnector)
    await registry.register_data_source(source("s"))
    async with registry.connection("s"):
        child = os.fork()
        if child == 0:
            thread = threading.Thread(target=lambda: asyncio.run(use(registry)), daemon=True)
            thread.start()
            thread.join(30)
            os._exit(2 if thread.is_alive() else 0)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        print(os.waitstatus_to_exitcode(status))
    await registry.close()

asyncio.run(main())
"""


def test_a_child_of_a_fork_does_not_wait_for_the_event_loop_of_its_parent() -> None:
    root = str(Path(__file__).parents[2])
    assert run_python(FORK_WHERE_A_LOOP_RUNS, root).split() == ["0"]
