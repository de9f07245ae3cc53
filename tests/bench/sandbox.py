"""Runs in a sandbox beside a bare Python, and its socket beside calls in the same process."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from datasources import (
    DataSourceConfig,
    DataSourceRegistry,
    Grant,
    Limits,
    Policy,
    Principal,
    WorkspaceSession,
)
from datasources_agents.sandbox import Runner
from datasources_client import Client
from datasources_server import serve_workspace
from tests.bench.measuring import measured

pytestmark = pytest.mark.bench

ROUNDS = 15
LARGE = 512 << 20


def write_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "orders.csv").write_text("id,total\n" + "1,9.5\n" * 100)
    block = bytes(range(256)) * 4096
    with open(folder / "large.bin", "wb") as file:
        file.writelines(block for _ in range(LARGE // len(block)))


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[WorkspaceSession]:
    folder = tmp_path / "lake"
    write_files(folder)
    unlimited = Policy(limits=Limits(max_bytes=None))
    async with DataSourceRegistry(policy=unlimited) as registry:
        config = DataSourceConfig("lake", "local_file", "lake", {"path": str(folder)})
        await registry.register_data_source(config)
        access = registry.access(Principal("ann", grants=[Grant("lake", {"read"})]))
        async with access.workspace("bench") as session:
            yield session


async def best(call: Callable[[], Awaitable[float]]) -> float:
    """Return the median of what a call measures, in seconds."""
    return statistics.median([await call() for _ in range(ROUNDS)])


def time_bare() -> float:
    started = time.perf_counter()
    command = [sys.executable, "-c", "print(1)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return time.perf_counter() - started


async def test_time_to_the_first_line_of_code(session: WorkspaceSession) -> None:
    async def bare() -> float:
        return await asyncio.to_thread(time_bare)

    async def in_sandbox() -> float:
        moments: list[float] = []
        started = time.perf_counter()
        await Runner().run(
            "print(1)", session, on_output=lambda _: moments.append(time.perf_counter())
        )
        return moments[0] - started

    await in_sandbox()
    plain, boxed = await best(bare), await best(in_sandbox)
    print(f"\nfirst line: bare {plain * 1e3:.0f} ms, sandbox {boxed * 1e3:.0f} ms")
    assert boxed - plain <= 0.15


async def test_preview_through_the_socket(session: WorkspaceSession) -> None:
    async with serve_workspace(session) as endpoint:
        with Client(socket=endpoint.socket) as client:

            async def direct() -> float:
                started = time.perf_counter()
                await session.preview("lake", "orders.csv")
                return time.perf_counter() - started

            async def by_socket() -> float:
                return await asyncio.to_thread(ask)

            def ask() -> float:
                started = time.perf_counter()
                client.preview("lake", "orders.csv")
                return time.perf_counter() - started

            await by_socket()
            here, there = await best(direct), await best(by_socket)
    print(f"\npreview: in process {here * 1e3:.2f} ms, by the socket {there * 1e3:.2f} ms")
    assert there - here <= 0.003


async def test_throughput_of_a_large_fetch(session: WorkspaceSession) -> None:
    async def direct() -> float:
        started = time.perf_counter()
        await session.fetch("lake", "large.bin")
        return time.perf_counter() - started

    async with serve_workspace(session) as endpoint:
        with Client(socket=endpoint.socket) as client:

            async def by_socket() -> float:
                started = time.perf_counter()
                await asyncio.to_thread(client.fetch_here, "lake", "large.bin", "/workspace")
                return time.perf_counter() - started

            await direct()
            pairs = [(await direct(), await by_socket()) for _ in range(5)]
    ratio = statistics.median(here / there for here, there in pairs)
    print(f"\nfetch of 512 MiB: by the socket {ratio:.2f} x of in process")
    assert ratio >= 0.95


FORK_BOMB = """
import os
while True:
    try: os.fork()
    except OSError: pass
"""
FILES = """
for number in range(8000): open(f"f{number}", "w").close()
"""


@pytest.mark.parametrize("code", [FORK_BOMB, FILES], ids=["fork bomb", "files"])
async def test_host_answers_while_code_attacks(session: WorkspaceSession, code: str) -> None:
    result, figures = await measured(lambda: Runner().run(code, session, timeout=3, processes=32))
    print(f"\n{result.reason}: longest stall {figures['stall'] * 1e3:.0f} ms")
    assert figures["stall"] <= 0.05
