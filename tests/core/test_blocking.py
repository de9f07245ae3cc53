"""The registry without an event loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import datasources
from datasources import (
    DataItem,
    DataSourceError,
    DataSourceNotFoundError,
    FetchRequest,
    ItemStream,
    Operation,
    PoolConfig,
    RegistryError,
    blocking,
    caller,
    hookimpl,
    run_in_thread,
)
from datasources.blocking import DataSourceRegistry
from datasources.plugins import Plugins
from tests.core.fakes import AbleConnector, MemoryConnector, blocking_registry_of, fresh, source
from tests.core.subprocesses import run_python

CLASSES = [
    (datasources.DataSourceRegistry, blocking.DataSourceRegistry),
    (datasources.WorkspaceSession, blocking.WorkspaceSession),
    (datasources.Access, blocking.Access),
]
# What they return belongs to an event loop.
ASYNCHRONOUS_ONLY = {
    "authorize_fetch",
    "authorize_upload",
    "connection",
    "get_connector",
    "get_pool_stats",
    "open",
    "pool_statistics",
    "call_at_close",
    "with_quota",
}
RETURNED = {
    "AsyncIterator[DataItem]": "Iterator[DataItem]",
    "AsyncIterator[FetchResult]": "Iterator[FetchResult]",
    "AsyncIterator[ItemStream]": "Iterator[ItemStream]",
    "AsyncIterator[SplitPlan]": "Iterator[SplitPlan]",
    "AsyncIterator[Any]": "Iterator[Any]",
    "WorkspaceSession": "Iterator[WorkspaceSession]",  # by a context manager
}


def public_methods(cls: type) -> dict[str, Callable[..., object]]:
    return {
        name: getattr(cls, name)
        for base in reversed(cls.__mro__[:-1])
        for name, value in vars(base).items()
        if not name.startswith("_") and not isinstance(value, property)
    }


TWINS = [
    pytest.param(method, getattr(twin, name, None), id=f"{cls.__name__}.{name}")
    for cls, twin in CLASSES
    for name, method in public_methods(cls).items()
    if name not in ASYNCHRONOUS_ONLY
]


@pytest.fixture
def registry() -> Iterator[DataSourceRegistry]:
    with blocking_registry_of(fresh(AbleConnector)) as registry:
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


@pytest.mark.parametrize(("cls", "twin"), CLASSES)
def test_the_blocking_classes_have_the_methods_of_the_asynchronous_ones(
    cls: type, twin: type
) -> None:
    assert public_methods(twin).keys() == public_methods(cls).keys() - ASYNCHRONOUS_ONLY


@pytest.mark.parametrize(("method", "twin"), TWINS)
def test_a_blocking_method_has_the_signature_of_the_asynchronous_one(
    method: Callable[..., object], twin: Callable[..., object]
) -> None:
    expected, actual = inspect.signature(method), inspect.signature(twin)
    assert list(actual.parameters.values()) == list(expected.parameters.values())
    returned = expected.return_annotation
    assert actual.return_annotation == RETURNED.get(returned, returned)
    assert not inspect.iscoroutinefunction(twin)


@pytest.mark.parametrize(("method", "twin"), TWINS)
def test_a_blocking_method_has_the_docstring_of_the_asynchronous_one(
    method: Callable[..., object], twin: Callable[..., object]
) -> None:
    assert twin.__doc__
    if method.__name__ != "close":  # which ends a thread as well
        assert twin.__doc__ == (method.__doc__ or "").replace("`async with`", "`with`")


def test_both_registries_are_made_from_the_same_arguments() -> None:
    assert inspect.signature(DataSourceRegistry) == inspect.signature(
        datasources.DataSourceRegistry
    )


def test_any_thread_may_call(registry: DataSourceRegistry) -> None:
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(len(registry.list_items("s"))))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [2] * 10


def test_who_asks_is_known_across_the_threads() -> None:
    users: list[str | None] = []

    class Audit:
        @hookimpl
        def datasources_operation_started(self, operation: Operation) -> None:
            users.append(operation.user)

    plugins = Plugins(index=[])
    with DataSourceRegistry(plugins=plugins) as registry:
        registry.register_connector_class("memory", fresh(AbleConnector))
        registry.register_data_source(source())
        plugins.register_plugin(Audit())
        with caller(user="ann"):
            registry.list_items("s")
            next(registry.iter_items("s"))
        registry.list_items("s")
    assert users == ["ann", "ann", None]


class Paged(MemoryConnector):
    """Lists three items one by one, with a time limit around all, as an HTTP client has one."""

    yielded: ClassVar[list[str]] = []
    ended: ClassVar[list[str]] = []

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        try:
            async with asyncio.timeout(60):
                for name in ("a", "b", "c"):
                    self.yielded.append(name)
                    yield DataItem(name, name)
        finally:
            await asyncio.sleep(0)
            self.ended.append(type(sys.exception()).__name__)


@pytest.fixture
def paged() -> Iterator[DataSourceRegistry]:
    Paged.yielded, Paged.ended = [], []
    one = PoolConfig(max_size=1, acquire_timeout=30)
    with DataSourceRegistry(plugins=Plugins(index=[]), pool_config=one) as registry:
        registry.register_connector_class("memory", fresh(Paged))
        registry.register_data_source(source())
        yield registry


def test_items_are_iterated_one_at_a_time(paged: DataSourceRegistry) -> None:
    items = paged.iter_items("s")
    assert Paged.yielded == []
    assert next(items).path == "a"
    assert Paged.yielded == ["a"]
    assert [item.path for item in items] == ["b", "c"]
    assert Paged.ended == ["NoneType"]


def test_an_iteration_that_is_left_returns_its_connection(paged: DataSourceRegistry) -> None:
    for _ in range(3):
        for item in paged.iter_items("s"):
            assert item.path == "a"
            break
        assert len(paged.list_items("s")) == 2  # with the only connection
    assert Paged.ended == ["GeneratorExit"] * 3


def test_an_iterations_error_is_raised_where_it_is_read(paged: DataSourceRegistry) -> None:
    items = paged.iter_items("missing")
    with pytest.raises(DataSourceNotFoundError, match="missing"):
        next(items)


def test_an_iteration_ends_when_its_registry_is_closed(paged: DataSourceRegistry) -> None:
    items = paged.iter_items("s")
    next(items)
    with pytest.raises(DataSourceError, match="never returned"):
        paged.close(timeout=0)
    with pytest.raises(RegistryError, match="this registry is closed"):
        next(items)
    assert len(Paged.ended) == 1


def own_threads() -> set[threading.Thread]:
    """Return the threads of registries and their event loops, not those of other libraries."""
    names = ("datasources", "asyncio")
    return {thread for thread in threading.enumerate() if thread.name.startswith(names)}


def test_closing_ends_the_thread_and_the_connections() -> None:
    before = own_threads()
    cls = fresh(MemoryConnector)
    registry = blocking_registry_of(cls)
    registry.register_data_source(source())
    registry.list_items("s")
    assert cls.live == 1
    registry.close()
    registry.close()
    assert cls.live == 0
    assert own_threads() <= before
    with pytest.raises(RegistryError, match="this registry is closed"):
        registry.list_items("s")


async def test_a_registry_can_be_closed_where_an_event_loop_runs(tmp_path: Path) -> None:
    """As in notebooks and in asynchronous tests."""
    before = own_threads()
    with DataSourceRegistry(plugins=Plugins(index=[])) as registry:
        registry.register_connector_class("memory", fresh(AbleConnector))
        registry.register_data_source(source())
        registry.fetch("s", "a.csv", tmp_path)
    assert registry._loop.is_closed()
    assert own_threads() <= before


def test_closing_from_the_thread_of_the_registry_is_an_error(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    errors: list[RegistryError] = []

    def close(size: int, total: int | None) -> None:
        try:
            registry.close()
        except RegistryError as exc:
            errors.append(exc)

    registry.fetch("s", "a.csv", tmp_path, progress=close)
    assert "own thread" in str(errors[0])
    assert registry.exists("s")


def close_before_the_next_call(
    registry: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have another thread close the registry when the next call is handed to its loop."""
    submit = registry._submit

    def close_first(coroutine: Any) -> Any:
        closing = threading.Thread(target=registry.close)
        closing.start()
        closing.join()
        return submit(coroutine)

    monkeypatch.setattr(registry, "_submit", close_first)


def test_workspace_is_deleted_if_the_registry_is_closed_at_the_end_of_its_block(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry.workspace("chat-1", root=tmp_path) as session:
        session.fetch("s", "a.csv")
        close_before_the_next_call(registry, monkeypatch)
    assert os.listdir(tmp_path) == []


def test_stream_ends_if_the_registry_is_closed_at_the_end_of_its_block(
    registry: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry.open_stream("s", "a.csv") as stream:
        assert b"".join(stream)
        close_before_the_next_call(registry, monkeypatch)
    assert registry._closed


def test_stream_that_is_interrupted_is_closed_once_its_read_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, stopped, log = threading.Event(), threading.Event(), []

    class Streaming(AbleConnector):
        async def open_stream(self, identifier: str, **_: Any) -> ItemStream:
            async def chunks() -> AsyncIterator[bytes]:
                reading.set()
                try:
                    await run_in_thread(stopped.wait, on_cancel=stopped.set)
                    yield b""
                finally:
                    log.append("read")

            return ItemStream(chunks(), close=lambda: log.append("closed"))

    def interrupt() -> None:
        reading.wait()
        raise KeyboardInterrupt

    with blocking_registry_of(fresh(Streaming)) as registry:
        registry.register_data_source(source())
        submit = registry._submit

        def submit_and_interrupt(coroutine: Any) -> Any:
            monkeypatch.undo()
            future = submit(coroutine)
            monkeypatch.setattr(future, "result", interrupt)
            return future

        def read() -> None:
            with registry.open_stream("s", "a.csv") as stream:
                monkeypatch.setattr(registry, "_submit", submit_and_interrupt)
                next(stream)

        with pytest.raises(KeyboardInterrupt):
            read()
        assert log == ["read", "closed"]


def test_calls_under_way_end_when_another_thread_closes() -> None:
    class Slow(MemoryConnector):
        async def list_items(self, path: str | None = None) -> list[DataItem]:
            await asyncio.sleep(0.001)
            return await super().list_items(path)

    registry = blocking_registry_of(fresh(Slow))
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


@pytest.mark.parametrize("before", ["registry.exists('s')", "registry.close()"])
def test_a_child_of_a_fork_leaves_its_parents_workspace_alone(tmp_path: Path, before: str) -> None:
    script = (
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # of forks beside threads
        "from datasources.blocking import DataSourceRegistry\n"
        "from datasources.plugins import Plugins\n"
        "registry = DataSourceRegistry(plugins=Plugins(index=[]))\n"
        "with registry.workspace('w', root=sys.argv[1]) as workspace:\n"
        f"    {before}\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        assert os.waitpid(child, 0)[1] == 0\n"
        "        print(os.listdir(sys.argv[1] + '/w'))\n"
        "if not child:\n"
        "    registry.close()\n"
        "    os._exit(0)\n"
        "registry.close()\n"
    )
    assert run_python(script, str(tmp_path)) == "[]\n"
    assert os.listdir(tmp_path) == []


def test_a_child_of_a_fork_does_not_wait_for_a_lock_of_its_parent() -> None:
    script = (
        "import os, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # of forks beside threads
        "from datasources import RegistryError\n"
        "from datasources.blocking import DataSourceRegistry\n"
        "from datasources.plugins import Plugins\n"
        "registry = DataSourceRegistry(plugins=Plugins(index=[]))\n"
        "with registry._lock:\n"  # as another thread may hold it at that moment
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try:\n            registry.list_items('s')\n"
        "        except RegistryError as exc:\n            print(exc, flush=True)\n"
        "        registry.close()\n"
        "        os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "registry.close()\n"
    )
    assert "belongs to the process that made it" in run_python(script)
