"""A source of files, a session that may read it, and the socket that serves the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from datasources import (
    DataSourceConfig,
    DataSourceRegistry,
    Grant,
    Operation,
    Principal,
    WorkspaceSession,
    hookimpl,
)
from datasources_client import Client
from datasources_server import WorkspaceEndpoint, serve_workspace

T = TypeVar("T")


class Calls:
    """Observes the operations of a registry."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    @hookimpl
    def datasources_operation_started(self, operation: Operation) -> None:
        self.operations.append(operation)


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    async with DataSourceRegistry() as registry:
        yield registry


@pytest.fixture
def calls(registry: DataSourceRegistry) -> Calls:
    calls = Calls()
    registry.plugins.register_plugin(calls)
    return calls


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """The directory of the sources `lake` and `hidden`."""
    folder = tmp_path / "lake"
    (folder / "public").mkdir(parents=True)
    (folder / "public/orders.csv").write_text("id,total\n1,9.5\n2,20\n3,7\n")
    (folder / "big.bin").write_bytes(bytes(100_000))
    return folder


@pytest.fixture
async def session(registry: DataSourceRegistry, lake: Path) -> AsyncIterator[WorkspaceSession]:
    """A session of ann, who may read `lake`, and has no grant for `hidden`."""
    for name in ("lake", "hidden"):
        config = DataSourceConfig(name, "local_file", name, {"path": str(lake)})
        await registry.register_data_source(config)
    access = registry.access(Principal("ann", grants=[Grant("lake", {"read"})]))
    async with access.workspace("work", quota=1_000_000) as session:
        yield session


@pytest.fixture
async def endpoint(session: WorkspaceSession) -> AsyncIterator[WorkspaceEndpoint]:
    async with serve_workspace(session) as endpoint:
        yield endpoint


async def call(endpoint: WorkspaceEndpoint, function: Callable[[Client], T]) -> T:
    """Call a function with a client of the socket in a thread, as code in a sandbox would."""

    def run() -> T:
        with Client(socket=endpoint.socket, timeout=20) as client:
            return function(client)

    return await asyncio.to_thread(run)


async def failure(endpoint: WorkspaceEndpoint, function: Callable[[Client], Any]) -> Exception:
    """Return what a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the test looks at it)
        await call(endpoint, function)
    return caught.value
