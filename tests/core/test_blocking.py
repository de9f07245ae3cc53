"""The registry without an event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasources import (
    DataItem,
    DataSourceError,
    DataSourceNotFoundError,
    FetchRequest,
    Operation,
    RegistryError,
    caller,
    hookimpl,
)
from datasources.blocking import DataSourceRegistry
from datasources.plugins import Plugins
from tests.core.fakes import AbleConnector, MemoryConnector, fresh, source


@pytest.fixture
def registry() -> Iterator[DataSourceRegistry]:
    with DataSourceRegistry(plugins=Plugins(index=[])) as registry:
        registry.register_connector_class("memory", fresh(AbleConnector))
        registry.register_data_source(source(), test_connection=True)
        yield registry


def test_every_operation_works_without_an_event_loop(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    registry.register_data_sources([source("other")])
    assert [s.id for s in registry.list_data_sources()] == ["other", "s"]
    assert registry.get_config("s").name == "S"
    assert registry.exists("s")
    assert registry.test_connection("s")
    assert registry.check_connection("s").ok
    assert [item.path for item in registry.list_items("s")] == ["a.csv", "b.csv"]
    assert [item.path for item in registry.glob_items("s", "b*")] == ["b.csv"]
    assert registry.get_metadata("s", "a.csv") == {"columns": ["x", "y"]}
    assert registry.preview("s", "a.csv").columns == ("x", "y")
    assert registry.statistics("s", "a.csv")["x"].count == 1
    assert registry.upload("s", "/f", "n").name == "n"
    assert registry.fetch("s", "a.csv", tmp_path).size == 8
    results = registry.fetch_many([("s", "b.csv"), FetchRequest("s", "missing")], tmp_path)
    assert [r.receipt is not None for r in results] == [True, False]
    registry.cache_metadata("s", {"x": 1})
    assert registry.get_cached_metadata("s") == {"x": 1}
    registry.clear_cache()
    assert registry.get_cached_metadata("s") is None
    assert registry.reencrypt().changed == 0
    registry.disconnect_all()
    registry.unregister_data_source("s")
    with pytest.raises(DataSourceNotFoundError):
        registry.list_items("s")


def test_any_thread_may_call(registry: DataSourceRegistry) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(registry.list_items("s"))))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 10


def test_who_asks_is_known_across_the_threads(registry: DataSourceRegistry) -> None:
    users: list[str | None] = []

    class Audit:
        @hookimpl
        def datasources_operation_started(self, operation: Operation) -> None:
            users.append(operation.user)

    registry._registry.plugins.register_plugin(Audit())
    with caller(user="ann"):
        registry.list_items("s")
    registry.list_items("s")
    assert users == ["ann", None]


def test_closing_ends_the_thread_and_the_connections() -> None:
    cls = fresh(MemoryConnector)
    registry = DataSourceRegistry(plugins=Plugins(index=[]))
    registry.register_connector_class("memory", cls)
    registry.register_data_source(source())
    registry.list_items("s")
    assert cls.live == 1
    registry.close()
    registry.close()
    assert cls.live == 0
    assert not any(thread.name == "datasources" for thread in threading.enumerate())
    with pytest.raises(RegistryError, match="this registry is closed"):
        registry.list_items("s")


async def test_registry_is_used_and_closed_in_a_thread_whose_own_loop_runs() -> None:
    threads = threading.active_count()
    with DataSourceRegistry(plugins=Plugins(index=[])) as registry:
        registry.register_connector_class("memory", fresh(AbleConnector))
        registry.register_data_source(source())
        assert [item.path for item in registry.list_items("s")] == ["a.csv", "b.csv"]
    assert threading.active_count() == threads
    registry.close()


def test_calls_under_way_end_when_another_thread_closes() -> None:
    class Slow(MemoryConnector):
        async def list_items(self, path: str | None = None) -> list[DataItem]:
            await asyncio.sleep(0.001)
            return await super().list_items(path)

    registry = DataSourceRegistry(plugins=Plugins(index=[]))
    registry.register_connector_class("memory", fresh(Slow))
    registry.register_data_source(source())
    ended: list[str] = []
    started = threading.Barrier(7)

    def call() -> None:
        started.wait()
        try:
            while True:
                registry.list_items("s")
        except DataSourceError as exc:
            ended.append(type(exc).__name__)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    started.wait()
    registry.close()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 6
    assert set(ended) <= {"RegistryError", "PoolClosedError"}


def test_after_a_fork_the_child_is_told_to_make_its_own() -> None:
    script = (
        "import os, sys\n"
        "from datasources import RegistryError\n"
        "from datasources.blocking import DataSourceRegistry\n"
        "from datasources.plugins import Plugins\n"
        "registry = DataSourceRegistry(plugins=Plugins(index=[]))\n"
        "registry.disconnect_all()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n        registry.disconnect_all()\n"
        "    except RegistryError as exc:\n        print(exc, flush=True)\n"
        "    registry.close()\n    os._exit(0)\n"
        "os.waitpid(child, 0)\nregistry.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == (
        "this registry belongs to the process that made it; make one after the fork\n"
    )
