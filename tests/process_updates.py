"""Processes that update one source of a store at the same time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from datasources import CredentialManager, DataSourceConfig, DataSourceRegistry
from tests.core.subprocesses import environment

UPDATES = [100, pytest.param(1000, marks=pytest.mark.soak)]
_COUNT = """
import asyncio, json, sys
from datasources import ConflictError, DataSourceRegistry

async def main(store, updates):
    written, conflicts = [], 0
    async with await DataSourceRegistry.open(store=store) as registry:
        config = registry.get_config("s")
        print("ready", flush=True)
        sys.stdin.readline()
        while len(written) < updates:
            changes = {"metadata": {"count": config.metadata["count"] + 1}}
            try:
                await registry.update_data_source("s", changes, expected=config.version)
            except ConflictError:
                conflicts += 1
            else:
                written.append(config.metadata["count"] + 1)
            config = registry.get_config("s")
    print(json.dumps([written, conflicts]))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def check_that_processes_lose_no_update(store: str, folder: Path, updates: int) -> None:
    """Have two processes count up in one source, each by `updates`.

    Each count is written by exactly one of them, so that each of the other attempts has got a
    `ConflictError`. There is one at least, as both have read the same version when they begin.
    """
    key = CredentialManager.generate_key()
    opening = DataSourceRegistry.open(store=store, credential_manager=CredentialManager(key))
    async with await opening as registry:
        await registry.register_data_source(
            DataSourceConfig("s", "local_file", "S", {"path": str(folder)}, metadata={"count": 0})
        )
    outputs = await asyncio.to_thread(_run, store, updates, key)
    assert [errors for _, errors in outputs] == ["", ""]
    (first, first_conflicts), (second, second_conflicts) = (json.loads(out) for out, _ in outputs)
    assert sorted(first + second) == list(range(1, 2 * updates + 1))
    assert first_conflicts + second_conflicts > 0
    opening = DataSourceRegistry.open(store=store, credential_manager=CredentialManager(key))
    async with await opening as registry:
        assert registry.get_config("s").metadata == {"count": 2 * updates}


def _run(store: str, updates: int, key: str) -> list[tuple[str, str]]:
    """Run both processes, which begin to count when both have read the source; return what they printed."""
    command = [sys.executable, "-W", "error", "-c", _COUNT, store, str(updates)]
    variables = environment() | {"DATASOURCE_ENCRYPTION_KEY": key}
    processes = [
        subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n", process.communicate()
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        return [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
