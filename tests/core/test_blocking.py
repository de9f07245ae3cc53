"""The registry without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasources import (
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
