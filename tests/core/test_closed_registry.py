"""A registry that was closed: every operation says so, whatever the store."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    CredentialManager,
    DataSourceRegistry,
    FetchRequest,
    Principal,
    RegistryError,
)
from tests.core.fakes import MemoryConnector, registry_of, source

Operation = Callable[[DataSourceRegistry, str], Any]


async def run(operation: Operation, registry: DataSourceRegistry, directory: str) -> None:
    outcome = operation(registry, directory)
    if inspect.isawaitable(outcome):
        await outcome


async def fetch_one_of_many(registry: DataSourceRegistry, directory: str) -> None:
    """Raise what `fetch_many` returns as the error of an item."""
    (result,) = await registry.fetch_many([FetchRequest("s", "a.csv")], directory)
    assert result.error is not None
    raise result.error


OPERATIONS: dict[str, Operation] = {
    "register_data_source": lambda r, _: r.register_data_source(source("new")),
    "register_data_sources": lambda r, _: r.register_data_sources([source("new")]),
    "register nothing": lambda r, _: r.register_data_sources([]),
    "update_data_source": lambda r, _: r.update_data_source("s", {"name": "New"}),
    "unregister_data_source": lambda r, _: r.unregister_data_source("s"),
    "pause": lambda r, _: r.pause("s", "maintenance"),
    "resume": lambda r, _: r.resume("s"),
    "exists": lambda r, _: r.exists("s"),
    "get_config": lambda r, _: r.get_config("s"),
    "list_data_sources": lambda r, _: r.list_data_sources(),
    "get_connector": lambda r, _: r.get_connector("s"),
    "connection": lambda r, _: r.connection("s").__aenter__(),
    "get_pool_stats": lambda r, _: r.get_pool_stats("s"),
    "test_connection": lambda r, _: r.test_connection("s"),
    "check_connection": lambda r, _: r.check_connection("s"),
    "check_config": lambda r, _: r.check_config(source("new")),
    "check_update": lambda r, _: r.check_update("s", {"name": "New"}),
    "discover": lambda r, _: r.discover("memory", {}),
    "list_items": lambda r, _: r.list_items("s"),
    "iter_items": lambda r, _: anext(r.iter_items("s")),
    "glob_items": lambda r, _: r.glob_items("s", "*"),
    "expand": lambda r, _: r.expand("s", "*"),
    "list_page": lambda r, _: r.list_page("s"),
    "get_metadata": lambda r, _: r.get_metadata("s", "a.csv"),
    "preview": lambda r, _: r.preview("s", "a.csv"),
    "fetch": lambda r, path: r.fetch("s", "a.csv", path),
    "fetch_many": fetch_one_of_many,
    "fetch_tree": lambda r, path: r.fetch_tree("s", None, path),
    "open_stream": lambda r, _: r.open_stream("s", "a.csv").__aenter__(),
    "limits": lambda r, _: r.limits("s"),
    "statistics": lambda r, _: r.statistics("s", "a.csv"),
    "upload": lambda r, _: r.upload("s", __file__),
    "workspace": lambda r, _: r.workspace("w"),
    "sweep_workspaces": lambda r, path: r.sweep_workspaces(path, 0),
    "access": lambda r, _: r.access(Principal("somebody")),
    "reencrypt": lambda r, _: r.reencrypt(),
}


@pytest.mark.parametrize("store", ["memory:", "sqlite:///{}/store.db"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_closed_registry_refuses_every_operation(
    name: str, store: str, tmp_path: Path
) -> None:
    keys = CredentialManager(CredentialManager.generate_key())
    registry = registry_of(MemoryConnector, credential_manager=keys, store=store.format(tmp_path))
    await registry.register_data_source(source())
    await registry.get_metadata("s", "a.csv")
    await registry.close()
    with pytest.raises(RegistryError, match=r"^this registry is closed$"):
        await run(OPERATIONS[name], registry, str(tmp_path))


async def test_registry_can_be_closed_twice() -> None:
    registry = registry_of(MemoryConnector)
    await registry.close()
    await registry.close()
