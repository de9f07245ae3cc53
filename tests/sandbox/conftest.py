"""A source of files, a session that may read it, and the socket that serves the session."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
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
from datasources_agents.sandbox import SandboxUnavailableError
from datasources_agents.sandbox.backends import choose_backend
from datasources_agents.sandbox.interpreter import find_interpreter
from datasources_client import Client
from datasources_server import WorkspaceEndpoint, serve_workspace
from tests.conftest import IN_CI
from tests.sandbox.hosts import ORDINARY, WITH_BUBBLEWRAP, Host, ordinary_python

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


@pytest.fixture(scope="session")
def sandbox() -> None:
    """Skip the test where no sandbox works, but not in continuous integration."""
    try:
        asyncio.run(choose_backend(None, find_interpreter(sys.executable)))
    except SandboxUnavailableError as exc:
        if IN_CI:
            raise
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def open_host() -> Iterator[Callable[[str], Host]]:
    """A function that returns the host process of a name, which ends with the tests."""
    hosts: dict[str, Host] = {}
    with ExitStack() as stack:

        def open_one(name: str) -> Host:
            if name not in hosts:
                hosts[name] = make_host(name, stack)
            return hosts[name]

        yield open_one


@pytest.fixture(params=[*WITH_BUBBLEWRAP, "sandlock-ordinary-user"])
def host(request: pytest.FixtureRequest, sandbox: None, open_host: Callable[[str], Host]) -> Host:
    """A host process of root, if that runs the tests, and of an ordinary user, for each sandbox."""
    return open_host(request.param)


def make_host(name: str, stack: ExitStack, folder: Path | None = None) -> Host:
    """Start a host process; in a folder of its own, unless one is given."""
    sandbox, _, kind = name.partition("-")
    user, python, code_python = os.geteuid(), sys.executable, sys.executable
    if kind == "ordinary-user" and user != 0 and sandbox == "bubblewrap":
        pytest.skip("the tests run as an ordinary user already")
    if kind == "ordinary-user" and user == 0:
        user = ORDINARY
        python = code_python = reachable_python()
    if sandbox == "sandlock":
        skip_without_landlock()
        code_python = reachable_python()  # which root's host starts as an ordinary user, too
    # Outside the directory of the tests, whose folders are those of their user alone.
    if folder is None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        os.chown(folder, user, -1)
        os.chmod(folder, 0o1777)  # as `/tmp`
    return stack.enter_context(Host(user, python, folder, sandbox, code_python))


def reachable_python() -> str:
    if (python := ordinary_python()) is None:
        pytest.skip("no Python of this version can be run by an ordinary user")
    return python


def skip_without_landlock() -> None:
    sandlock = pytest.importorskip("sandlock", reason="sandlock is not installed")
    if sandlock.landlock_abi_version() < sandlock.min_landlock_abi():
        pytest.skip("this kernel has no Landlock that sandlock can use")


async def call(endpoint: WorkspaceEndpoint, function: Callable[[Client], T]) -> T:
    """Call a function with a client of the socket in a thread, as code in a sandbox would."""

    def run() -> T:
        with Client(socket=endpoint.socket, timeout=60) as client:
            return function(client)

    return await asyncio.to_thread(run)


async def failure(endpoint: WorkspaceEndpoint, function: Callable[[Client], Any]) -> Exception:
    """Return what a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the test looks at it)
        await call(endpoint, function)
    return caught.value
